"""The robot file: what is read, and every way in which one is refused."""
# ruff: noqa: E501 - in the tables below each case is one line, so that columns can be compared

from __future__ import annotations

import contextlib
import copy
import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_wm import shipped
from edge_wm.errors import RobotFileError, UsageError
from edge_wm.robot import Box, Link, Sphere, checks, document, find_robot, load_robot, parse_robot

ROVER = (shipped.folder("robots") / "rover.yaml").read_text(encoding="utf-8")
ARM = (shipped.folder("robots") / "arm.yaml").read_text(encoding="utf-8")


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) >= 1, f"the test's own text is gone: {old}"
    return text.replace(old, new, 1)


def test_rover_is_what_its_file_says() -> None:
    rover = load_robot(find_robot("rover"))
    assert rover.name == "rover"
    assert list(rover.streams) == ["camera", "wheels", "imu", "scan", "odometry"]
    camera = rover.streams["camera"]
    assert (camera.shape, camera.dtype, camera.period_ns) == ((64, 64, 3), "uint8", 50_000_000)
    assert (camera.max_age_ns, camera.max_skew_ns) == (250_000_000, 60_000_000)
    assert camera.extrinsics is not None
    assert camera.extrinsics.xyz == (0.14, 0.0, 0.16)
    assert rover.streams["wheels"].shape == (2, 2)
    assert rover.streams["odometry"].derived_from == ("wheels", "imu")
    beams = rover.streams["scan"].beam_angles()
    assert beams[1] - beams[0] == pytest.approx(math.radians(3.0), abs=1e-8)
    assert rover.axis_names == ("base.vx", "base.wz")
    vx = rover.axes[0]
    assert (vx.velocity_min, vx.velocity_max, vx.braking, vx.jerk) == (-0.25, 0.7, 2.0, 20.0)
    assert (vx.position_min, vx.effort_max) == (-math.inf, math.inf)
    assert (rover.plan_period_ns, rover.setpoint_period_ns) == (50_000_000, 10_000_000)
    assert (rover.actuation_delay_ns, rover.dead_man_ns) == (40_000_000, 50_000_000)
    assert rover.joint_stream("right_wheel") == (rover.streams["wheels"], 1)
    assert rover.joint_stream("third_wheel") is None
    assert rover.text == ROVER
    assert rover.sha256 == hashlib.sha256(ROVER.encode()).hexdigest()


def test_arm_is_what_its_file_says() -> None:
    arm = load_robot(find_robot("arm"))
    assert arm.kinematics is not None
    assert arm.kinematics.moving == arm.axis_names == ("shoulder", "elbow")
    assert arm.workspace == (Box("base_link", (-0.25, -0.7, 0.0), (0.7, 0.7, 0.5)),)
    assert arm.keep_out == (Sphere("base_link", (0.3, 0.4, 0.15), 0.08),)
    assert (arm.axes[0].position_min, arm.axes[0].effort_max) == (-2.6, 12.0)
    assert arm.base is None
    assert arm.pose_stream is None


def test_a_serial_link_says_what_it_is_or_takes_the_defaults():
    text = find_robot("rover").read_text(encoding="utf-8")
    whole = "- {kind: serial, port: /dev/ttyACM0, baud: 2000000, axes: [base.wz, base.vx], "
    whole += "current_max: 12, temperature_max: 70, bus_voltage: [18, 30]}"
    robot = parse_robot(text.replace("- kind: simulated", whole), "x")
    assert robot.links == (
        Link("serial", "/dev/ttyACM0", 2_000_000, ("base.wz", "base.vx"), 12.0, 70.0, (18.0, 30.0)),
    )
    short = "- {kind: serial, port: /dev/ttyACM0}"
    robot = parse_robot(text.replace("- kind: simulated", short), "x")
    assert robot.links == (
        Link("serial", "/dev/ttyACM0", 1_000_000, ("base.vx", "base.wz"), 40.0, 90.0, (6.0, 60.0)),
    )


