"""moteus controllers on CAN-FD, in position mode, through the `moteus` package's commands.

A moteus position is in revolutions of the output. The controller has a dead-man of its own, the
command's timeout: `TIMEOUT_S` after the last command it enters "position timeout" and damps. So
should this process die, the motors lose their drive by themselves.
"""

from __future__ import annotations

import math
import time
from typing import Any

import can
import moteus

from edge_wm.errors import LinkError
from firmware_bridge.motors import (
    HOT,
    OVER_VOLTAGE,
    SILENT,
    SURGE,
    TRIES,
    UNDER_VOLTAGE,
    Reading,
    Servo,
    ServoFile,
    centered,
)
from firmware_bridge.transport import gone

TIMEOUT_S = 0.1
WITH_REPLY = 0x8000  # of the arbitration id: source and destination are below it
LENGTHS = (*range(9), 12, 16, 20, 24, 32, 48, 64)  # of CAN-FD frames
PADDING = b"\x50"  # a nop of the register protocol
FAULT_MODE = 1
# Faults of moteus' reference manual, and what our fault checks are told in their place.
TOO_HIGH, TOO_LOW, TOO_HOT, ENCODER = {37}, {40}, {38}, {32, 35, 42, 43, 44, 48}


class Moteus:
    """See the head of this file: `Servos`."""

    def __init__(self, file: ServoFile) -> None:
        self._file = file
        resolution = moteus.QueryResolution()
        resolution.q_current = moteus.F32
        resolution.voltage = resolution.temperature = moteus.F32
        self._motors = [
            moteus.Controller(id=servo.id, query_resolution=resolution) for servo in file.servos
        ]
        try:
            self._bus: Any = can.Bus(interface=file.interface, channel=file.port, fd=True)
        except (can.CanError, OSError, ValueError) as error:
            raise LinkError(
                f"CAN {file.interface} {file.port}: cannot be opened ({error}); bring it up with "
                f"ip link set {file.port} up type can bitrate 1000000 dbitrate 5000000 fd on"
            ) from None
        there: set[int] = set()
        for _ in range(TRIES):
            there |= set(self._ask([motor.make_query() for motor in self._motors]))
            if len(there) == len(file.servos):
                break
        silent = [servo.id for servo in file.servos if servo.id not in there]
        if silent:
            self.close()
            raise LinkError(
                f"CAN {file.interface} {file.port}: the motor with id {silent[0]} does not answer; "
                "check its power, cable, termination and id"
            )
        self.hold([False] * len(file.servos))

    def read(self) -> list[Reading]:
        answers = self._ask([motor.make_query() for motor in self._motors])
        return [_reading(servo, answers.get(servo.id)) for servo in self._file.servos]

    def hold(self, on: list[bool]) -> bool:
        """Torque goes on with the first `move`, and off here."""
        stopped = [
            motor.make_stop(query=True)
            for motor, wanted in zip(self._motors, on, strict=True)
            if not wanted
        ]
        return len(self._ask(stopped)) == len(stopped)

    def move(self, position: list[float], velocity: list[float], on: list[bool]) -> None:
        rows = zip(self._motors, self._file.servos, position, velocity, on, strict=True)
        for motor, servo, angle, speed, moves in rows:
            if moves:
                command = motor.make_position(
                    position=(servo.sign * angle + servo.zero) / math.tau,
                    velocity=servo.sign * speed / math.tau,
                    watchdog_timeout=TIMEOUT_S,
                )
                self._send(command)

    def close(self) -> None:
        self._bus.shutdown()

    def _ask(self, commands: list[Any]) -> dict[int, dict[int, float]]:
        """The registers that each motor told, by id; those that did not answer are missing."""
        for command in commands:
            command.reply_required = True
            self._send(command)
        answers: dict[int, dict[int, float]] = {}
        until = time.monotonic() + self._file.answer_ms * 1e-3
        while len(answers) < len(commands) and (left := until - time.monotonic()) > 0:
            try:
                message = self._bus.recv(left)
            except can.CanError as error:
                raise gone(self._file.port, error) from None
            if message is None or message.is_error_frame or message.arbitration_id & 0x7F:
                continue
            parsed = commands[0].parse(message)
            answers[parsed.id] = parsed.values
        return answers

    def _send(self, command: Any) -> None:
        target = getattr(command.destination, "can_id", command.destination)
        size = next(size for size in LENGTHS if size >= len(command.data))
        message = can.Message(
            arbitration_id=(WITH_REPLY if command.reply_required else 0) | target,
            is_extended_id=True,
            is_fd=True,
            bitrate_switch=True,
            data=command.data.ljust(size, PADDING),
        )
        try:
            self._bus.send(message)
        except can.CanError as error:
            raise gone(self._file.port, error) from None


def _reading(servo: Servo, told: dict[int, float] | None) -> Reading:
    register = moteus.Register
    if told is None or not math.isfinite(told.get(register.POSITION, math.nan)):
        return SILENT
    fault = int(told[register.FAULT]) if told[register.MODE] == FAULT_MODE else 0
    voltage = told[register.VOLTAGE]
    if fault in TOO_HIGH | TOO_LOW:
        voltage = OVER_VOLTAGE if fault in TOO_HIGH else UNDER_VOLTAGE
    known = TOO_HIGH | TOO_LOW | TOO_HOT | ENCODER | {0}
    return Reading(
        position=servo.sign * centered(told[register.POSITION] * math.tau - servo.zero),
        velocity=servo.sign * told[register.VELOCITY] * math.tau,
        current=told[register.Q_CURRENT] if fault in known else SURGE,
        temperature=HOT if fault in TOO_HOT else told[register.TEMPERATURE],
        voltage=voltage,
        valid=fault not in ENCODER,
    )
