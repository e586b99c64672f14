"""Bought motors behind the link's own protocol: Dynamixel, Feetech, moteus.

                                     the driver process (driver.py)
    SerialLink ══ Unix socket ══►  core/ of the firmware  ── reference ──►  Servos ══ bus ══► motors
     (runtime, wm_bridge,            session, limits,     ◄── readings ──
      edge-wm link)                  dead-man, faults

Such motors have no dead-man that plays an accepted braking suffix, and no limits that a host agrees
with them. So the same C that runs on our boards runs in the driver process, and decides; a `Servos`
only carries references to one family's motors and readings back, through the family's own SDK. What
a driver process is worth compared with a board: docs/motors.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import yaml

from edge_wm.errors import SystemTroubleError, UsageError

Family = Literal["dynamixel", "feetech", "moteus"]
SDK = {
    "dynamixel": ("dynamixel_sdk", "dynamixel-sdk"),
    "feetech": ("scservo_sdk", "ftservo-python-sdk"),
    "moteus": ("moteus", "moteus and python-can"),
}


class Servo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One motor, and how its own numbers become the robot's."""

    id: int
    zero: float = 0.0  # rad of the motor's own scale where the axis stands at 0
    sign: int = 1  # -1: the motor counts the other way
    ampere: float | None = None  # A of one count of its current reading; None: the family's usual


class ServoFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A servo file: which motors hang on which bus, in the order of the robot file's links.axes."""

    family: Family
    port: str  # a device file; of moteus a channel of python-can
    servos: list[Servo]
    baud: int = 1_000_000
    period_ms: int = 10  # of reading and writing all of them
    answer_ms: int = 4  # an answer that has not begun by then does not come
    interface: str = "socketcan"  # of python-can


@dataclass(frozen=True, slots=True)
class Reading:
    """What one motor said, in SI; `answered` False: it said nothing that made sense."""

    position: float = 0.0  # rad, of the axis
    velocity: float = 0.0  # rad/s
    current: float = 0.0  # A
    temperature: float = 25.0  # degC
    voltage: float | None = None  # V, of its supply
    answered: bool = True
    valid: bool = True  # False: the motor itself says that its encoder is wrong


SILENT = Reading(answered=False)
# What our fault checks are told where a motor itself complains; each is beyond every limit.
HOT, SURGE, UNDER_VOLTAGE, OVER_VOLTAGE = 150.0, 70.0, 0.0, 1000.0  # degC, A, V, V
TRIES = 5  # of what a single lost answer must not decide


class Servos(Protocol):
    """The motors of one bus. Nothing here waits longer than the family's answer timeout."""

    def read(self) -> list[Reading]:
        """One of each motor, in the servo file's order. Raises: LinkError if the port is gone."""
        ...

    def hold(self, on: list[bool]) -> bool:
        """Switch each motor's torque on or off; True once all have confirmed it."""
        ...

    def move(self, position: list[float], velocity: list[float], on: list[bool]) -> None:
        """Where the axes shall be now (rad), and how fast (rad/s); only those that are on."""
        ...

    def close(self) -> None:
        """Free the port. May be called twice."""
        ...


def read_servo_file(path: Path) -> ServoFile:
    """Raises: UsageError naming file, field, what was expected and found."""
    try:
        file = msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), ServoFile)
    except OSError as error:
        raise UsageError(f"servo file {path}: cannot be read ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"servo file {path}: {error}; see docs/motors.md") from None
    ids = [servo.id for servo in file.servos]
    for wrong, what in (
        (not 1 <= len(ids) <= 8, f"servos must be 1 to 8, found {len(ids)}"),
        (len(set(ids)) != len(ids), f"every servo must have an id of its own, found {ids}"),
        (any(not 0 <= number <= 252 for number in ids), f"ids must be 0 to 252, found {ids}"),
        (any(abs(servo.sign) != 1 for servo in file.servos), "sign must be 1 or -1"),
        (any(not math.isfinite(servo.zero) for servo in file.servos), "zero must be finite"),
        (not 2 <= file.period_ms <= 20, f"period_ms must be 2 to 20, found {file.period_ms}"),
        (not 1 <= file.answer_ms <= 50, f"answer_ms must be 1 to 50, found {file.answer_ms}"),
    ):
        if wrong:
            raise UsageError(f"servo file {path}: {what}; see docs/motors.md")
    return file


def open_servos(file: ServoFile) -> Servos:
    """The motors that `file` names, with torque off.

    Raises: SystemTroubleError if the family's SDK is not installed; LinkError if the port cannot be
    opened or a motor does not answer.
    """
    try:
        if file.family == "dynamixel":
            from firmware_bridge.motors.dynamixel import Dynamixel

            return Dynamixel(file)
        if file.family == "feetech":
            from firmware_bridge.motors.feetech import Feetech

            return Feetech(file)
        from firmware_bridge.motors.moteus_can import Moteus

        return Moteus(file)
    except ModuleNotFoundError as error:
        module, package = SDK[file.family]
        if error.name not in (module, "can"):
            raise
        raise SystemTroubleError(
            f"{file.family} motors need the package {package}, found none; "
            "pip install 'edge-wm[motors]'"
        ) from None


def centered(angle: float) -> float:
    """The same angle within half a turn of zero, rad."""
    return math.remainder(angle, math.tau)
