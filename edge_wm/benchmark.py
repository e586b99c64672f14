"""How fast a bundle plans on this machine: whole plans, one after another, on one core.

    open, check, load, warm up ──► ready          (cold start, once)
    int8 peak ─► plan, plan, plan … ─► int8 peak  (wall and processor time of each)

What is timed is what the plan tick does between belief and proposal: the planner with all its
iterations, rollouts included; and, apart from it, what makes a belief of an observation. Sensors,
guard and recording are not in it; `edge-wm run` shows those. Processor time is what to compare
machines and settings by, since another process on the core does not add to it; wall time is what
a deadline sees.
"""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_wm.backends.choice import settle, spelled
from edge_wm.bundle import Bundle
from edge_wm.bundle.program import read_program
from edge_wm.errors import MismatchError, ModelError
from edge_wm.planner import CountBudget, PlannerSettings, make_planner
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.runtime import Permitted, planner_settings
from edge_wm.types import (
    Array,
    Belief,
    Float64,
    Goal,
    JointGoal,
    Motion,
    Observation,
    PoseGoal,
    Sample,
    Seen,
)
from edge_wm.world_model import WorldModel

LEAST_PLANS = 20  # a machine may stand still for longer than a short measurement
WARM_UP_PLANS = 20
UPDATES = 100
MOVED = 0.15  # more than this share between the two peaks, and the figures mean little
PAGE = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of the durations of one plan, ms."""

    p50: float
    p99: float
    p999: float
    most: float

    @staticmethod
    def of(seconds: Float64) -> Percentiles:
        ms = seconds * 1e3
        p50, p99, p999 = (float(v) for v in np.percentile(ms, [50, 99, 99.9], method="higher"))
        return Percentiles(p50, p99, p999, float(ms.max()))


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `measure` found."""

    bundle: str
    backend: str
    candidates: int
    horizon: int  # in actions
    iterations: int
    ready_s: float  # from the opened bundle to the first plan, checks and warm-up included
    plans: int
    wall: Percentiles
    cpu: Percentiles
    page_faults: float  # a plan, on average, after the warm-up
    multiply_adds: int | None  # a plan; None where a function has no step program
    peak_before: float | None = field(default=None)  # int8, 1e9 multiply-adds a second, one core
    peak_after: float | None = field(default=None)
    scratch_mib: float | None = field(default=None)  # of the native rollout
    loaded_mib: float | None = field(default=None)  # by which this process grew, weights included
    encode: Percentiles | None = field(default=None)  # of one observation's update, wall time

    @property
    def spread(self) -> float:
        """p99.9 / p50 in processor time."""
        return self.cpu.p999 / self.cpu.p50

    @property
    def gmacs(self) -> float | None:
        """1e9 multiply-adds a second of processor time, at the median."""
        if self.multiply_adds is None:
            return None
        return self.multiply_adds / self.cpu.p50 * 1e-6

    @property
    def share_of_peak(self) -> float | None:
        if self.gmacs is None or self.peak_before is None or self.peak_after is None:
            return None
        return self.gmacs / max(self.peak_before, self.peak_after)

    @property
    def void(self) -> bool:
        """Did the machine's peak move too far for the figures to count?"""
        if self.peak_before is None or self.peak_after is None:
            return False
        return abs(self.peak_after / self.peak_before - 1.0) > MOVED


def measure(
    bundle: Bundle,
    robot: Robot,
    *,
    backend: str = "auto",
    candidates: int | None = None,
    seconds: float = 10.0,
    tell: Callable[[str], None] = lambda _: None,
    progress: Callable[[float], None] = lambda _: None,
) -> Benchmark:
    """Plan for `seconds`, and LEAST_PLANS times at least. progress: told the share done, 0 to 1.

    Raises: MismatchError if the bundle plans neither towards a pose nor towards joint positions,
    and what loading a `WorldModel` raises.
    """
    resident = _resident_mib()
    began = time.perf_counter()
    chosen = spelled(settle(bundle, backend, tell=tell).chosen)
    model = WorldModel(bundle, robot, backend=chosen)
    settings = planner_settings(bundle.manifest, candidates)
    planner = make_planner(settings, robot.axes)
    goals: tuple[Goal, ...] = (PoseGoal(3.0, 1.0), JointGoal(np.full(len(robot.axes), 0.5)))
    goal = next((goal for goal in goals if model.check_goal(goal) is None), None)
    if goal is None:
        raise MismatchError(
            f"bundle {bundle.manifest.name}: must plan towards a pose or joint positions to be "
            "measured here, and takes other goals; measure it with `edge-wm run`"
        )
    rollout = Permitted(model.rollout, model)
    still = np.zeros((1, len(robot.axes)))

    def plan(index: int) -> None:
        stamp_ns = index * robot.plan_period_ns
        belief = Belief(stamp_ns, model.blank_belief(stamp_ns).tensors)
        planner.commit(Motion(robot.axis_names, np.array([stamp_ns]), still, still))
        planner.propose(belief, goal, rollout, CountBudget(1 << 30), stamp_ns=stamp_ns)

    plan(0)
    ready_s = time.perf_counter() - began
    for index in range(1, WARM_UP_PLANS):
        plan(index)
    loaded = None if resident is None else (_resident_mib() or resident) - resident
    encode = Percentiles.of(_time_updates(model))
    peak_before = int8_peak()
    wall, cpu, faults = _time(plan, seconds, progress)
    return Benchmark(
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        backend=model.backend,
        candidates=settings.candidates,
        horizon=settings.horizon,
        iterations=settings.iterations,
        ready_s=ready_s,
        plans=len(wall),
        wall=Percentiles.of(wall),
        cpu=Percentiles.of(cpu),
        page_faults=faults / len(wall),
        multiply_adds=_multiply_adds(bundle, settings),
        peak_before=peak_before,
        peak_after=int8_peak(),
        scratch_mib=None if model.scratch_bytes is None else model.scratch_bytes / 2**20,
        loaded_mib=loaded,
        encode=encode,
    )


