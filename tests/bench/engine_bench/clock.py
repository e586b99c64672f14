"""Times competitors in turns, so that a slow minute of the machine hits all of them alike.

Each round runs every competitor once, in an order that moves on by one; process CPU time is what
counts (another process on the core does not add to it), wall time is kept beside it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from edge_wm.types import Array


@dataclass(frozen=True)
class Times:
    """All rounds of one competitor, s."""

    cpu: Array
    wall: Array

    @property
    def least(self) -> float:
        return float(self.cpu.min())

    @property
    def median(self) -> float:
        return float(np.median(self.cpu))

    def percentile(self, share: float) -> float:
        """With fewer than 1 / (1 - share) rounds this is the slowest round."""
        return float(np.percentile(self.cpu, share, method="higher"))


def race(
    competitors: Mapping[str, Callable[[int], object]],
    seconds: float,
    rounds: tuple[int, int],
    now: Callable[[], int] = time.perf_counter_ns,
    cpu: Callable[[], int] = time.process_time_ns,
) -> dict[str, Times]:
    """Run every competitor for rounds[0] rounds, then until `seconds` or rounds[1] are reached.

    A competitor gets the number of its round: the seed of its work. Two rounds warm up.
    """
    names = list(competitors)
    taken: dict[str, list[tuple[int, int]]] = {name: [] for name in names}
    for warm in range(2):
        for name in names:
            competitors[name](warm)
    collecting = gc.isenabled()
    gc.disable()
    try:
        began, done = now(), 0
        while done < rounds[0] or (done < rounds[1] and (now() - began) * 1e-9 < seconds):
            first = done % len(names)
            for name in names[first:] + names[:first]:
                run = competitors[name]
                wall_began, cpu_began = now(), cpu()
                run(done)
                cpu_ended, wall_ended = cpu(), now()
                taken[name].append((cpu_ended - cpu_began, wall_ended - wall_began))
            done += 1
            gc.collect()
    finally:
        if collecting:
            gc.enable()
    return {
        name: Times(*(np.array(column) * 1e-9 for column in zip(*pairs, strict=True)))
        for name, pairs in taken.items()
    }
