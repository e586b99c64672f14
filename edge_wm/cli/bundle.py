"""The commands `edge-wm bundle build | inspect | verify | backends | sign | diff`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from edge_wm.authoring import build_bundle
from edge_wm.backends import BACKENDS, choose, load_graph
from edge_wm.backends.probe import probe
from edge_wm.backends.reference import cases_for
from edge_wm.bundle import (
    Bundle,
    Function,
    SigningKey,
    TrustedKey,
    check_fit,
    developer_key,
    examine_bundle,
    load_signing_key,
    load_trust,
    open_bundle,
    sign_bundle,
)
from edge_wm.bundle.container import write_atomically
from edge_wm.bundle.signatures import config_folder, public_key_text
from edge_wm.cli.backends import print_backends
from edge_wm.cli.opening import BackendOption, JsonOption, TrustOption, settled
from edge_wm.cli.programs import print_programs
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import Array

app = typer.Typer(help="Build, inspect, verify, sign and compare bundles.", no_args_is_help=True)

BundleArgument = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A .wmb file.")]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="The private key to sign with (Ed25519, PEM); this machine's developer key if absent.",
    ),
]


@app.command()
def build(
    spec: Annotated[Path, typer.Argument(help="A spec file, or a folder with manifest.yaml.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The bundle to write.")],
    key: KeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build a bundle from graphs and a spec, check it, and sign it."""
    signing = signing_key(key)
    built = build_bundle(spec, out, signing, run_graph)
    if as_json:
        result = {
            "path": str(out),
            "key_id": signing.key_id,
            "parity": dict(built.parity),
            "not_native": dict(built.not_native),
        }
        typer.echo(json.dumps(result))
        return
    table = Table("graph", "largest error against its reference outputs", box=None)
    for graph, error in built.parity.items():
        table.add_row(graph, f"{error:.2g}")
    console = Console(highlight=False)
    console.print(table)
    for name, why in built.not_native.items():
        typer.echo(f"{name} does not run on the native kernels: {why}", err=True)
    size = out.stat().st_size
    typer.echo(f"built {out} ({size:,} bytes), signed with {key_words(key, signing)}")


