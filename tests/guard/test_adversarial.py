"""The guard's answer to adversarial trajectories, against an independent oracle.

20,000 here; `make prove-guard` asks about 200,000 more.
"""

from __future__ import annotations

from guard.adversarial import compare


def test_guard_accepts_exactly_what_the_oracle_accepts():
    tally = compare(20_000, seed=1)
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
        assert tally[reason] >= 10, (reason, tally)
