"""Guard and robot together, with everything going wrong: legal setpoints, no contact, replay.

A minute and a half of lives here; `make prove-guard` lives an hour.
"""

from __future__ import annotations

import pytest

from edge_wm.reasons import Reason
from guard.closed_loop import Trouble, check_sent, digest, live, told


def test_nothing_that_was_visible_on_time_is_touched_and_every_setpoint_is_legal():
    reasons, way, accepted, refused = set(), 0.0, 0, 0
    for seed in range(12):
        story = live(seed, 7.0, Trouble(), crowd=20)
        check_sent(story)
        assert story.nearest > 0.01, seed  # of the margin of 0.04
        reasons |= told(story)
        way += story.way
        accepted, refused = accepted + story.accepted, refused + story.refused
    assert way > 10.0
    assert accepted > 5 * refused > 0
    assert reasons >= {
        Reason.obstacle_ahead,
        Reason.obstacle_near,
        Reason.ranges_stale,
        Reason.deadline_missed,
        Reason.operator_stop,
    }


def test_obstacles_from_nowhere_make_no_setpoint_illegal():
    popped = 0
    for seed in range(100, 104):
        story = live(seed, 5.0, Trouble(pop_up=2.0))
        check_sent(story)
        popped += story.popped_up
    assert popped == 4


@pytest.mark.parametrize("seed", [7])
def test_the_same_calls_give_the_same_bits(seed: int):
    trouble = Trouble(pop_up=0.5)
    assert digest(live(seed, 4.0, trouble)) == digest(live(seed, 4.0, trouble))
