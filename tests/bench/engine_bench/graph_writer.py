"""Writes a case's networks down as ONNX files, with seeded random weights, without torch.

    w = GraphWriter(seed=1)
    z, a = w.input("z", (-1, 512)), w.input("action", (-1, 6))
    w.output("next", w.sim_norm(w.dense(w.concat(z, a), 512), 8))
    dynamics = w.function("z=belief.z:-1,512 action=action:-1,6", "next=belief.z:-1,512")

`rewritten=True` writes what general engines run faster. The same seed gives the same weights in
both forms, because both ask for them in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_bench.case import StepFunction, declared

OPSET = 17  # what torch 2's exporter writes by default; has LayerNormalization, no Mish, no Gelu
ELEMENTS = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: (batch, tokens, width), without the tokens where `flat`."""

    name: str
    width: int
    tokens: int = 1
    flat: bool = True


class GraphWriter:
    """Operations in the order in which they are asked for."""

    def __init__(self, seed: int, rewritten: bool = False) -> None:
        self.rewritten = rewritten
        self.macs = 0  # of one row
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, np.ndarray] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[tuple[str, str]] = []

    # ---- in and out -------------------------------------------------------------------------
    def input(self, name: str, shape: tuple[int, ...], dtype: str = "float32") -> Value:
        dims = ["K" if n == -1 else n for n in shape]
        self._inputs.append(helper.make_tensor_value_info(name, ELEMENTS[dtype], dims))
        flat = len(shape) != 3
        return Value(name, shape[-1], 1 if flat else shape[1], flat)

    def output(self, name: str, x: Value) -> None:
        self._outputs.append((name, x.name))

    def function(self, inputs: str, outputs: str) -> StepFunction:
        """The file, checked, with its declaration (see `case.declared`)."""
        shapes = {o.tensor: o.shape for o in declared("", outputs, b"").outputs}
        infos = []
        for name, inner in self._outputs:
            self._nodes.append(helper.make_node("Identity", [inner], [name], name=name))
            dims = ["K" if n == -1 else n for n in shapes[name]]
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, dims))
        tensors = [numpy_helper.from_array(v, n) for n, v in self._constants.items()]
        graph = helper.make_graph(self._nodes, "graph", self._inputs, infos, tensors)
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        blob = bytes(model.SerializeToString())
        return StepFunction(blob, declared(inputs, outputs, blob), self.macs)

    # ---- operations -------------------------------------------------------------------------
    def node(self, kind: str, *inputs: Value | str, **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        names = [x.name if isinstance(x, Value) else x for x in inputs]
        self._nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def node_of(
        self, kind: str, inputs: list[Value | str], outputs: int, **attributes: Any
    ) -> list[str]:
        """A node with several outputs."""
        name = f"{kind}_{len(self._nodes)}"
        names = [x.name if isinstance(x, Value) else x for x in inputs]
        made = [f"{name}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, names, made, name=name, **attributes))
        return made

    def each(self, kind: str, x: Value, *more: Value | str, **attributes: Any) -> Value:
        """An operation that keeps the shape of `x`."""
        return Value(self.node(kind, x, *more, **attributes), x.width, x.tokens, x.flat)

    def constant(self, value: np.ndarray | float | list[int]) -> str:
        array = np.asarray(value, np.int64 if isinstance(value, list) else np.float32)
        name = f"constant_{len(self._constants)}"
        self._constants[name] = array
        return name

    def constant_of(self, value: np.generic) -> str:
        """A constant of the dtype that `value` has."""
        name = f"constant_{len(self._constants)}"
        self._constants[name] = np.asarray(value)
        return name

    def weights(self, *shape: int, std: float) -> str:
        return self.constant(self._random.normal(0, std, shape).astype(np.float32))

    def concat(self, *parts: Value) -> Value:
        joined = self.node("Concat", *parts, axis=-1)
        return Value(joined, sum(p.width for p in parts), parts[0].tokens, parts[0].flat)

    def columns(self, x: Value, start: int, stop: int) -> Value:
        ends = [self.constant([n]) for n in (start, stop, -1)]
        return Value(self.node("Slice", x, *ends), stop - start, x.tokens, x.flat)

    def reshape(self, x: Value, *shape: int) -> Value:
        """To (batch, *shape)."""
        made = self.node("Reshape", x, self.constant([-1, *shape]))
        return Value(made, shape[-1], shape[0] if len(shape) > 1 else 1, len(shape) == 1)

    def dense(self, x: Value, width: int, gain: float = 1.0, bias: bool = True) -> Value:
        """x W + b, W with variance gain^2 / inputs."""
        self.macs += x.tokens * x.width * width
        std = gain / math.sqrt(x.width)
        offsets = self.weights(width, std=0.1) if bias else None
        if x.flat:
            extra = [offsets] if offsets else []
            made = self.node("Gemm", x, self.weights(width, x.width, std=std), *extra, transB=1)
            return Value(made, width)
        made = self.node("MatMul", x, self.weights(x.width, width, std=std))
        made = self.node("Add", made, offsets) if offsets else made
        return Value(made, width, x.tokens, flat=False)

    def layer_norm(self, x: Value, affine: bool = True) -> Value:
        size = (x.width,)
        scale = 1 + self._random.normal(0, 0.1, size) if affine else np.ones(size)
        shift = self._random.normal(0, 0.1, size) if affine else np.zeros(size)
        parts = [self.constant(v.astype(np.float32)) for v in (scale, shift)]
        return self.each("LayerNormalization", x, *parts, axis=-1, epsilon=1e-5)

    def mish(self, x: Value) -> Value:
        """x tanh(softplus(x)) (Misra 2019); rewritten: x n / (n + 2) with n = e^x (e^x + 2)."""
        if not self.rewritten:
            return self.each("Mul", x, self.node("Tanh", self.node("Softplus", x)))
        two = self.constant(2.0)
        power = self.node("Exp", self.node("Min", x, self.constant(20.0)))
        n = self.node("Mul", power, self.node("Add", power, two))
        return self.each("Mul", x, self.node("Div", n, self.node("Add", n, two)))

    def silu(self, x: Value) -> Value:
        return self.each("Mul", x, self.node("Sigmoid", x))

    def gelu(self, x: Value) -> Value:
        """x Phi(x) by Erf, as torch exports it and onnxruntime recognizes it."""
        inner = self.node("Erf", self.node("Div", x, self.constant(math.sqrt(2))))
        grown = self.node("Mul", x, self.node("Add", inner, self.constant(1.0)))
        return self.each("Mul", Value(grown, x.width, x.tokens, x.flat), self.constant(0.5))

    def sim_norm(self, x: Value, group: int) -> Value:
        """Softmax in groups (Hansen et al. 2024, section 3.1)."""
        groups = self.reshape(x, x.width // group, group)
        return self.reshape(self.each("Softmax", groups, axis=-1), x.width)

    def normed_linear(self, x: Value, width: int) -> Value:
        """TD-MPC2's layer: linear, layer norm, Mish."""
        return self.mish(self.layer_norm(self.dense(x, width)))

    def two_hot(self, logits: Value) -> Value:
        """(K, 101) logits over symexp bins -> (K, 1): symexp(sum softmax bin)."""
        bins = np.linspace(-10, 10, logits.width, dtype=np.float32)
        share = self.node("Softmax", logits, axis=-1)
        mean = self.node("MatMul", share, self.constant(bins[:, None]))
        size = self.node("Sub", self.node("Exp", self.node("Abs", mean)), self.constant(1.0))
        return Value(self.node("Mul", self.node("Sign", mean), size), 1)

    def uniform(self, normal: Value) -> Value:
        """Standard normal numbers to uniform ones: the normal distribution's own function."""
        inner = self.node("Erf", self.node("Div", normal, self.constant(math.sqrt(2))))
        half = self.constant(0.5)
        return self.each("Add", Value(self.node("Mul", inner, half), normal.width), half)

    def attention(self, q: Value, k: Value, v: Value, heads: int, causal: bool = False) -> Value:
        """softmax(q k^T / sqrt(size)) v for each head, the heads side by side."""
        size = q.width // heads
        self.macs += 2 * q.tokens * k.tokens * q.width

        def split(x: Value, perm: list[int]) -> str:
            apart = self.node("Reshape", x, self.constant([-1, x.tokens, heads, size]))
            return self.node("Transpose", apart, perm=perm)

        scores = self.node("MatMul", split(q, [0, 2, 1, 3]), split(k, [0, 2, 3, 1]))
        scores = self.node("Mul", scores, self.constant(1 / math.sqrt(size)))
        if causal:
            # Query t of T sees the keys up to S - T + t.
            later = np.triu(np.full((q.tokens, k.tokens), -1e9), k.tokens - q.tokens + 1)
            scores = self.node("Add", scores, self.constant(later.astype(np.float32)))
        seen = self.node("MatMul", self.node("Softmax", scores, axis=-1), split(v, [0, 2, 1, 3]))
        back = self.node("Transpose", seen, perm=[0, 2, 1, 3])
        made = self.node("Reshape", back, self.constant([-1, q.tokens, q.width]))
        return Value(made, q.width, q.tokens, flat=False)
