"""Write a small network down once; get it as ONNX and as TFLite.

A `Network` is a list of operations on named tensors, batch first, images as (batch, height,
width, channels). ONNX gets a free batch; TFLite plans its memory ahead, so there the batch is
fixed when the file is written. Both files hold the same float32 weights.

    network = Network()
    z, a = network.input("z", (-1, 64)), network.input("action", (-1, 2))
    network.output("next", network.dense(network.concat([z, a]), weight, bias, relu=True))
    onnx, tflite = network.onnx(), network.tflite(batch=128)

Why not a converter: the ones for PyTorch bring gigabytes of other frameworks, and what comes out
changes with their versions. The twenty operations here are all that this model needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]  # a leading -1 is the batch
ONNX_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}
TFLITE_TYPES = {
    "float32": tfl.TensorType.FLOAT32,
    "uint8": tfl.TensorType.UINT8,
    "int32": tfl.TensorType.INT32,
}
ONNX_NAMES = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div",
    "relu": "Relu", "sigmoid": "Sigmoid", "sqrt": "Sqrt", "sin": "Sin", "cos": "Cos",
}  # fmt: skip
TFLITE_NAMES = ONNX_NAMES | {"sigmoid": "Logistic"}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: Shape
    dtype: str = "float32"


@dataclass
class Operation:
    kind: str
    inputs: list[Tensor]
    output: Tensor
    constants: list[np.ndarray] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)


class Network:
    """Operations in the order in which they were asked for."""

    def __init__(self) -> None:
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.operations: list[Operation] = []
        self._outside: dict[str, str] = {}  # names that were replaced by an output's

    # ---- what a network is made of ----------------------------------------------------------
    def input(self, name: str, shape: Shape, dtype: str = "float32") -> Tensor:
        tensor = Tensor(name, shape, dtype)
        self.inputs.append(tensor)
        return tensor

    def output(self, name: str, x: Tensor) -> None:
        """Give `x`, which an operation made, to the outside as `name`."""
        self._outside[x.name] = name
        self.outputs.append(self._seen(x))

    def dense(self, x: Tensor, weight: np.ndarray, bias: np.ndarray, relu: bool = False) -> Tensor:
        """weight: (out, in)."""
        shape = (*x.shape[:-1], len(weight))
        return self._do("dense", [x], shape, [weight, bias], relu=relu)

    def conv(
        self, x: Tensor, weight: np.ndarray, bias: np.ndarray, stride: int, relu: bool = False
    ) -> Tensor:
        """weight: (out, in, n, n), n odd; padded by n // 2 on each side."""
        batch, height, width, _ = x.shape
        shape = (batch, height // stride, width // stride, len(weight))
        return self._do("conv", [x], shape, [weight, bias], stride=stride, relu=relu)

    def norm(self, x: Tensor, weight: np.ndarray, bias: np.ndarray) -> Tensor:
        """Layer normalization over the last axis."""
        return self._do("norm", [x], x.shape, [weight, bias])

    def concat(self, parts: Sequence[Tensor]) -> Tensor:
        """Side by side along the last axis."""
        width = sum(part.shape[-1] for part in parts)
        return self._do("concat", list(parts), (*parts[0].shape[:-1], width))

    def columns(self, x: Tensor, start: int, stop: int) -> Tensor:
        """x[:, start:stop]."""
        return self._do("columns", [x], (x.shape[0], stop - start), start=start, stop=stop)

    def mean(self, x: Tensor) -> Tensor:
        """Over all axes but the batch, which stay as axes of size 1."""
        return self._do("mean", [x], (x.shape[0], *[1] * (len(x.shape) - 1)))

    def reshape(self, x: Tensor, item: Shape) -> Tensor:
        """Every item of the batch gets the shape `item`."""
        return self._do("reshape", [x], (x.shape[0], *item))

    def to_float(self, x: Tensor) -> Tensor:
        return self._do("cast", [x], x.shape)

    def spread(self, x: Tensor) -> Tensor:
        """Depth to space by 2: channel (2 i + j) C + c goes to pixel (i, j), channel c."""
        batch, height, width, channels = x.shape
        return self._do("spread", [x], (batch, 2 * height, 2 * width, channels // 4))

    def pair(self, kind: str, x: Tensor, y: Tensor | float | np.ndarray) -> Tensor:
        """add, sub, mul or div, with a tensor of the same rank or with constants."""
        if isinstance(y, Tensor):
            shape = tuple(max(a, b) if min(a, b) != -1 else -1
                          for a, b in zip(x.shape, y.shape, strict=True))  # fmt: skip
            return self._do(kind, [x, y], shape)
        constant = np.asarray(y, np.float32).reshape(*[1] * (len(x.shape) - 1), -1)
        return self._do(kind, [x], x.shape, [constant])

    def each(self, kind: str, x: Tensor) -> Tensor:
        """relu, sigmoid, sqrt, sin or cos."""
        return self._do(kind, [x], x.shape)

    def _do(
        self,
        kind: str,
        inputs: list[Tensor],
        shape: Shape,
        constants: Sequence[np.ndarray] = (),
        **settings: Any,
    ) -> Tensor:
        output = Tensor(f"{kind}{len(self.operations)}", shape)
        constants = [np.ascontiguousarray(c, np.float32) for c in constants]
        self.operations.append(Operation(kind, inputs, output, constants, settings))
        return output

    def _final(self) -> list[Operation]:
        """The operations, with the outputs under their outside names."""
        return [
            replace(o, inputs=[self._seen(i) for i in o.inputs], output=self._seen(o.output))
            for o in self.operations
        ]

    def _seen(self, x: Tensor) -> Tensor:
        return Tensor(self._outside.get(x.name, x.name), x.shape, x.dtype)

    # ---- files ------------------------------------------------------------------------------
    def onnx(self) -> bytes:
        """As an ONNX file, opset 17; the batch is the symbol K."""
        writer = _OnnxWriter()
        for operation in self._final():
            writer.write(operation)

        def info(tensor: Tensor) -> onnx.ValueInfoProto:
            shape = ["K" if size == -1 else size for size in tensor.shape]
            return helper.make_tensor_value_info(tensor.name, ONNX_TYPES[tensor.dtype], shape)

        graph = helper.make_graph(
            writer.nodes,
            "graph",
            [info(t) for t in self.inputs],
            [info(t) for t in self.outputs],
            [numpy_helper.from_array(value, name) for name, value in writer.constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def tflite(self, batch: int) -> bytes:
        """As a TFLite file for exactly `batch` rows."""
        writer = _TfliteWriter(batch)
        inputs = [writer.tensor(t) for t in self.inputs]
        for operation in self._final():
            writer.write(operation)
        return writer.finish(inputs, [writer.tensor(t) for t in self.outputs])


class _OnnxWriter:
    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def write(self, o: Operation) -> None:
        names = [t.name for t in o.inputs]
        constants = [
            self._constant(f"{o.output.name}.{i}", value) for i, value in enumerate(o.constants)
        ]
        relu = bool(o.settings.get("relu"))
        made = f"{o.output.name}.raw" if relu else o.output.name
        if o.kind == "dense":
            self._node("Gemm", [*names, *constants], made, transB=1)
        elif o.kind == "conv":
            size, stride = o.constants[0].shape[2], o.settings["stride"]
            first = self._node("Transpose", names, f"{made}.first", perm=[0, 3, 1, 2])
            done = self._node(
                "Conv", [first, *constants], f"{made}.done",
                pads=[size // 2] * 4, strides=[stride] * 2, kernel_shape=[size] * 2,
            )  # fmt: skip
            self._node("Transpose", [done], made, perm=[0, 2, 3, 1])
        elif o.kind == "norm":
            self._node("LayerNormalization", [*names, *constants], made, axis=-1, epsilon=1e-5)
        elif o.kind == "concat":
            self._node("Concat", names, made, axis=-1)
        elif o.kind == "columns":
            ends = [np.array([v], np.int64) for v in (o.settings["start"], o.settings["stop"], 1)]
            start, stop, axis = (self._constant(f"{made}.{i}", v) for i, v in enumerate(ends))
            self._node("Slice", [*names, start, stop, axis], made)
        elif o.kind == "mean":
            axes = list(range(1, len(o.inputs[0].shape)))
            self._node("ReduceMean", names, made, axes=axes, keepdims=1)
        elif o.kind == "reshape":
            shape = self._constant(f"{made}.shape", np.array(o.output.shape, np.int64))
            self._node("Reshape", [*names, shape], made)
        elif o.kind == "cast":
            self._node("Cast", names, made, to=TensorProto.FLOAT)
        elif o.kind == "spread":
            first = self._node("Transpose", names, f"{made}.first", perm=[0, 3, 1, 2])
            done = self._node("DepthToSpace", [first], f"{made}.done", blocksize=2, mode="DCR")
            self._node("Transpose", [done], made, perm=[0, 2, 3, 1])
        else:
            self._node(ONNX_NAMES[o.kind], [*names, *constants], made)
        if relu:
            self._node("Relu", [made], o.output.name)

    def _constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = value
        return name

    def _node(self, kind: str, inputs: list[str], output: str, **settings: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **settings))
        return output


class _TfliteWriter:
    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._graph = tfl.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._codes: list[int] = []
        self._buffers = [tfl.BufferT()]
        self._index: dict[str, int] = {}

    def tensor(self, t: Tensor) -> int:
        """The index of a tensor; made when first asked for."""
        if t.name not in self._index:
            shape = [self._batch if size == -1 else size for size in t.shape]
            self._index[t.name] = self._add(t.name, shape, t.dtype, 0)
        return self._index[t.name]

    def write(self, o: Operation) -> None:
        x = [self.tensor(t) for t in o.inputs]
        y = self.tensor(o.output)
        rank = len(o.output.shape)
        if o.kind == "dense":
            options = tfl.FullyConnectedOptionsT()
            self._fuse(options, o)
            constants = [self._constant(c) for c in o.constants]
            self._operator("FULLY_CONNECTED", [*x, *constants], y, options)
        elif o.kind == "conv":
            self._conv(o, x[0], y)
        elif o.kind == "norm":
            self._norm(o, x[0], y)
        elif o.kind == "concat":
            options = tfl.ConcatenationOptionsT()
            options.axis = rank - 1
            self._operator("CONCATENATION", x, y, options)
        elif o.kind == "columns":
            ends = ([0, o.settings["start"]], [self._batch, o.settings["stop"]], [1, 1])
            constants = [self._constant(np.array(e, np.int32)) for e in ends]
            self._operator("STRIDED_SLICE", [*x, *constants], y, tfl.StridedSliceOptionsT())
        elif o.kind == "mean":
            self._mean(x[0], y, list(range(1, rank)))
        elif o.kind == "reshape":
            shape = [self._batch if size == -1 else size for size in o.output.shape]
            options = tfl.ReshapeOptionsT()
            options.newShape = shape
            self._operator("RESHAPE", [*x, self._constant(np.array(shape, np.int32))], y, options)
        elif o.kind == "cast":
            options = tfl.CastOptionsT()
            options.inDataType = TFLITE_TYPES[o.inputs[0].dtype]
            options.outDataType = TFLITE_TYPES["float32"]
            self._operator("CAST", x, y, options)
        elif o.kind == "spread":
            options = tfl.DepthToSpaceOptionsT()
            options.blockSize = 2
            self._operator("DEPTH_TO_SPACE", x, y, options)
        else:
            name = TFLITE_NAMES[o.kind]
            constants = [self._constant(c) for c in o.constants]
            options = getattr(tfl, f"{name}OptionsT")() if o.kind in ONNX_PAIRS else None
            self._operator(name.upper(), [*x, *constants], y, options)

    def finish(self, inputs: list[int], outputs: list[int]) -> bytes:
        self._graph.inputs, self._graph.outputs = inputs, outputs
        model = tfl.ModelT()
        model.version, model.description, model.subgraphs = 3, b"edge-wm", [self._graph]
        model.buffers, model.operatorCodes = self._buffers, []
        for code in self._codes:
            entry = tfl.OperatorCodeT()
            entry.builtinCode, entry.deprecatedBuiltinCode, entry.version = code, min(code, 127), 1
            model.operatorCodes.append(entry)
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def _conv(self, o: Operation, x: int, y: int) -> None:
        weight, bias = o.constants
        size, stride = weight.shape[2], o.settings["stride"]
        batch, height, width, channels = o.inputs[0].shape
        pad = size // 2  # "same" would pad an even image with stride 2 on one side only
        shape = [self._batch if batch == -1 else batch, height + 2 * pad, width + 2 * pad, channels]
        padded = self._add(f"{o.output.name}.padded", shape, "float32", 0)
        pads = self._constant(np.array([[0, 0], [pad, pad], [pad, pad], [0, 0]], np.int32))
        self._operator("PAD", [x, pads], padded, tfl.PadOptionsT())
        options = tfl.Conv2DOptionsT()
        options.padding, options.strideH, options.strideW = tfl.Padding.VALID, stride, stride
        self._fuse(options, o)
        kernel = self._constant(np.ascontiguousarray(weight.transpose(0, 2, 3, 1)))
        self._operator("CONV_2D", [padded, kernel, self._constant(bias)], y, options)

    def _norm(self, o: Operation, x: int, y: int) -> None:
        weight, bias = o.constants
        shape = [self._batch if size == -1 else size for size in o.output.shape]
        last, one = len(shape) - 1, [*shape[:-1], 1]

        def part(name: str, size: list[int]) -> int:
            return self._add(f"{o.output.name}.{name}", size, "float32", 0)

        center, away, square = part("center", one), part("away", shape), part("square", shape)
        variance, safe, root = part("variance", one), part("safe", one), part("root", one)
        unit, scaled = part("unit", shape), part("scaled", shape)
        self._mean(x, center, [last])
        self._operator("SUB", [x, center], away, tfl.SubOptionsT())
        self._operator("MUL", [away, away], square, tfl.MulOptionsT())
        self._mean(square, variance, [last])
        epsilon = self._constant(np.full([1] * len(shape), 1e-5, np.float32))
        self._operator("ADD", [variance, epsilon], safe, tfl.AddOptionsT())
        self._operator("RSQRT", [safe], root, None)
        self._operator("MUL", [away, root], unit, tfl.MulOptionsT())
        self._operator("MUL", [unit, self._constant(weight)], scaled, tfl.MulOptionsT())
        self._operator("ADD", [scaled, self._constant(bias)], y, tfl.AddOptionsT())

    def _mean(self, x: int, y: int, axes: list[int]) -> None:
        options = tfl.ReducerOptionsT()
        options.keepDims = True
        self._operator("MEAN", [x, self._constant(np.array(axes, np.int32))], y, options)

    def _fuse(self, options: Any, o: Operation) -> None:
        kinds = tfl.ActivationFunctionType
        options.fusedActivationFunction = kinds.RELU if o.settings["relu"] else kinds.NONE

    def _constant(self, value: np.ndarray) -> int:
        buffer = tfl.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(value).tobytes(), np.uint8)
        self._buffers.append(buffer)
        name = f"constant{len(self._buffers) - 1}"
        return self._add(name, list(value.shape), value.dtype.name, len(self._buffers) - 1)

    def _add(self, name: str, shape: list[int], dtype: str, buffer: int) -> int:
        tensor = tfl.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), shape, buffer
        tensor.type = TFLITE_TYPES[dtype]
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _operator(self, kind: str, inputs: list[int], output: int, options: Any) -> None:
        code = getattr(tfl.BuiltinOperator, kind)
        if code not in self._codes:
            self._codes.append(code)
        made = tfl.OperatorT()
        made.opcodeIndex, made.inputs, made.outputs = self._codes.index(code), inputs, [output]
        if options is not None:
            name = type(options).__name__[:-1]
            made.builtinOptionsType = getattr(tfl.BuiltinOptions, name)
            made.builtinOptions = options
        self._graph.operators.append(made)


ONNX_PAIRS = ("add", "sub", "mul", "div")
