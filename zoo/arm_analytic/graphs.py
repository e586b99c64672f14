"""Write equations as Python; get them as an ONNX graph.

A `Value` is a tensor of a graph that is being written, batch first: (K, n). Its operators add
nodes, so a function of numbers that uses +, -, *, / and the functions below gives its numbers for
numpy arrays, and its graph for values:

    graph = Graph()
    q = graph.input("q", 2)
    graph.output("x", cos(q[:, 0:1]) * 0.3)
    blob = graph.onnx()
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Number = "float | np.ndarray | Value"


class Graph:
    """An ONNX graph, operation by operation."""

    def __init__(self) -> None:
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[bytes, onnx.TensorProto] = {}

    def input(self, name: str, *item: int, batch: int | str = "K") -> Value:
        """A float32 input of shape (batch, *item)."""
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *item]))
        return Value(self, name)

    def output(self, name: str, value: Value, width: int, batch: int | str = "K") -> None:
        """Give `value` (batch, width) to the outside as `name`."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, width])
        self.outputs.append(info)

    def onnx(self) -> bytes:
        """The file, opset 17."""
        constants = list(self._constants.values())
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def do(self, kind: str, *inputs: Value | float | np.ndarray, **settings: object) -> Value:
        """Add a node; returns its result."""
        names = [x.name if isinstance(x, Value) else self._constant(x) for x in inputs]
        made = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [made], **settings))
        return Value(self, made)

    def _constant(self, value: float | np.ndarray) -> str:
        """The name of a constant; equal ones are one. Numbers become float32, integers stay."""
        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
            array = array.reshape((1,) * (2 - array.ndim) + array.shape)
        key = f"{array.dtype}{array.shape}".encode() + array.tobytes()
        if key not in self._constants:
            name = f"constant{len(self._constants)}"
            self._constants[key] = numpy_helper.from_array(array, name)
        return self._constants[key].name


class Value:
    """A float32 tensor (K, n) of a graph."""

    __array_ufunc__ = None  # numpy leaves `array * value` to us

    def __init__(self, graph: Graph, name: str) -> None:
        self.graph, self.name = graph, name

    def __add__(self, other: Value | float | np.ndarray) -> Value:
        return self.graph.do("Add", self, other)

    def __sub__(self, other: Value | float | np.ndarray) -> Value:
        return self.graph.do("Sub", self, other)

    def __rsub__(self, other: float | np.ndarray) -> Value:
        return self.graph.do("Sub", other, self)

    def __mul__(self, other: Value | float | np.ndarray) -> Value:
        return self.graph.do("Mul", self, other)

    def __truediv__(self, other: Value | float | np.ndarray) -> Value:
        return self.graph.do("Div", self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, key: tuple[slice, slice]) -> Value:
        """Columns: value[:, start:stop]."""
        ends = [np.array([v], np.int64) for v in (key[1].start, key[1].stop, 1)]
        return self.graph.do("Slice", self, *ends)

    def __matmul__(self, weights: np.ndarray) -> Value:
        return self.graph.do("MatMul", self, weights)


def _each(kind: str, plain: np.ufunc):
    def apply(x):
        return x.graph.do(kind, x) if isinstance(x, Value) else plain(x)

    return apply


sin, cos = _each("Sin", np.sin), _each("Cos", np.cos)
tanh, sqrt, absolute = _each("Tanh", np.tanh), _each("Sqrt", np.sqrt), _each("Abs", np.abs)


def clip(x, low, high):
    """`x` within low..high, each a number or one for every column."""
    if isinstance(x, Value):
        return x.graph.do("Min", x.graph.do("Max", x, low), high)
    return np.minimum(np.maximum(x, low), high)


def side_by_side(parts: Sequence):
    """(K, a), (K, b), ... -> (K, a + b + ...)."""
    if isinstance(parts[0], Value):
        return parts[0].graph.do("Concat", *parts, axis=-1)
    return np.concatenate(parts, axis=-1)


def least(x):
    """(K, n) -> (K, 1): the smallest of each row."""
    if isinstance(x, Value):
        return x.graph.do("ReduceMin", x, axes=[-1], keepdims=1)
    return x.min(axis=-1, keepdims=True)
