"""A world model wide enough for int8: 64 numbers of belief, one or two layers of 4096 weights.

encoder   z = E odometry                     (384 weights: stays float32 by itself)
dynamics  linear()   z' = A z + B a
          deep()     z' = 0.9 z + second(tanh(first(z) + B a))
cost      squared distance of z[:2] to the goal's x and y, squared action
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
from models import node, part

from edge_wm.bundle import Bundle

WIDTH = 64
HORIZON = 4
_RANDOM = np.random.default_rng(7)
E = (0.4 * _RANDOM.standard_normal((6, WIDTH))).astype(np.float32)
B = (0.2 * _RANDOM.standard_normal((2, WIDTH))).astype(np.float32)
A = np.linalg.qr(_RANDOM.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
FIRST = (0.15 * _RANDOM.standard_normal((WIDTH, WIDTH))).astype(np.float32)
SECOND = (0.1 * _RANDOM.standard_normal((WIDTH, WIDTH))).astype(np.float32)


def with_outlier() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`deep`'s layers with a column of huge weights for a number that is always 0."""
    first, second, drive = FIRST.copy(), SECOND.copy(), B.copy()
    first[:, -1] = drive[:, -1] = 0.0
    second[-1] = 300.0  # a scale of 300 / 127 for every output: all others round to 0
    return first, second, drive


def linear() -> bytes:
    nodes = [
        node("MatMul", "z A", "za", name="step"),
        node("MatMul", "action B", "ab", name="drive"),
        node("Add", "za ab", "next"),
    ]
    inputs = {"z": ["K", WIDTH], "action": ["K", 2]}
    return models.onnx_file(inputs, nodes, {"next": ["K", WIDTH]}, {"A": A, "B": B})


def deep(first: np.ndarray = FIRST, second: np.ndarray = SECOND, drive: np.ndarray = B) -> bytes:
    nodes = [
        node("MatMul", "z W1", "h", name="first"),
        node("MatMul", "action B", "ab", name="drive"),
        node("Add", "h ab", "sum"),
        node("Tanh", "sum", "t"),
        node("MatMul", "t W2", "change", name="second"),
        node("Mul", "z keep", "kept"),
        node("Add", "kept change", "next"),
    ]
    inputs = {"z": ["K", WIDTH], "action": ["K", 2]}
    constants = {"W1": first, "W2": second, "B": drive, "keep": np.array(0.9, np.float32)}
    return models.onnx_file(inputs, nodes, {"next": ["K", WIDTH]}, constants)


def _cost() -> bytes:
    nodes = [
        node("Slice", "z from two one", "near"),
        node("Slice", "pose from two one", "target"),
        node("Sub", "near target", "apart"),
        node("ReduceSumSquare", "apart", "goal", axes=[1], keepdims=0),
        node("ReduceSumSquare", "action", "effort", axes=[1], keepdims=1),
    ]
    constants = {"from": np.array([0]), "two": np.array([2]), "one": np.array([1])}
    inputs = {"z": ["K", WIDTH], "action": ["K", 2], "pose": ["K", 4]}
    return models.onnx_file(inputs, nodes, {"goal": ["K"], "effort": ["K", 1]}, constants)


def posterior() -> bytes:
    """z = 0.5 z before + what is seen + what was done."""
    nodes = [
        node("Mul", "z half", "before"),
        node("MatMul", "last B", "done"),
        node("Add", "before seen", "sum"),
        node("Add", "sum done", "next"),
    ]
    inputs = {"z": [1, WIDTH], "seen": [1, WIDTH], "last": [1, 2]}
    constants = {"half": np.array(0.5, np.float32), "B": B}
    return models.onnx_file(inputs, nodes, {"next": [1, WIDTH]}, constants)


def bundle(dynamics: bytes, *, recurrent: bool = False, **changes: Any) -> Bundle:
    encoder = models.onnx_file(
        {"odometry": [1, 6]}, [node("MatMul", "odometry E", "z")], {"z": [1, WIDTH]}, {"E": E}
    )
    ahead = f"z=belief.z:-1,{WIDTH} action=action:-1,2"
    functions = {
        "encoder": part(
            {"onnx": encoder}, "odometry=observation.odometry:1,6", f"z=belief.z:1,{WIDTH}"
        ),
        "dynamics": part({"onnx": dynamics}, ahead, f"next=belief.z:-1,{WIDTH}"),
        "cost": part(
            {"onnx": _cost()},
            ahead + " pose=goal.pose:-1,4",
            "goal=cost.goal:-1 effort=cost.effort:-1,1",
        ),
    }
    if recurrent:
        functions["encoder"]["outputs"][0]["target"] = "latent.seen"
        functions["posterior"] = part(
            {"onnx": posterior()},
            f"z=belief.z:1,{WIDTH} seen=latent.seen:1,{WIDTH} last=last_action:1,2",
            f"next=belief.z:1,{WIDTH}",
        )
    return models.bundle(
        functions, _reference(), belief=[{"name": "z", "shape": [WIDTH]}], horizon=HORIZON,
        **changes,
    )  # fmt: skip


def _reference() -> Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any], float]]:
    seen = np.array([[0.5, -0.2, 0.1, 1.0, 0.3, -0.4]], np.float32)
    z, action = seen @ E, np.array([[0.5, -1.0]], np.float32)
    pose = np.array([[1.0, -0.5, 0.0, 0.0]], np.float32)
    goal = np.square(z[:, :2] - pose[:, :2]).sum(axis=1)
    effort = np.square(action).sum(axis=1, keepdims=True)
    return [
        ("encoder", {"odometry": seen}, {"z": z}, 1e-4),
        (
            "cost",
            {"z": z, "action": action, "pose": pose},
            {"goal": goal, "effort": effort},
            1e-4,
        ),
    ]


def samples(path: Path, rows: int = 80, **changes: np.ndarray) -> Path:
    """An .npz of made-up observations and actions; a change of None leaves the array out."""
    random = np.random.default_rng(3)
    arrays = {
        "odometry": random.standard_normal((rows, 6)).astype(np.float32),
        "action": random.uniform(-1, 1, (rows, 2)).astype(np.float32),
    } | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path
