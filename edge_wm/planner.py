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

The search is written twice: here, which is its definition, and in `cpp/planner/`, which runs
where edge-wm is compiled and takes a compiled rollout as it is, with no Python in between.

The one invariant: the same seed and the same calls (beliefs, rollout results, budget answers)
give the same bits, from either. There is no clock in here but the budget, and its answers are in
the proposal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Literal, Protocol, cast

import numpy as np

from edge_wm import noise
from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Axis
from edge_wm.types import (
    Belief,
    Bool,
    Budget,
    Float32,
    Goal,
    Int64,
    Motion,
    PolicyProposal,
    Proposal,
    Rollout,
    RolloutFunction,
)

try:
    from edge_wm import _native

    NATIVE = True
except ImportError:  # not compiled, or for another Python: `edge-wm doctor` says so
    NATIVE = False

if TYPE_CHECKING:
    from edge_wm._native import Imagination as Imagination
    from edge_wm._native import Search

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
class NativeRollout(Protocol):
    """A rollout function that can also be had compiled, so that a plan need not enter Python.

    The planner knows one by its method `native`.
    """

    passes: Callable[[Float32], Bool] | None  # actions (K, H, A) -> (K,) those that may be

    def native(self, belief: Belief, goal: Goal) -> Imagination | None:
        """The same rollout, but for `passes`, for one belief and goal; None: not compiled."""

    def term_names(self, goal: Goal) -> Sequence[str]:
        """Names of the compiled rollout's cost terms, in its order."""

    def __call__(self, belief: Belief, actions: Float32, goal: Goal, seed: int) -> Rollout: ...


