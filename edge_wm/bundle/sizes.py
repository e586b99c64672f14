"""How large every tensor of a graph will be, and how much work it is, without computing it.

A few bytes of graph can ask for terabytes or hours: ConstantOfShape, Expand, Tile, Range, a
broadcast of (N, 1) with (1, N), a chain of Concat(x, x). An inference library meets them when
it folds constants, before anybody can stop it. So every operator of the closed list below has
a rule that gives its outputs' shapes from its inputs' shapes, and where a shape depends on a
small tensor's values (Reshape, Slice, ...) those values are computed along. A batch axis is
given a number; there are no symbols, and nothing is estimated.

Invariant: a graph that passes has a known shape for every tensor, and its tensors, its work
and what of it can be folded are all within the limits.

Shapes follow the operators' definitions in https://onnx.ai/onnx/operators/.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_wm.bundle.onnx_file import (
    DTYPES,
    KNOWN,
    MAX_RANK,
    MAX_TENSOR,
    Constant,
    Node,
    Port,
)
from edge_wm.errors import ModelError
from edge_wm.types import Array

MAX_BYTES = 8 * 2**30  # of all tensors of one call together
MAX_WORK = 10**12  # multiply-adds of one call
MAX_FOLDED_BYTES = 256 * 2**20  # of all tensors that do not depend on the graph's inputs
MAX_FOLDED_WORK = 10**9

Shape = tuple[int, ...]


class SizeError(Exception):
    """A node's sizes do not work out; `infer` adds where, and raises a ModelError."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """What is known of a tensor before anything is computed."""

    dtype: str
    shape: Shape
    value: Array | None = None  # where it is small and does not depend on data
    folded: bool = False  # does not depend on the graph's inputs' values


def product(shape: Sequence[int]) -> int:
    """The number of numbers in a tensor. Raises: SizeError (too large, or a negative size)."""
    if len(shape) > MAX_RANK or any(size < 0 for size in shape):
        raise SizeError(f"must have up to {MAX_RANK} sizes of 0 or more, got {list(shape)}")
    if math.prod(shape) > MAX_TENSOR:
        raise SizeError(f"a tensor must have at most {MAX_TENSOR} numbers, got {list(shape)}")
    return math.prod(shape)


def broadcast(*shapes: Shape) -> Shape:
    """The shape of an elementwise operation. Raises: SizeError."""
    result = []
    for sizes in zip(
        *(_left_padded(shape, max(map(len, shapes))) for shape in shapes), strict=True
    ):
        wide = {size for size in sizes if size != 1}
        if len(wide) > 1:
            raise SizeError(f"cannot broadcast {' with '.join(str(list(s)) for s in shapes)}")
        result.append(wide.pop() if wide else 1)
    return tuple(result)


def _left_padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def axis_of(axis: int, rank: int) -> int:
    """A possibly negative axis as 0 to rank - 1. Raises: SizeError."""
    if not -rank <= axis < rank:
        raise SizeError(f"axis {axis} must be from {-rank} to {rank - 1}")
    return axis % rank


def matmul(a: Shape, b: Shape) -> tuple[Shape, int]:
    """(output shape, multiply-adds) of numpy's matmul. Raises: SizeError."""
    if not a or not b:
        raise SizeError("a matrix product needs at least one axis on each side")
    rows, columns = a[-2:-1], b[-1:] if len(b) > 1 else ()
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise SizeError(f"cannot multiply {list(a)} with {list(b)}")
    shape = (*broadcast(a[:-2], b[:-2]), *rows, *columns)
    return shape, product(shape) * inner


