"""from-urdf: what a URDF gives arrives in the robot file, and everything else is FILL_IN."""
# ruff: noqa: E501 - in the table below each case is one line, so that columns can be compared

from __future__ import annotations

import re

import numpy as np
import pytest

from edge_wm.errors import RobotFileError
from edge_wm.robot import frame_poses, parse_robot
from edge_wm.robot.urdf import MAX_BYTES, robot_file

URDF = b"""<?xml version="1.0"?>
<robot name="picker">
  <material name="gray"><color rgba="0.5 0.5 0.5 1"/></material>
  <link name="plate"/>
  <link name="arm">
    <collision><geometry><cylinder radius="0.04" length="0.3"/></geometry></collision>
  </link>
  <link name="slide"/>
  <link name="hand"/>
  <link name="finger"/>
  <link name="wrist"/>
  <joint name="turn" type="revolute">
    <parent link="plate"/><child link="arm"/>
    <origin xyz="0 0 0.1" rpy="0 0 1.5707963267948966"/>
    <axis xyz="0 0 2"/>
    <limit lower="-1.5" upper="2.5" effort="30" velocity="2.2"/>
  </joint>
  <joint name="reach" type="prismatic">
    <parent link="arm"/><child link="slide"/>
    <origin xyz="0.2 0 0"/>
    <limit lower="0" upper="0.4" effort="0" velocity="0"/>
  </joint>
  <joint name="mount" type="fixed"><parent link="slide"/><child link="hand"/></joint>
  <joint name="spin" type="continuous">
    <parent link="hand"/><child link="wrist"/><axis xyz="0 1 0"/>
  </joint>
  <joint name="grip" type="prismatic">
    <parent link="hand"/><child link="finger"/><mimic joint="reach" multiplier="0.1"/>
    <limit lower="0" upper="0.04" effort="5" velocity="0.1"/>
  </joint>
  <ros2_control name="x" type="system">
    <joint name="turn"><command_interface name="position"/><state_interface name="position"/></joint>
    <joint name="reach">
      <command_interface name="position"/><command_interface name="velocity"/>
    </joint>
  </ros2_control>
</robot>
"""


def filled(text: str) -> str:
    """What a person does: values for every FILL_IN, told apart by their key."""
    values = {
        "rate_hz": "100", "max_age_ms": "50", "max_skew_ms": "50", "stamp": "sensor",
        "kind": "position", "velocity": "[-1, 1]", "acceleration": "2", "braking": "3",
        "jerk": "30", "rest_speed": "0.01", "plan_rate_hz": "20", "setpoint_rate_hz": "100",
        "actuation_delay_ms": "20", "dead_man_ms": "50",
    }  # fmt: skip
    lines = []
    for line in text.splitlines():
        match = re.match(r"\s*(\w+): FILL_IN", line)
        if match and match[1] == "unit":
            line = line.replace("FILL_IN", line.split("# ")[1].split(",")[0])
        elif match:
            line = line.replace("FILL_IN", values[match[1]], 1)
        lines.append(line)
    return "\n".join(lines)


def test_what_the_urdf_gives_arrives() -> None:
    robot = parse_robot(filled(robot_file(URDF, "picker.urdf")), "picker.yaml")
    assert robot.name == "picker"
    assert robot.axis_names == ("turn", "reach", "spin")  # grip follows reach
    turn, reach, spin = robot.axes
    assert (turn.kind, turn.unit) == ("position", "rad")
    assert (turn.position_min, turn.position_max) == (-1.5, 2.5)
    assert (turn.velocity_min, turn.velocity_max, turn.effort_max) == (-2.2, 2.2, 30.0)
    assert (reach.unit, reach.position_max, reach.effort_max) == ("m", 0.4, np.inf)
    assert spin.position_max == np.inf
    assert robot.streams["joints"].joints == ("turn", "reach", "spin", "grip")
    kinematics = robot.kinematics
    assert kinematics is not None
    assert kinematics.root == "plate"
    hand = frame_poses(kinematics, np.array([0.0, 0.3, 0.0]))["hand"]
    # a quarter turn about z, 0.2 m to the slide, which slides along x (URDF's default axis)
    np.testing.assert_allclose(hand[:3, 3], [0.0, 0.5, 0.1], atol=1e-12)


