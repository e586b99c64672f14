"""Tests frames: against another hand's COBS, known CRCs, the firmware's C, and what lines do."""

from __future__ import annotations

import ctypes
import random
import zlib

import pytest
from cobs import cobs

from edge_wm.errors import UsageError
from firmware_bridge import wire
from firmware_bridge.messages import BY_ID, SCHEMA_HASH, EmergencyStop, Header, Ping
from firmware_bridge.wire import Parser, crc32c, framed, stuffed, unstuffed

PING = Ping(tuple(range(35)))


def c_feed(ends: ctypes.CDLL, data: bytes) -> list[bytes]:
    """The bodies that the firmware's parser finds."""
    out = ctypes.create_string_buffer(len(data) + 1000)
    size = ends.parser_feed(data, ctypes.c_size_t(len(data)), out, ctypes.c_size_t(len(out)))
    found, at, raw = [], 0, out.raw
    while at < size:
        length = raw[at] | raw[at + 1] << 8
        found.append(raw[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def test_known_sums(ends: ctypes.CDLL):
    """RFC 3720 appendix B.4, and the catalogue's check value."""
    known = {
        b"123456789": 0xE3069283,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(range(31, -1, -1)): 0x113FDB5C,
    }
    for data, value in known.items():
        assert crc32c(data) == value
        assert ends.wire_crc32c(data, ctypes.c_size_t(len(data))) == value
    assert crc32c(b"123456789") != zlib.crc32(b"123456789")


def test_stuffing_is_that_of_another_hand():
    generator = random.Random(1)
    cases = [bytes(n) for n in range(5)] + [b"\x01" * n for n in (1, 253, 254, 255, 508, 509)]
    cases += [b"\x01" * n + b"\0" for n in (253, 254, 255)] + [b"\0" + b"\x01" * 254]
    for _ in range(500):
        some = generator.randbytes(generator.randrange(300))
        cases.append(some if generator.random() < 0.5 else some.replace(b"\1", b"\0"))
    for data in cases:
        assert stuffed(data) == cobs.encode(data)
        assert unstuffed(stuffed(data)) == data
    for _ in range(2000):  # what nobody stuffed
        noise = bytes(generator.randrange(1, 256) for _ in range(generator.randrange(1, 40)))
        try:
            expected = cobs.decode(noise)
        except cobs.DecodeError:
            expected = None
        assert unstuffed(noise) == expected


def test_golden_frames():
    """Written once by hand from the head of firmware_bridge/wire.py."""
    stop = framed(EmergencyStop(), session_id=0x0A0B0C0D, sequence=1)
    body = b"\x01\x0e" + SCHEMA_HASH.to_bytes(4, "little") + b"\x0d\x0c\x0b\x0a" + b"\x01\0\0\0"
    body += bytes(8)
    assert stop == b"\0" + cobs.encode(body + crc32c(body).to_bytes(4, "little")) + b"\0"
    assert len(framed(PING, session_id=7, sequence=1)) == 64
    with pytest.raises(UsageError, match=r"^Header\.sequence: must be a whole number 0 to"):
        framed(PING, session_id=7, sequence=-1)


def test_the_firmware_makes_the_same_frames(ends: ctypes.CDLL):
    generator = random.Random(2)
    for size in [*range(0, 262), 262, 262]:
        body = generator.randbytes(size)
        if size % 3 == 0:
            body = bytes(0 if b < 100 else b for b in body)
        if size % 5 == 0:
            body = bytes(b or 1 for b in body)
        out = ctypes.create_string_buffer(300)
        length = ends.wire_frame(body, ctypes.c_size_t(size), out)
        crc = crc32c(body).to_bytes(4, "little")
        assert out.raw[:length] == b"\0" + cobs.encode(body + crc) + b"\0"
        assert length <= 270
    assert ends.wire_frame(bytes(263), ctypes.c_size_t(263), ctypes.create_string_buffer(300)) == 0


def stream(generator: random.Random, count: int) -> list[bytes]:
    """Frames of random messages."""
    kinds = list(BY_ID.values())
    return [
        framed(
            (kind := generator.choice(kinds)).unpack(generator.randbytes(kind.SIZE)),
            session_id=5, sequence=number, device_us=generator.randrange(2**40),
        )
        for number in range(1, count + 1)
    ]  # fmt: skip


def sequences(parser: Parser, data: bytes, pieces: random.Random) -> list[int]:
    """The sequence numbers of what arrives, in pieces of any size."""
    found, at = [], 0
    while at < len(data):
        size = pieces.randrange(1, 60)
        for received in parser.feed(data[at : at + size]):
            assert received.message is not None
            found.append(received.header.sequence)
        at += size
    return found


def test_a_clean_stream_arrives_whole_whatever_the_pieces(ends: ctypes.CDLL):
    generator = random.Random(3)
    frames = stream(generator, 300)
    parser = Parser()
    assert sequences(parser, b"".join(frames), generator) == list(range(1, 301))
    assert (parser.accepted, parser.damaged) == (300, 0)
    ends.parser_reset()
    bodies = c_feed(ends, b"".join(frames))
    assert [Header.unpack(body[:22]).sequence for body in bodies] == list(range(1, 301))
    assert (ends.parser_accepted(), ends.parser_damaged()) == (300, 0)


def spoiled(generator: random.Random, frame: bytes) -> bytes:
    """One fault: a flipped bit, a burst, a lost or added byte, or a piece that is missing."""
    data, at = bytearray(frame), generator.randrange(len(frame))
    match generator.randrange(5):
        case 0:
            data[at] ^= 1 << generator.randrange(8)
        case 1:
            for i in range(at, min(at + generator.randrange(2, 20), len(data))):
                data[i] = generator.randrange(256)
        case 2:
            del data[at]
        case 3:
            data.insert(at, generator.randrange(256))
        case _:
            del data[at : at + generator.randrange(2, 40)]
    return bytes(data)


def test_no_damaged_frame_is_accepted_and_the_next_but_one_arrives(ends: ctypes.CDLL):
    """10^5 frames, every other one spoiled, through the firmware's parser and ours."""
    generator = random.Random(4)
    ends.parser_reset()
    parser, lost = Parser(), 0
    for _ in range(500):
        good = stream(generator, 200)
        sent = [spoiled(generator, f) if i % 2 else f for i, f in enumerate(good)]
        intact = {i + 1 for i, f in enumerate(sent) if f == good[i]}
        data = b"".join(sent) + b"\0"  # ends a frame that has lost its own
        bodies = c_feed(ends, data)
        arrived = [Header.unpack(body[:22]).sequence for body in bodies]
        originals = {f: i + 1 for i, f in enumerate(good)}
        for body in bodies:  # whatever arrives is what was sent, to the bit
            frame = b"\0" + cobs.encode(body + crc32c(body).to_bytes(4, "little")) + b"\0"
            assert frame in originals
        # A fault costs its own frame; where it ate a zero, at most the next one too.
        lost += len(intact - set(arrived))
        if generator.random() < 0.04:
            assert [r.header.sequence for r in parser.feed(data)] == arrived
    assert lost <= 0.01 * 50_000
    assert ends.parser_damaged() > 40_000


def test_a_flood_without_an_end_is_bounded():
    parser = Parser()
    for _ in range(1000):
        assert list(parser.feed(b"\x55" * 1000)) == []
    assert len(parser._held) <= wire.MOST_STUFFED
    found = list(parser.feed(framed(PING, session_id=1, sequence=9)))
    assert [r.header.sequence for r in found] == [9]
    assert parser.damaged == 1


def test_another_schemas_message_is_whole_but_not_understood():
    header = Header(1, 10, 0x12345678, 1, 2, 0).pack()
    foreign = header + bytes(12)  # a Status of another size
    frame = b"\0" + stuffed(foreign + crc32c(foreign).to_bytes(4, "little")) + b"\0"
    parser = Parser()
    (received,) = parser.feed(frame)
    assert received.message is None
    assert received.header.schema_hash == 0x12345678
    assert (parser.accepted, parser.damaged) == (1, 0)
