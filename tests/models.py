"""Tiny world models for tests: a linear system with known answers, in ONNX and in TFLite.

z' = A z + B a         or with a step duration   z' = z + dt (F z + G a)
cost.goal = |z - goal|^2 over the first two numbers,  cost.effort = |a|^2
constraint = z[0] - 2,  value = 10 |z|^2
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_wm.bundle import Bundle
from edge_wm.bundle.manifest import FORMAT, manifest_from

A = np.array([[0.9, 0.1, 0.0], [0.0, 0.95, 0.05], [0.02, 0.0, 0.9]], np.float32)
B = np.array([[0.3, 0.0], [0.0, 0.2], [0.1, -0.1]], np.float32)
F = np.array([[-0.5, 0.4, 0.0], [0.0, -0.3, 0.2], [0.1, 0.0, -0.6]], np.float32)
G = np.array([[1.0, 0.0], [0.0, 0.8], [0.3, -0.2]], np.float32)
SCALE = np.array([0.5, 2.0], np.float32)
OFFSET = np.array([0.1, 0.0], np.float32)
PICK = np.eye(6, 3, k=-3, dtype=np.float32)  # z = vx, vy, wz of the odometry

_ELEMENT = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def onnx_file(
    inputs: Mapping[str, Sequence[int | str]],
    nodes: list[onnx.NodeProto],
    outputs: Mapping[str, Sequence[int | str]],
    constants: Mapping[str, np.ndarray] | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> bytes:
    """An ONNX file; tensors are float32 unless `dtypes` says otherwise."""

    def info(name: str, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
        element = _ELEMENT[(dtypes or {}).get(name, "float32")]
        return helper.make_tensor_value_info(name, element, list(shape))

    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, shape) for name, shape in inputs.items()],
        [info(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tflite_dense(
    inputs: Mapping[str, int], output: str, weights: np.ndarray, batch: int, signature: bool = False
) -> bytes:
    """A TFLite file: the inputs (batch, n) side by side, times `weights` (m, sum of n)."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    def tensor(name: str, shape: Sequence[int], buffer: int) -> Any:
        made = schema.TensorT()
        made.name, made.shape, made.buffer = name.encode(), list(shape), buffer
        made.type = schema.TensorType.FLOAT32
        return made

    def operator(code: int, ins: list[int], outs: list[int], kind: int, options: Any) -> Any:
        made = schema.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = code, ins, outs
        made.builtinOptionsType, made.builtinOptions = kind, options
        return made

    rows, columns = weights.shape
    n = len(inputs)
    graph = schema.SubGraphT()
    graph.tensors = [tensor(name, (batch, size), 0) for name, size in inputs.items()]
    graph.tensors += [
        tensor("together", (batch, columns), 0),
        tensor("weights", (rows, columns), 1),
        tensor("bias", (rows,), 2),
        tensor(output, (batch, rows), 0),
    ]
    concatenate, dense = schema.ConcatenationOptionsT(), schema.FullyConnectedOptionsT()
    concatenate.axis = 1
    graph.operators = [
        operator(0, list(range(n)), [n], schema.BuiltinOptions.ConcatenationOptions, concatenate),
        operator(1, [n, n + 1, n + 2], [n + 3], schema.BuiltinOptions.FullyConnectedOptions, dense),
    ]
    graph.inputs, graph.outputs = list(range(n)), [n + 3]

    model = schema.ModelT()
    model.version, model.description, model.subgraphs = 3, b"dense", [graph]
    model.operatorCodes = []
    for code in (schema.BuiltinOperator.CONCATENATION, schema.BuiltinOperator.FULLY_CONNECTED):
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        model.operatorCodes.append(entry)
    model.buffers = [schema.BufferT() for _ in range(3)]
    model.buffers[1].data = np.frombuffer(np.ascontiguousarray(weights).tobytes(), np.uint8)
    model.buffers[2].data = np.zeros(4 * rows, np.uint8)
    if signature:
        model.signatureDefs = [schema.SignatureDefT()]
        model.signatureDefs[0].signatureKey = b"serving_default"
        model.signatureDefs[0].inputs, model.signatureDefs[0].outputs = [], []
        for index, name in enumerate(inputs):
            model.signatureDefs[0].inputs.append(schema.TensorMapT())
            model.signatureDefs[0].inputs[-1].name = name.encode()
            model.signatureDefs[0].inputs[-1].tensorIndex = index
            graph.tensors[index].name = f"file:{index}".encode()
        model.signatureDefs[0].outputs.append(schema.TensorMapT())
        model.signatureDefs[0].outputs[0].name = output.encode()
        model.signatureDefs[0].outputs[0].tensorIndex = n + 3
        graph.tensors[n + 3].name = b"file:out"
    builder = flatbuffers.Builder(4096)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


