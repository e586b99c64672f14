"""The arm's equations: how it moves under setpoints, and how near it comes to anything.

Written for values of a graph (graphs.py) and for numpy arrays alike; a row is one candidate.

    M(q) v' + C(q, v) v + D v + F tanh(v / e) = servo(c - q, w - v)          q, v: the joints
                                                                             c, w: the setpoint
There is no gravity term: the joints turn about vertical axes. The servo is that of the drives,
cut to what the robot file allows (`effort`); the motors' currents follow within a millisecond and
are taken as immediate. Dry friction changes its sign smoothly, over e = 0.05 rad/s.

The setpoint goes to the action within the step as fast as the robot file's limits let it, so that
plans which ask for more than that are imagined as they would be played.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from graphs import absolute, clip, cos, least, side_by_side, sin, sqrt, tanh

from edge_wm.robot import Box, Robot
from edge_wm.simulation.arm import ARM, ArmParameters, require_chain

SUBSTEPS = 8
SLOW = 0.05  # rad/s: faster than this, dry friction has its full size


@dataclass(frozen=True)
class Arm:
    """Every number that the equations need, one for each joint where it is an array."""

    alpha: float  # M = [[alpha + 2 beta cos q2, delta + beta cos q2], [..., gamma]]
    beta: float
    gamma: float
    delta: float
    viscous: np.ndarray
    coulomb: np.ndarray
    position_gain: np.ndarray
    velocity_gain: np.ndarray
    effort: np.ndarray
    speed: np.ndarray  # of the setpoint, rad/s
    acceleration: np.ndarray  # of the setpoint, rad/s^2
    braking: np.ndarray  # rad/s^2
    lengths: tuple[float, float]  # m
    height: float  # m, of the plane in which it moves
    along: np.ndarray  # (2, S): center of sphere s = along[0, s] u1 + along[1, s] u2,
    radii: np.ndarray  # (S,)       u1, u2 the directions of the two segments
    post: tuple[float, float, float]  # x, y, radius in that plane
    walls: tuple[float, float, float, float]  # x and y that the body stays above, then below


def arm_of(robot: Robot, parameters: ArmParameters = ARM) -> Arm:
    """The numbers of a robot file with two joints about z, one post and one workspace box."""
    require_chain(robot, parameters)
    assert robot.kinematics is not None
    upper, elbow, tool = robot.kinematics.joints
    flat = all(joint.axis == (0, 0, 1) for joint in (upper, elbow))
    straight = all(joint.rpy == (0, 0, 0) and joint.xyz[1:] == (0, 0) for joint in (elbow, tool))
    (zone,), (room,) = robot.keep_out, robot.workspace
    if not (flat and straight and not isinstance(zone, Box) and isinstance(room, Box)):
        raise SystemExit(f"{robot.name}: these equations are those of robots/arm.yaml")
    first, second = parameters.segments
    (c1, c2), (l1, l2) = (first.center[0], second.center[0]), (elbow.xyz[0], tool.xyz[0])
    height = upper.xyz[2]
    forearm = second.inertia[2] + second.mass * c2**2
    starts = {upper.child: (0, 0.0, 0.0), elbow.child: (1, l1, 0.0), tool.child: (1, l1, l2)}
    along = np.zeros((2, len(robot.kinematics.spheres)))
    for index, sphere in enumerate(robot.kinematics.spheres):
        segment, along[0, index], along[1, index] = starts[sphere.frame]
        along[segment, index] += sphere.center[0]
    drives, axes = parameters.drives, robot.axes

    def each(name: str, of: tuple = drives) -> np.ndarray:
        return np.array([getattr(item, name) for item in of])

    return Arm(
        alpha=first.inertia[2] + first.mass * c1**2 + second.mass * l1**2 + forearm
        + drives[0].armature,
        beta=second.mass * l1 * c2,
        gamma=forearm + drives[1].armature,
        delta=forearm,
        viscous=each("viscous"),
        coulomb=each("coulomb"),
        position_gain=each("position_gain"),
        velocity_gain=each("velocity_gain"),
        effort=np.minimum(
            each("effort_max", axes), each("current_max") * each("torque_constant")
        ),
        speed=np.minimum(each("velocity_max", axes), -each("velocity_min", axes)),
        acceleration=each("acceleration", axes),
        braking=each("braking", axes),
        lengths=(l1, l2),
        height=height,
        along=along,
        radii=np.array([sphere.radius for sphere in robot.kinematics.spheres]),
        post=(*zone.center[:2], float(np.sqrt(zone.radius**2 - (zone.center[2] - height) ** 2))),
        walls=(*room.lower[:2], *room.upper[:2]),
    )  # fmt: skip


# ---- motion --------------------------------------------------------------------------------
def acceleration(arm: Arm, q, v, c, w):
    """(K, 2) rad/s^2, from joints q, v and setpoint c, w, (K, 2) each.

    Source of M and C: Lynch and Park, Modern Robotics (2017), section 8.1.2, equations 8.11-8.13.
    """
    torque = clip((c - q) * arm.position_gain + (w - v) * arm.velocity_gain,
                  -arm.effort, arm.effort)  # fmt: skip
    force = torque - v * arm.viscous - tanh(v * (1.0 / SLOW)) * arm.coulomb
    v1, v2, q2 = v[:, 0:1], v[:, 1:2], q[:, 1:2]
    far, pull = cos(q2) * arm.beta, sin(q2) * arm.beta
    f1 = force[:, 0:1] + pull * v2 * (v1 * 2.0 + v2)
    f2 = force[:, 1:2] - pull * v1 * v1
    m11, m12 = far * 2.0 + arm.alpha, far + arm.delta
    determinant = m11 * arm.gamma - m12 * m12
    first, second = f1 * arm.gamma - m12 * f2, m11 * f2 - m12 * f1
    return side_by_side([first / determinant, second / determinant])


def lead(arm: Arm, c, w, action, left, h):
    """The setpoint's velocity after `h` (K, 1) s, on its way to `action` in `left` (K, 1) s."""
    wanted = clip((action - c) / left, -arm.speed, arm.speed)
    change = h * arm.acceleration
    return clip(wanted, w - change, w + change)


