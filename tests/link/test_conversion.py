"""firmware_bridge.conversion: SI to integers and back, at, below and above every border."""

from __future__ import annotations

import dataclasses
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wm.errors import MismatchError, UsageError
from edge_wm.robot import Link, find_robot, load_robot, parse_robot
from edge_wm.types import Setpoint
from firmware_bridge.clock import Clock
from firmware_bridge.conversion import (
    NO_COMMAND,
    Sampler,
    check_axes,
    command_of,
    limits_of,
    link_load_permille,
    linked_axes,
)
from firmware_bridge.messages import AxisCommand, AxisLimits, AxisStatus, Command, Identity, Status

ARM, ROVER = load_robot(find_robot("arm")), load_robot(find_robot("rover"))
PORT = Link("serial", "/dev/x")


def same_clock() -> Clock:
    """A device whose clock is the host's."""
    clock = Clock()
    clock.add(0, 0, 0, 0)
    return clock


def setpoint(robot=ARM, **changes) -> Setpoint:
    axes = robot.axis_names
    ones = np.ones(len(axes))
    values = {
        "epoch": 1,
        "sequence": 7,
        "axes": axes,
        "times_ns": np.array([1_000_000_000, 1_010_000_000]),
        "position": np.outer([0.5, 0.51], ones),
        "velocity": np.outer([1.0, -1.0], ones),
        "brake_deceleration": 10.0 * ones,
        "brake_end_ns": np.full(len(axes), 1_150_000_000),
        "apply_at_ns": 1_000_000_000,
        "valid_until_ns": 1_050_000_000,
    }
    return Setpoint(**{**values, **changes})


def command(point: Setpoint, robot=ARM) -> Command:
    return command_of(point, linked_axes(robot, PORT), same_clock(), 0xABCD)


def test_a_setpoint_in_micro_units():
    row = AxisCommand((500_000, 510_000), (1_000_000, -1_000_000), 10_000_000, 105)
    assert command(setpoint()) == Command(
        limits_crc=0xABCD,
        apply_at_us=1_000_000,
        knot_us=10_000,
        valid_us=50_000,
        axes=2,
        axis=(row, row, *(NO_COMMAND,) * 6),
    )


def test_a_twist_sends_no_position_and_the_links_order_counts():
    point = setpoint(ROVER, velocity=np.array([[0.1, 0.2], [0.3, 0.4]]))
    swapped = linked_axes(ROVER, Link("serial", "/dev/x", axes=("base.wz", "base.vx")))
    sent = command_of(point, swapped, same_clock(), 0)
    assert [row.velocity for row in sent.axis[:2]] == [(200_000, 400_000), (100_000, 300_000)]
    assert [row.position for row in sent.axis[:2]] == [(0, 0), (0, 0)]


def test_braking_allows_for_a_suffix_that_begins_early():
    """The setpoint ends at rest, but the dead-man may strike while the axis is still moving."""
    point = setpoint(brake_end_ns=np.full(2, 1_050_000_000))
    assert [row.brake_ms for row in command(point).axis[:2]] == [105, 72]  # at 10 and 15 rad/s2
    rest = setpoint(velocity=np.zeros((2, 2)), brake_end_ns=np.full(2, 1_050_000_000))
    assert [row.brake_ms for row in command(rest).axis[:2]] == [6, 6]


def test_an_axis_that_all_but_stands_brakes_as_long_as_the_others():
    """The guard gives each axis its share of the deceleration: of next to nothing, nothing."""
    nearly = np.array([[0.5, 4e-7], [0.5, -4e-7]])
    sent = command(
        setpoint(ROVER, velocity=nearly, brake_deceleration=np.array([2.0, 1e-7])), ROVER
    )
    assert [row.brake_deceleration for row in sent.axis[:2]] == [2_000_000, 4]


def test_a_delay_shifts_when_it_takes_effect_and_nothing_else():
    axes = linked_axes(ARM, PORT)
    soon, later = (command_of(setpoint(), axes, same_clock(), 0, ns) for ns in (0, 40_000_000))
    assert later.apply_at_us == soon.apply_at_us + 40_000
    assert dataclasses.replace(later, apply_at_us=soon.apply_at_us) == soon


EDGE = (2**31 - 1) / 1e6


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_the_largest_that_fits(sign):
    edges = np.full((2, 2), sign * EDGE)
    sent = command(setpoint(position=edges, brake_deceleration=np.full(2, 1000.0)))
    assert sent.axis[0].position == (round(sign) * (2**31 - 1),) * 2
    sent.pack()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, EDGE + 1e-6, -EDGE - 1e-6, 1e300])
