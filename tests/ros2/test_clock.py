"""Tests a guard by /clock (use_sim_time) that goes back: it falls silent and says why."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import stamp_of, time_ns
from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import Process
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rosgraph_msgs.msg import Clock
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

START_NS = 5_000_000_000_000
SECOND_NS = 1_000_000_000


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    guard = Process("wm_guard", "edge_wm_ros.guard_node", {"robot": "arm", "use_sim_time": True})
    with Drive([guard], logs=tmp_path / "logs", respawn=False) as made:
        yield made


def test_when_the_clock_goes_back_the_guard_falls_silent_until_it_is_made_anew(drive: Drive):
    setpoints: list[int] = []
    drive.node.create_subscription(
        JointTrajectory, names.SETPOINT,
        lambda m: setpoints.append(time_ns(m.header.stamp)), qos.sensor(1),
    )  # fmt: skip
    clock = drive.node.create_publisher(Clock, "/clock", qos.newest(10))
    end, began = threading.Event(), time.monotonic_ns()
    back_ns = [0]

    def run() -> None:
        while not end.wait(0.002):
            now_ns = START_NS + time.monotonic_ns() - began - back_ns[0]
            clock.publish(Clock(clock=stamp_of(now_ns)))

    def change(number: int) -> None:
        request = ChangeState.Request(transition=Transition(id=number))
        answer = drive.call(ChangeState, "/wm_guard/change_state", request, 20.0)
        assert answer is not None, drive.fleet.log("wm_guard")
        assert answer.success, drive.fleet.log("wm_guard")

    thread = threading.Thread(target=run)
    thread.start()
    try:
        change(Transition.TRANSITION_CONFIGURE)
        change(Transition.TRANSITION_ACTIVATE)
        assert drive.until(lambda _: len(setpoints) > 50, 10.0), drive.fleet.log("wm_guard")
        # Its stamps are /clock's, not this computer's.
        assert START_NS - SECOND_NS < setpoints[-1] < START_NS + 60 * SECOND_NS

        back_ns[0] = 10 * SECOND_NS
        assert drive.until(lambda heard: heard.guard["fault"] == "clock_jumped", 5.0)
        time.sleep(0.1)  # what is on its way
        said = len(setpoints)
        time.sleep(0.5)
        assert len(setpoints) == said
        line = drive.heard.diagnostics["wm_guard: mode"]
        assert drive.until(
            lambda heard: heard.diagnostics["wm_guard: mode"].message
            == "The clock went back, so nothing that was planned or measured has a known time any "
            "more.", 5.0,
        ), line  # fmt: skip
        answer = drive.call(Trigger, "/wm_guard/reset/clock_jumped", Trigger.Request())
        assert answer.success is False
        assert answer.message == "the clock went back: clean wm_guard up and configure it anew"

        for number in (
            Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP,
            Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE,
        ):  # fmt: skip
            change(number)
        assert drive.until(lambda _: len(setpoints) > said + 50, 10.0), drive.fleet.log("wm_guard")
        assert drive.heard.guard["fault"] is None
    finally:
        end.set()
        thread.join()