# ---- the linear world model ---------------------------------------------------------------
def encoder() -> bytes:
    return onnx_file(
        {"odometry": [1, 6]}, [node("MatMul", "odometry pick", "z")], {"z": [1, 3]}, {"pick": PICK}
    )


def dynamics(dt: bool = False) -> bytes:
    if not dt:
        nodes = [
            node("MatMul", "z A", "za"),
            node("MatMul", "action B", "ab"),
            node("Add", "za ab", "next"),
        ]
        constants = {"A": A.T.copy(), "B": B.T.copy()}
        return onnx_file({"z": ["K", 3], "action": ["K", 2]}, nodes, {"next": ["K", 3]}, constants)
    nodes = [
        node("MatMul", "z F", "zf"),
        node("MatMul", "action G", "ag"),
        node("Add", "zf ag", "rate"),
        node("Mul", "rate dt", "change"),
        node("Add", "z change", "next"),
    ]
    inputs = {"z": ["K", 3], "action": ["K", 2], "dt": ["K", 1]}
    return onnx_file(inputs, nodes, {"next": ["K", 3]}, {"F": F.T.copy(), "G": G.T.copy()})


def cost() -> bytes:
    nodes = [
        node("Slice", "z from two one", "near"),
        node("Slice", "pose from two one", "target"),
        node("Sub", "near target", "apart"),
        node("ReduceSumSquare", "apart", "goal", axes=[1], keepdims=0),
        node("ReduceSumSquare", "action", "effort", axes=[1], keepdims=1),
    ]
    constants = {"from": np.array([0]), "two": np.array([2]), "one": np.array([1])}
    inputs = {"z": ["K", 3], "action": ["K", 2], "pose": ["K", 4]}
    return onnx_file(inputs, nodes, {"goal": ["K"], "effort": ["K", 1]}, constants)


def constraint() -> bytes:
    constants = {
        "from": np.array([0]),
        "to": np.array([1]),
        "one": np.array([1]),
        "two": np.array([2.0], np.float32),
    }
    nodes = [node("Slice", "z from to one", "first"), node("Sub", "first two", "risk")]
    return onnx_file({"z": ["K", 3]}, nodes, {"risk": ["K", 1]}, constants)


def value() -> bytes:
    nodes = [
        node("ReduceSumSquare", "z", "square", axes=[1], keepdims=0),
        node("Mul", "square ten", "value"),
    ]
    return onnx_file({"z": ["K", 3]}, nodes, {"value": ["K"]}, {"ten": np.array(10, np.float32)})


def decoder() -> bytes:
    """An image of 1 x 1 whose three colors are z."""
    nodes = [node("Reshape", "z shape", "image")]
    constants = {"shape": np.array([-1, 1, 1, 3])}
    return onnx_file({"z": ["K", 3]}, nodes, {"image": ["K", 1, 1, 3]}, constants)


def policy() -> bytes:
    """mean = first two of z, std = 0.1."""
    nodes = [
        node("Slice", "z from two one", "mean"),
        node("Mul", "mean zero", "nothing"),
        node("Add", "nothing tenth", "std"),
    ]
    constants = {
        "from": np.array([0]),
        "two": np.array([2]),
        "one": np.array([1]),
        "zero": np.array(0, np.float32),
        "tenth": np.array(0.1, np.float32),
    }
    return onnx_file({"z": [1, 3]}, nodes, {"mean": [1, 2], "std": [1, 2]}, constants)


def digest(blob: bytes) -> str:
    return hashlib.sha256(blob).hexdigest()


