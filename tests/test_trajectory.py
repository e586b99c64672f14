"""Tests edge_wm.trajectory: limits, landing, the braking tail, position axes, refusals."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from edge_wm.errors import UsageError
from edge_wm.guard import limits
from edge_wm.guard.axis import AxisLaw
from edge_wm.reasons import Reason
from edge_wm.robot import Axis
from edge_wm.trajectory import finish
from edge_wm.types import Command, Proposal, Trajectory

PERIOD_NS = 10_000_000
STEP_NS = 150_000_000
T = 0.01
TOLERANCE = 1e-6  # relative, for limits that are recomputed by differences


def axis(kind: str = "twist", **changes: object) -> Axis:
    """The rover's forward axis, with changes."""
    plain = Axis(
        name="base.vx",
        kind=kind,
        unit="m/s",
        position_min=-inf,
        position_max=inf,
        velocity_min=-0.25,
        velocity_max=0.7,
        acceleration=1.5,
        braking=2.0,
        jerk=20.0,
        effort_max=inf,
        rest_speed=0.02,
    )
    return replace(plain, **changes)


TURN = axis(name="base.wz", velocity_min=-1.8, velocity_max=1.8, acceleration=6.0, braking=8.0)
TURN = replace(TURN, jerk=80.0)
JOINT = axis(
    "position",
    name="joint",
    position_min=-1.0,
    position_max=1.0,
    velocity_min=-2.0,
    velocity_max=2.0,
    acceleration=8.0,
    braking=10.0,
    jerk=100.0,
)


def proposal(actions: object, axes: tuple[Axis, ...], **changes: object) -> Proposal:
    plain = Proposal(
        stamp_ns=7,
        apply_at_ns=40_000_007,
        step_ns=STEP_NS,
        axes=tuple(a.name for a in axes),
        actions=np.asarray(actions, np.float32).reshape(-1, len(axes)),
        cost=0.0,
        iterations=1,
        candidates=1,
        infeasible=0,
        answers=(),
    )
    return replace(plain, **changes)


def at(p: object = 0.0, v: object = 0.0, a: object = 0.0) -> Command:
    return Command(1000, *(np.atleast_1d(np.asarray(x, np.float64)) for x in (p, v, a)))


def finished(actions: object, axes: tuple[Axis, ...], command: Command, **changes: object):
    period_ns = int(changes.pop("period_ns", PERIOD_NS))
    result = finish(
        proposal(actions, axes, **changes),
        command,
        axes,
        epoch=3,
        sequence=4,
        period_ns=period_ns,
    )
    assert isinstance(result, Trajectory)
    return result


