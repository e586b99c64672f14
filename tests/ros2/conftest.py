"""What the tests of the ROS nodes share: real rclpy, on this machine only, in a domain of its own.

Without rclpy (the other environments of this suite) nothing here is collected; `make test-ros`
runs these in .venv-ros, or with a sourced distribution.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
AVAILABLE = all(importlib.util.find_spec(name) for name in ("rclpy", "edge_wm_ros"))
# Two checkouts that test at once must not hear each other: 1 to 100 is what the profile allows.
DOMAIN = 1 + os.getuid() % 10 + 10 * (os.getpid() % 10)

collect_ignore_glob = [] if AVAILABLE else ["test_*.py"]

if AVAILABLE:
    os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
    from edge_wm_ros.launching import environment

    os.environ.update(environment())
    with warnings.catch_warnings():  # lark, which the wheels' generators read, uses sre_parse
        warnings.simplefilter("ignore", DeprecationWarning)
        import rosidl_generator_py  # noqa: F401


def pytest_report_header() -> str:
    if AVAILABLE:
        return f"tests/ros2: rclpy {os.environ.get('ROS_DISTRO', 'of wheels')}, domain {DOMAIN}"
    return "tests/ros2: not collected, rclpy or edge_wm_ros is not installed here (make test-ros)"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Where the processes of one test write."""
    return tmp_path / "logs"
