"""What int8 costs: an engine held against the same case in fp32 on onnxruntime.

| measure | of | what it is |
|---|---|---|
| elites_kept | costs | of the E cheapest candidates, those that are among ours too |
| rank_correlation | costs | Spearman's, over random candidates |
| value_gap | plans | how much worse our plans truly are, in spreads of random candidates' costs |
| state_error | last belief | root mean square error over the spread between candidates |
| driven_error | state beside a drawn z | the same, where z is what fp32 drew at each step |
| latent_cosine | last belief, encoder | mean over the rows |
| cost_error | costs | the largest difference |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edge_wm.types import Array
from engine_bench import planning
from engine_bench.case import Case
from engine_bench.imagination import Engine

PLANS = 4  # plans that the value gap is a mean of
ELITES = 64  # of a case without a planner


def elites_kept(reference: Array, other: Array, elites: int) -> int:
    """How many of the `elites` cheapest of `reference` are among those of `other`. Both (K,)."""
    best = [set(np.argsort(cost, kind="stable")[:elites].tolist()) for cost in (reference, other)]
    return len(best[0] & best[1])


def rank_correlation(reference: Array, other: Array) -> float:
    """Spearman's: 1 for the same order, -1 for the opposite; equal numbers share their rank."""
    ranks = [_ranks(np.asarray(values)) for values in (reference, other)]
    if min(rank.std() for rank in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def value_gap(ours: Array, theirs: Array, candidates: Array) -> float:
    """(mean true cost of our plans - that of theirs) / spread of random candidates' costs.

    Infeasible candidates do not count for the spread.
    """
    spread = np.std(candidates[np.isfinite(candidates)])
    return float((np.mean(ours) - np.mean(theirs)) / spread)


def cost_error(reference: Array, other: Array) -> float:
    """The largest difference, infinite where one is infeasible and the other is not. (K,) each."""
    finite = np.isfinite(reference)
    if (finite != np.isfinite(other)).any():
        return float("inf")
    return float(np.abs(reference[finite] - other[finite]).max(initial=0.0))


def state_error(reference: Array, other: Array) -> float:
    """Root mean square error over the spread of `reference` between its rows. Both (K, ...)."""
    error = np.sqrt(np.mean(np.square(other - reference, dtype=np.float64)))
    spread = np.sqrt(np.mean(np.square(reference - reference.mean(axis=0), dtype=np.float64)))
    return float(error / spread)


def driven_error(reference: Any, other: Any, actions: Array, noise: Array) -> float:
    """The worst state_error of what a model remembers beside z, with z as the reference drew it."""
    true = reference.driven(actions, noise)
    drawn = {source: path for source, path in true.items() if source == "belief.z"}
    ours = other.driven(actions, noise, drawn)
    rest = [source for source in true if source not in drawn]
    return max(state_error(true[source][-1], ours[source][-1]) for source in rest)


def latent_cosine(reference: Array, other: Array) -> float:
    """The mean over rows of the cosine between them. Both (K, ...)."""
    a, b = (np.reshape(v, (len(v), -1)).astype(np.float64) for v in (reference, other))
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.mean((a * b).sum(axis=1) / lengths))


def compare(case: Case, reference: Engine, other: Engine) -> dict[str, float]:
    """Every measure that the work of `case` has."""
    if case.work == "encode":
        return {"latent_cosine": latent_cosine(reference.encode(), other.encode())}
    actions, noise = case.actions(101), case.noises(101)
    true, ours = reference.rollout(actions, noise), other.rollout(actions, noise)
    # A joined engine gives its own memory: keep what the next rollout would overwrite.
    cost, last = ours.cost.copy(), {name: value.copy() for name, value in ours.last.items()}
    found: dict[str, float] = {"cost_error": cost_error(true.cost, cost)}
    if case.candidates > 1:
        elites = case.planning.elites if case.planning else min(ELITES, case.candidates // 4)
        found["elites_kept"] = elites_kept(true.cost, cost, elites)
        found["rank_correlation"] = rank_correlation(true.cost, cost)
        found["state_error"] = max(_errors(true.last, last).values())
    if case.noise and hasattr(other, "driven") and hasattr(reference, "driven"):
        found["driven_error"] = driven_error(reference, other, actions, noise)
    latent = _latent(true.last)
    found["latent_cosine"] = latent_cosine(_newest(true.last[latent]), _newest(last[latent]))
    if case.planning:
        found["value_gap"] = _plans_gap(case, reference, other, true.cost)
    return found


def _plans_gap(case: Case, reference: Engine, other: Engine, candidates: Array) -> float:
    costs = []
    for engine in (other, reference):
        chosen = [planning.work(case, engine, seed).copy() for seed in range(PLANS)]
        actions = np.ascontiguousarray(np.stack(chosen, axis=1))
        noise = np.repeat(case.noises(0)[:, :1], PLANS, axis=1)
        costs.append(reference.rollout(actions, noise).cost)
    return value_gap(costs[0], costs[1], candidates)


def _errors(true: Mapping[str, Array], ours: Mapping[str, Array]) -> dict[str, float]:
    """Of every belief tensor that differs between candidates."""
    return {
        name: state_error(value, ours[name])
        for name, value in true.items()
        if np.ptp(value, 0).any()
    }


def _latent(last: Mapping[str, Array]) -> str:
    return "z" if "z" in last else next(iter(last))


def _newest(value: Array) -> Array:
    """The newest token of a belief that keeps a history."""
    return value[:, -1] if value.ndim == 3 else value


def _ranks(values: Array) -> Array:
    """The rank of each number; equal numbers get their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    after = np.cumsum(count)
    ranks: Array = ((after - count) + (after - 1)) / 2
    return ranks[place.reshape(-1)]
