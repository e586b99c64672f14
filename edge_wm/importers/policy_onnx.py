"""Feed-forward policies in ONNX: one input of N numbers, one output of an action.

Such a file does not say what its numbers are. A *layout* does (YAML, examples in `layouts/`):

    format: edge-wm/policy-layout/1
    name: go1_joystick
    version: 1.0.0
    description: ...
    license: Apache-2.0
    step_ms: 20
    streams:                      # as in a bundle's needs
      gyro: {type: vector, shape: [3], unit: rad/s}
      joints: {type: joint_state, shape: [2, 12], unit: rad}
    input:                        # the policy's input, in order
      - {stream: gyro}
      - {stream: joints, begin: 0, end: 12, minus: [0.1, 0.9, ...]}     numbers of the flat stream
      - {last_action: true}       # in the policy's own numbers
      - {goal: 3}                 # so many numbers of a latent goal: a command
    axes:                         # the policy's output, in order: SI = offset + scale * output
      - {name: FR_hip, kind: position, unit: rad, scale: 0.5, offset: 0.1}

The graph stays what it is, lifted to opset 20. Before it, the parts are put together:

    encoder    streams ──► seen          posterior   seen, last action ──► belief
    policy     belief, goal ──concat──► the file's graph ──► action.mean
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
import yaml
from onnx import compose

from edge_wm.bundle.manifest import AxisNeed, StreamNeed
from edge_wm.errors import CheckpointError, UsageError
from edge_wm.importers.graph_writer import GraphWriter
from edge_wm.importers.reading import read_checkpoint
from edge_wm.importers.spec import ImportedFunction, Port, write_spec

LAYOUTS = Path(__file__).with_name("layouts")
MAX_LAYOUT = 1 << 20

CARD = """# {name}

{description}

Imported by `edge-wm import policy-onnx` from {file}. It acts, and imagines nothing: no dynamics.

| | |
|---|---|
| input | {inputs} |
| actions | {actions} |
| a step | {step_ms:g} ms |
| license | {license} |

Limits: those of its training; the guard holds what it asks for to the robot file's limits.
"""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Some numbers of the policy's input; exactly one of stream, last_action, goal."""

    stream: str | None = None
    begin: int = 0
    end: int | None = None
    minus: tuple[float, ...] = ()
    last_action: Literal[True] | None = None
    goal: int | None = None


class _Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["edge-wm/policy-layout/1"]
    name: str
    version: str
    description: str
    license: str
    step_ms: float
    streams: dict[str, dict[str, Any]]
    input: tuple[_Part, ...]
    axes: tuple[AxisNeed, ...]


def layouts() -> list[str]:
    """The layouts that come with edge-wm."""
    return sorted(path.stem for path in LAYOUTS.glob("*.yaml"))


def import_policy_onnx(checkpoint: Path, folder: Path, layout: str | None) -> None:
    """Write the spec of the policy into `folder`.

    layout: the name of one that comes with edge-wm, or a file.

    Raises: CheckpointError, UsageError (the layout), BackendError, SystemTroubleError.
    """
    if layout is None:
        raise UsageError(
            f"--layout must say what the policy's numbers are: one of {', '.join(layouts())}, or a "
            "file as docs/importing.md shows"
        )
    said = _load(layout)
    needs = _streams(said, layout)
    widths = [_width(part, said, needs, f"layout {layout}: input[{i}]")
              for i, part in enumerate(said.input)]  # fmt: skip
    model = onnx.load_model_from_string(read_checkpoint(checkpoint, "onnx").blob("onnx"))
    ends = _ends(model, checkpoint.name, sum(widths), len(said.axes))
    functions = _functions(said, needs, widths, model, *ends)
    card = CARD.format(
        name=said.name, description=said.description, file=checkpoint.name, license=said.license,
        step_ms=said.step_ms, actions=", ".join(axis.name for axis in said.axes),
        inputs=", ".join(f"{_title(p)} ({w})" for p, w in zip(said.input, widths, strict=True)),
    )  # fmt: skip
    write_spec(folder, _manifest(said, needs, widths), functions, card)


