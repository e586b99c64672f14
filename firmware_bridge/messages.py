"""The link's messages, written by scripts/generate_wire.py from the schema; do not edit.

Every message has a fixed size. Numbers are integers in the units that the schema names beside them
(firmware_bridge/mcu/protocol/edge_wire); `Message` says how they become bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from firmware_bridge.message import Field, Message

SCHEMA_HASH = 0x9B613683  # of the schema's files, without comments; see `schema_hash`


@dataclass(frozen=True, slots=True)
class Arm(Message):
    """Host: torque on, hold at rest. Answered by Status, or by Refusal with its reason."""

    ID: ClassVar[int] = 7
    limits_crc: int
    clock_error_us: int
    link_load_permille: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("limits_crc", "I", 0),
        Field("clock_error_us", "I", 0),
        Field("link_load_permille", "H", 0),
    )
    SIZE: ClassVar[int] = 10


@dataclass(frozen=True, slots=True)
class AxisCommand(Message):
    position: tuple[int, ...]
    velocity: tuple[int, ...]
    brake_deceleration: int
    brake_ms: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("position", "i", 2),
        Field("velocity", "i", 2),
        Field("brake_deceleration", "I", 0),
        Field("brake_ms", "H", 0),
    )
    SIZE: ClassVar[int] = 22


@dataclass(frozen=True, slots=True)
class AxisLimits(Message):
    position_min: int
    position_max: int
    velocity_max: int
    acceleration_max: int
    braking: int
    torque_max: int
    current_max: int
    temperature_max: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("position_min", "i", 0),
        Field("position_max", "i", 0),
        Field("velocity_max", "I", 0),
        Field("acceleration_max", "I", 0),
        Field("braking", "I", 0),
        Field("torque_max", "I", 0),
        Field("current_max", "H", 0),
        Field("temperature_max", "h", 0),
    )
    SIZE: ClassVar[int] = 28


@dataclass(frozen=True, slots=True)
class AxisStatus(Message):
    position: int
    velocity: int
    torque: int
    current: int
    temperature: int
    flags: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("position", "i", 0),
        Field("velocity", "i", 0),
        Field("torque", "h", 0),
        Field("current", "h", 0),
        Field("temperature", "h", 0),
        Field("flags", "B", 0),
    )
    SIZE: ClassVar[int] = 15


@dataclass(frozen=True, slots=True)
class ClockReply(Message):
    """Device: when the request's last byte arrived; when this was sent stands in the header."""

    ID: ClassVar[int] = 4
    token: int
    received_us: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("token", "I", 0),
        Field("received_us", "Q", 0),
    )
    SIZE: ClassVar[int] = 12


@dataclass(frozen=True, slots=True)
class ClockRequest(Message):
    """Host: what time is it with you?"""

    ID: ClassVar[int] = 3
    token: int
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("token", "I", 0),)
    SIZE: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Command(Message):
    """Host: a setpoint, and the heartbeat."""

    ID: ClassVar[int] = 9
    limits_crc: int
    apply_at_us: int
    knot_us: int
    valid_us: int
    axes: int
    axis: tuple[AxisCommand, ...]
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("limits_crc", "I", 0),
        Field("apply_at_us", "Q", 0),
        Field("knot_us", "I", 0),
        Field("valid_us", "I", 0),
        Field("axes", "B", 0),
        Field("axis", AxisCommand, 8),
    )
    SIZE: ClassVar[int] = 197


@dataclass(frozen=True, slots=True)
class Disarm(Message):
    """Host: brake by the last accepted suffix, then torque off; not latched. Answered by Status."""

    ID: ClassVar[int] = 8
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    SIZE: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class EmergencyStop(Message):
    """Host: stop and latch. Accepted from any session."""

    ID: ClassVar[int] = 14
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    SIZE: ClassVar[int] = 0


