"""Rules for products with constant matrices: dense layers, ensembles of them, convolutions.

`fusing` has turned MatMul and Gemm into a node Dense: its inputs are the activations, and its
attributes hold for each of them a weight (..., N, K) and its name, and a bias (..., N) or None.
Axes before N count the members of an ensemble.

A convolution is a dense layer whose tokens are the output's pixels: `Patches` lays out what each
pixel sees, in the order (row, column, channel), and the result lies in the order (height, width,
channels). Its index says (channels, height, width), so a transposition before or after is free.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_wm.bundle.program import Patches, Rows
from edge_wm.compiler.builder import Builder
from edge_wm.compiler.places import Pieces, Place, Shape
from edge_wm.types import Array


def dense(b: Builder) -> None:
    """One Dense for each member: the members' axes come first in the new register."""
    node = b.node
    weights: list[Array] = node.attributes["weights"]
    shape = b.form(node.outputs[0]).shape
    for name in node.inputs:
        form = b.form(name)
        if form.batch == len(form.shape) - 1:
            b.refuse("it sums over the batch")
    lead = shape[:-2] if len(shape) > 1 else ()
    rows = shape[-2] if len(shape) > 1 else 1
    size = weights[0].shape[-2]
    members = _members(lead, weights)
    count = math.prod(lead[axis] for axis in members)
    order = [*members, *(axis for axis in range(len(lead)) if axis not in members)]

    parts: list[tuple[Array, int, Array]] = []  # (index (members, tokens, K), register, weight)
    for index, weight in enumerate(weights):
        for place, columns in _columns(b, index, weight):
            wide = np.broadcast_to(
                place.index.reshape(*_padded(place.shape[:-2], len(lead)), -1, place.shape[-1]),
                (*lead, rows, place.shape[-1]),
            )
            wide = wide.transpose(*order, len(lead), len(lead) + 1)
            parts.append(
                (
                    wide.reshape(count, -1, place.shape[-1]),
                    place.register,
                    _by_member(columns, lead, members, order),
                )
            )
    bias = node.attributes["bias"]
    if bias is not None:
        rows_of_one = np.broadcast_to(bias[..., None, :], (*bias.shape[:-1], 1, size))
        bias = _by_member(rows_of_one, lead, members, order)[:, 0]
    tokens = parts[0][0].shape[1]
    register = b.register(count * tokens * size)
    for member in range(count):
        b.dense(
            Rows(register=register, offset=member * tokens * size, stride=size),
            size,
            [(Place(r, index[member]), weight[member]) for index, r, weight in parts],
            None if bias is None else bias[member],
            [node.name, *node.attributes["names"]],
        )
    made = np.arange(count * tokens * size)
    made = made.reshape(*(lead[axis] for axis in order), rows, size)
    made = made.transpose(*np.argsort(order), len(lead), len(lead) + 1)
    b.give(Place(register, made.reshape(shape)))


def _members(lead: Shape, weights: list[Array]) -> list[int]:
    """The axes of the output, before its last two, along which a weight differs."""
    found = set()
    for weight in weights:
        for axis, size in enumerate(_padded(weight.shape[:-2], len(lead))):
            if size > 1:
                found.add(axis)
    return sorted(found)


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + tuple(shape)


def _by_member(value: Array, lead: Shape, members: list[int], order: list[int]) -> Array:
    """(..., a, b) as (members, a, b)."""
    full: Array = value.reshape(*_padded(value.shape[:-2], len(lead)), *value.shape[-2:])
    sizes = [n if axis in members else 1 for axis, n in enumerate(lead)]
    full = np.broadcast_to(full, (*sizes, *value.shape[-2:]))
    full = full.transpose(*order, len(lead), len(lead) + 1)
    return np.reshape(full, (-1, *value.shape[-2:]))


def _columns(b: Builder, index: int, weight: Array) -> list[tuple[Place, Array]]:
    """An input, piece by piece if it is a concatenation, each with its columns of the weight."""
    x = b.operand(index)
    if not isinstance(x, Pieces) or x.axis != len(x.shape) - 1 or len(x.parts) > 16:
        return [(_at_least_2d(b.place(index)), weight)]
    found, begin = [], 0
    for part in x.parts:
        end = begin + part.shape[-1]
        found.append((_at_least_2d(part), weight[..., begin:end]))
        begin = end
    return found


