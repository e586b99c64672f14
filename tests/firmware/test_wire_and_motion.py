"""The firmware's frames and motion against independent models: cobs, crcmod, plain Python."""

from __future__ import annotations

import ctypes
import math
import random
import subprocess

import pytest
from cobs import cobs

from firmware.rig import Native, build, steady
from firmware_bridge.messages import Ping, Pong
from firmware_bridge.wire import encode

MILLION = 1_000_000


class State(ctypes.Structure):
    _fields_ = (("position", ctypes.c_int64), ("velocity", ctypes.c_int64))


class Segment(ctypes.Structure):
    _fields_ = (
        ("position", ctypes.c_int32 * 2),
        ("velocity", ctypes.c_int32 * 2),
        ("knot_us", ctypes.c_uint32),
    )


class MotionLimits(ctypes.Structure):
    _fields_ = (
        ("has_position", ctypes.c_bool),
        ("position_min", ctypes.c_int32),
        ("position_max", ctypes.c_int32),
        ("velocity_max", ctypes.c_uint32),
        ("acceleration_max", ctypes.c_uint32),
        ("braking", ctypes.c_uint32),
    )


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(build("lockstep")))
    lib.motion_play.restype = State
    lib.motion_isqrt.restype = ctypes.c_uint32
    lib.motion_isqrt.argtypes = (ctypes.c_uint64,)
    lib.wire_crc32c.restype = ctypes.c_uint32
    lib.wire_encode.restype = ctypes.c_size_t
    return lib


