"""Finds a good sequence of actions by imagining many of them and leaning towards the better ones.

    mean, spread ─► K candidates ─► rollout ─► cost ─► the elites' mean and spread ─► again
         ▲                                                                             │
    the last plan, shifted                                              the answer ◄───┘

MPPI and CEM are this same loop with different weights for the elites: MPPI weighs them by
exp(-cost / temperature) (Williams et al. 2018, "Information-theoretic model predictive control",
algorithm 2; elites only, and the spread fitted with the same weights, as Hansen et al. 2024,
"TD-MPC2"), CEM weighs them equally. From Pinneri et al. 2020 ("Sample-efficient cross-entropy
method for real-time planning", iCEM) both take colored noise, clipping after all is mixed in, the
mean as first candidate, elites that live on into the next iteration, momentum, and that the
answer is the best candidate that was rolled out, never one that was only averaged: the mean of a
way left and a way right of a pillar goes through the pillar. (To roll out the last mean as well
was tried: with 128 candidates and 2 iterations it won too seldom to change the mean cost.)

The one invariant: the same seed and the same calls (beliefs, rollout results, budget answers)
give the same bits. There is no clock in here but the budget, and its answers are in the proposal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np

from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Axis
from edge_wm.types import (
    Belief,
    Budget,
    Float32,
    Float64,
    Goal,
    Int64,
    Motion,
    PolicyProposal,
    Proposal,
    Rollout,
    RolloutFunction,
)

# Share of the elites that live on into the next iteration (iCEM: 0.3).
KEPT_SHARE = 0.3

# The spread never falls below this share of `noise_std`, so that later iterations still search.
SPREAD_FLOOR = 0.1


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """How to plan: the planner section of a bundle's manifest, with its horizon and step."""

    kind: Literal["mppi", "cem"]
    horizon: int  # H
    step_ns: int
    candidates: int  # K, per iteration
    iterations: int
    elites: int  # of the candidates, those that the next mean and spread are made of
    noise_std: tuple[float, ...]  # (A,), SI units: the spread at the start
    temperature: float = 1.0  # of MPPI's weights, in units of cost
    noise_beta: float = 0.0  # power spectrum 1 / f^beta along the horizon: 0 white, 2 brown
    momentum: float = 0.0  # share of the old mean and spread that an iteration keeps
    policy_candidates: int = 0  # of the first iteration's candidates, those from the policy


# ---- budgets ----------------------------------------------------------------------------
class CountBudget:
    """Allows so many more iterations after the first, whatever time they take."""

    def __init__(self, more: int) -> None:
        self._left = more

    def more(self) -> bool:
        self._left -= 1
        return self._left >= 0


class ClockBudget:
    """Allows an iteration if it ends by the deadline when it takes as long as the longest so far.

    To be made when planning begins: the time to the first question is the first iteration's.
    """

    def __init__(self, deadline_ns: int, clock: Callable[[], int]) -> None:
        self._deadline_ns = deadline_ns
        self._clock = clock
        self._asked_ns = clock()
        self._longest_ns = 0

    def more(self) -> bool:
        now_ns = self._clock()
        self._longest_ns = max(self._longest_ns, now_ns - self._asked_ns)
        self._asked_ns = now_ns
        return now_ns + self._longest_ns <= self._deadline_ns


class RecordedBudget:
    """Gives the answers of a recorded proposal again; no more after the last."""

    def __init__(self, answers: Sequence[bool]) -> None:
        self._answers = iter(answers)

    def more(self) -> bool:
        return next(self._answers, False)


# ---- the planner ------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Pool:
    """P candidates that were rolled out."""

    actions: Float32  # (P, H, A)
    cost: Float64  # (P,), +inf where infeasible or not finite
    terms: dict[str, Float32]  # name -> (P,)

    def pick(self, index: Int64) -> _Pool:
        terms = {name: values[index] for name, values in self.terms.items()}
        return _Pool(self.actions[index], self.cost[index], terms)

    def join(self, other: _Pool) -> _Pool:
        terms = {n: np.concatenate((values, other.terms[n])) for n, values in self.terms.items()}
        cost = np.concatenate((self.cost, other.cost))
        return _Pool(np.concatenate((self.actions, other.actions)), cost, terms)


