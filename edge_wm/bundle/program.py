"""A step program: one function of a world model as a short list of fused operations.

The compiler writes it from a graph, the native kernels run it, and this module is the format that
both agree on: nothing here computes.

    bytes   8   magic "EWMPROG1"
            4   length of the header, little-endian
            n   header: JSON, `Program` below
                zeros to a multiple of 64, then the constants, each at a multiple of 64

A program works on *registers*: rows of `width` float32 numbers, one row for each of the R
candidates that are rolled out together. A register that holds a constant, or what was computed
from inputs without a batch axis alone, has one row for all candidates (it is *uniform*; one that
several operations write is so only if all of them read nothing else). The operations address
registers in three ways, all in numbers (not bytes) within one candidate's row:

    Rows     `tokens` runs of contiguous numbers, `stride` apart
    View     a strided index space of up to 4 axes; stride 0 repeats
    Segment  Rows multiplied by a weight matrix: a dense layer is a sum over segments, so that
             concatenated inputs need no copy and int8 inputs are quantized apart

The arithmetic. All is float32. A segment with int8 weights quantizes each of its input rows
by itself: m = max |x|, s = m / 127, q = round-half-even(x * (127 / m)), all zero where 127 / m is
not finite (m is 0 or below 4e-37); the sum q * w is int32, and the segment gives
float(sum) * (s * scale[n]). A row with a NaN or an infinity gives NaN. A float32 segment adds its
products with fused multiply-adds in the order of k, from 0. Segments are added in order, then the
bias, then the activation.

No operation writes where it reads.

Invariant: a `Program` that `read_program` returned addresses nothing outside its registers and
constants; what runs it does not check again.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import msgspec
import numpy as np

from edge_wm.errors import ModelError
from edge_wm.types import Array

FORMAT = "edge-wm/program/1"
MAGIC = b"EWMPROG1"
HEAD = struct.Struct("<8sI")
assert HEAD.size == 12
ALIGNMENT = 64

MAX_WIDTH = 2**22  # numbers of one candidate in one register
MAX_OPERATIONS = 4096
MAX_CONSTANT = 2**28  # numbers
MAX_WORK = 10**11  # multiply-adds for one candidate

Count = Annotated[int, msgspec.Meta(ge=1, le=MAX_WIDTH)]
Index = Annotated[int, msgspec.Meta(ge=0, le=MAX_WIDTH)]

Activation = Literal[
    "none", "relu", "elu", "silu", "gelu", "gelu_tanh", "mish", "tanh", "sigmoid", "softplus",
]  # fmt: skip
# gelu is x Phi(x); gelu_tanh its tanh form (Hendrycks and Gimpel 2016); elu with alpha 1; mish is
# x tanh(softplus(x)) (Misra 2019); silu is x sigmoid(x).
UnaryKind = Literal[
    "relu", "elu", "silu", "gelu", "gelu_tanh", "mish", "tanh", "sigmoid", "softplus",
    "exp", "log", "sqrt", "sin", "cos", "erf", "abs", "neg", "sign", "square", "reciprocal",
    "floor", "round", "not",
]  # fmt: skip
BinaryKind = Literal[
    "add", "sub", "mul", "div", "min", "max", "pow", "less", "greater", "equal", "and", "or",
]  # fmt: skip
ReduceKind = Literal["sum", "mean", "max", "min"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the header: frozen, and a field that it does not know is an error."""


# ---- addressing ---------------------------------------------------------------------------
class Rows(_Part, frozen=True, kw_only=True):
    """`tokens` runs of contiguous numbers of a register; the operation says how many and long."""

    register: Index
    offset: Index = 0
    stride: Index = 0  # from one token to the next; 0 where there is one, or to repeat it


class View(_Part, frozen=True, kw_only=True):
    """An index space in a register; one stride for each axis of the operation's shape."""

    register: Index
    offset: Index = 0
    strides: Annotated[tuple[Index, ...], msgspec.Meta(max_length=4)]


