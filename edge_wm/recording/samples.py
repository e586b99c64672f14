"""Samples as standard ROS 2 sensor messages, exactly: what a tool shows is what replay reads.

A message on a stream's topic carries the whole sample: the data in the message, `stamp_ns` as
MCAP's publish time (and in the header), `received_ns` as its log time, `sequence` as its
sequence. Where that would lose a bit (another shape or dtype than the robot file says, NaN in
joint angles, a stamp before the epoch, odometry's yaw, which ROS turns into a quaternion) the
sample is written as our own `Sample` message instead.

Invariant: `decode(encode(sample)) == sample` bit for bit, or `encode` returns None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edge_wm.recording.messages import message_type
from edge_wm.types import Array, Sample

_NO_COVARIANCE = (0.0,) * 9
_NO_ORIENTATION = (0.0, 0.0, 0.0, 1.0, -1.0, *(0.0,) * 8)  # covariance[0] = -1: not measured


class Extrinsics(Protocol):
    """Where a sensor sits."""

    @property
    def parent(self) -> str: ...
    @property
    def xyz(self) -> Sequence[float]: ...
    @property
    def rpy(self) -> Sequence[float]: ...


class Stream(Protocol):
    """What a recording needs to know of a stream; the robot file's streams fit."""

    @property
    def type(self) -> str: ...
    @property
    def topic(self) -> str: ...
    @property
    def period_ns(self) -> int: ...
    @property
    def frame(self) -> str: ...
    @property
    def joints(self) -> Sequence[str]: ...
    @property
    def angle_min(self) -> float: ...
    @property
    def angle_max(self) -> float: ...
    @property
    def range_min(self) -> float: ...
    @property
    def range_max(self) -> float: ...
    @property
    def extrinsics(self) -> Extrinsics | None: ...


# stream type -> the message type that carries it exactly
MESSAGES: Mapping[str, str] = {
    "image": "sensor_msgs/msg/Image",
    "joint_state": "sensor_msgs/msg/JointState",
    "imu": "sensor_msgs/msg/Imu",
    "range_scan": "sensor_msgs/msg/LaserScan",
    "vector": "std_msgs/msg/Float32MultiArray",
}


def stamp(time_ns: int) -> tuple[int, int]:
    """(sec, nanosec) of builtin_interfaces/Time."""
    return divmod(time_ns, 1_000_000_000)


def encode(stream: Stream, sample: Sample) -> bytes | None:
    """The standard message, or None where it would not carry the sample exactly."""
    times_fit = 0 <= sample.stamp_ns < 2**31 * 1_000_000_000 and 0 <= sample.received_ns < 2**63
    if not times_fit or not 0 <= sample.sequence < 2**32:
        return None
    data = sample.data
    head = (*stamp(sample.stamp_ns), stream.frame)
    layout = (data.dtype.str, data.ndim)
    finite = True
    if stream.type == "image" and layout == ("|u1", 3) and data.shape[2] == 3:
        height, width, _ = data.shape
        values: Sequence[Any] = (*head, height, width, "rgb8", 0, 3 * width, data.tobytes())
    elif stream.type == "range_scan" and layout == ("<f4", 1):
        increment = (stream.angle_max - stream.angle_min) / max(len(data) - 1, 1)
        angles = (stream.angle_min, stream.angle_max, increment)
        times = (0.0, stream.period_ns * 1e-9)
        values = (*head, *angles, *times, stream.range_min, stream.range_max, data, ())
    elif stream.type == "vector" and layout == ("<f4", 1):
        values = ([("", len(data), len(data))], 0, data)
    elif stream.type == "imu" and layout == ("<f4", 1) and data.size == 6:
        x, y, z, *push = data.tolist()
        finite = math.isfinite(x + y + z + sum(push))
        values = (*head, *_NO_ORIENTATION, x, y, z, *_NO_COVARIANCE, *push, *_NO_COVARIANCE)
    elif stream.type == "joint_state" and layout == ("<f4", 2):
        if data.shape != (2, len(stream.joints)):
            return None
        finite = math.isfinite(sum(data.ravel().tolist()))
        values = (*head, stream.joints, data[0], data[1], ())
    else:
        return None
    if not finite:  # a NaN may come back from float64 as another NaN
        return None
    return message_type(MESSAGES[stream.type]).encode(*values)


def decode(
    stream: str, message: str, data: memoryview, stamp_ns: int, received_ns: int, sequence: int
) -> Sample:
    """The sample that `encode` made a message of type `message` from."""
    values = message_type(message).decode(data)
    array: Array
    if message == "sensor_msgs/msg/Image":
        array = np.frombuffer(values[8], np.uint8).reshape(values[3], values[4], 3).copy()
    elif message == "sensor_msgs/msg/LaserScan":
        array = values[10]
    elif message == "std_msgs/msg/Float32MultiArray":
        array = values[2]
    elif message == "sensor_msgs/msg/Imu":
        array = np.array([*values[16:19], *values[28:31]], np.float32)
    else:
        array = np.stack([values[4], values[5]]).astype(np.float32)
    return Sample(stream, stamp_ns, received_ns, sequence, array)
