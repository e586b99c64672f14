"""The runtime: wires the rooms together and turns samples into setpoints, in two ticks.

    push(sample) ──► odometry, two synchronizers
    plan tick      begin ─► think ─► conclude    observe │ imagine, plan │ trajectory, guard.accept
    setpoint tick  step                          the guard's next setpoint

`Runtime` is passive: it has no thread and no clock, every call says what time it is. `live` drives
it from two threads with absolute deadlines, `evaluation` in simulated time, `replay` from a
recording; all three execute the same lines.

The one invariant: whatever reads or changes shared state is an *event*, executed under one lock
and journaled in the order in which it happened. `think`, the long part between two events,
depends on nothing but what `begin` returned and on the driver's own state, which only plan ticks
touch. So the journaled events, executed again in their order by one thread, give the same bits.

Time and delay. A command sent for time t acts on the robot at t + actuation delay. The world
model lives in *effective* time: its actions are those that act. So the belief of the reference
stamp is advanced through the commands that were sent or are committed, shifted by the delay, to
the moment at which a trajectory that starts at `start_ns` begins to act: `start_ns + delay`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edge_wm.bundle import Manifest
from edge_wm.delay import DelayEstimate
from edge_wm.errors import UsageError
from edge_wm.guard import Guard, GuardState
from edge_wm.guarding.senses import Senses, guard_streams
from edge_wm.modes import Mode
from edge_wm.planner import Planner, PlannerSettings
from edge_wm.reasons import Reason
from edge_wm.recording import (
    Activate,
    Event,
    PlanBegin,
    PlanEnd,
    Prediction,
    Request,
    Step,
)
from edge_wm.robot import Robot
from edge_wm.runtime.remote import RemoteGuard
from edge_wm.synchronizer import Synchronizer
from edge_wm.trajectory import finish
from edge_wm.types import (
    Acceptance,
    Belief,
    Bool,
    Budget,
    Drop,
    Float32,
    Goal,
    JointGoal,
    Motion,
    Observation,
    PoseGoal,
    Proposal,
    Rollout,
    RolloutFunction,
    Sample,
    Verdict,
)
from edge_wm.world_model import WorldModel

if TYPE_CHECKING:
    from edge_wm.planner import Imagination


class Journal(Protocol):
    """Where events go: a recorder, or nothing."""

    def record(self, event: Event) -> int: ...


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """All that a plan may depend on, taken at one moment."""

    tick: int
    now_ns: int
    observation: Observation
    goal: Goal
    acting: Motion  # what acts, from one model step before the stamp to `effective_ns`
    start_ns: int  # when the trajectory starts, in the time of commands
    effective_ns: int  # when its first action begins to act
    # actions (K, H, A) -> (K,): which the guard's raw ranges let pass; None: no ranges to ask
    passes: Callable[[Float32], Bool] | None = None


@dataclass(frozen=True, slots=True)
class Thought:
    """What a driver made of a request."""

    proposal: Proposal | Reason
    belief: Belief | None = None  # at the observation's stamp
    advanced: Belief | None = None  # at `effective_ns`
    stages: Mapping[str, int] = field(default_factory=dict)  # stage -> duration, ns


class Driver(Protocol):
    """Whoever decides where to go: the world model with its planner, or a baseline."""

    def reset(self, seed: int) -> None:
        """Forget everything; randomness follows from `seed`."""

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        """Propose actions for `request`, asking `budget` whether there is time for more."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """A driver's rollout, with what the guard would only brake for infeasible.

    A `NativeRollout` (edge_wm/planner.py): the planner imagines in compiled code where the model
    is compiled, and asks `passes` itself.
    """

    rollout: RolloutFunction
    model: WorldModel
    passes: Callable[[Float32], Bool] | None = None  # actions (K, H, A) -> (K,); None: all

    def __call__(self, belief: Belief, actions: Float32, goal: Goal, seed: int) -> Rollout:
        rollout = self.rollout(belief, actions, goal, seed)
        if self.passes is None:
            return rollout
        infeasible = rollout.infeasible | ~self.passes(actions)
        cost = np.where(infeasible, np.float32(np.inf), rollout.cost)
        return replace(rollout, cost=cost, infeasible=infeasible)

    def native(self, belief: Belief, goal: Goal) -> Imagination | None:
        """The model's compiled rollout, if it has one and the driver has no other instead."""
        if self.rollout != self.model.rollout:
            return None
        return self.model.imagination(belief, goal)

    def term_names(self, goal: Goal) -> Sequence[str]:
        return self.model.term_names(goal)


