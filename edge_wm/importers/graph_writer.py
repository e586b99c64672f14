"""Write the graph of one function down as ONNX, operation by operation.

    w = GraphWriter()
    x = w.input("x", 22)
    w.output("y", w.do("Relu", w.dense("layer", x, weight, bias)), 4)
    blob = w.file()

Tensors are (K, n) float32, or (1, n) where `rows` is 1. Layers carry the names that they have in
the checkpoint, which is what `edge-wm quantize --keep` and refusals name them by.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_wm.importers.reading import IR_VERSION, OPSET
from edge_wm.types import Array


class GraphWriter:
    """Operations in the order in which they are asked for; a tensor is known by its name."""

    def __init__(self, rows: int | str = "K") -> None:
        """rows: of every input and output: "K" (the batch of candidates) or 1."""
        self._rows = rows
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int) -> str:
        self._inputs.append(self._info(name, shape))
        return name

    def output(self, name: str, value: str, *shape: int) -> None:
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"out {name}"))
        self._outputs.append(self._info(name, shape))

    def constant(self, value: Any, name: str = "") -> str:
        """float32, but for lists: sizes and positions, int64."""
        name = name or f"constant_{len(self._constants)}"
        array = np.asarray(value, np.int64 if isinstance(value, list) else np.float32)
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def do(self, operator: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        return self.several(operator, *inputs, count=1, name=name, **attributes)[0]

    def several(
        self, operator: str, *inputs: str, count: int, name: str = "", **attributes: Any
    ) -> list[str]:
        """An operation with `count` outputs."""
        name = name or f"{operator}_{len(self._nodes)}"
        made = [f"{name}:{i}" for i in range(count)]
        self._nodes.append(helper.make_node(operator, list(inputs), made, name=name, **attributes))
        return made

    def dense(self, name: str, x: str, weight: Array, bias: Array) -> str:
        """x W^T + b, for weight (out, in)."""
        pair = self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")
        return self.do("Gemm", x, *pair, name=name, transB=1)

    def columns(self, x: str, begin: int, end: int) -> str:
        """x[:, begin:end]"""
        ends = [self.constant([n]) for n in (begin, end, 1)]
        return self.do("Slice", x, *ends)

    def include(self, model: onnx.ModelProto, source: str, value: str, target: str) -> str:
        """All operations of another graph, its input `source` fed from `value`; its `target`."""
        self._nodes.append(helper.make_node("Identity", [value], [source], name=f"in {source}"))
        self._nodes.extend(model.graph.node)
        self._constants.extend(model.graph.initializer)
        return target

    def file(self) -> bytes:
        graph = helper.make_graph(
            self._nodes, "graph", self._inputs, self._outputs, self._constants
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())

    def _info(self, name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [self._rows, *shape])
