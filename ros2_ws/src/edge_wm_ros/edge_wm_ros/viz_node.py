"""wm_viz: what the robot sees, imagines and is allowed to do, for RViz and Foxglove.

    trajectory, base_path, guard's state, goal, scan, odometry ──► at most `rate_hz` times a second:
        ~/markers (MarkerArray)      /tf (odometry frame -> base frame, where asked for)
    once: /tf_static (the robot file's extrinsics)

It is never in the control process and nobody listens to it but people: it may be slow, killed or
left out. A callback keeps the newest message; the timer makes the picture. Transforms need
tf2_msgs, typed verdicts edge_wm_msgs; without them it shows the rest and says so.
"""

from __future__ import annotations

import importlib
import math
import sys
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped, TransformStamped
from nav_msgs.msg import Path
from rclpy.node import Node
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from edge_wm.guarding.senses import Senses
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import PoseGoal, Sample
from edge_wm_ros import names, qos, visuals
from edge_wm_ros.conversions import GuardReport, goal_of, report_of, time_ns, trajectory_of
from edge_wm_ros.parameters import VizSettings, declare, read
from edge_wm_ros.sensors import Sensors
from edge_wm_ros.spinning import main
from edge_wm_ros.summaries import message_types, verdict_message

OLD_NS = 1_000_000_000  # what is older is not drawn
LIFETIME_PICTURES = 3  # a marker outlives so many pictures
NEAR = 0.5  # m around the footprint's way, where a robot file says nothing of stopping


