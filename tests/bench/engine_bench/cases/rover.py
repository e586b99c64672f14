"""The shipped rover (zoo/rover/rover.wmb), planned as its bundle says: 128 × 12 × 2 by MPPI.

Its trained functions as they are in the bundle, in ONNX and in TFLite.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.bundle.manifest import Function, FunctionName
from edge_wm.types import Array
from engine_bench.case import Case, Planning, StepFunction

BUNDLE = Path(__file__).resolve().parents[4] / "zoo" / "rover" / "rover.wmb"
PLANNED: tuple[FunctionName, ...] = ("dynamics", "cost", "constraint", "value")
GOAL = np.array([[2.0, 0.5, 0.0, 0.0]], np.float32)  # x, y, yaw, has_yaw


def plan() -> Case:
    bundle = open_bundle(BUNDLE, load_trust())
    manifest = bundle.manifest
    planner, H = manifest.planner, manifest.horizon
    assert planner is not None
    functions = {
        name: _step_function(bundle, manifest.functions[name])
        for name in PLANNED
        if name in manifest.functions
    }
    per_step = sum(f.macs for name, f in functions.items() if name != "value")
    per_candidate = H * per_step + (functions["value"].macs if "value" in functions else 0)
    return Case(
        name="rover",
        title=f"the shipped rover's plan, {planner.candidates} × {H} × {planner.iterations}",
        work="plan",
        functions=functions,
        rewritten=functions,
        macs=planner.candidates * planner.iterations * per_candidate,
        candidates=planner.candidates,
        horizon=H,
        action=manifest.action_size,
        belief=_belief(bundle),
        goals={"goal.pose": GOAL},
        weights={name: term.weight for name, term in manifest.cost_terms.items()},
        planning=Planning(
            "mppi", planner.candidates, planner.iterations, planner.elites, std=(0.05, 0.5)
        ),
        step_s=manifest.step_ns * 1e-9,
    )


def _step_function(bundle: Bundle, spec: Function) -> StepFunction:
    blob = bytes(bundle.blob(spec.graphs["onnx"]))
    tflite = bytes(bundle.blob(spec.graphs["tflite"])) if "tflite" in spec.graphs else b""
    return StepFunction(blob, spec, _macs(blob), tflite)


def _belief(bundle: Bundle) -> dict[str, Array]:
    """Where the rover stands in its bundle's reference case of `dynamics`: (1, ...) each."""
    manifest = bundle.manifest
    found: dict[str, Array] = {t.name: np.zeros((1, *t.shape), np.float32) for t in manifest.belief}
    for case in manifest.reference:
        if case.function != "dynamics":
            continue
        for entry in manifest.functions["dynamics"].inputs:
            if entry.source.startswith("belief."):
                data = np.frombuffer(bundle.blob(case.inputs[entry.tensor]), entry.dtype)
                rows = data.reshape(-1, *entry.shape[1:])
                found[entry.source.removeprefix("belief.")] = rows[:1].copy()
    return found


def _macs(blob: bytes) -> int:
    """Multiply-adds of one row in the dense layers of an ONNX file."""
    graph = onnx.load_from_string(blob).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return sum(
        int(np.prod(shapes[node.input[1]]))
        for node in graph.node
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in shapes
    )
