"""What happened in a run: its recording read, into arrays to draw and counts to print.

Times are seconds since the first event. Places are in the world frame where the recording has a
simulated world, else in the odometry frame. Whatever the recording lacks stays empty.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import (
    PlanBegin,
    PlanEnd,
    Prediction,
    Recording,
    Step,
    Truth,
    World,
    open_recording,
)
from edge_wm.recording.views import driven_path
from edge_wm.robot import Robot, parse_robot, tool_position
from edge_wm.types import Array, Belief, Float64, Goal, Sample, Trajectory

TRAJECTORIES_SHOWN = 60
MOMENTS_SHOWN = 4  # predictions whose images are shown
TENSOR_LIMIT = 8192  # larger belief tensors are not followed
FRAME_WITHIN_NS = 80_000_000  # a camera frame this near to an imagined one is its truth
BELIEF_WITHIN_NS = 200_000_000  # beliefs this near to each other are interpolated
ONE_TOUCH_S = 0.25  # contacts nearer in time than this are one


@dataclass(frozen=True, slots=True)
class Plan:
    """One plan tick, without its arrays."""

    begin_ns: int
    end_ns: int
    reason: Reason | None
    accepted: bool | None  # None: no trajectory
    refusals: tuple[Reason, ...]
    stages: Mapping[str, int]
    ages_ns: Mapping[str, int]

    @property
    def work_ns(self) -> int:
        """All stages together."""
        return sum(self.stages.values())


class SetpointTick(NamedTuple):
    """One setpoint tick, without its arrays."""

    time_s: float
    mode: Mode
    reasons: tuple[Reason, ...]
    speed_scale: float
    velocity: tuple[float, ...]  # of the first knot, by axis
    duration_ns: int


@dataclass(frozen=True, slots=True)
class Moment:
    """An imagined future beside what happened, at n times."""

    time_s: float  # of entry 0
    ahead_s: Float64  # (n,)
    imagined: Array  # (n, height, width, 3) uint8
    happened: tuple[Array | None, ...]  # n camera frames


@dataclass(frozen=True, slots=True)
class ErrorCurve:
    """Prediction error by horizon step, over P predictions; NaN where what happened is unknown."""

    name: str
    unit: str
    ahead_s: Float64  # (H,) after the observation, on average
    model: Float64  # (P, H)
    unchanged: Float64  # (P, H), of the prediction "nothing changes"


@dataclass(frozen=True, slots=True)
class Summary:
    """The run in numbers; None where the recording does not say."""

    duration_s: float
    driven_m: float | None
    goals: int
    goals_reached: int
    contacts: int | None
    plans: int
    plan_rate_hz: float
    accepted: int
    late: int
    work_ms: Mapping[str, float]  # p50, p99, p99.9 of `Story.planned`; empty without
    setpoints: int
    refusals: Mapping[Reason, int]  # of trajectories
    without_plan: Mapping[Reason, int]  # plan ticks
    guard: Mapping[Reason, int]  # setpoint ticks
    drops: Mapping[tuple[str, Reason], int]  # samples, by stream
    events: int
    lost: Mapping[str, int]


@dataclass
class Story:
    """All that the pictures and the page are made of."""

    recording: Recording
    robot: Robot
    start_ns: int = 0
    end_ns: int = 0
    events: int = 0
    worlds: list[World] = field(default_factory=list)  # the first and the last
    driven: Float64 = field(default_factory=lambda: np.empty((0, 4)))  # (N, 4): time, x, y, yaw
    driven_by: str = ""  # "truth", "odometry" or "belief"; "" where nothing says
    contacts: Float64 = field(default_factory=lambda: np.empty((0, 3)))  # (N, 3): time, x, y
    goals: list[tuple[float, Goal]] = field(default_factory=list)  # (time, goal), each change
    goals_reached: int = 0
    plans: list[Plan] = field(default_factory=list)
    trajectories: list[Float64] = field(default_factory=list)  # accepted ones, (N, 3): x, y, yaw
    imagined: list[Float64] = field(default_factory=list)  # pose paths of predictions, (N, 3)
    steps: list[SetpointTick] = field(default_factory=list)
    axes: tuple[str, ...] = ()  # of the setpoints
    drops: list[tuple[float, str, Reason]] = field(default_factory=list)  # (time, stream, why)
    moments: list[Moment] = field(default_factory=list)
    errors: list[ErrorCurve] = field(default_factory=list)

    def seconds(self, time_ns: int) -> float:
        """Since the first event."""
        return (time_ns - self.start_ns) * 1e-9

    @property
    def planned(self) -> list[Plan]:
        """The plan ticks in which there was something to plan, timed."""
        return [plan for plan in self.plans if plan.reason is None and plan.stages]

    @property
    def plan_deadline_ns(self) -> int:
        """A plan that is not done by then is late: its trajectory should have begun."""
        given = self.recording.header.settings.get("plan_latency_ns")
        return given if isinstance(given, int) and given > 0 else self.robot.plan_period_ns

    def summary(self) -> Summary:
        """The numbers of the run."""
        touches = None
        if self.driven_by == "truth":
            gaps = np.diff(self.contacts[:, 0], prepend=-np.inf)
            touches = int((gaps > ONE_TOUCH_S).sum())
        steps = np.diff(self.driven[:, 1:3], axis=0)
        span_ns = self.plans[-1].begin_ns - self.plans[0].begin_ns if self.plans else 0
        late = sum(plan.end_ns - plan.begin_ns > self.plan_deadline_ns for plan in self.plans)
        return Summary(
            duration_s=(self.end_ns - self.start_ns) * 1e-9,
            driven_m=float(np.hypot(steps[:, 0], steps[:, 1]).sum()) if self.driven_by else None,
            goals=len(self.goals),
            goals_reached=self.goals_reached,
            contacts=touches,
            plans=len(self.plans),
            plan_rate_hz=(len(self.plans) - 1) / (span_ns * 1e-9) if span_ns else 0.0,
            accepted=sum(plan.accepted is True for plan in self.plans),
            late=late,
            work_ms=percentiles([plan.work_ns * 1e-6 for plan in self.planned]),
            setpoints=len(self.steps),
            refusals=_counted(reason for plan in self.plans for reason in plan.refusals),
            without_plan=_counted(plan.reason for plan in self.plans if plan.reason is not None),
            guard=_counted(reason for step in self.steps for reason in step.reasons),
            drops=dict(Counter((stream, why) for _, stream, why in self.drops).most_common()),
            events=self.events,
            lost=self.recording.lost,
        )


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p99 and p99.9; empty for no values."""
    if not len(values):
        return {}
    p50, p99, p999 = np.percentile(values, [50, 99, 99.9])
    return {"p50": float(p50), "p99": float(p99), "p99.9": float(p999)}


