"""What RViz and Foxglove are shown: pure functions from nouns to visualization messages.

    trajectory ─► way ─► predicted_path, predicted_braking (another color), predicted_end
    scan       ─► measured_ranges: the points near that way, and no others
    goal       ─► goal            guard's report ─► guard (text: mode and reasons)
    odometry   ─► Anchor ─► odom → base_link       robot file ─► the sensors' static transforms

The namespace of each marker says whether it is measured, predicted or commanded. Lengths m,
angles rad. A base is drawn in the odometry frame, an arm in the root frame of its kinematics.

Invariant: what is drawn is finite and within reach, whatever arrived.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from geometry_msgs.msg import Point, TransformStamped
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from edge_wm.guard.ranges import ORIGIN, Pose, between, compose
from edge_wm.recording.views import driven_path
from edge_wm.robot import Extrinsics, Robot, Stream, frame_poses, rotation, sphere_centers
from edge_wm.types import Array, Float64, PoseGoal, Trajectory
from edge_wm_ros.conversions import GuardReport, duration_of, stamp_of

MOST_PATH_POINTS = 40  # of a line: a corner each 5 cm on two meters
MOST_RANGE_POINTS = 200
LINE_WIDTH = 0.02  # m
POINT_WIDTH = 0.04  # m
TEXT_HEIGHT = 0.12  # m
TEXT_ABOVE = 0.6  # m above the base
MOST_TEXT = 400  # characters: mode, fault, inputs and reasons are a tenth of that
FURTHEST = 1e6  # m: what is further away is a mistake, and no float32 of a renderer shows it
KEPT_POSES = 256  # of the anchor: 2.5 s at 100 Hz

# Okabe and Ito's palette, which people with color blindness can tell apart (jfly.uni-koeln.de).
COLORS = {
    "path": (0.0, 0.45, 0.70),
    "braking": (0.84, 0.37, 0.0),
    "end": (0.34, 0.71, 0.91),
    "goal": (0.0, 0.62, 0.45),
    "ranges": (0.80, 0.47, 0.65),
    "guard": (0.95, 0.95, 0.95),
    "guard_latched": (0.84, 0.37, 0.0),
}


@dataclass(frozen=True, slots=True)
class Way:
    """Where a trajectory leads the base's origin, or the arm's last frame."""

    frame: str
    points: Float64  # (N, 3) m, a point for each knot
    yaw: Float64  # (N,) rad; zeros for an arm
    brake_index: int  # knots from here on are the braking tail
    end: Float64  # (S, 4) m: centers and radii of the spheres that hold the robot at the end


# ---- where ----------------------------------------------------------------------------------
class Anchor:
    """The base's pose in the frame that the runtime plans in.

    Where odometry is derived, each process adds up its own from its own first sample. What is
    drawn here must lie where the runtime's goals and paths lie, so this process's odometry is
    put where the runtime said that the base was at the same time.
    """

    def __init__(self, derived: bool) -> None:
        """derived: whether the robot file derives the odometry; else it is one for everybody."""
        self._derived = derived
        self._own: deque[tuple[int, Pose]] = deque(maxlen=KEPT_POSES)
        self._origin: Pose = ORIGIN  # of this process's odometry, in the runtime's

    def moved(self, stamp_ns: int, pose: Pose) -> None:
        """This process's odometry."""
        if drawable(np.array(pose)):
            self._own.append((stamp_ns, pose))

    def told(self, stamp_ns: int, pose: Pose) -> None:
        """Where the runtime says that the base was at `stamp_ns`."""
        if not self._derived or not self._own or not drawable(np.array(pose)):
            return
        own = min(self._own, key=lambda kept: abs(kept[0] - stamp_ns))[1]
        self._origin = compose(pose, between(own, ORIGIN))

    def pose(self, stamp_ns: int | None = None) -> Pose | None:
        """The base's pose at the sample nearest to `stamp_ns`, or the newest; None: unknown."""
        if not self._own:
            return None
        newest = self._own[-1][1]
        if stamp_ns is not None:
            newest = min(self._own, key=lambda kept: abs(kept[0] - stamp_ns))[1]
        return compose(self._origin, newest)

    @property
    def stamp_ns(self) -> int:
        """Of the newest pose; 0: none yet."""
        return self._own[-1][0] if self._own else 0


