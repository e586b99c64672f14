"""Look at a graph before an inference library does.

Model files exist that crash, hang or fill the memory of the libraries that read them. So every
graph of a bundle is first read by our own bounded readers (onnx_file.py, tflite_file.py,
program.py), its operators and sizes are checked against a closed list and limits (sizes.py), and
its inputs and outputs against the manifest. None of this imports onnx, flatbuffers or an inference
library.

Invariant: a graph that passes has the manifest's inputs and outputs, for every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from edge_wm.bundle.manifest import ROLLED_OUT, Function, Input, Manifest, Output
from edge_wm.bundle.onnx_file import Port, read_onnx
from edge_wm.bundle.program import read_program
from edge_wm.bundle.sizes import infer
from edge_wm.bundle.tflite_file import read_tflite
from edge_wm.bundle.tflite_sizes import TFLITE_RULES
from edge_wm.errors import ModelError

Shape = tuple[int, ...]


def check_graph(
    kind: str, blob: bytes | memoryview, manifest: Manifest, name: str, where: str
) -> None:
    """Check one graph file of the function `name`.

    Raises: ModelError, naming `where` and what is wrong inside.
    """
    function = manifest.functions[name]  # type: ignore[index]
    if kind == "onnx":
        _check_onnx(blob, function, largest_batch(manifest, name), where)
    elif kind == "program":
        _check_program(blob, function, where)
    else:
        _check_tflite(blob, function, where)


def largest_batch(manifest: Manifest, name: str) -> int:
    """The batch that planning will ask this function for at once."""
    if manifest.planner is None or name not in ROLLED_OUT:
        return 1
    return manifest.planner.candidates * (1 if name == "dynamics" else manifest.horizon)


def _check_onnx(blob: bytes | memoryview, function: Function, batch: int, where: str) -> None:
    graph = read_onnx(blob, where)
    _check_ports(function.inputs, graph.inputs, f"{where}: input")
    _check_ports(function.outputs, graph.outputs, f"{where}: output")
    # Two batches: a graph that was traced with one batch baked in fails at the other.
    for size in sorted({1, max(2, batch)}):
        inputs = {i.tensor: Port(i.dtype, at_batch(i.shape, size)) for i in function.inputs}
        at = f"{where}: with a batch of {size}"
        known = infer(graph.nodes, graph.constants, inputs, at)
        for o in function.outputs:
            if o.tensor not in known:
                raise ModelError(f"{where}: output {o.tensor!r} is given by no node")
            expected = Port(o.dtype, at_batch(o.shape, size))
            found = Port(known[o.tensor].dtype, known[o.tensor].shape)
            if found != expected:
                raise ModelError(
                    f"{where}: with a batch of {size}, output {o.tensor!r} must be "
                    f"{_words(expected)} as the manifest says, got {_words(found)}"
                )


def _check_program(blob: bytes | memoryview, function: Function, where: str) -> None:
    program = read_program(blob, where)
    for declared, ports, what in (
        (function.inputs, program.inputs, "input"),
        (function.outputs, program.outputs, "output"),
    ):
        # Programs compute in float32 and take every sensor's numbers as such.
        found = {
            port.tensor: Port("float32", (-1, *port.shape) if port.batched else port.shape)
            for port in ports
        }
        as_floats = [msgspec.structs.replace(tensor, dtype="float32") for tensor in declared]
        _check_ports(as_floats, found, f"{where}: {what}")


def _check_tflite(blob: bytes | memoryview, function: Function, where: str) -> None:
    names = {i.tensor for i in function.inputs}, {o.tensor for o in function.outputs}
    graph = read_tflite(blob, where, names)
    inputs = {name: graph.tensors[index] for name, index in graph.inputs.items()}
    outputs = {name: graph.tensors[index] for name, index in graph.outputs.items()}
    # The batch is fixed in the file: the manifest's -1 must be one number everywhere.
    batches = _batches(function.inputs, inputs) | _batches(function.outputs, outputs)
    if len(batches) > 1:
        raise ModelError(f"{where}: must have one batch in all tensors, got {sorted(batches)}")
    batch = next(iter(batches), 1)
    _check_ports(function.inputs, inputs, f"{where}: input", batch)
    _check_ports(function.outputs, outputs, f"{where}: output", batch)
    given = {index: graph.tensors[index] for index in graph.inputs.values()}
    known = infer(graph.nodes, graph.constants, given, where, TFLITE_RULES, graph.tensors)
    for name, index in graph.outputs.items():
        if index not in known:
            raise ModelError(f"{where}: output {name!r} is given by no node")


def _batches(declared: Sequence[Input | Output], found: Mapping[str, Port]) -> set[int]:
    """What the file has where the manifest has the batch."""
    batched = [found[t.tensor] for t in declared if t.shape[:1] == (-1,) and t.tensor in found]
    return {port.shape[0] for port in batched if port.shape}


def _check_ports(
    declared: Sequence[Input | Output],
    found: Mapping[str, Port],
    what: str,
    batch: int = -1,
) -> None:
    """The manifest's tensors against the file's, by name."""
    names = {tensor.tensor for tensor in declared}
    if names != set(found):
        raise ModelError(
            f"{what}s must be {', '.join(sorted(names))} as the manifest says, "
            f"got {', '.join(sorted(found)) or 'none'}"
        )
    for tensor in declared:
        expected = Port(tensor.dtype, at_batch(tensor.shape, batch))
        got = found[tensor.tensor]
        if isinstance(tensor, Output) and len(got.shape) == len(expected.shape):
            # exporters often leave an output's sizes symbolic: they are computed below
            sizes = zip(got.shape, expected.shape, strict=True)
            got = Port(got.dtype, tuple(e if g == -1 else g for g, e in sizes))
        if expected != got:
            raise ModelError(
                f"{what} {tensor.tensor!r} must be {_words(expected)} as the manifest says, "
                f"got {_words(got)}"
            )


def at_batch(shape: Shape, batch: int) -> Shape:
    """A shape with its batch axis, if it has one, set to `batch`."""
    return tuple(batch if size == -1 else size for size in shape)


def _words(found: Port) -> str:
    return f"{found.dtype} {list(found.shape)}"
