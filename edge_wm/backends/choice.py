"""`auto`: which backend runs which function of a bundle, found out by running them here.

    try       each installed backend's graphs in a child process (`probe`), then in this one
    compare   with the bundle's reference cases: a backend that is wrong is out, with its reason
    time      at the batch that planning will ask for: medians of rounds in which all take turns
    take      the fastest; of those within 10 % of it the first in the order of `BACKENDS`

What is rolled out (dynamics, cost, constraint, value) is one choice where native can do all of it:
there the rollout of the planner's candidates in one call is timed against a loop over the
functions of each other backend, which is how `world_model` would run them.

The answer is kept in the cache folder under this device, the library versions and the bundle, so
that it is stable from start to start. Timing is noise: what must come out alike twice (`eval`,
tests) uses the fixed rule "first", and a recording names what was chosen, for `replay`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import numpy as np

from edge_wm import __version__
from edge_wm.backends import BACKENDS, Graph, choose, installed, load_graph, native_rollout
from edge_wm.backends.machine import cache_folder, driver, processor
from edge_wm.backends.probe import probe
from edge_wm.backends.reference import cases_for, require_reference, warm_up
from edge_wm.bundle import Bundle
from edge_wm.bundle.container import write_atomically
from edge_wm.bundle.manifest import ROLLED_OUT, Function, Input, Manifest
from edge_wm.bundle.structure import at_batch, largest_batch
from edge_wm.errors import BackendError, ModelError, SystemTroubleError, UsageError
from edge_wm.types import Array

ROLLOUT = "rollout"  # the group of what is rolled out in one call
CLOSE = 1.10  # times the fastest: as good, so that the choice does not flip with the noise
BUDGET_S = 1.0  # for timing all groups together
ROUNDS = 3, 25  # at least, whatever they take; at most
HOPELESS = 3.0  # times the fastest: not run again once the time is used up

Tell = Callable[[str], object]
Call = Callable[[], object]


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the table: a backend's time for one group of functions, or why it is out."""

    group: str  # a function's name, or "rollout"
    functions: tuple[str, ...]
    backend: str
    ms: float | None  # None: out
    reason: str = ""  # why it is out
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What was settled."""

    chosen: Mapping[str, str]  # function -> backend
    timings: tuple[Timing, ...] = ()  # what it was measured by; none where a rule or a name decided
    fresh: bool = False  # measured now, not remembered


def settle(
    bundle: Bundle,
    backend: str,
    *,
    threads: int = 1,
    again: bool = False,
    tell: Tell = lambda _: None,
) -> Choice:
    """The backend of every function of `bundle`.

    backend: one of `BACKENDS`; "first"; "auto", which measures unless this machine has measured
    this bundle before; or functions by name, "encoder=litert,dynamics=native", where those that
    are not named follow the rule "first".
    again: measure also what is remembered. tell: is told, in words, that time is being spent.

    Raises:
        UsageError: no such backend or function.
        BackendError: a library is not installed.
        ModelError: a function has no graph that is fit to run here; the message names every
            candidate with its reason.
    """
    functions = {str(name): function for name, function in bundle.manifest.functions.items()}
    if backend != "auto":
        return Choice(_named(functions, backend))
    key = device_key() | {"bundle": bundle.sha256, "threads": str(threads)}
    if not again:
        timings = _remembered(key, functions)
        if timings:
            return Choice(_in_order(functions, timings), timings)
    tell("measuring backends on this machine ...")
    timings = measure(bundle, threads=threads, tell=tell)
    _remember(key, timings)
    return Choice(_in_order(functions, timings), timings, fresh=True)


def spelled(chosen: Mapping[str, str]) -> str:
    """A choice as `settle` reads it: one word where it can be."""
    if len(set(chosen.values())) == 1:
        return next(iter(chosen.values()))
    return ",".join(f"{name}={backend}" for name, backend in chosen.items())


def in_words(timings: Sequence[Timing]) -> list[str]:
    """One line for each group of functions: what was chosen, and why."""
    lines = []
    for group in dict.fromkeys(row.group for row in timings):
        rows = [row for row in timings if row.group == group]
        (taken,) = (row for row in rows if row.chosen)
        others = [
            f"{row.backend} {'is out' if row.ms is None else f'{row.ms:.3g} ms'}"
            for row in rows
            if row is not taken
        ]
        faster = [r for r in rows if r.ms is not None and taken.ms is not None and r.ms < taken.ms]
        what = f"{group} ({', '.join(taken.functions)})" if len(taken.functions) > 1 else group
        lines.append(
            f"{what}: {taken.backend} {taken.ms:.3g} ms; {', '.join(others) or 'no other'}"
            + ("; within 10 %, so the first of them" if faster else "")
        )
    return lines


def _named(functions: Mapping[str, Function], backend: str) -> dict[str, str]:
    """What a rule or names say, without running anything."""
    asked = dict.fromkeys(functions, backend)
    if "=" in backend:
        asked = dict.fromkeys(functions, "first")
        for part in backend.split(","):
            name, _, of = part.partition("=")
            if name not in functions:
                raise UsageError(
                    f"backend {backend!r}: no function {name!r}; the bundle has "
                    f"{', '.join(functions)}"
                )
            asked[name] = of
    return {name: choose(name, functions[name].graphs, of) for name, of in asked.items()}


# ---- measuring ----------------------------------------------------------------------------
def measure(bundle: Bundle, *, threads: int = 1, tell: Tell = lambda _: None) -> tuple[Timing, ...]:
    """Try, compare and time every installed backend. Raises as `settle`."""
    manifest = bundle.manifest
    functions = {str(name): function for name, function in manifest.functions.items()}
    for name, function in functions.items():
        choose(name, function.graphs)  # says what to do where no backend could be a candidate
    graphs: dict[str, dict[str, Graph]] = {name: {} for name in functions}
    faults: dict[str, dict[str, str]] = {name: {} for name in functions}
    ready = installed()
    for backend in (b for b in BACKENDS if b in ready):
        names = [name for name, f in functions.items() if BACKENDS[backend] in f.graphs]
        if backend == "onnxruntime-tensorrt":
            tell("building TensorRT engines: minutes at the first start, kept for the next")
        found = _faults(bundle, backend, names, threads)
        for name in names:
            try:
                if name in found:
                    raise ModelError(found[name])
                graphs[name][backend] = _loaded(bundle, name, backend, threads)
            except (ModelError, BackendError) as error:
                faults[name][backend] = str(error)
    for name in functions:
        if not graphs[name]:
            reasons = "; ".join(f"{backend}: {why}" for backend, why in faults[name].items())
            raise ModelError(f"function {name}: no backend can run it on this machine; {reasons}")

    groups = _groups(manifest, graphs, threads)
    rows: list[Timing] = []
    for group, (members, calls) in groups.items():
        out = dict(_first_faults(members, faults))
        for backend, call in list(calls.items()):
            try:
                call()  # also the last of what is done once only
            except (ModelError, BackendError) as error:
                out[backend] = str(error)
                del calls[backend]
        if not calls:
            reasons = "; ".join(f"{backend}: {why}" for backend, why in out.items())
            raise ModelError(f"{group}: no backend can run it on this machine; {reasons}")
        ms = medians(calls, BUDGET_S / len(groups))
        taken = fastest(ms)
        rows += [
            Timing(group, members, b, ms.get(b), out.get(b, ""), b == taken)
            for b in BACKENDS
            if b in ms or b in out
        ]
    return tuple(rows)


def fastest(ms: Mapping[str, float]) -> str:
    """The first in the order of `BACKENDS` that is as good as the fastest."""
    best = min(ms.values())
    return next(b for b in BACKENDS if b in ms and ms[b] <= CLOSE * best)


def medians(calls: Mapping[str, Call], budget_s: float) -> dict[str, float]:
    """Milliseconds of each call: the median of rounds in which all take turns."""
    times: dict[str, list[float]] = {backend: [] for backend in calls}
    least, most = ROUNDS
    began = time.perf_counter()
    for number in range(most):
        spent = time.perf_counter() - began > budget_s
        if spent and number >= least:
            break
        best = min((min(t) for t in times.values() if t), default=0.0)
        for backend, call in calls.items():
            if spent and number and min(times[backend]) > HOPELESS * best:
                continue
            start = time.perf_counter()
            call()
            times[backend].append((time.perf_counter() - start) * 1e3)
    return {backend: median(t) for backend, t in times.items()}


def _faults(bundle: Bundle, backend: str, names: Sequence[str], threads: int) -> dict[str, str]:
    """function -> what went wrong with it in a child process; apart only if not all go well."""
    if not names:
        return {}
    try:
        probe(bundle, dict.fromkeys(names, backend), threads=threads)
    except (ModelError, BackendError) as error:
        if len(names) == 1:
            return {names[0]: str(error)}
        found: dict[str, str] = {}
        for name in names:
            found |= _faults(bundle, backend, [name], threads)
        return found
    return {}


def _loaded(bundle: Bundle, name: str, backend: str, threads: int) -> Graph:
    """One function in this process, warm, and held against its reference cases."""
    manifest = bundle.manifest
    function = {str(n): f for n, f in manifest.functions.items()}[name]
    digests = {str(kind): digest for kind, digest in function.graphs.items()}
    rows = largest_batch(manifest, name)
    blob = bundle.blob(digests[BACKENDS[backend]])
    graph = load_graph(blob, function, backend, name=name, threads=threads, rows=rows)
    warm_up(function, graph, rows)
    cases = cases_for(manifest.reference, {name: backend})
    require_reference(bundle, {name: function}, cases, {name: graph})
    return graph


def _groups(
    manifest: Manifest, graphs: Mapping[str, Mapping[str, Graph]], threads: int
) -> dict[str, tuple[tuple[str, ...], dict[str, Call]]]:
    """What is chosen as one: group -> its functions, and what to time for each backend."""
    functions = {str(name): function for name, function in manifest.functions.items()}
    groups: dict[str, tuple[tuple[str, ...], dict[str, Call]]] = {}
    together: tuple[str, ...] = ()
    native = {name: of["native"] for name, of in graphs.items() if "native" in of}
    rollout = native_rollout(manifest, native, threads)
    if rollout is not None and _all_in_batches(functions):
        together = tuple(name for name in ROLLED_OUT if name in functions)
        calls: dict[str, Call] = {"native": _native_call(manifest, functions, rollout)}
        for backend in BACKENDS:
            if backend != "native" and all(backend in graphs[name] for name in together):
                of = {name: graphs[name][backend] for name in together}
                calls[backend] = _loop_call(manifest, functions, of)
        groups[ROLLOUT] = together, calls
    for name in functions:
        if name not in together:
            inputs = _inputs(functions[name], largest_batch(manifest, name))
            groups[name] = (
                (name,),
                {b: _run_call(graph, inputs) for b, graph in graphs[name].items()},
            )
    return groups


def _all_in_batches(functions: Mapping[str, Function]) -> bool:
    """Whether beliefs and actions have a batch axis; `world_model` refuses the bundle if not."""
    return all(
        spec.shape[:1] == (-1,)
        for name in ROLLED_OUT
        if name in functions
        for spec in functions[name].inputs
        if spec.source.startswith("belief.") or spec.source in ("action", "noise")
    )


def _first_faults(
    members: Sequence[str], faults: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Backend -> why it is out of a group: the fault of the first function that has one."""
    return {backend: why for name in reversed(members) for backend, why in faults[name].items()}