class ModelDriver:
    """The world model and its planner: update, advance, propose."""

    def __init__(self, model: WorldModel, planner: Planner, *, foresight: bool = True) -> None:
        """foresight: do not propose what the guard's raw ranges would brake for at once."""
        self._foresight = foresight
        self.model = model
        self.planner = planner
        self.rollout: RolloutFunction = model.rollout  # a baseline may look away from something

    def reset(self, seed: int) -> None:
        self.model.reset(seed)
        self.planner.reset(seed)

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        watch = Stopwatch()
        refused = self.model.check_goal(request.goal)
        if refused is not None:
            return Thought(refused)
        stamp_ns = request.observation.stamp_ns
        before_ns = stamp_ns - self.model.manifest.step_ns
        last_action = self.model.mean_action(request.acting, before_ns, stamp_ns)
        belief = self.model.update(request.observation, last_action)
        watch.lap("encode")
        if isinstance(belief, Reason):
            return Thought(belief, stages=watch.stages)
        advanced = self.model.advance(belief, request.acting, request.effective_ns)
        watch.lap("advance")
        if isinstance(advanced, Reason):
            return Thought(advanced, belief, stages=watch.stages)
        self.planner.commit(_last_knot(request.acting))
        policy = self.model.policy(advanced, request.goal)
        proposal = self.planner.propose(
            advanced,
            request.goal,
            Permitted(self.rollout, self.model, request.passes if self._foresight else None),
            budget,
            stamp_ns=stamp_ns,
            policy=policy,
        )
        watch.lap("plan")
        return Thought(proposal, belief, advanced, watch.stages)

    def imagine(self, request: PlanRequest, thought: Thought, images: int = 4) -> Prediction | None:
        """What the model thinks will come of its proposal, with decoded images, for people."""
        proposal, start = thought.proposal, thought.advanced
        if isinstance(proposal, Reason) or proposal.reason is not None or start is None:
            return None
        imagined = self.model.rollout(start, proposal.actions[None], request.goal, 0, True).beliefs
        assert imagined is not None
        beliefs = {name: tensor[0] for name, tensor in imagined.items()}
        moments = len(proposal.actions) + 1
        times_ns = start.stamp_ns + self.model.manifest.step_ns * np.arange(moments)
        if "decoder" not in self.model.manifest.functions:
            return Prediction(request.tick, times_ns, beliefs)
        shown = np.linspace(0, moments - 1, images).round().astype(int)
        decoded = self.model.decode({name: tensor[shown] for name, tensor in beliefs.items()})
        if decoded.dtype != np.uint8:
            decoded = (np.clip(decoded, 0, 1) * 255).round().astype(np.uint8)
        return Prediction(request.tick, times_ns, beliefs, times_ns[shown], decoded)


def planner_settings(manifest: Manifest, candidates: int | None = None) -> PlannerSettings:
    """The manifest's planner section as settings; `candidates` overrides its number.

    Raises: UsageError if it has none.
    """
    defaults = manifest.planner
    if defaults is None:
        raise UsageError(
            f"bundle {manifest.name}: its manifest has no planner section, so it cannot be planned "
            "with; add one and build the bundle again"
        )
    count = candidates or defaults.candidates
    return PlannerSettings(
        kind=defaults.kind,
        horizon=manifest.horizon * manifest.block,  # in actions, `block` of them to a model step
        step_ns=manifest.step_ns // manifest.block,
        candidates=count,
        iterations=defaults.iterations,
        elites=min(defaults.elites, count),
        noise_std=defaults.noise_std,
        temperature=defaults.temperature,
        noise_beta=defaults.noise_beta,
        momentum=defaults.momentum,
        policy_candidates=min(defaults.policy_candidates, count - 2),
    )


def backend_versions(model: WorldModel) -> str:
    """The libraries that run a model's functions, with versions, for a recording's header."""
    return ", ".join(sorted(set(model.backends.values())))


