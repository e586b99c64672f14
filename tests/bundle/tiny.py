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


# ---- TFLite -----------------------------------------------------------------------------
def tflite(
    tensors: list[tuple[str, list[int], np.ndarray | None]],
    operators: list[tuple[str, list[int], list[int], tuple[str, dict[str, int]] | None]],
    inputs: list[int],
    outputs: list[int],
    change: Any = lambda model: None,
) -> bytes:
    """A TFLite file, written by the schema's own object interface.

    tensors: (name, shape, constant or None), float32 unless the constant says otherwise.
    operators: (name, inputs, outputs, options as (type, fields)). change: called with the model.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    types = {"float32": 0, "int32": 2, "uint8": 3, "int64": 4, "int8": 9}
    graph, model = schema.SubGraphT(), schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], []
    model.buffers = [schema.BufferT()]
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], inputs, outputs
    for name, shape, constant in tensors:
        made = schema.TensorT()
        made.name, made.shape, made.buffer, made.type = name.encode(), shape, 0, 0
        if constant is not None:
            made.buffer, made.type = len(model.buffers), types[str(constant.dtype)]
            model.buffers.append(schema.BufferT())
            model.buffers[-1].data = np.frombuffer(constant.tobytes(), np.uint8)
        graph.tensors.append(made)
    for op, ins, outs, options in operators:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, op)
        code.version = 2 if op == "BROADCAST_TO" else 1
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = len(model.operatorCodes), ins, outs
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options[0])
            made.builtinOptions = getattr(schema, options[0] + "T")()
            for field, value in options[1].items():
                setattr(made.builtinOptions, field, value)
        model.operatorCodes.append(code)
        graph.operators.append(made)
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def tflite_cost(change: Any = lambda model: None) -> bytes:
    """The tiny model's cost, goal = z * z, for a batch of 4."""
    tensors = [("z", [4, 1], None), ("goal", [4, 1], None)]
    return tflite(tensors, [("MUL", [0, 0], [1], ("MulOptions", {}))], [0], [1], change)
