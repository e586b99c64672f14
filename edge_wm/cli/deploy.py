"""The commands `edge-wm deploy install | pull | list | activate | rollback | status | remove`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from edge_wm import deploy
from edge_wm.bundle import Trust, examine_bundle, load_trust
from edge_wm.cli.opening import JsonOption, RobotOption, TrustOption
from edge_wm.deploy.holding import holder
from edge_wm.deploy.starting import opened_store, startable
from edge_wm.deploy.store import Generation, Store, Stored, bundle_path, default_folder
from edge_wm.deploy.switching import simulated, stored
from edge_wm.deploy.trial import TRIAL_S
from edge_wm.errors import EdgeWmError, UsageError
from edge_wm.robot import Robot, find_robot, load_robot

app = typer.Typer(
    help="Keep bundles on the robot: install, try, switch, and roll back.", no_args_is_help=True
)

StoreOption = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="FOLDER",
        help="Where the bundles lie; ~/.local/share/edge-wm/store if absent.",
    ),
]
BundleName = Annotated[
    str,
    typer.Argument(
        metavar="BUNDLE", help="A stored bundle: its digest's first digits, name, or name@version."
    ),
]


@app.command()
def install(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .wmb file.")],
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle and store it on this robot. Nothing is activated."""
    folder = _folder(store)
    _tell_installed(folder, deploy.install(folder, file, trust or []), as_json)


@app.command()
def pull(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A TUF repository, on a USB stick for example.")
    ],
    robot: RobotOption = "rover",
    root: Annotated[
        Path | None,
        typer.Option(
            "--root", metavar="FILE", help="The repository's first root; needed the first time."
        ),
    ] = None,
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Install what a repository lists for this robot. Nothing is activated."""
    folder, name = _folder(store), load_robot(find_robot(robot)).name
    _tell_installed(folder, deploy.pull(folder, source, name, root, trust or []), as_json)


@app.command("list")
def list_bundles(
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the stored bundles, and what a start would take."""
    folder = _folder(store)
    kept = opened_store(folder)
    chain = [generation.bundle.sha256 for generation in kept.chain()]
    rows = []
    for digest, found in _contents(folder, kept, load_trust(trust or ())).items():
        role = ""
        if digest in chain:
            role = "active" if chain.index(digest) == 0 else "to fall back to"
        facts = _facts(found) if isinstance(found, Stored) else {"sha256": digest, "problem": found}
        rows.append({**facts, "role": role})
    if as_json:
        typer.echo(json.dumps({"store": str(folder), "floor": kept.floor, "bundles": rows}))
        return
    if not rows:
        typer.echo(f"no bundle in {folder}; edge-wm deploy install FILE")
        return
    table = Table("bundle", "version", "digest", "counter", "", box=None)
    for row in rows:
        table.add_row(
            row.get("name", "?"),
            row.get("version", "?"),
            row["sha256"][:12],
            str(row.get("counter", "?")),
            row["role"] or row.get("problem", ""),
        )
    Console(highlight=False).print(table)