class Planner:
    """Plans again and again, each time from its last answer. See `make_planner`."""

    def __init__(self, settings: PlannerSettings, axes: Sequence[Axis]) -> None:
        self._settings = settings
        self._axes = tuple(axis.name for axis in axes)
        bounds = np.array([_bounds(axis) for axis in axes], np.float32)
        self._lowest, self._highest = bounds[:, 0], bounds[:, 1]
        self._is_position = np.array([axis.kind == "position" for axis in axes])
        self._rest = np.where(self._is_position, np.nan, 0.0).astype(np.float32)
        self._full_spread = np.tile(np.array(settings.noise_std), (settings.horizon, 1))
        self._kept = max(1, round(KEPT_SHARE * settings.elites))
        self.reset(0)

    def reset(self, seed: int) -> None:
        """Forget the last answer and start the random numbers anew; `seed` is the run's."""
        self._seed = seed
        self._plans = 0
        self._last: Proposal | None = None

    def commit(self, motion: Motion) -> None:
        """Say what is going to be played, after the guard's answer and before the next proposal.

        The first knot says where an axis of kind position is: there it stays if nothing better is
        found. Other axes rest at zero, and for them this changes nothing.
        """
        for column in np.flatnonzero(self._is_position):
            self._rest[column] = motion.position[0, motion.axes.index(self._axes[column])]

    def propose(
        self,
        belief: Belief,
        goal: Goal,
        rollout: RolloutFunction,
        budget: Budget,
        *,
        stamp_ns: int,
        policy: PolicyProposal | None = None,
    ) -> Proposal:
        """Plan from `belief`, whose stamp is the moment at which the first action takes effect.

        `budget` is asked before every iteration but the first. The first iteration's candidates
        begin with the last answer (moved on by the time that passed) and with standing still;
        both are therefore always looked at. Where no candidate is finite and feasible the answer
        stands still, costs infinity and carries `Reason.no_feasible_candidate`.

        Raises:
            UsageError: an axis of kind position, and `commit` was never called.
        """
        if np.isnan(self._rest).any():
            raise UsageError(
                "planner.propose: axes of kind position stand still where they are, and the "
                "planner was not told where; call planner.commit(guard.committed(...)) first"
            )
        generator = np.random.Generator(
            np.random.Philox(key=np.array([self._seed, self._plans], np.uint64))
        )
        seed = int(generator.integers(2**63))
        self._plans += 1
        mean = self._warm_start(belief.stamp_ns)
        spread = self._full_spread
        kept: _Pool | None = None
        answers: list[bool] = []
        iterations = rolled_out = infeasible = 0

        while iterations < self._settings.iterations:
            if iterations:
                answers.append(budget.more())
                if not answers[-1]:
                    break
            actions, noise = self._candidates(generator, mean, spread)
            if not iterations:
                self._place_known(actions, noise, policy)
            pool = _judge(actions, rollout(belief, actions, goal, seed))
            iterations += 1
            rolled_out += len(actions)
            infeasible += int(np.isinf(pool.cost).sum())
            elites = _best(pool if kept is None else kept.join(pool), self._settings.elites)
            if len(elites.cost):
                mean, spread = self._lean(elites, mean, spread)
                kept = _best(elites, self._kept)

        still = np.tile(self._rest, (self._settings.horizon, 1))
        self._last = Proposal(
            stamp_ns=stamp_ns,
            apply_at_ns=belief.stamp_ns,
            step_ns=self._settings.step_ns,
            axes=self._axes,
            actions=still if kept is None else kept.actions[0],
            cost=inf if kept is None else float(kept.cost[0]),
            iterations=iterations,
            candidates=rolled_out,
            infeasible=infeasible,
            answers=tuple(answers),
            reason=Reason.no_feasible_candidate if kept is None else None,
            terms={} if kept is None else {n: float(v[0]) for n, v in kept.terms.items()},
        )
        return self._last

    def _warm_start(self, apply_at_ns: int) -> Float32:
        """(H, A): the last answer from `apply_at_ns` on.

        Plans come more often than model steps, so the new steps straddle the old ones: each gets
        the time average of the old actions over its own span, and after the last one its value.
        (Rounding to whole steps would never move on: 50 ms is always nearer to 0 than to 150.)
        """
        horizon, step_ns = self._settings.horizon, self._settings.step_ns
        still = np.tile(self._rest, (horizon, 1))
        if self._last is None:
            return still
        passed_ns = apply_at_ns - self._last.apply_at_ns
        if not 0 <= passed_ns < horizon * step_ns:
            return still
        whole, rest_ns = divmod(passed_ns, step_ns)
        old = self._last.actions[np.minimum(np.arange(whole, whole + horizon + 1), horizon - 1)]
        share = np.float32(rest_ns / step_ns)
        return (1 - share) * old[:-1] + share * old[1:]

    def _candidates(
        self, generator: np.random.Generator, mean: Float32, spread: Float64
    ) -> tuple[Float32, Float64]:
        """(K, H, A): candidates about the mean, the mean itself first; and their noise."""
        shape = (self._settings.candidates, len(self._axes), 2 * self._settings.horizon)
        noise = _colored(generator.standard_normal(shape), self._settings.noise_beta)
        noise = noise.transpose(0, 2, 1)
        noise[0] = 0.0
        actions = (mean + spread * noise).astype(np.float32, order="C")
        return np.clip(actions, self._lowest, self._highest, out=actions), noise

    def _place_known(self, actions: Float32, noise: Float64, policy: PolicyProposal | None) -> None:
        """Put standing still, and the policy's mean and samples, in the places after the mean."""
        actions[1] = self._rest
        if policy is None or not np.isfinite((policy.mean, policy.std)).all():
            return
        places = slice(2, 2 + self._settings.policy_candidates)
        noise[2:3] = 0.0
        proposed = policy.mean + policy.std * noise[places]
        actions[places] = np.clip(proposed, self._lowest, self._highest)

    def _lean(self, elites: _Pool, mean: Float32, spread: Float64) -> tuple[Float32, Float64]:
        """The next mean and spread, (H, A) each, from the elites, the best of which is first."""
        if self._settings.kind == "mppi":
            weight = np.exp((elites.cost[0] - elites.cost) / self._settings.temperature)
        else:
            weight = np.ones(len(elites.cost))
        weight = (weight / weight.sum())[:, None, None]
        center = (weight * elites.actions).sum(axis=0)
        width = np.sqrt((weight * (elites.actions - center) ** 2).sum(axis=0))
        old = self._settings.momentum
        width = np.maximum(old * spread + (1 - old) * width, SPREAD_FLOOR * self._full_spread)
        return (old * mean + (1 - old) * center).astype(np.float32), width


