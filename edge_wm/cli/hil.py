"""`edge-wm hil`: the numbered suites that a board passes before it moves a robot."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.cli.link import chosen_port
from edge_wm.errors import SystemTroubleError, UsageError
from edge_wm.robot import find_robot, load_robot
from firmware_bridge.conversion import board_name
from firmware_bridge.emulated import BOARDS
from firmware_bridge.hil import SUITES, Result, chosen, run_suite
from firmware_bridge.hil.bench import Bench
from firmware_bridge.hil.report import page
from firmware_bridge.link import link_to

SUITE_HELP = ", ".join(f"{suite.number} {suite.name}" for suite in SUITES)
# The emulated boards' compiled maximum. A machine that others use stands still for longer than a
# robot's 50 ms; the report says which dead-man time it was run with.
EMULATED_DEAD_MAN_NS = 250_000_000
# Its process is scheduled like any other, so its millisecond may come late: the 1 ms of a real
# board is proved in lock-step.
EMULATED_SLACK_US = 50_000


def hil(
    port: Annotated[
        str | None, typer.Option(help="The board: a device file, unix:PATH or tcp:HOST:PORT.")
    ] = None,
    emulated: Annotated[
        str | None, typer.Option(help=f"Start the firmware here: {' or '.join(BOARDS)}.")
    ] = None,
    robot: Annotated[
        str | None,
        typer.Option(help="The robot file with the limits; else that of the emulated board."),
    ] = None,
    suite: Annotated[
        list[int] | None, typer.Option(help=f"Run these only (repeat it): {SUITE_HELP}.")
    ] = None,
    allow_motion: Annotated[
        bool, typer.Option("--allow-motion", help="A real board may move its axes.")
    ] = False,
    endurance: Annotated[float, typer.Option(help="Seconds of suite 8.", min=0.1)] = 10.0,
    report: Annotated[
        Path | None, typer.Option(help="Write an HTML page for the record here.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run the hardware-in-the-loop suites against a board, in order of trust.

    Exit codes: 0 all that was run passed, 1 a check failed or the board does not answer, 2 wrong
    usage.
    """
    suites = chosen(suite or ())
    if robot is None and emulated is None:
        raise UsageError("--robot: name the robot file whose limits the board shall hold")
    loaded = load_robot(find_robot(robot or emulated or ""))
    if report is not None and report.is_dir():
        raise UsageError(f"--report {report}: must be a file to write, found a folder; name one")
    if emulated is not None:  # in real time, on a machine that others use: see docs
        loaded = replace(loaded, dead_man_ns=EMULATED_DEAD_MAN_NS)
    console = Console(highlight=False, stderr=as_json)
    results: list[Result] = []
    with chosen_port(port, emulated, robot) as name:
        bench = Bench(
            loaded,
            link_to(loaded, name),
            may_move=allow_motion or emulated is not None,
            seconds=endurance,
            slack_us=1000 if emulated is None else EMULATED_SLACK_US,
        )
        if allow_motion and any(each.motion for each in suites):
            typer.echo(f"{name}: will move {bench.motion()}", err=True)
        try:
            about = _about(bench)
            for each in suites:
                results.append(run_suite(each, bench))
                if not as_json:
                    console.print(_table(results[-1]))
        finally:
            bench.close()
    failed = [result for result in results if not result.skipped and not result.passed]
    skipped = [result for result in results if result.skipped]
    if report is not None:
        _write(report, page(about, results))
    if as_json:
        typer.echo(json.dumps({"about": about, "suites": [_facts(r) for r in results]}, indent=2))
    else:
        passed = len(results) - len(failed) - len(skipped)
        typer.echo(
            f"{name}: {passed} suites passed, {len(failed)} failed, {len(skipped)} not run"
            + (f"; report in {report}" if report else "")
        )
    if failed:
        raise typer.Exit(1)


def _about(bench: Bench) -> dict[str, str]:
    """What the record has to say of the board."""
    identity = bench.session.identity
    assert identity is not None
    about = {
        "date": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "port": bench.link.port,
        "board": board_name(identity),
        "serial": identity.serial.hex(),
        "firmware": ".".join(map(str, identity.firmware_version)),
        "image": identity.image_sha256.hex(),
        "robot": bench.robot.name,
        "robot file": bench.robot.sha256,
        "dead man": f"{bench.robot.dead_man_ns / 1e6:g} ms",
    }
    bench.close()
    return about


def _table(result: Result) -> Table:
    title = f"{result.suite.number} {result.suite.name}"
    table = Table("", "check", "measured", "required", title=title, title_justify="left")
    for check in result.checks:
        table.add_row("ok" if check.ok else "FAIL", check.name, check.measured, check.required)
    if result.skipped:
        table.add_row("-", "not run", result.skipped, "")
    return table


def _facts(result: Result) -> dict[str, Any]:
    return {
        "number": result.suite.number,
        "name": result.suite.name,
        "passed": result.passed,
        "skipped": result.skipped,
        "checks": [asdict(check) for check in result.checks],
    }


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SystemTroubleError(
            f"--report {path}: cannot be written ({error.strerror}); check folder and permissions"
        ) from None
