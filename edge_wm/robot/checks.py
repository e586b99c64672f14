"""Whether what a robot file says can be true, and can be enforced.

Two rules beyond plain sense. *No name without its thing*: every joint, stream and frame that is
named exists. *No limit without its guard*: a limit that nothing in edge-wm enforces is refused
here, because a person who wrote it believes that it holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np

from edge_wm.errors import RobotFileError
from edge_wm.robot import document
from edge_wm.robot.document import (
    AxisPart,
    KinematicsPart,
    RegionPart,
    RobotPart,
    StreamPart,
)
from edge_wm.robot.kinematics import BodySphere, Joint, Kinematics
from edge_wm.robot.nouns import (
    Axis,
    Base,
    Box,
    Extrinsics,
    Link,
    Region,
    Robot,
    Sphere,
    Stopping,
    Stream,
)

# By stream type: dtype of the data, units that may be written, fields that must be there.
# All other optional fields of a stream must be absent, but for frame and extrinsics.
_STREAM_RULES: Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "image": ("uint8", ("rgb8",), ("shape",)),
    "joint_state": ("float32", ("rad", "m", "SI"), ("joints",)),
    "imu": ("float32", ("SI",), ()),
    "range_scan": (
        "float32",
        ("m",),
        ("shape", "angle_min", "angle_max", "range_min", "range_max"),
    ),
    "odometry": ("float64", ("SI",), ()),
    "vector": ("float32", (), ("shape",)),
}
_OPTIONAL = (
    "shape",
    "joints",
    "angle_min",
    "angle_max",
    "range_min",
    "range_max",
    "derived_from",
    "noisy",
)
_NOISY = ("image", "imu", "range_scan")  # may say `noisy: false`: simulators, compressed video
_AXIS_UNITS: Mapping[str, Mapping[str, str]] = {  # kind -> unit -> unit of its position
    "position": {"rad": "rad", "m": "m"},
    "velocity": {"rad/s": "rad", "m/s": "m"},
    "effort": {"N m": "rad", "N": "m"},
}
_SERIAL_FIELDS = ("port", "baud", "axes", "current_max", "temperature_max", "bus_voltage")
_DEFAULT_LINK = Link("serial")
LINK_AXES = 8  # of one board: what a command carries (firmware_bridge/mcu/protocol)
_TWIST_UNITS = {"base.vx": "m/s", "base.wz": "rad/s"}


def checked(part: RobotPart, *, sha256: str, text: str, file: str) -> Robot:
    """The robot that the file describes.

    Raises:
        RobotFileError: with the first thing that is impossible, missing or not enforced.
    """
    return _Checker(part, file).robot(sha256, text)


class _Checker:
    def __init__(self, part: RobotPart, file: str) -> None:
        self.part = part
        self.file = file

    def robot(self, sha256: str, text: str) -> Robot:
        part = self.part
        self._rates()
        streams = {name: self._stream(name, entry) for name, entry in part.streams.items()}
        if not streams:
            self._fail("streams", "at least one stream", {}, "a robot must sense something")
        base = self._base(streams)
        axes = tuple(self._axis(name, entry, streams) for name, entry in part.axes.items())
        if not axes:
            self._fail("axes", "at least one axis", {}, "a robot must move something")
        kinematics = self._kinematics(part.kinematics, axes, streams)
        self._frames(streams, kinematics)
        self._derived(streams, base)
        return Robot(
            name=part.name,
            streams=streams,
            axes=axes,
            base=base,
            kinematics=kinematics,
            workspace=self._regions("workspace", part.workspace, streams, kinematics, axes),
            keep_out=self._regions("keep_out", part.keep_out, streams, kinematics, axes),
            stopping=self._stopping(streams, axes),
            plan_period_ns=_period_ns(part.plan_rate_hz),
            setpoint_period_ns=_period_ns(part.setpoint_rate_hz),
            actuation_delay_ns=_ms(part.actuation_delay_ms),
            dead_man_ns=_ms(part.dead_man_ms),
            links=tuple(self._link(index, axes) for index in range(len(part.links))),
            sha256=sha256,
            text=text,
        )

    def _fail(self, path: str, expected: str, found: object, advice: str) -> NoReturn:
        document.fail(self.file, path, expected, found, advice)

    def _refuse_limit(self, path: str, why: str, advice: str) -> NoReturn:
        raise RobotFileError(
            f"robot file {self.file}: {path} is a limit that nothing would enforce: {why}; {advice}"
        )

    # ---- rates ------------------------------------------------------------------------
    def _rates(self) -> None:
        part = self.part
        if part.plan_rate_hz > part.setpoint_rate_hz:
            self._fail(
                "plan_rate_hz",
                f"at most setpoint_rate_hz = {part.setpoint_rate_hz:g}",
                part.plan_rate_hz,
                "setpoints are played from plans, so they come more often",
            )
        least = 4000.0 / part.dead_man_ms
        if part.setpoint_rate_hz < least:
            self._fail(
                "setpoint_rate_hz",
                f"at least {least:g} (4 setpoints in dead_man_ms = {part.dead_man_ms:g})",
                part.setpoint_rate_hz,
                "else one lost setpoint stops the robot; raise one of the two",
            )
        if part.actuation_delay_ms > 1000:
            self._fail(
                "actuation_delay_ms",
                "at most 1000",
                part.actuation_delay_ms,
                "a robot that reacts later than that cannot be driven by setpoints",
            )

    # ---- streams ----------------------------------------------------------------------
    def _stream(self, name: str, part: StreamPart) -> Stream:
        path = f"streams.{name}"
        dtype, units, required = _STREAM_RULES[part.type]
        for key in required:
            if getattr(part, key) is None:
                self._fail(f"{path}.{key}", f"given for type {part.type}", None, "add the field")
        allowed = {*required, *(("noisy",) if part.type in _NOISY else ())}
        if part.type == "odometry":
            allowed.add("derived_from")
        for key in _OPTIONAL:
            if key not in allowed and getattr(part, key) is not None:
                self._fail(
                    f"{path}.{key}",
                    f"absent for type {part.type}",
                    getattr(part, key),
                    "remove the field, or correct the type",
                )
        if units and part.unit not in units:
            wanted = " or ".join(f"'{unit}'" for unit in units)
            self._fail(
                f"{path}.unit",
                f"{wanted} for type {part.type}",
                part.unit,
                "edge-wm reads no other: convert in the driver",
            )
        period_ns = _period_ns(part.rate_hz)
        for key, advice in (
            ("max_age_ms", "else the stream is stale between any two samples"),
            ("max_skew_ms", "the newest sample may be one period older than another stream's"),
        ):
            if _ms(getattr(part, key)) < period_ns:
                self._fail(
                    f"{path}.{key}",
                    f"at least one period ({period_ns / 1e6:g} ms at {part.rate_hz:g} Hz)",
                    getattr(part, key),
                    advice,
                )
        if part.type == "range_scan":
            self._scan(path, part)
        self._unique(f"{path}.joints", part.joints or ())
        placed = part.extrinsics
        extrinsics = Extrinsics(placed.parent, placed.xyz, placed.rpy) if placed else None
        return Stream(
            name=name,
            type=part.type,
            topic=part.topic,
            period_ns=period_ns,
            shape=self._shape(path, part),
            dtype=dtype,
            unit=part.unit,
            frame=part.frame or "",
            extrinsics=extrinsics,
            max_age_ns=_ms(part.max_age_ms),
            max_skew_ns=_ms(part.max_skew_ms),
            stamp=part.stamp,
            joints=tuple(part.joints or ()),
            angle_min=part.angle_min or 0.0,
            angle_max=part.angle_max or 0.0,
            range_min=part.range_min or 0.0,
            range_max=part.range_max or 0.0,
            derived_from=tuple(part.derived_from or ()),
            noisy=part.type in _NOISY and part.noisy is not False,
        )

    def _shape(self, path: str, part: StreamPart) -> tuple[int, ...]:
        if part.type == "joint_state":
            if not part.joints:
                self._fail(f"{path}.joints", "a list of joint names", part.joints, "name them")
            return (2, len(part.joints))
        shape = (6,) if part.shape is None else tuple(part.shape)
        if part.type == "image" and (len(shape) != 3 or shape[2] != 3):
            self._fail(f"{path}.shape", "[height, width, 3]", shape, "images are RGB")
        if part.type in ("range_scan", "vector") and len(shape) != 1:
            self._fail(f"{path}.shape", "a list of one number", shape, "the data is one row")
        if part.type == "range_scan" and shape[0] < 2:
            self._fail(f"{path}.shape", "at least [2]", shape, "a scan has several beams")
        if math.prod(shape) > 1 << 26:
            self._fail(f"{path}.shape", "at most 67108864 numbers", shape, "use a smaller mode")
        return shape

    def _scan(self, path: str, part: StreamPart) -> None:
        # Present: the caller checked. Narrowed here for the reader and the type checker.
        assert part.angle_min is not None
        assert part.angle_max is not None
        assert part.range_min is not None
        assert part.range_max is not None
        span = part.angle_max - part.angle_min
        if not 0.0 < span <= 2.0 * math.pi + 1e-6:
            self._fail(
                f"{path}.angle_max",
                f"above angle_min = {part.angle_min:g} by at most a full turn (rad)",
                part.angle_max,
                "angles are rad, counter-clockwise",
            )
        if part.range_min >= part.range_max:
            self._fail(
                f"{path}.range_max",
                f"above range_min = {part.range_min:g}",
                part.range_max,
                "correct the scanner's range (m)",
            )

    def _unique(self, path: str, names: Sequence[str]) -> None:
        for index, name in enumerate(names):
            if name in names[:index]:
                self._fail(f"{path}[{index}]", "named once", name, "remove the second")

    def _derived(self, streams: Mapping[str, Stream], base: Base | None) -> None:
        """Odometry that edge-wm computes itself has all it is computed from."""
        odometry = [s for s in streams.values() if s.type == "odometry"]
        if len(odometry) > 1:
            self._fail(
                f"streams.{odometry[1].name}",
                "the only stream of type odometry",
                [s.name for s in odometry],
                "keep the one that is to be believed",
            )
        for stream in odometry:
            path = f"streams.{stream.name}"
            if not stream.frame:
                self._fail(f"{path}.frame", "the world frame's name", None, "usually 'odom'")
            if not stream.derived_from:
                continue
            self._unique(f"{path}.derived_from", stream.derived_from)
            for index, source in enumerate(stream.derived_from):
                if source not in streams or streams[source].type not in ("joint_state", "imu"):
                    self._fail(
                        f"{path}.derived_from[{index}]",
                        "a stream of type joint_state or imu",
                        source,
                        f"streams here: {', '.join(streams)}",
                    )
            if base is None:
                self._fail("base", "given, since odometry is derived", None, "describe the base")
            wheels = [
                streams[source]
                for source in stream.derived_from
                if {base.left_wheel, base.right_wheel} <= set(streams[source].joints)
            ]
            gyros = [s for s in stream.derived_from if streams[s].type == "imu"]
            if len(wheels) != 1 or len(gyros) > 1 or len(stream.derived_from) > 2:
                self._fail(
                    f"{path}.derived_from",
                    f"one joint_state stream with {base.left_wheel} and {base.right_wheel}, "
                    "and at most one imu",
                    stream.derived_from,
                    "name the streams that measure the wheels and the turning",
                )
            for gyro in gyros:
                self._on_base(streams[gyro], base.frame, f"{path} is derived from it")
            if stream.period_ns != wheels[0].period_ns:
                self._fail(
                    f"{path}.rate_hz",
                    f"that of {wheels[0].name} ({1e9 / wheels[0].period_ns:g})",
                    1e9 / stream.period_ns,
                    "one odometry sample comes of each wheel sample",
                )

    def _on_base(self, stream: Stream, base_frame: str, why: str) -> None:
        """The sensor sits on the base itself, so that its extrinsics are all there is to know."""
        parent = stream.extrinsics.parent if stream.extrinsics else stream.frame
        if parent != base_frame:
            self._fail(
                f"streams.{stream.name}.extrinsics.parent",
                f"the base's frame ({base_frame}), since {why}",
                parent,
                "give its place on the base",
            )

    # ---- links ------------------------------------------------------------------------
    def _link(self, index: int, axes: Sequence[Axis]) -> Link:
        part, path = self.part.links[index], f"links[{index}]"
        given = {key: getattr(part, key) for key in _SERIAL_FIELDS}
        given = {key: value for key, value in given.items() if value is not None}
        if part.kind == "simulated":
            for key, value in given.items():
                self._fail(
                    f"{path}.{key}",
                    "absent for kind simulated",
                    value,
                    "remove the field, or correct the kind",
                )
            return Link("simulated")
        if part.port is None:
            self._fail(
                f"{path}.port",
                "given for kind serial",
                None,
                "name the port, for instance /dev/ttyACM0",
            )
        known = {axis.name: axis for axis in axes}
        names = tuple(known) if part.axes is None else tuple(part.axes)
        self._unique(f"{path}.axes", names)
        if not 1 <= len(names) <= LINK_AXES:
            self._fail(
                f"{path}.axes",
                f"1 to {LINK_AXES} names of axes",
                list(names),
                "name them in the board's order; a board drives no more",
            )
        for position, name in enumerate(names):
            if name not in known:
                self._fail(
                    f"{path}.axes[{position}]", "an axis", name, f"axes here: {', '.join(known)}"
                )
            if known[name].kind == "effort":
                self._fail(
                    f"{path}.axes[{position}]",
                    "an axis of kind position, velocity or twist",
                    name,
                    "the link carries no effort commands",
                )
        low, high = part.bus_voltage or _DEFAULT_LINK.bus_voltage
        if not 0.0 <= low < high <= 65.0:
            self._fail(
                f"{path}.bus_voltage",
                "[lowest, highest] in V, within 0 to 65",
                [low, high],
                "write what the motors' supply may have",
            )
        temperature_max = given.get("temperature_max", _DEFAULT_LINK.temperature_max)
        if not 0.0 < temperature_max <= 200.0:
            self._fail(
                f"{path}.temperature_max",
                "above 0 and at most 200 (degC)",
                temperature_max,
                "write what the motors' windings bear",
            )
        current_max = given.get("current_max", _DEFAULT_LINK.current_max)
        if not current_max <= 65.0:
            self._fail(
                f"{path}.current_max", "at most 65 (A)", current_max, "the link carries no more"
            )
        return Link(
            kind="serial",
            port=part.port,
            baud=given.get("baud", _DEFAULT_LINK.baud),
            axes=names,
            current_max=current_max,
            temperature_max=temperature_max,
            bus_voltage=(low, high),
        )

    # ---- base and axes ----------------------------------------------------------------
    def _base(self, streams: Mapping[str, Stream]) -> Base | None:
        part = self.part.base
        if part is None:
            return None
        if part.left_wheel == part.right_wheel:
            self._fail(
                "base.right_wheel", "another joint than left_wheel", part.right_wheel, "name both"
            )
        for side in ("left_wheel", "right_wheel"):
            self._measured(f"base.{side}", getattr(part, side), "rad", streams)
        if part.footprint_radius < 0.5 * part.track_width:
            self._fail(
                "base.footprint_radius",
                f"at least half of track_width = {part.track_width:g}",
                part.footprint_radius,
                "the circle must hold the whole robot, wheels included",
            )
        if not set(_TWIST_UNITS) <= set(self.part.axes):
            self._fail(
                "axes",
                "with base.vx and base.wz, since there is a differential base",
                list(self.part.axes),
                "add the missing axis",
            )
        return Base(
            kind=part.kind,
            frame=part.frame,
            wheel_radius=part.wheel_radius,
            track_width=part.track_width,
            left_wheel=part.left_wheel,
            right_wheel=part.right_wheel,
            footprint_radius=part.footprint_radius,
        )

    def _measured(self, path: str, joint: str, unit: str, streams: Mapping[str, Stream]) -> None:
        """`joint` is measured by exactly one joint_state stream, in `unit`."""
        by = [stream for stream in streams.values() if joint in stream.joints]
        if len(by) != 1:
            known = [name for stream in streams.values() for name in stream.joints]
            self._fail(
                path,
                "a joint that one stream of type joint_state measures",
                joint,
                f"measured joints: {', '.join(known) or 'none'}; "
                "add it to that stream's joints, or correct the name",
            )
        if by[0].unit not in (unit, "SI"):
            self._fail(
                f"streams.{by[0].name}.unit",
                f"'{unit}' or 'SI', since {path} is measured in {unit}",
                by[0].unit,
                "correct the unit of one of them",
            )

    def _axis(self, name: str, part: AxisPart, streams: Mapping[str, Stream]) -> Axis:
        path = f"axes.{name}"
        if part.kind == "twist":
            self._twist(path, name, part)
        elif part.unit not in _AXIS_UNITS[part.kind]:
            wanted = " or ".join(f"'{unit}'" for unit in _AXIS_UNITS[part.kind])
            self._fail(
                f"{path}.unit",
                f"{wanted} for kind {part.kind}",
                part.unit,
                "the unit is that of the commanded number",
            )
        else:
            self._measured(path, name, _AXIS_UNITS[part.kind][part.unit], streams)
        if part.kind in ("velocity", "effort") and part.position is not None:
            self._refuse_limit(
                f"{path}.position",
                f"the position of an axis of kind {part.kind} is not commanded",
                "use kind position, or remove the limit and secure the joint by hardware stops",
            )
        if part.kind == "effort" and part.effort is None:
            self._fail(f"{path}.effort", "given for kind effort", None, "add the limit")
        self._motion_limits(path, part)
        position = self._position(path, name, part)
        return Axis(
            name=name,
            kind=part.kind,
            unit=part.unit,
            position_min=position[0],
            position_max=position[1],
            velocity_min=part.velocity[0],
            velocity_max=part.velocity[1],
            acceleration=part.acceleration,
            braking=part.braking,
            jerk=part.jerk,
            effort_max=math.inf if part.effort is None else part.effort,
            rest_speed=part.rest_speed,
        )

    def _twist(self, path: str, name: str, part: AxisPart) -> None:
        if self.part.base is None:
            self._fail("base", f"given, since {path} is of kind twist", None, "describe the base")
        if name not in _TWIST_UNITS:
            self._fail(
                path,
                "base.vx or base.wz for kind twist (a differential base has no other)",
                name,
                "rename or remove the axis",
            )
        if part.unit != _TWIST_UNITS[name]:
            self._fail(
                f"{path}.unit", f"'{_TWIST_UNITS[name]}'", part.unit, "convert the limits to SI"
            )
        for key, why in (
            ("position", "a base's place is limited by regions"),
            ("effort", "a twist commands no effort"),
        ):
            if getattr(part, key) is not None:
                self._refuse_limit(
                    f"{path}.{key}",
                    why,
                    "remove it" if key == "effort" else "remove it, use workspace and keep_out",
                )

    def _motion_limits(self, path: str, part: AxisPart) -> None:
        low, high = part.velocity
        if not low < high:
            self._fail(
                f"{path}.velocity[1]", f"above velocity[0] = {low:g}", high, "write [min, max]"
            )
        if not low <= 0.0 <= high:
            self._fail(
                f"{path}.velocity",
                "a range that holds 0",
                part.velocity,
                "the robot must be able to stand still",
            )
        if part.rest_speed >= max(high, -low):
            self._fail(
                f"{path}.rest_speed",
                f"below the largest speed, {max(high, -low):g}",
                part.rest_speed,
                "else the robot is always at rest",
            )

    def _position(self, path: str, name: str, part: AxisPart) -> tuple[float, float]:
        if part.position is not None:
            low, high = part.position
            if not low < high:
                self._fail(
                    f"{path}.position[1]", f"above position[0] = {low:g}", high, "write [min, max]"
                )
            return part.position
        joints = self.part.kinematics.joints if self.part.kinematics else {}
        if part.kind == "position" and (name not in joints or joints[name].kind != "continuous"):
            self._fail(
                f"{path}.position",
                "given for kind position, unless kinematics has the joint as continuous",
                None,
                "add [min, max]",
            )
        return -math.inf, math.inf

    # ---- kinematics and frames --------------------------------------------------------
    def _kinematics(
        self, part: KinematicsPart | None, axes: Sequence[Axis], streams: Mapping[str, Stream]
    ) -> Kinematics | None:
        if part is None:
            return None
        moving = tuple(axis.name for axis in axes if axis.name in part.joints)
        joints = []
        waiting = dict(part.joints)
        known = {part.root}
        while waiting:
            ready = [name for name, joint in waiting.items() if joint.parent in known]
            if not ready:
                name, joint = next(iter(waiting.items()))
                self._fail(
                    f"kinematics.joints.{name}.parent",
                    f"root ({part.root}) or the child of a joint that leads there",
                    joint.parent,
                    "connect the tree",
                )
            for name in ready:
                joints.append(self._joint(name, part, moving, known))
                known.add(waiting.pop(name).child)
        carried = self._held_frames(joints)
        spheres = []
        for index, sphere in enumerate(part.spheres):
            path = f"kinematics.spheres[{index}].frame"
            if sphere.frame not in known:
                self._fail(
                    path, "a frame of the tree", sphere.frame, f"frames: {', '.join(sorted(known))}"
                )
            if sphere.frame in carried:
                self._fail(
                    path,
                    "a frame whose place the axes decide",
                    sphere.frame,
                    f"joint {carried[sphere.frame]} moves it and is no axis; make it one, or fixed",
                )
            spheres.append(BodySphere(sphere.frame, sphere.center, sphere.radius))
        for name, entry in part.joints.items():
            if entry.kind != "fixed" and name not in moving:
                unit = "m" if entry.kind == "prismatic" else "rad"
                self._measured(f"kinematics.joints.{name}", name, unit, streams)
        return Kinematics(part.root, tuple(joints), moving, tuple(spheres))

    def _joint(
        self, name: str, kinematics: KinematicsPart, moving: Sequence[str], known: set[str]
    ) -> Joint:
        part = kinematics.joints[name]
        path = f"kinematics.joints.{name}"
        if part.child in known:
            self._fail(f"{path}.child", "a frame with one parent", part.child, "rename one")
        axis = (0.0, 0.0, 0.0)
        if part.kind == "fixed":
            if part.axis is not None:
                self._fail(f"{path}.axis", "absent for kind fixed", part.axis, "remove it")
            if name in moving:
                self._fail(f"{path}.kind", "one that moves, since it is an axis", "fixed", "mend")
        else:
            length = float(np.linalg.norm(part.axis)) if part.axis is not None else 0.0
            if part.axis is None or abs(length - 1.0) > 1e-3:
                self._fail(
                    f"{path}.axis",
                    f"a direction of length 1 for kind {part.kind}",
                    part.axis,
                    "write the axis that it turns about or slides along",
                )
            x, y, z = part.axis
            axis = (x / length, y / length, z / length)
        if name in moving:
            unit = self.part.axes[name].unit
            expected = "m" if part.kind == "prismatic" else "rad"
            if _AXIS_UNITS[self.part.axes[name].kind][unit] != expected:
                self._fail(
                    f"axes.{name}.unit",
                    f"one of a {part.kind} joint ({expected})",
                    unit,
                    f"correct it, or {path}.kind",
                )
        column = moving.index(name) if name in moving else None
        return Joint(name, part.kind, part.parent, part.child, part.xyz, part.rpy, axis, column)

    def _held_frames(self, joints: Sequence[Joint]) -> dict[str, str]:
        """Frames that a joint moves which is no axis: frame -> that joint."""
        held: dict[str, str] = {}
        for joint in joints:
            if joint.parent in held:
                held[joint.child] = held[joint.parent]
            elif joint.kind != "fixed" and joint.column is None:
                held[joint.child] = joint.name
        return held

    def _frames(self, streams: Mapping[str, Stream], kinematics: Kinematics | None) -> None:
        """Every sensor that sits somewhere says where, back to a frame of the robot or world."""
        known = {"world"}
        if self.part.base is not None:
            known.add(self.part.base.frame)
        if kinematics is not None:
            known |= {kinematics.root, *(joint.child for joint in kinematics.joints)}
        waiting = []
        for stream in streams.values():
            path = f"streams.{stream.name}"
            if stream.type == "odometry":
                if stream.extrinsics is not None:
                    self._fail(
                        f"{path}.extrinsics", "absent for odometry", "some", "it is a world frame"
                    )
            elif stream.extrinsics is not None:
                if not stream.frame or stream.frame in known:
                    self._fail(
                        f"{path}.frame",
                        "the sensor's own frame, since extrinsics place it",
                        stream.frame or None,
                        "give the frame a name of its own",
                    )
                waiting.append(stream)
            elif stream.type in ("image", "imu", "range_scan") and stream.frame not in known:
                self._fail(
                    f"{path}.extrinsics",
                    f"given for type {stream.type}: parent, xyz (m), rpy (rad)",
                    None,
                    "measure where the sensor sits",
                )
            elif stream.frame and stream.frame not in known:
                self._fail(
                    f"{path}.frame",
                    f"one of {', '.join(sorted(known))}, or placed by extrinsics",
                    stream.frame,
                    "correct the name",
                )
        while waiting:
            ready = [s for s in waiting if s.extrinsics and s.extrinsics.parent in known]
            if not ready:
                stuck = waiting[0]
                self._fail(
                    f"streams.{stuck.name}.extrinsics.parent",
                    f"one of {', '.join(sorted(known))}",
                    stuck.extrinsics and stuck.extrinsics.parent,
                    "name the frame that the sensor is mounted on",
                )
            known |= {s.frame for s in ready}
            waiting = [s for s in waiting if s not in ready]

    # ---- regions and stopping ---------------------------------------------------------
    def _regions(
        self,
        key: str,
        parts: Sequence[RegionPart],
        streams: Mapping[str, Stream],
        kinematics: Kinematics | None,
        axes: Sequence[Axis],
    ) -> tuple[Region, ...]:
        return tuple(
            self._region(f"{key}[{index}]", part, streams, kinematics, axes)
            for index, part in enumerate(parts)
        )

    def _region(
        self,
        path: str,
        part: RegionPart,
        streams: Mapping[str, Stream],
        kinematics: Kinematics | None,
        axes: Sequence[Axis],
    ) -> Region:
        planar = {s.frame for s in streams.values() if s.type == "odometry"}
        if self.part.base is None:
            planar = set()
        if part.frame in planar:
            numbers = 2
        elif kinematics is not None and part.frame == kinematics.root:
            numbers = 3
            self._forward(path, kinematics, axes)
        else:
            frames = sorted(planar | ({kinematics.root} if kinematics else set()))
            self._refuse_limit(
                path,
                f"nothing says where the robot is in frame '{part.frame}'",
                f"use one of: {', '.join(frames)}"
                if frames
                else "add an odometry stream and a base, or kinematics",
            )
        if (part.box is None) == (part.sphere is None):
            found = [key for key in ("box", "sphere") if getattr(part, key) is not None]
            self._fail(path, "with one of box and sphere", found or None, "write one of them")
        if part.sphere is not None:
            self._point(f"{path}.sphere.center", part.sphere.center, numbers)
            return Sphere(part.frame, tuple(part.sphere.center), part.sphere.radius)
        assert part.box is not None
        self._point(f"{path}.box.lower", part.box.lower, numbers)
        self._point(f"{path}.box.upper", part.box.upper, numbers)
        for index, (low, high) in enumerate(zip(part.box.lower, part.box.upper, strict=True)):
            if not low < high:
                self._fail(
                    f"{path}.box.upper[{index}]",
                    f"above lower[{index}] = {low:g}",
                    high,
                    "write the corner with the larger numbers",
                )
        return Box(part.frame, tuple(part.box.lower), tuple(part.box.upper))

    def _forward(self, path: str, kinematics: Kinematics, axes: Sequence[Axis]) -> None:
        if not kinematics.spheres:
            self._refuse_limit(path, "the body has no spheres", "cover it with kinematics.spheres")
        for axis in axes:
            if axis.name in kinematics.moving and axis.kind != "position":
                self._refuse_limit(
                    path,
                    f"axis {axis.name} is of kind {axis.kind}, so where it will be is not known",
                    "use kind position, or remove the region",
                )

    def _point(self, path: str, point: Sequence[float], numbers: int) -> None:
        if len(point) != numbers:
            words = "x, y of the base" if numbers == 2 else "x, y, z"
            self._fail(path, f"a list of {numbers} numbers ({words})", list(point), "correct it")

    def _stopping(self, streams: Mapping[str, Stream], axes: Sequence[Axis]) -> Stopping | None:
        part = self.part.stopping
        if part is None:
            return None
        base = self.part.base
        if base is None:
            self._refuse_limit("stopping", "there is no base to stop", "remove it, or add a base")
        stream = streams.get(part.stream)
        if stream is None or stream.type != "range_scan":
            self._fail(
                "stopping.stream",
                "a stream of type range_scan",
                part.stream,
                f"streams here: {', '.join(streams)}",
            )
        self._on_base(stream, base.frame, "stopping uses it")
        vx = next(axis for axis in axes if axis.name == "base.vx")
        speed = max(vx.velocity_max, -vx.velocity_min)
        delay = (_ms(self.part.actuation_delay_ms) + stream.max_age_ns) * 1e-9
        need = base.footprint_radius + part.margin + speed * delay + speed**2 / (2 * vx.braking)
        if stream.range_max <= need:
            self._fail(
                f"streams.{stream.name}.range_max",
                f"above {need:.3g} m, where stopping from {speed:g} m/s begins",
                stream.range_max,
                "lower axes.base.vx.velocity, or use a scanner that sees further",
            )
        return Stopping(part.stream, part.margin, part.slow_distance)


def _period_ns(rate_hz: float) -> int:
    return round(1e9 / rate_hz)


def _ms(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
