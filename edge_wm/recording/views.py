"""What a recording shows besides the samples: standard ROS 2 messages, for people only.

Replay never reads these. Every topic says whether its numbers are commanded, predicted or true.

    /edge_wm/commanded/twist        TwistStamped      each setpoint of a base
    /edge_wm/commanded/joints       JointState        each setpoint of joints
    /edge_wm/commanded/trajectory   JointTrajectory   accepted, a knot for every 100 ms
    /edge_wm/commanded/path         Path              where it leads a base, from the last odometry
    /edge_wm/predicted/path         Path              the poses that the model imagined
    /edge_wm/predicted/image        Image             decoded futures, side by side
    /edge_wm/goal                   PoseStamped       each new goal
    /edge_wm/true/pose              PoseStamped       of a simulation
    /edge_wm/true/map               OccupancyGrid     of a simulation
    <topic of an odometry stream>   Odometry
    /tf, /tf_static                 odometry frame -> base (20 Hz), and the sensors' extrinsics

A belief tensor named `pose` with three numbers is x, y, yaw in the odometry frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from edge_wm.recording.events import Event, PlanBegin, PlanEnd, Prediction, Step, Truth, World
from edge_wm.recording.messages import message_type
from edge_wm.recording.samples import Stream, stamp
from edge_wm.types import Array, Bool, Float64, Goal, PoseGoal, Sample, Trajectory

KNOT_EVERY_NS = 100_000_000
TRANSFORM_EVERY_NS = 50_000_000
CELL = 0.05  # m, of the map
_NO_COVARIANCE = (0.0,) * 36

View = tuple[str, str, int, bytes]  # topic, message type, time (ns), message


class Base(Protocol):
    @property
    def frame(self) -> str: ...


class Robot(Protocol):
    """What a recording needs to know of the robot; the robot file's robot fits."""

    @property
    def streams(self) -> Mapping[str, Stream]: ...
    @property
    def base(self) -> Base | None: ...


