"""Read a TFLite file without `flatbuffers` and without trusting a byte of it.

A TFLite file is one flatbuffer, table Model (TensorFlow's schema.fbs, version 3), identifier
"TFL3" at byte 4. A flatbuffer is a web of relative offsets, and a library that follows a wrong
one crashes, so each is checked before it is followed:

    offset   u32, from where it stands, forward, to a table, vector or string
    table    i32 back to its vtable, then the fields
    vtable   u16 its own bytes, u16 the table's bytes, u16 offset of each field (0: default)
    vector   u32 length, then as many elements; a string is one of bytes, with a zero behind

What is accepted is what LiteRT's converters write for one stateless graph of fixed shapes:
one subgraph, builtin operators of the closed list below, constants inside the file.

Invariant: everything returned was in the file and within the limits, and the same tables were
checked that an inference library will read; data is not copied.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from edge_wm.bundle.onnx_file import (
    KNOWN,
    MAX_NODES,
    MAX_RANK,
    MAX_TENSOR,
    Attribute,
    Constant,
    Node,
    Port,
)
from edge_wm.errors import ModelError

MAX_TENSORS = 100_000

TYPES: Mapping[int, str] = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    12: "uint64",
    15: "uint32",
    16: "uint16",
}

# What of an operator's options decides sizes: slot -> (name, struct format, default); "[" is a
# vector. Everything else in the options is scalar and of no consequence here.
_Slots = Mapping[int, tuple[str, str, int]]
_CONV: _Slots = {
    0: ("padding", "b", 0),
    1: ("stride_w", "i", 0),
    2: ("stride_h", "i", 0),
    4: ("dilation_w", "i", 1),
    5: ("dilation_h", "i", 1),
}
_DEPTHWISE: _Slots = {
    0: ("padding", "b", 0),
    1: ("stride_w", "i", 0),
    2: ("stride_h", "i", 0),
    5: ("dilation_w", "i", 1),
    6: ("dilation_h", "i", 1),
}
_POOL: _Slots = {
    0: ("padding", "b", 0),
    1: ("stride_w", "i", 0),
    2: ("stride_h", "i", 0),
    3: ("filter_w", "i", 0),
    4: ("filter_h", "i", 0),
}
_STRIDED: _Slots = {
    0: ("begin_mask", "i", 0),
    1: ("end_mask", "i", 0),
    2: ("ellipsis_mask", "i", 0),
    3: ("new_axis_mask", "i", 0),
    4: ("shrink_axis_mask", "i", 0),
    5: ("offset", "b", 0),
}
_KEEP: _Slots = {0: ("keep_dims", "b", 0)}
_AXIS: _Slots = {0: ("axis", "i", 0)}
_BLOCK: _Slots = {0: ("block_size", "i", 0)}

# The closed list: builtin code -> (name, its options' type in the schema, what of them matters).
OPERATORS: Mapping[int, tuple[str, int, _Slots]] = {
    0: ("ADD", 11, {}),
    1: ("AVERAGE_POOL_2D", 5, _POOL),
    2: ("CONCATENATION", 10, _AXIS),
    3: ("CONV_2D", 1, _CONV),
    4: ("DEPTHWISE_CONV_2D", 2, _DEPTHWISE),
    5: ("DEPTH_TO_SPACE", 94, _BLOCK),
    6: ("DEQUANTIZE", 38, {}),
    8: ("FLOOR", 0, {}),
    9: ("FULLY_CONNECTED", 8, {1: ("weights_format", "b", 0), 2: ("keep_num_dims", "b", 0)}),
    11: ("L2_NORMALIZATION", 12, {}),
    14: ("LOGISTIC", 0, {}),
    17: ("MAX_POOL_2D", 5, _POOL),
    18: ("MUL", 21, {}),
    19: ("RELU", 0, {}),
    20: ("RELU_N1_TO_1", 0, {}),
    21: ("RELU6", 0, {}),
    22: ("RESHAPE", 17, {0: ("new_shape", "[i", 0)}),
    23: ("RESIZE_BILINEAR", 15, {}),
    25: ("SOFTMAX", 9, {}),
    26: ("SPACE_TO_DEPTH", 19, _BLOCK),
    28: ("TANH", 0, {}),
    34: ("PAD", 22, {}),
    36: ("GATHER", 23, {0: ("axis", "i", 0), 1: ("batch_dims", "i", 0)}),
    39: ("TRANSPOSE", 26, {}),
    40: ("MEAN", 27, _KEEP),
    41: ("SUB", 28, {}),
    42: ("DIV", 29, {}),
    43: ("SQUEEZE", 30, {0: ("squeeze_dims", "[i", 0)}),
    45: ("STRIDED_SLICE", 32, _STRIDED),
    47: ("EXP", 33, {}),
    49: ("SPLIT", 35, {}),
    50: ("LOG_SOFTMAX", 36, {}),
    53: ("CAST", 37, {}),
    54: ("PRELU", 0, {}),
    55: ("MAXIMUM", 39, {}),
    56: ("ARG_MAX", 40, {}),
    57: ("MINIMUM", 39, {}),
    58: ("LESS", 41, {}),
    59: ("NEG", 42, {}),
    60: ("PADV2", 43, {}),
    61: ("GREATER", 44, {}),
    62: ("GREATER_EQUAL", 45, {}),
    63: ("LESS_EQUAL", 46, {}),
    64: ("SELECT", 47, {}),
    65: ("SLICE", 48, {}),
    66: ("SIN", 0, {}),
    67: ("TRANSPOSE_CONV", 49, {}),
    69: ("TILE", 51, {}),
    70: ("EXPAND_DIMS", 52, {}),
    71: ("EQUAL", 53, {}),
    72: ("NOT_EQUAL", 54, {}),
    73: ("LOG", 0, {}),
    74: ("SUM", 27, _KEEP),
    75: ("SQRT", 0, {}),
    76: ("RSQRT", 0, {}),
    77: ("SHAPE", 55, {}),
    78: ("POW", 56, {}),
    79: ("ARG_MIN", 57, {}),
    81: ("REDUCE_PROD", 27, _KEEP),
    82: ("REDUCE_MAX", 27, _KEEP),
    83: ("PACK", 59, {1: ("axis", "i", 0)}),
    84: ("LOGICAL_OR", 60, {}),
    86: ("LOGICAL_AND", 62, {}),
    87: ("LOGICAL_NOT", 63, {}),
    88: ("UNPACK", 64, {1: ("axis", "i", 0)}),
    89: ("REDUCE_MIN", 27, _KEEP),
    90: ("FLOOR_DIV", 65, {}),
    91: ("REDUCE_ANY", 27, _KEEP),
    92: ("SQUARE", 66, {}),
    93: ("ZEROS_LIKE", 67, {}),
    94: ("FILL", 68, {}),
    95: ("FLOOR_MOD", 72, {}),
    97: ("RESIZE_NEAREST_NEIGHBOR", 74, {}),
    98: ("LEAKY_RELU", 75, {}),
    99: ("SQUARED_DIFFERENCE", 76, {}),
    100: ("MIRROR_PAD", 77, {}),
    101: ("ABS", 78, {}),
    102: ("SPLIT_V", 79, {}),
    104: ("CEIL", 0, {}),
    105: ("REVERSE_V2", 81, {}),
    108: ("COS", 84, {}),
    111: ("ELU", 0, {}),
    114: ("QUANTIZE", 89, {}),
    116: ("ROUND", 0, {}),
    117: ("HARD_SWISH", 91, {}),
    123: ("SELECT_V2", 98, {}),
    126: ("BATCH_MATMUL", 101, {0: ("adj_x", "b", 0), 1: ("adj_y", "b", 0)}),
    128: ("CUMSUM", 102, {}),
    130: ("BROADCAST_TO", 104, {}),
    140: ("REDUCE_ALL", 27, _KEEP),
    150: ("GELU", 116, {}),
    152: ("RELU_0_TO_1", 0, {}),
    156: ("ATAN2", 122, {}),
    158: ("SIGN", 123, {}),
}
_CONTROL_FLOW = {31: "CALL", 118: "IF", 119: "WHILE", 129: "CALL_ONCE"}
_CUSTOM = 32


@dataclass(frozen=True)
class TfliteGraph:
    """Tensors are named by their index ("7"); `inputs` and `outputs` map names to those."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    tensors: Mapping[str, Port]  # every tensor, as the file declares it
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]


