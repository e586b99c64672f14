"""Tests the live run: threads, deadlines, failures in a thread, and the way it always ends."""

from __future__ import annotations

import time

import numpy as np
import pytest
from driving import Events, rover
from test_runtime import STEP_NS, STREAMS, Spin

from edge_wm.errors import SystemTroubleError
from edge_wm.recording import PlanEnd, Step
from edge_wm.runtime import RunSettings, Runtime
from edge_wm.runtime.live import Live
from edge_wm.simulation import RoverSimulation


class Slow(Spin):
    """Takes much longer than the plan period, in every third plan."""

    plans = 0

    def think(self, request, budget):
        self.plans += 1
        if self.plans % 3 == 0:
            time.sleep(0.15)
        return super().think(request, budget)


class Failing(Spin):
    """Raises in its 20th plan."""

    plans = 0

    def think(self, request, budget):
        self.plans += 1
        if self.plans == 20:
            raise ZeroDivisionError("a bug in a driver")
        return super().think(request, budget)


class Deaf:
    """A link to a robot whose camera is not there; else the simulation's."""

    def __init__(self, simulation):
        self._simulation = simulation
        self.sent = 0
        self.closed = False

    @property
    def now_ns(self):
        return self._simulation.now_ns

    def send(self, setpoint):
        self.sent += 1
        self._simulation.send(setpoint)

    def step_to(self, now_ns):
        return [s for s in self._simulation.step_to(now_ns) if s.stream != "camera"]

    def close(self):
        self.closed = True
        self._simulation.close()


def make(driver, journal=None):
    simulation = RoverSimulation(rover(), 1_000_003)
    settings = RunSettings.for_robot(rover(), 0)
    runtime = Runtime(rover(), driver, settings, streams=STREAMS, step_ns=STEP_NS, journal=journal)
    return runtime, simulation


def resting(simulation) -> bool:
    vx, wz = simulation.truth().twist
    return abs(vx) < 0.02 and abs(wz) < 0.05


def until(live, condition, seconds=20.0):
    patience = time.monotonic() + seconds
    while not condition() and not live.failed:
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_slow_plans_are_counted_and_every_setpoint_stays_valid():
    journal = Events()
    runtime, simulation = make(Slow(rover(), 12, STEP_NS), journal)
    with Live(runtime, simulation, lambda _: simulation.goal) as live:
        live.activate()
        until(live, lambda: runtime.counts.late >= 6)
    assert live.plan.missed >= 6
    for step in journal.of(Step):
        setpoint = step.verdict.setpoint
        assert np.isfinite(setpoint.velocity).all()
        assert setpoint.valid_until_ns > step.now_ns
    assert runtime.counts.accepted >= 6


def test_it_ends_at_rest_and_closes_the_link():
    runtime, simulation = make(Spin(rover(), 12, STEP_NS))
    with Live(runtime, simulation, lambda _: simulation.goal) as live:
        live.activate()
        until(live, lambda: abs(simulation.truth().twist[1]) > 0.3)
    assert resting(simulation)
    assert not any(thread.is_alive() for thread in live._threads)


def test_an_exception_in_a_plan_brakes_and_is_raised():
    runtime, simulation = make(Failing(rover(), 12, STEP_NS))
    with (  # noqa: PT012
        pytest.raises(ZeroDivisionError, match="a bug in a driver"),
        Live(runtime, simulation, lambda _: simulation.goal) as live,
    ):
        live.activate()
        until(live, lambda: live.failed)
    assert resting(simulation)


def test_an_exception_in_the_body_brakes_and_is_raised():
    runtime, simulation = make(Spin(rover(), 12, STEP_NS))
    with (  # noqa: PT012
        pytest.raises(KeyboardInterrupt),
        Live(runtime, simulation, lambda _: simulation.goal) as live,
    ):
        live.activate()
        until(live, lambda: abs(simulation.truth().twist[1]) > 0.3)
        raise KeyboardInterrupt
    assert resting(simulation)


def test_a_missing_stream_is_named_and_nothing_moves(monkeypatch):
    monkeypatch.setattr("edge_wm.runtime.live.SENSORS_WITHIN_S", 0.5)
    runtime, simulation = make(Spin(rover(), 12, STEP_NS))
    link = Deaf(simulation)
    with (
        pytest.raises(SystemTroubleError, match=r"alive within 0\.5 s, but camera: A required"),
        Live(runtime, link, lambda _: simulation.goal) as live,
    ):
        live.activate()
    assert link.closed
    assert resting(simulation)


def test_shadow_does_everything_but_send():
    journal = Events()
    runtime, simulation = make(Spin(rover(), 12, STEP_NS), journal)
    link = Deaf(simulation)
    link.step_to = simulation.step_to
    with Live(runtime, link, lambda _: simulation.goal, shadow=True) as live:
        live.activate()
        until(live, lambda: runtime.counts.accepted > 20)
    assert link.sent == 0
    assert [end for end in journal.of(PlanEnd) if end.acceptance and end.acceptance.accepted]
