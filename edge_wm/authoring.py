"""Make a bundle from what a training script leaves behind: graphs, a card, and a spec.

The spec is the manifest with files in place of digests, as YAML or JSON, in the folder of its
files (docs/bundle.md shows one in full):

    functions:
      dynamics:
        graphs: {onnx: dynamics.onnx, tflite: dynamics.tflite}
        inputs:  [{tensor: z, source: belief.z, shape: [-1, 64]}, ...]
        outputs: [{tensor: next, target: belief.z, shape: [-1, 64]}]
    reference:                      # optional; what is not given is made here
      - {function: dynamics, inputs: {z: z.npy, action: a.npy}, outputs: {next: next.npy},
         tolerance: 0.001}
    accuracy_card: accuracy.json    # or the numbers themselves
    calibration_sha256: data.mcap   # or 64 hex digits
    model_card: MODEL_CARD.md

A function that has an ONNX graph and no step program gets one, compiled here in float32, so that
the native kernels can run it; what the compiler cannot express keeps its ONNX graph alone, and
`Built.not_native` says why. (`edge-wm quantize` makes int8 programs of a built bundle.)

Every function gets a reference case: the inputs given, or seeded random ones; the outputs
given (by the training framework, say), or those of the graph itself. All graphs of a function
are then run on the inputs and must agree with the outputs within the tolerance, so a wrong
export is found here and not on a robot.

Invariant: a bundle is written only after every graph has passed the structural check and has
reproduced its reference outputs.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from edge_wm.bundle import Function, Manifest, SigningKey, write_bundle
from edge_wm.bundle.container import read_file
from edge_wm.bundle.manifest import Input, Output, manifest_from
from edge_wm.bundle.program import write_program
from edge_wm.bundle.structure import check_graph
from edge_wm.compiler import compile_graph
from edge_wm.errors import BackendError, BundleError, ModelError, UnsupportedOperation, UsageError
from edge_wm.types import Array

MAX_SPEC = 8 * 2**20
SPEC_NAMES = ("manifest.yaml", "manifest.yml", "manifest.json")
BATCH = 4  # of reference cases made here
TOLERANCE = 1e-4  # of reference cases made here; see ReferenceCase for what it means
SEED = 0

# Runs one graph: (function's name, graph format, file, declaration, inputs) -> outputs.
Run = Callable[[str, str, bytes, Function, Mapping[str, Array]], Mapping[str, Array]]


@dataclass(frozen=True)
class Built:
    """What `build_bundle` made."""

    path: Path
    manifest: Manifest
    parity: Mapping[str, float]  # "dynamics.onnx" -> the largest error, as tolerances count it
    not_native: Mapping[str, str]  # function -> why the native kernels cannot run it


def build_bundle(spec: Path, out: Path, key: SigningKey, run: Run) -> Built:
    """Build, check and sign a bundle.

    spec: the spec file, or a folder with a manifest.yaml or manifest.json.

    Raises: UsageError (a file is missing), BundleError (spec), ModelError (a graph's structure,
    or outputs that do not agree), BackendError (from `run`), SystemTroubleError.
    """
    spec = _spec_file(spec)
    where, files = f"spec {spec.name}", _Files(spec.parent)
    document = _document(spec)
    cases = document.pop("reference", [])
    functions = _mapping(document, "functions", where)
    for name in functions:
        graphs = _mapping(_mapping(functions, name, where), "graphs", where)
        graphs.update({kind: files.keep(path) for kind, path in graphs.items()})
    if isinstance(document.get("accuracy_card"), str):
        document["accuracy_card"] = json.loads(files.read(document["accuracy_card"]))
    if document.get("model_card"):
        document["model_card"] = files.keep(document["model_card"])
    calibration = document.get("calibration_sha256")
    if isinstance(calibration, str) and not _is_digest(calibration):
        document["calibration_sha256"] = hashlib.sha256(files.read(calibration)).hexdigest()
    manifest = manifest_from(document, where, strict=False)
    for name, function in manifest.functions.items():
        for kind, digest in function.graphs.items():
            check_graph(kind, files.blobs[digest], manifest, name, f"{where}: {name}.{kind}")
    programs, not_native = _programs(manifest, files, where)
    if programs:
        for name, digest in programs.items():
            document["functions"][name]["graphs"]["program"] = digest
        manifest = manifest_from(document, where, strict=False)
    reference, parity = _references(manifest, cases, files, run, where)
    document = msgspec.to_builtins(manifest) | {"reference": reference}
    manifest = manifest_from(document, where)
    write_bundle(out, manifest, list(files.blobs.values()), key)
    return Built(out, manifest, parity, not_native)


def _programs(
    manifest: Manifest, files: _Files, where: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Step programs of the functions that have none, by digest; and why some cannot have one."""
    programs, refused = dict[str, str](), dict[str, str]()
    for name, function in manifest.functions.items():
        if "program" in function.graphs or "onnx" not in function.graphs:
            continue
        try:
            program = compile_graph(
                files.blobs[function.graphs["onnx"]], function, f"{where}: {name}.onnx"
            )
        except (UnsupportedOperation, BackendError) as error:  # also where onnx is missing
            refused[name] = str(error)
        else:
            programs[name] = files.keep_bytes(write_program(program))
    return programs, refused