class VizNode(Node):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_viz")
        declare(self, VizSettings)
        self.settings = settings = read(self, VizSettings)
        self._robot = robot = load_robot(find_robot(settings.robot))
        pose = robot.pose_stream
        self._anchor = visuals.Anchor(derived=pose is not None and bool(pose.derived_from))
        self._senses = Senses(robot, [])
        self._scan: Sample | None = None
        self._trajectory: JointTrajectory | None = None
        self._state: String | None = None
        self._goal: PoseGoal | None = None
        self._before: GuardReport | None = None  # of the verdict told last
        self.pictures = 0

        self._markers = self.create_publisher(MarkerArray, names.MARKERS, qos.newest())
        self._transforms = self._announce_transforms()
        self._verdicts: Any = None
        if kinds := message_types():
            self._verdicts = self.create_publisher(kinds[0], names.VERDICT, qos.newest())
        # Only what is drawn is received: an image costs more than the whole picture.
        derived = {n for n, s in robot.streams.items() if s.derived_from}
        sources = [n for name in derived for n in robot.streams[name].derived_from]
        drawn = [n for n, s in robot.streams.items() if s.type in ("range_scan", "odometry")]
        wanted = [n for n in dict.fromkeys([*drawn, *sources]) if n not in derived]
        self._sensors = Sensors(self, robot, wanted, self._push, self._now_ns)
        subscribe = self.create_subscription
        subscribe(JointTrajectory, names.TRAJECTORY, self._on_trajectory, qos.sensor(1))
        subscribe(Path, names.BASE_PATH, self._on_path, qos.sensor(1))
        subscribe(String, names.GUARD_STATE, self._on_state, qos.sensor(1))
        subscribe(PoseStamped, names.GOAL, self._on_goal, qos.newest())
        self._timer = self.create_timer(1.0 / settings.rate_hz, self._draw)

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    def _announce_transforms(self) -> Any:
        """Publishes the mounts. Returns the publisher of /tf and its message, or None."""
        settings, robot = self.settings, self._robot
        moving = settings.publish_odometry_tf and robot.base is not None
        mounts = visuals.mount_transforms(robot, self._now_ns())
        if not moving and not (settings.publish_mounts_tf and mounts):
            return None
        try:
            kind: Any = importlib.import_module("tf2_msgs.msg").TFMessage
        except ImportError:
            self.get_logger().warning(
                f"{names.TF} and {names.TF_STATIC} need tf2_msgs, which is not installed: nothing "
                "is published there; with ROS from apt: sudo apt install ros-$ROS_DISTRO-tf2-msgs"
            )
            return None
        if settings.publish_mounts_tf and mounts:
            self._static = self.create_publisher(kind, names.TF_STATIC, qos.latched())
            self._static.publish(kind(transforms=mounts))
        return (kind, self.create_publisher(kind, names.TF, qos.newest(10))) if moving else None

    # ---- what arrives: kept, and looked at by the timer -------------------------------------
    def _push(self, sample: Sample) -> None:
        derived, _ = self._senses.push(sample)
        for seen in (sample, derived):
            if seen is None:
                continue
            if self._robot.streams[seen.stream].type == "odometry":
                x, y, yaw = map(float, seen.data[:3])
                self._anchor.moved(seen.stamp_ns, (x, y, yaw))
            elif self._robot.streams[seen.stream].type == "range_scan":
                self._scan = seen

    def _on_trajectory(self, message: JointTrajectory) -> None:
        self._trajectory = message

    def _on_path(self, message: Path) -> None:
        if message.poses and message.header.frame_id == visuals.odometry_frame(self._robot):
            place, q = message.poses[0].pose.position, message.poses[0].pose.orientation
            yaw = 2.0 * math.atan2(q.z, q.w)
            self._anchor.told(time_ns(message.header.stamp), (place.x, place.y, yaw))

    def _on_state(self, message: String) -> None:
        self._state = message
        if self._verdicts is None or self._verdicts.get_subscription_count() == 0:
            return
        report = report_of(message.data)
        if isinstance(report, GuardReport):
            period_ns, kind = self._robot.setpoint_period_ns, self._verdicts.msg_type
            self._verdicts.publish(verdict_message(kind, report, self._before, period_ns))
            self._before = report

    def _on_goal(self, message: PoseStamped) -> None:
        goal = goal_of(message, self._robot, self._anchor.pose())
        # The runtime says why it refuses others.
        if isinstance(goal, PoseGoal) and visuals.drawable(np.array([goal.x, goal.y])):
            self._goal = goal

    # ---- the picture ----------------------------------------------------------------------------
    def _draw(self) -> None:
        now_ns, pose = self._now_ns(), self._anchor.pose()
        if self._transforms is not None and pose is not None:
            kind, publisher = self._transforms
            moved: TransformStamped = visuals.base_transform(
                self._robot, pose, self._anchor.stamp_ns
            )
            publisher.publish(kind(transforms=[moved]))
        if self._markers.get_subscription_count() > 0:
            self._markers.publish(visuals.marker_array(self._picture(now_ns)))
            self.pictures += 1

    def _picture(self, now_ns: int) -> list[Marker | None]:
        robot, lifetime_ns = self._robot, round(LIFETIME_PICTURES * 1e9 / self.settings.rate_hz)
        frame = robot.kinematics.root if robot.kinematics else "base_link"
        frame = robot.base.frame if robot.base else frame
        way = self._way(now_ns)
        markers: list[Marker | None] = [
            visuals.guard_marker(self._report(now_ns), frame, now_ns, lifetime_ns),
            *(visuals.way_markers(way, now_ns, lifetime_ns) if way is not None else ()),
        ]
        if self._goal is not None:
            markers.append(visuals.goal_marker(self._goal, now_ns, lifetime_ns))
        if self._scan is not None and now_ns - self._scan.stamp_ns < OLD_NS:
            markers.append(self._ranges(self._scan, way, now_ns, lifetime_ns))
        return markers

    def _way(self, now_ns: int) -> visuals.Way | None:
        """Of the newest trajectory, if it is not too old."""
        if self._trajectory is None:
            return None
        trajectory = trajectory_of(self._trajectory)
        if isinstance(trajectory, str) or now_ns - trajectory.stamp_ns > OLD_NS:
            return None
        return visuals.way_of(trajectory, self._robot, self._anchor.pose(trajectory.stamp_ns))

    def _report(self, now_ns: int) -> GuardReport | None:
        report = report_of(self._state.data) if self._state is not None else ""
        fresh = isinstance(report, GuardReport) and now_ns - report.now_ns < OLD_NS
        return report if fresh and isinstance(report, GuardReport) else None

    def _ranges(
        self, scan: Sample, way: visuals.Way | None, now_ns: int, lifetime_ns: int
    ) -> Marker | None:
        """The points near the way; without one, those near the base."""
        robot = self._robot
        if robot.base is None:
            return None
        points = visuals.scan_points(robot.streams[scan.stream], scan.data)
        frame, line = robot.base.frame, np.zeros((1, 3))
        pose = self._anchor.pose(scan.stamp_ns)
        if pose is not None:
            points = visuals.on_floor(points, pose)
            frame = visuals.odometry_frame(robot)
            line = way.points if way is not None else np.array([[pose[0], pose[1], 0.0]])
        stopping = robot.stopping
        beyond = stopping.margin + stopping.slow_distance if stopping is not None else NEAR
        near = visuals.points_that_matter(points, line, robot.base.footprint_radius + beyond)
        return visuals.range_marker(near, frame, now_ns, lifetime_ns)


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(VizNode))


if __name__ == "__main__":
    run()
