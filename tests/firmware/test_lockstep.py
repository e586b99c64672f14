"""The firmware in lock-step: dead-man, latches, faults and the same trace natively and in QEMU."""

from __future__ import annotations

import random

import pytest

from firmware.rig import Native, Qemu, limits_of, steady
from firmware_bridge.messages import (
    Arm,
    Disarm,
    EmergencyStop,
    FaultQuery,
    FaultRecord,
    Hello,
    Identity,
    Limits,
    LimitsReply,
    Refusal,
    Reset,
    Status,
)
from firmware_bridge.window import GOOD
from firmware_bridge.wire import crc32c, encode

IDLE, HOLD, ACTIVE, STOP, FAULT, ESTOP = 0, 2, 3, 5, 6, 7
EXPIRED, LATCHED, NOT_ARMED = 63, 98, 97


def dead_man_case(seed: int) -> tuple[int, int, int]:
    """One random run that falls silent: (dead-man, silence until braking, late torque-off), us."""
    rng = random.Random(seed)
    board = rng.choice(["arm", "rover"])
    rig = Native(board)
    dead_man_us = rng.randrange(5_000, 250_001)
    rig.ready(limits_of(dead_man_us))
    velocity = rng.randrange(-900_000, 900_001)
    brake = rng.choice([500_000, 2_000_000, 4_000_000, 400_000_000])
    brake_ms = rng.randrange(1, 600)
    period = rng.randrange(1, max(2, dead_man_us // 4000))
    position = 0
    for _ in range(rng.randrange(1, 30)):
        axis = steady(velocity, brake=brake, brake_ms=brake_ms, position=position)
        # Long validity: silence is what ends it, not expiry.
        rig.say(rig.command(axis, axis, valid_us=1_000_000))
        rig.tick()
        accepted_us = rig.now_us
        for _ in range(period - 1):
            rig.tick()
        position += velocity * period // 1000
    while not rig.window.braking and rig.window.torque_enable:
        rig.tick()
    braking_us = rig.now_us
    while rig.window.torque_enable:
        rig.tick()
    assert (rig.window.mode, rig.window.reason) == (FAULT, EXPIRED)
    assert all(out.torque == 0 for out in rig.window.axis_out)
    late_us = rig.now_us - braking_us - brake_ms * 1000
    return dead_man_us, braking_us - accepted_us, late_us


@pytest.mark.parametrize("first", range(0, 100, 25))
def test_silence_brakes_within_the_dead_man_and_torque_goes_with_the_suffix(first: int) -> None:
    for seed in range(first, first + 25):
        dead_man_us, silence_us, late_us = dead_man_case(seed)
        assert dead_man_us <= silence_us <= dead_man_us + 1_000, seed
        assert late_us <= 5_000, seed


def test_expiry_brakes_though_commands_still_come() -> None:
    rig = Native("rover")
    rig.ready()
    rig.say(rig.command(steady(100_000), steady(0), valid_us=20_000))
    rig.tick(19)
    assert rig.window.mode == ACTIVE
    rig.tick()  # the 20th millisecond is not valid any more
    assert (rig.window.braking, rig.window.reason) == (1, EXPIRED)
    rig.say(rig.command(steady(100_000), steady(0)))  # too late: it is latched
    rig.tick(40)
    assert rig.window.torque_enable == 0
    assert rig.status is not None
    assert rig.status.last_refusal == LATCHED


def test_a_newer_command_replaces_what_would_have_begun_after_it() -> None:
    rig = Native("rover")
    rig.ready()
    rig.say(rig.command(steady(300_000), steady(0), apply_in_us=10_000))
    rig.tick()
    rig.say(rig.command(steady(300_000), steady(0), apply_in_us=20_000))
    rig.tick()
    rig.say(rig.command(steady(8_000), steady(0), apply_in_us=5_000))
    for _ in range(40):  # neither of the first two ever begins
        rig.tick()
        assert rig.window.axis_out[0].reference_velocity <= 8_000
    assert rig.window.mode == ACTIVE
    assert rig.window.axis_out[0].reference_velocity == 8_000


def test_the_suffix_stops_with_its_deceleration() -> None:
    rig = Native("rover")
    rig.ready()
    rig.say(rig.command(steady(500_000, brake=1_000_000), steady(0), valid_us=200_000))
    for _ in range(40):  # keep it alive, at 4 m/s^2 to 0.5 m/s
        rig.tick(5)
        rig.say(rig.command(steady(500_000, brake=1_000_000), steady(0), valid_us=200_000))
    while not rig.window.braking:
        rig.tick()
    expected = 500_000
    while rig.window.torque_enable:
        expected = max(0, expected - 1_000)  # 1 m/s^2 in a millisecond
        assert rig.window.axis_out[0].reference_velocity == expected
        rig.tick()
    assert expected <= 1_000


def test_a_latch_is_left_by_the_named_reset_only() -> None:
    rig = Native()
    rig.ready()
    rig.tick(300)  # no command: the dead-man
    assert (rig.window.mode, rig.window.reason) == (FAULT, EXPIRED)
    assert rig.ask(Arm(rig.crc, 0, 0), Refusal).reason == LATCHED
    for reason in range(0, 130):
        if reason != EXPIRED:
            refusal = rig.ask(Reset(reason), Refusal)
            assert (refusal.reason, refusal.value) == (LATCHED, EXPIRED), reason
    rig.ask(Disarm(), Status)
    rig.hello()
    assert rig.window.mode == FAULT
    assert rig.ask(Reset(EXPIRED), Status).mode == IDLE
    assert rig.window.torque_enable == 0
    assert rig.ask(Arm(rig.crc, 0, 0), Refusal).reason == 93  # the new session agreed on none
    rig.agree()
    rig.arm()


def set_axis(name: str, value: int):
    def change(rig, axis: int) -> None:
        setattr(rig.window.axis_in[axis], name, value)

    return change


def jump(rig, axis: int) -> None:
    rig.window.axis_in[axis].position += 1_000_000


def bus(value: int):
    def change(rig, axis: int) -> None:
        rig.window.bus_mV = value

    return change


def open_estop(rig, axis: int) -> None:
    rig.window.estop_open = 1


FAULTS = {
    "over_temperature": (110, set_axis("temperature", 801), True),
    "over_current": (111, set_axis("current_mA", -10_001), True),
    "under_voltage": (112, bus(19_999), False),
    "over_voltage": (113, bus(28_001), False),
    "sensor_invalid": (114, set_axis("flags", GOOD & ~1), True),
    "current_invalid": (114, set_axis("flags", GOOD & ~2), True),
    "temperature_invalid": (114, set_axis("flags", GOOD & ~4), True),
    "velocity_out_of_range": (114, set_axis("velocity", 2_000_000_000), True),
    "encoder_jump": (115, jump, True),
    "sensor_lost": (117, set_axis("flags", 0), True),
    "estop": (61, open_estop, False),
}


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("board", ["arm", "rover"])
def test_every_fault_latches_within_two_periods(board: str, name: str, axis: int) -> None:
    reason, change, of_axis = FAULTS[name]
    rig = Native(board)
    rig.ready()
    rig.say(rig.command(steady(100_000), steady(100_000)))
    rig.tick(10)
    assert rig.window.mode == ACTIVE
    rig.plant_runs = False
    for _ in range(2):
        rig.plant()
        change(rig, axis)
        rig.tick()
        if rig.window.reason:
            break
    assert rig.window.reason == reason
    assert rig.window.fault_axis == (axis if of_axis else 255)
    assert rig.window.mode == (ESTOP if reason == 61 else FAULT)
    for _ in range(1000):
        rig.tick()
    assert rig.window.torque_enable == 0
    record = rig.ask(FaultQuery(0), FaultRecord)
    assert (record.reason, record.axis) == (reason, axis if of_axis else 255)


@pytest.mark.parametrize(
    ("change", "value"),
    [("temperature", 800), ("current_mA", 10_000), ("current_mA", -10_000), ("temperature", -500)],
)
def test_at_the_limit_is_no_fault(change: str, value: int) -> None:
    rig = Native()
    rig.ready()
    setattr(rig.window.axis_in[1], change, value)
    rig.tick(20)
    assert rig.window.reason == 0
    rig.window.bus_mV = 20_000
    rig.tick(5)
    rig.window.bus_mV = 28_000
    rig.tick(5)
    assert rig.window.reason == 0


# A reading that does not change says nothing until the axis should have moved by frozen_travel
# (2,000 um and 3,000 urad here): two periods from half of that in a millisecond on.
@pytest.mark.parametrize(
    ("axis", "velocity", "periods"),
    [
        (0, 50_000, 41),
        (0, 1_000_000, 3),
        (0, 1_000_001, 2),
        (0, -1_900_000, 2),
        (1, 1_500_000, 3),
        (1, 2_000_000, 2),
        (1, 3_000_001, 1),
    ],
)
def test_a_frozen_encoder_latches_once_the_axis_should_have_moved(
    axis: int, velocity: int, periods: int
) -> None:
    rig = Native("rover")
    rig.ready(limits_of(velocity_max=4_000_000, acceleration_max=16_000_000))
    wheels = [steady(velocity if number == axis else 0) for number in range(2)]
    for _ in range(60):
        rig.say(rig.command(*wheels))
        rig.tick(10)
    assert rig.window.axis_out[axis].reference_velocity == velocity
    rig.plant_runs = False  # the reading stays, and with it the speed that is measured
    took = 0
    while not rig.window.reason and took < 50:
        rig.say(rig.command(*wheels))
        rig.tick()
        took += 1
    assert (rig.window.reason, rig.window.fault_axis, took) == (116, axis, periods)


def test_an_encoder_at_rest_or_between_two_counts_is_not_frozen() -> None:
    rig = Native("rover")
    rig.ready()
    rig.plant_runs = False
    for _ in range(200):  # two seconds of standing still
        rig.say(rig.command(steady(0), steady(0)))
        rig.tick(10)
    for _ in range(300):  # 0.77 mrad a count, of which 20 mrad/s see one in 38 ms
        rig.say(rig.command(steady(0), steady(20_000)))
        for _ in range(10):
            reading = rig.window.axis_out[1].reference_position
            rig.window.axis_in[1].position = reading // 767 * 767
            rig.tick()
    assert (rig.window.mode, rig.window.reason) == (ACTIVE, 0)


@pytest.mark.parametrize("lag_ms", [1, 20])
def test_an_axis_that_turns_round_or_stops_is_not_frozen(lag_ms: int) -> None:
    """A lagging one stands between two counts while the reference runs on; a quick one at once."""
    rig = Native("rover")
    rig.ready(limits_of(velocity_max=4_000_000, acceleration_max=16_000_000))
    rig.plant_runs = False
    speed = angle = 0.0
    for turn in range(40):
        wanted = (400_000, 0, -400_000, 400_000)[turn % 4]
        for _ in range(15):
            rig.say(rig.command(steady(0), steady(wanted)))
            for _ in range(10):
                speed += (rig.window.axis_out[1].reference_velocity - speed) / lag_ms
                angle += speed * 1e-3
                rig.window.axis_in[1].position = int(angle // 767 * 767)
                rig.window.axis_in[1].velocity = int(speed)
                rig.tick()
                assert (rig.window.mode, rig.window.reason) == (ACTIVE, 0), turn


def test_estop_message_latches_from_any_session_and_lasting_cause_refuses_reset() -> None:
    rig = Native()
    rig.ready()
    rig.write(encode(EmergencyStop(), session_id=1, sequence=0))
    rig.tick(2)
    assert (rig.window.mode, rig.window.reason) == (ESTOP, 61)
    rig.window.estop_open = 1
    rig.tick(5)
    assert rig.ask(Reset(61), Refusal).reason == 61
    rig.window.estop_open = 0
    rig.tick()
    assert rig.ask(Reset(61), Status).mode == IDLE


def test_disarm_and_hello_brake_without_a_latch() -> None:
    for message in (Disarm(), Hello(7)):
        rig = Native("rover")
        rig.ready()
        rig.say(rig.command(steady(40_000), steady(0)))
        rig.tick(15)
        rig.say(message)
        rig.tick()
        assert (rig.window.mode, rig.window.braking) == (STOP, 1)
        rig.tick(50)
        assert (rig.window.mode, rig.window.torque_enable) == (IDLE, 0)


def test_limits_are_the_tighter_ones_and_their_crc_is_of_the_bytes() -> None:
    rig = Native()
    rig.hello()
    wide = limits_of(
        4_000_000_000, velocity_max=2**32 - 1, position_min=-(2**31), position_max=2**31 - 1
    )
    reply = rig.agree(wide)
    assert reply.limits.dead_man_us == 250_000
    assert reply.limits.axis[0].velocity_max == 6_000_000
    assert reply.limits.axis[1].position_max == 2_600_000
    assert reply.crc == crc32c(reply.limits.pack())
    tight = rig.agree(limits_of(1, torque_max=1)).limits
    assert (tight.dead_man_us, tight.axis[0].torque_max) == (1, 1)


@pytest.mark.parametrize(
    "limits",
    [
        limits_of(0),
        limits_of(velocity_max=0),
        limits_of(acceleration_max=999),
        limits_of(braking=0),
        limits_of(torque_max=0),
        limits_of(current_max=0),
        limits_of(temperature_max=0),
        limits_of(position_min=5, position_max=5),
        Limits(1, 50_000, 20_000, 28_000, limits_of().axis),
        Limits(2, 50_000, 28_000, 28_000, limits_of().axis),
    ],
)
def test_impossible_limits_are_refused_and_nothing_arms(limits: Limits) -> None:
    rig = Native()
    rig.hello()
    assert rig.ask(limits, Refusal).reason == 94
    assert rig.ask(Arm(0, 0, 0), Refusal).reason == 93
    assert rig.ask(limits_of(), LimitsReply).crc  # and sensible ones are taken


@pytest.mark.parametrize(
    ("arm", "reason"), [((1001, 0), 95), ((1000, 601), 96), ((1000, 600), None)]
)
def test_arming_is_refused_above_its_bounds(arm: tuple[int, int], reason: int | None) -> None:
    rig = Native()
    rig.hello()
    rig.agree()
    answer = rig.ask(Arm(rig.crc, *arm), (Status, Refusal))
    assert (answer.reason if reason else answer.mode) == (reason or HOLD)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"limits_crc": 1}, 93),
        ({"axes": 1}, 64),
        ({"axes": 3}, 64),
        ({"knot_us": 0}, 64),
        ({"knot_us": 1_000_001}, 64),
        ({"apply_in_us": 102_000}, 64),
        ({"apply_in_us": -5_000, "valid_us": 6_000}, 63),
        ({"apply_in_us": -5_000, "valid_us": 7_000}, 0),
        ({"valid_us": 0}, 63),
        ({"knot_us": 1_000_000}, 0),
        ({"apply_in_us": 101_000}, 0),
    ],
)
def test_commands_are_refused_at_their_bounds(changes: dict[str, int], refusal: int) -> None:
    rig = Native()
    rig.ready()
    rig.tick(3)
    rig.say(rig.command(steady(1000), steady(1000), **changes))
    rig.tick(6)
    assert rig.status is not None
    assert rig.status.last_refusal == refusal
    assert (rig.status.command_sequence == 0) == (refusal != 0)