# ---- files ------------------------------------------------------------------------------
class _Files:
    """The files beside the spec; what `keep` was asked for goes into the bundle."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs: dict[str, bytes] = {}

    def read(self, path: object) -> bytes:
        if not isinstance(path, str):
            raise UsageError(f"the spec must name a file beside it, got {path!r}")
        return read_file(self.folder / path)

    def keep(self, path: object) -> str:
        return self.keep_bytes(self.read(path))

    def keep_bytes(self, blob: bytes) -> str:
        digest = hashlib.sha256(blob).hexdigest()
        self.blobs[digest] = blob
        return digest

    def array(self, path: object) -> Array:
        self.read(path)  # names a missing file as every other
        try:
            array = np.load(self.folder / str(path), allow_pickle=False)
        except ValueError as error:
            raise UsageError(f"{path} must be a .npy file: {error}") from None
        if not isinstance(array, np.ndarray):
            raise UsageError(f"{path} must be a .npy file with one array")
        return array


def _spec_file(spec: Path) -> Path:
    if not spec.is_dir():
        return spec
    for name in SPEC_NAMES:
        if (spec / name).is_file():
            return spec / name
    raise UsageError(f"there is no {' or '.join(SPEC_NAMES)} in {spec}; name the spec file")


def _document(spec: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(read_file(spec, MAX_SPEC))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"spec {spec.name}: must be YAML or JSON: {error}") from None
    if not isinstance(document, dict):
        raise BundleError(f"spec {spec.name}: must be a mapping, as docs/bundle.md shows")
    return document


def _mapping(document: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    found = document.get(key)
    if not isinstance(found, dict):
        raise BundleError(f"{where}: {key} must be a mapping, got {found!r}")
    return found


def _is_digest(text: str) -> bool:
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


# ---- reference cases --------------------------------------------------------------------
def _references(
    manifest: Manifest, given: object, files: _Files, run: Run, where: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Every reference case with digests, and how well each graph reproduced its function's."""
    if not isinstance(given, list) or not all(isinstance(case, dict) for case in given):
        raise BundleError(f"{where}: reference must be a list of cases, as docs/bundle.md shows")
    covered = {case.get("function") for case in given}
    made = [{"function": name} for name in manifest.functions if name not in covered]
    cases, parity = [], dict[str, float]()
    for number, case in enumerate([*given, *made]):
        name = case.get("function")
        function = {str(key): value for key, value in manifest.functions.items()}.get(str(name))
        at = f"{where}: reference[{number}]"
        if function is None:
            raise BundleError(f"{at}.function {name!r} is not among functions")
        if unknown := sorted(set(case) - {"function", "inputs", "outputs", "tolerance"}):
            raise BundleError(f"{at} has an unknown field {unknown[0]!r}")
        tolerance = float(case.get("tolerance", TOLERANCE))
        if "inputs" in case:
            inputs = _arrays(files, function.inputs, case["inputs"], f"{at}.inputs")
        else:
            inputs = {tensor.tensor: sample_input(manifest, tensor) for tensor in function.inputs}
        wanted: Mapping[str, Array] | None = None
        if "outputs" in case:
            wanted = _arrays(files, function.outputs, case["outputs"], f"{at}.outputs")
        for kind, digest in function.graphs.items():
            outputs = run(str(name), kind, files.blobs[digest], function, inputs)
            wanted = wanted or outputs
            error = max(_error(outputs[o.tensor], wanted[o.tensor]) for o in function.outputs)
            parity[f"{name}.{kind}"] = max(error, parity.get(f"{name}.{kind}", 0.0))
            if not error <= tolerance:
                raise ModelError(
                    f"{at}: {name}.{kind} must reproduce the reference outputs within "
                    f"{tolerance:g}, got an error of {error:g}; export it again, or say in "
                    "`tolerance` what is good enough"
                )
        cases.append(
            {
                "function": name,
                "inputs": _kept(files, function.inputs, inputs),
                "outputs": _kept(files, function.outputs, wanted or {}),
                "tolerance": tolerance,
            }
        )
    return cases, parity