class _File:
    """The bytes, with every access checked."""

    def __init__(self, data: memoryview, where: str) -> None:
        self.data = data
        self.where = where

    def refuse(self, what: str) -> ModelError:
        return ModelError(f"{self.where}: {what}")

    def number(self, form: str, at: int) -> int:
        size = struct.calcsize("<" + form)
        if not 0 <= at <= len(self.data) - size:
            raise self.refuse(f"damaged: an offset leads to byte {at}, outside the file")
        value: int = struct.unpack_from("<" + form, self.data, at)[0]
        return value

    def follow(self, at: int) -> int:
        """Where the offset at `at` leads: forward, to a multiple of 4."""
        step = self.number("I", at)
        if step == 0 or (at + step) % 4 or at + step > len(self.data) - 4:
            raise self.refuse(f"damaged: the offset at byte {at} leads to byte {at + step}")
        return at + step

    def table(self, at: int) -> _Table:
        vtable = at - self.number("i", at)
        size, span = self.number("H", vtable), self.number("H", vtable + 2)
        fields = [self.number("H", vtable + 4 + 2 * i) for i in range(max(0, size - 4) // 2)]
        if size < 4 or size % 2 or span < 4 or at + span > len(self.data):
            raise self.refuse(f"damaged: the table at byte {at} has a wrong vtable")
        if any(field and not 4 <= field < span for field in fields):
            raise self.refuse(f"damaged: the table at byte {at} has a field outside itself")
        return _Table(self, at, span, fields)

    def vector(self, at: int, size: int) -> tuple[int, int]:
        """(offset of the first element, count) of the vector at `at`."""
        count = self.number("I", at)
        if count * size > len(self.data) - at - 4:
            raise self.refuse(f"damaged: a vector of {count} at byte {at} leaves the file")
        return at + 4, count


class _Table:
    def __init__(self, file: _File, at: int, span: int, fields: list[int]) -> None:
        self.file, self.at, self.span, self.fields = file, at, span, fields

    def has(self, slot: int) -> bool:
        return slot < len(self.fields) and self.fields[slot] != 0

    def scalar(self, slot: int, form: str, default: int = 0) -> int:
        if not self.has(slot):
            return default
        if self.fields[slot] + struct.calcsize("<" + form) > self.span:
            raise self.file.refuse(f"damaged: the table at byte {self.at} is too short")
        return self.file.number(form, self.at + self.fields[slot])

    def follow(self, slot: int) -> int:
        if self.fields[slot] + 4 > self.span:
            raise self.file.refuse(f"damaged: the table at byte {self.at} is too short")
        return self.file.follow(self.at + self.fields[slot])

    def table(self, slot: int) -> _Table | None:
        return self.file.table(self.follow(slot)) if self.has(slot) else None

    def tables(self, slot: int, limit: int) -> list[_Table]:
        if not self.has(slot):
            return []
        first, count = self.file.vector(self.follow(slot), 4)
        if count > limit:
            raise self.file.refuse(f"must have at most {limit} of a kind, got {count}")
        return [self.file.table(self.file.follow(first + 4 * i)) for i in range(count)]

    def bytes(self, slot: int, size: int = 1) -> memoryview:
        """The raw elements of a vector of scalars of `size` bytes each."""
        if not self.has(slot):
            return memoryview(b"")
        first, count = self.file.vector(self.follow(slot), size)
        if count and first % size:
            raise self.file.refuse(f"damaged: the vector at byte {first} is not aligned")
        return self.file.data[first : first + count * size]

    def ints(self, slot: int) -> list[int]:
        return [number for (number,) in struct.iter_unpack("<i", self.bytes(slot, 4))]

    def text(self, slot: int) -> str:
        raw = self.bytes(slot)
        if self.has(slot):
            end = self.follow(slot) + 4 + len(raw)
            if self.file.number("B", end) != 0:
                raise self.file.refuse(f"damaged: the text at byte {end} does not end")
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.file.refuse("a name must be UTF-8 text") from None

    def without(self, slots: Mapping[int, str]) -> None:
        for slot, what in slots.items():
            if self.has(slot):
                raise self.file.refuse(f"{what} must not be in a bundle's graph")


def read_tflite(
    data: bytes | memoryview, where: str, expected: tuple[set[str], set[str]]
) -> TfliteGraph:
    """The graph in a TFLite file.

    expected: the names that its inputs and outputs should have. They are looked for in the
    file's signature, then among its tensors' own names.

    Raises: ModelError, naming `where`: damaged, too large, or with anything in it that a
    bundle's graph must not have.
    """
    file = _File(memoryview(data), where)
    if len(data) < 8 or bytes(data[4:8]) != b"TFL3":
        raise file.refuse(f"must be a TFLite file with TFL3 at byte 4, got {bytes(data[4:8])!r}")
    model = file.table(file.follow(0))
    if model.scalar(0, "I") != 3:
        raise file.refuse(f"the schema version must be 3, got {model.scalar(0, 'I')}")
    model.without({8: "external data", 9: "external data"})
    codes = [_operator(file, table) for table in model.tables(1, MAX_NODES)]
    buffers = [_buffer(table) for table in model.tables(4, MAX_TENSORS)]
    _check_metadata(file, model, len(buffers))
    subgraphs = model.tables(2, MAX_NODES)
    if len(subgraphs) != 1:
        raise file.refuse(
            f"must have one subgraph, got {len(subgraphs)}: no control flow in a bundle's graph"
        )
    graph = subgraphs[0]
    tables = graph.tables(0, MAX_TENSORS)
    tensors, constants = {}, {}
    names: list[str] = []
    for index, table in enumerate(tables):
        name, port, constant = _tensor(file, table, index, buffers)
        names.append(name)
        tensors[str(index)] = port
        if constant:
            constants[str(index)] = constant
    own = tuple(
        {names[i]: str(i) for i in _indices(file, graph.ints(slot), len(names), what)}
        for slot, what in ((1, "input"), (2, "output"))
    )
    signatures = list(_signatures(file, model, len(names)))
    fitting = [s for s in signatures if (set(s[0]), set(s[1])) == expected]
    inputs, outputs = fitting[0] if fitting else own
    for given, mine, what in ((inputs, own[0], "input"), (outputs, own[1], "output")):
        if set(given.values()) != set(mine.values()):
            raise file.refuse(f"the signature's {what}s must be the graph's {what}s")
    nodes = [_node(file, table, codes, len(names)) for table in graph.tables(3, MAX_NODES)]
    if not nodes:
        raise file.refuse(f"must have 1 to {MAX_NODES} operators, got 0")
    return TfliteGraph(inputs, outputs, tensors, constants, tuple(nodes))


def _operator(file: _File, table: _Table) -> tuple[str, int, _Slots]:
    code = max(table.scalar(0, "b"), table.scalar(3, "i"))  # the newer field above 127
    if code == _CUSTOM or table.has(1):
        raise file.refuse(f"custom operators ({table.text(1)!r}) must not be in a bundle's graph")
    if code in _CONTROL_FLOW:
        raise file.refuse(f"control flow ({_CONTROL_FLOW[code]}) must not be in a bundle's graph")
    if code not in OPERATORS:
        raise file.refuse(
            f"builtin operator {code} must not be in a bundle's graph; docs/bundle.md lists "
            "those that may"
        )
    return OPERATORS[code]


def _buffer(table: _Table) -> memoryview:
    table.without({1: "data outside the file's tables", 2: "data outside the file's tables"})
    return table.bytes(0)


def _check_metadata(file: _File, model: _Table, buffers: int) -> None:
    model.text(3)  # description
    _indices(file, model.ints(5), buffers, "metadata buffer")
    for entry in model.tables(6, 1000):
        entry.text(0)
        _indices(file, [entry.scalar(1, "I")], buffers, "metadata buffer")


def _indices(file: _File, indices: list[int], count: int, what: str) -> list[int]:
    for index in indices:
        if not 0 <= index < count:
            raise file.refuse(f"damaged: {what} {index} of {count}")
    return indices


def _signatures(
    file: _File, model: _Table, tensors: int
) -> Iterator[tuple[dict[str, str], dict[str, str]]]:
    for signature in model.tables(7, 100):
        signature.text(2)
        if signature.scalar(4, "I") != 0:
            raise file.refuse("a signature must be of the one subgraph")
        roles = []
        for slot in (0, 1):
            entries = signature.tables(slot, MAX_TENSORS)
            _indices(file, [entry.scalar(1, "I") for entry in entries], tensors, "tensor")
            roles.append({entry.text(0): str(entry.scalar(1, "I")) for entry in entries})
        yield roles[0], roles[1]


def _tensor(
    file: _File, table: _Table, index: int, buffers: list[memoryview]
) -> tuple[str, Port, Constant | None]:
    name = table.text(3)
    at = f"tensor {index} {name!r}"
    if table.scalar(5, "B"):
        raise file.refuse(f"{at}: variables must not be in a bundle's graph: it keeps no state")
    table.without({6: "a sparse tensor", 9: "a variant tensor", 10: "external data"})
    if table.scalar(1, "b") not in TYPES:
        raise file.refuse(
            f"{at}: data type {table.scalar(1, 'b')} must be one of {', '.join(TYPES.values())}"
        )
    dtype, shape = TYPES[table.scalar(1, "b")], tuple(table.ints(0))
    if any(size < 1 for size in (*shape, *table.ints(7))) or len(shape) > MAX_RANK:
        raise file.refuse(
            f"{at} must have up to {MAX_RANK} fixed sizes of at least 1, got {list(shape)} with "
            f"signature {table.ints(7)}; convert it with a fixed batch"
        )
    if math.prod(shape) > MAX_TENSOR:
        raise file.refuse(f"{at} must have at most {MAX_TENSOR} numbers, got {list(shape)}")
    _check_quantization(file, table, shape, at)
    (buffer,) = _indices(file, [table.scalar(2, "I")], len(buffers), "buffer")
    data = buffers[buffer]
    if not len(data):
        return name, Port(dtype, shape), None
    layout = np.dtype(dtype).newbyteorder("<")
    if len(data) != math.prod(shape) * layout.itemsize:
        raise file.refuse(
            f"{at}: {dtype} {list(shape)} must hold {math.prod(shape) * layout.itemsize} bytes, "
            f"got {len(data)}"
        )
    value = np.frombuffer(data, layout).reshape(shape) if math.prod(shape) <= KNOWN else None
    return name, Port(dtype, shape), Constant(dtype, shape, value)


def _check_quantization(file: _File, tensor: _Table, shape: tuple[int, ...], at: str) -> None:
    table = tensor.table(4)
    if table is None:
        return
    table.without({5: "custom or blockwise quantization"})
    for slot in (0, 1):  # min and max of the calibration, read by nobody
        table.bytes(slot, 4)
    scales, zeros = len(table.bytes(2, 4)) // 4, len(table.bytes(3, 8)) // 8
    axis = table.scalar(6, "i")
    channels = shape[axis] if 0 <= axis < len(shape) else 1
    if not (scales in (0, 1, channels) and zeros in (0, scales)):
        raise file.refuse(
            f"{at}: quantization must have 1 or {channels} scales and as many zero points, "
            f"got {scales} and {zeros}"
        )


def _node(file: _File, table: _Table, codes: list[tuple[str, int, _Slots]], tensors: int) -> Node:
    (index,) = _indices(file, [table.scalar(0, "I")], len(codes), "operator code")
    op, options_type, slots = codes[index]
    table.without(
        {
            5: "custom options",
            8: "intermediate tensors",
            9: "custom options",
            10: "custom options",
            12: "options of a newer schema",
        }
    )
    table.bytes(7)
    inputs = [i for i in table.ints(1) if i != -1]  # -1: left out
    _indices(file, inputs + table.ints(2), tensors, "tensor")
    found = table.scalar(3, "B")
    if found not in (0, options_type):
        raise file.refuse(f"damaged: {op} has options of type {found}")
    options = table.table(4) if found else None
    attributes: dict[str, Attribute] = {}
    for slot, (name, form, default) in slots.items():
        if form == "[i":
            attributes[name] = tuple(options.ints(slot)) if options else ()
        else:
            attributes[name] = options.scalar(slot, form, default) if options else default
    names = tuple("" if i == -1 else str(i) for i in table.ints(1))
    return Node(op, "", names, tuple(map(str, table.ints(2))), attributes)
