"""The one file of the benchmark that knows edge-wm's native engine.

Today it compiles every function (`edge_wm.compiler`) and runs the programs step by step, as a
bundle's functions are run. To let the engine roll out or plan by itself, return from `load`
another `Engine`: one with its own `rollout`, and with `plan(case, seed) -> (H, A)` if it has the
planner's inner loop too (`planning.work` then calls that instead of the loop in numpy).
"""

from __future__ import annotations

from typing import Literal

from engine_bench.case import Case
from engine_bench.imagination import Engine, StepEngine

Precision = Literal["int8", "fp32"]
NAME = "edge-wm native"


def load(case: Case, precision: Precision, threads: int = 1) -> Engine:
    """The native engine for a case.

    Raises: ImportError, if this checkout has none; EdgeWmError, if it cannot run the case.
    """
    from edge_wm.compiler import compile_graph

    from edge_wm.backends.native import load as load_program
    from edge_wm.bundle.program import write_program

    runs = {}
    for name, function in case.functions.items():
        program = compile_graph(
            function.blob,
            function.spec,
            f"{case.name}.{name}",
            precision="int8" if precision == "int8" else "float32",
        )
        graph = load_program(write_program(program), function.spec, name=name, threads=threads)
        runs[name] = graph.run
    return StepEngine(case, runs)


def int8_peak(milliseconds: float = 200.0) -> float | None:
    """The int8 multiply-adds a second that one core does at best now, in 10^9; None: unknown."""
    try:
        from edge_wm._native import int8_peak as measure
    except ImportError:
        return None
    return float(measure(milliseconds=milliseconds))
