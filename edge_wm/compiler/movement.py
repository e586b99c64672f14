"""Rules for what only moves numbers: indices move, and nothing is computed.

The batch must stay where all of one candidate's numbers are together: an axis is never cut,
joined or turned inside out where it is the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_wm.bundle.program import Lookup, OneHot, Rows
from edge_wm.compiler.builder import Builder
from edge_wm.compiler.places import Pieces, Place
from edge_wm.types import Array


def reshape(b: Builder) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze: C order stays, also across the batch.

    That is so where as many numbers as before lie outside the batch axis.
    """
    before, after = b.form(b.node.inputs[0]), b.form(b.node.outputs[0])
    if before.batch is not None and after.batch is not None:
        outside = [math.prod(form.shape[: form.batch]) for form in (before, after)]
        if outside[0] != outside[1]:
            b.refuse("it moves numbers from one candidate to another")
    b.give(_reshaped(b.operand(0), after.shape, b))


def _reshaped(x: Place | Pieces, shape: tuple[int, ...], b: Builder) -> Place | Pieces:
    """In C order; pieces stay apart where their axis stays the last one."""
    if isinstance(x, Place):
        return x.moved(x.index.reshape(shape))
    if x.axis == len(x.shape) - 1 and shape and shape[-1] == x.shape[-1]:
        parts = tuple(p.moved(p.index.reshape(*shape[:-1], p.shape[-1])) for p in x.parts)
        return Pieces(parts, len(shape) - 1)
    joined = b.place(0)
    return joined.moved(joined.index.reshape(shape))


def transpose(b: Builder) -> None:
    x = b.place(0)
    perm = b.node.attributes.get("perm", list(range(x.index.ndim))[::-1])
    b.give(x.moved(x.index.transpose(perm)))


def expand(b: Builder) -> None:
    x = b.place(0)
    b.give(x.moved(np.broadcast_to(x.index, b.form(b.node.outputs[0]).shape)))


