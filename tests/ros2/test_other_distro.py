"""Tests that processes of two ROS 2 distros (this and .venv-jazzy) exchange trajectories."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import rclpy
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import trajectory_message, trajectory_of
from edge_wm_ros.spinning import make_executor, spin_once
from trajectory_msgs.msg import JointTrajectory

from edge_wm.types import Trajectory
from ros2.test_conversions import trajectory

HERE = Path(__file__).resolve().parent
OTHER = HERE.parents[1] / ".venv-jazzy" / "bin" / "python"
ECHO = "/echo/trajectory"

if not OTHER.is_file():
    pytest.skip("no .venv-jazzy (scripts/setup.sh jazzy)", allow_module_level=True)


def environment() -> dict[str, str]:
    """What a child of another environment may inherit: not where this one's libraries are."""
    ours = {"LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE", "AMENT_PREFIX_PATH", "ROS_DISTRO"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PYTHONPATH": "", "AMENT_PREFIX_PATH": str(OTHER.parents[1])}


def test_trajectories_there_and_back():
    back: list[Trajectory] = []

    def take(message: JointTrajectory) -> None:
        heard = trajectory_of(message)
        assert not isinstance(heard, str), heard
        back.append(heard)

    rclpy.init()
    node = rclpy.create_node("this_distro")
    executor = make_executor()
    executor.add_node(node)
    outlet = node.create_publisher(
        JointTrajectory, names.TRAJECTORY, qos.stream(50_000_000, lifespan_ns=100_000_000)
    )
    node.create_subscription(JointTrajectory, ECHO, take, qos.newest())
    end = threading.Event()

    def spin() -> None:
        while not end.is_set():
            spin_once(executor, node)

    thread = threading.Thread(target=spin)
    thread.start()
    sent = trajectory()
    peer = subprocess.Popen(
        [str(OTHER), str(HERE / "echo_peer.py"), ECHO, "20"],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 20
        while len(back) < 5 and peer.poll() is None and time.monotonic() < until:
            outlet.publish(trajectory_message(sent))
            time.sleep(0.05)
    finally:
        peer.kill()
        stdout, stderr = peer.communicate(timeout=5)
        end.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    assert "ros-jazzy-rclpy" in stdout.split(), stderr
    assert len(back) >= 5, stderr
    expected = replace(sent, sequence=sent.sequence + 1)
    for name in Trajectory.__dataclass_fields__:
        ours, theirs = getattr(expected, name), getattr(back[-1], name)
        assert (
            (ours == theirs) if not hasattr(ours, "tolist") else (ours.tolist() == theirs.tolist())
        ), name
