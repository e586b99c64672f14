"""Drives many episodes in simulated time and counts how they end, beside honest baselines.

An episode is one generated world: drive from the start to the goal. It runs through the same
`Runtime` as the robot (synchronizer, belief, planner, trajectory, guard), in simulated time and
with the planner's latency modeled as a fixed delay, so a table depends on nothing but its seeds.

    driver      what it may use
    planner     the bundle's model and its planner, as on the robot
    no_ranges   the same, without asking the guard what its raw ranges would let pass
    no_camera   the same, without every cost and constraint that looks at the camera
    neither     without both
    straight    turn towards the goal and drive; no model, no camera
    random      twists held for a while; no goal
    geometry    the same planner with a kinematic model on the *true* world: the upper bound

All of them are under the same guard, which brakes for what the range scanner sees. So the table
tells apart what the camera's model adds (planner against no_camera, no_ranges
against neither) and what the guard's foresight adds (planner against no_ranges).

An episode succeeds if the runtime says that the goal is reached, the robot truly is within
`GOAL_DISTANCE` of it, and it never touched anything. It is a collision if it touched something.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.planner import CountBudget, Planner, make_planner
from edge_wm.reasons import Reason
from edge_wm.recording import Truth as TruthEvent
from edge_wm.recording import World as WorldEvent
from edge_wm.robot import Robot, load_robot
from edge_wm.runtime import (
    Driver,
    Journal,
    ModelDriver,
    PlanRequest,
    RunSettings,
    Runtime,
    Thought,
    planner_settings,
)
from edge_wm.runtime.live import Live
from edge_wm.simulation import (
    ArmSimulation,
    Disturbances,
    RoverSimulation,
    Simulation,
    make_simulation,
)
from edge_wm.simulation.world import HELD_BACK_SEED
from edge_wm.types import (
    Belief,
    Budget,
    Float32,
    Goal,
    JointGoal,
    PoseGoal,
    Proposal,
    Rollout,
)
from edge_wm.world_model import WorldModel

DRIVERS = (
    "planner",
    "no_ranges",
    "no_camera",
    "neither",
    "straight",
    "random",
    "geometry",
)
GOAL_DISTANCE = RoverSimulation.near  # m, in truth
TIME_LIMIT_S = 30.0
SETTLE_NS = 1_000_000_000  # at rest before the guard is activated: the gyroscope's bias is learned
BLIND_TO = ("risk", "clearance")  # cost terms that are read from the camera
TRUTH_EVERY_NS = 50_000_000  # in recordings
OBSTACLE_REASONS = (Reason.obstacle_ahead, Reason.obstacle_near)
MORE_THAN_ENOUGH = 1 << 30  # of the budget: the settings' iterations decide


@dataclass(frozen=True, slots=True)
class Episode:
    """How one episode ended."""

    driver: str
    world_seed: int
    success: bool
    collision: bool
    reached: bool  # in the runtime's opinion
    seconds: float  # simulated time until the goal, a touch, or the time limit
    distance: float  # m driven, in truth
    goal_distance: float  # m left at the end, in truth
    plans: int
    refused: int  # trajectories that the guard refused
    braked_s: float  # time in which the guard braked or slowed for an obstacle


# ---- drivers ------------------------------------------------------------------------------
class BlindDriver(ModelDriver):
    """The model's planner, with all that looks at the camera taken out of the cost."""

    def __init__(self, model: WorldModel, planner: Planner, *, foresight: bool = True) -> None:
        super().__init__(model, planner, foresight=foresight)
        self.rollout = self._blind

    def _blind(self, belief: Belief, actions: Float32, goal: Goal, seed: int) -> Rollout:
        seeing = self.model.rollout(belief, actions, goal, seed)
        weights = dict.fromkeys(seeing.terms, 1.0) | dict(self.model.weights)
        cost = np.zeros(len(actions), np.float32)
        for name, values in seeing.terms.items():
            if name not in BLIND_TO:
                cost += np.float32(weights[name]) * values
        return Rollout(cost, ~np.isfinite(cost), seeing.terms)


