"""Tests the command line as a person meets it: help, JSON, exit codes, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from driving import BUNDLE_FILE

from edge_wm import shipped
from edge_wm.backends.choice import spelled
from edge_wm.recording import Step, open_recording

COMMAND = [sys.executable, "-m", "edge_wm"]


def call(*arguments: str, cwd: Path | None = None, **environment: str):
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "120", "NO_COLOR": "1"} | environment,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_help_lists_every_command_and_the_exit_codes():
    done = call("--help")
    assert done.returncode == 0
    for name in (
        *("run", "eval", "robot", "bundle", "quantize", "replay", "report", "explain", "doctor"),
    ):
        assert re.search(rf"^│ {name} ", done.stdout, re.MULTILINE), name
    assert "0 ok, 1 failed, 2 wrong usage, 3 refused" in done.stdout


@pytest.mark.parametrize(
    "command", ["run", "eval", "quantize", "replay", "report", "explain", "doctor"]
)
def test_every_command_has_json(command):
    assert "--json" in call(command, "--help").stdout


@pytest.mark.parametrize("command", ["build", "inspect", "verify", "backends", "sign", "diff"])
def test_every_bundle_command_has_json(command):
    assert "--json" in call("bundle", command, "--help").stdout


def test_version():
    plain, machine = call("version"), call("version", "--json")
    assert json.loads(machine.stdout) == {"version": plain.stdout.strip()}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("fly",), 2, "No such command 'fly'"),
        (("run", "--duration", "-1"), 2, "Invalid value"),
        (("run", "--robot", "submarine"), 2, "submarine"),
        (("run", "--bundle", "nowhere.wmb"), 2, "nowhere.wmb"),
        (
            ("eval", "--drivers", "planner,pilot"),
            2,
            "no driver 'pilot' for the robot rover; choose of planner",
        ),
        (("replay", "nowhere.mcap"), 1, "nowhere.mcap"),
        (("report", "nowhere.mcap"), 1, "nowhere.mcap"),
        (("bundle", "verify", "nowhere.wmb"), 2, "nowhere.wmb"),
        (("robot", "check", "nowhere.yaml"), 2, "nowhere.yaml"),
        (("explain", "nothing_of_the_kind"), 2, "nothing_of_the_kind"),
    ],
)
def test_what_a_user_can_mend_is_told_without_a_traceback(tmp_path, arguments, code, says):
    done = call(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_robot_without_a_bundle_of_its_own_is_told_so(tmp_path):
    text = (shipped.folder("robots") / "arm.yaml").read_text().replace("name: arm", "name: crane")
    (tmp_path / "crane.yaml").write_text(text)
    done = call("run", "--robot", "crane.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert "no bundle is shipped for the robot 'crane'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_tampered_bundle_is_refused_with_exit_code_3(tmp_path):
    data = bytearray(BUNDLE_FILE.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "bent.wmb").write_bytes(data)
    done = call("run", "--bundle", "bent.wmb", cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("edge-wm: bundle bent.wmb")
    assert not (tmp_path / "runs").exists()


def test_eval_prints_a_table_and_the_same_json_twice(tmp_path):
    arguments = ("eval", "--episodes", "2", "--seed", "5", "--drivers", "planner,straight")
    first, second = call(*arguments, "--json"), call(*arguments, "--json")
    assert first.returncode == 0, first.stderr
    assert first.stdout == second.stdout
    table = json.loads(first.stdout)
    assert table["episodes"] == 2
    assert [line["driver"] for line in table["rows"]] == ["planner", "straight"]
    assert {"success_rate", "collision_rate"} <= set(table)


def test_eval_keeps_to_the_fixed_rule_and_measures_nothing(tmp_path):
    arguments = ("eval", "--episodes", "1", "--drivers", "straight")
    done = call(*arguments, EDGE_WM_CACHE=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "measuring" not in done.stderr
    assert [folder.name for folder in tmp_path.iterdir()] == ["passed"]
    measured = call(*arguments, "--backend", "auto", EDGE_WM_CACHE=str(tmp_path))
    assert measured.returncode == 0, measured.stderr
    assert "measuring backends on this machine ...\n" in measured.stderr
    assert {folder.name for folder in tmp_path.iterdir()} == {"passed", "choice"}


def test_run_measures_once_says_what_it_chose_and_records_it(tmp_path):
    cache = {"EDGE_WM_CACHE": str(tmp_path / "cache")}
    arguments = ("run", "--duration", "1", "--no-report", "--json")
    first, second = (call(*arguments, cwd=tmp_path, **cache) for _ in range(2))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "measuring backends on this machine ...\n" in first.stderr
    assert re.search(
        r"^  rollout \(dynamics, cost, constraint, value\): \w+ [\d.]+ ms; ",
        first.stderr,
        re.MULTILINE,
    )
    assert "measuring" not in second.stderr
    table = call("bundle", "backends", str(BUNDLE_FILE), "--json", cwd=tmp_path, **cache)
    chosen = json.loads(table.stdout)["chosen"]
    assert not json.loads(table.stdout)["measured_now"]
    for done in (first, second):
        folder = json.loads(done.stdout)["folder"]
        header = open_recording(tmp_path / folder / "run.mcap").header
        assert header.backend == spelled(chosen)


def test_bundle_backends_prints_the_table(tmp_path):
    arguments = ("bundle", "backends", str(BUNDLE_FILE))
    first = call(*arguments, EDGE_WM_CACHE=str(tmp_path))
    assert first.returncode == 0, first.stderr
    assert re.search(r"dynamics, cost, constraint, value +native +[\d.]+ +held", first.stdout)
    assert first.stdout.endswith("\nmeasured now\n")
    again = call(*arguments, EDGE_WM_CACHE=str(tmp_path)).stdout
    assert again.splitlines()[:-1] == first.stdout.splitlines()[:-1]
    assert again.endswith("\nmeasured at an earlier start; --again measures anew\n")
    anew = call(*arguments, "--again", EDGE_WM_CACHE=str(tmp_path)).stdout
    assert anew.endswith("\nmeasured now\n")


def test_run_leaves_a_recording_and_a_report(tmp_path):
    done = call("run", "--duration", "4", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["plans"] > 20
    assert summary["lost_events"] == {}
    (folder,) = (tmp_path / "runs").iterdir()
    assert Path(summary["report"]).name == "report.html"
    assert (folder / "report.html").is_file()
    assert len(list(folder.glob("*.png"))) >= 4
    replayed = call("replay", str(folder / "run.mcap"), "--diff", cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "bit-exact" in replayed.stdout


@pytest.mark.parametrize("after_s", [0.3, 2.5, 5.0])
def test_ctrl_c_at_any_moment_stops_the_robot_and_leaves_a_whole_recording(tmp_path, after_s):
    process = subprocess.Popen(
        [*COMMAND, "run", "--duration", "60", "--no-report"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it puts into the background with SIGINT ignored, and so on downwards.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=60)
    assert process.returncode in (0, 130, -signal.SIGINT), talk
    assert "Traceback" not in talk or after_s < 1.0  # while Python is still importing
    for folder in (tmp_path / "runs").glob("*"):
        recording = open_recording(folder / "run.mcap")
        assert recording.complete
        steps = list(recording.only(Step))
        if steps:
            assert not steps[-1].verdict.setpoint.velocity.any()


def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path):
    """A 1 MiB file system for the runs, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        done = call("run", "--duration", "6", "--no-report", "--json", "--out", str(disk))
        assert done.returncode == 0, done.stderr
        summary = json.loads(done.stdout)
        assert summary["plans"] > 40
        assert sum(summary["lost_events"].values()) > 0
        assert "No space left" in done.stderr or "disk" in done.stderr
        (folder,) = disk.iterdir()
        assert list(open_recording(folder / "run.mcap").only(Step))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_without_ros_the_option_says_how_to_get_it(tmp_path: Path):
    done = call("run", "--ros", "--out", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == (
        "edge-wm: --ros: this Python must have ROS 2's rclpy and the package edge_wm_ros, and has "
        "not (No module named 'rclpy'); `make run-ros` sets both up, or source a ROS 2 "
        "distribution and build ros2_ws with colcon (ros2_ws/README.md)\n"
    )
    assert list(tmp_path.iterdir()) == []
