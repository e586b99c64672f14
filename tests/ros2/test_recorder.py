"""Tests wm_recorder: the dump of a robot that stops holds what came before, as rosbags reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import processes
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore
from std_srvs.srv import Trigger

from ros2.test_robot import PATIENT, UP_WITHIN_S, set_off, tell


def test_an_emergency_stop_leaves_a_recording_of_what_led_to_it(tmp_path: Path):
    dumps = tmp_path / "dumps"
    keep = {"wm_recorder": {"seconds": 3.0}}
    listed = processes("rover", seed=5, record=str(dumps), extra=PATIENT | keep)
    with Drive(listed, logs=tmp_path / "logs") as drive:
        assert drive.until(lambda heard: heard.guard["epoch"] > 0, UP_WITHIN_S), tell(drive)
        set_off(drive)
        drive.until(lambda _: False, 2.5)
        drive.call(Trigger, "/wm_guard/estop", Trigger.Request())
        assert drive.until(lambda _: list(dumps.glob("*_estop.mcap")), 10.0), tell(drive)
    (file,) = dumps.iterdir()
    with AnyReader([file], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
        messages = [(c.topic, c.msgtype, ns, data) for c, ns, data in reader.messages()]
        counts = Counter(topic for topic, *_ in messages)
        modes = [
            reader.deserialize(data, kind).data
            for topic, kind, _, data in messages
            if topic == "/edge_wm/mode"
        ]
        scan = next(m for m in messages if m[0] == "/scan")
        assert len(reader.deserialize(scan[3], scan[1]).ranges) == 120
    assert modes[-1] == "estop"
    times = [ns for *_, ns, _ in messages]
    assert 2.0 < (times[-1] - times[0]) / 1e9 <= 4.2
    # three seconds before and one after, at the robot file's rates; a busy machine loses some
    for topic, rate in (("/imu", 200), ("/joint_states", 100), ("/camera/image_raw", 20),
                        ("/wm_guard/setpoint", 100), ("/wm_runtime/trajectory", 20)):  # fmt: skip
        assert counts[topic] > 1.5 * rate, counts
