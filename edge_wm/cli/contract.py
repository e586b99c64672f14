"""`edge-wm contract`: does a recording carry what the robot file promises?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.cli.opening import JsonOption, RobotOption
from edge_wm.contract import check
from edge_wm.recording.bag import read_bag
from edge_wm.robot import find_robot, load_robot

app = typer.Typer(help="Compare recordings with a robot file.", no_args_is_help=True)
STYLES = {"ok": "green", "suspect": "yellow", "wrong": "red"}


@app.callback()
def _group() -> None:
    """Compare recordings with a robot file."""


@app.command("check")
def contract_check(
    bag: Annotated[Path, typer.Argument(metavar="BAG", help="A rosbag2 folder, .mcap or .db3.")],
    robot: RobotOption = "rover",
    as_json: JsonOption = False,
) -> None:
    """Say which signals are missing, late, of another shape, or in other units.

    Exit code 1 if something is wrong; a suspicion alone is no failure.
    """
    findings = check(read_bag(bag), load_robot(find_robot(robot)))
    fits = all(finding.level != "wrong" for finding in findings)
    if as_json:
        typer.echo(json.dumps({"fits": fits, "findings": [asdict(f) for f in findings]}, indent=2))
    else:
        table = Table("stream", "", "", box=None)
        for finding in findings:
            style = STYLES[finding.level]
            table.add_row(finding.stream, f"[{style}]{finding.level}[/]", finding.text)
        Console(highlight=False).print(table)
        typer.echo("it fits" if fits else "it does not fit: see what is wrong above")
    if not fits:
        raise typer.Exit(1)
