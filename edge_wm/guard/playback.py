"""What is commanded, knot by knot: accepted trajectories, slower, without driving, or braking.

    accepted trajectories ──► Cursor (which, how far) ─┐
                                                       ├─► following(…) ─► next Knot, next Cursor
    last Knot (position, velocity, acceleration) ──────┘

`following` is pure: the guard calls it to decide the next knot, and calls it again and again to
say what will be commanded if nothing new comes. Both therefore agree to the last bit.

The one invariant: every knot follows from the one before within the limits of velocity,
acceleration and jerk (see `AxisLaw`), however it is chosen.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from math import cos, floor, inf, sin

import numpy as np

from edge_wm.guard.axis import AxisLaw
from edge_wm.guard.ranges import Pose
from edge_wm.robot import Robot
from edge_wm.types import Float64, Trajectory

# An axis this near to a trajectory (as a share of what one period of full jerk changes) is on it.
ON_TRACK = 1e-6


class How(Enum):
    """How the accepted trajectory is used for the next knot."""

    play = "play"  # as planned, or slower
    turn = "turn"  # the base's turning as planned, its driving brakes
    brake = "brake"  # every axis comes to rest, each as quickly as it may


@dataclass(frozen=True, slots=True)
class Knot:
    """What is commanded at one moment. For velocity and twist axes position is distance."""

    time_ns: int
    position: tuple[float, ...]
    velocity: tuple[float, ...]
    acceleration: tuple[float, ...]
    effort: tuple[float, ...]  # N m or N; zero while braking
    pose: Pose  # of a base that obeyed all commands, since the first

    @property
    def at_rest(self) -> bool:
        return not (any(self.velocity) or any(self.acceleration))


class Track:
    """An accepted trajectory, as plain numbers."""

    def __init__(self, trajectory: Trajectory) -> None:
        self.start_ns = trajectory.start_ns
        self.sequence = trajectory.sequence
        self.brake_index = trajectory.brake_index
        self.last = len(trajectory.position) - 1
        self.commands_effort = trajectory.effort is not None
        self._position = trajectory.position.tolist()
        self._velocity = trajectory.velocity.tolist()
        self._acceleration = trajectory.acceleration.tolist()
        self._effort = None if trajectory.effort is None else trajectory.effort.tolist()

    def position(self, at: float, axis: int) -> float:
        return _between_rows(self._position, at, self.last, axis)

    def motion(self, at: float, axis: int) -> tuple[float, float]:
        """Velocity and acceleration, `at` periods after the start; at rest after the end."""
        if at > self.last:
            return 0.0, 0.0
        return (
            _between_rows(self._velocity, at, self.last, axis),
            _between_rows(self._acceleration, at, self.last, axis),
        )

    def effort(self, at: float, axis: int) -> float:
        if self._effort is None:
            return 0.0
        return float(self._effort[min(floor(at), self.last)][axis])


def _between_rows(rows: list[list[float]], at: float, last: int, axis: int) -> float:
    index = floor(at)
    if index >= last:
        return rows[last][axis]
    share = at - index
    before = rows[index][axis]
    return before + share * (rows[index + 1][axis] - before) if share else before


@dataclass(frozen=True, slots=True)
class Cursor:
    """Which accepted trajectory is being played, how far it is, and which ones wait."""

    track: Track | None = None
    at: float = 0.0  # periods since the track's start, at the last knot
    waiting: tuple[Track, ...] = ()  # by start time

    @property
    def empty(self) -> bool:
        return self.track is None and not self.waiting

    def at_knot(self, time_ns: int, period_ns: int) -> Cursor:
        """The same once the trajectories that start by `time_ns` have taken over."""
        cursor = self
        while cursor.waiting and cursor.waiting[0].start_ns <= time_ns:
            track, *waiting = cursor.waiting
            cursor = Cursor(track, (time_ns - track.start_ns) / period_ns, tuple(waiting))
        return cursor


class Playback:
    """How the axes of one robot go from knot to knot."""

    def __init__(self, robot: Robot) -> None:
        self.period_ns = robot.setpoint_period_ns
        self.period_s = robot.setpoint_period_ns * 1e-9
        self.laws = [AxisLaw(axis, self.period_s) for axis in robot.axes]
        names = robot.axis_names
        self.vx = names.index("base.vx") if robot.base is not None else None
        self.wz = names.index("base.wz") if robot.base is not None else None

    def rest(self, time_ns: int, position: tuple[float, ...], pose: Pose) -> Knot:
        """The knot of standing still at `position`."""
        zero = (0.0,) * len(self.laws)
        return Knot(time_ns, position, zero, zero, zero, pose)

    def following(
        self, knot: Knot, cursor: Cursor, how: How, top_speed: float = inf
    ) -> tuple[Knot, Cursor, float]:
        """The next knot, the cursor at it, and the share (0..1) of the planned driving speed.

        top_speed: m/s, for the base's driving: where the plan is faster, all of it is played as
        much slower, so that the base stays on its path.
        """
        cursor = cursor.at_knot(knot.time_ns, self.period_ns)
        track, scale = cursor.track, 1.0
        if track is not None and self.vx is not None and how is How.play:
            planned = abs(track.motion(cursor.at + 1.0, self.vx)[0])
            scale = min(1.0, top_speed / planned) if planned else 1.0
        at = cursor.at + scale

        motions = []
        positions = []
        for axis, law in enumerate(self.laws):
            p, v, a = knot.position[axis], knot.velocity[axis], knot.acceleration[axis]
            brakes = track is None or how is How.brake or (how is How.turn and axis == self.vx)
            if brakes or track is None:
                then = law.brake(v, a)
            else:
                then, on_track = _toward(law, (v, a), track, cursor.at, at, scale, axis)
                if on_track and law.axis.kind == "position":
                    motions.append(then)
                    positions.append(track.position(at, axis))
                    continue
            motions.append(then)
            positions.append(p + self.period_s * (v + self.period_s / 6.0 * (2.0 * a + then[1])))

        if how is not How.play or track is None:
            scale = 0.0
        if how is How.brake or track is None:
            efforts = (0.0,) * len(self.laws)
        else:
            efforts = tuple(track.effort(at, axis) for axis in range(len(self.laws)))
        velocity = tuple(v for v, _ in motions)
        following = Knot(
            knot.time_ns + self.period_ns,
            tuple(positions),
            velocity,
            tuple(a for _, a in motions),
            efforts,
            self.driven(knot.pose, knot.velocity, velocity),
        )
        if track is not None and at >= track.last and following.at_rest:
            return following, Cursor(waiting=cursor.waiting), scale
        return following, Cursor(track, at, cursor.waiting), scale

    def driven(self, pose: Pose, before: tuple[float, ...], after: tuple[float, ...]) -> Pose:
        """Where a base at `pose` is one period later, its velocities changing linearly."""
        if self.vx is None or self.wz is None:
            return pose
        way = 0.5 * self.period_s * (before[self.vx] + after[self.vx])
        turn = 0.5 * self.period_s * (before[self.wz] + after[self.wz])
        heading = pose[2] + 0.5 * turn
        return pose[0] + way * cos(heading), pose[1] + way * sin(heading), pose[2] + turn

    def brake_path(self, knot: Knot) -> Float64:
        """(M, 3) poses of a base that brakes from `knot` to rest, one per period, `knot` first."""
        assert self.vx is not None
        assert self.wz is not None
        columns = [
            [knot.velocity[axis]]
            + [
                v
                for v, _ in self.laws[axis].brake_way(knot.velocity[axis], knot.acceleration[axis])
            ]
            for axis in (self.vx, self.wz)
        ]
        velocity = np.zeros((2, max(map(len, columns))))
        for row, column in zip(velocity, columns, strict=True):
            row[: len(column)] = column
        return driven_path(knot.pose, velocity[0], velocity[1], self.period_s)


def driven_path(start: Pose, vx: Float64, wz: Float64, period_s: float) -> Float64:
    """(N, 3) poses of a base at `start` whose velocities (N,) change linearly between knots."""
    steps = 0.5 * period_s * np.stack([vx[:-1] + vx[1:], wz[:-1] + wz[1:]])
    path = np.empty((len(vx), 3))
    path[0] = start
    path[1:, 2] = start[2] + np.cumsum(steps[1])
    heading = path[:-1, 2] + 0.5 * steps[1]
    path[1:, 0] = start[0] + np.cumsum(steps[0] * np.cos(heading))
    path[1:, 1] = start[1] + np.cumsum(steps[0] * np.sin(heading))
    return path


def _toward(
    law: AxisLaw,
    motion: tuple[float, float],
    track: Track,
    at: float,
    then_at: float,
    scale: float,
    axis: int,
) -> tuple[tuple[float, float], bool]:
    """The next motion of one axis after its trajectory, and whether it is exactly on it."""
    now, then = track.motion(at, axis), track.motion(then_at, axis)
    near = ON_TRACK * law.jerk_step
    if (
        scale == 1.0
        and abs(motion[0] - now[0]) <= near * law.period_s
        and abs(motion[1] - now[1]) <= near
    ):
        return then, True
    square = scale * scale
    return law.pursue(
        *motion, (scale * now[0], square * now[1]), (scale * then[0], square * then[1])
    ), False
