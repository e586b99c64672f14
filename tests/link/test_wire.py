"""firmware_bridge.wire: frames against the cobs package, a bitwise CRC, and every lost byte."""

from __future__ import annotations

import random

import pytest
from cobs import cobs
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.messages import SCHEMA_HASH, Hello, Identity, Ping, Reset
from firmware_bridge.wire import (
    LARGEST,
    LARGEST_ENCODED,
    Counters,
    Parser,
    cobs_decode,
    cobs_encode,
    crc32c,
    encode,
)

ZEROS = st.binary(max_size=600) | st.lists(st.sampled_from([0, 1, 255]), max_size=600).map(bytes)


def crc32c_bit_by_bit(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        for bit in range(8):
            low = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ (0x82F63B78 if low else 0)
    return crc ^ 0xFFFFFFFF


def frame(sequence: int = 1, data: bytes = bytes(35)) -> bytes:
    return encode(Ping(data), session_id=7, sequence=sequence)


def test_crc_of_the_standard():
    """RFC 3720, appendix B.4, and the catalogue's check value."""
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=300))
def test_crc_is_the_bitwise_one(data):
    assert crc32c(data) == crc32c_bit_by_bit(data)


@given(ZEROS)
def test_cobs_is_that_of_the_cobs_package(data):
    assert cobs_encode(data) == cobs.encode(data)
    assert cobs_decode(cobs.encode(data)) == data


@pytest.mark.parametrize("length", [253, 254, 255, 507, 508, 509])
@pytest.mark.parametrize("tail", [b"", b"\0", b"\0x"])
def test_cobs_about_a_full_block(length, tail):
    data = b"x" * length + tail
    assert cobs_encode(data) == cobs.encode(data)
    assert cobs_decode(cobs_encode(data)) == data


@given(st.binary(max_size=300).map(lambda data: data.replace(b"\0", b"")))
def test_what_is_not_cobs_is_refused_as_the_package_does(data):
    try:
        expected = cobs.decode(data)
    except cobs.DecodeError:
        expected = None
    assert cobs_decode(data) == expected


def test_a_golden_frame():
    """Written by hand from the drawing in docs/protocol.md, encoded by the cobs package."""
    header = bytes([1, 13]) + SCHEMA_HASH.to_bytes(4, "little") + bytes([0x44, 0x33, 0x22, 0x11])
    header += bytes([5, 0, 0, 0]) + bytes(8)
    body = header + bytes([110, 0])
    body += crc32c_bit_by_bit(body).to_bytes(4, "little")
    golden = b"\0" + cobs.encode(body) + b"\0"
    assert encode(Reset(110), session_id=0x11223344, sequence=5) == golden
    (read,) = Parser().feed(golden)
    assert read.message == Reset(110)
    assert (read.header.session_id, read.header.sequence) == (0x11223344, 5)


def test_a_ping_is_64_bytes():
    assert len(frame()) == 64


@given(st.lists(st.integers(1, 100), max_size=60), st.integers(0, 2**32))
def test_pieces_of_any_size_give_the_same_frames(sizes, seed):
    noise = random.Random(seed)
    stream = bytearray(
        b"".join(
            frame(n, noise.randbytes(35)) + noise.randbytes(noise.randrange(9)) for n in range(9)
        )
    )
    stream[noise.randrange(len(stream))] ^= 1 << noise.randrange(8)
    whole, pieces = Parser(), Parser()
    expected = whole.feed(bytes(stream))
    found, at = [], 0
    for size in [*sizes, len(stream)]:
        found += pieces.feed(bytes(stream[at : at + size]))
        at += size
    assert found == expected
    assert pieces.counters == whole.counters


def test_every_byte_lost_or_changed_once_costs_at_most_two_frames():
    frames = [frame(n, bytes([n] * 35)) for n in range(1, 5)]
    stream = b"".join(frames)
    for at in range(len(stream)):
        for changed in (b"", bytes([stream[at] ^ 0x10]), b"\0", stream[at : at + 1] * 2):
            got = Parser().feed(stream[:at] + changed + stream[at + 1 :])
            numbers = [one.header.sequence for one in got]
            assert len(numbers) >= 3, (at, changed)
            assert all(one.message == Ping(bytes([one.header.sequence] * 35)) for one in got)
            assert numbers == sorted(set(numbers))


def test_noise_is_never_a_frame():
    noise = random.Random(3)
    parser = Parser()
    for _ in range(200):
        assert parser.feed(noise.randbytes(1000)) == []
    assert parser.counters.damaged > 500


def test_overlong_is_dropped_once_and_the_next_frame_is_read():
    parser = Parser()
    for _ in range(10):
        assert parser.feed(b"\x01" * 100_000) == []
    assert len(parser._part) <= LARGEST_ENCODED
    (read,) = parser.feed(b"\0" + frame())
    assert read.message == Ping(bytes(35))
    assert parser.counters == Counters(bytes=1_000_065, accepted=1, damaged=1)
    assert LARGEST == 263


def test_another_schemas_identity_can_be_read_and_its_other_messages_not():
    identity = Identity.unpack(bytes(range(Identity.SIZE)))
    parser = Parser()
    (read,) = parser.feed(encode(identity, session_id=1, sequence=1, schema_hash=1))
    assert read.message == identity
    assert read.header.schema_hash == 1
    (read,) = parser.feed(encode(Hello(3), session_id=1, sequence=2, schema_hash=1))
    assert read.message == Hello(3)
    (read,) = parser.feed(encode(Ping(bytes(35)), session_id=1, sequence=3, schema_hash=1))
    assert read.message is None
    assert parser.counters.unknown == 1


def test_a_frame_of_the_wrong_length_is_damaged():
    body = Reset(1).pack()
    intact = encode(Reset(1), session_id=1, sequence=1)
    raw = cobs.decode(intact[1:-1])[:-4]
    longer = raw + b"\0"
    assert raw.endswith(body)
    bad = b"\0" + cobs.encode(longer + crc32c(longer).to_bytes(4, "little")) + b"\0"
    parser = Parser()
    assert parser.feed(bad) == []
    assert parser.counters.damaged == 1
