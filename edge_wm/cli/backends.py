"""`edge-wm bundle backends`: which backend runs which function here, by measurement."""

from __future__ import annotations

import json

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_wm.backends.choice import settle
from edge_wm.bundle import Bundle


def print_backends(bundle: Bundle, *, again: bool, as_json: bool) -> None:
    """Function, backend, milliseconds, parity and choice; then, apart, why some are out."""
    choice = settle(bundle, "auto", again=again, tell=lambda line: typer.echo(line, err=True))
    if as_json:
        result = {
            "chosen": dict(choice.chosen),
            "measured_now": choice.fresh,
            "timings": msgspec.to_builtins(choice.timings),
        }
        typer.echo(json.dumps(result))
        return
    table = Table("function", "backend", "ms", "parity", "chosen", box=None)
    table.columns[2].justify = "right"
    last = ""
    for row in choice.timings:
        table.add_row(
            ", ".join(row.functions) if row.group != last else "",
            row.backend,
            "" if row.ms is None else f"{row.ms:.3g}",
            "out" if row.ms is None else "held",
            "*" if row.chosen else "",
        )
        last = row.group
    Console(highlight=False).print(table)
    for row in choice.timings:
        if row.reason:
            typer.echo(f"{row.group} on {row.backend} is out: {row.reason}")
    when = "measured now" if choice.fresh else "measured at an earlier start; --again measures anew"
    typer.echo(when)
