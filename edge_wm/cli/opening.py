"""The options that commands share, and how they talk about a measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_wm.backends.choice import Choice, in_words, settle
from edge_wm.bundle import Bundle

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
