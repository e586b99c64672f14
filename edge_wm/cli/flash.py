"""`edge-wm flash`: find boards, bring a signed image onto one or all, or set up a blank one.

`edge-wm flash IMAGE` is the daily command: what is no name of a command here is an image.
"""

from __future__ import annotations

import json
import logging
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from typer.core import TyperGroup

from edge_wm.errors import EdgeWmError, LinkError, RefusedError, SystemTroubleError, UsageError
from firmware_bridge.flashing.blank import ROUTES, route
from firmware_bridge.flashing.keys import FirmwareKey, check_installed, load_keys
from firmware_bridge.transport import serial_ports

if TYPE_CHECKING:  # they import smpclient, which takes its time and is an extra
    from firmware_bridge.flashing.boards import Board
    from firmware_bridge.flashing.image import SignedImage
    from firmware_bridge.flashing.install import Receipt

EPILOG = (
    "Exit codes: 0 the image runs, confirmed, 1 failed (no such port, no answer), 2 wrong usage, "
    "3 refused (signature, hardware, counter), 4 taken back: the old image runs."
)
EXIT = {"confirmed": 0, "there already": 0, "failed": 1, "refused": 3, "taken back": 4}


class ImageByDefault(TyperGroup):
    """`flash IMAGE` is `flash image IMAGE`; `flash --blank` is `flash blank`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] == "--blank":
            args = ["blank", *args[1:]]
        elif args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["image", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=ImageByDefault,
    help="Bring signed firmware onto a board: edge-wm flash IMAGE. What is no name "
    "of a command below is an image.",
    epilog=EPILOG,
    no_args_is_help=True,
)


@app.callback()
def _() -> None:
    check_installed()


Ports = Annotated[
    list[str] | None,
    typer.Option("--port", help="A device file, unix:PATH or tcp:HOST:PORT; else all USB ports."),
]
Baud = Annotated[int, typer.Option(help="Bits per second on a wire.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(epilog=EPILOG)
def devices(port: Ports = None, baud: Baud = 1_000_000, as_json: AsJson = False) -> None:
    """List the boards that answer, whatever their ports are called. A moving robot brakes."""
    from firmware_bridge.flashing.boards import find

    boards, silent = find(port or serial_ports(), baud)
    if as_json:
        facts = {"boards": [asdict(board) for board in boards], "silent": silent}
        typer.echo(json.dumps(facts, indent=2))
    else:
        for board in boards:
            typer.echo(board_line(board))
        for why in silent.values():
            typer.echo(why, err=True)
        typer.echo(f"{len(boards)} boards")
    if not boards:
        raise LinkError(
            "no board answers; plug one in, check its power and cable, or name its port by --port"
        )


@app.command(epilog=EPILOG)
def image(
    image: Annotated[Path, typer.Argument(help="A signed image (.signed.bin).")],
    port: Ports = None,
    every: Annotated[bool, typer.Option("--all", help="Every board that is found.")] = False,
    keys: Annotated[
        Path | None,
        typer.Option("--keys", help="Folder of public keys; else ~/.config/edge-wm/firmware-keys."),
    ] = None,
    check: Annotated[
        float, typer.Option(help="Seconds of telemetry before it is confirmed.", min=0.5, max=20.0)
    ] = 3.0,
    log: Annotated[Path | None, typer.Option(help="Else ./edge-wm-flash-TIME.log.")] = None,
    baud: Baud = 1_000_000,
    as_json: AsJson = False,
) -> None:
    """Bring IMAGE onto the board: check, disarm, upload, try out, confirm or take back."""
    from firmware_bridge.flashing.image import read_image

    wanted, trusted = read_image(image), load_keys(keys)
    wanted.signer(trusted)  # before any port is opened
    ports = chosen(port or [], every, baud)
    log = Path(time.strftime("edge-wm-flash-%Y%m%d-%H%M%S.log")) if log is None else log
    start_log(log)
    console = Console(stderr=True, highlight=False)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(), console=console, disable=not console.is_terminal,
    ) as progress, ThreadPoolExecutor(max_workers=len(ports)) as pool:  # fmt: skip
        receipts = list(
            pool.map(
                lambda name: attempt(name, baud, wanted, trusted, check, progress, console), ports
            )
        )
    if as_json:
        facts = [{**asdict(one), "log": str(log)} for one in receipts]
        typer.echo(json.dumps(facts if every else facts[0], indent=2))
    else:
        if len(receipts) > 1:
            Console(highlight=False).print(result_table(receipts))
        for one in receipts:
            typer.echo(sentence(one))
        typer.echo(f"log: {log}", err=True)
    raise typer.Exit(max(EXIT[one.result] for one in receipts))


@app.command(epilog=EPILOG)
def blank(
    board: Annotated[str, typer.Argument(help=f"{', '.join(ROUTES)}.")],
    file: Annotated[Path, typer.Argument(help="The firmware (.uf2, .elf or .bin).")],
    run: Annotated[bool, typer.Option("--run", help="Run the command, not only show it.")] = False,
) -> None:
    """Show the command that sets up a blank BOARD through its own route; --run runs it."""
    first, command = route(board, file)
    typer.echo(f"first: {first}", err=True)
    typer.echo(shlex.join(command))
    if not run:
        return
    try:
        code = subprocess.run(command).returncode
    except FileNotFoundError:
        raise SystemTroubleError(
            f"{command[0]} is not installed; sudo apt-get install {command[0]}"
        ) from None
    if code:
        raise SystemTroubleError(
            f"{command[0]} ended with {code}, its words stand above; check the plug and try again"
        )


# ---- the steps ------------------------------------------------------------------------------
def chosen(ports: list[str], every: bool, baud: int) -> list[str]:
    """The ports that are meant.

    Raises: UsageError (more than one board, and no --all), LinkError (none).
    """
    if ports and (every or len(ports) == 1):
        return ports
    from firmware_bridge.flashing.boards import find

    boards, silent = find(ports or serial_ports(), baud)
    found = ", ".join(f"{board.port} ({board.serial or board.hardware})" for board in boards)
    if not boards:
        why = "; ".join(silent.values()) or "no serial port here has anything on it"
        raise LinkError(f"no board answers ({why}); plug one in, or name its port by --port")
    if len(boards) > 1 and not every:
        raise UsageError(f"which board: {found}? Name one by --port, or take --all")
    return [board.port for board in boards]


def attempt(
    port: str,
    baud: int,
    image: SignedImage,
    keys: tuple[FirmwareKey, ...],
    check_s: float,
    progress: Progress,
    console: Console,
) -> Receipt:
    """Install on one board; what goes wrong becomes its receipt, so that the others go on."""
    from firmware_bridge.flashing.install import Receipt, Watcher, install

    logger = logging.getLogger(f"edge-wm-flash.{port}")
    bar = progress.add_task(port, total=len(image.data), visible=False)

    def step(text: str) -> None:
        logger.info(text)
        console.print(text, markup=False, soft_wrap=True)

    def uploaded(offset: int) -> None:
        progress.update(bar, completed=offset, visible=True)

    watcher = Watcher(step, uploaded, logger.info)
    try:
        receipt = install(port, baud, image, keys, watcher, check_s)
    except EdgeWmError as trouble:
        receipt = Receipt(port, "", "", False, "failed", str(trouble), "", "", image.version,
                          image.digest.hex(), image.counter, "", False, len(image.data), 0.0, 0,
                          (), 0.0)  # fmt: skip
        if isinstance(trouble, RefusedError):
            receipt = replace(receipt, result="refused")
    logger.info(json.dumps(asdict(receipt)))
    return receipt


def start_log(path: Path) -> None:
    """Everything that is said about the boards goes to `path`.

    Raises: SystemTroubleError if it cannot be written.
    """
    try:
        handler = logging.FileHandler(path)
    except OSError as error:
        raise SystemTroubleError(
            f"log {path}: {error.strerror}; name another place by --log"
        ) from None
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    logger = logging.getLogger("edge-wm-flash")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)


def sentence(one: Receipt) -> str:
    """One line of result."""
    mark = ("  DEVELOPER BOARD" if one.developer_board else "") + (
        "  DEVELOPER KEY" if one.developer_key else ""
    )
    if one.result == "confirmed":
        end = f"{one.version} runs, confirmed ({one.hash[:8]}, counter {one.counter})"
    elif one.result == "there already":
        end = one.reason
    elif one.result == "taken back":
        end = f"taken back, {one.old_version or 'no image'} runs: {one.reason}"
    else:
        end = f"{one.result}: {one.reason}"
    return f"{one.port}: {one.serial and one.serial + ': '}{end}{mark}"


def result_table(receipts: list[Receipt]) -> Table:
    """One row for each board."""
    table = Table("port", "serial", "hardware", "was", "image", "result", "seconds")
    for one in receipts:
        table.add_row(
            one.port, one.serial, one.hardware, one.old_version, one.version, one.result,
            f"{one.seconds:.1f}",
        )  # fmt: skip
    return table


def board_line(board: Board) -> str:
    """One board in one line, its mark at the end."""
    slots = []
    for number in (0, 1):
        slot = board.slots.get(number)
        on_trial = slot is not None and number == 0 and not slot.confirmed
        shown = f"{slot.version} ({slot.hash[:8]})" if slot else "empty"
        slots.append(f"slot {number} {shown}{' ON TRIAL' if on_trial else ''}")
    firmware = (
        f"firmware {board.firmware}, protocol {board.protocol}" if board.firmware
        else "only its bootloader answers"
    )  # fmt: skip
    return (
        f"{board.port}: {board.hardware} {board.serial}".rstrip()
        + f", {firmware}, {', '.join(slots)}, last update: {board.last_update}{board.mark}"
    )
