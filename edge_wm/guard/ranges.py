"""Raw ranges against the way that the base is about to take, without any model.

A scan is a set of points around the base, seen a little while ago. Since then the base has gone
on, by what was commanded: a command of time t acts at t + delay, so a scan of time s shows what a
base saw that had obeyed the commands up to s - delay. Its points are therefore moved back by the
commanded way from s - delay on; scan age and actuation delay need no term of their own.

    stopping distance = |v| · (age + delay)      the commanded way since s - delay, exactly
                      + |v| · period             the knot that is being decided
                      + |v| · B / 2J             while jerk J builds up the deceleration B
                      + v² / 2B                  at that deceleration
                      + margin

(for a straight way at constant speed, and v >= B² / J, see `AxisLaw.stopping_distance`). For any
other way nothing is approximated: the guard simulates its own brake and this room looks whether
the footprint circle, grown by the margin, meets a point.

The one invariant: a way is refused if it comes nearer to a point than the margin allows, or, if
the point is within the margin already, nearer than the way began. So turning in place and going
away are always possible, and creeping up is not.
"""

from __future__ import annotations

from math import cos, pi, sin

import numpy as np

from edge_wm.robot import Robot
from edge_wm.types import Array, Bool, Float64

Pose = tuple[float, float, float]  # x, y (m), yaw (rad)
ORIGIN: Pose = (0.0, 0.0, 0.0)

# Rounding of 64 bits in distances of some meters, far below anything physical.
ROUNDING = 1e-9

LOOKS = 3  # a step, by `are_clear`: every 3.5 cm at 0.7 m/s and 150 ms


class Scanner:
    """The range scanner of a robot file, on its base."""

    def __init__(self, robot: Robot) -> None:
        """The robot must have `stopping` (the robot file's check sees to a base and a scanner)."""
        assert robot.stopping is not None
        self.stream = robot.streams[robot.stopping.stream]
        angles = self.stream.beam_angles()
        beams = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)])
        placed = self.stream.extrinsics
        self._origin = np.zeros((2, 1))
        self._beams: Float64 = beams[:2]
        if placed is not None:
            self._beams = (placed.rotation() @ beams)[:2]
            self._origin = np.array(placed.xyz[:2])[:, None]

    def points(self, ranges: Array) -> Float64 | None:
        """(2, P) m: what the beams hit, in the base frame; None if the scan cannot be used.

        ranges: (R,) m, +inf where nothing is in range. A reading below `range_min` is taken for
        what it says, since something is very near; NaN or a negative one spoils the scan.
        """
        if ranges.shape != self.stream.shape or not (ranges >= 0.0).all():
            return None
        hit = ranges < self.stream.range_max
        points: Float64 = self._origin + self._beams[:, hit] * ranges[hit]
        return points


def moved_back(points: Float64, by: Pose) -> Float64:
    """(2, P): points of one frame, seen from a frame that is at `by` in it."""
    x, y, yaw = by
    c, s = cos(yaw), sin(yaw)
    dx, dy = points[0] - x, points[1] - y
    return np.stack([c * dx + s * dy, c * dy - s * dx])


def is_clear(points: Float64, way: Float64, radius: float) -> bool:
    """True if a circle may go along `way`.

    points: (2, P) m; way: (M, 2) m, positions of its center, the first where it is now, dense
    compared with `radius` (m). See the invariant above.
    """
    apart = np.square(way[:, :1] - points[0]) + np.square(way[:, 1:] - points[1])
    now = apart[0]
    allowed = np.minimum(radius**2, now) - ROUNDING
    return bool((apart >= allowed).all())


def are_clear(points: Float64, twists: Float64, step_s: float, radius: float) -> Bool:
    """Which of K sequences of twists take a circle nowhere that `is_clear` would forbid. (K,)

    points: (2, P) m, seen from where it starts; twists: (K, S, 2) vx, wz, each held for
    `step_s`. Looked at `LOOKS` times a step, on the arc's chord in its middle heading.
    """
    count = len(twists)
    x, y, yaw = np.zeros(count), np.zeros(count), np.zeros(count)
    allowed = np.minimum(radius**2, np.square(points).sum(axis=0)) - ROUNDING
    clear = np.ones(count, np.bool_)
    part_s = step_s / LOOKS
    for i in range(twists.shape[1] * LOOKS):
        vx, wz = twists[:, i // LOOKS, 0], twists[:, i // LOOKS, 1]
        heading = yaw + 0.5 * part_s * wz
        x, y = x + part_s * vx * np.cos(heading), y + part_s * vx * np.sin(heading)
        yaw = yaw + part_s * wz
        apart = np.square(x[:, None] - points[0]) + np.square(y[:, None] - points[1])
        clear &= (apart >= allowed).all(axis=1)
    return clear


def free_way(points: Float64, vx: float, wz: float, radius: float) -> float:
    """How far (m) a circle can go on the arc of the twist (vx, wz) until it meets a point.

    points: (2, P) m in its frame. +inf if the arc meets none, or if it only turns. The arc has
    its center at (0, r), r = vx / wz; a point at distance q from that center is met where

        cos(angle between) = (r² + q² - radius²) / (2 r q)          (law of cosines)

    Points that the circle overlaps already count if they are ahead.
    """
    if vx == 0.0 or points.shape[1] == 0:
        return np.inf
    x = points[0] if vx > 0.0 else -points[0]  # backwards is forwards in a mirror
    if abs(wz) < 1e-6 * abs(vx):
        beside = np.abs(points[1])
        met = (beside < radius) & (x > 0.0)
        ways = x[met] - np.sqrt(radius**2 - np.square(beside[met]))
        return max(0.0, float(ways.min())) if len(ways) else np.inf
    r = abs(vx / wz)
    y = points[1] if vx * wz > 0.0 else -points[1]  # a turn to the left, in a mirror else
    q = np.sqrt(np.square(x) + np.square(y - r))
    cosine = (r * r + q * q - radius**2) / np.maximum(2.0 * r * q, ROUNDING)
    met = cosine < 1.0
    if not met.any():
        return np.inf
    middle = np.arctan2(x[met], r - y[met])  # 0 is where the circle is now
    half = np.arccos(np.maximum(cosine[met], -1.0))
    angle = middle - half
    overlapping = np.abs(middle) < half
    angle = np.where(angle < 0.0, angle + 2.0 * pi, angle)
    angle = np.where(overlapping, np.where(middle > 0.0, 0.0, 2.0 * pi), angle)
    return float(angle.min()) * r


def compose(first: Pose, then: Pose) -> Pose:
    """The pose that is at `then` in the frame that is at `first`."""
    c, s = cos(first[2]), sin(first[2])
    return (
        first[0] + c * then[0] - s * then[1],
        first[1] + s * then[0] + c * then[1],
        first[2] + then[2],
    )


def between(start: Pose, end: Pose) -> Pose:
    """Where `end` is, seen from `start`."""
    c, s = cos(start[2]), sin(start[2])
    dx, dy = end[0] - start[0], end[1] - start[1]
    return c * dx + s * dy, c * dy - s * dx, end[2] - start[2]
