"""Rules for what is computed over a whole token or axis: norms, softmax, sums."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from edge_wm.bundle.program import Norm, Reduce, ReduceKind, Rows, Softmax, View
from edge_wm.compiler.builder import Builder
from edge_wm.compiler.places import Place, Shape, blocks, strided
from edge_wm.types import Array

REDUCE: Mapping[str, ReduceKind] = {
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceMax": "max",
    "ReduceMean": "mean",
    "ReduceMin": "min",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum",
}


def norm(b: Builder) -> None:
    """What `fusing` has made of the norms' many forms: attributes kind, axis (the first of those
    that are normalized together), epsilon, weight, bias (constants or None)."""
    node, form = b.node, b.form(b.node.inputs[0])
    settings = node.attributes
    if form.batch is not None and form.batch >= settings["axis"]:
        b.refuse("over the batch")
    b.give(
        normalized(
            b, b.place(0), settings["kind"], settings["axis"], settings["epsilon"],
            settings["weight"], settings["bias"],
        )
    )  # fmt: skip


def normalized(
    b: Builder,
    x: Place,
    kind: Literal["layer", "rms"],
    axis: int,
    epsilon: float,
    weight: Array | None = None,
    bias: Array | None = None,
) -> Place:
    size = math.prod(x.shape[axis:])
    tokens = x.index.size // size
    out = b.new(x.shape)
    read = b.rows(x.moved(x.index.reshape(tokens, size)))
    held = [None if value is None else b.hold(_spread(value, x.shape[axis:]))
            for value in (weight, bias)]  # fmt: skip
    b.emit(
        Norm(
            kind=kind, tokens=tokens, size=size, out=Rows(register=out.register, stride=size),
            x=read, epsilon=epsilon, weight=held[0], bias=held[1],
        )
    )  # fmt: skip
    return out


def _spread(value: Array, shape: Shape) -> Array:
    """A weight or bias as one number for each of a token's."""
    value = value.reshape(value.shape[max(0, value.ndim - len(shape)) :])
    return np.broadcast_to(value, shape).astype(np.float32).ravel()


def group_norm(b: Builder) -> None:
    """InstanceNormalization and GroupNormalization: (K, C, ...) in groups of channels, then a
    scale and a bias for each channel."""
    form, settings = b.form(b.node.inputs[0]), b.node.attributes
    if form.batch not in (None, 0) or len(form.shape) < 3:
        b.refuse("the batch must be its first axis, and space must follow")
    x = b.place(0)
    k, channels = x.shape[:2]
    groups = settings.get("num_groups", channels)
    grouped = x.moved(x.index.reshape(k, groups, -1))
    made = normalized(b, grouped, "layer", 2, settings.get("epsilon", 1e-5))
    made = made.moved(made.index.reshape(x.shape))
    for index, kind in ((1, "mul"), (2, "add")):
        each = b.place(index)
        if each.shape != (channels,):
            b.refuse("scale and bias must have a number for each channel")
        wide = each.moved(each.index.reshape(channels, *[1] * (len(x.shape) - 2)))
        made = b.binary("mul" if kind == "mul" else "add", made, wide)
    b.give(made)


# ---- softmax ------------------------------------------------------------------------------
def softmax(b: Builder) -> None:
    form = b.form(b.node.inputs[0])
    axis = b.node.attributes.get("axis", -1) % len(form.shape)
    if axis == form.batch:
        b.refuse("over the batch")
    x = b.place(0)
    index = np.moveaxis(x.index, axis, -1)
    size = index.shape[-1]
    out = b.new(index.shape)
    b.emit(
        Softmax(
            tokens=index.size // size,
            size=size,
            out=Rows(register=out.register, stride=size),
            x=b.rows(x.moved(index.reshape(-1, size))),
        )
    )
    b.give(out.moved(np.moveaxis(out.index, -1, axis)))


def log_softmax(b: Builder) -> None:
    """x - max - log(sum(exp(x - max))): the log of a softmax would lose small ones."""
    form = b.form(b.node.inputs[0])
    axis = b.node.attributes.get("axis", -1) % len(form.shape)
    if axis == form.batch:
        b.refuse("over the batch")
    x = b.place(0)
    centered = b.binary("sub", x, reduced(b, "max", x, [axis]))
    total = reduced(b, "sum", b.unary("exp", centered), [axis])
    b.give(b.binary("sub", centered, b.unary("log", total)))


