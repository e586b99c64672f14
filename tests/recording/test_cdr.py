"""Tests edge_wm.recording.cdr and messages: bytes equal to those of rosbags, an independent CDR."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from edge_wm.recording.cdr import MessageType
from edge_wm.recording.messages import DEFINITIONS, message_type

STORE = get_typestore(Stores.ROS2_HUMBLE)
STANDARD = sorted(name for name in DEFINITIONS if not name.startswith("edge_wm_msgs"))
OWN = sorted(name for name in DEFINITIONS if name.startswith("edge_wm_msgs"))

# (sizes of sequences, length of strings): alignment differs with each
SHAPES = [(0, 0), (1, 1), (2, 3), (3, 7), (5, 2)]


def _all_types(name: str) -> dict[str, Any]:
    types: dict[str, Any] = {}
    for other, text in DEFINITIONS.items():
        types.update(get_types_from_msg(text, other))
    return types


STORE_OF_OURS = get_typestore(Stores.EMPTY)
STORE_OF_OURS.register(_all_types(""))


def _values(message: Any, store: Any) -> list[Any]:
    """A rosbags message laid flat, as our codec has it."""
    values: list[Any] = []
    for name, (kind, _) in store.get_msgdef(message.__msgtype__).fields:
        value = getattr(message, name)
        tag = getattr(kind, "name", kind)
        if tag == "NAME":
            values += _values(value, store)
        elif tag == "BASE":
            values.append(value)
        elif tag == "ARRAY":
            values += list(value)
        elif isinstance(value, np.ndarray):
            values.append(value.tobytes() if value.dtype == np.uint8 else value)
        elif value and not isinstance(value[0], str):
            values.append([_values(entry, store) for entry in value])
        else:
            values.append(list(value))
    return values


def _made(name: str, store: Any, count: int, length: int, random: np.random.Generator) -> Any:
    """A rosbags message of any type with random content."""
    fields = {}
    for field, (kind, description) in store.get_msgdef(name).fields:
        tag = getattr(kind, "name", kind)
        if tag == "NAME":
            fields[field] = _made(description, store, count, length, random)
        elif tag == "BASE":
            fields[field] = _number(description[0], length, random)
        else:
            (inner, inner_name), size = description
            size = size if tag == "ARRAY" else count
            if getattr(inner, "name", inner) == "NAME":
                entries = [_made(inner_name, store, count, length, random) for _ in range(size)]
                fields[field] = entries
            elif inner_name[0] == "string":
                fields[field] = ["é" * length for _ in range(size)]
            else:
                entries = [_number(inner_name[0], length, random) for _ in range(size)]
                fields[field] = np.array(entries, inner_name[0])
    return store.types[name](**fields)


def _number(kind: str, length: int, random: np.random.Generator) -> Any:
    if kind == "string":
        return "é" * length
    if kind.startswith("float"):
        return float(np.float32(random.normal()))
    return int(random.integers(0, 2 if kind == "bool" else 100))


def _plain(values: Any) -> Any:
    if isinstance(values, (list, tuple)):
        return [_plain(value) for value in values]
    if isinstance(values, np.ndarray):
        return ["array", values.tolist()]
    if isinstance(values, memoryview):
        return bytes(values)
    return values


@pytest.mark.parametrize(("count", "length"), SHAPES)
@pytest.mark.parametrize("name", STANDARD + OWN)
def test_our_bytes_are_those_of_rosbags_and_both_read_them(
    name: str, count: int, length: int
) -> None:
    store = STORE if name in STANDARD else STORE_OF_OURS
    random = np.random.Generator(np.random.Philox(key=count))
    message = _made(name, store, count, length, random)
    theirs = bytes(store.serialize_cdr(message, name))
    ours = message_type(name).encode(*_values(message, store))
    assert ours == theirs
    assert _plain(message_type(name).decode(theirs)) == _plain(_values(message, store))


@pytest.mark.parametrize("name", STANDARD)
def test_standard_definitions_are_those_of_ros_2_humble(name: str) -> None:
    # fields only: names of constants, which ours leave out, are not on the wire
    assert get_types_from_msg(DEFINITIONS[name], name)[name][1] == STORE.fielddefs[name][1]


def test_the_schema_holds_every_definition_that_it_needs() -> None:
    schema = message_type("nav_msgs/msg/Path").schema
    parts = schema.split("\n" + "=" * 80 + "\n")
    assert [part.splitlines()[0] for part in parts] == [
        "std_msgs/Header header",
        "MSG: std_msgs/Header",
        "MSG: geometry_msgs/PoseStamped",
        "MSG: builtin_interfaces/Time",
        "MSG: geometry_msgs/Pose",
        "MSG: geometry_msgs/Point",
        "MSG: geometry_msgs/Quaternion",
    ]


NUMBERS = MessageType(
    "test/msg/Numbers", {"test/msg/Numbers": "uint8 a\nfloat64 b\nfloat32[] c\nstring d\nint64 e"}
)


@pytest.mark.parametrize(
    "bits", [0x7FF8000000000001, 0x7FF0000000000000, 0x8000000000000000, 0x0000000000000001]
)
def test_a_float64_goes_through_with_every_bit(bits: int) -> None:
    value = struct.unpack("<d", struct.pack("<Q", bits))[0]
    message = NUMBERS.encode(1, value, np.array([np.nan, -0.0], np.float32), "d", -(2**63))
    a, b, c, d, e = NUMBERS.decode(message)
    assert struct.pack("<d", b) == struct.pack("<Q", bits)
    assert (a, d, e) == (1, "d", -(2**63))
    assert c.tobytes() == np.array([np.nan, -0.0], np.float32).tobytes()


def test_a_message_cut_off_anywhere_is_refused() -> None:
    message = NUMBERS.encode(1, 2.0, np.arange(3, dtype=np.float32), "text", 5)
    for size in range(len(message)):
        with pytest.raises((ValueError, struct.error)):
            NUMBERS.decode(message[:size])
    NUMBERS.decode(message)


def test_a_message_with_any_byte_changed_gives_values_or_a_refusal() -> None:
    message = NUMBERS.encode(1, 2.0, np.arange(3, dtype=np.float32), "text", 5)
    for index in range(len(message)):
        for change in (0x01, 0x80, 0xFF):
            damaged = bytearray(message)
            damaged[index] ^= change
            try:
                assert len(NUMBERS.decode(bytes(damaged))) == 5
            except (ValueError, struct.error):
                continue


@pytest.mark.parametrize(
    "values",
    [
        (256, 0.0, (), "", 0),
        (0, "text", (), "", 0),
        (0, 0.0, (), "", 2**63),
        (0, 0.0, (), None, 0),
    ],
)
def test_a_value_that_does_not_fit_is_an_error(values: tuple[Any, ...]) -> None:
    with pytest.raises((struct.error, AttributeError)):
        NUMBERS.encode(*values)
