"""Write a program operation by operation, while tensors are places in registers.

The rules (elementwise.py, movement.py, ...) take a node's operands from a `Builder`, move their
indices, emit operations, and give the node's outputs their places. Whether an operand must be
copied into another order is decided here, in `rows` and `blocks`, and nowhere else.

Invariant: a register is written before an operation reads it, and never again after that.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Literal

import numpy as np

from edge_wm.bundle.program import (
    Binary,
    BinaryKind,
    Copy,
    Dense,
    Operation,
    Register,
    Rows,
    Segment,
    Select,
    Unary,
    UnaryKind,
    View,
)
from edge_wm.compiler.graph import Form, Graph, Node
from edge_wm.compiler.places import Block, Pieces, Place, Shape, blocks, run_of, strided
from edge_wm.compiler.places import whole as whole_of
from edge_wm.types import Array

Precision = Literal["float32", "int8"]
QUANTIZED = 1024  # numbers that a weight must have to become int8

# Inputs of a segment below which it stays float32: quantizing its rows costs more than it saves.
NARROW = 16


class Builder:
    """A program in the making."""

    def __init__(self, graph: Graph, precision: Precision, keep: Collection[str]) -> None:
        self.graph = graph
        self.precision = precision
        self.keep = frozenset(keep)
        self.node = Node("", "", [], [])  # the one being lowered, for errors
        self.places: dict[str, Place | Pieces] = {}
        self.registers: list[Register] = []
        self.operations: list[Operation] = []
        self.constants: list[Array] = []
        self.layers: dict[str, int] = {}  # what int8 makes smaller: name -> numbers
        self._known: dict[tuple[str, Shape, bytes], int] = {}  # constants by what they hold
        self._fixed: dict[int, int] = {}  # constant -> its register
        self._packed: dict[tuple[int, Shape, bytes], int] = {}  # copies by what they copy

    # ---- a node's operands ------------------------------------------------------------------
    def refuse(self, why: str) -> None:
        self.graph.refuse(self.node, why)

    def form(self, name: str) -> Form:
        return self.graph.form(name, self.node)

    def operand(self, index: int) -> Place | Pieces:
        """Where an input of the node lies."""
        return self.operand_of(self.node.inputs[index])

    def operand_of(self, name: str) -> Place | Pieces:
        if name not in self.places:
            self.form(name)
            if name not in self.graph.constants:
                self.refuse(f"{name!r} depends on the batch")
            self.places[name] = self.fixed(self.graph.constants[name])
        return self.places[name]

    def place(self, index: int) -> Place:
        """Where an input of the node lies, in one register."""
        return self.place_of(self.node.inputs[index])

    def place_of(self, name: str) -> Place:
        found = self.operand_of(name)
        if isinstance(found, Pieces):
            found = self.places[name] = self.joined(found)
        return found

    def given(self, index: int) -> bool:
        """Whether the node has an input of that index."""
        return index < len(self.node.inputs) and self.node.inputs[index] != ""

    def give(self, place: Place | Pieces, output: int = 0) -> None:
        """Where an output of the node lies."""
        name = self.node.outputs[output]
        assert place.shape == self.form(name).shape, (self.node, place.shape, self.form(name))
        self.places[name] = place

    # ---- registers and constants --------------------------------------------------------------
    def register(self, width: int) -> int:
        self.registers.append(Register(width=width))
        return len(self.registers) - 1

    def new(self, shape: Shape) -> Place:
        """A new register in C order."""
        return whole_of(self.register(math.prod(shape)), shape)

    def hold(self, value: Array) -> int:
        """The index of a constant."""
        value = np.ascontiguousarray(value)
        key = (value.dtype.name, value.shape, value.tobytes())
        if key not in self._known:
            self._known[key] = len(self.constants)
            self.constants.append(value)
        return self._known[key]

    def fixed(self, value: Array) -> Place:
        """A place that holds a constant; one number if all are the same."""
        numbers = np.asarray(value).astype(np.float32)
        if numbers.size == 0:
            self.refuse("a tensor without numbers")
        if (numbers == numbers.flat[0]).all():
            return Place(self._holding(numbers.ravel()[:1]), np.zeros(numbers.shape, np.int64))
        return whole_of(self._holding(numbers.ravel()), numbers.shape)

    def scalar(self, value: float, shape: Shape) -> Place:
        return self.fixed(np.full(shape, value, np.float32))

    def _holding(self, numbers: Array) -> int:
        index = self.hold(numbers)
        if index not in self._fixed:
            self.registers.append(Register(width=numbers.size, constant=index))
            self._fixed[index] = len(self.registers) - 1
        return self._fixed[index]

    # ---- addressing ---------------------------------------------------------------------------
    def blocks(self, *indices: Array) -> list[Block]:
        found = blocks(*indices)
        if found is None:
            self.refuse("its numbers lie too far apart to be copied in a few runs")
        return found or []

    def rows(self, place: Place) -> Rows:
        """A place (tokens, size) as runs; copied if it lies otherwise."""
        found = strided(place.index)
        if found is not None and (place.shape[1] == 1 or found[1][1] == 1):
            return Rows(register=place.register, offset=found[0], stride=found[1][0])
        return Rows(register=self.packed(place).register, stride=place.shape[1])

    def packed(self, place: Place) -> Place:
        """The same numbers at the beginning of a register, in C order."""
        if np.array_equal(place.index.ravel(), np.arange(place.index.size)):
            return place
        key = (place.register, place.shape, place.index.tobytes())
        if key not in self._packed:
            made = self.new(place.shape)
            self.copy(made, place)
            self._packed[key] = made.register
        return whole_of(self._packed[key], place.shape)

    def joined(self, pieces: Pieces) -> Place:
        """Pieces copied into one register."""
        made = self.new(pieces.shape)
        begin = 0
        for part in pieces.parts:
            end = begin + part.shape[pieces.axis]
            cut = (slice(None),) * pieces.axis + (slice(begin, end),)
            self.copy(made.moved(made.index[cut]), part)
            begin = end
        return made

    def alike(self, shape: Shape, operands: Sequence[Place]) -> Place:
        """A new register in the order of the first operand of that shape, else in C order.

        So what follows a convolution stays in its order, (height, width, channels).
        """
        for operand in operands:
            found = strided(operand.index) if operand.shape == shape else None
            if found is not None and all(found[1][a] for a, n in enumerate(shape) if n > 1):
                order = sorted(range(len(shape)), key=lambda axis: -found[1][axis])
                made = self.new(tuple(shape[axis] for axis in order))
                return made.moved(made.index.transpose(np.argsort(order)))
        return self.new(shape)

    # ---- operations ---------------------------------------------------------------------------
    def emit(self, operation: Operation) -> None:
        self.operations.append(operation)

    def copy(self, out: Place, x: Place) -> None:
        for block in self.blocks(out.index, x.index):
            views = _views(block, out, x)
            self.emit(Copy(shape=block.shape, out=views[0], x=views[1]))

    def unary(self, kind: UnaryKind, x: Place) -> Place:
        """f of each number; computed once where numbers are repeated."""
        run = run_of(x.index)
        lines = x.moved(x.index.reshape(-1, x.shape[-1] if x.shape else 1))
        found = strided(lines.index)
        if run is None and found is not None and found[1][1] == 1:  # columns of rows
            out = self.new(x.shape)
            tokens, size = lines.shape
            write, read = Rows(register=out.register, stride=size), self.rows(lines)
            self.emit(Unary(kind=kind, tokens=tokens, size=size, out=write, x=read))
            return out
        if run is None:
            x = self.packed(x)
            run = 0, x.index.size
        first, size = run
        made = self.register(size)
        read = Rows(register=x.register, offset=first)
        self.emit(Unary(kind=kind, tokens=1, size=size, out=Rows(register=made), x=read))
        return Place(made, x.index - first)

    def binary(self, kind: BinaryKind, a: Place, b: Place) -> Place:
        """f(a, b), broadcast."""
        shape = np.broadcast_shapes(a.shape, b.shape)
        out = self.alike(shape, (a, b))
        a, b = (p.moved(np.broadcast_to(p.index, shape)) for p in (a, b))
        for block in self.blocks(out.index, a.index, b.index):
            views = _views(block, out, a, b)
            self.emit(Binary(kind=kind, shape=block.shape, out=views[0], a=views[1], b=views[2]))
        return out

    def with_scalar(self, kind: BinaryKind, x: Place, value: float) -> Place:
        return self.binary(kind, x, self.scalar(value, (1,) * x.index.ndim))

    def select(self, condition: Place, a: Place, b: Place) -> Place:
        shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
        out = self.alike(shape, (a, b, condition))
        inputs = [p.moved(np.broadcast_to(p.index, shape)) for p in (condition, a, b)]
        for block in self.blocks(out.index, *(p.index for p in inputs)):
            views = _views(block, out, *inputs)
            self.emit(
                Select(shape=block.shape, out=views[0], condition=views[1], a=views[2], b=views[3])
            )
        return out

    def dense(
        self,
        out: Rows,
        size: int,
        parts: Sequence[tuple[Place, Array]],
        bias: Array | None,
        names: Collection[str],
    ) -> None:
        """out (tokens, N) = sum of x (tokens, K) times weight (N, K) transposed, + bias.

        names: what `keep` may call this layer.
        """
        tokens = parts[0][0].shape[0]
        numbers = sum(weight.size for _, weight in parts)
        if numbers >= QUANTIZED:
            name = next((name for name in names if name), "")
            self.layers[name] = self.layers.get(name, 0) + numbers
        exact = self.precision == "float32" or numbers < QUANTIZED or self.keep & set(names)
        segments = []
        for x, weight in self._narrow_joined(parts) if numbers >= QUANTIZED else parts:
            narrow = weight.shape[1] < NARROW
            weight, scale = (weight, None) if exact or narrow else quantized(weight)
            segments.append(
                Segment(
                    x=self.rows(x),
                    size=weight.shape[1],
                    weight=self.hold(weight),
                    scale=None if scale is None else self.hold(scale),
                )
            )
        held = None if bias is None or not bias.any() else self.hold(bias)
        self.emit(Dense(tokens=tokens, size=size, out=out, segments=tuple(segments), bias=held))

    def _narrow_joined(self, parts: Sequence[tuple[Place, Array]]) -> list[tuple[Place, Array]]:
        """The parts, those of a few inputs each (an action, a step's duration) copied into one.

        A segment goes once over all of a layer's sums, whatever its width: three of 2, 2 and 1
        inputs cost the rover's first layer as much as the 64 of its latent.
        """
        narrow = [part for part in parts if part[1].shape[1] < NARROW]
        if len(narrow) < 2:
            return list(parts)
        tokens, width = parts[0][0].shape[0], sum(weight.shape[1] for _, weight in narrow)
        together, first = self.new((tokens, width)), 0
        for x, weight in narrow:
            end = first + weight.shape[1]
            self.copy(together.moved(together.index[:, first:end]), x)
            first = end
        wide = [part for part in parts if part[1].shape[1] >= NARROW]
        return [*wide, (together, np.concatenate([weight for _, weight in narrow], axis=1))]


def quantized(weight: Array) -> tuple[Array, Array]:
    """(int8 weight, float32 scale of each output): symmetric, -127 to 127."""
    largest = np.abs(weight).max(axis=1)
    scale = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
    q = np.clip(np.rint(weight / scale[:, None]), -127, 127)
    return q.astype(np.int8), scale


def _views(block: Block, *places: Place) -> list[View]:
    return [
        View(register=place.register, offset=offset, strides=strides)
        for place, offset, strides in zip(places, block.offsets, block.strides, strict=True)
    ]
