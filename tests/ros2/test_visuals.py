"""Tests what people are shown: markers and transforms from nouns, without a running graph."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from edge_wm_ros import visuals as v
from edge_wm_ros.conversions import GuardReport
from visualization_msgs.msg import Marker

from edge_wm.guard.ranges import Scanner
from edge_wm.robot import find_robot, load_robot, rotation
from edge_wm.types import PoseGoal, Trajectory

ROVER = load_robot(find_robot("rover"))
ARM = load_robot(find_robot("arm"))
NOW_NS = 1_795_000_000_000_000_000
LIFE_NS = 600_000_000
PERIOD_NS = 10_000_000


def drive(vx: float, wz: float, knots: int = 101, brake: int = 80) -> Trajectory:
    """A rover's trajectory of constant twist: what it says of braking is all that is asked here."""
    t = np.arange(knots)[:, None] * PERIOD_NS * 1e-9
    velocity = np.broadcast_to([vx, wz], (knots, 2)).copy()
    return Trajectory(
        epoch=1, sequence=7, stamp_ns=NOW_NS, start_ns=NOW_NS + PERIOD_NS, period_ns=PERIOD_NS,
        axes=ROVER.axis_names, position=t * velocity, velocity=velocity,
        acceleration=np.zeros_like(velocity), brake_index=brake,
    )  # fmt: skip


def report(**changed: object) -> GuardReport:
    plain = GuardReport(NOW_NS, "active", 3, 7, [], 7, 0.0, [], "play", None, [], None, {})
    values = {name: getattr(plain, name) for name in plain.__struct_fields__}
    return GuardReport(**{**values, **changed})


