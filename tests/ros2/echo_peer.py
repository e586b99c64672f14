"""Another distro's process: hears trajectories and sends each back under the next sequence number.

python echo_peer.py OUT SECONDS      echoes on the topic OUT; prints its distro first
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from importlib import metadata

import rclpy
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import trajectory_message, trajectory_of
from edge_wm_ros.spinning import make_executor, spin_once
from trajectory_msgs.msg import JointTrajectory


def main() -> None:
    rclpy.init()
    node = rclpy.create_node("echo_peer")
    outlet = node.create_publisher(JointTrajectory, sys.argv[1], qos.newest())

    def echo(message: JointTrajectory) -> None:
        heard = trajectory_of(message)
        assert not isinstance(heard, str), heard
        outlet.publish(trajectory_message(replace(heard, sequence=heard.sequence + 1)))

    profile = qos.stream(50_000_000, lifespan_ns=100_000_000)
    node.create_subscription(JointTrajectory, names.TRAJECTORY, echo, profile)
    executor = make_executor()
    executor.add_node(node)
    print(*(d.name for d in metadata.distributions() if d.name.endswith("-rclpy")), flush=True)
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        spin_once(executor, node)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()


main()
