"""Find in a graph what exporters have taken apart: activations, norms, attention, affine layers.

Every pattern looks from its last node upward, at what gives its inputs. If it fits, the last node
is replaced by one that does it all; what is then read by nobody is swept away. So a pattern need
not ask who else reads its parts. Only where a node is changed (a bias taken into a dense layer)
it must have no other reader.

New operators that the rules know beside ONNX's: Dense, Convolution, Norm, Activation,
ScaledAttention, LargestOneHot.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_wm.compiler.graph import Form, Graph, Node
from edge_wm.types import Array

Pattern = Callable[["Finder", Node], Node | None]


def fuse(graph: Graph) -> None:
    """Rewrite the graph in place."""
    _bypass(graph)
    _deduplicate(graph)
    _prepare(graph)
    for patterns in ((_activation, _norm), (_one_hot, _attention)):
        finder = Finder(graph)
        for index, node in enumerate(graph.nodes):
            for pattern in patterns:
                found = pattern(finder, node)
                if found is not None:
                    graph.nodes[index] = found
                    finder.put(found)
                    break
        graph.sweep()
    while _absorb(graph):
        graph.sweep()


class Finder:
    """Looks upward from a tensor."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.given = graph.producers()

    def put(self, node: Node) -> None:
        self.given.update(dict.fromkeys(node.outputs, node))

    def of(self, name: str, op: str) -> Node | None:
        """The node that gives `name`, if it is an `op`."""
        node = self.given.get(name)
        return node if node is not None and node.op == op else None

    def number(self, name: str) -> float | None:
        """A constant of one number."""
        value = self.graph.constants.get(name)
        return float(value.flat[0]) if value is not None and value.size == 1 else None

    def with_number(self, name: str, *ops: str) -> tuple[str, float] | None:
        """(other input, number) of a node of two inputs in any order (Div, Pow: number second)."""
        node = self.given.get(name)
        if node is None or node.op not in ops or len(node.inputs) != 2:
            return None
        a, b = node.inputs
        if (value := self.number(b)) is not None:
            return a, value
        if node.op in ("Add", "Mul") and (value := self.number(a)) is not None:
            return b, value
        return None

    def factors(self, name: str, depth: int = 4) -> tuple[float, list[str]]:
        """A tensor as a number times other tensors, as far as it is a product of a few."""
        node = self.given.get(name)
        if (value := self.number(name)) is not None:
            return value, []
        if node is None or depth == 0:
            return 1.0, [name]
        if node.op == "Mul":
            (m, left), (n, right) = (self.factors(i, depth - 1) for i in node.inputs)
            return m * n, left + right
        if (found := self.with_number(name, "Div")) is not None and found[1] != 0:
            m, left = self.factors(found[0], depth - 1)
            return m / found[1], left
        if (found := self.with_number(name, "Pow")) is not None and found[1] in (2, 3):
            return 1.0, [found[0]] * int(found[1])
        return 1.0, [name]


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


# ---- one form for each kind of layer ------------------------------------------------------
def _prepare(graph: Graph) -> None:
    """Layers with constant weights, and norms, in the forms of this package."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op in ("MatMul", "Gemm"):
            nodes += _matmul(graph, node) if node.op == "MatMul" else _gemm(graph, node)
        elif node.op == "Conv":
            nodes.append(_convolution(graph, node))
        elif node.op == "BatchNormalization":
            nodes += _batch_norm(graph, node)
        elif node.op in ("LayerNormalization", "RMSNormalization"):
            nodes.append(_norm_operator(graph, node))
        else:
            nodes.append(node)
    graph.nodes = nodes


def _dense(node: Node, x: str, weight: Array, names: list[str], bias: Array | None) -> Node:
    settings = {"weights": [weight.astype(np.float32)], "names": names, "bias": bias}
    return Node("Dense", node.name, [x], list(node.outputs), settings)


def _swapped(graph: Graph, name: str, node: Node) -> tuple[Node, str]:
    """A node that exchanges a tensor's last two axes, and what it gives."""
    form = graph.form(name, node)
    perm = [*range(len(form.shape) - 2), len(form.shape) - 1, len(form.shape) - 2]
    batch = None if form.batch is None else perm.index(form.batch)
    made = graph.fresh(name, Form(form.dtype, tuple(form.shape[p] for p in perm), batch))
    return Node("Transpose", node.name, [name], [made], {"perm": perm}), made