# ---- sums -----------------------------------------------------------------------------------
def reduced(b: Builder, kind: ReduceKind, x: Place, axes: list[int]) -> Place:
    """f over axes, which stay as axes of one number."""
    kept = [axis for axis in range(x.index.ndim) if axis not in axes]
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    index = x.index.transpose(*kept, *axes).reshape(*(x.shape[a] for a in kept), -1)
    out = b.new(shape)
    if strided(index) is None:
        moved = b.packed(x.moved(index))
        x, index = moved, moved.index
    first = index[..., 0]
    found = blocks(out.index.reshape(first.shape), first)
    step = int(index.flat[1] - index.flat[0]) if index.shape[-1] > 1 else 0
    for block in found or []:
        for cut in _cut(block.shape):
            offsets = [
                offset + sum(i * s for i, s in zip(cut, strides, strict=False))
                for offset, strides in zip(block.offsets, block.strides, strict=True)
            ]
            inner = [strides[len(cut) :] for strides in block.strides]
            b.emit(
                Reduce(
                    kind=kind,
                    shape=(*block.shape[len(cut) :], index.shape[-1]),
                    out=View(register=out.register, offset=offsets[0], strides=inner[0]),
                    x=View(register=x.register, offset=offsets[1], strides=(*inner[1], step)),
                )
            )
    return out


def _cut(shape: Shape) -> list[tuple[int, ...]]:
    """Indices of the outermost axis where there are four: a reduction needs one for itself."""
    return [(i,) for i in range(shape[0])] if len(shape) > 3 else [()]


def reduce(b: Builder) -> None:
    form, settings, op = b.form(b.node.inputs[0]), b.node.attributes, b.node.op
    axes = settings.get("axes", ())
    if axes is None:
        b.refuse("its axes depend on the batch")
        return
    axes = sorted({int(axis) % len(form.shape) for axis in np.asarray(axes, int).ravel()})
    x = b.place(0)
    if not axes and settings.get("noop_with_empty_axes", 0):
        b.give(x)
        return
    axes = axes or list(range(len(form.shape)))
    if form.batch in axes:
        b.refuse("over the batch")
    if op == "ReduceLogSumExp":
        largest = reduced(b, "max", x, axes)
        total = reduced(b, "sum", b.unary("exp", b.binary("sub", x, largest)), axes)
        out = b.binary("add", largest, b.unary("log", total))
    else:
        if op in ("ReduceSumSquare", "ReduceL2"):
            x = b.unary("square", x)
        elif op == "ReduceL1":
            x = b.unary("abs", x)
        out = reduced(b, REDUCE[op], x, axes)
        if op == "ReduceL2":
            out = b.unary("sqrt", out)
    b.give(out.moved(out.index.reshape(b.form(b.node.outputs[0]).shape)))


def global_pool(b: Builder) -> None:
    """The mean, or the largest number, of each channel."""
    form = b.form(b.node.inputs[0])
    if form.batch not in (None, 0):
        b.refuse("the batch must be its first axis")
    kind: ReduceKind = "max" if b.node.op == "GlobalMaxPool" else "mean"
    b.give(reduced(b, kind, b.place(0), list(range(2, len(form.shape)))))


def pool(b: Builder) -> None:
    """AveragePool and MaxPool where windows tile the image: each window is an axis of its own."""
    form, settings = b.form(b.node.inputs[0]), b.node.attributes
    kernel = list(settings["kernel_shape"])
    stride = list(settings.get("strides", [1] * len(kernel)))
    out = b.form(b.node.outputs[0]).shape
    space = form.shape[2:]
    tiled = (kernel == stride or kernel == list(space)) and len(b.node.outputs) == 1
    if not tiled or any(settings.get("pads", [0])) or set(settings.get("dilations", [1])) != {1}:
        b.refuse("windows must lie side by side, without pads")
    if form.batch not in (None, 0) or any(n % k for n, k in zip(space, kernel, strict=True)):
        b.refuse("windows must fill the image, and the batch must be its first axis")
    x = b.place(0)
    split = [n for size, k in zip(space, kernel, strict=True) for n in (size // k, k)]
    index = x.index.reshape(*form.shape[:2], *split)
    axes = list(range(3, index.ndim, 2))
    kind: ReduceKind = "max" if b.node.op == "MaxPool" else "mean"
    made = reduced(b, kind, x.moved(index), axes)
    b.give(made.moved(made.index.reshape(out)))


RULES: Mapping[str, Callable[[Builder], Any]] = {
    **dict.fromkeys(REDUCE, reduce),
    "AveragePool": pool,
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GroupNormalization": group_norm,
    "InstanceNormalization": group_norm,
    "LogSoftmax": log_softmax,
    "MaxPool": pool,
    "Norm": norm,
    "ReduceLogSumExp": reduce,
    "Softmax": softmax,
}
