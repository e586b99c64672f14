"""A link to a robot that stands still: what its sensors would say in an empty place.

A trial runs the real runtime with its threads, deadlines and guard, but a robot is not moved for
it and no simulator is needed: every stream of the robot file delivers plausible samples at its
rate, and setpoints go nowhere. The camera sees gray with a little noise, the range scanner nothing,
joints stand in the middle of their range.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from edge_wm.robot import Robot, Stream
from edge_wm.types import Array, Goal, JointGoal, PoseGoal, Sample, Setpoint

GRAVITY = 9.81  # m/s^2, up: what an accelerometer at rest reads
GRAY, GRAY_NOISE = 128.0, 4.0  # levels


class StandingRobot:
    """A `Link` in real time. Setpoints are taken, and have no effect."""

    def __init__(self, robot: Robot) -> None:
        self._random = np.random.default_rng(0)
        self._start_ns = time.monotonic_ns()
        self._streams = [s for s in robot.streams.values() if not s.derived_from]
        self._due_ns = {stream.name: self._start_ns for stream in self._streams}
        self._sequence = {stream.name: 0 for stream in self._streams}
        axes = {axis.name: axis for axis in robot.axes}
        self._rest = {name: _middle(a.position_min, a.position_max) for name, a in axes.items()}
        self._now_ns = self._start_ns

    @property
    def now_ns(self) -> int:
        return self._now_ns

    def send(self, setpoint: Setpoint) -> None:
        del setpoint

    def step_to(self, now_ns: int) -> list[Sample]:
        samples = []
        for stream in self._streams:
            while self._due_ns[stream.name] <= now_ns:
                stamp_ns = self._due_ns[stream.name]
                self._due_ns[stream.name] += stream.period_ns
                self._sequence[stream.name] += 1
                if stamp_ns + 2 * stream.period_ns > now_ns:  # after a stall only what is new
                    data = self._measured(stream)
                    sequence = self._sequence[stream.name]
                    samples.append(Sample(stream.name, stamp_ns, now_ns, sequence, data))
        self._now_ns = now_ns
        return sorted(samples, key=lambda sample: sample.stamp_ns)

    def close(self) -> None:
        pass

    def _measured(self, stream: Stream) -> Array:
        measure: dict[str, Callable[[Stream], Array]] = {
            "image": self._image,
            "joint_state": self._joints,
            "imu": self._imu,
            "range_scan": self._ranges,
        }
        data = measure.get(stream.type, self._still)(stream)
        return np.ascontiguousarray(data.astype(stream.dtype))

    def _image(self, stream: Stream) -> Array:
        return np.clip(self._random.normal(GRAY, GRAY_NOISE, stream.shape), 0, 255)

    def _joints(self, stream: Stream) -> Array:
        state = np.zeros(stream.shape)
        state[0] = [self._rest.get(joint, 0.0) for joint in stream.joints]
        return state

    def _imu(self, stream: Stream) -> Array:
        still = np.array([0.0, 0.0, 0.0, 0.0, 0.0, GRAVITY])
        return still + self._random.normal(0.0, 1e-3, stream.shape)

    def _ranges(self, stream: Stream) -> Array:
        return stream.range_max - np.abs(self._random.normal(0.01, 1e-3, stream.shape))

    def _still(self, stream: Stream) -> Array:
        return np.zeros(stream.shape)


def near_goal(robot: Robot) -> Goal:
    """A goal that the standing robot can be asked to plan for: a little ahead of it."""
    if robot.base is not None:
        frame = next(s.frame for s in robot.streams.values() if s.type == "odometry")
        return PoseGoal(1.0, 0.0, None, frame)
    return JointGoal(
        np.array([_middle(axis.position_min, axis.position_max) + 0.1 for axis in robot.axes])
    )


def _middle(low: float, high: float) -> float:
    return (low + high) / 2 if math.isfinite(low + high) else 0.0
