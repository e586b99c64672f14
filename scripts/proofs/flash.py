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
from firmware.slot_board import HARDWARE, SWAPPING, SlotBoard
from firmware.test_boot import SLOT
from firmware.test_flash import (
    BREAKAGES,
    SECTOR,
    bench_with_keys,
    flash,
    over_a_pulled_cable,
    over_a_reset,
    over_noise,
)
from firmware.test_flash import failing as failing_image
from firmware.test_update import CRASHES, HANGS, install, kill_in_a_swap, send, try_it

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


def images(bench: Bench) -> tuple[Path, Path]:
    """The real firmware, and a longer one."""
    program = build("slot.bin").read_bytes()
    old = bench.sign("old", program, hardware=HARDWARE, counter=1, version="1.0.0")
    longer = program + random.Random(1).randbytes(9000)
    return old, bench.sign("new", longer, hardware=HARDWARE, counter=2, version="1.1.0")


def kills(seed: int) -> dict[str, Any]:
    """20 times SIGKILL of QEMU while the images change places; about a minute."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        firmware = images(bench)
        with SlotBoard(bench.public, (firmware[0], None)) as board:

            async def request(client: Any) -> None:
                await send(client, firmware[1])
                await try_it(client)

            board.smp(request)
            board.cut()
            snapshot, rng = bytes(board.map[:]), random.Random(seed)
            places = [kill_in_a_swap(board, snapshot, firmware, rng) for _ in range(20)]
    return {"passed": True, "kills": 20, "in_the_swap": sum(one[0] == SWAPPING for one in places)}


def failing(name: str, program: bytes) -> dict[str, Any]:
    """25 trials of an image that fails; how many the board took back by itself."""
    taken_back = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        firmware = images(bench)
        image = bench.sign(name, program, hardware=HARDWARE, counter=3, version="2.0.0")
        with SlotBoard(bench.public, (firmware[0], None)) as board:
            for _ in range(25):
                board.smp(lambda client: install(client, image))
                states = board.states()
                taken_back += states[0].version == "1.0.0" and states[0].confirmed
    return {"passed": taken_back == 25, "trials": 25, "taken_back": taken_back}


def commanded(how: str) -> dict[str, Any]:
    """25 times `edge-wm flash`'s sequence with an image that fails: taken back, and reported."""
    taken_back = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_with_keys(Path(folder))
        image = failing_image(bench, how)
        with SlotBoard(bench.public, (images(bench)[0], None)) as board:
            for _ in range(25):
                receipt = flash(bench, board.port, image)
                taken_back += receipt.result == "taken back" and receipt.reason != ""
    return {"passed": taken_back == 25, "trials": 25, "taken_back_and_reported": taken_back}


def bad_line(kind: str, part: int) -> dict[str, Any]:
    """10 times the same over a bad line: confirmed, and gone on within a sector."""
    confirmed = within = retries = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = bench_with_keys(Path(folder))
        old, new = images(bench)
        for run in range(10):
            with SlotBoard(bench.public, (old, None)) as board:
                board.cut()
                board.start(socket=True)
                if kind == "noise":
                    receipt, lost = over_noise(bench, board, new, seed=100 * part + run), None
                elif kind == "pulled cable":
                    receipt, lost = over_a_pulled_cable(bench, board, new)
                else:
                    receipt, lost = over_a_reset(bench, board, new)
            confirmed += receipt.result == "confirmed"
            retries += receipt.retries
            within += lost is None or min(abs(lost - at) for at in receipt.resumed_at) <= SECTOR
    figures = {"runs": 10, "confirmed": confirmed, "within_a_sector": within, "retries": retries}
    return {"passed": confirmed == within == 10, **figures}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    f"cuts {geometry} {seed}": partial(cuts, geometry, seed) for seed in SEEDS for geometry in SLOT
} | {
    **{f"kills {seed}": partial(kills, seed) for seed in range(5)},
    **{f"image that hangs {part}": partial(failing, "hangs", HANGS) for part in range(2)},
    **{f"image that crashes {part}": partial(failing, "crashes", CRASHES) for part in range(2)},
    **{
        f"flash: image fails by {how}": partial(commanded, how)
        for how in ("hangs", "crashes", *BREAKAGES)
    },
    **{
        f"flash: {kind} {part}": partial(bad_line, kind, part)
        for kind in ("noise", "pulled cable", "reset")
        for part in range(10)
    },
}
