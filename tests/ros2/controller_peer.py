"""Stands in for a stock joint_trajectory_controller and the arm under it; nothing of edge-wm.

python controller_peer.py JOINT...      until SIGTERM; says what it accepted and refused, and why

What it accepts is what ros2_controllers' joint_trajectory_controller documents and checks in
`validate_trajectory_msg`, with its strictest settings: all joints and no others, points in
strictly increasing time, as many positions and velocities as joints, no efforts, an end that is
not in the past, and at rest. It plays a trajectory as that controller does: from where the arm is
to the first point that is still ahead, then cubically from point to point, to the end, and then
holds; a new trajectory replaces the old one. It publishes the joints at 200 Hz.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from contextlib import suppress

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

PERIOD_S = 0.005
AT_REST = 1e-5  # rad/s, as the controller's own epsilon


def seconds(stamp) -> float:
    return stamp.sec + stamp.nanosec * 1e-9


def problem(message: JointTrajectory, joints: list[str], now_s: float) -> str | None:
    """Why the controller would refuse it."""
    if sorted(message.joint_names) != sorted(joints):
        return "joints"
    if not message.points:
        return "no points"
    if any(abs(v) > AT_REST for v in message.points[-1].velocities):
        return "not at rest at its end"
    start_s = seconds(message.header.stamp)
    if start_s and start_s + seconds(message.points[-1].time_from_start) < now_s:
        return "ends in the past"
    before = -1.0
    for point in message.points:
        at = seconds(point.time_from_start)
        if at <= before:
            return "times do not increase"
        before = at
        if len(point.positions) != len(joints) or len(point.velocities) != len(joints):
            return "sizes"
        if point.effort:
            return "efforts"
    return None


class Arm:
    """One trajectory being played."""

    def __init__(self, joints: list[str]) -> None:
        self.joints = joints
        self.points: list[tuple[float, list[float], list[float]]] = []
        zeros = [0.0] * len(joints)
        self.now = (time.time(), zeros, zeros)

    def take(self, message: JointTrajectory, now_s: float) -> None:
        start_s = seconds(message.header.stamp) or now_s
        order = [list(message.joint_names).index(joint) for joint in self.joints]
        points = [
            (
                start_s + seconds(p.time_from_start),
                [p.positions[i] for i in order],
                [p.velocities[i] for i in order],
            )
            for p in message.points
        ]
        self.step(now_s)
        self.points = [self.now, *(point for point in points if point[0] > now_s)]

    def step(self, now_s: float) -> None:
        while len(self.points) > 1 and self.points[1][0] <= now_s:
            self.points.pop(0)
        if not self.points:
            self.now = (now_s, *self.now[1:])
        elif len(self.points) == 1:
            zeros = [0.0] * len(self.joints)
            self.now = (now_s, self.points[0][1], zeros)
        else:
            (t0, p0, v0), (t1, p1, v1) = self.points[:2]
            self.now = (now_s, *between(now_s - t0, t1 - t0, p0, v0, p1, v1))


def between(t, length, p0, v0, p1, v1) -> tuple[list[float], list[float]]:
    """Cubic through positions and velocities at both ends."""
    positions, velocities = [], []
    for a, b, c, d in zip(p0, v0, p1, v1, strict=True):
        c2 = (3 * (c - a) - length * (2 * b + d)) / length**2
        c3 = (2 * (a - c) + length * (b + d)) / length**3
        positions.append(a + b * t + c2 * t**2 + c3 * t**3)
        velocities.append(b + 2 * c2 * t + 3 * c3 * t**2)
    return positions, velocities


def main() -> None:
    joints = sys.argv[1:]
    rclpy.init()
    node = rclpy.create_node("joint_trajectory_controller")
    arm, answers = Arm(joints), Counter()
    states = node.create_publisher(JointState, "/joint_states", 10)
    told = node.create_publisher(String, "/joint_trajectory_controller/told", 1)

    def take(message: JointTrajectory) -> None:
        reason = problem(message, joints, time.time())
        answers[reason or "accepted"] += 1
        if reason is None:
            arm.take(message, time.time())

    def tick() -> None:
        now_s = time.time()
        arm.step(now_s)
        message = JointState(name=joints, position=arm.now[1], velocity=arm.now[2])
        message.header.stamp.sec = int(now_s)
        message.header.stamp.nanosec = int(now_s % 1.0 * 1e9)
        states.publish(message)
        told.publish(String(data=json.dumps(answers)))

    node.create_subscription(JointTrajectory, "~/joint_trajectory", take, QoSProfile(depth=1))
    node.create_timer(PERIOD_S, tick)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with suppress(ExternalShutdownException):
        while rclpy.ok():
            executor.spin_once(timeout_sec=0.1)


if __name__ == "__main__":
    main()
