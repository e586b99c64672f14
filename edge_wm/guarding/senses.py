"""What a process makes of the samples that reach it: odometry, and the views that ticks look at.

Each process that decides something computes the odometry itself, from the same samples: nothing
that keeps a robot from an obstacle waits for another process's estimate.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge_wm.odometry import Odometry
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.synchronizer import Synchronizer
from edge_wm.types import Drop, Sample

GUARD_STREAM_TYPES = ("range_scan", "joint_state", "odometry")


def guard_streams(robot: Robot) -> list[str]:
    """The streams that the guard looks at."""
    return [name for name, s in robot.streams.items() if s.type in GUARD_STREAM_TYPES]


class Senses:
    """Hands samples to views, and adds the odometry that the robot file derives."""

    def __init__(self, robot: Robot, views: Sequence[Synchronizer]) -> None:
        pose = robot.pose_stream
        self._odometry = Odometry(robot) if pose is not None and pose.derived_from else None
        self._views = {n: [v for v in views if n in v.streams] for n in robot.streams}

    def push(self, sample: Sample) -> tuple[Sample | None, list[Drop]]:
        """Take a sample in. Returns the odometry made of it, and what only odometry refused."""
        for view in self._views[sample.stream]:
            view.push(sample)
        if self._odometry is None:
            return None, []
        derived = self._odometry.push(sample)
        if derived is not None:
            for view in self._views[derived.stream]:
                view.push(derived)
        # What a view refuses too is told by the view.
        drops = self._odometry.drops()
        told = Reason.sample_implausible
        return derived, [d for d in drops if d.reason is told or not self._views[d.stream]]
