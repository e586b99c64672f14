"""Tests what edge_wm_msgs would say, with stand-ins for its two messages."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from edge_wm_ros.conversions import GuardReport, time_ns
from edge_wm_ros.summaries import belief_message, played_share, verdict_message

from edge_wm.reasons import Reason
from edge_wm.types import Belief

NOW_NS = 1_795_000_000_000_000_000
PERIOD_NS = 10_000_000


def report(ticks: int, *, playing: int | None = 7, at: float = 0.0, epoch: int = 3) -> GuardReport:
    now_ns = NOW_NS + ticks * PERIOD_NS
    reasons = ["obstacle_near", "a reason of a newer release"]
    return GuardReport(
        now_ns, "slow", epoch, 7, [], playing, at, [], "play", None, reasons, None, {}
    )


def test_a_verdict_names_and_numbers_its_reasons():
    told = verdict_message(SimpleNamespace, report(10, at=5.0), report(0, at=0.0), PERIOD_NS)
    assert time_ns(told.stamp) == NOW_NS + 10 * PERIOD_NS
    assert (told.mode, told.epoch, told.sequence) == ("slow", 3, 7)
    assert told.reasons == [int(Reason.obstacle_near)]
    assert told.reason_names == ["obstacle_near"]
    assert told.speed_scale == 0.5


@pytest.mark.parametrize(
    ("before", "now", "share"),
    [
        (report(0, at=0.0), report(4, at=4.0), 1.0),
        (report(0, at=1.0), report(4, at=2.0), 0.25),
        (report(0, at=1.0), report(4, playing=None), 0.0),
        (None, report(4, at=2.0), math.nan),
        (report(0, playing=6, at=1.0), report(4, at=2.0), math.nan),
        (report(0, epoch=2, at=1.0), report(4, at=2.0), math.nan),
        (report(4, at=2.0), report(4, at=2.0), math.nan),
    ],
)
def test_the_share_of_the_planned_speed(before: GuardReport | None, now: GuardReport, share: float):
    assert played_share(now, before, PERIOD_NS) == pytest.approx(share, nan_ok=True)


def test_a_belief_in_short():
    belief = Belief(
        NOW_NS,
        {"z": np.array([3.0, 4.0], np.float32), "h": np.full((2, 2), 1.0, np.float32)},
    )
    told = belief_message(SimpleNamespace, belief, NOW_NS + 1_500_000_000)
    assert (told.names, told.norms) == (["z", "h"], [5.0, 2.0])
    assert (told.age.sec, told.age.nanosec) == (1, 500_000_000)
    assert time_ns(belief_message(SimpleNamespace, belief, 0).age) == 0
