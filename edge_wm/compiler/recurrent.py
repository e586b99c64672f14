"""Rules for one step of an LSTM or a GRU, and for attention.

ONNX's cells have (steps, batch, numbers) tensors with one step here, weights (1, gates, numbers)
and biases of input and state side by side; gates are in the order i o f c, or z r h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_wm.bundle.program import Attention, Gru, Lstm, Rows
from edge_wm.compiler.builder import Builder
from edge_wm.compiler.places import Pieces, Place
from edge_wm.types import Array


def _cell(b: Builder, gates: int, activations: Sequence[str]) -> tuple[Array, Array, Array, Array]:
    """(weight, recurrent weight, their biases), after everything else has been refused."""
    settings = b.node.attributes
    steps, rows, _ = b.form(b.node.inputs[0]).shape
    if steps != 1 or rows != 1 or b.form(b.node.inputs[0]).batch not in (None, 1):
        b.refuse("it must be for one step, with (1, batch, numbers)")
    if settings.get("direction", "forward") != "forward" or settings.get("layout", 0):
        b.refuse("it must go forward, with (steps, batch, numbers)")
    given = [name.lower() for name in settings.get("activations", activations)]
    if given != list(activations) or "clip" in settings or settings.get("input_forget", 0):
        b.refuse("its activations must be the usual ones")
    if b.given(4):
        b.refuse("lengths of sequences")
    constants: list[Array] = []
    for index in (1, 2, 3):
        if index == 3 and not b.given(3):
            constants.append(np.zeros(2 * constants[1].shape[0], np.float32))
        elif b.node.inputs[index] not in b.graph.constants:
            b.refuse("its weights must be constant")
        else:
            constants.append(b.graph.constants[b.node.inputs[index]][0].astype(np.float32))
    weight, recurrent, bias = constants
    half = gates * settings["hidden_size"]
    return weight, recurrent, bias[:half], bias[half:]


def _state(b: Builder, index: int, size: int) -> Place:
    """The state before, as (1, H); zeros if it is not given."""
    if not b.given(index):
        return b.scalar(0, (1, size))
    place = b.place(index)
    return place.moved(place.index.reshape(1, size))


def _inputs(b: Builder, weight: Array) -> list[tuple[Place, Array]]:
    """The input (1, I), in pieces if it is a concatenation, each with its weight."""
    x = b.operand(0)
    parts = x.parts if isinstance(x, Pieces) and x.axis == 2 else (b.place(0),)
    found, begin = [], 0
    for part in parts:
        size = part.shape[2]
        found.append((part.moved(part.index.reshape(1, size)), weight[:, begin : begin + size]))
        begin += size
    return found


def _names(b: Builder) -> list[str]:
    return [b.node.name, *b.node.inputs[1:3]]


def _dense(b: Builder, parts: list[tuple[Place, Array]], bias: Array) -> Place:
    size = len(bias)
    out = b.new((1, size))
    b.dense(Rows(register=out.register), size, parts, bias, _names(b))
    return out


def lstm(b: Builder) -> None:
    weight, recurrent, bias, more = _cell(b, 4, ("sigmoid", "tanh", "tanh"))
    size = b.node.attributes["hidden_size"]
    if b.given(7) and np.any(b.graph.constants.get(b.node.inputs[7], np.ones(1))):
        b.refuse("peepholes")
    h, c = _state(b, 5, size), _state(b, 6, size)
    gates = _dense(b, [*_inputs(b, weight), (h, recurrent)], bias + more)
    out_h, out_c = b.new((1, size)), b.new((1, size))
    b.emit(
        Lstm(
            size=size,
            order="iofg",
            gates=Rows(register=gates.register),
            c=b.rows(c),
            out_h=Rows(register=out_h.register),
            out_c=Rows(register=out_c.register),
        )
    )
    _give(b, out_h, out_h, out_c)


def gru(b: Builder) -> None:
    weight, recurrent, bias, more = _cell(b, 3, ("sigmoid", "tanh"))
    size = b.node.attributes["hidden_size"]
    h, x = _state(b, 5, size), _inputs(b, weight)
    if not b.node.attributes.get("linear_before_reset", 0):
        out = _gru_reset_before(b, x, h, recurrent, bias, more)
        _give(b, out, out)
        return
    x_gates, h_gates = _dense(b, x, bias), _dense(b, [(h, recurrent)], more)
    out = b.new((1, size))
    b.emit(
        Gru(
            size=size,
            order="zrn",
            x_gates=Rows(register=x_gates.register),
            h_gates=Rows(register=h_gates.register),
            h=b.rows(h),
            out=Rows(register=out.register),
        )
    )
    _give(b, out, out)


def _gru_reset_before(
    b: Builder, x: list[tuple[Place, Array]], h: Place, recurrent: Array, bias: Array, more: Array
) -> Place:
    """The reset gate before the product: n = tanh(x W + (r h) R), h' = n + z (h - n)."""
    size = h.shape[1]
    first, last = slice(0, 2 * size), slice(2 * size, None)
    total = bias + more
    gates = b.unary(
        "sigmoid",
        _dense(b, [*((p, w[first]) for p, w in x), (h, recurrent[first])], total[first]),
    )
    z, r = (gates.moved(gates.index[:, n * size : (n + 1) * size]) for n in range(2))
    reset = b.binary("mul", r, h)
    new = b.unary(
        "tanh",
        _dense(b, [*((p, w[last]) for p, w in x), (reset, recurrent[last])], total[last]),
    )
    return b.binary("add", new, b.binary("mul", z, b.binary("sub", h, new)))


