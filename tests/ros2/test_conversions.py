"""Tests messages to nouns and back: round trips to the bit, and everything that can be wrong."""

from __future__ import annotations

import importlib.util
import io
import math
from array import array
from dataclasses import replace

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from edge_wm_ros import conversions as c
from edge_wm_ros.frames import Frames
from geometry_msgs.msg import PoseStamped, TransformStamped
from PIL import Image as Picture
from sensor_msgs.msg import CompressedImage, Image, JointState, LaserScan
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from edge_wm.guard import Guard
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import ImageGoal, JointGoal, PoseGoal, Sample, Setpoint, Trajectory

ROVER = load_robot(find_robot("rover"))
NOW_NS = 1_795_000_000_123_456_789
RNG = np.random.default_rng(0)


def data_of(name: str) -> np.ndarray:
    stream = ROVER.streams[name]
    if stream.type == "image":
        return RNG.integers(0, 256, stream.shape, np.uint8)
    if stream.type == "range_scan":
        ranges = RNG.uniform(0.1, 4.9, stream.shape).astype(np.float32)
        ranges[::7] = np.inf
        return ranges
    return RNG.normal(size=stream.shape).astype(stream.dtype)


@pytest.mark.parametrize("name", list(ROVER.streams))
def test_a_sample_survives_its_message_to_the_last_bit(name: str):
    stream = ROVER.streams[name]
    data = data_of(name)
    if stream.type == "odometry":
        data[2] = 2.5  # rad: the yaw goes through a quaternion
    sample = Sample(name, NOW_NS, NOW_NS + 5, 3, data)
    back = c.sample_of(c.message_of(sample, stream), stream, NOW_NS + 5, 3)
    assert isinstance(back, Sample)
    assert back.stamp_ns == NOW_NS
    assert back.data.dtype == stream.dtype
    assert back.data.flags.c_contiguous
    if stream.type == "odometry":
        np.testing.assert_allclose(back.data, data, rtol=0, atol=1e-15)
    else:
        assert back.data.tobytes() == data.tobytes()


def test_images_of_other_encodings_and_padded_rows():
    stream = ROVER.streams["camera"]
    image = data_of("camera")
    for encoding, pixels in (
        ("bgr8", image[..., ::-1]),
        ("rgba8", np.concatenate([image, image[..., :1]], axis=2)),
        ("bgra8", np.concatenate([image[..., ::-1], image[..., :1]], axis=2)),
    ):
        rows = np.ascontiguousarray(pixels).reshape(64, -1)
        padded = np.concatenate([rows, np.full((64, 9), 7, np.uint8)], axis=1)
        message = Image(height=64, width=64, encoding=encoding, step=padded.shape[1])
        message.header.frame_id = stream.frame
        message.data = padded.tobytes()
        back = c.sample_of(message, stream, NOW_NS, 0)
        assert isinstance(back, Sample)
        assert back.data.tobytes() == image.tobytes()


def test_a_compressed_image_is_what_another_library_wrote():
    stream, image = ROVER.streams["camera"], data_of("camera")
    file = io.BytesIO()
    Picture.fromarray(image).save(file, "PNG")
    message = CompressedImage(format="png", data=file.getvalue())
    message.header.frame_id = stream.frame
    back = c.sample_of(message, stream, NOW_NS, 0)
    assert isinstance(back, Sample)
    assert back.data.tobytes() == image.tobytes()
    for bad in (b"", b"\x89PNG\r\n", file.getvalue()[:200], b"GIF89a" + bytes(40)):
        message.data = bad
        assert c.sample_of(message, stream, NOW_NS, 0) is Reason.sample_wrong_shape