def test_wheels_and_twist_are_inverse() -> None:
    base = load_robot(find_robot("rover")).base
    assert base is not None
    left, right = base.wheel_speeds(0.3, 1.0)
    assert (left, right) == pytest.approx(((0.3 - 0.13) / 0.06, (0.3 + 0.13) / 0.06))
    assert base.twist(left, right) == pytest.approx((0.3, 1.0))
    assert base.twist(2.0, 2.0) == pytest.approx((0.12, 0.0))


# One change to a shipped file, and the whole error that it must give.
ROVER_REFUSED = [
    # not the plain YAML that is read here
    ("jerk: 20.0", "jerk: 20.0\n    jerk: 20.0", "line 81: the key 'jerk' stands here twice; keep one"),
    ("jerk: 20.0", "jerk: &a 20.0", "line 80: anchors and aliases are not used here: write the value out"),
    ("jerk: 20.0", "jerk: *a", "line 80: anchors and aliases are not used here: write the value out"),
    ("jerk: 20.0", "jerk: !!float 20.0", "line 80: tags are not used here: write the plain value"),
    ("jerk: 20.0", "jerk: {", "line 82: must be YAML, but expected ',' or '}', but got ':'; mend the line"),
    ("name: rover", "name: rover\n7: x", "line 5: a key must be plain text; put it in quotes"),
    ("name: rover", "name: \x00", "must be YAML, but special characters are not allowed; mend the line"),
    # fields: missing, unknown, of another type
    ("jerk: 20.0", "", "axes.base.vx.jerk is missing; add it: a number at least 1e-06 (see docs/robot-file.md)"),
    ("jerk: 20.0", "jerks: 20.0", "axes.base.vx.jerks is not a field that edge-wm knows; did you mean 'jerk'?"),
    ("jerk: 20.0", "jerk: 20.0\n    wobble: 3", "axes.base.vx.wobble is not a field that edge-wm knows; known here: kind, unit, velocity, acceleration, braking, jerk, rest_speed, position, effort"),
    ("velocity: [-0.25, 0.7]", "velocity: [-0.25, fast]", "axes.base.vx.velocity[1] must be a number, got 'fast'; see docs/robot-file.md"),
    ("velocity: [-0.25, 0.7]", "velocity: [-0.25]", "axes.base.vx.velocity must be a list of 2 numbers, got [-0.25]; see docs/robot-file.md"),
    ("velocity: [-0.25, 0.7]", "velocity: 0.7", "axes.base.vx.velocity must be a list of 2 numbers, got 0.7; see docs/robot-file.md"),
    ("velocity: [-0.25, 0.7]", "velocity: [-.inf, 0.7]", "axes.base.vx.velocity[0] must be a number between -1e+06 and 1e+06, got -inf; write it in the unit that is asked for; leave a limit out where there is none"),
    ("jerk: 20.0", "jerk: .nan", "axes.base.vx.jerk must be a number between -1e+06 and 1e+06, got nan; write it in the unit that is asked for; leave a limit out where there is none"),
    ("jerk: 20.0", "jerk: 1:30", "axes.base.vx.jerk must be a number at least 1e-06, got '1:30'; see docs/robot-file.md"),
    ("jerk: 20.0", "jerk: yes", "axes.base.vx.jerk must be a number at least 1e-06, got 'yes'; see docs/robot-file.md"),
    ("jerk: 20.0", "jerk: true", "axes.base.vx.jerk must be a number at least 1e-06, got True; see docs/robot-file.md"),
    ("jerk: 20.0", "jerk: 0", "axes.base.vx.jerk must be a number at least 1e-06, got 0; see docs/robot-file.md"),
    ("kind: twist", "kind: twisted", "axes.base.vx.kind must be one of 'position', 'velocity', 'effort', 'twist', got 'twisted'; see docs/robot-file.md"),
    ("shape: [64, 64, 3]", "shape: [64, 6.5, 3]", "streams.camera.shape[1] must be a whole number at least 1 and at most 1000000, got 6.5; see docs/robot-file.md"),
    ("  camera:", "  my camera!:", "a key of streams must be a name of letters, digits, '_', '.', '-' that begins with a letter, got 'my camera!'; rename it"),
    ("- kind: simulated", "- simulated", "links[0] must be a mapping, got 'simulated'; see docs/robot-file.md"),
    ("kind: simulated", "kind: usb", "links[0].kind must be one of 'simulated', 'serial', got 'usb'; see docs/robot-file.md"),
    ("- kind: simulated", "- {kind: simulated, port: /dev/ttyACM0}", "links[0].port must be absent for kind simulated, got '/dev/ttyACM0'; remove the field, or correct the kind"),
    ("- kind: simulated", "- {kind: simulated, current_max: 3}", "links[0].current_max must be absent for kind simulated, got 3.0; remove the field, or correct the kind"),
    ("- kind: simulated", "- kind: serial", "links[0].port must be given for kind serial, got nothing; name the port, for instance /dev/ttyACM0"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, baud: 300}", "links[0].baud must be a whole number at least 9600 and at most 20000000, got 300; see docs/robot-file.md"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, axes: []}", "links[0].axes must be 1 to 8 names of axes, got []; name them in the board's order; a board drives no more"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, axes: [base.vy]}", "links[0].axes[0] must be an axis, got 'base.vy'; axes here: base.vx, base.wz"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, axes: [base.vx, base.vx]}", "links[0].axes[1] must be named once, got 'base.vx'; remove the second"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, bus_voltage: [20, 10]}", "links[0].bus_voltage must be [lowest, highest] in V, within 0 to 65, got [20.0, 10.0]; write what the motors' supply may have"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, temperature_max: 201}", "links[0].temperature_max must be above 0 and at most 200 (degC), got 201.0; write what the motors' windings bear"),
    ("- kind: simulated", "- {kind: serial, port: /dev/x, current_max: 66}", "links[0].current_max must be at most 65 (A), got 66.0; the link carries no more"),
    ("format: edge-wm/robot/1", "format: edge-wm/robot/2", "format must be 'edge-wm/robot/1', got 'edge-wm/robot/2'; this version of edge-wm reads no other; see docs/robot-file.md"),
    # units
    ("unit: m/s\n", "unit: km/h\n", "axes.base.vx.unit must be one of 'rad', 'm', 'rad/s', 'm/s', 'N m', 'N', got 'km/h'; see docs/robot-file.md"),
    ("unit: m/s\n", "unit: rad/s\n", "axes.base.vx.unit must be 'm/s', got 'rad/s'; convert the limits to SI"),
    ("unit: rgb8", "unit: bgr8", "streams.camera.unit must be 'rgb8' for type image, got 'bgr8'; edge-wm reads no other: convert in the driver"),
    ("unit: rad\n", "unit: m\n", "streams.wheels.unit must be 'rad' or 'SI', since base.left_wheel is measured in rad, got 'm'; correct the unit of one of them"),
    ("angle_min: -3.14159265", "angle_min: -180", "streams.scan.angle_max must be above angle_min = -180 by at most a full turn (rad), got 3.08923278; angles are rad, counter-clockwise"),
    # limits that cannot be
    ("velocity: [-0.25, 0.7]", "velocity: [0.7, -0.25]", "axes.base.vx.velocity[1] must be above velocity[0] = 0.7, got -0.25; write [min, max]"),
    ("velocity: [-0.25, 0.7]", "velocity: [0.1, 0.7]", "axes.base.vx.velocity must be a range that holds 0, got [0.1, 0.7]; the robot must be able to stand still"),
    ("rest_speed: 0.02", "rest_speed: 0.7", "axes.base.vx.rest_speed must be below the largest speed, 0.7, got 0.7; else the robot is always at rest"),
    ("footprint_radius: 0.18", "footprint_radius: 0.12", "base.footprint_radius must be at least half of track_width = 0.26, got 0.12; the circle must hold the whole robot, wheels included"),
    ("range_max: 5.0", "range_max: 0.4", "streams.scan.range_max must be above 0.475 m, where stopping from 0.7 m/s begins, got 0.4; lower axes.base.vx.velocity, or use a scanner that sees further"),
    ("range_max: 5.0", "range_max: 0.05", "streams.scan.range_max must be above range_min = 0.05, got 0.05; correct the scanner's range (m)"),
    ("max_age_ms: 250", "max_age_ms: 49", "streams.camera.max_age_ms must be at least one period (50 ms at 20 Hz), got 49.0; else the stream is stale between any two samples"),
    ("max_skew_ms: 60", "max_skew_ms: 49", "streams.camera.max_skew_ms must be at least one period (50 ms at 20 Hz), got 49.0; the newest sample may be one period older than another stream's"),
    ("dead_man_ms: 50", "dead_man_ms: 39", "setpoint_rate_hz must be at least 102.564 (4 setpoints in dead_man_ms = 39), got 100.0; else one lost setpoint stops the robot; raise one of the two"),
    ("plan_rate_hz: 20", "plan_rate_hz: 101", "plan_rate_hz must be at most setpoint_rate_hz = 100, got 101.0; setpoints are played from plans, so they come more often"),
    ("actuation_delay_ms: 40", "actuation_delay_ms: 1001", "actuation_delay_ms must be at most 1000, got 1001.0; a robot that reacts later than that cannot be driven by setpoints"),
    # names without their thing
    ("joints: [left_wheel, right_wheel]", "joints: [left_wheel, right]", "base.right_wheel must be a joint that one stream of type joint_state measures, got 'right_wheel'; measured joints: left_wheel, right; add it to that stream's joints, or correct the name"),
    ("joints: [left_wheel, right_wheel]", "joints: [left_wheel, left_wheel]", "streams.wheels.joints[1] must be named once, got 'left_wheel'; remove the second"),
    ("right_wheel: right_wheel", "right_wheel: left_wheel", "base.right_wheel must be another joint than left_wheel, got 'left_wheel'; name both"),
    ("stream: scan", "stream: camera", "stopping.stream must be a stream of type range_scan, got 'camera'; streams here: camera, wheels, imu, scan, odometry"),
    ("derived_from: [wheels, imu]", "derived_from: [wheels, gyro]", "streams.odometry.derived_from[1] must be a stream of type joint_state or imu, got 'gyro'; streams here: camera, wheels, imu, scan, odometry"),
    ("derived_from: [wheels, imu]", "derived_from: [imu]", "streams.odometry.derived_from must be one joint_state stream with left_wheel and right_wheel, and at most one imu, got ['imu']; name the streams that measure the wheels and the turning"),
    ("rate_hz: 100\n    derived", "rate_hz: 50\n    derived", "streams.odometry.rate_hz must be that of wheels (100), got 50.0; one odometry sample comes of each wheel sample"),
    ("parent: base_link, xyz: [0.14", "parent: bse_link, xyz: [0.14", "streams.camera.extrinsics.parent must be one of base_link, imu_link, scan_link, world, got 'bse_link'; name the frame that the sensor is mounted on"),
    ("extrinsics: {parent: base_link, xyz: [0.14, 0.0, 0.16], rpy: [0.0, 0.12, 0.0]}", "", "streams.camera.extrinsics must be given for type image: parent, xyz (m), rpy (rad), got nothing; measure where the sensor sits"),
    ("parent: base_link, xyz: [0.0, 0.0, 0.12]", "parent: camera_link, xyz: [0.0, 0.0, 0.12]", "streams.scan.extrinsics.parent must be the base's frame (base_link), since stopping uses it, got 'camera_link'; give its place on the base"),
    ("frame: camera_link", "frame: base_link", "streams.camera.frame must be the sensor's own frame, since extrinsics place it, got 'base_link'; give the frame a name of its own"),
    ("    frame: base_link\n    max_age_ms: 60", "    frame: bse_link\n    max_age_ms: 60", "streams.wheels.frame must be one of base_link, world, or placed by extrinsics, got 'bse_link'; correct the name"),
    ("    frame: odom\n", "", "streams.odometry.frame must be the world frame's name, got nothing; usually 'odom'"),
    ("  base.wz:", "  base.vy:", "axes must be with base.vx and base.wz, since there is a differential base, got ['base.vx', 'base.vy']; add the missing axis"),
    # fields of another type of stream
    ("    shape: [64, 64, 3]\n", "", "streams.camera.shape must be given for type image, got nothing; add the field"),
    ("    shape: [64, 64, 3]", "    shape: [64, 64, 3]\n    range_max: 5", "streams.camera.range_max must be absent for type image, got 5.0; remove the field, or correct the type"),
    ("unit: rad\n", "unit: rad\n    noisy: false\n", "streams.wheels.noisy must be absent for type joint_state, got False; remove the field, or correct the type"),
    ("unit: rgb8", "unit: rgb8\n    noisy: 0", "streams.camera.noisy must be true or false, got 0; see docs/robot-file.md"),
    ("shape: [64, 64, 3]", "shape: [64, 64]", "streams.camera.shape must be [height, width, 3], got [64, 64]; images are RGB"),
    ("shape: [120]", "shape: [1]", "streams.scan.shape must be at least [2], got [1]; a scan has several beams"),
    ("shape: [120]", "shape: [12, 10]", "streams.scan.shape must be a list of one number, got [12, 10]; the data is one row"),
    # limits that nothing enforces
    ("braking: 2.0 ", "effort: 9.0\n    braking: 2.0 ", "axes.base.vx.effort is a limit that nothing would enforce: a twist commands no effort; remove it"),
    ("braking: 2.0 ", "position: [0, 1]\n    braking: 2.0 ", "axes.base.vx.position is a limit that nothing would enforce: a base's place is limited by regions; remove it, use workspace and keep_out"),
    ("keep_out: []", "keep_out: [{frame: map, sphere: {center: [0, 0], radius: 1}}]", "keep_out[0] is a limit that nothing would enforce: nothing says where the robot is in frame 'map'; use one of: odom"),
    ("keep_out: []", "keep_out: [{frame: odom, sphere: {center: [0, 0, 0], radius: 1}}]", "keep_out[0].sphere.center must be a list of 2 numbers (x, y of the base), got [0.0, 0.0, 0.0]; correct it"),
    ("keep_out: []", "keep_out: [{frame: odom}]", "keep_out[0] must be with one of box and sphere, got nothing; write one of them"),
    ("workspace: []", "workspace: [{frame: odom, box: {lower: [0, 0], upper: [1, 0]}}]", "workspace[0].box.upper[1] must be above lower[1] = 0, got 0.0; write the corner with the larger numbers"),
]  # fmt: skip

