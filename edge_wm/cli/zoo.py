"""`edge-wm zoo`: one table over the bundles that come with edge-wm.

Timings and sizes are taken here and now. A score takes hours, so it is recorded beside its bundle
(`zoo/*/row.yaml`), with where it was taken; what was not taken is a dash, and says why.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer
import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from edge_wm import shipped
from edge_wm.benchmark import measure
from edge_wm.bundle import Bundle, check_fit, load_trust, open_bundle
from edge_wm.cli.opening import BackendOption, JsonOption
from edge_wm.errors import MismatchError, UsageError
from edge_wm.robot import Robot, load_robot


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `row.yaml` says."""

    family: str
    task: str
    unit: str  # of both scores
    fp32: float | None
    int8: float | None
    published: str  # the reference to compare with
    source: str  # where the scores were taken
    note: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One bundle."""

    name: str
    family: str
    task: str
    score_fp32: float | None
    score_int8: float | None
    unit: str
    published: str
    note: str
    source: str
    backend: str
    encoder_ms: float | None  # median wall time from observation to belief
    plan_ms: float  # median wall time
    plan_rate_hz: float  # that this machine could plan at, observation included
    bytes: int


def zoo(
    backend: BackendOption = "first",
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to plan with each, s.")] = 2.0,
    as_json: JsonOption = False,
) -> None:
    """Show the bundles that come with edge-wm: scores as recorded, timings as measured now."""
    talk = Console(stderr=True)
    rows = []
    for path in sorted(shipped.folder("zoo").glob("*/*.wmb")):
        talk.print(f"measuring {path.stem}", style="dim")
        rows.append(row_of(path, backend, seconds))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
        return
    _print(rows)


def row_of(path: Path, backend: str, seconds: float) -> Row:
    """The row of one bundle.

    Raises: UsageError: no row.yaml beside it, or no shipped robot that it fits; and what opening
    and measuring it raise.
    """
    facts = facts_beside(path)
    bundle = open_bundle(path, load_trust())
    found = measure(bundle, _robot_for(bundle), backend=backend, seconds=seconds)
    encoder_ms = None if found.encode is None else found.encode.p50
    return Row(
        name=bundle.manifest.name,
        family=facts.family,
        task=facts.task,
        score_fp32=facts.fp32,
        score_int8=facts.int8,
        unit=facts.unit,
        published=facts.published,
        note=facts.note,
        source=facts.source,
        backend=found.backend,
        encoder_ms=encoder_ms,
        plan_ms=found.wall.p50,
        plan_rate_hz=1e3 / (found.wall.p50 + (encoder_ms or 0.0)),
        bytes=path.stat().st_size,
    )


def facts_beside(bundle: Path) -> Facts:
    """What the row.yaml in the bundle's folder says. Raises: UsageError."""
    path = bundle.with_name("row.yaml")
    try:
        facts: Facts = msgspec.convert(yaml.safe_load(path.read_bytes()), Facts)
    except OSError:
        raise UsageError(
            f"{bundle.name} must have its scores in {path}, which cannot be read; write it as "
            "zoo/rover/row.yaml is"
        ) from None
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}; write it as zoo/rover/row.yaml is") from None
    if None in (facts.fp32, facts.int8) and not facts.note:
        raise UsageError(f"{path}: a score that is null must have a note that says why")
    return facts


def _robot_for(bundle: Bundle) -> Robot:
    """The first shipped robot that the bundle fits."""
    for path in sorted(shipped.folder("robots").glob("*.yaml")):
        robot = load_robot(path)
        try:
            check_fit(bundle.manifest, robot)
        except MismatchError:
            continue
        return robot
    raise UsageError(f"bundle {bundle.manifest.name}: no robot in robots/ fits it; add its file")


def _print(rows: list[Row]) -> None:
    console = Console(highlight=False)
    table = Table("bundle", box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for column in ("fp32", "int8", "encoder ms", "plan ms", "plans/s", "kB"):
        table.add_column(column, justify="right", no_wrap=True)
    for r in rows:
        scores = ["-" if score is None else f"{score:g}" for score in (r.score_fp32, r.score_int8)]
        encoder = "-" if r.encoder_ms is None else f"{r.encoder_ms:.2f}"
        table.add_row(
            r.name, *scores, encoder, f"{r.plan_ms:.2f}", f"{r.plan_rate_hz:.0f}",
            f"{r.bytes / 1e3:.0f}",
        )  # fmt: skip
    console.print(table)
    for r in rows:
        for what, text in (
            (r.name, f"{r.family}; runs on {r.backend}"),
            ("task", r.task),
            ("scores", f"{r.unit} ({r.source})" + (f"; {r.note}" if r.note else "")),
            ("published", r.published),
        ):
            line = Table.grid(padding=(0, 2, 0, 0))
            line.add_column(width=12, no_wrap=True)
            line.add_column()
            line.add_row(what, text)
            console.print(line)
        console.print()
