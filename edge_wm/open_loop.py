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
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_wm.bags import bag_samples, measured_motion
from edge_wm.bundle import Bundle, check_fit
from edge_wm.errors import MismatchError
from edge_wm.guarding.senses import Senses
from edge_wm.planner import CountBudget, make_planner
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.runtime import ModelDriver, PlanRequest, RunSettings, planner_settings
from edge_wm.synchronizer import Synchronizer
from edge_wm.types import Array, Belief, Float64, Goal, Motion, Proposal
from edge_wm.world_model import WorldModel


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
    track = measured_motion(bag, robot)
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
    for sample in bag_samples(bag, robot, drops):
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
