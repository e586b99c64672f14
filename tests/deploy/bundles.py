"""Signed bundles for the rover: one that is good, and many that are not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import models
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from edge_wm.bundle import SigningKey, write_bundle
from edge_wm.bundle.signatures import public_key_text

KEY = SigningKey("deploy", CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)))


def trust_key(folder: Path) -> Path:
    """The public key file that makes this machine trust what is written here."""
    path = folder / "deploy.pub"
    path.write_text(public_key_text(KEY, "deploy", ["model"]))
    return path


def write(
    path: Path,
    functions: Mapping[str, dict[str, Any]] | None = None,
    reference: Sequence[Any] = (),
    key: SigningKey = KEY,
    **changes: Any,
) -> Path:
    """The linear world model, signed; `changes` are fields of its manifest."""
    made = models.bundle(functions or models.linear(), reference, **changes)
    write_bundle(path, made.manifest, list(made.blobs.values()), key)
    return path


def with_graph(function: str, blob: bytes, kind: str = "onnx") -> dict[str, dict[str, Any]]:
    functions = models.linear()
    functions[function]["graphs"] = {kind: blob}
    return functions


def dynamics_of(nodes: list[Any], constants: Mapping[str, np.ndarray]) -> bytes:
    """Dynamics with A and B of the linear model, and `nodes` from "plain" to "next"."""
    ahead = [
        models.node("MatMul", "z A", "za"),
        models.node("MatMul", "action B", "ab"),
        models.node("Add", "za ab", "plain"),
    ]
    known = {"A": models.A.T.copy(), "B": models.B.T.copy()}
    inputs = {"z": ["K", 3], "action": ["K", 2]}
    return models.onnx_file(inputs, ahead + nodes, {"next": ["K", 3]}, {**known, **constants})


def poisoned(operator: str) -> bytes:
    """Dynamics that are not finite: "Log" or "Sqrt" of a negative number, "Reciprocal" of zero."""
    nodes = [
        models.node("Mul", "plain zero", "nothing"),
        models.node("Sub", "nothing shift", "below"),
        models.node(operator, "below", "bad"),
        models.node("Add", "plain bad", "next"),
    ]
    shift = np.array(0.0 if operator == "Reciprocal" else 1.0, np.float32)
    return dynamics_of(nodes, {"zero": np.array(0, np.float32), "shift": shift})


def poisoned_cost() -> bytes:
    """Costs that are NaN, of beliefs that are finite."""
    nodes = [
        models.node("Slice", "pose from two one", "target"),
        models.node("ReduceSumSquare", "target", "far", axes=[1], keepdims=0),
        models.node("Sub", "far far", "zero"),
        models.node("Div", "zero zero", "goal"),
        models.node("ReduceSumSquare", "action", "effort", axes=[1], keepdims=1),
        models.node("ReduceSum", "z", "unused", keepdims=0),
    ]
    constants = {"from": np.array([0]), "two": np.array([2]), "one": np.array([1])}
    inputs = {"z": ["K", 3], "action": ["K", 2], "pose": ["K", 4]}
    return models.onnx_file(inputs, nodes, {"goal": ["K"], "effort": ["K", 1]}, constants)


def poisoned_encoder() -> bytes:
    nodes = [
        models.node("MatMul", "odometry pick", "plain"),
        models.node("Sub", "plain plain", "zero"),
        models.node("Div", "zero zero", "z"),
    ]
    return models.onnx_file({"odometry": [1, 6]}, nodes, {"z": [1, 3]}, {"pick": models.PICK})


def heavy_encoder(n: int, products: int) -> bytes:
    """An encoder that multiplies (n, n) matrices before it answers."""
    nodes = [
        models.node("MatMul", "odometry pick", "plain"),
        models.node("ReduceSum", "plain", "sum", keepdims=0),
        models.node("Expand", "sum size", "m0"),
    ]
    nodes += [models.node("MatMul", f"m{i} m0", f"m{i + 1}") for i in range(products)]
    nodes += [
        models.node("ReduceMax", f"m{products}", "most", keepdims=0),
        models.node("Mul", "most zero", "nothing"),
        models.node("Add", "plain nothing", "z"),
    ]
    constants = {"pick": models.PICK, "size": np.array([n, n]), "zero": np.array(0, np.float32)}
    return models.onnx_file({"odometry": [1, 6]}, nodes, {"z": [1, 3]}, constants)


def hungry_encoder(n: int) -> bytes:
    """An encoder that wants (n,) numbers of memory."""
    nodes = [
        models.node("MatMul", "odometry pick", "plain"),
        models.node("ReduceSum", "plain", "sum", keepdims=0),
        models.node("Expand", "sum size", "wide"),
        models.node("ReduceMax", "wide", "most", keepdims=0),
        models.node("Mul", "most zero", "nothing"),
        models.node("Add", "plain nothing", "z"),
    ]
    constants = {"pick": models.PICK, "size": np.array([n]), "zero": np.array(0, np.float32)}
    return models.onnx_file({"odometry": [1, 6]}, nodes, {"z": [1, 3]}, constants)


def wrong_reference(scale: float) -> list[Any]:
    """A reference case that the dynamics do not reproduce."""
    z = np.array([[1.0, 2.0, 3.0]], np.float32)
    action = np.array([[0.5, -0.5]], np.float32)
    right = z @ models.A.T + action @ models.B.T
    outputs = {"next": (right * scale).astype(np.float32)}
    return [("dynamics", {"z": z, "action": action}, outputs, 1e-4)]