def make_planner(settings: PlannerSettings, axes: Sequence[Axis]) -> Planner:
    """A planner for `axes`, in this order.

    Raises:
        UsageError: a setting is out of its range; the message names it.
    """
    s = settings
    for name, wrong, expected in (
        ("kind", s.kind not in ("mppi", "cem"), "mppi or cem"),
        ("horizon", s.horizon < 1, "at least 1"),
        ("step_ns", s.step_ns < 1, "at least 1"),
        ("candidates", s.candidates < 2, "at least 2 (the last answer and standing still)"),
        ("iterations", s.iterations < 1, "at least 1"),
        ("elites", not 1 <= s.elites <= s.candidates, f"from 1 to candidates ({s.candidates})"),
        ("noise_std", len(s.noise_std) != len(axes), f"one number for each of {len(axes)} axes"),
        ("noise_std", not all(0 < std < inf for std in s.noise_std), "finite and above 0"),
        ("temperature", not 0 < s.temperature < inf, "finite and above 0"),
        ("noise_beta", not 0 <= s.noise_beta <= 4, "from 0 to 4"),
        ("momentum", not 0 <= s.momentum < 1, "from 0 to below 1"),
        (
            "policy_candidates",
            not 0 <= s.policy_candidates <= s.candidates - 2,
            f"from 0 to candidates - 2 ({s.candidates - 2})",
        ),
    ):
        if wrong:
            raise UsageError(
                f"planner settings: {name} must be {expected}, it is {getattr(s, name)}; "
                "correct the manifest's planner section or the run's settings"
            )
    return Planner(settings, axes)


def _bounds(axis: Axis) -> tuple[float, float]:
    """The lowest and highest action of an axis, SI."""
    if axis.kind == "position":
        return axis.position_min, axis.position_max
    if axis.kind == "effort":
        return -axis.effort_max, axis.effort_max
    return axis.velocity_min, axis.velocity_max


def _judge(actions: Float32, outcome: Rollout) -> _Pool:
    """The candidates with what they cost; NaN and infinity of either sign never win."""
    cost = outcome.cost.astype(np.float64)
    cost[outcome.infeasible | ~np.isfinite(cost)] = inf
    return _Pool(actions, cost, dict(outcome.terms))


def _best(pool: _Pool, count: int) -> _Pool:
    """At most `count` feasible candidates, the cheapest first; of equals the earlier one."""
    order = np.argsort(pool.cost, kind="stable")[:count]
    return pool.pick(order[np.isfinite(pool.cost[order])])


def _colored(white: Float64, beta: float) -> Float64:
    """Noise along the last axis with a power spectrum of 1 / f^beta and variance 1.

    Timmer and Koenig 1995, "On generating power law noise": the amplitude of frequency f is
    scaled by f^(-beta / 2), here also of f = 0, as if it were the lowest one. Such noise is
    periodic, so twice the horizon is drawn and half of it used: else the last action would be
    about the first one again, which cost 0.1 of 6.5 on a unicycle among pillars (2026-11-22).

    white: (K, A, 2 H), standard normal. Gives (K, A, H).
    """
    length = white.shape[-1]
    if beta == 0.0:
        return white[..., : length // 2]
    scale = np.maximum(np.fft.rfftfreq(length), 1.0 / length) ** (-0.5 * beta)
    both_sides = np.concatenate((scale, scale[1:-1]))
    scale = scale / np.sqrt(np.mean(both_sides**2))
    return np.fft.irfft(np.fft.rfft(white) * scale, n=length)[..., : length // 2]