def test_joints_are_taken_by_name():
    stream = ROVER.streams["wheels"]
    message = JointState(name=["arm", "right_wheel", "left_wheel"])
    message.position, message.velocity = [9.0, 2.0, 1.0], [9.0, 4.0, 3.0]
    back = c.sample_of(message, stream, NOW_NS, 0)
    assert isinstance(back, Sample)
    assert back.data.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def broken_sensor_messages():
    image = c.message_of(Sample("camera", NOW_NS, 0, 0, data_of("camera")), ROVER.streams["camera"])
    for field, value in (
        ("encoding", "mono8"), ("height", 63), ("width", 65), ("step", 5), ("step", 2**31),
        ("data", b""), ("data", bytes(100)), ("height", 2**31), ("encoding", ""),
    ):  # fmt: skip
        bad = Image(**{n: getattr(image, n) for n in ("height", "width", "encoding", "step")})
        bad.data, bad.header.frame_id = image.data, image.header.frame_id
        setattr(bad, field, value)
        yield "camera", bad, Reason.sample_wrong_shape
    names = ["left_wheel", "right_wheel"]
    for name, position, velocity in (
        ([], [], []), (names, [1.0], [1.0, 2.0]), (names, [1.0, 2.0], []),
        (["left_wheel", "elbow"], [1.0, 2.0], [1.0, 2.0]), (names, [1.0] * 5, [1.0] * 5),
    ):  # fmt: skip
        yield (
            "wheels",
            JointState(name=name, position=position, velocity=velocity),
            Reason.sample_wrong_shape,
        )
    stream = ROVER.streams["scan"]
    for first, last, count in (
        (stream.angle_min + 0.01, stream.angle_max, 120), (stream.angle_min, math.nan, 120),
        (stream.angle_min, stream.angle_max, 119), (stream.angle_min, stream.angle_max, 0),
    ):  # fmt: skip
        bad = LaserScan(angle_min=first, angle_max=last, ranges=[1.0] * count)
        bad.header.frame_id = stream.frame
        yield "scan", bad, Reason.sample_wrong_shape
    for name in ("camera", "imu", "scan", "odometry"):
        message = c.message_of(Sample(name, NOW_NS, 0, 0, data_of(name)), ROVER.streams[name])
        message.header.frame_id = "somewhere"
        yield name, message, Reason.sample_wrong_frame


@pytest.mark.parametrize(("name", "message", "reason"), list(broken_sensor_messages()))
def test_a_sensor_message_that_does_not_fit_is_a_reason(name, message, reason):
    assert c.sample_of(message, ROVER.streams[name], NOW_NS, 0) is reason


@pytest.mark.parametrize("range_max", [0.0, -1.0, math.nan])
def test_a_scan_s_own_range_cannot_hide_an_obstacle(range_max: float):
    stream = ROVER.streams["scan"]
    message = c.message_of(Sample("scan", NOW_NS, 0, 0, data_of("scan")), stream)
    before = c.sample_of(message, stream, NOW_NS, 0)
    message.range_max = range_max
    after = c.sample_of(message, stream, NOW_NS, 0)
    assert isinstance(before, Sample)
    assert isinstance(after, Sample)
    assert after.data.tobytes() == before.data.tobytes()


# ---- goals ------------------------------------------------------------------------------------
def pose(frame: str, x: float, y: float, yaw: float | None = None) -> PoseStamped:
    message = PoseStamped()
    message.header.frame_id = frame
    message.pose.position.x, message.pose.position.y = x, y
    message.pose.orientation.w = 0.0
    if yaw is not None:
        message.pose.orientation.z, message.pose.orientation.w = (
            math.sin(yaw / 2),
            math.cos(yaw / 2),
        )
    return message


def test_goals_in_the_odometry_and_in_the_base_frame():
    assert c.goal_of(pose("odom", 1.0, 2.0), ROVER, None) == PoseGoal(1.0, 2.0, None, "odom")
    goal = c.goal_of(pose("odom", 1.0, 2.0, 0.5), ROVER, None)
    assert isinstance(goal, PoseGoal)
    assert goal.yaw == pytest.approx(0.5)
    ahead = c.goal_of(pose("base_link", 2.0, 0.0, 3.0), ROVER, (1.0, 1.0, math.pi / 2))
    assert isinstance(ahead, PoseGoal)
    assert (ahead.x, ahead.y) == pytest.approx((1.0, 3.0))
    assert ahead.yaw == pytest.approx(math.remainder(3.0 + math.pi / 2, math.tau))


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            pose("map", 1.0, 2.0),
            "goal: frame_id must be odom or base_link, found 'map'; transform it before sending it",
        ),
        (
            pose("base_link", 1.0, 2.0),
            "goal: it is given in base_link, whose place is not known yet; send it in odom",
        ),
        (
            pose("odom", math.nan, 2.0),
            "goal: x, y and the orientation must be finite, and the goal within 10000 m; send it "
            "again",
        ),
        (
            pose("odom", 1e300, 2.0),
            "goal: x, y and the orientation must be finite, and the goal within 10000 m; send it "
            "again",
        ),
    ],
)
def test_a_refused_goal_is_a_sentence(message: PoseStamped, sentence: str):
    assert c.goal_of(message, ROVER, None) == sentence


