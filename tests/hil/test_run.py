"""edge-wm run --hil: the shipped bundles through the link into the firmware, end to end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_wm import shipped
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import Request, Step, open_recording
from firmware_bridge.lockstep import Library, Qemu

RUN = [sys.executable, "-m", "edge_wm", "run", "--hil", "--json"]
LEAST_M = {"rover": 0.4, "arm": 0.2}  # of the base, or of the arm's tool, in the time below

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no gcc here to build the firmware with"
)


def children(pid: int) -> list[int]:
    """The processes that `pid` started, by any of its threads."""
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        found += [int(child) for child in listed.read_text().split()]
    return found


@pytest.mark.parametrize("robot", ["rover", "arm"])
def test_a_shipped_robot_moves_through_the_firmware_and_the_report_says_so(robot, tmp_path) -> None:
    if not list(shipped.folder("zoo").glob(f"*/{robot}.wmb")):
        pytest.skip(f"no bundle is shipped for the robot {robot}")
    done = subprocess.run(
        [*RUN, "--robot", robot, "--duration", "12", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["distance_m"] > LEAST_M[robot]
    assert told["contact_s"] == 0
    link = told["link"]
    assert link["firmware"] in (Qemu.name, Library.name)  # where the emulator is too slow
    assert link["board"] == f"emulated-{robot}"
    assert link["dead_man_ms"] == 250
    assert link["latched"] is None
    assert link["mode"] == "idle"  # braked to rest, then disarmed
    assert 0 < link["times_real_time"] <= 1.0
    assert link["commands"] > 200 * link["times_real_time"]  # of 1,200: a busy machine drops some
    assert (link["reconnects"], link["not_sayable_newest"]) == (0, "")
    assert link["frames_lost_to_device"] == link["frames_lost_to_host"] == 0
    page = Path(told["report"]).read_text()
    for text in ("<h2>Link</h2>", "dead_man_ms", "250.0", "load_percent", "times_real_time"):
        assert text in page
    recording = open_recording(Path(told["folder"]) / "run.mcap")
    assert recording.remarks["board"] == f"emulated-{robot}"
    assert recording.header.settings["hil"] == "emulated"
    assert "dead_man_ms: 250" in recording.header.robot_text
    replayed = subprocess.run(
        [sys.executable, "-m", "edge_wm", "replay", recording.path],
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_a_controller_that_dies_ends_the_run_with_the_reason(tmp_path) -> None:
    command = [*RUN, "--duration", "60", "--no-report", "--out", str(tmp_path)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stderr is not None
    try:
        while "active" not in run.stderr.readline():  # the status line, every five seconds
            assert run.poll() is None
        if not (board := children(run.pid)):
            pytest.skip("this machine is too busy for the emulator: the firmware is in the process")
        os.kill(board[0], signal.SIGKILL)
        killed_s = time.monotonic()
        out, err = run.communicate(timeout=60)
    finally:
        run.kill()
        run.wait()
    assert time.monotonic() - killed_s < 30  # it did not go on
    assert run.returncode == 1
    assert err.splitlines()[-1].startswith("edge-wm: the firmware did not ")
    assert "it was killed by signal 9" in err.splitlines()[-1]
    told = json.loads(out)
    recording = open_recording(Path(told["folder"]) / "run.mcap")
    (asked,) = [r for r in recording.only(Request) if r.mode is Mode.fault]
    assert (asked.who, asked.reason) == ("supervisor", Reason.bridge_silent)
    assert recording.complete
    assert sum(1 for _ in recording.only(Step)) > 20  # how many depends on how busy the machine is


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ("--ros",),
            2,
            "--hil drives in one process; leave --ros out",
        ),
        (
            ("--hil-port", "/dev/none7"),
            1,
            "port /dev/none7: there is none of that name; ",
        ),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, code, told, tmp_path) -> None:
    done = subprocess.run(
        [*RUN, "--out", str(tmp_path), *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].startswith(f"edge-wm: {told}")
