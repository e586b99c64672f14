"""Sizes that are computed before a graph runs, against those of onnxruntime and LiteRT."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from bundle import tiny
from edge_wm.bundle.onnx_file import Port, read_onnx
from edge_wm.bundle.sizes import RULES, SizeError, broadcast, infer, window
from edge_wm.bundle.tflite_file import OPERATORS, read_tflite
from edge_wm.bundle.tflite_sizes import TFLITE_RULES
from edge_wm.errors import ModelError

F, I = np.float32, np.int64  # noqa: E741


def x(*shape: int) -> np.ndarray:
    return np.full(shape, 0.5, F)


def ints(*values: int) -> np.ndarray:
    return np.array(values, I)


def byte(*shape: int) -> np.ndarray:
    return np.full(shape, 3, np.uint8)


SCALE, ZERO = np.array(0.1, F), np.array(3, np.uint8)

UNARY = ("Abs", "Exp", "Erf", "Softplus", "Softmax", "Sigmoid", "Neg")
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min")
COMPARE = ("Less", "Greater", "Equal", "LessOrEqual")

# (operator, runtime inputs, constants, attributes, outputs)
Case = tuple[str, list[np.ndarray], list[np.ndarray | None], dict[str, Any], int]
CASES: list[Case] = [
    *((op, [x(2, 3)], [], {}, 1) for op in UNARY),
    *((op, [x(2, 3), x(4, 1, 1)], [], {}, 1) for op in BINARY),
    *((op, [x(2, 3), x(3)], [], {}, 1) for op in COMPARE),
    ("Clip", [x(2, 3)], [np.array(0, F), np.array(1, F)], {}, 1),
    ("Clip", [x(2, 3)], [None, np.array(1, F)], {}, 1),
    ("PRelu", [x(2, 3)], [x(3)], {}, 1),
    ("Where", [np.array([[True], [False]]), x(2, 3), x(3)], [], {}, 1),
    ("Not", [np.array([True])], [], {}, 1),
    ("IsNaN", [x(2, 3)], [], {}, 1),
    ("Cast", [x(2, 3)], [], {"to": TensorProto.INT32}, 1),
    ("CumSum", [x(2, 3)], [np.array(1)], {}, 1),
    ("Trilu", [x(3, 3)], [], {}, 1),
    ("MatMul", [x(2, 3), x(3, 4)], [], {}, 1),
    ("MatMul", [x(5, 1, 2, 3), x(7, 3, 4)], [], {}, 1),
    ("MatMul", [x(3), x(3, 4)], [], {}, 1),
    ("MatMul", [x(2, 3), x(3)], [], {}, 1),
    ("MatMul", [x(3), x(3)], [], {}, 1),
    ("Gemm", [x(2, 3), x(3, 4)], [x(4)], {}, 1),
    ("Gemm", [x(3, 2), x(4, 3)], [], {"transA": 1, "transB": 1}, 1),
    ("MatMulInteger", [byte(2, 3), byte(3, 4)], [], {}, 1),
    ("QLinearMatMul", [byte(2, 3), SCALE, ZERO, byte(3, 4), SCALE, ZERO, SCALE, ZERO], [], {}, 1),
    ("QuantizeLinear", [x(2, 3)], [SCALE, ZERO], {}, 1),
    ("DequantizeLinear", [byte(2, 3)], [SCALE, ZERO], {}, 1),
    ("DynamicQuantizeLinear", [x(2, 3)], [], {}, 3),
    ("Conv", [x(1, 3, 8, 9)], [x(5, 3, 3, 3)], {}, 1),
    ("Conv", [x(1, 4, 8, 9)], [x(6, 2, 3, 2)],
     {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 3], "dilations": [2, 1]}, 1),
    ("Conv", [x(1, 3, 8, 9)], [x(5, 3, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 1),
    ("Conv", [x(1, 3, 8, 9)], [x(5, 3, 3, 3)], {"auto_pad": "VALID", "strides": [2, 2]}, 1),
    ("Conv", [x(1, 3, 8)], [x(5, 3, 3)], {}, 1),
    ("ConvInteger", [byte(1, 3, 8, 9)], [byte(5, 3, 3, 3)], {}, 1),
    ("QLinearConv",
     [byte(1, 3, 8, 9), SCALE, ZERO, byte(5, 3, 3, 3), SCALE, ZERO, SCALE, ZERO], [], {}, 1),
    ("ConvTranspose", [x(1, 3, 4, 5)], [x(3, 2, 3, 3)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}, 1),
    ("ConvTranspose", [x(1, 4, 4, 5)], [x(4, 2, 3, 2)], {"group": 2, "dilations": [2, 1]}, 1),
    ("MaxPool", [x(1, 3, 8, 9)], [], {"kernel_shape": [3, 2], "strides": [2, 2]}, 2),
    ("MaxPool", [x(1, 3, 8, 9)], [],
     {"kernel_shape": [3, 2], "strides": [2, 2], "ceil_mode": 1}, 1),
    ("AveragePool", [x(1, 3, 8, 9)], [], {"kernel_shape": [2, 2], "pads": [0, 1, 1, 0]}, 1),
    ("GlobalAveragePool", [x(1, 3, 8, 9)], [], {}, 1),
    ("BatchNormalization", [x(2, 3, 4)], [x(3), x(3), x(3), x(3)], {}, 1),
    ("InstanceNormalization", [x(2, 3, 4)], [x(3), x(3)], {}, 1),
    ("LayerNormalization", [x(2, 3, 4)], [x(4), x(4)], {}, 1),
    ("LayerNormalization", [x(2, 3, 4)], [x(3, 4)], {"axis": 1}, 3),
    ("ReduceSum", [x(2, 3, 4)], [ints(1, -1)], {"keepdims": 0}, 1),
    ("ReduceSum", [x(2, 3, 4)], [], {}, 1),
    ("ReduceSum", [x(2, 3, 4)], [], {"noop_with_empty_axes": 1}, 1),
    ("ReduceMean", [x(2, 3, 4)], [], {"axes": [0, -1]}, 1),
    ("ReduceMax", [x(2, 3, 4)], [], {"keepdims": 0}, 1),
    ("ArgMax", [x(2, 3, 4)], [], {"axis": 1, "keepdims": 0}, 1),
    ("ArgMin", [x(2, 3, 4)], [], {"axis": -1}, 1),
    ("Shape", [x(2, 3, 4)], [], {}, 1),
    ("Shape", [x(2, 3, 4)], [], {"start": 1, "end": -1}, 1),
    ("Size", [x(2, 3, 4)], [], {}, 1),
    ("Reshape", [x(2, 3, 4)], [ints(0, -1)], {}, 1),
    ("Reshape", [x(2, 3, 4)], [ints(4, 3, 2)], {}, 1),
    ("Flatten", [x(2, 3, 4)], [], {}, 1),
    ("Flatten", [x(2, 3, 4)], [], {"axis": 0}, 1),
    ("Flatten", [x(2, 3, 4)], [], {"axis": -1}, 1),
    ("Squeeze", [x(1, 3, 1)], [], {}, 1),
    ("Squeeze", [x(1, 3, 1)], [ints(-1)], {}, 1),
    ("Unsqueeze", [x(3, 4)], [ints(0, -1)], {}, 1),
    ("Transpose", [x(2, 3, 4)], [], {}, 1),
    ("Transpose", [x(2, 3, 4)], [], {"perm": [1, 2, 0]}, 1),
    ("Concat", [x(2, 3), x(2, 5)], [], {"axis": -1}, 1),
    ("Split", [x(2, 6)], [], {"axis": 1}, 2),
    ("Split", [x(2, 6)], [ints(1, 5)], {"axis": 1}, 2),
    ("Slice", [x(5, 6)], [ints(1), ints(2**62)], {}, 1),
    ("Slice", [x(5, 6)], [ints(-1), ints(-(2**62)), ints(1), ints(-2)], {}, 1),
    ("Slice", [x(5, 6)], [ints(-100, 4), ints(3, -1), ints(0, 1), ints(2, 1)], {}, 1),
    ("Slice", [x(5, 6)], [ints(4), ints(2)], {}, 1),
    ("Gather", [x(5, 6), ints(1, -1, 0)], [], {"axis": 1}, 1),
    ("Gather", [x(5, 6), np.array(2)], [], {}, 1),
    ("GatherElements", [x(2, 3), np.array([[0, 1]])], [], {"axis": 1}, 1),
    ("GatherND", [x(2, 3, 4), np.array([[0, 1], [1, 2]])], [], {}, 1),
    ("GatherND", [x(2, 3, 4), np.array([[1], [2]])], [], {"batch_dims": 1}, 1),
    ("ScatterND", [x(4, 3), np.array([[1], [2]]), x(2, 3)], [], {}, 1),
    ("ScatterElements", [x(2, 3), np.array([[0, 1]]), x(1, 2)], [], {"axis": 1}, 1),
    ("Expand", [x(3, 1)], [ints(2, 1, 6)], {}, 1),
    ("Tile", [x(3, 2)], [ints(2, 3)], {}, 1),
    ("Pad", [x(3, 2)], [ints(0, 1, 2, 3)], {}, 1),
    ("Pad", [x(3, 4)], [ints(0, -1, 2, 0)], {}, 1),
    ("TopK", [x(3, 7)], [ints(4)], {}, 2),
    ("DepthToSpace", [x(1, 8, 2, 3)], [], {"blocksize": 2}, 1),
    ("SpaceToDepth", [x(1, 2, 4, 6)], [], {"blocksize": 2}, 1),
    ("Resize", [x(1, 2, 4, 6)], [None, np.array([1, 1, 2, 1.5], F)], {}, 1),
    ("Resize", [x(1, 2, 4, 6)], [None, None, ints(1, 2, 8, 3)], {}, 1),
    ("OneHot", [np.array([1, 2])], [np.array(5), x(2)], {}, 1),
    ("OneHot", [np.array([1, 2])], [np.array(5), x(2)], {"axis": 0}, 1),
    ("LSTM", [x(4, 2, 3)], [x(1, 20, 3), x(1, 20, 5)], {"hidden_size": 5}, 3),
    ("GRU", [x(4, 2, 3)], [x(2, 15, 3), x(2, 15, 5)],
     {"hidden_size": 5, "direction": "bidirectional"}, 2),
    ("RNN", [x(4, 2, 3)], [x(1, 5, 3), x(1, 5, 5)], {"hidden_size": 5}, 2),
    ("Einsum", [x(2, 3, 4), x(2, 4, 5)], [], {"equation": "bij,bjk->bik"}, 1),
    ("Range", [], [np.array(3), np.array(12), np.array(2)], {}, 1),
    ("ConstantOfShape", [], [ints(2, 3)], {}, 1),
    ("Constant", [], [], {"value_floats": [1.0, 2.0]}, 1),
    ("Dropout", [x(2, 3)], [], {}, 2),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_as_onnxruntime_computes_it(case: Case) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    op, inputs, constants, attributes, count = case
    given = {f"i{k}": array for k, array in enumerate(inputs)}
    fixed = {f"c{k}": array for k, array in enumerate(constants) if array is not None}
    names = [*given, *("" if array is None else f"c{k}" for k, array in enumerate(constants))]
    outputs = [f"o{k}" for k in range(count)]
    nodes = [helper.make_node(op, names, outputs, **attributes)]
    types = {k: helper.np_dtype_to_tensor_dtype(a.dtype) for k, a in given.items()}
    ports = {k: (types[k], list(a.shape)) for k, a in given.items()}
    blob = tiny.graph(ports, nodes, {name: (1, []) for name in outputs}, fixed, opset=17)
    graph = read_onnx(blob, "graph")
    shapes = {k: Port(str(a.dtype), a.shape) for k, a in given.items()}
    known = infer(graph.nodes, graph.constants, shapes, "graph")

    model = helper.make_model(
        helper.make_graph(
            nodes,
            "graph",
            [helper.make_tensor_value_info(k, types[k], list(a.shape)) for k, a in given.items()],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            [tiny.numpy_helper.from_array(a, k) for k, a in fixed.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for name, got in zip(outputs, session.run(None, given), strict=True):
        assert (known[name].dtype, known[name].shape) == (str(got.dtype), got.shape)
        if known[name].value is not None:
            np.testing.assert_array_equal(known[name].value, got)


# Values that shapes are made of: each expression of Shape(i0) with i0 (2, 3, 4), as exporters
# write them, is used to reshape or expand, so that a wrong value is a wrong size.
VALUES: dict[str, list[tuple[str, list[str], dict[str, Any]]]] = {
    "gather": [("Gather", ["shape", "two"], {})],
    "slice": [("Slice", ["shape", "one", "three"], {})],
    "concat": [("Concat", ["shape", "two"], {"axis": 0})],
    "negative": [("Neg", ["shape"], {}), ("Abs", ["v0"], {})],
    "arithmetic": [("Mul", ["shape", "two"], {}), ("Add", ["v0", "one"], {}),
                   ("Div", ["v1", "three"], {}), ("Sub", ["v2", "one"], {}),
                   ("Max", ["v3", "one"], {}), ("Min", ["v4", "three"], {})],
    "truncation": [("Sub", ["one", "shape"], {}), ("Div", ["v0", "two"], {}), ("Abs", ["v1"], {}),
                   ("Add", ["v2", "one"], {})],
    "modulo": [("Mod", ["shape", "three"], {}), ("Add", ["v0", "one"], {})],
    "choice": [("Equal", ["shape", "three"], {}), ("Where", ["v0", "one", "shape"], {})],
    "comparison": [("Greater", ["shape", "three"], {}), ("Not", ["v0"], {}),
                   ("Where", ["v1", "two", "shape"], {})],
    "cast": [("Cast", ["shape"], {"to": 1}), ("Sqrt", ["v0"], {}), ("Ceil", ["v1"], {}),
             ("Cast", ["v2"], {"to": 7})],
    "product": [("ReduceProd", ["shape"], {})],
    "layout": [("Unsqueeze", ["shape", "zero"], {}), ("Transpose", ["v0"], {}),
               ("Squeeze", ["v1", "one"], {}), ("Identity", ["v2"], {})],
    "constants": [("ConstantOfShape", ["one"], {"value": helper.make_tensor("", 7, [1], [6])}),
                  ("Expand", ["v0", "two"], {})],
    "range": [("Range", ["first", "last", "step"], {}), ("Cast", ["v0"], {"to": 7})],
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_values_that_sizes_are_made_of(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    fixed = {"zero": ints(0), "one": ints(1), "two": ints(2), "three": ints(3),
             "first": np.array(2), "last": np.array(9), "step": np.array(3)}  # fmt: skip
    nodes = [helper.make_node("Shape", ["i0"], ["shape"])]
    for k, (op, inputs, attributes) in enumerate(VALUES[name]):
        nodes.append(helper.make_node(op, inputs, [f"v{k}"], **attributes))
    nodes.append(helper.make_node("ConstantOfShape", [f"v{len(VALUES[name]) - 1}"], ["out"]))
    blob = tiny.graph({"i0": (1, [2, 3, 4])}, nodes, {"out": (1, ["a", "b", "c"])}, fixed, opset=17)
    graph = read_onnx(blob, "graph")
    known = infer(graph.nodes, graph.constants, {"i0": Port("float32", (2, 3, 4))}, "graph")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"i0": x(2, 3, 4)})
    assert known["out"].shape == got.shape


# ---- TFLite -----------------------------------------------------------------------------
def i32(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


# (operator, runtime inputs, constants, options, outputs' shapes as a person computed them)
TFLITE: list[tuple[str, list[np.ndarray], list[np.ndarray], Any, list[list[int]]]] = [
    ("ADD", [x(2, 3), x(4, 1, 1)], [], ("AddOptions", {}), [[4, 2, 3]]),
    ("TANH", [x(2, 3)], [], None, [[2, 3]]),
    ("FULLY_CONNECTED", [x(2, 3)], [x(5, 3)], ("FullyConnectedOptions", {}), [[2, 5]]),
    ("FULLY_CONNECTED", [x(2, 4, 3)], [x(5, 3)], ("FullyConnectedOptions", {}), [[8, 5]]),
    ("FULLY_CONNECTED", [x(2, 4, 3)], [x(5, 3)],
     ("FullyConnectedOptions", {"keepNumDims": True}), [[2, 4, 5]]),
    ("BATCH_MATMUL", [x(2, 3, 4), x(2, 5, 4)], [], ("BatchMatMulOptions", {"adjY": True}),
     [[2, 3, 5]]),
    ("CONV_2D", [x(1, 8, 9, 3)], [x(5, 3, 3, 3), x(5)],
     ("Conv2DOptions", {"strideH": 2, "strideW": 3}), [[1, 4, 3, 5]]),
    ("CONV_2D", [x(1, 8, 9, 3)], [x(5, 3, 3, 3), x(5)],
     ("Conv2DOptions", {"strideH": 2, "strideW": 2, "padding": 1, "dilationHFactor": 2}),
     [[1, 2, 4, 5]]),
    ("DEPTHWISE_CONV_2D", [x(1, 8, 9, 3)], [x(1, 3, 3, 6), x(6)],
     ("DepthwiseConv2DOptions", {"strideH": 1, "strideW": 1, "depthMultiplier": 2}),
     [[1, 8, 9, 6]]),
    ("TRANSPOSE_CONV", [], [i32(1, 8, 8, 2), x(2, 4, 4, 3)], None, [[1, 8, 8, 2]]),
    ("MAX_POOL_2D", [x(1, 8, 9, 3)], [],
     ("Pool2DOptions", {"strideH": 2, "strideW": 2, "filterHeight": 2, "filterWidth": 3,
                        "padding": 1}), [[1, 4, 4, 3]]),
    ("RESHAPE", [x(2, 3, 4)], [i32(4, -1)], None, [[4, 6]]),
    ("SQUEEZE", [x(1, 3, 1)], [], ("SqueezeOptions", {"squeezeDims": [0]}), [[3, 1]]),
    ("EXPAND_DIMS", [x(3, 4)], [i32(1)], None, [[3, 1, 4]]),
    ("TRANSPOSE", [x(2, 3, 4)], [i32(1, 2, 0)], None, [[3, 4, 2]]),
    ("CONCATENATION", [x(2, 3), x(2, 5)], [], ("ConcatenationOptions", {"axis": 1}), [[2, 8]]),
    ("PACK", [x(2, 3), x(2, 3)], [], ("PackOptions", {"axis": 1, "valuesCount": 2}), [[2, 2, 3]]),
    ("UNPACK", [x(2, 3)], [], ("UnpackOptions", {"axis": 0, "num": 2}), [[3], [3]]),
    ("SLICE", [x(5, 6)], [i32(1, 2), i32(-1, 3)], None, [[4, 3]]),
    ("STRIDED_SLICE", [x(5, 6, 7)], [i32(1, 0, 2), i32(5, 3, 3), i32(2, 1, 1)],
     ("StridedSliceOptions", {"endMask": 2, "shrinkAxisMask": 4}), [[2, 6]]),
    ("GATHER", [x(5, 6)], [i32(1, 0, 3)], ("GatherOptions", {"axis": 1}), [[5, 3]]),
    ("PAD", [x(3, 2)], [np.array([[0, 1], [2, 3]], np.int32)], None, [[4, 7]]),
    ("BROADCAST_TO", [x(3, 1)], [i32(2, 3, 5)], None, [[2, 3, 5]]),
    ("TILE", [x(3, 2)], [i32(2, 3)], None, [[6, 6]]),
    ("FILL", [], [i32(2, 3), np.array(1, F)], None, [[2, 3]]),
    ("MEAN", [x(2, 3, 4)], [i32(1, -1)], ("ReducerOptions", {"keepDims": True}), [[2, 1, 1]]),
    ("SUM", [x(2, 3, 4)], [i32(1)], ("ReducerOptions", {}), [[2, 4]]),
    ("RESIZE_BILINEAR", [x(1, 4, 6, 2)], [i32(8, 3)], ("ResizeBilinearOptions", {}),
     [[1, 8, 3, 2]]),
    ("DEPTH_TO_SPACE", [x(1, 2, 3, 8)], [], ("DepthToSpaceOptions", {"blockSize": 2}),
     [[1, 4, 6, 2]]),
    ("SPACE_TO_DEPTH", [x(1, 4, 6, 2)], [], ("SpaceToDepthOptions", {"blockSize": 2}),
     [[1, 2, 3, 8]]),
]  # fmt: skip


@pytest.mark.parametrize("case", TFLITE, ids=lambda case: case[0])
def test_as_litert_computes_it(case: Any) -> None:
    op, inputs, constants, options, shapes = case
    if op == "TRANSPOSE_CONV":  # its data comes last
        inputs, constants = [], [*constants, x(1, 4, 4, 3)]
        options = ("TransposeConvOptions", {"strideH": 2, "strideW": 2})
    tensors: list[Any] = [(f"i{k}", list(a.shape), None) for k, a in enumerate(inputs)]
    tensors += [(f"c{k}", list(a.shape), a) for k, a in enumerate(constants)]
    first = len(tensors)
    tensors += [(f"o{k}", shape, None) for k, shape in enumerate(shapes)]
    ins, outs = list(range(first)), list(range(first, len(tensors)))
    blob = tiny.tflite(tensors, [(op, ins, outs, options)], ins[: len(inputs)], outs)
    names = {f"i{k}" for k in range(len(inputs))}, {f"o{k}" for k in range(len(shapes))}
    graph = read_tflite(blob, "graph", names)
    given = {index: graph.tensors[index] for index in graph.inputs.values()}
    known = infer(graph.nodes, graph.constants, given, "graph", TFLITE_RULES, graph.tensors)
    for out, shape in zip(outs, shapes, strict=True):
        assert list(known[str(out)].shape) == shape

    litert = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(model_content=blob, num_threads=1)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    for detail, shape in zip(interpreter.get_output_details(), shapes, strict=True):
        assert list(interpreter.get_tensor(detail["index"]).shape) == shape


def test_every_tflite_operator_of_the_list_has_a_rule() -> None:
    assert {name for name, _, _ in OPERATORS.values()} == set(TFLITE_RULES)


def test_the_tflite_list_is_the_schemas() -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    options_types = {code: name for name, code in vars(schema.BuiltinOptions).items()}
    reducers = "MEAN SUM REDUCE_PROD REDUCE_MAX REDUCE_MIN REDUCE_ANY REDUCE_ALL"
    shared = dict.fromkeys(reducers.split(), "reducer")
    shared |= {"MAXIMUM": "maximumminimum", "MINIMUM": "maximumminimum"}
    shared |= {"MAX_POOL_2D": "pool2d", "AVERAGE_POOL_2D": "pool2d", "L2_NORMALIZATION": "l2norm"}
    for code, (name, options_type, _) in OPERATORS.items():
        assert getattr(schema.BuiltinOperator, name) == code
        if options_type:
            found = options_types[options_type].removesuffix("Options").lower()
            assert found == shared.get(name, name.replace("_", "").lower())


def test_the_onnx_list_names_operators_of_the_standard() -> None:
    onnx = pytest.importorskip("onnx")
    for op in RULES:
        assert onnx.defs.has(op), op


# ---- limits -----------------------------------------------------------------------------
def test_what_is_just_within_the_limits_passes() -> None:
    def expanded(count: int) -> bytes:
        nodes = [helper.make_node("Expand", ["one", "n"], ["o"])]
        return tiny.graph({}, nodes, {"o": (1, [count])}, {"one": x(1), "n": ints(count)})

    limit = 64 * 2**20  # float32 numbers in 256 MiB
    within, above = read_onnx(expanded(limit), "g"), read_onnx(expanded(limit + 1), "g")
    infer(within.nodes, within.constants, {}, "g")
    with pytest.raises(ModelError, match="at most 268435456 bytes of constants to fold, got"):
        infer(above.nodes, above.constants, {}, "g")


def test_broadcast_is_numpys() -> None:
    for shapes in [((2, 3), (3,)), ((), (4,)), ((1, 5), (4, 1)), ((0, 3), (1, 3))]:
        assert broadcast(*shapes) == np.broadcast_shapes(*shapes)


def test_a_window_fits_or_is_refused() -> None:
    for size in range(1, 12):
        for kernel in range(1, 5):
            for stride in range(1, 4):
                places = range(0, size - kernel + 1, stride)
                if places:
                    assert window(size, kernel, stride, 1, 0) == len(places)
                else:
                    with pytest.raises(SizeError, match="does not fit"):
                        window(size, kernel, stride, 1, 0)
