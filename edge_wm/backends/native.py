"""Step programs on edge-wm's own kernels: one function at a time, and whole rollouts.

The compiled module assumes that all is right; this file makes it so: `read_program` has checked
the program, and what is passed on here has the program's shapes.

    NativeGraph(blob, function)     ──►         .run({tensor: (K, ...)})
    NativeRollout(manifest, graphs) ──►  .run(belief, actions (K, H, A), goals, ...)   GIL released

Every instruction set gives the same bits. `EDGE_WM_KERNELS` in the environment forces one of
`kernels()` (for tests, and to find out whether one is at fault).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

import numpy as np

from edge_wm import _native
from edge_wm.backends.graph import FunctionSpec, require_declared
from edge_wm.bundle.manifest import ROLLED_OUT, Manifest
from edge_wm.bundle.program import (
    Attention,
    Binary,
    BinaryKind,
    Copy,
    Dense,
    Gru,
    Lookup,
    Lstm,
    Norm,
    OneHot,
    Operation,
    Patches,
    Program,
    Reduce,
    ReduceKind,
    Rows,
    Select,
    Softmax,
    Unary,
    UnaryKind,
    View,
    read_program,
)
from edge_wm.errors import BackendError, ModelError
from edge_wm.types import Array, Bool, Float32

TILE = 48  # candidates of one call of a single function

_UNARY = {"none": 0} | {kind: i + 1 for i, kind in enumerate(get_args(UnaryKind))}
_BINARY = {kind: i for i, kind in enumerate(get_args(BinaryKind))}
_REDUCE = {kind: i for i, kind in enumerate(get_args(ReduceKind))}
_KINDS: tuple[type, ...] = (
    Dense, Norm, Softmax, Unary, Binary, Select, Copy, Reduce, Lstm, Gru, Attention, Patches,
    OneHot, Lookup,
)  # fmt: skip


def kernels() -> list[str]:
    """The kernels that this machine can run, the best first; the last one is `plain`."""
    names: list[str] = _native.kernels()
    return names


def chosen_kernels() -> str:
    """The kernels that are used: the best, or what `EDGE_WM_KERNELS` says.

    Raises: BackendError, if that is none of this machine's.
    """
    forced = os.environ.get("EDGE_WM_KERNELS", "")
    if forced and forced not in kernels():
        raise BackendError(
            f"EDGE_WM_KERNELS must be one of {', '.join(kernels())} on this machine, "
            f"got {forced!r}; unset it to use the best"
        )
    return forced or kernels()[0]


class NativeGraph:
    """One function's step program, packed for this processor."""

    def __init__(self, blob: bytes | memoryview, function: FunctionSpec, *, name: str) -> None:
        self.program = program = read_program(blob, f"function {name}: step program")
        for declared, ports, kind in (
            (function.inputs, program.inputs, "input"),
            (function.outputs, program.outputs, "output"),
        ):
            found = {
                port.tensor: ((-1, *port.shape) if port.batched else port.shape, "float32")
                for port in ports
            }
            require_declared(name, [_AsFloat(spec) for spec in declared], found, kind)
        self.backend = f"native {chosen_kernels()}"
        self._dtypes = {spec.tensor: spec.dtype for spec in function.outputs}
        self.packed = packed(program, chosen_kernels())
        self._graph: Any = _native.Graph(self.packed, TILE)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        arrays = []
        for port in self.program.inputs:
            value = inputs[port.tensor].astype(np.float32, copy=False)
            rows = len(value) if port.batched else 1
            arrays.append(np.ascontiguousarray(value).reshape(rows, -1))
        outputs = self._graph.run(arrays)
        return {
            port.tensor: value.reshape(
                (len(value), *port.shape) if port.batched else port.shape
            ).astype(self._dtypes.get(port.tensor, "float32"), copy=False)
            for port, value in zip(self.program.outputs, outputs, strict=True)
        }


class _AsFloat:
    """A declared tensor as programs have it: float32, whatever the sensor's dtype."""

    def __init__(self, spec: Any) -> None:
        self.tensor: str = spec.tensor
        self.shape: Sequence[int] = spec.shape
        self.dtype = "float32"


# ---- rollouts -------------------------------------------------------------------------------
# In the order of Wire::Source in cpp/rollout/rollout.h.
_BELIEF, _ACTION, _DT, _NOISE, _GOAL = range(5)


