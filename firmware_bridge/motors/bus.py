"""What the serial families share: the SDK's port, made patient and idle enough, and `SerialServos`.

Both SDKs wait for an answer by asking the port again and again without a pause, and for 34 ms if
none comes: on a bus that must be read every 10 ms one mute servo would stop all others.
"""

from __future__ import annotations

import contextlib
import math
import select
import time
from collections.abc import Iterator
from typing import Any

import serial

from edge_wm.errors import LinkError
from firmware_bridge.motors import TRIES, Reading, Servo, ServoFile, centered
from firmware_bridge.transport import gone, open_trouble

COUNTS, MIDDLE = 4096, 2048  # a turn; where a motor stands at 0 rad of its own scale


class SerialServos:
    """`Servos` on a serial line; a family says how one motor is asked and told.

    SDK_PORT: the SDK's PortHandler. The constructor leaves every torque off.
    """

    SDK_PORT: type[Any]

    def __init__(self, file: ServoFile) -> None:
        self.file = file
        self.port = open_port(self.SDK_PORT, file)
        self.make_sdk()
        try:
            self._begin()
        except LinkError:
            self.close()
            raise

    # ---- firmware_bridge.motors.Servos -----------------------------------------------------------
    def read(self) -> list[Reading]:
        with self._talking():
            return [self.read_one(servo) for servo in self.file.servos]

    def hold(self, on: list[bool]) -> bool:
        with self._talking():
            # All are told, whatever one of them answers.
            told = [self.hold_one(s.id, o) for s, o in zip(self.file.servos, on, strict=True)]
        return all(told)

    def move(self, position: list[float], velocity: list[float], on: list[bool]) -> None:
        goals = {
            servo.id: round((servo.sign * angle + servo.zero) / math.tau * COUNTS) + MIDDLE
            for servo, angle, moves in zip(self.file.servos, position, on, strict=True)
            if moves
        }
        with self._talking():
            self.send_goals(goals)

    def close(self) -> None:
        if self.port.is_open:
            self.port.closePort()

    # ---- what a family says ----------------------------------------------------------------------
    def make_sdk(self) -> None:
        """The SDK's objects, on `port`."""
        raise NotImplementedError

    def answers(self, number: int) -> bool:
        """Is the motor with this id there?"""
        raise NotImplementedError

    def read_one(self, servo: Servo) -> Reading:
        """What one motor says; `SILENT` if that makes no sense."""
        raise NotImplementedError

    def hold_one(self, number: int, on: bool) -> bool:
        """Switch one motor's torque; True if it has confirmed that."""
        raise NotImplementedError

    def send_goals(self, counts: dict[int, int]) -> None:
        """Goal positions by id, in one packet."""
        raise NotImplementedError

    # ---- inside ----------------------------------------------------------------------------------
    def _begin(self) -> None:
        """Is every motor there, and its torque off?"""
        name, baud = self.file.port, self.file.baud
        for servo in self.file.servos:
            if not any(self.answers(servo.id) for _ in range(TRIES)):
                raise LinkError(
                    f"port {name}: the motor with id {servo.id} does not answer at {baud} baud; "
                    "check its power, cable, id and baud"
                )
        if not any(self.hold([False] * len(self.file.servos)) for _ in range(TRIES)):
            raise LinkError(
                f"port {name}: a motor did not confirm that its torque is off; cut its power"
            )

    @contextlib.contextmanager
    def _talking(self) -> Iterator[None]:
        try:
            yield
        except (OSError, serial.SerialException) as error:
            raise gone(self.file.port, error) from None


def position_of(servo: Servo, count: int) -> float:
    """rad of the axis, for a motor's count."""
    return servo.sign * centered((count - MIDDLE) * math.tau / COUNTS - servo.zero)


def patient(handler: type[Any], answer_ms: int) -> type[Any]:
    """The SDK's PortHandler with this module's waiting."""

    class Patient(handler):  # type: ignore[misc]
        def setPacketTimeout(self, packet_length: int) -> None:
            self.packet_start_time = self.getCurrentTime()
            self.packet_timeout = self.tx_time_per_byte * packet_length + answer_ms

        def getCurrentTime(self) -> float:
            return time.monotonic() * 1e3

        def readPort(self, length: int) -> Any:
            if length > 0:
                select.select([self.ser.fileno()], [], [], 0.001)
            return super().readPort(length)

    return Patient


def open_port(handler: type[Any], file: ServoFile) -> Any:
    """The SDK's port, open.

    Raises: LinkError in the words of the link's own ports.
    """
    name, baud = file.port, file.baud
    port = patient(handler, file.answer_ms)(name)
    port.baudrate = baud
    try:
        opened = port.setBaudRate(baud)
    except (OSError, serial.SerialException) as error:
        raise open_trouble(name, error) from None
    if not opened:
        raise LinkError(f"port {name}: baud {baud} is none that the SDK knows; correct baud")
    return port
