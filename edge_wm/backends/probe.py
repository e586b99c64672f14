"""Load and run a bundle's graphs in a process that may die, before doing it in this one.

A few hundred bytes of ONNX can hang onnxruntime while it folds constants, and one flipped byte
can crash LiteRT; neither raises an exception that could be caught. So the first load and the
reference cases run in a child with limits on memory, processor time and wall time:

    parent                                          child: python -m edge_wm.backends.probe
      │ stdin: length, request (JSON), blobs ──────►  limits on itself, then load and run
      │ stdout: one JSON line per step  ◄───────────  {"doing": ...} ... {"ended": "passed"}
      └ reads how it ended: passed, refused, wrong output, crashed, hung, or out of memory

    bytes of stdin:  <u64 length of request> <request> <blob> <blob> ...   (sizes in the request)

The child dies with its parent. A pass is remembered in the user's cache folder under a digest
of everything that it depends on (graphs, reference tensors, library versions, processor), so a
second start costs nothing; a failure is never remembered. The parent still compares the
reference outputs in its own process at every load.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import re
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal

import msgspec
import numpy as np

from edge_wm.backends import BACKENDS, PROVIDERS, Graph, installed, load_graph
from edge_wm.backends.machine import cache_folder, processor
from edge_wm.backends.reference import Blobs, cases_for, require_case, warm_up
from edge_wm.errors import BackendError, ModelError, SystemTroubleError

if TYPE_CHECKING:  # the child does without: importing it brings the cryptography
    from edge_wm.bundle import Bundle

_LENGTH = struct.Struct("<Q")
assert _LENGTH.size == 8

Ending = Literal["passed", "refused", "wrong output", "crashed", "hung", "out of memory"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What the child may use; the memory grows with the size of the graphs."""

    cpu_s: int = 30
    wall_s: float = 300.0  # far above cpu_s: a busy machine is not a broken model
    # Address space, and 16 times the blobs; a start takes 0.2 GiB. 0 sets no limit.
    memory_bytes: int = 2 << 30
    output_bytes: int = 1 << 20


# A CUDA context reserves address space without end, and TensorRT builds for minutes and writes
# its engines: there only time and file size are bounded.
GPU_LIMITS = Limits(cpu_s=1800, wall_s=3600.0, memory_bytes=0, output_bytes=4 << 30)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended, and in words what the child was doing and what went wrong."""

    ending: Ending
    detail: str = ""
    missing_library: bool = False


# ---- the request: what crosses the pipe ---------------------------------------------------
class _Tensor(msgspec.Struct, frozen=True):
    tensor: str
    shape: tuple[int, ...]
    dtype: str


class _Function(msgspec.Struct, frozen=True):
    graphs: dict[str, str]
    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]


class _Case(msgspec.Struct, frozen=True):
    function: str
    inputs: dict[str, str]
    outputs: dict[str, str]
    tolerance: float
    formats: tuple[str, ...] = ()


class _Request(msgspec.Struct, frozen=True):
    functions: dict[str, _Function]
    cases: tuple[_Case, ...]
    chosen: dict[str, str]  # function -> backend
    threads: int
    rows: dict[str, int]  # function -> the batch of its first run
    blobs: tuple[tuple[str, int], ...]  # digest and size, in the order in which they follow


# ---- parent -------------------------------------------------------------------------------
def probe(
    bundle: Bundle,
    chosen: Mapping[str, str],
    *,
    threads: int = 1,
    limits: Limits | None = None,
) -> None:
    """Try the graphs of `bundle` in a child process, unless this machine has passed them before.

    chosen: function -> backend. Each is run once on zeros with the batch that planning will ask
    for, then on its reference cases.

    Raises:
        ModelError: a graph was refused, gave wrong outputs, crashed or hung its library, or ran
            out of memory; the message says which function and what it was doing.
        BackendError: a library cannot be imported.
    """
    request = _request(bundle, chosen, threads)
    remembered = _remembered(request)
    with contextlib.suppress(OSError):
        if remembered is not None and remembered.is_file():
            return
    usual = GPU_LIMITS if PROVIDERS.keys() & set(chosen.values()) else Limits()
    outcome = try_in_child(bundle, request, limits or usual)
    if outcome.missing_library:
        raise BackendError(outcome.detail)
    if outcome.ending != "passed":
        raise ModelError(outcome.detail)
    with contextlib.suppress(OSError):  # a cache that cannot be written only costs time
        if remembered is not None:
            remembered.parent.mkdir(parents=True, exist_ok=True)
            remembered.touch()


def try_in_child(bundle: Blobs, request: _Request, limits: Limits) -> Outcome:
    """Run one trial; never raises for what the graphs do."""
    body = msgspec.json.encode(request)
    parts: list[bytes | memoryview] = [_LENGTH.pack(len(body)), body]
    parts += (bundle.blob(digest) for digest, _ in request.blobs)
    memory = limits.memory_bytes
    if memory:
        memory += 16 * sum(size for _, size in request.blobs)
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    command += [str(n) for n in (os.getpid(), limits.cpu_s, memory, limits.output_bytes)]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as answers, tempfile.TemporaryFile() as noise:
        try:
            child = subprocess.run(
                command,
                input=b"".join(parts),
                stdout=answers,
                stderr=noise,
                cwd=Path(__file__).resolve().parents[2],  # where `import edge_wm` finds this one
                env=environment,
                timeout=limits.wall_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            status = None
        except OSError as error:
            raise SystemTroubleError(
                f"could not start a process to try the bundle in: {error}; free memory or "
                "processes and try again"
            ) from error
        else:
            status = child.returncode
        return _outcome(status, _read(answers), _read(noise), limits)


def _request(bundle: Bundle, chosen: Mapping[str, str], threads: int) -> _Request:
    from edge_wm.bundle.structure import largest_batch  # not in the child, see above

    rows = {name: largest_batch(bundle.manifest, name) for name in chosen}
    functions = msgspec.convert(
        msgspec.to_builtins(bundle.manifest.functions), dict[str, _Function]
    )
    held = cases_for(bundle.manifest.reference, chosen)
    cases = msgspec.convert(msgspec.to_builtins(held), tuple[_Case, ...])
    digests = [functions[name].graphs[BACKENDS[backend]] for name, backend in chosen.items()]
    for case in cases:
        digests += [*case.inputs.values(), *case.outputs.values()]
    blobs = tuple((digest, len(bundle.blob(digest))) for digest in dict.fromkeys(digests))
    return _Request(functions, cases, dict(chosen), threads, rows, blobs)


def _outcome(status: int | None, answers: str, noise: str, limits: Limits) -> Outcome:
    """What the child's exit status and its last words mean."""
    lines = []
    for line in answers.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    doing = next((line["doing"] for line in reversed(lines) if "doing" in line), "starting")
    last = lines[-1] if lines else {}
    if status == 0 and "ended" in last:
        ending, detail = last["ended"], last["detail"]
        if OUT_OF_MEMORY.search(detail):
            return Outcome("out of memory", _died(doing, "ran out of its memory limit"))
        return Outcome(ending, detail, last["missing_library"])
    if status is None:
        return Outcome("hung", _died(doing, f"hung: no answer for {limits.wall_s:g} s"))
    if status == -signal.SIGXCPU:
        return Outcome("hung", _died(doing, f"hung: used {limits.cpu_s} s of processor time"))
    if OUT_OF_MEMORY.search(noise) or status == -signal.SIGKILL:
        return Outcome("out of memory", _died(doing, "ran out of memory and was ended"))
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    said = next((": " + line.strip() for line in reversed(noise.splitlines()) if line.strip()), "")
    return Outcome("crashed", _died(doing, f"crashed {how}{said[:300]}"))


