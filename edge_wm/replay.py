"""Executes a recorded run again, tick by tick, and finds the first thing that differs.

    recorded inputs   Sample, Activate, Request, PlanBegin, the times of Step and PlanEnd,
                      and what the planner's budget answered
    executed again    by the same `Runtime`, one thread, in the recorded order
    compared          every PlanEnd and every Step, field by field, bit by bit

The run is bit-exact on the same bundle, backend, kernel path and machine class, all of which the
recording names. Where one of them differs, `Replay.differences` says which, and only what follows
from the same samples is compared: the beliefs, each within `BELIEF_BOUND`. (A plan picks the best
of many candidates: there the last bit of a cost may change which, and bits are no measure.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from edge_wm.bundle import Bundle
from edge_wm.errors import MismatchError, RecordingError
from edge_wm.planner import RecordedBudget, make_planner
from edge_wm.recording import (
    Activate,
    Event,
    PlanBegin,
    PlanEnd,
    Recording,
    Request,
    Step,
    machine_class,
)
from edge_wm.robot import parse_robot
from edge_wm.runtime import (
    ModelDriver,
    PlanRequest,
    RunSettings,
    Runtime,
    backend_versions,
    planner_settings,
)
from edge_wm.types import Sample
from edge_wm.world_model import WorldModel

# Largest |replayed - recorded| / max(1, |recorded|) of a belief across backends and machines:
# float32 networks of this size agree to 1e-4 (measured between onnxruntime and LiteRT).
BELIEF_BOUND = 1e-3

NOT_COMPARED = frozenset({"stages", "duration_ns"})  # how long it took is not what it did


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first thing that differs."""

    event: int  # its number in the recording
    what: str  # such as "PlanEnd, tick 57: proposal.actions[3, 0]"
    recorded: str
    replayed: str


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of it."""

    events: int
    plans: int
    steps: int
    exact: bool  # bits were compared, not bounds
    differences: tuple[str, ...]  # in the conditions: why bits are not promised
    divergence: Divergence | None


def replay(
    recording: Recording,
    bundle: Bundle,
    *,
    backend: str | None = None,
    on_event: Callable[[int], object] | None = None,
) -> Replay:
    """Execute `recording` again with `bundle`. `on_event` is told each event's number.

    backend: another than the recording names; never "auto", which may choose another each time.

    Raises: MismatchError (another bundle, or a driver that is not the model's planner),
    RecordingError (events were lost, so that later ones cannot follow).
    """
    header = recording.header
    if bundle.sha256 != header.bundle_sha256:
        raise MismatchError(
            f"{recording.path}: was recorded with bundle {header.bundle_name} "
            f"{header.bundle_version}, sha256 {header.bundle_sha256[:16]}…, got "
            f"{bundle.path.name} with sha256 {bundle.sha256[:16]}…; give that bundle with --bundle"
        )
    driver_name = header.settings.get("driver", "planner")
    if driver_name != "planner":
        raise MismatchError(
            f"{recording.path}: was driven by the baseline {driver_name!r}, which looks at the "
            "simulator's truth or at nothing; only runs of the planner can be replayed"
        )
    if not recording.exact:
        lost = ", ".join(f"{count} {kind}" for kind, count in recording.lost.items())
        raise RecordingError(
            f"{recording.path}: cannot be replayed, events were lost while recording ({lost}); "
            "record to a faster disk"
        )
    robot = parse_robot(header.robot_text, f"{recording.path}: its robot file")
    backend = header.backend if backend is None else backend
    # Recordings from before `auto` measured say "auto" for what is now called "first".
    model = WorldModel(bundle, robot, backend="first" if backend == "auto" else backend)
    planner = make_planner(
        planner_settings(bundle.manifest, header.settings.get("candidates")), robot.axes
    )
    answers = _Answers()
    runtime = Runtime(
        robot,
        ModelDriver(model, planner),
        RunSettings(
            header.seed,
            header.settings["plan_latency_ns"],
            goal_tolerance=header.settings["goal_tolerance"],
            joint_tolerance=header.settings.get("joint_tolerance", 0.0),  # older: never reached
            learn_delay=header.settings.get("learn_delay", False),
        ),
        streams=tuple(bundle.manifest.needs.streams),
        step_ns=bundle.manifest.step_ns,
        journal=answers,
    )
    differences = tuple(_differing(header.machine, machine_class(), model, header.backend_version))
    plans = steps = number = 0
    divergence: Divergence | None = None
    for number, event in recording.events():
        if on_event is not None:
            on_event(number)
        match event:
            case Sample() if robot.streams[event.stream].derived_from:
                continue  # derived again from what it was derived from
            case Sample():
                runtime.push(event)
            case Activate():
                runtime.activate(event.now_ns)
            case Request():
                runtime.request(event.mode, event.who, event.now_ns, event.reason)
            case PlanBegin():
                begun = runtime.begin(event.now_ns, event.goal)
            case PlanEnd():
                plans += 1
                thought = None
                if isinstance(begun, PlanRequest):
                    budget = RecordedBudget(event.proposal.answers if event.proposal else ())
                    thought = runtime.driver.think(begun, budget)
                runtime.conclude(event.now_ns, begun, thought)
            case Step():
                steps += 1
                runtime.step(event.now_ns)
            case _:
                continue  # for people
        if isinstance(event, (PlanEnd, Step, Activate)):
            found = _first_difference(answers.last, event, exact=not differences)
            if found is not None:
                divergence = Divergence(number, *found)
                break
    return Replay(number, plans, steps, not differences, differences, divergence)


class _Answers:
    """A journal that keeps the newest event only."""

    last: Event

    def record(self, event: Event) -> int:
        self.last = event
        return 0


def _differing(
    recorded: Mapping[str, str], here: Mapping[str, str], model: WorldModel, backend: str
) -> Iterator[str]:
    """What differs in the conditions under which bits are promised."""
    for name in sorted(set(recorded) | set(here)):
        if recorded.get(name) != here.get(name):
            yield f"{name}: recorded on {recorded.get(name)}, replayed on {here.get(name)}"
    if backend != backend_versions(model):
        yield f"backend: recorded with {backend}, replayed with {backend_versions(model)}"


def _first_difference(
    replayed: Event, recorded: Event, *, exact: bool
) -> tuple[str, str, str] | None:
    kind = type(recorded).__name__
    where = f"{kind}, tick {recorded.tick}" if isinstance(recorded, PlanEnd) else kind
    if exact:
        found = next(_differences(replayed, recorded, ""), None)
    else:
        found = _belief_difference(replayed, recorded)
    return None if found is None else (f"{where}: {found[0]}", found[1], found[2])


def _differences(a: Any, b: Any, at: str) -> Iterator[tuple[str, str, str]]:
    """Every leaf in which replayed `a` and recorded `b` differ: its path, and both values."""
    if type(a) is not type(b):
        yield at, repr(b), repr(a)
    elif is_dataclass(b):
        for field in fields(b):
            if field.name not in NOT_COMPARED:
                path = f"{at}.{field.name}" if at else field.name
                yield from _differences(getattr(a, field.name), getattr(b, field.name), path)
    elif isinstance(b, np.ndarray):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield at, f"{b.dtype} {b.shape}", f"{a.dtype} {a.shape}"
        elif a.tobytes() != b.tobytes():
            bytes_a = np.ascontiguousarray(a).view(np.uint8).reshape(a.size, -1)
            bytes_b = np.ascontiguousarray(b).view(np.uint8).reshape(b.size, -1)
            first = int(np.flatnonzero((bytes_a != bytes_b).any(axis=1))[0])
            index = tuple(int(i) for i in np.unravel_index(first, b.shape))
            yield f"{at}{list(index)}", repr(b[index]), repr(a[index])
    elif isinstance(b, Mapping):
        for key in sorted(set(a) | set(b), key=str):
            yield from _differences(a.get(key), b.get(key), f"{at}[{key!r}]")
    elif isinstance(b, (tuple, list)):
        if len(a) != len(b):
            yield at, repr(b), repr(a)
        for position, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _differences(x, y, f"{at}[{position}]")
    elif a != b and not (a != a and b != b):
        yield at, repr(b), repr(a)


def _belief_difference(a: Event, b: Event) -> tuple[str, str, str] | None:
    if not isinstance(a, PlanEnd) or not isinstance(b, PlanEnd):
        return None
    if a.belief is None or b.belief is None:
        return None if a.belief is b.belief else ("belief", repr(b.belief), repr(a.belief))
    for name, tensor in b.belief.tensors.items():
        got = a.belief.tensors[name]
        error = np.abs(got - tensor) / np.maximum(1.0, np.abs(tensor))
        if not error.max() <= BELIEF_BOUND:
            index = tuple(int(i) for i in np.unravel_index(error.argmax(), error.shape))
            return f"belief.{name}{list(index)}", repr(tensor[index]), repr(got[index])
    return None