def step(arm: Arm, q, v, c, w, action, dt, substeps: int = SUBSTEPS):
    """Joints and setpoint after `dt` (K, 1) s: Runge and Kutta's fourth order, `substeps` times."""
    h = dt * (1.0 / substeps)
    half = h * 0.5
    for index in range(substeps):
        w_end = lead(arm, c, w, action, h * float(substeps - index), h)
        c_mid, w_mid = c + half * (w * 0.75 + w_end * 0.25), (w + w_end) * 0.5
        c_end = c + h * w_mid
        a1 = acceleration(arm, q, v, c, w)
        v2 = v + half * a1
        a2 = acceleration(arm, q + half * v, v2, c_mid, w_mid)
        v3 = v + half * a2
        a3 = acceleration(arm, q + half * v2, v3, c_mid, w_mid)
        v4 = v + h * a3
        a4 = acceleration(arm, q + h * v3, v4, c_end, w_end)
        q = q + h * (v + (v2 + v3) * 2.0 + v4) * (1.0 / 6.0)
        v = v + h * (a1 + (a2 + a3) * 2.0 + a4) * (1.0 / 6.0)
        c, w = c_end, w_end
    return q, v, c, w


# ---- places --------------------------------------------------------------------------------
def directions(q):
    """(K, 2) x and (K, 2) y of the two segments' directions."""
    heading = q @ np.array([[1.0, 1.0], [0.0, 1.0]])
    return cos(heading), sin(heading), heading


def tool(arm: Arm, q):
    """(K, 3): x, y (m) and heading (rad) of the tool."""
    x, y, heading = directions(q)
    reach = np.array([[arm.lengths[0]], [arm.lengths[1]]])
    return side_by_side([x @ reach, y @ reach, heading[:, 1:2]])


def clearance(arm: Arm, q):
    """(K, 1) m between the body's spheres and the nearest of post and walls; negative inside."""
    x, y, _ = directions(q)
    x, y = x @ arm.along, y @ arm.along
    low_x, low_y, high_x, high_y = arm.walls
    dx, dy = x - arm.post[0], y - arm.post[1]
    to_post = sqrt(dx * dx + dy * dy) - (arm.post[2] + arm.radii)
    return least(side_by_side([
        to_post, x - (low_x + arm.radii), y - (low_y + arm.radii),
        (high_x - arm.radii) - x, (high_y - arm.radii) - y,
    ]))  # fmt: skip


def at_rest(arm: Arm, c, w):
    """(K, 2): where the setpoint would come to rest if it braked now."""
    return c + w * absolute(w) * (0.5 / arm.braking)