ARM_REFUSED = [
    ("joints: [shoulder, elbow]", "joints: [shoulder]", "axes.elbow must be a joint that one stream of type joint_state measures, got 'elbow'; measured joints: shoulder; add it to that stream's joints, or correct the name"),
    ("position: [-2.6, 2.6]", "position: [2.6, -2.6]", "axes.shoulder.position[1] must be above position[0] = 2.6, got -2.6; write [min, max]"),
    ("    position: [-2.6, 2.6]\n", "", "axes.shoulder.position must be given for kind position, unless kinematics has the joint as continuous, got nothing; add [min, max]"),
    ("kind: position\n    unit: rad", "kind: position\n    unit: N m", "axes.shoulder.unit must be 'rad' or 'm' for kind position, got 'N m'; the unit is that of the commanded number"),
    ("kind: position\n    unit: rad", "kind: twist\n    unit: rad/s", "base must be given, since axes.shoulder is of kind twist, got nothing; describe the base"),
    ("kind: position\n    unit: rad", "kind: velocity\n    unit: rad/s", "axes.shoulder.position is a limit that nothing would enforce: the position of an axis of kind velocity is not commanded; use kind position, or remove the limit and secure the joint by hardware stops"),
    ("kind: position\n    unit: rad\n    position: [-2.6, 2.6]", "kind: velocity\n    unit: rad/s", "workspace[0] is a limit that nothing would enforce: axis shoulder is of kind velocity, so where it will be is not known; use kind position, or remove the region"),
    ("kind: position\n    unit: rad\n    position: [-2.6, 2.6]\n", "kind: effort\n    unit: N m\n", "workspace[0] is a limit that nothing would enforce: axis shoulder is of kind effort, so where it will be is not known; use kind position, or remove the region"),
    ("axis: [0.0, 0.0, 1.0]", "axis: [0.0, 0.0, 2.0]", "kinematics.joints.shoulder.axis must be a direction of length 1 for kind revolute, got [0.0, 0.0, 2.0]; write the axis that it turns about or slides along"),
    ("      axis: [0.0, 0.0, 1.0]\n", "", "kinematics.joints.shoulder.axis must be a direction of length 1 for kind revolute, got nothing; write the axis that it turns about or slides along"),
    ("kind: fixed", "kind: fixed\n      axis: [1, 0, 0]", "kinematics.joints.tool.axis must be absent for kind fixed, got [1.0, 0.0, 0.0]; remove it"),
    ("parent: upper_arm", "parent: tool", "kinematics.joints.elbow.parent must be root (base_link) or the child of a joint that leads there, got 'tool'; connect the tree"),
    ("child: tool", "child: forearm", "kinematics.joints.tool.child must be a frame with one parent, got 'forearm'; rename one"),
    ("{frame: tool,", "{frame: hand,", "kinematics.spheres[6].frame must be a frame of the tree, got 'hand'; frames: base_link, forearm, tool, upper_arm"),
    ("kind: revolute\n      parent: upper_arm", "kind: prismatic\n      parent: upper_arm", "axes.elbow.unit must be one of a prismatic joint (m), got 'rad'; correct it, or kinematics.joints.elbow.kind"),
    ("kind: revolute\n      parent: upper_arm", "kind: fixed\n      parent: upper_arm", "kinematics.joints.elbow.axis must be absent for kind fixed, got [0.0, 0.0, 1.0]; remove it"),
    ("center: [0.3, 0.4, 0.15], radius", "center: [0.3, 0.4], radius", "keep_out[0].sphere.center must be a list of 3 numbers (x, y, z), got [0.3, 0.4]; correct it"),
    ("frame: base_link             # a post", "frame: odom             # a post", "keep_out[0] is a limit that nothing would enforce: nothing says where the robot is in frame 'odom'; use one of: base_link"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "error"), ROVER_REFUSED)
