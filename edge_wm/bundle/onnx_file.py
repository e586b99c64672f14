"""Read an ONNX file without `onnx` and without trusting a byte of it.

An ONNX file is one protobuf message, ModelProto (onnx.proto, IR version 14). A message is a run
of fields; each begins with a varint, (field number << 3) | wire type:

    wire type  0 varint   1 eight bytes   2 length, then as many bytes   5 four bytes

Only fields named in the tables below are accepted, and singular ones only once, so there is
nothing in a file that an inference library reads and this reader does not know. Messages that
could nest (graphs in attributes, functions, sequence types) are refused, so depth is bounded by
the tables and work by the number of fields.

Invariant: everything returned was in the file and within the limits; data is not copied.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edge_wm.errors import ModelError
from edge_wm.types import Array

MAX_FIELDS = 500_000
MAX_NODES = 20_000
MAX_RANK = 8
MAX_TENSOR = 2**30  # numbers in one tensor
KNOWN = 4096  # numbers up to which a constant's values are looked at
OPSETS = (13, 24)
IR_VERSIONS = (7, 14)

DTYPES: Mapping[int, str] = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}


class Constant(NamedTuple):
    """A tensor in the file. `value` is there if it is small enough to matter for shapes."""

    dtype: str
    shape: tuple[int, ...]
    value: Array | None


Attribute = int | float | bytes | tuple[int, ...] | tuple[float, ...] | Constant


class Node(NamedTuple):
    op: str
    name: str
    inputs: tuple[str, ...]  # "" for one left out
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]


class Port(NamedTuple):
    """A declared input or output of the graph; -1 for every symbolic size."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class OnnxGraph:
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    constants: Mapping[str, Constant]
    nodes: tuple[Node, ...]


# Message tables: field number -> (name, wire kind, repeated). Kinds: int (varint, packed or
# not where repeated), float (four bytes, likewise), bytes, skip (known, of no consequence).
_Table = Mapping[int, tuple[str, str, bool]]
_SKIP = ("", "skip", True)
_MODEL: _Table = {
    1: ("ir_version", "int", False),
    2: _SKIP,  # producer_name
    3: _SKIP,  # producer_version
    4: _SKIP,  # domain
    5: _SKIP,  # model_version
    6: _SKIP,  # doc_string
    7: ("graph", "bytes", False),
    8: ("opset_import", "bytes", True),
    14: _SKIP,  # metadata_props
}
_OPSET: _Table = {1: ("domain", "bytes", False), 2: ("version", "int", False)}
_GRAPH: _Table = {
    1: ("node", "bytes", True),
    2: _SKIP,  # name
    5: ("initializer", "bytes", True),
    10: _SKIP,  # doc_string
    11: ("input", "bytes", True),
    12: ("output", "bytes", True),
    13: _SKIP,  # value_info: shapes of intermediate tensors; computed anew here
    16: _SKIP,  # metadata_props
}
_NODE: _Table = {
    1: ("input", "bytes", True),
    2: ("output", "bytes", True),
    3: ("name", "bytes", False),
    4: ("op_type", "bytes", False),
    5: ("attribute", "bytes", True),
    6: _SKIP,  # doc_string
    7: ("domain", "bytes", False),
    9: _SKIP,  # metadata_props
}
_ATTRIBUTE: _Table = {
    1: ("name", "bytes", False),
    2: ("f", "float", False),
    3: ("i", "int", False),
    4: ("s", "bytes", False),
    5: ("t", "bytes", False),
    7: ("floats", "float", True),
    8: ("ints", "int", True),
    9: ("strings", "bytes", True),
    13: _SKIP,  # doc_string
    20: ("type", "int", False),
}
_TENSOR: _Table = {
    1: ("dims", "int", True),
    2: ("data_type", "int", False),
    4: ("float_data", "bytes", False),  # packed, as every writer does
    5: ("int32_data", "bytes", False),
    7: ("int64_data", "bytes", False),
    8: ("name", "bytes", False),
    9: ("raw_data", "bytes", False),
    10: ("double_data", "bytes", False),
    11: ("uint64_data", "bytes", False),
    12: _SKIP,  # doc_string
    14: ("data_location", "int", False),
    16: _SKIP,  # metadata_props
}
_VALUE: _Table = {
    1: ("name", "bytes", False),
    2: ("type", "bytes", False),
    3: _SKIP,  # doc_string
    4: _SKIP,  # metadata_props
}
_TYPE: _Table = {1: ("tensor", "bytes", False), 6: _SKIP}
_TENSOR_TYPE: _Table = {1: ("elem_type", "int", False), 2: ("shape", "bytes", False)}
_SHAPE: _Table = {1: ("dim", "bytes", True)}
_DIM: _Table = {1: ("value", "int", False), 2: ("param", "bytes", False), 3: _SKIP}

