"""`edge-wm replay`: execute a recorded run again, or plan along somebody else's bag."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from edge_wm.bundle import load_trust, open_bundle
from edge_wm.cli.opening import BundleOption, JsonOption, TrustOption
from edge_wm.errors import UsageError
from edge_wm.open_loop import OpenLoop, open_loop
from edge_wm.opening import bundle_path
from edge_wm.recording import open_recording
from edge_wm.replay import replay as execute
from edge_wm.robot import Stream, find_robot, load_robot, parse_robot
from edge_wm.types import PoseGoal


def replay(
    recording: Annotated[
        Path, typer.Argument(metavar="RUN.MCAP|BAG", help="A run's recording, or a rosbag2.")
    ],
    bundle: BundleOption = None,
    diff: Annotated[bool, typer.Option("--diff", help="Name the first divergence.")] = False,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Another backend than the recording names."),
    ] = None,
    robot_name: Annotated[
        str | None,
        typer.Option(
            "--robot",
            metavar="NAME|FILE",
            help="Plan along a bag that anybody recorded of this robot, moving nothing.",
        ),
    ] = None,
    goal: Annotated[
        str | None,
        typer.Option(
            "--goal",
            metavar="X,Y",
            help="With --robot: m, odometry frame; absent: where the recorded motion ended.",
        ),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Execute a recorded run again, bit by bit: same samples, clock, seeds and budgets.

    With --robot, RUN.MCAP is a bag of anybody's (a folder, .mcap or .db3) with the robot file's
    topics: the model plans along it, and what it makes of the inputs is told.

    Exit code 0 if it is the same (with --robot: if it planned), 1 if not.
    """
    talk = Console(stderr=True)
    if robot_name is not None:
        _along_a_bag(recording, robot_name, bundle, backend, goal, trust, as_json, talk)
        return
    if goal is not None:
        raise UsageError("--goal: goes with --robot; a recorded run has its goals in it")
    if recording.is_dir() or recording.suffix == ".db3":
        raise UsageError(
            f"{recording}: must be the run.mcap of a run; to plan along a bag of somebody else's, "
            "say of which robot: --robot NAME"
        )
    opened = open_recording(recording)
    for trouble in opened.troubles:
        talk.print(f"[yellow]{trouble}[/]")
    robot = parse_robot(opened.header.robot_text, f"{recording}: its robot file")
    model = open_bundle(bundle_path(robot, bundle), load_trust(trust or ()))
    total = sum(1 for _ in opened.events())
    with Progress(
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        console=talk,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=total)
        result = execute(
            opened,
            model,
            backend=backend,
            on_event=lambda number: progress.update(task, completed=number),
        )
    if as_json:
        typer.echo(json.dumps(asdict(result), indent=2))
    else:
        for difference in result.differences:
            typer.echo(f"not promised to the bit: {difference}")
        measure = "bit-exact" if result.exact else "within the bound for beliefs"
        done = f"{result.plans} plans and {result.steps} setpoints"
        if result.divergence is None:
            typer.echo(f"{recording}: {done}, {measure}")
        else:
            at = result.divergence
            typer.echo(f"{recording}: differs at event {at.event}, after {done}")
            if diff:
                typer.echo(f"  {at.what}\n  recorded {at.recorded}\n  replayed {at.replayed}")
            else:
                typer.echo("  --diff names the value")
    if result.divergence is not None:
        raise typer.Exit(1)


def _along_a_bag(
    bag: Path,
    robot_name: str,
    bundle: Path | None,
    backend: str | None,
    goal_text: str | None,
    trust: list[Path] | None,
    as_json: bool,
    talk: Console,
) -> None:
    robot = load_robot(find_robot(robot_name))
    goal = None if goal_text is None else _place(goal_text, robot.pose_stream)
    model = open_bundle(bundle_path(robot, bundle), load_trust(trust or ()))
    with Progress(
        TextColumn("planning along the bag"),
        BarColumn(),
        console=talk,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=1.0)
        result = open_loop(
            bag,
            robot,
            model,
            backend=backend or "first",
            goal=goal,
            progress=lambda share: progress.update(task, completed=share),
        )
    if as_json:
        told = asdict(result) | {"goal": str(result.goal)}
        typer.echo(json.dumps(told, indent=2, allow_nan=True))
    else:
        for line in _page(result):
            typer.echo(line)
    if not result.plans:
        raise typer.Exit(1)


def _place(text: str, pose: Stream | None) -> PoseGoal:
    try:
        x, y = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--goal: must be X,Y in meters, such as 2.5,-1, found {text!r}") from None
    return PoseGoal(x, y, None, pose.frame if pose else "odom")


def _page(result: OpenLoop) -> list[str]:
    lines = [f"{result.seconds:.1f} s of bag"]
    for name, count in result.samples.items():
        refused = result.drops.get(name, {})
        why = ", ".join(f"{n} {reason}" for reason, n in refused.items())
        lines.append(f"  {name}: {count} samples{f', refused {why}' if why else ''}")
    for name in sorted(set(result.drops) - set(result.samples)):
        why = ", ".join(f"{n} {reason}" for reason, n in result.drops[name].items())
        lines.append(f"  {name}: none taken in, refused {why}")
    lines.append(f"{result.plans} plans in {result.ticks} ticks towards {result.goal}")
    lines += [f"  {count} ticks without: {reason}" for reason, count in result.not_planned.items()]
    if result.plans:
        p50, p99, most = result.plan_ms
        lines.append(f"  a plan takes {p50:.1f} ms (p99 {p99:.1f}, most {most:.1f})")
    if result.predictions:
        lines.append(
            f"{result.ahead_s:.2f} s ahead it is wrong by {result.prediction_error:.2f} of what "
            f"changes ({result.predictions} predictions; 1 is as good as predicting no change)"
        )
    return lines