def test_rover_refused(old: str, new: str, error: str) -> None:
    with pytest.raises(RobotFileError) as caught:
        parse_robot(changed(ROVER, old, new), "rover.yaml")
    assert str(caught.value) == f"robot file rover.yaml: {error}"


@pytest.mark.parametrize(("old", "new", "error"), ARM_REFUSED)
def test_arm_refused(old: str, new: str, error: str) -> None:
    with pytest.raises(RobotFileError) as caught:
        parse_robot(changed(ARM, old, new), "arm.yaml")
    assert str(caught.value) == f"robot file arm.yaml: {error}"


def without(text: str, first: str, until: str) -> str:
    start = text.index(first)
    return text[:start] + text[text.index(until, start) :]


def test_sphere_on_a_joint_that_no_axis_moves() -> None:
    text = without(ARM, "  elbow:\n    kind: position", "workspace:")
    with pytest.raises(RobotFileError) as caught:
        parse_robot(text, "arm.yaml")
    assert str(caught.value) == (
        "robot file arm.yaml: kinematics.spheres[3].frame must be a frame whose place the axes "
        "decide, got 'forearm'; joint elbow moves it and is no axis; make it one, or fixed"
    )


def test_region_without_spheres_or_pose() -> None:
    text = without(ARM, "    - {frame: upper_arm", "\naxes:")
    with pytest.raises(RobotFileError) as caught:
        parse_robot(changed(text, "spheres:  ", "spheres: []  "), "arm.yaml")
    assert "workspace[0] is a limit that nothing would enforce: the body has no spheres" in str(
        caught.value
    )
    text = without(ARM, "kinematics:", "axes:")
    with pytest.raises(RobotFileError) as caught:
        parse_robot(text, "arm.yaml")
    assert str(caught.value).endswith("add an odometry stream and a base, or kinematics")


