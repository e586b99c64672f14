"""The updater's figures: power cuts on simulated flash, and SIGKILL of the emulated board.

Each part of cuts is a geometry, a pair of images and a seed; together they are more than 10^5 cuts,
half of them torn with more cuts while the first is recovered from. Parts take a minute or less.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from firmware.bench_images import Bench, build
from firmware.test_boot import SLOT

KB = 1024
SEEDS = range(8)


def cuts(geometry: str, seed: int) -> dict[str, Any]:
    """About 4,000 cuts: sizes, journals and ends drawn by the seed."""
    rng = random.Random(f"{geometry} {seed}")
    executable = build("powercut")
    done = broken = old_ends = new_ends = 0
    why = ""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        while done < 4000:
            slot = SLOT[geometry]
            sizes = [rng.choice((4 * KB, rng.randrange(4 * KB, slot), slot)) for _ in range(2)]
            old, new = (bench.sized(f"{done}-{i}", size) for i, size in enumerate(sizes))
            torn = rng.randrange(2)
            lived = bench.cut(
                executable, geometry, old, new,
                journal=rng.choice(("blank", "garbage", str(rng.randrange(1, 300)))),
                end=rng.choice(("silent", "confirm", "repair")),
                tear=torn, second=torn, seed=rng.randrange(2**31), cuts=500,
            )  # fmt: skip
            done += lived.cuts
            broken += lived.broken
            old_ends += lived.old
            new_ends += lived.new
            why = why or lived.why
    figures = {"cuts": done, "unbootable": broken, "old_runs": old_ends, "new_runs": new_ends}
    return {"passed": broken == 0, **figures} | ({"why": why} if broken else {})


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    f"cuts {geometry} {seed}": partial(cuts, geometry, seed) for seed in SEEDS for geometry in SLOT
}
