"""Tests edge_wm.recording.views: what people see agrees with what was recorded."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from edge_wm.recording import Event, PlanBegin, PlanEnd, Prediction, World
from edge_wm.recording.messages import message_type
from edge_wm.recording.views import CELL, Views, driven_path, occupancy
from edge_wm.robot import load_robot
from edge_wm.types import Acceptance, PoseGoal, Sample, Trajectory
from recording.runs import AXES, MS, START_NS, make_run, pose_at

ROVER = load_robot(Path(__file__).resolve().parents[2] / "robots" / "rover.yaml")
EVENTS = list(make_run(1.0))


def shown(events: list[Event], robot: Any = ROVER) -> dict[str, list[list[Any]]]:
    """Topic -> the decoded views of the events."""
    views = Views(robot)
    found: dict[str, list[list[Any]]] = {}
    for event in events:
        for topic, kind, _, message in views.of(event, START_NS):
            found.setdefault(topic, []).append(message_type(kind).decode(message))
    return found


def trajectory_of(velocity: np.ndarray, axes: tuple[str, ...] = AXES) -> Trajectory:
    """Knots every 10 ms at these velocities (N, A), each held until the next knot."""
    steps = np.vstack([np.zeros(len(axes)), velocity[:-1] * 0.01])
    position = np.cumsum(steps, axis=0)
    return Trajectory(1, 1, 0, 0, 10 * MS, axes, position, velocity, 0 * velocity, len(velocity))


def test_driven_path_agrees_with_small_steps() -> None:
    random = np.random.Generator(np.random.Philox(key=3))
    velocity = random.uniform(-1, 1, (300, 2)) * [0.7, 1.8]
    x, y, yaw = 1.0, -2.0, 0.7
    expected = [(x, y, yaw)]
    for vx, wz in velocity[:-1].tolist():
        for _ in range(200):
            middle = yaw + wz * 0.5 * 5e-5
            x, y, yaw = x + vx * math.cos(middle) * 5e-5, y + vx * math.sin(middle) * 5e-5, yaw
            yaw += wz * 5e-5
        expected.append((x, y, yaw))
    path = driven_path(trajectory_of(velocity), (1.0, -2.0, 0.7))
    assert path is not None
    np.testing.assert_allclose(path, expected, atol=1e-7)


def test_driven_path_closes_a_circle_and_follows_a_line() -> None:
    turns = 2 * math.pi / (0.5 * 0.01)  # knots for a full turn at 0.5 rad/s
    count = round(turns)
    velocity = np.tile([0.2, 2 * math.pi / (count * 0.01)], (count + 1, 1))
    path = driven_path(trajectory_of(velocity), (0.0, 0.0, 0.0))
    assert path is not None
    np.testing.assert_allclose(path[-1], [0.0, 0.0, 2 * math.pi], atol=1e-9)
    straight = driven_path(trajectory_of(np.tile([0.5, 0.0], (101, 1))), (0.0, 0.0, math.pi / 2))
    assert straight is not None
    np.testing.assert_allclose(straight[-1], [0.0, 0.5, math.pi / 2], atol=1e-12)


def test_an_arm_has_no_driven_path() -> None:
    assert driven_path(trajectory_of(np.zeros((3, 2)), ("shoulder", "elbow")), (0, 0, 0)) is None


def test_the_map_has_the_obstacles_where_they_are() -> None:
    rectangles = np.array([[2.0, 0.0, math.pi / 4, 0.5, 0.1]])
    world = World(0, np.array([[-1.0, 1.0, 0.3]]), rectangles, np.array([True]))
    (left, bottom), cells = occupancy(world)

    def at(x: float, y: float) -> bool:
        return bool(cells[int((y - bottom) / CELL), int((x - left) / CELL)])

    assert at(-1.0, 1.0)
    assert at(-1.25, 1.0)
    assert not at(-1.4, 1.0)
    assert at(2.3, 0.3)  # along the rectangle's length
    assert not at(2.3, -0.3)
    assert not at(0.0, 0.0)
    area = math.pi * 0.3**2 + 4 * 0.5 * 0.1
    assert cells.sum() * CELL**2 == pytest.approx(area, rel=0.1)


def test_an_empty_world_is_a_map_of_one_cell() -> None:
    world = World(0, np.empty((0, 3)), np.empty((0, 5)), np.empty(0, np.bool_))
    assert occupancy(world)[1].tolist() == [[False]]


def test_mounts_are_shown_once_as_quaternions() -> None:
    found = shown(EVENTS[:1])["/tf_static"]
    frames = {transform[3]: transform for transform in found[0][0]}
    assert set(frames) == {"camera_link", "imu_link", "scan_link"}
    _, _, parent, _, *numbers = frames["camera_link"]
    assert parent == "base_link"
    assert numbers[:3] == [0.14, 0.0, 0.16]
    expected = Rotation.from_euler("xyz", [0.0, 0.12, 0.0]).as_quat()
    np.testing.assert_allclose(numbers[3:], expected, atol=1e-12)
    tilted = SimpleNamespace(parent="base", xyz=(0, 0, 0), rpy=(0.3, -0.7, 2.0))
    stream = SimpleNamespace(type="imu", frame="tilted", extrinsics=tilted)
    robot = SimpleNamespace(streams={"imu": stream}, base=None)
    numbers = shown(EVENTS[:1], robot)["/tf_static"][0][0][0][4:]
    expected = Rotation.from_euler("xyz", [0.3, -0.7, 2.0]).as_quat()
    np.testing.assert_allclose(numbers[3:], expected, atol=1e-12)


def test_odometry_goal_truth_and_setpoints_are_shown() -> None:
    found = shown(EVENTS)
    odometry = [e for e in EVENTS if isinstance(e, Sample) and e.stream == "odometry"]
    assert len(found["/odom"]) == len(odometry) == 100
    assert len(found["/tf"]) == 20
    sec, nanosec, frame, child, x, y, _, _, _, qz, qw = found["/odom"][7][:11]
    assert sec * 10**9 + nanosec == odometry[7].stamp_ns
    assert (frame, child) == ("odom", "base_link")
    np.testing.assert_allclose([x, y, 2 * math.atan2(qz, qw)], pose_at(odometry[7].stamp_ns))
    assert len(found["/edge_wm/goal"]) == 2  # it changed once
    assert len(found["/edge_wm/true/pose"]) == 20
    assert len(found["/edge_wm/commanded/twist"]) == 100
    twist = found["/edge_wm/commanded/twist"][3]
    assert twist[3:] == [0.4, 0.0, 0.0, 0.0, 0.0, 0.4]


def test_accepted_trajectories_are_shown_and_refused_ones_are_not() -> None:
    accepted = [e for e in EVENTS if isinstance(e, PlanEnd) and e.acceptance]
    refused = [e for e in accepted if not e.acceptance.accepted]
    assert refused
    found = shown(EVENTS)
    assert len(found["/edge_wm/commanded/trajectory"]) == len(accepted) - len(refused)
    _, _, _, names, points = found["/edge_wm/commanded/trajectory"][0]
    assert names == list(AXES)
    knots = [*range(0, 199, 10), 199]
    trajectory = accepted[0].trajectory
    for point, knot in zip(points, knots, strict=True):
        positions, velocities, accelerations, effort, sec, nanosec = point
        assert positions.tolist() == trajectory.position[knot].tolist()
        assert velocities.tolist() == trajectory.velocity[knot].tolist()
        assert accelerations.tolist() == trajectory.acceleration[knot].tolist()
        assert effort.size == 0
        assert (sec, nanosec) == divmod(knot * 10 * MS, 10**9)
    assert len(found["/edge_wm/commanded/path"][0][3]) == len(knots)


def test_predictions_are_shown_as_a_path_and_a_strip_of_images() -> None:
    prediction = next(e for e in EVENTS if isinstance(e, Prediction))
    found = shown([prediction])
    assert len(found["/edge_wm/predicted/path"][0][3]) == 13
    height, width, *_, data = found["/edge_wm/predicted/image"][0][3:]
    strip = np.frombuffer(data, np.uint8).reshape(height, width, 3)
    for index, image in enumerate(prediction.images):
        assert np.array_equal(strip[:, 64 * index : 64 * (index + 1)], image)


def test_joints_are_shown_as_joint_states() -> None:
    arm = SimpleNamespace(streams={}, base=None)
    step = next(e for e in EVENTS if type(e).__name__ == "Step")
    setpoint = step.verdict.setpoint
    joints = ("shoulder", "elbow")
    moved = _replaced(step, axes=joints, effort=np.array([[1.0, 2.0], [3.0, 4.0]]))
    found = shown([moved], arm)
    *_, names, position, velocity, effort = found["/edge_wm/commanded/joints"][0]
    assert names == list(joints)
    assert position.tolist() == setpoint.position[0].tolist()
    assert velocity.tolist() == setpoint.velocity[0].tolist()
    assert effort.tolist() == [1.0, 2.0]


def _replaced(step: Any, **changes: Any) -> Any:
    verdict = replace(step.verdict, setpoint=replace(step.verdict.setpoint, **changes))
    return replace(step, verdict=verdict)


def test_odd_events_show_nothing_and_raise_nothing() -> None:
    odometry = next(e for e in EVENTS if isinstance(e, Sample) and e.stream == "odometry")
    odd: list[Event] = [
        replace(odometry, data=np.full(6, np.nan)),
        replace(odometry, data=np.zeros(5)),
        replace(odometry, stream="unknown"),
        PlanBegin(1, 0, None),
        PlanEnd(1, 0),
        PlanEnd(1, 0, acceptance=Acceptance(True, 1, 1, 0, ())),
        Prediction(1, np.arange(2), {"pose": np.zeros((2, 4), np.float32)}),
    ]
    assert set(shown(odd)) == {"/tf_static"}
    again = PoseGoal(1.0, 2.0)
    found = shown([PlanBegin(1, 0, again), PlanBegin(2, 0, again), PlanBegin(3, 0, None)])
    assert len(found["/edge_wm/goal"]) == 1