def test_an_effort_axis_needs_its_limit() -> None:
    text = changed(
        ARM,
        "kind: position\n    unit: rad\n    position: [-2.6, 2.6]\n",
        "kind: effort\n    unit: N m\n",
    )
    text = without(text, "workspace:", "plan_rate_hz")
    assert parse_robot(text, "arm.yaml").axes[0].effort_max == 12.0
    with pytest.raises(RobotFileError) as caught:
        parse_robot(changed(text, "    effort: 12.0\n", ""), "arm.yaml")
    assert str(caught.value) == (
        "robot file arm.yaml: axes.shoulder.effort must be given for kind effort, got nothing; "
        "add the limit"
    )


def test_twist_axis_that_the_base_does_not_have() -> None:
    text = ROVER.replace("\nworkspace: []", "\n  base.vy: {kind: twist, unit: m/s, velocity: "
                         "[-1, 1], acceleration: 1, braking: 1, jerk: 1, rest_speed: 0.1}\n"
                         "workspace: []", 1)  # fmt: skip
    with pytest.raises(RobotFileError) as caught:
        parse_robot(text, "rover.yaml")
    assert str(caught.value) == (
        "robot file rover.yaml: axes.base.vy must be base.vx or base.wz for kind twist (a "
        "differential base has no other), got 'base.vy'; rename or remove the axis"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max_age_ms: 250", "max_age_ms: 50"),
        ("dead_man_ms: 50", "dead_man_ms: 40"),
        ("plan_rate_hz: 20", "plan_rate_hz: 100"),
        ("footprint_radius: 0.18", "footprint_radius: 0.13"),
        ("velocity: [-0.25, 0.7]", "velocity: [0, 0.7]"),
        ("range_max: 5.0", "range_max: 0.476"),
        ("jerk: 20.0", "jerk: 2e1"),
        ("actuation_delay_ms: 40", "actuation_delay_ms: 0"),
        ("derived_from: [wheels, imu]", "derived_from: [wheels]"),
        ("keep_out: []", "keep_out: [{frame: odom, sphere: {center: [3, 0], radius: 1}}]"),
        ("workspace: []", "workspace: [{frame: odom, box: {lower: [-9, -9], upper: [9, 9]}}]"),
        ("stamp: sensor", "stamp: arrival"),
        ("links:\n  - kind: simulated", "links: []"),
    ],
)
def test_rover_allowed_at_the_boundary(old: str, new: str) -> None:
    parse_robot(changed(ROVER, old, new), "rover.yaml")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "must be a mapping that begins with 'format: edge-wm/robot/1', got nothing; see docs/robot-file.md"),
        ("- a", "must be a mapping that begins with 'format: edge-wm/robot/1', got ['a']; see docs/robot-file.md"),
        ("a: " + "[" * 1000, "line 1: nested deeper than 16 levels"),
        ("x" * 300_000, "must be at most 262144 bytes, got 300000 characters; is this the right file?"),
        ("name: x", "format must be 'edge-wm/robot/1', got nothing; this version of edge-wm reads no other; see docs/robot-file.md"),
        ("format: edge-wm/robot/1", "name is missing; add it: a name of letters, digits, '_', '.', '-' that begins with a letter (see docs/robot-file.md)"),
    ],
)  # fmt: skip
def test_not_a_robot_file(text: str, error: str) -> None:
    with pytest.raises(RobotFileError) as caught:
        parse_robot(text, "x.yaml")
    assert str(caught.value) == f"robot file x.yaml: {error}"