def part(graphs: Mapping[str, bytes], inputs: str, outputs: str) -> dict[str, Any]:
    """A function of a manifest, with its graphs' bytes.

    inputs, outputs: "tensor=meaning:shape[:dtype]" each, as in "z=belief.z:-1,3".
    """

    def tensors(text: str, role: str) -> list[dict[str, Any]]:
        made = []
        for word in text.split():
            name, _, rest = word.partition("=")
            meaning, shape, dtype = [*rest.split(":"), "float32"][:3]
            dims = [int(n) for n in shape.split(",") if n]
            made.append({"tensor": name, role: meaning, "shape": dims, "dtype": dtype})
        return made

    return {
        "graphs": dict(graphs),
        "inputs": tensors(inputs, "source"),
        "outputs": tensors(outputs, "target"),
    }


def linear(dt: bool = False) -> dict[str, dict[str, Any]]:
    """The functions of the linear world model."""
    step = " dt=dt:-1,1" if dt else ""
    ahead = "z=belief.z:-1,3 action=action:-1,2"
    return {
        "encoder": part({"onnx": encoder()}, "odometry=observation.odometry:1,6", "z=belief.z:1,3"),
        "dynamics": part({"onnx": dynamics(dt)}, ahead + step, "next=belief.z:-1,3"),
        "cost": part(
            {"onnx": cost()},
            ahead + " pose=goal.pose:-1,4",
            "goal=cost.goal:-1 effort=cost.effort:-1,1",
        ),
    }


EXTRAS: Mapping[str, dict[str, Any]] = {
    "constraint": part({"onnx": constraint()}, "z=belief.z:-1,3", "risk=constraint:-1,1"),
    "value": part({"onnx": value()}, "z=belief.z:-1,3", "value=value:-1"),
    "decoder": part({"onnx": decoder()}, "z=belief.z:-1,3", "image=image:-1,1,1,3"),
    "policy": part({"onnx": policy()}, "z=belief.z:1,3", "mean=action.mean:1,2 std=action.std:1,2"),
}

TERMS = {
    "goal": {"weight": 2.0, "min": 0.0, "max": 10.0, "meaning": "squared distance"},
    "effort": {"weight": 0.5, "min": 0.1, "max": 1.0, "meaning": "squared action"},
}


def bundle(
    functions: Mapping[str, dict[str, Any]],
    reference: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any], float]] = (),
    **changes: Any,
) -> Bundle:
    """An opened bundle, without the file: the manifest is checked, nothing is signed.

    reference: (function, inputs, outputs, tolerance). changes: fields of the manifest.
    """
    blobs: dict[str, memoryview] = {}

    def keep(blob: bytes) -> str:
        blobs[digest(blob)] = memoryview(blob)
        return digest(blob)

    entries = {
        name: function | {"graphs": {k: keep(blob) for k, blob in function["graphs"].items()}}
        for name, function in functions.items()
    }
    dynamics_too = "dynamics" in functions
    document = {
        "format": FORMAT,
        "name": "linear",
        "version": "1.0.0",
        "description": "A linear system.",
        "license": "Apache-2.0",
        "needs": {
            "streams": {
                "odometry": {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI"}
            },
            "axes": [
                {"name": "base.vx", "kind": "twist", "unit": "m/s", "scale": 0.5, "offset": 0.1},
                {"name": "base.wz", "kind": "twist", "unit": "rad/s", "scale": 2.0},
            ],
        },
        "step_ns": 100_000_000,
        "horizon": 4,
        "belief": [{"name": "z", "shape": [3]}],
        "functions": entries,
        "planner": {
            "kind": "mppi",
            "candidates": 16,
            "iterations": 2,
            "elites": 4,
            "noise_std": [0.2, 0.5],
        }
        if dynamics_too
        else None,
        "cost_terms": TERMS if dynamics_too else {},
        "goal_kinds": ["pose"] if dynamics_too else [],
        "reference": [
            {
                "function": name,
                "inputs": {k: keep(np.asarray(v).tobytes()) for k, v in inputs.items()},
                "outputs": {k: keep(np.asarray(v).tobytes()) for k, v in outputs.items()},
                "tolerance": tolerance,
            }
            for name, inputs, outputs, tolerance in reference
        ],
    } | changes
    manifest = manifest_from(document, "bundle linear.wmb")
    return Bundle(Path("linear.wmb"), "0" * 64, manifest, None, "key", blobs, b"")
