"""A tiny world model as a manifest and blobs, from which the bundle tests start.

The belief is one number z and the action one axis; the graphs are written by the `onnx`
package, which the bundle room itself never imports.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def graph(
    inputs: dict[str, tuple[int, list[Any]]],
    nodes: list[onnx.NodeProto],
    outputs: dict[str, tuple[int, list[Any]]],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 17,
) -> bytes:
    """An ONNX file; a string among the dims is a symbolic size."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(n, t, d) for n, (t, d) in inputs.items()],
            [helper.make_tensor_value_info(n, t, d) for n, (t, d) in outputs.items()],
            [numpy_helper.from_array(a, n) for n, a in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=8,
    )
    return bytes(model.SerializeToString())


F32 = TensorProto.FLOAT


def graphs() -> dict[str, bytes]:
    """encoder: z = odometry[3:4]; dynamics: z' = z + 0.1 a; cost: goal = z^2."""
    node = helper.make_node
    return {
        "encoder": graph(
            {"odometry": (F32, [6])},
            [node("Slice", ["odometry", "from", "to"], ["z"])],
            {"z": (F32, [1])},
            {"from": np.array([3]), "to": np.array([4])},
        ),
        "dynamics": graph(
            {"z": (F32, ["K", 1]), "action": (F32, ["K", 1])},
            [node("Mul", ["action", "gain"], ["step"]), node("Add", ["z", "step"], ["next"])],
            {"next": (F32, ["K", 1])},
            {"gain": np.array([0.1], np.float32)},
        ),
        "cost": graph(
            {"z": (F32, ["K", 1])},
            [node("Mul", ["z", "z"], ["goal"])],
            {"goal": (F32, ["K", 1])},
        ),
    }


def digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def tensor(value: list[Any]) -> bytes:
    return np.array(value, np.float32).tobytes()


def document() -> tuple[dict[str, Any], list[bytes]]:
    """(the manifest as plain values, without `blobs`; the blobs)."""
    files = graphs()
    card = b"# Tiny\n\nA point on a line.\n"
    given = {"z": tensor([[1], [2]]), "action": tensor([[1], [-1]]), "next": tensor([[1.1], [1.9]])}

    def io(name: str, role: str, word: str, shape: list[int]) -> dict[str, Any]:
        return {"tensor": name, role: word, "shape": shape, "dtype": "float32"}

    manifest = {
        "format": "edge-wm/bundle/1",
        "name": "tiny",
        "version": "1.0.0",
        "description": "A point on a line.",
        "license": "Apache-2.0",
        "needs": {
            "streams": {
                "odometry": {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI"}
            },
            "axes": [{"name": "base.vx", "kind": "twist", "unit": "m/s", "scale": 0.5}],
        },
        "step_ns": 100_000_000,
        "horizon": 5,
        "belief": [{"name": "z", "shape": [1]}],
        "functions": {
            "encoder": {
                "graphs": {"onnx": digest(files["encoder"])},
                "inputs": [io("odometry", "source", "observation.odometry", [6])],
                "outputs": [io("z", "target", "belief.z", [1])],
            },
            "dynamics": {
                "graphs": {"onnx": digest(files["dynamics"])},
                "inputs": [
                    io("z", "source", "belief.z", [-1, 1]),
                    io("action", "source", "action", [-1, 1]),
                ],
                "outputs": [io("next", "target", "belief.z", [-1, 1])],
            },
            "cost": {
                "graphs": {"onnx": digest(files["cost"])},
                "inputs": [io("z", "source", "belief.z", [-1, 1])],
                "outputs": [io("goal", "target", "cost.goal", [-1, 1])],
            },
        },
        "planner": {
            "kind": "mppi",
            "candidates": 16,
            "iterations": 2,
            "elites": 4,
            "noise_std": [0.2],
        },
        "cost_terms": {"goal": {"weight": 1, "min": 0, "max": 10, "meaning": "distance to 0"}},
        "reference": [
            {
                "function": "dynamics",
                "inputs": {"z": digest(given["z"]), "action": digest(given["action"])},
                "outputs": {"next": digest(given["next"])},
                "tolerance": 1e-5,
            }
        ],
        "accuracy_card": {"steps": 5, "error": [0.1, 0.2]},
        "calibration_sha256": digest(b"calibration"),
        "model_card": digest(card),
    }
    return manifest, [*files.values(), *given.values(), card]