def window(
    size: int, kernel: int, stride: int, dilation: int, pads: int, ceil: bool = False
) -> int:
    """The output size of a sliding window along one axis. Raises: SizeError."""
    if kernel < 1 or stride < 1 or dilation < 1 or pads < 0:
        raise SizeError(
            f"a window needs kernel, stride and dilation above 0 and no negative pads, "
            f"got {kernel}, {stride}, {dilation} and {pads}"
        )
    span = size + pads - dilation * (kernel - 1) - 1
    if span < 0:
        raise SizeError(f"a window of {kernel} does not fit into {size} + {pads}")
    return (-(-span // stride) if ceil else span // stride) + 1


def sliced(size: int, start: int | None, end: int | None, step: int) -> int:
    """How many elements numpy's [start:end:step] leaves of `size`."""
    if step == 0:
        raise SizeError("a slice's step must not be 0")
    return len(range(size)[start:end:step])


# ---- one node ---------------------------------------------------------------------------
class Call:
    """One node with what is known of its inputs; rules ask it and return (shape, dtype)s."""

    def __init__(self, node: Node, inputs: Sequence[Tensor | None]) -> None:
        self.node = node
        self.inputs = inputs
        self.work = 0

    def has(self, index: int) -> bool:
        return index < len(self.inputs) and self.inputs[index] is not None

    def tensor(self, index: int) -> Tensor:
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise SizeError(f"input {index} is missing")
        return found

    def shape(self, index: int = 0) -> Shape:
        return self.tensor(index).shape

    def dtype(self, index: int = 0) -> str:
        return self.tensor(index).dtype

    def rank(self, index: int = 0) -> int:
        return len(self.shape(index))

    def numbers(self, index: int) -> list[int]:
        """An input's values, which a shape depends on."""
        value = self.tensor(index).value
        if value is None:
            raise SizeError(f"input {index} decides a size and must not depend on data")
        return [int(number) for number in value.ravel()]

    def number(self, name: str, default: int | None = None) -> int:
        value = self.node.attributes.get(name, default)
        if not isinstance(value, int):
            raise SizeError(f"attribute {name!r} must be an integer, got {value!r}")
        return value

    def ints(self, name: str) -> list[int] | None:
        value = self.node.attributes.get(name)
        if value is None:
            return None
        if not isinstance(value, tuple) or isinstance(value, Constant):
            raise SizeError(f"attribute {name!r} must be a list of integers")
        return [int(number) for number in value]

    def text(self, name: str, default: str = "") -> str:
        value = self.node.attributes.get(name, default.encode())
        return value.decode("ascii", "replace") if isinstance(value, bytes) else default

    def axes(self, index: int, rank: int) -> list[int] | None:
        """Axes from the attribute (older opsets) or from input `index` (newer), 0 to rank - 1."""
        given = self.ints("axes")
        if given is None and self.has(index):
            given = self.numbers(index)
        if given is None:
            return None
        axes = [axis_of(axis, rank) for axis in given]
        if len(set(axes)) < len(axes):
            raise SizeError(f"axes must not repeat, got {given}")
        return axes


Out = list[tuple[Shape, str]]  # (shape, dtype) of each output
Rule = Callable[[Call], Out]


def _same(call: Call) -> Out:
    return [(call.shape(), call.dtype())]


def _elementwise(call: Call) -> Out:
    shapes = [tensor.shape for tensor in call.inputs if tensor is not None]
    if not shapes:
        raise SizeError("needs at least one input")
    return [(broadcast(*shapes), call.dtype())]


def _comparison(call: Call) -> Out:
    return [(_elementwise(call)[0][0], "bool")]


def _as_bool(call: Call) -> Out:
    return [(call.shape(), "bool")]


def _where(call: Call) -> Out:
    return [(_elementwise(call)[0][0], call.dtype(1))]


def _cast(call: Call) -> Out:
    return [(call.shape(), DTYPES.get(call.number("to"), "an unknown type"))]


def _cast_like(call: Call) -> Out:
    return [(call.shape(), call.dtype(1))]


def _dropout(call: Call) -> Out:
    return [(call.shape(), call.dtype()), (call.shape(), "bool")]


def _layer_norm(call: Call) -> Out:
    axis = axis_of(call.number("axis", -1), call.rank())
    statistics = call.shape()[:axis] + (1,) * (call.rank() - axis)
    return [(call.shape(), call.dtype()), (statistics, "float32"), (statistics, "float32")]


def _quantize(call: Call) -> Out:
    return [(call.shape(), call.dtype(2) if call.has(2) else "uint8")]


def _dequantize(call: Call) -> Out:
    return [(call.shape(), call.dtype(1))]


def _dynamic_quantize(call: Call) -> Out:
    return [(call.shape(), "uint8"), ((), "float32"), ((), "uint8")]


def _matmul(call: Call) -> Out:
    shape, call.work = matmul(call.shape(0), call.shape(1))
    return [(shape, "int32" if call.node.op == "MatMulInteger" else call.dtype())]


def _quantized_matmul(call: Call) -> Out:
    shape, call.work = matmul(call.shape(0), call.shape(3))
    return [(shape, call.dtype(7))]


def _gemm(call: Call) -> Out:
    a, b = call.shape(0), call.shape(1)
    if len(a) != 2 or len(b) != 2:
        raise SizeError(f"must have two matrices, got {list(a)} and {list(b)}")
    a, b = (
        (a[::-1] if call.number("transA", 0) else a),
        (b[::-1] if call.number("transB", 0) else b),
    )
    shape, call.work = matmul(a, b)
    if call.has(2) and broadcast(shape, call.shape(2)) != shape:
        raise SizeError(f"the bias {list(call.shape(2))} must broadcast to {list(shape)}")
    return [(shape, call.dtype())]


def _windows(call: Call, size: Shape, kernel: Shape) -> Shape:
    """Output sizes of a convolution or pooling along its spatial axes."""
    n = len(size)
    strides, dilations = call.ints("strides") or [1] * n, call.ints("dilations") or [1] * n
    pads, auto = call.ints("pads") or [0] * 2 * n, call.text("auto_pad", "NOTSET")
    if not (len(kernel) == len(strides) == len(dilations) == n and len(pads) == 2 * n):
        raise SizeError(f"kernel, strides, dilations and pads must fit {n} spatial axes")
    if auto in ("SAME_UPPER", "SAME_LOWER") and min(strides) >= 1:
        return tuple(-(-s // stride) for s, stride in zip(size, strides, strict=True))
    if auto == "VALID":
        pads = [0] * 2 * n
    ceil = bool(call.number("ceil_mode", 0))
    if any(pad < 0 for pad in pads):
        raise SizeError(f"pads must not be negative, got {pads}")
    return tuple(
        window(size[i], kernel[i], strides[i], dilations[i], pads[i] + pads[n + i], ceil)
        for i in range(n)
    )


def _convolution(call: Call, weights: int = 1) -> Shape:
    x, w = call.shape(0), call.shape(weights)
    group = call.number("group", 1)
    if len(x) < 3 or len(w) != len(x) or group < 1 or x[1] != w[1] * group or w[0] % group:
        raise SizeError(f"cannot convolve {list(x)} with {list(w)} in {group} groups")
    shape = (x[0], w[0], *_windows(call, x[2:], w[2:]))
    call.work = product(shape) * product(w[1:])
    return shape


def _conv(call: Call) -> Out:
    return [(_convolution(call), "int32" if call.node.op == "ConvInteger" else call.dtype())]


def _quantized_conv(call: Call) -> Out:
    return [(_convolution(call, 3), call.dtype(7))]


def _conv_transpose(call: Call) -> Out:
    x, w = call.shape(0), call.shape(1)
    n, group = len(x) - 2, call.number("group", 1)
    if n < 1 or len(w) != len(x) or group < 1 or x[1] != w[0] or x[1] % group:
        raise SizeError(f"cannot convolve {list(x)} with {list(w)} in {group} groups")
    strides, dilations = call.ints("strides") or [1] * n, call.ints("dilations") or [1] * n
    pads, extra = call.ints("pads") or [0] * 2 * n, call.ints("output_padding") or [0] * n
    if call.text("auto_pad", "NOTSET") != "NOTSET" or call.ints("output_shape"):
        raise SizeError("must give pads, not auto_pad or output_shape")
    if not (len(strides) == len(dilations) == len(extra) == n and len(pads) == 2 * n):
        raise SizeError(f"strides, dilations, pads and output_padding must fit {n} spatial axes")
    size = tuple(
        strides[i] * (x[2 + i] - 1)
        + extra[i]
        + (w[2 + i] - 1) * dilations[i]
        + 1
        - pads[i]
        - pads[n + i]
        for i in range(n)
    )
    call.work = product(x) * product(w[1:])
    return [((x[0], w[1] * group, *size), call.dtype())]


def _pool(call: Call) -> Out:
    kernel = tuple(call.ints("kernel_shape") or ())
    shape = (*call.shape()[:2], *_windows(call, call.shape()[2:], kernel))
    call.work = product(shape) * product(kernel)
    return [(shape, call.dtype()), (shape, "int64")]


def _global_pool(call: Call) -> Out:
    return [(call.shape()[:2] + (1,) * (call.rank() - 2), call.dtype())]


def _reduce(call: Call) -> Out:
    axes = call.axes(1, call.rank())
    if not axes:
        axes = [] if call.number("noop_with_empty_axes", 0) else list(range(call.rank()))
    return [(_without(call.shape(), axes, bool(call.number("keepdims", 1))), call.dtype())]


def _arg_reduce(call: Call) -> Out:
    axis = axis_of(call.number("axis", 0), call.rank())
    return [(_without(call.shape(), [axis], bool(call.number("keepdims", 1))), "int64")]


def _without(shape: Shape, axes: Sequence[int], keep: bool) -> Shape:
    if keep:
        return tuple(1 if i in axes else size for i, size in enumerate(shape))
    return tuple(size for i, size in enumerate(shape) if i not in axes)


def _shape(call: Call) -> Out:
    start, end = call.number("start", 0), call.number("end", call.rank())
    return [((len(call.shape()[start:end]),), "int64")]


def _size(call: Call) -> Out:
    return [((), "int64")]


def _reshape(call: Call) -> Out:
    total, wanted = product(call.shape()), call.numbers(1)
    if not call.number("allowzero", 0):
        if any(size == 0 and i >= call.rank() for i, size in enumerate(wanted)):
            raise SizeError(f"cannot copy a size for {wanted} from {list(call.shape())}")
        wanted = [call.shape()[i] if size == 0 else size for i, size in enumerate(wanted)]
    known = math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known > 0 and total % known == 0:
        wanted = [total // known if size == -1 else size for size in wanted]
    if any(size < 0 for size in wanted) or math.prod(wanted) != total:
        raise SizeError(f"cannot reshape {list(call.shape())} to {wanted}")
    return [(tuple(wanted), call.dtype())]


def _flatten(call: Call) -> Out:
    axis = call.number("axis", 1)
    if not -call.rank() <= axis <= call.rank():
        raise SizeError(f"axis {axis} must be from {-call.rank()} to {call.rank()}")
    axis += call.rank() if axis < 0 else 0
    return [((math.prod(call.shape()[:axis]), math.prod(call.shape()[axis:])), call.dtype())]


def _squeeze(call: Call) -> Out:
    axes = call.axes(1, call.rank())
    if axes is None:
        axes = [i for i, size in enumerate(call.shape()) if size == 1]
    if any(call.shape()[axis] != 1 for axis in axes):
        raise SizeError(f"axes {axes} of {list(call.shape())} must have size 1")
    return [(_without(call.shape(), axes, False), call.dtype())]


def _unsqueeze(call: Call) -> Out:
    count = len(call.ints("axes") or call.numbers(1))
    axes = call.axes(1, call.rank() + count)
    sizes = iter(call.shape())
    return [
        (
            tuple(1 if i in (axes or ()) else next(sizes) for i in range(call.rank() + count)),
            call.dtype(),
        )
    ]


def _transpose(call: Call) -> Out:
    order = call.ints("perm") or list(range(call.rank()))[::-1]
    if sorted(order) != list(range(call.rank())):
        raise SizeError(f"perm must be an order of {call.rank()} axes, got {order}")
    return [(tuple(call.shape()[i] for i in order), call.dtype())]


def _concat(call: Call) -> Out:
    shapes = [call.shape(i) for i in range(len(call.inputs))]
    axis = axis_of(call.number("axis"), len(shapes[0]) if shapes else 0)
    rests = {shape[:axis] + shape[axis + 1 :] for shape in shapes}
    if len(rests) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise SizeError(f"cannot join {[list(shape) for shape in shapes]} along axis {axis}")
    total = sum(shape[axis] for shape in shapes)
    return [((*shapes[0][:axis], total, *shapes[0][axis + 1 :]), call.dtype())]


def _split(call: Call) -> Out:
    axis, parts = axis_of(call.number("axis", 0), call.rank()), len(call.node.outputs)
    size = call.shape()[axis]
    sizes = call.ints("split") or (call.numbers(1) if call.has(1) else None)
    if sizes is None:
        part = -(-size // parts)
        sizes = [part] * (parts - 1) + [size - part * (parts - 1)]
    if len(sizes) != parts or sum(sizes) != size or min(sizes) < 0:
        raise SizeError(f"cannot split {size} into {sizes}")
    head, tail = call.shape()[:axis], call.shape()[axis + 1 :]
    return [((*head, part, *tail), call.dtype()) for part in sizes]


def _slice_terms(call: Call) -> list[tuple[int, int, int, int]]:
    """(axis, start, end, step) of each sliced axis."""
    starts, ends = call.numbers(1), call.numbers(2)
    axes = call.numbers(3) if call.has(3) else list(range(len(starts)))
    steps = call.numbers(4) if call.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise SizeError("starts, ends, axes and steps must have one length")
    axes = [axis_of(axis, call.rank()) for axis in axes]
    sizes = call.shape()
    for axis, step in zip(axes, steps, strict=True):
        if step == 0:
            raise SizeError(f"the step of axis {axis} must not be 0")
    # past the low end of a reversed slice, numpy would wrap around: None stands for it
    return [
        (axis, start, end if end >= -sizes[axis] or step > 0 else -sizes[axis] - 1, step)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]


def _slice(call: Call) -> Out:
    shape = list(call.shape())
    for axis, start, end, step in _slice_terms(call):
        shape[axis] = sliced(shape[axis], start, end, step)
    return [(tuple(shape), call.dtype())]


def _gather(call: Call) -> Out:
    axis = axis_of(call.number("axis", 0), call.rank())
    return [(call.shape()[:axis] + call.shape(1) + call.shape()[axis + 1 :], call.dtype())]


def _gather_elements(call: Call) -> Out:
    return [(call.shape(1), call.dtype())]


def _gather_nd(call: Call) -> Out:
    batch, indices = call.number("batch_dims", 0), call.shape(1)
    if not indices or not 0 <= batch < len(indices) or batch + indices[-1] > call.rank():
        raise SizeError(f"cannot gather from {list(call.shape())} with {list(indices)}")
    return [(indices[:-1] + call.shape()[batch + indices[-1] :], call.dtype())]


def _expand(call: Call) -> Out:
    return [(broadcast(call.shape(), tuple(call.numbers(1))), call.dtype())]


def _tile(call: Call) -> Out:
    repeats = call.numbers(1)
    if len(repeats) != call.rank() or min(repeats, default=0) < 0:
        raise SizeError(f"repeats must be {call.rank()} numbers of 0 or more, got {repeats}")
    return [(tuple(s * r for s, r in zip(call.shape(), repeats, strict=True)), call.dtype())]


def _pad(call: Call) -> Out:
    pads, axes = call.numbers(1), list(range(call.rank()))
    if call.has(3):
        axes = [axis_of(axis, call.rank()) for axis in call.numbers(3)]
    if len(pads) != 2 * len(axes):
        raise SizeError(f"pads must be {2 * len(axes)} numbers, got {pads}")
    shape = list(call.shape())
    for i, axis in enumerate(axes):
        shape[axis] += pads[i] + pads[len(axes) + i]
    return [(tuple(shape), call.dtype())]


def _constant(call: Call) -> Out:
    value = _constant_value(call)
    return [(value.shape, value.dtype)]


def _constant_value(call: Call) -> Constant:
    if len(call.node.attributes) != 1:
        raise SizeError("a Constant must have one attribute")
    ((name, value),) = call.node.attributes.items()
    if isinstance(value, Constant):
        return value
    dtype = {"value_float": "float32", "value_floats": "float32"}.get(name)
    dtype = dtype or {"value_int": "int64", "value_ints": "int64"}.get(name)
    if dtype is None or isinstance(value, bytes):
        raise SizeError(f"a Constant's {name!r} is not supported; use value")
    array = np.array(value, dtype)
    return Constant(dtype, array.shape, array if array.size <= KNOWN else None)


def _constant_of_shape(call: Call) -> Out:
    value = call.node.attributes.get("value")
    dtype = value.dtype if isinstance(value, Constant) else "float32"
    return [(tuple(call.numbers(0)), dtype)]


def _range(call: Call) -> Out:
    values = [call.tensor(i).value for i in range(3)]
    if any(value is None or value.size != 1 for value in values):
        raise SizeError("start, limit and delta must be single numbers and not depend on data")
    start, limit, delta = (float(value.ravel()[0]) for value in values if value is not None)
    if not all(map(math.isfinite, (start, limit, delta))) or delta == 0:
        raise SizeError(f"start, limit and delta must be finite, got {start}, {limit}, {delta}")
    return [((max(0, math.ceil((limit - start) / delta)),), call.dtype())]


def _top_k(call: Call) -> Out:
    axis, numbers = axis_of(call.number("axis", -1), call.rank()), call.numbers(1)
    if len(numbers) != 1 or not 0 <= numbers[0] <= call.shape()[axis]:
        raise SizeError(f"k must be at most {call.shape()[axis]}, got {numbers}")
    shape = (*call.shape()[:axis], numbers[0], *call.shape()[axis + 1 :])
    return [(shape, call.dtype()), (shape, "int64")]


def _depth_to_space(call: Call) -> Out:
    block, shape = call.number("blocksize"), call.shape()
    if len(shape) != 4 or block < 1 or shape[1] % block**2:
        raise SizeError(f"cannot spread {list(shape)} over blocks of {block}")
    n, c, h, w = shape
    return [((n, c // block**2, h * block, w * block), call.dtype())]


def _space_to_depth(call: Call) -> Out:
    block, shape = call.number("blocksize"), call.shape()
    if len(shape) != 4 or block < 1 or shape[2] % block or shape[3] % block:
        raise SizeError(f"cannot gather {list(shape)} from blocks of {block}")
    n, c, h, w = shape
    return [((n, c * block**2, h // block, w // block), call.dtype())]


def _resize(call: Call) -> Out:
    if (
        call.ints("axes") is not None
        or call.text("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise SizeError("must resize all axes, without keeping the aspect ratio")
    if call.has(3):
        return [(tuple(call.numbers(3)), call.dtype())]
    scales = call.tensor(2).value
    if scales is None or scales.size != call.rank() or not np.all(np.isfinite(scales)):
        raise SizeError(f"scales must be {call.rank()} finite numbers that do not depend on data")
    sizes = zip(call.shape(), scales.ravel(), strict=True)
    return [(tuple(math.floor(size * float(scale)) for size, scale in sizes), call.dtype())]


def _one_hot(call: Call) -> Out:
    depth = call.numbers(1)
    axis = axis_of(call.number("axis", -1), call.rank() + 1)
    if len(depth) != 1 or depth[0] < 1:
        raise SizeError(f"depth must be one number above 0, got {depth}")
    return [((*call.shape()[:axis], depth[0], *call.shape()[axis:]), call.dtype(2))]


def _recurrent(call: Call) -> Out:
    x, w = call.shape(0), call.shape(1)
    hidden = call.number("hidden_size")
    if len(x) != 3 or len(w) != 3 or w[2] != x[2] or call.number("layout", 0):
        raise SizeError(f"must be (steps, batch, inputs) and weights to match, got {x} and {w}")
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[call.node.op]
    recurrence = (w[0], gates * hidden, hidden)
    if hidden < 1 or w[1] != gates * hidden or call.shape(2) != recurrence:
        raise SizeError(f"weights must be for {hidden} hidden units, got {w} and {call.shape(2)}")
    call.work = x[0] * x[1] * (product(w) + product(recurrence))
    state = (w[0], x[1], hidden)
    return [((x[0], *state), call.dtype()), (state, call.dtype()), (state, call.dtype())]


def _einsum(call: Call) -> Out:
    equation = call.text("equation").replace(" ", "")
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if not arrow or len(terms) != len(call.inputs) or not (left.replace(",", "") + right).isalpha():
        raise SizeError(f"the equation must be letters, commas and ->, got {equation!r}")
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        if len(term) != call.rank(index):
            raise SizeError(f"{term!r} must name the axes of {list(call.shape(index))}")
        for letter, size in zip(term, call.shape(index), strict=True):
            if sizes.setdefault(letter, size) != size:
                raise SizeError(f"{letter!r} has two sizes in {equation!r}")
    if not set(right) <= set(sizes):
        raise SizeError(f"{right!r} must use letters of {left!r}")
    call.work = math.prod(sizes.values())
    return [(tuple(sizes[letter] for letter in right), call.dtype())]


def _rules() -> dict[str, Rule]:
    """The closed list: every ONNX operator that a bundle's graph may use."""
    same = """Abs Acos Acosh Asin Asinh Atan Atanh BatchNormalization BitwiseNot Ceil Celu Clip Cos
        Cosh CumSum Elu Erf Exp Floor Gelu GroupNormalization HardSigmoid HardSwish Identity
        InstanceNormalization LRN LeakyRelu Log LogSoftmax LpNormalization
        MeanVarianceNormalization Mish Neg Not RMSNormalization Reciprocal Relu Round
        ScatterElements ScatterND Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign
        Sqrt Swish Tan Tanh ThresholdedRelu Trilu"""
    elementwise = """Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Max Mean Min Mod Mul Or
        PRelu Pow Sub Sum Xor"""
    reduce = """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
        ReduceProd ReduceSum ReduceSumSquare"""
    return {
        **dict.fromkeys(same.split(), _same),
        **dict.fromkeys(elementwise.split(), _elementwise),
        **dict.fromkeys(("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"), _comparison),
        **dict.fromkeys(("IsInf", "IsNaN"), _as_bool),
        **dict.fromkeys(reduce.split(), _reduce),
        **dict.fromkeys(("ArgMax", "ArgMin"), _arg_reduce),
        **dict.fromkeys(("AveragePool", "MaxPool"), _pool),
        **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool"), _global_pool),
        **dict.fromkeys(("Conv", "ConvInteger"), _conv),
        **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
        **dict.fromkeys(("MatMul", "MatMulInteger"), _matmul),
        "Cast": _cast,
        "CastLike": _cast_like,
        "Concat": _concat,
        "Constant": _constant,
        "ConstantOfShape": _constant_of_shape,
        "ConvTranspose": _conv_transpose,
        "DepthToSpace": _depth_to_space,
        "DequantizeLinear": _dequantize,
        "Dropout": _dropout,
        "DynamicQuantizeLinear": _dynamic_quantize,
        "Einsum": _einsum,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "GatherElements": _gather_elements,
        "GatherND": _gather_nd,
        "Gemm": _gemm,
        "LayerNormalization": _layer_norm,
        "OneHot": _one_hot,
        "Pad": _pad,
        "QLinearConv": _quantized_conv,
        "QLinearMatMul": _quantized_matmul,
        "QuantizeLinear": _quantize,
        "Range": _range,
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": _shape,
        "Size": _size,
        "Slice": _slice,
        "SpaceToDepth": _space_to_depth,
        "Split": _split,
        "Squeeze": _squeeze,
        "Tile": _tile,
        "TopK": _top_k,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }


RULES: Mapping[str, Rule] = _rules()


# ---- small values -----------------------------------------------------------------------
def _divided(a: Array, b: Array) -> Array:
    if np.any(b == 0):
        raise SizeError("a size is divided by zero")
    # ONNX truncates integers toward zero, numpy floors
    return (np.sign(a) * np.sign(b) * (abs(a) // abs(b))) if a.dtype.kind in "iu" else a / b


_BINARY: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divided,
    "Max": np.maximum,
    "Min": np.minimum,
    "Equal": np.equal,
    "Greater": np.greater,
    "Less": np.less,
    "GreaterOrEqual": np.greater_equal,
    "LessOrEqual": np.less_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}
_UNARY: Mapping[str, Callable[[Array], Array]] = {
    "Neg": np.negative,
    "Not": np.logical_not,
    "Abs": np.abs,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Sqrt": lambda a: np.sqrt(np.maximum(a, 0)),
}


def _value(call: Call, shape: Shape, dtype: str) -> Array | None:
    """The value of a small output of `shape`, where it is one that shapes are made of."""
    op = call.node.op
    if op == "Shape":
        return np.array(
            call.shape()[call.number("start", 0) : call.number("end", call.rank())], np.int64
        )
    if op == "Size":
        return np.array(product(call.shape()), np.int64)
    if op == "Constant":
        return _constant_value(call).value
    values = [tensor.value if tensor is not None else None for tensor in call.inputs]
    if any(value is None for value in values) or not values:
        return None
    v = [value for value in values if value is not None]
    if op in _BINARY and len(v) == 2:
        return _BINARY[op](v[0], v[1])
    if op in _UNARY:
        return _UNARY[op](v[0])
    if op == "Mod" and not call.number("fmod", 0) and np.all(v[1] != 0):
        return np.asarray(np.mod(v[0], v[1]))
    if op == "Where":
        return np.where(v[0], v[1], v[2])
    if op in ("Cast", "CastLike"):
        return v[0] if np.all(np.isfinite(v[0])) else None
    if op in ("Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        return v[0].reshape(shape)
    if op == "Expand":
        return np.broadcast_to(v[0], shape)
    if op == "Transpose":
        return np.transpose(v[0], call.ints("perm"))
    if op == "Concat":
        return np.concatenate(v, call.number("axis"))
    if op == "Gather":
        size, indices = call.shape()[axis_of(call.number("axis", 0), call.rank())], v[1]
        if np.any(indices < -size) or np.any(indices >= size):
            raise SizeError(f"indices must be within {size}, got {indices.tolist()}")
        return np.take(v[0], indices.astype(np.int64) % size, call.number("axis", 0))
    if op == "Slice":
        cut = [slice(None)] * call.rank()
        for axis, start, end, step in _slice_terms(call):
            cut[axis] = slice(start, end, step)
        return v[0][tuple(cut)]
    if op == "ConstantOfShape":
        fill = call.node.attributes.get("value")
        if isinstance(fill, Constant):
            return None if fill.value is None else np.full(shape, fill.value.ravel()[0])
        return np.zeros(shape, np.float32)
    if op == "Range":
        return np.asarray(v[0].ravel()[0] + v[2].ravel()[0] * np.arange(shape[0], dtype=dtype))
    if op == "ReduceProd":
        axes = call.axes(1, call.rank())
        return np.prod(v[0], axis=tuple(axes) if axes else None).reshape(shape)
    return None


# ---- the graph --------------------------------------------------------------------------
def infer(
    nodes: Sequence[Node],
    constants: Mapping[str, Constant],
    inputs: Mapping[str, Port],
    where: str,
    rules: Mapping[str, Rule] = RULES,
    declared: Mapping[str, Port] | None = None,
) -> dict[str, Tensor]:
    """What is known of every tensor of a graph whose inputs have these shapes.

    declared: what the file says of every tensor, if it does; sizes are held against it, and
    data types are taken from it.

    Raises: ModelError: an operator outside the closed list, shapes that do not work out or
    depend on data, tensors out of order, or more than the limits.
    """
    known = {name: Tensor(port.dtype, port.shape) for name, port in inputs.items()}
    for name, constant in constants.items():
        known[name] = Tensor(constant.dtype, constant.shape, constant.value, folded=True)
    totals = _Totals()
    for number, node in enumerate(nodes):
        try:
            outputs = _outputs(node, known, totals, rules)
            for name, tensor in zip(node.outputs, outputs, strict=True):
                if name and name in known:
                    raise SizeError(f"{name!r} is given twice")
                if name:
                    known[name] = _as_declared(tensor, (declared or {}).get(name), name)
        except (SizeError, IndexError, ValueError, TypeError, OverflowError) as error:
            at = f"node {number} ({node.op}{f' {node.name!r}' if node.name else ''})"
            raise ModelError(f"{where}: {at}: {error}") from None
    return known


def _as_declared(tensor: Tensor, declared: Port | None, name: str) -> Tensor:
    if declared is None:
        return tensor
    if declared.shape != tensor.shape:
        raise SizeError(
            f"tensor {name} must be {list(tensor.shape)}, the file says {list(declared.shape)}"
        )
    value = None if tensor.value is None else tensor.value.astype(declared.dtype)
    return Tensor(declared.dtype, tensor.shape, value, tensor.folded)


class _Totals:
    """What a graph adds up to, against the limits."""

    def __init__(self) -> None:
        self.bytes = self.work = self.folded_bytes = self.folded_work = 0

    def add(self, size: int, work: int, folded: bool) -> None:
        self.bytes += size
        self.work += work
        if folded:
            self.folded_bytes += size
            self.folded_work += work
        for what, total, limit in (
            ("bytes of tensors", self.bytes, MAX_BYTES),
            ("multiply-adds", self.work, MAX_WORK),
            ("bytes of constants to fold", self.folded_bytes, MAX_FOLDED_BYTES),
            ("multiply-adds of constants to fold", self.folded_work, MAX_FOLDED_WORK),
        ):
            if total > limit:
                raise SizeError(f"the graph must have at most {limit} {what}, got {total} so far")


def _outputs(
    node: Node, known: Mapping[str, Tensor], totals: _Totals, rules: Mapping[str, Rule]
) -> list[Tensor]:
    """One tensor for each of the node's outputs."""
    if node.op not in rules:
        raise SizeError(
            f"operator {node.op!r} must not be in a bundle's graph; docs/bundle.md lists those "
            "that may"
        )
    for name in node.inputs:
        if name and name not in known:
            raise SizeError(f"input {name!r} is given by nothing before it")
    call = Call(node, [known[name] if name else None for name in node.inputs])
    shapes = rules[node.op](call)
    if len(node.outputs) > len(shapes):
        raise SizeError(f"has {len(node.outputs)} outputs, {node.op} gives {len(shapes)}")
    folded = node.op in ("Shape", "Size") or all(t.folded for t in call.inputs if t is not None)
    outputs, size = [], 0
    for shape, dtype in shapes[: len(node.outputs)]:
        count = product(shape)
        if dtype not in DTYPES.values():
            raise SizeError(f"the output's data type is {dtype}")
        value = None
        if folded and count <= KNOWN and len(shapes) == 1:
            value = _value(call, shape, dtype)
        if value is not None:
            value = value.reshape(shape).astype(dtype)
        size += count * np.dtype(dtype).itemsize
        outputs.append(Tensor(dtype, shape, value, folded))
    totals.add(size, max(call.work, size), folded)
    return outputs
