"""A plain interpreter of step programs: what edge_wm/bundle/program.py says, line by line.

It is the oracle of the compiler (program against ONNX Runtime) and of the native kernels (kernel
against program), so it is slow and simple: every register has a row for each candidate, also those
that hold the same for all. Numbers that no operation has written are NaN.

Transcendental functions, softmax, norms and sums of `Reduce` are computed in float64 and rounded
to float32. Dense layers are exact in every step of the format: int32 sums, float32 fused
multiply-adds in the order of k.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from edge_wm.bundle.program import (
    Attention,
    Binary,
    Copy,
    Dense,
    Gru,
    Lookup,
    Lstm,
    Norm,
    OneHot,
    Operation,
    Patches,
    Program,
    Reduce,
    Rows,
    Segment,
    Select,
    Softmax,
    Unary,
    View,
    patch_shape,
)
from edge_wm.types import Array


def run_program(program: Program, inputs: Mapping[str, Array], rows: int) -> dict[str, Array]:
    """The outputs of `program` for `rows` candidates.

    inputs: (rows, *shape) for a batched port, (*shape) otherwise, any dtype. outputs: alike,
    float32.
    """
    machine = Machine(program, rows)
    for port in program.inputs:
        value = np.asarray(inputs[port.tensor]).astype(np.float32)
        assert value.shape == ((rows, *port.shape) if port.batched else port.shape), port.tensor
        machine.registers[port.register][:] = value.reshape(rows if port.batched else 1, -1)
    with np.errstate(all="ignore"):
        for operation in program.operations:
            machine.run(operation)
    outputs = {}
    for port in program.outputs:
        value = machine.registers[port.register]
        shaped = value.reshape(rows, *port.shape)
        outputs[port.tensor] = (shaped if port.batched else shaped[0]).copy()
    return outputs


class Machine:
    """The registers (rows, width) of a run, and what each operation does to them."""

    def __init__(self, program: Program, rows: int) -> None:
        self.rows = rows
        self.constants = program.constants
        self.registers = [
            np.full((rows, register.width), np.nan, np.float32) for register in program.registers
        ]
        for register, numbers in zip(program.registers, self.registers, strict=True):
            if register.constant is not None:
                numbers[:] = program.constants[register.constant].reshape(1, -1)

    def run(self, operation: Operation) -> None:
        RUN[type(operation)](self, operation)

    # ---- addressing -----------------------------------------------------------------------
    def load(self, at: Rows, tokens: int, size: int) -> Array:
        """(rows, tokens, size)."""
        return self.registers[at.register][:, _rows(at, tokens, size)]

    def store(self, at: Rows, value: Array) -> None:
        self.registers[at.register][:, _rows(at, *value.shape[1:])] = value

    def view(self, at: View, shape: tuple[int, ...]) -> Array:
        """(rows, *shape)."""
        return self.registers[at.register][:, _view(at, shape)]

    def store_view(self, at: View, value: Array) -> None:
        self.registers[at.register][:, _view(at, value.shape[1:])] = value

    def constant(self, index: int | None, otherwise: float) -> Array:
        return np.float32(otherwise) if index is None else self.constants[index]

    # ---- operations -----------------------------------------------------------------------
    def dense(self, o: Dense) -> None:
        parts = [self.segment(segment, o.tokens) for segment in o.segments]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        if o.bias is not None:
            total = total + self.constants[o.bias]
        self.store(o.out, activate(o.activation, total))

    def segment(self, segment: Segment, tokens: int) -> Array:
        """x times the weight transposed: (rows, tokens, N)."""
        x, weight = self.load(segment.x, tokens, segment.size), self.constants[segment.weight]
        if segment.scale is None:
            total = np.zeros((*x.shape[:-1], len(weight)), np.float32)
            for k in range(segment.size):
                total = fused_multiply_add(x[..., k, None], weight[:, k], total)
            return total
        return quantized_product(x, weight, self.constants[segment.scale])

    def norm(self, o: Norm) -> None:
        x = self.load(o.x, o.tokens, o.size).astype(np.float64)
        if o.kind == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + o.epsilon)
        x = x * self.constant(o.weight, 1) + self.constant(o.bias, 0)
        self.store(o.out, activate(o.activation, x))

    def softmax(self, o: Softmax) -> None:
        self.store(o.out, softmax(self.load(o.x, o.tokens, o.size)))

    def unary(self, o: Unary) -> None:
        self.store(o.out, UNARY[o.kind](self.load(o.x, o.tokens, o.size).astype(np.float64)))

    def binary(self, o: Binary) -> None:
        a, b = self.view(o.a, o.shape), self.view(o.b, o.shape)
        self.store_view(o.out, BINARY[o.kind](a, b))

    def select(self, o: Select) -> None:
        condition = self.view(o.condition, o.shape) != 0
        self.store_view(
            o.out, np.where(condition, self.view(o.a, o.shape), self.view(o.b, o.shape))
        )

    def copy(self, o: Copy) -> None:
        self.store_view(o.out, self.view(o.x, o.shape))

    def reduce(self, o: Reduce) -> None:
        x = self.view(o.x, o.shape).astype(np.float64)
        self.store_view(o.out, getattr(np, o.kind)(x, axis=-1))

    def lstm(self, o: Lstm) -> None:
        gates = self.gates(o.gates, 4, o.size)
        i, f, g, out = (gates[:, o.order.index(letter)] for letter in "ifgo")
        c = sigmoid(f) * self.load(o.c, 1, o.size)[:, 0] + sigmoid(i) * np.tanh(g)
        self.store(o.out_h, (sigmoid(out) * np.tanh(c))[:, None])
        self.store(o.out_c, c[:, None])

    def gru(self, o: Gru) -> None:
        x, h_gates = self.gates(o.x_gates, 3, o.size), self.gates(o.h_gates, 3, o.size)
        h = self.load(o.h, 1, o.size)[:, 0]
        z, r, n = (o.order.index(letter) for letter in "zrn")
        update, reset = sigmoid(x[:, z] + h_gates[:, z]), sigmoid(x[:, r] + h_gates[:, r])
        new = np.tanh(x[:, n] + reset * h_gates[:, n])
        self.store(o.out, ((1 - update) * new + update * h)[:, None])

    def gates(self, at: Rows, gates: int, size: int) -> Array:
        """The sums of a cell's gates, which lie one after another: (rows, gates, size) float64."""
        flat = self.load(at, 1, gates * size)
        return flat.reshape(self.rows, gates, size).astype(np.float64)

    def attention(self, o: Attention) -> None:
        width = o.heads * o.size

        def heads(at: Rows, tokens: int) -> Array:
            x = self.load(at, tokens, width).astype(np.float64)
            return x.reshape(self.rows, tokens, o.heads, o.size).transpose(0, 2, 1, 3)

        q, k, v = heads(o.q, o.queries), heads(o.k, o.keys), heads(o.v, o.keys)
        scores = o.scale * q @ k.transpose(0, 1, 3, 2)
        if o.causal:
            last = o.keys - o.queries + np.arange(o.queries)
            scores = np.where(np.arange(o.keys) <= last[:, None], scores, -np.inf)
        out = (softmax(scores) @ v).transpose(0, 2, 1, 3)
        self.store(o.out, out.reshape(self.rows, o.queries, width))

    def patches(self, o: Patches) -> None:
        image = self.load(o.x, 1, o.height * o.width * o.channels)
        image = image.reshape(self.rows, o.height, o.width, o.channels)
        top, left, bottom, right = o.pads
        image = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)))
        (kh, kw), (sh, sw) = o.kernel, o.stride
        down = (image.shape[1] - kh) // sh + 1
        across = (image.shape[2] - kw) // sw + 1
        patches = [
            image[:, y * sh : y * sh + kh, x * sw : x * sw + kw].reshape(self.rows, -1)
            for y in range(down)
            for x in range(across)
        ]
        assert (len(patches), patches[0].shape[1]) == patch_shape(o)
        self.store(o.out, np.stack(patches, axis=1))

    def one_hot(self, o: OneHot) -> None:
        largest = self.load(o.x, o.tokens, o.size).argmax(axis=-1)
        self.store(o.out, np.eye(o.size, dtype=np.float32)[largest])

    def lookup(self, o: Lookup) -> None:
        table = self.constants[o.table]
        row = np.rint(self.load(o.x, o.tokens, 1)[..., 0])
        inside = (row >= 0) & (row < len(table))
        found = table[np.where(inside, row, 0).astype(int)]
        self.store(o.out, np.where(inside[..., None], found, np.float32(np.nan)))


