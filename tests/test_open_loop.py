"""Tests planning along a bag of somebody else's: a simulated drive, written by rosbags."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from driving import WORLD, bundle, cockpit, drive, rover
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from typer.testing import CliRunner

from edge_wm.bags import bag_samples
from edge_wm.cli import app
from edge_wm.errors import MismatchError, UsageError
from edge_wm.open_loop import open_loop
from edge_wm.quantize.data import read_data
from edge_wm.robot import find_robot, load_robot
from edge_wm.runtime import RunSettings, Runtime
from edge_wm.simulation import RoverSimulation
from edge_wm.types import PoseGoal, Sample
from edge_wm.world_model import WorldModel

STORE = get_typestore(Stores.ROS2_KILTED)
SECONDS = 6.0
Change = Callable[[Sample, Any], Any]


@pytest.fixture(scope="module")
def driven() -> tuple[list[Sample], tuple[float, float, float]]:
    """What the sensors of a drive sent, and where its own odometry says that it ended."""
    manifest = bundle().manifest
    samples: list[Sample] = []

    def keep(sample: Sample) -> bool:
        samples.append(sample)
        return True

    runtime = Runtime(
        rover(), cockpit().driver("planner", 32), RunSettings.for_robot(rover(), 0),
        streams=tuple(manifest.needs.streams), step_ns=manifest.step_ns,
    )  # fmt: skip
    with RoverSimulation(rover(), WORLD) as simulation:
        drive(runtime, simulation, SECONDS, let_through=keep)
    pose = runtime.pose()
    assert pose is not None
    assert math.hypot(pose[0], pose[1]) > 1.0
    return samples, pose


def message_of(sample: Sample) -> Any:
    """The standard message, by rosbags alone."""

    def kind(name: str) -> type:
        return STORE.types[name]

    stream = rover().streams[sample.stream]
    second, nanosecond = divmod(sample.stamp_ns, 10**9)
    stamp = kind("builtin_interfaces/msg/Time")(sec=second, nanosec=nanosecond)
    header = kind("std_msgs/msg/Header")(stamp=stamp, frame_id=stream.frame)
    data = sample.data
    if stream.type == "image":
        bgr = np.ascontiguousarray(data[..., ::-1])  # as many drivers send it
        return kind("sensor_msgs/msg/Image")(
            header=header, height=data.shape[0], width=data.shape[1], encoding="bgr8",
            is_bigendian=0, step=3 * data.shape[1], data=bgr.ravel(),
        )  # fmt: skip
    if stream.type == "imu":
        vector, no = kind("geometry_msgs/msg/Vector3"), np.zeros(9)
        w, a = data[:3].astype(float), data[3:].astype(float)
        return kind("sensor_msgs/msg/Imu")(
            header=header, orientation=kind("geometry_msgs/msg/Quaternion")(x=0, y=0, z=0, w=1),
            orientation_covariance=no, angular_velocity=vector(*w), angular_velocity_covariance=no,
            linear_acceleration=vector(*a), linear_acceleration_covariance=no,
        )  # fmt: skip
    if stream.type == "joint_state":
        return kind("sensor_msgs/msg/JointState")(
            header=header, name=list(stream.joints), position=data[0].astype(float),
            velocity=data[1].astype(float), effort=np.empty(0),
        )  # fmt: skip
    return kind("sensor_msgs/msg/LaserScan")(
        header=header, angle_min=stream.angle_min, angle_max=stream.angle_max,
        angle_increment=0.05, time_increment=0.0, scan_time=0.05, range_min=0.05, range_max=5.0,
        ranges=data, intensities=np.empty(0, np.float32),
    )  # fmt: skip


def write(folder: Path, samples: list[Sample], change: Change = lambda _, message: message) -> Path:
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for sample in sorted(samples, key=lambda s: s.received_ns):
            message = change(sample, message_of(sample))
            if message is None:
                continue
            if sample.stream not in connections:
                topic = rover().streams[sample.stream].topic
                connections[sample.stream] = writer.add_connection(
                    topic, message.__msgtype__, typestore=STORE
                )
            data = STORE.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[sample.stream], sample.received_ns, data)
    return folder


@pytest.fixture(scope="module")
def bag(driven, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("bags") / "drive", driven[0])


def test_what_is_read_is_what_the_sensors_sent_to_the_bit(driven, bag: Path):
    """Also the camera's colors, which the bag has the other way round."""
    sent = {(s.stream, s.stamp_ns): s for s in driven[0]}
    drops: dict[str, Any] = {}
    read = list(bag_samples(bag, rover(), drops))
    assert len(read) == len(sent)
    assert drops == {}
    for sample in read:
        original = sent[sample.stream, sample.stamp_ns]
        assert sample.received_ns == original.received_ns
        assert sample.data.dtype == original.data.dtype
        assert sample.data.tobytes() == original.data.tobytes(), sample.stream


def test_it_plans_all_along_and_predicts_better_than_no_change(driven, bag: Path):
    samples, pose = driven
    found = open_loop(bag, rover(), bundle())
    assert found.samples == {
        name: sum(s.stream == name for s in samples) for name in ("camera", "wheels", "imu", "scan")
    }
    assert found.drops == {}
    assert found.ticks == pytest.approx(20 * SECONDS, abs=3)
    assert found.plans >= found.ticks - 10  # the first frame comes late
    assert set(found.not_planned) <= {"stream_missing"}
    # The runtime's own odometry, but for the last samples' age.
    assert isinstance(found.goal, PoseGoal)
    assert (found.goal.x, found.goal.y) == pytest.approx(pose[:2], abs=0.03)
    assert found.predictions > 60
    assert found.prediction_error < 0.95


