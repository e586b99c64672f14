"""Tests wm_viz against what a careless or hostile peer sends: it draws the rest, and nothing wild.

The node lives in this process and is handed messages as its subscriptions would hand them over.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
from edge_wm_ros.conversions import message_of, report_text, stamp_of, trajectory_message
from edge_wm_ros.viz_node import VizNode
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker

from edge_wm.guard import Guard
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import Sample, Trajectory

ROVER = load_robot(find_robot("rover"))
PERIOD_NS = 10_000_000
WILD = (math.nan, math.inf, -math.inf, 1e300, -1e300, 1e7)


@pytest.fixture
def viz() -> Iterator[VizNode]:
    rclpy.init()
    node = VizNode()
    yield node
    node.destroy_node()
    rclpy.try_shutdown()


def trajectory(now_ns: int, speed: float = 0.5, brake: int = 40) -> JointTrajectory:
    t = np.arange(50)[:, None] * PERIOD_NS * 1e-9
    velocity = np.broadcast_to([speed, 0.0], (50, 2)).copy()
    with np.errstate(all="ignore"):  # of wild speeds
        position = t * velocity
    return trajectory_message(
        Trajectory(
            epoch=1, sequence=1, stamp_ns=now_ns, start_ns=now_ns, period_ns=PERIOD_NS,
            axes=ROVER.axis_names, position=position, velocity=velocity,
            acceleration=np.zeros((50, 2)), brake_index=brake,
        )
    )  # fmt: skip


def path(now_ns: int, x: float, z: float = 0.0) -> Path:
    message, place = Path(), PoseStamped()
    message.header.stamp, message.header.frame_id = stamp_of(now_ns), "odom"
    place.pose.position.x, place.pose.orientation.z = x, z
    message.poses = [place]
    return message


def goal(x: float, frame: str = "odom") -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x, message.pose.orientation.w = x, 1.0
    return message


def feed_a_little_of_everything(viz: VizNode, now_ns: int) -> None:
    """Two samples of wheels and gyroscope make a pose; a scan, a plan, a goal and a state."""
    for i in range(2):
        stamp_ns = now_ns - (2 - i) * PERIOD_NS
        viz._push(Sample("imu", stamp_ns, stamp_ns, i, np.full(6, 0.001 * i, np.float32)))
        viz._push(Sample("wheels", stamp_ns, stamp_ns, i, np.zeros((2, 2), np.float32)))
    viz._push(Sample("scan", now_ns, now_ns, 0, np.full(120, 0.4, np.float32)))
    viz._on_trajectory(trajectory(now_ns))
    viz._on_goal(goal(2.0))
    viz._on_state(String(data=report_text(Guard(ROVER).state(now_ns), [], None, {})))


def namespaces(viz: VizNode) -> set[str]:
    markers = [marker for marker in viz._picture(viz._now_ns()) if marker is not None]
    for marker in markers:
        assert_sane(marker)
    return {marker.ns for marker in markers if marker.action == Marker.ADD}


def assert_sane(marker: Marker) -> None:
    places = [marker.pose.position, *marker.points]
    assert all(abs(value) < 1e7 for p in places for value in (p.x, p.y, p.z))
    q = marker.pose.orientation
    assert math.hypot(q.x, q.y, q.z, q.w) == pytest.approx(1.0)
    assert len(marker.points) <= 200
    assert len(marker.text) <= 400


ALL = {
    "predicted_path", "predicted_braking", "predicted_end", "goal", "guard", "measured_ranges",
}  # fmt: skip


def test_a_little_of_everything_is_a_whole_picture(viz: VizNode):
    assert namespaces(viz) == {"guard"}
    feed_a_little_of_everything(viz, viz._now_ns())
    assert namespaces(viz) == ALL


@pytest.mark.parametrize("value", WILD)
def test_wild_numbers_are_not_drawn(viz: VizNode, value: float):
    now_ns = viz._now_ns()
    feed_a_little_of_everything(viz, now_ns)
    viz._on_path(path(now_ns, value))
    viz._on_goal(goal(value))
    assert namespaces(viz) == ALL  # those before them stay
    viz._on_trajectory(trajectory(now_ns, value))
    seen = namespaces(viz)
    if abs(value) * 0.5 > 1e6 or not math.isfinite(value):
        assert "predicted_path" not in seen
    with np.errstate(over="ignore"):
        ranges = np.full(120, value).astype(np.float32)
    viz._push(Sample("scan", now_ns + 1, now_ns, 1, ranges))
    assert "measured_ranges" not in namespaces(viz)


@pytest.mark.parametrize(
    "rogue",
    [
        lambda viz, now_ns: viz._on_trajectory(JointTrajectory()),
        lambda viz, now_ns: viz._on_trajectory(trajectory(now_ns, brake=999_999_999)),
        lambda viz, now_ns: viz._on_trajectory(trajectory(now_ns - 3_600_000_000_000)),
        lambda viz, now_ns: viz._on_trajectory(trajectory(now_ns + 3_600_000_000_000)),
        lambda viz, now_ns: viz._on_path(Path()),
        lambda viz, now_ns: viz._on_path(path(0, 1.0, 5.0)),
        lambda viz, now_ns: viz._on_state(String()),
        lambda viz, now_ns: viz._on_state(String(data="{" * 100_000)),
        lambda viz, now_ns: viz._on_state(String(data='{"mode": 3}')),
        lambda viz, now_ns: viz._on_goal(goal(1.0, "map")),
        lambda viz, now_ns: viz._push(
            Sample("scan", now_ns, now_ns, 1, np.zeros(3, np.float32))
        ),
    ],
)  # fmt: skip
def test_what_is_malformed_changes_no_more_than_its_own_part(
    viz: VizNode, rogue: Callable[[VizNode, int], None]
):
    now_ns = viz._now_ns()
    feed_a_little_of_everything(viz, now_ns)
    rogue(viz, now_ns)
    assert namespaces(viz) >= {"goal", "guard"}


def test_a_long_story_is_cut(viz: VizNode):
    state = report_text(Guard(ROVER).state(viz._now_ns()), [], None, {})
    viz._on_state(String(data=state.replace('"reasons":[]', f'"reasons":["{"x" * 100_000}"]')))
    (guard,) = [m for m in viz._picture(viz._now_ns()) if m is not None and m.ns == "guard"]
    assert len(guard.text) == 400


def test_a_picture_costs_little(viz: VizNode):
    """It shares the robot's processor: at 5 Hz less than a twentieth of a core, here."""
    now_ns = viz._now_ns()
    feed_a_little_of_everything(viz, now_ns)
    fastest = math.inf
    for _ in range(5):
        began = time.perf_counter()
        viz._picture(now_ns)
        fastest = min(fastest, time.perf_counter() - began)
    assert fastest < 0.010


def test_messages_of_the_simulated_scanner_reach_the_picture(viz: VizNode):
    """The same way as over the wire: message, subscription's callback, sample, points."""
    now_ns = viz._now_ns()
    sample = Sample("scan", now_ns, now_ns, 0, np.full(120, 0.3, np.float32))
    viz._sensors._arrived(ROVER.streams["scan"], message_of(sample, ROVER.streams["scan"]))
    assert namespaces(viz) == {"guard", "measured_ranges"}
