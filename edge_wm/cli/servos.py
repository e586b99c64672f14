"""`edge-wm servos`: the driver process of bought motors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from edge_wm.errors import SystemTroubleError
from firmware_bridge.motors import read_servo_file
from firmware_bridge.motors.driver import run_driver


def servos(
    file: Annotated[Path, typer.Argument(help="The servo file: which motors, on which bus.")],
    listen: Annotated[
        Path, typer.Option(metavar="PATH", help="The Unix socket for the robot file's links.port.")
    ] = Path("/tmp/edge-wm-servos"),
) -> None:
    """Put Dynamixel, Feetech or moteus motors behind a link, as if they were one of our boards.

    Runs until Ctrl-C, which brakes and switches the torque off. The robot file (or --port) says
    unix:PATH. What this is worth compared with a board: docs/motors.md.
    """
    talk = Console(stderr=True)
    read = read_servo_file(file)
    if not listen.parent.is_dir():
        raise SystemTroubleError(
            f"--listen {listen}: its folder does not exist; make it, or choose another"
        )
    talk.print(f"[dim]looking for {len(read.servos)} {read.family} motors on {read.port}[/]")
    run_driver(
        read, listen, lambda port: talk.print(f"{read.family}: torque off, listening at {port}")
    )
    talk.print("[dim]torque is off[/]")