# ---- trajectories and setpoints ----------------------------------------------------------------
def trajectory(effort: bool = False) -> Trajectory:
    knots = RNG.normal(size=(4, 40, 2))
    return Trajectory(
        epoch=1_795_000_003, sequence=118, stamp_ns=NOW_NS, start_ns=NOW_NS + 91_000_001,
        period_ns=10_000_000, axes=("base.vx", "base.wz"), position=knots[0], velocity=knots[1],
        acceleration=knots[2], brake_index=31, effort=knots[3] if effort else None,
    )  # fmt: skip


@pytest.mark.parametrize("effort", [False, True])
def test_a_trajectory_survives_its_message_to_the_last_bit(effort: bool):
    sent = trajectory(effort)
    back = c.trajectory_of(c.trajectory_message(sent))
    assert isinstance(back, Trajectory)
    for name in ("epoch", "sequence", "stamp_ns", "start_ns", "period_ns", "axes", "brake_index"):
        assert getattr(back, name) == getattr(sent, name)
    for name in ("position", "velocity", "acceleration", *(["effort"] if effort else [])):
        assert getattr(back, name).tobytes() == getattr(sent, name).tobytes()
    assert effort or back.effort is None


def test_a_trajectory_of_one_knot_stands_for_a_period():
    """What braking from rest is, where nothing is to be done (no goal)."""
    many = trajectory()
    rest = replace(
        many, brake_index=0, position=many.position[:1],
        velocity=np.zeros((1, 2)), acceleration=np.zeros((1, 2)),
    )  # fmt: skip
    back = c.trajectory_of(c.trajectory_message(rest))
    assert isinstance(back, Trajectory)
    assert (back.start_ns, back.period_ns) == (rest.start_ns, rest.period_ns)
    assert back.position.tolist() == [rest.position[0].tolist()] * 2
    assert not back.velocity.any()
    assert not back.acceleration.any()


def spoiled(change) -> JointTrajectory:
    message = c.trajectory_message(trajectory())
    change(message)
    return message


def uneven(message: JointTrajectory) -> None:
    message.points[7].time_from_start.nanosec += 1


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            spoiled(lambda m: setattr(m.header, "frame_id", "odom")),
            "trajectory: frame_id must be 'epoch=… sequence=… brake=…', found 'odom'",
        ),
        (
            spoiled(lambda m: setattr(m.header, "frame_id", "epoch=1 sequence=-1 brake=2")),
            "trajectory: frame_id must be 'epoch=… sequence=… brake=…', found "
            "'epoch=1 sequence=-1 brake=2'",
        ),
        (
            spoiled(lambda m: setattr(m, "points", m.points[:1])),
            "trajectory: must have 2 to 10000 points of 1 to 64 joints, found 1 of 2",
        ),
        (
            spoiled(lambda m: setattr(m, "joint_names", [])),
            "trajectory: must have 2 to 10000 points of 1 to 64 joints, found 40 of 0",
        ),
        (
            spoiled(lambda m: setattr(m, "points", [JointTrajectoryPoint()] * 10_001)),
            "trajectory: must have 2 to 10000 points of 1 to 64 joints, found 10001 of 2",
        ),
        (
            spoiled(lambda m: setattr(m.points[3], "velocities", [1.0])),
            "trajectory: every point must have 2 velocities, and one of them has not",
        ),
        (spoiled(uneven), "trajectory: its points must be evenly spaced in time"),
    ],
)
def test_a_malformed_trajectory_is_a_sentence(message: JointTrajectory, sentence: str):
    assert c.trajectory_of(message) == sentence


def setpoint(velocity: float = 0.4) -> Setpoint:
    valid_until_ns = NOW_NS + 50_000_000
    speed = np.array([velocity, -1.5 * velocity])
    brake = np.array([2.0, 3.0])
    return Setpoint(
        epoch=1_795_000_003, sequence=40_021, axes=("base.vx", "base.wz"),
        times_ns=np.array([NOW_NS, NOW_NS + 10_000_000]), position=RNG.normal(size=(2, 2)),
        velocity=np.array([speed, speed]), brake_deceleration=brake,
        brake_end_ns=valid_until_ns + np.rint(np.abs(speed) / brake * 1e9).astype(np.int64),
        apply_at_ns=NOW_NS, valid_until_ns=valid_until_ns,
    )  # fmt: skip


