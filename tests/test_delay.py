"""Tests the actuation delay that is learned, against known ones; and when to say nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from driving import WORLD, Events, bundle, cockpit, drive, rover
from test_replay import header

from edge_wm.delay import DelayEstimate
from edge_wm.recording import PlanEnd, Recorder, open_recording
from edge_wm.replay import replay
from edge_wm.robot import find_robot, load_robot, parse_robot
from edge_wm.runtime import RunSettings, Runtime
from edge_wm.simulation import RoverSimulation
from edge_wm.types import Motion, Sample

MS = 1_000_000
START_NS = 1_795_000_000_000_000_000  # float64 would round it to 256 ns
ARM = load_robot(find_robot("arm"))


def commanded(times_ns: np.ndarray, kind: str) -> np.ndarray:
    """(N, 2) velocities of the rover at any time: steps, a sine, or none."""
    t = (times_ns - START_NS) * 1e-9
    if kind == "still":
        return np.zeros((len(t), 2))
    if kind == "even":
        return np.full((len(t), 2), 0.4)
    if kind == "sine":
        return np.stack([0.3 * np.sin(2 * t), np.cos(3 * t)], axis=1)
    levels = np.random.default_rng(3).uniform(-0.2, 0.6, (1000, 2))
    return levels[np.clip((t / 0.7).astype(int), 0, 999)]


def learned(delay_ms: float, kind: str, *, noise: float = 0.0, seconds: float = 10.0) -> float:
    """What is learned (ms) where the measured velocity is the commanded one, that much later."""
    estimate = DelayEstimate(rover())
    random = np.random.default_rng(5)

    def motion(from_ns: int, until_ns: int) -> Motion:
        times = np.arange(from_ns, until_ns + 10 * MS, 10 * MS)
        return Motion(rover().axis_names, times, np.zeros((len(times), 2)), commanded(times, kind))

    for tick in range(int(seconds * 20)):
        for i in range(5):
            stamp_ns = START_NS + (tick * 5 + i) * 10 * MS
            speed = commanded(np.array([stamp_ns - round(delay_ms * MS)]), kind)[0]
            speed = speed + noise * random.normal(size=2)
            data = np.array([0.0, 0.0, 0.0, speed[0], 0.0, speed[1]])
            estimate.measured(Sample("odometry", stamp_ns, stamp_ns, 0, data))
        estimate.compare(motion)
    return estimate.delay_ns / MS


@pytest.mark.parametrize("kind", ["sine", "steps"])
@pytest.mark.parametrize("delay_ms", [0.0, 23.0, 40.0, 90.0, 150.0, 200.0])
def test_a_delay_that_is_known_is_found(delay_ms: float, kind: str):
    # Steps are ramps of 10 ms to whoever sees the knots only.
    assert learned(delay_ms, kind, noise=0.02) == pytest.approx(delay_ms, abs=8.0)


@pytest.mark.parametrize("kind", ["still", "even"])
def test_motion_that_says_nothing_changes_nothing(kind: str):
    assert learned(90.0, kind, noise=0.02) == 40.0


def test_it_stays_within_its_range_and_ignores_what_is_not_finite():
    assert learned(900.0, "sine") <= 200.0
    estimate = DelayEstimate(rover())
    estimate.measured(Sample("odometry", START_NS, START_NS, 0, np.full(6, np.nan)))
    estimate.compare(lambda *_: pytest.fail("there is nothing to compare"))
    assert estimate.delay_ns == rover().actuation_delay_ns


def test_an_arm_is_measured_by_its_joints():
    estimate = DelayEstimate(ARM)

    def speed(t_ns: float) -> list[float]:
        t = (t_ns - START_NS) * 1e-9
        return [np.sin(3 * t), 1.5 * np.cos(4 * t)]

    def motion(from_ns: int, until_ns: int) -> Motion:
        times = np.arange(from_ns, until_ns + 5 * MS, 5 * MS)
        velocity = np.array([speed(t) for t in times])
        return Motion(ARM.axis_names, times, np.zeros((len(times), 2)), velocity)

    for tick in range(200):
        for i in range(10):
            stamp_ns = START_NS + (tick * 10 + i) * 5 * MS
            data = np.array([[0.0, 0.0], speed(stamp_ns - 60 * MS)], np.float32)
            estimate.measured(Sample("joints", stamp_ns, stamp_ns, 0, data))
        estimate.compare(motion)
    assert estimate.delay_ns / MS == pytest.approx(60.0, abs=4.0)


def driven(file_delay_ms: int, *, learn: bool) -> tuple[Runtime, Events, float]:
    """A drive of the simulated rover, whose delay is 40 ms, by a robot file that says otherwise."""
    text = Path(find_robot("rover")).read_text()
    assert "actuation_delay_ms: 40" in text
    told = parse_robot(
        text.replace("actuation_delay_ms: 40", f"actuation_delay_ms: {file_delay_ms}"), "told"
    )
    settings = replace(RunSettings.for_robot(told, 0), learn_delay=learn)
    manifest, events = bundle().manifest, Events()
    runtime = Runtime(
        told, cockpit().driver("planner", 32), settings, streams=tuple(manifest.needs.streams),
        step_ns=manifest.step_ns, journal=events,
    )  # fmt: skip
    with RoverSimulation(rover(), WORLD) as simulation:
        drive(runtime, simulation, 9.0)
    return runtime, events, runtime.delay_ns / MS


def looks_ahead_ms(events: Events) -> float:
    """From a trajectory's start to the moment that its proposal is made for, in the last plan."""
    end = next(e for e in reversed(events.of(PlanEnd)) if e.proposal and e.trajectory)
    return (end.proposal.apply_at_ns - end.trajectory.start_ns) / MS


def test_a_robot_file_that_is_wrong_is_put_right_while_driving_and_planned_with():
    _, right_events, right = driven(40, learn=True)
    _, corrected_events, corrected = driven(80, learn=True)
    _, kept_events, kept = driven(80, learn=False)
    assert kept == 80.0
    assert looks_ahead_ms(kept_events) == 80.0
    # The simulated link takes 40 ms; a part of the motors' lag looks like more of it.
    assert 40.0 <= right <= 65.0
    assert abs(corrected - right) < 10.0
    assert looks_ahead_ms(right_events) == pytest.approx(right, abs=5.0)
    assert looks_ahead_ms(corrected_events) == pytest.approx(corrected, abs=5.0)


@pytest.mark.parametrize("told", [True, False])
def test_a_replay_learns_the_same_if_the_recording_says_so(tmp_path: Path, told: bool):
    settings = replace(RunSettings.for_robot(rover(), 0), learn_delay=True)
    plain = header(0)
    said = replace(plain, settings={**plain.settings, "candidates": 32, "learn_delay": told})
    manifest = bundle().manifest
    with Recorder(tmp_path / "run.mcap", rover(), said) as recorder:
        runtime = Runtime(
            rover(), cockpit().driver("planner", 32), settings,
            streams=tuple(manifest.needs.streams), step_ns=manifest.step_ns, journal=recorder,
        )  # fmt: skip
        with RoverSimulation(rover(), WORLD) as simulation:
            drive(runtime, simulation, 4.0)
    result = replay(open_recording(tmp_path / "run.mcap"), bundle())
    assert result.exact
    assert (result.divergence is None) == told