def _load(layout: str) -> _Layout:
    shipped = LAYOUTS / f"{layout}.yaml"
    path = shipped if layout in layouts() else Path(layout)
    try:
        text = path.read_bytes()[: MAX_LAYOUT + 1]
    except OSError as error:
        raise UsageError(
            f"--layout must be one of {', '.join(layouts())}, or a file; {layout}: {error.strerror}"
        ) from None
    if len(text) > MAX_LAYOUT:
        raise UsageError(f"layout {layout}: must have at most {MAX_LAYOUT:,} bytes; give another")
    try:
        said = msgspec.convert(yaml.safe_load(text), _Layout, strict=False)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, msgspec.ValidationError) as error:
        raise UsageError(f"layout {layout}: {error}; docs/importing.md shows one") from None
    return said


def _streams(said: _Layout, layout: str) -> dict[str, StreamNeed]:
    try:
        return {
            name: msgspec.convert({"dtype": "float32"} | stream, StreamNeed, strict=False)
            for name, stream in said.streams.items()
        }
    except msgspec.ValidationError as error:
        raise UsageError(f"layout {layout}: streams: {error}") from None


def _width(part: _Part, said: _Layout, needs: dict[str, StreamNeed], where: str) -> int:
    """How many numbers a part has. Raises: UsageError, naming `where`."""
    kinds = [part.stream is not None, part.last_action is not None, part.goal is not None]
    if sum(kinds) != 1:
        raise UsageError(f"{where} must be one of stream, last_action and goal, got {sum(kinds)}")
    if part.last_action:
        return len(said.axes)
    if part.goal is not None:
        if part.goal < 1 or sum(p.goal is not None for p in said.input) > 1:
            raise UsageError(f"{where}.goal must be at least 1, and once, got {part.goal}")
        return part.goal
    assert part.stream is not None
    if part.stream not in needs:
        raise UsageError(f"{where}.stream must be one of {', '.join(needs)}, got {part.stream!r}")
    size = math.prod(needs[part.stream].shape)
    end = size if part.end is None else part.end
    if not 0 <= part.begin < end <= size:
        raise UsageError(f"{where} must be from 0 to {size}, got {part.begin} to {end}")
    if part.minus and len(part.minus) != end - part.begin:
        raise UsageError(f"{where}.minus must have {end - part.begin} numbers, got "
                         f"{len(part.minus)}")  # fmt: skip
    return end - part.begin


def _title(part: _Part) -> str:
    return part.stream or ("last action" if part.last_action else "command")


