"""The machine under the benchmark: its instruction sets, its int8 peak, one core of it."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path

# instruction set -> the flags of /proc/cpuinfo that it needs; fastest int8 first
INSTRUCTION_SETS = {
    "AMX int8": ("amx_tile", "amx_int8"),
    "AVX-512 VNNI": ("avx512f", "avx512_vnni"),
    "AVX-VNNI": ("avx_vnni",),
    "AVX-512": ("avx512f", "avx512bw"),
    "AVX2": ("avx2", "fma"),
    "NEON i8mm": ("i8mm",),
    "NEON dotprod": ("asimddp",),
}
MOVED = 0.15  # more than this share between before and after, and the run is void


@lru_cache
def flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    words = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(words[0].split()) if words else frozenset()


def instruction_sets() -> dict[str, bool]:
    """Those of this kind of processor, and whether it has them."""
    arm = platform.machine() in ("aarch64", "arm64")
    return {
        name: set(needed) <= flags()
        for name, needed in INSTRUCTION_SETS.items()
        if name.startswith("NEON") == arm
    }


def has_vnni() -> bool:
    return bool({"avx512_vnni", "avx_vnni"} & flags())


def gate() -> str:
    """Which rows of the budget hold here: vnni, avx2, or arm (where only estimates are made)."""
    if platform.machine() in ("aarch64", "arm64"):
        return "arm"
    return "vnni" if has_vnni() else "avx2"


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def pin(cores: int) -> int | None:
    """Keep this process on its last `cores` cores; gives the first of them, None if it cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    kept = sorted(os.sched_getaffinity(0))[-cores:]
    os.sched_setaffinity(0, kept)
    return kept[0]


def moved(before: float | None, after: float | None) -> bool:
    """Did the peak move too far for the run to count? Unknown peaks are no reason."""
    if not before or not after:
        return False
    return abs(after - before) / before > MOVED