def test_with_wheels_that_count_backwards_it_predicts_worse(driven, bag: Path, tmp_path: Path):
    def reverse(sample: Sample, message: Any) -> Any:
        if sample.stream == "wheels":
            object.__setattr__(message, "position", -message.position)
            object.__setattr__(message, "velocity", -message.velocity)
        return message

    right = open_loop(bag, rover(), bundle())
    wrong = open_loop(write(tmp_path / "reversed", driven[0], reverse), rover(), bundle())
    assert wrong.prediction_error > right.prediction_error + 0.05


def test_what_is_missing_or_wrong_is_told_by_stream_and_reason(driven, tmp_path: Path):
    def spoil(sample: Sample, message: Any) -> Any:
        if sample.stream == "camera":
            return None
        if sample.stream == "scan":
            object.__setattr__(message.header, "frame_id", "laser")
        return message

    spoiled = write(tmp_path / "spoiled", driven[0], spoil)
    found = open_loop(spoiled, rover(), bundle())
    assert found.plans == 0
    assert found.not_planned == {"stream_missing": found.ticks}
    assert found.drops == {
        "scan": {"sample_wrong_frame": sum(s.stream == "scan" for s in driven[0])}
    }
    assert math.isnan(found.plan_ms[0])
    done = CliRunner().invoke(app, ["replay", str(spoiled), "--robot", "rover"])
    assert done.exit_code == 1
    assert "scan: none taken in, refused" in done.output
    assert "ticks without: stream_missing" in done.output


def test_without_the_motion_that_was_measured_nothing_can_be_said(driven, tmp_path: Path):
    bag = write(tmp_path / "blind", [s for s in driven[0] if s.stream == "camera"])
    with pytest.raises(UsageError) as error:
        open_loop(bag, rover(), bundle())
    assert str(error.value) == (
        f"{bag}: must hold the measured motion of base.vx, base.wz of robot rover, and holds none "
        "that can be used; `edge-wm contract check` says why"
    )


def test_the_command_tells_it_in_numbers_and_in_words(bag: Path):
    told = json.loads(
        CliRunner()
        .invoke(app, ["replay", str(bag), "--robot", "rover", "--goal", "2.5,-1", "--json"])
        .stdout
    )
    assert told["plans"] > 100
    assert told["goal"] == "PoseGoal(x=2.5, y=-1.0, yaw=None, frame='odom')"
    words = CliRunner().invoke(app, ["replay", str(bag), "--robot", "rover"]).output
    assert "0.90 s ahead it is wrong by 0." in words


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--robot", "rover", "--goal", "near"],
            "--goal: must be X,Y in meters, such as 2.5,-1, found 'near'",
        ),
        (["--goal", "1,2"], "--goal: goes with --robot; a recorded run has its goals in it"),
        (
            [],
            "{bag}: must be the run.mcap of a run; to plan along a bag of somebody else's, say of "
            "which robot: --robot NAME",
        ),
    ],
)
def test_a_wrong_request_is_a_sentence(bag: Path, arguments: list[str], sentence: str):
    with pytest.raises(UsageError) as error:
        CliRunner().invoke(app, ["replay", str(bag), *arguments], catch_exceptions=False)
    assert str(error.value) == sentence.format(bag=bag)


def test_moments_of_a_bag_hold_what_the_robot_then_did(bag: Path):
    """Integrating the actions that acted leads to where the odometry says that it came."""
    manifest = bundle().manifest
    read = WorldModel(bundle(), rover(), backend="first").mean_action
    data = read_data(bundle(), [bag], read, rover())
    assert (data.sources[0].kind, data.sources[0].name) == ("bag", "drive")
    assert data.starts >= 32
    (run,) = data.runs
    checked = 0
    for moment in run:
        if moment.actions is None:
            continue
        later_ns = moment.observation.stamp_ns + manifest.horizon * manifest.step_ns
        found = [m for m in run if abs(m.observation.stamp_ns - later_ns) < 26_000_000]
        for later in found[:1]:
            way = float(moment.actions[:, 0].sum()) * manifest.step_ns * 1e-9
            x0, y0, yaw0 = moment.observation.streams["odometry"].sample.data[:3]
            x1, y1, yaw1 = later.observation.streams["odometry"].sample.data[:3]
            turned = float(moment.actions[:, 1].sum()) * manifest.step_ns * 1e-9
            assert turned == pytest.approx(math.remainder(yaw1 - yaw0, math.tau), abs=0.06)
            assert math.hypot(x1 - x0, y1 - y0) <= abs(way) + 0.04
            checked += 1
    assert checked > 20


def test_a_bag_is_calibrated_on_only_when_its_robot_is_named(bag: Path):
    read = WorldModel(bundle(), rover(), backend="first").mean_action
    with pytest.raises(UsageError) as error:
        read_data(bundle(), [bag], read)
    assert str(error.value) == (
        f"--data {bag}: must be a recording of a run (.mcap), an .npz file, or, with --robot, a bag"
    )
    with pytest.raises(MismatchError, match="needs stream 'camera'; robot file arm has only"):
        read_data(bundle(), [bag], read, load_robot(find_robot("arm")))
