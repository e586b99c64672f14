"""`edge-wm doctor`: what this machine is, and how to mend what is in the way."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from edge_wm.doctor import Finding, examine

COLORS = {"ok": typer.colors.GREEN, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this machine and say how to mend what is in the way; exits 1 if something fails."""
    findings = examine(Path("runs"))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        typer.echo(page(findings))
    if any(finding.level == "fail" for finding in findings):
        raise typer.Exit(1)


def page(findings: list[Finding]) -> str:
    """The findings for a person: a line each, below it what to do, and one line of result."""
    width = max(len(finding.topic) for finding in findings)
    lines = []
    for finding in findings:
        level = typer.style(f"{finding.level:<4}", fg=COLORS[finding.level], bold=True)
        lines.append(f"{level}  {finding.topic:<{width}}  {finding.found}")
        if finding.fix:
            lines.append(f"      {'':<{width}}  -> {finding.fix}")
    counts = Counter(finding.level for finding in findings)
    lines.append(f"{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} in the way")
    return "\n".join(lines)