class Stopwatch:
    """Durations of stages, for people: nothing is decided by them."""

    def __init__(self) -> None:
        self.stages: dict[str, int] = {}
        self._last_ns = time.perf_counter_ns()

    def lap(self, stage: str) -> None:
        """Book the time since the last lap under `stage`."""
        now_ns = time.perf_counter_ns()
        self.stages[stage] = now_ns - self._last_ns
        self._last_ns = now_ns


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How a run is timed. Defaults for a robot come from `for_robot`."""

    seed: int
    plan_latency_ns: int  # a trajectory starts this long after its plan tick began
    goal_tolerance: float = 0.20  # m, rad: a pose goal is reached within this of the odometry
    joint_tolerance: float = 0.03  # rad, m: a joint goal is, once every joint is this near
    learn_delay: bool = False  # the actuation delay, while driving; else the robot file's holds

    @staticmethod
    def for_robot(robot: Robot, seed: int) -> RunSettings:
        """Three quarters of the plan period, in whole setpoint periods."""
        periods = max(1, round(0.75 * robot.plan_period_ns / robot.setpoint_period_ns))
        return RunSettings(seed, periods * robot.setpoint_period_ns)


@dataclass(slots=True)
class Counts:
    """What happened so far, for status lines and summaries."""

    plans: int = 0  # plan ticks concluded
    accepted: int = 0
    late: int = 0  # trajectories that came after their start
    steps: int = 0  # setpoint ticks
    goals_reached: int = 0
    refusals: Counter[Reason] = field(default_factory=Counter)  # of trajectories
    no_plan: Counter[Reason] = field(default_factory=Counter)  # ticks without a proposal
    guard: Counter[Reason] = field(default_factory=Counter)  # setpoint ticks, by reason
    drops: Counter[Reason] = field(default_factory=Counter)  # samples


class Runtime:
    """One robot, one driver, one guard. Every method may be called from any thread."""

    def __init__(
        self,
        robot: Robot,
        driver: Driver,
        settings: RunSettings,
        *,
        streams: tuple[str, ...],
        step_ns: int,
        journal: Journal | None = None,
        guard: Guard | RemoteGuard | None = None,
    ) -> None:
        """`streams` and `step_ns` are what the model needs (its manifest says so).

        guard: the robot's own in this process if absent; a `RemoteGuard` if it is another
        process, which then also steps, activates and is asked for modes (`Guarding`).

        The slowest of `streams` is the reference: the observation describes the moment of its
        newest sample.
        """
        self.robot = robot
        self.driver = driver
        self.settings = settings
        self.guard = Guard(robot) if guard is None else guard
        self.counts = Counts()
        self._step_ns = step_ns
        self._journal = journal
        self._lock = threading.Lock()
        reference = max(streams, key=lambda name: robot.streams[name].period_ns)
        self._plan_view = Synchronizer(robot, streams, reference)
        self._guard_view = Synchronizer(robot, guard_streams(robot), None)
        self._senses = Senses(robot, [self._plan_view, self._guard_view])
        self._goal: Goal | None = None
        self._tick = 0
        self._reached = False
        self._candidates = 0
        self._last_step: Verdict | None = None
        self._last_observation: Observation | None = None
        self._other_drops: list[Drop] = []
        self._delay = DelayEstimate(robot) if settings.learn_delay else None
        driver.reset(settings.seed)

    @property
    def delay_ns(self) -> int:
        """From sending a setpoint to its effect, as plans are made for it."""
        return self.robot.actuation_delay_ns if self._delay is None else self._delay.delay_ns

    # ---- events: everything below takes the lock and is journaled ------------------------
    def push(self, sample: Sample) -> None:
        """A sample arrived."""
        with self._lock:
            self._write(sample)
            derived, drops = self._senses.push(sample)
            if derived is not None:
                self._write(derived)
            if self._delay is not None:
                self._delay.measured(sample if derived is None else derived)
            self._note_drops(drops)

    def hear(self, state: GuardState, now_ns: int) -> bool:
        """A state of a guard that is another process arrived. False: it was refused."""
        assert isinstance(self.guard, RemoteGuard)
        with self._lock:
            return self.guard.hear(state, now_ns)

    def activate(self, now_ns: int) -> int:
        """Let accepted trajectories move the robot from now on. Returns the epoch.

        Raises: RefusedError if the guard is in a mode that does not lead there (a latched one).
        """
        with self._lock:
            assert isinstance(self.guard, Guard)
            if self.guard.mode is Mode.idle:  # the caller has tested bundle, sensors and link
                self.guard.request(Mode.self_test, "supervisor", now_ns)
                self.guard.request(Mode.hold, "supervisor", now_ns)
            epoch = self.guard.activate(now_ns)
            self._write(Activate(now_ns, epoch))
            return epoch

    def request(self, mode: Mode, who: str, now_ns: int, reason: Reason | None = None) -> bool:
        """Ask the guard for a mode, as `who` ("supervisor" or "operator"); False if refused."""
        with self._lock:
            assert isinstance(self.guard, Guard)
            self._write(Request(now_ns, mode, who, reason))
            return self.guard.request(mode, who, now_ns, reason)

    def begin(self, now_ns: int, goal: Goal | None) -> PlanRequest | Reason:
        """Start a plan tick: observe, and note what is committed. A Reason: nothing to plan."""
        with self._lock:
            self._tick += 1
            self._write(PlanBegin(self._tick, now_ns, goal))
            if self._delay is not None:
                self._delay.compare(self.guard.motion)
            observation = self._plan_view.observe(now_ns)
            self._last_observation = observation
            self.counts.drops.update(drop.reason for drop in observation.drops)
            if isinstance(self.guard, RemoteGuard):
                self.guard.look(now_ns, self._observe_for_guard(now_ns))
            if self.guard.epoch == 0:
                return Reason.not_active
            if not observation.usable:
                return observation.reasons[0]
            if goal != self._goal:
                self._goal, self._reached = goal, False
            if goal is None:
                return Reason.no_goal
            if self._reached or self._within_tolerance(goal, observation):
                if not self._reached:
                    self._reached = True
                    self.counts.goals_reached += 1
                return Reason.goal_reached
            start_ns = now_ns + self.settings.plan_latency_ns
            delay_ns = self.delay_ns
            stamp_ns = observation.stamp_ns
            acting = self.guard.motion(stamp_ns - delay_ns - self._step_ns, start_ns)
            acting = replace(acting, times_ns=acting.times_ns + delay_ns)
            return PlanRequest(
                tick=self._tick,
                now_ns=now_ns,
                observation=observation,
                goal=goal,
                acting=acting,
                start_ns=start_ns,
                effective_ns=start_ns + delay_ns,
                passes=self.guard.foresight(start_ns, self._step_ns),
            )

    def conclude(
        self, now_ns: int, request: PlanRequest | Reason, thought: Thought | None
    ) -> PlanEnd:
        """End a plan tick: finish the trajectory from the current command, ask the guard."""
        watch = Stopwatch()
        with self._lock:
            trajectory, acceptance = None, None
            reason = request if isinstance(request, Reason) else None
            proposal: Proposal | None = None
            start_ns = now_ns
            if not isinstance(request, Reason):
                assert thought is not None
                start_ns = request.start_ns
                if isinstance(thought.proposal, Reason):
                    reason = thought.proposal
                else:
                    proposal = thought.proposal
                    reason = proposal.reason
            if reason in _STANDING and proposal is None:
                proposal = self._standstill(now_ns, reason)
            if proposal is not None:
                self._candidates = proposal.candidates
                finished = finish(
                    proposal,
                    self.guard.command_at(max(start_ns, now_ns)),
                    self.robot.axes,
                    epoch=self.guard.epoch,
                    sequence=self._tick,
                    period_ns=self.robot.setpoint_period_ns,
                )
                watch.lap("trajectory")
                if isinstance(finished, Reason):
                    reason = finished
                else:
                    trajectory = finished
                    view = self._observe_for_guard(now_ns)
                    acceptance = self.guard.accept(trajectory, view, now_ns)
                    watch.lap("guard")
            self._count(reason, acceptance, late=now_ns > start_ns)
            stages = {**(thought.stages if thought else {}), **watch.stages}
            observation = self._last_observation
            drops = (*(observation.drops if observation else ()), *self._other_drops)
            self._other_drops.clear()
            end = PlanEnd(
                tick=self._tick,
                now_ns=now_ns,
                reason=reason,
                ages_ns={n: s.age_ns for n, s in observation.streams.items()}
                if observation
                else {},
                drops=drops,
                belief=thought.belief if thought else None,
                proposal=proposal,
                trajectory=trajectory,
                acceptance=acceptance,
                stages=stages,
            )
            self._write(end)
            return end

    def step(self, now_ns: int) -> Verdict:
        """One setpoint tick: what the motors should get now."""
        watch = Stopwatch()
        with self._lock:
            assert isinstance(self.guard, Guard)
            verdict = self.guard.step(now_ns, self._observe_for_guard(now_ns))
            watch.lap("step")
            self.counts.steps += 1
            self.counts.guard.update(verdict.reasons)
            self._last_step = verdict
            self._write(Step(now_ns, verdict, watch.stages["step"]))
            return verdict

    # ---- for people -----------------------------------------------------------------------
    @property
    def mode(self) -> Mode:
        """The mode of the last setpoint tick."""
        if isinstance(self.guard, RemoteGuard):
            return self.guard.mode
        return Mode.idle if self._last_step is None else self._last_step.mode

    def ages_ns(self) -> dict[str, int]:
        """Age of each of the model's streams at the last plan tick."""
        seen = self._last_observation.streams if self._last_observation else {}
        return {name: stream.age_ns for name, stream in seen.items()}

    def pose(self) -> tuple[float, float, float] | None:
        """x, y (m), yaw (rad) of the base at the last plan tick's observation; None: unknown."""
        stream = self.robot.pose_stream
        if stream is None or self._last_observation is None:
            return None
        seen = self._last_observation.streams.get(stream.name)
        if seen is None or seen.sample is None or seen.reason is not None:
            return None
        x, y, yaw = (float(value) for value in seen.sample.data[:3])
        return x, y, yaw

    @property
    def candidates(self) -> int:
        """How many candidates the last plan rolled out."""
        return self._candidates

    def unusable(self) -> dict[str, Reason]:
        """The model's streams that could not be used at the last plan tick, and why."""
        if self._last_observation is None:
            return dict.fromkeys(self._plan_view.streams, Reason.stream_missing)
        seen = self._last_observation.streams
        return {name: s.reason for name, s in seen.items() if s.reason is not None}

    def note(self, event: Event) -> None:
        """Journal something for people, between the events that it belongs to."""
        with self._lock:
            self._write(event)

    # ---- inside: the lock is held ---------------------------------------------------------
    def _write(self, event: Event) -> None:
        if self._journal is not None:
            self._journal.record(event)

    def _observe_for_guard(self, now_ns: int) -> Observation:
        view = self._guard_view.observe(now_ns)
        self._note_drops(view.drops)
        return view

    def _note_drops(self, drops: Sequence[Drop]) -> None:
        self._other_drops.extend(drops)
        self.counts.drops.update(drop.reason for drop in drops)

    def _standstill(self, now_ns: int, reason: Reason) -> Proposal:
        """A proposal to come to rest and stay there."""
        assert self._last_observation is not None
        return Proposal(
            stamp_ns=self._last_observation.stamp_ns,
            apply_at_ns=now_ns,
            step_ns=self._step_ns,
            axes=tuple(axis.name for axis in self.robot.axes),
            actions=np.zeros((1, len(self.robot.axes)), np.float32),
            cost=0.0,
            iterations=0,
            candidates=0,
            infeasible=0,
            answers=(),
            reason=reason,
        )

    def _within_tolerance(self, goal: Goal, observation: Observation) -> bool:
        """Is a goal reached, by the odometry or the joints of this observation?"""
        if isinstance(goal, JointGoal):
            return self._joints_within_tolerance(goal, observation)
        if not isinstance(goal, PoseGoal):
            return False
        stream = self.robot.pose_stream
        seen = observation.streams.get(stream.name) if stream else None
        if seen is None or seen.sample is None:
            return False
        x, y, yaw = (float(value) for value in seen.sample.data[:3])
        near = math.hypot(goal.x - x, goal.y - y) <= self.settings.goal_tolerance
        turn = 0.0 if goal.yaw is None else math.remainder(goal.yaw - yaw, math.tau)
        return near and abs(turn) <= self.settings.goal_tolerance

    def _joints_within_tolerance(self, goal: JointGoal, observation: Observation) -> bool:
        """A joint goal gives the axes of kind position, in the robot file's order."""
        joints = [axis.name for axis in self.robot.axes if axis.kind == "position"]
        if len(joints) != len(goal.position):
            return False
        for joint, wanted in zip(joints, goal.position.tolist(), strict=True):
            found = self.robot.joint_stream(joint)
            if found is None:
                return False
            stream, column = found
            seen = observation.streams.get(stream.name)
            if seen is None or seen.sample is None:
                return False
            if not abs(seen.sample.data[0, column] - wanted) <= self.settings.joint_tolerance:
                return False
        return True

    def _count(self, reason: Reason | None, acceptance: Acceptance | None, *, late: bool) -> None:
        if reason is Reason.not_active:
            return  # it was not asked to do anything yet
        self.counts.plans += 1
        self.counts.late += late
        if reason is not None:
            self.counts.no_plan[reason] += 1
        if acceptance is not None:
            self.counts.accepted += acceptance.accepted
            self.counts.refusals.update(acceptance.reasons)


def _last_knot(motion: Motion) -> Motion:
    return Motion(motion.axes, motion.times_ns[-1:], motion.position[-1:], motion.velocity[-1:])


_STANDING = (Reason.no_goal, Reason.goal_reached)
