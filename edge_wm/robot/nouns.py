"""What a robot is, once its file has been read and every check has passed.

Everything here is SI and final: a room that holds a `Robot` need not check it again. Lengths are
m, angles rad, times ns. Regions of a base's world have two numbers per point (x, y), regions of
an arm's have three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_wm.robot.kinematics import Kinematics, rotation
from edge_wm.types import Float64

StreamType = Literal["image", "joint_state", "imu", "range_scan", "odometry", "vector"]
AxisKind = Literal["position", "velocity", "effort", "twist"]


@dataclass(frozen=True, slots=True)
class Extrinsics:
    """Where a sensor sits: its frame's pose in `parent`."""

    parent: str
    xyz: tuple[float, float, float]  # m
    rpy: tuple[float, float, float]  # rad; R = Rz(yaw) Ry(pitch) Rx(roll), as URDF and ROS

    def rotation(self) -> Float64:
        """(3, 3): turns a vector of the sensor's frame into the parent's."""
        return rotation(self.rpy)


@dataclass(frozen=True, slots=True)
class Stream:
    """One sensor stream, or one that edge-wm derives from others."""

    name: str
    type: StreamType
    topic: str
    period_ns: int
    shape: tuple[int, ...]  # of `Sample.data`, see STREAM_TYPES
    dtype: str  # of `Sample.data`, a numpy name
    unit: str
    frame: str  # the sensor's own; for odometry the world frame that its pose is in
    extrinsics: Extrinsics | None
    max_age_ns: int
    max_skew_ns: int
    stamp: Literal["sensor", "arrival"]  # which time is believed: the sensor's or this process's
    joints: tuple[str, ...] = ()  # joint_state only: the columns of its data
    angle_min: float = 0.0  # range_scan only, like the next three
    angle_max: float = 0.0
    range_min: float = 0.0
    range_max: float = 0.0
    derived_from: tuple[str, ...] = ()  # odometry that edge-wm computes itself: from these
    noisy: bool = False  # no two readings are alike, so data that repeats is a frozen sensor

    def beam_angles(self) -> Float64:
        """(R,) rad, counter-clockwise in the scanner's frame; range_scan only."""
        return np.linspace(self.angle_min, self.angle_max, self.shape[0])


@dataclass(frozen=True, slots=True)
class Axis:
    """One number of every action and setpoint: a joint, or a component of the base's twist."""

    name: str  # the joint's name, or base.vx, base.wz
    kind: AxisKind
    unit: str  # of what is commanded: rad or m, rad/s or m/s, N m or N
    position_min: float  # -inf where there is no limit
    position_max: float  # +inf where there is no limit
    velocity_min: float  # <= 0
    velocity_max: float  # >= 0
    acceleration: float  # > 0, when speeding up
    braking: float  # > 0, when slowing down; stopping distances are computed with it
    jerk: float  # > 0
    effort_max: float  # N m or N; +inf where there is no limit
    rest_speed: float  # > 0: slower than this counts as at rest


@dataclass(frozen=True, slots=True)
class Base:
    """A differential-drive base: two driven wheels on one axle through the base frame's origin."""

    kind: Literal["differential"]
    frame: str
    wheel_radius: float
    track_width: float  # between the wheels' contact points
    left_wheel: str  # joint names
    right_wheel: str
    footprint_radius: float  # of the circle about the base frame's origin that holds the robot

    def wheel_speeds(self, vx: float, wz: float) -> tuple[float, float]:
        """(left, right) rad/s for a twist in m/s and rad/s."""
        turn = 0.5 * self.track_width * wz
        return (vx - turn) / self.wheel_radius, (vx + turn) / self.wheel_radius

    def twist(self, left: float, right: float) -> tuple[float, float]:
        """(vx, wz) m/s and rad/s for wheel speeds in rad/s; also turns angles into distances."""
        rim_left, rim_right = self.wheel_radius * left, self.wheel_radius * right
        return 0.5 * (rim_left + rim_right), (rim_right - rim_left) / self.track_width


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-aligned box in `frame`, its faces included."""

    frame: str
    lower: tuple[float, ...]  # (2,) for a base, (3,) for an arm
    upper: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball in `frame` (a disc for a base), its surface included."""

    frame: str
    center: tuple[float, ...]  # (2,) for a base, (3,) for an arm
    radius: float


Region = Box | Sphere


@dataclass(frozen=True, slots=True)
class Stopping:
    """How raw ranges stop a base, whatever the world model says."""

    stream: str
    margin: float  # m kept free beyond footprint and stopping distance
    slow_distance: float  # m beyond the stopping distance, where the speed is reduced


@dataclass(frozen=True, slots=True)
class Link:
    """A device that setpoints go to. Of a simulated one only `kind` is said."""

    kind: Literal["simulated", "serial"]
    port: str = ""  # a device file, unix:PATH, tcp:HOST:PORT, or an URL of pyserial
    baud: int = 1_000_000
    axes: tuple[str, ...] = ()  # names, in the board's order; at most 8
    current_max: float = 40.0  # A, of each motor
    temperature_max: float = 90.0  # degC, of each motor
    bus_voltage: tuple[float, float] = (6.0, 60.0)  # V, lowest and highest of the motors' supply


@dataclass(frozen=True, slots=True)
class Robot:
    """A robot file, read and checked. Made by `load_robot` and `parse_robot` only."""

    name: str
    streams: Mapping[str, Stream]  # in the file's order
    axes: tuple[Axis, ...]  # in the file's order: that of every action and setpoint
    base: Base | None
    kinematics: Kinematics | None
    workspace: tuple[Region, ...]  # the robot stays wholly inside one of these; empty: anywhere
    keep_out: tuple[Region, ...]  # the robot touches none of these
    stopping: Stopping | None
    plan_period_ns: int
    setpoint_period_ns: int
    actuation_delay_ns: int  # from sending a setpoint to its effect
    dead_man_ns: int  # without a new setpoint for this long, a device brakes by itself
    links: tuple[Link, ...]
    sha256: str = field(repr=False)  # hex, of the file's bytes
    text: str = field(repr=False)  # the file itself, for recordings

    @property
    def axis_names(self) -> tuple[str, ...]:
        return tuple(axis.name for axis in self.axes)

    @property
    def pose_stream(self) -> Stream | None:
        """The odometry stream, which says where the base is; None if there is none."""
        return next((s for s in self.streams.values() if s.type == "odometry"), None)

    def joint_stream(self, joint: str) -> tuple[Stream, int] | None:
        """The joint_state stream that measures `joint`, and its column; None if none does."""
        for stream in self.streams.values():
            if joint in stream.joints:
                return stream, stream.joints.index(joint)
        return None
