"""Tests wm_guard with an arm under a stock joint_trajectory_controller's rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import (
    GuardReport,
    controller_message,
    state_of,
    time_ns,
    trajectory_message,
)
from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import Process
from guard.scenes import ARM, START_NS, arm_view, bump, ready, sweep, trajectory
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from edge_wm.robot import find_robot, parse_robot
from edge_wm.runtime.remote import RemoteGuard
from edge_wm.types import Setpoint
from ros2.controller_peer import problem

PEER = Path(__file__).resolve().parent / "controller_peer.py"
JOINTS = [axis.name for axis in ARM.axes]
# A shared machine holds processes up for longer than an arm's ticks and joints may be late.
TEXT = Path(find_robot("arm")).read_text()
for strict, patient in (
    ("max_age_ms: 30", "max_age_ms: 500"),
    ("setpoint_rate_hz: 200", "setpoint_rate_hz: 50"),
    ("dead_man_ms: 40", "dead_man_ms: 200"),
):
    assert TEXT.count(strict) == 1
    TEXT = TEXT.replace(strict, patient)
PATIENT_ARM = parse_robot(TEXT, "arm.yaml")
PATIENT = {"runtime_silence_ms": 2000, "supervisor_silence_ms": 2000}
MS = 1_000_000


def setpoints() -> list[Setpoint]:
    """All that the guard sends while it plays one sweep, and for a while after."""
    guard = ready(ARM)
    assert guard.accept(sweep(epoch=guard.epoch), arm_view(START_NS), START_NS).accepted
    return [
        guard.step(now_ns, arm_view(now_ns)).setpoint
        for now_ns in range(
            START_NS + ARM.setpoint_period_ns, START_NS + 900 * MS, ARM.setpoint_period_ns
        )
    ]


def test_whatever_the_guard_sends_the_controller_would_accept():
    for setpoint in setpoints():
        message = controller_message(setpoint)
        assert problem(message, JOINTS, setpoint.apply_at_ns * 1e-9) is None


def test_the_braking_suffix_is_what_the_guard_accepted():
    """Against the plain sum of velocities that fall by the deceleration, millisecond by one."""
    fastest = max(setpoints(), key=lambda s: float(np.abs(s.velocity[-1]).max()))
    assert np.abs(fastest.velocity[-1]).max() > 0.5
    points = controller_message(fastest).points
    begin_ns = fastest.valid_until_ns - fastest.apply_at_ns
    position = fastest.position[-1] + fastest.velocity[-1] * (
        (fastest.valid_until_ns - fastest.times_ns[-1]) * 1e-9
    )
    velocity = fastest.velocity[-1].copy()
    expected = {0: (position.copy(), velocity.copy())}
    for ms in range(1, 1001):
        after = np.sign(velocity) * np.maximum(
            np.abs(velocity) - fastest.brake_deceleration * 1e-3, 0.0
        )
        position, velocity = position + 0.5e-3 * (velocity + after), after
        expected[ms] = (position.copy(), velocity.copy())
    braking = [p for p in points if time_ns(p.time_from_start) >= begin_ns]
    assert len(braking) > 3
    for point in braking:
        position, velocity = expected[(time_ns(point.time_from_start) - begin_ns) // MS]
        np.testing.assert_allclose(point.positions, position, rtol=0, atol=1e-5)
        np.testing.assert_allclose(point.velocities, velocity, rtol=0, atol=1e-9)
    assert not np.any(braking[-1].velocities)


def test_the_rules_refuse_what_the_controller_refuses():
    def told(change, later_s: float = 0.0) -> str | None:
        message = controller_message(setpoints()[30])
        now_s = time_ns(message.header.stamp) * 1e-9 + later_s
        change(message)
        return problem(message, JOINTS, now_s)

    assert told(lambda m: None) is None
    assert told(lambda m: m.points.pop()) == "not at rest at its end"
    assert told(lambda m: m.points.clear()) == "no points"
    assert told(lambda m: m.joint_names.pop()) == "joints"
    assert told(lambda m: None, later_s=10.0) == "ends in the past"
    assert told(lambda m: m.points.reverse()) in ("times do not increase", "not at rest at its end")
    assert told(lambda m: m.points[0].positions.pop()) == "sizes"


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Drive]:
    robot = tmp_path / "arm.yaml"
    robot.write_text(PATIENT_ARM.text)
    guard = Process(
        "wm_guard",
        "edge_wm_ros.guard_node",
        {"robot": str(robot), "output": "joint_trajectory", **PATIENT},
    )
    peer = subprocess.Popen([sys.executable, str(PEER), *JOINTS], env=dict(os.environ))
    try:
        with Drive([guard], logs=tmp_path / "logs", respawn=False) as made:
            yield made
    finally:
        peer.terminate()
        peer.wait()


def test_the_arm_follows_and_comes_to_rest_when_the_guard_dies(drive: Drive):
    node, heard = drive.node, drive.heard
    arm: dict[str, list[float]] = {}
    answers: dict[str, int] = {}
    node.create_subscription(
        JointState, "/joint_states",
        lambda m: arm.update(position=list(m.position), velocity=list(m.velocity)), qos.newest(),
    )  # fmt: skip
    node.create_subscription(
        String, "/joint_trajectory_controller/told",
        lambda m: answers.update(json.loads(m.data)), qos.newest(),
    )  # fmt: skip
    beats = node.create_publisher(Header, names.HEARTBEAT, qos.newest())
    statuses = node.create_publisher(String, names.RUNTIME_STATUS, qos.newest())
    accepted: list[dict] = []
    node.create_subscription(
        String, names.ACCEPTANCE, lambda m: accepted.append(json.loads(m.data)), qos.newest(10)
    )
    outlet = node.create_publisher(
        JointTrajectory, names.TRAJECTORY, qos.stream(50 * MS, lifespan_ns=100 * MS)
    )
    end = threading.Event()

    def beat() -> None:
        while not end.wait(0.02):
            beats.publish(Header(frame_id="test"))
            statuses.publish(String(data='{"started_ns": 1}'))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        for number in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            request = ChangeState.Request(transition=Transition(id=number))
            answer = drive.call(ChangeState, "/wm_guard/change_state", request, 20.0)
            assert answer is not None, drive.fleet.log("wm_guard")
            assert answer.success, drive.fleet.log("wm_guard")

        def enabled(_: object) -> bool:
            answer = drive.call(SetBool, "/wm_guard/enable", SetBool.Request(data=True))
            return bool(answer and answer.success)

        assert drive.until(enabled, 10.0), drive.fleet.log("wm_guard")
        assert drive.until(lambda h: h.guard["epoch"] > 0, 5.0)

        assert drive.until(lambda _: outlet.get_subscription_count() > 0, 5.0)

        remote = RemoteGuard(PATIENT_ARM, lambda _: None)

        def send() -> float:
            """A sweep from where the arm is commanded to be; where it ends."""
            now_ns, sequence = time.time_ns(), len(accepted) + 1
            state = state_of(msgspec.convert(heard.guard, GuardReport), len(JOINTS))
            assert not isinstance(state, str)
            assert remote.hear(state, now_ns)
            command = remote.command_at(now_ns + 50 * MS)
            start = tuple(command.position.tolist())
            made = trajectory(
                PATIENT_ARM, command.at_ns, {0: bump(5.0, 3, 5, 5, 0.02)}, start=start,
                stamp_ns=now_ns,
            )  # fmt: skip
            made = replace(made, epoch=heard.guard["epoch"], sequence=sequence)
            outlet.publish(trajectory_message(made))
            assert drive.until(lambda _: len(accepted) == sequence, 5.0)
            return float(made.position[-1, 0])

        def sent_until(told: Callable[[float], bool]) -> bool:
            """Send sweeps until one does it: a guard that was held up brakes, and holds."""
            for _ in range(5):
                assert drive.until(lambda h: h.mode == "hold", 5.0)
                ends_at = send()
                if drive.until(lambda _, at=ends_at: told(at), 2.0):
                    return True
            return False

        arrives = sent_until(lambda ends_at: abs(arm["position"][0] - ends_at) < 2e-3)
        assert arrives, (arm, answers, accepted[-1], drive.fleet.log("wm_guard"))
        assert set(answers) == {"accepted"}, answers

        moves = sent_until(lambda _: abs(arm["velocity"][0]) > 0.3)
        assert moves, (arm, answers, accepted[-1], drive.fleet.log("wm_guard"))
        drive.fleet.kill("wm_guard")
        killed = time.monotonic()
        assert drive.until(lambda _: not any(arm["velocity"]), 2.0)
        # dead-man, braking from 2 rad/s by 10 rad/s^2, and what a busy machine adds
        assert time.monotonic() - killed < 0.2 + 0.2 + 0.4
        assert set(answers) == {"accepted"}, answers
    finally:
        end.set()
        thread.join()
