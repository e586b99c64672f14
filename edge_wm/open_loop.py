"""What would the model have thought? Plans along a bag that anybody recorded, moving nothing.

    first pass    the motion that was measured, and where it ended: that is the goal
    second pass   sensors ──► synchronizer ──► belief ──► plan, at the plan rate, in the bag's time
    compared      each belief, advanced half a horizon along the measured motion, with what the
                  encoder makes of the sensors then, beside "nothing changes"

The robot did what somebody else told it, so nothing here can be exact: it says whether the inputs
reach the model as it needs them, whether it plans, how long that takes, and whether it predicts
this robot better than standing still does. `edge-wm contract check` says what is wrong with a bag.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_wm.bundle import Bundle, check_fit
from edge_wm.errors import MismatchError, UsageError
from edge_wm.guarding.senses import Senses
from edge_wm.planner import CountBudget, make_planner
from edge_wm.reasons import Reason
from edge_wm.recording.bag import BagMessage, read_bag
from edge_wm.recording.messages import message_type
from edge_wm.recording.samples import MESSAGES
from edge_wm.robot import Robot, Stream
from edge_wm.runtime import ModelDriver, PlanRequest, RunSettings, planner_settings
from edge_wm.synchronizer import Synchronizer
from edge_wm.types import (
    Array,
    Belief,
    Float64,
    Goal,
    Int64,
    JointGoal,
    Motion,
    PoseGoal,
    Proposal,
    Sample,
)
from edge_wm.world_model import WorldModel

ODOMETRY = "nav_msgs/msg/Odometry"
TWIST = {"base.vx": 3, "base.vy": 4, "base.wz": 5}  # place in an odometry sample's data
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


@dataclass(frozen=True, slots=True)
class OpenLoop:
    """What came of it."""

    seconds: float  # of the bag
    samples: dict[str, int]  # stream -> taken in
    drops: dict[str, dict[str, int]]  # stream -> reason -> refused
    ticks: int
    plans: int
    not_planned: dict[str, int]  # reason -> ticks
    plan_ms: tuple[float, float, float]  # p50, p99, most; NaN without a plan
    goal: Goal
    ahead_s: float  # of the predictions
    predictions: int
    prediction_error: float  # over that of "nothing changes"; below 1 it predicts. NaN without


def open_loop(
    bag: Path,
    robot: Robot,
    bundle: Bundle,
    *,
    backend: str = "first",
    goal: Goal | None = None,
    progress: Callable[[float], object] = lambda _: None,
) -> OpenLoop:
    """Plan along `bag`. goal: absent, where the motion that was measured ended.

    progress: told the share that is done, 0 to 1.

    Raises: MismatchError where the bundle does not fit, UsageError for a bag without the motion
    of the bundle's axes, and what reading the bag raises.
    """
    check_fit(bundle.manifest, robot)
    track = _measured_motion(bag, robot)
    goal = goal or track.end
    model = WorldModel(bundle, robot, backend=backend)
    if model.check_goal(goal) is not None:
        raise MismatchError(
            f"bundle {bundle.manifest.name}: takes goals of kind "
            f"{', '.join(bundle.manifest.goal_kinds) or 'none'}, and {goal} is none of them; give "
            "one with --goal"
        )
    driver = ModelDriver(model, make_planner(planner_settings(bundle.manifest), robot.axes))
    driver.reset(0)
    streams = tuple(bundle.manifest.needs.streams)
    reference = max(streams, key=lambda name: robot.streams[name].period_ns)
    view = Synchronizer(robot, streams, reference)
    senses = Senses(robot, [view])
    latency_ns = RunSettings.for_robot(robot, 0).plan_latency_ns
    samples: Counter[str] = Counter()
    drops: dict[str, Counter[str]] = {}
    refused: Counter[str] = Counter()
    plan_ns: list[int] = []
    foresight = _Foresight(model, robot.streams[reference].period_ns // 2)
    ticks = plans = 0
    due_ns = 0
    for sample in _samples(bag, robot, drops):
        while due_ns and sample.received_ns >= due_ns:
            now_ns, due_ns = due_ns, due_ns + robot.plan_period_ns
            ticks += 1
            progress((now_ns - track.times_ns[0]) / max(1, track.times_ns[-1] - track.times_ns[0]))
            observation = view.observe(now_ns)
            for drop in observation.drops:
                drops.setdefault(drop.stream, Counter())[drop.reason.name] += 1
            if not observation.usable:
                refused[observation.reasons[0].name] += 1
                continue
            thought = driver.think(
                PlanRequest(
                    tick=ticks,
                    now_ns=now_ns,
                    observation=observation,
                    goal=goal,
                    acting=track.until(now_ns),
                    start_ns=now_ns + latency_ns,
                    effective_ns=now_ns + latency_ns + robot.actuation_delay_ns,
                ),
                CountBudget(1 << 30),
            )
            if thought.belief is not None:
                foresight.add(thought.belief, track.whole)
            proposal = thought.proposal
            if isinstance(proposal, Proposal) and proposal.reason is None:
                plans += 1
                plan_ns.append(sum(thought.stages.values()))
            else:
                reason = proposal if isinstance(proposal, Reason) else proposal.reason
                refused[reason.name if reason else "none"] += 1
        samples[sample.stream] += 1
        _, more = senses.push(sample)
        for drop in more:
            drops.setdefault(drop.stream, Counter())[drop.reason.name] += 1
        due_ns = due_ns or sample.received_ns + robot.plan_period_ns
    ms = np.array(plan_ns) / 1e6
    spread = np.percentile(ms, [50, 99, 100]).tolist() if len(ms) else [math.nan] * 3
    return OpenLoop(
        seconds=float(track.times_ns[-1] - track.times_ns[0]) * 1e-9,
        samples=dict(samples),
        drops={name: dict(counts) for name, counts in drops.items() if counts},
        ticks=ticks,
        plans=plans,
        not_planned=dict(refused),
        plan_ms=(spread[0], spread[1], spread[2]),
        goal=goal,
        ahead_s=foresight.ahead_ns * 1e-9,
        predictions=foresight.count,
        prediction_error=foresight.error,
    )


# ---- what was measured -----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Track:
    """The motion of the robot's axes over the whole bag, by its own sensors."""

    whole: Motion
    received_ns: Int64  # when each knot was known
    end: Goal

    @property
    def times_ns(self) -> Int64:
        return self.whole.times_ns

    def until(self, now_ns: int) -> Motion:
        """What is known at `now_ns`; the last knot's velocity holds on."""
        known = max(1, int(np.searchsorted(self.received_ns, now_ns, side="right")))
        whole = self.whole
        return Motion(
            whole.axes, whole.times_ns[:known], whole.position[:known], whole.velocity[:known]
        )


