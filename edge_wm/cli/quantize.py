"""`edge-wm quantize`: int8 step programs for a bundle, with what they cost measured on data."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from edge_wm.bundle import Bundle, SigningKey, check_fit, load_trust, open_bundle
from edge_wm.bundle.signatures import public_key_text
from edge_wm.cli.bundle import BundleArgument, KeyOption, key_words, signing_key
from edge_wm.cli.opening import JsonOption, TrustOption
from edge_wm.errors import MismatchError, UsageError
from edge_wm.quantize import BOUND, Quantized, Settings, Written
from edge_wm.robot import find_robot, load_robot

SIMULATED = "rover"  # the robot that closed loops can be driven with
Tell = Callable[[str, int, int], object]


def quantize(
    bundle: BundleArgument,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="The bundle to write.")],
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            metavar="RUN.mcap|BAG|SAMPLES.npz",
            help="What to measure on; may be repeated. A recording of `edge-wm run`; a rosbag2 of "
            "the robot's sensors (with --robot); or an .npz "
            "with, for each model step a row, arrays named after the graphs' input tensors: each "
            "input of `encoder`, the action of `dynamics` (in the graph's numbers), and optionally "
            "the goal (for the rover: camera, odometry, action, goal; the error about a missing "
            "array lists those of your bundle). Without it, the bundle's reference inputs "
            "and seeded random actions, which says less.",
        ),
    ] = None,
    robot: Annotated[
        str | None,
        typer.Option("--robot", metavar="NAME|FILE", help="Whose sensors the bags hold."),
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            "--keep", metavar="LAYER", help="FUNCTION:LAYER that stays float32; may be repeated."
        ),
    ] = None,
    functions: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Functions that may become int8; all if absent."),
    ] = None,
    bound: Annotated[
        float,
        typer.Option(
            min=1e-6, max=10.0, help="The largest error, as a share of a tensor's spread."
        ),
    ] = BOUND,
    programs_only: Annotated[
        bool, typer.Option("--programs-only", help="Leave the ONNX and TFLite graphs out.")
    ] = False,
    episodes: Annotated[
        int,
        typer.Option(
            min=0, help="Held-back worlds to drive in both precisions (the simulated rover only)."
        ),
    ] = 0,
    key: KeyOption = None,
    picture: Annotated[
        Path | None,
        typer.Option("--picture", metavar="FILE.png", help="Draw the accuracy card."),
    ] = None,
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a bundle's layers int8, but for those that measurement keeps in float32.

    Writes a bundle with int8 step programs, an accuracy card (float32 against int8: open-loop
    error by step, agreement of returns and plans, sensitivity of each layer) and reference cases.
    Exit code 3 if the error cannot be held within --bound.
    """
    from edge_wm.quantize import quantize as measure
    from edge_wm.quantize import write_quantized

    opened = open_bundle(bundle, load_trust(trust or ()))
    chosen = tuple(functions.split(",")) if functions else ()
    settings = Settings(tuple(keep or ()), chosen, bound)
    if episodes:
        _require_rover(opened)
    signing = signing_key(key)
    bags_of = None if robot is None else load_robot(find_robot(robot))
    with _progress() as tell:
        result = measure(opened, tuple(data or ()), settings, bags_of=bags_of, progress=tell)
        if episodes:
            driven = _closed_loop(result, episodes, signing, tell)
            result = replace(result, card=result.card | {"closed_loop": driven})
    if picture is not None:
        from edge_wm.report.precision import draw_precision

        title = f"{opened.manifest.name} {opened.manifest.version}"
        draw_precision(result.card, title, picture, result.returns)
    written = write_quantized(result, out, signing, programs_only=programs_only)
    if as_json:
        typer.echo(json.dumps(_facts(result, written, bundle, signing), indent=2))
        return
    _print(result, written, bundle)
    kept = len(result.card["kept"]) + len(result.card["kept_by_hand"])
    typer.echo(
        f"quantized {out} ({written.size:,} bytes): {len(result.card['int8'])} layers in int8, "
        f"{kept} kept in float32, worst error {max(result.card['errors'].values()):.3f} of the "
        f"spread (bound {bound:g}); signed with {key_words(key, signing)}"
    )


# ---- closed loop --------------------------------------------------------------------------
def _require_rover(bundle: Bundle) -> None:
    try:
        check_fit(bundle.manifest, load_robot(find_robot(SIMULATED)))
    except MismatchError as error:
        raise UsageError(
            f"--episodes: only the simulated {SIMULATED} can be driven here: {error}"
        ) from None


