"""edge_wm.simulation.motors: which setpoints are played, when, and what happens without one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_wm.reasons import Reason
from edge_wm.simulation.motors import Motors
from edge_wm.types import Setpoint

MS = 1_000_000
AXES = ("base.vx", "base.wz")
DELAY_NS = 40 * MS


def setpoint(sequence: int = 0, epoch: int = 1, at_ns: int = 0, **changes: object) -> Setpoint:
    """From (0.1, 1.0) to (0.3, -1.0) in 10 ms, valid for 50 ms."""
    return replace(
        Setpoint(
            epoch,
            sequence,
            AXES,
            np.array([at_ns, at_ns + 10 * MS]),
            np.zeros((2, 2)),
            np.array([[0.1, 1.0], [0.3, -1.0]]),
            np.array([2.0, 8.0]),
            np.array([at_ns + 150 * MS, at_ns + 125 * MS]),
            at_ns,
            at_ns + 50 * MS,
        ),
        **changes,
    )


def motors(*setpoints: Setpoint) -> Motors:
    made = Motors(AXES, DELAY_NS)
    for each in setpoints:
        made.send(each)
    return made


def test_nothing_moves_before_the_first_setpoint_acts() -> None:
    played = motors(setpoint())
    assert played.velocity(0) == [0.0, 0.0]
    assert played.velocity(DELAY_NS - 1) == [0.0, 0.0]
    assert played.velocity(DELAY_NS) == [0.1, 1.0]


def test_knots_are_interpolated_after_the_delay() -> None:
    sent = setpoint()
    played = motors(sent)
    for at_ns in range(0, 50 * MS, MS):
        expected = [np.interp(at_ns, sent.times_ns, sent.velocity[:, a]) for a in (0, 1)]
        np.testing.assert_allclose(played.velocity(at_ns + DELAY_NS), expected, atol=1e-12)


def test_a_newer_setpoint_takes_over_when_its_own_time_comes() -> None:
    played = motors(setpoint(), setpoint(1, at_ns=30 * MS))
    assert played.velocity(DELAY_NS + 30 * MS - 1) == [0.3, -1.0]
    assert played.velocity(DELAY_NS + 30 * MS) == [0.1, 1.0]
    assert not played.refused


def test_without_a_successor_each_axis_brakes_by_its_own_deceleration() -> None:
    played = motors(setpoint())
    expired = DELAY_NS + 50 * MS
    assert played.velocity(expired) == [0.3, -1.0]
    assert played.refused[Reason.setpoint_expired] == 0
    np.testing.assert_allclose(played.velocity(expired + 100 * MS), [0.1, -0.2])
    assert played.refused[Reason.setpoint_expired] == 1
    np.testing.assert_allclose(played.velocity(expired + 140 * MS), [0.02, 0.0], atol=1e-12)
    assert [abs(v) for v in played.velocity(expired + 10_000 * MS)] == [0.0, 0.0]
    assert played.refused[Reason.setpoint_expired] == 1
    played.send(setpoint(1, at_ns=20_000 * MS))
    assert played.velocity(DELAY_NS + 20_000 * MS) == [0.1, 1.0]


def test_positions_are_interpolated_and_brake_with_the_velocity() -> None:
    sent = setpoint(position=np.array([[0.0, 1.0], [0.002, 1.0]]))
    played = motors(sent)
    assert motors().position(10 * MS) is None
    assert played.position(DELAY_NS - 1) is None
    assert played.position(DELAY_NS) == [0.0, 1.0]
    assert played.position(DELAY_NS + 5 * MS) == [0.001, 1.0]
    at = [played.position(DELAY_NS + ms * MS) for ms in range(10, 400)]
    speeds = [played.velocity(DELAY_NS + ms * MS) for ms in range(10, 400)]
    travelled = np.cumsum(0.5e-3 * (np.array(speeds[1:]) + np.array(speeds[:-1])), axis=0)
    np.testing.assert_allclose(at[1:], at[0] + travelled, atol=1e-5)
    np.testing.assert_allclose(at[-1], [0.014 + 0.3**2 / 4.0, 0.96 - 1.0 / 16.0], atol=1e-9)


@pytest.mark.parametrize(
    "bad",
    [
        setpoint(5, position=np.array([[0.0, np.nan], [0.0, 0.0]])),
        setpoint(5, position=np.zeros((3, 2))),
        setpoint(5, velocity=np.array([[0.1, np.nan], [0.1, 0.0]])),
        setpoint(5, velocity=np.array([[0.1, 0.0], [np.inf, 0.0]])),
        setpoint(5, velocity=np.zeros((2, 3))),
        setpoint(5, velocity=np.zeros((3, 2))),
        setpoint(5, axes=("base.wz", "base.vx")),
        setpoint(5, times_ns=np.array([10, 10])),
        setpoint(5, times_ns=np.array([10, 5])),
        setpoint(5, times_ns=np.array([10]), velocity=np.zeros((1, 2))),
        setpoint(5, brake_deceleration=np.array([2.0, 0.0])),
        setpoint(5, brake_deceleration=np.array([np.nan, 8.0])),
        setpoint(5, brake_deceleration=np.array([2.0])),
        setpoint(3),
        setpoint(2),
        setpoint(9, epoch=0),
    ],
)
def test_bad_setpoints_are_ignored_and_counted(bad: Setpoint) -> None:
    played = motors(setpoint(3))
    played.send(bad)
    assert played.refused == {Reason.setpoint_invalid: 1}
    assert played.velocity(DELAY_NS) == [0.1, 1.0]
    played.send(setpoint(4, at_ns=10 * MS))
    assert played.refused == {Reason.setpoint_invalid: 1}


def test_a_new_activation_may_count_from_the_start_again() -> None:
    played = motors(setpoint(7), setpoint(0, epoch=2, at_ns=10 * MS))
    assert not played.refused
    played.send(setpoint(8, at_ns=20 * MS))
    assert played.refused == {Reason.setpoint_invalid: 1}