class Segment(_Part, frozen=True, kw_only=True):
    """x (tokens, K) times weight (N, K) transposed."""

    x: Rows
    size: Count  # K
    weight: Index  # constant (N, K), float32 or int8 from -127 to 127
    scale: Index | None = None  # constant (N,) float32, with int8 weights only


# ---- operations -----------------------------------------------------------------------------
Shape = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=4)]


class Dense(_Part, frozen=True, kw_only=True, tag="dense", tag_field="op"):
    """out (tokens, N) = activation(sum over segments + bias)."""

    tokens: Count
    size: Count  # N
    out: Rows
    segments: Annotated[tuple[Segment, ...], msgspec.Meta(min_length=1, max_length=64)]
    bias: Index | None = None  # constant (N,)
    activation: Activation = "none"


class Norm(_Part, frozen=True, kw_only=True, tag="norm", tag_field="op"):
    """out = activation((x - mean) / sqrt(variance + epsilon) * weight + bias), for each token.

    kind layer: mean and (biased) variance over the token; rms: mean 0, variance the mean square.
    """

    kind: Literal["layer", "rms"]
    tokens: Count
    size: Count
    out: Rows
    x: Rows
    epsilon: float
    weight: Index | None = None  # constant (size,)
    bias: Index | None = None  # constant (size,)
    activation: Activation = "none"


class Softmax(_Part, frozen=True, kw_only=True, tag="softmax", tag_field="op"):
    """out = exp(x - max) / sum, for each token."""

    tokens: Count
    size: Count
    out: Rows
    x: Rows


class Unary(_Part, frozen=True, kw_only=True, tag="unary", tag_field="op"):
    """out = f(x) for each number. sign(0) = 0; round is half to even; not is x == 0 as 0 or 1."""

    kind: UnaryKind
    tokens: Count
    size: Count
    out: Rows
    x: Rows


class Binary(_Part, frozen=True, kw_only=True, tag="binary", tag_field="op"):
    """out = f(a, b); comparisons and logic give 0 or 1; min and max give NaN if either is."""

    kind: BinaryKind
    shape: Shape
    out: View
    a: View
    b: View


class Select(_Part, frozen=True, kw_only=True, tag="select", tag_field="op"):
    """out = a where condition is not 0, else b."""

    shape: Shape
    out: View
    condition: View
    a: View
    b: View


class Copy(_Part, frozen=True, kw_only=True, tag="copy", tag_field="op"):
    """out = x: concatenation, slices, transposition, repetition."""

    shape: Shape
    out: View
    x: View


class Reduce(_Part, frozen=True, kw_only=True, tag="reduce", tag_field="op"):
    """out = f over the last axis of `shape`; `out` has strides for the other axes only."""

    kind: ReduceKind
    shape: Shape
    out: View
    x: View


class Lstm(_Part, frozen=True, kw_only=True, tag="lstm", tag_field="op"):
    """One step of an LSTM cell from its gates' sums (4, H), in `order`.

    c' = sigmoid(f) c + sigmoid(i) tanh(g); h' = sigmoid(o) tanh(c') (Hochreiter and Schmidhuber
    1997, with Gers' forget gate). A forget bias, as TensorFlow adds it, is in the dense's bias.
    """

    size: Count  # H
    order: Literal["iofg", "ifgo", "igfo"]  # ONNX, PyTorch, TensorFlow
    gates: Rows
    c: Rows
    out_h: Rows
    out_c: Rows


class Gru(_Part, frozen=True, kw_only=True, tag="gru", tag_field="op"):
    """One step of a GRU cell from its gates' sums of input and state, (3, H) each, in `order`.

    z = sigmoid(xz + hz), r = sigmoid(xr + hr), n = tanh(xn + r hn), h' = (1 - z) n + z h: the
    reset gate after the product (Cho et al. 2014 as in cuDNN; ONNX's linear_before_reset).
    """

    size: Count  # H
    order: Literal["zrn", "rzn"]  # ONNX, PyTorch
    x_gates: Rows
    h_gates: Rows
    h: Rows
    out: Rows