def _matmul(graph: Graph, node: Node) -> list[Node]:
    a, b = node.inputs
    if b in graph.constants:
        weight = graph.constants[b]
        if weight.ndim > 1 and (weight.ndim == 2 or len(graph.form(a, node).shape) > 1):
            return [_dense(node, a, weight.swapaxes(-1, -2), [b], None)]
        if weight.ndim == 1:  # one output, without an axis
            form = graph.form(node.outputs[0], node)
            made = graph.fresh(node.outputs[0], Form(form.dtype, (*form.shape, 1), form.batch))
            dense = _dense(node, a, weight[None], [b], None)
            dense.outputs = [made]
            return [dense, Node("Reshape", node.name, [made], node.outputs)]
    if a in graph.constants and graph.constants[a].ndim > 1:
        if len(graph.form(b, node).shape) == 1:
            return [_dense(node, b, graph.constants[a], [a], None)]
        first, turned = _swapped(graph, b, node)
        form = graph.form(node.outputs[0], node)
        last, made = _swapped(graph, node.outputs[0], node)
        dense = _dense(node, turned, graph.constants[a], [a], None)
        dense.outputs = [made]
        last = Node("Transpose", node.name, [made], node.outputs, last.attributes)
        assert graph.form(made, node).shape[-1] == form.shape[-2]
        return [first, dense, last]
    return [node]


def _gemm(graph: Graph, node: Node) -> list[Node]:
    settings = node.attributes
    alpha, beta = settings.get("alpha", 1.0), settings.get("beta", 1.0)
    a, b = node.inputs[:2]
    c = node.inputs[2] if len(node.inputs) > 2 else ""
    if b not in graph.constants:
        return [node]
    nodes = []
    if settings.get("transA", 0):
        turn, a = _swapped(graph, a, node)
        nodes.append(turn)
    weight = graph.constants[b].astype(np.float32)
    weight = weight if settings.get("transB", 0) else weight.T
    dense = _dense(node, a, weight * np.float32(alpha), [b], None)
    shape = graph.constants[c].shape if c in graph.constants else None
    if not c or (shape is not None and (len(shape) < 2 or shape[0] == 1)):
        dense.attributes["bias"] = _bias(graph.constants[c] * beta, len(weight)) if c else None
        return [*nodes, dense]
    form = graph.form(node.outputs[0], node)
    dense.outputs = [graph.fresh(node.outputs[0], form)]
    if beta != 1:
        scaled = graph.fresh(c, graph.form(c, node))
        number = graph.constant(c, np.array(beta, np.float32))
        nodes.append(Node("Mul", node.name, [c, number], [scaled]))
        c = scaled
    return [*nodes, dense, Node("Add", node.name, [dense.outputs[0], c], node.outputs)]


def _bias(value: Array, size: int) -> Array:
    return np.broadcast_to(value.astype(np.float32).reshape(-1), (size,)).copy()


def _convolution(graph: Graph, node: Node) -> Node:
    names = node.inputs[1:]
    if any(name not in graph.constants for name in names if name):
        graph.refuse(node, "its weights must be constant")
    weight, *bias = (graph.constants[name].astype(np.float32) for name in names if name)
    settings = {"weight": weight, "names": names[:1], "bias": bias[0] if bias else None}
    return Node("Convolution", node.name, node.inputs[:1], node.outputs, node.attributes | settings)


def _batch_norm(graph: Graph, node: Node) -> list[Node]:
    """A scale and a shift of every channel, which a layer before may take in."""
    names = node.inputs[1:]
    if any(name not in graph.constants for name in names) or node.attributes.get("training_mode"):
        graph.refuse(node, "its statistics must be constant")
    form = graph.form(node.inputs[0], node)
    scale, bias, mean, variance = (graph.constants[name].astype(np.float64) for name in names)
    scale = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    wide = (-1, *[1] * (len(form.shape) - 2))
    constants = [
        graph.constant(node.outputs[0], value.astype(np.float32).reshape(wide))
        for value in (scale, bias - mean * scale)
    ]
    made = graph.fresh(node.outputs[0], form)
    return [
        Node("Mul", node.name, [node.inputs[0], constants[0]], [made]),
        Node("Add", node.name, [made, constants[1]], node.outputs[:1]),
    ]


def _norm_operator(graph: Graph, node: Node) -> Node:
    """LayerNormalization and RMSNormalization; what else they give must not be read."""
    names = [name for name in node.inputs[1:] if name]
    if any(name not in graph.constants for name in names):
        graph.refuse(node, "its weight and bias must be constant")
    if graph.reads().keys() & set(node.outputs[1:]):
        graph.refuse(node, "its mean and deviation are read")
    values = [graph.constants[name].astype(np.float32) for name in names] + [None, None]
    rank = len(graph.form(node.inputs[0], node).shape)
    settings = {
        "kind": "layer" if node.op == "LayerNormalization" else "rms",
        "axis": node.attributes.get("axis", -1) % rank,
        "epsilon": node.attributes.get("epsilon", 1e-5),
        "weight": values[0],
        "bias": values[1],
    }
    return Node("Norm", node.name, node.inputs[:1], node.outputs[:1], settings)


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
    settings = {"scale": float(scale), "causal": bool(blocked.any())}
    inputs = [*scores.inputs, node.inputs[1]]
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