class NativeRollout:
    """The rollout of a whole model in one call, if all that it needs is native."""

    def __init__(
        self,
        manifest: Manifest,
        graphs: Mapping[str, object],
        *,
        threads: int = 1,
        tile: int = 0,
    ) -> None:
        """graphs: function -> its graph; what `can_roll_out` needs are `NativeGraph`s.

        threads: candidates are spread over so many; the result does not depend on it.
        tile: candidates that are rolled out together; 0 chooses for the cache.
        """
        self.belief = tuple(manifest.belief)
        self.goals = sorted(
            {
                spec.source
                for name in ("cost", "value")
                for function in _present(manifest, name)
                for spec in function.inputs
                if spec.source.startswith("goal.")
            }
        )
        costs = [output for cost in _present(manifest, "cost") for output in cost.outputs]
        self.terms = [output.target.removeprefix("cost.") for output in costs]
        if "value" in manifest.functions:
            self.terms.append("value")
        wired = {name: self._wired(manifest, name, graphs) for name in ROLLED_OUT}
        axes = manifest.needs.axes
        self._noisy = self._noise_width(manifest) > 0
        self._rollout: Any = _native.Rollout(
            **wired,
            belief=[int(np.prod(t.shape, dtype=int)) for t in self.belief],
            terms=len(costs),
            action=manifest.action_size,
            scale=[axis.scale for axis in axes],
            offset=[axis.offset for axis in axes],
            noise=self._noise_width(manifest),
            goals=[self._goal_width(manifest, source) for source in self.goals],
            horizon=manifest.horizon,
            threads=threads,
            tile=tile,
        )

    @property
    def tile(self) -> int:
        """Candidates that are rolled out together."""
        return int(self._rollout.tile)

    @property
    def scratch_bytes(self) -> int:
        return int(self._rollout.scratch_bytes)

    def run(
        self,
        belief: Mapping[str, Array],
        goals: Mapping[str, Array],
        actions: Float32,
        *,
        dt: float,
        weights: Mapping[str, float],
        noise: Float32 | None = None,
        keep_beliefs: bool = False,
    ) -> tuple[Float32, Bool, dict[str, Float32], dict[str, Array] | None]:
        """Cost (K,), infeasible (K,), terms, and on request the beliefs (K, steps + 1, ...).

        actions: (K, steps, block * A) float32, SI. noise: (steps, K, n) standard normal, where
        dynamics reads it.
        """
        self.prepare(belief, goals, dt=dt, weights=weights)
        cost, infeasible, sums, kept = self._rollout.run(
            np.ascontiguousarray(actions), noise, keep_beliefs
        )
        terms = dict(zip(self.terms, sums, strict=True))
        if not keep_beliefs:
            return cost, infeasible, terms, None
        beliefs = {
            tensor.name: value.reshape(*value.shape[:2], *tensor.shape)
            for tensor, value in zip(self.belief, kept, strict=True)
        }
        return cost, infeasible, terms, beliefs

    def prepare(
        self,
        belief: Mapping[str, Array],
        goals: Mapping[str, Array],
        *,
        dt: float,
        weights: Mapping[str, float],
    ) -> None:
        """Say what the next rollouts start from and aim at."""
        self._rollout.prepare(
            [np.ascontiguousarray(belief[t.name], np.float32).reshape(1, -1) for t in self.belief],
            [np.ascontiguousarray(goals[name], np.float32).reshape(1, -1) for name in self.goals],
            dt,
            [weights.get(name, 1.0) for name in self.terms],
        )

    def imagination(self) -> Any:
        """What the planner's compiled loop rolls out with, after `prepare`; None with noise."""
        return None if self._noisy else self._rollout

    def _wired(self, manifest: Manifest, name: str, graphs: Mapping[str, object]) -> Any:
        if name not in manifest.functions:
            return None
        graph, function = graphs[name], manifest.functions[name]
        assert isinstance(graph, NativeGraph)
        sources = {spec.tensor: spec.source for spec in function.inputs}
        targets = {spec.tensor: spec.target for spec in function.outputs}
        names = [tensor.name for tensor in self.belief]
        wires = []
        for port in graph.program.inputs:
            source = sources[port.tensor]
            if source.startswith("belief."):
                wires.append((_BELIEF, names.index(source.removeprefix("belief."))))
            elif source.startswith("goal."):
                wires.append((_GOAL, self.goals.index(source)))
            else:
                wires.append(({"action": _ACTION, "dt": _DT, "noise": _NOISE}[source], 0))
        outputs = []
        for port in graph.program.outputs:
            target = targets[port.tensor]
            if target.startswith("belief."):
                outputs.append(names.index(target.removeprefix("belief.")))
            else:
                outputs.append(
                    self.terms.index(target.removeprefix("cost.")) if name == "cost" else 0
                )
        return graph.packed, wires, outputs

    @staticmethod
    def _noise_width(manifest: Manifest) -> int:
        for spec in manifest.functions["dynamics"].inputs:
            if spec.source == "noise":
                return int(np.prod(spec.shape[1:], dtype=int))
        return 0

    @staticmethod
    def _goal_width(manifest: Manifest, source: str) -> int:
        for name in ("cost", "value"):
            for function in _present(manifest, name):
                for spec in function.inputs:
                    if spec.source == source:
                        shape = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
                        return int(np.prod(shape, dtype=int))
        raise AssertionError(source)


