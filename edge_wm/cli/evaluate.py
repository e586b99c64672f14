"""`edge-wm eval`: drive many episodes in simulated time and print the table."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge_wm.backends.choice import spelled
from edge_wm.bundle import check_fit
from edge_wm.cli.opening import (
    BackendOption,
    BundleOption,
    JsonOption,
    RobotOption,
    TrustOption,
    settled,
)
from edge_wm.errors import UsageError
from edge_wm.opening import open_for


def evaluate(
    robot: RobotOption = "rover",
    bundle: BundleOption = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes a driver.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the worlds.")] = 0,
    drivers: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Of planner, no_ranges, no_camera, neither, straight, random, geometry (an arm: "
            "planner, straight, random); all if absent.",
        ),
    ] = None,
    drop_frames: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of camera frames that never arrive.")
    ] = 0.0,
    extra_delay_ms: Annotated[
        float, typer.Option(min=0.0, max=500.0, help="More delay of the camera, ms.")
    ] = 0.0,
    candidates: Annotated[
        int | None, typer.Option(min=2, help="Candidates an iteration; the bundle's if absent.")
    ] = None,
    realtime: Annotated[
        bool, typer.Option(help="Use the clock: one episode after another, in real time.")
    ] = False,
    backend: BackendOption = "first",
    trust: TrustOption = None,
    as_json: JsonOption = False,
) -> None:
    """Drive episodes in worlds that were never trained on, and count how they end.

    The same seed gives the same table on the same backend, unless --realtime. Exit code 0
    whatever the rates are.
    """
    from edge_wm.evaluation import (
        Conditions,
        Job,
        as_json_table,
        drive_all,
        drive_in_real_time,
        drivers_of,
        held_back,
        row,
    )
    from edge_wm.simulation import Disturbances

    robot_file, loaded, opened = open_for(robot, bundle, trust)
    known = drivers_of(loaded)
    wanted = tuple(drivers.split(",")) if drivers else (("planner",) if realtime else known)
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(
            f"--drivers: no driver {unknown[0]!r} for the robot {loaded.name}; choose of "
            f"{', '.join(known)}"
        )
    check_fit(opened.manifest, loaded)
    backend = spelled(settled(opened, backend).chosen)
    conditions = Conditions(
        Disturbances(camera_drop=drop_frames, extra_camera_delay_ns=int(extra_delay_ms * 1e6)),
        candidates=candidates,
    )
    worlds = held_back(episodes, seed)
    jobs = [Job(name, world, seed, conditions) for name in wanted for world in worlds]
    drive = drive_in_real_time if realtime else drive_all
    trust_files = tuple(str(path) for path in trust or ())
    done = []
    talk = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=talk,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as progress:
        task = progress.add_task(wanted[0], total=len(jobs))
        for episode in drive(
            jobs, str(robot_file), str(opened.path), backend=backend, trust_files=trust_files
        ):
            done.append(episode)
            progress.update(task, advance=1, description=episode.driver)
    rows = [row(name, [e for e in done if e.driver == name]) for name in wanted]
    if as_json:
        typer.echo(json.dumps(as_json_table(rows), indent=2))
        return
    table = Table(
        title=f"{episodes} episodes in held-back worlds, seed {seed}, "
        f"{opened.manifest.name} {opened.manifest.version}",
        caption="in brackets: Wilson 95 % intervals; time: mean over the successes",
        box=SIMPLE_HEAD,
        padding=(0, 1),
        pad_edge=False,
    )
    for column in ("driver", "success %", "collision %", "time s", "refused %", "braked %"):
        table.add_column(column, justify="left" if column == "driver" else "right", no_wrap=True)
    for line in rows:
        table.add_row(
            line.driver,
            _share(line.success_rate, line.success_interval),
            _share(line.collision_rate, line.collision_interval),
            f"{line.seconds:.1f}" if line.success_rate else "-",
            f"{line.refused_share * 100:.1f}",
            f"{line.braked_share * 100:.1f}",
        )
    Console().print(table)


def _share(rate: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{rate * 100:.1f} ({low * 100:.0f}-{high * 100:.0f})"
