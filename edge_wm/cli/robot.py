"""`edge-wm robot`: check a robot file, or begin one from a URDF."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.errors import SystemTroubleError, UsageError
from edge_wm.robot import Axis, Robot, Stream, find_robot, load_robot
from edge_wm.robot.document import FILL_IN
from edge_wm.robot.urdf import MAX_BYTES, robot_file

app = typer.Typer(
    help="Check robot files, or begin one from a URDF.",
    epilog="Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def check(
    file: Annotated[str, typer.Argument(help="A robot file, or the name of a shipped robot.")],
    as_json: AsJson = False,
) -> None:
    """Check a robot file and show what it says."""
    path = find_robot(file)
    robot = load_robot(path)
    if as_json:
        typer.echo(json.dumps(facts(robot), indent=2))
        return
    console = Console(highlight=False)
    console.print(_stream_table(robot))
    console.print(_axis_table(robot))
    for line in _remarks(robot):
        console.print(line, soft_wrap=True)
    console.print(
        f"{path}: ok, {len(robot.streams)} streams, {len(robot.axes)} axes", soft_wrap=True
    )


@app.command("from-urdf")
def from_urdf(
    file: Annotated[Path, typer.Argument(help="A URDF (with xacro already expanded).")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write here instead of to stdout.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Begin a robot file from a URDF; what a URDF does not say is marked FILL_IN."""
    text = robot_file(_read(file), str(file))
    missing = sum(FILL_IN in line for line in text.splitlines() if not line.startswith("#"))
    if output is not None:
        _write_new(output, text)
    if as_json:
        typer.echo(json.dumps({"text": text, "fill_in": missing, "output": output and str(output)}))
    elif output is None:
        typer.echo(text, nl=False)
    else:
        typer.echo(f"{output}: written, {missing} values to fill in")


def facts(robot: Robot) -> dict[str, Any]:
    """The robot as plain values for JSON; limits that there are not are null."""
    return {
        "name": robot.name,
        "sha256": robot.sha256,
        "streams": {
            stream.name: {
                "type": stream.type,
                "topic": stream.topic,
                "rate_hz": 1e9 / stream.period_ns,
                "shape": list(stream.shape),
                "dtype": stream.dtype,
                "unit": stream.unit,
                "max_age_ns": stream.max_age_ns,
                "max_skew_ns": stream.max_skew_ns,
                "derived_from": list(stream.derived_from),
            }
            for stream in robot.streams.values()
        },
        "axes": {axis.name: _axis_facts(axis) for axis in robot.axes},
        "base": robot.base.kind if robot.base else None,
        "workspace": len(robot.workspace),
        "keep_out": len(robot.keep_out),
        "plan_period_ns": robot.plan_period_ns,
        "setpoint_period_ns": robot.setpoint_period_ns,
        "actuation_delay_ns": robot.actuation_delay_ns,
        "dead_man_ns": robot.dead_man_ns,
    }


def _axis_facts(axis: Axis) -> dict[str, Any]:
    numbers = {
        key: getattr(axis, key)
        for key in (
            "position_min",
            "position_max",
            "velocity_min",
            "velocity_max",
            "acceleration",
            "braking",
            "jerk",
            "effort_max",
            "rest_speed",
        )
    }
    finite = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
    return {"kind": axis.kind, "unit": axis.unit, **finite}


def _stream_table(robot: Robot) -> Table:
    table = Table("stream", "type", "topic", "Hz", "shape", "max age", "max skew")
    for stream in robot.streams.values():
        table.add_row(
            stream.name,
            stream.type,
            _source(stream),
            f"{1e9 / stream.period_ns:g}",
            " x ".join(map(str, stream.shape)),
            f"{stream.max_age_ns / 1e6:g} ms",
            f"{stream.max_skew_ns / 1e6:g} ms",
        )
    return table


def _source(stream: Stream) -> str:
    return f"from {', '.join(stream.derived_from)}" if stream.derived_from else stream.topic


def _axis_table(robot: Robot) -> Table:
    table = Table("axis", "kind", "unit", "position", "velocity", "accel.", "braking", "jerk")
    for axis in robot.axes:
        bounded = math.isfinite(axis.position_max)
        table.add_row(
            axis.name,
            axis.kind,
            axis.unit,
            f"{axis.position_min:g} … {axis.position_max:g}" if bounded else "any",
            f"{axis.velocity_min:g} … {axis.velocity_max:g}",
            f"{axis.acceleration:g}",
            f"{axis.braking:g}",
            f"{axis.jerk:g}",
        )
    return table


def _remarks(robot: Robot) -> list[str]:
    remarks = [
        f"plans at {1e9 / robot.plan_period_ns:g} Hz, setpoints at "
        f"{1e9 / robot.setpoint_period_ns:g} Hz, actuation delay "
        f"{robot.actuation_delay_ns / 1e6:g} ms, dead man {robot.dead_man_ns / 1e6:g} ms"
    ]
    if robot.kinematics is not None:
        remarks.append(
            f"kinematics: {len(robot.kinematics.joints)} joints, "
            f"{len(robot.kinematics.spheres)} spheres on the body"
        )
    remarks.append(f"regions: {len(robot.workspace)} workspace, {len(robot.keep_out)} keep-out")
    if robot.stopping is None and robot.base is not None:
        remarks.append("no `stopping`: the base does not stop for what raw ranges see")
    return remarks


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(f"URDF {path}: must be a file, found none; correct the path") from None
    except OSError as error:
        raise SystemTroubleError(
            f"URDF {path}: cannot be read ({error.strerror}); check its permissions"
        ) from None


def _write_new(path: Path, text: str) -> None:
    """All of it or nothing, and never over another file."""
    if path.exists():
        raise UsageError(f"{path}: must not exist yet, found a file; choose another --output")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.rename(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise SystemTroubleError(
            f"{path}: cannot be written ({error.strerror}); check folder, space and permissions"
        ) from None