# ---- the way ------------------------------------------------------------------------------------
def test_a_half_circle_ends_a_diameter_to_the_left():
    # 1 s at pi rad/s and pi/2 m/s: half a circle of radius 1/2 m.
    way = v.way_of(drive(math.pi / 2, math.pi), ROVER, (2.0, -1.0, math.pi / 2))
    assert way is not None
    assert way.frame == "odom"
    np.testing.assert_allclose(way.points[0], [2.0, -1.0, 0.0])
    np.testing.assert_allclose(way.points[-1], [1.0, -1.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(way.points[50], [1.5, -0.5, 0.0], atol=1e-9)
    np.testing.assert_allclose(way.end, [[1.0, -1.0, 0.0, 0.18]], atol=1e-9)


def test_an_arm_is_drawn_by_its_forward_kinematics():
    q = np.linspace([0.0, 0.0], [1.2, -0.7], 30)
    trajectory = replace(
        drive(0.0, 0.0, 30, 20), axes=ARM.axis_names, position=q, velocity=q, acceleration=q
    )
    way = v.way_of(trajectory, ARM, None)
    assert way is not None
    assert way.frame == "base_link"
    # The shipped arm by hand: 0.3 m, then 0.25 m, both turning in a plane 0.15 m high.
    s, e = 1.2, -0.7
    tip = [0.3 * math.cos(s) + 0.25 * math.cos(s + e), 0.3 * math.sin(s) + 0.25 * math.sin(s + e)]
    np.testing.assert_allclose(way.points[-1], [*tip, 0.15], atol=1e-12)
    assert len(way.end) == len(ARM.kinematics.spheres)
    assert way.end[-1].tolist() == pytest.approx([*tip, 0.15, 0.04])


@pytest.mark.parametrize(
    ("trajectory", "pose"),
    [
        (drive(0.5, 0.0), None),
        (replace(drive(0.5, 0.0), axes=("base.wz", "base.vx")), (0.0, 0.0, 0.0)),
        (replace(drive(0.5, 0.0), position=np.full((101, 2), np.nan)), (0.0, 0.0, 0.0)),
    ],
    ids=["pose not known", "another robot's axes", "not finite"],
)
def test_what_cannot_be_drawn_is_not(trajectory: Trajectory, pose: object):
    assert v.way_of(trajectory, ROVER, pose) is None


# ---- markers ------------------------------------------------------------------------------------
def test_path_and_braking_meet_and_differ_in_color():
    way = v.way_of(drive(0.5, 0.0), ROVER, (0.0, 0.0, 0.0))
    path, braking, end = v.way_markers(way, NOW_NS, LIFE_NS)
    assert [m.ns for m in (path, braking, end)] == [
        "predicted_path", "predicted_braking", "predicted_end",
    ]  # fmt: skip
    assert path.points[-1] == braking.points[0]
    assert path.points[-1].x == pytest.approx(0.5 * 0.8)
    assert braking.points[-1].x == pytest.approx(0.5)
    assert path.color != braking.color
    assert end.type == Marker.CYLINDER
    assert end.scale.x == pytest.approx(2 * ROVER.base.footprint_radius)
    assert end.pose.position.x == pytest.approx(0.5)


@pytest.mark.parametrize(("knots", "shown"), [(2, 2), (40, 40), (41, 40), (2000, 40)])
def test_a_long_path_is_decimated_and_keeps_its_ends(knots: int, shown: int):
    trajectory = drive(0.5, 0.0, knots, knots - 1)
    (path, _end) = v.way_markers(v.way_of(trajectory, ROVER, (0.0, 0.0, 0.0)), NOW_NS, LIFE_NS)
    assert len(path.points) == shown
    assert path.points[0].x == 0.0
    assert path.points[-1].x == pytest.approx(0.5 * (knots - 1) * 0.01)


@pytest.mark.parametrize(("brake", "names"), [
    (0, ["predicted_braking", "predicted_end"]),
    (100, ["predicted_path", "predicted_end"]),
    (10_000, ["predicted_path", "predicted_end"]),
    (-5, ["predicted_braking", "predicted_end"]),
])  # fmt: skip
def test_all_braking_or_none(brake: int, names: list[str]):
    way = v.way_of(drive(0.5, 0.0, brake=brake), ROVER, (0.0, 0.0, 0.0))
    assert [m.ns for m in v.way_markers(way, NOW_NS, LIFE_NS)] == names


def test_markers_go_by_themselves():
    markers = v.way_markers(v.way_of(drive(0.5, 0.0), ROVER, (0.0, 0.0, 0.0)), NOW_NS, LIFE_NS)
    markers.append(v.goal_marker(PoseGoal(1.0, 2.0), NOW_NS, LIFE_NS))
    markers.append(v.guard_marker(None, "base_link", NOW_NS, LIFE_NS))
    assert {m.lifetime.nanosec for m in markers} == {LIFE_NS}
    assert len({(m.ns, m.id) for m in markers}) == len(markers)


def test_a_goal_with_a_heading_is_an_arrow_and_without_one_a_ball():
    ball = v.goal_marker(PoseGoal(1.0, 2.0), NOW_NS, LIFE_NS)
    arrow = v.goal_marker(PoseGoal(1.0, 2.0, math.pi / 2), NOW_NS, LIFE_NS)
    assert (ball.type, arrow.type) == (Marker.SPHERE, Marker.ARROW)
    assert (arrow.pose.position.x, arrow.pose.position.y) == (1.0, 2.0)
    assert arrow.pose.orientation.z == pytest.approx(math.sqrt(0.5))
    assert arrow.header.frame_id == "odom"


def test_the_guard_says_its_mode_and_why():
    told = report(
        mode="stop", reasons=["obstacle_ahead"], fault="input_lost", unusable={"scan": "stale"}
    )
    marker = v.guard_marker(told, "base_link", NOW_NS, LIFE_NS)
    assert marker.text == "stop\nfault input_lost\ninput scan: stale\nobstacle_ahead"
    assert marker.color == v.guard_marker(None, "base_link", NOW_NS, LIFE_NS).color
    well = v.guard_marker(report(), "base_link", NOW_NS, LIFE_NS)
    assert well.text == "active"
    assert well.color != marker.color
    assert v.guard_text(None) == "guard: not heard"


# ---- ranges -------------------------------------------------------------------------------------
def test_scan_points_are_those_that_the_guard_sees():
    ranges = np.random.default_rng(1).uniform(0.1, 6.0, 120).astype(np.float32)
    ranges[::9] = np.inf
    points = v.scan_points(ROVER.streams["scan"], ranges)
    np.testing.assert_allclose(points[:2], Scanner(ROVER).points(ranges), atol=1e-12)
    assert points[2] == pytest.approx(0.12)  # where the scanner sits


def test_scan_points_leave_out_what_is_no_reading():
    ranges = np.full(120, np.inf, np.float32)
    ranges[:5] = [np.nan, -1.0, 0.0, 5.0, 1.0]
    assert v.scan_points(ROVER.streams["scan"], ranges).shape == (3, 1)
    assert v.scan_points(ROVER.streams["scan"], ranges[:50]).shape == (3, 0)


def test_points_that_matter_are_near_the_way():
    way = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    points = np.array([[0.0, 0.5, 1.0, 1.0], [0.29, 0.0, 0.31, -0.1], [5.0, 0.0, 0.0, 0.0]])
    near = v.points_that_matter(points, way, 0.3)
    assert near.tolist() == points[:, [0, 3]].tolist()
    many = np.zeros((3, 5000))
    assert v.points_that_matter(many, way, 0.3).shape == (3, v.MOST_RANGE_POINTS)
    assert v.points_that_matter(points[:, :0], way, 0.3).shape == (3, 0)


def test_no_points_take_the_marker_away():
    assert v.range_marker(np.zeros((3, 0)), "odom", NOW_NS, LIFE_NS).action == Marker.DELETE
    one = v.range_marker(np.array([[1.0], [2.0], [0.5]]), "odom", NOW_NS, LIFE_NS)
    assert one.action == Marker.ADD
    assert (one.points[0].x, one.points[0].y, one.points[0].z) == (1.0, 2.0, 0.5)


def test_on_floor_turns_then_moves():
    seen = v.on_floor(np.array([[1.0], [0.0], [0.12]]), (2.0, 3.0, math.pi / 2))
    np.testing.assert_allclose(seen, [[2.0], [4.0], [0.12]], atol=1e-12)


# ---- where --------------------------------------------------------------------------------------
def test_the_anchor_puts_its_odometry_where_the_runtime_has_it():
    anchor = v.Anchor(derived=True)
    assert anchor.pose() is None
    anchor.told(NOW_NS, (9.0, 9.0, 9.0))  # before any of its own: nothing to compare with
    for i in range(11):
        anchor.moved(NOW_NS + i * PERIOD_NS, (0.1 * i, 0.0, 0.0))
    assert anchor.pose() == pytest.approx((1.0, 0.0, 0.0))
    # The runtime began elsewhere and turned a quarter; its word is about the fifth sample.
    anchor.told(NOW_NS + 5 * PERIOD_NS, (3.0, 2.0, math.pi / 2))
    assert anchor.pose(NOW_NS + 5 * PERIOD_NS) == pytest.approx((3.0, 2.0, math.pi / 2))
    assert anchor.pose() == pytest.approx((3.0, 2.5, math.pi / 2))
    anchor.moved(NOW_NS + 11 * PERIOD_NS, (math.nan, 0.0, 0.0))
    anchor.told(NOW_NS, (math.inf, 0.0, 0.0))
    assert anchor.pose() == pytest.approx((3.0, 2.5, math.pi / 2))


def test_odometry_that_is_received_is_everybodys():
    anchor = v.Anchor(derived=False)
    anchor.moved(NOW_NS, (1.0, 2.0, 0.5))
    anchor.told(NOW_NS, (3.0, 2.0, 0.0))
    assert anchor.pose() == pytest.approx((1.0, 2.0, 0.5))
    assert anchor.stamp_ns == NOW_NS


def test_transforms_of_the_robot_file():
    mounts = {t.child_frame_id: t for t in v.mount_transforms(ROVER, NOW_NS)}
    assert set(mounts) == {"camera_link", "imu_link", "scan_link"}
    camera = mounts["camera_link"].transform
    assert (camera.translation.x, camera.translation.z) == (0.14, 0.16)
    assert camera.rotation.y == pytest.approx(math.sin(0.06))
    base = v.base_transform(ROVER, (1.0, 2.0, math.pi), NOW_NS)
    assert (base.header.frame_id, base.child_frame_id) == ("odom", "base_link")
    assert base.transform.rotation.z == pytest.approx(1.0)
    assert v.mount_transforms(ARM, NOW_NS) == []


def test_quaternions_turn_as_the_robot_files_rotation():
    roll, pitch, yaw = 0.3, -0.7, 2.1
    x, y, z, w = v.quaternion(roll, pitch, yaw)
    turned = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    np.testing.assert_allclose(turned, rotation((roll, pitch, yaw)), atol=1e-12)
