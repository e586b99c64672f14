"""TFLite graphs on LiteRT: ai-edge-litert, or the older tflite-runtime with the same interface.

A TFLite file fixes its batch, say 128, because its memory is planned ahead. A call with K rows
is cut into tiles of that batch; the last tile is filled up with copies of its own last row,
whose answers are thrown away.

    K = 300, batch 128:   [0..127] [128..255] [256..299 299 299 ...]

Tensors are found by the names of the file's signature where it has one that fits the manifest,
otherwise by the names in the file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from edge_wm.backends.graph import FunctionSpec, require_declared
from edge_wm.errors import BackendError, ModelError
from edge_wm.types import Array

try:
    from ai_edge_litert.interpreter import Interpreter

    LIBRARY = f"ai-edge-litert {version('ai-edge-litert')}"
except ImportError:
    from tflite_runtime.interpreter import Interpreter

    LIBRARY = f"tflite-runtime {version('tflite-runtime')}"


class LiteRtGraph:
    """A graph in a LiteRT interpreter, with tiles for its fixed batch."""

    backend = LIBRARY

    def __init__(
        self, blob: bytes | memoryview, function: FunctionSpec, *, name: str, threads: int = 1
    ) -> None:
        self._name = name
        try:
            self._interpreter = Interpreter(model_content=bytes(blob), num_threads=threads)
            self._interpreter.allocate_tensors()
        except Exception as error:  # the door by which LiteRT's own exceptions come in
            raise ModelError(
                f"function {name}: {LIBRARY} refuses the graph: {_one_line(error)}; "
                "convert it again with the operations that this version knows"
            ) from error
        inputs, outputs = self._details(function)
        require_declared(name, function.inputs, _tensors(inputs), "input")
        require_declared(name, function.outputs, _tensors(outputs), "output")
        self._inputs = {spec.tensor: int(inputs[spec.tensor]["index"]) for spec in function.inputs}
        self._outputs = {
            spec.tensor: int(outputs[spec.tensor]["index"]) for spec in function.outputs
        }
        self._batched = {spec.tensor for spec in function.inputs if tuple(spec.shape[:1]) == (-1,)}
        self._batch = self._fixed_batch(function, inputs, outputs)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        rows = next((len(inputs[tensor]) for tensor in self._batched), None)
        if rows is None or rows == self._batch:
            return self._invoke(inputs)
        tiles = [
            self._invoke({tensor: self._tile(tensor, inputs[tensor], start) for tensor in inputs})
            for start in range(0, rows, self._batch)
        ]
        return {
            tensor: np.concatenate([tile[tensor] for tile in tiles])[:rows]
            for tensor in self._outputs
        }

    def _tile(self, tensor: str, value: Array, start: int) -> Array:
        """Rows start .. start + batch of `value`, filled up with its last row."""
        if tensor not in self._batched:
            return value
        tile = value[start : start + self._batch]
        missing = self._batch - len(tile)
        return np.concatenate([tile, np.repeat(tile[-1:], missing, axis=0)]) if missing else tile

    def _invoke(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            for tensor, index in self._inputs.items():
                self._interpreter.set_tensor(index, inputs[tensor])
            self._interpreter.invoke()
            return {
                tensor: self._interpreter.get_tensor(index)
                for tensor, index in self._outputs.items()
            }
        except Exception as error:
            raise BackendError(
                f"function {self._name}: {LIBRARY} failed: {_one_line(error)}"
            ) from error

    def _details(self, function: FunctionSpec) -> tuple[dict[str, Any], dict[str, Any]]:
        """The interpreter's description of its inputs and outputs, by the manifest's names."""
        for key, signature in self._interpreter.get_signature_list().items():
            if {spec.tensor for spec in function.inputs} <= set(signature["inputs"]):
                runner = self._interpreter.get_signature_runner(key)
                return runner.get_input_details(), runner.get_output_details()
        return (
            {details["name"]: details for details in self._interpreter.get_input_details()},
            {details["name"]: details for details in self._interpreter.get_output_details()},
        )

    def _fixed_batch(
        self, function: FunctionSpec, inputs: dict[str, Any], outputs: dict[str, Any]
    ) -> int:
        """The one batch of all tensors that have a batch axis; 1 where none has.

        Raises:
            ModelError: they differ, or an output has no batch axis while an input has.
        """
        sizes = {
            f"{kind} {spec.tensor}": int(details[spec.tensor]["shape"][0])
            for kind, specs, details in (
                ("input", function.inputs, inputs),
                ("output", function.outputs, outputs),
            )
            for spec in specs
            if tuple(spec.shape[:1]) == (-1,)
        }
        whole = [spec.tensor for spec in function.outputs if tuple(spec.shape[:1]) != (-1,)]
        if len(set(sizes.values())) > 1 or (self._batched and whole):
            found = ", ".join(f"{key} {size}" for key, size in sizes.items())
            raise ModelError(
                f"function {self._name}: every input and output with a batch axis must have the "
                f"same fixed batch in a TFLite file, and every output must have one; found {found}"
                f"{', and without one: ' + ', '.join(whole) if whole else ''}; convert it again"
            )
        return next(iter(sizes.values()), 1)


def _tensors(details: dict[str, Any]) -> dict[str, tuple[list[int | str | None], str]]:
    return {
        name: ([int(n) for n in entry["shape"]], np.dtype(entry["dtype"]).name)
        for name, entry in details.items()
    }


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