RUN: Mapping[type, Callable[[Machine, Operation], None]] = {
    Dense: Machine.dense,
    Norm: Machine.norm,
    Softmax: Machine.softmax,
    Unary: Machine.unary,
    Binary: Machine.binary,
    Select: Machine.select,
    Copy: Machine.copy,
    Reduce: Machine.reduce,
    Lstm: Machine.lstm,
    Gru: Machine.gru,
    Attention: Machine.attention,
    Patches: Machine.patches,
    OneHot: Machine.one_hot,
    Lookup: Machine.lookup,
}


def _rows(at: Rows, tokens: int, size: int) -> Array:
    return at.offset + np.arange(tokens)[:, None] * at.stride + np.arange(size)


def _view(at: View, shape: tuple[int, ...]) -> Array:
    index = np.full(shape, at.offset)
    for axis, (size, stride) in enumerate(zip(shape, at.strides, strict=True)):
        index += (np.arange(size) * stride).reshape(-1, *[1] * (len(shape) - axis - 1))
    return index


# ---- arithmetic -----------------------------------------------------------------------------
def fused_multiply_add(a: Array, b: Array, c: Array) -> Array:
    """a * b + c of float32 numbers, rounded once.

    The product is exact in float64. The sum is rounded to odd there (Boldo and Melquiond 2008),
    so that rounding it again, to float32, gives what one rounding would have given.
    """
    product, c = a.astype(np.float64) * b.astype(np.float64), c.astype(np.float64)
    total = product + c
    part = total - product
    error = (product - (total - part)) + (c - part)  # exactly what `total` lacks (Knuth's TwoSum)
    even = np.ascontiguousarray(total).view(np.int64) % 2 == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    odd = np.where((error != 0) & even & np.isfinite(error), np.nextafter(total, toward), total)
    return odd.astype(np.float32)