def _run_call(graph: Graph, inputs: Mapping[str, Array]) -> Call:
    return lambda: graph.run(inputs)


def _native_call(manifest: Manifest, functions: Mapping[str, Function], rollout: object) -> Call:
    """The planner's candidates over the whole horizon in one call."""
    from edge_wm.backends.native import NativeRollout

    assert isinstance(rollout, NativeRollout)
    of = rollout
    K, H = largest_batch(manifest, "dynamics"), manifest.horizon
    random = np.random.default_rng(0)
    belief = {t.name: random.standard_normal(t.shape, np.float32) for t in manifest.belief}
    actions = random.standard_normal((K, H, manifest.action_size), np.float32)
    shapes = {
        spec.source: at_batch(spec.shape, 1)
        for name in ("cost", "value")
        if name in functions
        for spec in functions[name].inputs
    }
    goals = {source: random.standard_normal(shapes[source], np.float32) for source in of.goals}
    noise = None
    for spec in functions["dynamics"].inputs:
        if spec.source == "noise":
            noise = random.standard_normal((H, K, math.prod(spec.shape[1:])), np.float32)
    dt = manifest.step_ns * 1e-9
    return lambda: of.run(belief, goals, actions, dt=dt, weights={}, noise=noise)


def _loop_call(
    manifest: Manifest, functions: Mapping[str, Function], graphs: Mapping[str, Graph]
) -> Call:
    """The same on another backend, as `WorldModel.rollout` does it: dynamics step by step, then
    cost and constraint of all steps in one batch, and the value of the last."""
    K, H = largest_batch(manifest, "dynamics"), manifest.horizon
    start = _inputs(functions["dynamics"], K)
    rows = {"cost": K * H, "constraint": K * H, "value": K}
    ahead = {name: _inputs(functions[name], rows[name]) for name in graphs if name in rows}
    fed = {
        spec.source: spec.tensor
        for spec in functions["dynamics"].inputs
        if spec.source.startswith("belief.")
    }
    carried = [(o.tensor, fed[o.target]) for o in functions["dynamics"].outputs if o.target in fed]
    path = {tensor: np.empty((H, *start[tensor].shape), np.float32) for _, tensor in carried}

    def loop() -> None:
        feeds = dict(start)
        for h in range(H):
            outputs = graphs["dynamics"].run(feeds)
            for given, taken in carried:
                path[taken][h] = outputs[given].reshape(start[taken].shape)
                feeds[taken] = path[taken][h]
        for name, inputs in ahead.items():
            graphs[name].run(inputs)

    return loop


