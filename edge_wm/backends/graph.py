"""What a graph is to the rest of edge-wm: named arrays in, named arrays out.

A bundle's manifest says for each function which tensors go in and come out, with shape and
dtype; a leading -1 in a shape is the batch axis (K candidates, or K * H of them). Whatever
library runs the graph, its adapter keeps this one promise: `run` gives exactly the declared
outputs for exactly the declared inputs, with the same K everywhere, and the answer for one
row depends on that row alone.

    load_graph(blob, function, backend) ──►  Graph.run({tensor: (K, ...)}) ──►  {tensor: (K, ...)}

Adapters trust the shapes and dtypes that they are called with (`world_model` makes them); they
check the *file* against the declaration once, at load.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_wm.errors import ModelError
from edge_wm.types import Array


class TensorSpec(Protocol):
    """One declared input or output of a function."""

    @property
    def tensor(self) -> str: ...  # its name in the graph file
    @property
    def shape(self) -> Sequence[int]: ...  # a leading -1 is the batch axis
    @property
    def dtype(self) -> str: ...  # a numpy name: "float32", "uint8" ...


class FunctionSpec(Protocol):
    """What the manifest declares of one function, as far as a backend cares."""

    @property
    def inputs(self) -> Sequence[TensorSpec]: ...
    @property
    def outputs(self) -> Sequence[TensorSpec]: ...


class Graph(Protocol):
    """One loaded function, ready to run."""

    @property
    def backend(self) -> str: ...  # library and version: "onnxruntime 1.32.0"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """All declared outputs for all declared inputs; arrays are C-contiguous.

        Raises:
            BackendError: the library failed; the message names it and repeats what it said.
        """
        ...


def require_declared(
    name: str,
    declared: Sequence[TensorSpec],
    found: Mapping[str, tuple[Sequence[int | str | None], str]],
    kind: str,
) -> None:
    """Hold a file's tensors (name -> shape, dtype) against the manifest's declaration.

    A dimension that is not a number in the file (a symbol, None, -1) fits anything.

    Raises:
        ModelError: a tensor is missing, or has another shape or dtype.
    """
    for spec in declared:
        if spec.tensor not in found:
            raise ModelError(
                f"function {name}: the manifest declares {kind} {spec.tensor!r}, the graph has "
                f"{', '.join(sorted(found)) or 'none'}; correct the manifest or re-export the graph"
            )
        shape, dtype = found[spec.tensor]
        fits = len(shape) == len(spec.shape) and all(
            want == -1 or not isinstance(have, int) or have < 0 or have == want
            for have, want in zip(shape, spec.shape, strict=True)
        )
        if not fits or dtype != spec.dtype:
            raise ModelError(
                f"function {name}: {kind} {spec.tensor!r} must be {spec.dtype} "
                f"{tuple(spec.shape)}, the graph has {dtype} {tuple(shape)}; correct the manifest "
                "or re-export the graph"
            )