@dataclass(frozen=True, slots=True)
class _Pool:
    """P candidates that were rolled out."""

    actions: Float32  # (P, H, A)
    cost: Float32  # (P,), +inf where infeasible or not finite

    def pick(self, index: Int64) -> _Pool:
        return _Pool(self.actions[index], self.cost[index])

    def join(self, other: _Pool) -> _Pool:
        actions = np.concatenate((self.actions, other.actions))
        return _Pool(actions, np.concatenate((self.cost, other.cost)))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a search found."""

    actions: Float32 | None  # (H, A); None: no candidate was finite and feasible
    cost: float  # of `actions`
    terms: Mapping[str, float]  # of `actions`
    iterations: int
    infeasible: int
    answers: tuple[bool, ...]


class _Memory:
    """A rollout function for one belief and goal, that remembers the terms of what it was asked."""

    def __init__(self, rollout: RolloutFunction, belief: Belief, goal: Goal) -> None:
        self._rollout, self._belief, self._goal = rollout, belief, goal
        self._terms: list[Mapping[str, Float32]] = []

    def __call__(self, actions: Float32, seed: int) -> tuple[Float32, Bool]:
        """Costs and who is infeasible, (K,) each."""
        outcome = self._rollout(self._belief, actions, self._goal, seed)
        self._terms.append(outcome.terms)
        return outcome.cost.astype(np.float32, copy=False), outcome.infeasible

    def terms(self, iteration: int, candidate: int) -> dict[str, float]:
        return {name: float(sums[candidate]) for name, sums in self._terms[iteration].items()}


class Planner:
    """Plans again and again, each time from its last answer. See `make_planner`."""

    def __init__(self, settings: PlannerSettings, axes: Sequence[Axis], *, native: bool) -> None:
        self._settings = settings
        self._axes = tuple(axis.name for axis in axes)
        bounds = np.array([_bounds(axis) for axis in axes], np.float32)
        self._lowest, self._highest = np.ascontiguousarray(bounds.T)
        self._is_position = np.array([axis.kind == "position" for axis in axes])
        self._rest = np.where(self._is_position, np.nan, 0.0).astype(np.float32)
        self._full_spread = np.array(settings.noise_std, np.float32)
        self._least_spread = SPREAD_FLOOR * np.array(settings.noise_std)
        self._color = noise.color(settings.noise_beta, settings.horizon)
        self._kept = max(1, round(KEPT_SHARE * settings.elites))
        self._native = self._compiled() if native else None
        self.reset(0)

    def _compiled(self) -> Search:
        return _native.Search(
            equal_weights=self._settings.kind == "cem",
            horizon=self._settings.horizon,
            candidates=self._settings.candidates,
            iterations=self._settings.iterations,
            elites=self._settings.elites,
            kept=self._kept,
            policy_candidates=self._settings.policy_candidates,
            temperature=self._settings.temperature,
            momentum=self._settings.momentum,
            full_spread=self._full_spread,
            least_spread=self._least_spread,
            lowest=self._lowest,
            highest=self._highest,
            quantiles=noise.quantiles(),
            color=self._color,
        )

    @property
    def distribution(self) -> tuple[Float32, Float32] | None:
        """Mean and spread (H, A), SI, of the actions that the last plan had come down to.

        What a next iteration would have sampled from; the answer itself is the best candidate.
        None before the first plan.
        """
        if self._native is not None and self._last is not None:
            return self._native.distribution()
        return self._distribution

    @property
    def native(self) -> bool:
        """Whether the compiled loop runs; the Python one gives the same bits."""
        return self._native is not None

    def reset(self, seed: int) -> None:
        """Forget the last answer and start the random numbers anew; `seed` is the run's."""
        self._seed = seed
        self._plans = 0
        self._last: Proposal | None = None
        self._distribution: tuple[Float32, Float32] | None = None

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

        A `rollout` that is a `NativeRollout` is imagined with in compiled code, where both it and
        the planner are compiled.

        Raises:
            UsageError: an axis of kind position, and `commit` was never called.
        """
        if np.isnan(self._rest).any():
            raise UsageError(
                "planner.propose: axes of kind position stand still where they are, and the "
                "planner was not told where; call planner.commit(guard.committed(...)) first"
            )
        plan = self._plans
        self._plans += 1
        mean = self._warm_start(belief.stamp_ns)
        if policy is not None and not np.isfinite((policy.mean, policy.std)).all():
            policy = None
        if self._native is None:
            found = self._search(_Memory(rollout, belief, goal), budget, mean, policy, plan)
        else:
            found = self._search_native(
                self._native, rollout, belief, goal, budget, mean, policy, plan
            )
        nothing = found.actions is None
        self._last = Proposal(
            stamp_ns=stamp_ns,
            apply_at_ns=belief.stamp_ns,
            step_ns=self._settings.step_ns,
            axes=self._axes,
            actions=self._still() if found.actions is None else found.actions,
            cost=inf if nothing else found.cost,
            iterations=found.iterations,
            candidates=found.iterations * self._settings.candidates,
            infeasible=found.infeasible,
            answers=found.answers,
            reason=Reason.no_feasible_candidate if nothing else None,
            terms={} if nothing else found.terms,
        )
        return self._last

    def _still(self) -> Float32:
        return np.repeat(self._rest[None], self._settings.horizon, axis=0)

    def _warm_start(self, apply_at_ns: int) -> Float32:
        """(H, A): the last answer from `apply_at_ns` on.

        Plans come more often than model steps, so the new steps straddle the old ones: each gets
        the time average of the old actions over its own span, and after the last one its value.
        (Rounding to whole steps would never move on: 50 ms is always nearer to 0 than to 150.)
        """
        horizon, step_ns = self._settings.horizon, self._settings.step_ns
        if self._last is None:
            return self._still()
        passed_ns = apply_at_ns - self._last.apply_at_ns
        if not 0 <= passed_ns < horizon * step_ns:
            return self._still()
        whole, rest_ns = divmod(passed_ns, step_ns)
        old = self._last.actions[np.minimum(np.arange(whole, whole + horizon + 1), horizon - 1)]
        share = np.float32(rest_ns / step_ns)
        mean: Float32 = (1 - share) * old[:-1] + share * old[1:]
        return mean

    # ---- the search, compiled -------------------------------------------------------------
    def _search_native(
        self,
        search: Search,
        rollout: RolloutFunction,
        belief: Belief,
        goal: Goal,
        budget: Budget,
        mean: Float32,
        policy: PolicyProposal | None,
        plan: int,
    ) -> _Found:
        """`_search` in C++ (cpp/planner/planner.cpp), with a compiled rollout if there is one."""
        memory = _Memory(rollout, belief, goal)
        native = cast(NativeRollout, rollout) if hasattr(rollout, "native") else None
        compiled = native.native(belief, goal) if native else None
        actions, cost, sums, iteration, candidate, iterations, infeasible, answers = search.run(
            compiled or _native.CallableImagination(memory, *mean.shape),
            budget.more,
            native.passes if native and compiled else None,  # a Python rollout asks it itself
            mean,
            self._rest,
            None if policy is None else np.ascontiguousarray(policy.mean, np.float32),
            None if policy is None else np.ascontiguousarray(policy.std, np.float32),
            self._seed,
            plan & noise.WORD,
        )
        if actions is None:
            terms = {}
        elif native and compiled:
            terms = dict(zip(native.term_names(goal), sums, strict=True))
        else:
            terms = memory.terms(iteration, candidate)
        return _Found(actions, cost, terms, iterations, infeasible, answers)

    # ---- the search, in Python: its definition --------------------------------------------
    @np.errstate(over="ignore", invalid="ignore")  # what is not finite never wins
    def _search(
        self,
        memory: _Memory,
        budget: Budget,
        mean: Float32,
        policy: PolicyProposal | None,
        plan: int,
    ) -> _Found:
        seed = noise.rollout_seed(self._seed, plan)
        spread = np.tile(self._full_spread, (self._settings.horizon, 1))
        kept: _Pool | None = None
        best = (0, 0)  # the iteration and the candidate of the best so far
        answers: list[bool] = []
        iterations = infeasible = 0
        while iterations < self._settings.iterations:
            if iterations:
                answers.append(bool(budget.more()))
                if not answers[-1]:
                    break
            actions, drawn = self._candidates(mean, spread, plan, iterations)
            if not iterations:
                self._place_known(actions, drawn, policy)
            pool = _judge(actions, *memory(actions, seed))
            infeasible += int(np.isinf(pool.cost).sum())
            if kept is None or pool.cost.min() < kept.cost[0]:
                best = iterations, int(pool.cost.argmin())
            elites = _best(pool if kept is None else kept.join(pool), self._settings.elites)
            iterations += 1
            if len(elites.cost):
                mean, spread = self._lean(elites, mean, spread)
                kept = _best(elites, self._kept)
        self._distribution = mean, spread
        if kept is None:
            return _Found(None, inf, {}, iterations, infeasible, tuple(answers))
        return _Found(
            kept.actions[0],
            float(kept.cost[0]),
            memory.terms(*best),
            iterations,
            infeasible,
            tuple(answers),
        )

    def _candidates(
        self, mean: Float32, spread: Float32, plan: int, iteration: int
    ) -> tuple[Float32, Float32]:
        """(K, H, A): candidates about the mean, the mean itself first; and their noise."""
        count = self._settings.candidates
        white = noise.white(self._seed, plan, iteration, count, mean.size)
        drawn = noise.colored(white.reshape(count, *mean.shape), self._color)
        actions = mean + spread * drawn
        actions[0] = mean
        return self._clip(actions), drawn

    def _place_known(self, actions: Float32, drawn: Float32, policy: PolicyProposal | None) -> None:
        """Put standing still, and the policy's mean and samples, in the places after the mean."""
        actions[1] = self._rest
        if policy is None or not self._settings.policy_candidates:
            return
        mean, std = policy.mean.astype(np.float32), policy.std.astype(np.float32)
        places = slice(2, 2 + self._settings.policy_candidates)
        actions[places] = self._clip(mean + std * drawn[places])
        actions[2] = self._clip(mean)

    def _clip(self, actions: Float32) -> Float32:
        # Not np.clip: of a zero and a minus zero it gives either one.
        raised = np.where(actions < self._lowest, self._lowest, actions)
        return np.where(raised > self._highest, self._highest, raised)

    def _lean(self, elites: _Pool, mean: Float32, spread: Float32) -> tuple[Float32, Float32]:
        """The next mean and spread, (H, A) each, from the elites, the best of which is first.

        In float64, and from the first elite to the last: not `sum`, which compensates for
        rounding from Python 3.12 on, nor numpy's, which adds in pairs.
        """
        costs = elites.cost.tolist()
        weights = [1.0] * len(costs)
        if self._settings.kind == "mppi":
            # float32: on the last bit of a float64 machines' libraries do not agree.
            worse = [(costs[0] - cost) / self._settings.temperature for cost in costs]
            weights = [float(np.float32(math.exp(exponent))) for exponent in worse]
        total = 0.0
        for weight in weights:
            total += weight
        shares = [weight / total for weight in weights]
        rows = elites.actions.astype(np.float64)
        center, variance = np.zeros(mean.shape), np.zeros(mean.shape)
        for share, row in zip(shares, rows, strict=True):
            center += share * row
        for share, row in zip(shares, rows, strict=True):
            variance += share * np.square(row - center)
        old = self._settings.momentum
        width = old * spread.astype(np.float64) + (1 - old) * np.sqrt(variance)
        width = np.where(width < self._least_spread, self._least_spread, width)
        center = old * mean.astype(np.float64) + (1 - old) * center
        return center.astype(np.float32), width.astype(np.float32)