def test_records_survive_resets_the_last_32_of_them() -> None:
    rig = Native()
    for case in range(35):
        rig.window.estop_open = 1
        rig.tick(2)
        rig.window.estop_open = 0
        rig.start()  # the memory of the port is not cleared
        assert rig.window.torque_enable == 0
        identity = rig.hello()
        assert identity.boots == case + 2
        record = rig.ask(FaultQuery(0), FaultRecord)
        assert (record.reason, record.count, record.boots) == (61, min(case + 1, 32), case + 1)
    assert rig.ask(FaultQuery(31), FaultRecord).boots == 4
    assert rig.ask(FaultQuery(32), FaultRecord).reason == 0
    rig.window.no_init[20] ^= 1  # torn: not believed
    rig.start()
    assert rig.hello().boots == 1


@pytest.mark.parametrize(("cause", "reason"), [(4, 118), (7, 118), (5, 119), (6, 119)])
def test_a_crash_starts_latched(cause: int, reason: int) -> None:
    rig = Native()
    rig.start(cause)
    rig.tick()
    assert (rig.window.mode, rig.window.reason, rig.window.torque_enable) == (FAULT, reason, 0)
    assert rig.hello().reset_cause == cause
    assert rig.ask(Reset(reason), Status).mode == IDLE


def drive(rig) -> str:
    """A session with everything in it; the hash of all that came out."""
    rng = random.Random(1)
    rig.ready()
    for step in range(60):
        axis = steady(rng.randrange(-800_000, 800_000), position=rng.randrange(-(10**6), 10**6))
        frame = rig.frame(rig.command(axis, axis, valid_us=30_000))
        if step % 5 == 2:
            frame = bytes(frame[:20]) + bytes([frame[20] ^ 4]) + frame[21:]
        rig.write(frame)
        rig.tick(rng.randrange(1, 8))
    rig.tick(400)
    return rig.trace.hexdigest()