def _inputs(function: Function, rows: int) -> dict[str, Array]:
    """Some inputs of a function: its time does not depend on which."""
    random = np.random.default_rng(0)

    def some(spec: Input) -> Array:
        shape, dtype = at_batch(spec.shape, rows), np.dtype(spec.dtype)
        if dtype.kind == "f":
            return random.standard_normal(shape, np.float32).astype(dtype)
        return random.integers(0, 2 if dtype.kind == "b" else 127, shape).astype(dtype)

    return {spec.tensor: some(spec) for spec in function.inputs}


# ---- remembering --------------------------------------------------------------------------
def device_key() -> dict[str, str]:
    """What a measurement holds for: processor, cores, kernels, driver and library versions."""
    ready = installed()
    kernels = ""
    if "native" in ready:
        from edge_wm.backends.native import chosen_kernels

        kernels = chosen_kernels()
    return {
        "edge_wm": __version__,
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),  # a Jetson's power mode takes cores offline
        "kernels": kernels,
        "driver": driver(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "libraries": ", ".join(f"{backend}: {what}" for backend, what in ready.items()),
    }


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file: what it holds for, and the table."""

    key: dict[str, str]
    timings: tuple[Timing, ...]


def _file(key: Mapping[str, str]) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return folder / "choice" / f"{digest}.json"


def _remember(key: dict[str, str], timings: tuple[Timing, ...]) -> None:
    path = _file(key)
    if path is None:
        return
    content = msgspec.json.format(msgspec.json.encode(_Kept(key, timings)))
    # A cache that cannot be written only costs time.
    with contextlib.suppress(OSError, SystemTroubleError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, iter([content]))


def _remembered(
    key: Mapping[str, str], functions: Mapping[str, Function]
) -> tuple[Timing, ...] | None:
    """The table of an earlier start; None if there is none, or none that can be relied on."""
    path = _file(key)
    if path is None:
        return None
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, ValueError):  # msgspec's errors are ValueErrors, as are wrong bytes
        return None
    rows, chosen = kept.timings, _chosen(kept.timings)
    ready = installed()
    sound = (
        kept.key == key
        and set(chosen) == set(functions)
        and sum(len(row.functions) for row in rows if row.chosen) == len(functions)
        and all(b in ready and BACKENDS[b] in functions[n].graphs for n, b in chosen.items())
        and all(row.ms is not None and row.ms > 0 for row in rows if row.chosen)
    )
    return rows if sound else None


def _in_order(functions: Iterable[str], timings: Sequence[Timing]) -> dict[str, str]:
    chosen = _chosen(timings)
    return {name: chosen[name] for name in functions}


def _chosen(timings: Sequence[Timing]) -> dict[str, str]:
    return {name: row.backend for row in timings if row.chosen for name in row.functions}