def quantized_product(x: Array, weight: Array, scale: Array) -> Array:
    """x (..., K) float32 times weight (N, K) int8 transposed, as the format defines it."""
    largest = np.abs(x).max(axis=-1, keepdims=True)  # m; NaN if there is one
    inverse = np.float32(127) / largest
    zero = largest < np.float32(1e-30)
    finite = np.isfinite(largest)
    q = np.where(zero | ~finite, 0, np.rint(x * inverse)).astype(np.int32)
    total = (q @ weight.astype(np.int32).T).astype(np.float32)
    result = total * ((largest / np.float32(127)) * scale)
    return np.where(finite, result, np.float32(np.nan))


def softmax(x: Array) -> Array:
    x = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x.astype(np.float64)))


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


_erf = np.vectorize(math.erf, otypes=[np.float64])

UNARY: Mapping[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: x * 0.5 * (1 + _erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "erf": _erf,
    "abs": np.abs,
    "neg": np.negative,
    "sign": np.sign,
    "square": np.square,
    "reciprocal": np.reciprocal,
    "floor": np.floor,
    "round": np.rint,
    "not": lambda x: x == 0,
}

BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "min": np.minimum,
    "max": np.maximum,
    "pow": lambda a, b: np.power(a.astype(np.float64), b),
    "less": np.less,
    "greater": np.greater,
    "equal": np.equal,
    "and": lambda a, b: (a != 0) & (b != 0),
    "or": lambda a, b: (a != 0) | (b != 0),
}


def activate(kind: str, x: Array) -> Array:
    return x if kind == "none" else UNARY[kind](x.astype(np.float64))
