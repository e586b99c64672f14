"""What a base's range scanner sees, where a base is that obeys the commands.

A scan is seen at one moment and used at a later one. Its points are kept in the frame of the
commanded way (see `ranges`), so that they need not be moved when the base goes on: only the pose
that is asked about moves.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_wm.guard.commanded import Commanded
from edge_wm.guard.ranges import ORIGIN, Scanner, are_clear, between, moved_back
from edge_wm.robot import Robot, Stream
from edge_wm.types import Bool, Float32, Float64, Sample

# After a stop at an obstacle the way must be clear by this much more before driving on (m), or
# the noise of the scanner (some mm to 1 cm) would start and stop the base in turn.
RESUME_MARGIN = 0.02

# Something near ends being near at this many slow distances, for the same reason.
SLOW_RELEASE = 1.2

# How far `foresight` looks: about as long as it takes to stop.
FORESIGHT_NS = 600_000_000


class Surroundings:
    """The newest usable scan of one robot that has `stopping`."""

    def __init__(self, robot: Robot, commanded: Commanded) -> None:
        self._scanner = Scanner(robot)
        self._robot = robot
        self._commanded = commanded
        self.stream: Stream = self._scanner.stream
        # the circle (m) to be kept free, and how far (m) points of a scan can matter
        self.clear_radius, self._sight = _radii(robot, commanded)
        self.points: Float64 | None = None  # (2, P) m; None: no usable scan
        self._scan: Sample | None = None  # the one that `points` are of

    def look(self, scan: Sample | None) -> None:
        """Take the newest scan; None: there is none that can be used."""
        if scan is None:
            self._scan, self.points = None, None
        elif scan is not self._scan:
            points = self._scanner.points(scan.data)
            self._scan, self.points = scan, None
            if points is not None:
                points = points[:, np.square(points).sum(axis=0) < self._sight**2]
                seen_from = self._commanded.pose_at(scan.stamp_ns - self._robot.actuation_delay_ns)
                self.points = moved_back(points, between(seen_from, ORIGIN))

    def foresight(self, start_ns: int, step_ns: int) -> Callable[[Float32], Bool] | None:
        """Tells which of a planner's candidates the raw ranges will let pass at first.

        The answer is a function of actions (K, H, A), each held for `step_ns` from `start_ns` on,
        that gives (K,) False where the base would come too near to a point of the newest scan
        within `FORESIGHT_NS`. None without a scan. A planner that asks it does not propose what
        the guard would only brake for; what the guard enforces is untouched by it.
        """
        vx, wz = self._commanded.playback.vx, self._commanded.playback.wz
        if self.points is None or vx is None or wz is None or not self._commanded.knots:
            return None
        points = moved_back(self.points, self._commanded.predict(start_ns).pose)
        steps = max(1, FORESIGHT_NS // step_ns)
        axis = self._robot.axes[vx]
        fastest = max(-axis.velocity_min, axis.velocity_max)
        radius = self.clear_radius + RESUME_MARGIN
        reach = radius + steps * step_ns * 1e-9 * fastest
        points = points[:, np.square(points).sum(axis=0) < reach**2]

        def passes(actions: Float32) -> Bool:
            twists = actions[:, :steps, [vx, wz]].astype(np.float64)
            return are_clear(points, twists, step_ns * 1e-9, radius)

        return passes


def _radii(robot: Robot, commanded: Commanded) -> tuple[float, float]:
    playback = commanded.playback
    assert robot.base is not None
    assert robot.stopping is not None
    assert playback.vx is not None
    axis = robot.axes[playback.vx]
    fastest = max(axis.velocity_max, -axis.velocity_min)
    seconds = 1e-9 * (
        robot.streams[robot.stopping.stream].max_age_ns
        + robot.actuation_delay_ns
        + 2 * robot.setpoint_period_ns
        + robot.dead_man_ns
    )
    clear = robot.base.footprint_radius + robot.stopping.margin
    ahead = playback.laws[playback.vx].stopping_distance(fastest, axis.acceleration)
    slow = SLOW_RELEASE * robot.stopping.slow_distance
    return clear, clear + RESUME_MARGIN + slow + ahead + fastest * seconds
