"""Lower one ONNX graph of a bundle's function to a step program.

    graph.py          read and size the file, find the batch axis, fold constants (folding.py)
    fusing.py         find activations, norms and attention that exporters took apart
    layers.py         constant scales and biases into the layers before them
    cells.py          find LSTM and GRU cells
    builder.py        give every node its operations, by the rules in elementwise.py, movement.py,
                      dense.py, normalization.py and recurrent.py; places.py moves the indices
    finishing.py      activations into layers, what nobody reads away, dense numbers

A tensor is a *place*: indices into a register. Reshapes, transpositions, slices and repetitions
move indices and give no operation, so that the layout (height, width, channels) of images stays
through a whole encoder, and a concatenation before a dense layer becomes segments.

Invariant: a program computes what the graph computes, for every batch, within float32 rounding
(or the rounding of int8 weights and inputs); what cannot be expressed is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from edge_wm.bundle.manifest import Function, Input, Output
from edge_wm.bundle.program import Port, Program
from edge_wm.compiler import dense, elementwise, movement, normalization, recurrent
from edge_wm.compiler.builder import Builder, Precision
from edge_wm.compiler.finishing import finished
from edge_wm.compiler.fusing import fuse
from edge_wm.compiler.graph import import_graph
from edge_wm.compiler.places import Pieces
from edge_wm.errors import ModelError

__all__ = ["Precision", "compile_graph", "int8_layers"]

RULES: Mapping[str, Callable[[Builder], Any]] = {
    **elementwise.RULES,
    **movement.RULES,
    **dense.RULES,
    **normalization.RULES,
    **recurrent.RULES,
}
WHY = {
    "ArgMax": "only where a OneHot follows",
    "MatMul": "one of its operands must be constant, or it must be attention",
    "Gemm": "its second matrix must be constant",
}


def compile_graph(
    blob: bytes | memoryview,
    function: Function,
    where: str,
    *,
    precision: Precision = "float32",
    keep: Collection[str] = (),
) -> Program:
    """The step program of a function's ONNX graph.

    precision: "int8" makes the weights of dense layers and convolutions of 1024 numbers or more
    int8, one scale for each output (and segment); all else stays float32.
    keep: layers that stay float32 even so, by the name of their ONNX node or weight tensor.

    Raises: UnsupportedOperation, naming the node: the function can run on onnxruntime.
    ModelError: the graph is malformed, too large, or not the function's.
    """
    builder, inputs, outputs = _lowered(blob, function, where, precision, keep)
    return finished(inputs, outputs, builder.registers, builder.operations, builder.constants)


def int8_layers(blob: bytes | memoryview, function: Function, where: str) -> Mapping[str, int]:
    """The layers that precision "int8" makes smaller, in order: name for `keep` -> weights.

    Raises: as `compile_graph`.
    """
    return _lowered(blob, function, where, "int8", ())[0].layers


def _lowered(
    blob: bytes | memoryview,
    function: Function,
    where: str,
    precision: Precision,
    keep: Collection[str],
) -> tuple[Builder, tuple[Port, ...], tuple[Port, ...]]:
    """Every node's operations; the ports of inputs and outputs."""
    graph = import_graph(blob, function, where)
    fuse(graph)
    builder = Builder(graph, precision, keep)
    inputs = tuple(_input(builder, i) for i in function.inputs)
    for node in graph.nodes:
        builder.node = node
        if node.op not in RULES:
            builder.refuse(WHY.get(node.op, "there is no rule for it"))
        RULES[node.op](builder)
    return builder, inputs, tuple(_output(builder, o) for o in function.outputs)


def _input(b: Builder, i: Input) -> Port:
    """An input in a register of its own."""
    form = b.graph.forms[i.tensor]
    assert not isinstance(form, str)
    place = b.places[i.tensor] = b.new(form.shape)
    return _port(i, place.register)


def _output(b: Builder, o: Output) -> Port:
    """An output in a register of its own, in C order."""
    producers = b.graph.producers()
    if o.tensor in producers:
        b.node = producers[o.tensor]
    form = b.graph.forms[o.tensor]
    if isinstance(form, str):
        raise ModelError(f"{b.graph.where}: output {o.tensor!r} {form}")
    found = b.operand_of(o.tensor)
    made = b.joined(found) if isinstance(found, Pieces) else found
    owned = {b.places[name].register for name in b.graph.inputs}  # type: ignore[union-attr]
    taken = made.register in owned or b.registers[made.register].constant is not None
    size = b.registers[made.register].width
    if taken or not np.array_equal(made.index.ravel(), np.arange(size)):
        copied = b.new(made.shape)
        b.copy(copied, made)
        made = copied
    if (form.batch, o.shape[:1] == (-1,)) not in ((0, True), (None, False), (None, True)):
        raise ModelError(
            f"{b.graph.where}: output {o.tensor!r} must be {list(o.shape)} as the manifest says, "
            "its batch is elsewhere"
        )
    return _port(o, made.register)


def _port(tensor: Input | Output, register: int) -> Port:
    batched = tensor.shape[:1] == (-1,)
    shape = tensor.shape[1:] if batched else tensor.shape
    return Port(tensor=tensor.tensor, shape=shape, batched=batched, register=register)
