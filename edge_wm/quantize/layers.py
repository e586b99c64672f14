"""A bundle's functions as step programs, with any choice of their layers in int8.

A *layer* is what `keep` of the compiler names: a dense layer or convolution, written
`function:name`, as in `dynamics:/net/0/MatMul`. A function without an ONNX graph that the compiler
can express runs in both precisions on what it has.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edge_wm.backends import BACKENDS, Graph, choose, load_graph
from edge_wm.bundle import Bundle, Function
from edge_wm.bundle.program import Dense, Port, Program, accesses, write_program
from edge_wm.compiler import compile_graph, int8_layers
from edge_wm.errors import UnsupportedOperation
from edge_wm.types import Array

SATURATED_SHARE = 0.99  # of a layer's numbers at the ends of tanh or sigmoid: it says nothing more
AT_END = 1e-3  # so near to an end is at it
CONSTANT_ROWS = 8  # with fewer different inputs nothing can be said to be constant


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer that int8 makes smaller."""

    function: str
    name: str  # for the compiler's `keep`
    numbers: int  # of its weights

    def __str__(self) -> str:
        return f"{self.function}:{self.name}"


class Programs:
    """The step programs of a bundle's functions, compiled and loaded once for each choice."""

    def __init__(self, bundle: Bundle, functions: Collection[str]) -> None:
        """functions: those whose layers may become int8."""
        self.bundle = bundle
        self.functions = {str(name): f for name, f in bundle.manifest.functions.items()}
        self.not_native: dict[str, str] = {}  # function -> why it has no step program of ours
        self._made: dict[tuple[str, frozenset[str]], Program] = {}
        self._blobs: dict[tuple[str, frozenset[str]], bytes] = {}
        self._graphs: dict[tuple[str, frozenset[str]], Graph] = {}
        layers: list[Layer] = []
        for name, function in self.functions.items():
            if "onnx" not in function.graphs:
                self.not_native[name] = "the bundle has no ONNX graph of it"
                continue
            try:
                found = int8_layers(self._onnx(function), function, f"{name}.onnx")
            except UnsupportedOperation as error:
                self.not_native[name] = str(error)
                continue
            if name in functions:
                layers += [Layer(name, layer, numbers) for layer, numbers in found.items()]
        self.layers = tuple(layers)

    def blob(self, name: str, int8: Collection[Layer]) -> bytes | None:
        """The step program of a function with these layers in int8; None if it has none of ours."""
        return None if name in self.not_native else self._blob(name, self._choice(name, int8))

    def graphs(self, int8: Collection[Layer]) -> dict[str, Graph]:
        """Every function, loaded, with these layers in int8."""
        return {name: self.graph(name, int8) for name in self.functions}

    def graph(self, name: str, int8: Collection[Layer]) -> Graph:
        choice = self._choice(name, int8)
        if (name, choice) not in self._graphs:
            self._graphs[name, choice] = self._loaded(name, choice)
        return self._graphs[name, choice]

    def is_int8(self, name: str, int8: Collection[Layer]) -> bool:
        """Whether any layer of the function is."""
        return any(layer.function == name for layer in int8)

    def _loaded(self, name: str, choice: frozenset[str]) -> Graph:
        function = self.functions[name]
        if name not in self.not_native:
            return load_graph(self._blob(name, choice), function, "native", name=name)
        backend = choose(name, function.graphs)
        digests = {str(kind): digest for kind, digest in function.graphs.items()}
        return load_graph(
            self.bundle.blob(digests[BACKENDS[backend]]), function, backend, name=name
        )

    def _choice(self, name: str, int8: Collection[Layer]) -> frozenset[str]:
        return frozenset(layer.name for layer in int8 if layer.function == name)

    def _blob(self, name: str, choice: frozenset[str]) -> bytes:
        if (name, choice) not in self._blobs:
            self._blobs[name, choice] = write_program(self._program(name, choice))
        return self._blobs[name, choice]

    def _program(self, name: str, choice: frozenset[str]) -> Program:
        if (name, choice) not in self._made:
            self._made[name, choice] = self._compiled(name, choice)
        return self._made[name, choice]

    def _compiled(self, name: str, choice: frozenset[str]) -> Program:
        function = self.functions[name]
        keep = {
            layer.name
            for layer in self.layers
            if layer.function == name and layer.name not in choice
        }
        return compile_graph(
            self._onnx(function),
            function,
            f"{name}.onnx",
            precision="int8" if choice else "float32",
            keep=keep,
        )

    def _onnx(self, function: Function) -> memoryview:
        return self.bundle.blob(function.graphs["onnx"])

    # ---- what a layer gives on data -----------------------------------------------------------
    def trouble(self, layer: Layer, feeds: list[Mapping[str, Array]]) -> str | None:
        """Why a layer, in float32, says nothing on what its function was fed; None if it does."""
        program = self._program(layer.function, frozenset())
        # The same operations in the same order: those that int8 would change are the layer's.
        changed = self._program(layer.function, frozenset({layer.name}))
        outputs = dict.fromkeys(
            (o.out.register, o.activation)
            for o, other in zip(program.operations, changed.operations, strict=True)
            if isinstance(o, Dense)
            and isinstance(other, Dense)
            and any(s.scale is not None for s in other.segments)
        )
        widths = {register: program.registers[register].width for register, _ in outputs}
        each_row = _batched(program)
        ports = [
            Port(tensor=f"layer {r}", shape=(width,), batched=r in each_row, register=r)
            for r, width in widths.items()
        ]
        probe = Program(
            program.inputs, tuple(ports), program.registers, program.operations, program.constants
        )
        declared = _Declared(self.functions[layer.function].inputs, ports)
        graph = load_graph(write_program(probe), declared, "native", name=layer.function)
        given = [graph.run(feed) for feed in feeds]
        varied = _different_rows(program, feeds) >= CONSTANT_ROWS
        for register, activation in outputs:
            values = np.concatenate(
                [np.reshape(g[f"layer {register}"], (-1, widths[register])) for g in given]
            )
            if not np.isfinite(values).all():
                return "gives NaN or infinity"
            if varied and not np.ptp(values, axis=0).any():
                return f"gives the same {values.shape[1]} numbers in all {len(values)} rows"
            ends = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}.get(activation, ())
            at_end = np.zeros(values.shape, np.bool_)
            for end in ends:
                at_end |= np.abs(values - end) < AT_END
            if at_end.mean() >= SATURATED_SHARE:
                return (
                    f"is saturated: {at_end.mean():.1%} of its numbers are an end of {activation}"
                )
        return None


