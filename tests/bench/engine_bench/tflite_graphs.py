"""A joined graph as a TFLite file, for LiteRT: without torch and TensorFlow, which have converters.

Shapes are fixed and tensors keep ONNX's axes; what LiteRT has no operator for is written with
those it has (layer norm, erf). int8: the weights of dense layers with a scale per output; LiteRT's
XNNPACK then quantizes each row of activations by itself. Images stay channels last between
convolutions; recurrent operators are not converted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import numpy_helper, shape_inference

SIMPLE = {
    "Abs": "ABS", "Add": "ADD", "Cos": "COS", "Div": "DIV", "Exp": "EXP", "Greater": "GREATER",
    "Log": "LOG", "Max": "MAXIMUM", "Min": "MINIMUM", "Mul": "MUL", "Neg": "NEG", "Relu": "RELU",
    "Sigmoid": "LOGISTIC", "Sign": "SIGN", "Sin": "SIN", "Sqrt": "SQRT", "Sub": "SUB",
    "Tanh": "TANH", "Where": "SELECT_V2",
}  # fmt: skip
# erf(x) for x >= 0 (Abramowitz and Stegun 1964, 7.1.26; error below 1.5e-7).
ERF_P = 0.3275911
ERF_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
TYPES = {
    "float32": tfl.TensorType.FLOAT32, "int32": tfl.TensorType.INT32,
    "int64": tfl.TensorType.INT64, "int8": tfl.TensorType.INT8, "uint8": tfl.TensorType.UINT8,
    "bool": tfl.TensorType.BOOL,
}  # fmt: skip
# Lowest versions that the runtime registers or that carry what is asked for; 1 elsewhere.
VERSIONS = {
    tfl.BuiltinOperator.BROADCAST_TO: 2,
    tfl.BuiltinOperator.FULLY_CONNECTED: 12,  # float activations, int8 weights by channel
}
LEAST_INT8 = 1024  # weights of a dense layer; smaller ones stay float32


class NotConverted(Exception):
    """An operator that this file does not write; the message names it."""


def tflite_file(blob: bytes, int8: bool = False) -> bytes:
    """Raises: NotConverted."""
    writer = _Writer(int8)
    model = shape_inference.infer_shapes(onnx.load_from_string(blob), data_prop=True)
    graph = model.graph
    for info in (*graph.value_info, *graph.input, *graph.output):
        dims = [d.dim_value for d in info.type.tensor_type.shape.dim]
        writer.shapes[info.name] = dims
    for tensor in graph.initializer:
        writer.known[tensor.name] = numpy_helper.to_array(tensor)
    inputs = []
    for info in graph.input:
        image = info.type.tensor_type.elem_type == onnx.TensorProto.UINT8
        dtype = "uint8" if image else "float32"
        inputs.append(writer.tensor(info.name, writer.shapes[info.name], dtype))
    gelus, inner = _gelus(graph.node)
    for node in graph.node:
        if node.output[0] in gelus:
            writer.gelu(gelus[node.output[0]], node.output[0])
        elif node.output[0] not in inner:
            writer.write(node)
    return writer.finish(inputs, [writer.at(o.name) for o in graph.output])


def _gelus(nodes: Any) -> tuple[dict[str, str], set[str]]:
    """Where x Phi(x) is written with Erf: last output -> x, and the outputs on the way."""
    users: dict[str, list[Any]] = {}
    by_output = {node.output[0]: node for node in nodes}
    for node in nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found, inner = {}, set()
    for node in nodes:
        chain = [node]
        for kind in ("Add", "Mul", "Mul"):
            after = users.get(chain[-1].output[0], [])
            if node.op_type != "Erf" or len(after) != 1 or after[0].op_type != kind:
                break
            chain.append(after[0])
        divided = by_output.get(node.input[0]) if node.op_type == "Erf" else None
        if len(chain) == 4 and divided is not None and divided.input[0] in chain[2].input:
            found[chain[3].output[0]] = divided.input[0]
            inner |= {divided.output[0], *(n.output[0] for n in chain[:3])}
    return found, inner


class _Writer:
    def __init__(self, int8: bool) -> None:
        self.shapes: dict[str, list[int]] = {}
        self.known: dict[str, np.ndarray] = {}  # constants, by their ONNX name
        self._int8 = int8
        self._graph = tfl.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._codes: list[int] = []
        self._buffers = [tfl.BufferT()]
        self._index: dict[str, int] = {}
        self.last: dict[str, int] = {}  # images by ONNX name: the tensor with channels last

    # ---- tensors ----------------------------------------------------------------------------
    def tensor(self, name: str, shape: list[int], dtype: str = "float32", buffer: int = 0) -> int:
        made = tfl.TensorT()
        made.name, made.shape, made.buffer, made.type = name.encode(), shape, buffer, TYPES[dtype]
        self._graph.tensors.append(made)
        self._index[name] = index = len(self._graph.tensors) - 1
        return index

    def constant(self, value: np.ndarray, scale: np.ndarray | None = None) -> int:
        buffer = tfl.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self._buffers.append(buffer)
        place = len(self._buffers) - 1
        index = self.tensor(f"constant{place}", list(value.shape), value.dtype.name, place)
        if scale is not None:
            quantization = tfl.QuantizationParametersT()
            quantization.scale, quantization.zeroPoint = list(scale), [0] * len(scale)
            quantization.quantizedDimension = 0
            self._graph.tensors[index].quantization = quantization
        return index

    def at(self, name: str) -> int:
        """The tensor of an ONNX name; constants are written when they are first used."""
        if name not in self._index and name in self.last:
            places = [self.last[name], self.numbers([0, 3, 1, 2])]
            self.operator("TRANSPOSE", places, self.out(name))
        elif name not in self._index:
            value = np.atleast_1d(self.known[name])
            self._index[name] = self.constant(value)
        return self._index[name]

    def out(self, name: str, dtype: str = "float32") -> int:
        return self.tensor(name, self.shapes[name], dtype)

    def alias(self, name: str, index: int) -> None:
        """Another ONNX name of a tensor."""
        self._index[name] = index

    def numbers(self, values: Any) -> int:
        return self.constant(np.array(values, np.int32))

    # ---- operators --------------------------------------------------------------------------
    def operator(self, kind: str, inputs: list[int], output: int, **settings: Any) -> int:
        code = getattr(tfl.BuiltinOperator, kind)
        if code not in self._codes:
            self._codes.append(code)
        made = tfl.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._codes.index(code), inputs, [output]
        name = OPTIONS.get(kind)
        if name:
            made.builtinOptionsType = getattr(tfl.BuiltinOptions, name)
            made.builtinOptions = getattr(tfl, f"{name}T")()
            for field, value in settings.items():
                setattr(made.builtinOptions, field, value)
        self._graph.operators.append(made)
        return output

    def inner(self, kind: str, inputs: list[int], shape: list[int], **settings: Any) -> int:
        """An operator whose output has no ONNX name."""
        output = self.tensor(f"inner{len(self._graph.tensors)}", shape)
        return self.operator(kind, inputs, output, **settings)

    def number(self, value: float) -> int:
        return self.constant(np.array([value], np.float32))

    def write(self, node: Any) -> None:
        kind, inputs, output = node.op_type, list(node.input), node.output[0]
        if all(name in self.known for name in inputs) and kind == "Identity":
            self.known[output] = self.known[inputs[0]]
            return
        if kind == "Relu" and inputs[0] in self.last:
            shape = self.channels_last(output)
            self.last[output] = self.inner("RELU", [self.last[inputs[0]]], shape)
            return
        if kind in SIMPLE:
            self._simple(kind, inputs, output)
            return
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        rule = RULES.get(kind)
        if rule is None:
            raise NotConverted(f"no rule for {kind}")
        rule(self, inputs, output, attributes)

    def _simple(self, kind: str, inputs: list[str], output: str) -> None:
        dtype = "bool" if kind == "Greater" else "float32"
        places = [self.at(name) for name in inputs]
        while len(places) > 2 and kind == "Max":
            first = self.inner("MAXIMUM", places[:2], self.shapes[output])
            places = [first, *places[2:]]
        self.operator(SIMPLE[kind], places, self.out(output, dtype))

    def gelu(self, x: str, output: str) -> None:
        self.operator("GELU", [self.at(x)], self.out(output), approximate=False)

    def channels_last(self, name: str) -> list[int]:
        """The shape of an image of ONNX, with channels last."""
        batch, channels, height, width = self.shapes[name]
        return [batch, height, width, channels]

    def weights(self, value: np.ndarray) -> int:
        """(out, ...): int8 with a scale for each output where that is wanted."""
        if not self._int8 or value.size < LEAST_INT8:
            return self.constant(np.ascontiguousarray(value))
        most = np.abs(value).reshape(len(value), -1).max(axis=1)
        scale = (np.maximum(most, 1e-12) / 127).astype(np.float32)
        rounded = np.round(value / scale.reshape(-1, *[1] * (value.ndim - 1)))
        return self.constant(np.clip(rounded, -127, 127).astype(np.int8), scale)

    def dense(self, x: int, weight: np.ndarray, bias: int, output: int, rank: int) -> None:
        """weight: (out, in)."""
        place = self.weights(weight)
        self.operator("FULLY_CONNECTED", [x, place, bias], output, keepNumDims=rank > 2)

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        self._graph.inputs, self._graph.outputs = inputs, outputs
        model = tfl.ModelT()
        model.version, model.description, model.subgraphs = 3, b"edge-wm bench", [self._graph]
        model.buffers, model.operatorCodes = self._buffers, []
        for code in self._codes:
            entry = tfl.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode = code, min(code, 127)
            entry.version = VERSIONS.get(code, 1)
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


OPTIONS = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions", "CONCATENATION": "ConcatenationOptions",
    "RESHAPE": "ReshapeOptions", "SOFTMAX": "SoftmaxOptions", "MEAN": "ReducerOptions",
    "SUM": "ReducerOptions", "REDUCE_MAX": "ReducerOptions", "STRIDED_SLICE": "StridedSliceOptions",
    "TRANSPOSE": "TransposeOptions", "BATCH_MATMUL": "BatchMatMulOptions", "GELU": "GeluOptions",
    "CONV_2D": "Conv2DOptions", "CAST": "CastOptions", "ONE_HOT": "OneHotOptions",
    "ARG_MAX": "ArgMaxOptions",
}  # fmt: skip


# ---- one rule for each ONNX operator that is not one of LiteRT's -------------------------------
def _gemm(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    weight = w.known[inputs[1]]
    bias = w.at(inputs[2]) if len(inputs) > 2 else -1
    w.dense(w.at(inputs[0]), weight if at.get("transB") else weight.T, bias, w.out(output), 2)


def _matmul(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    if inputs[1] in w.known:
        rank = len(w.shapes[output])
        w.dense(w.at(inputs[0]), w.known[inputs[1]].T, -1, w.out(output), rank)
    else:
        w.operator("BATCH_MATMUL", [w.at(n) for n in inputs], w.out(output))


def _layer_norm(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    x, shape = w.at(inputs[0]), w.shapes[output]
    axis, one = w.numbers([len(shape) - 1]), [*shape[:-1], 1]
    center = w.inner("MEAN", [x, axis], one, keepDims=True)
    away = w.inner("SUB", [x, center], shape)
    square = w.inner("MUL", [away, away], shape)
    variance = w.inner("MEAN", [square, axis], one, keepDims=True)
    safe = w.inner("ADD", [variance, w.number(at.get("epsilon", 1e-5))], one)
    unit = w.inner("MUL", [away, w.inner("RSQRT", [safe], one)], shape)
    scaled = w.inner("MUL", [unit, w.at(inputs[1])], shape)
    w.operator("ADD", [scaled, w.at(inputs[2])], w.out(output))


def _erf(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    x, shape = w.at(inputs[0]), w.shapes[output]
    size = w.inner("ABS", [x], shape)
    scaled = w.inner("ADD", [w.inner("MUL", [size, w.number(ERF_P)], shape), w.number(1)], shape)
    t = w.inner("DIV", [w.number(1), scaled], shape)
    total = w.inner("MUL", [t, w.number(ERF_A[-1])], shape)
    for factor in reversed(ERF_A[:-1]):
        total = w.inner("MUL", [w.inner("ADD", [total, w.number(factor)], shape), t], shape)
    square = w.inner("NEG", [w.inner("MUL", [x, x], shape)], shape)
    tail = w.inner("MUL", [total, w.inner("EXP", [square], shape)], shape)
    body = w.inner("SUB", [w.number(1), tail], shape)
    w.operator("MUL", [w.inner("SIGN", [x], shape), body], w.out(output))


def _softmax(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    w.operator("SOFTMAX", [w.at(inputs[0])], w.out(output), beta=1.0)


def _reshape(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    shape = w.shapes[output]
    w.operator("RESHAPE", [w.at(inputs[0]), w.numbers(shape)], w.out(output), newShape=shape)


def _expand(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    w.operator("BROADCAST_TO", [w.at(inputs[0]), w.numbers(w.shapes[output])], w.out(output))


def _concat(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    axis = at["axis"] % len(w.shapes[output])
    w.operator("CONCATENATION", [w.at(n) for n in inputs], w.out(output), axis=axis)


def _slice(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    shape = w.shapes[inputs[0]]
    begin, axes = [0] * len(shape), w.known[inputs[3]].tolist()
    for start, axis in zip(w.known[inputs[1]].tolist(), axes, strict=True):
        begin[axis] = start % shape[axis] if start < 0 else start
    places = [w.at(inputs[0]), w.numbers(begin), w.numbers(w.shapes[output])]
    w.operator("SLICE", places, w.out(output))


def _gather(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    shape, axis = w.shapes[inputs[0]], at.get("axis", 0)
    begin, size = [0] * len(shape), list(shape)
    begin[axis], size[axis] = int(w.known[inputs[1]]), 1
    cut = w.inner("SLICE", [w.at(inputs[0]), w.numbers(begin), w.numbers(size)], size)
    target = w.shapes[output]
    w.operator("RESHAPE", [cut, w.numbers(target)], w.out(output), newShape=target)


def _cast(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    kinds = {"inDataType": TYPES["uint8"], "outDataType": TYPES["float32"]}
    w.operator("CAST", [w.at(inputs[0])], w.out(output), **kinds)


def _conv(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    if any(at.get("pads", [])):
        raise NotConverted("no rule for Conv with pads")
    if inputs[0] not in w.last:
        shape = w.channels_last(inputs[0])
        places = [w.at(inputs[0]), w.numbers([0, 2, 3, 1])]
        w.last[inputs[0]] = w.inner("TRANSPOSE", places, shape)
    kernel = w.weights(w.known[inputs[1]].transpose(0, 2, 3, 1))
    places = [w.last[inputs[0]], kernel, w.at(inputs[2])]
    down, across = at.get("strides", [1, 1])
    w.last[output] = w.inner(
        "CONV_2D", places, w.channels_last(output),
        padding=tfl.Padding.VALID, strideH=down, strideW=across,
    )  # fmt: skip


def _transpose(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    perm = list(at["perm"])
    if perm == [0, 3, 1, 2]:
        w.last[output] = w.at(inputs[0])
        return
    if perm == [0, 2, 3, 1] and inputs[0] in w.last:
        w.alias(output, w.last[inputs[0]])
        return
    w.operator("TRANSPOSE", [w.at(inputs[0]), w.numbers(list(at["perm"]))], w.out(output))


def _reduced(kind: str) -> Callable[..., None]:
    def rule(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
        axes = list(at["axes"]) if "axes" in at else w.known[inputs[1]].tolist()
        keep = bool(at.get("keepdims", 1))
        w.operator(kind, [w.at(inputs[0]), w.numbers(axes)], w.out(output), keepDims=keep)

    return rule


def _clip(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    x, low, high = (w.at(name) for name in inputs)
    w.operator("MINIMUM", [w.inner("MAXIMUM", [x, low], w.shapes[output]), high], w.out(output))


def _softplus(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    shape = w.shapes[output]
    power = w.inner("EXP", [w.at(inputs[0])], shape)
    w.operator("LOG", [w.inner("ADD", [power, w.number(1)], shape)], w.out(output))


def _identity(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    _reshape(w, inputs, output, at)


def _arg_max(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    axis = w.numbers([at["axis"] % len(w.shapes[inputs[0]])])
    place = w.out(output, "int32")
    w.operator("ARG_MAX", [w.at(inputs[0]), axis], place, outputType=TYPES["int32"])


def _one_hot(w: _Writer, inputs: list[str], output: str, at: Mapping[str, Any]) -> None:
    depth = w.constant(np.array(int(np.ravel(w.known[inputs[1]])[0]), np.int32))
    off, on = (w.constant(np.array(v, np.float32)) for v in w.known[inputs[2]])
    w.operator("ONE_HOT", [w.at(inputs[0]), depth, on, off], w.out(output), axis=-1)


RULES: Mapping[str, Callable[..., None]] = {
    "ArgMax": _arg_max, "Cast": _cast, "Clip": _clip, "Concat": _concat, "Conv": _conv, "Erf": _erf,
    "Expand": _expand,
    "Gather": _gather, "Gemm": _gemm, "Identity": _identity, "LayerNormalization": _layer_norm,
    "MatMul": _matmul, "OneHot": _one_hot, "ReduceMax": _reduced("REDUCE_MAX"),
    "ReduceMean": _reduced("MEAN"), "ReduceSum": _reduced("SUM"), "Reshape": _reshape,
    "Slice": _slice, "Softmax": _softmax, "Softplus": _softplus, "Squeeze": _reshape,
    "Transpose": _transpose, "Unsqueeze": _reshape,
}  # fmt: skip
assert math.isclose(sum(ERF_A), 1.0, abs_tol=1e-6)  # erf(0) = 0
