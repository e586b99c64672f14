"""Launches a robot: `ros2 launch edge_wm_bringup robot.launch.py robot:=rover viz:=true`.

A declaration over edge_wm_ros.processes, the one list of processes, which `edge-wm run --ros`
executes too. Values come from the parameter file; an argument that is given here wins over it.
The supervisor brings the nodes up in order, so they are plain nodes to the launch system.

Ctrl-C sends SIGINT to all at once: the guard brakes, and if the bridge is gone before it has,
the device's dead-man does. To go down in order first, call /wm_supervisor/shut_down.
"""

from __future__ import annotations

import os
from pathlib import Path

from edge_wm_ros.launching import environment
from edge_wm_ros.processes import Value, processes
from edge_wm_ros.security import check_security
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch_ros.actions import Node

CONFIG = Path(__file__).resolve().parent.parent / "config"
RESPAWN_AFTER_S = 0.5
STOP_WITHIN_S = "5.0"  # after SIGINT, before SIGTERM: braking to rest takes up to two seconds

# Argument -> what it is read as, its default ("": as in the parameter file) and its meaning.
ARGUMENTS = {
    "robot": (str, "rover", "A shipped robot's name, or the path of a robot file."),
    "simulated": (bool, "true", "Start wm_sim as the robot; false where real drivers run."),
    "seed": (int, "", "World, sensor noise and planner."),
    "shadow": (bool, "", "Do everything but send setpoints."),
    "output": (str, "", "bridge, twist_stamped, twist or joint_trajectory: where setpoints go."),
    "candidates": (int, "", "Candidates an iteration; 0: the bundle's."),
    "backend": (str, "", "Which engine runs the model: auto, native, onnxruntime, ..."),
    "bundle": (str, "", "Path of the bundle; absent: the one shipped for the robot."),
    "record": (str, "", "A folder for dumps of the ring buffer; absent: no recorder."),
    "viz": (bool, "false", "Start wm_viz: markers and transforms for RViz and Foxglove."),
    "parameters": (str, "", "A parameter file; absent: this package's config/<robot>.yaml."),
}
OF_THE_LAUNCH = ("simulated", "viz", "parameters")  # the others are nodes' parameters
PARAMETER_OF = {"record": "folder"}  # where the argument has another name
FOLLOWS_OUTPUT = {"bridge", "input"}  # what the supervisor waits for, and what drives wm_sim


def generate_launch_description() -> LaunchDescription:
    check_security(os.environ)  # before anything starts: no robot is in the clear by a misspelling
    declared = [
        DeclareLaunchArgument(name, default_value=default, description=meaning)
        for name, (_, default, meaning) in ARGUMENTS.items()
    ]
    wanted = environment()
    variables = [
        SetEnvironmentVariable(name, value)
        for name, value in wanted.items()
        if os.environ.get(name) != value
    ]
    return LaunchDescription([*declared, *variables, OpaqueFunction(function=nodes)])


def nodes(context) -> list[Node]:
    """The processes, once the arguments' values are known."""
    given = {
        name: read(name, context.launch_configurations[name])
        for name in ARGUMENTS
        if context.launch_configurations.get(name, "") != ""
    }
    file = parameter_file(given)
    listed = processes(**{name: value for name, value in given.items() if name != "parameters"})
    chosen = {PARAMETER_OF.get(n, n) for n in given if n not in OF_THE_LAUNCH}
    if "output" in chosen:
        chosen |= FOLLOWS_OUTPUT
    made = []
    for process in listed:
        values = dict(process.parameters)
        if file is not None:  # which has the others
            values = {name: value for name, value in values.items() if name in chosen}
        made.append(
            Node(
                package="edge_wm_ros",
                executable=process.name,
                name=process.name,
                parameters=[source for source in (file and str(file), values) if source],
                output="screen",
                respawn=process.respawn,
                respawn_delay=RESPAWN_AFTER_S,
                sigterm_timeout=STOP_WITHIN_S,
            )
        )
    return made


def read(name: str, text: str) -> Value:
    """An argument's value, or an error that says what it must be."""
    kind = ARGUMENTS[name][0]
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}: must be true or false, found {text!r}; correct the argument")
        return text.lower() == "true"
    if kind is int and not text.removeprefix("-").isdecimal():
        raise ValueError(f"{name}: must be a whole number, found {text!r}; correct the argument")
    return kind(text)


def parameter_file(given: dict[str, Value]) -> Path | None:
    """The file that was asked for, or the robot's own; None: the robot has none here."""
    if "parameters" in given:
        file = Path(str(given["parameters"]))
        if not file.is_file():
            raise ValueError(f"parameters: {file} must be a file, found none; correct the path")
        return file
    own = CONFIG / f"{Path(str(given['robot'])).stem}.yaml"
    return own if own.is_file() else None