@pytest.mark.parametrize("velocity", [0.4, 0.0, -1e-9])
def test_a_setpoint_survives_its_message_to_the_last_bit(velocity: float):
    sent = setpoint(velocity)
    back = c.setpoint_of(c.setpoint_message(sent))
    assert isinstance(back, Setpoint)
    for name in ("epoch", "sequence", "axes", "apply_at_ns", "valid_until_ns", "effort"):
        assert getattr(back, name) == getattr(sent, name)
    for name in ("times_ns", "position", "velocity", "brake_deceleration", "brake_end_ns"):
        assert getattr(back, name).tolist() == getattr(sent, name).tolist()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda m: setattr(m.header, "frame_id", ""),
            "setpoint: frame_id must be 'epoch=… sequence=…', found ''",
        ),
        (
            lambda m: m.points.pop(),
            "setpoint: must have two knots or more and a brake, of 1 to 64 axes, found 2 points "
            "of 2",
        ),
        (
            lambda m: setattr(m.points[0], "velocities", [1.0]),
            "setpoint: every knot must have 2 positions and velocities, and the brake 2 "
            "accelerations",
        ),
        (
            lambda m: setattr(m.points[0], "velocities", [math.nan, 0.0]),
            "setpoint: its velocities must be finite and its brake's accelerations negative",
        ),
        (
            lambda m: setattr(m.points[-1], "accelerations", [-1.0, 0.0]),
            "setpoint: its velocities must be finite and its brake's accelerations negative",
        ),
        (
            lambda m: setattr(m.points[-1], "accelerations", [-1.0, -1e-300]),
            "setpoint: its brake must bring every axis to rest",
        ),
        (
            lambda m: setattr(m.points[-1], "accelerations", [-math.inf, math.nan]),
            "setpoint: its velocities must be finite and its brake's accelerations negative",
        ),
    ],
)
def test_a_malformed_setpoint_is_a_sentence(change, sentence: str):
    message = c.setpoint_message(setpoint())
    change(message)
    assert c.setpoint_of(message) == sentence


def test_a_base_is_told_the_newest_velocities():
    twist = c.twist_of(setpoint(), ROVER)
    assert (twist.twist.linear.x, twist.twist.angular.z) == (0.4, -0.6000000000000001)
    assert twist.header.frame_id == "base_link"


# ---- the guard's state --------------------------------------------------------------------------
def test_the_guard_s_state_survives_its_text_to_the_last_bit():
    guard = Guard(ROVER)
    knot = guard._commanded.playback.rest(NOW_NS, (0.1, 1 / 3), (math.pi, 2 / 7, -1e-300))
    moving = replace(
        knot, time_ns=NOW_NS + 10_000_000, velocity=(0.7, -1.1), acceleration=(1e9, 0.0)
    )
    for top_speed in (math.inf, 0.1):
        state = replace(
            guard.state(NOW_NS), knots=(knot, moving), playing=7, at=1 / 3, waiting=(8, 9),
            mode=Mode.slow, top_speed=top_speed,
        )  # fmt: skip
        text = c.report_text(state, [Reason.obstacle_near], None, {"scan": Reason.stream_stale})
        report = c.report_of(text)
        assert isinstance(report, c.GuardReport)
        assert report.reasons == ["obstacle_near"]
        assert report.unusable == {"scan": "stream_stale"}
        assert c.state_of(report, 2) == state


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[]",
        "NaN",
        '{"now_ns": "x"}',
        "[" * 100_000,
        '{"now_ns": 1e400}',
        "\x00",
        "\ud800",
    ],
)
def test_a_state_that_is_no_state_is_a_sentence(text: str):
    assert str(c.report_of(text)).startswith("guard's state: ")


def test_a_state_of_another_robot_is_a_sentence():
    guard = Guard(ROVER)
    knot = guard._commanded.playback.rest(NOW_NS, (0.0, 0.0), (0.0, 0.0, 0.0))
    report = c.report_of(c.report_text(replace(guard.state(0), knots=(knot,)), [], None, {}))
    assert isinstance(report, c.GuardReport)
    assert c.state_of(report, 3) == (
        "guard's state: a knot must have 3 values an axis and a pose of 3"
    )
    import msgspec

    other = msgspec.structs.replace(report, mode="asleep")
    assert c.state_of(other, 2) == "guard's state: unknown mode or way of playing: 'asleep'"


def test_times():
    assert c.time_ns(c.stamp_of(NOW_NS)) == NOW_NS
    assert c.stamp_of(-1) == Time()
    assert c.time_ns(c.duration_of(-1)) == -1


# ---- goals of other kinds, and in other frames -----------------------------------------------
ARM = load_robot(find_robot("arm"))


def joints(names: list[str], positions: list[float]) -> JointState:
    return JointState(name=names, position=positions)


def test_a_joint_goal_is_in_the_robot_files_order():
    goal = c.joint_goal_of(joints(["elbow", "shoulder"], [0.5, -1.0]), ARM)
    assert goal == JointGoal(np.array([-1.0, 0.5]))