def problems(trajectory: Trajectory, axes: tuple[Axis, ...]) -> list[str]:
    """An independent checker: plain loops over the positions' and velocities' differences."""
    found = []
    t = trajectory.period_ns * 1e-9
    for column, limit in enumerate(axes):
        p = trajectory.position[:, column].tolist()
        v = trajectory.velocity[:, column].tolist()
        a = trajectory.acceleration[:, column].tolist()
        for i in range(len(v)):
            low, high = sorted((limit.velocity_min, limit.velocity_max))
            if not low - 1e-9 <= v[i] <= high + 1e-9:
                found.append(f"velocity {v[i]} at {i}")
            slowing = v[i] * a[i] < 0
            allowed = limit.braking if slowing else limit.acceleration
            if abs(a[i]) > allowed * (1 + TOLERANCE) + 1e-9:
                found.append(f"acceleration {a[i]} at {i}, velocity {v[i]}")
            if not limit.position_min <= p[i] <= limit.position_max and limit.kind == "position":
                found.append(f"position {p[i]} at {i}")
        for i in range(len(v) - 1):
            # Simpson's rule is exact for the cubic: the velocity halfway is 1.5 mean p' - ...
            halfway = v[i] + t * (3 * a[i] + a[i + 1]) / 8
            if abs(p[i + 1] - p[i] - t / 6 * (v[i] + 4 * halfway + v[i + 1])) > 1e-12:
                found.append(f"position is not the integral of velocity at {i}")
            if abs(v[i + 1] - v[i] - t * (a[i] + a[i + 1]) / 2) > 1e-12:
                found.append(f"velocity is not the integral of acceleration at {i}")
            if abs(a[i + 1] - a[i]) / t > limit.jerk * (1 + TOLERANCE) + 1e-7:
                found.append(f"jerk {(a[i + 1] - a[i]) / t} at {i}")
        most = max(limit.acceleration, limit.braking)
        for i in range(len(p) - 2):
            if abs(p[i + 2] - 2 * p[i + 1] + p[i]) / t**2 > most * (1 + TOLERANCE) + 1e-6:
                found.append(f"second difference of position at {i}")
        for i in range(len(p) - 3):
            third = (p[i + 3] - 3 * p[i + 2] + 3 * p[i + 1] - p[i]) / t**3
            if abs(third) > limit.jerk * (1 + TOLERANCE) + 1e-4:
                found.append(f"third difference of position {third} at {i}")
        if v[-1] != 0 or a[-1] != 0:
            found.append(f"ends with velocity {v[-1]}, acceleration {a[-1]}")
    laws = [AxisLaw(limit, t) for limit in axes]
    return found + [detail for _, detail in limits.findings(trajectory, laws)]


# ---- every trajectory ---------------------------------------------------------------------
@st.composite
def velocity_cases(draw: st.DrawFn) -> tuple[tuple[Axis, ...], np.ndarray, Command]:
    """Axes with random limits, actions also beyond them, and a start within them."""
    axes, v, a = [], [], []
    size = st.floats(0.3, 3.0)
    for column in range(draw(st.integers(1, 2))):
        limit = axis(
            name=f"axis{column}",
            velocity_min=-draw(st.one_of(st.just(0.0), size)),
            velocity_max=draw(size),
            acceleration=draw(size),
            braking=draw(size),
            jerk=draw(st.floats(3.0, 100.0)),
        )
        axes.append(limit)
        # a start from which the acceleration can be taken back within the velocity limits and
        # without reversing: what an earlier trajectory of the same limits can be in
        v.append(draw(st.floats(limit.velocity_min, limit.velocity_max)))
        room = limit.velocity_max - v[-1] if v[-1] >= 0 else v[-1] - limit.velocity_min
        speeding = min(sqrt(2 * limit.jerk * room) * 0.9, limit.acceleration)
        slowing = min(sqrt(2 * limit.jerk * abs(v[-1])) * 0.9, limit.braking)
        a.append(draw(st.floats(-slowing, speeding)) * (1 if v[-1] >= 0 else -1))
    horizon = draw(st.integers(0, 6))
    actions = draw(
        st.lists(
            st.floats(-4, 4, width=32),
            min_size=horizon * len(axes),
            max_size=horizon * len(axes),
        )
    )
    return tuple(axes), np.reshape(actions, (horizon, len(axes))), at(np.full(len(axes), 9), v, a)


@settings(max_examples=150)
@given(velocity_cases())
def test_velocity_axes_start_at_the_command_keep_every_limit_and_end_at_rest(case) -> None:
    axes, actions, command = case
    trajectory = finished(actions, axes, command)
    assert problems(trajectory, axes) == []
    assert trajectory.start_ns == command.at_ns
    np.testing.assert_array_equal(trajectory.position[0], 0.0)
    np.testing.assert_array_equal(trajectory.velocity[0], command.velocity)
    np.testing.assert_array_equal(trajectory.acceleration[0], command.acceleration)
    assert trajectory.brake_index == 15 * len(actions)