def to_world(poses: Array, origin: tuple[float, float, float]) -> Float64:
    """Poses (N, 3) of a frame whose own pose is `origin`, x, y (m) and yaw (rad), in its parent."""
    x, y, yaw = origin
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = np.asarray(poses, np.float64) @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
    return np.asarray(turned + np.array([x, y, yaw]), np.float64)


def read_story(path: str | os.PathLike[str]) -> Story:
    """Read a recording. Raises what `open_recording` and `parse_robot` raise."""
    recording = open_recording(path)
    robot = parse_robot(recording.header.robot_text, f"{recording.path}: its robot file")
    return _Reading(Story(recording, robot)).finish()


class _Reading:
    """One pass over the events, then what needs all of them."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self._truth: list[tuple[int, float, float, float, bool]] = []
        self._odometry: list[tuple[int, float, float, float]] = []
        self._beliefs: dict[int, Belief] = {}  # by plan tick
        self._predictions: list[Prediction] = []
        self._trajectories: list[Trajectory] = []
        self._frames_ns: list[int] = []
        self._goal: Goal | None = None
        self._at_goal = False
        self._begun_ns = 0
        cameras = [name for name, s in story.robot.streams.items() if s.type == "image"]
        self._camera = cameras[0] if cameras else ""

    def finish(self) -> Story:
        story = self.story
        for number, event in story.recording.events():
            time_ns = event.received_ns if isinstance(event, Sample) else _now_ns(event)
            story.start_ns = time_ns if number == 0 else story.start_ns
            story.end_ns = max(story.end_ns, time_ns)
            story.events += 1
            self._take(event)
        self._place()
        self._compare_images()
        self._compare_beliefs()
        return story

    def _take(self, event: object) -> None:
        story = self.story
        if isinstance(event, Sample):
            self._sample(event)
        elif isinstance(event, Truth):
            self._truth.append((event.now_ns, event.x, event.y, event.yaw, event.contact))
        elif isinstance(event, World):
            story.worlds[1:] = [event]
        elif isinstance(event, PlanBegin):
            self._begun_ns = event.now_ns
            if event.goal is not None and not _same_goal(event.goal, self._goal):
                story.goals.append((story.seconds(event.now_ns), event.goal))
                self._at_goal = False
            self._goal = event.goal
        elif isinstance(event, PlanEnd):
            self._plan_end(event)
        elif isinstance(event, Step):
            verdict = event.verdict
            story.axes = verdict.setpoint.axes
            story.steps.append(
                SetpointTick(
                    story.seconds(event.now_ns),
                    verdict.mode,
                    verdict.reasons,
                    verdict.speed_scale,
                    tuple(verdict.setpoint.velocity[0].tolist()),
                    event.duration_ns,
                )
            )
        elif isinstance(event, Prediction):
            self._predictions.append(event)

    def _sample(self, sample: Sample) -> None:
        stream = self.story.robot.streams.get(sample.stream)
        if stream is None:
            return
        if stream.type == "odometry" and sample.data.shape == (6,):
            x, y, yaw = sample.data[:3].tolist()
            self._odometry.append((sample.stamp_ns, x, y, yaw))
        elif sample.stream == self._camera:
            self._frames_ns.append(sample.stamp_ns)

    def _plan_end(self, end: PlanEnd) -> None:
        story = self.story
        reached = end.reason is Reason.goal_reached
        if reached and not self._at_goal:
            story.goals_reached += 1
        self._at_goal = self._at_goal or reached
        answer = end.acceptance
        story.plans.append(
            Plan(
                self._begun_ns,
                end.now_ns,
                end.reason,
                None if answer is None else answer.accepted,
                () if answer is None else answer.reasons,
                end.stages,
                end.ages_ns,
            )
        )
        for drop in end.drops:
            story.drops.append((story.seconds(drop.received_ns), drop.stream, drop.reason))
        if end.belief is not None:
            kept = {n: t for n, t in end.belief.tensors.items() if t.size <= TENSOR_LIMIT}
            self._beliefs[end.tick] = Belief(end.belief.stamp_ns, kept)
        if end.trajectory is not None and answer is not None and answer.accepted:
            self._trajectories.append(end.trajectory)

    # ---- places -------------------------------------------------------------------------
    def _place(self) -> None:
        """Where the robot was, from the best that there is, and where it was about to go."""
        story = self.story
        origin = story.worlds[-1].odometry_origin if story.worlds else (0.0, 0.0, 0.0)
        believed = [
            (belief.stamp_ns, *belief.tensors["pose"].tolist())
            for belief in self._beliefs.values()
            if "pose" in belief.tensors and belief.tensors["pose"].shape == (3,)
        ]
        sources: Mapping[str, Sequence[tuple[float, ...]]] = {
            "truth": self._truth,
            "odometry": self._odometry,
            "belief": believed,
        }
        for name, rows in sources.items():
            table = np.array([row for row in rows if np.isfinite(row).all()], np.float64)
            if len(table):
                table = table[np.argsort(table[:, 0], kind="stable")]
                poses = table[:, 1:4] if name == "truth" else to_world(table[:, 1:4], origin)
                seconds = (table[:, 0] - story.start_ns) * 1e-9
                story.driven_by, story.driven = name, np.column_stack([seconds, poses])
                if name == "truth":
                    story.contacts = story.driven[table[:, 4] > 0, :3]
                break
        every = -(-len(self._trajectories) // TRAJECTORIES_SHOWN) or 1
        for trajectory in self._trajectories[::every]:
            path = self._planned_path(trajectory)
            if path is not None:
                story.trajectories.append(path[:: max(len(path) // 30, 1)])
        for prediction in self._predictions:
            path = self._imagined_path(prediction)
            if path is not None and np.isfinite(path).all():
                story.imagined.append(path)

    def _planned_path(self, trajectory: Trajectory) -> Float64 | None:
        """(N, 3): where a trajectory led the base, or an arm's tool; None if neither is known."""
        robot = self.story.robot
        if robot.kinematics is not None and trajectory.axes == robot.kinematics.moving:
            places = tool_position(robot, trajectory.position)
            return np.column_stack([places[:, :2], np.zeros(len(places))])
        delay_s = robot.actuation_delay_ns * 1e-9
        start = self._pose_at(self.story.seconds(trajectory.start_ns) + delay_s)
        return driven_path(trajectory, start) if start else None

    def _imagined_path(self, prediction: Prediction) -> Float64 | None:
        """(N, 3): an imagined path of poses, laid on the driven path where it was observed."""
        imagined, belief = prediction.beliefs.get("pose"), self._beliefs.get(prediction.tick)
        observed = belief.tensors.get("pose") if belief else None
        if belief is None or imagined is None or observed is None or imagined.shape[1:] != (3,):
            return None
        x, y, yaw = observed.tolist()
        here = self._pose_at(self.story.seconds(belief.stamp_ns))
        if here is None:
            return None
        cos, sin = np.cos(yaw), np.sin(yaw)
        back = (-x * cos - y * sin, x * sin - y * cos, -yaw)
        return to_world(to_world(imagined, back), here)

    def _pose_at(self, time_s: float) -> tuple[float, float, float] | None:
        driven = self.story.driven
        if not len(driven):
            return None
        columns = (driven[:, 1], driven[:, 2], np.unwrap(driven[:, 3]))
        x, y, yaw = (float(np.interp(time_s, driven[:, 0], column)) for column in columns)
        return x, y, yaw

    # ---- imagined and happened ----------------------------------------------------------
    def _compare_images(self) -> None:
        """Pick the predictions in which most changes, some time apart; find the frames of each."""
        story = self.story
        stamps = np.array(self._frames_ns, np.int64)
        known = [p for p in self._predictions if len(p.images) and _seen(p, stamps)]
        chosen: list[Prediction] = []
        apart_ns = (story.end_ns - story.start_ns) // (3 * MOMENTS_SHOWN)
        for prediction in sorted(known, key=_motion, reverse=True):
            begins = [other.times_ns[0] for other in chosen]
            near = any(abs(prediction.times_ns[0] - begin) < apart_ns for begin in begins)
            if len(chosen) < MOMENTS_SHOWN and not near:
                chosen.append(prediction)
        chosen.sort(key=lambda prediction: int(prediction.times_ns[0]))
        wanted = {
            int(stamps[np.abs(stamps - time_ns).argmin()])
            for prediction in chosen
            for time_ns in prediction.image_times_ns
        }
        frames = {
            sample.stamp_ns: sample.data
            for sample in (story.recording.samples(self._camera) if wanted else ())
            if sample.stamp_ns in wanted
        }
        for prediction in chosen:
            times = prediction.image_times_ns
            nearest = [int(stamps[np.abs(stamps - t).argmin()]) for t in times]
            story.moments.append(
                Moment(
                    story.seconds(int(times[0])),
                    (times - times[0]) * 1e-9,
                    prediction.images,
                    tuple(frames[stamp_ns] for stamp_ns in nearest),
                )
            )

    def _compare_beliefs(self) -> None:
        """Each imagined belief against the belief that came true, and against no change at all."""
        pairs = [(self._beliefs[p.tick], p) for p in self._predictions if p.tick in self._beliefs]
        if not pairs:
            return
        stamps = np.array([belief.stamp_ns for belief in self._beliefs.values()], np.int64)
        for name in pairs[0][0].tensors:
            happened = [b.tensors[name].ravel() for b in self._beliefs.values()]
            follow = _Interpolation(stamps, np.array(happened, np.float64), yaw=name == "pose")
            rows = []
            for belief, prediction in pairs:
                imagined = prediction.beliefs.get(name)
                if imagined is None or len(imagined) != len(pairs[0][1].times_ns):
                    continue
                truth = follow(prediction.times_ns)
                flat = imagined.reshape(len(imagined), -1)
                still = belief.tensors[name].reshape(1, -1)
                ahead = (prediction.times_ns - belief.stamp_ns) * 1e-9
                rows.append((ahead, flat - truth, still - truth))
            if rows:
                ahead, model, unchanged = (np.array(column) for column in zip(*rows, strict=True))
                self.story.errors += _curves(name, ahead.mean(axis=0), model, unchanged)


