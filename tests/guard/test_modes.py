"""Who may change the guard's mode, what latches, and what an activation is."""

from __future__ import annotations

import itertools

import pytest

from edge_wm.errors import RefusedError
from edge_wm.guard import Guard
from edge_wm.modes import LATCHED, TRANSITIONS, Mode
from edge_wm.reasons import Reason
from guard.scenes import ROVER, START_NS, drive, ready, rover_view

H = 10_000_000


def in_mode(mode: Mode) -> Guard:
    """A guard brought to `mode` the shortest way that people may go."""
    guard = Guard(ROVER)
    ways = {
        Mode.idle: [],
        Mode.self_test: [Mode.self_test],
        Mode.hold: [Mode.self_test, Mode.hold],
        Mode.stop: [Mode.self_test, Mode.hold, Mode.stop],
        Mode.fault: [Mode.self_test, Mode.fault],
        Mode.estop: [Mode.estop],
    }
    for step in ways[mode]:
        assert guard.request(step, "supervisor", START_NS)
    assert guard.mode is mode
    return guard


@pytest.mark.parametrize("who", ["supervisor", "operator", "guard", "runtime", ""])
def test_every_transition_is_as_the_table_says(who: str):
    asked = [Mode.idle, Mode.self_test, Mode.hold, Mode.stop, Mode.fault, Mode.estop]
    for start, to in itertools.product(asked, Mode):
        guard = in_mode(start)
        if start is to:
            allowed = any(who in by for (_, mode), by in TRANSITIONS.items() if mode is to)
        else:
            allowed = who in TRANSITIONS.get((start, to), ())
        allowed = allowed and who != "guard"
        assert guard.request(to, who, START_NS) is allowed
        assert guard.mode is (to if allowed else start)


@pytest.mark.parametrize("mode", sorted(LATCHED))
def test_latched_modes_are_left_by_an_operator_only_and_to_idle_only(mode: Mode):
    guard = in_mode(mode)
    for k in range(5):
        assert guard.step(START_NS + k * H, rover_view(START_NS + k * H)).mode is mode
    for to in Mode:
        if to not in (mode, Mode.estop):
            assert not guard.request(to, "supervisor", START_NS)
    assert guard.request(Mode.idle, "operator", START_NS)


def test_activation_needs_hold():
    for mode in (Mode.idle, Mode.self_test, Mode.stop, Mode.fault, Mode.estop):
        with pytest.raises(RefusedError) as error:
            in_mode(mode).activate(START_NS)
        assert str(error.value) == (
            f"guard: can be activated in mode hold, it is in {mode.name} at 5000000000 ns; "
            "ask for hold first (from a latched mode: reset it, then self_test, then hold)"
        )


def test_each_activation_is_a_new_epoch_and_forgets_the_old_sequence():
    guard = in_mode(Mode.hold)
    assert guard.epoch == 0
    guard.step(START_NS, rover_view(START_NS))
    assert guard.activate(START_NS) == 1
    assert guard.accept(drive(sequence=9), rover_view(START_NS), START_NS).accepted
    assert guard.activate(START_NS) == guard.epoch == 2
    assert guard.accept(drive(sequence=1, epoch=2), rover_view(START_NS), START_NS).accepted


@pytest.mark.parametrize(
    ("mode", "who", "given", "told"),
    [
        (Mode.stop, "operator", None, (Reason.operator_stop,)),
        (Mode.stop, "supervisor", None, ()),
        (Mode.stop, "supervisor", Reason.goal_reached, (Reason.goal_reached,)),
        (Mode.hold, "operator", None, ()),
        (Mode.estop, "operator", None, (Reason.estop_pressed,)),
        (Mode.fault, "supervisor", Reason.runtime_silent, (Reason.runtime_silent,)),
    ],
)
def test_a_request_brakes_says_why_and_lasts(mode, who, given, told):
    guard = ready()
    assert guard.accept(drive(), rover_view(START_NS), START_NS).accepted
    for k in range(1, 41):
        moving = guard.step(START_NS + k * H, rover_view(START_NS + k * H))
    assert moving.setpoint.velocity[1, 0] > 0.4
    now_ns = START_NS + 40 * H
    assert guard.request(mode, who, now_ns, given)
    speed = moving.setpoint.velocity[1, 0]
    for _ in range(50):
        now_ns += H
        verdict = guard.step(now_ns, rover_view(now_ns))
        assert (verdict.mode, verdict.reasons) == (mode, told)
        assert verdict.setpoint.velocity[1, 0] <= speed + 0.015  # jerk first ends the speeding up
        speed = verdict.setpoint.velocity[1, 0]
    assert speed == 0.0
    refused = guard.accept(drive(start_ns=now_ns + H, stamp_ns=now_ns), rover_view(now_ns), now_ns)
    assert refused.reasons == (Reason.not_active,)


def test_asking_for_the_stop_that_the_guard_made_itself_makes_it_last():
    guard = ready()
    assert guard.accept(drive(), rover_view(START_NS), START_NS).accepted
    for k in range(1, 20):
        blind = rover_view(START_NS + k * H, scan_age_ns=10**9)
        assert guard.step(START_NS + k * H, blind).mode is Mode.stop
    now_ns = START_NS + 20 * H
    assert guard.request(Mode.stop, "operator", now_ns)
    for k in range(20, 80):
        verdict = guard.step(START_NS + k * H, rover_view(START_NS + k * H))
    assert (verdict.mode, verdict.reasons) == (Mode.stop, (Reason.operator_stop,))


def test_the_guard_moves_only_between_the_modes_of_motion():
    allowed = {Mode.hold, Mode.active, Mode.slow, Mode.stop}
    for a, b in itertools.permutations(allowed, 2):
        assert "guard" in TRANSITIONS[a, b]
