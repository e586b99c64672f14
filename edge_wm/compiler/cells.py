"""Find LSTM and GRU cells that exporters took apart into gates.

    LSTM   c' = sigmoid(f) c + sigmoid(i) tanh(g)        h' = sigmoid(o) tanh(c')
    GRU    n = tanh(xn + sigmoid(xr + hr) hn)            h' = n + sigmoid(xz + hz) (h - n)

The gates are the parts of one Split (the GRU's of two, of what input and state give), along the
last axis and of one size; their order is the cell's.
"""

from __future__ import annotations

from edge_wm.compiler.finder import Finder
from edge_wm.compiler.graph import Form, Graph, Node

LSTM_ORDERS = ("iofg", "ifgo", "igfo")
GRU_ORDERS = ("zrn", "rzn")


def fuse_cells(graph: Graph) -> None:
    """Replace cells by LstmStep (gates, c) and GruStep (x gates, h gates, h)."""
    f = Finder(graph)
    for index, node in enumerate(graph.nodes):
        made = _gru(f, node) if node.op == "Add" else None
        if made is not None:
            graph.nodes[index] = made
    graph.sweep()
    f = Finder(graph)
    for node in list(graph.nodes):
        cell = _lstm(f, node) if node.op == "Mul" else None
        if cell is not None:  # where c' was; what gave h' goes
            at = next(i for i, n in enumerate(graph.nodes) if n.outputs == cell.outputs[1:])
            graph.nodes[at] = cell
            graph.nodes.remove(node)
    graph.sweep()


def _gate(f: Finder, name: str, parts: int) -> tuple[str, int] | None:
    """(what was split, which part) of a gate."""
    split = f.of(name, "Split")
    if split is None or len(split.outputs) != parts:
        return None
    forms = [f.graph.forms[output] for output in (*split.inputs[:1], *split.outputs)]
    shapes = [form.shape for form in forms if isinstance(form, Form)]
    last = split.attributes.get("axis", 0) % len(shapes[0]) == len(shapes[0]) - 1
    flat = all(size == 1 for size in shapes[0][:-1])
    if not last or not flat or len(shapes) != parts + 1 or len(set(shapes[1:])) != 1:
        return None
    return split.inputs[0], split.outputs.index(name)


def _pairs(node: Node) -> tuple[tuple[str, str], tuple[str, str]]:
    a, b = node.inputs
    return (a, b), (b, a)


def _lstm(f: Finder, node: Node) -> Node | None:
    """From h' = sigmoid(o) tanh(c')."""
    for gate, state in _pairs(node):
        o, tanh = f.of(gate, "Sigmoid"), f.of(state, "Tanh")
        total = f.of(tanh.inputs[0], "Add") if tanh else None
        if o is None or total is None:
            continue
        for kept, new in _pairs(total):
            found = _lstm_gates(f, kept, new)
            if found is None:
                continue
            names, c = found
            gates = [_gate(f, name, 4) for name in (*names, o.inputs[0])]
            if any(g is None or gates[0] is None or g[0] != gates[0][0] for g in gates):
                continue
            places = [g[1] for g in gates if g is not None]
            order = "".join(letter for _, letter in sorted(zip(places, "figo", strict=True)))
            if order in LSTM_ORDERS and gates[0] is not None:
                return Node("LstmStep", node.name, [gates[0][0], c],
                            [node.outputs[0], total.outputs[0]], {"order": order})  # fmt: skip
    return None


def _lstm_gates(f: Finder, kept: str, new: str) -> tuple[tuple[str, str, str], str] | None:
    """((f, i, g), c) of sigmoid(f) c and sigmoid(i) tanh(g)."""
    first, second = f.of(kept, "Mul"), f.of(new, "Mul")
    if first is None or second is None:
        return None
    for forget, c in _pairs(first):
        for enter, candidate in _pairs(second):
            gates = f.of(forget, "Sigmoid"), f.of(enter, "Sigmoid"), f.of(candidate, "Tanh")
            if gates[0] and gates[1] and gates[2]:
                return (gates[0].inputs[0], gates[1].inputs[0], gates[2].inputs[0]), c
    return None


def _gru(f: Finder, node: Node) -> Node | None:
    """From h' = n + z (h - n)."""
    for new, rest in _pairs(node):
        tanh, product = f.of(new, "Tanh"), f.of(rest, "Mul")
        if tanh is None or product is None:
            continue
        for difference, gate in _pairs(product):
            apart, z = f.of(difference, "Sub"), f.of(gate, "Sigmoid")
            if apart is None or z is None or apart.inputs[1] != new:
                continue
            found = _gru_gates(f, tanh, z)
            if found is not None:
                x, h, order = found
                return Node("GruStep", node.name, [x, h, apart.inputs[0]], node.outputs,
                            {"order": order})  # fmt: skip
    return None


def _gru_gates(f: Finder, tanh: Node, z: Node) -> tuple[str, str, str] | None:
    """(x gates, h gates, order) of n = tanh(xn + sigmoid(xr + hr) hn) and z = sigmoid(xz + hz)."""
    total, update = f.of(tanh.inputs[0], "Add"), f.of(z.inputs[0], "Add")
    for xn, product in _pairs(total) if total and update else ():
        inner = f.of(product, "Mul")
        for gate, hn in _pairs(inner) if inner else ():
            r = f.of(gate, "Sigmoid")
            reset = f.of(r.inputs[0], "Add") if r else None
            x, h = _gate(f, xn, 3), _gate(f, hn, 3)
            if reset is None or x is None or h is None or x[1] != h[1] or update is None:
                continue
            places = [_both(f, add, x[0], h[0]) for add in (update, reset)]
            ranks = [*places, x[1]]
            order = "".join(
                letter for _, letter in sorted(zip(ranks, "zrn", strict=True), key=lambda p: p[0])
            )
            if min(places) >= 0 and order in GRU_ORDERS and len(set(ranks)) == 3:
                return x[0], h[0], order
    return None


def _both(f: Finder, add: Node, x: str, h: str) -> int:
    """Which part of both x and h is added up; -1 if none is."""
    parts = [_gate(f, name, 3) for name in add.inputs]
    found = {part[0]: part[1] for part in parts if part is not None}
    if set(found) == {x, h} and x != h and found[x] == found[h]:
        return found[x]
    return -1
