"""Tests that another vendor's DDS hears our trajectories, and that we hear its sensors."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import rclpy
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import trajectory_message
from edge_wm_ros.sensors import Sensors
from edge_wm_ros.spinning import make_executor, spin_once
from trajectory_msgs.msg import JointTrajectory

from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import Sample
from ros2.test_conversions import trajectory

ROVER = load_robot(find_robot("rover"))
# Nothing leaves this machine on its side either.
LOOPBACK = """<CycloneDDS><Domain id="any">
<General><Interfaces><NetworkInterface address="127.0.0.1" multicast="false"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General>
<Discovery><ParticipantIndex>auto</ParticipantIndex>
<MaxAutoParticipantIndex>100</MaxAutoParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery>
</Domain></CycloneDDS>"""
PEER = Path(__file__).resolve().parent / "cyclone_peer.py"

if importlib.util.find_spec("cyclonedds") is None:
    pytest.skip("cyclonedds (extra ros-peers) is not installed", allow_module_level=True)


def test_trajectories_go_out_and_an_imu_comes_in_over_the_wire():
    samples: list[Sample] = []
    rclpy.init()
    node = rclpy.create_node("wire")
    executor = make_executor()
    executor.add_node(node)
    sensors = Sensors(node, ROVER, ["imu"], samples.append, time.time_ns)
    outlet = node.create_publisher(
        JointTrajectory, names.TRAJECTORY, qos.stream(50_000_000, lifespan_ns=100_000_000)
    )
    end = threading.Event()

    def spin() -> None:
        while not end.is_set():
            spin_once(executor, node)

    thread = threading.Thread(target=spin)
    thread.start()
    sent = trajectory()
    peer = subprocess.Popen(
        [sys.executable, str(PEER), os.environ["ROS_DOMAIN_ID"], "6"],
        env=os.environ | {"CYCLONEDDS_URI": LOOPBACK},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 30
        while peer.poll() is None and time.monotonic() < until:
            outlet.publish(trajectory_message(sent))
            time.sleep(0.05)
        stdout, stderr = peer.communicate(timeout=5)
    finally:
        peer.kill()
        end.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    assert peer.returncode == 0, stderr
    heard = json.loads(stdout)
    assert heard["label"] == f"epoch={sent.epoch} sequence=118 brake=31"
    assert heard["joints"] == list(sent.axes)
    assert heard["positions"] == sent.position.tolist()
    assert heard["velocities"] == sent.velocity.tolist()
    first_ns = heard["times"][0][0] * 10**9 + heard["times"][0][1]
    assert first_ns == sent.start_ns - sent.stamp_ns
    assert len(samples) > 50
    assert {reason for _, reason in sensors.refused} <= {Reason.sample_missing}  # it is slower
    expected = np.array([0.125, -0.25, 0.5, 1.0, 2.0, 9.75], np.float32)
    assert all(sample.data.tolist() == expected.tolist() for sample in samples)
