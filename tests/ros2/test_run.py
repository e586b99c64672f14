"""Tests `edge-wm run --ros` as its user runs it: a command, its summary, and Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from edge_wm.recording.bag import read_bag


def command(out: Path, *more: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "edge_wm",
        "run",
        "--ros",
        "--out",
        str(out),
        "--seed",
        "5",
        *more,
    ]


def nodes() -> list[str]:
    """Command lines of the nodes that run in this test's domain."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it went away meanwhile
            continue
        domain = f"ROS_DOMAIN_ID={os.environ['ROS_DOMAIN_ID']}".encode()
        if "edge_wm_ros." in line and domain in variables:
            found.append(line)
    return found


def listening_to_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_it_drives_tells_how_it_went_and_leaves_nothing_behind(tmp_path: Path):
    done = subprocess.run(
        command(tmp_path, "--duration", "6", "--json"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["distance_m"] > 0.5, (summary, done.stderr)
    assert summary["contact_s"] == 0.0
    assert summary["plans"] > 30
    assert summary["restarts"] == {}
    assert not summary["interrupted"]
    logs = Path(summary["folder"]) / "logs"
    assert {f.stem for f in logs.iterdir()} == {
        "wm_sim", "wm_bridge", "wm_guard", "wm_runtime", "wm_supervisor", "wm_recorder",
    }  # fmt: skip
    (dump,) = summary["dumps"]
    assert dump.endswith("_asked_for.mcap")
    found = Counter(m.topic for m in read_bag(Path(summary["folder"]) / "dumps" / dump))
    assert found["/wm_runtime/trajectory"] > 30
    assert found["/imu"] > 500
    assert nodes() == []


def test_ctrl_c_stops_the_robot_and_ends_every_process(tmp_path: Path):
    process = subprocess.Popen(
        command(tmp_path, "--duration", "60", "--json"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=listening_to_interrupts,
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while "the robot is up" not in "".join(
            f.read_text() for f in tmp_path.glob("*/logs/wm_supervisor.log")
        ):
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(1.0)
        assert nodes()
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    assert json.loads(stdout)["interrupted"]
    assert "Traceback" not in stderr
    assert nodes() == []
