"""What planning costs besides the rollouts, and what finishing a trajectory costs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_wm import planner as room
from edge_wm.planner import CountBudget, PlannerSettings, make_planner
from edge_wm.robot import find_robot, load_robot
from edge_wm.trajectory import finish
from edge_wm.types import Belief, Command, PoseGoal, Proposal, Rollout

AXES = load_robot(find_robot("rover")).axes
SETTINGS = PlannerSettings(
    kind="mppi",
    horizon=12,
    step_ns=150_000_000,
    candidates=128,
    iterations=2,
    elites=32,
    noise_std=(0.3, 1.0),
    temperature=0.05,
    noise_beta=2.0,
)


LOOPS = pytest.mark.parametrize(
    "loop",
    [
        pytest.param(
            "compiled", marks=pytest.mark.skipif(not room.NATIVE, reason="edge-wm is not compiled")
        ),
        "python",
    ],
)


@LOOPS
@pytest.mark.parametrize("kind", ["mppi", "cem"])
def bench_propose(benchmark, kind, loop):
    """128 candidates of 12 steps, 2 axes, 2 iterations; the rollouts cost nothing, in Python."""
    planner = make_planner(replace(SETTINGS, kind=kind), AXES, native=loop == "compiled")
    cost = np.random.default_rng(0).random(SETTINGS.candidates, dtype=np.float32)
    outcome = Rollout(cost, np.zeros(len(cost), bool), {"goal": cost, "risk": cost})
    belief, goal = Belief(0, {}), PoseGoal(1.0, 0.0)
    benchmark.group = f"propose, {kind}"
    benchmark(
        lambda: planner.propose(
            belief, goal, lambda *_: outcome, CountBudget(SETTINGS.iterations), stamp_ns=0
        )
    )


class Distance:
    """The squared distance to a target, compiled: 7 us for 512 candidates of 3 steps, 6 axes."""

    passes = None

    def __init__(self, target):
        from edge_wm import _native

        self._imagination = _native.DistanceImagination(target, 9.0)

    def native(self, belief, goal):
        return self._imagination

    def term_names(self, goal):
        return ("distance",)

    def __call__(self, belief, actions, goal, seed):
        cost, infeasible, terms = self._imagination.imagine(actions, seed)
        return Rollout(cost, infeasible, {"distance": terms[0]})


@LOOPS
@pytest.mark.skipif(not room.NATIVE, reason="edge-wm is not compiled")
@pytest.mark.parametrize("part", ["plan", "rollouts"])
def bench_arm(benchmark, part, loop):
    """An arm's plan: 512 candidates of 3 steps, 6 axes, 6 iterations; and its rollouts alone."""
    settings = replace(
        SETTINGS, horizon=3, candidates=512, iterations=6, elites=64, noise_std=(0.3,) * 6
    )
    axes = tuple(replace(AXES[0], name=str(i)) for i in range(6))
    planner = make_planner(settings, axes, native=loop == "compiled")
    rollout = Distance(np.random.default_rng(0).uniform(-0.5, 0.5, (3, 6)).astype(np.float32))
    belief, goal = Belief(0, {}), PoseGoal(1.0, 0.0)
    actions = np.zeros((512, 3, 6), np.float32)
    benchmark.group = f"an arm's {part}"
    if part == "plan":
        benchmark(lambda: planner.propose(belief, goal, rollout, CountBudget(9), stamp_ns=0))
    elif loop == "compiled":
        benchmark(lambda: [rollout.native(belief, goal).imagine(actions, 0) for _ in range(6)])
    else:
        benchmark(lambda: [rollout(belief, actions, goal, 0) for _ in range(6)])


def bench_finish(benchmark):
    """1.8 s of random twists at 100 Hz, and the braking tail."""
    actions = np.random.default_rng(0).uniform([-0.25, -1.8], [0.7, 1.8], (12, 2))
    names = tuple(axis.name for axis in AXES)
    proposal = Proposal(0, 0, SETTINGS.step_ns, names, actions.astype(np.float32), 0.0, 1, 1, 0, ())
    command = Command(0, np.zeros(2), np.array([0.3, 0.2]), np.array([1.0, -2.0]))
    benchmark.group = "finish"
    benchmark(lambda: finish(proposal, command, AXES, epoch=1, sequence=1, period_ns=10_000_000))