def _present(manifest: Manifest, name: str) -> Iterator[Any]:
    if name in manifest.functions:
        yield manifest.functions[name]


def can_roll_out(manifest: Manifest, graphs: Mapping[str, object]) -> bool:
    """Whether dynamics, and cost, constraint and value where there are such, all run natively, on
    float32 beliefs."""
    needed = [name for name in ROLLED_OUT if name in manifest.functions]
    return (
        "dynamics" in needed
        and all(isinstance(graphs.get(name), NativeGraph) for name in needed)
        and all(tensor.dtype == "float32" for tensor in manifest.belief)
    )


# ---- handing a program to the compiled module ----------------------------------------------------
def packed(program: Program, kernels_name: str) -> Any:
    """The compiled module's form of a program: weights in the order that its kernels read."""
    try:
        return _native.Program(
            kernels=kernels_name,
            registers=[
                (r.width, -1 if r.constant is None else r.constant) for r in program.registers
            ],
            constants=[np.ascontiguousarray(constant) for constant in program.constants],
            inputs=[(port.register, port.batched) for port in program.inputs],
            outputs=[(port.register, port.batched) for port in program.outputs],
            operations=[_fields(operation) for operation in program.operations],
        )
    except ValueError as error:
        raise ModelError(f"step program: {error}") from error


def _rows(at: Rows) -> tuple[int, int, int]:
    return at.register, at.offset, at.stride


def _view(at: View) -> list[int]:
    return [at.register, at.offset, *at.strides]


def _fields(o: Operation) -> dict[str, Any]:
    """An operation as `op_of` in cpp/bindings/program.cpp reads it."""
    fields: dict[str, Any] = {"kind": _KINDS.index(type(o))}
    if isinstance(o, Dense):
        fields |= {
            "tokens": o.tokens,
            "size": o.size,
            "out": _rows(o.out),
            "after": _UNARY[o.activation],
            "bias": -1 if o.bias is None else o.bias,
            "segments": [
                (_rows(s.x), s.size, s.weight, -1 if s.scale is None else s.scale)
                for s in o.segments
            ],
        }
    elif isinstance(o, Norm | Softmax | Unary | OneHot | Lookup):
        fields |= {"tokens": o.tokens, "size": o.size, "out": _rows(o.out), "x": _rows(o.x)}
        if isinstance(o, Unary):
            fields["function"] = _UNARY[o.kind]
        elif isinstance(o, Lookup):
            fields["weight"] = o.table
        elif isinstance(o, Norm):
            fields |= {
                "function": int(o.kind == "layer"),
                "number": o.epsilon,
                "weight": -1 if o.weight is None else o.weight,
                "bias": -1 if o.bias is None else o.bias,
                "after": _UNARY[o.activation],
            }
    elif isinstance(o, Binary):
        fields |= {"function": _BINARY[o.kind], "shape": list(o.shape), "out_view": _view(o.out)}
        fields |= {"a": _view(o.a), "b": _view(o.b)}
    elif isinstance(o, Select):
        fields |= {"shape": list(o.shape), "out_view": _view(o.out)}
        fields |= {"a": _view(o.a), "b": _view(o.b), "c": _view(o.condition)}
    elif isinstance(o, Copy):
        fields |= {"shape": list(o.shape), "out_view": _view(o.out), "a": _view(o.x)}
    elif isinstance(o, Reduce):
        fields |= {"function": _REDUCE[o.kind], "shape": list(o.shape)}
        fields |= {"out_view": _view(o.out), "a": _view(o.x)}
    elif isinstance(o, Lstm):
        fields |= {"size": o.size, "x": _rows(o.gates), "x2": _rows(o.c)}
        fields |= {"out": _rows(o.out_h), "out2": _rows(o.out_c)}
        fields["numbers"] = [o.order.index(gate) for gate in "ifgo"]
    elif isinstance(o, Gru):
        fields |= {"size": o.size, "x": _rows(o.x_gates), "x2": _rows(o.h_gates)}
        fields |= {"x3": _rows(o.h), "out": _rows(o.out)}
        fields["numbers"] = [o.order.index(gate) for gate in "zrn"]
    elif isinstance(o, Attention):
        fields |= {"size": o.size, "out": _rows(o.out), "number": o.scale}
        fields |= {"x": _rows(o.q), "x2": _rows(o.k), "x3": _rows(o.v)}
        fields["numbers"] = [o.queries, o.keys, o.heads, int(o.causal)]
    else:
        fields |= {"out": _rows(o.out), "x": _rows(o.x)}
        fields["numbers"] = [
            o.height, o.width, o.channels, *o.kernel, *o.stride, *o.pads
        ]  # fmt: skip
    return fields
