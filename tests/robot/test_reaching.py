"""edge_wm.robot.reaching: postures for a point, against the law of cosines."""

from __future__ import annotations

import numpy as np
import pytest

from edge_wm.robot import Robot, find_robot, load_robot, postures_at, tool_position

UPPER, FOREARM = 0.3, 0.25


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(find_robot("arm"))


def by_cosines(x: float, y: float) -> list[np.ndarray]:
    """Both elbows; Lynch and Park, Modern Robotics (2017), figure 6.1."""
    square = x * x + y * y
    bend = np.arccos((square - UPPER**2 - FOREARM**2) / (2 * UPPER * FOREARM))
    return [
        np.array([
            np.arctan2(y, x) - np.arctan2(FOREARM * np.sin(q2), UPPER + FOREARM * np.cos(q2)), q2,
        ])
        for q2 in (bend, -bend)
    ]  # fmt: skip


@pytest.mark.parametrize(("x", "y"), [(0.3, 0.2), (0.2, -0.35), (0.45, 0.05), (0.1, 0.4)])
def test_both_elbows_are_found(robot: Robot, x: float, y: float) -> None:
    expected = [
        posture for posture in by_cosines(x, y)
        if abs(posture[0]) <= 2.6 and abs(posture[1]) <= 2.4
    ]  # fmt: skip
    found = postures_at(robot, x, y)
    assert len(found) == len(expected) == 2
    for posture in expected:
        assert min(np.abs(posture - f).max() for f in found) < 1e-4


def test_the_tool_is_where_the_posture_says(robot: Robot) -> None:
    for posture in postures_at(robot, 0.25, 0.25, 0.15):
        np.testing.assert_allclose(tool_position(robot, posture), [0.25, 0.25, 0.15], atol=1e-5)


@pytest.mark.parametrize("point", [(0.7, 0.0), (0.0, 0.0), (0.3, 0.2, 0.3)])
def test_out_of_reach_is_an_empty_list(robot: Robot, point: tuple[float, ...]) -> None:
    assert postures_at(robot, *point) == []
