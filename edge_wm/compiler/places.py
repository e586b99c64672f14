"""Where the numbers of a tensor lie: index arithmetic, without a program.

A tensor's numbers are somewhere in one register. `Place.index` has the tensor's form and says of
each number where; so moving data is moving indices, and costs nothing until an operation needs
another order:

    transpose        index.T
    columns 2 to 5   index[:, 2:5]
    repeat           np.broadcast_to(index, ...)

An operation can read an index that is *strided*: offset + sum of i * stride over the axes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_wm.types import Array

Shape = tuple[int, ...]
MAX_AXES = 4  # of a View
MAX_BLOCKS = 512  # operations that one copy may be made of


@dataclass(frozen=True)
class Place:
    """Numbers of one register."""

    register: int
    index: Array  # int64, of the tensor's form

    @property
    def shape(self) -> Shape:
        return self.index.shape

    def moved(self, index: Array) -> Place:
        return Place(self.register, index)


@dataclass(frozen=True)
class Pieces:
    """Places side by side along an axis: a concatenation that has not been made."""

    parts: tuple[Place, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        total = sum(part.shape[self.axis] for part in self.parts)
        first = self.parts[0].shape
        return (*first[: self.axis], total, *first[self.axis + 1 :])


@dataclass(frozen=True)
class Block:
    """A strided index space that several indices share: an offset and strides for each."""

    shape: Shape
    offsets: tuple[int, ...]
    strides: tuple[Shape, ...]


def whole(register: int, shape: Shape) -> Place:
    """A register's numbers in C order."""
    return Place(register, np.arange(math.prod(shape)).reshape(shape))


def strided(index: Array) -> tuple[int, Shape] | None:
    """(offset, strides) if the index is strided, with no stride below 0."""
    offset = int(index.flat[0])
    strides = []
    expected = np.full((1,) * index.ndim, offset)
    for axis, size in enumerate(index.shape):
        corner = tuple(int(axis == a) for a in range(index.ndim))
        stride = int(index[corner]) - offset if size > 1 else 0
        if stride < 0:
            return None
        strides.append(stride)
        steps = np.arange(size) * stride
        expected = expected + steps.reshape(-1, *[1] * (index.ndim - axis - 1))
    return (offset, tuple(strides)) if np.array_equal(expected, index) else None


def run_of(index: Array) -> tuple[int, int] | None:
    """(first, size) of the run of numbers that an index covers, each once or more."""
    first, size = int(index.min()), int(index.max()) - int(index.min()) + 1
    seen = np.zeros(size, bool)
    seen[index.ravel() - first] = True
    return (first, size) if seen.all() else None


def blocks(*indices: Array) -> list[Block] | None:
    """Indices of one shape as strided blocks of at most MAX_AXES axes, the fewest that are
    easily found; None where there would be more than MAX_BLOCKS."""
    found: list[Block] = []
    for block in _blocks(indices):
        found.append(block)
        if len(found) > MAX_BLOCKS:
            return None
    return found


def _blocks(indices: Sequence[Array]) -> Iterator[Block]:
    shape = indices[0].shape
    parts = [strided(index) for index in indices]
    if all(part is not None for part in parts):
        block = _merged(shape, [part for part in parts if part is not None])
        if len(block.shape) <= MAX_AXES:
            yield block
            return
    elif (finer := _factored(shape, indices)) is not None:
        yield from _blocks(finer)
        return
    axis = _axis_to_split(indices)
    if axis is None:
        axis = min((a for a, size in enumerate(shape) if size > 1), key=lambda a: shape[a])
    for begin, end in _runs(indices, axis):
        cut = (slice(None),) * axis + (slice(begin, end),)
        yield from _blocks([index[cut] for index in indices])


def _factored(shape: Shape, indices: Sequence[Array]) -> list[Array] | None:
    """With an axis of n m numbers as two axes, if its runs of m all look alike: what a reshape
    has joined."""
    for axis, size in enumerate(shape):
        lines = [np.moveaxis(index, axis, -1).reshape(-1, size)[0] for index in indices]
        if all(strided(line) is not None for line in lines):
            continue
        longest = min(_first_run(line) for line in lines)
        for m in range(min(longest, size - 1), 1, -1):
            if size % m == 0 and all(_alike(line.reshape(-1, m)) for line in lines):
                split = (*shape[:axis], size // m, m, *shape[axis + 1 :])
                return [index.reshape(split) for index in indices]
    return None


def _first_run(line: Array) -> int:
    """How many numbers of a line are the same step apart."""
    steps = np.diff(line)
    others = np.flatnonzero(steps != steps[0])
    return int(others[0]) + 1 if len(others) else len(line)


def _alike(lines: Array) -> bool:
    return bool((lines - lines[:, :1] == lines[0] - lines[0, 0]).all())


def _axis_to_split(indices: Sequence[Array]) -> int | None:
    """The axis whose single slices are all strided, the shortest one."""
    shape = indices[0].shape
    for axis in sorted((a for a, n in enumerate(shape) if n > 1), key=lambda a: shape[a]):
        if all(
            strided(index.take(i, axis)) is not None
            for index in indices
            for i in range(shape[axis])
        ):
            return axis
    return None


def _runs(indices: Sequence[Array], axis: int) -> Iterator[tuple[int, int]]:
    """Cuts along an axis: as long as the step between neighbors stays the same; else one each."""
    size = indices[0].shape[axis]
    lines = [np.moveaxis(index, axis, 0).reshape(size, -1) for index in indices]
    steps = [np.diff(line, axis=0) for line in lines]
    begin = 0
    while begin < size:
        end = begin + 1
        while end < size and all(
            (step[end - 1] == step[begin, 0]).all() and step[begin, 0] >= 0 for step in steps
        ):
            end += 1
        if (begin, end) == (0, size):  # it is another axis, or too many of them
            yield from ((i, i + 1) for i in range(size))
            return
        yield begin, end
        begin = end


def _merged(shape: Shape, parts: Sequence[tuple[int, Shape]]) -> Block:
    """A block without axes of one number, and with neighbors joined where all strides allow."""
    axes = [(n, tuple(strides[a] for _, strides in parts)) for a, n in enumerate(shape) if n > 1]
    axes.sort(key=lambda axis: -axis[1][0])  # a stable order by the first index's strides
    joined: list[tuple[int, Shape]] = []
    for n, strides in axes:
        if joined and all(o == s * n for o, s in zip(joined[-1][1], strides, strict=True)):
            joined[-1] = (joined[-1][0] * n, strides)
        else:
            joined.append((n, strides))
    joined = joined or [(1, (0,) * len(parts))]
    return Block(
        tuple(n for n, _ in joined),
        tuple(offset for offset, _ in parts),
        tuple(tuple(strides[i] for _, strides in joined) for i in range(len(parts))),
    )