def test_the_head_is_copied_from_the_proposal() -> None:
    trajectory = finished([[0.3, 1.0]], (axis(), TURN), at([0, 0], [0, 0], [0, 0]))
    assert (trajectory.epoch, trajectory.sequence, trajectory.stamp_ns) == (3, 4, 7)
    assert trajectory.axes == ("base.vx", "base.wz")
    assert trajectory.period_ns == PERIOD_NS
    assert trajectory.effort is None
    assert trajectory.end_ns == 1000 + (len(trajectory.velocity) - 1) * PERIOD_NS


def test_standing_still_stays_still() -> None:
    trajectory = finished(np.zeros((12, 2)), (axis(), TURN), at([0, 0], [0, 0], [0, 0]))
    assert trajectory.velocity.shape == (181, 2)
    assert not trajectory.position.any()
    assert not trajectory.velocity.any()


@settings(max_examples=100)
@given(
    v=st.floats(-3, 3),
    a=st.floats(-8, 8),
    actions=st.lists(st.floats(-1, 1, width=32), min_size=0, max_size=4),
)
def test_a_start_outside_the_limits_is_led_back(v: float, a: float, actions: list[float]) -> None:
    """A limit was lowered under a moving robot: jerk always holds, the others as soon as it can."""
    limit = axis()
    trajectory = finished(actions, (limit,), at(0.0, v, a))
    vs, accs = trajectory.velocity[:, 0], trajectory.acceleration[:, 0]
    assert np.abs(np.diff(accs)).max(initial=0.0) <= limit.jerk * T * (1 + TOLERANCE) + 1e-12
    assert (vs[-1], accs[-1]) == (0.0, 0.0)
    # the acceleration is back in its limits as soon as jerk allows, and stays there
    ticks = int(np.ceil(max(0.0, abs(a) - limit.acceleration) / (limit.jerk * T)))
    assert np.abs(accs[ticks + 1 :]).max(initial=0.0) <= limit.braking + 1e-9
    # a velocity that is in its limits, and will be when its acceleration is taken back, stays so
    later = vs + accs * np.abs(accs) / (2 * limit.jerk)
    inside = (np.minimum(vs, later) >= limit.velocity_min) & (
        np.maximum(vs, later) <= limit.velocity_max
    )
    stays = vs[int(np.argmax(inside)) :]
    assert inside[-1]
    assert limit.velocity_min - 1e-9 <= stays.min()
    assert stays.max() <= limit.velocity_max + 1e-9


# ---- landing ------------------------------------------------------------------------------
@pytest.mark.parametrize("target", [0.001, 0.05, 0.1125, 0.2, 0.5, 0.7])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_step_takes_the_time_of_the_s_curve_and_does_not_overshoot(
    target: float, sign: int
) -> None:
    limit = axis(velocity_min=-0.7)
    trajectory = finished(np.full(12, sign * target), (limit,), at())
    vs = sign * trajectory.velocity[: trajectory.brake_index + 1, 0]
    target = float(np.float32(target))  # as the proposal holds it
    assert vs.max() <= target + 1e-12
    assert (np.diff(vs) >= -1e-12).all()
    assert vs[-1] == min(target, 0.7)
    reached = int(np.argmax(vs >= target - 1e-12))
    # speed up with jerk J to acceleration A and back: v / A + A / J, or 2 sqrt(v / J)
    a, j = limit.acceleration, limit.jerk
    seconds = target / a + a / j if target >= a * a / j else 2 * sqrt(target / j)
    assert seconds <= (reached + 1e-6) * T <= seconds + 2 * T


@pytest.mark.parametrize("v", [0.01, 0.1, 0.2, 0.35, 0.7])
def test_the_braking_tail_is_as_long_as_the_s_curve(v: float) -> None:
    limit = axis()
    trajectory = finished(np.zeros((0, 1)), (limit,), at(0.0, v, 0.0))
    b, j = limit.braking, limit.jerk
    seconds = v / b + b / j if v >= b * b / j else 2 * sqrt(v / j)
    assert seconds - 1e-9 <= (len(trajectory.velocity) - 1) * T <= seconds + 2 * T
    way = trajectory.position[-1, 0]
    assert v / 2 * seconds - 1e-9 <= way <= v / 2 * seconds + 2 * T * v
    assert (np.diff(trajectory.velocity[:, 0]) <= 1e-12).all()


