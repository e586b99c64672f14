"""Tests the package as colcon installs it: `colcon test`. The nodes' own tests are tests/ros2."""

from __future__ import annotations

import importlib
import importlib.util
from importlib import metadata

import pytest

rclpy = pytest.importorskip("rclpy", reason="ROS 2 is neither sourced nor installed here")

from edge_wm_ros.launching import PROFILE  # noqa: E402
from edge_wm_ros.parameters import ALL  # noqa: E402
from edge_wm_ros.processes import arguments, processes  # noqa: E402


def test_each_process_is_an_executable_that_can_be_loaded():
    points = {
        point.name: point
        for point in metadata.distribution("edge_wm_ros").entry_points
        if point.group == "console_scripts"
    }
    for process in processes("rover", viz=True):
        assert points[process.name].value == f"{process.module}:run"
        if process.name == "wm_sim" and importlib.util.find_spec("mujoco") is None:
            continue  # robots have no simulator on them
        assert callable(importlib.import_module(process.module).run)


def test_a_nodes_parameters_are_those_of_its_class():
    for process in processes("rover", record="runs", viz=True):
        assert set(process.parameters) <= set(ALL[process.name].__dataclass_fields__)
        assert arguments(process)[0] == "--ros-args"


def test_the_transport_profile_comes_along():
    assert PROFILE.is_file()