# Fields that are refused with their own words: (table, field number) -> what it is.
_REFUSED = {
    ("model", 20): "training information",
    ("model", 25): "local functions",
    ("model", 26): "a multi-device configuration",
    ("graph", 14): "quantization annotations",
    ("graph", 15): "sparse initializers",
    ("node", 8): "an overload of a local function",
    ("node", 10): "a multi-device configuration",
    ("attribute", 6): "a subgraph (control flow)",
    ("attribute", 11): "a subgraph (control flow)",
    ("attribute", 10): "a list of tensors",
    ("attribute", 14): "a type",
    ("attribute", 15): "a type",
    ("attribute", 21): "a reference to a function's attribute",
    ("attribute", 22): "a sparse tensor",
    ("attribute", 23): "a sparse tensor",
    ("tensor", 3): "a segmented tensor",
    ("tensor", 6): "strings",
    ("tensor", 13): "external data",
    ("type", 4): "a sequence type",
    ("type", 5): "a map type",
    ("type", 7): "an opaque type",
    ("type", 8): "a sparse tensor type",
    ("type", 9): "an optional type",
}

# Where a tensor's numbers may be, and where those of a dtype are if not in raw_data (by default
# in int32_data).
_DATA = ("raw_data", "float_data", "double_data", "int32_data", "int64_data", "uint64_data")
_TYPED_DATA = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}


class _Message:
    """The fields of one message, by name."""

    def __init__(self) -> None:
        self.ints: defaultdict[str, list[int]] = defaultdict(list)
        self.floats: defaultdict[str, list[float]] = defaultdict(list)
        self.parts: defaultdict[str, list[memoryview]] = defaultdict(list)

    def number(self, name: str) -> int:
        """A singular number; 0 if absent, as protobuf has it."""
        return self.ints[name][0] if self.ints[name] else 0

    def part(self, name: str) -> memoryview:
        """Singular bytes; empty if absent."""
        return self.parts[name][0] if self.parts[name] else memoryview(b"")

    def has(self, name: str) -> bool:
        return bool(self.ints[name] or self.floats[name] or self.parts[name])