def way_of(trajectory: Trajectory, robot: Robot, pose: Pose | None) -> Way | None:
    """None where it cannot be drawn: another robot's axes, or a base whose pose is not known."""
    if trajectory.axes != robot.axis_names or not drawable(trajectory.position):
        return None
    if robot.kinematics is not None:
        frames = frame_poses(robot.kinematics, trajectory.position)
        tip = frames[robot.kinematics.joints[-1].child]
        points = np.broadcast_to(tip[..., :3, 3], (len(trajectory.position), 3))
        centers = sphere_centers(robot.kinematics, trajectory.position[-1])
        radii = np.array([[sphere.radius] for sphere in robot.kinematics.spheres])
        end = np.concatenate([centers, radii.reshape(-1, 1)], axis=1)
        frame, yaw = robot.kinematics.root, np.zeros(len(points))
        return Way(frame, points, yaw, trajectory.brake_index, end)
    driven = driven_path(trajectory, pose) if pose is not None else None
    if driven is None or robot.base is None:
        return None
    points = np.concatenate([driven[:, :2], np.zeros((len(driven), 1))], axis=1)
    end = np.array([[*points[-1], robot.base.footprint_radius]])
    return Way(odometry_frame(robot), points, driven[:, 2], trajectory.brake_index, end)


def drawable(numbers: Array) -> bool:
    """True if all are finite and within what a renderer shows."""
    return bool((np.abs(numbers) < FURTHEST).all())  # NaN compares false


def odometry_frame(robot: Robot) -> str:
    return robot.pose_stream.frame if robot.pose_stream else "odom"


def scan_points(stream: Stream, ranges: Array) -> Float64:
    """(3, P) m: what the beams of a range_scan hit, in the frame that the scanner sits on."""
    if ranges.shape != stream.shape:
        return np.zeros((3, 0))
    angles = stream.beam_angles()
    hit = np.isfinite(ranges) & (ranges >= stream.range_min) & (ranges < stream.range_max)
    beams = np.stack([np.cos(angles), np.sin(angles), np.zeros_like(angles)])[:, hit]
    points: Float64 = beams * ranges[hit].astype(np.float64)
    placed = stream.extrinsics
    if placed is not None:
        points = placed.rotation() @ points + np.array(placed.xyz)[:, None]
    return points


def on_floor(points: Float64, pose: Pose) -> Float64:
    """(3, P): points of the base frame, in the frame in which the base is at `pose`."""
    turned: Float64 = rotation((0.0, 0.0, pose[2])) @ points
    turned += np.array([[pose[0]], [pose[1]], [0.0]])
    return turned


def points_that_matter(points: Float64, way: Float64, within: float) -> Float64:
    """(3, P): those of `points` (3, Q) that are nearer than `within` to the way, decimated.

    way: (N, 3) m, in the points' frame. Only x and y count.
    """
    apart = np.square(points[0][:, None] - way[:, 0]) + np.square(points[1][:, None] - way[:, 1])
    near = points[:, (apart < within**2).any(axis=1)] if apart.size else points[:, :0]
    return near[:, _spread(near.shape[1], MOST_RANGE_POINTS)]


# ---- markers --------------------------------------------------------------------------------
def way_markers(way: Way, stamp_ns: int, lifetime_ns: int) -> list[Marker]:
    """The path, its braking tail, and the robot at its end."""
    brake = min(max(way.brake_index, 0), len(way.points) - 1)
    markers = []
    for name, color, rows in (
        ("predicted_path", "path", way.points[: brake + 1]),
        ("predicted_braking", "braking", way.points[brake:]),
    ):
        if len(rows) < 2:
            continue
        line = _marker(name, way.frame, stamp_ns, lifetime_ns, color)
        line.type, line.scale.x = Marker.LINE_STRIP, LINE_WIDTH
        line.points = _points(rows[_spread(len(rows), MOST_PATH_POINTS)])
        markers.append(line)
    for index, (x, y, z, radius) in enumerate(way.end.tolist()):
        ball = _marker("predicted_end", way.frame, stamp_ns, lifetime_ns, "end", 0.4)
        ball.id, ball.type = index, Marker.SPHERE
        ball.scale.x = ball.scale.y = ball.scale.z = 2 * radius
        if len(way.end) == 1:  # a base: a disc on the floor
            ball.type, ball.scale.z = Marker.CYLINDER, LINE_WIDTH
        ball.pose.position.x, ball.pose.position.y, ball.pose.position.z = x, y, z
        markers.append(ball)
    return markers


def range_marker(points: Float64, frame: str, stamp_ns: int, lifetime_ns: int) -> Marker:
    """points: (3, P) m in `frame`."""
    marker = _marker("measured_ranges", frame, stamp_ns, lifetime_ns, "ranges")
    marker.type = Marker.POINTS
    marker.scale.x = marker.scale.y = POINT_WIDTH
    marker.points = _points(points.T)
    if not marker.points:  # an empty list of points is an error in RViz
        marker.action = Marker.DELETE
    return marker


