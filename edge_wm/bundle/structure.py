"""Look at a graph before an inference library does.

Model files exist that crash, hang or fill the memory of the libraries that read them. So every
graph of a bundle is first read by our own bounded readers (onnx_file.py, tflite_file.py), its
operators and sizes are checked against a closed list and limits (sizes.py), and its inputs and
outputs against the manifest. None of this imports onnx, flatbuffers or an inference library.

Invariant: a graph that passes has the manifest's inputs and outputs, for every batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from edge_wm.bundle.manifest import ROLLED_OUT, Function, Input, Manifest, Output
from edge_wm.bundle.onnx_file import read_onnx
from edge_wm.bundle.sizes import infer
from edge_wm.errors import ModelError

Shape = tuple[int, ...]


class Found(NamedTuple):
    """A graph's input or output as the file has it; -1 for a symbolic size."""

    dtype: str
    shape: Shape


def check_graph(
    kind: str, blob: bytes | memoryview, manifest: Manifest, name: str, where: str
) -> None:
    """Check one graph file of the function `name`.

    Raises: ModelError, naming `where` and what is wrong inside.
    """
    function = manifest.functions[name]  # type: ignore[index]
    if kind == "onnx":
        _check_onnx(blob, function, largest_batch(manifest, name), where)


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
        shapes = {i.tensor: at_batch(i.shape, size) for i in function.inputs}
        known = infer(graph, shapes, f"{where}: with a batch of {size}")
        for o in function.outputs:
            if o.tensor not in known:
                raise ModelError(f"{where}: output {o.tensor!r} is given by no node")
            expected = Found(o.dtype, at_batch(o.shape, size))
            found = Found(known[o.tensor].dtype, known[o.tensor].shape)
            if found != expected:
                raise ModelError(
                    f"{where}: with a batch of {size}, output {o.tensor!r} must be "
                    f"{_words(expected)} as the manifest says, got {_words(found)}"
                )


def _check_ports(
    declared: Sequence[Input | Output], found: Mapping[str, tuple[str, Shape]], what: str
) -> None:
    """The manifest's tensors against the file's, by name."""
    names = {tensor.tensor for tensor in declared}
    if names != set(found):
        raise ModelError(
            f"{what}s must be {', '.join(sorted(names))} as the manifest says, "
            f"got {', '.join(sorted(found)) or 'none'}"
        )
    for tensor in declared:
        expected, got = Found(tensor.dtype, tensor.shape), Found(*found[tensor.tensor])
        if isinstance(tensor, Output) and len(got.shape) == len(expected.shape):
            # exporters often leave an output's sizes symbolic: they are computed below
            sizes = zip(got.shape, expected.shape, strict=True)
            got = Found(got.dtype, tuple(e if g == -1 else g for g, e in sizes))
        if expected != got:
            raise ModelError(
                f"{what} {tensor.tensor!r} must be {_words(expected)} as the manifest says, "
                f"got {_words(got)}"
            )


def at_batch(shape: Shape, batch: int) -> Shape:
    """A shape with its batch axis, if it has one, set to `batch`."""
    return tuple(batch if size == -1 else size for size in shape)


def _words(found: Found) -> str:
    return f"{found.dtype} {list(found.shape)}"
