"""The bundle with int8 programs in it.

An int8 program has reference cases of its own: it must give its own bits (tolerance 1e-6, since
every instruction set gives the same), not those of the float32 graph, which keep theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edge_wm.authoring import TOLERANCE, sample_input
from edge_wm.backends.reference import disagreement
from edge_wm.bundle import Function, SigningKey, write_bundle
from edge_wm.bundle.manifest import ReferenceCase, digests, manifest_from
from edge_wm.errors import ModelError, UsageError
from edge_wm.quantize.layers import Layer, Programs
from edge_wm.types import Array

if TYPE_CHECKING:
    from edge_wm.quantize import Quantized

EXACT = 1e-6  # of int8 programs


@dataclass(frozen=True)
class Written:
    """What was written."""

    path: Path
    size: int  # bytes of the file
    programs: Mapping[str, int]  # function -> bytes of its step program
    graphs: Mapping[str, int]  # function -> bytes of the graph that the program came from


def write_quantized(
    quantized: Quantized, out: Path, key: SigningKey, *, programs_only: bool = False
) -> Written:
    """Write the bundle with the chosen layers in int8 and the card.

    programs_only: leave the ONNX and TFLite graphs out.

    Raises: UsageError (a function would have no graph), ModelError, BundleError,
    SystemTroubleError.
    """
    card = {"int8": quantized.card}
    return _write(
        quantized.programs,
        quantized.choice.int8,
        out,
        key,
        programs_only=programs_only,
        card=card,
        calibration=quantized.data.sha256,
    )


def write_float32(programs: Programs, out: Path, key: SigningKey) -> Written:
    """The same bundle with float32 programs, to compare with."""
    return _write(programs, (), out, key, programs_only=False, card={}, calibration=None)


def _write(
    programs: Programs,
    int8: tuple[Layer, ...],
    out: Path,
    key: SigningKey,
    *,
    programs_only: bool,
    card: dict[str, Any],
    calibration: str | None,
) -> Written:
    bundle = programs.bundle
    document = msgspec.to_builtins(bundle.manifest)
    blobs = {d: bytes(bundle.blob(d)) for d in digests(bundle.manifest)}

    def keep(data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return digest

    cases: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    sizes, sources = dict[str, int](), dict[str, int]()
    for name, function in programs.functions.items():
        graphs = document["functions"][name]["graphs"]
        program = programs.blob(name, int8)
        if program is not None:
            sizes[name], sources[name] = len(program), len(blobs[function.graphs["onnx"]])
            graphs["program"] = keep(program)
        if programs_only and "program" not in graphs:
            raise UsageError(
                f"--programs-only: function {name} has no step program "
                f"({programs.not_native[name]}); write the bundle with its graphs"
            )
        if programs_only:
            document["functions"][name]["graphs"] = graphs = {"program": graphs["program"]}
        if program is None:
            cases += [
                msgspec.to_builtins(c) for c in bundle.manifest.reference if c.function == name
            ]
            continue
        exact = _cases(programs, name, function, keep)
        if not programs.is_int8(name, int8):
            cases += [msgspec.to_builtins(case) for case in exact]
            continue
        others = tuple(kind for kind in graphs if kind != "program")
        for case in exact:
            if others:
                cases.append(msgspec.to_builtins(case) | {"formats": others})
            given = _inputs(case, function, blobs)
            outputs = programs.graph(name, int8).run(given)
            own.append(
                msgspec.to_builtins(case)
                | {
                    "outputs": {tensor: keep(_raw(value)) for tensor, value in outputs.items()},
                    "tolerance": EXACT,
                    "formats": ("program",),
                }
            )
    document["reference"] = cases + own
    document["accuracy_card"] = {
        k: v for k, v in document["accuracy_card"].items() if k != "int8"
    } | card
    document["calibration_sha256"] = calibration or document["calibration_sha256"]
    document.pop("blobs", None)
    manifest = manifest_from(document, f"bundle {out.name}")
    write_bundle(out, manifest, [blobs[d] for d in sorted(digests(manifest))], key)
    return Written(out, out.stat().st_size, sizes, sources)


def _cases(programs: Programs, name: str, function: Function, keep: Any) -> list[ReferenceCase]:
    """The cases that hold for the ONNX graph, for all formats; a seeded one if there is none.

    Raises: ModelError, if the float32 program does not reproduce them.
    """
    manifest, bundle = programs.bundle.manifest, programs.bundle
    found = [
        msgspec.structs.replace(case, formats=())
        for case in manifest.reference
        if case.function == name and (not case.formats or "onnx" in case.formats)
    ]
    graph = programs.graph(name, ())
    if not found:
        inputs = {i.tensor: sample_input(manifest, i) for i in function.inputs}
        outputs = graph.run(inputs)
        return [
            ReferenceCase(
                function=next(n for n in manifest.functions if n == name),
                inputs={tensor: keep(_raw(value)) for tensor, value in inputs.items()},
                outputs={tensor: keep(_raw(value)) for tensor, value in outputs.items()},
                tolerance=TOLERANCE,
            )
        ]
    for case in found:
        got = graph.run(_inputs(case, function, bundle.blobs))
        for o in function.outputs:
            want = np.frombuffer(bundle.blob(case.outputs[o.tensor]), o.dtype).reshape(o.shape)
            problem = disagreement(got[o.tensor], want, case.tolerance)
            if problem:
                raise ModelError(
                    f"function {name}: its float32 step program differs from the reference output "
                    f"{o.tensor!r}: {problem}; leave it out with --functions"
                )
    return found


def _inputs(
    case: ReferenceCase, function: Function, blobs: Mapping[str, bytes | memoryview]
) -> dict[str, Array]:
    return {
        i.tensor: np.frombuffer(blobs[case.inputs[i.tensor]], i.dtype).reshape(i.shape)
        for i in function.inputs
    }


def _raw(value: Array) -> bytes:
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