OUT_OF_MEMORY = re.compile(
    r"bad_alloc|bad allocation|MemoryError|Failed to allocate memory|Cannot allocate memory"
)


def _died(doing: str, what: str) -> str:
    return (
        f"trying the bundle in a child process: {doing}: the inference library {what}; do not "
        "use this bundle: build it again, or try another backend"
    )


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _remembered(request: _Request) -> Path | None:
    """The file that stands for "passed here before"; None where there is no cache folder."""
    folder = cache_folder()
    if folder is None:
        return None
    parts = [
        msgspec.json.encode(request),
        json.dumps([installed(), np.__version__, sys.version, platform.machine()]).encode(),
        processor().encode(),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(_LENGTH.pack(len(part)) + part)
    return folder / "passed" / digest.hexdigest()


# ---- child --------------------------------------------------------------------------------
def confine(parent: int, *, cpu_s: int, memory_bytes: int, output_bytes: int) -> bool:
    """Make this process end with its parent, and hold it to limits; False if the parent is gone.

    memory_bytes: of address space; 0 sets no limit.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:
        return False  # it died before the line above
    for what, limit in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, output_bytes),
    ):
        if what == resource.RLIMIT_AS and not limit:
            continue
        _, most = resource.getrlimit(what)
        resource.setrlimit(what, (limit if most < 0 else min(limit, most), most))
    return True


def _child(parent: int, cpu_s: int, memory_bytes: int, output_bytes: int) -> None:
    """Bind itself, read the request from stdin, do it, say how it went on stdout."""
    if not confine(parent, cpu_s=cpu_s, memory_bytes=memory_bytes, output_bytes=output_bytes):
        return
    # The answers get a descriptor of their own: libraries print to 1 as they please.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**line: object) -> None:
        print(json.dumps(line), file=answers, flush=True)

    (length,) = _LENGTH.unpack(sys.stdin.buffer.read(_LENGTH.size))
    request = msgspec.json.decode(sys.stdin.buffer.read(length), type=_Request)
    blobs = _Received({digest: sys.stdin.buffer.read(size) for digest, size in request.blobs})
    graphs: dict[str, Graph] = {}
    ending: Ending = "refused"
    detail, missing_library = "", False
    try:
        for name, backend in request.chosen.items():
            say(doing=f"loading function {name} on {backend}")
            function = request.functions[name]
            blob = blobs.blob(function.graphs[BACKENDS[backend]])
            graphs[name] = load_graph(
                blob,
                function,
                backend,
                name=name,
                threads=request.threads,
                rows=request.rows[name],
            )
        for name, graph in graphs.items():
            say(doing=f"running function {name}")
            warm_up(request.functions[name], graph, request.rows[name])
        ending = "wrong output"
        for number, case in enumerate(request.cases):
            say(doing=f"running function {case.function} on reference case {number}")
            require_case(blobs, request.functions, case, number, graphs)
        ending = "passed"
    except ModelError as error:
        detail = str(error)
    except BackendError as error:  # while loading: not installed; later: it could not run
        ending, detail = "refused", str(error)
        missing_library = len(graphs) < len(request.chosen)
    say(ended=ending, detail=detail, missing_library=missing_library)


@dataclass(frozen=True)
class _Received:
    content: dict[str, bytes]

    def blob(self, digest: str) -> memoryview:
        return memoryview(self.content[digest])


if __name__ == "__main__":
    _child(*(int(argument) for argument in sys.argv[1:]))