def _time_updates(model: WorldModel) -> Float64:
    """Wall time of encoder and posterior for one observation after another, (UPDATES,) s.

    Raises: ModelError, if the model believes nothing of plausible numbers.
    """
    manifest, random = model.manifest, np.random.default_rng(0)
    data: dict[str, Array] = {}
    for name, need in manifest.needs.streams.items():
        whole = np.dtype(need.dtype).kind in "ui"
        drawn = random.integers(0, 256, need.shape) if whole else random.random(need.shape)
        data[name] = drawn.astype(need.dtype)
    last_action = np.zeros(manifest.action_size, np.float32)
    took = []
    for index in range(WARM_UP_PLANS + UPDATES):
        stamp_ns = index * manifest.step_ns
        streams = {
            name: Seen(Sample(name, stamp_ns, stamp_ns, index, values), 0, None)
            for name, values in data.items()
        }
        observation = Observation(stamp_ns, stamp_ns, streams)
        began = time.perf_counter_ns()
        belief = model.update(observation, last_action)
        took.append(time.perf_counter_ns() - began)
        if isinstance(belief, Reason):
            raise ModelError(
                f"bundle {manifest.name}: must make a belief of random observations to be measured "
                f"here, got {belief.name}; measure it with `edge-wm run`"
            )
    return np.array(took[WARM_UP_PLANS:]) * 1e-9


def _time(
    plan: Callable[[int], None], seconds: float, progress: Callable[[float], None]
) -> tuple[Float64, Float64, int]:
    """Wall and processor time of each plan (s), and the page faults of all together."""
    wall: list[int] = []
    cpu: list[int] = []
    faults = 0
    collecting = gc.isenabled()
    gc.disable()
    try:
        began = time.perf_counter()
        while (gone := time.perf_counter() - began) < seconds or len(wall) < LEAST_PLANS:
            if len(wall) % 50 == 0:
                progress(min(gone / seconds, 1.0))
                gc.collect()
            faults_before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            wall_began, cpu_began = time.perf_counter_ns(), time.process_time_ns()
            plan(WARM_UP_PLANS + len(wall))
            cpu.append(time.process_time_ns() - cpu_began)
            wall.append(time.perf_counter_ns() - wall_began)
            faults += resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults_before
    finally:
        if collecting:
            gc.enable()
    progress(1.0)
    return np.array(wall) * 1e-9, np.array(cpu) * 1e-9, faults


def _multiply_adds(bundle: Bundle, settings: PlannerSettings) -> int | None:
    """Of one plan: what every candidate costs at every step, and its value at the end."""
    work = {}
    for name, function in bundle.manifest.functions.items():
        if name in ("dynamics", "cost", "constraint", "value"):
            if "program" not in function.graphs:
                return None
            program = read_program(bundle.blob(function.graphs["program"]), f"{name}.program")
            work[str(name)] = program.work
    value = work.pop("value", 0)
    steps = settings.horizon // bundle.manifest.block
    each = steps * sum(work.values()) + value
    return settings.iterations * settings.candidates * each


def int8_peak(milliseconds: float = 200.0) -> float | None:
    """What one core does at best now, 1e9 int8 multiply-adds a second; None: not compiled."""
    try:
        from edge_wm import _native
    except ImportError:
        return None
    return float(_native.int8_peak(milliseconds=milliseconds))


def _resident_mib() -> float | None:
    """Resident memory of this process (Linux; proc(5), statm); None elsewhere."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20
    except OSError:
        return None
