"""Goals as a person writes them: `--goal x=0.3,y=0.2`, `--goal shoulder=0.5,elbow=-1.2`."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from edge_wm.errors import UsageError
from edge_wm.guard.region import clearances
from edge_wm.robot import Robot, postures_at, sphere_centers
from edge_wm.types import Float64, Goal, JointGoal, PoseGoal

GoalOption = Annotated[
    list[str] | None,
    typer.Option(
        "--goal",
        metavar="NAME=NUMBER,...",
        help="Where to go: joints by name (rad), or a point x,y (m; a base also yaw, rad). May be "
        "repeated; then one after the other, and again. The world's own goals if absent.",
    ),
]


def goals_of(texts: list[str], robot: Robot) -> tuple[Goal, ...]:
    """The goals that `texts` name, for `robot`.

    Raises: UsageError, with the text and what it must be.
    """
    return tuple(_goal(text, robot) for text in texts)


def _goal(text: str, robot: Robot) -> Goal:
    numbers = _numbers(text)
    joints = [axis.name for axis in robot.axes if axis.kind == "position"]
    point = {"x", "y"} <= set(numbers)
    kinematics = robot.kinematics
    reaches = kinematics is not None and list(kinematics.moving) == joints
    if robot.base is not None and point and set(numbers) <= {"x", "y", "yaw"}:
        frame = robot.pose_stream.frame if robot.pose_stream else "odom"
        return PoseGoal(numbers["x"], numbers["y"], numbers.get("yaw"), frame)
    if joints and set(numbers) == set(joints):
        return _posture(text, numbers, robot)
    if reaches and point and set(numbers) <= {"x", "y", "z"}:
        return _point(text, numbers, robot)
    choices = ["x and y, maybe yaw"] if robot.base is not None else []
    choices += [" and ".join(joints)] if joints else []
    choices += ["x and y, maybe z, of the tool"] if reaches else []
    raise UsageError(
        f"--goal {text}: for the robot {robot.name} it must name {', or '.join(choices)}, "
        f"found {', '.join(numbers)}"
    )


def _numbers(text: str) -> dict[str, float]:
    numbers = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            numbers[name.strip()] = float(number)
        except ValueError:
            numbers[name.strip()] = np.nan
        if not np.isfinite(numbers[name.strip()]):
            raise UsageError(f"--goal {text}: must be NAME=NUMBER,..., found {part!r}")
    return numbers


def _posture(text: str, numbers: dict[str, float], robot: Robot) -> JointGoal:
    for axis in robot.axes:
        value = numbers.get(axis.name, 0.0)
        if axis.kind == "position" and not axis.position_min <= value <= axis.position_max:
            raise UsageError(
                f"--goal {text}: {axis.name} must be from {axis.position_min:g} to "
                f"{axis.position_max:g}, found {value:g}"
            )
    wanted = [numbers[axis.name] for axis in robot.axes if axis.kind == "position"]
    posture = np.array(wanted)
    if (why := _breach(robot, posture)) is not None:
        raise UsageError(f"--goal {text}: the arm cannot stand there: {why}")
    return JointGoal(posture)


def _point(text: str, numbers: dict[str, float], robot: Robot) -> JointGoal:
    """The free posture nearest to zero that puts the tool there."""
    found = postures_at(robot, numbers["x"], numbers["y"], numbers.get("z"))
    if not found:
        raise UsageError(f"--goal {text}: the tool cannot reach that point within the limits")
    reasons = []
    for posture in found:
        why = _breach(robot, posture)
        if why is None:
            return JointGoal(posture)
        reasons.append(why)
    raise UsageError(f"--goal {text}: the arm cannot stand there: {reasons[0]}")


def _breach(robot: Robot, posture: Float64) -> str | None:
    """Which rule of the robot file the body would break there, in words."""
    kinematics = robot.kinematics
    if kinematics is None or len(kinematics.moving) != len(posture):
        return None
    centers = sphere_centers(kinematics, posture[None])
    radii = np.array([sphere.radius for sphere in kinematics.spheres])
    for reason, (clearance,) in clearances(robot.workspace, robot.keep_out, centers, radii):
        if not clearance >= 0.0:
            return f"{reason.name}, a part of its body is {-clearance:.3f} m too far"
    return None
