"""Tests replay: recorded runs are executed again bit for bit, and what differs is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from driving import BUNDLE_FILE, Events, bundle, cockpit, drive, job, rover

from edge_wm.bundle import developer_key, examine_bundle, load_trust, open_bundle, sign_bundle
from edge_wm.errors import MismatchError
from edge_wm.planner import make_planner
from edge_wm.recording import Header, PlanEnd, Recorder, Step, machine_class, open_recording
from edge_wm.replay import replay
from edge_wm.runtime import (
    ModelDriver,
    RunSettings,
    Runtime,
    backend_versions,
    planner_settings,
)
from edge_wm.runtime.live import Live
from edge_wm.simulation import Disturbances, RoverSimulation
from edge_wm.world_model import WorldModel


@pytest.fixture(autouse=True)
def short_episodes(monkeypatch):
    monkeypatch.setattr("edge_wm.evaluation.TIME_LIMIT_S", 3.0)


def header(seed: int, **settings) -> Header:
    return Header(
        robot_text=rover().text,
        bundle_name=bundle().manifest.name,
        bundle_version=bundle().manifest.version,
        bundle_sha256=bundle().sha256,
        backend="auto",
        backend_version=backend_versions(model()),
        kernel="",
        machine=machine_class(),
        seed=seed,
        settings={
            "driver": "planner",
            "plan_latency_ns": RunSettings.for_robot(rover(), 0).plan_latency_ns,
            "goal_tolerance": RunSettings.for_robot(rover(), 0).goal_tolerance,
            "candidates": None,
        }
        | settings,
    )


def model() -> WorldModel:
    return cockpit()._model


def runtime(seed: int, journal) -> Runtime:
    planner = make_planner(planner_settings(bundle().manifest), rover().axes)
    return Runtime(
        rover(),
        ModelDriver(model(), planner),
        RunSettings.for_robot(rover(), seed),
        streams=tuple(bundle().manifest.needs.streams),
        step_ns=bundle().manifest.step_ns,
        journal=journal,
    )


def recorded(path: Path, seed: int, **disturbances) -> Path:
    with Recorder(path, rover(), header(seed)) as recorder:
        cockpit().drive(job(seed=seed, disturbances=Disturbances(**disturbances)), recorder)
    return path


@pytest.mark.parametrize(
    ("seed", "disturbances"),
    [(0, {}), (1, {"camera_drop": 0.2}), (2, {"extra_camera_delay_ns": 50_000_000})],
)
def test_a_run_in_simulated_time_replays_bit_for_bit(tmp_path, seed, disturbances):
    recording = open_recording(recorded(tmp_path / "run.mcap", seed, **disturbances))
    result = replay(recording, bundle())
    assert result.divergence is None
    assert result.exact
    assert result.plans >= 39
    assert result.steps >= 200


def test_a_replay_uses_what_the_recording_names_and_never_measures(tmp_path, monkeypatch):
    monkeypatch.setattr("edge_wm.backends.choice.measure", lambda *a, **k: pytest.fail("measured"))
    recording = open_recording(recorded(tmp_path / "run.mcap", 0))
    made = []
    real = WorldModel

    def watched(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr("edge_wm.replay.WorldModel", watched)
    assert recording.header.backend == "auto"  # as recordings said before auto measured
    assert replay(recording, bundle()).exact
    assert made[-1].backend == model().backend
    other = "encoder=onnxruntime,decoder=litert"
    result = replay(recording, bundle(), backend=other)
    assert not result.exact
    assert any(line.startswith("backend: recorded with ") for line in result.differences)
    assert made[-1].backend.startswith("encoder=onnxruntime,dynamics=")
    assert made[-1].backend.endswith(",decoder=litert")


def test_a_live_run_with_its_threads_replays_bit_for_bit(tmp_path):
    path = tmp_path / "run.mcap"
    simulation = RoverSimulation(rover(), 1_000_004, seed=7)
    with Recorder(path, rover(), header(7)) as recorder:
        live_runtime = runtime(7, recorder)
        with Live(live_runtime, simulation, lambda _: simulation.goal) as live:
            live.activate()
            while live_runtime.counts.plans < 60 and not live.failed:
                live._end.wait(0.05)
    result = replay(open_recording(path), bundle())
    assert result.divergence is None
    assert result.exact
    assert result.plans >= 60


class Falsified:
    """A recording in which one number of one event was changed."""

    def __init__(self, recording, kind, change):
        self._recording, self._kind, self._change = recording, kind, change
        self.changed = -1

    def __getattr__(self, name):
        return getattr(self._recording, name)

    def events(self):
        for number, event in self._recording.events():
            if isinstance(event, self._kind) and self.changed < 0:
                new = self._change(event)
                if new is not None:
                    self.changed, event = number, new
            yield number, event


def nudge_action(end: PlanEnd) -> PlanEnd | None:
    if end.tick != 30 or end.proposal is None:
        return None
    actions = end.proposal.actions.copy()
    actions[2, 1] = np.nextafter(actions[2, 1], np.float32(9))
    return replace(end, proposal=replace(end.proposal, actions=actions))


def nudge_setpoint(step: Step) -> Step | None:
    if step.now_ns != 2_000_000_000:
        return None
    velocity = step.verdict.setpoint.velocity.copy()
    velocity[1, 0] = np.nextafter(velocity[1, 0], 9.0)
    setpoint = replace(step.verdict.setpoint, velocity=velocity)
    return replace(step, verdict=replace(step.verdict, setpoint=setpoint))


@pytest.mark.parametrize(
    ("kind", "change", "what"),
    [
        (PlanEnd, nudge_action, "PlanEnd, tick 30: proposal.actions[2, 1]"),
        (Step, nudge_setpoint, "Step: verdict.setpoint.velocity[1, 0]"),
    ],
)
def test_one_changed_bit_is_found_and_named(tmp_path, kind, change, what):
    recording = Falsified(open_recording(recorded(tmp_path / "run.mcap", 0)), kind, change)
    result = replay(recording, bundle())
    assert result.divergence is not None
    assert result.divergence.event == recording.changed
    assert result.divergence.what == what


def test_on_another_machine_beliefs_are_compared_within_the_bound(tmp_path):
    opened = open_recording(recorded(tmp_path / "run.mcap", 0))
    other = replace(opened.header, machine=dict(opened.header.machine) | {"cpu": "a Cortex-A78AE"})
    result = replay(replace(opened, header=other), bundle())
    assert not result.exact
    assert any("a Cortex-A78AE" in difference for difference in result.differences)
    assert result.divergence is None


def test_another_bundle_is_refused_with_both_named(tmp_path):
    resigned = tmp_path / "resigned.wmb"
    sign_bundle(examine_bundle(BUNDLE_FILE, load_trust()), resigned, developer_key())
    recording = open_recording(recorded(tmp_path / "run.mcap", 0))
    with pytest.raises(MismatchError, match=r"was recorded with bundle rover .*got resigned\.wmb"):
        replay(recording, open_bundle(resigned, load_trust()))


def test_a_baseline_is_refused(tmp_path):
    path = tmp_path / "run.mcap"
    with Recorder(path, rover(), header(0, driver="geometry")) as recorder:
        cockpit().drive(job("geometry"), recorder)
    with pytest.raises(MismatchError, match="driven by the baseline 'geometry'"):
        replay(open_recording(path), bundle())


def test_what_a_driver_saw_in_replay_is_what_it_saw_live():
    """Events of two equal runs are equal, without a recording in between."""
    runs = []
    for _ in range(2):
        journal = Events()
        with RoverSimulation(rover(), 1_000_004, seed=3) as simulation:
            drive(runtime(3, journal), simulation, 2.2)
        runs.append([end.proposal.actions.tobytes() for end in journal.of(PlanEnd) if end.proposal])
    assert len(runs[0]) > 15
    assert runs[0] == runs[1]
