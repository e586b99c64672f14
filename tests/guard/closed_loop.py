"""A point robot that obeys the guard's setpoints, 40 ms late, among discs that a scanner sees.

The plans come from `trajectory.finish` with random actions (a planner that does not care), every
50 ms, from a command that may be outdated; scans come every 50 ms, 20 ms old, with 3 mm of noise.
Things go wrong on purpose: scans stop coming, setpoint ticks are missed, obstacles appear from
nowhere, operators stop the robot. What must hold all the same is checked from the setpoints and
the true poses alone, with no code of the guard.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from edge_wm.guard import Guard
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.trajectory import finish
from edge_wm.types import Observation, Proposal, Sample, Seen, Trajectory, Verdict
from guard.scenes import ROVER, START_NS

MS = 1_000_000
H = 10 * MS
DELAY_KNOTS = 4
DISC = 0.03  # m, radius of an obstacle: seen by two beams or more up to 0.6 m
FOOTPRINT = 0.18


@dataclass
class Trouble:
    """What goes wrong, as probabilities per second."""

    scan_gap: float = 0.3
    missed_ticks: float = 0.5
    operator: float = 0.1
    pop_up: float = 0.0


@dataclass
class Story:
    """What happened."""

    verdicts: list[Verdict] = field(default_factory=list)
    sent: dict[int, np.ndarray] = field(default_factory=dict)  # time of a knot -> velocities
    nearest: float = math.inf  # m, of the robot's edge to an obstacle's edge
    way: float = 0.0
    accepted: int = 0
    refused: int = 0
    popped_up: bool = False


def scan_of(pose: tuple[float, float, float], discs: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """(R,) float32 ranges from `pose` to the discs (P, 2); +inf beyond 5 m."""
    angles = ROVER.streams["scan"].beam_angles() + pose[2]
    dx, dy = discs[:, 0] - pose[0], discs[:, 1] - pose[1]
    along = np.outer(np.cos(angles), dx) + np.outer(np.sin(angles), dy)
    beside = np.outer(-np.sin(angles), dx) + np.outer(np.cos(angles), dy)
    hit = (np.abs(beside) < DISC) & (along > 0)
    depth = along - np.sqrt(np.maximum(DISC**2 - beside**2, 0.0))
    ranges = np.where(hit, np.maximum(depth, 0.0), np.inf).min(axis=1)
    return np.where(ranges < 5.0, np.maximum(ranges + noise, 0.0), np.inf).astype(np.float32)


class Robot:
    """Obeys the newest setpoint, `DELAY_KNOTS` later, linearly between knots."""

    def __init__(self) -> None:
        self.pose = (0.0, 0.0, 0.0)
        self.told: dict[int, np.ndarray] = {}  # by knot number
        self.last = np.zeros(2)

    def advance(self, tick: int) -> None:
        """From knot `tick` to the next, physically: by the commands of DELAY_KNOTS before."""
        start, end = (self._velocity(tick + k - DELAY_KNOTS) for k in (0, 1))
        for s in range(4):
            vx, wz = start + (s + 0.5) / 4 * (end - start)
            x, y, yaw = self.pose
            yaw += wz * 0.00125
            x, y = x + vx * 0.0025 * math.cos(yaw), y + vx * 0.0025 * math.sin(yaw)
            self.pose = (x, y, yaw + wz * 0.00125)

    def _velocity(self, tick: int) -> np.ndarray:
        if tick in self.told:
            self.last = self.told[tick]
        return self.last


def live(
    seed: int,
    seconds: float,
    trouble: Trouble,
    crowd: int = 14,
    on_send: Callable[[Trajectory], None] = lambda _: None,
    on_step: Callable[[Guard, int, Observation], None] = lambda *_: None,
) -> Story:
    """One life of a robot in a random crowd of discs, none nearer than 0.4 m at the start.

    on_send: told of each trajectory before the guard is; on_step: called after each of its steps.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    discs = rng.uniform(-2.0, 2.0, (crowd, 2))
    discs = discs[np.hypot(*discs.T) > 0.4]
    guard, robot, story = Guard(ROVER), Robot(), Story()
    guard.request(Mode.self_test, "supervisor", START_NS)
    guard.request(Mode.hold, "supervisor", START_NS)
    epoch = guard.activate(START_NS)
    measured: list[tuple[int, np.ndarray]] = []
    sequence = 0
    pending: Trajectory | None = None
    blind_until = skip = 0
    target = np.zeros(2)
    for tick in range(round(seconds * 100)):
        now_ns = START_NS + tick * H
        if tick % 5 == 0 and tick >= blind_until:
            noise = rng.normal(0.0, 0.003, 120)
            measured.append((now_ns, scan_of(robot.pose, discs, noise)))
        if rng.random() < trouble.scan_gap * 0.01:
            blind_until = tick + int(rng.integers(5, 60))
        if rng.random() < trouble.pop_up * 0.01:
            at = rng.uniform(-math.pi, math.pi)
            away = rng.uniform(0.22, 0.8)
            place = np.array(robot.pose[:2]) + away * np.array([math.cos(at), math.sin(at)])
            discs = np.vstack((discs, place))
            story.popped_up = True
        streams: dict[str, Seen] = {}
        for stamp_ns, ranges in measured[-2:]:
            if now_ns - stamp_ns >= 20 * MS:
                sample = Sample("scan", stamp_ns, now_ns, tick, ranges)
                streams["scan"] = Seen(sample, now_ns - stamp_ns, None)
        view = Observation(now_ns, now_ns, streams)

        if tick % 5 == 2 and pending is not None:  # a plan arrives that was begun 30 ms before
            on_send(pending)
            answer = guard.accept(pending, view, now_ns)
            story.accepted += answer.accepted
            story.refused += not answer.accepted
        if tick % 5 == 4:
            if rng.random() < 0.15:
                target = rng.uniform([-0.4, -2.2], [0.9, 2.2])
            sequence += 1
            actions = np.tile(target, (12, 1)) + rng.normal(0.0, 0.1, (12, 2))
            pending = finish(
                proposal(now_ns, actions),
                guard.command_at(now_ns + 40 * MS),
                ROVER.axes,
                epoch=epoch,
                sequence=sequence,
                period_ns=H,
            )
            assert isinstance(pending, Trajectory)
        if rng.random() < trouble.operator * 0.01:
            guard.request(Mode.stop, "operator", now_ns)
        if guard.mode is Mode.stop and tick % 100 == 50:
            guard.request(Mode.hold, "operator", now_ns)
            epoch = guard.activate(now_ns)

        if rng.random() < trouble.missed_ticks * 0.01:
            skip = int(rng.integers(1, 9))
        if skip:
            skip -= 1
        else:
            verdict = guard.step(now_ns, view)
            on_step(guard, now_ns, view)
            story.verdicts.append(verdict)
            for time_ns, row in zip(
                verdict.setpoint.times_ns.tolist(), verdict.setpoint.velocity, strict=True
            ):
                robot.told[(time_ns - START_NS) // H] = row
                story.sent[time_ns] = row
        before = robot.pose
        robot.advance(tick)
        story.way += math.dist(before[:2], robot.pose[:2])
        gaps = np.hypot(discs[:, 0] - robot.pose[0], discs[:, 1] - robot.pose[1])
        story.nearest = min(story.nearest, float(gaps.min()) - DISC - FOOTPRINT)
    return story


def proposal(now_ns: int, actions: np.ndarray) -> Proposal:
    return Proposal(
        stamp_ns=now_ns,
        apply_at_ns=now_ns + 40 * MS,
        step_ns=150 * MS,
        axes=ROVER.axis_names,
        actions=actions.astype(np.float32),
        cost=0.0,
        iterations=1,
        candidates=1,
        infeasible=0,
        answers=(),
    )


def check_sent(story: Story) -> None:
    """Every knot ever sent follows from the one before within the limits; none is ever changed."""
    for verdict in story.verdicts:
        setpoint = verdict.setpoint
        assert np.isfinite(setpoint.velocity).all()
        assert np.isfinite(setpoint.position).all()
        assert (setpoint.brake_deceleration > 0).all()
        for time_ns, row in zip(setpoint.times_ns.tolist(), setpoint.velocity, strict=True):
            first = story.sent.setdefault(time_ns, row)
            assert first.tolist() == row.tolist()
    times = sorted(story.sent)
    for axis, limits in enumerate(ROVER.axes):
        v = np.array([story.sent[t][axis] for t in times])
        steps = np.diff(times) / H
        assert v.max() <= limits.velocity_max + 1e-9
        assert v.min() >= limits.velocity_min - 1e-9
        gain = np.diff(v) / (steps * 0.01)
        slows = np.abs(v[1:]) < np.abs(v[:-1])
        most = np.where(slows, limits.braking, limits.acceleration)
        assert (np.abs(gain) <= most * (1 + 1e-6) + 1e-9).all()
        # where a tick was missed the knots between were decided but not sent: no jerk to be had
        whole = (steps[1:] == 1) & (steps[:-1] == 1)
        jerk = np.diff(gain) / 0.01
        assert (np.abs(jerk[whole]) <= limits.jerk * (1 + 1e-6) + 1e-6).all()


def told(story: Story) -> set[Reason]:
    return {reason for verdict in story.verdicts for reason in verdict.reasons}


def digest(story: Story) -> list[object]:
    """All that was decided, as plain values that can be compared for equality."""
    return [
        (
            verdict.now_ns,
            verdict.mode,
            verdict.reasons,
            verdict.speed_scale,
            replace(verdict.setpoint, times_ns=None, position=None, velocity=None,
                    brake_deceleration=None, brake_end_ns=None),
            verdict.setpoint.velocity.tobytes(),
            verdict.setpoint.position.tobytes(),
        )
        for verdict in story.verdicts
    ]  # fmt: skip
