"""The memory that a competitor takes, measured in a process of its own.

case built, graphs written ──► resident: before ──► library, graphs, two runs ──► after
"""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
from pathlib import Path

from engine_bench import planning
from engine_bench.case import Case
from engine_bench.peers import Competitor

PAGE = 4096
TIMEOUT_S = 300.0


def growth_mib(case: Case, competitor: Competitor) -> float | None:
    """Ask a child process; None if it failed."""
    command = [sys.executable, "-m", "engine_bench", "--memory-of", case.name, competitor.name]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        return float(ended.stdout.split()[-1])
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        return None


def measure_mib(case: Case, competitor: Competitor) -> float:
    """In the child: what building and running `competitor` adds to this process, MiB."""
    competitor.prepare()
    gc.collect()
    _give_back()
    before = _resident_mib()
    engine = competitor.build()
    for seed in range(2):
        planning.work(case, engine, seed)
    return _resident_mib() - before


def _resident_mib() -> float:
    """Resident memory of this process (Linux; proc(5), statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE / 2**20


def _give_back() -> None:
    """What was freed goes back to the system, or the competitor would get it unseen (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