def test_the_trace_is_the_same_in_five_runs_and_in_qemu() -> None:
    native = {drive(Native()) for _ in range(5)}
    assert len(native) == 1
    rig = Qemu()
    try:
        assert {drive(rig)} == {drive(Native(capabilities=3))}
    finally:
        rig.close()


@pytest.mark.parametrize(("inject", "cause", "reason"), [(1, 4, 118), (2, 5, 119), (3, 6, 119)])
def test_a_crash_resets_with_torque_off_and_says_why(inject: int, cause: int, reason: int) -> None:
    rig = Qemu()
    try:
        rig.ready()
        rig.say(rig.command(steady(1000), steady(1000)))
        rig.tick(5)
        assert rig.window.torque_enable == 1
        boots = rig.window.boots
        rig.window.inject = inject
        rig.window.tick += 1
        rig.wait(lambda: rig.window.boots == boots + 1, "reset")
        rig.wait(lambda: rig.window.tick_done == rig.window.tick, "work its millisecond")
        assert rig.window.torque_enable == 0
        if inject == 1:
            assert 0 < rig.window.unfed_us <= 40_000  # twice the watchdog's time
        rig.tick(20)
        assert (rig.window.mode, rig.window.reason) == (FAULT, reason)
        assert rig.window.torque_enable == 0
        assert rig.hello().reset_cause == cause
        assert rig.ask(FaultQuery(0), FaultRecord).reason == reason
    finally:
        rig.close()


def test_qemu_says_that_it_has_a_watchdog() -> None:
    rig = Qemu("rover")
    try:
        identity: Identity = rig.hello()
        assert identity.capabilities == 3
        assert identity.hardware == b"emulated-rover\0\0"
    finally:
        rig.close()
