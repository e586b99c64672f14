"""The one file of the benchmark that knows edge-wm's native engine.

Functions are compiled and run as step programs; rollouts are whole ones, as WorldModel makes them
where all functions are native. Plans are made by edge-wm's own planner in compiled code; the peers
are driven by the numpy loop in planning.py, with as many candidates in as many iterations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np

from edge_wm.bundle.manifest import FORMAT, AxisNeed, BeliefTensor, Manifest, Needs
from edge_wm.planner import CountBudget, Planner, PlannerSettings, make_planner
from edge_wm.types import Array, Belief, PolicyProposal
from engine_bench.case import Case
from engine_bench.imagination import Engine, Imagined, StepEngine

Precision = Literal["int8", "fp32"]
NAME = "edge-wm native"


def load(case: Case, precision: Precision, threads: int = 1) -> Engine:
    """The native engine for a case.

    Raises: ImportError, if the compiled module is missing; EdgeWmError, if it cannot run the case.
    """
    from edge_wm.backends.native import NativeGraph, NativeRollout
    from edge_wm.bundle.program import write_program
    from edge_wm.compiler import compile_graph

    graphs = {}
    for name, function in case.functions.items():
        program = compile_graph(
            function.blob,
            function.spec,
            f"{case.name}.{name}",
            precision="int8" if precision == "int8" else "float32",
        )
        graphs[name] = NativeGraph(write_program(program), function.spec, name=name)
    steps = StepEngine(case, {name: graph.run for name, graph in graphs.items()})
    if case.work == "encode":
        return steps
    rollout = NativeRollout(_manifest(case), graphs, threads=threads)
    return NativeEngine(case, rollout, steps)


class NativeEngine:
    """Rollouts in one call; the policy's proposals and encoders function by function."""

    _planner: Planner | None = None

    def __init__(self, case: Case, rollout: Any, steps: StepEngine) -> None:
        self._case = case
        self._rollout = rollout
        self._belief = {name: value[0] for name, value in case.belief.items()}
        self._goals = {source: value[0] for source, value in case.goals.items()}
        self.driven = steps.driven
        self.propose = steps.propose
        self.encode = steps.encode

    def rollout(self, actions: Array, noise: Array) -> Imagined:
        candidates = np.ascontiguousarray(actions.swapaxes(0, 1))

        def run(keep: bool) -> Any:
            return self._rollout.run(
                self._belief,
                self._goals,
                candidates,
                dt=self._case.step_s,
                weights=self._case.weights,
                noise=noise if self._case.noise else None,
                keep_beliefs=keep,
            )

        cost, infeasible, _, _ = run(keep=False)
        cost = np.where(infeasible & np.isfinite(cost), np.float32(np.inf), cost)
        return Imagined(cost, _LastBelief(list(self._belief), lambda: run(keep=True)[3]))

    def plan(self, case: Case, seed: int) -> Array:
        """(H, A): the chosen sequence of the compiled planner."""
        planning = case.planning
        assert planning is not None
        H, A, P = case.horizon, case.action, planning.policy_candidates
        if self._planner is None:
            settings = PlannerSettings(
                kind=planning.kind,
                horizon=H,
                step_ns=round(case.step_s * 1e9),
                candidates=planning.candidates,
                iterations=planning.iterations,
                elites=planning.elites,
                noise_std=(planning.std[1],) * A,
                temperature=1 / planning.temperature,
                policy_candidates=P,
            )
            axes: Any = [
                SimpleNamespace(name=f"axis{i}", kind="velocity", velocity_min=-1, velocity_max=1)
                for i in range(A)
            ]
            self._planner = make_planner(settings, axes)
        policy = None
        if P:
            random = np.random.default_rng(seed)
            proposed = self.propose(random.standard_normal((H, P, A), np.float32))
            policy = PolicyProposal(proposed.mean(axis=1), proposed.std(axis=1))
        self._planner.reset(seed)
        proposal = self._planner.propose(
            Belief(0, self._belief), _NO_GOAL, _Prepared(self), CountBudget(10**6),
            stamp_ns=0, policy=policy,
        )  # fmt: skip
        return proposal.actions


_NO_GOAL: Any = None  # the case's goals are tensors already


@dataclass(frozen=True)
class _Prepared:
    """The engine's rollout as the planner takes it (edge_wm.planner.NativeRollout)."""

    engine: NativeEngine
    passes: None = None

    def native(self, belief: Any, goal: Any) -> Any:
        rollout, case = self.engine._rollout, self.engine._case
        rollout.prepare(
            self.engine._belief, self.engine._goals, dt=case.step_s, weights=case.weights
        )
        return rollout.imagination()

    def term_names(self, goal: Any) -> list[str]:
        names: list[str] = self.engine._rollout.terms
        return names

    def __call__(self, belief: Any, actions: Any, goal: Any, seed: int) -> Any:
        raise AssertionError("the case's model is native and reads no noise")


class _LastBelief(Mapping[str, Array]):
    """The last belief, imagined again when it is asked for: the planner needs costs alone."""

    def __init__(self, names: list[str], imagine: Callable[[], Mapping[str, Array]]) -> None:
        self._names = names
        self._imagine = imagine
        self._path: Mapping[str, Array] | None = None

    def __getitem__(self, name: str) -> Array:
        if self._path is None:
            self._path = self._imagine()
        return self._path[name][:, -1]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _manifest(case: Case) -> Manifest:
    """What a bundle of the case would say; actions are the model's own numbers."""
    axes = (
        AxisNeed(name=f"axis{i}", kind="velocity", unit="1", scale=1.0) for i in range(case.action)
    )
    return Manifest(
        format=FORMAT,
        name=case.name,
        version="1.0.0",
        description=case.title,
        license="Apache-2.0",
        needs=Needs(streams={}, axes=tuple(axes)),
        step_ns=round(case.step_s * 1e9),
        horizon=case.horizon,
        belief=tuple(BeliefTensor(name=n, shape=v.shape[1:]) for n, v in case.belief.items()),
        functions={name: f.spec for name, f in case.functions.items()},  # type: ignore[misc]
    )
