"""`edge-wm run`: drive the robot live, record everything, leave a report."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.status import Status
from rich.table import Table

from edge_wm.backends.choice import spelled
from edge_wm.bundle import Bundle, check_fit, load_trust, open_bundle
from edge_wm.cli.goals import GoalOption, goals_of
from edge_wm.cli.looping import looped_robot, loosened
from edge_wm.cli.opening import (
    BackendOption,
    BundleOption,
    JsonOption,
    RobotOption,
    TrustOption,
    settled,
)
from edge_wm.cli.ros import drive_with_ros
from edge_wm.cli.view import Viewer
from edge_wm.deploy import start
from edge_wm.deploy.holding import running
from edge_wm.deploy.switching import simulated
from edge_wm.errors import LinkError, SystemTroubleError, UsageError
from edge_wm.evaluation import Way
from edge_wm.opening import bundle_path
from edge_wm.planner import make_planner
from edge_wm.reasons import Reason
from edge_wm.recording import Event, Header, Recorder, Statistics, machine_class
from edge_wm.report import write_report
from edge_wm.robot import find_robot, load_robot
from edge_wm.runtime import (
    Journal,
    ModelDriver,
    RunSettings,
    Runtime,
    backend_versions,
    planner_settings,
)
from edge_wm.runtime.live import Live
from edge_wm.simulation import HELD_BACK_SEED, make_simulation
from edge_wm.world_model import WorldModel
from firmware_bridge.looped import Looped

STATUS_EVERY_S = 0.1
STATUS_EVERY_PLAIN_S = 5.0  # where stderr is no terminal
GUARD_ACTIONS = (Reason.obstacle_ahead, Reason.obstacle_near, Reason.ranges_stale)


def run(
    context: typer.Context,
    robot: RobotOption = "rover",
    bundle: BundleOption = None,
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Start what is active in this store (edge-wm deploy), or what it falls back to.",
        ),
    ] = None,
    duration: Annotated[float, typer.Option(min=1.0, help="How long to drive, s.")] = 20.0,
    seed: Annotated[int, typer.Option(min=0, help="World, sensor noise and planner.")] = 0,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the run's own folder is made.")
    ] = Path("runs"),
    shadow: Annotated[bool, typer.Option(help="Do everything but move.")] = False,
    view: Annotated[bool, typer.Option("--view", help="Show the run live in Rerun.")] = False,
    report: Annotated[bool, typer.Option(help="Make report.html and its pictures.")] = True,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="Candidates an iteration; the bundle's if absent.")
    ] = None,
    backend: BackendOption = "auto",
    learn_delay: Annotated[
        bool,
        typer.Option("--learn-delay", help="Learn the actuation delay, and plan with it."),
    ] = False,
    hil: Annotated[
        bool,
        typer.Option(
            "--hil",
            help="Through the link into the firmware, in an emulated motor controller.",
        ),
    ] = False,
    hil_port: Annotated[
        str | None,
        typer.Option(
            metavar="PORT",
            help="The same with a real controller here, its wheels off the floor.",
        ),
    ] = None,
    ros: Annotated[
        bool, typer.Option("--ros", help="As ROS 2 nodes, a process each, instead of in one.")
    ] = False,
    goal: GoalOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive a robot with its world model: a base to its goal and back, an arm to one posture after
    another.

    Writes run.mcap (for Foxglove and `edge-wm replay`) and a report into a folder of its own.
    Ctrl-C stops the robot and ends the run in the same way.
    """
    talk = Console(stderr=True)
    looping = hil or hil_port is not None
    if ros and looping:
        raise UsageError("--hil drives in one process; leave --ros out")
    if ros and view:
        raise UsageError("--view shows a run in one process; with --ros launch wm_viz and RViz")
    if ros and goal:
        raise UsageError("--goal is for a run in one process; with --ros publish on /goal_pose")
    if store is not None and bundle is not None:
        raise UsageError("--store starts what is active there; leave --bundle out")
    if store is not None and ros:
        raise UsageError(
            "--store is for a run in one process; with --ros give --bundle the path that "
            "`edge-wm deploy status --json` says under `starts`"
        )
    if ros:
        summary = drive_with_ros(
            lambda: _new_folder(out), lambda: _status_line(talk), robot=robot, duration=duration,
            bundle="" if bundle is None else str(bundle.resolve()), seed=seed, shadow=shadow,
            candidates=candidates or 0, backend=backend, trust=trust or [],
            learn_delay=learn_delay,
        )  # fmt: skip
        _tell_summary(summary, as_json)
        return
    talk.print(f"[dim]opening robot {robot} and its bundle[/]")
    loaded = load_robot(find_robot(robot))
    if looping and hil_port is None:
        loaded = loosened(loaded)
    goals = goals_of(goal or [], loaded)

    def load(opened: Bundle) -> WorldModel:
        manifest, signer = opened.manifest, opened.signer
        talk.print(
            f"[dim]bundle {manifest.name} {manifest.version}, signed by "
            f"{signer.name if signer else 'nobody'}: loading it, and checking it on this "
            "machine[/]"
        )
        check_fit(manifest, loaded)  # before time is spent on a measurement
        return WorldModel(opened, loaded, backend=spelled(settled(opened, backend).chosen))

    trusted = load_trust(trust or (), developer=simulated(loaded))
    if store is None:
        opened = open_bundle(bundle_path(loaded, bundle), trusted)
        model = load(opened)
    else:
        context.with_resource(running(store, "edge-wm run"))  # until this command ends
        started = start(store.absolute(), loaded, trusted, load)
        for skipped in started.skipped:
            talk.print(f"[yellow]not started: {skipped}[/]")
        opened, model = started.bundle, started.loaded
    manifest = opened.manifest
    planner = make_planner(planner_settings(manifest, candidates), loaded.axes)
    driver = ModelDriver(model, planner)
    settings = replace(RunSettings.for_robot(loaded, seed), learn_delay=learn_delay)
    dead_man_ms = loaded.dead_man_ns / 1e6
    header = Header(
        robot_text=loaded.text,
        bundle_name=manifest.name,
        bundle_version=manifest.version,
        bundle_sha256=opened.sha256,
        backend=model.backend,
        backend_version=backend_versions(model),
        kernel="",
        machine=machine_class(),
        seed=seed,
        settings={
            "driver": "planner",
            "plan_latency_ns": settings.plan_latency_ns,
            "goal_tolerance": settings.goal_tolerance,
            "joint_tolerance": settings.joint_tolerance,
            "candidates": candidates,
            "shadow": shadow,
            "learn_delay": learn_delay,
            **({"hil": hil_port or "emulated", "dead_man_ms": dead_man_ms} if looping else {}),
        },
        started=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    looped: Looped | None = None
    if looping:
        talk.print("[dim]starting the motor controller and its link[/]")
        simulation, looped = looped_robot(loaded, HELD_BACK_SEED + seed, seed, hil_port)
        talk.print(f"[dim]linked to {looped.facts()['firmware']}, dead-man {dead_man_ms:g} ms[/]")
    else:
        simulation = make_simulation(loaded, HELD_BACK_SEED + seed, seed=seed)
    still: Callable[[], AbstractContextManager[None]] = looped.still if looped else nullcontext
    folder = _new_folder(out)
    recorder = Recorder(
        folder / "run.mcap",
        loaded,
        header,
        on_trouble=lambda trouble: talk.print(f"[yellow]{trouble}[/]"),
    )
    journal: Journal = _Also(recorder, Viewer(loaded)) if view else recorder
    runtime = Runtime(
        loaded,
        driver,
        settings,
        streams=tuple(manifest.needs.streams),
        step_ns=manifest.step_ns,
        journal=journal,
    )
    goals = goals or simulation.goals
    with still():
        way = Way(simulation)

    def look() -> None:
        with still():
            way.look(runtime)

    live = Live(
        runtime,
        looped or simulation,
        lambda _: goals[runtime.counts.goals_reached % len(goals)],
        shadow=shadow,
        imagine=driver.imagine,
        watch=look,
        clock=(lambda: looped.now_ns) if looped else time.monotonic_ns,
    )
    interrupted = False
    broken: LinkError | None = None
    facts: dict[str, Any] = {}
    began = time.monotonic()
    try:
        with live, _status_line(talk) as tell:
            live.activate(looped.arm if looped and not shadow else lambda: None)
            began = time.monotonic()
            while (driven := time.monotonic() - began) < duration and not live.failed:
                time.sleep(min(STATUS_EVERY_S, duration - driven))
                tell(_status(runtime, live, way, driven))
    except KeyboardInterrupt:
        interrupted = True
    except LinkError as error:
        broken = error
    finally:
        seconds = time.monotonic() - began
        if looped is not None:
            facts = looped.facts()
        statistics = recorder.close({name: str(fact) for name, fact in facts.items()})
    if interrupted:
        talk.print("[yellow]interrupted: the robot was braked to rest, the recording is whole[/]")

    summary = _summary(runtime, live, way, statistics, seconds)
    if facts:
        summary["link"] = facts
    summary["folder"] = str(folder)
    if report:
        talk.print("[dim]making the report[/]")
        summary["report"] = str(write_report(folder / "run.mcap", folder))
    _tell_summary(summary, as_json)
    if broken is not None:
        raise broken


class _Also:
    """A journal that hands every event to a second one too."""

    def __init__(self, first: Journal, second: Journal) -> None:
        self._first, self._second = first, second

    def record(self, event: Event) -> int:
        self._second.record(event)
        return self._first.record(event)


def _new_folder(out: Path) -> Path:
    """Make `out`/<time>, which did not exist before."""
    stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix in ("", *(f"_{n}" for n in range(2, 1000))):
            folder = out / f"{stamp}{suffix}"
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise SystemTroubleError(
            f"--out {out}: a folder for the run could not be made ({error.strerror}); "
            "name a folder that can be written to"
        ) from error
    raise SystemTroubleError(f"--out {out}: a thousand runs began in this second")


def _status(runtime: Runtime, live: Live, way: Way, driven_s: float) -> str:
    """One line: mode, rate, latency, ages, guard, drops."""
    counts = runtime.counts
    ages = " ".join(f"{name} {age / 1e6:.0f} ms" for name, age in runtime.ages_ns().items())
    held = sum(n for reason, n in counts.guard.items() if reason in GUARD_ACTIONS)
    parts = [
        f"{driven_s:5.1f} s",
        f"{runtime.mode.name:6}",
        f"plans {counts.plans / max(driven_s, 1e-3):4.1f}/s p99 {live.plan.p99_ms():4.1f} ms",
        f"late {counts.late}",
        f"candidates {runtime.candidates}",
        f"ages {ages}",
        f"guard {held}",
        f"refused {sum(counts.refusals.values())}",
        f"drops {sum(counts.drops.values())}",
        f"goals {counts.goals_reached}",
    ]
    if way.truth.contact_ns:
        parts.append(f"CONTACT {way.truth.contact_ns:.2f} s")
    return " | ".join(parts)


@contextmanager
def _status_line(talk: Console) -> Iterator[Callable[[str], None]]:
    """One line that changes in place; where nobody watches, a line every few seconds."""
    if talk.is_terminal:
        with Status("starting", console=talk, refresh_per_second=10) as line:
            yield line.update
        return
    last = -math.inf

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= STATUS_EVERY_PLAIN_S:
            last = time.monotonic()
            print(text, file=sys.stderr, flush=True)

    yield tell


def _summary(
    runtime: Runtime, live: Live, way: Way, statistics: Statistics, seconds: float
) -> dict[str, Any]:
    counts = runtime.counts
    return {
        "seconds": round(seconds, 2),
        "distance_m": round(way.distance, 2),
        "goals_reached": counts.goals_reached,
        "contact_s": round(way.truth.contact_ns * 1e-9, 3),
        "plans": counts.plans,
        "plan_rate_hz": round(counts.plans / max(seconds, 1e-3), 2),
        "plan_p99_ms": round(live.plan.p99_ms(), 2),
        "plan_deadlines_missed": live.plan.missed,
        "late_plans": counts.late,
        "actuation_delay_ms": round(runtime.delay_ns / 1e6, 1),
        "setpoints": counts.steps,
        "setpoint_p99_ms": round(live.setpoint.p99_ms(), 2),
        "setpoint_deadlines_missed": live.setpoint.missed,
        "refused": {reason.name: n for reason, n in counts.refusals.most_common()},
        "without_plan": {reason.name: n for reason, n in counts.no_plan.most_common()},
        "guard": {reason.name: n for reason, n in counts.guard.most_common()},
        "drops": {reason.name: n for reason, n in counts.drops.most_common()},
        "recorded_events": statistics.events,
        "lost_events": dict(statistics.lost),
    }


def _tell_summary(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in summary.items():
        shown = (
            ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        table.add_row(name.replace("_", " "), "none" if shown == "" else str(shown))
    Console().print(table)
