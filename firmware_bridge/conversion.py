"""Between the robot file's SI numbers and the wire's integers: pure functions, both directions.

    rad, rad/s, rad/s²  <->  urad, urad/s, urad/s²        m, m/s, m/s²  <->  um, um/s, um/s²
    N m, N              <->  mN m, mN      A <-> mA      degC <-> 0.1 degC      V <-> mV

Limits are rounded to the safe side. The invariant: what is not finite or does not fit the wire is
refused with the axis and the number; nothing is clipped here, that is the firmware's limiter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from edge_wm.errors import MismatchError, UsageError
from edge_wm.robot import Axis, Link, Robot, Stream
from edge_wm.types import Float32, Float64, Sample, Setpoint
from firmware_bridge.clock import Clock
from firmware_bridge.messages import (
    AxisCommand,
    AxisLimits,
    AxisStatus,
    Command,
    Identity,
    Limits,
    Status,
)
from firmware_bridge.wire import SMALLEST

AXES = 8
MICRO = 1e6
INT32_MAX = 2**31 - 1
UINT32_MAX = 2**32 - 1
NO_COMMAND = AxisCommand((0, 0), (0, 0), 0, 0)
NO_LIMITS = AxisLimits(0, 0, 0, 0, 0, 0, 0, 0)
POSITION_VALID, CURRENT_VALID, TEMPERATURE_VALID = 1, 2, 4
# Added to the braking time: the device's reference may lag what the host computed with.
BRAKE_MARGIN_MS = 5
KIND_NAMES: Mapping[int, str] = {
    Identity.AXIS_NONE: "none",
    Identity.AXIS_POSITION_ROTARY: "position in rad",
    Identity.AXIS_POSITION_LINEAR: "position in m",
    Identity.AXIS_VELOCITY_ROTARY: "velocity in rad/s",
    Identity.AXIS_VELOCITY_LINEAR: "velocity in m/s",
}


# ---- robot file -> device -------------------------------------------------------------------
def linked_axes(robot: Robot, link: Link) -> tuple[Axis, ...]:
    """The axes that `link` drives, in the board's order."""
    by_name = {axis.name: axis for axis in robot.axes}
    return tuple(by_name[name] for name in (link.axes or robot.axis_names))


def kind_of(axis: Axis) -> int:
    """The wire's word for what an axis takes."""
    linear = axis.unit in ("m", "m/s")
    if axis.kind == "position":
        return Identity.AXIS_POSITION_LINEAR if linear else Identity.AXIS_POSITION_ROTARY
    return Identity.AXIS_VELOCITY_LINEAR if linear else Identity.AXIS_VELOCITY_ROTARY


def check_axes(robot: Robot, axes: Sequence[Axis], identity: Identity) -> None:
    """Are the board's axes those of the robot file?

    Raises: MismatchError naming the first that is not.
    """
    board = board_name(identity)
    found = [kind for kind in identity.axis_kind if kind != Identity.AXIS_NONE]
    if len(found) != len(axes):
        raise MismatchError(
            f"robot {robot.name}: its link names {len(axes)} axes, board {board} has "
            f"{len(found)}; is this the robot's board? Correct links.axes or the port"
        )
    for index, axis in enumerate(axes):
        if identity.axis_kind[index] != kind_of(axis):
            has = KIND_NAMES.get(identity.axis_kind[index], "of an unknown kind")
            raise MismatchError(
                f"robot {robot.name}: axis {axis.name} is {KIND_NAMES[kind_of(axis)]}, but axis "
                f"{index} of board {board} is {has}; correct the order of links.axes or the port"
            )


def board_name(identity: Identity) -> str:
    return identity.hardware.rstrip(b"\0").decode("ascii", "replace")


