"""The rover's figures: the table of drivers, collisions over 500 episodes twice, replay.

The long parts are cut into blocks of 100 worlds, so that an interrupted proof continues. What
must be shown: success >= 95 % over 100 episodes; collisions <= 2 % over 500, also with 20 % of
the frames dropped and 50 ms more delay; recordings that replay bit for bit.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from driving import BUNDLE_FILE, ROBOT_FILE, bundle, cockpit, job
from test_replay import header

from edge_wm.evaluation import DRIVERS, Conditions, Job, Row, drive_all, held_back, row
from edge_wm.recording import Recorder, open_recording
from edge_wm.replay import replay
from edge_wm.simulation import Disturbances

WORSE = Disturbances(camera_drop=0.2, extra_camera_delay_ns=50_000_000)


def drive(driver: str, seed: int, disturbances: Disturbances) -> Row:
    jobs = [Job(driver, world, seed, Conditions(disturbances)) for world in held_back(100, seed)]
    return row(driver, list(drive_all(jobs, str(ROBOT_FILE), str(BUNDLE_FILE))))


def table(driver: str) -> dict[str, Any]:
    """One line of the table, over the 100 worlds of seed 0."""
    line = drive(driver, 0, Disturbances())
    good = line.success_rate >= 0.95 and line.collision_rate <= 0.02
    return {"passed": good or driver != "planner"} | asdict(line)


def block(seed: int, disturbances: Disturbances) -> dict[str, Any]:
    """100 episodes of the planner; five blocks make the 500 over which 2 % is the bound."""
    line = drive("planner", seed, disturbances)
    return {"passed": line.collision_rate <= 0.02} | asdict(line)


def replays() -> dict[str, Any]:
    """Three recordings of whole episodes."""
    plans = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(3):
            path = Path(folder) / f"{seed}.mcap"
            with Recorder(path, cockpit().robot, header(seed)) as recorder:
                cockpit().drive(job(seed=seed, world=held_back(3, 9)[seed]), recorder)
            result = replay(open_recording(path), bundle())
            plans += result.plans
            if result.divergence is not None or not result.exact:
                return {"passed": False, "recording": seed} | asdict(result)
    return {"passed": True, "recordings": 3, "plans": plans}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "replay": replays,
    "table: planner": partial(table, "planner"),
}
for n in range(1, 6):
    PARTS[f"collisions, block {n}"] = partial(block, n, Disturbances())
    PARTS[f"collisions, frames dropped and delayed, block {n}"] = partial(block, n, WORSE)
PARTS |= {f"table: {driver}": partial(table, driver) for driver in DRIVERS if driver != "planner"}
