"""A camera of 640 x 480 at 30 Hz, an IMU at 200 Hz and joints at 100 Hz, from another process.

As a program it is the publisher: `python delivery.py SECONDS`; it prints what it sent, as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from edge_wm_ros import qos
from edge_wm_ros.launching import environment
from edge_wm_ros.sensors import Sensors
from edge_wm_ros.spinning import make_executor, spin_once
from sensor_msgs.msg import Image, Imu, JointState

from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, parse_robot
from edge_wm.types import Sample

RATES_HZ = {"camera": 30, "imu": 200, "wheels": 100}


def robot():
    """The rover with a camera that is worth the name."""
    text = find_robot("rover").read_text()
    camera = "rate_hz: 20\n    shape: [64, 64, 3]"
    assert camera in text
    vga = "rate_hz: 30\n    shape: [480, 640, 3]"
    return parse_robot(text.replace(camera, vga), "rover with VGA camera")


@dataclass(frozen=True)
class Delivery:
    """What came of what was sent, by stream."""

    sent: dict[str, int]
    received: dict[str, int]
    counted_missing: dict[str, int]  # that the subscriber itself knows of
    age_ms: dict[str, list[float]]  # stamp to callback

    def share(self, stream: str) -> float:
        return self.received[stream] / self.sent[stream]

    def unnoticed(self, stream: str) -> int:
        """Lost between the first and the last that arrived, and not counted."""
        return self.sent[stream] - self.received[stream] - self.counted_missing[stream]


def deliver(seconds: float) -> Delivery:
    """Subscribe as the runtime does, in this process, to a publisher in another."""
    vga = robot()
    ages: dict[str, list[float]] = {name: [] for name in RATES_HZ}

    def push(sample: Sample) -> None:
        ages[sample.stream].append((sample.received_ns - sample.stamp_ns) / 1e6)

    rclpy.init()
    node = rclpy.create_node("delivery")
    executor = make_executor()
    executor.add_node(node)
    sensors = Sensors(node, vga, RATES_HZ, push, time.time_ns)
    end = threading.Event()

    def spin() -> None:
        while not end.is_set():
            spin_once(executor, node)

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        done = subprocess.run(
            [sys.executable, str(Path(__file__).resolve()), str(seconds)],
            env=environment(), capture_output=True, text=True, check=True, timeout=seconds + 60,
        )  # fmt: skip
        time.sleep(0.3)
    finally:
        end.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    missing = {name: sensors.refused[name, Reason.sample_missing] for name in RATES_HZ}
    return Delivery(json.loads(done.stdout), dict(sensors.received), missing, ages)


def main(seconds: float) -> None:
    vga = robot()
    rclpy.init()
    node = rclpy.create_node("camera_and_co")
    image = Image(height=480, width=640, encoding="rgb8", step=1920)
    image.header.frame_id = vga.streams["camera"].frame
    image.data = array("B", np.random.default_rng(0).integers(0, 256, 921_600, np.uint8).tobytes())
    imu, joints = Imu(), JointState(name=list(vga.streams["wheels"].joints))
    imu.header.frame_id = vga.streams["imu"].frame
    joints.position, joints.velocity = [0.0, 0.0], [0.0, 0.0]
    messages: dict[str, Any] = {"camera": image, "imu": imu, "wheels": joints}
    outlets = {
        name: node.create_publisher(type(message), vga.streams[name].topic, qos.sensor_offer(16))
        for name, message in messages.items()
    }
    until = time.monotonic() + 10
    while any(outlet.get_subscription_count() == 0 for outlet in outlets.values()):
        time.sleep(0.01)
        if time.monotonic() > until:
            sys.exit("nobody listens")
    sent = dict.fromkeys(RATES_HZ, 0)
    start_ns = time.time_ns()
    due_ns = dict.fromkeys(RATES_HZ, start_ns)
    while time.time_ns() - start_ns < seconds * 1e9:
        name = min(due_ns, key=lambda n: due_ns[n])
        time.sleep(max(0.0, (due_ns[name] - time.time_ns()) * 1e-9))
        message = messages[name]
        # A sensor measures when it is due, whatever holds its driver up.
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(due_ns[name], 10**9)
        outlets[name].publish(message)
        sent[name] += 1
        due_ns[name] += 1_000_000_000 // RATES_HZ[name]
    time.sleep(0.5)
    print(json.dumps(sent))
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main(float(sys.argv[1]))