@dataclass(frozen=True, slots=True)
class FaultQuery(Message):
    """Host: give me record `index`, 0 being the newest."""

    ID: ClassVar[int] = 11
    index: int
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("index", "B", 0),)
    SIZE: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class FaultRecord(Message):
    """Device. A record survives resets."""

    ID: ClassVar[int] = 12
    index: int
    count: int
    reason: int
    axis: int
    value: int
    limit: int
    boots: int
    device_us: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("index", "B", 0),
        Field("count", "B", 0),
        Field("reason", "H", 0),
        Field("axis", "B", 0),
        Field("value", "i", 0),
        Field("limit", "i", 0),
        Field("boots", "I", 0),
        Field("device_us", "Q", 0),
    )
    SIZE: ClassVar[int] = 25


@dataclass(frozen=True, slots=True)
class Header(Message):
    """Stands before every payload. Its layout, and Hello's and Refusal's, never change, so that two ends of different versions can still tell each other which of them is older."""

    PROTOCOL_VERSION: ClassVar[int] = 1
    protocol_version: int
    message_id: int
    schema_hash: int
    session_id: int
    sequence: int
    device_us: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("protocol_version", "B", 0),
        Field("message_id", "B", 0),
        Field("schema_hash", "I", 0),
        Field("session_id", "I", 0),
        Field("sequence", "I", 0),
        Field("device_us", "Q", 0),
    )
    SIZE: ClassVar[int] = 22


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """Host: who are you? Opens a new session and ends the old one; a moving device brakes."""

    ID: ClassVar[int] = 1
    nonce: int
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("nonce", "I", 0),)
    SIZE: ClassVar[int] = 4


@dataclass(frozen=True, slots=True)
class Identity(Message):
    """Device: the answer to Hello. The new session's id stands in the header."""

    ID: ClassVar[int] = 2
    AXIS_NONE: ClassVar[int] = 0
    AXIS_POSITION_ROTARY: ClassVar[int] = 1
    AXIS_POSITION_LINEAR: ClassVar[int] = 2
    AXIS_VELOCITY_ROTARY: ClassVar[int] = 3
    AXIS_VELOCITY_LINEAR: ClassVar[int] = 4
    RESET_POWER_ON: ClassVar[int] = 1
    RESET_PIN: ClassVar[int] = 2
    RESET_SOFTWARE: ClassVar[int] = 3
    RESET_WATCHDOG: ClassVar[int] = 4
    RESET_HARD_FAULT: ClassVar[int] = 5
    RESET_STACK_OVERFLOW: ClassVar[int] = 6
    RESET_HANG: ClassVar[int] = 7
    CAPABILITY_ESTOP_INPUT: ClassVar[int] = 1
    CAPABILITY_HARDWARE_WATCHDOG: ClassVar[int] = 2
    CAPABILITY_UPDATE: ClassVar[int] = 4
    CAPABILITY_DEVELOPER: ClassVar[int] = 8
    nonce: int
    firmware_version: tuple[int, ...]
    image_sha256: tuple[int, ...]
    hardware: tuple[int, ...]
    serial: tuple[int, ...]
    reset_cause: int
    capabilities: int
    boots: int
    axis_kind: tuple[int, ...]
    dead_man_max_us: int
    link_bits_per_s: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("nonce", "I", 0),
        Field("firmware_version", "H", 3),
        Field("image_sha256", "B", 32),
        Field("hardware", "B", 16),
        Field("serial", "B", 12),
        Field("reset_cause", "B", 0),
        Field("capabilities", "B", 0),
        Field("boots", "I", 0),
        Field("axis_kind", "B", 8),
        Field("dead_man_max_us", "I", 0),
        Field("link_bits_per_s", "I", 0),
    )
    SIZE: ClassVar[int] = 92