def crc32c_by_bits(data: bytes) -> int:
    """The definition, one bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_crc_and_cobs_are_the_known_ones(library: ctypes.CDLL) -> None:
    rng = random.Random(2)
    assert library.wire_crc32c(b"123456789", 9) == 0xE3069283  # RFC 3720's check value
    for length in (*range(22, 60), 249, 250, 251, 252, 254, 259):
        for zeros in (0.0, 0.05, 1.0):
            body = bytes(
                0 if rng.random() < zeros else rng.randrange(1, 256) for _ in range(length)
            )
            crc = crc32c_by_bits(body)
            assert library.wire_crc32c(body, length) == crc
            raw = ctypes.create_string_buffer(body, 263)
            out = ctypes.create_string_buffer(300)
            count = library.wire_encode(raw, ctypes.c_size_t(length), out)
            expected = b"\0" + cobs.encode(body + crc.to_bytes(4, "little")) + b"\0"
            assert out.raw[:count] == expected


def test_isqrt_is_the_floor_of_the_root(library: ctypes.CDLL) -> None:
    rng = random.Random(3)
    for bits in range(65):
        for value in {max(0, 2**bits - 1), min(2**64 - 1, 2**bits), rng.getrandbits(bits or 1)}:
            assert library.motion_isqrt(value) == math.isqrt(value)
    for root in (1, 3, 65535, 2**32 - 1):
        for value in (root * root - 1, root * root):
            assert library.motion_isqrt(value) == math.isqrt(value)


def test_the_player_follows_the_cubic_and_the_line(library: ctypes.CDLL) -> None:
    rng = random.Random(4)
    for _ in range(3000):
        knot = rng.choice([1000, 20_000, 333_333, MILLION])
        p0, p1 = rng.randrange(-3 * MILLION, 3 * MILLION), rng.randrange(-3 * MILLION, 3 * MILLION)
        v0, v1 = rng.randrange(-5 * MILLION, 5 * MILLION), rng.randrange(-5 * MILLION, 5 * MILLION)
        t = rng.choice([0, 1, knot // 2, knot - 1, knot, knot + 5000])
        segment = Segment((p0, p1), (v0, v1), knot)
        got = library.motion_play(ctypes.byref(segment), True, ctypes.c_uint32(t))
        s, length = min(t / knot, 1.0), knot / MILLION
        if t < knot:
            position = (
                p0 * (2 * s**3 - 3 * s**2 + 1)
                + p1 * (3 * s**2 - 2 * s**3)
                + length * (v0 * (s**3 - 2 * s**2 + s) + v1 * (s**3 - s**2))
            )
        else:
            position = p1 + v1 * (t - knot) / MILLION
        # s is kept to 2^-20: of 6 rad, in the slope of the cubic, at most 30 urad
        assert abs(got.position / 1000 - position) <= 30
        line = library.motion_play(ctypes.byref(segment), False, ctypes.c_uint32(t))
        assert abs(line.velocity / 1000 - (v0 + (v1 - v0) * s)) <= 1


def test_the_limiter_keeps_limits_and_stops_in_time(library: ctypes.CDLL) -> None:
    rng = random.Random(5)
    for _ in range(200):
        low, high = -rng.randrange(1, 2 * MILLION), rng.randrange(1, 2 * MILLION)
        fastest, rate = rng.randrange(1000, 5 * MILLION), rng.randrange(1000, 40 * MILLION)
        braking = rng.randrange(1000, 40 * MILLION)
        limits = MotionLimits(True, low, high, fastest, rate, braking)
        state = State(0, 0)
        for _ in range(300):
            before = state.velocity
            far = rng.choice([10, 3 * MILLION, 2**31 - 1]) * 1000
            target = State(rng.choice([-far, far]), rng.randrange(-far, far))
            library.motion_limit(ctypes.byref(limits), ctypes.byref(state), target)
            assert low * 1000 <= state.position <= high * 1000
            assert abs(state.velocity) <= fastest * 1000
            room = (
                (high * 1000 - state.position)
                if state.velocity > 0
                else (state.position - low * 1000)
            )
            # Kinematics in floating point: what it takes to stop from here.
            needed = (state.velocity / 1000) ** 2 / (2 * braking) * 1000
            assert needed <= room + 1000
            change = abs(state.velocity - before)
            assert change <= rate + braking + 2000 * 1000


def test_within_its_limits_the_reference_is_the_trajectory(library: ctypes.CDLL) -> None:
    limits = MotionLimits(True, -3 * MILLION, 3 * MILLION, 3 * MILLION, 20 * MILLION, 20 * MILLION)
    segment = Segment((0, 500_000), (0, 0), 1 * MILLION)
    state = State(0, 0)
    for t in range(1000, 1_000_001, 1000):
        target = library.motion_play(ctypes.byref(segment), True, ctypes.c_uint32(t))
        library.motion_limit(ctypes.byref(limits), ctypes.byref(state), target)
        assert abs(state.position - target.position) <= 3000  # 3 urad


def faulted(seed: int, count: int) -> tuple[int, int, int]:
    """Send `count` faulted frames: (applied, most frames lost to resynchronize, good ones)."""
    rng = random.Random(seed)
    rig = Native("rover")
    rig.ready()
    rig.plant_runs = True
    old = encode(rig.command(steady(777), steady(777)), session_id=rig.session_id ^ 5, sequence=99)
    applied = worst = good = 0
    sent = 0
    while sent < count:
        # one good command keeps it alive; what follows must not count
        last_good = rig.frame(rig.command(steady(1000), steady(0), valid_us=500_000))
        accepted = rig.sequence
        lost = 0
        rig.write(last_good)
        rig.tick()
        good += 1
        for _ in range(40):
            fresh = encode(
                rig.command(steady(777), steady(777), valid_us=500_000),
                session_id=rig.session_id,
                sequence=rig.sequence + 1,
            )
            kind = rng.randrange(6)
            if kind == 0:  # corrupt
                at = rng.randrange(1, len(fresh) - 1)
                bad = fresh[:at] + bytes([fresh[at] ^ (1 << rng.randrange(8))]) + fresh[at + 1 :]
            elif kind == 1:  # duplicated, replayed
                bad = last_good
            elif kind == 2:  # reordered: an earlier sequence
                bad = encode(
                    rig.command(steady(777), steady(777)),
                    session_id=rig.session_id,
                    sequence=rng.randrange(0, rig.sequence + 1),
                )
            elif kind == 3:  # stale
                rig.sequence += 1
                bad = encode(
                    rig.command(steady(777), steady(777), apply_in_us=-4000, valid_us=1000),
                    session_id=rig.session_id,
                    sequence=rig.sequence,
                )
            elif kind == 4:
                bad = old
            else:  # cut
                bad = fresh[: rng.randrange(1, len(fresh) - 1)] + b"\0"
            rig.write(bad)
            sent += 1
        rig.tick(20)  # it takes at most 512 bytes a millisecond
        assert rig.status is not None
        applied += rig.status.command_sequence != accepted
        # resynchronize: how many good frames until one is answered
        while True:
            nonce = bytes([lost]) * 35
            rig.frames.clear()
            rig.say(Ping(nonce))
            rig.tick()
            if any(isinstance(f.message, Pong) and f.message.data == nonce for f in rig.frames):
                break
            lost += 1
        worst = max(worst, lost)
    assert rig.window.torque_enable == 1  # it was alive to the end
    return applied, worst, good


def test_no_faulted_frame_is_applied_and_two_resynchronize() -> None:
    applied, lost, _good = faulted(6, 100_000)
    assert applied == 0
    assert lost <= 2


@pytest.mark.timeout(120)
def test_fuzzing_parser_device_and_limiter_finds_nothing(tmp_path) -> None:
    target = build("fuzz")
    done = subprocess.run(
        [target, "-max_total_time=30", "-max_len=1024", "-seed=1", "-verbosity=0", tmp_path],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