def damaged() -> list[str]:
    """The shipped files with each line lost in turn, and cut off in many places."""
    texts = [ARM[:length] for length in range(0, len(ARM), 31)]
    for text in (ROVER, ARM):
        lines = text.splitlines(keepends=True)
        texts += ["".join(lines[:index] + lines[index + 1 :]) for index in range(len(lines))]
    return texts


def test_damaged_anywhere_without_a_foreign_exception() -> None:
    refused = 0
    for text in damaged():
        with contextlib.suppress(RobotFileError):
            parse_robot(text, "damaged.yaml")
            continue
        refused += 1
    assert refused > 150


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    yield path
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, entry in entries:
        yield from places(entry, (*path, key))


WRONG: list[Any] = [
    None, [], {}, "x", "", -1, 0, 1e308, -1e308, 5e-324, True, 10**400, [1, 2], [None], {"a": 1},
]  # fmt: skip


@pytest.mark.parametrize("text", [ROVER, ARM], ids=["rover", "arm"])
def test_any_value_in_any_place_without_a_foreign_exception(text: str) -> None:
    """And what is accepted is of a size that can be computed with."""
    values = document.read(text, "wrong.yaml")
    refused = 0
    for *parents, last in list(places(values))[1:]:
        for wrong in WRONG:
            damaged = copy.deepcopy(values)
            functools.reduce(lambda part, key: part[key], parents, damaged)[last] = wrong
            with contextlib.suppress(RobotFileError):
                part = document.convert(damaged, "wrong.yaml")
                robot = checks.checked(part, sha256="", text="", file="wrong.yaml")
                assert all(0 < s.period_ns <= 10**11 for s in robot.streams.values())
                assert all(1e-6 <= a.jerk <= 1e6 for a in robot.axes)
                continue
            refused += 1
    assert refused > 1000