def _give(b: Builder, *outputs: Place) -> None:
    for index, (name, place) in enumerate(zip(b.node.outputs, outputs, strict=False)):
        if name:
            b.give(place.moved(place.index.reshape(b.form(name).shape)), index)


# ---- cells that `cells` has found: attribute `order` ------------------------------------------
def _flat(b: Builder, index: int) -> Place:
    place = b.place(index)
    return place.moved(place.index.reshape(1, -1))


def lstm_step(b: Builder) -> None:
    """Inputs: gates (4 H), c; outputs: h', c'."""
    gates, c = _flat(b, 0), _flat(b, 1)
    size = c.shape[1]
    out_h, out_c = b.new((1, size)), b.new((1, size))
    b.emit(
        Lstm(
            size=size,
            order=b.node.attributes["order"],
            gates=b.rows(gates),
            c=b.rows(c),
            out_h=Rows(register=out_h.register),
            out_c=Rows(register=out_c.register),
        )
    )
    _give(b, out_h, out_c)


def gru_step(b: Builder) -> None:
    """Inputs: gates of the input and of the state (3 H each), h; output: h'."""
    x, h_gates, h = (_flat(b, index) for index in range(3))
    out = b.new(h.shape)
    b.emit(
        Gru(
            size=h.shape[1],
            order=b.node.attributes["order"],
            x_gates=b.rows(x),
            h_gates=b.rows(h_gates),
            h=b.rows(h),
            out=Rows(register=out.register),
        )
    )
    _give(b, out)


# ---- attention ----------------------------------------------------------------------------
def attention(b: Builder) -> None:
    """What `fusing` has found: inputs q (.., T, d), k transposed (.., d, S), v (.., S, d);
    attributes scale, causal. All axes before the last two, without the batch, are heads."""
    shape = b.form(b.node.outputs[0]).shape
    for name in b.node.inputs:
        form = b.form(name)
        if form.batch is not None and form.batch >= len(form.shape) - 2:
            b.refuse("it attends to other candidates")
    q, k, v = (b.place(index) for index in range(3))
    k = k.moved(k.index.swapaxes(-1, -2))
    lead, (queries, size) = shape[:-2], shape[-2:]
    if q.shape[-1] != size:
        b.refuse("values must be as long as keys")
    heads = math.prod(lead)

    def tokens(x: Place) -> Rows:
        wide = np.broadcast_to(x.index, (*lead, *x.shape[-2:])).reshape(heads, -1, size)
        return b.rows(x.moved(wide.transpose(1, 0, 2).reshape(-1, heads * size)))

    out = b.new((queries, heads, size))
    b.emit(
        Attention(
            queries=queries,
            keys=k.shape[-2],
            heads=heads,
            size=size,
            scale=b.node.attributes["scale"],
            causal=b.node.attributes["causal"],
            out=Rows(register=out.register, stride=heads * size),
            q=tokens(q),
            k=tokens(k),
            v=tokens(v),
        )
    )
    b.give(out.moved(out.index.transpose(1, 0, 2).reshape(shape)))


RULES: Mapping[str, Callable[[Builder], Any]] = {
    "ScaledAttention": attention,
    "GRU": gru,
    "GruStep": gru_step,
    "LstmStep": lstm_step,
    "LSTM": lstm,
}
