"""Find in a graph what exporters have taken apart: activations, norms, attention.

Every pattern looks from its last node upward, at what gives its inputs. If it fits, the last node
is replaced by one that does it all; what is then read by nobody is swept away. So a pattern need
not ask who else reads its parts.

New operators that the rules know beside ONNX's: Activation, Norm, ScaledAttention and
LargestOneHot here, Dense in layers.py, LstmStep and GruStep in cells.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_wm.compiler.cells import fuse_cells
from edge_wm.compiler.finder import Finder
from edge_wm.compiler.graph import Form, Graph, Node
from edge_wm.compiler.layers import absorb, prepare
from edge_wm.types import Array

Pattern = Callable[[Finder, Node], Node | None]


def fuse(graph: Graph) -> None:
    """Rewrite the graph in place."""
    _bypass(graph)
    _deduplicate(graph)
    prepare(graph)
    for patterns in ((_activation, _norm), (_one_hot, _is_largest, _attention)):
        finder = Finder(graph)
        for index, node in enumerate(graph.nodes):
            for pattern in patterns:
                found = pattern(finder, node)
                if found is not None:
                    graph.nodes[index] = found
                    finder.put(found)
                    break
        graph.sweep()
    while absorb(graph):
        graph.sweep()
    fuse_cells(graph)


# ---- what is the same ---------------------------------------------------------------------
def _bypass(graph: Graph) -> None:
    """Read past nodes that change nothing."""
    alias: dict[str, str] = {}
    for node in graph.nodes:
        node.inputs = [alias.get(name, name) for name in node.inputs]
        if _changes_nothing(graph, node):
            alias[node.outputs[0]] = node.inputs[0]
    graph.sweep()


def _changes_nothing(graph: Graph, node: Node) -> bool:
    if node.op == "Identity" or (node.op == "Dropout" and "training_mode" not in node.attributes):
        return True
    if node.op in ("Cast", "CastLike"):
        forms = [graph.forms[name] for name in (node.inputs[0], node.outputs[0])]
        kinds = [form.dtype.rstrip("0123456789") for form in forms if isinstance(form, Form)]
        return len(set(kinds)) == 1 and len(kinds) == 2
    return False


def _deduplicate(graph: Graph) -> None:
    """Read the first of several nodes that compute the same."""
    alias: dict[str, str] = {}
    first: dict[tuple[Any, ...], Node] = {}
    for node in graph.nodes:
        node.inputs = [alias.get(name, name) for name in node.inputs]
        settings = tuple(
            (key, (v.shape, v.dtype.name, v.tobytes()) if isinstance(v, np.ndarray) else repr(v))
            for key, v in sorted(node.attributes.items())
        )
        # what is left out or depends on the batch may differ between two that look alike
        if any(value is None for value in node.attributes.values()):
            continue
        key = (node.op, tuple(node.inputs), len(node.outputs), settings)
        same = first.setdefault(key, node)
        if same is not node:
            alias.update(zip(node.outputs, same.outputs, strict=True))
    graph.sweep()


# ---- activations ----------------------------------------------------------------------------
def _activation(f: Finder, node: Node) -> Node | None:
    """x sigmoid(x), x tanh(softplus(x)), and the two forms of GELU."""
    if node.op != "Mul":
        return None
    number, parts = f.factors(node.outputs[0])
    if len(parts) != 2:
        return None
    for x, other in (parts, parts[::-1]):
        kind = _gate(f, x, other, number)
        if kind is not None:
            return Node("Activation", node.name, [x], node.outputs, {"kind": kind})
    return None


def _gate(f: Finder, x: str, other: str, number: float) -> str | None:
    """Which activation number * x * other is."""
    if (sigmoid := f.of(other, "Sigmoid")) and sigmoid.inputs == [x] and number == 1:
        return "silu"
    if (tanh := f.of(other, "Tanh")) and number == 1:
        softplus = f.of(tanh.inputs[0], "Softplus")
        return "mish" if softplus and softplus.inputs == [x] else None
    plus = f.with_number(other, "Add")
    if plus is None or plus[1] != 1 or not math.isclose(number, 0.5, rel_tol=1e-6):
        return None
    if erf := f.of(plus[0], "Erf"):
        scale, inner = f.factors(erf.inputs[0])
        if inner == [x] and math.isclose(scale, math.sqrt(0.5), rel_tol=1e-4):
            return "gelu"
    if tanh := f.of(plus[0], "Tanh"):
        scale, inner = f.factors(tanh.inputs[0])
        if math.isclose(scale, math.sqrt(2 / math.pi), rel_tol=1e-4) and _cubic(f, inner, x):
            return "gelu_tanh"
    return None


def _cubic(f: Finder, inner: list[str], x: str) -> bool:
    """Whether a product is x + 0.044715 x^3, or x (1 + 0.044715 x^2)."""
    if len(inner) == 1 and (total := f.of(inner[0], "Add")):
        for one, three in (total.inputs, total.inputs[::-1]):
            scale, parts = f.factors(three)
            if one == x and parts == [x] * 3 and math.isclose(scale, 0.044715, rel_tol=1e-4):
                return True
    if len(inner) == 2 and x in inner:
        plus = f.with_number(inner[1 - inner.index(x)], "Add")
        if plus is not None and plus[1] == 1:
            scale, parts = f.factors(plus[0])
            return parts == [x] * 2 and math.isclose(scale, 0.044715, rel_tol=1e-4)
    return False


# ---- norms --------------------------------------------------------------------------------
def _norm(f: Finder, node: Node) -> Node | None:
    """d / sqrt(mean(d^2) + epsilon): of layer kind where d is x - mean(x), else RMS."""
    if node.op not in ("Div", "Mul") or len(node.inputs) != 2:
        return None
    d, root = node.inputs
    found = _variance(f, root, inverse=node.op == "Mul")
    if found is None and node.op == "Mul":
        root, d = d, root
        found = _variance(f, root, inverse=True)
    if found is None:
        return None
    variance, epsilon = found
    square = _mean(f, variance)
    if square is None or f.factors(square[0])[1] != [d, d]:
        return None
    axis, x, kind = square[1], d, "rms"
    if center := f.of(d, "Sub"):
        middle = _mean(f, center.inputs[1])
        if middle == (center.inputs[0], axis):
            x, kind = center.inputs[0], "layer"
    settings = {"kind": kind, "axis": axis, "epsilon": epsilon, "weight": None, "bias": None}
    return Node("Norm", node.name, [x], node.outputs, settings)


def _variance(f: Finder, name: str, inverse: bool) -> tuple[str, float] | None:
    """(v, epsilon) where `name` is sqrt(v + epsilon), or its inverse."""
    if inverse:
        if (power := f.with_number(name, "Pow")) and power[1] == -0.5:
            return f.with_number(power[0], "Add")
        node = f.of(name, "Reciprocal")
        if node is None and (node := f.of(name, "Div")):
            if f.number(node.inputs[0]) != 1:
                return None
            name = node.inputs[1]
        elif node is not None:
            name = node.inputs[0]
        else:
            return None
    if root := f.of(name, "Sqrt"):
        return f.with_number(root.inputs[0], "Add")
    if (power := f.with_number(name, "Pow")) and power[1] == 0.5:
        return f.with_number(power[0], "Add")
    return None


def _mean(f: Finder, name: str) -> tuple[str, int] | None:
    """(x, first axis) where `name` is the mean of x over its last axes."""
    node = f.of(name, "ReduceMean")
    if node is None or node.attributes.get("keepdims", 1) != 1:
        return None
    axes, form = node.attributes.get("axes"), f.graph.forms[node.inputs[0]]
    if axes is None or isinstance(form, str):
        return None
    rank = len(form.shape)
    found = sorted(int(axis) % rank for axis in axes)
    return (node.inputs[0], found[0]) if found == list(range(found[0], rank)) else None


# ---- one-hot and attention ------------------------------------------------------------------
def _is_largest(f: Finder, node: Node) -> Node | None:
    """ArgMax along the last axis, compared with 0, 1, 2, ...: as PyTorch writes one_hot."""
    if node.op != "Equal":
        return None
    for name, other in (node.inputs, node.inputs[::-1]):
        counted = f.graph.constants.get(other)
        if inserted := f.of(name, "Unsqueeze"):
            name = inserted.inputs[0]
        largest = f.of(name, "ArgMax")
        if largest is None or counted is None:
            continue
        if largest.attributes.get("select_last_index", 0):
            continue
        forms = [f.graph.forms[largest.inputs[0]], f.graph.forms[node.outputs[0]]]
        last = [form.shape for form in forms if isinstance(form, Form)]
        axis = largest.attributes.get("axis", 0) % len(last[0])
        kept = bool(largest.attributes.get("keepdims", 1)) != (inserted is not None)
        counts = np.array_equal(counted.ravel(), np.arange(last[0][-1]))
        if len(last) == 2 and last[0] == last[1] and axis == len(last[0]) - 1 and kept and counts:
            settings = {"axis": axis}
            return Node("LargestOneHot", node.name, largest.inputs[:1], node.outputs, settings)
    return None


def _one_hot(f: Finder, node: Node) -> Node | None:
    """OneHot of ArgMax over as many numbers, along the same axis."""
    if node.op != "OneHot":
        return None
    largest = f.of(node.inputs[0], "ArgMax")
    values, depth = node.attributes.get("values"), node.attributes.get("depth")
    if largest is None or values is None or depth is None or [*values] != [0, 1]:
        return None
    forms = [f.graph.forms[largest.inputs[0]], f.graph.forms[node.outputs[0]]]
    if largest.attributes.get("keepdims", 1) or largest.attributes.get("select_last_index", 0):
        return None
    if any(isinstance(form, str) for form in forms) or forms[0][1:] != forms[1][1:]:
        return None
    rank = len(forms[0][1])
    axis = largest.attributes.get("axis", 0) % rank
    if node.attributes.get("axis", -1) % rank != axis:
        return None
    return Node("LargestOneHot", node.name, [largest.inputs[0]], node.outputs, {"axis": axis})


def _attention(f: Finder, node: Node) -> Node | None:
    """softmax(scale q k^T + mask) v, with a causal mask or none."""
    softmax = f.of(node.inputs[0], "Softmax") if node.op == "MatMul" else None
    if softmax is None:
        return None
    form = f.graph.forms[softmax.outputs[0]]
    if isinstance(form, str) or softmax.attributes.get("axis", -1) not in (-1, len(form.shape) - 1):
        return None
    name, scale = softmax.inputs[0], 1.0
    blocked = np.zeros(form.shape[-2:], bool)
    while (scores := f.of(name, "MatMul")) is None:
        masked = _mask(f, name)
        scaled = f.with_number(name, "Mul", "Div")
        if scaled is not None:
            inverse = f.given[name].op == "Div"
            name, scale = scaled[0], scale / scaled[1] if inverse else scale * scaled[1]
        elif masked is not None and np.broadcast_shapes(masked[1].shape, blocked.shape) == (
            blocked.shape
        ):
            name, blocked = masked[0], blocked | masked[1]
        else:
            return None
    queries, keys = blocked.shape
    causal = np.triu(np.ones(blocked.shape, bool), keys - queries + 1)
    if blocked.any() and not np.array_equal(blocked, causal):
        return None
    inputs = [*scores.inputs, node.inputs[1]]
    for index in range(2):  # PyTorch scales queries and keys, each by the root
        while (scaled := f.with_number(inputs[index], "Mul")) is not None:
            inputs[index], scale = scaled[0], scale * scaled[1]
    settings = {"scale": float(scale), "causal": bool(blocked.any())}
    return Node("ScaledAttention", node.name, inputs, node.outputs, settings)


def _mask(f: Finder, name: str) -> tuple[str, Array] | None:
    """(scores, which are blocked) of scores + 0 or a very negative number; or of a Where."""
    constants = f.graph.constants
    if add := f.of(name, "Add"):
        for scores, mask in (add.inputs, add.inputs[::-1]):
            value = constants.get(mask)
            if value is not None and ((value == 0) | (value <= -1e4)).all():
                return scores, _flat(value != 0)
    if where := f.of(name, "Where"):
        condition, yes, no = where.inputs
        if condition in constants:
            for scores, low, blocked in (
                (yes, f.number(no), ~constants[condition].astype(bool)),
                (no, f.number(yes), constants[condition].astype(bool)),
            ):
                if low is not None and low <= -1e4:
                    return scores, _flat(blocked)
    return None


def _flat(mask: Array) -> Array:
    """Without leading axes of one number."""
    while mask.ndim > 2 and mask.shape[0] == 1:
        mask = mask[0]
    return mask
