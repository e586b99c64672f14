"""What a model is measured on: moments of a run, and what was played after each.

    a recording of `edge-wm run`    its samples, synchronized anew at every plan tick; the
                                    setpoints that were sent; the goal of the tick
    a bag of the robot's sensors    the same from what anybody recorded, by the motion that was
                                    measured; the goal is where it ended
    an .npz                         arrays named after the graphs' input tensors, one row a model
                                    step (see `npz_names`)
    nothing                         the bundle's reference inputs and seeded random actions: this
                                    says little, and the card says so

Invariant: a `Data` has at least `NEEDED` moments that can be imagined from (those with a whole
horizon of played actions after them), all of them for a robot that the model fits.
"""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_wm.bags import bag_samples, measured_motion
from edge_wm.bundle import Bundle, Manifest, check_fit
from edge_wm.bundle.container import read_file
from edge_wm.bundle.manifest import Input
from edge_wm.errors import (
    MismatchError,
    RecordingError,
    RefusedError,
    SystemTroubleError,
    UsageError,
)
from edge_wm.guarding.senses import Senses
from edge_wm.recording import PlanBegin, Recording, Step, open_recording
from edge_wm.recording.bag import bag_files
from edge_wm.robot import Axis, Robot, parse_robot
from edge_wm.synchronizer import Synchronizer
from edge_wm.types import (
    Array,
    Float32,
    Goal,
    ImageGoal,
    Int64,
    JointGoal,
    LatentGoal,
    Motion,
    Observation,
    PoseGoal,
    Sample,
    Seen,
)

NEEDED = 32  # moments to imagine from: with fewer, a spread means nothing
STARTS = 160  # of them, evenly over the data, that are imagined from
RANDOM_STARTS = 48  # without data
MAX_NPZ = 2**31  # bytes
FRAME = "odom"  # of pose goals that come without one


class MeanAction(Protocol):
    """`WorldModel.mean_action`."""

    def __call__(self, motion: Motion, from_ns: int, until_ns: int) -> Float32: ...


@dataclass(frozen=True, slots=True)
class Moment:
    """What the model was shown, and what the robot then did."""

    observation: Observation
    last_action: Float32  # (block * A,) SI, over the step before
    goal: Goal
    actions: Float32 | None = None  # (H * block, A) SI; None: only to be believed, not from here
    knot: Motion | None = None  # where the axes were


@dataclass(frozen=True)
class Source:
    """A file, or the bundle itself, that moments come from."""

    name: str
    kind: str  # "recording", "bag", "npz" or "reference inputs"
    sha256: str
    moments: int


@dataclass(frozen=True)
class Data:
    """Moments in runs, each in the order of time."""

    runs: tuple[tuple[Moment, ...], ...]
    sources: tuple[Source, ...]
    axes: tuple[Axis, ...]  # the robot's, or what the model's actions from -1 to 1 reach
    frames: frozenset[str]  # of pose goals

    @property
    def weak(self) -> bool:
        """Whether this is not data at all, but the bundle's own reference inputs."""
        return any(source.kind == "reference inputs" for source in self.sources)

    @property
    def starts(self) -> int:
        """Moments to imagine from."""
        return sum(moment.actions is not None for run in self.runs for moment in run)

    @property
    def sha256(self) -> str | None:
        """Of the file, or of the files' digests one after the other; None without any."""
        if self.weak:
            return None
        if len(self.sources) == 1:
            return self.sources[0].sha256
        together = "".join(source.sha256 for source in self.sources)
        return hashlib.sha256(bytes.fromhex(together)).hexdigest()