class StraightDriver:
    """Turn towards the goal and drive at it."""

    def __init__(self, robot: Robot, horizon: int, step_ns: int) -> None:
        self._axes = robot.axes
        self._horizon, self._step_ns = horizon, step_ns

    def reset(self, seed: int) -> None:
        """Nothing to forget."""

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        pose = _odometry(request)
        vx_axis, wz_axis = self._axes
        actions = np.zeros((self._horizon, 2), np.float32)
        goal = request.goal
        assert isinstance(goal, PoseGoal)
        for h in range(self._horizon):
            away = math.hypot(goal.x - pose[0], goal.y - pose[1])
            error = math.remainder(
                math.atan2(goal.y - pose[1], goal.x - pose[0]) - pose[2], math.tau
            )
            wz = min(max(2.0 * error, wz_axis.velocity_min), wz_axis.velocity_max)
            vx = max(0.0, math.cos(error)) * min(vx_axis.velocity_max, 1.5 * away)
            actions[h] = vx, wz
            pose = _moved(np.array([pose]), np.array([[vx, wz]]), self._step_ns * 1e-9)[0]
        return Thought(_proposal(request, self._axes, actions, self._step_ns))


class RandomDriver:
    """Twists drawn anew now and then, uniformly within the limits."""

    def __init__(self, robot: Robot, horizon: int, step_ns: int) -> None:
        self._axes = robot.axes
        self._horizon, self._step_ns = horizon, step_ns
        self.reset(0)

    def reset(self, seed: int) -> None:
        self._generator = np.random.Generator(np.random.Philox(key=seed))
        self._until_ns = 0
        self._twist = np.zeros(len(self._axes))

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        if request.now_ns >= self._until_ns:
            lowest = [axis.velocity_min for axis in self._axes]
            highest = [axis.velocity_max for axis in self._axes]
            self._twist = self._generator.uniform(lowest, highest)
            self._until_ns = request.now_ns + int(self._generator.uniform(0.5, 2.0) * 1e9)
        actions = np.tile(self._twist.astype(np.float32), (self._horizon, 1))
        return Thought(_proposal(request, self._axes, actions, self._step_ns))


