"""Tests the rover driven through ROS: real rclpy, a process for each node, on this machine only.

One fleet serves the tests of this file, in their order: bringing it up is what takes time.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from itertools import cycle
from pathlib import Path

import pytest
from edge_wm_ros.driving import Drive, Heard
from edge_wm_ros.processes import processes
from std_srvs.srv import SetBool, Trigger

from edge_wm.robot import find_robot, load_robot

ROVER = load_robot(find_robot("rover"))
SEED = 5
MS = 1_000_000
UP_WITHIN_S = 30.0  # here, beside other work; `make prove-ros` measures it
AT_REST = 0.02  # m/s
# A shared machine holds whole processes up for longer than the defaults allow.
SILENCE_MS = {"runtime": 1000, "bridge": 1000, "supervisor": 1500}
PATIENT = {
    "wm_guard": {f"{who}_silence_ms": ms for who, ms in SILENCE_MS.items()},
    "wm_bridge": {"guard_silence_ms": 1000, "telemetry_silence_ms": 1000},
}
# Wall-clock allowance of a shared machine for one message to come through.
SLACK_NS = 75 * MS
# How much later than commanded the simulated wheels are at rest (a servo of finite gain; measured
# without ROS: 16 to 24 ms).
WHEEL_LAG_NS = 30 * MS


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    logs = tmp_path_factory.mktemp("logs")
    with Drive(processes("rover", seed=SEED, extra=PATIENT), logs=logs) as made:
        assert made.until(lambda heard: heard.guard["epoch"] > 0, UP_WITHIN_S), tell(made)
        yield made


@pytest.fixture
def drive(fleet: Drive) -> Drive:
    """The fleet, enabled: whatever a test before this one left latched is reset."""
    assert fleet.until(lambda heard: heard.guard["now_ns"] and heard.bridge["now_ns"], 5.0)
    if fleet.heard.guard["fault"]:
        reset(fleet, fleet.heard.guard["fault"])
    if not (fleet.heard.guard["epoch"] > 0 and fleet.heard.bridge["armed"]):
        enable(fleet)
    return fleet


def tell(drive: Drive) -> str:
    """All logs, for a failure."""
    return "\n".join(f"== {name}\n{drive.fleet.log(name)}" for name in drive.fleet.listed)


def speed(heard: Heard) -> float:
    """m/s, of the hull's fastest point."""
    vx, wz = heard.truth["twist"]
    return abs(vx) + ROVER.base.footprint_radius * abs(wz)


def set_off(drive: Drive) -> None:
    """Until it moves: to somewhere ahead, or beside, or behind, whatever stands around it."""
    until = time.monotonic() + 30.0
    for x, y in cycle([(1.5, 0.0), (0.7, 1.2), (0.7, -1.2), (-1.5, 0.3)]):
        drive.send_place(x, y)
        if drive.until(lambda heard: speed(heard) > 0.15, 1.5):
            return
        if time.monotonic() > until:
            raise AssertionError(tell(drive))


def enable(drive: Drive) -> None:
    answer = drive.call(SetBool, "/wm_supervisor/enable", SetBool.Request(data=True))
    assert answer is not None
    assert answer.success
    up = drive.until(lambda heard: heard.guard["epoch"] > 0 and heard.bridge["armed"], UP_WITHIN_S)
    assert up, tell(drive)


def reset(drive: Drive, fault: str) -> None:
    answer = drive.call(Trigger, f"/wm_guard/reset/{fault}", Trigger.Request())
    assert answer is not None
    assert answer.success, answer.message


def test_it_drives_to_its_goal_without_touching_anything(drive: Drive):
    assert drive.drive_to_goal(40.0), tell(drive)
    assert drive.heard.truth["goal_distance"] < 0.3
    assert drive.heard.truth["contact_ns"] == 0
    assert drive.heard.truth["malformed"] == 0


