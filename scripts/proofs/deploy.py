"""Deploying bundles: every power cut of the store, and 200 bad activations."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from deploy import bundles
from deploy.bad import BAD, prepare, rolled_back
from deploy.test_store import stories, sweep

from edge_wm.deploy import store as store_room

PART, ACTIVATIONS = 20, 200
ROLLED_BACK_WITHIN_S = 10.0


def power_cuts() -> dict[str, Any]:
    """Cut off before every step in every way, and once more on the way back; `sweep` raises where a
    state does not start. Bundles are written in more and smaller pieces than usual."""
    with tempfile.TemporaryDirectory() as folder:
        files = [
            bundles.write(Path(folder) / f"{version}.wmb", version=version).read_bytes()
            for version in ("1.0.0", "2.0.0")
        ]
    usual, cuts = store_room.PIECE, 0
    try:
        for piece in (100, 1000, usual):
            store_room.PIECE = piece
            cuts += sum(sweep(story) for story in stories(*files).values())
    finally:
        store_room.PIECE = usual
    return {"passed": cuts > 5_000, "cuts": cuts, "states_that_do_not_start": 0}


def bad_activations(first: int) -> Callable[[], dict[str, Any]]:
    """`PART` of them, from number `first` on."""

    def part() -> dict[str, Any]:
        worst_s, failures = 0.0, []
        names = list(BAD)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            os.environ["EDGE_WM_CONFIG"] = str(folder / "config")
            os.environ["EDGE_WM_CACHE"] = str(folder / "cache")
            (folder / "config" / "trust").mkdir(parents=True)
            bundles.trust_key(folder / "config" / "trust")
            store = prepare(folder)
            for number in range(first, first + PART):
                name = names[number % len(names)]
                # A bundle that passed its probe here once would not be probed again.
                os.environ["EDGE_WM_CACHE"] = str(folder / f"cache{number}")
                reason, seconds = rolled_back(store, BAD[name], number, folder)
                worst_s = max(worst_s, seconds)
                if reason == "it was activated" or seconds > ROLLED_BACK_WITHIN_S:
                    failures.append(f"{number}, {name}: {reason}, {seconds:.1f} s")
        return {
            "passed": not failures,
            "activations": PART,
            "worst_s": round(worst_s, 1),
            "failures": failures,
        }

    return part


PARTS = {"power cuts": power_cuts} | {
    f"bad activations {first + 1}-{first + PART}": bad_activations(first)
    for first in range(0, ACTIVATIONS, PART)
}
