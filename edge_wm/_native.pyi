from collections.abc import Mapping, Sequence
from typing import Any

from edge_wm.types import Array, Bool, Float32

def nonfinite_rows(values: Float32) -> Bool: ...
def kernels() -> list[str]: ...
def int8_peak(kernels: str = "", milliseconds: float = 100.0) -> float: ...

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

class Rollout:
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