def kill_and_time(drive: Drive, name: str, silence_ms: Mapping[str, int]) -> int:
    """Kill `name` while driving, and wait until the robot is at rest.

    Returns by how much (ns) that took longer than it may: the time until the silence is noticed,
    a setpoint tick, the actuation delay, braking and the wheels' lag. The guard brakes within the
    limits of jerk: first the acceleration goes (it may be the highest then), and from the highest
    speed, which is reached there, v / braking + braking / jerk are left. The device brakes at once.
    """
    set_off(drive)
    killed_ns = drive.node.get_clock().now().nanoseconds  # what was heard last is older
    drive.fleet.kill(name)
    drive.heard.fastest = [0.0, 0.0]  # it plays on until the silence is noticed
    at_rest = drive.until(lambda heard: heard.truth["now_ns"] - heard.moved_ns > 300 * MS, 8.0)
    assert at_rest, tell(drive)
    # Of guard and bridge the device itself misses the setpoints.
    by_device = name in ("wm_guard", "wm_bridge")
    silence_ns = silence_ms.get(name.removeprefix("wm_"), 0) * MS
    noticed_ns = ROVER.dead_man_ns if by_device else silence_ns
    braking_s = max(
        v / axis.braking + (0.0 if by_device else (axis.acceleration + axis.braking) / axis.jerk)
        for v, axis in zip(drive.heard.fastest, ROVER.axes, strict=True)
    )
    tick_ns = ROVER.setpoint_period_ns + ROVER.actuation_delay_ns
    bound_ns = noticed_ns + tick_ns + round(1e9 * braking_s) + WHEEL_LAG_NS
    return drive.heard.moved_ns - killed_ns - bound_ns


def stays_at_rest(drive: Drive, seconds: float) -> None:
    moved = drive.until(lambda heard: speed(heard) > AT_REST, seconds)
    assert not moved, tell(drive)


def names_the_dead(drive: Drive, line: str, text: str) -> None:
    told = drive.until(lambda heard: text in heard.diagnostics[line].message, 5.0)
    assert told, drive.heard.diagnostics


SILENT = "silent: it crashed, hangs or was stopped"


@pytest.mark.parametrize("time", [1, 2])
def test_the_runtime_is_killed(drive: Drive, time: int):
    assert kill_and_time(drive, "wm_runtime", SILENCE_MS) <= SLACK_NS
    names_the_dead(drive, "wm_supervisor: wm_runtime", SILENT)
    names_the_dead(drive, "wm_guard: mode", "The runtime process sent nothing for too long.")
    assert drive.until(lambda _: drive.fleet.restarts["wm_runtime"] == time, 5.0)
    stays_at_rest(drive, 1.0)
    answer = drive.call(SetBool, "/wm_guard/enable", SetBool.Request(data=True))
    assert answer.message == "guard: mode fault is latched (runtime_silent); reset it first"
    reset(drive, "runtime_silent")
    enable(drive)
    set_off(drive)


@pytest.mark.parametrize("time", [1, 2])
def test_the_guard_is_killed(drive: Drive, time: int):
    assert kill_and_time(drive, "wm_guard", SILENCE_MS) <= SLACK_NS
    names_the_dead(drive, "wm_supervisor: wm_guard", SILENT)
    names_the_dead(drive, "wm_bridge: link", "guard_silent")
    assert drive.until(lambda _: drive.fleet.restarts["wm_guard"] == time, 5.0)
    stays_at_rest(drive, 1.0)
    enable(drive)
    set_off(drive)


@pytest.mark.parametrize("time", [1, 2])
def test_the_bridge_is_killed(drive: Drive, time: int):
    assert kill_and_time(drive, "wm_bridge", SILENCE_MS) <= SLACK_NS
    names_the_dead(drive, "wm_supervisor: wm_bridge", SILENT)
    assert drive.until(lambda heard: heard.guard["fault"] == "bridge_silent", 5.0)
    assert drive.until(lambda _: drive.fleet.restarts["wm_bridge"] == time, 5.0)
    stays_at_rest(drive, 1.0)
    reset(drive, "bridge_silent")
    enable(drive)
    set_off(drive)