def make_planner(
    settings: PlannerSettings, axes: Sequence[Axis], *, native: bool | None = None
) -> Planner:
    """A planner for `axes`, in this order.

    native: True the compiled loop, False the Python one, None the compiled one if there is one.

    Raises:
        UsageError: a setting is out of its range, the message names it; or `native` is True and
            edge-wm was not compiled.
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
    if native and not NATIVE:
        raise UsageError(
            "make_planner: native=True needs edge_wm._native, which is not compiled for this "
            "Python; compile it (make), or leave `native` out"
        )
    return Planner(settings, axes, native=NATIVE if native is None else native)


def _bounds(axis: Axis) -> tuple[float, float]:
    """The lowest and highest action of an axis, SI."""
    if axis.kind == "position":
        return axis.position_min, axis.position_max
    if axis.kind == "effort":
        return -axis.effort_max, axis.effort_max
    return axis.velocity_min, axis.velocity_max


def _judge(actions: Float32, cost: Float32, infeasible: Bool) -> _Pool:
    """The candidates with what they cost; NaN and infinity of either sign never win."""
    return _Pool(actions, np.where(infeasible | ~np.isfinite(cost), np.float32(inf), cost))


def _best(pool: _Pool, count: int) -> _Pool:
    """At most `count` feasible candidates, the cheapest first; of equals the earlier one."""
    order = np.argsort(pool.cost, kind="stable")[:count]
    return pool.pick(order[np.isfinite(pool.cost[order])])