def _arrays(
    files: _Files, tensors: tuple[Input | Output, ...], paths: object, at: str
) -> dict[str, Array]:
    names = {tensor.tensor for tensor in tensors}
    if not isinstance(paths, dict) or set(paths) != names:
        raise BundleError(f"{at} must give a .npy file for {', '.join(sorted(names))}")
    arrays = {}
    for tensor in tensors:
        array = files.array(paths[tensor.tensor])
        sizes = zip(tensor.shape, array.shape, strict=False)
        fits = len(tensor.shape) == array.ndim and all(want in (-1, have) for want, have in sizes)
        if not fits or array.dtype != np.dtype(tensor.dtype):
            raise BundleError(
                f"{at}.{tensor.tensor} must be {tensor.dtype} {list(tensor.shape)}, "
                f"got {array.dtype} {list(array.shape)} in {paths[tensor.tensor]}"
            )
        arrays[tensor.tensor] = np.ascontiguousarray(array)
    return arrays


def sample_input(manifest: Manifest, tensor: Input) -> Array:
    """Seeded, plausible values for one input, a batch of 4 where it has a batch axis.

    Images and tokens are uniform over their bytes, durations within the manifest's range, all
    else is standard normal.
    """
    name = int.from_bytes(hashlib.sha256(tensor.tensor.encode()).digest()[:8], "little")
    random = np.random.Generator(np.random.Philox(key=[SEED, name]))
    shape = tuple(BATCH if size == -1 else size for size in tensor.shape)
    dtype = np.dtype(tensor.dtype)
    if tensor.source == "dt" and manifest.dt:
        return random.uniform(manifest.dt.min_s, manifest.dt.max_s, shape).astype(dtype)
    if dtype.kind in "ui":
        return random.integers(0, min(255, np.iinfo(dtype).max), shape, endpoint=True).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


def _error(got: Array, want: Array) -> float:
    """The largest |got - want| / max(1, |want|); infinite if either is not finite or shaped."""
    if got.shape != want.shape or not (np.isfinite(got).all() and np.isfinite(want).all()):
        return math.inf
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    return float(np.max(difference / np.maximum(1.0, np.abs(want)), initial=0.0))


def _kept(
    files: _Files, tensors: tuple[Input | Output, ...], arrays: Mapping[str, Array]
) -> dict[str, str]:
    return {
        tensor.tensor: files.keep_bytes(
            arrays[tensor.tensor].astype(np.dtype(tensor.dtype).newbyteorder("<")).tobytes()
        )
        for tensor in tensors
    }
