"""The rules of sizes.py for TFLite's operators: NHWC images, sizes fixed in the file.

A TFLite file declares every tensor's shape, but the library computes shapes anew from the
inputs and the constants when it plans its memory, so a file may declare little and ask for
much. Here each declared shape is held against the computed one.

Shapes follow the operators' `Prepare` functions (tensorflow/lite/kernels).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from edge_wm.bundle.sizes import (
    Call,
    Out,
    Rule,
    Shape,
    SizeError,
    axis_of,
    broadcast,
    matmul,
    product,
    sliced,
    window,
)


def _same(call: Call) -> Out:
    return [(call.shape(), call.dtype())]


def _elementwise(call: Call) -> Out:
    shapes = [tensor.shape for tensor in call.inputs if tensor is not None]
    return [(broadcast(*shapes), call.dtype())]


def _prelu(call: Call) -> Out:
    if broadcast(call.shape(), call.shape(1)) != call.shape():
        raise SizeError(f"slopes {list(call.shape(1))} must broadcast to {list(call.shape())}")
    return _same(call)


def _fully_connected(call: Call) -> Out:
    x, w = call.shape(0), call.shape(1)
    if call.number("weights_format") or len(w) != 2 or not x:
        raise SizeError(f"weights must be a plain matrix, got {list(w)}")
    if call.number("keep_num_dims"):
        shape, call.work = matmul(x, w[::-1])
    else:
        if product(x) % w[1]:
            raise SizeError(f"cannot multiply {list(x)} with {list(w)}")
        shape, call.work = matmul((product(x) // w[1], w[1]), w[::-1])
    return [(shape, call.dtype())]


def _batch_matmul(call: Call) -> Out:
    x, y = call.shape(0), call.shape(1)
    if len(x) < 2 or len(y) < 2:
        raise SizeError(f"must have two matrices, got {list(x)} and {list(y)}")
    x = (*x[:-2], x[-1], x[-2]) if call.number("adj_x") else x
    y = (*y[:-2], y[-1], y[-2]) if call.number("adj_y") else y
    shape, call.work = matmul(x, y)
    return [(shape, call.dtype())]


def _windows(call: Call, size: Shape, kernel: Sequence[int], dilated: bool = True) -> Shape:
    """Output height and width of a convolution or pooling."""
    strides = call.number("stride_h"), call.number("stride_w")
    dilations = (call.number("dilation_h"), call.number("dilation_w")) if dilated else (1, 1)
    if call.number("padding") == 1:  # VALID
        terms = zip(size, kernel, strides, dilations, strict=True)
        return tuple(window(s, k, stride, d, 0) for s, k, stride, d in terms)
    if min(strides) < 1 or min(dilations) < 1:
        raise SizeError(f"strides and dilations must be above 0, got {strides} and {dilations}")
    return tuple(-(-s // stride) for s, stride in zip(size, strides, strict=True))


def _conv(call: Call) -> Out:
    x, w = call.shape(0), call.shape(1)
    if len(x) != 4 or len(w) != 4 or x[3] % w[3] or w[0] % (x[3] // w[3]):
        raise SizeError(f"cannot convolve {list(x)} with {list(w)}")
    shape = (x[0], *_windows(call, x[1:3], w[1:3]), w[0])
    call.work = product(shape) * product(w[1:])
    return [(shape, call.dtype())]


def _depthwise(call: Call) -> Out:
    x, w = call.shape(0), call.shape(1)
    if len(x) != 4 or len(w) != 4 or w[0] != 1 or w[3] % x[3]:
        raise SizeError(f"cannot convolve {list(x)} with {list(w)} by channel")
    shape = (x[0], *_windows(call, x[1:3], w[1:3]), w[3])
    call.work = product(shape) * w[1] * w[2]
    return [(shape, call.dtype())]


def _transpose_conv(call: Call) -> Out:
    shape, w, x = tuple(call.numbers(0)), call.shape(1), call.shape(2)
    if len(shape) != 4 or len(w) != 4 or len(x) != 4 or (w[3], w[0]) != (x[3], shape[3]):
        raise SizeError(f"cannot convolve {list(x)} with {list(w)} to {list(shape)}")
    call.work = product(x) * product(w[:3])
    return [(shape, call.dtype(2))]


def _pool(call: Call) -> Out:
    x, kernel = call.shape(), (call.number("filter_h"), call.number("filter_w"))
    if len(x) != 4 or min(kernel) < 1:
        raise SizeError(f"cannot pool {list(x)} by {kernel}")
    shape = (x[0], *_windows(call, x[1:3], kernel, dilated=False), x[3])
    call.work = product(shape) * math.prod(kernel)
    return [(shape, call.dtype())]


def _reshape(call: Call) -> Out:
    wanted = call.numbers(1) if call.has(1) else call.ints("new_shape") or []
    total, known = product(call.shape()), math.prod(size for size in wanted if size != -1)
    if wanted.count(-1) == 1 and known > 0:
        wanted = [total // known if size == -1 else size for size in wanted]
    if any(size < 1 for size in wanted) or math.prod(wanted) != total:
        raise SizeError(f"cannot reshape {list(call.shape())} to {wanted}")
    return [(tuple(wanted), call.dtype())]


def _squeeze(call: Call) -> Out:
    axes = [axis_of(axis, call.rank()) for axis in call.ints("squeeze_dims") or []]
    axes = axes or [i for i, size in enumerate(call.shape()) if size == 1]
    if any(call.shape()[axis] != 1 for axis in axes):
        raise SizeError(f"axes {axes} of {list(call.shape())} must have size 1")
    return [(tuple(s for i, s in enumerate(call.shape()) if i not in axes), call.dtype())]


def _expand_dims(call: Call) -> Out:
    (axis,) = call.numbers(1)
    axis = axis_of(axis, call.rank() + 1)
    return [((*call.shape()[:axis], 1, *call.shape()[axis:]), call.dtype())]


def _transpose(call: Call) -> Out:
    order = [axis_of(axis, call.rank()) for axis in call.numbers(1)]
    if sorted(order) != list(range(call.rank())):
        raise SizeError(f"must order {call.rank()} axes, got {order}")
    return [(tuple(call.shape()[i] for i in order), call.dtype())]


def _concatenation(call: Call) -> Out:
    shapes = [call.shape(i) for i in range(len(call.inputs))]
    axis = axis_of(call.number("axis"), call.rank())
    if len({(len(s), s[:axis], s[axis + 1 :]) for s in shapes}) != 1:
        raise SizeError(f"cannot join {[list(shape) for shape in shapes]} along axis {axis}")
    total = sum(shape[axis] for shape in shapes)
    return [((*shapes[0][:axis], total, *shapes[0][axis + 1 :]), call.dtype())]


def _pack(call: Call) -> Out:
    if len({call.shape(i) for i in range(len(call.inputs))}) != 1:
        raise SizeError("cannot stack tensors of different shapes")
    axis = axis_of(call.number("axis"), call.rank() + 1)
    return [((*call.shape()[:axis], len(call.inputs), *call.shape()[axis:]), call.dtype())]


def _unpack(call: Call) -> Out:
    axis = axis_of(call.number("axis"), call.rank())
    part = (call.shape()[:axis] + call.shape()[axis + 1 :], call.dtype())
    return [part] * call.shape()[axis]


def _split(call: Call) -> Out:
    """SPLIT (axis, x) and SPLIT_V (x, sizes, axis)."""
    by_sizes = call.node.op == "SPLIT_V"
    source, parts = (0 if by_sizes else 1), len(call.node.outputs)
    x = call.shape(source)
    (axis,) = call.numbers(2 if by_sizes else 0)
    axis = axis_of(axis, len(x))
    sizes = call.numbers(1) if by_sizes else [x[axis] // parts] * parts
    if by_sizes and sizes.count(-1) == 1:
        sizes = [x[axis] - sum(sizes) - 1 if size == -1 else size for size in sizes]
    if len(sizes) != parts or sum(sizes) != x[axis] or min(sizes) < 0:
        raise SizeError(f"cannot split {x[axis]} into {sizes}")
    return [((*x[:axis], size, *x[axis + 1 :]), call.dtype(source)) for size in sizes]


def _slice(call: Call) -> Out:
    begins, sizes = call.numbers(1), call.numbers(2)
    if not len(begins) == len(sizes) == call.rank():
        raise SizeError(f"begins and sizes must be {call.rank()} numbers")
    shape = []
    for whole, begin, size in zip(call.shape(), begins, sizes, strict=True):
        size = whole - begin if size == -1 else size
        if not (begin >= 0 and 0 <= size <= whole - begin):
            raise SizeError(f"cannot take {size} from {begin} of {whole}")
        shape.append(size)
    return [(tuple(shape), call.dtype())]


def _strided_slice(call: Call) -> Out:
    if call.number("ellipsis_mask") or call.number("new_axis_mask") or call.number("offset"):
        raise SizeError("must not use an ellipsis, new axes or offsets")
    begins, ends, strides = (call.numbers(i) for i in (1, 2, 3))
    if not len(begins) == len(ends) == len(strides) <= call.rank():
        raise SizeError(f"begins, ends and strides must be up to {call.rank()} numbers each")
    shape = []
    for i, whole in enumerate(call.shape()):
        bit = 1 << i
        if i >= len(begins):
            shape.append(whole)
        elif call.number("shrink_axis_mask") & bit:
            axis_of(begins[i], whole)
        else:
            begin = None if call.number("begin_mask") & bit else begins[i]
            end = None if call.number("end_mask") & bit else ends[i]
            shape.append(sliced(whole, begin, end, strides[i]))
    return [(tuple(shape), call.dtype())]


def _gather(call: Call) -> Out:
    axis, batch = axis_of(call.number("axis"), call.rank()), call.number("batch_dims")
    if not 0 <= batch <= min(axis, call.rank(1)):
        raise SizeError(f"batch_dims {batch} must be up to the axis {axis}")
    return [(call.shape()[:axis] + call.shape(1)[batch:] + call.shape()[axis + 1 :], call.dtype())]


def _pad(call: Call) -> Out:
    pads = call.numbers(1)
    if len(pads) != 2 * call.rank() or min(pads, default=0) < 0:
        raise SizeError(f"pads must be {2 * call.rank()} numbers of 0 or more, got {pads}")
    pairs = zip(call.shape(), pads[::2], pads[1::2], strict=True)
    return [(tuple(size + before + after for size, before, after in pairs), call.dtype())]


def _broadcast_to(call: Call) -> Out:
    shape = tuple(call.numbers(1))
    if broadcast(call.shape(), shape) != shape:
        raise SizeError(f"cannot broadcast {list(call.shape())} to {list(shape)}")
    return [(shape, call.dtype())]


def _tile(call: Call) -> Out:
    repeats = call.numbers(1)
    if len(repeats) != call.rank() or min(repeats, default=1) < 1:
        raise SizeError(f"repeats must be {call.rank()} numbers above 0, got {repeats}")
    return [(tuple(s * r for s, r in zip(call.shape(), repeats, strict=True)), call.dtype())]


def _fill(call: Call) -> Out:
    return [(tuple(call.numbers(0)), call.dtype(1))]


def _shape(call: Call) -> Out:
    return [((call.rank(),), "int32")]


def _reduce(call: Call) -> Out:
    axes = {axis_of(axis, call.rank()) for axis in call.numbers(1)}
    if call.number("keep_dims"):
        return [(tuple(1 if i in axes else s for i, s in enumerate(call.shape())), call.dtype())]
    return [(tuple(s for i, s in enumerate(call.shape()) if i not in axes), call.dtype())]


def _arg_reduce(call: Call) -> Out:
    (axis,) = call.numbers(1)
    axis = axis_of(axis, call.rank())
    return [(call.shape()[:axis] + call.shape()[axis + 1 :], "int64")]


def _resize(call: Call) -> Out:
    sizes, x = call.numbers(1), call.shape()
    if len(x) != 4 or len(sizes) != 2 or min(sizes) < 1:
        raise SizeError(f"cannot resize {list(x)} to {sizes}")
    return [((x[0], *sizes, x[3]), call.dtype())]


def _depth_to_space(call: Call) -> Out:
    block, x = call.number("block_size"), call.shape()
    if len(x) != 4 or block < 1 or x[3] % block**2:
        raise SizeError(f"cannot spread {list(x)} over blocks of {block}")
    return [((x[0], x[1] * block, x[2] * block, x[3] // block**2), call.dtype())]


def _space_to_depth(call: Call) -> Out:
    block, x = call.number("block_size"), call.shape()
    if len(x) != 4 or block < 1 or x[1] % block or x[2] % block:
        raise SizeError(f"cannot gather {list(x)} from blocks of {block}")
    return [((x[0], x[1] // block, x[2] // block, x[3] * block**2), call.dtype())]


def _rules() -> dict[str, Rule]:
    same = """ABS CAST CEIL COS CUMSUM DEQUANTIZE ELU EXP FLOOR GELU HARD_SWISH L2_NORMALIZATION
        LEAKY_RELU LOG LOGICAL_NOT LOGISTIC LOG_SOFTMAX NEG QUANTIZE RELU RELU6 RELU_0_TO_1
        RELU_N1_TO_1 REVERSE_V2 ROUND RSQRT SIGN SIN SOFTMAX SQRT SQUARE TANH ZEROS_LIKE"""
    elementwise = """ADD ATAN2 DIV EQUAL FLOOR_DIV FLOOR_MOD GREATER GREATER_EQUAL LESS LESS_EQUAL
        LOGICAL_AND LOGICAL_OR MAXIMUM MINIMUM MUL NOT_EQUAL POW SELECT SELECT_V2
        SQUARED_DIFFERENCE SUB"""
    reduce = "MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD SUM"
    return {
        **dict.fromkeys(same.split(), _same),
        **dict.fromkeys(elementwise.split(), _elementwise),
        **dict.fromkeys(reduce.split(), _reduce),
        **dict.fromkeys(("ARG_MAX", "ARG_MIN"), _arg_reduce),
        **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
        **dict.fromkeys(("MIRROR_PAD", "PAD", "PADV2"), _pad),
        **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
        **dict.fromkeys(("SPLIT", "SPLIT_V"), _split),
        "BATCH_MATMUL": _batch_matmul,
        "BROADCAST_TO": _broadcast_to,
        "CONCATENATION": _concatenation,
        "CONV_2D": _conv,
        "DEPTHWISE_CONV_2D": _depthwise,
        "DEPTH_TO_SPACE": _depth_to_space,
        "EXPAND_DIMS": _expand_dims,
        "FILL": _fill,
        "FULLY_CONNECTED": _fully_connected,
        "GATHER": _gather,
        "PACK": _pack,
        "PRELU": _prelu,
        "RESHAPE": _reshape,
        "SHAPE": _shape,
        "SLICE": _slice,
        "SPACE_TO_DEPTH": _space_to_depth,
        "SQUEEZE": _squeeze,
        "STRIDED_SLICE": _strided_slice,
        "TILE": _tile,
        "TRANSPOSE": _transpose,
        "TRANSPOSE_CONV": _transpose_conv,
        "UNPACK": _unpack,
    }


TFLITE_RULES: Mapping[str, Rule] = _rules()
