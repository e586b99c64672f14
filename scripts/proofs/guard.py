"""The guard: 100,000 adversarial trajectories against the oracle, and an hour of lives."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from guard.adversarial import compare
from guard.closed_loop import Trouble, check_sent, live, told


def adversarial() -> dict[str, Any]:
    """Accepted and refused exactly as the oracle says; `compare` raises where they differ."""
    tally = compare(100_000, seed=2)
    reasons = {name: count for name, count in sorted(tally.items()) if "_" in name}
    counted = tally["accepted"] + tally["refused"]
    return {
        "passed": counted > 95_000 and tally["accepted"] > 10_000,
        "cases": tally["cases"],
        "accepted": tally["accepted"],
        "refused": tally["refused"],
        "too_near_to_call": tally["too near to call"],
        "refused_by_first_reason": reasons,
    }


def closed_loop() -> dict[str, Any]:
    """Lives in a crowd with everything going wrong: the nearest that an obstacle ever came."""
    nearest, way, reasons = 9.0, 0.0, set()
    for seed in range(10_000, 10_360):
        story = live(seed, 10.0, Trouble(), crowd=24)
        check_sent(story)
        nearest, way = min(nearest, story.nearest), way + story.way
        reasons |= told(story)
    return {
        "passed": nearest > 0.0,
        "hours": 1.0,
        "meters": round(way),
        "nearest_m": round(nearest, 4),
        "reasons": sorted(reason.name for reason in reasons),
    }


def step_time() -> dict[str, Any]:
    """Processor time of one setpoint tick, simulated robot and planner's random plans included."""
    began = time.process_time()
    story = live(1, 60.0, Trouble(), crowd=24)
    mean_us = (time.process_time() - began) / len(story.verdicts) * 1e6
    return {"passed": mean_us < 1000.0, "mean_us_with_simulation": round(mean_us)}


PARTS = {"adversarial": adversarial, "closed loop": closed_loop, "step time": step_time}