class _Reader:
    """Walks messages; counts fields, so that no file can make it work for long."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.left = MAX_FIELDS

    def refuse(self, what: str) -> ModelError:
        return ModelError(f"{self.where}: {what}")

    # ---- the wire -----------------------------------------------------------------------
    def message(self, view: memoryview, table: _Table, kind: str) -> _Message:
        """The fields of one message; what is not in its table is refused."""
        message, at = _Message(), 0
        while at < len(view):
            self.spend(1)
            key, at = self.varint(view, at)
            number, wire = key >> 3, key & 7
            if (kind, number) in _REFUSED:
                raise self.refuse(f"{_REFUSED[kind, number]} must not be in a bundle's graph")
            if number not in table:
                raise self.refuse(f"unknown field {number} in a {kind} message")
            name, want, repeated = table[number]
            if not repeated and message.has(name):
                raise self.refuse(f"{kind}.{name} must appear once")
            if wire == 0:
                value, at = self.varint(view, at)
                fits = want == "int"
                message.ints[name].append(value)
            else:
                raw, at = self.chunk(view, at, wire)
                fits = self.keep(message, name, want, repeated, wire, raw)
            if not fits and want != "skip":
                raise self.refuse(f"damaged: {kind}.{name} has wire type {wire}")
        return message

    def keep(
        self, message: _Message, name: str, want: str, repeated: bool, wire: int, raw: memoryview
    ) -> bool:
        """Add a field that is not a varint to its message; False if it is of the wrong type."""
        if want == "bytes" and wire == 2:
            message.parts[name].append(raw)
        elif want == "float" and (wire == 5 or (wire == 2 and repeated and len(raw) % 4 == 0)):
            self.spend(len(raw) // 4)
            message.floats[name] += struct.unpack(f"<{len(raw) // 4}f", raw)
        elif want == "int" and wire == 2 and repeated:
            message.ints[name] += self.varints(raw)
        else:
            return False
        return True

    def varint(self, view: memoryview, at: int) -> tuple[int, int]:
        """(value, next offset); signed 64 bit, as protobuf's int64 and int32 are written."""
        value = 0
        for index, byte in enumerate(view[at : at + 10]):
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                value &= 2**64 - 1
                return value - 2**64 if value >= 2**63 else value, at + index + 1
        raise self.refuse("damaged: a number is cut off")

    def varints(self, view: memoryview) -> list[int]:
        values, at = [], 0
        while at < len(view):
            self.spend(1)
            value, at = self.varint(view, at)
            values.append(value)
        return values

    def chunk(self, view: memoryview, at: int, wire: int) -> tuple[memoryview, int]:
        """(the bytes of a field that is not a varint, next offset)."""
        size = {1: 8, 5: 4}.get(wire, -1)
        if wire == 2:
            size, at = self.varint(view, at)
        if not 0 <= size <= len(view) - at:
            raise self.refuse(
                f"damaged: wire type {wire}, {size} bytes, where {len(view) - at} are left"
            )
        return view[at : at + size], at + size

    def spend(self, fields: int) -> None:
        self.left -= fields
        if self.left < 0:
            raise self.refuse(f"more than {MAX_FIELDS} fields; a bundle's graph must be smaller")

    # ---- what the fields mean -----------------------------------------------------------
    def text(self, raw: memoryview, what: str) -> str:
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError:
            raise self.refuse(f"{what} must be UTF-8 text") from None

    def opset(self, view: memoryview) -> int:
        m = self.message(view, _OPSET, "opset")
        self.check_domain(self.text(m.part("domain"), "an opset's domain"), "opset_import")
        return m.number("version")

    def check_domain(self, domain: str, what: str) -> None:
        if domain not in ("", "ai.onnx"):
            raise self.refuse(
                f"{what}: custom operators (domain {domain!r}) must not be in a bundle's graph; "
                "export with standard ONNX operators"
            )

    def node(self, view: memoryview) -> Node:
        m = self.message(view, _NODE, "node")
        op = self.text(m.part("op_type"), "an operator's name")
        name = self.text(m.part("name"), "a node's name")
        self.check_domain(self.text(m.part("domain"), "a domain"), f"node {name!r} ({op})")
        attributes: dict[str, Attribute] = {}
        for raw in m.parts["attribute"]:
            key, value = self.attribute(raw)
            if key in attributes:
                raise self.refuse(f"node {name!r}: attribute {key!r} must appear once")
            attributes[key] = value
        inputs = tuple(self.text(raw, "a tensor's name") for raw in m.parts["input"])
        outputs = tuple(self.text(raw, "a tensor's name") for raw in m.parts["output"])
        return Node(op, name, inputs, outputs, attributes)

    def attribute(self, view: memoryview) -> tuple[str, Attribute]:
        m = self.message(view, _ATTRIBUTE, "attribute")
        name = self.text(m.part("name"), "an attribute's name")
        given = [kind for kind in ("f", "i", "s", "t", "floats", "ints", "strings") if m.has(kind)]
        if len(given) > 1:
            raise self.refuse(f"attribute {name!r} must have one value, got {' and '.join(given)}")
        if m.has("t"):
            return name, self.tensor(m.part("t"))[1]
        if m.has("f"):
            return name, m.floats["f"][0]
        if m.has("i"):
            return name, m.number("i")
        if m.has("s"):
            return name, bytes(m.part("s"))
        if m.has("floats"):
            return name, tuple(m.floats["floats"])
        return name, tuple(m.ints["ints"])  # strings are read (RNN activations) and not needed

    def port(self, view: memoryview) -> tuple[str, Port]:
        m = self.message(view, _VALUE, "value")
        name = self.text(m.part("name"), "a tensor's name")
        kind = self.message(m.part("type"), _TYPE, "type")
        t = self.message(kind.part("tensor"), _TENSOR_TYPE, "tensor type")
        if t.number("elem_type") not in DTYPES or not t.has("shape"):
            raise self.refuse(f"{name!r} must be a tensor with a known data type and a shape")
        dims = []
        for raw in self.message(t.part("shape"), _SHAPE, "shape").parts["dim"]:
            dim = self.message(raw, _DIM, "dim")
            size = dim.number("value") if dim.has("value") else -1
            if size < -1 or size == 0:
                raise self.refuse(f"{name!r} must have sizes of at least 1, got {size}")
            dims.append(size)
        return name, Port(DTYPES[t.number("elem_type")], tuple(dims))

    def tensor(self, view: memoryview) -> tuple[str, Constant]:
        m = self.message(view, _TENSOR, "tensor")
        name = self.text(m.part("name"), "a tensor's name")
        if m.number("data_location") != 0:
            raise self.refuse(f"tensor {name!r}: external data must not be in a bundle's graph")
        if m.number("data_type") not in DTYPES:
            raise self.refuse(
                f"tensor {name!r}: data type {m.number('data_type')} must be one of "
                f"{', '.join(DTYPES.values())}"
            )
        dtype, shape = DTYPES[m.number("data_type")], tuple(m.ints["dims"])
        if len(shape) > MAX_RANK or any(size < 0 for size in shape):
            raise self.refuse(
                f"tensor {name!r} must have up to {MAX_RANK} sizes of 0 or more, got {list(shape)}"
            )
        if math.prod(shape) > MAX_TENSOR:
            raise self.refuse(
                f"tensor {name!r} must have at most {MAX_TENSOR} numbers, got {list(shape)}"
            )
        return name, Constant(dtype, shape, self.data(name, dtype, shape, m))

    def data(self, name: str, dtype: str, shape: tuple[int, ...], m: _Message) -> Array | None:
        """The values of a tensor, if there are few; checks that there are as many as it says."""
        given = [kind for kind in _DATA if m.has(kind)]
        typed = _TYPED_DATA.get(dtype, "int32_data")
        if given not in ([], ["raw_data"], [typed]):
            raise self.refuse(
                f"tensor {name!r}: {dtype} must be in raw_data or in {typed}, "
                f"got {' and '.join(given)}"
            )
        layout, count = np.dtype(dtype).newbyteorder("<"), math.prod(shape)
        raw = m.part(given[0]) if given else memoryview(b"")
        if given and given[0] in ("int32_data", "int64_data", "uint64_data"):
            raw = _narrowed(self.varints(raw), layout)
        if len(raw) != count * layout.itemsize:
            raise self.refuse(
                f"tensor {name!r}: {dtype} {list(shape)} must hold {count * layout.itemsize} "
                f"bytes, got {len(raw)}"
            )
        return np.frombuffer(raw, layout).reshape(shape) if count <= KNOWN else None


