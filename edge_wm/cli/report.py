"""`edge-wm report`: make the report of a recorded run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edge_wm.cli.opening import JsonOption
from edge_wm.report import write_report


def report(
    recording: Annotated[Path, typer.Argument(metavar="RUN.MCAP", help="The recording.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Beside the recording if absent.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make report.html and its pictures from a recording."""
    page = write_report(recording, out or recording.parent)
    typer.echo(json.dumps({"report": str(page)}) if as_json else str(page))