def fewest_ticks(v: float, a: float, target: float, limit: Axis) -> int:
    """By linear programs: the fewest periods from (v, a) to (target, 0), never beyond it."""
    step, sign = limit.jerk * T, 1.0 if target >= v else -1.0
    for n in range(1, 200):
        # unknown: accelerations a_1 .. a_n; velocity k = v + T (a / 2 + a_1 + .. + a_k / 2)
        rise = np.tril(np.ones((n, n))) * T - 0.5 * T * np.eye(n)
        difference = np.eye(n) - np.eye(n, k=-1)
        first = np.zeros(n)
        first[0] = a
        result = linprog(
            np.zeros(n),
            A_ub=np.vstack((sign * rise, difference, -difference)),
            b_ub=np.concatenate(
                (
                    np.full(n, sign * (target - v - 0.5 * T * a) + 1e-12),
                    step + first + 1e-12,
                    step - first + 1e-12,
                )
            ),
            A_eq=np.vstack((rise[-1], np.eye(n)[-1])),
            b_eq=[target - v - 0.5 * T * a, 0.0],
            bounds=[(-limit.acceleration, limit.acceleration)] * n,
        )
        if result.status == 0:
            return n
    raise AssertionError("no way found")


@pytest.mark.parametrize(
    ("v", "a", "target"),
    [(0.0, 0.0, 0.03), (0.0, 0.0, 0.4), (0.1, 1.0, 0.3), (0.3, -1.0, 0.5), (0.5, -1.2, -0.2)],
)
def test_no_controller_reaches_the_target_in_fewer_periods(
    v: float, a: float, target: float
) -> None:
    limit = axis(braking=1.5)
    target = float(np.float32(target))
    trajectory = finished(np.full(12, target), (limit,), at(0.0, v, a))
    there = (np.abs(trajectory.velocity[:, 0] - target) < 1e-9) & (
        np.abs(trajectory.acceleration[:, 0]) < 1e-6
    )
    assert int(np.argmax(there)) == fewest_ticks(v, a, target, limit)


