"""What a bag that anybody recorded says of a robot: the samples of its sensors, and its motion.

rosbag2 message ──► Sample or a Reason       nothing of edge-wm's own need be in the bag: the
odometry, joints ──► Track                   motion is what the robot's own sensors measured
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_wm.delay import AxisSpeeds
from edge_wm.errors import UsageError
from edge_wm.guarding.senses import Senses
from edge_wm.reasons import Reason
from edge_wm.recording.bag import BagMessage, read_bag
from edge_wm.recording.messages import message_type
from edge_wm.recording.samples import MESSAGES
from edge_wm.robot import Robot, Stream
from edge_wm.types import Array, Float64, Goal, Int64, JointGoal, Motion, PoseGoal, Sample

ODOMETRY = "nav_msgs/msg/Odometry"
CHANNELS = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


@dataclass(frozen=True, slots=True)
class Track:
    """The motion of the robot's axes over the whole bag, by its own sensors."""

    whole: Motion
    received_ns: Int64  # when each knot was known
    end: Goal

    @property
    def times_ns(self) -> Int64:
        return self.whole.times_ns

    def until(self, now_ns: int) -> Motion:
        """What is known at `now_ns`; the last knot's velocity holds on."""
        known = max(1, int(np.searchsorted(self.received_ns, now_ns, side="right")))
        whole = self.whole
        return Motion(
            whole.axes, whole.times_ns[:known], whole.position[:known], whole.velocity[:known]
        )


def measured_motion(bag: Path, robot: Robot) -> Track:
    """From the odometry (the robot's own, where the robot file derives it), or from the joints."""
    pose, speeds_of = robot.pose_stream, AxisSpeeds(robot)
    senses = Senses(robot, [])
    times: list[int] = []
    received: list[int] = []
    velocity: list[Float64] = []
    place: list[Float64] = []
    end: Goal | None = None
    for sample in bag_samples(bag, robot, {}, images=False):
        derived, _ = senses.push(sample)
        at = sample if derived is None else derived
        row = speeds_of.of(at)
        if row is None or (times and at.stamp_ns <= times[-1]):
            continue
        times.append(at.stamp_ns)
        received.append(sample.received_ns)
        velocity.append(row)
        if speeds_of.by_pose and pose is not None:
            end = PoseGoal(float(at.data[0]), float(at.data[1]), None, pose.frame)
        else:
            place.append(np.asarray(at.data[0][speeds_of.columns], np.float64))
            end = JointGoal(place[-1])
    if len(times) < 2 or end is None:
        wanted = ", ".join(robot.axis_names)
        raise UsageError(
            f"{bag}: must hold the measured motion of {wanted} of robot {robot.name}, and holds "
            "none that can be used; `edge-wm contract check` says why"
        )
    times_ns, speeds = np.array(times, np.int64), np.array(velocity, np.float64)
    positions = _integrated(times_ns, speeds) if speeds_of.by_pose else np.array(place)
    motion = Motion(robot.axis_names, times_ns, positions, speeds)
    return Track(motion, np.maximum.accumulate(np.array(received, np.int64)), end)


def _integrated(times_ns: Int64, velocity: Float64) -> Float64:
    """Distances traveled, by the trapezoidal rule."""
    seconds = np.diff(times_ns)[:, None] * 1e-9
    steps = 0.5 * (velocity[1:] + velocity[:-1]) * seconds
    return np.concatenate([np.zeros((1, velocity.shape[1])), np.cumsum(steps, axis=0)])


# ---- messages to samples ---------------------------------------------------------------------
def bag_samples(
    bag: Path, robot: Robot, drops: dict[str, Counter[str]], images: bool = True
) -> Iterator[Sample]:
    """The samples of the robot file's streams, in order of reception."""
    wanted = {
        s.topic: s
        for s in robot.streams.values()
        if not s.derived_from and (images or s.type != "image")
    }
    for number, message in enumerate(read_bag(bag)):
        stream = wanted.get(message.topic)
        if stream is None:
            continue
        sample = sample_of(message, stream, number)
        if isinstance(sample, Reason):
            drops.setdefault(stream.name, Counter())[sample.name] += 1
        else:
            yield sample


def sample_of(message: BagMessage, stream: Stream, sequence: int) -> Sample | Reason:
    """What a recorded message says, in the layout of its stream; or why it says nothing."""
    if message.kind != MESSAGES.get(stream.type, ODOMETRY):
        return Reason.sample_wrong_shape
    try:
        values = message_type(message.kind).decode(memoryview(message.data))
    except (ValueError, struct.error):
        return Reason.sample_wrong_shape
    if stream.type == "vector":
        stamp_ns, data = message.received_ns, values[2]
    else:
        stamp_ns = int(values[0]) * 1_000_000_000 + int(values[1])
        if stream.type != "joint_state" and values[2] != stream.frame:
            return Reason.sample_wrong_frame
        data = _data(values, stream)
    if data is None or data.shape != stream.shape:
        return Reason.sample_wrong_shape
    return Sample(stream.name, stamp_ns, message.received_ns, sequence, data)


def _data(values: list[object], stream: Stream) -> Array | None:
    row: list = list(values)  # type: ignore[type-arg]
    if stream.type == "image":
        height, width, encoding, step = row[3], row[4], row[5], row[7]
        channels, flat = CHANNELS.get(encoding), np.frombuffer(row[8], np.uint8)
        if channels is None or step < width * channels or len(flat) != height * step:
            return None
        pixels = flat.reshape(height, step)[:, : width * channels].reshape(height, width, channels)
        image = pixels[..., :3][..., ::-1] if encoding.startswith("bgr") else pixels[..., :3]
        return np.ascontiguousarray(image)
    if stream.type == "imu":
        return np.array([*row[16:19], *row[28:31]], np.float32)
    if stream.type == "range_scan":
        return np.asarray(row[10], np.float32)
    if stream.type == "joint_state":
        names, position, velocity = list(row[3]), row[4], row[5]
        if len(position) != len(names) or len(velocity) != len(names):
            return None
        if any(joint not in names for joint in stream.joints):
            return None
        columns = [names.index(joint) for joint in stream.joints]
        return np.array([[p[c] for c in columns] for p in (position, velocity)], np.float32)
    x, y, _, qx, qy, qz, qw = row[4:11]
    yaw = math.atan2(2 * (qw * qz + qx * qy), 1 - 2 * (qy * qy + qz * qz))
    twist = row[47:53]
    return np.array([x, y, yaw, twist[0], twist[1], twist[5]], np.float64)
