"""The law of one axis: braking, joining a trajectory, against plain sums and closed forms."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wm.guard.axis import AxisLaw, brake_ways
from edge_wm.robot import Axis
from guard.scenes import ARM, ROVER

H = 0.01
VX = ROVER.axes[0]
QUICK_BRAKE = replace(VX, braking=6.0)
SLOW_BRAKE = replace(VX, braking=0.7)
AXES = [VX, ROVER.axes[1], ARM.axes[0], ARM.axes[1], QUICK_BRAKE, SLOW_BRAKE]


def legal_states(axis: Axis) -> st.SearchStrategy[tuple[float, float]]:
    """States from which jerk can still end the acceleration within the velocity limits."""

    def state(share: float, gain: float) -> tuple[float, float]:
        v = axis.velocity_min + share * (axis.velocity_max - axis.velocity_min)
        bound = axis.acceleration if v * gain >= 0 else axis.braking
        a = gain * bound
        if a > 0:
            a = min(a, math.sqrt(2 * axis.jerk * (axis.velocity_max - v)) - axis.jerk * H)
        else:
            a = max(a, axis.jerk * H - math.sqrt(2 * axis.jerk * (v - axis.velocity_min)))
        if v * a < 0:  # what brakes must not carry through zero faster than it may speed up
            a = math.copysign(min(abs(a), axis.acceleration, axis.braking), a)
        return v, a if (a > 0) == (gain > 0) else 0.0

    return st.builds(state, st.floats(0, 1), st.floats(-1, 1))


def states() -> st.SearchStrategy[tuple[Axis, tuple[float, float]]]:
    return st.sampled_from(AXES).flatmap(lambda axis: st.tuples(st.just(axis), legal_states(axis)))


def check_limits(axis: Axis, vs: list[float], accs: list[float]) -> None:
    """Written from the definition: each knot's velocity, acceleration, jerk, and their relation."""
    tiny = 1e-9
    for i in range(1, len(vs)):
        v, a = vs[i], accs[i]
        assert axis.velocity_min - tiny <= v <= axis.velocity_max + tiny
        assert abs(a - accs[i - 1]) <= axis.jerk * H + tiny
        assert v == pytest.approx(vs[i - 1] + H * (accs[i - 1] + a) / 2, abs=1e-11)
        most = axis.braking if v * a < 0 else axis.acceleration
        assert abs(a) <= max(most, abs(accs[i - 1]) - axis.jerk * H) + tiny


@given(states())
def test_braking_ends_at_exact_rest_within_all_limits(case: tuple[Axis, tuple[float, float]]):
    axis, (v, a) = case
    way = AxisLaw(axis, H).brake_way(v, a)
    check_limits(axis, [v] + [w[0] for w in way], [a] + [w[1] for w in way])
    assert not way or way[-1] == (0.0, 0.0)


@given(states())
def test_braking_step_by_step_and_vectorized_are_the_same_way(
    case: tuple[Axis, tuple[float, float]],
):
    axis, (v, a) = case
    law = AxisLaw(axis, H)
    p, state, positions = 0.0, (v, a), [0.0]
    while state != (0.0, 0.0):
        after = law.brake(*state)
        p += H * state[0] + H * H * (2 * state[1] + after[1]) / 6
        positions.append(p)
        state = after
    ways = brake_ways([law], np.zeros((1, 1)), np.array([[v]]), np.array([[a]]))
    np.testing.assert_allclose(ways[:, 0, 0], positions, atol=1e-12)


@pytest.mark.parametrize("axis", AXES, ids=lambda a: f"{a.name} {a.braking}")
@pytest.mark.parametrize("speed", [0.003, 0.05, 0.2, 0.6])
def test_braking_from_a_steady_speed_takes_the_textbook_time_and_way(axis: Axis, speed: float):
    """S-curve: v/B + B/J and half of that times v; in whole periods up to two more."""
    jerk, braking = axis.jerk, axis.braking
    if speed >= braking**2 / jerk:
        time = speed / braking + braking / jerk
    else:
        time = 2 * math.sqrt(speed / jerk)
    way = AxisLaw(axis, H).brake_way(speed, 0.0)
    assert time - 1e-9 <= len(way) * H <= time + 2 * H
    vs = [speed] + [v for v, _ in way]
    length = sum((u + v) / 2 * H for u, v in itertools.pairwise(vs))
    assert speed * time / 2 - 1e-9 <= length <= speed * (time / 2 + 2 * H)


@given(states())
def test_stopping_distance_is_never_too_short(case: tuple[Axis, tuple[float, float]]):
    axis, (v, a) = case
    law = AxisLaw(axis, H)
    vs = [v] + [w[0] for w in law.brake_way(v, a)]
    ahead = sum(max(u + w, 0.0) / 2 * H for u, w in itertools.pairwise(vs))
    length = sum(abs(u + w) / 2 * H for u, w in itertools.pairwise(vs))
    assert ahead <= law.stopping_distance(v, a) + 1e-12
    assert length <= law.stopping_distance(abs(v), abs(a)) + 1e-12


def test_stopping_distance_is_the_documented_formula():
    law = AxisLaw(VX, H)
    v, jerk, braking = 0.7, 20.0, 2.0
    documented = v * H + v * braking / (2 * jerk) + v * v / (2 * braking)
    assert law.stopping_distance(v, 0.0) == pytest.approx(documented, rel=1e-12)


@given(
    states(),
    st.lists(st.tuples(st.integers(1, 30), st.floats(-1.2, 1.2)), min_size=1, max_size=6),
)
def test_whatever_is_pursued_the_limits_hold(
    case: tuple[Axis, tuple[float, float]], references: list[tuple[int, float]]
):
    """Also a reference that jumps, or lies beyond the limits."""
    axis, (v, a) = case
    law = AxisLaw(axis, H)
    vs, accs = [v], [a]
    for count, share in references:
        target = share * axis.velocity_max
        for _ in range(count):
            v, a = law.pursue(v, a, (target, 0.0), (target, 0.0))
            vs.append(v)
            accs.append(a)
    check_limits(axis, vs, accs)


def test_pursuit_joins_a_moving_reference_and_stays_on_it():
    law = AxisLaw(VX, H)
    v, a, reference = 0.3, -1.0, (0.2, 0.0)
    for k in range(100):
        gain = min(1.0, reference[1] + 0.1) if k < 40 else max(0.0, reference[1] - 0.1)
        after = (min(reference[0] + H * (reference[1] + gain) / 2, 9.0), gain)
        v, a = law.pursue(v, a, reference, after)
        reference = after
    assert (v, a) == pytest.approx(reference, abs=1e-12)
