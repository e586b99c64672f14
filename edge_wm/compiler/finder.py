"""Look upward in a graph: which node gives a tensor, and what is it made of?"""

from __future__ import annotations

from edge_wm.compiler.graph import Graph, Node


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