@app.command()
def activate(
    bundle: BundleName,
    robot: RobotOption = "rover",
    within: Annotated[
        float,
        typer.Option(min=5.0, max=120.0, help="What the trial may take, s; more if it is slow."),
    ] = TRIAL_S,
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Try a stored bundle on this machine for a few seconds; make it active if it passes.

    What was active stays active if it does not, and the reason is kept (edge-wm deploy status).
    """
    folder = _folder(store)
    digest = _find(folder, bundle, trust)
    generation = deploy.activate(
        folder,
        digest,
        find_robot(robot),
        trust or [],
        health=deploy.Health(trial_s=within),
        tell=lambda doing: typer.echo(f"trial: {doing}", err=True),
    )
    _tell_generation(folder, generation, as_json)


@app.command()
def rollback(
    robot: RobotOption = "rover",
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the generation that was active before."""
    folder = _folder(store)
    _tell_generation(folder, deploy.rollback(folder, find_robot(robot), trust or []), as_json)


@app.command()
def status(
    robot: RobotOption = "rover",
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is active, whether it would start, what it would fall back to, and the last trial.

    Changes nothing, and works on a read-only disk. Exit code 3 if nothing would start.
    """
    folder, loaded = _folder(store), load_robot(find_robot(robot))
    kept = opened_store(folder)
    facts = _status(folder, kept, loaded, load_trust(trust or (), developer=simulated(loaded)))
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
    else:
        _print_status(facts)
    if facts["starts"] is None and facts["generations"]:
        raise typer.Exit(3)


@app.command()
def remove(
    bundle: BundleName,
    store: StoreOption = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take a stored bundle off the disk; refused for what a start may need."""
    folder = _folder(store)
    digest = _find(folder, bundle, trust)
    deploy.remove(folder, digest)
    if as_json:
        typer.echo(json.dumps({"store": str(folder), "removed": digest}))
        return
    typer.echo(f"removed {digest[:12]}")


# ---- parts ------------------------------------------------------------------------------
def _folder(store: Path | None) -> Path:
    return (store or default_folder()).absolute()


def _facts(bundle: Stored) -> dict[str, Any]:
    return {
        "sha256": bundle.sha256,
        "name": bundle.name,
        "version": bundle.version,
        "counter": bundle.counter,
    }


def _contents(folder: Path, kept: Store, trust: Trust) -> dict[str, Stored | str]:
    """Each stored bundle by digest; in words what is wrong with one that cannot be opened."""
    found: dict[str, Stored | str] = {}
    for digest in kept.bundles():
        try:
            opened = examine_bundle(folder / bundle_path(digest), trust)
        except EdgeWmError as error:
            found[digest] = str(error)
        else:
            intact = opened.sha256 == digest
            found[digest] = stored(opened) if intact else "damaged on this disk; install it again"
    return found


def _find(folder: Path, asked: str, trust: list[Path] | None) -> str:
    """The digest of the one stored bundle that is meant. Raises: UsageError."""
    kept = opened_store(folder)
    if len(asked) >= 6 and (starts := [d for d in kept.bundles() if d.startswith(asked)]):
        matches = starts
    else:
        matches = [
            digest
            for digest, bundle in _contents(folder, kept, load_trust(trust or ())).items()
            if isinstance(bundle, Stored)
            and asked in (bundle.name, f"{bundle.name}@{bundle.version}")
        ]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise UsageError(f"{kept.name}: no bundle {asked!r}; see edge-wm deploy list")
    raise UsageError(
        f"{kept.name}: {asked!r} may be any of {', '.join(d[:12] for d in matches)}; give the "
        "digest's first digits"
    )


def _tell_installed(folder: Path, installed: Stored, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"store": str(folder), **_facts(installed)}))
        return
    typer.echo(
        f"installed {installed.title}; activate it: edge-wm deploy activate {installed.sha256[:12]}"
    )


def _tell_generation(folder: Path, generation: Generation, as_json: bool) -> None:
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "store": str(folder),
                    "generation": generation.number,
                    "floor": generation.floor,
                    **_facts(generation.bundle),
                }
            )
        )
        return
    typer.echo(f"{generation.bundle.title} is active (generation {generation.number})")


def _status(folder: Path, kept: Store, robot: Robot, trust: Trust) -> dict[str, Any]:
    _, damaged = kept.generations()
    rows: list[dict[str, Any]] = []
    for generation in kept.chain():
        try:
            startable(folder, generation, robot, trust)
            problem = None
        except EdgeWmError as error:
            problem = str(error)
        rows.append(
            {
                "generation": generation.number,
                **_facts(generation.bundle),
                "path": str(folder / bundle_path(generation.bundle.sha256)),
                "why": generation.why,
                "problem": problem,
            }
        )
    trialed = kept.trialed()
    writer = holder(folder, "lock")
    trial = None
    if trialed is not None:
        cut_off = "it runs now" if writer else "it was cut off before it ended"
        trial = {**_facts(trialed.bundle), "reason": trialed.reason or cut_off}
    return {
        "store": str(folder),
        "floor": kept.floor,
        "starts": next((row for row in rows if row["problem"] is None), None),
        "generations": rows,
        "damaged": damaged,
        "not_committed": trial,
        "written_by": writer,
        "run_by": holder(folder, "running"),
    }


def _print_status(facts: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    table.add_row("store", facts["store"])
    table.add_row("accepts", f"counter {facts['floor']} and above")
    for number, row in enumerate(facts["generations"]):
        role = "falls back to" if number else "active"
        problem = f": does not start: {row['problem']}" if row["problem"] else ""
        table.add_row(
            role,
            f"{row['name']} {row['version']} ({row['sha256'][:12]}), generation "
            f"{row['generation']}, {row['why']}{problem}",
        )
    if not facts["generations"]:
        table.add_row("active", "nothing")
    for line in facts["damaged"]:
        table.add_row("damaged", line)
    if trial := facts["not_committed"]:
        table.add_row(
            "rolled back",
            f"{trial['name']} {trial['version']} ({trial['sha256'][:12]}): {trial['reason']}",
        )
    for title, key in (("written to by", "written_by"), ("runs", "run_by")):
        if facts[key]:
            table.add_row(title, facts[key])
    Console(highlight=False).print(table)