# ---- scales and biases ----------------------------------------------------------------------
def _absorb(graph: Graph) -> bool:
    """Take constant scales and biases, and sums of two dense layers, into the layer before."""
    given, reads = graph.producers(), graph.reads()
    for index, node in enumerate(graph.nodes):
        if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
            continue
        for x, other in (node.inputs, node.inputs[::-1]):
            layer = given.get(x)
            if layer is None or reads.get(x) != 1 or layer.op not in _TAKES:
                continue
            second = given.get(other)
            made = None
            if other in graph.constants and (x == node.inputs[0] or node.op in ("Add", "Mul")):
                made = _with_constant(graph, layer, node, graph.constants[other])
            elif second is not None and second.op == layer.op == "Dense" and reads[other] == 1:
                made = _sum(graph, layer, second, node)
            if made is not None:
                graph.nodes[index] = made
                return True
    return False


_TAKES = ("Dense", "Convolution", "Norm")


def _with_constant(graph: Graph, layer: Node, node: Node, value: Array) -> Node | None:
    """`layer` followed by an Add, Sub, Mul or Div with a constant, as one layer."""
    before, after = graph.forms[layer.outputs[0]], graph.forms[node.outputs[0]]
    if before != after or isinstance(before, str) or value.ndim > len(before.shape):
        return None
    value = value.astype(np.float32)
    value = value.reshape(*[1] * (len(before.shape) - value.ndim), *value.shape)
    if node.op in ("Sub", "Div"):
        value = -value if node.op == "Sub" else 1 / value
    settings = dict(layer.attributes)
    scales = node.op in ("Mul", "Div")
    if layer.op == "Norm":
        free = settings["weight"] is None and settings["bias"] is None
        axis = settings["axis"]
        if (
            (scales and not free)
            or settings["bias"] is not None
            or max((*value.shape[:axis], 1)) > 1
        ):
            return None
        settings["weight" if scales else "bias"] = value.reshape(value.shape[axis:])
    elif layer.op == "Convolution":
        if value.size != max(1, value.shape[1]):
            return None
        each = np.broadcast_to(value.ravel(), (len(settings["weight"]),))
        if scales:
            wide = each.reshape(-1, *[1] * (settings["weight"].ndim - 1))
            settings["weight"] = settings["weight"] * wide
        settings["bias"] = _combined(settings["bias"], each, scales)
    else:
        if value.ndim > 1 and value.shape[-2] != 1:
            return None
        lead = np.broadcast_shapes(*(w.shape[:-2] for w in settings["weights"]))
        per = value.reshape(*value.shape[:-2], value.shape[-1]) if value.ndim > 1 else value
        while per.ndim > 1 + len(lead) and per.shape[0] == 1:
            per = per[0]
        if not _fits(per.shape[:-1], lead):
            return None
        if scales:
            settings["weights"] = [w * per[..., None] for w in settings["weights"]]
        size = settings["weights"][0].shape[-2]
        per = np.broadcast_to(per, (*per.shape[:-1], size))
        settings["bias"] = _combined(settings["bias"], per, scales)
    return Node(layer.op, layer.name, layer.inputs, node.outputs, settings)


def _fits(shape: tuple[int, ...], lead: tuple[int, ...]) -> bool:
    """Whether broadcasting to `lead` leaves it as it is."""
    try:
        return np.broadcast_shapes(shape, lead) == lead
    except ValueError:
        return False


def _combined(bias: Array | None, value: Array, scales: bool) -> Array | None:
    if bias is None:
        return None if scales else np.array(value, np.float32)
    return bias * value if scales else bias + value


def _sum(graph: Graph, a: Node, b: Node, node: Node) -> Node | None:
    """Two dense layers added up are one with more segments."""
    forms = [graph.forms[n.outputs[0]] for n in (a, b, node)]
    if node.op != "Add" or forms[0] != forms[1] or forms[1] != forms[2] or a is b:
        return None
    x, y = a.attributes, b.attributes
    biases = [bias for bias in (x["bias"], y["bias"]) if bias is not None]
    settings = {
        "weights": x["weights"] + y["weights"],
        "names": [*x["names"], *y["names"], b.name],
        "bias": sum(biases[1:], biases[0]) if biases else None,
    }
    return Node("Dense", a.name, a.inputs + b.inputs, node.outputs, settings)
