"""Tests `edge-wm quantize` on the shipped rover with recordings, as a person calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from driving import BUNDLE_FILE, bundle, cockpit, job, rover

from edge_wm.errors import MismatchError, RefusedError
from edge_wm.quantize import Settings, quantize
from edge_wm.quantize.data import read_data
from edge_wm.recording import Header, Recorder, machine_class
from edge_wm.robot import find_robot, load_robot

COMMAND = [sys.executable, "-m", "edge_wm"]


def header(robot_text: str, **settings) -> Header:
    return Header(
        robot_text=robot_text,
        bundle_name="rover",
        bundle_version="0.1.0",
        bundle_sha256=bundle().sha256,
        backend="auto",
        backend_version="",
        kernel="",
        machine=machine_class(),
        seed=0,
        settings=settings,
    )


def recorded(path: Path, seconds: float, monkeypatch: pytest.MonkeyPatch, **settings) -> Path:
    """A drive in simulated time; the robot may move after the first second."""
    monkeypatch.setattr("edge_wm.evaluation.TIME_LIMIT_S", seconds)
    with Recorder(path, rover(), header(rover().text, **settings)) as recorder:
        cockpit().drive(job(seed=5), recorder)
    return path


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        return recorded(tmp_path_factory.mktemp("runs") / "run.mcap", 5.0, patch)


def mean_action():
    return cockpit()._model.mean_action


def call(folder: Path, *arguments: str, **environment: str):
    return subprocess.run(
        [*COMMAND, *arguments],
        env=os.environ
        | {"COLUMNS": "120", "NO_COLOR": "1", "EDGE_WM_CONFIG": str(folder / "config")}
        | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


# ---- recordings -----------------------------------------------------------------------------
def test_what_was_played_is_what_the_robot_did(recording):
    """Integrating the played actions leads to where the odometry says that the robot came."""
    data = read_data(bundle(), [recording], mean_action())
    moments = [m for run in data.runs for m in run]
    assert len(moments) >= 32
    manifest = bundle().manifest
    speeds = []
    for moment in moments:
        later_ns = moment.observation.stamp_ns + manifest.step_ns
        near = [m for m in moments if abs(m.observation.stamp_ns - later_ns) < 10_000_000]
        for m in near:
            x0, y0 = moment.observation.streams["odometry"].sample.data[:2]
            x1, y1 = m.observation.streams["odometry"].sample.data[:2]
            moved = float(((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5)
            speeds.append((moved / (manifest.step_ns * 1e-9), float(moment.actions[0, 0])))
    assert len(speeds) >= 20
    apart = [abs(true - abs(commanded)) for true, commanded in speeds]
    assert sorted(apart)[len(apart) // 2] < 0.08  # m/s
    assert max(true for true, _ in speeds) > 0.2


def test_too_short_a_recording_is_refused(tmp_path, monkeypatch):
    path = recorded(tmp_path / "short.mcap", 3.0, monkeypatch)
    with pytest.raises(RefusedError) as caught:
        quantize(bundle(), [path])
    text = str(caught.value)
    assert text.startswith(
        "short.mcap: at least 32 moments with 12 steps (1.8 s) of played actions after them are "
        "needed, found "
    )
    assert text.endswith("; give a longer recording, or more of them")


def test_another_robot_is_refused(tmp_path):
    path, arm = tmp_path / "arm.mcap", load_robot(find_robot("arm"))
    with Recorder(path, arm, header(arm.text)):
        pass
    with pytest.raises(MismatchError) as caught:
        quantize(bundle(), [path])
    assert str(caught.value) == (
        f"{path}: bundle rover 0.1.0 needs stream 'camera'; robot file arm has only joints; use "
        "the bundle made for this robot, or train one on its streams and axes"
    )


def test_a_recording_in_the_shadow_is_refused(tmp_path, monkeypatch):
    path = recorded(tmp_path / "shadow.mcap", 1.5, monkeypatch, shadow=True)
    with pytest.raises(RefusedError) as caught:
        quantize(bundle(), [path])
    assert str(caught.value) == (
        f"{path}: was recorded with --shadow, its commands did not move the robot; give a "
        "recording of a run that drove"
    )


# ---- the command ----------------------------------------------------------------------------
def test_the_command_makes_a_bundle_that_verifies_on_plain_kernels(tmp_path, recording):
    out, picture = tmp_path / "int8.wmb", tmp_path / "card.png"
    done = call(
        tmp_path,
        *("quantize", str(BUNDLE_FILE), "--data", str(recording), "--out", str(out)),
        *("--functions", "dynamics,decoder", "--bound", "0.15", "--programs-only"),
        *("--picture", str(picture)),
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert last.startswith(f"quantized {out} ({out.stat().st_size:,} bytes): "), last
    assert "of the spread (bound 0.15); signed with the developer key " in last
    assert 3 * out.stat().st_size < BUNDLE_FILE.stat().st_size
    assert picture.read_bytes().startswith(b"\x89PNG")

    verified = call(tmp_path, "bundle", "verify", str(out), "--robot", "rover",
                    EDGE_WM_KERNELS="plain")  # fmt: skip
    assert verified.returncode == 0, verified.stderr
    assert "reference cases reproduced on native" in verified.stdout
    card = json.loads(call(tmp_path, "bundle", "inspect", str(out), "--json").stdout)["manifest"]
    assert card["accuracy_card"]["int8"]["rank_agreement"]["mean"] > 0.9
    assert "training" in card["accuracy_card"]  # what was there before


def test_all_int8_gives_the_programs_that_are_shipped(recording):
    """The shipped bundle was made before this command: int8 for all layers, bit for bit."""
    result = quantize(bundle(), [recording], Settings(bound=1.0))
    assert result.card["kept"] == []
    for name, function in bundle().manifest.functions.items():
        assert result.programs.blob(name, result.choice.int8) == bundle().blob(
            function.graphs["program"]
        ), name


def test_json_has_all_figures_and_refusals_have_an_exit_code(tmp_path, recording):
    arguments = ("quantize", str(BUNDLE_FILE), "--data", str(recording), "--functions", "dynamics")
    done = call(tmp_path, *arguments, "--out", str(tmp_path / "a.wmb"), "--bound", "0.5", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == {"path", "key_id", "card", "not_native", "bytes"}
    assert set(found["card"]["open_loop"]) == {"z", "motion", "pose", "risk", "clearance"}
    assert all(len(errors) == 13 for errors in found["card"]["open_loop"].values())
    refused = call(tmp_path, *arguments, "--out", str(tmp_path / "b.wmb"), "--bound", "0.00001")
    assert refused.returncode == 3
    assert refused.stderr.splitlines()[-1].startswith(
        "edge-wm: bundle rover 0.1.0: the error of belief."
    )
    assert not (tmp_path / "b.wmb").exists()
    unknown = call(tmp_path, *arguments, "--out", str(tmp_path / "b.wmb"), "--keep", "dense99")
    assert unknown.returncode == 2
    assert "has no layer 'dense99' that may become int8; it has dynamics:" in unknown.stderr
