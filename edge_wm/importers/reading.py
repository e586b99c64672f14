"""Read foreign files in a process that may die: strictly data, never code.

    parent                                            child: python -m edge_wm.importers.reading
      │  kind and path  ─────────────────────────────►  limits on itself, then reads and checks
      │  stdout: an .npz of tensors by name, and words ◄┘
      └─ reads that without pickle; an early end becomes one sentence

| kind | what is read | by |
|---|---|---|
| json | a list or mapping of numbers and rectangular arrays | msgspec |
| safetensors | all tensors | safetensors |
| torch | tensors in nested mappings, `weights_only=True` | torch |
| hdf5 | all numeric datasets, and texts among the attributes | h5py |
| onnx | the file, lifted to opset 20 | onnx |

The library is the only one that interprets the file; what it may use is bounded, so that a file
made to exhaust memory or time ends the child and not the program.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from edge_wm.backends.probe import confine
from edge_wm.errors import BackendError, CheckpointError, SystemTroubleError
from edge_wm.importers.checkpoint import Checkpoint
from edge_wm.types import Array

Kind = Literal["json", "safetensors", "torch", "hdf5", "onnx"]
WORDS = "words (json)"  # the entry of the .npz that carries the attributes
OPSET, IR_VERSION = 20, 10
REFUSED, MISSING = 3, 4  # the child's exit statuses; anything else is a crash
MAX_FILE = 2 << 30
EXTRA = 'pip install "edge-wm[import]"'


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may use."""

    cpu_s: int = 120
    wall_s: float = 600.0  # far above cpu_s: a busy machine is not a broken file
    memory_bytes: int = 3 << 30  # address space, and 8 times the file
    torch_memory_bytes: int = 16 << 30  # torch reserves much and touches little


def read_checkpoint(path: Path, kind: Kind, limits: Limits | None = None) -> Checkpoint:
    """What the file at `path` holds.

    Raises: CheckpointError: it is not of that kind, too large, or ended its reader.
    BackendError: the library for it is not installed. SystemTroubleError: it cannot be read.
    """
    limits = limits or Limits()
    try:
        size = path.stat().st_size
        with path.open("rb"):
            pass
    except OSError as error:
        raise SystemTroubleError(f"cannot read {path}: {error.strerror}; name another") from error
    if size > MAX_FILE:
        raise CheckpointError(
            f"checkpoint {path.name}: must have at most {MAX_FILE:,} bytes, got {size:,}; take one "
            "without the optimizer's state"
        )
    memory = limits.torch_memory_bytes if kind == "torch" else limits.memory_bytes
    command = [sys.executable, "-m", "edge_wm.importers.reading", kind, str(path.resolve())]
    command += [str(n) for n in (limits.cpu_s, memory + 8 * size, os.getpid())]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as noise:
        try:
            child = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=answer,
                stderr=noise,
                cwd=Path(__file__).resolve().parents[2],  # where `import edge_wm` finds this one
                env=environment,
                timeout=limits.wall_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise CheckpointError(_ended(path, f"took more than {limits.wall_s:g} s")) from None
        noise.seek(0)
        said = noise.read().decode("utf-8", "replace").strip().splitlines() or [""]
        if child.returncode == MISSING:
            raise BackendError(f"{said[-1]}; run: {EXTRA}")
        if child.returncode == REFUSED:
            raise CheckpointError(f"checkpoint {path.name}: {said[-1]}")
        if child.returncode:
            raise CheckpointError(
                _ended(path, f"ended its reader with status {child.returncode}: {said[-1][:200]}")
            )
        answer.seek(0)
        with np.load(answer, allow_pickle=False) as found:
            tensors = {name: found[name] for name in found.files}
    words = json.loads(tensors.pop(WORDS).tobytes())
    return Checkpoint(path, tensors, words)


def _ended(path: Path, how: str) -> str:
    return f"checkpoint {path.name}: {how}; it is damaged, or was made to do harm: do not use it"


