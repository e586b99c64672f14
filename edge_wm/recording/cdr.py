"""ROS 2 messages as bytes: the subset of CDR that messages of fixed types need.

A message type is given by its definition (the text of a `.msg` file). Its fields, nested messages
included, are laid flat, one value each:

    definition                     values
    float64 x                      a number; `float64[9] m` is nine of them
    string frame_id                a str; `string[] names` is a list of str
    float32[] ranges               an array, or bytes for uint8[]
    geometry_msgs/Point position   the values of Point, in place
    Stage[] stages                 a list of lists, one for each stage

Encoded (OMG CDR as ROS 2 uses it: XCDR1, little-endian), each number sits at a multiple of its
size counted from the end of the 4-byte head `00 01 00 00`; a string is its length with the final
NUL (uint32), its bytes, NUL; a sequence is its length (uint32) and its elements. Source: OMG
DDS-XTypes 1.3, section 7.4.1, plain CDR version 1.

Invariant: numbers go through unchanged, bit for bit, so that what is read is what was written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np

_HEAD = b"\x00\x01\x00\x00"
_LENGTH = struct.Struct("<I")

# type -> (struct format, size)
_NUMBERS = {
    "bool": ("?", 1),
    "uint8": ("B", 1),
    "byte": ("B", 1),  # of diagnostic_msgs only
    "int8": ("b", 1),
    "uint16": ("H", 2),
    "int32": ("i", 4),
    "uint32": ("I", 4),
    "int64": ("q", 8),
    "uint64": ("Q", 8),
    "float32": ("f", 4),
    "float64": ("d", 8),
}
_ABBREVIATED = {"Header": "std_msgs/Header"}


class _Part(Protocol):
    """A stretch of the flat values: how it is written, how it is read."""

    def write(self, out: bytearray, values: Iterator[Any]) -> None: ...

    def read(self, data: memoryview, at: int, values: list[Any]) -> int: ...


class _Run:
    """Numbers one after another: one `struct` for each place modulo 8 at which they can start."""

    def __init__(self, numbers: Sequence[tuple[str, int]]) -> None:
        self._count = len(numbers)
        self._structs = [struct.Struct(_padded(numbers, start)) for start in range(8)]

    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        out += self._structs[len(out) & 7].pack(*islice(values, self._count))

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        record = self._structs[at & 7]
        values.extend(record.unpack_from(data, at))
        return at + record.size


class _Text:
    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        text = next(values).encode() + b"\0"
        out += b"\0" * (-len(out) & 3) + _LENGTH.pack(len(text)) + text

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        count, at = _read_length(data, at)
        if not 1 <= count <= len(data) - at:
            raise ValueError(f"a string of {count} bytes where {len(data) - at} are left")
        values.append(str(data[at : at + count - 1], "utf-8"))
        return at + count


class _Texts:
    _text = _Text()

    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        texts = next(values)
        out += b"\0" * (-len(out) & 3) + _LENGTH.pack(len(texts))
        for text in texts:
            self._text.write(out, iter((text,)))

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        count, at = _read_length(data, at)
        texts: list[Any] = []
        for _ in range(count):
            at = self._text.read(data, at, texts)
        values.append(texts)
        return at


class _Bytes:
    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        content = next(values)
        out += b"\0" * (-len(out) & 3) + _LENGTH.pack(len(content)) + content

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        count, at = _read_length(data, at)
        if count > len(data) - at:
            raise ValueError(f"a sequence of {count} bytes where {len(data) - at} are left")
        values.append(data[at : at + count])
        return at + count


class _Array:
    def __init__(self, number: tuple[str, int]) -> None:
        self._dtype = np.dtype("<" + number[0])

    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        array = np.asarray(next(values), dtype=self._dtype)
        out += b"\0" * (-len(out) & 3) + _LENGTH.pack(array.size)
        if array.size:  # an empty sequence is not aligned: it has no element to align
            out += b"\0" * (-len(out) % self._dtype.itemsize) + array.tobytes()

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        count, at = _read_length(data, at)
        if count:
            at += -at % self._dtype.itemsize
        values.append(np.frombuffer(data, self._dtype, count, at).copy())
        return at + count * self._dtype.itemsize


class _Messages:
    def __init__(self, parts: Sequence[_Part]) -> None:
        self._parts = parts

    def write(self, out: bytearray, values: Iterator[Any]) -> None:
        messages = next(values)
        out += b"\0" * (-len(out) & 3) + _LENGTH.pack(len(messages))
        for message in messages:
            fields = iter(message)
            for part in self._parts:
                part.write(out, fields)

    def read(self, data: memoryview, at: int, values: list[Any]) -> int:
        count, at = _read_length(data, at)
        messages = []
        for _ in range(count):
            message: list[Any] = []
            for part in self._parts:
                at = part.read(data, at, message)
            messages.append(message)
        values.append(messages)
        return at


class MessageType:
    """One message type: its name ("sensor_msgs/msg/Imu"), its schema text, its bytes."""

    def __init__(self, name: str, definitions: Mapping[str, str]) -> None:
        self.name = name
        self._parts = _parts(name, definitions)
        self.schema = _schema(name, definitions)

    def encode(self, *values: Any) -> bytes:
        """The message with these values, laid flat."""
        out = bytearray()
        rest = iter(values)
        for part in self._parts:
            part.write(out, rest)
        return _HEAD + out

    def decode(self, message: bytes | memoryview) -> list[Any]:
        """The values, laid flat; arrays own their memory, uint8[] is a view of `message`.

        Raises ValueError or struct.error where `message` is not of this type.
        """
        data = memoryview(message)
        if data[:4] != _HEAD:
            raise ValueError(f"head {bytes(data[:4]).hex()} where {_HEAD.hex()} is expected")
        data = data[4:]
        values: list[Any] = []
        at = 0
        for part in self._parts:
            at = part.read(data, at, values)
        return values


def _read_length(data: memoryview, at: int) -> tuple[int, int]:
    at += -at & 3
    (count,) = _LENGTH.unpack_from(data, at)
    return count, at + 4


def _padded(numbers: Sequence[tuple[str, int]], start: int) -> str:
    """A struct format for numbers whose first byte may come at `start` modulo 8."""
    text, at = "<", start
    for character, size in numbers:
        gap = -at % size
        text += "x" * gap + character
        at += gap + size
    return text


def _fields(name: str, definitions: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """(type, array suffix without brackets or "-") of each line of a definition."""
    package = name.split("/")[0]
    for line in definitions[name].splitlines():
        words = line.split("#")[0].split()
        if not words:
            continue
        kind, _, suffix = words[0].partition("[")
        suffix = suffix[:-1] if "[" in words[0] else "-"
        if kind not in _NUMBERS and kind != "string":
            kind = _ABBREVIATED.get(kind, kind)
            place, _, plain = kind.rpartition("/")
            kind = f"{place or package}/msg/{plain}"
        yield kind, suffix


def _parts(name: str, definitions: Mapping[str, str]) -> list[_Part]:
    parts: list[_Part] = []
    run: list[tuple[str, int]] = []

    def end_run() -> None:
        if run:
            parts.append(_Run(run))
            run.clear()

    def add(name: str) -> None:
        for kind, suffix in _fields(name, definitions):
            number = _NUMBERS.get(kind)
            if number and suffix != "":
                run.extend([number] * (1 if suffix == "-" else int(suffix)))
            elif suffix == "-" and kind != "string":
                add(kind)
            else:
                end_run()
                if number:
                    parts.append(_Bytes() if kind == "uint8" else _Array(number))
                elif kind == "string":
                    parts.append(_Text() if suffix == "-" else _Texts())
                else:
                    parts.append(_Messages(_parts(kind, definitions)))

    add(name)
    end_run()
    return parts


def _schema(name: str, definitions: Mapping[str, str]) -> str:
    """The definition, then those that it needs, as MCAP's "ros2msg" encoding lays them out."""
    needed = [name]
    for found in needed:  # grows while it is walked
        for kind, _ in _fields(found, definitions):
            if "/" in kind and kind not in needed:
                needed.append(kind)
    rest = [f"{'=' * 80}\nMSG: {n.replace('/msg/', '/')}\n{definitions[n]}" for n in needed[1:]]
    return "\n".join([definitions[name], *rest])
