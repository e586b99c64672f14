"""How long commands take to act, learned while driving: what was commanded against what moved.

For every delay d and every lag of the motors on a grid, the commanded velocity, smoothed by the
lag (first order) and shifted by the delay, is held against the measured one; the squares fade over
a few seconds, and the pair with the least of them is it:

    S(t) = f S(t-1) + sum over samples and axes of ((measured(s) - lagged(s - d)) / limit)^2

Only the delay is used: the lag belongs to the dynamics that a world model has learned. A robot
that stands, or drives evenly, says nothing about either: then the estimate stays where it is.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_wm.robot import Robot
from edge_wm.types import Float64, Motion, Sample

TWIST = {"base.vx": 3, "base.vy": 4, "base.wz": 5}  # place in an odometry sample's data
STEP_NS = 5_000_000
LAGS = (0.0, 0.02, 0.04, 0.07, 0.11)  # s, time constants
SETTLES = 5.0  # time constants after which what was before is forgotten
EARLIER_NS, LATER_NS = 40_000_000, 160_000_000  # how far from the robot file's value it may go
FADE = 0.98  # a plan tick: 2.5 s at 20 Hz
NEEDED = 0.2  # what the worst delay's squares must amount to, of the velocity limit's
CLEAR = 0.3  # the best delay's squares, over the worst's
ALIKE = 1.2  # squares so much above the least are as good
FOLLOW = 0.1  # of the difference, a plan tick: about 0.5 s


class AxisSpeeds:
    """The velocities of a robot's axes in its samples."""

    def __init__(self, robot: Robot) -> None:
        pose = robot.pose_stream
        self.stream: str | None = None
        self.columns: list[int] = []  # into odometry, or into a joint_state's columns
        self.by_pose = pose is not None and all(name in TWIST for name in robot.axis_names)
        if self.by_pose and pose is not None:
            self.stream, self.columns = pose.name, [TWIST[name] for name in robot.axis_names]
            return
        found = [robot.joint_stream(name) for name in robot.axis_names]
        names = {f[0].name for f in found if f is not None}
        if None not in found and len(names) == 1:
            self.stream = names.pop()
            self.columns = [f[1] for f in found if f is not None]

    def of(self, sample: Sample) -> Float64 | None:
        """(A,), m/s and rad/s; None where the sample does not say."""
        if sample.stream != self.stream:
            return None
        row = sample.data if self.by_pose else sample.data[1]
        return np.asarray(row[self.columns], np.float64)


class DelayEstimate:
    """See the head of this file. Not thread-safe: the caller serializes the calls."""

    def __init__(self, robot: Robot) -> None:
        self._speeds = AxisSpeeds(robot)
        nominal_ns = robot.actuation_delay_ns
        earliest_ns = max(0, nominal_ns - EARLIER_NS)
        self._grid_ns = np.arange(earliest_ns, nominal_ns + LATER_NS + 1, STEP_NS)
        self._squares = np.zeros((len(LAGS), len(self._grid_ns)))
        self._limit = np.array([max(a.velocity_max, -a.velocity_min) for a in robot.axes])
        self._axes = len(robot.axes)
        self._stamps: list[int] = []
        self._rows: list[Float64] = []
        self._ns = float(nominal_ns)

    @property
    def delay_ns(self) -> int:
        """From sending a setpoint to its effect; the robot file's value at first."""
        return round(self._ns)

    def measured(self, sample: Sample) -> None:
        """A sample arrived."""
        row = self._speeds.of(sample)
        if row is None or not np.isfinite(row).all():
            return
        self._stamps.append(sample.stamp_ns)
        self._rows.append(row)

    def compare(self, motion: Callable[[int, int], Motion]) -> None:
        """Once a plan tick. motion: what was commanded between two times."""
        if not self._stamps:
            return
        stamps, rows = np.array(self._stamps, np.int64), np.array(self._rows)
        self._stamps, self._rows = [], []
        before_ns = int(self._grid_ns[-1]) + round(SETTLES * LAGS[-1] * 1e9)
        first_ns, last_ns = int(stamps.min()) - before_ns, int(stamps.max())
        commanded = motion(first_ns, last_ns + 1)
        # float64 holds a time since `first_ns` exactly, but not always one since 1970
        known = (commanded.times_ns - first_ns).astype(np.float64)
        grid = np.arange(0.0, last_ns - first_ns + STEP_NS, STEP_NS)
        asked = ((stamps - first_ns)[:, None] - self._grid_ns[None, :]).astype(np.float64)
        self._squares *= FADE
        for axis in range(self._axes):
            velocity = np.interp(grid, known, commanded.velocity[:, axis])
            for number, lag in enumerate(LAGS):
                shifted = np.interp(asked, grid, _lagged(velocity, lag))
                apart = (rows[:, axis, None] - shifted) / self._limit[axis]
                self._squares[number] += (apart**2).sum(axis=0)
        most = float(self._squares.max())
        if most < NEEDED or float(self._squares.min()) > CLEAR * most:
            return
        # An even motion tells a lag from a delay badly: the least lag that explains it will do.
        least = self._squares.min(axis=1)
        squares = self._squares[int(np.argmax(least <= ALIKE * least.min()))]
        self._ns += FOLLOW * (self._between(squares, int(squares.argmin())) - self._ns)

    def _between(self, squares: Float64, best: int) -> float:
        """The lowest point of the parabola through the best delay and its neighbours, ns."""
        if not 0 < best < len(self._grid_ns) - 1:
            return float(self._grid_ns[best])
        before, here, after = squares[best - 1 : best + 2]
        curve = before - 2 * here + after
        shift = 0.5 * (before - after) / curve if curve > 0.0 else 0.0
        return float(self._grid_ns[best] + shift * STEP_NS)


def _lagged(velocity: Float64, lag: float) -> Float64:
    """`velocity`, STEP_NS apart, behind a first-order lag (s); it began even."""
    if lag == 0.0:
        return velocity
    count = round(SETTLES * lag * 1e9 / STEP_NS)
    weights = np.exp(-np.arange(count) * (STEP_NS * 1e-9) / lag)
    before = np.full(count - 1, velocity[0])
    return np.convolve(np.concatenate([before, velocity]), weights / weights.sum(), "valid")
