"""Frames on the wire: how a message gets to the other end whole, or not at all.

    00 | COBS( header 22 | payload | CRC-32C 4 ) | 00

COBS (Cheshire and Baker 1999) takes the zeros out of what lies between the zeros, so that a reader
who has lost its place finds it at the next one; a frame begins with one too, so that noise before
it costs nothing. The CRC (Castagnoli, RFC 3720 appendix B.4: 0x1EDC6F41 reflected, initial and
final all ones) stands little-endian over header and payload.
`mcu/core/wire.c` is the same in C; both are held against each other and against others' code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edge_wm.errors import FormatError
from firmware_bridge.message import Message
from firmware_bridge.messages import BY_ID, SCHEMA_HASH, Header

MOST_PAYLOAD = 240
MOST_STUFFED = Header.SIZE + MOST_PAYLOAD + 4 + 2  # CRC; COBS adds one a 254 bytes


def _table() -> tuple[int, ...]:
    found = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        found.append(value)
    return tuple(found)


_CRC = _table()


def crc32c(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ _CRC[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF


def stuffed(data: bytes) -> bytes:
    """COBS: the same without zeros."""
    out = bytearray(1)
    length_at: int | None = 0  # where the open block's length goes; None: the last one was full
    for byte in data:
        if length_at is None:
            length_at = len(out)
            out.append(0)
        if byte:
            out.append(byte)
            if len(out) - length_at == 255:
                out[length_at], length_at = 255, None
        else:
            out[length_at] = len(out) - length_at
            length_at = len(out)
            out.append(0)
    if length_at is not None:
        out[length_at] = len(out) - length_at
    return bytes(out)


def unstuffed(data: bytes) -> bytes | None:
    """The inverse of `stuffed`; None for what it never makes."""
    out = bytearray()
    at = 0
    while at < len(data):
        length = data[at]
        block = data[at + 1 : at + length]
        if length == 0 or len(block) != length - 1 or 0 in block:
            return None
        out += block
        at += length
        if length < 0xFF and at < len(data):
            out.append(0)
    return bytes(out)


def framed(message: Message, *, session_id: int, sequence: int, device_us: int = 0) -> bytes:
    """A message as it goes out. Raises: UsageError, naming the field that does not fit."""
    header = Header(
        protocol_version=Header.PROTOCOL_VERSION,
        message_id=message.ID,
        schema_hash=SCHEMA_HASH,
        session_id=session_id,
        sequence=sequence,
        device_us=device_us,
    )
    body = header.pack() + message.pack()
    return b"\0" + stuffed(body + crc32c(body).to_bytes(4, "little")) + b"\0"


@dataclass(frozen=True, slots=True)
class Received:
    """A frame that arrived whole. `message` is None where the schema or the id is another's."""

    header: Header
    message: Message | None


class Parser:
    """Bytes to frames; keeps what is not complete yet, bounded."""

    def __init__(self) -> None:
        self.accepted = 0
        self.damaged = 0  # bad COBS, CRC or length
        self._held = bytearray()
        self._overlong = False

    def feed(self, data: bytes) -> Iterator[Received]:
        """Take bytes in, and give what became whole."""
        for index, part in enumerate(data.split(b"\0")):
            if index:  # a zero came before this part
                yield from self._end()
            self._held += part
            if len(self._held) > MOST_STUFFED:
                self._held.clear()
                self._overlong = True

    def _end(self) -> Iterator[Received]:
        stuffed_bytes, overlong = bytes(self._held), self._overlong
        self._held.clear()
        self._overlong = False
        if not stuffed_bytes and not overlong:
            return
        body = None if overlong else unstuffed(stuffed_bytes)
        if body is None or len(body) < Header.SIZE + 4:
            self.damaged += 1
            return
        body, crc = body[:-4], int.from_bytes(body[-4:], "little")
        if crc32c(body) != crc:
            self.damaged += 1
            return
        header = Header.unpack(body[: Header.SIZE])
        kind = BY_ID.get(header.message_id)
        message = None
        if kind is not None and len(body) == Header.SIZE + kind.SIZE:
            try:
                message = kind.unpack(body[Header.SIZE :])
            except FormatError:
                message = None
        self.accepted += 1
        yield Received(header, message)
