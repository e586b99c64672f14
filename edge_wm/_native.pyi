from collections.abc import Callable

from edge_wm.types import Bool, Float32, Float64

def nonfinite_rows(values: Float32) -> Bool: ...

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
