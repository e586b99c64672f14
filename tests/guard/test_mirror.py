"""Tests what another process knows of the guard: `Mirror` against the guard itself, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_wm.guard import Guard, Mirror
from edge_wm.types import Observation
from guard.closed_loop import MS, H, Trouble, live
from guard.scenes import ROVER, START_NS, drive, ready, rover_view


def assert_same(mirror: Mirror, guard: Guard, now_ns: int) -> None:
    for ahead_ns in (0, 40 * MS, 1_500 * MS):
        told, true = mirror.command_at(now_ns + ahead_ns), guard.command_at(now_ns + ahead_ns)
        assert told.at_ns == true.at_ns
        for name in ("position", "velocity", "acceleration"):
            assert getattr(told, name).tolist() == getattr(true, name).tolist()
    told, true = (who.motion(now_ns - 200 * MS, now_ns + 100 * MS) for who in (mirror, guard))
    assert told.times_ns.tolist() == true.times_ns.tolist()
    assert told.velocity.tolist() == true.velocity.tolist()
    assert told.position.tolist() == true.position.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_mirror_knows_what_was_and_will_be_commanded_to_the_last_bit(seed: int):
    mirror, generator = Mirror(ROVER), np.random.default_rng(seed)
    candidates = generator.uniform([-0.25, -1.8], [0.7, 1.8], (40, 12, 2)).astype(np.float32)
    steps = moving = 0

    def on_step(guard: Guard, now_ns: int, view: Observation) -> None:
        nonlocal steps, moving
        mirror.update(guard.state(now_ns))
        seen = view.streams.get("scan")
        fresh = seen is not None and now_ns - seen.sample.stamp_ns <= 150 * MS
        mirror.look(seen.sample if fresh else None)
        steps += 1
        if steps % 7:
            return
        assert not mirror.foreign
        assert_same(mirror, guard, now_ns)
        moving += bool(np.any(guard.command_at(now_ns).velocity))
        passes = [who.foresight(now_ns + 40 * MS, 150 * MS) for who in (mirror, guard)]
        assert (passes[0] is None) == (passes[1] is None)
        if passes[0] is not None:
            assert passes[0](candidates).tolist() == passes[1](candidates).tolist()

    live(seed, 20.0, Trouble(missed_ticks=0.0), on_send=mirror.sent, on_step=on_step)
    assert moving > 50


def test_a_lost_state_costs_its_knots_and_nothing_else():
    guard, mirror = ready(), Mirror(ROVER)
    plan = drive()
    mirror.sent(plan)
    assert guard.accept(plan, rover_view(START_NS), START_NS).accepted
    for tick in range(60):
        now_ns = START_NS + tick * H
        guard.step(now_ns, rover_view(now_ns))
        if tick % 3 == 0:
            mirror.update(guard.state(now_ns))
    mirror.update(guard.state(START_NS + 59 * H))
    now_ns = START_NS + 59 * H
    assert mirror.command_at(now_ns + 40 * MS).velocity.tolist() == (
        guard.command_at(now_ns + 40 * MS).velocity.tolist()
    )
    told, true = (who.motion(now_ns - 200 * MS, now_ns + 100 * MS) for who in (mirror, guard))
    for at_ns, row in zip(true.times_ns, true.velocity, strict=True):
        between = [np.interp(at_ns - now_ns, told.times_ns - now_ns, v) for v in told.velocity.T]
        np.testing.assert_allclose(between, row, atol=2e-3)  # a jerk of 20 over two knots


def test_what_another_process_sent_is_named_and_taken_for_braking():
    guard, mirror = ready(), Mirror(ROVER)
    assert guard.accept(drive(), rover_view(START_NS), START_NS).accepted
    for tick in range(30):
        guard.step(START_NS + tick * H, rover_view(START_NS + tick * H))
        mirror.update(guard.state(START_NS + tick * H))
    assert mirror.foreign
    now_ns = START_NS + 29 * H
    assert np.any(mirror.command_at(now_ns).velocity)
    assert not np.any(mirror.command_at(now_ns + 3_000 * MS).velocity)


def test_an_older_state_changes_nothing():
    guard, mirror = ready(), Mirror(ROVER)
    guard.step(START_NS, rover_view(START_NS))
    newer = guard.state(START_NS + H)
    mirror.update(newer)
    mirror.update(replace(newer, now_ns=START_NS, epoch=7))
    assert mirror.state is newer


def test_before_the_first_state_it_is_at_rest_and_sees_nothing():
    mirror = Mirror(ROVER)
    assert mirror.state is None
    assert not np.any(mirror.command_at(START_NS).velocity)
    assert mirror.foresight(START_NS, 150 * MS) is None