def test_actions_are_held_for_their_step_also_where_periods_do_not_divide_it() -> None:
    quick = axis(velocity_min=-1.0, velocity_max=1.0, acceleration=1e3, braking=1e3, jerk=1e6)
    actions = [0.2, -0.4, 0.6, 0.1]
    for step_ns in (20_000_000, 25_000_000, 33_333_333, 150_000_000):
        trajectory = finished(actions, (quick,), at(), step_ns=step_ns)
        held = [
            np.float32(actions[k * PERIOD_NS // step_ns]) for k in range(trajectory.brake_index)
        ]
        for k in range(1, len(held)):
            if held[k] == held[k - 1]:  # a change takes two periods: speeding up, and no longer
                assert trajectory.velocity[k + 1, 0] == pytest.approx(held[k], abs=1e-9)
        assert (trajectory.brake_index - 1) * PERIOD_NS < 4 * step_ns
        assert trajectory.brake_index * PERIOD_NS >= 4 * step_ns


def test_slowing_down_uses_braking_but_not_through_zero() -> None:
    limit = axis(velocity_min=-0.7)
    slower = finished([0.1] * 6, (limit,), at(0.0, 0.7, 0.0))
    assert slower.acceleration.min() == -limit.braking
    reversing = finished([-0.7] * 8, (limit,), at(0.0, 0.7, 0.0))
    assert reversing.acceleration.min() == -limit.acceleration
    # a target that changes sign while it brakes hard
    both = finished([0.0, -0.7, -0.7, -0.7], (limit,), at(0.0, 0.4, 0.0))
    assert problems(both, (limit,)) == []


# ---- position axes ------------------------------------------------------------------------
@st.composite
def position_cases(draw: st.DrawFn) -> tuple[Axis, list[float], Command]:
    limit = replace(
        JOINT,
        acceleration=draw(st.floats(1, 20)),
        braking=draw(st.floats(1, 20)),
        jerk=draw(st.floats(20, 500)),
    )
    actions = draw(st.lists(st.floats(-1.5, 1.5, width=32), min_size=1, max_size=8))
    return limit, actions, at(draw(st.floats(-1, 1)))


@settings(max_examples=100)
@given(position_cases())
def test_position_axes_keep_every_limit_and_can_brake_from_every_knot(case) -> None:
    limit, actions, command = case
    trajectory = finished(actions, (limit,), command)
    assert problems(trajectory, (limit,)) == []
    assert trajectory.position[0, 0] == command.position[0]
    for k in range(0, len(trajectory.position), 7):
        here = at(*(x[k, 0] for x in (trajectory.position, trajectory.velocity)))
        here = replace(here, acceleration=trajectory.acceleration[k])
        stop = finished(actions, (limit,), here, reason=Reason.no_feasible_candidate)
        assert stop.position.max() <= limit.position_max + 1e-12
        assert stop.position.min() >= limit.position_min - 1e-12


def test_position_axes_thrown_from_limit_to_limit_stay_within_them() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        limit = replace(
            JOINT,
            acceleration=rng.uniform(1, 20),
            braking=rng.uniform(1, 20),
            jerk=rng.uniform(20, 500),
        )
        actions = rng.choice([-1.5, -0.9, 0.0, 0.9, 1.5], 8)
        trajectory = finished(actions, (limit,), at(rng.uniform(-1, 1)))
        assert problems(trajectory, (limit,)) == []


def test_position_targets_are_reached_when_their_step_ends() -> None:
    times = 0.15 * np.arange(1, 13)
    actions = 0.4 * np.sin(2 * np.pi * 0.3 * times) ** 2
    trajectory = finished(actions, (JOINT,), at())
    reached = trajectory.position[15 : trajectory.brake_index + 1 : 15, 0]
    assert np.abs(reached - actions).max() < 0.01
    # the last target is met at rest: the tail has next to nothing left to brake
    assert abs(trajectory.position[-1, 0] - actions[-1]) < 0.01


def test_a_position_step_settles_on_its_target() -> None:
    trajectory = finished([0.8] * 12, (JOINT,), at(-0.8))
    assert trajectory.position[-1, 0] == pytest.approx(0.8, abs=2e-3)
    assert trajectory.position.max() < 0.8 * 1.04


def test_a_target_beyond_a_position_limit_ends_before_it() -> None:
    trajectory = finished([3.0] * 12, (JOINT,), at())
    assert 0.98 < trajectory.position.max() <= 1.0


@pytest.mark.parametrize("start", [1.0, 1.2, -1.3])
def test_a_position_outside_its_limits_only_moves_inwards(start: float) -> None:
    trajectory = finished([0.0] * 12, (JOINT,), at(start))
    assert abs(trajectory.position[-1, 0]) < 0.01
    outwards = finished([np.sign(start) * 3.0] * 12, (JOINT,), at(start))
    assert np.abs(outwards.position).max() <= abs(start)


def test_moving_out_of_its_position_limits_it_brakes() -> None:
    trajectory = finished([0.9] * 12, (JOINT,), at(0.95, 1.5, 0.0))
    braked = finished(np.zeros((0, 1)), (JOINT,), at(0.95, 1.5, 0.0))
    assert trajectory.position.max() <= braked.position.max() + 1e-12


# ---- effort -------------------------------------------------------------------------------
def test_efforts_are_held_within_their_limit_and_end_with_the_actions() -> None:
    motor = axis("effort", name="motor", unit="N m", effort_max=2.0)
    trajectory = finished([[1.0, 0.2], [-5.0, 0.2]], (motor, axis()), at([9, 9], [0, 0], [0, 0]))
    assert trajectory.effort is not None
    np.testing.assert_array_equal(trajectory.effort[:15, 0], 1.0)
    np.testing.assert_array_equal(trajectory.effort[15:30, 0], -2.0)
    assert not trajectory.effort[30:].any()
    assert not trajectory.effort[:, 1].any()
    assert not trajectory.position[:, 0].any()
    assert trajectory.velocity[:, 1].max() == pytest.approx(0.2)


# ---- what is refused ----------------------------------------------------------------------
def test_a_proposal_with_a_reason_brakes_at_once() -> None:
    trajectory = finished(
        [0.7] * 12, (axis(),), at(0.0, 0.5, 0.0), reason=Reason.no_feasible_candidate
    )
    assert trajectory.brake_index == 0
    assert (np.diff(trajectory.velocity[:, 0]) <= 0.0).all()
    assert trajectory.velocity[-1, 0] == 0.0
    still = finished([0.7], (axis(),), at(), reason=Reason.no_feasible_candidate)
    assert still.velocity.tolist() == [[0.0]]


@pytest.mark.parametrize("bad", [nan, inf, -inf])
def test_what_is_not_finite_is_a_reason(bad: float) -> None:
    for actions, command in (
        ([0.1, bad], at()),
        ([0.1, 0.1], at(bad)),
        ([0.1, 0.1], at(0.0, bad)),
        ([0.1, 0.1], at(0.0, 0.0, bad)),
    ):
        result = finish(
            proposal(actions, (axis(),)),
            command,
            (axis(),),
            epoch=1,
            sequence=1,
            period_ns=PERIOD_NS,
        )
        assert result is Reason.trajectory_not_finite


@pytest.mark.parametrize(("v", "a"), [(1e9, 0.0), (0.0, -1e9), (1e200, 1e200), (39.7, 0.0)])
def test_a_command_that_cannot_be_braked_in_20_s_is_a_reason(v: float, a: float) -> None:
    result = finish(
        proposal([0.1], (axis(),)), at(0.0, v, a), (axis(),), epoch=1, sequence=1, period_ns=10**7
    )
    assert result is Reason.trajectory_malformed
    assert len(finished([0.1], (axis(),), at(0.0, 39.5, 0.0)).velocity) > 1800


def test_what_does_not_fit_together_is_named() -> None:
    with pytest.raises(UsageError) as wrong_axes:
        finish(
            proposal([[0.1]], (axis(),)), at(), (TURN,), epoch=1, sequence=1, period_ns=PERIOD_NS
        )
    assert str(wrong_axes.value) == (
        "trajectory.finish: the proposal must have actions (H, 1) for the axes base.wz; it has "
        "(1, 1) for base.vx; plan and finish with the same robot file"
    )
    with pytest.raises(UsageError) as wrong_command:
        finished([[0.1]], (axis(),), at([0, 0], [0, 0], [0, 0]))
    assert str(wrong_command.value) == (
        "trajectory.finish: the command must have position, velocity and acceleration of shape "
        "(1,), it has (2,); take it from the guard"
    )
    with pytest.raises(UsageError) as wrong_period:
        finished([[0.1]], (axis(),), at(), period_ns=STEP_NS + 1)
    assert str(wrong_period.value) == (
        "trajectory.finish: the setpoint period must be above 0 and at most a model step "
        "(150000000 ns), it is 150000001 ns; correct setpoint_rate_hz"
    )
    assert finished([[0.1]], (axis(),), at(), period_ns=STEP_NS).brake_index == 1


def test_the_same_call_gives_the_same_bits() -> None:
    actions = np.random.default_rng(5).uniform(-1, 1, (12, 2))
    command = at([0, 0], [0.1, -0.3], [0.5, 1.0])
    one, two = (finished(actions, (axis(), TURN), command) for _ in range(2))
    for name in ("position", "velocity", "acceleration"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
