"""The whole plan in numpy, as plain as it can be: what peers are driven by, and how work is done.

MPPI as TD-MPC2 plans (Hansen et al. 2024; tdmpc2.py `_plan`), CEM with equal weights; the answer
is the mean of the last elites. The native engine may bring its own `plan` (native_engine.py).
"""

from __future__ import annotations

import numpy as np

from edge_wm.types import Array
from engine_bench.case import Case, Planning
from engine_bench.imagination import Engine


def work(case: Case, engine: Engine, seed: int) -> Array:
    """One measurement's work; what it gives is compared between engines.

    A plan gives its sequence (H, A), a rollout its costs (K,), an encoder its latent.
    """
    if case.work == "encode":
        return engine.encode()
    if case.work == "rollout":
        actions, noise = _drawn(case)
        return engine.rollout(actions, noise).cost
    own = getattr(engine, "plan", None)
    return own(case, seed) if own else plan(case, engine, np.random.default_rng(seed))


def plan(case: Case, engine: Engine, random: np.random.Generator) -> Array:
    """(H, A): the chosen sequence; one call is one control tick."""
    planning = case.planning
    assert planning is not None
    H, K, A, P = case.horizon, planning.candidates, case.action, planning.policy_candidates
    _, model_noise = _drawn(case)
    mean, std = np.zeros((H, A), np.float32), np.full((H, A), planning.std[1], np.float32)
    actions = np.empty((H, K, A), np.float32)
    if P:
        actions[:, :P] = engine.propose(random.standard_normal((H, P, A), np.float32))
    for _ in range(planning.iterations):
        noise = random.standard_normal((H, K - P, A), np.float32)
        np.clip(mean[:, None] + std[:, None] * noise, -1, 1, out=actions[:, P:])
        cost = engine.rollout(actions, model_noise).cost
        best = np.argpartition(cost, planning.elites)[: planning.elites]
        weights = _weights(planning, cost[best])
        elites = actions[:, best]
        mean = np.einsum("e,hea->ha", weights, elites)
        spread = np.einsum("e,hea->ha", weights, np.square(elites - mean[:, None]))
        std = np.clip(np.sqrt(spread), *planning.std)
    return mean


def _weights(planning: Planning, cost: Array) -> Array:
    """(E,) float32, their sum 1; elites that are infeasible weigh nothing."""
    if planning.kind == "cem":
        return np.full(len(cost), 1 / len(cost), np.float32)
    lowest = cost.min()
    if not np.isfinite(lowest):
        return np.full(len(cost), 1 / len(cost), np.float32)
    weights = np.exp(planning.temperature * (lowest - cost))
    share: Array = weights / weights.sum()
    return share


_DRAWN: dict[str, tuple[Array, Array]] = {}


def _drawn(case: Case) -> tuple[Array, Array]:
    """A case's fixed candidates and model noise: inputs, drawn once and not timed."""
    if case.name not in _DRAWN:
        _DRAWN[case.name] = case.actions(0), case.noises(0)
    return _DRAWN[case.name]