def _ends(model: onnx.ModelProto, name: str, inputs: int, outputs: int) -> tuple[str, str]:
    """The names of the graph's input and output, which must have the layout's sizes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    given = [info for info in model.graph.input if info.name not in constants]
    found = []
    for role, infos, size in (("input", given, inputs), ("output", model.graph.output, outputs)):
        if len(infos) != 1:
            names = ", ".join(repr(info.name) for info in infos) or "none"
            raise CheckpointError(
                f"checkpoint {name}: must have one {role}, got {names}; export the policy alone, "
                "without a state"
            )
        shape = [
            dim.dim_value if dim.HasField("dim_value") else -1
            for dim in infos[0].type.tensor_type.shape.dim
        ]
        if shape not in ([1, size], [-1, size], [size]):
            raise CheckpointError(
                f"checkpoint {name}: tensor {infos[0].name!r} must be [1, {size}], as the layout "
                f"says, got {shape}; give the layout that this policy was trained with"
            )
        if infos[0].type.tensor_type.elem_type != onnx.TensorProto.FLOAT or shape == [size]:
            raise CheckpointError(
                f"checkpoint {name}: tensor {infos[0].name!r} must be float32 with a batch axis; "
                "export it so"
            )
        found.append(infos[0].name)
    return found[0], found[1]


# ---- functions ------------------------------------------------------------------------------
def _functions(
    said: _Layout,
    needs: dict[str, StreamNeed],
    widths: list[int],
    model: onnx.ModelProto,
    source: str,
    target: str,
) -> dict[str, ImportedFunction]:
    seen = sum(w for part, w in zip(said.input, widths, strict=True) if part.stream)
    acts = len(said.axes)
    remembers = any(part.last_action for part in said.input)
    made = {"encoder": _encoder(said, needs, seen, "latent" if remembers else "belief")}
    if remembers:
        w = GraphWriter(rows=1)
        w.output("seen_now", w.input("seen", seen), seen)
        w.output("last_now", w.input("last_action", acts), acts)
        made["posterior"] = ImportedFunction(
            w.file(),
            (Port("seen", "latent.seen", (1, seen)), Port("last_action", "last_action", (1, acts))),
            (
                Port("seen_now", "belief.seen", (1, seen)),
                Port("last_now", "belief.last", (1, acts)),
            ),
        )
    made["policy"] = _policy(said, widths, seen, model, source, target)
    return made


def _encoder(
    said: _Layout, needs: dict[str, StreamNeed], seen: int, gives: str
) -> ImportedFunction:
    w = GraphWriter(rows=1)
    read = list(dict.fromkeys(part.stream for part in said.input if part.stream))
    flat = {}
    for name in read:
        shape = needs[name].shape
        tensor = w.input(name, *shape)
        flat[name] = w.do("Reshape", tensor, w.constant([1, math.prod(shape)]))
    parts = []
    for part in said.input:
        if part.stream:
            end = math.prod(needs[part.stream].shape) if part.end is None else part.end
            value = w.columns(flat[part.stream], part.begin, end)
            if part.minus:
                value = w.do("Sub", value, w.constant(np.array([part.minus])))
            parts.append(value)
    w.output("encoded", w.do("Concat", *parts, axis=1), seen)
    return ImportedFunction(
        w.file(),
        tuple(Port(name, f"observation.{name}", (1, *needs[name].shape)) for name in read),
        (Port("encoded", f"{gives}.seen", (1, seen)),),
    )


def _policy(
    said: _Layout, widths: list[int], seen: int, model: onnx.ModelProto, source: str, target: str
) -> ImportedFunction:
    w = GraphWriter(rows=1)
    acts = len(said.axes)
    ports = [Port(w.input("seen", seen), "belief.seen", (1, seen))]
    parts, at = [], 0
    for part, width in zip(said.input, widths, strict=True):
        if part.stream:
            parts.append(w.columns("seen", at, at + width))
            at += width
        elif part.last_action:
            parts.append(w.input("last", acts))
            ports.append(Port("last", "belief.last", (1, acts)))
        else:
            parts.append(w.input("command", width))
            ports.append(Port("command", "goal.latent", (1, width)))
    together = w.do("Concat", *parts, axis=1)
    inner = compose.add_prefix(model, "policy/")
    w.output("action", w.include(inner, f"policy/{source}", together, f"policy/{target}"), acts)
    return ImportedFunction(w.file(), tuple(ports), (Port("action", "action.mean", (1, acts)),))


def _manifest(said: _Layout, needs: dict[str, StreamNeed], widths: list[int]) -> dict[str, Any]:
    seen = sum(w for part, w in zip(said.input, widths, strict=True) if part.stream)
    belief = [{"name": "seen", "shape": [seen]}]
    if any(part.last_action for part in said.input):
        belief.append({"name": "last", "shape": [len(said.axes)]})
    return {
        "name": said.name,
        "version": said.version,
        "description": said.description,
        "license": said.license,
        "needs": {
            "streams": json.loads(msgspec.json.encode(needs)),
            "axes": json.loads(msgspec.json.encode(said.axes)),
        },
        "step_ns": round(said.step_ms * 1e6),
        "horizon": 1,
        "belief": belief,
        "goal_kinds": ["latent"] if any(part.goal for part in said.input) else [],
    }
