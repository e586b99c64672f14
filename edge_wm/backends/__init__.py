"""Run one graph on one library: the only room that imports inference libraries.

| backend | graph format | library |
|---|---|---|
| `onnxruntime` | `onnx` | onnxruntime |
| `litert` | `tflite` | ai-edge-litert, or tflite-runtime 2.14 where that is what there is |
| `native` | `program` | edge-wm's own kernels |
| `onnxruntime-cuda`, `onnxruntime-tensorrt` | `onnx` | onnxruntime's GPU build, where it has them |

Which of them runs a function is one of three things:

    a name      that one, or an error
    first       the first in the order of `BACKENDS` that is installed and has a graph: the same
                on every start, so that tables and recordings can be made again
    auto        the fastest on this machine that computes what it should: `choice`, in its module

`probe` (in its own module) loads and runs the graphs of a bundle in a child process first,
because model files that crash or hang the libraries exist.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edge_wm import __version__
from edge_wm.backends.graph import FunctionSpec, Graph
from edge_wm.bundle.manifest import Manifest
from edge_wm.errors import BackendError, ModelError, UsageError

__all__ = [
    "BACKENDS",
    "FunctionSpec",
    "Graph",
    "choose",
    "installed",
    "load_graph",
    "native_rollout",
]

if TYPE_CHECKING:
    from edge_wm.backends.native import NativeRollout

# backend -> the graph format it runs, in the order in which "first" prefers them.
BACKENDS: Mapping[str, str] = {
    "native": "program",
    "onnxruntime": "onnx",
    "litert": "tflite",
    "onnxruntime-cuda": "onnx",
    "onnxruntime-tensorrt": "onnx",
}

# backend -> what onnxruntime calls it. Offered where onnxruntime's GPU build says it has them.
PROVIDERS: Mapping[str, str] = {
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}

# backend -> the distributions that provide it, preferred first.
_DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "litert": ("ai-edge-litert", "tflite-runtime"),
}


def installed() -> dict[str, str]:
    """The backends whose library is installed: name -> "library version".

    Imports nothing, except onnxruntime where its GPU build is installed: only it knows its
    providers.
    """
    found: dict[str, str] = {}
    if find_spec("edge_wm._native") is not None:
        found["native"] = f"edge-wm {__version__}"
    for backend, distributions in _DISTRIBUTIONS.items():
        for distribution in distributions:
            if release := _version(distribution):
                found.setdefault(backend, f"{distribution} {release}")
    gpu = _version("onnxruntime-gpu")
    if gpu:
        available = _available_providers()
        for backend, provider in PROVIDERS.items():
            if provider in available:
                found[backend] = f"onnxruntime-gpu {gpu} {provider}"
    return found


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _available_providers() -> list[str]:
    """What the installed onnxruntime was built with; none if it cannot be imported."""
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def choose(name: str, formats: Collection[str], backend: str = "first") -> str:
    """The backend for function `name`, of which the bundle has graphs in `formats`.

    backend: "first", or one of `BACKENDS`. ("auto" needs the whole bundle: `choice.settle`.)

    Raises:
        UsageError: no such backend.
        BackendError: the library is not installed; the message says how to get it.
        ModelError: the bundle has no graph of this function for that backend.
    """
    if backend not in ("first", *BACKENDS):
        raise UsageError(
            f"backend must be one of auto, first, {', '.join(BACKENDS)}; got {backend!r}"
        )
    ready = installed()
    if backend == "first":
        for candidate, graph_format in BACKENDS.items():
            if candidate in ready and graph_format in formats:
                return candidate
        usable = [b for b, graph_format in BACKENDS.items() if graph_format in formats]
        if not usable:
            raise ModelError(
                f"function {name}: the bundle has graphs in {', '.join(formats) or 'no format'}, "
                f"the backends run {', '.join(dict.fromkeys(BACKENDS.values()))}; rebuild the "
                "bundle with one"
            )
        raise BackendError(how_to_install(usable[0]))
    if BACKENDS[backend] not in formats:
        raise ModelError(
            f"function {name}: backend {backend} needs a graph in format {BACKENDS[backend]}, the "
            f"bundle has {', '.join(formats) or 'none'}; use another backend or rebuild the bundle"
        )
    if backend not in ready:
        raise BackendError(how_to_install(backend))
    return backend


def load_graph(
    blob: bytes | memoryview,
    function: FunctionSpec,
    backend: str,
    *,
    name: str = "graph",
    threads: int = 1,
    rows: int = 1,
) -> Graph:
    """Load the graph in `blob` (in the format of `backend`) as declared by `function`.

    `name` is the function's name, for messages. `threads` is the size of the library's own
    pool: one leaves the other cores to the rest of the robot and is what replay is exact for.
    `rows` is the largest batch that will be asked for; TensorRT builds its engine for it.

    Raises:
        UsageError: no such backend.
        BackendError: the library is not installed.
        ModelError: the library refuses the graph, or it does not match its declaration.
    """
    if backend == "onnxruntime" or backend in PROVIDERS:
        try:
            from edge_wm.backends.onnx_runtime import OnnxRuntimeGraph
        except ImportError as error:
            raise BackendError(how_to_install(backend)) from error
        provider = PROVIDERS.get(backend, "CPUExecutionProvider")
        return OnnxRuntimeGraph(
            blob, function, name=name, threads=threads, provider=provider, rows=rows
        )
    if backend == "litert":
        try:
            from edge_wm.backends.litert import LiteRtGraph
        except ImportError as error:
            raise BackendError(how_to_install(backend)) from error
        return LiteRtGraph(blob, function, name=name, threads=threads)
    if backend == "native":
        try:
            from edge_wm.backends.native import NativeGraph
        except ImportError as error:
            raise BackendError(how_to_install(backend)) from error
        return NativeGraph(blob, function, name=name)
    raise UsageError(f"backend must be one of {', '.join(BACKENDS)}; got {backend!r}")


def native_rollout(
    manifest: Manifest, graphs: Mapping[str, Graph], threads: int = 1
) -> NativeRollout | None:
    """Whole rollouts in one call, where all functions that they need run natively; else None."""
    if not any(graph.backend.startswith("native") for graph in graphs.values()):
        return None
    from edge_wm.backends import native

    if not native.can_roll_out(manifest, graphs):
        return None
    return native.NativeRollout(manifest, graphs, threads=threads)


def how_to_install(backend: str) -> str:
    if backend == "native":
        return (
            "backend native needs edge-wm's compiled module, which is not there; run `make run` in "
            'a checkout, or pip install "edge-wm[run]" with g++ and cmake at hand'
        )
    if backend in PROVIDERS:
        return (
            f"backend {backend} needs a GPU build of onnxruntime with {PROVIDERS[backend]}, which "
            "is not installed; on a Jetson install NVIDIA's build for its JetPack (PyPI's "
            "onnxruntime-gpu has no code for Orin or Thor and no TensorRT there)"
        )
    return (
        f"backend {backend} needs {' or '.join(_DISTRIBUTIONS[backend])}, which is not installed; "
        f'run: pip install "edge-wm[{backend}]"'
    )
