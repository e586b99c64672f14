"""Tests that no message on any topic kills a process or moves the robot beyond its limits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import processes
from std_srvs.srv import SetBool

from edge_wm.robot import find_robot, load_robot
from ros2.rogue import TOPICS, Rogue
from ros2.test_robot import PATIENT, UP_WITHIN_S, enable, reset, set_off, tell

ROVER = load_robot(find_robot("rover"))
MESSAGES = 100  # on each topic; 10,000 in `make prove-ros`
# What is counted when a rogue message is refused: the status, and how its values begin.
REFUSALS = (
    ("wm_guard: input scan", "refused_"),
    ("wm_guard: input wheels", "refused_"),
    ("wm_runtime: input camera", "refused_"),
    ("wm_guard: mode", "refused_"),
    ("wm_guard: mode", "dropped_"),
    ("wm_bridge: link", "refused_"),
)


@pytest.fixture
def drive(tmp_path) -> Iterator[Drive]:
    with Drive(processes("rover", seed=5, extra=PATIENT), logs=tmp_path / "logs") as made:
        assert made.until(lambda heard: heard.guard["epoch"] > 0, UP_WITHIN_S), tell(made)
        yield made


def storm(drive: Drive, messages: int, seed: int) -> np.ndarray:
    """Send that many rogue messages on each topic while the robot drives.

    Returns the highest speeds (vx m/s, wz rad/s) that it had, in truth.
    """
    rogue = Rogue(drive.node, seed)
    set_off(drive)
    assert drive.until(lambda _: not rogue.missing, 10.0), rogue.missing
    for _ in range(messages):
        for topic in TOPICS:
            rogue.send(topic)
        time.sleep(0.005)
    return np.array(drive.heard.fastest)


def limits_hold(fastest: np.ndarray) -> bool:
    limits = np.array([max(axis.velocity_max, -axis.velocity_min) for axis in ROVER.axes])
    return bool((fastest <= 1.05 * limits).all())  # the physics overshoots by a little


def refused(drive: Drive, line: str, start: str) -> int:
    values = drive.heard.diagnostics[line].values
    return sum(int(value) for key, value in values.items() if key.startswith(start))


def test_rogue_messages_kill_nobody_and_move_nothing_beyond_its_limits(drive: Drive):
    pids = {name: drive.fleet.pid(name) for name in drive.fleet.listed}
    assert limits_hold(storm(drive, MESSAGES, seed=1))
    drive.until(lambda _: False, 1.0)
    assert drive.fleet.watch() == [], tell(drive)
    assert {name: drive.fleet.pid(name) for name in pids} == pids
    for line, start in REFUSALS:
        counted = drive.until(lambda _, line=line, start=start: refused(drive, line, start), 2.0)
        assert counted, (line, start, drive.heard.diagnostics.get(line))
    assert drive.heard.truth["malformed"] > 0
    for name in pids:
        assert "a callback failed" not in drive.fleet.log(name), drive.fleet.log(name)

    # Afterwards, activated anew (sequence numbers of this epoch were used up), it drives as before.
    if fault := drive.heard.guard["fault"]:
        reset(drive, fault)
    drive.call(SetBool, "/wm_guard/enable", SetBool.Request(data=False))
    assert drive.until(lambda heard: not heard.guard["epoch"], 2.0)
    enable(drive)
    set_off(drive)
