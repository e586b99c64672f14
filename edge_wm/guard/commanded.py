"""What was commanded, and what will be if nothing new is accepted.

    ... knots that were sent ...  newest │ predicted: the accepted trajectory, then braking, rest
    ────x──x──x──x──x──x──x──x──x──x──X──┼──o──o──o──o──o──o──o
                                     next to be reached

The guard decides one knot after another and appends it here. Whoever plans asks here for the
motion that acts and for the command that a new trajectory has to start at; in a process of its
own it asks a `Mirror` of this. Both predict with `Playback.following`, the guard's own rule, so
a prediction comes true to the last bit unless the guard intervenes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import inf

import numpy as np

from edge_wm.guard.playback import Cursor, How, Knot, Playback
from edge_wm.guard.ranges import ORIGIN, Pose
from edge_wm.robot import Robot
from edge_wm.types import Command, Motion

# How long sent knots are kept: the world model asks for the commands since an image was taken.
HISTORY_NS = 3_000_000_000


class Commanded:
    """The knots of one robot, and how they go on."""

    def __init__(self, robot: Robot) -> None:
        self.playback = Playback(robot)
        self.knots: list[Knot] = []  # the newest is the next to be reached
        self.times: list[int] = []  # of the knots
        self.cursor = Cursor()
        self.how = How.brake  # how the newest knot was chosen
        self.top_speed = inf  # m/s, of the base's driving
        self._axes = robot.axis_names

    def append(self, knot: Knot) -> None:
        """Add the next knot; the oldest ones are forgotten after a while."""
        self.knots.append(knot)
        self.times.append(knot.time_ns)
        kept = HISTORY_NS // self.playback.period_ns
        if len(self.knots) > 2 * kept:
            del self.knots[:-kept]
            del self.times[:-kept]

    def knot_at(self, time_ns: int) -> Knot:
        """The newest knot at or before `time_ns`, or the oldest kept."""
        return self.knots[max(0, bisect_right(self.times, time_ns) - 1)]

    def pose_at(self, time_ns: int) -> Pose:
        """Where a base is that obeys the commands, at `time_ns` (held beyond the ends)."""
        index = bisect_right(self.times, time_ns)
        if index == 0 or index == len(self.knots):
            return self.knots[max(0, index - 1)].pose
        before, after = self.knots[index - 1], self.knots[index]
        share = (time_ns - before.time_ns) / (after.time_ns - before.time_ns)
        x, y, yaw = (b + share * (a - b) for b, a in zip(before.pose, after.pose, strict=True))
        return x, y, yaw

    def command_at(self, at_ns: int) -> Command:
        """What is commanded at the first knot from `at_ns` on that a trajectory can start at."""
        if not self.knots:
            zero = np.zeros(len(self._axes))
            return Command(at_ns, zero, zero, zero)
        knot = self.predict(max(at_ns, self.times[-1]))
        return Command(
            knot.time_ns,
            np.array(knot.position),
            np.array(knot.velocity),
            np.array(knot.acceleration),
        )

    def motion(self, from_ns: int, until_ns: int) -> Motion:
        """What was commanded, and will be if nothing new is accepted, from `from_ns` on.

        Before the first knot, and beyond the kept history, the oldest one is held.
        """
        knots = self.knots[max(0, bisect_right(self.times, from_ns) - 1) :]
        if not knots:
            rest = (0.0,) * len(self._axes)
            knots = [self.playback.rest(from_ns, rest, ORIGIN)]
        if self.knots:
            knots = knots[: bisect_left([k.time_ns for k in knots], until_ns) + 1]
            knots += self.predicted(until_ns)
        times = np.array([knot.time_ns for knot in knots])
        inside = (times > from_ns) & (times < until_ns)
        wanted = np.concatenate(([from_ns], times[inside], [until_ns])).astype(np.int64)
        wanted = np.unique(wanted)
        # float64 holds a time since `from_ns` exactly, but not always one since 1970
        since, at = (times - from_ns).astype(np.float64), (wanted - from_ns).astype(np.float64)
        position = np.array([knot.position for knot in knots])
        velocity = np.array([knot.velocity for knot in knots])
        columns = range(len(self._axes))
        return Motion(
            axes=self._axes,
            times_ns=wanted,
            position=np.stack([np.interp(at, since, position[:, c]) for c in columns], axis=1),
            velocity=np.stack([np.interp(at, since, velocity[:, c]) for c in columns], axis=1),
        )

    def predict(self, time_ns: int) -> Knot:
        """The knot at or just after `time_ns`, not before the newest."""
        predicted = self.predicted(time_ns)
        return predicted[-1] if predicted else self.knots[-1]

    def predicted(self, until_ns: int) -> list[Knot]:
        """The knots after the newest one, up to the first at or after `until_ns`."""
        knot, cursor = self.knots[-1], self.cursor
        how = How.play if cursor.track is None else self.how
        knots = []
        while knot.time_ns < until_ns:
            if knot.at_rest and cursor.empty:
                ahead_ns = until_ns - knot.time_ns
                ahead_ns += -ahead_ns % self.playback.period_ns
                knot = self.playback.rest(knot.time_ns + ahead_ns, knot.position, knot.pose)
            else:
                knot, cursor, _ = self.playback.following(knot, cursor, how, self.top_speed)
            knots.append(knot)
        return knots