def _different_rows(program: Program, feeds: list[Mapping[str, Array]]) -> int:
    """How many rows of inputs differ from each other."""
    found = set()
    for feed in feeds:
        batched = [feed[port.tensor] for port in program.inputs if port.batched]
        alone = b"".join(feed[port.tensor].tobytes() for port in program.inputs if not port.batched)
        for row in range(len(batched[0]) if batched else 1):
            found.add(alone + b"".join(value[row].tobytes() for value in batched))
    return len(found)


def _batched(program: Program) -> set[int]:
    """The registers that have a row for each candidate."""
    found = {port.register for port in program.inputs if port.batched}
    for operation in program.operations:
        touched = list(accesses(operation))
        if any(access.register in found for access in touched if not access.writes):
            found |= {access.register for access in touched if access.writes}
    return found


@dataclass(frozen=True)
class _Declared:
    """What a probe's graph is held against: the function's inputs, and the layers as outputs."""

    inputs: Any
    ports: list[Port]

    @property
    def outputs(self) -> list[Any]:
        return [
            _Tensor(port.tensor, (-1, *port.shape) if port.batched else port.shape)
            for port in self.ports
        ]


class _Tensor(msgspec.Struct, frozen=True):
    tensor: str
    shape: tuple[int, ...]
    dtype: str = "float32"