def read_data(
    bundle: Bundle,
    paths: Sequence[Path],
    mean_action: MeanAction,
    bags_of: Robot | None = None,
) -> Data:
    """The data in recordings, bags and .npz files, or without any that of the bundle itself.

    bags_of: the robot that bags, which do not say so themselves, were recorded of.

    Raises: MismatchError (another robot or model), RefusedError (too few moments), UsageError,
    FormatError (a file is not what its name says), SystemTroubleError.
    """
    manifest = bundle.manifest
    if not paths:
        return _of_bundle(bundle)
    runs: list[tuple[Moment, ...]] = []
    sources, axes, frames = [], tuple[Axis, ...](), set[str]()
    for path in paths:
        ending = path.suffix.lower()
        if ending == ".npz":
            kind, run = "npz", tuple(_of_npz(bundle, path))
            frames.add(FRAME)
        elif bags_of is not None and not _is_run(path):
            check_fit(manifest, bags_of)
            kind, run = "bag", tuple(_of_bag(path, bags_of, manifest, mean_action))
            frames |= {s.frame for s in bags_of.streams.values() if s.type == "odometry"}
            axes = bags_of.axes
        elif ending == ".mcap":
            recording = open_recording(path)
            robot = _robot(recording, manifest)
            kind, run = "recording", tuple(_of_recording(recording, robot, manifest, mean_action))
            frames |= {s.frame for s in robot.streams.values() if s.type == "odometry"}
            axes = robot.axes
        else:
            raise UsageError(
                f"--data {path}: must be a recording of a run (.mcap), an .npz file, or, with "
                "--robot, a bag"
            )
        sources.append(Source(path.name, kind, _digest(path), len(run)))
        runs.append(run)
    found = Data(tuple(runs), tuple(sources), axes or _reach(manifest), frozenset(frames))
    if found.starts < NEEDED:
        seconds = manifest.horizon * manifest.step_ns * 1e-9
        raise RefusedError(
            f"{', '.join(path.name for path in paths)}: at least {NEEDED} moments with "
            f"{manifest.horizon} steps ({seconds:g} s) of played actions after them are needed, "
            f"found {found.starts}; give a longer recording, or more of them"
        )
    return _thinned(found, STARTS, every="posterior" in manifest.functions)


def _thinned(data: Data, count: int, *, every: bool) -> Data:
    """`count` moments to imagine from, evenly spread.

    every: keep the others too, for a model whose belief goes on from one to the next.
    """
    chosen = set(np.linspace(0, data.starts - 1, min(count, data.starts)).round().astype(int))
    number = -1
    runs = []
    for run in data.runs:
        kept = []
        for moment in run:
            number += moment.actions is not None
            if moment.actions is not None and number in chosen:
                kept.append(moment)
            elif every:
                kept.append(replace(moment, actions=None))
        runs.append(tuple(kept))
    return replace(data, runs=tuple(runs))


# ---- recordings ---------------------------------------------------------------------------
def _robot(recording: Recording, manifest: Manifest) -> Robot:
    """The robot that was recorded. Raises: MismatchError, if the model does not fit it."""
    robot = parse_robot(recording.header.robot_text, f"{recording.path}: its robot file")
    try:
        check_fit(manifest, robot)
    except MismatchError as error:
        raise MismatchError(f"{recording.path}: {error}") from None
    if recording.header.settings.get("shadow"):
        raise RefusedError(
            f"{recording.path}: was recorded with --shadow, its commands did not move the robot; "
            "give a recording of a run that drove"
        )
    return robot


def _is_run(path: Path) -> bool:
    """Is it a recording of edge-wm's own?"""
    try:
        open_recording(path)
    except (RecordingError, SystemTroubleError):
        return False
    return True


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of those of a bag's folder one after the other."""
    found = hashlib.sha256()
    for file in bag_files(path) if path.is_dir() else [path]:
        found.update(file.read_bytes())
    return found.hexdigest()


