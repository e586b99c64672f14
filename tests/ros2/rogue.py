"""Messages that nobody should send, made from real ones: for every topic that a node listens to.

A rogue captures a real message and changes it: NaN and infinity in its numbers, arrays that are
too short, too long or huge, stamps of yesterday and of tomorrow, other frames, other texts, and
no change at all (a duplicate). Which change comes when follows from a seed.
"""

from __future__ import annotations

import copy
import math
import random
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
from edge_wm_ros import names, qos
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import Image, Imu, JointState, LaserScan
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

TOPICS: dict[str, type] = {
    "/camera/image_raw": Image,
    "/joint_states": JointState,
    "/imu": Imu,
    "/scan": LaserScan,
    names.DEVICE_JOINTS: JointState,
    names.GOAL: PoseStamped,
    names.TRAJECTORY: JointTrajectory,
    names.SETPOINT: JointTrajectory,
    names.DEVICE_SETPOINT: JointTrajectory,
    names.RUNTIME_STATUS: String,
    names.GUARD_STATE: String,
    names.BRIDGE_STATE: String,
}
HUGE = 200_000
BAD_NUMBERS = (math.nan, math.inf, -math.inf, 1e300, -1e300, 1e-320)
BAD_TEXTS = ("", "[", "{}", "null", "\x00", "[" * 5000, '{"now_ns": 1e999}', "x" * HUGE)


class Rogue:
    """Listens for a real message of each topic, then sends what is made of it."""

    def __init__(self, node: Node, seed: int) -> None:
        self._random = random.Random(seed)
        self._real: dict[str, Any] = {}
        self._outlets = {}
        for topic, kind in TOPICS.items():
            node.create_subscription(kind, topic, self._keeper(topic), qos.sensor(1))
            period_ns = 10_000_000
            stream = kind is JointTrajectory or topic == names.GUARD_STATE
            profile = qos.stream(period_ns) if stream else qos.newest(10)
            self._outlets[topic] = node.create_publisher(kind, topic, profile)

    @property
    def missing(self) -> list[str]:
        """Topics of which no real message was seen yet."""
        return [topic for topic in TOPICS if topic not in self._real]

    def send(self, topic: str) -> None:
        message = copy.deepcopy(self._real[topic])
        for change in self._random.sample(self._changes(message), 1):
            change(message)
        self._outlets[topic].publish(message)

    def _keeper(self, topic: str) -> Callable[[Any], None]:
        def keep(message: Any) -> None:
            self._real.setdefault(topic, message)

        return keep

    def _changes(self, message: Any) -> list[Callable[[Any], None]]:
        if isinstance(message, String):
            return [self._text, self._digit, lambda _: None]
        changes = [lambda _: None, self._past, self._future, self._frame]
        per_kind: dict[type, list[Callable[[Any], None]]] = {
            Image: [self._image_size, self._image_data, self._image_huge],
            JointState: [self._joint_numbers, self._joint_sizes, self._joint_names],
            Imu: [self._imu_numbers],
            LaserScan: [self._scan_numbers, self._scan_sizes, self._scan_angles],
            PoseStamped: [self._pose_numbers],
            JointTrajectory: [
                self._point_numbers, self._point_sizes, self._points_none, self._points_many,
                self._other_joints, self._other_epoch,
            ],
        }  # fmt: skip
        return changes + per_kind[type(message)]

    def _number(self) -> float:
        return self._random.choice(BAD_NUMBERS)

    # ---- any message with a header --------------------------------------------------------------
    def _past(self, message: Any) -> None:
        message.header.stamp.sec = self._random.choice([0, -(2**31), message.header.stamp.sec - 60])

    def _future(self, message: Any) -> None:
        message.header.stamp.sec = self._random.choice([2**31 - 1, message.header.stamp.sec + 3600])

    def _frame(self, message: Any) -> None:
        message.header.frame_id = self._random.choice(["", "map", "\n", "f" * 10_000])

    # ---- texts ----------------------------------------------------------------------------------
    def _text(self, message: String) -> None:
        message.data = self._random.choice(BAD_TEXTS)

    def _digit(self, message: String) -> None:
        digits = [i for i, c in enumerate(message.data) if c.isdigit()]
        place = self._random.choice(digits or [0])
        message.data = message.data[:place] + "9" + message.data[place + 1 :]

    # ---- sensors --------------------------------------------------------------------------------
    def _image_size(self, message: Image) -> None:
        message.height, message.width = self._random.choice([(0, 0), (1, 2**31), (65, 64)])

    def _image_data(self, message: Image) -> None:
        message.data = array("B", bytes(self._random.randrange(100)))

    def _image_huge(self, message: Image) -> None:
        message.height, message.width, message.step = 1000, 1000, 3000
        message.data = array("B", bytes(3_000_000))

    def _joint_numbers(self, message: JointState) -> None:
        message.position = [self._number()] * len(message.name)

    def _joint_sizes(self, message: JointState) -> None:
        message.velocity = [0.0] * self._random.choice([0, 1, HUGE])

    def _joint_names(self, message: JointState) -> None:
        message.name = ["somebody_else"] * len(message.name)

    def _imu_numbers(self, message: Imu) -> None:
        message.angular_velocity.z = self._number()

    def _scan_numbers(self, message: LaserScan) -> None:
        values = np.full(len(message.ranges), np.float32(self._random.choice([np.nan, -1.0])))
        message.ranges = array("f", values.tobytes())

    def _scan_sizes(self, message: LaserScan) -> None:
        message.ranges = array("f", [1.0]) * self._random.choice([0, 119, HUGE])

    def _scan_angles(self, message: LaserScan) -> None:
        message.angle_max = self._random.choice([math.nan, 0.0, 1e30])

    def _pose_numbers(self, message: PoseStamped) -> None:
        message.pose.position.x = self._number()

    # ---- trajectories and setpoints -----------------------------------------------------------
    def _point_numbers(self, message: JointTrajectory) -> None:
        point = self._random.choice(message.points)
        values = self._random.choice(["velocities", "positions", "accelerations"])
        setattr(point, values, [self._number()] * len(message.joint_names))
        self._next(message)

    def _point_sizes(self, message: JointTrajectory) -> None:
        point = self._random.choice(message.points)
        point.velocities = [0.0] * self._random.choice([0, 1, 3, HUGE])

    def _points_none(self, message: JointTrajectory) -> None:
        message.points = message.points[: self._random.choice([0, 1, 2])]

    def _points_many(self, message: JointTrajectory) -> None:
        message.points = list(message.points[:2]) * 6_000

    def _other_joints(self, message: JointTrajectory) -> None:
        message.joint_names = self._random.choice([[], ["a", "b"], ["x"] * 100])

    def _other_epoch(self, message: JointTrajectory) -> None:
        message.header.frame_id = self._random.choice(
            ["epoch=1 sequence=1 brake=1", "epoch=1 sequence=1", "epoch=99999999999999999999 x"]
        )

    def _next(self, message: JointTrajectory) -> None:
        """In order, as if it were the next one: only its numbers are wrong."""
        label = message.header.frame_id
        message.header.frame_id = label.replace("sequence=", "sequence=9", 1)