@app.command()
def inspect(
    bundle: BundleArgument,
    program: Annotated[
        bool, typer.Option("--program", help="Show each function's step program and its cost.")
    ] = False,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a bundle is and who signed it. Its signer may be unknown."""
    opened = examine_bundle(bundle, load_trust(trust or ()))
    if program:
        print_programs(opened, as_json=as_json)
        return
    if as_json:
        typer.echo(json.dumps(_facts(opened) | {"manifest": msgspec.to_builtins(opened.manifest)}))
        return
    _print_facts(opened)


@app.command()
def verify(
    bundle: BundleArgument,
    robot: Annotated[
        str | None,
        typer.Option("--robot", metavar="NAME|FILE", help="Also check that it fits this robot."),
    ] = None,
    trust: TrustOption = None,
    backend: BackendOption = "first",
    as_json: JsonOption = False,
) -> None:
    """Verify everything: signature, digests, structure, and the outputs on this machine."""
    opened = open_bundle(bundle, load_trust(trust or ()))
    manifest = opened.manifest
    if robot is not None:
        check_fit(manifest, load_robot(find_robot(robot)))
    chosen = dict(settled(opened, backend).chosen)
    probe(opened, chosen)
    if as_json:
        typer.echo(json.dumps(_facts(opened) | {"verified": True, "backends": chosen}))
        return
    typer.echo(
        f"verified {bundle}: {manifest.name} {manifest.version}, signed with {_title(opened)}; "
        f"{len(cases_for(manifest.reference, chosen))} reference cases reproduced on "
        f"{', '.join(sorted(set(chosen.values())))}"
    )


@app.command()
def backends(
    bundle: BundleArgument,
    again: Annotated[bool, typer.Option("--again", help="Measure anew.")] = False,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what `--backend auto` takes for each function on this machine, and why."""
    opened = open_bundle(bundle, load_trust(trust or ()))
    print_backends(opened, again=again, as_json=as_json)


@app.command()
def sign(
    bundle: BundleArgument,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write here; in place if absent."),
    ] = None,
    key: KeyOption = None,
    public: Annotated[
        Path | None,
        typer.Option(
            "--public", metavar="FILE", help="Also write the public key file, to give to others."
        ),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign a bundle in place of its present signature; nothing else in it changes."""
    opened = examine_bundle(bundle, load_trust(trust or ()))
    signing = signing_key(key)
    if public is not None:
        name = "developer" if key is None else signing.name
        write_atomically(public, iter([public_key_text(signing, name, ["model"]).encode()]))
    sign_bundle(opened, out or bundle, signing)
    if as_json:
        result = {"path": str(out or bundle), "was": opened.key_id, "key_id": signing.key_id}
        typer.echo(json.dumps(result))
        return
    typer.echo(f"signed {out or bundle} with {key_words(key, signing)}; it was {_title(opened)}")


@app.command()
def diff(
    first: BundleArgument,
    second: BundleArgument,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what differs between two bundles; exit 1 if anything does."""
    known = load_trust(trust or ())
    a, b = examine_bundle(first, known), examine_bundle(second, known)
    differences = _differences(a, b)
    if as_json:
        typer.echo(json.dumps(differences))
    elif not differences:
        typer.echo("no difference")
    else:
        table = Table("where", first.name, second.name, box=None)
        for entry in differences:
            table.add_row(entry["where"], _short(entry["first"]), _short(entry["second"]))
        Console(highlight=False).print(table)
    if differences:
        raise typer.Exit(1)


# ---- parts ------------------------------------------------------------------------------
def run_graph(
    name: str, kind: str, blob: bytes, function: Function, inputs: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Run one graph of a function on the library for its format."""
    backend = next(backend for backend, format in BACKENDS.items() if format == kind)
    choose(name, [kind], backend)
    return load_graph(blob, function, backend, name=name).run(inputs)


def signing_key(path: Path | None) -> SigningKey:
    """The key in a file, or this machine's developer key, which is made where there is none."""
    if path is not None:
        return load_signing_key(path)
    made = not (config_folder() / "developer.key").exists()
    key = developer_key()
    if made:
        typer.echo(
            f"made a developer key in {config_folder() / 'developer.key'}: what it signs is "
            "trusted on this machine only, in simulation and on developer-marked boards",
            err=True,
        )
    return key


def key_words(path: Path | None, key: SigningKey) -> str:
    """A key as the last line of a command names it."""
    return f"{'the developer key' if path is None else f'key {key.name!r}'} {key.key_id[:16]}"


def _title(bundle: Bundle) -> str:
    signer: TrustedKey | None = bundle.signer
    return f"{signer.title if signer else 'an unknown key'} {bundle.key_id[:16]}"


def _facts(bundle: Bundle) -> dict[str, Any]:
    signer = bundle.signer
    return {
        "path": str(bundle.path),
        "sha256": bundle.sha256,
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "key_id": bundle.key_id,
        "signer": {"kind": signer.kind, "name": signer.name, "scopes": sorted(signer.scopes)}
        if signer
        else None,
    }


def _print_facts(bundle: Bundle) -> None:
    m, console = bundle.manifest, Console(highlight=False)
    head = Table(box=None, show_header=False)
    head.add_row("bundle", f"{m.name} {m.version}: {m.description}")
    head.add_row("signed with", _title(bundle))
    head.add_row("sha256", bundle.sha256)
    head.add_row("license", m.license)
    for name, stream in m.needs.streams.items():
        shape = list(stream.shape)
        head.add_row(
            "needs", f"stream {name}: {stream.type}, {stream.dtype} {shape}, {stream.unit}"
        )
    for axis in m.needs.axes:
        head.add_row("commands", f"{axis.name}: {axis.kind}, {axis.unit}")
    head.add_row(
        "imagines",
        f"{m.horizon} steps of {m.step_ns / 1e6:g} ms ({m.horizon * m.step_ns / 1e9:g} s)",
    )
    if m.planner:
        p = m.planner
        head.add_row("plans by", f"{p.kind}, {p.candidates} candidates, {p.iterations} iterations")
    if m.goal_kinds:
        head.add_row("goals", ", ".join(m.goal_kinds))
    for name, term in m.cost_terms.items():
        weight = f"{term.weight:g} (from {term.min:g} to {term.max:g})"
        head.add_row("cost", f"{name}: weight {weight}; {term.meaning}")
    for name, value in m.accuracy_card.items():
        head.add_row("accuracy", f"{name}: {_short(value)}")
    console.print(head)
    table = Table("function", "graphs, bytes", "inputs", "outputs", "references", box=None)
    sizes = {entry.digest: entry.size for entry in m.blobs}
    for function_name, function in m.functions.items():
        table.add_row(
            function_name,
            "\n".join(f"{kind} {sizes[digest]:,}" for kind, digest in function.graphs.items()),
            "\n".join(f"{i.source} {list(i.shape)}" for i in function.inputs),
            "\n".join(f"{o.target} {list(o.shape)}" for o in function.outputs),
            str(sum(case.function == function_name for case in m.reference)),
        )
    console.print(table)


def _differences(a: Bundle, b: Bundle) -> list[dict[str, Any]]:
    """Leaves of the two manifests that differ, and the signing keys if they do."""
    documents = [json.loads(bundle.payload) for bundle in (a, b)]
    for document in documents:
        del document["blobs"]  # follow from the digests elsewhere
    leaves = [dict(_leaves("manifest", document)) for document in documents]
    leaves[0]["signed with"], leaves[1]["signed with"] = a.key_id, b.key_id
    return [
        {"where": path, "first": leaves[0].get(path), "second": leaves[1].get(path)}
        for path in dict.fromkeys([*leaves[0], *leaves[1]])
        if leaves[0].get(path) != leaves[1].get(path)
    ]


def _leaves(path: str, value: object) -> list[tuple[str, object]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in _leaves(f"{path}.{key}", inner)]
    if isinstance(value, list) and any(isinstance(inner, dict) for inner in value):
        named = [(_label(inner, i), inner) for i, inner in enumerate(value)]
        return [leaf for label, inner in named for leaf in _leaves(f"{path}[{label}]", inner)]
    return [(path, value)]


def _label(value: object, index: int) -> str:
    """A list entry by its name where it has one, so that an insertion is one difference."""
    if isinstance(value, dict):
        for key in ("tensor", "name", "digest"):
            if key in value:
                return str(value[key])[:16]
    return str(index)


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
