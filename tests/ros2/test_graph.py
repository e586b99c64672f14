"""Tests the running graph as somebody who watches it: wm_viz's pictures, and that nobody needs it.

One fleet serves the tests of this file, in their order: bringing it up is what takes time.
"""

from __future__ import annotations

import importlib.util
import math
import time
from array import array
from collections.abc import Iterator
from itertools import pairwise

import pytest
from diagnostic_msgs.msg import DiagnosticArray
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import time_ns
from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import processes
from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import Image, JointState
from trajectory_msgs.msg import JointTrajectory
from visualization_msgs.msg import Marker, MarkerArray

from edge_wm.modes import Mode
from ros2.policy import allowed, policy
from ros2.test_robot import PATIENT

RATE_HZ = 4.0
UP_WITHIN_S = 30.0  # here, beside other work


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drive]:
    logs = tmp_path_factory.mktemp("logs")
    listed = processes("rover", seed=5, viz=True, extra={"wm_viz": {"rate_hz": RATE_HZ}, **PATIENT})
    with Drive(listed, logs=logs) as made:
        assert made.until(lambda heard: heard.guard["epoch"] > 0, UP_WITHIN_S), tell(made)
        yield made


def tell(drive: Drive) -> str:
    """All logs, for a failure."""
    logs = "\n".join(f"== {name}\n{drive.fleet.log(name)}" for name in drive.fleet.listed)
    return (
        f"{logs}\nmode {drive.heard.mode}, guard {drive.heard.guard}, bridge {drive.heard.bridge}"
    )