class Attention(_Part, frozen=True, kw_only=True, tag="attention", tag_field="op"):
    """out = softmax(scale q k^T) v for each head; heads lie side by side in a token.

    causal: query t (of T) sees the keys up to S - T + t.
    """

    queries: Count  # T
    keys: Count  # S
    heads: Count
    size: Count  # numbers of one head
    scale: float
    causal: bool
    out: Rows
    q: Rows
    k: Rows
    v: Rows


class Patches(_Part, frozen=True, kw_only=True, tag="patches", tag_field="op"):
    """What each output pixel of a convolution sees: (height, width, channels) in, then for each
    output pixel (kernel rows, kernel columns, channels), contiguous, 0 outside the image."""

    height: Count
    width: Count
    channels: Count
    kernel: tuple[Count, Count]  # rows, columns
    stride: tuple[Count, Count]
    pads: tuple[Index, Index, Index, Index]  # top, left, bottom, right
    out: Rows  # stride: from one output pixel to the next
    x: Rows


class OneHot(_Part, frozen=True, kw_only=True, tag="one_hot", tag_field="op"):
    """out = 1 at the first largest number of each token, 0 elsewhere."""

    tokens: Count
    size: Count
    out: Rows
    x: Rows


class Lookup(_Part, frozen=True, kw_only=True, tag="lookup", tag_field="op"):
    """out (tokens, size) = table[x]; x is rounded, and a row outside the table gives NaN."""

    tokens: Count
    size: Count
    out: Rows
    x: Rows  # one number a token
    table: Index  # constant (rows, size) float32


Operation = (
    Dense | Norm | Softmax | Unary | Binary | Select | Copy | Reduce | Lstm | Gru | Attention
    | Patches | OneHot | Lookup
)  # fmt: skip
OPERATIONS: tuple[type[_Part], ...] = get_args(Operation)


# ---- the header -----------------------------------------------------------------------------
class Port(_Part, frozen=True, kw_only=True):
    """An input or output: a whole register, read or written in C order of the item's shape."""

    tensor: Annotated[str, msgspec.Meta(max_length=200)]
    shape: Annotated[tuple[Count, ...], msgspec.Meta(max_length=8)]  # without the batch axis
    batched: bool
    register: Index


class Register(_Part, frozen=True, kw_only=True):
    width: Count
    constant: Index | None = None  # holds this constant from the start, and is never written


class Constant(_Part, frozen=True, kw_only=True):
    dtype: Literal["float32", "int8"]
    shape: Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=2)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**40)]  # from the start of the constants


class Header(_Part, frozen=True, kw_only=True):
    format: str
    inputs: Annotated[tuple[Port, ...], msgspec.Meta(max_length=64)]
    outputs: Annotated[tuple[Port, ...], msgspec.Meta(max_length=64)]
    registers: Annotated[tuple[Register, ...], msgspec.Meta(max_length=MAX_OPERATIONS * 2)]
    constants: Annotated[tuple[Constant, ...], msgspec.Meta(max_length=MAX_OPERATIONS * 2)]
    operations: Annotated[tuple[Operation, ...], msgspec.Meta(max_length=MAX_OPERATIONS)]