def goal_marker(goal: PoseGoal, stamp_ns: int, lifetime_ns: int) -> Marker:
    """An arrow, or a ball where any heading will do."""
    marker = _marker("goal", goal.frame, stamp_ns, lifetime_ns, "goal")
    marker.pose.position.x, marker.pose.position.y = goal.x, goal.y
    marker.type = Marker.SPHERE
    marker.scale.x = marker.scale.y = marker.scale.z = 0.15
    if goal.yaw is not None:
        marker.type = Marker.ARROW
        marker.scale.x, marker.scale.y, marker.scale.z = 0.4, 0.05, 0.05
        q = marker.pose.orientation
        q.x, q.y, q.z, q.w = quaternion(0.0, 0.0, goal.yaw)
    return marker


def guard_marker(report: GuardReport | None, frame: str, stamp_ns: int, lifetime_ns: int) -> Marker:
    """The guard's mode and reasons as text above the robot; None: it is not heard."""
    latched = report is None or report.fault is not None
    color = "guard_latched" if latched else "guard"
    marker = _marker("guard", frame, stamp_ns, lifetime_ns, color)
    marker.type, marker.scale.z = Marker.TEXT_VIEW_FACING, TEXT_HEIGHT
    marker.pose.position.z = TEXT_ABOVE
    marker.text = guard_text(report)
    return marker


def guard_text(report: GuardReport | None) -> str:
    """One line for the mode, then one for each thing that is in the way."""
    if report is None:
        return "guard: not heard"
    lines = [report.mode]
    if report.fault:
        lines.append(f"fault {report.fault}")
    lines += [f"input {name}: {reason}" for name, reason in report.unusable.items()]
    return "\n".join([*lines, *report.reasons])[:MOST_TEXT]


def marker_array(markers: Sequence[Marker | None]) -> MarkerArray:
    return MarkerArray(markers=[marker for marker in markers if marker is not None])


# ---- transforms -----------------------------------------------------------------------------
def base_transform(robot: Robot, pose: Pose, stamp_ns: int) -> TransformStamped:
    """The odometry frame to the base frame."""
    base = robot.base.frame if robot.base else "base_link"
    x, y, yaw = pose
    placed = Extrinsics(odometry_frame(robot), (x, y, 0.0), (0.0, 0.0, yaw))
    return _transform(placed, base, stamp_ns)


def mount_transforms(robot: Robot, stamp_ns: int) -> list[TransformStamped]:
    """Where the robot file says that the sensors sit, one for each frame."""
    placed = {s.frame: s.extrinsics for s in robot.streams.values() if s.extrinsics is not None}
    return [_transform(extrinsics, frame, stamp_ns) for frame, extrinsics in placed.items()]


def _transform(placed: Extrinsics, child: str, stamp_ns: int) -> TransformStamped:
    message = TransformStamped()
    message.header.stamp = stamp_of(stamp_ns)
    message.header.frame_id, message.child_frame_id = placed.parent, child
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = map(float, placed.xyz)
    q.x, q.y, q.z, q.w = quaternion(*placed.rpy)
    return message


def quaternion(roll: float, pitch: float, yaw: float) -> tuple[float, float, float, float]:
    """x, y, z, w of Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, cr), (sp, cp), (sy, cy) = (
        (math.sin(angle / 2), math.cos(angle / 2)) for angle in (roll, pitch, yaw)
    )
    return (
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


# ---- inside ---------------------------------------------------------------------------------
def _marker(
    name: str, frame: str, stamp_ns: int, lifetime_ns: int, color: str, alpha: float = 1.0
) -> Marker:
    """It goes by itself after its lifetime, so that nothing old stays on the screen."""
    marker = Marker(ns=name, action=Marker.ADD, lifetime=duration_of(lifetime_ns))
    marker.header.frame_id, marker.header.stamp = frame, stamp_of(stamp_ns)
    marker.pose.orientation.w = 1.0
    red, green, blue = COLORS[color]
    marker.color = ColorRGBA(r=red, g=green, b=blue, a=alpha)
    return marker


def _points(rows: Float64) -> list[Point]:
    """rows: (N, 3) m."""
    return [Point(x=x, y=y, z=z) for x, y, z in rows.tolist()]


def _spread(count: int, most: int) -> Array:
    """Indices of at most `most` of `count` things, evenly spread, both ends among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