def test_pictures_of_a_drive_lie_where_the_robot_is(drive: Drive):
    pictures: list[tuple[float, MarkerArray, list[float]]] = []

    def take(message: MarkerArray) -> None:
        where = drive.heard.truth.get("odom_pose", [])
        pictures.append((time.monotonic(), message, list(where)))

    subscription = drive.node.create_subscription(MarkerArray, names.MARKERS, take, qos.newest())
    assert drive.until(lambda _: pictures, 10.0), tell(drive)

    def whole() -> list[tuple[dict[str, Marker], list[float]]]:
        """The pictures with a plan in them, markers by namespace, and where the robot was."""
        found = [({marker.ns: marker for marker in m.markers}, at) for _, m, at in pictures]
        return [
            (markers, at) for markers, at in found if {"predicted_path", "goal"} <= set(markers)
        ]

    begun = len(pictures)
    until = time.monotonic() + 30.0
    while not drive.until(lambda _: len(whole()) >= 12, 0.5):
        assert time.monotonic() < until, tell(drive)
        drive.send_goal()  # again: it may be sent before the runtime is found
    driven = pictures[begun:]
    drive.node.destroy_subscription(subscription)

    apart = sorted(after[0] - before[0] for before, after in pairwise(driven))
    assert apart[len(apart) // 2] > 0.9 / RATE_HZ
    for markers, truth in whole():
        assert markers["guard"].text.split("\n")[0] in Mode.__members__
        path = markers["predicted_path"]
        assert path.header.frame_id == "odom"
        # A picture is at most one plan and one picture old, at 0.7 m/s.
        assert math.dist((path.points[0].x, path.points[0].y), truth[:2]) < 0.4
        # What is predicted ends at rest a moment later: not further than it can get.
        end = markers["predicted_end"].pose.position
        assert math.dist((end.x, end.y), truth[:2]) < 2.5
    goal = whole()[-1][0]["goal"].pose.position
    assert (goal.x, goal.y) == (drive.heard.goal.pose.position.x, drive.heard.goal.pose.position.y)
    assert any("predicted_braking" in markers for markers, _ in whole())
    assert any("measured_ranges" in markers for markers, _ in whole())


def test_where_transforms_cannot_be_sent_it_says_so_and_draws_the_rest(drive: Drive):
    if importlib.util.find_spec("tf2_msgs"):
        pytest.skip("tf2_msgs is installed here: /tf is published")
    assert (
        "/tf and /tf_static need tf2_msgs, which is not installed: nothing is published there; "
        "with ROS from apt: sudo apt install ros-$ROS_DISTRO-tf2-msgs"
    ) in drive.fleet.log("wm_viz")
    assert not {"/tf", "/tf_static"} & {name for name, _ in drive.node.get_topic_names_and_types()}


def test_the_security_policy_allows_what_the_nodes_do(drive: Drive):
    """All that a node publishes, subscribes to, serves and asks for, in the running graph."""
    profiles = policy()
    for node in drive.fleet.listed:
        for tag, what, ask in (
            ("topics", "publish", drive.node.get_publisher_names_and_types_by_node),
            ("topics", "subscribe", drive.node.get_subscriber_names_and_types_by_node),
            ("services", "reply", drive.node.get_service_names_and_types_by_node),
            ("services", "request", drive.node.get_client_names_and_types_by_node),
        ):
            done = {name for name, _ in ask(node, "/")}
            assert done - allowed(profiles[node], tag, what) == set(), f"{node}: {what}"


def test_goals_that_the_bundle_or_the_frame_rules_out_are_refused_by_name(drive: Drive):
    refused = drive.heard.runtime["goals_refused"]
    image = Image(height=1, width=1, encoding="rgb8", step=3, data=array("B", bytes(3)))
    on_map = PoseStamped()
    on_map.header.frame_id = "map"
    for kind, topic, message in (
        (Image, names.GOAL_IMAGE, image),
        (JointState, names.GOAL_JOINTS, JointState(name=["elbow"], position=[0.0])),
        (PoseStamped, names.GOAL, on_map),
    ):
        publisher = drive.node.create_publisher(kind, topic, qos.newest())
        assert drive.until(lambda _, p=publisher: p.get_subscription_count() > 0, 5.0)
        publisher.publish(message)
        refused += 1
        assert drive.until(lambda heard, n=refused: heard.runtime["goals_refused"] == n, 5.0)
    log = drive.fleet.log("wm_runtime")
    assert "goal: bundle rover cannot plan for this image; it takes goals of kind pose" in log, log
    assert "goal: it must have one position for each of no joint" in log
    assert "goal: its frame is 'map', and tf2" in log


def test_each_plan_tells_what_its_stages_took(drive: Drive):
    told: list[DiagnosticArray] = []
    subscription = drive.node.create_subscription(
        DiagnosticArray, names.TIMING, told.append, qos.newest(10)
    )
    stages: dict[str, float] = {}

    def planned(_: object) -> bool:  # at a goal there are ticks without a plan
        for message in told:
            (line,) = message.status
            stages.update({item.key: float(item.value) for item in line.values})
        return {"encode", "advance", "plan", "actuation_delay"} <= set(stages)

    until = time.monotonic() + 20.0
    while not drive.until(planned, 0.5):
        assert time.monotonic() < until, tell(drive)
        drive.send_place(1.0, 0.0)
    drive.node.destroy_subscription(subscription)
    assert stages["actuation_delay"] == 40.0
    assert all(0.0 <= ms < 1000.0 for ms in stages.values())


def test_the_futures_that_were_planned_with_are_a_mean_and_a_spread(drive: Drive):
    told: dict[str, list[JointTrajectory]] = {names.FUTURE_MEAN: [], names.FUTURE_STD: []}
    held = [
        drive.node.create_subscription(JointTrajectory, topic, messages.append, qos.newest())
        for topic, messages in told.items()
    ]
    until = time.monotonic() + 20.0
    while not drive.until(lambda _: min(map(len, told.values())) > 5, 0.5):
        assert time.monotonic() < until, tell(drive)
        drive.send_place(1.0, 0.0)
    for subscription in held:
        drive.node.destroy_subscription(subscription)
    mean, std = (messages[-1] for messages in told.values())
    for message in (mean, std):
        assert list(message.joint_names) == ["base.vx", "base.wz"]
        assert len(message.points) == 12
        assert [time_ns(p.time_from_start) for p in message.points] == [
            step * 150_000_000 for step in range(12)
        ]
        assert all(len(p.velocities) == 2 and not p.positions for p in message.points)
    assert all(-0.25 <= p.velocities[0] <= 0.7 for p in mean.points)
    assert all(0.0 < v < 2.0 for p in std.points for v in p.velocities)


def test_nobody_misses_it(drive: Drive):
    pids = {name: drive.fleet.pid(name) for name in drive.fleet.listed if name != "wm_viz"}
    drive.fleet.kill("wm_viz")
    tick, guard_ns = drive.heard.runtime["tick"], drive.heard.guard["now_ns"]
    assert drive.until(lambda _: drive.fleet.restarts["wm_viz"] == 1, 5.0)
    assert drive.until(lambda heard: heard.runtime["tick"] > tick + 10, 5.0), tell(drive)
    assert drive.heard.guard["now_ns"] > guard_ns
    assert {name: drive.fleet.pid(name) for name in pids} == pids
