"""From functions to rollouts: step by step as exported, or one joined graph a rollout.

Both engines do what WorldModel does with a bundle, without its checks, in the model's own
numbers; the native engine plugs in as `StepEngine` until it rolls out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edge_wm.types import Array
from engine_bench.case import Case

Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]  # tensors in, tensors out


@dataclass(frozen=True)
class Imagined:
    """What a rollout gives."""

    cost: Array  # (K,)
    last: Mapping[str, Array]  # the last belief: name -> (K, ...)


class Engine(Protocol):
    """Anything that can do the work of a case."""

    def rollout(self, actions: Array, noise: Array) -> Imagined:
        """actions: (H, K, A), noise: (H, K, N)."""
        ...

    def propose(self, noise: Array) -> Array:
        """The policy's own actions for P rows: noise (H, P, A) -> (H, P, A)."""
        ...

    def encode(self) -> Array:
        """The belief of the case's observation: (1, ...)."""
        ...


class StepEngine:
    """Calls each function as a bundle has it: dynamics H times, cost once for all H K rows."""

    def __init__(self, case: Case, runs: Mapping[str, Run]) -> None:
        self._case = case
        self._runs = runs
        self._specs = {name: case.functions[name].spec for name in runs}

    def rollout(self, actions: Array, noise: Array) -> Imagined:
        H, K, _ = actions.shape
        start = {f"belief.{n}": v for n, v in self._case.belief.items()}
        beliefs = {s: np.repeat(v, K, axis=0) for s, v in start.items()}
        path: dict[str, list[Array]] = {source: [] for source in beliefs}
        for h in range(H):
            after = self._call("dynamics", beliefs | {"action": actions[h], "noise": noise[h]}, K)
            for source in path:
                beliefs[source] = after[source]
                path[source].append(after[source])
        last = {source.removeprefix("belief."): value for source, value in beliefs.items()}
        cost = np.zeros(K, np.float32)
        if "cost" in self._runs:
            every = {s: v[0] if H == 1 else np.concatenate(v) for s, v in path.items()}
            every["action"] = np.ascontiguousarray(actions).reshape(H * K, -1)
            for target, term in self._call("cost", every, H * K).items():
                weight = self._case.weights.get(target.removeprefix("cost."), 1.0)
                cost += np.float32(weight) * term.reshape(H, K).sum(axis=0)
            if "constraint" in self._runs:
                risk = self._call("constraint", every, H * K)["constraint"]
                cost[risk.reshape(H, K, -1).max(axis=(0, 2)) > 0] = np.inf
        if "value" in self._runs:
            value = self._call("value", beliefs, K)["value"].reshape(K)
            cost += np.float32(self._case.weights.get("value", 1.0)) * value
        return Imagined(cost, last)

    def driven(
        self, actions: Array, noise: Array, drawn: Mapping[str, list[Array]] | None = None
    ) -> dict[str, list[Array]]:
        """Every belief of a rollout, by source; of the tensors in `drawn`, those given there.

        So two engines can be asked what they make of the *same* draws: one that decides a draw
        the other way goes another way, which says nothing of its arithmetic.
        """
        H, K, _ = actions.shape
        beliefs = {f"belief.{n}": np.repeat(v, K, axis=0) for n, v in self._case.belief.items()}
        path: dict[str, list[Array]] = {source: [] for source in beliefs}
        for h in range(H):
            after = self._call("dynamics", beliefs | {"action": actions[h], "noise": noise[h]}, K)
            for source in path:
                path[source].append(np.array(after[source]))
                beliefs[source] = (drawn or {}).get(source, path[source])[h]
        return path

    def propose(self, noise: Array) -> Array:
        H, P, _ = noise.shape
        beliefs = {f"belief.{n}": np.repeat(v, P, axis=0) for n, v in self._case.belief.items()}
        actions = np.empty_like(noise)
        for h in range(H):
            asked = self._call("policy", beliefs, P)
            actions[h] = np.clip(asked["action.mean"] + asked["action.std"] * noise[h], -1, 1)
            if h < H - 1:
                beliefs = self._call("dynamics", beliefs | {"action": actions[h]}, P)
        return actions

    def encode(self) -> Array:
        fed = {f"observation.{n}": v for n, v in self._case.observation.items()}
        return next(iter(self._call("encoder", fed, 1).values()))

    def _call(self, name: str, fed: Mapping[str, Array], rows: int) -> dict[str, Array]:
        """By source; goals and dt are added and repeated here."""
        feeds = {}
        for spec in self._specs[name].inputs:
            if spec.source in fed:
                feeds[spec.tensor] = fed[spec.source]
            elif spec.source == "dt":
                feeds[spec.tensor] = np.full((rows, *spec.shape[1:]), self._case.step_s, np.float32)
            else:
                feeds[spec.tensor] = np.repeat(self._case.goals[spec.source], rows, axis=0)
        outputs = self._runs[name](feeds)
        return {spec.target: outputs[spec.tensor] for spec in self._specs[name].outputs}


class Bound(Protocol):
    """A joined graph with its inputs and outputs in memory that is shared with the library."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    def run(self) -> None: ...


class JoinedEngine:
    """One call a rollout (`rollout`), a proposal (`policy`) or an image (`encoder`)."""

    def __init__(self, bound: Mapping[str, Bound]) -> None:
        self._bound = bound
        self._noise: Array | None = None  # what is in the graph's memory already

    def rollout(self, actions: Array, noise: Array) -> Imagined:
        graph = self._bound["rollout"]
        graph.inputs["actions"][...] = actions
        if "noise" in graph.inputs and noise is not self._noise:
            graph.inputs["noise"][...] = noise
            self._noise = noise
        graph.run()
        last = {n.removeprefix("last.belief."): v for n, v in graph.outputs.items() if n != "cost"}
        return Imagined(graph.outputs["cost"], last)

    def propose(self, noise: Array) -> Array:
        graph = self._bound["policy"]
        graph.inputs["noise"][...] = noise
        graph.run()
        return graph.outputs["actions"]

    def encode(self) -> Array:
        graph = self._bound["encoder"]
        graph.run()
        return next(iter(graph.outputs.values()))


def joined_inputs(case: Case, graph: str) -> dict[str, Array]:
    """What a joined graph is bound to at first, by tensor: the shapes, and what stays."""
    if graph == "encoder":
        specs = case.functions["encoder"].spec.inputs
        return {s.tensor: case.observation[s.source.removeprefix("observation.")] for s in specs}
    inputs = {f"belief.{name}": value for name, value in case.belief.items()}
    if graph == "policy":
        assert case.planning is not None
        shape = (case.horizon, case.planning.policy_candidates, case.action)
        return inputs | {"noise": np.zeros(shape, np.float32)}
    inputs |= {"actions": case.actions(0)} | dict(case.goals)
    return inputs | ({"noise": case.noises(0)} if case.noise else {})
