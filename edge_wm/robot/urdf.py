"""From a URDF to the beginning of a robot file.

A URDF knows links, joints, their places and limits; it does not know how fast a joint may
accelerate, what is commanded, how often sensors speak or when they are too old. What it knows is
written down; for the rest `FILL_IN` stands in the file, with a comment that says what belongs
there. A file with a FILL_IN in it is refused by `load_robot`, which names the first.

Invariant: nothing is guessed. Only plain XML is read: a document type declaration is refused
before an entity can be defined, and xacro has to be expanded first.

Source of the layout and defaults: wiki.ros.org/urdf/XML (joint, link), control.ros.org (the
command interfaces in <ros2_control>).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from edge_wm.errors import RobotFileError
from edge_wm.robot.document import FILL_IN, FORMAT, NAME

MAX_BYTES = 8 * 1024 * 1024  # large humanoids are below 1 MB
MAX_DEPTH = 32
MAX_PARTS = 1000  # links, and joints
_MOVING = ("revolute", "continuous", "prismatic")
_COMMANDS = ("position", "velocity", "effort")
_UNITS = {
    ("position", False): "rad",
    ("velocity", False): "rad/s",
    ("effort", False): "N m",
    ("position", True): "m",
    ("velocity", True): "m/s",
    ("effort", True): "N",
}


@dataclass(frozen=True, slots=True)
class _Joint:
    name: str
    kind: str
    parent: str
    child: str
    xyz: list[float]
    rpy: list[float]
    axis: list[float]
    position: list[float] | None  # None where the URDF gives none
    velocity: float | None  # None where the URDF gives none, or 0, which many write for 'unknown'
    effort: float | None
    mimics: str | None
    command: str | None  # position, velocity or effort, if <ros2_control> names just one


def robot_file(urdf: bytes, file: str) -> str:
    """The text of a robot file with what the URDF gives and FILL_IN for the rest.

    Raises:
        RobotFileError: not plain XML, not a URDF, or not one tree of joints that edge-wm knows.
    """
    return "\n".join(_Reader(urdf, file).lines()) + "\n"


class _Reader:
    def __init__(self, urdf: bytes, file: str) -> None:
        self.file = file
        robot = self._parse(urdf)
        if robot.tag != "robot":
            self._fail(f"must be a URDF, whose first element is <robot>, found <{robot.tag}>")
        self.name = self._name(robot, "<robot>")
        self.links = [self._name(link, "<link>") for link in robot.findall("link")]
        commands = self._commands(robot)
        self.joints = [self._joint(joint, commands) for joint in robot.findall("joint")]
        if max(len(self.links), len(self.joints)) > MAX_PARTS:
            self._fail(
                f"must have at most {MAX_PARTS} links and joints, found {len(self.links)} and "
                f"{len(self.joints)}; is this one robot?"
            )
        for kind, names in (("link", self.links), ("joint", [j.name for j in self.joints])):
            for name in names:
                if names.count(name) > 1:
                    self._fail(f"{kind} '{name}' must be defined once, found twice; rename one")
        self.root = self._root()
        self.shapes = list(self._shapes(robot))

    def _fail(self, text: str) -> NoReturn:
        raise RobotFileError(f"URDF {self.file}: {text}")

    # ---- reading ----------------------------------------------------------------------
    def _parse(self, urdf: bytes) -> Element:
        if len(urdf) > MAX_BYTES:
            self._fail(f"must be at most {MAX_BYTES} bytes, got {len(urdf)}; is this a URDF?")
        builder = TreeBuilder()
        depth = 0

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            if depth > MAX_DEPTH:
                self._fail(f"nested deeper than {MAX_DEPTH} elements; is this a URDF?")
            if tag.startswith("xacro:"):
                self._fail(f"must be plain URDF, found <{tag}>; run `xacro` on the file first")
            builder.start(tag, attributes)

        def end(tag: str) -> None:
            nonlocal depth
            depth -= 1
            builder.end(tag)

        def doctype(*_: object) -> None:
            self._fail(
                "must be without a document type declaration, found <!DOCTYPE>; delete it "
                "(a URDF needs none, and entities in it could exhaust the memory)"
            )

        parser = expat.ParserCreate()
        parser.StartElementHandler = start
        parser.EndElementHandler = end
        parser.StartDoctypeDeclHandler = doctype
        try:
            parser.Parse(urdf, True)
        except expat.ExpatError as error:
            self._fail(f"line {error.lineno}: must be XML, but {expat.ErrorString(error.code)}")
        except (LookupError, ValueError) as error:
            self._fail(f"must be UTF-8, but {error}; convert the file")
        return builder.close()

    def _name(self, element: Element, what: str) -> str:
        name = element.get("name", "")
        if not re.search(NAME, name):
            self._fail(
                f"{what} must have a name of letters, digits, '_', '.', '-' that begins with a "
                f"letter, found {name!r}; rename it"
            )
        return name

    def _joint(self, joint: Element, commands: dict[str, str | None]) -> _Joint:
        name = self._name(joint, "<joint>")
        kind = joint.get("type", "")
        if kind not in (*_MOVING, "fixed"):
            self._fail(
                f"joint '{name}' must be of type {', '.join(_MOVING)} or fixed, found '{kind}'; "
                "edge-wm knows no other: make it fixed, or cut the URDF there"
            )
        origin, limit, mimic = joint.find("origin"), joint.find("limit"), joint.find("mimic")
        limits: dict[str, float] = {}
        for key in ("lower", "upper", "velocity", "effort"):
            if limit is not None and limit.get(key) is not None:
                limits[key] = self._numbers(limit, key, name, 1)[0]
        axis = self._numbers(joint.find("axis"), "xyz", name, 3, [1.0, 0.0, 0.0])
        length = math.sqrt(sum(a * a for a in axis))
        if kind in _MOVING and not length > 1e-6:
            self._fail(f"joint '{name}': <axis xyz> must be a direction, found {axis}; correct it")
        bounded = "lower" in limits and "upper" in limits
        return _Joint(
            name=name,
            kind=kind,
            parent=self._end(joint, "parent", name),
            child=self._end(joint, "child", name),
            xyz=self._numbers(origin, "xyz", name, 3, [0.0, 0.0, 0.0]),
            rpy=self._numbers(origin, "rpy", name, 3, [0.0, 0.0, 0.0]),
            axis=[a / length for a in axis] if length else axis,
            position=[limits["lower"], limits["upper"]] if bounded else None,
            velocity=limits.get("velocity") or None,
            effort=limits.get("effort") or None,
            mimics=mimic.get("joint") if mimic is not None else None,
            command=commands.get(name),
        )

    def _end(self, joint: Element, key: str, name: str) -> str:
        element = joint.find(key)
        link = element.get("link", "") if element is not None else ""
        if link not in self.links:
            self._fail(f"joint '{name}': <{key} link> must be a link of the file, found '{link}'")
        return link

    def _numbers(
        self,
        element: Element | None,
        key: str,
        joint: str,
        count: int,
        default: list[float] | None = None,
    ) -> list[float]:
        text = element.get(key) if element is not None else None
        if text is None and default is not None:
            return default
        try:
            numbers = [float(word) for word in (text or "").split()]
        except ValueError:
            numbers = []
        if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
            self._fail(
                f"joint '{joint}': {key} must hold finite numbers ({count}), found '{text}'; "
                "correct it"
            )
        return numbers

    def _commands(self, robot: Element) -> dict[str, str | None]:
        """joint -> what is commanded, None where there is a choice."""
        commands: dict[str, str | None] = {}
        for joint in robot.findall("ros2_control/joint"):
            names = [i.get("name") for i in joint.findall("command_interface")]
            known = [name for name in names if name in _COMMANDS]
            commands[joint.get("name", "")] = known[0] if len(known) == 1 else None
        return commands

    def _root(self) -> str:
        children = [joint.child for joint in self.joints]
        roots = [link for link in self.links if link not in children]
        if len(roots) != 1 or len(children) != len(set(children)):
            self._fail(
                "must be one tree of links, in which each but one is the child of one joint; "
                f"found {len(roots)} without a parent ({', '.join(roots[:5]) or 'none'})"
            )
        reached = {roots[0]}
        for _ in self.joints:  # a tree is no deeper than its joints are many
            reached |= {joint.child for joint in self.joints if joint.parent in reached}
        apart = [link for link in self.links if link not in reached]
        if apart:
            self._fail(f"must be one tree of links, found a loop of joints with '{apart[0]}' in it")
        return roots[0]

    def _shapes(self, robot: Element) -> Iterator[tuple[str, str, str]]:
        """(link, collision shape, its attributes), for the person who covers them by spheres."""
        for link in robot.findall("link"):
            for geometry in link.findall("collision/geometry"):
                for shape in geometry:
                    attributes = " ".join(f"{k}={v}" for k, v in shape.attrib.items())
                    yield link.get("name", ""), shape.tag, re.sub(r"[^ -~]", "?", attributes)

    # ---- writing ----------------------------------------------------------------------
    def lines(self) -> Iterator[str]:
        moving = [joint for joint in self.joints if joint.kind != "fixed"]
        yield f"# {self.name}: begun from a URDF by `edge-wm robot from-urdf`."
        yield f"# Replace every {FILL_IN}, then run `edge-wm robot check` on this file."
        yield "# Lengths m, angles rad, times ms where the name says so, everything else SI."
        yield f"format: {FORMAT}"
        yield f"name: {self.name}"
        yield ""
        yield _line("streams:", "add cameras and other sensors here")
        yield "  joints:"
        yield "    type: joint_state"
        yield "    topic: /joint_states"
        yield _line(f"    rate_hz: {FILL_IN}", "how often the driver publishes")
        yield f"    joints: [{', '.join(joint.name for joint in moving)}]"
        yield _line("    unit: SI", "rad and rad/s, or m and m/s")
        yield _line(f"    max_age_ms: {FILL_IN}", "older than this is no basis to move on")
        yield _line(f"    max_skew_ms: {FILL_IN}", "further apart in time does not belong together")
        yield _line(f"    stamp: {FILL_IN}", "sensor, or arrival if its clock is not ours")
        yield ""
        yield "kinematics:"
        yield f"  root: {self.root}"
        yield f"  joints:{'' if self.joints else ' {}'}"
        for joint in self.joints:
            yield from _joint_lines(joint)
        yield _line("  spheres: []", "cover the body, if there are regions below, like")
        yield f"  # - {{frame: {self.root}, center: [0.0, 0.0, 0.0], radius: 0.1}}"
        for link, shape, attributes in self.shapes:
            yield f"  # collision shape of {link}: {shape} {attributes}".rstrip()
        yield ""
        yield "# A mobile base is described by `base` and axes base.vx, base.wz; its wheels are"
        yield "# then no axes: see docs/robot-file.md."
        yield _line("axes:", "the order of an action's and a setpoint's numbers")
        for joint in moving:
            if joint.mimics is None:
                yield from _axis_lines(joint)
        yield ""
        yield _line("workspace: []", "regions that the spheres must stay in")
        yield _line("keep_out: []", "regions that they must not touch")
        yield ""
        yield _line(f"plan_rate_hz: {FILL_IN}", "how often a new plan is made")
        yield _line(f"setpoint_rate_hz: {FILL_IN}", "at least 4 in dead_man_ms")
        yield _line(f"actuation_delay_ms: {FILL_IN}", "from a setpoint to its effect: measure it")
        yield _line(f"dead_man_ms: {FILL_IN}", "silence after which a device brakes by itself")
        yield ""
        yield "links: []"


def _line(text: str, comment: str) -> str:
    return f"{text:<32} # {comment}"


def _joint_lines(joint: _Joint) -> Iterator[str]:
    yield f"    {joint.name}:"
    if joint.mimics is not None:
        yield "      # it mimics another joint, so it is no axis, and no sphere may be on it"
    yield f"      kind: {joint.kind}"
    yield f"      parent: {joint.parent}"
    yield f"      child: {joint.child}"
    yield f"      xyz: {joint.xyz}"
    yield f"      rpy: {joint.rpy}"
    if joint.kind != "fixed":
        yield f"      axis: {joint.axis}"


def _axis_lines(joint: _Joint) -> Iterator[str]:
    slides = joint.kind == "prismatic"
    yield f"  {joint.name}:"
    if joint.command is not None:
        yield f"    kind: {joint.command}"
        yield f"    unit: {_UNITS[joint.command, slides]}"
    else:
        units = ", ".join(_UNITS[command, slides] for command in _COMMANDS)
        yield _line(f"    kind: {FILL_IN}", "position, velocity or effort: what is commanded")
        yield _line(f"    unit: {FILL_IN}", f"{units}: of what is commanded")
    if joint.command in (None, "position") and joint.kind != "continuous":
        known = joint.position if joint.position else FILL_IN
        yield _line(f"    position: {known}", "[min, max], for kind position only")
    known = [-joint.velocity, joint.velocity] if joint.velocity else FILL_IN
    yield _line(f"    velocity: {known}", "[min, max]")
    yield _line(f"    acceleration: {FILL_IN}", "when speeding up")
    yield _line(f"    braking: {FILL_IN}", "when slowing down")
    yield _line(f"    jerk: {FILL_IN}", "how fast the acceleration may change")
    if joint.effort is not None:
        yield f"    effort: {joint.effort}"
    elif joint.command == "effort":
        yield _line(f"    effort: {FILL_IN}", "N m or N")
    yield _line(f"    rest_speed: {FILL_IN}", "slower than this counts as at rest")
