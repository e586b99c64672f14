"""TD-MPC2 with 5 million parameters (Hansen et al. 2024, "TD-MPC2", table 8), planned by MPPI.

The latent is 512 numbers in SimNorm groups of 8. Of the five Q heads two are used, the mean of
them as in the published planner; here they are asked at the policy's mean action. The published
reward depends on the latent *before* the action, so dynamics gives it as part of the belief.
"""

from __future__ import annotations

import numpy as np

from engine_bench.case import Case, Planning, StepFunction
from engine_bench.graph_writer import GraphWriter, Value

Z, A, HIDDEN, GROUP, BINS = 512, 6, 512, 8, 101
HORIZON = 3
LEAST_LOG_STD, MOST_LOG_STD = -10.0, 2.0  # of the policy, as published


def plan() -> Case:
    """512 candidates of which 24 are the policy's, 6 iterations, 64 elites."""
    planning = Planning("mppi", 512, 6, 64, policy_candidates=24)
    return _case("tdmpc2", "TD-MPC2-5M plan, 512 × 3 × 6", planning)


def one_candidate() -> Case:
    """One rollout of one candidate: what a plan is checked with."""
    return _case("tdmpc2-1", "TD-MPC2-5M, 1 candidate × 3", None, 1)


def many_candidates() -> Case:
    """One rollout of 2,048 candidates."""
    return _case("tdmpc2-2048", "TD-MPC2-5M, 2,048 candidates × 3", None, 2048)


def _case(name: str, title: str, planning: Planning | None, candidates: int = 0) -> Case:
    functions, K = _functions(False), planning.candidates if planning else candidates
    macs = K * (HORIZON * functions["dynamics"].macs + functions["value"].macs)
    if planning is None:
        functions = {n: f for n, f in functions.items() if n != "policy"}
    else:
        macs *= planning.iterations
        proposal = HORIZON * functions["policy"].macs + (HORIZON - 1) * functions["dynamics"].macs
        macs += planning.policy_candidates * proposal
    logits = np.random.default_rng(7).standard_normal((1, Z // GROUP, GROUP), np.float32)
    share = np.exp(logits)
    z = (share / share.sum(-1, keepdims=True)).reshape(1, Z)
    return Case(
        name=name,
        title=title,
        work="plan" if planning else "rollout",
        functions=functions,
        rewritten={n: f for n, f in _functions(True).items() if n in functions},
        macs=macs,
        candidates=K,
        horizon=HORIZON,
        action=A,
        belief={"z": z, "reward": np.zeros((1, 1), np.float32)},
        planning=planning,
    )


def _functions(rewritten: bool) -> dict[str, StepFunction]:
    w = GraphWriter(1, rewritten)
    z, action = w.input("z", (-1, Z)), w.input("action", (-1, A))
    both = w.concat(z, action)
    x = w.normed_linear(w.normed_linear(both, HIDDEN), HIDDEN)
    w.output("next_z", w.sim_norm(w.layer_norm(w.dense(x, Z)), GROUP))
    w.output("reward", _two_hot_head(w, both))
    dynamics = w.function(
        f"z=belief.z:-1,{Z} action=action:-1,{A}",
        f"next_z=belief.z:-1,{Z} reward=belief.reward:-1,1",
    )

    w = GraphWriter(2)
    w.output("cost", w.each("Neg", w.input("reward", (-1, 1))))
    cost = w.function("reward=belief.reward:-1,1", "cost=cost.reward:-1,1")

    w = GraphWriter(3, rewritten)
    z = w.input("z", (-1, Z))
    action = w.each("Tanh", w.columns(_policy_trunk(w, z), 0, A))
    both = w.concat(z, action)
    returns = w.each("Add", _two_hot_head(w, both), _two_hot_head(w, both))
    w.output("value", w.each("Mul", returns, w.constant(-0.5)))
    value = w.function(f"z=belief.z:-1,{Z}", "value=value:-1,1")

    w = GraphWriter(3, rewritten)  # the policy inside `value` has the same weights
    trunk = _policy_trunk(w, w.input("z", (-1, Z)))
    w.output("mean", w.each("Tanh", w.columns(trunk, 0, A)))
    share = w.node("Add", w.node("Tanh", w.columns(trunk, A, 2 * A)), w.constant(1.0))
    half = (MOST_LOG_STD - LEAST_LOG_STD) / 2
    log_std = w.node("Add", w.node("Mul", share, w.constant(half)), w.constant(LEAST_LOG_STD))
    w.output("std", Value(w.node("Exp", log_std), A))
    policy = w.function(f"z=belief.z:-1,{Z}", f"mean=action.mean:-1,{A} std=action.std:-1,{A}")
    return {"dynamics": dynamics, "cost": cost, "value": value, "policy": policy}


def _two_hot_head(w: GraphWriter, x: Value) -> Value:
    hidden = w.normed_linear(w.normed_linear(x, HIDDEN), HIDDEN)
    return w.two_hot(w.dense(hidden, BINS))


def _policy_trunk(w: GraphWriter, z: Value) -> Value:
    return w.dense(w.normed_linear(w.normed_linear(z, HIDDEN), HIDDEN), 2 * A)
