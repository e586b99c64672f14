"""`edge-wm bench`: how fast a bundle plans on this machine."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from edge_wm.benchmark import MOVED, Benchmark, Percentiles, measure
from edge_wm.cli.opening import (
    BackendOption,
    BundleOption,
    JsonOption,
    RobotOption,
    TrustOption,
)
from edge_wm.opening import open_for


def bench(
    robot: RobotOption = "rover",
    bundle: BundleOption = None,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="Candidates an iteration; the bundle's if absent.")
    ] = None,
    backend: BackendOption = "auto",
    seconds: Annotated[float, typer.Option(min=0.5, help="How long to plan, s.")] = 10.0,
    budget: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Exit 1 if the 99th percentile of wall time is above it."),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Plan again and again on this machine, and tell how long it takes.

    Against other engines: `make bench` in a checkout.
    """
    talk = Console(stderr=True)
    _, loaded, opened = open_for(robot, bundle, trust)
    with Progress(console=talk, transient=True, disable=not talk.is_terminal) as bar:
        task = bar.add_task("planning", total=1.0)
        found = measure(
            opened, loaded, backend=backend, candidates=candidates, seconds=seconds,
            tell=lambda line: talk.print(line, style="dim"),
            progress=lambda share: bar.update(task, completed=share),
        )  # fmt: skip
    over = budget is not None and found.wall.p99 > budget
    if as_json:
        typer.echo(json.dumps(_facts(found) | {"budget_ms": budget, "over_budget": over}, indent=2))
    else:
        _print(found)
    if over:
        typer.echo(
            f"over budget: 99 of 100 plans must take at most {budget:g} ms, and take "
            f"{found.wall.p99:.2f} ms; use fewer candidates, another backend or a lower plan rate",
            err=True,
        )
        raise typer.Exit(1)


def _facts(found: Benchmark) -> dict[str, Any]:
    derived = ("spread", "gmacs", "share_of_peak", "void")
    return asdict(found) | {name: getattr(found, name) for name in derived}


def _print(found: Benchmark) -> None:
    console = Console(highlight=False)
    console.print(
        f"{found.bundle} on {found.backend}: {found.plans} plans of {found.iterations} iterations, "
        f"{found.candidates} candidates, {found.horizon} actions"
    )
    table = Table("ms a plan", "p50", "p99", "p99.9", "most", "plans a second", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    rows: list[tuple[str, Percentiles]] = [("wall", found.wall), ("processor", found.cpu)]
    for name, times in rows:
        cells = [f"{v:.3f}" for v in (times.p50, times.p99, times.p999, times.most)]
        table.add_row(name, *cells, f"{1e3 / times.p50:.0f}")
    console.print(table)
    lines = [f"p99.9 / p50 in processor time: {found.spread:.2f}"]
    if found.gmacs is not None:
        share = "" if found.share_of_peak is None else f", {found.share_of_peak:.0%} of this core's"
        peak = "" if found.peak_before is None else f" int8 peak of {found.peak_before:.0f}"
        lines.append(f"{found.gmacs:.1f} GMAC/s{share}{peak}")
    lines.append(f"ready after {found.ready_s:.2f} s; page faults a plan: {found.page_faults:.2f}")
    if found.encode is not None:
        lines.append(f"an observation becomes a belief in {found.encode.p50:.3f} ms of wall time")
    if found.scratch_mib is not None:
        lines.append(f"scratch memory of the rollout: {found.scratch_mib:.2f} MiB")
    if found.loaded_mib is not None:
        lines.append(f"loading grew this process by {found.loaded_mib:.0f} MiB, weights included")
    for line in lines:
        console.print(line)
    if found.void:
        console.print(
            f"VOID: the int8 peak moved by more than {MOVED:.0%}, from {found.peak_before:.0f} to "
            f"{found.peak_after:.0f} GMAC/s: the machine is busy or throttled; run again",
            style="bold red",
        )