class GeometryDriver:
    """The same planner, imagining with the true obstacles and a kinematic model."""

    def __init__(self, robot: Robot, planner: Planner, step_ns: int) -> None:
        assert robot.base is not None
        self._planner = planner
        self._step_s = step_ns * 1e-9
        self._radius = robot.base.footprint_radius
        self.simulation: RoverSimulation | None = None  # whose truth it may look at

    def reset(self, seed: int) -> None:
        self._planner.reset(seed)

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        assert self.simulation is not None
        truth, acting = self.simulation.truth(), request.acting
        pose = np.array([truth.pose])
        times = np.arange(request.now_ns, request.effective_ns, 10_000_000)
        for at_ns in times:  # what is committed will happen whatever is planned
            twist = [np.interp(at_ns, acting.times_ns, column) for column in acting.velocity.T]
            pose = _moved(pose, np.array([twist]), 0.01)
        belief = Belief(request.effective_ns, {"pose": pose[0]})
        proposal = self._planner.propose(
            belief, request.goal, self._rollout, budget, stamp_ns=request.observation.stamp_ns
        )
        return Thought(proposal, belief, belief)

    def _rollout(self, belief: Belief, actions: Float32, goal: Goal, seed: int) -> Rollout:
        assert self.simulation is not None
        geometry = self.simulation.geometry()
        gx, gy = self.simulation.world.goal
        candidates, horizon, _ = actions.shape
        pose = np.tile(belief.tensors["pose"], (candidates, 1))
        cost = np.zeros(candidates)
        infeasible = np.zeros(candidates, bool)
        for h in range(2 * horizon):  # half steps: a pillar must not fit between two
            pose = _moved(pose, actions[:, h // 2], self._step_s / 2)
            room = geometry.clearance(pose[:, :2]) - self._radius
            infeasible |= room < 0.03
            cost += 2.0 * np.maximum(0.0, 0.15 - room)
            cost += 0.05 * np.hypot(pose[:, 0] - gx, pose[:, 1] - gy)
        away = np.hypot(pose[:, 0] - gx, pose[:, 1] - gy)
        bearing = np.arctan2(gy - pose[:, 1], gx - pose[:, 0]) - pose[:, 2]
        cost += 2.0 * away + 0.2 * np.minimum(away, 1.0) * (1.0 - np.cos(bearing))
        cost[infeasible] = np.inf
        return Rollout(cost.astype(np.float32), infeasible)


def _odometry(request: PlanRequest) -> tuple[float, float, float]:
    sample = request.observation.streams["odometry"].sample
    assert sample is not None  # a request is made of usable observations only
    x, y, yaw = sample.data[:3]
    return float(x), float(y), float(yaw)


def _moved(pose: np.ndarray, twist: np.ndarray, seconds: float) -> np.ndarray:
    """Poses (K, 3) after moving with twists (K, 2) vx, wz, on the arc's chord."""
    turned = twist[:, 1] * seconds
    heading = pose[:, 2] + turned / 2
    step = twist[:, 0] * seconds
    return np.stack(
        [
            pose[:, 0] + step * np.cos(heading),
            pose[:, 1] + step * np.sin(heading),
            pose[:, 2] + turned,
        ],
        axis=1,
    )


def _proposal(
    request: PlanRequest, axes: Sequence[Any], actions: Float32, step_ns: int
) -> Proposal:
    return Proposal(
        stamp_ns=request.observation.stamp_ns,
        apply_at_ns=request.effective_ns,
        step_ns=step_ns,
        axes=tuple(axis.name for axis in axes),
        actions=actions,
        cost=0.0,
        iterations=1,
        candidates=1,
        infeasible=0,
        answers=(),
    )


# ---- one episode --------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Conditions:
    """What an episode is driven under; the same for every driver of a table."""

    disturbances: Disturbances = field(default_factory=Disturbances)
    plan_latency_ns: int | None = None  # None: as the robot runs live
    candidates: int | None = None  # None: as the bundle says


@dataclass(frozen=True, slots=True)
class Job:
    """One episode to be driven by some process."""

    driver: str
    world_seed: int
    seed: int
    conditions: Conditions


class Cockpit:
    """A robot, an opened bundle and the drivers made from them, used for many episodes."""

    def __init__(self, robot: Robot, bundle: Bundle, *, backend: str = "first") -> None:
        self.robot = robot
        self.bundle = bundle
        self._model = WorldModel(bundle, robot, backend=backend)

    def driver(self, name: str, candidates: int | None = None) -> Driver:
        """The driver called `name`, one of DRIVERS."""
        manifest, robot = self.bundle.manifest, self.robot
        if name == "straight":
            return StraightDriver(robot, manifest.horizon, manifest.step_ns)
        if name == "random":
            return RandomDriver(robot, manifest.horizon, manifest.step_ns)
        planner = make_planner(planner_settings(manifest, candidates), robot.axes)
        if name == "geometry":
            return GeometryDriver(robot, planner, manifest.step_ns)
        kind = BlindDriver if name in ("no_camera", "neither") else ModelDriver
        return kind(self._model, planner, foresight=name in ("planner", "no_camera"))

    def drive(self, job: Job, journal: Journal | None = None) -> Episode:
        """One episode, in simulated time."""
        with self._simulation(job) as simulation:
            runtime = self._runtime(job, simulation, journal)
            goal = simulation.goals[0]
            period_ns = self.robot.setpoint_period_ns
            pending: tuple[int, PlanRequest | Reason, Thought | None] | None = None
            plan_due_ns = SETTLE_NS
            way = Way(simulation)
            while not way.ended(runtime):
                now_ns = way.now_ns + period_ns
                for sample in simulation.step_to(now_ns):
                    runtime.push(sample)
                if now_ns == SETTLE_NS:
                    runtime.activate(now_ns)
                if pending is not None and now_ns >= pending[0]:
                    runtime.conclude(now_ns, pending[1], pending[2])
                    pending = None
                if now_ns >= plan_due_ns:
                    plan_due_ns += self.robot.plan_period_ns
                    request = runtime.begin(now_ns, goal)
                    thought = None
                    if isinstance(request, PlanRequest):
                        thought = runtime.driver.think(request, CountBudget(MORE_THAN_ENOUGH))
                    pending = (now_ns + runtime.settings.plan_latency_ns, request, thought)
                if now_ns >= SETTLE_NS:
                    simulation.send(runtime.step(now_ns).setpoint)
                way.look(runtime)
            return way.episode(job, runtime)

    def drive_live(self, job: Job) -> Episode:
        """One episode by the clock: threads, deadlines and the planner's time budget are real."""
        simulation = self._simulation(job)
        runtime = self._runtime(job, simulation, None)
        goal = simulation.goals[0]
        way = Way(simulation)
        with Live(runtime, simulation, lambda _: goal, watch=lambda: way.look(runtime)) as live:
            live.activate()
            while not way.ended(runtime) and not live.failed:
                time.sleep(0.02)
        return way.episode(job, runtime)

    def _simulation(self, job: Job) -> ArmSimulation | RoverSimulation:
        return make_simulation(
            self.robot, job.world_seed, seed=job.seed, disturbances=job.conditions.disturbances
        )

    def _runtime(self, job: Job, simulation: Simulation, journal: Journal | None) -> Runtime:
        driver = self.driver(job.driver, job.conditions.candidates)
        if isinstance(driver, GeometryDriver):
            assert isinstance(simulation, RoverSimulation)
            driver.simulation = simulation
        settings = RunSettings.for_robot(self.robot, job.seed)
        if job.conditions.plan_latency_ns is not None:
            settings = replace(settings, plan_latency_ns=job.conditions.plan_latency_ns)
        manifest = self.bundle.manifest
        return Runtime(
            self.robot,
            driver,
            settings,
            streams=tuple(manifest.needs.streams),
            step_ns=manifest.step_ns,
            journal=journal,
        )


class Way:
    """The way that a simulated robot really went: for judging, never for driving."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._next_truth_ns = 0
        self.truth = simulation.truth()
        self.distance = 0.0  # m driven

    @property
    def now_ns(self) -> int:
        """The time of the last look."""
        return self.truth.now_ns

    def look(self, runtime: Runtime) -> None:
        """Look at the simulation, in the thread that moves it on; now and then, note the truth."""
        before, self.truth = self.truth, self._simulation.truth()
        self.distance += math.dist(before.pose[:2], self.truth.pose[:2])
        if self.now_ns >= self._next_truth_ns:
            if self._next_truth_ns == 0:
                runtime.note(self._world())
            self._next_truth_ns = self.now_ns + TRUTH_EVERY_NS
            runtime.note(TruthEvent(self.now_ns, *self.truth.pose, self.truth.contact))

    def ended(self, runtime: Runtime) -> bool:
        """The goal is reached, something was touched, or time is up."""
        late = self.now_ns >= TIME_LIMIT_S * 1e9
        return bool(runtime.counts.goals_reached) or self.truth.contact_ns > 0 or late

    def episode(self, job: Job, runtime: Runtime) -> Episode:
        """How it ended."""
        counts = runtime.counts
        reached, collision = counts.goals_reached > 0, self.truth.contact_ns > 0
        braked = sum(counts.guard[reason] for reason in OBSTACLE_REASONS)
        return Episode(
            driver=job.driver,
            world_seed=job.world_seed,
            success=reached and not collision and self.truth.goal_distance <= self._simulation.near,
            collision=collision,
            reached=reached,
            seconds=self.now_ns * 1e-9,
            distance=self.distance,
            goal_distance=self.truth.goal_distance,
            plans=counts.plans,
            refused=sum(counts.refusals.values()),
            braked_s=braked * runtime.robot.setpoint_period_ns * 1e-9,
        )

    def _world(self) -> WorldEvent:
        """What stands where, and where the odometry frame lies."""
        geometry = self._simulation.geometry()
        return WorldEvent(
            now_ns=self.now_ns,
            circles=geometry.circles,
            rectangles=geometry.rectangles,
            movable=geometry.movable,
            odometry_origin=self._simulation.odometry_origin,
        )


# ---- many episodes ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Row:
    """One driver's line of the table."""

    driver: str
    episodes: int
    success_rate: float
    success_interval: tuple[float, float]  # Wilson, 95 %
    collision_rate: float
    collision_interval: tuple[float, float]
    seconds: float  # mean time to the goal, of the successes
    distance: float  # m, mean, of the successes
    goal_distance: float  # m left at the end, mean over all
    refused_share: float  # of the plans, trajectories refused by the guard
    braked_share: float  # of the time, braked or slowed by the guard for an obstacle


def row(driver: str, episodes: Sequence[Episode]) -> Row:
    """The table's line for `episodes` of one driver."""
    won = [episode for episode in episodes if episode.success]
    hits = sum(episode.collision for episode in episodes)
    count = len(episodes)
    return Row(
        driver=driver,
        episodes=count,
        success_rate=len(won) / count,
        success_interval=wilson(len(won), count),
        collision_rate=hits / count,
        collision_interval=wilson(hits, count),
        seconds=float(np.mean([e.seconds for e in won])) if won else math.nan,
        distance=float(np.mean([e.distance for e in won])) if won else math.nan,
        goal_distance=float(np.mean([e.goal_distance for e in episodes])),
        refused_share=sum(e.refused for e in episodes) / max(1, sum(e.plans for e in episodes)),
        braked_share=sum(e.braked_s for e in episodes) / sum(e.seconds for e in episodes),
    )


def wilson(hits: int, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The score interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, p. 209), 95 %."""
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def held_back(episodes: int, seed: int) -> range:
    """The world seeds of an evaluation with `seed`: never among those that were trained on."""
    first = HELD_BACK_SEED + 100_000 * seed
    return range(first, first + episodes)


def drive_all(
    jobs: Sequence[Job],
    robot_file: str,
    bundle_file: str,
    *,
    backend: str = "first",
    trust_files: Sequence[str] = (),
    processes: int | None = None,
) -> Iterator[Episode]:
    """Drive the episodes of `jobs`, in that order, on all processors."""
    processes = processes or len(os.sched_getaffinity(0))
    given = (robot_file, bundle_file, backend, tuple(trust_files))
    if processes == 1 or len(jobs) == 1:
        cockpit = _cockpit(*given)
        for job in jobs:
            yield cockpit.drive(job)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context, _prepare, given) as pool:
        yield from pool.map(_run_here, jobs)


_here: list[Cockpit] = []  # this worker process's own


def _prepare(*given: Any) -> None:
    _here.append(_cockpit(*given))


def _run_here(job: Job) -> Episode:
    return _here[0].drive(job)


def _cockpit(robot_file: str, bundle_file: str, backend: str, trust: tuple[str, ...]) -> Cockpit:
    robot = load_robot(robot_file)
    return Cockpit(robot, open_bundle(bundle_file, load_trust(trust)), backend=backend)


def drive_in_real_time(
    jobs: Sequence[Job],
    robot_file: str,
    bundle_file: str,
    *,
    backend: str = "first",
    trust_files: Sequence[str] = (),
) -> Iterator[Episode]:
    """Drive the episodes of `jobs` by the clock, one after another, planning in real threads."""
    cockpit = _cockpit(robot_file, bundle_file, backend, tuple(trust_files))
    for job in jobs:
        yield cockpit.drive_live(job)


def as_json_table(rows: Sequence[Row]) -> dict[str, Any]:
    """The table for machines; the first row's rates stand at the top."""
    first = rows[0]
    return {
        "success_rate": first.success_rate,
        "collision_rate": first.collision_rate,
        "episodes": first.episodes,
        "rows": [asdict(line) for line in rows],
    }
