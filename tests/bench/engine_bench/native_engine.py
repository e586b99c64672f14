"""The one file of the benchmark that knows edge-wm's native engine.

Functions are compiled and run as step programs; rollouts are whole ones, as WorldModel makes them
where all functions are native. The planner is the numpy loop that drives the peers too: to time
the engine's own, give `NativeEngine` a method `plan(case, seed) -> (H, A)`, and `planning.work`
calls that instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np

from edge_wm.bundle.manifest import FORMAT, AxisNeed, BeliefTensor, Manifest, Needs
from edge_wm.types import Array
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

    def __init__(self, case: Case, rollout: Any, steps: StepEngine) -> None:
        self._case = case
        self._rollout = rollout
        self._belief = {name: value[0] for name, value in case.belief.items()}
        self._goals = {source: value[0] for source, value in case.goals.items()}
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


def int8_peak(milliseconds: float = 200.0) -> float | None:
    """The int8 multiply-adds a second that one core does at best now, in 10^9; None: unknown."""
    try:
        from edge_wm._native import int8_peak as measure
    except ImportError:
        return None
    return float(measure(milliseconds=milliseconds))
