"""`edge-wm import`: a bundle from another framework's checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from edge_wm.authoring import build_bundle
from edge_wm.cli.bundle import KeyOption, key_words, run_graph, signing_key
from edge_wm.cli.opening import JsonOption
from edge_wm.importers import FAMILIES, import_checkpoint


def import_(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help=f"{', '.join(FAMILIES)}.")],
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT",
            help="; ".join(f"{name}: {what}" for name, (what, _) in FAMILIES.items()) + ".",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The bundle to write.")],
    temperature: Annotated[
        float | None,
        typer.Option(help="ha-carracing: of the dream's draws; 1 if absent."),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="policy-onnx: what the policy's numbers are, in order."
        ),
    ] = None,
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle of another framework's checkpoint: checked by name and shape, held against its
    own arithmetic, compiled, and signed. docs/importing.md lists every layout.
    """
    signing = signing_key(key)
    with tempfile.TemporaryDirectory(prefix="edge-wm-import-") as folder:
        import_checkpoint(family, checkpoint, Path(folder), temperature=temperature, layout=layout)
        built = build_bundle(Path(folder), out, signing, run_graph)
    if as_json:
        facts: dict[str, object] = {"path": str(out), "family": family, "key_id": signing.key_id}
        facts |= {"parity": dict(built.parity), "not_native": dict(built.not_native)}
        typer.echo(json.dumps(facts))
        return
    table = Table("graph", "largest error against its reference outputs", box=None)
    for graph, error in built.parity.items():
        table.add_row(graph, f"{error:.2g}")
    Console(highlight=False).print(table)
    for name, why in built.not_native.items():
        typer.echo(f"{name} does not run on the native kernels: {why}", err=True)
    size = out.stat().st_size
    typer.echo(f"imported {checkpoint} as {out} ({size:,} bytes), signed with "
               f"{key_words(key, signing)}")  # fmt: skip