def test_what_it_does_not_give_is_marked_and_refused_by_name() -> None:
    text = robot_file(URDF, "picker.urdf")
    with pytest.raises(RobotFileError) as caught:
        parse_robot(text, "picker.yaml")
    assert str(caught.value) == (
        "robot file picker.yaml: streams.joints.rate_hz must be a number at least 0.01 and at most "
        "10000, got 'FILL_IN'; write the value there, as the comment beside it says"
    )
    marked = re.findall(r"^ *(\w+): FILL_IN +# .+$", text, flags=re.MULTILINE)
    assert len(marked) == sum("FILL_IN" in line for line in text.splitlines()[2:])
    assert marked.count("acceleration") == marked.count("braking") == marked.count("jerk") == 3
    assert marked.count("kind") == 2  # turn's is in <ros2_control>
    assert marked.count("velocity") == 2  # 0 stands for 'unknown'
    assert "position: FILL_IN" not in text
    assert "collision shape of arm: cylinder radius=0.04 length=0.3" in text


BOMB = b'<!DOCTYPE robot [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><robot name="&b;"/>'


def changed(old: bytes, new: bytes) -> bytes:
    assert old in URDF
    return URDF.replace(old, new, 1)


@pytest.mark.parametrize(
    ("urdf", "error"),
    [
        (BOMB, "must be without a document type declaration, found <!DOCTYPE>; delete it (a URDF needs none, and entities in it could exhaust the memory)"),
        (b"", "line 1: must be XML, but no element found"),
        (URDF[:400], "line 13: must be XML, but unclosed token"),
        (b"<robot", "line 1: must be XML, but unclosed token"),
        (b'<robot name="x">' + b'<link name="a"/>' * 1001 + b"</robot>", "must have at most 1000 links and joints, found 1001 and 0; is this one robot?"),
        (b"<sdf/>", "must be a URDF, whose first element is <robot>, found <sdf>"),
        (b'<robot name="x"/>', "must be one tree of links, in which each but one is the child of one joint; found 0 without a parent (none)"),
        (b'<?xml version="1.0" encoding="klingon"?><robot name="x"/>', "must be UTF-8, but unknown encoding: klingon; convert the file"),
        (b"<a>" * 40, "nested deeper than 32 elements; is this a URDF?"),
        (b" " * (MAX_BYTES + 1), "must be at most 8388608 bytes, got 8388609; is this a URDF?"),
        (changed(b'<link name="plate"/>', b"<xacro:arm/>"), "must be plain URDF, found <xacro:arm>; run `xacro` on the file first"),
        (changed(b'type="revolute"', b'type="floating"'), "joint 'turn' must be of type revolute, continuous, prismatic or fixed, found 'floating'; edge-wm knows no other: make it fixed, or cut the URDF there"),
        (changed(b'name="turn"', b'name="turn: {}"'), "<joint> must have a name of letters, digits, '_', '.', '-' that begins with a letter, found 'turn: {}'; rename it"),
        (changed(b'lower="-1.5"', b'lower="minus"'), "joint 'turn': lower must hold finite numbers (1), found 'minus'; correct it"),
        (changed(b'lower="-1.5"', b'lower="nan"'), "joint 'turn': lower must hold finite numbers (1), found 'nan'; correct it"),
        (changed(b'xyz="0 0 0.1"', b'xyz="0 0"'), "joint 'turn': xyz must hold finite numbers (3), found '0 0'; correct it"),
        (changed(b'xyz="0 0 2"', b'xyz="0 0 0"'), "joint 'turn': <axis xyz> must be a direction, found [0.0, 0.0, 0.0]; correct it"),
        (changed(b'<parent link="plate"/>', b'<parent link="plat"/>'), "joint 'turn': <parent link> must be a link of the file, found 'plat'"),
        (changed(b'<link name="hand"/>', b'<link name="hand"/><link name="hand"/>'), "link 'hand' must be defined once, found twice; rename one"),
        (changed(b'<child link="slide"/>', b'<child link="arm"/>'), "must be one tree of links, in which each but one is the child of one joint; found 2 without a parent (plate, slide)"),
        (changed(b'<parent link="plate"/>', b'<parent link="finger"/>').replace(b'<link name="plate"/>', b""), "must be one tree of links, in which each but one is the child of one joint; found 0 without a parent (none)"),
    ],
)  # fmt: skip
def test_refused(urdf: bytes, error: str) -> None:
    with pytest.raises(RobotFileError) as caught:
        robot_file(urdf, "picker.urdf")
    assert str(caught.value) == f"URDF picker.urdf: {error}"


def test_a_loop_beside_the_tree() -> None:
    loop = b"""<robot name="x"><link name="a"/><link name="b"/><link name="c"/>
      <joint name="j" type="fixed"><parent link="b"/><child link="c"/></joint>
      <joint name="k" type="fixed"><parent link="c"/><child link="b"/></joint></robot>"""
    with pytest.raises(RobotFileError) as caught:
        robot_file(loop, "x.urdf")
    assert str(caught.value) == (
        "URDF x.urdf: must be one tree of links, found a loop of joints with 'b' in it"
    )