def _of_bag(
    bag: Path, robot: Robot, manifest: Manifest, mean_action: MeanAction
) -> Iterator[Moment]:
    """The moments of a bag: at each plan tick with a usable observation."""
    track = measured_motion(bag, robot)
    reference = max(manifest.needs.streams, key=lambda name: robot.streams[name].period_ns)
    view = Synchronizer(robot, tuple(manifest.needs.streams), reference)
    senses = Senses(robot, [view])
    seen: list[tuple[Observation, Goal]] = []
    due_ns = 0
    for sample in bag_samples(bag, robot, {}):
        due_ns = due_ns or sample.received_ns + robot.plan_period_ns
        while sample.received_ns >= due_ns:
            observation = view.observe(due_ns)
            due_ns += robot.plan_period_ns
            again = bool(seen) and seen[-1][0].stamp_ns == observation.stamp_ns
            if observation.usable and not again:
                seen.append((observation, track.end))
        senses.push(sample)
    whole = track.whole
    yield from _moments(
        seen, whole.times_ns, whole.position, whole.velocity, robot, manifest, mean_action
    )


def _of_recording(
    recording: Recording, robot: Robot, manifest: Manifest, mean_action: MeanAction
) -> Iterator[Moment]:
    """The moments of a run: at each plan tick with a usable observation and a goal."""
    seen: list[tuple[Observation, Goal]] = []
    knots: list[tuple[int, Array, Array]] = []
    reference = max(manifest.needs.streams, key=lambda name: robot.streams[name].period_ns)
    view = Synchronizer(robot, tuple(manifest.needs.streams), reference)
    for _, event in recording.events():
        match event:
            case Sample():
                view.push(event)
            case PlanBegin(goal=goal):
                observation = view.observe(event.now_ns)
                again = bool(seen) and seen[-1][0].stamp_ns == observation.stamp_ns
                if goal is not None and observation.usable and not again:
                    seen.append((observation, goal))
            case Step():
                sent = event.verdict.setpoint
                knots.append((int(sent.times_ns[0]), sent.position[0], sent.velocity[0]))
    if not knots:
        return
    # What was sent for a time acts on the robot after its delay.
    times = np.array([knot[0] for knot in knots], np.int64) + robot.actuation_delay_ns
    position, velocity = (np.array([knot[i] for knot in knots]) for i in (1, 2))
    yield from _moments(seen, times, position, velocity, robot, manifest, mean_action)


def _moments(
    seen: Sequence[tuple[Observation, Goal]],
    times: Int64,
    position: Array,
    velocity: Array,
    robot: Robot,
    manifest: Manifest,
    mean_action: MeanAction,
) -> Iterator[Moment]:
    """What was seen, with the motion that acted then. times: (N,), position, velocity: (N, A)."""
    axes = tuple(axis.name for axis in robot.axes)
    step_ns, horizon = manifest.step_ns, manifest.horizon

    def played(from_ns: int, until_ns: int) -> Motion:
        first, last = _around(times, from_ns, until_ns)
        return Motion(axes, times[first:last], position[first:last], velocity[first:last])

    for observation, goal in seen:
        now_ns = observation.stamp_ns
        end_ns = now_ns + horizon * step_ns
        motion = played(now_ns - step_ns, end_ns)
        actions = None
        if end_ns <= times[-1] and now_ns >= times[0]:
            edges = [now_ns + h * step_ns for h in range(horizon + 1)]
            steps = [mean_action(motion, *pair) for pair in pairwise(edges)]
            actions = np.stack(steps).reshape(horizon * manifest.block, len(axes))
        yield Moment(
            observation,
            mean_action(motion, now_ns - step_ns, now_ns),
            goal,
            actions,
            played(now_ns, now_ns),
        )


def _around(times: Int64, from_ns: int, until_ns: int) -> tuple[int, int]:
    """The knots between two times, with one more at either side where there is one."""
    first = max(int(np.searchsorted(times, from_ns, "right")) - 1, 0)
    return first, min(int(np.searchsorted(times, until_ns, "left")) + 1, len(times))


# ---- arrays ---------------------------------------------------------------------------------
def npz_names(manifest: Manifest) -> dict[str, tuple[str, tuple[int, ...], bool]]:
    """The arrays of an .npz: tensor -> (source, shape of one row, whether it must be there).

    The encoder's inputs as its graph reads them (or in the stream's dtype); the dynamics' action,
    in the graph's numbers, that acts from the row's moment on; and the goal, as the graphs read
    it, of the bundle's reference cases where it is not given.
    """
    names = {
        spec.tensor: (spec.source, manifest.needs.streams[_stream(spec)].shape, True)
        for spec in manifest.functions["encoder"].inputs
    }
    for spec in manifest.functions["dynamics"].inputs:
        if spec.source == "action":
            names[spec.tensor] = ("action", (manifest.action_size,), True)
    for spec in _goals(manifest):
        shape = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
        names.setdefault(spec.tensor, (spec.source, shape, False))
    return names