def _closed_loop(
    result: Quantized, episodes: int, signing: SigningKey, tell: Tell
) -> dict[str, Any]:
    """Success rates of the planner in the same held-back worlds, float32 and int8."""
    from edge_wm.evaluation import Conditions, Job, drive_all, held_back, row
    from edge_wm.quantize import write_float32, write_quantized

    found: dict[str, Any] = {"episodes": episodes}
    jobs = [Job("planner", world, 0, Conditions()) for world in held_back(episodes, 0)]
    with tempfile.TemporaryDirectory(prefix="edge-wm-quantize-") as folder:
        trusted = Path(folder) / "signing.pub"
        trusted.write_text(public_key_text(signing, "quantize", ["model"]), encoding="utf-8")
        files = {name: Path(folder) / f"{name}.wmb" for name in ("float32", "int8")}
        write_float32(result.programs, files["float32"], signing)
        write_quantized(result, files["int8"], signing)
        for name, file in files.items():
            driven = []
            robot_file = str(find_robot(SIMULATED))
            for episode in drive_all(jobs, robot_file, str(file), trust_files=(str(trusted),)):
                driven.append(episode)
                tell(f"driving in {name}", len(driven), episodes)
            line = row("planner", driven)
            found[f"{name}_success"] = round(line.success_rate, 4)
            found[f"{name}_interval"] = [round(share, 4) for share in line.success_interval]
            found[f"{name}_collision"] = round(line.collision_rate, 4)
    return found


# ---- talk -----------------------------------------------------------------------------------
@contextmanager
def _progress() -> Iterator[Tell]:
    """A bar on a terminal, nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, disable=not sys.stderr.isatty(), transient=True
    ) as bar:
        task = bar.add_task("quantizing", total=None)

        def tell(what: str, done: int, of: int) -> None:
            bar.update(task, description=what, completed=done, total=of)

        yield tell


def _facts(
    result: Quantized, written: Written, source: Path, signing: SigningKey
) -> dict[str, Any]:
    return {
        "path": str(written.path),
        "key_id": signing.key_id,
        "card": result.card,
        "not_native": dict(result.programs.not_native),
        "bytes": {
            "before": source.stat().st_size,
            "after": written.size,
            "programs": dict(written.programs),
            "onnx": dict(written.graphs),
        },
    }


def _print(result: Quantized, written: Written, source: Path) -> None:
    card, console = result.card, Console(highlight=False)
    if card["weak"]:
        typer.echo(
            "measured on the bundle's reference inputs and random actions only, which says little: "
            "give recordings with --data",
            err=True,
        )
    for name, why in result.programs.not_native.items():
        typer.echo(f"{name} stays as it is: {why}", err=True)
    for name in card["kept"]:
        typer.echo(
            f"{name} stays float32: alone in int8 it makes an error of "
            f"{_number(card['sensitivity'][name])} in {card['sensitive'][name]}",
            err=True,
        )
    horizon = len(next(iter(card["open_loop"].values()))) - 1
    console.print(
        _table(
            "error, share of the spread",
            ("belief", "at the observation", f"after {horizon} steps", "worst"),
            [
                (name, *(f"{e:.4f}" for e in (errors[0], errors[-1], max(errors))))
                for name, errors in card["open_loop"].items()
            ],
        )
    )
    agreement, plans = card["rank_agreement"], card.get("plan_agreement")
    lines = [
        ("rank agreement of returns", f"{agreement['mean']:.4f}, worst {agreement['worst']:.4f}")
    ]
    if plans:
        lines.append(
            (
                "first actions apart, in noise_std",
                f"{plans['first_action_mean']:.3f}, p90 {plans['first_action_p90']:.3f}, worst "
                f"{plans['first_action_worst']:.3f}",
            )
        )
    for precision in ("float32", "int8") if "closed_loop" in card else ():
        loop = card["closed_loop"]
        low, high = loop[f"{precision}_interval"]
        lines.append(
            (
                f"success in {loop['episodes']} worlds, {precision}",
                f"{loop[f'{precision}_success'] * 100:.1f} % ({low * 100:.0f}-{high * 100:.0f})",
            )
        )
    console.print(_table(None, ("agreement", ""), lines))
    sizes = [
        (name, f"{written.graphs[name]:,}", f"{size:,}") for name, size in written.programs.items()
    ]
    sizes.append(("whole bundle", f"{source.stat().st_size:,}", f"{written.size:,}"))
    console.print(_table("bytes", ("function", "ONNX, or before", "program, or now"), sizes))


def _table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _number(value: float | None) -> str:
    return "infinity" if value is None else f"{value:.3f}"