@pytest.mark.parametrize(
    ("robot", "names", "positions", "sentence"),
    [
        (
            ARM, ["shoulder"], [0.1],
            "goal: it must have one position for each of shoulder, elbow, found 1 positions of "
            "shoulder; send all of them",
        ),
        (
            ARM, ["shoulder", "elbow"], [0.1],
            "goal: it must have one position for each of shoulder, elbow, found 1 positions of "
            "shoulder, elbow; send all of them",
        ),
        (
            ARM, ["shoulder", "elbow"], [0.1, 2.5],
            "goal: elbow must be -2.4 to 2.4, found 2.5; send one within the robot file's limits",
        ),
        (
            ARM, ["shoulder", "elbow"], [math.nan, 0.0],
            "goal: shoulder must be -2.6 to 2.6, found nan; send one within the robot file's "
            "limits",
        ),
        (
            ROVER, ["left_wheel"], [0.1],
            "goal: it must have one position for each of no joint, found 1 positions of "
            "left_wheel; send all of them",
        ),
    ],
)  # fmt: skip
def test_a_wrong_joint_goal_is_refused_by_name(robot, names, positions, sentence):
    assert c.joint_goal_of(joints(names, positions), robot) == sentence


def test_an_image_goal_is_rgb_whatever_it_came_as():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    message = Image(height=2, width=4, encoding="bgr8", step=12)
    message.data = array("B", pixels[..., ::-1].tobytes())
    assert c.image_goal_of(message) == ImageGoal(pixels)
    message.encoding = "mono16"
    assert c.image_goal_of(message) == (
        "goal: the image must be rgb8, bgr8, rgba8 or bgra8 with whole rows, found 4 x 2 'mono16' "
        "of 24 bytes"
    )


def test_without_tf2_a_goal_on_the_map_is_refused_by_name():
    if importlib.util.find_spec("tf2_ros"):
        pytest.skip("tf2 is installed here")
    assert Frames(None).within("odom", pose("map", 1.0, 2.0), 0) == (
        "goal: its frame is 'map', and tf2, which would turn it into odom, is not installed here; "
        "send it in odom or in the base's frame"
    )


class Buffer:
    """Stands for tf2's, which these wheels do not have: one transform, or none."""

    def __init__(self, found: TransformStamped | None) -> None:
        self.found = found

    def lookup_transform(self, target: str, source: str, _: object) -> TransformStamped:
        if self.found is None:
            raise LookupError(f'"{source}" passed to lookupTransform does not exist.')
        return self.found


def with_buffer(found: TransformStamped | None) -> Frames:
    frames = Frames(None)
    frames._buffer, frames._newest = Buffer(found), None
    return frames


def on_the_map(age_ns: int, yaw: float, x: float, y: float) -> TransformStamped:
    found = TransformStamped()
    found.header.stamp = c.stamp_of(NOW_NS - age_ns) if age_ns >= 0 else c.stamp_of(0)
    found.transform.translation.x, found.transform.translation.y = x, y
    found.transform.rotation.z, found.transform.rotation.w = math.sin(yaw / 2), math.cos(yaw / 2)
    return found


@pytest.mark.parametrize("age_ns", [-1, 0, 500_000_000])
def test_a_fresh_or_static_transform_turns_a_goal(age_ns: int):
    frames = with_buffer(on_the_map(age_ns, math.pi / 2, 10.0, 20.0))
    moved = frames.within("odom", pose("map", 1.0, 2.0, 0.25), NOW_NS)
    goal = c.goal_of(moved, ROVER, None)
    # a quarter turn takes (1, 2) to (-2, 1)
    assert (goal.x, goal.y, goal.yaw) == pytest.approx((8.0, 21.0, 0.25 + math.pi / 2))
    anyhow = c.goal_of(frames.within("odom", pose("map", 1.0, 2.0), NOW_NS), ROVER, None)
    assert anyhow.yaw is None


def test_a_stale_or_missing_transform_is_refused_by_name():
    assert with_buffer(on_the_map(600_000_000, 0.0, 0.0, 0.0)).within(
        "odom", pose("map", 1.0, 2.0), NOW_NS
    ) == (
        "goal: the newest transform from 'map' to odom is 0.6 s away from now, at most 0.5 s are "
        "allowed; is what localizes the robot still running?"
    )
    assert with_buffer(None).within("odom", pose("map", 1.0, 2.0), NOW_NS) == (
        "goal: there is no transform from 'map' to odom "
        '("map" passed to lookupTransform does not exist.); start what localizes the robot, or '
        "send the goal in another frame"
    )
