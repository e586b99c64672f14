"""Tests `edge-wm contract check` on bags that rosbags wrote: what is right, and all that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from edge_wm.contract import Finding, check
from edge_wm.errors import ModelError, UsageError
from edge_wm.recording.bag import read_bag
from edge_wm.robot import find_robot, load_robot

ROVER = load_robot(find_robot("rover"))
STORE = get_typestore(Stores.ROS2_KILTED)
START_NS = 1_795_000_000_000_000_000
SECONDS = 2.0
Message = Any
Change = Callable[[str, int, Message], Message | None]


def kind(name: str) -> type:
    return STORE.types[name]


def header(frame: str, stamp_ns: int) -> Message:
    second, nanosecond = divmod(stamp_ns, 10**9)
    stamp = kind("builtin_interfaces/msg/Time")(sec=second, nanosec=nanosecond)
    return kind("std_msgs/msg/Header")(stamp=stamp, frame_id=frame)


def vector(x: float, y: float, z: float) -> Message:
    return kind("geometry_msgs/msg/Vector3")(x=x, y=y, z=z)


def message_of(name: str, stamp_ns: int, random: np.random.Generator) -> Message:
    stream = ROVER.streams[name]
    head = header(stream.frame, stamp_ns)
    seconds = (stamp_ns - START_NS) * 1e-9
    if name == "camera":
        return kind("sensor_msgs/msg/Image")(
            header=head, height=64, width=64, encoding="rgb8", is_bigendian=0, step=192,
            data=random.integers(0, 256, 12288, np.uint8),
        )  # fmt: skip
    if name == "imu":
        no = np.zeros(9)
        spin = kind("geometry_msgs/msg/Quaternion")(x=0.0, y=0.0, z=0.0, w=1.0)
        return kind("sensor_msgs/msg/Imu")(
            header=head, orientation=spin, orientation_covariance=no,
            angular_velocity=vector(*random.normal(0, 0.1, 3)), angular_velocity_covariance=no,
            linear_acceleration=vector(0.0, 0.1, 9.81 + random.normal(0, 0.05)),
            linear_acceleration_covariance=no,
        )  # fmt: skip
    if name == "wheels":
        way = np.array([4.0, 5.0]) * seconds
        return kind("sensor_msgs/msg/JointState")(
            header=head, name=["left_wheel", "right_wheel"], position=way,
            velocity=np.array([4.0, 5.0]), effort=np.empty(0),
        )  # fmt: skip
    return kind("sensor_msgs/msg/LaserScan")(
        header=head, angle_min=stream.angle_min, angle_max=stream.angle_max,
        angle_increment=0.05, time_increment=0.0, scan_time=0.05, range_min=0.05, range_max=5.0,
        ranges=random.uniform(0.3, 4.0, 120).astype(np.float32),
        intensities=np.empty(0, np.float32),
    )  # fmt: skip


def write(
    folder: Path,
    change: Change = lambda name, index, message: message,
    topics: dict[str, str] | None = None,
    plugin: StoragePlugin = StoragePlugin.MCAP,
    late_ns: int = 5_000_000,
) -> Path:
    """Two seconds of the rover's sensors; `change` may alter a message, or leave it out."""
    random = np.random.default_rng(0)
    with Writer(folder, version=9, storage_plugin=plugin) as writer:
        for name in ("camera", "wheels", "imu", "scan"):
            stream = ROVER.streams[name]
            topic = (topics or {}).get(name, stream.topic)
            example = message_of(name, START_NS, random)
            connection = writer.add_connection(topic, example.__msgtype__, typestore=STORE)
            for index in range(int(SECONDS * 1e9) // stream.period_ns):
                stamp_ns = START_NS + index * stream.period_ns
                message = change(name, index, message_of(name, stamp_ns, random))
                if message is not None:
                    data = STORE.serialize_cdr(message, message.__msgtype__)
                    writer.write(connection, stamp_ns + late_ns, data)
    return folder


def findings(path: Path) -> list[Finding]:
    return [f for f in check(read_bag(path), ROVER) if f.level != "ok"]


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
def test_a_bag_that_fits_has_nothing_but_counts(tmp_path: Path, plugin: StoragePlugin):
    bag = write(tmp_path / "bag", plugin=plugin)
    told = [(f.stream, f.level, f.text) for f in check(read_bag(bag), ROVER)]
    assert told == [
        ("camera", "ok", "40 messages on /camera/image_raw"),
        ("wheels", "ok", "200 messages on /joint_states"),
        ("imu", "ok", "400 messages on /imu"),
        ("scan", "ok", "40 messages on /scan"),
    ]


def only(stream: str, act: Callable[[Message, int], None]) -> Change:
    def change(name: str, index: int, message: Message) -> Message:
        if name == stream:
            act(message, index)
        return message

    return change


def leave_out(stream: str, which: Callable[[int], bool]) -> Change:
    return lambda name, index, message: None if name == stream and which(index) else message


@cache
def cases() -> dict[str, tuple[Change, tuple[str, str, str]]]:
    """name -> (what is done to the messages, the one finding)."""

    def frame(message: Message, _: int) -> None:
        object.__setattr__(message.header, "frame_id", "laser")

    def size(message: Message, _: int) -> None:
        object.__setattr__(message, "width", 32)

    def encoding(message: Message, index: int) -> None:
        object.__setattr__(message, "encoding", "mono8" if index == 3 else "rgb8")

    def joints(message: Message, _: int) -> None:
        object.__setattr__(message, "name", ["left_wheel", "rear_wheel"])

    def no_velocity(message: Message, _: int) -> None:
        object.__setattr__(message, "velocity", np.empty(0))

    def not_a_number(message: Message, index: int) -> None:
        if index == 5:
            message.ranges[3] = np.nan

    def degrees(message: Message, _: int) -> None:
        object.__setattr__(message, "velocity", message.velocity * 57.29578)

    def g(message: Message, _: int) -> None:
        object.__setattr__(message, "linear_acceleration", vector(0.0, 0.01, 1.0))

    def fast(message: Message, index: int) -> None:
        message.angular_velocity.z = 90.0 if index == 7 else 0.0

    def millimeters(message: Message, _: int) -> None:
        message.ranges[:] *= 1000

    def backwards(message: Message, index: int) -> None:
        if index == 9:
            message.header.stamp.nanosec -= 60_000_000

    def twice(message: Message, index: int) -> None:
        if index == 9:
            message.header.stamp.nanosec -= 10_000_000

    def future(message: Message, index: int) -> None:
        message.header.stamp.nanosec += 20_000_000 if index == 39 else 0

    def beams(message: Message, _: int) -> None:
        object.__setattr__(message, "angle_max", message.angle_max + 0.05)

    still = np.zeros(12288, np.uint8)

    def frozen(message: Message, _: int) -> None:
        message.data[:] = still

    return {
        "frame": (
            only("scan", frame),
            ("scan", "wrong", "frame_id is 'laser', must be 'scan_link'"),
        ),
        "size": (
            only("camera", size),
            ("camera", "wrong", "40 of 40 messages: is 32 x 64, must be 64 x 64"),
        ),
        "encoding": (
            only("camera", encoding),
            (
                "camera",
                "wrong",
                "1 of 40 messages: has encoding 'mono8', must be rgb8, bgr8, rgba8 or bgra8",
            ),
        ),
        "joints": (
            only("wheels", joints),
            ("wheels", "wrong", "200 of 200 messages: lacks the joints right_wheel"),
        ),
        "no velocity": (
            only("wheels", no_velocity),
            (
                "wheels",
                "wrong",
                "200 of 200 messages: must have a position and a velocity for every joint",
            ),
        ),
        "nan": (only("scan", not_a_number), ("scan", "wrong", "1 of 40 messages: holds NaN")),
        "rate": (
            leave_out("imu", lambda i: i % 2 == 1),
            ("imu", "wrong", "comes 100.0 times a second, must come 200 times"),
        ),
        "gap": (
            leave_out("camera", lambda i: 10 <= i < 16),
            (
                "camera",
                "wrong",
                "is away for up to 350 ms, at most 250 ms (max_age_ms) are allowed",
            ),
        ),
        "order": (
            only("camera", backwards),
            ("camera", "wrong", "1 of 40 messages are older than the one before"),
        ),
        "duplicate": (
            only("wheels", twice),
            ("wheels", "wrong", "1 of 200 messages are stamped like the one before"),
        ),
        "future": (
            only("scan", future),
            (
                "scan",
                "wrong",
                "1 of 40 messages are stamped later than they were received (two clocks?)",
            ),
        ),
        "angles": (
            only("scan", beams),
            (
                "scan",
                "wrong",
                "40 of 40 messages: goes from -3.1416 to 3.1392 rad, must go from -3.1416 to "
                "3.0892",
            ),
        ),
        "frozen": (
            only("camera", frozen),
            ("camera", "wrong", "39 of 40 messages repeat the one before: a frozen sensor"),
        ),
        "g": (
            only("imu", g),
            ("imu", "suspect", "the acceleration is 1.00 at rest, must be 9.81 m/s^2: in g?"),
        ),
        "gyro": (
            only("imu", fast),
            (
                "imu",
                "suspect",
                "it turns with up to 90, and gyroscopes end at 35 rad/s: degrees a second?",
            ),
        ),
        "millimeters": (
            only("scan", millimeters),
            (
                "scan",
                "suspect",
                "half of the ranges are above 2116, and the scanner sees 5 m: millimetres?",
            ),
        ),
    }


@pytest.mark.parametrize("name", list(cases()))
def test_one_thing_that_is_wrong_is_told_and_nothing_else(tmp_path: Path, name: str):
    change, expected = cases()[name]
    found = [(f.stream, f.level, f.text) for f in findings(write(tmp_path / "bag", change))]
    assert found == [expected]


def test_degrees_in_the_wheels_are_told_by_two_witnesses(tmp_path: Path):
    def degrees(message: Message, _: int) -> None:
        object.__setattr__(message, "velocity", message.velocity * 57.29578)

    found = findings(write(tmp_path / "bag", only("wheels", degrees)))
    assert [f.text for f in found] == [
        "the velocities add up to 57.3 times the way of the positions: velocities are in degrees a "
        "second and positions in rad?",
        "wheels turn with up to 286, and the robot file's limits allow 15.6 rad/s: degrees a "
        "second?",
    ]


def test_a_missing_topic_names_those_of_its_type(tmp_path: Path):
    bag = write(tmp_path / "bag", topics={"scan": "/lidar", "imu": "/joint_states_2"})
    assert [(f.stream, f.text) for f in findings(bag)] == [
        (
            "imu",
            "/imu is missing, must be there as sensor_msgs/msg/Imu; topics of that type in the "
            "bag: /joint_states_2",
        ),
        (
            "scan",
            "/scan is missing, must be there as sensor_msgs/msg/LaserScan; topics of that type in "
            "the bag: /lidar",
        ),
    ]


def test_a_topic_of_another_type_is_named(tmp_path: Path):
    bag = write(tmp_path / "bag", topics={"scan": "/imu", "imu": "/scan"})
    assert "/scan has type sensor_msgs/msg/Imu" in findings(bag)[-1].text


def test_data_that_arrives_too_old(tmp_path: Path):
    bag = write(tmp_path / "bag", late_ns=70_000_000)
    assert [(f.stream, f.text) for f in findings(bag)] == [
        ("wheels", "is 70 ms old when it arrives (median), at most 60 ms are allowed"),
        ("imu", "is 70 ms old when it arrives (median), at most 60 ms are allowed"),
    ]


def test_what_is_no_bag_is_refused(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    for path, text in (
        (tmp_path / "empty", "must hold a bag's .mcap or .db3 files, and holds none; name another"),
        (tmp_path / "no.mcap", "there is nothing of that name"),
        (Path(__file__), "name another"),
    ):
        with pytest.raises(UsageError) as error:
            list(read_bag(path))
        assert str(error.value).endswith(text)
    for name, content in (("x.mcap", b"not at all"), ("x.db3", b"not at all a database" * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read as a bag"):
            list(read_bag(tmp_path / name))


def test_a_message_that_is_cut_off_is_counted(tmp_path: Path):
    whole = list(read_bag(write(tmp_path / "bag")))
    cut = [m._replace(data=m.data[:40]) if m.topic == "/imu" else m for m in whole]
    assert [(f.stream, f.text) for f in check(cut, ROVER) if f.level != "ok"] == [
        ("imu", "400 of 400 messages: cannot be decoded"),
        ("imu", "only 0 messages can be used; record more"),
    ]


def test_the_command_and_its_exit_codes(tmp_path: Path):
    good = write(tmp_path / "good")
    bad = write(tmp_path / "bad", leave_out("camera", lambda i: True))
    for bag, code in ((good, 0), (bad, 1)):
        command = [sys.executable, "-m", "edge_wm", "contract", "check", str(bag), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert json.loads(done.stdout)["fits"] == (code == 0)
