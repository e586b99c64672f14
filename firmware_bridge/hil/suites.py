"""What each suite looks at. A suite yields one `Check` after another.

Where a refusal is expected, its reason is compared, not only that there was one.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from firmware_bridge.conversion import MICRO, check_axes
from firmware_bridge.hil.bench import Bench, Check, at_most, equal
from firmware_bridge.messages import (
    SCHEMA_HASH,
    Arm,
    Command,
    Disarm,
    EmergencyStop,
    Hello,
    Identity,
    Limits,
    Message,
    Ping,
    Pong,
    Refusal,
    Reset,
    Status,
)
from firmware_bridge.session import reason_of
from firmware_bridge.wire import crc32c, encode

PINGS = 200
RESET_CAUSES = range(Identity.RESET_POWER_ON, Identity.RESET_HANG + 1)


def refusal(bench: Bench, message: Message, wait_s: float = 0.25) -> Reason | None:
    """The reason for which the device refuses `message`; None if it does not."""
    session = bench.session
    sequence = session.send(message)
    until = session.now_ns() + round(wait_s * 1e9)
    while (left := until - session.now_ns()) > 0:
        for heard in session.hear(left * 1e-9):
            if isinstance(heard, Refusal) and heard.sequence == sequence:
                return reason_of(heard.reason)
    return None


def refuses(bench: Bench, name: str, message: Message, reason: Reason) -> Check:
    found = refusal(bench, message)
    return Check(
        name, found == reason, found.name if found else "not refused", f"refused: {reason.name}"
    )


def ignores(bench: Bench, name: str, frame: bytes) -> Check:
    """The device counts `frame` as damaged or refused and accepts nothing by it."""
    before = bench.session.newest_status()
    bench.session.transport.write(frame)
    after = bench.silence(0.03)[-1]
    counted = (after.frames_damaged + after.frames_refused) - (
        before.frames_damaged + before.frames_refused
    )
    same = after.frames_accepted == before.frames_accepted
    return Check(
        name,
        same and counted >= 1,
        f"{after.frames_accepted - before.frames_accepted} accepted, {counted} counted",
        "0 accepted, at least 1 counted",
    )


# ---- 1 ----------------------------------------------------------------------------------------
def identify(bench: Bench) -> Iterator[Check]:
    session = bench.session
    first = session.identity
    assert first is not None
    check_axes(bench.robot, bench.axes, first)
    name = first.hardware.rstrip(b"\0").decode("ascii", "replace")
    yield Check("the board has the robot's axes", True, name, f"{len(bench.axes)} axes in order")
    yield Check(
        "it names itself", bool(name), f"{name}, serial {first.serial.hex()}", "a board's name"
    )
    yield Check(
        "its reset has a cause",
        first.reset_cause in RESET_CAUSES,
        str(first.reset_cause),
        f"{RESET_CAUSES[0]} to {RESET_CAUSES[-1]}",
    )
    ids = [session.session_id]
    for _ in range(4):
        session.hello()
        ids.append(session.session_id)
    changes = all(a != b for a, b in pairwise(ids))
    yield Check(
        "every session is a new one", changes and 0 not in ids, f"{len(set(ids))} of 5", "never 0"
    )
    # An end of another schema must still be answered, or nobody learns which one is older.
    foreign = encode(Hello(7), session_id=0, sequence=1, schema_hash=SCHEMA_HASH ^ 1)
    session.transport.write(foreign)
    told = [type(heard).__name__ for heard in _listen(bench, 0.25)]
    yield Check(
        "it answers a Hello of another schema",
        bool({"Identity", "Refusal"} & set(told)),
        ", ".join(sorted(set(told))) or "nothing",
        "Identity or Refusal",
    )


def _listen(bench: Bench, wait_s: float) -> list[Message]:
    until = bench.session.now_ns() + round(wait_s * 1e9)
    heard: list[Message] = []
    while (left := until - bench.session.now_ns()) > 0:
        heard += bench.session.hear(left * 1e-9)
    return heard


# ---- 2 ----------------------------------------------------------------------------------------
def link(bench: Bench) -> Iterator[Check]:
    session = bench.session
    trips = np.array([session.ping(secrets.token_bytes(35)) for _ in range(PINGS)]) * 1e-6
    yield Check(
        "64-byte frames come back",
        True,
        f"{PINGS} of {PINGS}, round trip p50 {np.percentile(trips, 50):.3f} ms, "
        f"p99 {np.percentile(trips, 99):.3f} ms",
        f"{PINGS} of {PINGS}",
    )

    def frame(sequence: int, session_id: int, schema: int = SCHEMA_HASH) -> bytes:
        return encode(Ping(bytes(35)), session_id=session_id, sequence=sequence, schema_hash=schema)

    here = session.session_id
    intact = frame(session.send(Ping(bytes(35))), here)
    yield ignores(bench, "a repeated frame is not accepted", intact)
    yield ignores(bench, "an old session's frame is not accepted", frame(2**31, here ^ 1))
    yield ignores(bench, "another schema's frame is not accepted", frame(2**31, here, 1))
    noise = random.Random(7)
    flipped = bytearray(frame(2**31, here))
    flipped[noise.randrange(1, len(flipped) - 1)] ^= 1 << noise.randrange(8)
    yield ignores(bench, "a flipped bit is found", bytes(flipped))
    lost = []
    for _ in range(20):  # cut off anywhere, noise, then good ones at once
        cut = frame(2**31, here)[: noise.randrange(1, 60)]
        session.transport.write(cut + noise.randbytes(noise.randrange(200)))
        sent = [secrets.token_bytes(35) for _ in range(3)]
        for data in sent:
            session.send(Ping(data))
        back = {heard.data for heard in _listen(bench, 0.03) if isinstance(heard, Pong)}
        lost.append(sum(data not in back for data in sent))
    yield at_most("frames lost until it reads again", max(lost), 2, "frames")
    status = session.newest_status()
    yield at_most("the device's measured load", status.link_load_permille / 10, 60, "%")


# ---- 3 ----------------------------------------------------------------------------------------
def clock(bench: Bench) -> Iterator[Check]:
    session = bench.session
    yield at_most("error bound after 64 exchanges", session.clock_error_us() / 1e3, 1.0, "ms")
    outside = 0
    for _ in range(40):  # is each new exchange within what was promised before it?
        clock_before, asked = session.clock, session.now_ns()
        bound = clock_before.error_us(asked)
        told = clock_before.device_us(asked)
        trips = len(clock_before.round_trips_us)
        session.agree_clock(session.clock.exchanges + 1)
        trip = session.clock.round_trips_us[-1] if trips else 0.0
        outside += abs(session.clock.device_us(asked) - told) > bound + trip + 2
        bench.silence(0.02)
    yield at_most("predictions outside of their bound", outside, 0, "of 40")
    stamps = [status.sampled_us for status in bench.silence(1.0)]
    steps = np.diff(stamps) * 1e-3
    yield Check(
        "the device's stamps only grow",
        len(stamps) > 10 and bool((steps > 0).all()),
        f"{len(stamps)} statuses in 1 s, steps {steps.min():.1f} to {steps.max():.1f} ms",
        "each later than the last",
    )
    yield Check(
        "crystals agree",
        abs(session.clock.slope_ppm) < 200,
        f"{session.clock.slope_ppm:+.1f} ppm",
        "within 200 ppm",
    )


# ---- 4 ----------------------------------------------------------------------------------------
def limits(bench: Bench) -> Iterator[Check]:
    session = bench.session
    bench.release()
    yield refuses(bench, "arming without limits", _arm(bench, crc=0), Reason.limits_not_agreed)
    reply = bench.agree()
    asked, held = bench.limits, reply.limits
    tighter = (
        held.axes == asked.axes
        and 0 < held.dead_man_us <= asked.dead_man_us
        and held.bus_min_mV >= asked.bus_min_mV
        and held.bus_max_mV <= asked.bus_max_mV
        and all(
            h.position_min >= a.position_min
            and h.position_max <= a.position_max
            and all(
                0 < getattr(h, key) <= getattr(a, key)
                for key in ("velocity_max", "acceleration_max", "torque_max", "current_max")
            )
            for h, a in zip(held.axis[: held.axes], asked.axis, strict=False)
        )
    )
    yield Check("what it holds is never wider", tighter, "tighter or equal", "tighter or equal")
    yield equal("the CRC is that of its record", reply.crc, crc32c(held.pack()))
    wide = bench.agree(replace(asked, dead_man_us=2**32 - 1))
    assert session.identity is not None
    longest = session.identity.dead_man_max_us
    yield at_most("dead-man time at most", wide.limits.dead_man_us / 1e3, longest / 1e3, "ms")
    impossible: list[tuple[str, Limits]] = [
        ("a dead-man time of 0", replace(asked, dead_man_us=0)),
        ("a reversed bus voltage", replace(asked, bus_min_mV=50_000, bus_max_mV=10_000)),
        ("no axes", replace(asked, axes=0)),
        ("nine axes", replace(asked, axes=9)),
        (
            "a velocity of 0",
            replace(asked, axis=(replace(asked.axis[0], velocity_max=0), *asked.axis[1:])),
        ),
    ]
    for name, message in impossible:
        yield refuses(bench, f"{name} is refused", message, Reason.limits_impossible)
    crc = bench.agree().crc
    yield refuses(
        bench, "arming with another CRC", _arm(bench, crc=crc ^ 1), Reason.limits_not_agreed
    )
    yield refuses(
        bench, "arming with a clock error above 1 ms", Arm(crc, 1001, 0), Reason.clock_not_agreed
    )
    yield refuses(bench, "arming above 60 % load", Arm(crc, 100, 601), Reason.link_overloaded)
    before = session.newest_status()
    rest = bench.setpoint(session.now_ns(), bench.positions(before), [0.0] * len(bench.axes))
    session.send(bench.command(rest))
    after = bench.silence(0.03)[-1]
    yield Check(
        "a command without arming is not applied",
        after.command_sequence == before.command_sequence
        and after.frames_refused > before.frames_refused
        and after.last_refusal == Reason.not_armed,
        f"refused: {_name(after.last_refusal)}",
        "refused: not_armed",
    )


def _arm(bench: Bench, crc: int) -> Arm:
    return Arm(crc, bench.session.clock_error_us(), 0)


def _name(number: int) -> str:
    reason = reason_of(number)
    return reason.name if reason else str(number)


# ---- 5 ----------------------------------------------------------------------------------------
def dead_man(bench: Bench) -> Iterator[Check]:
    dead_man_ns = bench.robot.dead_man_ns
    yield from _stops(bench, "a command expires", dead_man_ns // 2, lambda: None)
    yield from _stops(bench, "the host falls silent", 2 * dead_man_ns, lambda: None)
    yield from _stops(bench, "only pings come", 2 * dead_man_ns, lambda: _pings(bench))
    session = bench.session
    reply = session.limits
    assert reply is not None
    yield refuses(bench, "it stays latched", _arm(bench, reply.crc), Reason.already_latched)
    yield refuses(
        bench,
        "another reason's reset is refused",
        Reset(Reason.over_current),
        Reason.already_latched,
    )
    status = session.reset(Reason.setpoint_expired)
    yield equal("reset leads to idle", Mode(status.mode).name, "idle")
    yield equal("and arms nothing", status.flags & (Status.ARMED | Status.TORQUE_ENABLED), 0)
    bench.arm()
    for _ in bench.play(0.1, [0.0] * len(bench.axes), bench.positions(bench.at_rest())):
        pass
    session.hello()
    states = bench.silence(0.5)
    yield equal(
        "a new session ends with the torque off",
        states[-1].flags & (Status.ARMED | Status.TORQUE_ENABLED),
        0,
    )


def _pings(bench: Bench) -> None:
    for _ in range(5):
        bench.session.ping(secrets.token_bytes(35))


def _stops(
    bench: Bench, name: str, valid_ns: int, meanwhile: Callable[[], None]
) -> Iterator[Check]:
    """Move, cease to command, and read on the device's clock what it did.

    The record that it writes when it begins to brake has the time, and how long it had not heard
    a command by then.
    """
    bench.arm()
    last: Command | None = None
    seen: list[Status] = []
    start = bench.positions(bench.session.newest_status())
    for command, statuses in bench.play(0.15, bench.speeds(), start, valid_ns):
        last, seen = command, seen + statuses
    assert last is not None
    meanwhile()
    seen += bench.silence(0.6 + bench.robot.dead_man_ns * 2e-9)
    shares = [
        min(
            abs(row.velocity) / MICRO / speed
            for row, speed in zip(status.axis, bench.speeds(), strict=False)
        )
        for status in seen
    ]
    yield Check(
        f"{name}: it moved before", max(shares) > 0.2, f"{max(shares):.0%} of the speed", "20 %"
    )
    record = bench.newest_fault()
    yield equal(f"{name}: latched as", _name(record.reason), "setpoint_expired")
    dead_man_us = bench.robot.dead_man_ns // 1000
    if valid_ns < bench.robot.dead_man_ns:
        late_us = record.device_us - (last.apply_at_us + last.valid_us)
        yield Check(
            f"{name}: braking after it",
            0 <= late_us <= bench.slack_us,
            f"{late_us * 1e-3:+.2f} ms",
            f"within {bench.slack_us * 1e-3:g} ms",
        )
    else:
        yield Check(
            f"{name}: from the last accepted command to braking",
            dead_man_us <= record.value <= dead_man_us + bench.slack_us,
            f"{record.value * 1e-3:.2f} ms",
            f"{dead_man_us * 1e-3:g} to {(dead_man_us + bench.slack_us) * 1e-3:g} ms",
        )
    longest_ms = max(row.brake_ms for row in last.axis[: last.axes])
    off = [
        status.sampled_us
        for status in seen
        if status.sampled_us >= record.device_us and not status.flags & Status.TORQUE_ENABLED
    ]
    off_ms = (off[0] - record.device_us) * 1e-3 if off else float("inf")
    slack_ms = bench.slack_us * 1e-3 - 1
    # Statuses come every 5 ms: the torque was off up to that long before one showed it.
    yield at_most(
        f"{name}: torque off after braking began", off_ms, longest_ms + 10 + slack_ms, "ms"
    )
    rows = zip(seen[-1].axis, bench.axes, strict=False)
    rest = all(abs(row.velocity) <= axis.rest_speed * MICRO for row, axis in rows)
    yield equal(f"{name}: at rest in the end", rest, True)


# ---- 6 ----------------------------------------------------------------------------------------
def faults(bench: Bench) -> Iterator[Check]:
    session = bench.session
    bench.release()
    before = session.newest_status().fault_records
    stop = encode(EmergencyStop(), session_id=session.session_id ^ 1, sequence=1)
    session.transport.write(stop)  # from any session
    status = bench.silence(0.05)[-1]
    yield equal("an emergency stop latches", Mode(status.mode).name, "estop")
    yield equal("torque is off", status.flags & Status.TORQUE_ENABLED, 0)
    records = session.faults()
    yield Check(
        "it is on record",
        bool(records) and len(records) == min(before + 1, 32),
        f"{len(records)} records, newest {_name(records[0].reason) if records else 'none'}",
        f"{min(before + 1, 32)} records",
    )
    crc = bench.agree().crc
    yield refuses(bench, "a latched device does not arm", _arm(bench, crc), Reason.already_latched)
    reason = bench.latched()
    assert reason is not None
    yield equal("the reset leads to idle", Mode(session.reset(reason).mode).name, "idle")
    now = session.newest_status()
    hot = max(row.temperature for row in now.axis[: len(bench.axes)])
    cases = [
        (
            "a motor above its temperature limit",
            replace(
                bench.limits,
                axis=tuple(
                    replace(row, temperature_max=hot - 10) if i < len(bench.axes) else row
                    for i, row in enumerate(bench.limits.axis)
                ),
            ),
            Reason.over_temperature,
        ),
        (
            "a supply below its limit",
            replace(bench.limits, bus_min_mV=now.bus_mV + 1000, bus_max_mV=now.bus_mV + 9000),
            Reason.under_voltage,
        ),
        (
            "a supply above its limit",
            replace(bench.limits, bus_min_mV=1, bus_max_mV=max(now.bus_mV - 1000, 2)),
            Reason.over_voltage,
        ),
    ]
    for name, tight, expected in cases:
        crc = bench.agree(tight).crc
        found = refusal(bench, _arm(bench, crc))
        latched = bench.latched()
        shown = latched or found
        yield Check(
            f"{name} does not arm",
            found is not None and (expected in (found, latched)),
            shown.name if shown else "armed",
            expected.name,
        )
        session.send(Disarm())
        bench.agree()
        bench.release()


# ---- 7 ----------------------------------------------------------------------------------------
def tracking(bench: Bench) -> Iterator[Check]:
    session = bench.session
    bench.arm()
    status = session.newest_status()
    start, speeds = bench.positions(status), bench.speeds()
    half = 0.4
    seen: list[Status] = []
    sent: list[Command] = []
    ahead = start
    for velocity, seconds in ((speeds, half), ([-s for s in speeds], 2 * half), (speeds, half)):
        for command, statuses in bench.play(seconds, velocity, ahead):
            ahead = [row.position[1] / MICRO for row in command.axis[: len(bench.axes)]]
            sent.append(command)
            seen += statuses
    yield equal("it kept going", bool(session.newest_status().flags & Status.ARMED), True)
    for index, axis in enumerate(bench.axes):
        wanted = np.array([c.axis[index].velocity[0] for c in sent]) / MICRO
        times = np.array([c.apply_at_us for c in sent])
        got = np.array([s.axis[index].velocity for s in seen]) / MICRO
        at = np.array([s.sampled_us for s in seen])
        errors = np.abs(got - np.interp(at, times, wanted))
        yield at_most(
            f"{axis.name}: velocity error, median",
            float(np.median(errors)),
            0.15 * max(speeds[index], axis.rest_speed),
            axis.unit if axis.unit.endswith("/s") else f"{axis.unit}/s",
        )
    session.disarm()


# ---- 8 ----------------------------------------------------------------------------------------
def endurance(bench: Bench) -> Iterator[Check]:
    session = bench.session
    bench.arm()
    start = bench.positions(session.newest_status())
    before = session.newest_status()
    sent = 0
    for _ in bench.play(bench.seconds, [0.0] * len(bench.axes), start):
        sent += 1
    status = session.newest_status()
    yield equal("armed to the end", bool(status.flags & Status.ARMED), True)
    refused = status.frames_refused - before.frames_refused
    yield Check(
        "commands accepted", refused == 0, f"{sent - refused} of {sent}", f"{sent} of {sent}"
    )
    damaged = status.frames_damaged - before.frames_damaged + session.parser.counters.damaged
    yield at_most("damaged frames, both ways", damaged, 0, "frames")
    session.disarm()
