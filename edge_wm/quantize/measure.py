"""Float32 against int8, on data: beliefs by horizon step, returns, plans.

Errors are shares of a *spread*: of a tensor over all moments and imagined steps, in float32, the
standard deviation of each number, and of those the root mean square. So 0.05 means the same for
a latent without a unit and for a pose in meters.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_wm import noise
from edge_wm.backends import Graph
from edge_wm.bundle import Function
from edge_wm.errors import RefusedError
from edge_wm.planner import CountBudget, make_planner
from edge_wm.quantize.data import Data, Moment
from edge_wm.quantize.layers import Layer, Programs
from edge_wm.runtime import planner_settings
from edge_wm.types import Array, Belief, Bool, Float32, Float64
from edge_wm.world_model import WorldModel

SEED = 0
ON_THE_WAY = ("encoder", "posterior", "dynamics")  # what the belief comes from
LISTENED = 48  # moments of which every function's inputs are kept
RANKED = 24  # moments from which candidates and plans are compared
CANDIDATES = 256
IMAGES = 64  # beliefs that are decoded

Progress = Callable[[str, int, int], object]  # (what, done, of how many)


@dataclass(frozen=True)
class Imagined:
    """What a model made of the data: from N moments, S steps."""

    starts: tuple[Belief | None, ...]  # None: not finite
    beliefs: Mapping[str, Float64]  # name -> (N, S + 1, n); NaN where not finite


class Measurement:
    """A bundle's model on data, float32, and whatever int8 choice is asked for beside it."""

    def __init__(self, programs: Programs, data: Data) -> None:
        """Raises: RefusedError, if the data says nothing of a tensor."""
        self.programs, self.data = programs, data
        self.manifest = programs.bundle.manifest
        self.model = self._model(programs.graphs(()))
        self.moments = [m for run in data.runs for m in run if m.actions is not None]
        self.float32 = self._imagine(self.model)
        self._require_finite()
        self.spread = {name: _spread(v) for name, v in self.float32.beliefs.items()}
        flat = sorted(name for name, spread in self.spread.items() if not spread > 0)
        if flat:
            raise RefusedError(
                f"belief {', '.join(flat)}: does not vary over the {len(self.moments)} moments of "
                f"{', '.join(s.name for s in data.sources)}, so that an error has no measure; give "
                "data in which it does"
            )
        self.feeds = self._listen()
        self._given: dict[str, list[Mapping[str, Array]]] = {}  # heads' outputs in float32

    # ---- errors -------------------------------------------------------------------------------
    def by_step(self, int8: Collection[Layer]) -> dict[str, list[float]]:
        """Belief tensor -> its error after 0, 1, .. S steps; infinite where int8 is not finite."""
        imagined = self._imagine(self._model(self.programs.graphs(int8)))
        errors = {}
        for name, want in self.float32.beliefs.items():
            square = np.square(imagined.beliefs[name] - want).mean(axis=(0, 2))
            share = np.sqrt(square) / self.spread[name]
            errors[name] = np.where(np.isfinite(share), share, np.inf).tolist()
        return errors

    def errors(self, int8: Collection[Layer]) -> dict[str, float]:
        """What the bound holds for: "belief.z" at its worst step, "decoder.image", "cost.goal", ...

        What is no part of the belief's way is measured by itself, on float32 beliefs.
        """
        found: dict[str, float] = {}
        if any(layer.function in ON_THE_WAY for layer in int8):
            found = {f"belief.{name}": max(steps) for name, steps in self.by_step(int8).items()}
        for name in dict.fromkeys(layer.function for layer in int8):
            if name not in ON_THE_WAY:
                found |= self._head(name, int8)
        return found

    def _head(self, name: str, int8: Collection[Layer]) -> dict[str, float]:
        function, feeds = self.programs.functions[name], self.feeds[name]
        if name not in self._given:
            exact = self.programs.graph(name, ())
            self._given[name] = [exact.run(feed) for feed in feeds]
        graph = self.programs.graph(name, int8)
        got = [graph.run(feed) for feed in feeds]
        errors = {}
        for output in function.outputs:
            want, have = (_rows(g, output.tensor) for g in (self._given[name], got))
            spread = _spread(want[:, None])
            if spread > 0:
                share = float(np.sqrt(np.square(have - want).mean())) / spread
                errors[f"{name}.{output.target}"] = share if np.isfinite(share) else np.inf
        return errors

    # ---- returns and plans ------------------------------------------------------------------
    def agreement(
        self, int8: Collection[Layer], progress: Progress
    ) -> tuple[dict[str, Any], Float32]:
        """(figures of returns and plans, returns (2, candidates) of all moments, standardized)."""
        other = self._model(self.programs.graphs(int8))
        theirs = self._imagine(other).starts
        chosen = np.linspace(0, len(self.moments) - 1, min(RANKED, len(self.moments)))
        ranks, actions, gaps, pairs = [], [], [], []
        for done, i in enumerate(chosen.round().astype(int).tolist()):
            progress("comparing returns and plans", done, len(chosen))
            moment, ours, his = self.moments[i], self.float32.starts[i], theirs[i]
            if ours is None or his is None or self.model.check_goal(moment.goal):
                continue
            candidates = self._candidates(moment, i)
            costs = [
                model.rollout(belief, candidates, moment.goal, SEED).cost.astype(np.float64)
                for model, belief in ((self.model, ours), (other, his))
            ]
            good = np.isfinite(costs[0])
            if good.sum() < 2 or not np.std(costs[0][good]) > 0:
                continue
            ranks.append(spearman(*costs))
            both = good & np.isfinite(costs[1])
            width = float(np.std(costs[0][good]))
            pairs.append(np.stack([c[both] - costs[0][good].mean() for c in costs]) / width)
            plans = [self._plan(self.model, ours, moment), self._plan(other, his, moment)]
            found = [plan for plan in plans if plan is not None]
            if len(found) < 2:
                continue
            std = np.array(self.manifest.planner.noise_std) if self.manifest.planner else 1.0
            actions.append(np.abs(found[0][0] - found[1][0]) / std)
            mine, other_s = self.model.rollout(ours, np.stack(found), moment.goal, SEED).cost
            gaps.append((other_s - mine) / width)
        progress("comparing returns and plans", len(chosen), len(chosen))
        if not ranks:
            raise RefusedError(
                "no moment of the data has two feasible candidates whose costs differ; give data "
                "from where the robot can move, with a goal"
            )
        figures: dict[str, Any] = {
            "rank_agreement": {
                "moments": len(ranks),
                "candidates": CANDIDATES,
                "mean": float(np.mean(ranks)),
                "worst": float(np.min(ranks)),
            }
        }
        if actions:
            apart = np.array(actions)
            figures["plan_agreement"] = {
                "moments": len(actions),
                "first_action_mean": float(apart.mean()),
                "first_action_p90": float(np.percentile(apart, 90)),
                "first_action_worst": float(apart.max()),
                "cost_gap_mean": float(np.mean(gaps)) if np.isfinite(gaps).all() else None,
            }
        return figures, np.concatenate(pairs, axis=1).astype(np.float32)

    def _candidates(self, moment: Moment, number: int) -> Float32:
        """(K, H, A) SI: what was played, and the planner's noise about it."""
        assert moment.actions is not None
        planner = self.manifest.planner
        assert planner is not None  # a bundle with dynamics has one
        H, A = moment.actions.shape
        white = noise.white(SEED, number, 0, CANDIDATES, H * A).reshape(CANDIDATES, H, A)
        drawn = noise.colored(white, noise.color(planner.noise_beta, H))
        actions = moment.actions + drawn * np.array(planner.noise_std, np.float32)
        limits = np.array([_limits(axis) for axis in self.data.axes], np.float32)
        clipped: Float32 = np.clip(actions, limits[:, 0], limits[:, 1]).astype(np.float32)
        return clipped

    def _plan(self, model: WorldModel, belief: Belief, moment: Moment) -> Float32 | None:
        """(H, A) SI: what the bundle's planner would do from one belief, for one seed."""
        planner = make_planner(planner_settings(self.manifest), self.data.axes)
        planner.reset(SEED)
        if moment.knot is not None:
            planner.commit(moment.knot)
        elif any(axis.kind == "position" for axis in self.data.axes):
            return None  # samples do not say where the axes were
        policy = model.policy(belief, moment.goal)
        budget = CountBudget(1 << 30)  # the settings' iterations decide
        proposal = planner.propose(
            belief, moment.goal, model.rollout, budget, stamp_ns=belief.stamp_ns, policy=policy
        )
        return None if proposal.reason else proposal.actions

    # ---- imagining ------------------------------------------------------------------------------
    def _model(self, graphs: Mapping[str, Graph]) -> WorldModel:
        return WorldModel.of_graphs(self.manifest, graphs, self.data.frames)

    def _imagine(self, model: WorldModel) -> Imagined:
        """Believe every moment, and imagine what was played after those that have it."""
        starts: list[Belief | None] = []
        paths: list[Mapping[str, Array] | None] = []
        for run in self.data.runs:
            model.reset(SEED)
            for moment in run:
                belief = model.update(moment.observation, moment.last_action)
                if moment.actions is None:
                    continue
                good = belief if isinstance(belief, Belief) else None
                starts.append(good)
                paths.append(None if good is None else _path(model, good, moment))
        steps = self.manifest.horizon + 1
        beliefs = {}
        for tensor in self.manifest.belief:
            gone = np.full((steps, int(np.prod(tensor.shape))), np.nan)
            rows = [gone if p is None else p[tensor.name].reshape(gone.shape) for p in paths]
            beliefs[tensor.name] = np.array(rows, np.float64)
        return Imagined(tuple(starts), beliefs)

    def _require_finite(self) -> None:
        for name, value in self.float32.beliefs.items():
            wrong = int((~np.isfinite(value).all(axis=(1, 2))).sum())
            if wrong:
                raise RefusedError(
                    f"belief {name}: is not finite in float32 from {wrong} of {len(value)} moments "
                    f"of {', '.join(s.name for s in self.data.sources)}; give data of the kind "
                    "that the model was trained on"
                )

    def _listen(self) -> dict[str, list[Mapping[str, Array]]]:
        """What every function is fed, in float32, from some of the moments."""
        ears = {
            n: _Ear(g, f)
            for (n, g), f in zip(
                self.programs.graphs(()).items(), self.programs.functions.values(), strict=True
            )
        }
        model = self._model(ears)
        chosen = set(np.linspace(0, len(self.moments) - 1, LISTENED).round().astype(int).tolist())
        number = -1
        for run in self.data.runs:
            model.reset(SEED)
            for moment in run:
                number += moment.actions is not None
                if moment.actions is None or number not in chosen:
                    if "posterior" in self.programs.functions:
                        model.update(moment.observation, moment.last_action)
                    continue
                belief = model.update(moment.observation, moment.last_action)
                if isinstance(belief, Belief) and not model.check_goal(moment.goal):
                    model.rollout(belief, moment.actions[None], moment.goal, SEED)
                    model.policy(belief, moment.goal)
        if "decoder" in ears:
            total = len(self.moments) * (self.manifest.horizon + 1)
            rows = np.linspace(0, total - 1, min(IMAGES, total)).round().astype(int)
            model.decode(
                {
                    t.name: self.float32.beliefs[t.name]
                    .reshape(total, *t.shape)[rows]
                    .astype(t.dtype)
                    for t in self.manifest.belief
                }
            )
        return {name: ear.heard() for name, ear in ears.items()}


