"""ONNX graphs on onnxruntime, set up for a robot: few threads, no spinning, the same bits twice.

Its GPU build offers providers: CUDA, and TensorRT, which compiles a graph to an engine (minutes
on a Jetson) and keeps it in the cache folder, apart for each device, driver and version.
onnxruntime falls back to the processor without an error; here that is one. (Written for Jetson
and never run on a GPU: docs/not-run-here.md.)

A spinning pool burns the cores that the guard and the sensors need and collapses when one is
shared, so threads sleep between calls. Outputs are fresh arrays at every call: binding inputs
and outputs to fixed buffers was measured and left out. For a (128, 66) -> 256 -> 256 -> 64
network on one x86 core it saves 5 us of 19 at K = 1 and nothing measurable of 276 us at
K = 128, while re-binding at each call costs 10 us more (2026-11-22, onnxruntime 1.32.0).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime as ort

from edge_wm.backends.graph import FunctionSpec, require_declared
from edge_wm.backends.machine import engine_folder
from edge_wm.errors import BackendError, ModelError
from edge_wm.types import Array

_DTYPES: Mapping[str, str] = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

Providers = list[str | tuple[str, dict[str, str]]]


class OnnxRuntimeGraph:
    """A graph in an onnxruntime session, on the CPU unless `provider` says otherwise."""

    def __init__(
        self,
        blob: bytes | memoryview,
        function: FunctionSpec,
        *,
        name: str,
        threads: int = 1,
        provider: str = CPU,
        rows: int = 1,
    ) -> None:
        self._name = name
        on = "" if provider == CPU else f" {provider}"
        self.backend = f"onnxruntime {ort.__version__}{on}"
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.use_deterministic_compute = True
        try:
            self._session = ort.InferenceSession(
                bytes(blob), options, providers=providers_for(provider, function, rows)
            )
        except Exception as error:  # the door by which onnxruntime's own exceptions come in
            raise ModelError(
                f"function {name}: onnxruntime {ort.__version__} refuses the graph: "
                f"{_one_line(error)}; re-export it for an opset that this version knows"
            ) from error
        if provider not in self._session.get_providers():
            raise BackendError(
                f"function {name}: onnxruntime {ort.__version__} could not start {provider} and "
                "would have run on the processor unasked; check the driver and the CUDA and "
                "TensorRT libraries with `edge-wm doctor`, or use another backend"
            )
        require_declared(name, function.inputs, _tensors(self._session.get_inputs()), "input")
        require_declared(name, function.outputs, _tensors(self._session.get_outputs()), "output")
        self._outputs = [spec.tensor for spec in function.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise BackendError(
                f"function {self._name}: {self.backend} failed: {_one_line(error)}"
            ) from error
        return {
            tensor: np.asarray(value) for tensor, value in zip(self._outputs, values, strict=True)
        }


def providers_for(provider: str, function: FunctionSpec, rows: int) -> Providers:
    """What the session may use, the wanted one first; what it cannot do falls to the next."""
    if provider == CPU:
        return [CPU]
    if provider == CUDA:
        return [CUDA, CPU]
    options = {"trt_engine_cache_enable": "1", "trt_timing_cache_enable": "1"}
    folder = engine_folder(ort.__version__)
    if folder is not None:
        options |= dict.fromkeys(("trt_engine_cache_path", "trt_timing_cache_path"), str(folder))
    # Without a profile an engine is built anew for each batch that comes, in the middle of a tick.
    batched = [spec for spec in function.inputs if spec.shape[:1] == (-1,)]
    for bound, size in (("min", 1), ("opt", rows), ("max", rows)):
        if batched:
            options[f"trt_profile_{bound}_shapes"] = ",".join(
                f"{spec.tensor}:{'x'.join(str(n) for n in (size, *spec.shape[1:]))}"
                for spec in batched
            )
    return [(TENSORRT, options), CUDA, CPU]


def _tensors(nodes: list[ort.NodeArg]) -> dict[str, tuple[list[int | str | None], str]]:
    return {node.name: (node.shape, _DTYPES.get(node.type, node.type)) for node in nodes}


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:500] or type(error).__name__
