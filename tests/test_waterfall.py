"""Tests the way from sensor to command: durations that were put into a recording come out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from recording.runs import MS, make_header, make_run

from edge_wm.errors import ModelError
from edge_wm.recording import Event, PlanBegin, PlanEnd, Recorder, Step, open_recording
from edge_wm.report.waterfall import STAGES, waterfall
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import Sample

ROVER = load_robot(find_robot("rover"))
ENDS = {e.tick: e for e in make_run(1.0) if isinstance(e, PlanEnd) and e.trajectory is not None}
STEP = next(e for e in make_run(1.0) if isinstance(e, Step))
ACCEPTED = [tick for tick, end in ENDS.items() if end.acceptance and end.acceptance.accepted]


def record(path: Path, events: list[Event]) -> Path:
    with Recorder(path, ROVER, make_header(ROVER.text)) as recorder:
        for event in events:
            recorder.record(event)
    return path


def step(now_ns: int, newest_ns: int) -> Step:
    setpoint = replace(STEP.verdict.setpoint, times_ns=np.array([newest_ns - 10 * MS, newest_ns]))
    return replace(STEP, now_ns=now_ns, verdict=replace(STEP.verdict, setpoint=setpoint))


def plan(tick: int, taken_ns: int, ms: tuple[float, ...], accepted: bool = True) -> list[Event]:
    """One image and its plan, with these durations from stage to stage (ms)."""
    moments = taken_ns + np.rint(np.cumsum(ms) * MS).astype(np.int64)
    received, begun, _, _, guarded, commanded = moments.tolist()
    end = ENDS[ACCEPTED[0]]
    assert end.trajectory is not None
    assert end.acceptance is not None
    image = np.full((64, 64, 3), tick % 251, np.uint8)
    stages = {
        "encode": round(ms[2] * MS), "advance": round(0.25 * ms[3] * MS),
        "plan": round(0.75 * ms[3] * MS), "trajectory": round(0.5 * ms[4] * MS),
        "guard": round(0.5 * ms[4] * MS),
    }  # fmt: skip
    trajectory = replace(
        end.trajectory, sequence=tick, stamp_ns=taken_ns, start_ns=commanded - 5 * MS
    )
    answer = replace(end.acceptance, accepted=accepted)
    return [
        Sample("camera", taken_ns, received, tick, image),
        PlanBegin(tick, begun, None),
        replace(
            end, tick=tick, now_ns=guarded, trajectory=trajectory, acceptance=answer, stages=stages
        ),
        step(commanded - 10 * MS, commanded - 5 * MS),  # ends where it starts: not yet
        step(commanded, commanded + 5 * MS),
    ]


def test_what_was_put_in_comes_out(tmp_path: Path):
    generator = np.random.default_rng(0)
    durations = generator.uniform(0.5, 40.0, (30, 6)).round(3)
    durations[:, 5] += 10.0
    events: list[Event] = []
    for tick, ms in enumerate(durations):
        events += plan(tick, 10**9 + tick * 300 * MS, tuple(ms), accepted=tick != 7)
    found = waterfall(open_recording(record(tmp_path / "run.mcap", events)))
    kept = np.delete(durations, 7, axis=0)
    assert found.stream == "camera"
    np.testing.assert_allclose(found.durations_ms, kept, atol=2e-6)
    table = found.percentiles()
    for index, name in enumerate(STAGES):
        assert table[name]["p50"] == pytest.approx(np.median(kept[:, index]))
        assert table[name]["max"] == pytest.approx(kept[:, index].max())
    worst = found.worst("total")
    slowest = int(kept.sum(axis=1).argmax())
    assert worst.tick == [t for t in range(30) if t != 7][slowest]
    assert worst.stamp_ns == 10**9 + worst.tick * 300 * MS
    assert worst.milliseconds == pytest.approx(kept.sum(axis=1).max())


def test_a_faster_stream_with_the_same_stamps_is_not_taken_for_the_camera(tmp_path: Path):
    events = plan(1, 10**9, (5.0, 20.0, 1.0, 8.0, 1.0, 30.0))
    wheels = np.zeros((2, 2), np.float32)
    fast = [Sample("wheels", 10**9 + k * 10 * MS, 10**9 + k * 10 * MS, k, wheels) for k in range(4)]
    found = waterfall(open_recording(record(tmp_path / "run.mcap", [*fast, *events])))
    assert found.stream == "camera"
    assert found.durations_ms[0, 0] == pytest.approx(5.0)


def test_a_run_without_motion_has_no_waterfall(tmp_path: Path):
    path = record(tmp_path / "run.mcap", plan(1, 10**9, (1.0,) * 5 + (20.0,), accepted=False))
    with pytest.raises(ModelError) as error:
        waterfall(open_recording(path))
    assert str(error.value) == (
        f"{path}: must have at least one accepted trajectory that was commanded, and has none; "
        "record a run in which the robot was active"
    )


def test_the_command_prints_json_and_draws(tmp_path: Path):
    path = record(tmp_path / "run.mcap", plan(1, 10**9, (5.0, 20.0, 1.0, 8.0, 1.0, 30.0)))
    picture = tmp_path / "way.png"
    command = [
        sys.executable,
        "-m",
        "edge_wm",
        "latency",
        str(path),
        "--json",
        "--out",
        str(picture),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["ms"]["total"]["p50"] == pytest.approx(65.0)
    assert facts["worst"]["planned"]["tick"] == 1
    with Image.open(picture) as image:
        assert image.width > 500
    bad = subprocess.run([*command[:-1], str(tmp_path / "no" / "way.png")], capture_output=True,
                         text=True, timeout=60)  # fmt: skip
    assert bad.returncode == 1
    assert "the picture cannot be written" in bad.stderr
