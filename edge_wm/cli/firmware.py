"""`edge-wm firmware`: build, sign and inspect images for boards with edge-wm's bootloader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firmware_bridge.flashing import signing
from firmware_bridge.flashing.keys import (
    FirmwareKey,
    check_installed,
    default_folder,
    load_keys,
)

if TYPE_CHECKING:  # it imports smpclient, which is an extra
    from firmware_bridge.flashing.image import SignedImage

EPILOG = "Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 refused (not an image, not trusted)."
app = typer.Typer(
    help="Build, sign and inspect firmware images.", epilog=EPILOG, no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Keys = Annotated[
    Path | None,
    typer.Option("--keys", help="Folder of public keys; else ~/.config/edge-wm/firmware-keys."),
]


@app.callback()
def _() -> None:
    check_installed()


@app.command(epilog=EPILOG)
def build(
    board: Annotated[str, typer.Argument(help=f"{', '.join(signing.BOARDS)}.")],
    as_json: AsJson = False,
) -> None:
    """Build the firmware of BOARD and print its path."""
    path = signing.build(board)
    typer.echo(json.dumps({"board": board, "path": str(path)}) if as_json else str(path))


@app.command(epilog=EPILOG)
def sign(
    program: Annotated[Path, typer.Argument(help="What `firmware build` made.")],
    key: Annotated[Path, typer.Option("--key", help="The private key, outside the repository.")],
    version: Annotated[str, typer.Option(help="MAJOR.MINOR.PATCH")],
    counter: Annotated[
        int, typer.Option(help="Security counter: boards refuse a lower one.", min=0)
    ],
    hardware: Annotated[str, typer.Option(help="Whose image it is.")] = next(iter(signing.SLOTS)),
    out: Annotated[Path | None, typer.Option(help="Else PROGRAM.signed.bin.")] = None,
    as_json: AsJson = False,
) -> None:
    """Sign PROGRAM for a board. A key whose name ends in .developer is a developer's."""
    from firmware_bridge.flashing.image import read_image

    out = program.with_suffix(".signed.bin") if out is None else out
    signing.sign(program, key, out, hardware=hardware, counter=counter, version=version)
    tell(read_image(out), None, as_json)


@app.command(epilog=EPILOG)
def inspect(
    image: Annotated[Path, typer.Argument(help="A signed image.")],
    keys: Keys = None,
    as_json: AsJson = False,
) -> None:
    """Show what IMAGE says of itself, and whose key signed it."""
    from firmware_bridge.flashing.image import read_image

    read = read_image(image)
    folder = default_folder() if keys is None else keys
    found = keys is not None or any(folder.glob("*.pem"))
    tell(read, read.signer(load_keys(folder)) if found else None, as_json)


def tell(image: SignedImage, key: FirmwareKey | None, as_json: bool) -> None:
    """One image, as JSON or in a few lines."""
    facts: dict[str, Any] = {
        "path": str(image.path),
        "version": image.version,
        "hardware": image.hardware,
        "counter": image.counter,
        "hash": image.digest.hex(),
        "key_hash": image.key_hash.hex(),
        "key": key.name if key else None,
        "developer_key": key.developer if key else None,
        "bytes": len(image.data),
    }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    by = "not looked for: no trusted keys here" if key is None else key.name
    mark = "  DEVELOPER KEY" if key and key.developer else ""
    typer.echo(f"{image.path}: {image.version} for {image.hardware}, {len(image.data)} bytes")
    typer.echo(f"security counter {image.counter}, hash {image.digest.hex()}")
    typer.echo(f"signed by {by}{mark} (key's hash {image.key_hash.hex()[:16]}…)")
