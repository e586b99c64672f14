"""`edge-wm replay`: execute a recorded run again and say whether it is the same."""

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
from edge_wm.opening import bundle_path
from edge_wm.recording import open_recording
from edge_wm.replay import replay as execute
from edge_wm.robot import parse_robot


def replay(
    recording: Annotated[Path, typer.Argument(metavar="RUN.MCAP", help="The recording.")],
    bundle: BundleOption = None,
    diff: Annotated[bool, typer.Option("--diff", help="Name the first divergence.")] = False,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="Another backend than the recording names."),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Execute a recorded run again, bit by bit: same samples, clock, seeds and budgets.

    Exit code 0 if it is the same, 1 if it is not.
    """
    talk = Console(stderr=True)
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
