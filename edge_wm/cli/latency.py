"""`edge-wm latency`: the way from a sensor to the command in a recorded run, stage by stage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.cli.opening import JsonOption
from edge_wm.errors import SystemTroubleError
from edge_wm.recording import open_recording
from edge_wm.report.waterfall import MEANINGS, STAGES, draw, waterfall


def latency(
    recording: Annotated[Path, typer.Argument(metavar="RUN.MCAP", help="The recording.")],
    out: Annotated[
        Path | None, typer.Option(metavar="PNG", help="Draw it, too, into this file.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell how long it took from a measurement to the command that was planned from it."""
    found = waterfall(open_recording(recording))
    if out is not None:
        try:
            draw(found).savefig(out)
        except (OSError, ValueError) as error:
            raise SystemTroubleError(
                f"--out {out}: the picture cannot be written ({error}); name a .png in a folder "
                "that can be written to"
            ) from error
    table = found.percentiles()
    worst = {name: found.worst(name) for name in (*STAGES, "total")}
    if as_json:
        facts = {
            "stream": found.stream,
            "plans": len(found.ticks),
            "ms": table,
            "worst": {name: asdict(case) for name, case in worst.items()},
        }
        typer.echo(json.dumps(facts, indent=2))
        return
    shown = Table("ms until", "", "p50", "p99", "p99.9", "max", "worst: sample, tick", box=None)
    for column in shown.columns[2:6]:
        column.justify = "right"
    for name, row in table.items():
        case = worst[name]
        cells = [f"{row[key]:.2f}" for key in ("p50", "p99", "p99.9", "max")]
        shown.add_row(
            name, MEANINGS.get(name, ""), *cells, f"{case.stamp_ns / 1e9:.3f} s, {case.tick}"
        )
    console = Console(highlight=False)
    console.print(f"{len(found.ticks)} plans, from the {found.stream}'s stamp on")
    console.print(shown)
    if out is not None:
        console.print(str(out))