def _measured_motion(bag: Path, robot: Robot) -> _Track:
    """From the odometry (the robot's own, where the robot file derives it), or from the joints."""
    pose = robot.pose_stream
    by_pose = pose is not None and any(name in TWIST for name in robot.axis_names)
    joints = {a.name: robot.joint_stream(a.name) for a in robot.axes if a.name not in TWIST}
    senses = Senses(robot, [])
    times: list[int] = []
    received: list[int] = []
    velocity: list[list[float]] = []
    place: list[list[float]] = []
    end: Goal | None = None
    for sample in _samples(bag, robot, {}, images=False):
        derived, _ = senses.push(sample)
        if by_pose:
            assert pose is not None
            at = derived if pose.derived_from else sample
            if at is None or at.stream != pose.name or (times and at.stamp_ns <= times[-1]):
                continue
            row = [at.data[TWIST[name]] for name in robot.axis_names]
            end = PoseGoal(float(at.data[0]), float(at.data[1]), None, pose.frame)
            where: list[float] = []
        else:
            found = [joints[name] for name in robot.axis_names]
            column = [f[1] for f in found if f is not None and f[0].name == sample.stream]
            at = sample
            if len(column) != len(robot.axes) or (times and at.stamp_ns <= times[-1]):
                continue
            row, where = at.data[1][column].tolist(), at.data[0][column].tolist()
            end = JointGoal(np.array(where, np.float64))
        times.append(at.stamp_ns)
        received.append(sample.received_ns)
        velocity.append(row)
        place.append(where)
    if len(times) < 2 or end is None:
        wanted = ", ".join(robot.axis_names)
        raise UsageError(
            f"{bag}: must hold the measured motion of {wanted} of robot {robot.name}, and holds "
            "none that can be used; `edge-wm contract check` says why"
        )
    times_ns, speeds = np.array(times, np.int64), np.array(velocity, np.float64)
    positions = _integrated(times_ns, speeds) if by_pose else np.array(place, np.float64)
    motion = Motion(robot.axis_names, times_ns, positions, speeds)
    return _Track(motion, np.maximum.accumulate(np.array(received, np.int64)), end)


