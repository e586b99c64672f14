"""Ticks with absolute deadlines, for threads that run in real time.

Tick n is due at start + n * period, so lateness does not add up. A tick that finishes after the
next one was due counts as a missed deadline; ticks that could not begin at all are skipped and
counted too.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

# A thread that computes in Python gives way after this long (Python's default is 5 ms, half a
# setpoint period).
SWITCH_INTERVAL_S = 0.0005


@dataclass(slots=True)
class Deadlines:
    """How a tick kept its time."""

    ticks: int = 0
    missed: int = 0  # finished after it should have, or never begun
    durations_ns: deque[int] = field(default_factory=lambda: deque(maxlen=4096))

    def p99_ms(self) -> float:
        """99th percentile of the last 4096 ticks' durations, ms; 0 before the first."""
        if not self.durations_ns:
            return 0.0
        return float(np.percentile(list(self.durations_ns), 99)) / 1e6


def ticks(
    period_ns: int, deadlines: Deadlines, end: threading.Event, now_ns: Callable[[], int]
) -> Iterator[int]:
    """Yield the time of each tick when it is due; count and skip those that cannot be kept.

    A clock that jumps (a robot's first contact with a time server) does not stop the ticks: one
    that is due more than two periods ahead is due now. One that runs slower than the machine's (a
    simulation's) is waited for.
    """
    due_ns = now_ns()
    while not end.is_set():
        while (wait_ns := due_ns - now_ns()) > 0 and not end.is_set():
            if wait_ns > 2 * period_ns:
                due_ns = now_ns()
                break
            time.sleep(wait_ns * 1e-9)
        begun_ns = now_ns()
        yield begun_ns
        done_ns = now_ns()
        deadlines.ticks += 1
        deadlines.durations_ns.append(done_ns - begun_ns)
        due_ns += period_ns
        if done_ns > due_ns:
            skipped = (done_ns - due_ns) // period_ns
            deadlines.missed += 1 + skipped
            due_ns += skipped * period_ns