def limits_of(robot: Robot, link: Link) -> Limits:
    """The robot file's limits as the device takes them."""
    rows = [_axis_limits(axis, link) for axis in linked_axes(robot, link)]
    return Limits(
        axes=len(rows),
        dead_man_us=max(robot.dead_man_ns // 1000, 1),
        bus_min_mV=math.ceil(link.bus_voltage[0] * 1e3),
        bus_max_mV=math.floor(link.bus_voltage[1] * 1e3),
        axis=(*rows, *(NO_LIMITS,) * (AXES - len(rows))),
    )


def _axis_limits(axis: Axis, link: Link) -> AxisLimits:
    return AxisLimits(
        position_min=max(math.ceil(_micro(axis.position_min)), -INT32_MAX),
        position_max=min(math.floor(_micro(axis.position_max)), INT32_MAX),
        velocity_max=_down(max(axis.velocity_max, -axis.velocity_min) * MICRO),
        acceleration_max=_down(axis.acceleration * MICRO),
        braking=_down(axis.braking * MICRO),
        torque_max=_down(axis.effort_max * 1e3),
        current_max=math.floor(link.current_max * 1e3),
        temperature_max=math.floor(link.temperature_max * 10),
    )


def _micro(value: float) -> float:
    """Bounded, so that infinity can be rounded."""
    return min(max(value * MICRO, -(2.0**40)), 2.0**40)


def _down(value: float) -> int:
    """Rounded down, at least 1, at most what the device can compare with (int32)."""
    return max(math.floor(min(value, INT32_MAX) + 1e-6), 1)


# ---- setpoint -> device ---------------------------------------------------------------------
def command_of(
    setpoint: Setpoint, axes: Sequence[Axis], clock: Clock, limits_crc: int, delay_ns: int = 0
) -> Command:
    """The first two knots of `setpoint`, its braking suffix and its times, for the device.

    delay_ns: it takes effect so much later than its own times.

    Raises: UsageError if a number is not finite or does not fit, or an axis is missing.
    """
    columns = []
    for axis in axes:
        if axis.name not in setpoint.axes:
            raise UsageError(
                f"setpoint {setpoint.sequence}: must have the axis {axis.name}, has "
                f"{', '.join(setpoint.axes)}; use the robot file that the link was opened with"
            )
        columns.append(setpoint.axes.index(axis.name))
    knot_us = int(setpoint.times_ns[1] - setpoint.times_ns[0]) // 1000
    valid_us = (setpoint.valid_until_ns - setpoint.apply_at_ns) // 1000
    apply_at_us = clock.device_us(setpoint.apply_at_ns + delay_ns)
    for name, value, low, high in (
        ("the time between its knots", knot_us, 1, UINT32_MAX),
        ("its validity", valid_us, 0, UINT32_MAX),
        ("its time of effect", apply_at_us, 0, 2**63),
    ):
        if not low <= value <= high:
            raise UsageError(
                f"setpoint {setpoint.sequence}: {name} must be {low} to {high} us on the wire, "
                f"got {value}; correct its times"
            )
    rows = [
        _axis_command(setpoint, axis, column) for axis, column in zip(axes, columns, strict=True)
    ]
    return Command(
        limits_crc=limits_crc,
        apply_at_us=apply_at_us,
        knot_us=knot_us,
        valid_us=valid_us,
        axes=len(rows),
        axis=(*rows, *(NO_COMMAND,) * (AXES - len(rows))),
    )


def _axis_command(setpoint: Setpoint, axis: Axis, column: int) -> AxisCommand:
    def whole(name: str, value: float, low: int, high: int) -> int:
        scaled = value * MICRO
        if not math.isfinite(scaled) or not low <= round(scaled) <= high:
            raise UsageError(
                f"setpoint {setpoint.sequence}: {name} of {axis.name} must be finite and within "
                f"{low / MICRO:g} to {high / MICRO:g}, got {value:g}; it was not sent"
            )
        return round(scaled)

    def knots(name: str, rows: Float64) -> tuple[int, int]:
        return (
            whole(name, float(rows[0, column]), -INT32_MAX, INT32_MAX),
            whole(name, float(rows[1, column]), -INT32_MAX, INT32_MAX),
        )

    velocity = knots("velocity", setpoint.velocity)
    position = knots("position", setpoint.position) if axis.kind == "position" else (0, 0)
    # The suffix may begin early (the dead-man, a fault), when the axis is faster than at the end of
    # the knots: through a reversal the guard's share for that end is next to nothing.
    peak = float(np.abs(setpoint.velocity[:2, column]).max())
    planned_s = max(int(setpoint.brake_end_ns[column]) - setpoint.valid_until_ns, 0) * 1e-9
    brake = float(setpoint.brake_deceleration[column])
    if brake > 0.0:
        brake = max(brake, peak / (planned_s + peak / axis.braking) if peak else 0.0)
        if brake * MICRO < 1.0:  # it stands to the wire's last digit
            brake = axis.braking
    deceleration = whole("brake_deceleration", brake, 1, UINT32_MAX)
    stop_ms = math.ceil(1e9 * peak / deceleration)
    brake_ms = max(math.ceil(planned_s * 1e3), stop_ms, 1) + BRAKE_MARGIN_MS
    if brake_ms > 65_535:
        raise UsageError(
            f"setpoint {setpoint.sequence}: {axis.name} must brake within 65 s, needs "
            f"{brake_ms / 1e3:g} s; it was not sent"
        )
    return AxisCommand(position, velocity, deceleration, brake_ms)


def link_load_permille(
    bits_per_s: int, setpoint_period_ns: int, status_period_us: int = 5000
) -> int:
    """How much of the wire the session will take, in its busier direction; 0 without a rate."""
    if not bits_per_s:
        return 0
    up = _frame_bytes(Command.SIZE) * 1e9 / setpoint_period_ns
    down = _frame_bytes(Status.SIZE) * 1e6 / status_period_us
    return math.ceil(1000 * 10 * max(up, down) / bits_per_s)  # 8N1: 10 bits a byte


def _frame_bytes(payload: int) -> int:
    """With header, CRC, COBS overhead and both borders."""
    body = SMALLEST + payload
    return body + body // 254 + 1 + 2


# ---- device -> samples ----------------------------------------------------------------------
class Sampler:
    """Turns the device's Status into samples of the joint_state streams that it covers."""

    def __init__(self, robot: Robot, axes: Sequence[Axis]) -> None:
        self.invalid = 0  # samples withheld because the device marked a position invalid
        self._robot = robot
        self._axes = tuple(axes)
        self._last: list[int | None] = [None] * len(axes)
        self._position = [0] * len(axes)  # unwrapped, um or urad
        self._due_us: dict[str, int] = {}
        self._sequence: dict[str, int] = {}
        self.streams = tuple(
            stream
            for stream in robot.streams.values()
            if stream.joints and all(self._covers(joint) for joint in stream.joints)
        )

    def take(self, status: Status, stamp_ns: int, received_ns: int) -> list[Sample]:
        """The samples that are due with this status, which was measured at `stamp_ns`."""
        valid = True
        for index in range(len(self._axes)):
            valid &= self._unwrap(index, status.axis[index])
        samples = []
        for stream in self.streams:
            # Half a status early counts as due, so that jitter does not halve the rate.
            if status.sampled_us + 2500 < self._due_us.get(stream.name, 0):
                continue
            self._due_us[stream.name] = status.sampled_us + stream.period_ns // 1000
            if not valid:
                self.invalid += 1
                continue
            sequence = self._sequence[stream.name] = self._sequence.get(stream.name, -1) + 1
            data = self._joints(stream, status)
            samples.append(Sample(stream.name, stamp_ns, received_ns, sequence, data))
        return samples

    def restart(self) -> None:
        """A new session: the device may count its positions from elsewhere."""
        self._last = [None] * len(self._axes)
        self._due_us.clear()

    def _unwrap(self, index: int, axis: AxisStatus) -> bool:
        """Distances wrap modulo 2^32; a robot moves far less than half of that in 5 ms."""
        if not axis.flags & POSITION_VALID:
            return False
        last = self._last[index]
        step = axis.position - (axis.position if last is None else last)
        step = (step + 2**31) % 2**32 - 2**31
        if last is None and self._axes[index].kind == "position":
            self._position[index] = axis.position
        else:
            self._position[index] += step
        self._last[index] = axis.position
        return True

    def _covers(self, joint: str) -> bool:
        names = {axis.name for axis in self._axes}
        base = self._robot.base
        on_base = base is not None and joint in (base.left_wheel, base.right_wheel)
        return joint in names or (on_base and {"base.vx", "base.wz"} <= names)

    def _joints(self, stream: Stream, status: Status) -> Float32:
        position, velocity = {}, {}
        for index, axis in enumerate(self._axes):
            position[axis.name] = self._position[index] / MICRO
            velocity[axis.name] = status.axis[index].velocity / MICRO
        base = self._robot.base
        if base is not None and {"base.vx", "base.wz"} <= set(position):
            for values in (position, velocity):
                speeds = base.wheel_speeds(values["base.vx"], values["base.wz"])
                values[base.left_wheel], values[base.right_wheel] = speeds
        rows = [[values[joint] for joint in stream.joints] for values in (position, velocity)]
        return np.array(rows, dtype=np.float32)
