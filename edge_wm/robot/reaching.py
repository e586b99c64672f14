"""From a point to the postures in which an arm's tool is there.

By Gauss and Newton's iteration with damping (Lynch and Park, Modern Robotics (2017), section
6.2.2; the damping is Levenberg's), from starts spread over the limits, so that an elbow's both
ways are found. The Jacobian is taken by differences: a goal is asked for once, not in a tick.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from edge_wm.robot.kinematics import frame_poses
from edge_wm.robot.nouns import Robot
from edge_wm.types import Float64

STARTS = 5  # for each joint
ITERATIONS = 100
CLOSE = 1e-6  # m
DIFFERENCE = 1e-6  # rad or m
DAMPING = 1e-3
APART = 1e-2  # rad or m: postures nearer to each other than this are one


def tool_frame(robot: Robot) -> str:
    """The last frame of the arm: the child of the last joint that carries nothing."""
    assert robot.kinematics is not None
    parents = {joint.parent for joint in robot.kinematics.joints}
    return [j.child for j in robot.kinematics.joints if j.child not in parents][-1]


def tool_position(robot: Robot, positions: Float64) -> Float64:
    """(..., 3) m, the tool in the root frame, for positions (..., J) of `kinematics.moving`."""
    assert robot.kinematics is not None
    poses = frame_poses(robot.kinematics, positions)
    place: Float64 = poses[tool_frame(robot)][..., :3, 3]
    return place


def postures_at(robot: Robot, x: float, y: float, z: float | None = None) -> list[Float64]:
    """(J,) positions within the limits that put the tool at a point (m) of the root frame.

    z None: at any height. The postures nearest to zero come first; none: out of reach.
    """
    assert robot.kinematics is not None
    axes = {axis.name: axis for axis in robot.axes}
    limits = [axes[name] for name in robot.kinematics.moving]
    low = np.array([max(axis.position_min, -math.pi) for axis in limits])
    high = np.array([min(axis.position_max, math.pi) for axis in limits])
    point = np.array([x, y] if z is None else [x, y, z])
    shares = (np.arange(STARTS) + 0.5) / STARTS
    found: list[Float64] = []
    for start in itertools.product(*(a + shares * (b - a) for a, b in zip(low, high, strict=True))):
        posture = _solve(robot, np.array(start), point, low, high)
        if posture is not None and all(np.abs(posture - f).max() > APART for f in found):
            found.append(posture)
    return sorted(found, key=lambda posture: float(np.abs(posture).max()))


def _solve(
    robot: Robot, start: Float64, point: Float64, low: Float64, high: Float64
) -> Float64 | None:
    posture = start
    for _ in range(ITERATIONS):
        near = posture + DIFFERENCE * np.eye(len(posture))
        places = tool_position(robot, np.vstack([posture, near]))[:, : len(point)]
        miss = point - places[0]
        if np.abs(miss).max() < CLOSE:
            return posture
        jacobian = (places[1:] - places[0]).T / DIFFERENCE
        square = jacobian.T @ jacobian + DAMPING * float(miss @ miss) * np.eye(len(posture))
        posture = np.clip(posture + np.linalg.pinv(square) @ jacobian.T @ miss, low, high)
    return None
