"""A program on another vendor's DDS, without anything of ROS: hears trajectories, sends an IMU.

python cyclone_peer.py DOMAIN SECONDS      prints the last trajectory that it heard, as JSON
"""

import json
import sys
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int32, sequence, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

PERIOD_S = 0.01


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Duration(IdlStruct, typename="builtin_interfaces::msg::dds_::Duration_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class Point(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectoryPoint_"):
    positions: sequence[float64]
    velocities: sequence[float64]
    accelerations: sequence[float64]
    effort: sequence[float64]
    time_from_start: Duration


@dataclass
class JointTrajectory(IdlStruct, typename="trajectory_msgs::msg::dds_::JointTrajectory_"):
    header: Header
    joint_names: sequence[str]
    points: sequence[Point]


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Imu(IdlStruct, typename="sensor_msgs::msg::dds_::Imu_"):
    header: Header
    orientation: Quaternion
    orientation_covariance: array[float64, 9]
    angular_velocity: Vector3
    angular_velocity_covariance: array[float64, 9]
    linear_acceleration: Vector3
    linear_acceleration_covariance: array[float64, 9]


def main(domain: int, seconds: float) -> None:
    participant = DomainParticipant(domain)
    reliable = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.History.KeepLast(10))
    trajectories = DataReader(
        participant, Topic(participant, "rt/wm_runtime/trajectory", JointTrajectory), qos=reliable
    )
    imu = DataWriter(participant, Topic(participant, "rt/imu", Imu), qos=reliable)
    last, zeros = None, [0.0] * 9
    end_s = time.time() + seconds
    while time.time() < end_s:
        for message in trajectories.take(10):
            last = message
        stamp = Time(*divmod(time.time_ns(), 10**9))
        imu.write(
            Imu(
                Header(stamp, "imu_link"), Quaternion(0.0, 0.0, 0.0, 1.0), zeros,
                Vector3(0.125, -0.25, 0.5), zeros, Vector3(1.0, 2.0, 9.75), zeros,
            )
        )  # fmt: skip
        time.sleep(PERIOD_S)
    if last is None:
        sys.exit("no trajectory was heard")
    told = {
        "label": last.header.frame_id,
        "joints": list(last.joint_names),
        "positions": [list(p.positions) for p in last.points],
        "velocities": [list(p.velocities) for p in last.points],
        "times": [[p.time_from_start.sec, p.time_from_start.nanosec] for p in last.points],
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]))
