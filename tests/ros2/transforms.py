"""Run where tf2_msgs is: wm_viz beside wheels that turn. Prints its transforms as JSON."""

from __future__ import annotations

import json
import time

import numpy as np
import rclpy
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import message_of
from edge_wm_ros.spinning import make_executor
from edge_wm_ros.viz_node import VizNode
from sensor_msgs.msg import Imu, JointState
from tf2_msgs.msg import TFMessage

from edge_wm.robot import find_robot, load_robot
from edge_wm.types import Sample

SPEED = 5.0  # rad/s, of both wheels


def main() -> None:
    rclpy.init(args=["--ros-args", "-p", "publish_odometry_tf:=true"])
    viz, watcher, executor = VizNode(), rclpy.create_node("watcher"), make_executor()
    for node in (viz, watcher):
        executor.add_node(node)
    moving: list[TFMessage] = []
    static: list[TFMessage] = []
    watcher.create_subscription(TFMessage, names.TF, moving.append, qos.newest(10))
    watcher.create_subscription(TFMessage, names.TF_STATIC, static.append, qos.latched())
    streams = load_robot(find_robot("rover")).streams
    wheels = watcher.create_publisher(JointState, streams["wheels"].topic, qos.sensor_offer(16))
    imu = watcher.create_publisher(Imu, streams["imu"].topic, qos.sensor_offer(64))
    began_ns, count = time.time_ns(), 0
    while len(moving) < 6 and time.time_ns() - began_ns < 10_000_000_000:
        now_ns, count = time.time_ns(), count + 1
        still = np.array([0.0, 0.0, 1e-4 * (count % 7), 0.0, 0.0, 9.81], np.float32)
        angle = SPEED * (now_ns - began_ns) * 1e-9
        turned = np.array([[angle, angle], [SPEED, SPEED]], np.float32)
        imu.publish(message_of(Sample("imu", now_ns, now_ns, count, still), streams["imu"]))
        wheels.publish(
            message_of(Sample("wheels", now_ns, now_ns, count, turned), streams["wheels"])
        )
        for _ in range(4):
            executor.spin_once(timeout_sec=0.002)
    first, last = (message.transforms[0] for message in (moving[0], moving[-1]))
    told = {
        "mounts": [t.child_frame_id for message in static for t in message.transforms],
        "frames": [last.header.frame_id, last.child_frame_id],
        "meters": last.transform.translation.x - first.transform.translation.x,
        "seconds": (last.header.stamp.sec - first.header.stamp.sec)
        + 1e-9 * (last.header.stamp.nanosec - first.header.stamp.nanosec),
    }
    executor.shutdown()
    for node in (viz, watcher):
        node.destroy_node()
    rclpy.try_shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