def tile(b: Builder) -> None:
    before, after = b.form(b.node.inputs[0]), b.form(b.node.outputs[0])
    if before.batch is not None and before.shape[before.batch] != after.shape[before.batch]:
        b.refuse("it repeats the batch")
    x = b.place(0)
    repeats = [n // m for n, m in zip(after.shape, before.shape, strict=True)]
    if all(m == 1 or r == 1 for m, r in zip(before.shape, repeats, strict=True)):
        b.give(x.moved(np.broadcast_to(x.index, after.shape)))
    else:
        b.give(x.moved(np.tile(x.index, repeats)))


def constant_of_shape(b: Builder) -> None:
    fill = b.node.attributes.get("value", np.zeros(1, np.float32))
    shape = b.form(b.node.outputs[0]).shape
    b.give(b.scalar(float(np.asarray(fill).flat[0]), shape))


def slices(b: Builder) -> None:
    form, settings = b.form(b.node.inputs[0]), b.node.attributes
    starts, ends = settings.get("starts"), settings.get("ends")
    axes, steps = settings.get("axes", ()), settings.get("steps", ())
    if starts is None or ends is None or axes is None or steps is None:
        b.refuse("where it cuts depends on the batch")
        return
    cut = [slice(None)] * len(form.shape)
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = int(axes[i]) % len(cut) if len(axes) else i
        step = int(steps[i]) if len(steps) else 1
        if step < 0 and end < -form.shape[axis]:
            end = None  # ONNX writes the end of a reversed axis as a very small number
        if axis == form.batch:
            if (start, step) != (0, 1) or end < 2**31 - 1:
                b.refuse("it cuts the batch")
            continue
        cut[axis] = slice(start, end, step)
    x = b.place(0)
    b.give(x.moved(x.index[tuple(cut)]))


def split(b: Builder) -> None:
    form = b.form(b.node.inputs[0])
    axis = b.node.attributes.get("axis", 0) % len(form.shape)
    if axis == form.batch:
        b.refuse("it cuts the batch")
    if "" in b.node.outputs:
        b.refuse("an output is left out")
    x, begin = b.place(0), 0
    for output, name in enumerate(b.node.outputs):
        end = begin + b.form(name).shape[axis]
        b.give(x.moved(x.index[(slice(None),) * axis + (slice(begin, end),)]), output)
        begin = end


def concat(b: Builder) -> None:
    form = b.form(b.node.outputs[0])
    axis = b.node.attributes["axis"] % len(form.shape)
    if axis == form.batch:
        b.refuse("it puts batches one after another")
    parts: list[Place] = []
    for index in range(len(b.node.inputs)):
        x = b.operand(index)
        if isinstance(x, Pieces) and x.axis == axis:
            parts += x.parts
        else:
            parts.append(b.place(index))
    b.give(together(parts, axis))


def together(parts: list[Place], axis: int) -> Place | Pieces:
    """Places side by side; neighbors in one register become one place."""
    joined = parts[:1]
    for part in parts[1:]:
        last = joined[-1]
        if part.register == last.register:
            joined[-1] = last.moved(np.concatenate([last.index, part.index], axis))
        else:
            joined.append(part)
    return joined[0] if len(joined) == 1 else Pieces(tuple(joined), axis)


def pad(b: Builder) -> None:
    """Zeros, or another constant, around: the whole register is filled first."""
    form, settings = b.form(b.node.inputs[0]), b.node.attributes
    pads, axes = settings.get("pads"), settings.get("axes", range(len(form.shape)))
    fill = settings.get("constant_value", 0)
    if settings.get("mode", "constant") != "constant":
        b.refuse(f"mode {settings['mode']!r}, only 'constant'")
    if pads is None or axes is None or fill is None:
        b.refuse("how much depends on the batch")
        return
    after, middle = b.form(b.node.outputs[0]).shape, [slice(None)] * len(form.shape)
    pads = [int(n) for n in pads]
    for i, axis in enumerate(int(a) % len(form.shape) for a in axes):
        before, behind = pads[i], pads[i + len(pads) // 2]
        if min(before, behind) < 0:
            b.refuse("it cuts off numbers")
        if axis == form.batch and (before or behind):
            b.refuse("it pads the batch")
        middle[axis] = slice(before, before + form.shape[axis])
    out = b.new(after)
    b.copy(out, b.scalar(float(np.asarray(fill).flat[0]) if np.size(fill) else 0.0, after))
    b.copy(out.moved(out.index[tuple(middle)]), b.place(0))
    b.give(out)


def depth_to_space(b: Builder) -> None:
    """(C, H, W) to (C / n^2, n H, n W), as the two modes of ONNX have it."""
    x, n = b.place(0), b.node.attributes["blocksize"]
    k, c, h, w = x.shape
    if b.node.attributes.get("mode", "DCR") == "DCR":
        index = x.index.reshape(k, n, n, c // n**2, h, w).transpose(0, 3, 4, 1, 5, 2)
    else:
        index = x.index.reshape(k, c // n**2, n, n, h, w).transpose(0, 1, 4, 2, 5, 3)
    b.give(x.moved(index.reshape(k, c // n**2, h * n, w * n)))


def space_to_depth(b: Builder) -> None:
    x, n = b.place(0), b.node.attributes["blocksize"]
    k, c, h, w = x.shape
    index = x.index.reshape(k, c, h // n, n, w // n, n).transpose(0, 3, 5, 1, 2, 4)
    b.give(x.moved(index.reshape(k, c * n**2, h // n, w // n)))


def resize(b: Builder) -> None:
    """To a whole multiple, by repeating each pixel."""
    settings = b.node.attributes
    before, after = b.form(b.node.inputs[0]), b.form(b.node.outputs[0])
    way = (
        settings.get("mode", "nearest"),
        settings.get("coordinate_transformation_mode", "half_pixel"),
        settings.get("nearest_mode", "round_prefer_floor"),
    )
    exact = (("nearest", "asymmetric", "floor"), ("nearest", "half_pixel", "round_prefer_floor"))
    if way not in exact:
        b.refuse(f"{', '.join(way)}, only the nearest pixel by whole multiples")
    x = b.place(0)
    index = x.index
    for axis, (n, m) in enumerate(zip(before.shape, after.shape, strict=True)):
        if m % n or (axis == before.batch and m != n):
            b.refuse(f"from {n} to {m}, only the nearest pixel by whole multiples")
        index = np.repeat(index, m // n, axis)
    b.give(x.moved(index))


def gather(b: Builder) -> None:
    """With constant indices numbers move; from a constant table they are looked up."""
    data, indices = b.node.inputs
    form = b.form(data)
    axis = b.node.attributes.get("axis", 0) % len(form.shape)
    if indices in b.graph.constants:
        if axis == form.batch:
            b.refuse("it picks candidates")
        x = b.place(0)
        b.give(x.moved(x.index.take(b.graph.constants[indices], axis)))
    elif data in b.graph.constants and axis == 0:
        _lookup(b, b.graph.constants[data])
    else:
        b.refuse("its indices or, along axis 0, its table must be constant")


def _lookup(b: Builder, table: Array) -> None:
    table = table.astype(np.float32).reshape(len(table), -1)
    x, size = b.place(1), table.shape[1]
    out = b.new(b.form(b.node.outputs[0]).shape)
    tokens = x.index.size
    read = b.rows(x.moved(x.index.reshape(tokens, 1)))
    write = Rows(register=out.register, stride=size)
    b.emit(Lookup(tokens=tokens, size=size, out=write, x=read, table=b.hold(table)))
    b.give(out)


def one_hot(b: Builder) -> None:
    """What `fusing` has made of ArgMax and OneHot: attribute `axis`, of what is compared."""
    x, axis = b.place(0), b.node.attributes["axis"]
    if axis == b.form(b.node.inputs[0]).batch:
        b.refuse("over the batch")
    index = np.moveaxis(x.index, axis, -1)
    size = index.shape[-1]
    out = b.new(index.shape)
    read = b.rows(x.moved(index.reshape(-1, size)))
    write = Rows(register=out.register, stride=size)
    b.emit(OneHot(tokens=index.size // size, size=size, out=write, x=read))
    b.give(out.moved(np.moveaxis(out.index, -1, axis)))


RULES: Mapping[str, Callable[[Builder], Any]] = {
    "Concat": concat,
    "ConstantOfShape": constant_of_shape,
    "DepthToSpace": depth_to_space,
    "Expand": expand,
    "Flatten": reshape,
    "Gather": gather,
    "LargestOneHot": one_hot,
    "Pad": pad,
    "Reshape": reshape,
    "Resize": resize,
    "Slice": slices,
    "SpaceToDepth": space_to_depth,
    "Split": split,
    "Squeeze": reshape,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": reshape,
}