@dataclass(frozen=True)
class Program:
    """A header and its constants."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    registers: tuple[Register, ...]
    operations: tuple[Operation, ...]
    constants: tuple[Array, ...]  # float32 or int8, C-contiguous

    @property
    def work(self) -> int:
        """Multiply-adds of one candidate in dense layers and attention."""
        return sum(map(operation_work, self.operations))

    @property
    def constant_bytes(self) -> int:
        return sum(constant.nbytes for constant in self.constants)


def operation_work(operation: Operation) -> int:
    """Multiply-adds of one candidate in one operation; elementwise arithmetic is not counted."""
    if isinstance(operation, Dense):
        return operation.tokens * operation.size * sum(s.size for s in operation.segments)
    if isinstance(operation, Attention):
        return 2 * operation.queries * operation.keys * operation.heads * operation.size
    return 0


# ---- writing and reading ----------------------------------------------------------------------
def write_program(program: Program) -> bytes:
    """The file; the same program gives the same bytes.

    Raises: ModelError, if `read_program` would refuse it: the compiler's mistake.
    """
    entries, offset = [], 0
    for value in program.constants:
        dtype: Literal["float32", "int8"] = "int8" if value.dtype == np.int8 else "float32"
        entries.append(Constant(dtype=dtype, shape=value.shape, offset=offset))
        offset = _aligned(offset + value.nbytes)
    header = Header(
        format=FORMAT,
        inputs=program.inputs,
        outputs=program.outputs,
        registers=program.registers,
        constants=tuple(entries),
        operations=program.operations,
    )
    text = msgspec.json.encode(header)
    head = HEAD.pack(MAGIC, len(text)) + text
    parts = [head.ljust(_aligned(len(head)), b"\0")]
    for value in program.constants:
        data = value.astype(value.dtype.newbyteorder("<"), order="C").tobytes()
        parts.append(data.ljust(_aligned(len(data)), b"\0"))
    blob = b"".join(parts)
    read_program(blob, "program")
    return blob


def read_program(blob: bytes | memoryview, where: str) -> Program:
    """The program in a file, with everything checked that running it relies on.

    Raises: ModelError, naming `where` and what is wrong inside.
    """
    if len(blob) < HEAD.size:
        raise ModelError(f"{where}: a step program must have at least {HEAD.size} bytes")
    magic, length = HEAD.unpack_from(blob)
    if magic != MAGIC:
        raise ModelError(
            f"{where}: must begin with {MAGIC!r}, got {magic!r}; this version runs no other "
            "step programs: build the bundle anew"
        )
    start = _aligned(HEAD.size + length)
    if start > len(blob):
        raise ModelError(f"{where}: the header must have {length} bytes, the file ends before")
    try:
        header = msgspec.json.decode(blob[HEAD.size : HEAD.size + length], type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{where}: {error}; build the bundle anew") from None
    if header.format != FORMAT:
        raise ModelError(f"{where}: format must be {FORMAT!r}, got {header.format!r}")
    constants = tuple(_constant(entry, blob, start, where) for entry in header.constants)
    program = Program(header.inputs, header.outputs, header.registers, header.operations, constants)
    for problem in _problems(program):
        raise ModelError(f"{where}: {problem}; build the bundle anew")
    return program


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _constant(entry: Constant, blob: bytes | memoryview, start: int, where: str) -> Array:
    dtype = np.dtype(entry.dtype).newbyteorder("<")
    count, begin = math.prod(entry.shape), start + entry.offset
    if entry.offset % ALIGNMENT or count > MAX_CONSTANT:
        raise ModelError(f"{where}: a constant is not aligned or has over {MAX_CONSTANT} numbers")
    if begin + count * dtype.itemsize > len(blob):
        raise ModelError(f"{where}: a constant ends after the file")
    value = np.frombuffer(blob, dtype, count, begin).reshape(entry.shape)
    return value.astype(entry.dtype, copy=False)


# ---- checks -----------------------------------------------------------------------------------
@dataclass(frozen=True)
class Access:
    """The numbers of one register that an operation may touch, and whether it writes them."""

    what: str
    register: int
    first: int
    end: int
    writes: bool

    def meets(self, other: Access) -> bool:
        """Whether both may touch the same number."""
        apart = self.end <= other.first or other.end <= self.first
        return self.register == other.register and not apart


def accesses(operation: Operation) -> Iterator[Access]:
    """Everything that an operation touches."""

    def rows(what: str, at: Rows, tokens: int, size: int) -> Access:
        end = at.offset + (tokens - 1) * at.stride + size
        return Access(what, at.register, at.offset, end, what.startswith("out"))

    def view(what: str, at: View, shape: tuple[int, ...]) -> Access:
        span = sum((n - 1) * stride for n, stride in zip(shape, at.strides, strict=False))
        return Access(what, at.register, at.offset, at.offset + span + 1, what.startswith("out"))

    o = operation
    if isinstance(o, Dense):
        yield rows("out", o.out, o.tokens, o.size)
        for i, segment in enumerate(o.segments):
            yield rows(f"segments[{i}].x", segment.x, o.tokens, segment.size)
    elif isinstance(o, Norm | Softmax | Unary | OneHot):
        yield rows("out", o.out, o.tokens, o.size)
        yield rows("x", o.x, o.tokens, o.size)
    elif isinstance(o, Lookup):
        yield rows("out", o.out, o.tokens, o.size)
        yield rows("x", o.x, o.tokens, 1)
    elif isinstance(o, Binary | Select | Copy):
        for what in ("out", "condition", "a", "b", "x"):
            if hasattr(o, what):
                yield view(what, getattr(o, what), o.shape)
    elif isinstance(o, Reduce):
        yield view("out", o.out, o.shape[:-1])
        yield view("x", o.x, o.shape)
    elif isinstance(o, Lstm):
        yield rows("out_h", o.out_h, 1, o.size)
        yield rows("out_c", o.out_c, 1, o.size)
        yield rows("gates", o.gates, 1, 4 * o.size)
        yield rows("c", o.c, 1, o.size)
    elif isinstance(o, Gru):
        yield rows("out", o.out, 1, o.size)
        yield rows("x_gates", o.x_gates, 1, 3 * o.size)
        yield rows("h_gates", o.h_gates, 1, 3 * o.size)
        yield rows("h", o.h, 1, o.size)
    elif isinstance(o, Attention):
        yield rows("out", o.out, o.queries, o.heads * o.size)
        yield rows("q", o.q, o.queries, o.heads * o.size)
        yield rows("k", o.k, o.keys, o.heads * o.size)
        yield rows("v", o.v, o.keys, o.heads * o.size)
    else:
        pixels, patch = patch_shape(o)
        yield rows("out", o.out, pixels, patch)
        yield rows("x", o.x, 1, o.height * o.width * o.channels)


def patch_shape(o: Patches) -> tuple[int, int]:
    """(output pixels, numbers of a patch); (0, 0) where no patch fits."""
    down = (o.height + o.pads[0] + o.pads[2] - o.kernel[0]) // o.stride[0] + 1
    across = (o.width + o.pads[1] + o.pads[3] - o.kernel[1]) // o.stride[1] + 1
    if down < 1 or across < 1:
        return 0, 0
    return down * across, o.kernel[0] * o.kernel[1] * o.channels


def _problems(program: Program) -> Iterator[str]:
    constants, registers = program.constants, program.registers
    for i, register in enumerate(registers):
        if register.constant is not None:
            if register.constant >= len(constants):
                yield f"registers[{i}] names constant {register.constant} of {len(constants)}"
            elif (constants[register.constant].dtype, constants[register.constant].size) != (
                np.dtype(np.float32),
                register.width,
            ):
                yield f"registers[{i}] must hold {register.width} float32 numbers"
    names = [port.tensor for port in (*program.inputs, *program.outputs)]
    if len(set(names)) != len(names):
        yield "inputs and outputs must have names of their own"
    written = {i for i, register in enumerate(registers) if register.constant is not None}
    fixed = frozenset(written)
    for kind, ports in (("inputs", program.inputs), ("outputs", program.outputs)):
        for port in ports:
            if port.register >= len(registers):
                yield f"{kind}.{port.tensor} is in register {port.register} of {len(registers)}"
            elif math.prod(port.shape) != registers[port.register].width:
                width = registers[port.register].width
                yield f"{kind}.{port.tensor} {list(port.shape)} must fill its register of {width}"
            elif kind == "inputs":
                if port.register in written:
                    yield f"inputs.{port.tensor} must have a register of its own"
                written.add(port.register)
    inputs = {port.register for port in program.inputs}
    for i, operation in enumerate(program.operations):
        at = f"operations[{i}] ({operation.__struct_config__.tag})"
        for problem in _view_problems(operation):
            yield f"{at}: {problem}"
        for problem in _constant_problems(operation, constants):
            yield f"{at}: {problem}"
        touched = sorted(accesses(operation), key=lambda access: access.writes)
        for access in touched:
            if access.register >= len(registers):
                yield f"{at}.{access.what} is in register {access.register} of {len(registers)}"
            elif access.end > registers[access.register].width or access.end <= access.first:
                width = registers[access.register].width
                yield f"{at}.{access.what} must lie within its register of {width}"
            elif access.writes:
                if access.register in fixed or access.register in inputs:
                    yield f"{at}.{access.what} must not write a constant or an input"
                if any(access.meets(other) for other in touched if not other.writes):
                    yield f"{at}.{access.what} must not lie where the operation reads"
                written.add(access.register)
            elif access.register not in written:
                yield f"{at}.{access.what} reads register {access.register} before it is written"
    for port in program.outputs:
        if port.register not in written:
            yield f"outputs.{port.tensor} is given by no operation"
    if program.work > MAX_WORK:
        yield f"must have at most {MAX_WORK} multiply-adds, has {program.work}"


def _view_problems(o: Operation) -> Iterator[str]:
    if isinstance(o, Binary | Select | Copy | Reduce):
        for what in ("out", "condition", "a", "b", "x"):
            view = getattr(o, what, None)
            axes = len(o.shape) - (isinstance(o, Reduce) and what == "out")
            if view is not None and len(view.strides) != axes:
                yield f"{what} must have {axes} strides, got {len(view.strides)}"
        strides = o.out.strides
        outer = o.shape[:-1] if isinstance(o, Reduce) else o.shape
        if any(n > 1 and s == 0 for n, s in zip(outer, strides, strict=False)):
            yield "out must not have a stride of 0"
    if isinstance(o, Attention) and o.causal and o.keys < o.queries:
        yield f"causal attention must have as many keys as queries ({o.queries}), got {o.keys}"
    if isinstance(o, Patches) and patch_shape(o) == (0, 0):
        yield "the kernel must fit into the image and its pads"


def _constant_problems(o: Operation, constants: tuple[Array, ...]) -> Iterator[str]:
    def shaped(what: str, index: int | None, dtypes: str, shape: tuple[int, ...]) -> Iterator[str]:
        if index is None:
            return
        if index >= len(constants):
            yield f"{what} names constant {index} of {len(constants)}"
        elif constants[index].shape != shape or constants[index].dtype.name not in dtypes:
            found = constants[index]
            yield f"{what} must be {dtypes} {list(shape)}, got {found.dtype} {list(found.shape)}"

    if isinstance(o, Dense):
        yield from shaped("bias", o.bias, "float32", (o.size,))
        for i, segment in enumerate(o.segments):
            at = f"segments[{i}]"
            yield from shaped(
                f"{at}.weight", segment.weight, "float32 or int8", (o.size, segment.size)
            )
            yield from shaped(f"{at}.scale", segment.scale, "float32", (o.size,))
            weight = constants[segment.weight] if segment.weight < len(constants) else None
            if weight is not None and (weight.dtype == np.int8) != (segment.scale is not None):
                yield f"{at} must have a scale exactly where its weight is int8"
            if weight is not None and weight.dtype == np.int8 and (weight == -128).any():
                yield f"{at}.weight must be from -127 to 127"
    elif isinstance(o, Norm):
        yield from shaped("weight", o.weight, "float32", (o.size,))
        yield from shaped("bias", o.bias, "float32", (o.size,))
    elif isinstance(o, Lookup):
        table = constants[o.table] if o.table < len(constants) else None
        rows = table.shape[0] if table is not None and table.ndim == 2 else 0
        yield from shaped("table", o.table, "float32", (rows, o.size))
