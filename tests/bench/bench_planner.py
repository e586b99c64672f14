"""What planning costs besides the rollouts, and what finishing a trajectory costs."""

from __future__ import annotations

import numpy as np
import pytest

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


@pytest.mark.parametrize("kind", ["mppi", "cem"])
def bench_propose(benchmark, kind):
    """128 candidates of 12 steps, 2 axes, 2 iterations; the rollouts cost nothing."""
    planner = make_planner(SETTINGS, AXES)
    cost = np.random.default_rng(0).random(SETTINGS.candidates, dtype=np.float32)
    outcome = Rollout(cost, np.zeros(len(cost), bool), {"goal": cost, "risk": cost})
    belief, goal = Belief(0, {}), PoseGoal(1.0, 0.0)
    benchmark.group = "propose"
    benchmark(
        lambda: planner.propose(
            belief, goal, lambda *_: outcome, CountBudget(SETTINGS.iterations), stamp_ns=0
        )
    )


def bench_finish(benchmark):
    """1.8 s of random twists at 100 Hz, and the braking tail."""
    actions = np.random.default_rng(0).uniform([-0.25, -1.8], [0.7, 1.8], (12, 2))
    names = tuple(axis.name for axis in AXES)
    proposal = Proposal(0, 0, SETTINGS.step_ns, names, actions.astype(np.float32), 0.0, 1, 1, 0, ())
    command = Command(0, np.zeros(2), np.array([0.3, 0.2]), np.array([1.0, -2.0]))
    benchmark.group = "finish"
    benchmark(lambda: finish(proposal, command, AXES, epoch=1, sequence=1, period_ns=10_000_000))