class Views:
    """Turns events into views; remembers the last odometry and goal, and no more."""

    def __init__(self, robot: Robot) -> None:
        self._streams = robot.streams
        self._base_frame = robot.base.frame if robot.base else "base_link"
        frames = [s.frame for s in robot.streams.values() if s.type == "odometry"]
        self._odometry_frame = frames[0] if frames else "odom"
        self._pose: tuple[float, float, float] | None = None
        self._goal: Goal | None = None
        self._transform_due_ns = 0
        self._started = False

    def _mounts(self, now_ns: int) -> View:
        """The static transforms, to be shown once; stamped with time 0: valid for ever."""
        mounts = [
            ((0, 0, s.extrinsics.parent), s.frame, s.extrinsics.xyz, s.extrinsics.rpy)
            for s in self._streams.values()
            if s.extrinsics is not None
        ]
        transforms = [(*head, child, *xyz, *_quaternion(*rpy)) for head, child, xyz, rpy in mounts]
        return _view("/tf_static", "tf2_msgs/msg/TFMessage", now_ns, transforms)

    def of(self, event: Event, now_ns: int) -> Iterator[View]:
        """What to show of an event that was recorded at `now_ns`."""
        if not self._started:
            self._started = True
            yield self._mounts(now_ns)
        if isinstance(event, Sample):
            yield from self._sample(event)
        elif isinstance(event, Step):
            yield from self._step(event)
        elif isinstance(event, PlanBegin):
            yield from self._plan_begin(event)
        elif isinstance(event, PlanEnd):
            if event.acceptance and event.acceptance.accepted and event.trajectory:
                yield from self._trajectory(event.now_ns, event.trajectory)
        elif isinstance(event, Prediction):
            yield from self._prediction(event)
        elif isinstance(event, Truth):
            head = (*stamp(event.now_ns), "world")
            pose = _planar(event.x, event.y, event.yaw)
            kind = "geometry_msgs/msg/PoseStamped"
            yield _view("/edge_wm/true/pose", kind, event.now_ns, *head, *pose)
        elif isinstance(event, World):
            yield from self._world(event)

    def _sample(self, sample: Sample) -> Iterator[View]:
        stream = self._streams.get(sample.stream)
        if stream is None or stream.type != "odometry" or sample.data.shape != (6,):
            return
        x, y, yaw, vx, vy, wz = sample.data.tolist()
        if not math.isfinite(x + y + yaw):
            return
        self._pose = (x, y, yaw)
        head = (*stamp(sample.stamp_ns), stream.frame, self._base_frame)
        pose, twist = _planar(x, y, yaw), (vx, vy, 0.0, 0.0, 0.0, wz)
        values = (*head, *pose, *_NO_COVARIANCE, *twist, *_NO_COVARIANCE)
        yield _view(stream.topic, "nav_msgs/msg/Odometry", sample.received_ns, *values)
        if sample.stamp_ns >= self._transform_due_ns:
            self._transform_due_ns = sample.stamp_ns + TRANSFORM_EVERY_NS
            yield _view("/tf", "tf2_msgs/msg/TFMessage", sample.received_ns, [(*head, *pose)])

    def _step(self, step: Step) -> Iterator[View]:
        setpoint = step.verdict.setpoint
        head = (*stamp(setpoint.apply_at_ns), self._base_frame)
        velocity = dict(zip(setpoint.axes, setpoint.velocity[0].tolist(), strict=True))
        twist = [velocity.get(f"base.{axis}", 0.0) for axis in ("vx", "vy", "wz")]
        if any(axis.startswith("base.") for axis in setpoint.axes):
            kind = "geometry_msgs/msg/TwistStamped"
            values = (*head, *twist[:2], 0.0, 0.0, 0.0, twist[2])
            yield _view("/edge_wm/commanded/twist", kind, step.now_ns, *values)
        else:
            kind = "sensor_msgs/msg/JointState"
            effort = () if setpoint.effort is None else setpoint.effort[0]
            values = (*head, setpoint.axes, setpoint.position[0], setpoint.velocity[0], effort)
            yield _view("/edge_wm/commanded/joints", kind, step.now_ns, *values)

    def _plan_begin(self, event: PlanBegin) -> Iterator[View]:
        goal = event.goal
        if isinstance(goal, PoseGoal) and goal != self._goal:
            head = (*stamp(event.now_ns), goal.frame)
            pose = _planar(goal.x, goal.y, goal.yaw or 0.0)
            yield _view(
                "/edge_wm/goal", "geometry_msgs/msg/PoseStamped", event.now_ns, *head, *pose
            )
        self._goal = goal

    def _trajectory(self, now_ns: int, trajectory: Trajectory) -> Iterator[View]:
        every = max(KNOT_EVERY_NS // trajectory.period_ns, 1)
        last = len(trajectory.position) - 1
        knots = [*range(0, last, every), last]
        efforts = trajectory.effort
        points = [
            (
                trajectory.position[i],
                trajectory.velocity[i],
                trajectory.acceleration[i],
                () if efforts is None else efforts[i],
                *stamp(i * trajectory.period_ns),
            )
            for i in knots
        ]
        head = (*stamp(trajectory.start_ns), "")
        kind = "trajectory_msgs/msg/JointTrajectory"
        topic = "/edge_wm/commanded/trajectory"
        yield _view(topic, kind, now_ns, *head, trajectory.axes, points)
        poses = driven_path(trajectory, self._pose) if self._pose else None
        if poses is not None:
            times_ns = [trajectory.start_ns + i * trajectory.period_ns for i in knots]
            yield self._path("/edge_wm/commanded/path", now_ns, times_ns, poses[knots])

    def _prediction(self, event: Prediction) -> Iterator[View]:
        now_ns = int(event.times_ns[0])
        poses = event.beliefs.get("pose")
        if poses is not None and poses.shape == (len(event.times_ns), 3):
            yield self._path("/edge_wm/predicted/path", now_ns, event.times_ns.tolist(), poses)
        if len(event.images):
            strip = np.concatenate(list(event.images), axis=1)
            height, width, _ = strip.shape
            head = (*stamp(now_ns), "")
            values = (*head, height, width, "rgb8", 0, 3 * width, strip.tobytes())
            yield _view("/edge_wm/predicted/image", "sensor_msgs/msg/Image", now_ns, *values)

    def _path(self, topic: str, now_ns: int, times_ns: Sequence[int], poses: Array) -> View:
        frame = self._odometry_frame
        rows = zip(times_ns, poses.tolist(), strict=True)
        stamped = [(*stamp(time_ns), frame, *_planar(*pose)) for time_ns, pose in rows]
        return _view(topic, "nav_msgs/msg/Path", now_ns, *stamp(now_ns), frame, stamped)

    def _world(self, world: World) -> Iterator[View]:
        head = (*stamp(world.now_ns), "world")
        x, y, yaw = world.odometry_origin
        origin = [(*head, self._odometry_frame, *_planar(x, y, yaw))]
        yield _view("/tf_static", "tf2_msgs/msg/TFMessage", world.now_ns, origin)
        (left, bottom), occupied = occupancy(world)
        rows, columns = occupied.shape
        place = _planar(left, bottom, 0.0)
        info = (*stamp(world.now_ns), CELL, columns, rows, *place)
        cells = 100 * occupied.astype(np.int8).ravel()
        yield _view(
            "/edge_wm/true/map", "nav_msgs/msg/OccupancyGrid", world.now_ns, *head, *info, cells
        )


def driven_path(trajectory: Trajectory, start: tuple[float, float, float]) -> Float64 | None:
    """(N, 3) x, y, yaw: where a base at `start` is at each knot; None if it is no base.

    Exact for knots between which speed and turn rate keep their ratio (an arc).
    """
    axes = trajectory.axes
    if "base.vx" not in axes:
        return None
    along = trajectory.position[:, axes.index("base.vx")]
    turned = np.zeros_like(along)
    if "base.wz" in axes:
        turned = trajectory.position[:, axes.index("base.wz")]
    x, y, yaw0 = start
    yaw = yaw0 + turned
    step, turn = np.diff(along), np.diff(yaw)
    chord = step * np.sinc(turn / (2 * np.pi))
    heading = yaw[:-1] + turn / 2
    path = np.empty((len(along), 3))
    path[:, 0] = x + np.concatenate([[0.0], np.cumsum(chord * np.cos(heading))])
    path[:, 1] = y + np.concatenate([[0.0], np.cumsum(chord * np.sin(heading))])
    path[:, 2] = yaw
    return path


def occupancy(world: World) -> tuple[tuple[float, float], Bool]:
    """The map's lower left corner (m) and its cells (rows, columns), row 0 at the bottom."""
    reach = np.hypot(world.rectangles[:, 3], world.rectangles[:, 4])
    centers = np.concatenate([world.rectangles[:, :2], world.circles[:, :2], [[0.0, 0.0]]])
    reaches = np.concatenate([reach, world.circles[:, 2], [0.0]])[:, None]
    low, high = (centers - reaches).min(axis=0), (centers + reaches).max(axis=0)
    columns, rows = np.minimum(np.ceil((high - low) / CELL).astype(int) + 1, 1000)
    x = low[0] + CELL * (np.arange(columns)[None, :] + 0.5)
    y = low[1] + CELL * (np.arange(rows)[:, None] + 0.5)
    occupied = np.zeros((rows, columns), np.bool_)
    for cx, cy, radius in world.circles.tolist():
        occupied |= np.hypot(x - cx, y - cy) <= radius
    for cx, cy, yaw, half_x, half_y in world.rectangles.tolist():
        along = np.abs(np.cos(yaw) * (x - cx) + np.sin(yaw) * (y - cy))
        across = np.abs(np.cos(yaw) * (y - cy) - np.sin(yaw) * (x - cx))
        occupied |= (along <= half_x) & (across <= half_y)
    return (float(low[0]), float(low[1])), occupied


def _view(topic: str, kind: str, now_ns: int, *values: Any) -> View:
    return topic, kind, now_ns, message_type(kind).encode(*values)


def _planar(x: float, y: float, yaw: float) -> tuple[float, ...]:
    """The values of a pose (or transform) on the floor."""
    return x, y, 0.0, 0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)


def _quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """x, y, z, w of Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, cr), (sp, cp), (sy, cy) = ((math.sin(a / 2), math.cos(a / 2)) for a in (roll, pitch, yaw))
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )
