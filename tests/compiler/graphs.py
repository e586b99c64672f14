"""Small ONNX graphs, compiled, run by the plain interpreter and held against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from programs import run_program

from edge_wm.bundle import Function
from edge_wm.bundle.manifest import Input, Output
from edge_wm.bundle.program import Program, read_program, write_program
from edge_wm.compiler import Precision, compile_graph

Shape = Sequence[int | str]
BATCHES = (1, 5)
TYPES = {
    "float32": TensorProto.FLOAT,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> onnx.NodeProto:
    """A node named like its first output; "-" stands for an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    made = outputs.split()
    return helper.make_node(operator, names, made, name=made[0], **attributes)


def graph_file(
    inputs: Mapping[str, Shape],
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any] | None = None,
    opset: int = 17,
    dtypes: Mapping[str, str] | None = None,
) -> bytes:
    """An ONNX file; "K" in a shape is the batch; floats in `constants` become float32."""

    def info(name: str, shape: Shape) -> onnx.ValueInfoProto:
        element = TYPES[(dtypes or {}).get(name, "float32")]
        return helper.make_tensor_value_info(name, element, list(shape))

    held = {name: np.asarray(value) for name, value in (constants or {}).items()}
    held = {n: v.astype(np.float32) if v.dtype == np.float64 else v for n, v in held.items()}
    graph = helper.make_graph(
        list(nodes),
        "graph",
        [info(name, shape) for name, shape in inputs.items()],
        [info(name, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.ascontiguousarray(v), n) for n, v in held.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString())


def declared(
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    dtypes: Mapping[str, str] | None = None,
) -> Function:
    """The manifest's view of the same graph."""

    def dims(shape: Shape) -> tuple[int, ...]:
        return tuple(-1 if size == "K" else int(size) for size in shape)

    def dtype(name: str) -> Any:
        return (dtypes or {}).get(name, "float32")

    return Function(
        graphs={},
        inputs=tuple(
            Input(tensor=name, source="", shape=dims(shape), dtype=dtype(name))
            for name, shape in inputs.items()
        ),
        outputs=tuple(
            Output(tensor=name, target="", shape=dims(shape), dtype=dtype(name))
            for name, shape in outputs.items()
        ),
    )


def compiled(
    inputs: Mapping[str, Shape],
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    dtypes: Mapping[str, str] | None = None,
    precision: Precision = "float32",
    keep: Collection[str] = (),
) -> Program:
    """The program, after a round trip through its file."""
    blob = graph_file(inputs, nodes, outputs, constants, opset, dtypes)
    function = declared(inputs, outputs, dtypes)
    program = compile_graph(blob, function, "graph", precision=precision, keep=keep)
    return read_program(write_program(program), "program")


def agree(
    inputs: Mapping[str, Shape],
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, Any] | None = None,
    *,
    opset: int = 17,
    dtypes: Mapping[str, str] | None = None,
    feeds: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
) -> Program:
    """The program, after its outputs have been those of ONNX Runtime, for 1 and 5 candidates.

    feeds: instead of normal random numbers, a function (random generator, shape) for an input.
    tolerance: of the largest number of an output.
    """
    program = compiled(inputs, nodes, outputs, constants, opset=opset, dtypes=dtypes)
    blob = graph_file(inputs, nodes, outputs, constants, opset, dtypes)
    function = declared(inputs, outputs, dtypes)
    same_as_onnxruntime(program, blob, function, feeds, tolerance)
    return program


def same_as_onnxruntime(
    program: Program,
    blob: bytes,
    function: Function,
    feeds: Mapping[str, Any] | None = None,
    tolerance: float = 1e-5,
    least: float = 1e-30,
) -> None:
    """tolerance: of the largest number of an output, or of `least` if that is larger."""
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    for rows in BATCHES:
        given = {}
        for i in function.inputs:
            shape = tuple(rows if size == -1 else size for size in i.shape)
            make = (feeds or {}).get(i.tensor, lambda r, s: 2 * r.standard_normal(s))
            given[i.tensor] = np.asarray(make(random, shape)).astype(i.dtype)
        names = [output.name for output in session.get_outputs()]
        expected = dict(zip(names, session.run(names, given), strict=True))
        found = run_program(program, given, rows)
        for name, value in expected.items():
            bound = tolerance * max(least, float(np.abs(value.astype(np.float64)).max()))
            np.testing.assert_allclose(
                found[name].reshape(value.shape), value, rtol=0, atol=bound, err_msg=name
            )


def kinds(program: Program) -> list[str]:
    """The operations, in short: "dense relu", "norm", "unary exp", ..."""
    found = []
    for operation in program.operations:
        words = [operation.__struct_config__.tag]
        words.append(getattr(operation, "activation", "none"))
        if words[0] in ("unary", "binary", "reduce"):
            words.append(operation.kind)
        found.append(" ".join(word for word in words if word != "none"))
    return found
