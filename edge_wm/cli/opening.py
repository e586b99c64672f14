"""Opens what most commands need (robot file, bundle, trust), with the options they share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_wm import shipped
from edge_wm.backends.choice import Choice, in_words, settle
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.errors import UsageError
from edge_wm.robot import Robot, find_robot, load_robot

RobotOption = Annotated[
    str, typer.Option("--robot", metavar="NAME|FILE", help="A shipped robot, or a robot file.")
]
BundleOption = Annotated[
    Path | None,
    typer.Option("--bundle", metavar="FILE", help="The bundle; the robot's shipped one if absent."),
]
TrustOption = Annotated[
    list[Path] | None,
    typer.Option("--trust", metavar="FILE", help="A public key to trust; may be repeated."),
]
BackendOption = Annotated[
    str,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="auto (the fastest here, measured once), first (the first that is installed and has "
        "a graph), native, onnxruntime, litert, or by function: encoder=litert,cost=native.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def settled(bundle: Bundle, backend: str) -> Choice:
    """The backend of every function; a measurement that this takes is talked about on stderr."""
    choice = settle(bundle, backend, tell=_talk)
    for line in in_words(choice.timings) if choice.fresh else ():
        _talk(f"  {line}")
    return choice


def _talk(line: str) -> None:
    typer.echo(line, err=True)


def bundle_path(robot: Robot, given: Path | None) -> Path:
    """The bundle that was asked for, or the one shipped for `robot`.

    Raises: UsageError if there is none.
    """
    if given is not None:
        return given
    path = shipped.folder("zoo") / robot.name / f"{robot.name}.wmb"
    if not path.is_file():
        raise UsageError(
            f"no bundle is shipped for the robot {robot.name!r} ({path} does not exist); "
            "name one with --bundle FILE"
        )
    return path


def open_for(
    robot_name: str, bundle: Path | None, trust: list[Path] | None
) -> tuple[Path, Robot, Bundle]:
    """The robot file's path, the robot, and its verified bundle."""
    robot_file = find_robot(robot_name)
    robot = load_robot(robot_file)
    simulated = all(link.kind == "simulated" for link in robot.links)
    trusted = load_trust(trust or (), developer=simulated)
    return robot_file, robot, open_bundle(bundle_path(robot, bundle), trusted)