class _Ear:
    """A graph that remembers what it was fed."""

    def __init__(self, graph: Graph, function: Function) -> None:
        self.backend = graph.backend
        self._graph = graph
        self._batched = [spec.tensor for spec in function.inputs if spec.shape[:1] == (-1,)]
        self._joined = len(self._batched) == len(function.inputs)
        self._feeds: list[Mapping[str, Array]] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        self._feeds.append({name: value.copy() for name, value in inputs.items()})
        return self._graph.run(inputs)

    def heard(self) -> list[Mapping[str, Array]]:
        """The feeds; as one where every input has a batch axis."""
        if not self._joined or not self._feeds:
            return self._feeds
        return [{n: np.concatenate([f[n] for f in self._feeds]) for n in self._batched}]


def _path(model: WorldModel, belief: Belief, moment: Moment) -> Mapping[str, Array]:
    assert moment.actions is not None
    actions = np.ascontiguousarray(moment.actions[None], np.float32)
    imagined = model.rollout(belief, actions, moment.goal, SEED, keep_beliefs=True).beliefs
    assert imagined is not None
    return {name: value[0] for name, value in imagined.items()}


def _spread(values: Array) -> float:
    """(N, S, n) -> one number."""
    flat = values.reshape(-1, values.shape[-1]).astype(np.float64)
    spread = float(np.sqrt(flat.var(axis=0).mean()))
    largest = float(np.abs(flat).max(initial=0.0))
    return spread if spread > 1e-6 * largest else 0.0