def test_files_on_disk(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must be a file, found none; correct the path$"):
        load_robot(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="must be a file"):
        load_robot(tmp_path)
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RobotFileError) as caught:
        load_robot(binary)
    assert str(caught.value) == (
        f"robot file {binary}: must be UTF-8 text, found byte 0xff at offset 6; "
        "is this the right file?"
    )
    large = tmp_path / "large.yaml"
    large.write_bytes(b"# " + b"x" * 10_000_000)
    with pytest.raises(RobotFileError, match="must be at most 262144 bytes"):
        load_robot(large)
    windows = tmp_path / "windows.yaml"
    windows.write_bytes(ROVER.replace("\n", "\r\n").encode())
    robot = load_robot(windows)
    assert robot.sha256 == hashlib.sha256(windows.read_bytes()).hexdigest()


def test_find_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_robot("rover") == shipped.folder("robots") / "rover.yaml"
    mine = tmp_path / "rover.yaml"
    mine.write_text(ROVER)
    assert find_robot(str(mine)) == mine
    monkeypatch.chdir(tmp_path)
    assert find_robot("rover.yaml") == Path("rover.yaml")
    assert find_robot("rover") == shipped.folder("robots") / "rover.yaml"
    with pytest.raises(UsageError) as caught:
        find_robot("rovr")
    shipped_names = ", ".join(sorted(f.stem for f in shipped.folder("robots").glob("*.yaml")))
    assert str(caught.value) == (
        f"robot 'rovr': must be one of {shipped_names} or the path of a robot file, found "
        "neither; correct the name, or write ./NAME.yaml"
    )
    with pytest.raises(UsageError) as caught:
        find_robot("./none.yaml")
    assert str(caught.value) == (
        "robot file ./none.yaml: must be a file, found none; correct the path"
    )


def test_the_document_describes_every_field() -> None:
    text = (Path(__file__).parents[2] / "docs" / "robot-file.md").read_text(encoding="utf-8")
    for part in vars(document).values():
        if isinstance(part, type) and issubclass(part, msgspec.Struct):
            for field in msgspec.structs.fields(part):
                assert f"`{field.name}`" in text, f"{part.__name__}.{field.name}"
