"""edge-wm hil: every suite against the emulated boards, and what it says when it does not run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from edge_wm.errors import UsageError
from edge_wm.robot import Link, find_robot, load_robot
from firmware_bridge.hil import SUITES, Check, Result, chosen, run_suite
from firmware_bridge.hil.bench import Bench
from firmware_bridge.hil.report import page


def run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "edge_wm", "hil", *arguments], capture_output=True, text=True
    )


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc here to build the firmware with")
@pytest.mark.parametrize("board", ["arm", "rover"])
def test_the_emulated_board_passes_every_suite(board, tmp_path):
    report = tmp_path / "hil.html"
    # The board is a process in real time: once more where a shared machine held it up.
    for _ in range(2):
        done = run("--emulated", board, "--endurance", "0.5", "--report", str(report), "--json")
        told = json.loads(done.stdout)
        failed = [
            (suite["name"], check)
            for suite in told["suites"]
            for check in suite["checks"]
            if not check["ok"]
        ]
        if not failed:
            break
    assert failed == []
    assert [suite["passed"] for suite in told["suites"]] == [True] * len(SUITES)
    assert done.returncode == 0
    assert told["about"]["dead man"] == "250 ms"
    assert "8 passed, 0 failed, 0 not run" in report.read_text()


def test_suites_that_move_need_to_be_allowed_and_say_what_moves():
    bench = Bench(load_robot(find_robot("rover")), Link("serial", "/dev/none"), may_move=False)
    result = run_suite(SUITES[4], bench)
    assert not result.passed
    assert result.skipped == (
        "moves motors: base.vx at up to 0.075 m/s for some seconds, base.wz at up to 0.54 rad/s "
        "for some seconds; give --allow-motion when the robot is secured"
    )
    arm = Bench(load_robot(find_robot("arm")), Link("serial", "/dev/none"), may_move=False)
    assert arm.motion() == (
        "shoulder up to 0.1 rad from where it stands, elbow up to 0.1 rad from where it stands"
    )


def test_a_board_that_is_not_there_is_a_failed_check():
    bench = Bench(load_robot(find_robot("rover")), Link("serial", "/dev/none7"), may_move=False)
    result = run_suite(SUITES[0], bench)
    (check,) = result.checks
    assert not check.ok
    assert check.measured.startswith("port /dev/none7: there is none of that name; ")


def test_suites_are_chosen_by_number():
    assert [suite.number for suite in chosen([])] == list(range(1, 9))
    assert [suite.number for suite in chosen([5, 1])] == [1, 5]
    for number in (0, 9, -1):
        with pytest.raises(UsageError, match=r"--suite must be one of 1 identify, 2 link, .*; got"):
            chosen([number])


def test_what_was_not_run_is_not_passed():
    assert not Result(SUITES[0], ()).passed
    assert not Result(SUITES[0], (), "why").passed
    good = Check("x", True, "1", "1")
    assert Result(SUITES[0], (good,)).passed
    assert not Result(SUITES[0], (good, Check("y", False, "1", "2"))).passed


def test_the_report_escapes_what_a_board_says():
    text = page({"board": "<script>"}, [Result(SUITES[0], (Check("<b>", False, "&", "'"),))])
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    assert "FAIL" in text


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "--robot: name the robot file whose limits the board shall hold"),
        (
            ("--emulated", "boat", "--robot", "arm"),
            2,
            "the emulated board must be one of arm, rover, got 'boat'; correct it",
        ),
        (
            ("--emulated", "arm", "--port", "/dev/x"),
            2,
            "--port and --emulated: give one of them; which board do you mean?",
        ),
    ],
)
def test_wrong_usage(arguments, code, told):
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (code, f"edge-wm: {told}\n")