def _stream(spec: Input) -> str:
    return spec.source.removeprefix("observation.")


def _goals(manifest: Manifest) -> list[Input]:
    """The inputs that a goal is given in."""
    wanted = {f"goal.{kind}" for kind in manifest.goal_kinds}
    return [s for f in manifest.functions.values() for s in f.inputs if s.source in wanted]


def _of_npz(bundle: Bundle, path: Path) -> Iterator[Moment]:
    manifest = bundle.manifest
    names = npz_names(manifest)
    arrays = _arrays(path)
    listed = "; ".join(
        f"{name} (rows, {', '.join(map(str, shape))}){'' if needed else ', optional'}"
        for name, (_, shape, needed) in names.items()
    )
    for name, (_, _, needed) in names.items():
        if needed and name not in arrays:
            raise MismatchError(
                f"{path}: must have the arrays {listed}; got {', '.join(arrays) or 'none'}, "
                f"without {name}"
            )
    if unknown := sorted(set(arrays) - set(names)):
        raise MismatchError(f"{path}: array {unknown[0]!r} is none of {listed}")
    rows = len(next(iter(arrays.values()))) if arrays else 0
    shaped: dict[str, Array] = {}
    for name, value in arrays.items():
        source, shape, _ = names[name]
        if value.shape not in ((rows, *shape), (rows, 1, *shape)) or value.dtype.kind not in "fui":
            raise MismatchError(
                f"{path}: array {name} must be numbers ({rows}, {', '.join(map(str, shape))}), "
                f"a row for each model step, got {value.dtype} {list(value.shape)}"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise RefusedError(f"{path}: array {name} must be finite, it holds NaN or infinity")
        shaped[source] = value.reshape(rows, *shape)
    yield from _of_rows(bundle, shaped, rows)


def _arrays(path: Path) -> dict[str, Array]:
    data = io.BytesIO(read_file(path, MAX_NPZ))  # names a missing file as every other
    try:
        with np.load(data, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path}: must be an .npz file: {error}") from None


def _of_rows(bundle: Bundle, rows: Mapping[str, Array], count: int) -> Iterator[Moment]:
    """Moments one model step apart. rows: source -> (count, ...)."""
    manifest = bundle.manifest
    horizon, step_ns = manifest.horizon, manifest.step_ns
    model_actions = rows["action"].astype(np.float32).reshape(count, -1, len(manifest.needs.axes))
    actions = _si(manifest, model_actions)
    goals = _reference_goals(bundle)
    for i in range(count):
        stamp_ns = (i + 1) * step_ns
        given = [_goal(source, rows[source][i]) for source in rows if source.startswith("goal.")]
        last = actions[i - 1] if i else np.zeros_like(actions[0])
        after = actions[i : i + horizon].reshape(-1, actions.shape[2])
        yield Moment(
            _observation(manifest, {s: v[i] for s, v in rows.items()}, stamp_ns),
            last.reshape(-1),
            given[0] if given else goals[i % len(goals)],
            after if i + horizon <= count else None,
        )


def _si(manifest: Manifest, model_actions: Float32) -> Float32:
    """(..., A) in the model's numbers -> the same in SI."""
    scale = np.array([axis.scale for axis in manifest.needs.axes], np.float32)
    offset = np.array([axis.offset for axis in manifest.needs.axes], np.float32)
    actions: Float32 = model_actions * scale + offset
    return actions


def _observation(manifest: Manifest, items: Mapping[str, Array], stamp_ns: int) -> Observation:
    streams = {}
    for spec in manifest.functions["encoder"].inputs:
        name, shape = _stream(spec), manifest.needs.streams[_stream(spec)].shape
        sample = Sample(name, stamp_ns, stamp_ns, 0, items[spec.source].reshape(shape))
        streams[name] = Seen(sample, 0, None)
    return Observation(stamp_ns, stamp_ns, streams)


def _goal(source: str, value: Array) -> Goal:
    """A goal from the tensor that a graph reads it in."""
    if source == "goal.pose":
        x, y, yaw, has_yaw = value.reshape(4).tolist()
        return PoseGoal(x, y, yaw if has_yaw else None, FRAME)
    if source == "goal.joints":
        return JointGoal(value.astype(np.float64))
    if source == "goal.image":
        return ImageGoal(value)
    return LatentGoal(value.astype(np.float32))


# ---- the bundle itself ------------------------------------------------------------------------
def _of_bundle(bundle: Bundle) -> Data:
    """Reference observations, in turn, with seeded random actions: each a run of one moment."""
    manifest = bundle.manifest
    observed = list(_reference_rows(bundle, "encoder"))
    goals = _reference_goals(bundle)
    if not observed:
        raise RefusedError(
            f"bundle {manifest.name}: has no reference inputs of its encoder to measure on; give "
            "recordings or samples with --data"
        )
    random = np.random.Generator(np.random.Philox(key=0))
    shape = (RANDOM_STARTS, manifest.horizon * manifest.block, len(manifest.needs.axes))
    actions = _si(manifest, random.uniform(-1, 1, shape).astype(np.float32))
    runs = []
    for i in range(RANDOM_STARTS):
        observation = _observation(manifest, observed[i % len(observed)], manifest.step_ns)
        last = actions[i, : manifest.block].reshape(-1)
        runs.append((Moment(observation, last, goals[i % len(goals)], actions[i]),))
    source = Source(bundle.path.name, "reference inputs", bundle.sha256, RANDOM_STARTS)
    return Data(tuple(runs), (source,), _reach(manifest), frozenset({FRAME}))


def _reference_rows(bundle: Bundle, name: str) -> Iterator[dict[str, Array]]:
    """source -> value of every row of a function's reference inputs."""
    function = next(f for n, f in bundle.manifest.functions.items() if n == name)
    for case in bundle.manifest.reference:
        if case.function != name or (case.formats and "onnx" not in case.formats):
            continue
        arrays = {
            i.source: np.frombuffer(bundle.blob(case.inputs[i.tensor]), i.dtype).reshape(i.shape)
            for i in function.inputs
        }
        batched = {i.source for i in function.inputs if i.shape[:1] == (-1,)}
        rows = max((len(arrays[source]) for source in batched), default=1)
        for row in range(rows):
            yield {s: value[row] if s in batched else value for s, value in arrays.items()}


def _reference_goals(bundle: Bundle) -> list[Goal]:
    """The goals in the bundle's reference cases."""
    manifest = bundle.manifest
    wanted = {spec.source for spec in _goals(manifest)}
    for name in manifest.functions:
        rows = list(_reference_rows(bundle, name))
        found = [_goal(s, row[s]) for row in rows for s in row if s in wanted]
        if found:
            return found
    raise RefusedError(
        f"bundle {manifest.name}: has no goal in its reference inputs to plan for; give "
        "recordings, or samples with a goal, with --data"
    )


def _reach(manifest: Manifest) -> tuple[Axis, ...]:
    """Axes whose limits are what model actions from -1 to 1 mean: there is no robot file here."""
    made = []
    for axis in manifest.needs.axes:
        low, high = axis.offset - axis.scale, axis.offset + axis.scale
        made.append(
            Axis(
                name=axis.name,
                kind=axis.kind,
                unit=axis.unit,
                position_min=low,
                position_max=high,
                velocity_min=low,
                velocity_max=high,
                effort_max=axis.scale,
                acceleration=math.inf,  # the planner asks for none of these
                braking=math.inf,
                jerk=math.inf,
                rest_speed=0.0,
            )
        )
    return tuple(made)