def _integrated(times_ns: Int64, velocity: Float64) -> Float64:
    """Distances traveled, by the trapezoidal rule."""
    seconds = np.diff(times_ns)[:, None] * 1e-9
    steps = 0.5 * (velocity[1:] + velocity[:-1]) * seconds
    return np.concatenate([np.zeros((1, velocity.shape[1])), np.cumsum(steps, axis=0)])


class _Foresight:
    """Compares beliefs, advanced along what really happened, with those of half a horizon later."""

    def __init__(self, model: WorldModel, tolerance_ns: int) -> None:
        self._model = model
        self.ahead_ns = model.manifest.step_ns * max(1, model.manifest.horizon // 2)
        self._tolerance_ns = tolerance_ns
        self._pending: deque[tuple[Belief, Array, Array]] = deque()
        self.count = 0
        self._wrong = self._changed = 0.0

    def add(self, belief: Belief, motion: Motion) -> None:
        now = _flat(belief)
        while self._pending:
            predicted, guess, before = self._pending[0]
            if predicted.stamp_ns > belief.stamp_ns + self._tolerance_ns:
                break
            self._pending.popleft()
            if predicted.stamp_ns >= belief.stamp_ns - self._tolerance_ns:
                self.count += 1
                self._wrong += float(((guess - now) ** 2).sum())
                self._changed += float(((before - now) ** 2).sum())
        ahead = self._model.advance(belief, motion, belief.stamp_ns + self.ahead_ns)
        if isinstance(ahead, Belief):
            self._pending.append((ahead, _flat(ahead), now))

    @property
    def error(self) -> float:
        return math.sqrt(self._wrong / self._changed) if self._changed > 0.0 else math.nan


def _flat(belief: Belief) -> Float64:
    return np.concatenate([t.ravel() for t in belief.tensors.values()]).astype(np.float64)


# ---- messages to samples ---------------------------------------------------------------------
def _samples(
    bag: Path, robot: Robot, drops: dict[str, Counter[str]], images: bool = True
) -> Iterator[Sample]:
    """The samples of the robot file's streams, in order of reception."""
    wanted = {
        s.topic: s
        for s in robot.streams.values()
        if not s.derived_from and (images or s.type != "image")
    }
    for number, message in enumerate(read_bag(bag)):
        stream = wanted.get(message.topic)
        if stream is None:
            continue
        sample = sample_of(message, stream, number)
        if isinstance(sample, Reason):
            drops.setdefault(stream.name, Counter())[sample.name] += 1
        else:
            yield sample


def sample_of(message: BagMessage, stream: Stream, sequence: int) -> Sample | Reason:
    """What a recorded message says, in the layout of its stream; or why it says nothing."""
    if message.kind != MESSAGES.get(stream.type, ODOMETRY):
        return Reason.sample_wrong_shape
    try:
        values = message_type(message.kind).decode(memoryview(message.data))
    except (ValueError, struct.error):
        return Reason.sample_wrong_shape
    if stream.type == "vector":
        stamp_ns, data = message.received_ns, values[2]
    else:
        stamp_ns = int(values[0]) * 1_000_000_000 + int(values[1])
        if stream.type != "joint_state" and values[2] != stream.frame:
            return Reason.sample_wrong_frame
        data = _data(values, stream)
    if data is None or data.shape != stream.shape:
        return Reason.sample_wrong_shape
    return Sample(stream.name, stamp_ns, message.received_ns, sequence, data)


def _data(values: list[object], stream: Stream) -> Array | None:
    row: list = list(values)  # type: ignore[type-arg]
    if stream.type == "image":
        height, width, encoding, step = row[3], row[4], row[5], row[7]
        channels, flat = CHANNELS.get(encoding), np.frombuffer(row[8], np.uint8)
        if channels is None or step < width * channels or len(flat) != height * step:
            return None
        pixels = flat.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
        image = pixels[..., :3][..., ::-1] if encoding.startswith("bgr") else pixels[..., :3]
        return np.ascontiguousarray(image)
    if stream.type == "imu":
        return np.array([*row[16:19], *row[28:31]], np.float32)
    if stream.type == "range_scan":
        return np.asarray(row[10], np.float32)
    if stream.type == "joint_state":
        names, position, velocity = list(row[3]), row[4], row[5]
        if len(position) != len(names) or len(velocity) != len(names):
            return None
        if any(joint not in names for joint in stream.joints):
            return None
        columns = [names.index(joint) for joint in stream.joints]
        return np.array([[p[c] for c in columns] for p in (position, velocity)], np.float32)
    x, y, _, qx, qy, qz, qw = row[4:11]
    yaw = math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
    twist = row[47:53]
    return np.array([x, y, yaw, twist[0], twist[1], twist[5]], np.float64)