@pytest.mark.parametrize("time", [1, 2])
def test_the_supervisor_is_killed_and_its_successor_enables_nothing_unasked(
    drive: Drive, time: int
):
    assert kill_and_time(drive, "wm_supervisor", SILENCE_MS) <= SLACK_NS
    assert drive.until(lambda heard: heard.guard["fault"] == "supervisor_silent", 5.0)
    assert drive.until(lambda _: drive.fleet.restarts["wm_supervisor"] == time, 5.0)
    names_the_dead(
        drive, "wm_supervisor: phase",
        "bring-up: wm_guard was running before this supervisor, so the robot is not enabled "
        "unasked; call /wm_supervisor/enable when it is safe",
    )  # fmt: skip
    reset(drive, "supervisor_silent")
    stays_at_rest(drive, 1.0)
    enable(drive)
    set_off(drive)


def test_the_robot_itself_goes_away_and_nobody_resumes_when_it_is_back(drive: Drive):
    set_off(drive)
    drive.fleet.kill("wm_sim")
    last_ns = drive.heard.truth["now_ns"] + 2_000 * MS  # what it told may still be on its way
    # Where the whole machine stood still for a second, the silent bridge is noticed first.
    lost = {"input_lost", "bridge_silent"}
    assert drive.until(lambda heard: heard.guard["fault"] in lost, 5.0), tell(drive)
    assert drive.until(lambda heard: heard.bridge["latched"], 5.0), tell(drive)
    assert drive.heard.bridge["latched"] in ("device_silent", "guard_silent")
    names_the_dead(drive, "wm_guard: input scan", "stream_stale")
    names_the_dead(drive, "wm_runtime: input camera", "stream_stale")
    assert drive.until(lambda _: drive.fleet.restarts["wm_sim"] == 1, 5.0)
    assert drive.until(lambda heard: not heard.guard["unusable"], 20.0), tell(drive)
    assert drive.until(lambda heard: heard.truth["now_ns"] > last_ns, 20.0), tell(drive)
    stays_at_rest(drive, 1.0)
    reset(drive, drive.heard.guard["fault"])
    enable(drive)
    set_off(drive)


def test_an_emergency_stop_is_a_topic_and_latched(drive: Drive):
    from std_msgs.msg import Bool

    set_off(drive)
    publisher = drive.node.create_publisher(Bool, "/edge_wm/estop", 1)
    assert drive.until(lambda _: publisher.get_subscription_count() > 0, 5.0)
    publisher.publish(Bool(data=True))
    assert drive.until(lambda heard: heard.mode == "estop", 2.0)
    assert drive.until(lambda heard: speed(heard) < AT_REST, 2.0)
    publisher.publish(Bool(data=False))
    stays_at_rest(drive, 0.5)
    assert drive.heard.guard["fault"] == "estop_pressed"
    reset(drive, "estop_pressed")
    enable(drive)
    set_off(drive)


def test_nothing_leaves_this_machine(drive: Drive):
    """The shipped profile is in effect: no socket of any node is bound beyond loopback."""
    listed = subprocess.run(["ss", "-lnup"], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("ss (iproute2) is not installed")
    pids = {f"pid={drive.fleet.pid(name)}," for name in drive.fleet.listed}
    ours = [line for line in listed.stdout.splitlines() if any(pid in line for pid in pids)]
    assert len(ours) >= len(pids)
    assert [line for line in ours if not line.split()[3].startswith("127.0.0.1:")] == []


def test_it_stops_in_time_with_the_robot_at_rest_and_leaves_no_process(drive: Drive):
    set_off(drive)
    pids = [drive.fleet.pid(name) for name in drive.fleet.listed]
    began = time.monotonic()
    drive.fleet.stop()
    took = time.monotonic() - began
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert speed(drive.heard) < AT_REST
    assert took < 4.0  # beside other work; `make prove-ros` measures it
