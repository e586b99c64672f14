"""Tests that colcon builds and tests the three packages with the wheels, and what is installed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from edge_wm_ros.launching import environment

from edge_wm.reasons import Reason

REPOSITORY = Path(__file__).resolve().parents[2]
VENV = Path(os.environ.get("COLCON_VENV", REPOSITORY / ".venv-colcon"))

if not (VENV / "bin" / "colcon").exists():
    pytest.skip(
        f"{VENV.name} is not set up; scripts/ros_build.sh sets it up, in minutes",
        allow_module_level=True,
    )


def clean_environment() -> dict[str, str]:
    """Without what this test's own environment says to its children."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "ROS_DOMAIN_ID")
    return {name: os.environ[name] for name in kept if name in os.environ}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where colcon installed all three."""
    base = tmp_path_factory.mktemp("colcon")
    done = subprocess.run(
        [str(REPOSITORY / "scripts" / "ros_build.sh")],
        env=clean_environment() | {"COLCON_BASE": str(base), "COLCON_VENV": str(VENV)},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 errors, 0 failures" in done.stdout
    return base / "install"


def sourced(built: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run in a shell as its users have it: the environment, then colcon's set-up file."""
    own = clean_environment()
    own["PATH"] = f"{VENV / 'bin'}:{own['PATH']}"
    own |= {"VIRTUAL_ENV": str(VENV)} | environment(own | {"AMENT_PREFIX_PATH": str(VENV)})
    return subprocess.run(
        ["bash", "-c", f". {built}/setup.bash && {command}"],
        env=own, capture_output=True, text=True, timeout=180, cwd="/",
    )  # fmt: skip


def test_what_is_installed(built: Path):
    share = built / "edge_wm_bringup" / "share" / "edge_wm_bringup"
    assert (share / "launch" / "robot.launch.py").is_file()
    assert (share / "config" / "rover.yaml").is_file()
    assert (share / "systemd" / "edge-wm.target").is_file()
    assert (built / "edge_wm_ros/share/edge_wm_ros/fastdds_loopback.xml").is_file()


@pytest.mark.parametrize("process", ["wm_guard", "wm_viz"])
def test_what_a_service_starts_runs_until_its_signal(built: Path, process: str):
    """The unit's own command, with the environment that the unit would have."""
    share = built / "edge_wm_bringup" / "share" / "edge_wm_bringup"
    unit = (share / "systemd" / f"{process}.service").read_text()
    command = re.search(r"^ExecStart=/bin/bash -c '(.*)'$", unit, re.MULTILINE)[1]
    own = clean_environment() | {
        "VIRTUAL_ENV": str(VENV),
        "AMENT_PREFIX_PATH": str(VENV),
        "EDGE_WM_INSTALL": str(built),
        "EDGE_WM_PARAMETERS": str(share / "config" / "rover.yaml"),
    }
    child = subprocess.Popen(
        ["/bin/bash", "-c", command], env=environment(own), stderr=subprocess.PIPE, text=True
    )
    time.sleep(4.0)
    assert child.poll() is None, child.stderr.read()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=10)
    assert child.returncode == 0, errors
    assert "Traceback" not in errors


TF2_MSGS = {  # PyPI has none: the one message of it that we send, as tf2_msgs defines it
    "msg/TFMessage.msg": "geometry_msgs/TransformStamped[] transforms\n",
    "package.xml": """<package format="3"><name>tf2_msgs</name><version>0.0.0</version>
        <description>stand-in</description><maintainer email="a@b.invalid">a</maintainer>
        <license>none</license><buildtool_depend>ament_cmake</buildtool_depend>
        <buildtool_depend>rosidl_default_generators</buildtool_depend>
        <depend>geometry_msgs</depend>
        <member_of_group>rosidl_interface_packages</member_of_group>
        <export><build_type>ament_cmake</build_type></export></package>""",
    "CMakeLists.txt": """cmake_minimum_required(VERSION 3.14)
        project(tf2_msgs)
        find_package(ament_cmake REQUIRED)
        find_package(geometry_msgs REQUIRED)
        find_package(rosidl_default_generators REQUIRED)
        rosidl_generate_interfaces(tf2_msgs "msg/TFMessage.msg" DEPENDENCIES geometry_msgs)
        ament_package()""",
}


def test_transforms_where_tf2_msgs_is(built: Path, tmp_path: Path):
    for name, text in TF2_MSGS.items():
        file = tmp_path / "src" / "tf2_msgs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    done = sourced(
        built,
        f"cd {tmp_path} && export CMAKE_PREFIX_PATH={VENV} ROS_VERSION=2 ROS_PYTHON_VERSION=3 && "
        f"colcon build --cmake-args -GNinja -DBUILD_TESTING=OFF -DPython3_FIND_VIRTUALENV=ONLY "
        f"-DPython3_EXECUTABLE={VENV}/bin/python >build.log 2>&1 || {{ cat build.log; exit 1; }}; "
        f". install/setup.bash && python {Path(__file__).with_name('transforms.py')}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["mounts"] == ["camera_link", "imu_link", "scan_link"]
    assert told["frames"] == ["odom", "base_link"]
    assert told["meters"] == pytest.approx(0.06 * 5.0 * told["seconds"], abs=0.01)
    assert told["seconds"] > 0.9  # six transforms at 5 Hz


def test_typed_messages_where_edge_wm_msgs_is_built(built: Path):
    done = sourced(built, f"python {Path(__file__).with_name('typed_verdicts.py')}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "mode": "slow",
        "reasons": [int(Reason.obstacle_near)],
        "names": ["obstacle_near"],
        "speed_scale": 0.5,
        "epoch": 3,
        "sequence": 7,
        "belief": [["z"], [5.0], 10_000_000],
    }
