"""Bring layers with constant weights into one form each, and constants after them into them.

    MatMul, Gemm                   Dense: weights [(..., N, K)] of its inputs, names, bias (..., N)
    Conv                           Conv: weight, names, bias as attributes
    LayerNormalization, RMS...     Norm: kind, axis, epsilon, weight, bias
    BatchNormalization             Mul and Add, which the layer before takes in

A layer that takes in what follows it must have no other reader.
"""

from __future__ import annotations

import numpy as np

from edge_wm.compiler.graph import Form, Graph, Node
from edge_wm.types import Array


def prepare(graph: Graph) -> None:
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
    _unflatten(graph)


def _unflatten(graph: Graph) -> None:
    """Reshape, Dense, Reshape where the first mixes tokens and candidates, (T, K) to (T K): the
    dense layer gets its tokens in the last one's shape, where they are apart."""
    given, reads = graph.producers(), graph.reads()
    for index, node in enumerate(graph.nodes):
        dense = given.get(node.inputs[0]) if node.op == "Reshape" else None
        if dense is None or dense.op != "Dense" or reads[dense.outputs[0]] != 1:
            continue
        first, weight = given.get(dense.inputs[0]), dense.attributes["weights"][0]
        after = graph.forms[node.outputs[0]]
        if first is None or first.op != "Reshape" or isinstance(after, str) or weight.ndim != 2:
            continue
        if len(after.shape) < 2 or after.shape[-1] != len(weight):
            continue
        form = Form(after.dtype, (*after.shape[:-1], weight.shape[1]), after.batch)
        made = graph.fresh(dense.inputs[0], form)
        graph.nodes[graph.nodes.index(dense)] = Node("Reshape", first.name, first.inputs, [made])
        graph.nodes[index] = Node("Dense", dense.name, [made], node.outputs, dense.attributes)
    graph.sweep()


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
    return np.array(np.broadcast_to(value.reshape(-1), (size,)), np.float32)


def _convolution(graph: Graph, node: Node) -> Node:
    names = node.inputs[1:]
    if any(name not in graph.constants for name in names if name):
        graph.refuse(node, "its weights must be constant")
    weight, *bias = (graph.constants[name].astype(np.float32) for name in names if name)
    settings = {"weight": weight, "names": names[:1], "bias": bias[0] if bias else None}
    return Node("Conv", node.name, node.inputs[:1], node.outputs, node.attributes | settings)


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


# ---- scales and biases ----------------------------------------------------------------------
def absorb(graph: Graph) -> bool:
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


_TAKES = ("Dense", "Conv", "Norm")


def _with_constant(graph: Graph, layer: Node, node: Node, value: Array) -> Node | None:
    """`layer` followed by an Add, Sub, Mul or Div with a constant, as one layer."""
    before, after = graph.forms[layer.outputs[0]], graph.forms[node.outputs[0]]
    if before != after or isinstance(before, str) or value.ndim > len(before.shape):
        return None
    if node.op == "Div" and not value.all():
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
    elif layer.op == "Conv":
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