@dataclass(frozen=True, slots=True)
class Limits(Message):
    """Host: the limits of the robot file. The device takes the tighter of these and its compiled ones."""

    ID: ClassVar[int] = 5
    axes: int
    dead_man_us: int
    bus_min_mV: int
    bus_max_mV: int
    axis: tuple[AxisLimits, ...]
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("axes", "B", 0),
        Field("dead_man_us", "I", 0),
        Field("bus_min_mV", "H", 0),
        Field("bus_max_mV", "H", 0),
        Field("axis", AxisLimits, 8),
    )
    SIZE: ClassVar[int] = 233


@dataclass(frozen=True, slots=True)
class LimitsReply(Message):
    """Device: what it will hold to, and the CRC-32C of `limits` as it stands here. Arm and every Command must repeat it."""

    ID: ClassVar[int] = 6
    limits: Limits
    crc: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("limits", Limits, 0),
        Field("crc", "I", 0),
    )
    SIZE: ClassVar[int] = 237


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """Host: send this back. With the header, CRC and the frame's three bytes it makes 64 bytes."""

    ID: ClassVar[int] = 15
    data: tuple[int, ...]
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("data", "B", 35),)
    SIZE: ClassVar[int] = 35


@dataclass(frozen=True, slots=True)
class Pong(Message):
    ID: ClassVar[int] = 16
    data: tuple[int, ...]
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("data", "B", 35),)
    SIZE: ClassVar[int] = 35


@dataclass(frozen=True, slots=True)
class Refusal(Message):
    """Device: your message was intact, but I will not do it."""

    ID: ClassVar[int] = 17
    message_id: int
    sequence: int
    reason: int
    axis: int
    value: int
    limit: int
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("message_id", "B", 0),
        Field("sequence", "I", 0),
        Field("reason", "H", 0),
        Field("axis", "B", 0),
        Field("value", "i", 0),
        Field("limit", "i", 0),
    )
    SIZE: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class Reset(Message):
    """Host: the operator releases the named latched fault (or the emergency stop). The only way out of one. Answered by Status (idle, disarmed), or by Refusal if another is latched or the cause lasts."""

    ID: ClassVar[int] = 13
    reason: int
    FIELDS: ClassVar[tuple[Field, ...]] = (Field("reason", "H", 0),)
    SIZE: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class Status(Message):
    """Device: unasked, every 5 ms within a session, and as an answer."""

    ID: ClassVar[int] = 10
    TORQUE_ENABLED: ClassVar[int] = 1
    ARMED: ClassVar[int] = 2
    ESTOP_INPUT_OPEN: ClassVar[int] = 4
    BRAKING: ClassVar[int] = 8
    mode: int
    reason: int
    fault_axis: int
    flags: int
    command_sequence: int
    sampled_us: int
    bus_mV: int
    link_load_permille: int
    frames_accepted: int
    frames_damaged: int
    frames_refused: int
    last_refusal: int
    fault_records: int
    axis: tuple[AxisStatus, ...]
    FIELDS: ClassVar[tuple[Field, ...]] = (
        Field("mode", "B", 0),
        Field("reason", "H", 0),
        Field("fault_axis", "B", 0),
        Field("flags", "B", 0),
        Field("command_sequence", "I", 0),
        Field("sampled_us", "Q", 0),
        Field("bus_mV", "H", 0),
        Field("link_load_permille", "H", 0),
        Field("frames_accepted", "I", 0),
        Field("frames_damaged", "I", 0),
        Field("frames_refused", "I", 0),
        Field("last_refusal", "H", 0),
        Field("fault_records", "H", 0),
        Field("axis", AxisStatus, 8),
    )
    SIZE: ClassVar[int] = 157


BY_ID: dict[int, type[Message]] = {
    1: Hello,
    2: Identity,
    3: ClockRequest,
    4: ClockReply,
    5: Limits,
    6: LimitsReply,
    7: Arm,
    8: Disarm,
    9: Command,
    10: Status,
    11: FaultQuery,
    12: FaultRecord,
    13: Reset,
    14: EmergencyStop,
    15: Ping,
    16: Pong,
    17: Refusal,
}