def _at_least_2d(x: Place) -> Place:
    return x if x.index.ndim > 1 else x.moved(x.index[None])


# ---- convolution --------------------------------------------------------------------------
def conv(b: Builder) -> None:
    """Two axes, or one as an image of height 1."""
    settings = b.node.attributes
    weight: Array = settings["weight"]
    if settings.get("group", 1) != 1:
        b.refuse(f"{settings['group']} groups")
    if set(settings.get("dilations", [1])) != {1}:
        b.refuse(f"dilations {settings['dilations']}")
    flat = weight.ndim == 3
    if weight.ndim not in (3, 4):
        b.refuse(f"{weight.ndim - 2} axes of space")
    if b.form(b.node.inputs[0]).batch not in (None, 0):
        b.refuse("the batch must be its first axis")
    x = b.place(0)
    if flat:
        weight, x = weight[:, :, None], x.moved(x.index[:, :, None])
    stride = tuple([1] * flat + list(settings.get("strides", [1] * (weight.ndim - 2 - flat))))
    pads = _pads(b, x.shape[2:], weight.shape[2:], stride, flat)
    images = [_image(b, x.moved(x.index[i]), weight, stride, pads) for i in range(len(x.index))]
    out = images[0]
    if len(images) > 1:
        register = b.register(sum(image.index.size for image in images))
        out = Place(register, np.arange(sum(image.index.size for image in images)))
        out = out.moved(out.index.reshape(len(images), *images[0].shape))
        for i, image in enumerate(images):
            b.copy(out.moved(out.index[i]), image)
    b.give(out.moved(out.index.reshape(b.form(b.node.outputs[0]).shape)))


def _pads(
    b: Builder, size: Shape, kernel: Shape, stride: Shape, flat: bool
) -> tuple[int, int, int, int]:
    """Zeros around an image: top, left, bottom, right."""
    settings = b.node.attributes
    auto = settings.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        given = settings.get("pads", [0] * (4 - 2 * flat))
        top, left, bottom, right = [0, given[0], 0, given[1]] if flat else given
        return top, left, bottom, right
    if auto == "VALID":
        return 0, 0, 0, 0
    needed = [
        max(0, (-(-n // s) - 1) * s + k - n) for n, k, s in zip(size, kernel, stride, strict=True)
    ]
    half = [(n + (auto == "SAME_LOWER")) // 2 for n in needed]
    return half[0], half[1], needed[0] - half[0], needed[1] - half[1]


def _image(
    b: Builder, x: Place, weight: Array, stride: Shape, pads: tuple[int, int, int, int]
) -> Place:
    """The convolution of one image (channels, height, width)."""
    channels, height, width = x.shape
    kernel = weight.shape[2:]
    down = (height + pads[0] + pads[2] - kernel[0]) // stride[0] + 1
    across = (width + pads[1] + pads[3] - kernel[1]) // stride[1] + 1
    pixels, seen = down * across, math.prod(kernel) * channels
    last = x.moved(x.index.transpose(1, 2, 0))
    if kernel == (1, 1) and stride == (1, 1) and not any(pads):
        patches = last.moved(last.index.reshape(pixels, seen))
    elif pixels == 1 and not any(pads) and kernel == (height, width):
        patches = last.moved(last.index.reshape(1, seen))
    else:
        patches = b.new((pixels, seen))
        b.emit(
            Patches(
                height=height,
                width=width,
                channels=channels,
                kernel=(kernel[0], kernel[1]),
                stride=(stride[0], stride[1]),
                pads=pads,
                out=Rows(register=patches.register, stride=seen),
                x=b.rows(last.moved(last.index.reshape(1, -1))),
            )
        )
    size = len(weight)
    out = b.new((down, across, size))
    rows = np.ascontiguousarray(weight.transpose(0, 2, 3, 1).reshape(size, seen))
    b.dense(
        Rows(register=out.register, stride=size),
        size,
        [(patches, rows)],
        b.node.attributes["bias"],
        [b.node.name, *b.node.attributes["names"]],
    )
    return out.moved(out.index.transpose(2, 0, 1))


RULES: Mapping[str, Callable[[Builder], Any]] = {"Dense": dense, "Conv": conv}
