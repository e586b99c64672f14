from collections.abc import Callable, Mapping, Sequence
from typing import Any

from edge_wm.types import Array, Bool, Float32, Float64

def nonfinite_rows(values: Float32) -> Bool: ...
def kernels() -> list[str]: ...
def int8_peak(kernels: str = "", milliseconds: float = 100.0) -> float: ...

# ---- the planner: cpp/bindings/planner.cpp ----------------------------------------------
class Imagination:
    """What a planner imagines with, compiled, for one belief and goal."""

    @property
    def term_count(self) -> int: ...
    @property
    def action_size(self) -> int:
        """H * A: what it reads for each candidate."""

    def imagine(self, actions: Float32, seed: int) -> tuple[Float32, Bool, Float32]:
        """(cost (K,), infeasible (K,), terms (T, K)) of actions (K, H, A)."""

class CallableImagination(Imagination):
    """A Python rollout: actions (K, H, A), seed -> cost (K,), infeasible (K,)."""

    def __init__(
        self, callable: Callable[[Float32, int], tuple[Float32, Bool]], horizon: int, axes: int
    ) -> None: ...

class DistanceImagination(Imagination):
    """For tests: the squared distance to `target` (H, A); infeasible above `wall` at first."""

    def __init__(self, target: Float32, wall: float) -> None: ...

class Search:
    """The planner's inner loop; arrays are those of `edge_wm.planner.Planner`."""

    def __init__(
        self,
        *,
        equal_weights: bool,
        horizon: int,
        candidates: int,
        iterations: int,
        elites: int,
        kept: int,
        policy_candidates: int,
        temperature: float,
        momentum: float,
        full_spread: Float32,
        least_spread: Float64,
        lowest: Float32,
        highest: Float32,
        quantiles: Float32,
        color: Float32,
    ) -> None: ...
    def distribution(self) -> tuple[Float32, Float32]: ...
    def run(
        self,
        imagination: Imagination,
        more: Callable[[], bool],
        passes: Callable[[Float32], Bool] | None,
        mean: Float32,
        rest: Float32,
        policy_mean: Float32 | None,
        policy_std: Float32 | None,
        seed: int,
        plan: int,
    ) -> tuple[
        Float32 | None,  # actions (H, A); None: no candidate was finite and feasible
        float,  # its cost
        list[float],  # its terms
        int,  # the iteration in which it was rolled out
        int,  # its place among that iteration's candidates
        int,  # iterations done
        int,  # infeasible candidates
        tuple[bool, ...],  # the budget's answers
    ]: ...

# ---- step programs and rollouts: cpp/bindings/program.cpp ---------------------------------
class Program:
    def __init__(
        self,
        kernels: str,
        registers: Sequence[tuple[int, int]],
        constants: Sequence[Array],
        inputs: Sequence[tuple[int, bool]],
        outputs: Sequence[tuple[int, bool]],
        operations: Sequence[Mapping[str, Any]],
    ) -> None: ...
    @property
    def kernels(self) -> str: ...

class Graph:
    def __init__(self, program: Program, tile: int) -> None: ...
    def run(self, arrays: Sequence[Float32]) -> list[Float32]: ...
    @property
    def scratch_bytes(self) -> int: ...

Wired = tuple[Program, Sequence[tuple[int, int]], Sequence[int]]

class Rollout(Imagination):
    def __init__(
        self,
        dynamics: Wired,
        cost: Wired | None,
        constraint: Wired | None,
        value: Wired | None,
        belief: Sequence[int],
        terms: int,
        action: int,
        scale: Sequence[float],
        offset: Sequence[float],
        noise: int,
        goals: Sequence[int],
        horizon: int,
        threads: int = 1,
        tile: int = 0,
    ) -> None: ...
    def prepare(
        self,
        belief: Sequence[Float32],
        goals: Sequence[Float32],
        dt: float,
        weights: Sequence[float],
    ) -> None: ...
    def run(
        self, actions: Float32, noise: Float32 | None, keep: bool = False
    ) -> tuple[Float32, Bool, Float32, list[Float32]]: ...
    @property
    def tile(self) -> int: ...
    @property
    def scratch_bytes(self) -> int: ...
