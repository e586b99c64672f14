"""Runs a case's exported graph operator by operator in torch, as its eager mode runs a model.

Only the operators that the cases have; one outside of them is a KeyError that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch.nn import functional

from edge_wm.types import Array
from engine_bench.imagination import Run

Tensor = torch.Tensor
Rule = Callable[..., Any]  # (node's attributes, *inputs) -> output or outputs


def torch_run(blob: bytes, threads: int) -> Run:
    """The function in an ONNX file; torch's threads are set for the whole process."""
    torch.set_num_threads(threads)
    graph = onnx.load_from_string(blob).graph
    constants = {t.name: _tensor(numpy_helper.to_array(t)) for t in graph.initializer}
    steps = [
        (RULES[n.op_type], {a.name: onnx.helper.get_attribute_value(a) for a in n.attribute},
         list(n.input), list(n.output))
        for n in graph.node
    ]  # fmt: skip
    names = [output.name for output in graph.output]

    def run(feeds: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            known = dict(constants) | {n: torch.from_numpy(v) for n, v in feeds.items()}
            for rule, attributes, inputs, outputs in steps:
                made = rule(attributes, *(known[i] if i else None for i in inputs))
                made = made if isinstance(made, tuple) else (made,)
                known.update(zip(outputs, made, strict=False))
            return {name: known[name].contiguous().numpy() for name in names}

    return run


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value))


def _gemm(at: Mapping[str, Any], a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    return functional.linear(a, b if at.get("transB") else b.T, c)


def _conv(at: Mapping[str, Any], x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    pads = at.get("pads", [0, 0, 0, 0])
    padded = functional.pad(x, (pads[1], pads[3], pads[0], pads[2]))
    return functional.conv2d(padded, w, b, stride=at.get("strides", [1, 1]))


def _slice(
    at: Mapping[str, Any], x: Tensor, starts: Tensor, ends: Tensor, axes: Tensor | None = None
) -> Tensor:
    along = range(len(starts)) if axes is None else axes.tolist()
    for start, end, axis in zip(starts.tolist(), ends.tolist(), along, strict=True):
        size = x.shape[axis]
        start, end = (min(max(n + size if n < 0 else n, 0), size) for n in (start, end))
        x = x.narrow(axis, start, end - start)
    return x


def _reshape(at: Mapping[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(shape.tolist())])


def _lstm(at: Mapping[str, Any], x: Tensor, w: Tensor, r: Tensor, b: Tensor, _: None,
          h: Tensor, c: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    """One step; ONNX's gates: input, output, forget, cell."""
    size = at["hidden_size"]
    sums = functional.linear(x[0], w[0], b[0, : 4 * size])
    sums = sums + functional.linear(h[0], r[0], b[0, 4 * size :])
    enter, leave, keep, new = sums.chunk(4, dim=1)
    c = keep.sigmoid() * c[0] + enter.sigmoid() * new.tanh()
    h = leave.sigmoid() * c.tanh()
    return h[None, None], h[None], c[None]


def _gru(at: Mapping[str, Any], x: Tensor, w: Tensor, r: Tensor, b: Tensor, _: None,
         h: Tensor) -> tuple[Tensor, ...]:  # fmt: skip
    """One step, the reset gate after the product; ONNX's gates: update, reset, new."""
    size = at["hidden_size"]
    seen = functional.linear(x[0], w[0], b[0, : 3 * size]).chunk(3, dim=1)
    kept = functional.linear(h[0], r[0], b[0, 3 * size :]).chunk(3, dim=1)
    update, reset = ((s + k).sigmoid() for s, k in zip(seen[:2], kept[:2], strict=True))
    new = (seen[2] + reset * kept[2]).tanh()
    h = (1 - update) * new + update * h[0]
    return h[None, None], h[None]


def _one_hot(at: Mapping[str, Any], index: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    hot = functional.one_hot(index, int(depth)).to(values.dtype)
    return values[0] + hot * (values[1] - values[0])


RULES: Mapping[str, Rule] = {
    "Abs": lambda at, x: x.abs(),
    "Add": lambda at, a, b: a + b,
    "ArgMax": lambda at, x: x.argmax(at["axis"], keepdim=bool(at.get("keepdims", 1))),
    "Cast": lambda at, x: x.float(),
    "Clip": lambda at, x, low, high: x.clip(low, high),
    "Concat": lambda at, *parts: torch.cat(parts, at["axis"]),
    "Conv": _conv,
    "Cos": lambda at, x: x.cos(),
    "DepthToSpace": lambda at, x: functional.pixel_shuffle(x, at["blocksize"]),
    "Div": lambda at, a, b: a / b,
    "Erf": lambda at, x: x.erf(),
    "Exp": lambda at, x: x.exp(),
    "GRU": _gru,
    "Gather": lambda at, x, i: x.select(at.get("axis", 0), int(i)),
    "Gemm": _gemm,
    "Greater": lambda at, a, b: a > b,
    "Identity": lambda at, x: x,
    "LSTM": _lstm,
    "LayerNormalization": lambda at, x, scale, shift: functional.layer_norm(
        x, x.shape[-1:], scale, shift, at.get("epsilon", 1e-5)
    ),
    "Log": lambda at, x: x.log(),
    "MatMul": lambda at, a, b: a @ b,
    "Max": lambda at, *parts: torch.stack(parts).amax(0),
    "Min": lambda at, a, b: torch.minimum(a, b),
    "Mul": lambda at, a, b: a * b,
    "Neg": lambda at, x: -x,
    "OneHot": _one_hot,
    "ReduceMean": lambda at, x: x.mean(at["axes"], keepdim=bool(at.get("keepdims", 1))),
    "Relu": lambda at, x: x.relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda at, x: x.sigmoid(),
    "Sign": lambda at, x: x.sign(),
    "Sin": lambda at, x: x.sin(),
    "Slice": _slice,
    "Softmax": lambda at, x: x.softmax(at.get("axis", -1)),
    "Softplus": lambda at, x: functional.softplus(x),
    "Sqrt": lambda at, x: x.sqrt(),
    "Squeeze": lambda at, x, axes: x.squeeze(int(axes)),
    "Sub": lambda at, a, b: a - b,
    "Tanh": lambda at, x: x.tanh(),
    "Transpose": lambda at, x: x.permute(at["perm"]),
    "Unsqueeze": lambda at, x, axes: x.unsqueeze(int(axes)),
    "Where": lambda at, c, a, b: torch.where(c, a, b),
}