# ---- child --------------------------------------------------------------------------------
class _Refused(Exception):
    """The file is not what it should be."""


def _json(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    import msgspec

    try:
        document = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Refused(f"must be JSON, got {error}; it is damaged or cut off") from None
    if isinstance(document, list):
        entries: Mapping[Any, Any] = dict(enumerate(document))
    elif isinstance(document, dict):
        entries = document
    else:
        raise _Refused(f"must be a list or a mapping of arrays, got {document!r:.40}")
    tensors = {}
    for name, value in entries.items():
        try:
            tensors[str(name)] = np.asarray(value, np.float64)
        except (ValueError, TypeError):
            raise _Refused(
                f"tensor {str(name)!r} must be a rectangular array of numbers, and is not"
            ) from None
    return tensors, {}


def _safetensors(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(path)), {}
    except SafetensorError as error:
        raise _Refused(f"must be a safetensors file, got {error}; it is damaged") from None


def _torch(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    import torch

    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the unpickler or the zip reader does
        said = str(error).strip().splitlines()[0][:200]
        raise _Refused(f"must be a PyTorch file of tensors only, got {said}") from None
    tensors: dict[str, Array] = {}

    def collect(prefix: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                collect(f"{prefix}.{key}" if prefix else str(key), inner)
        elif isinstance(value, torch.Tensor):
            wide = value.float() if value.dtype == torch.bfloat16 else value
            tensors[prefix] = wide.detach().numpy()

    collect("", document)
    return tensors, {}


def _hdf5(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    import h5py

    tensors: dict[str, Array] = {}
    words: dict[str, str] = {}

    def visit(name: str, item: Any) -> None:
        for key, value in item.attrs.items():
            if isinstance(value, str):
                words[f"{name}.{key}"] = value
        if isinstance(item, h5py.Dataset) and item.dtype.kind in "fiu":
            tensors[name] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise _Refused(f"must be an HDF5 file, got {error}; it is damaged or cut off") from None
    return tensors, words


def _onnx(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped,unused-ignore]
    from onnx import version_converter

    try:
        model = onnx.load_model_from_string(path.read_bytes())
        onnx.checker.check_model(model)
        used = {node.domain for node in model.graph.node}
        kept = [entry for entry in model.opset_import if entry.domain in used | {"", "ai.onnx"}]
        del model.opset_import[:]
        model.opset_import.extend(kept)
        model = version_converter.convert_version(model, OPSET)
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
    except (DecodeError, ValueError, RuntimeError, onnx.checker.ValidationError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise _Refused(f"must be an ONNX file that opset {OPSET} can express, got {said}") from None
    return {"onnx": np.frombuffer(model.SerializeToString(), np.uint8)}, {}


_READERS = {
    "json": _json,
    "safetensors": _safetensors,
    "torch": _torch,
    "hdf5": _hdf5,
    "onnx": _onnx,
}
assert set(_READERS) == set(get_args(Kind))


def _child(kind: str, path: str, cpu_s: str, memory_bytes: str, parent: str) -> int:
    """Bind itself, read the file, put the answer on stdout. It dies with its parent."""
    within = {"cpu_s": int(cpu_s), "memory_bytes": int(memory_bytes), "output_bytes": 2 * MAX_FILE}
    if not confine(int(parent), **within):
        return REFUSED
    # The answer gets a descriptor of its own: libraries print to 1 as they please.
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        tensors, words = _READERS[kind](Path(path))
    except _Refused as error:
        print(error, file=sys.stderr)
        return REFUSED
    except ImportError as error:
        print(f"reading a {kind} file needs a library: {error}", file=sys.stderr)
        return MISSING
    tensors[WORDS] = np.frombuffer(json.dumps(words).encode(), np.uint8)
    packed = io.BytesIO()
    np.savez(packed, **tensors)  # type: ignore[arg-type]  # numbers: nothing is pickled
    with answer:
        answer.write(packed.getbuffer())
    return 0


if __name__ == "__main__":
    sys.exit(_child(*sys.argv[1:]))