def _narrowed(numbers: list[int], layout: np.dtype[np.generic]) -> memoryview:
    """Numbers as written one by one (float16 as its bits) as the bytes of a tensor."""
    size = layout.itemsize
    return memoryview(b"".join((n % 256**size).to_bytes(size, "little") for n in numbers))


def read_onnx(data: bytes | memoryview, where: str) -> OnnxGraph:
    """The graph in an ONNX file.

    Raises: ModelError, naming `where`: damaged, too large, or with anything in it that a
    bundle's graph must not have.
    """
    reader = _Reader(where)
    model = reader.message(memoryview(data), _MODEL, "model")
    if not IR_VERSIONS[0] <= model.number("ir_version") <= IR_VERSIONS[1]:
        raise reader.refuse(
            f"IR version must be {IR_VERSIONS[0]} to {IR_VERSIONS[1]}, "
            f"got {model.number('ir_version')}"
        )
    opsets = [reader.opset(raw) for raw in model.parts["opset_import"]]
    if len(opsets) != 1 or not OPSETS[0] <= opsets[0] <= OPSETS[1]:
        raise reader.refuse(
            f"must import one opset, {OPSETS[0]} to {OPSETS[1]}, got {opsets or 'none'}"
        )
    graph = reader.message(model.part("graph"), _GRAPH, "graph")
    if not 0 < len(graph.parts["node"]) <= MAX_NODES:
        raise reader.refuse(f"must have 1 to {MAX_NODES} nodes, got {len(graph.parts['node'])}")
    constants = [reader.tensor(raw) for raw in graph.parts["initializer"]]
    inputs = [reader.port(raw) for raw in graph.parts["input"]]
    outputs = [reader.port(raw) for raw in graph.parts["output"]]
    given = [name for name, _ in inputs] + [name for name, _ in constants]
    for names in (given, [name for name, _ in outputs]):
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise reader.refuse(f"{twice!r} must be declared once: an input or an initializer")
    nodes = tuple(reader.node(raw) for raw in graph.parts["node"])
    return OnnxGraph(dict(inputs), dict(outputs), dict(constants), nodes)
