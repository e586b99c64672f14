"""Frames: how a message travels over a byte stream that may lose, change or repeat bytes.

    00 | COBS( header 22 B | payload | CRC-32C 4 B, little-endian ) | 00

    header   protocol version 1 B, message id 1 B, schema hash 4 B, session id 4 B, sequence 4 B,
             device time in us 8 B (messages.Header)
    COBS     replaces every 00 by the distance to the next one, so that a 00 is a frame's border
             and nothing else: after any damage the next border starts afresh
    CRC      over header and payload, so that damage shows

The invariant: what `Parser` gives out has passed COBS, CRC and length; everything else is counted
and gone, and costs at most the frame that follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.messages import MESSAGES, SCHEMA_HASH, Header, Message

CRC_BYTES = 4
SMALLEST = Header.SIZE + CRC_BYTES
LARGEST = Header.SIZE + max(message.SIZE for message in MESSAGES.values()) + CRC_BYTES
LARGEST_ENCODED = LARGEST + LARGEST // 254 + 1
# Ends of different schemas can still read these of each other (see Header.1.0.dsdl).
FROZEN = frozenset({1, 2, 17})


def _crc_table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_CRC = _crc_table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli; RFC 3720, appendix B.4)."""
    crc, table = 0xFFFFFFFF, _CRC
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def cobs_encode(data: bytes) -> bytes:
    """Consistent overhead byte stuffing (Cheshire and Baker 1999): no 00 in what it returns."""
    out = bytearray()
    *inner, last = data.split(b"\0")
    for run in inner:
        while len(run) >= 254:
            out += b"\xff" + run[:254]
            run = run[254:]
        out += bytes((len(run) + 1,)) + run
    while len(last) > 254:  # a block of 254 at the very end needs no successor
        out += b"\xff" + last[:254]
        last = last[254:]
    return bytes(out) + bytes((len(last) + 1,)) + last


def cobs_decode(data: bytes) -> bytes | None:
    """What was encoded; None if `data` is not COBS. It must hold no 00."""
    out = bytearray()
    at, end = 0, len(data)
    while at < end:
        code = data[at]
        if code == 0 or at + code > end:
            return None
        out += data[at + 1 : at + code]
        at += code
        if code < 255 and at < end:
            out.append(0)
    return bytes(out)


def encode(
    message: Message,
    *,
    session_id: int,
    sequence: int,
    device_us: int = 0,
    schema_hash: int = SCHEMA_HASH,
) -> bytes:
    """The frame that carries `message`; device_us is 0 from the host.

    Raises: UsageError if a value does not fit its field.
    """
    header = Header(
        Header.PROTOCOL_VERSION, message.ID, schema_hash, session_id, sequence, device_us
    )
    body = header.pack() + message.pack()
    return b"\0" + cobs_encode(body + crc32c(body).to_bytes(4, "little")) + b"\0"


@dataclass(frozen=True, slots=True)
class Frame:
    """An intact frame. `message` is None if this program does not know how to read it."""

    header: Header
    message: Message | None


@dataclass(slots=True)
class Counters:
    """What a parser has seen."""

    bytes: int = 0
    accepted: int = 0
    damaged: int = 0  # COBS, length or CRC wrong
    unknown: int = 0  # intact, of another schema, protocol or id


class Parser:
    """Bytes in, in pieces of any size; intact frames out, in order."""

    def __init__(self) -> None:
        self.counters = Counters()
        self._part = b""  # of the frame that has not ended yet
        self._overlong = False

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes."""
        self.counters.bytes += len(data)
        *ended, self._part = (self._part + data).split(b"\0")
        frames = []
        for piece in ended:
            if self._overlong or len(piece) > LARGEST_ENCODED:
                self.counters.damaged += 1
                self._overlong = False
            elif piece and (frame := self._frame(piece)) is not None:
                frames.append(frame)
        if len(self._part) > LARGEST_ENCODED:  # no frame is that long: drop what is still to come
            self._overlong, self._part = True, b""
        return frames

    def _frame(self, piece: bytes) -> Frame | None:
        body = cobs_decode(piece)
        if body is None or len(body) < SMALLEST:
            self.counters.damaged += 1
            return None
        body, crc = body[:-CRC_BYTES], body[-CRC_BYTES:]
        if crc32c(body) != int.from_bytes(crc, "little"):
            self.counters.damaged += 1
            return None
        header = Header.unpack(body[: Header.SIZE])
        payload = body[Header.SIZE :]
        kind = MESSAGES.get(header.message_id)
        readable = header.schema_hash == SCHEMA_HASH or header.message_id in FROZEN
        if kind is None or not readable:
            self.counters.unknown += 1
            return Frame(header, None)
        if len(payload) != kind.SIZE:
            self.counters.damaged += 1
            return None
        self.counters.accepted += 1
        return Frame(header, kind.unpack(payload))
