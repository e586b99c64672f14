"""Where the native kernels come in: a bundle's compiled step programs.

The compiler (ONNX to step program) does not exist yet, so no bundle holds a program, and this
adapter says so instead of guessing. When the first program is compiled, its runner is returned
from `load` and nothing else in the house moves.
"""

from __future__ import annotations

from typing import NoReturn

from edge_wm.backends.graph import FunctionSpec
from edge_wm.errors import BackendError


def load(
    blob: bytes | memoryview, function: FunctionSpec, *, name: str, threads: int = 1
) -> NoReturn:
    """Raises: BackendError, always: this version runs no compiled programs."""
    raise BackendError(
        f"function {name}: this version of edge-wm has no runner for compiled step programs; "
        "use --backend onnxruntime or litert"
    )