def _rows(given: Sequence[Mapping[str, Array]], tensor: str) -> Float64:
    """(rows, n)"""
    rows = [np.reshape(g[tensor], (len(g[tensor]), -1)) for g in given]
    return np.concatenate(rows).astype(np.float64)


def _limits(axis: Any) -> tuple[float, float]:
    if axis.kind == "position":
        return axis.position_min, axis.position_max
    if axis.kind == "effort":
        return -axis.effort_max, axis.effort_max
    return axis.velocity_min, axis.velocity_max


def spearman(a: Float64, b: Float64) -> float:
    """The correlation of ranks (Spearman 1904); equal values share the mean of their ranks.

    1 if neither ranks anything, 0 if only one does.
    """
    ranks = [_ranks(values) for values in (a, b)]
    deviations = [r - r.mean() for r in ranks]
    widths = [float(np.sqrt(np.square(d).sum())) for d in deviations]
    if not all(widths):
        return float(not any(widths))
    return float((deviations[0] * deviations[1]).sum() / (widths[0] * widths[1]))


def _ranks(values: Float64) -> Float64:
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    new: Bool = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    group = np.cumsum(new) - 1
    first = np.flatnonzero(new)
    last = np.append(first[1:], len(values))
    ranks = np.empty(len(values))
    ranks[order] = ((first + last - 1) / 2)[group]
    return ranks


def sensitivities(
    measurement: Measurement, layers: Collection[Layer], progress: Progress
) -> Iterator[tuple[Layer, dict[str, float]]]:
    """Each layer with the errors that it makes when it alone is int8."""
    for done, layer in enumerate(layers):
        progress("one layer in int8 at a time", done, len(layers))
        yield layer, measurement.errors([layer])
    progress("one layer in int8 at a time", len(layers), len(layers))
