"""Whether a loaded graph computes what it computed where its bundle was built.

A bundle stores inputs and outputs of its functions. On every machine and library version they
are computed again before anything moves: a library that crashes is caught by `probe`, one that
is quietly wrong (a broken int8 kernel, an emulator, a flipped bit) only by this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from edge_wm.backends import BACKENDS
from edge_wm.backends.graph import FunctionSpec, Graph, TensorSpec
from edge_wm.errors import ModelError
from edge_wm.types import Array


class Case(Protocol):
    """Reference inputs and outputs of one function: tensor -> digest of its raw bytes."""

    @property
    def function(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def outputs(self) -> Mapping[str, str]: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def formats(self) -> Sequence[str]: ...  # of graphs; none: all


SomeCase = TypeVar("SomeCase", bound=Case)


class Blobs(Protocol):
    """Where the bytes of a digest come from: an opened bundle."""

    def blob(self, digest: str) -> memoryview: ...


def require_reference(
    blobs: Blobs,
    functions: Mapping[str, FunctionSpec],
    cases: Sequence[Case],
    graphs: Mapping[str, Graph],
) -> None:
    """Run every reference case and compare, element by element:
    |got - stored| <= tolerance * max(1, |stored|), NaN and infinity only where stored.

    Raises:
        ModelError: a function gives other numbers: which tensor, by how much, and the bound.
        BackendError: the library failed.
    """
    for number, case in enumerate(cases):
        require_case(blobs, functions, case, number, graphs)


def cases_for(cases: Sequence[SomeCase], chosen: Mapping[str, str]) -> tuple[SomeCase, ...]:
    """The cases that hold for the graphs that are run. chosen: function -> backend.

    An int8 program has cases of its own: it must give its own bits, not the float32 graph's.
    """
    return tuple(
        case
        for case in cases
        if case.function in chosen
        and (not case.formats or BACKENDS[chosen[case.function]] in case.formats)
    )


def require_case(
    blobs: Blobs,
    functions: Mapping[str, FunctionSpec],
    case: Case,
    number: int,
    graphs: Mapping[str, Graph],
) -> None:
    """One of the cases of `require_reference`; `number` is for the message."""
    function = functions[case.function]
    graph = graphs[case.function]
    outputs = graph.run(_arrays(blobs, function.inputs, case.inputs))
    for tensor, want in _arrays(blobs, function.outputs, case.outputs).items():
        problem = disagreement(outputs[tensor], want, case.tolerance)
        if problem:
            raise ModelError(
                f"function {case.function}: reference case {number}, output {tensor!r} on "
                f"{graph.backend}: {problem}; this machine or library version computes "
                "something else than the bundle was built with: try another backend"
            )


def warm_up(function: FunctionSpec, graph: Graph, rows: int) -> None:
    """Run a function once on zeros, `rows` of them if it has a batch axis.

    Memory is then allocated, and a graph that cannot run at this size has said so.

    Raises:
        BackendError: the library failed.
    """
    graph.run(
        {
            spec.tensor: np.zeros([rows if n == -1 else n for n in spec.shape], spec.dtype)
            for spec in function.inputs
        }
    )


def disagreement(got: Array, stored: Array, tolerance: float) -> str | None:
    """In words, how `got` differs from `stored` by more than it may; None if it does not."""
    if got.shape != stored.shape or got.dtype != stored.dtype:
        return f"must be {stored.dtype} {stored.shape}, got {got.dtype} {got.shape}"
    want, have = stored.astype(np.float64), got.astype(np.float64)
    with np.errstate(invalid="ignore"):
        bound = tolerance * np.maximum(1.0, np.abs(want))
        same = (want == have) | (np.isnan(want) & np.isnan(have))
        wrong = ~same & ~((np.abs(have - want) <= bound) & np.isfinite(want))
        if not wrong.any():
            return None
        error = np.where(wrong, np.abs(have - want), -1.0)
    error[wrong & ~np.isfinite(error)] = np.inf
    worst = np.unravel_index(int(np.argmax(error)), error.shape)
    return (
        f"{int(wrong.sum())} of {wrong.size} numbers differ, the worst at "
        f"{[int(i) for i in worst]}: expected {want[worst]:.7g}, got {have[worst]:.7g}, "
        f"error {error[worst]:.3g} above the bound {bound[worst]:.3g}"
    )


def _arrays(
    blobs: Blobs, specs: Sequence[TensorSpec], stored: Mapping[str, str]
) -> dict[str, Array]:
    """Stored tensors; the batch follows from the size (`open_bundle` made sure that it does)."""
    return {
        spec.tensor: np.frombuffer(blobs.blob(stored[spec.tensor]), spec.dtype).reshape(spec.shape)
        for spec in specs
    }