class _Interpolation:
    """A belief tensor (T, n) over time; NaN where no beliefs are near."""

    def __init__(self, stamps_ns: Array, values: Float64, *, yaw: bool) -> None:
        order = np.argsort(stamps_ns, kind="stable")
        self._stamps_ns, self._values = stamps_ns[order], values[order]
        if yaw and values.shape[1] == 3:
            self._values[:, 2] = np.unwrap(self._values[:, 2])

    def __call__(self, times_ns: Array) -> Float64:
        after = np.searchsorted(self._stamps_ns, times_ns).clip(1, max(len(self._stamps_ns) - 1, 1))
        if len(self._stamps_ns) < 2:
            return np.full((len(times_ns), self._values.shape[1]), np.nan)
        before = after - 1
        span = self._stamps_ns[after] - self._stamps_ns[before]
        share = (times_ns - self._stamps_ns[before]) / np.maximum(span, 1)
        inside = (share >= 0) & (share <= 1) & (span <= BELIEF_WITHIN_NS)
        weight = np.where(inside, share, np.nan)[:, None]
        low, high = self._values[before], self._values[after]
        return np.asarray(low + weight * (high - low), np.float64)


def _curves(
    name: str, ahead_s: Float64, model: Float64, unchanged: Float64
) -> Iterable[ErrorCurve]:
    """Errors of a tensor: differences (P, H, n) as one number each; a pose as two."""
    if name == "pose" and model.shape[2] == 3:

        def position(d: Float64) -> Float64:
            return np.hypot(d[..., 0], d[..., 1])

        def heading(d: Float64) -> Float64:
            return np.abs((d[..., 2] + np.pi) % (2 * np.pi) - np.pi)

        yield ErrorCurve("position", "m", ahead_s, position(model), position(unchanged))
        yield ErrorCurve("heading", "rad", ahead_s, heading(model), heading(unchanged))
    else:

        def rms(d: Float64) -> Float64:
            return np.asarray(np.sqrt((d**2).mean(axis=-1)), np.float64)

        yield ErrorCurve(name, "rms", ahead_s, rms(model), rms(unchanged))


def _now_ns(event: object) -> int:
    return 0 if isinstance(event, Prediction) else int(event.now_ns)  # type: ignore[attr-defined]


def _same_goal(a: Goal, b: Goal | None) -> bool:
    if type(a) is not type(b):
        return False
    pairs = ((getattr(a, n), getattr(b, n)) for n in a.__dataclass_fields__)
    return all(np.array_equal(x, y) for x, y in pairs)


def _seen(prediction: Prediction, stamps: Array) -> bool:
    """Whether the camera has a frame near each imagined one."""
    if not len(stamps):
        return False
    gaps = np.abs(stamps[None, :] - prediction.image_times_ns[:, None]).min(axis=1)
    return bool((gaps <= FRAME_WITHIN_NS).all())


def _motion(prediction: Prediction) -> float:
    """How much an imagined future changes: of two, the livelier one is worth showing."""
    images = prediction.images.astype(np.float32)
    return float(np.abs(images[-1] - images[0]).mean())


def _counted(reasons: Iterable[Reason]) -> dict[Reason, int]:
    return dict(Counter(reasons).most_common())