@pytest.mark.parametrize("field", ["position", "velocity"])
@pytest.mark.parametrize("place", [(0, 0), (1, 1)])
def test_what_cannot_be_said_is_refused(field, value, place):
    rows = np.zeros((2, 2))
    rows[place] = value
    with pytest.raises(UsageError) as caught:
        command(setpoint(**{field: rows}))
    axis = ("shoulder", "elbow")[place[1]]
    assert str(caught.value) == (
        f"setpoint 7: {field} of {axis} must be finite and within -2147.48 to 2147.48, got "
        f"{value:g}; it was not sent"
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, 5000.0])
def test_a_braking_that_cannot_be_said_is_refused(value):
    with pytest.raises(UsageError, match="setpoint 7: brake_deceleration of shoulder must be"):
        command(setpoint(brake_deceleration=np.array([value, 1.0])))


def test_a_braking_that_takes_too_long_is_refused():
    with pytest.raises(UsageError) as caught:
        command(setpoint(brake_end_ns=np.array([101_050_000_000, 1_150_000_000])))
    assert str(caught.value) == (
        "setpoint 7: shoulder must brake within 65 s, needs 100.005 s; it was not sent"
    )


@given(
    velocity=st.tuples(*[st.floats(-2.0, 2.0)] * 4),
    ends=st.lists(st.sampled_from([None, 0.0, 1e-12, -1e-9, 4e-7, 1e-6]), min_size=2, max_size=2),
)
def test_every_setpoint_of_the_guard_can_be_said_and_stops_in_time(velocity, ends):
    """Through a reversal the guard's share of the braking is next to nothing (guard._setpoint)."""
    rows = np.array(velocity).reshape(2, 2)
    for column, end in enumerate(ends):
        if end is not None:
            rows[1, column] = end
    braking = np.array([axis.braking for axis in ARM.axes])
    last = np.abs(rows[1])
    longest = (last / braking).max()
    shares = np.array([v / longest if v else b for v, b in zip(last, braking, strict=True)])
    end_ns = 1_050_000_000 + np.where(last > 0, round(longest * 1e9), 0)
    sent = command(setpoint(velocity=rows, brake_deceleration=shares, brake_end_ns=end_ns))
    for index, axis in enumerate(ARM.axes):
        row, peak = sent.axis[index], np.abs(rows[:, index]).max()
        stops_s = peak * 1e6 / row.brake_deceleration
        assert stops_s <= longest + peak / axis.braking + 2e-6 * stops_s + 1e-6
        assert stops_s * 1e3 <= row.brake_ms <= (longest + peak / axis.braking) * 1e3 * 1.01 + 8
        # No more than the axis can do, and at a steady speed just the guard's share.
        assert row.brake_deceleration <= round(max(axis.braking, shares[index]) * 1e6)
        if np.ptp(np.abs(rows[:, index])) == 0 and peak > 1e-6:
            assert row.brake_deceleration == max(round(shares[index] * 1e6), 1)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"times_ns": np.array([1_000_000_000, 1_000_000_999])},
            "the time between its knots must be 1 to 4294967295 us on the wire, got 0",
        ),
        (
            {"valid_until_ns": 999_000_000},
            "its validity must be 0 to 4294967295 us on the wire, got -1000",
        ),
        (
            {"apply_at_ns": -5_000},
            "its time of effect must be 0 to 9223372036854775808 us on the wire, got -5",
        ),
    ],
)
def test_times_that_cannot_be_said_are_refused(changes, complaint):
    with pytest.raises(UsageError) as caught:
        command(setpoint(**changes))
    assert str(caught.value) == f"setpoint 7: {complaint}; correct its times"


def test_a_setpoint_of_another_robot_is_refused():
    with pytest.raises(UsageError) as caught:
        command(setpoint(ROVER))
    assert str(caught.value) == (
        "setpoint 7: must have the axis shoulder, has base.vx, base.wz; use the robot file that "
        "the link was opened with"
    )


# ---- limits ---------------------------------------------------------------------------------
def test_limits_are_those_of_the_robot_file():
    limits = limits_of(ARM, Link("serial", "/dev/x", (), (), 12.3456, 71.29, (10.0001, 30.0009)))
    assert limits.axes == 2
    assert limits.dead_man_us == 40_000
    assert (limits.bus_min_mV, limits.bus_max_mV) == (10_001, 30_000)  # to the safe side
    assert limits.axis[0] == AxisLimits(
        -2_600_000, 2_600_000, 2_000_000, 8_000_000, 10_000_000, 12_000, 12_345, 712
    )
    limits.pack()


def test_an_axis_without_a_limit_gets_the_widest_number():
    limits = limits_of(ROVER, PORT)
    forward = limits.axis[0]
    assert forward.position_min == -(2**31 - 1)
    assert forward.position_max == forward.torque_max == 2**31 - 1
    assert forward.velocity_max == 700_000  # of [-0.25, 0.7]: the guard knows the direction
    limits.pack()


def identity(*kinds: int, name: bytes = b"arm", bits: int = 1_000_000) -> Identity:
    return Identity(
        nonce=0,
        firmware_version=(0, 1, 0),
        image_sha256=bytes(32),
        hardware=name.ljust(16, b"\0"),
        serial=bytes(12),
        reset_cause=1,
        capabilities=0,
        boots=1,
        axis_kind=bytes(kinds).ljust(8, b"\0"),
        dead_man_max_us=250_000,
        link_bits_per_s=bits,
    )


