"""Prints a run: the machine, the times of each case, the accuracy."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from engine_bench.results import OURS, Report, Row, ours, peer_times, ratio

MEASURES = {
    "elites_kept": "elites kept",
    "rank_correlation": "rank corr.",
    "value_gap": "value gap",
    "state_error": "state error / spread",
    "driven_error": "… same draws",
    "latent_cosine": "latent cosine",
    "cost_error": "cost error",
}


def print_report(report: Report, console: Console) -> None:
    _machine(report, console)
    console.print(_times(report))
    console.print(_accuracy(report))
    for case, absent in report.absent.items():
        for name, why in absent.items():
            console.print(f"{case}: {name}: {why}", style="dim", highlight=False)


def _machine(report: Report, console: Console) -> None:
    have = [name for name, there in report.instruction_sets.items() if there]
    lack = [name for name, there in report.instruction_sets.items() if not there]
    where = "any core" if report.core is None else f"core {report.core}"
    threads = f"{report.threads} thread{'s' if report.threads > 1 else ''}"
    console.print(f"{report.processor}, {where}, {threads}", highlight=False)
    console.print(f"has {', '.join(have) or 'none of the known instruction sets'}", highlight=False)
    if lack:
        console.print(
            f"lacks {', '.join(lack)}: no rows for them; the {report.gate} rows of the budget gate",
            highlight=False,
        )
    peaks = [f"{p:.0f}" if p else "unknown" for p in (report.peak_before, report.peak_after)]
    console.print(f"int8 peak, GMAC/s: {peaks[0]} before, {peaks[1]} after", highlight=False)
    if report.void:
        console.print("VOID: the peak moved by more than 15 %; run again", style="bold red")


def _times(report: Report) -> Table:
    clock = "wall" if report.threads > 1 else "CPU"
    table = Table(title=f"{clock} time, ms", title_justify="left")
    table.add_column("competitor")
    for column in ("min", "p50", "p99", "p99.9", "wall p50", "GMAC/s", "of peak", "× best peer",
                   "× OpenVINO", "MiB", "rounds"):  # fmt: skip
        table.add_column(column, justify="right")
    for case, title in report.titles.items():
        rows = sorted(report.of(case), key=lambda row: row.least)
        if not rows:
            continue
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        best, openvino = (peer_times(rows, kind) for kind in ("best", "openvino"))
        for row in rows:
            style = "bold green" if row.library == OURS else None
            times = (row.least, row.median, row.p99, row.p999, row.wall_median)
            table.add_row(
                "  " + row.name,
                *(_milliseconds(t) for t in times),
                f"{row.gmacs:.1f}",
                f"{row.share:.0%}" if row.share else "–",
                _ratio(ratio(row, best)),
                _ratio(ratio(row, openvino)),
                f"{row.memory_mib:.0f}" if row.memory_mib is not None else "–",
                f"{row.rounds}",
                style=style,
            )
    return table


def _accuracy(report: Report) -> Table:
    table = Table(title="accuracy against fp32", title_justify="left")
    table.add_column("case and competitor")
    for heading in MEASURES.values():
        table.add_column(heading, justify="right")
    for case, title in report.titles.items():
        measured = [row for row in report.of(case) if row.accuracy]
        if not measured:
            continue
        table.add_section()
        table.add_row(f"[bold]{title}[/bold]")
        for row in measured:
            cells = [_number(row, name) for name in MEASURES]
            style = "bold green" if row is ours(measured) else None
            table.add_row("  " + row.name, *cells, style=style)
    return table


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:.3f}" if milliseconds < 10 else f"{milliseconds:.1f}"


def _ratio(found: tuple[float, float] | None) -> str:
    """By minima and, after it, by medians."""
    return f"{found[0]:.2f} {found[1]:.2f}" if found else "–"


def _number(row: Row, name: str) -> str:
    value = row.accuracy.get(name)
    if value is None:
        return "–"
    return f"{value:.0f}" if name == "elites_kept" else f"{value:.4g}"
