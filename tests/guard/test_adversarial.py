"""The guard's answer to adversarial trajectories, against an independent oracle.

12,000 here; `make prove-guard` asks about 100,000 others.
"""

from __future__ import annotations

from guard.adversarial import compare


def test_guard_accepts_exactly_what_the_oracle_accepts():
    tally = compare(12_000, seed=1)
    counted = tally["accepted"] + tally["refused"]
    assert counted > 0.8 * tally["cases"], tally
    assert tally["accepted"] > 0.1 * counted, tally
    for reason in (
        "trajectory_late",
        "trajectory_old",
        "trajectory_out_of_order",
        "trajectory_wrong_epoch",
        "trajectory_not_finite",
        "trajectory_malformed",
        "trajectory_discontinuous",
        "trajectory_not_at_rest",
        "position_limit",
        "velocity_limit",
        "acceleration_limit",
        "jerk_limit",
        "effort_limit",
        "outside_workspace",
        "inside_keep_out",
    ):
        assert tally[reason] >= 5, (reason, tally)