def test_boards_that_fit():
    check_axes(ARM, linked_axes(ARM, PORT), identity(1, 1))
    check_axes(ROVER, linked_axes(ROVER, PORT), identity(4, 3))


@pytest.mark.parametrize(
    ("robot", "kinds", "complaint"),
    [
        (
            ARM,
            (1, 1, 1),
            "robot arm: its link names 2 axes, board arm has 3; is this the robot's board? "
            "Correct links.axes or the port",
        ),
        (
            ROVER,
            (3, 4),
            "robot rover: axis base.vx is velocity in m/s, but axis 0 of board arm is velocity in "
            "rad/s; correct the order of links.axes or the port",
        ),
        (
            ARM,
            (1, 9),
            "robot arm: axis elbow is position in rad, but axis 1 of board arm is of an unknown "
            "kind; correct the order of links.axes or the port",
        ),
    ],
)
def test_a_board_that_does_not_fit_is_named(robot, kinds, complaint):
    with pytest.raises(MismatchError) as caught:
        check_axes(robot, linked_axes(robot, PORT), identity(*kinds))
    assert str(caught.value) == complaint


def test_link_load():
    """A command is 226 bytes with its borders, a status 186: 10 bits a byte."""
    assert link_load_permille(1_000_000, 10_000_000) == math.ceil(1e3 * 186 * 10 * 200 / 1e6)
    assert link_load_permille(1_000_000, 5_000_000) == math.ceil(1e3 * 226 * 10 * 200 / 1e6)
    assert link_load_permille(0, 5_000_000) == 0


# ---- samples --------------------------------------------------------------------------------
STILL = AxisStatus(0, 0, 0, 0, 250, 7)


def status(
    us: int, *positions: int, velocities: tuple[int, ...] = (0, 0), flags: int = 7
) -> Status:
    rows = [
        AxisStatus((p + 2**31) % 2**32 - 2**31, v, 0, 0, 250, flags)
        for p, v in zip(positions, velocities, strict=False)
    ]
    return Status(
        0, 0, 255, 0, 0, us, 24000, 0, 0, 0, 0, 0, 0, (*rows, *(STILL,) * (8 - len(rows)))
    )


def test_an_arms_joints():
    sampler = Sampler(ARM, ARM.axes)
    (sample,) = sampler.take(status(5000, 1_500_000, -250_000, velocities=(10, -20)), 111, 222)
    assert (sample.stream, sample.stamp_ns, sample.received_ns) == ("joints", 111, 222)
    assert sample.data.dtype == np.float32
    np.testing.assert_allclose(sample.data, [[1.5, -0.25], [1e-5, -2e-5]], rtol=1e-6)


def test_a_rovers_wheels_come_from_its_twist_at_their_own_rate():
    sampler = Sampler(ROVER, ROVER.axes)
    base = ROVER.base
    got = []
    for tick in range(200):  # 1 s of 0.3 m/s and 0.5 rad/s, a status every 5 ms
        got += sampler.take(
            status(tick * 5000, tick * 1500, tick * 2500, velocities=(300_000, 500_000)), 0, 0
        )
    assert {sample.stream for sample in got} == {"wheels"}
    assert len(got) == 100
    assert [sample.sequence for sample in got] == list(range(100))
    speeds = base.wheel_speeds(0.3, 0.5)
    np.testing.assert_allclose(got[-1].data[1], speeds, rtol=1e-6)
    np.testing.assert_allclose(got[-1].data[0], np.array(speeds) * 0.99, rtol=1e-5)


def test_distances_go_on_where_the_wire_wraps():
    sampler = Sampler(ROVER, ROVER.axes)
    noise, true, got = random.Random(1), 2**31 - 40_000, []
    first = true
    for tick in range(100):
        got += sampler.take(status(tick * 10_000, true, 0), 0, 0)
        true += noise.randrange(0, 3000)
        assert got[-1].data[0][0] >= got[0].data[0][0]
    last = sampler.take(status(2_000_000, true, 0), 0, 0)[0]
    assert last.data[0][0] == pytest.approx(
        (true - first) / 1e6 / ROVER.base.wheel_radius, abs=1e-4
    )


def test_an_invalid_position_is_no_sample():
    sampler = Sampler(ARM, ARM.axes)
    assert sampler.take(status(5000, 1, 2, flags=6), 0, 0) == []
    assert sampler.invalid == 1
    assert len(sampler.take(status(10_000, 1, 2), 0, 0)) == 1


def test_a_stream_that_the_board_does_not_cover_is_not_made_up():
    text = find_robot("arm").read_text().replace("[shoulder, elbow]", "[shoulder, elbow, gripper]")
    robot = parse_robot(text, "x")
    assert Sampler(robot, robot.axes).streams == ()
    assert dataclasses.replace(robot, axes=robot.axes[:1]).axis_names == ("shoulder",)
