"""Tests the guard's foresight: which candidates the raw ranges let pass, against a plain loop."""

from __future__ import annotations

from math import cos, hypot, sin

import numpy as np
import pytest

from edge_wm.guard.ranges import LOOKS, are_clear

STEP_S = 0.15


def passes(points, twists, radius) -> bool:
    """One candidate, one point, one small step after the other."""
    x = y = yaw = 0.0
    for vx, wz in twists:
        for _ in range(LOOKS):
            part = STEP_S / LOOKS
            x += part * vx * cos(yaw + part * wz / 2)
            y += part * vx * sin(yaw + part * wz / 2)
            yaw += part * wz
            for px, py in points.T:
                if hypot(px - x, py - y) < min(radius, hypot(px, py)) - 1e-8:
                    return False
    return True


def test_candidates_pass_as_a_plain_loop_says():
    generator = np.random.default_rng(1)
    outcomes = set()
    for _ in range(60):
        points = generator.uniform(-1.0, 1.0, (2, 12))
        twists = generator.uniform([-0.25, -1.8], [0.7, 1.8], (20, 4, 2))
        told = are_clear(points, twists, STEP_S, 0.24)
        expected = [passes(points, candidate, 0.24) for candidate in twists]
        assert told.tolist() == expected
        outcomes.update(expected)
    assert outcomes == {True, False}


@pytest.mark.parametrize(
    ("twist", "free"),
    [
        ((0.0, 0.0), True),  # standing
        ((0.0, 1.8), True),  # turning in place, although the point is nearer than the radius
        ((-0.25, 0.0), True),  # going away from it
        ((0.1, 0.0), False),  # creeping up to it
        ((0.7, 0.0), False),
    ],
)
def test_close_to_a_point_only_leaving_it_is_allowed(twist, free):
    point = np.array([[0.2], [0.0]])
    twists = np.tile(np.array(twist), (1, 4, 1))
    assert are_clear(point, twists, STEP_S, 0.24).tolist() == [free]


def test_without_points_everything_passes():
    assert are_clear(np.empty((2, 0)), np.ones((3, 4, 2)), STEP_S, 0.24).all()
