"""What the serial SDKs of Dynamixel and Feetech share: their port, made patient and idle enough.

Both SDKs wait for an answer by asking the port again and again without a pause, and for 34 ms if
none comes: on a bus that must be read every 10 ms one mute servo would stop all others.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import serial

from edge_wm.errors import LinkError
from firmware_bridge.motors import TRIES, ServoFile
from firmware_bridge.transport import gone, open_trouble


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


def begin(file: ServoFile, answers: Callable[[int], bool], torque_off: Callable[[], bool]) -> None:
    """Is every motor there, and its torque off?

    Raises: LinkError naming the one that is not.
    """
    for servo in file.servos:
        if not any(answers(servo.id) for _ in range(TRIES)):
            raise LinkError(
                f"port {file.port}: the motor with id {servo.id} does not answer at {file.baud} "
                "baud; check its power, cable, id and baud"
            )
    if not any(torque_off() for _ in range(TRIES)):
        raise LinkError(
            f"port {file.port}: a motor did not confirm that its torque is off; cut its power"
        )


def lost(name: str, error: Exception) -> LinkError:
    """The port broke while it was in use."""
    return gone(name, error)
