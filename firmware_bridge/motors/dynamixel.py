"""Dynamixel motors of the X series, protocol 2.0, in position mode.

The control table is that of ROBOTIS' e-manual for the XM430, the same for all of the X series:

    64   torque enable, 1 byte          126  present current, 2 bytes, signed
    70   hardware error status, 1       128  present velocity, 4, 0.229 rev/min
    98   bus watchdog, 1, 20 ms         132  present position, 4, 4096 a turn
    116  goal position, 4               144  present input voltage, 2, 0.1 V
                                        146  present temperature, 1, degC

The motor's own bus watchdog is set to `WATCHDOG_MS`: should this process die with torque on, the
motor stops where it is (and keeps its torque). It is cleared when torque is switched on.
"""

from __future__ import annotations

import serial
from dynamixel_sdk import COMM_SUCCESS, GroupSyncWrite, PacketHandler, PortHandler

from edge_wm.errors import LinkError
from firmware_bridge.motors import (
    HOT,
    SILENT,
    SURGE,
    TURN,
    UNDER_VOLTAGE,
    Reading,
    Servo,
    ServoFile,
    centered,
)
from firmware_bridge.motors.bus import begin, lost, open_port

TORQUE, HARDWARE_ERROR, WATCHDOG, GOAL = 64, 70, 98, 116
PRESENT, PRESENT_BYTES = 126, 21
COUNTS, MIDDLE = 4096, 2048
VELOCITY = 0.229 / 60 * TURN  # rad/s of one count
AMPERE = 2.69e-3
ALERT = 0x80
WATCHDOG_MS, WATCHDOG_UNIT_MS = 200, 20
# Hardware error status: the bits, and what our fault checks are told in their place.
VOLTAGE, OVERHEATING, ENCODER, SHOCK, OVERLOAD = 1, 4, 8, 16, 32


class Dynamixel:
    """See the head of this file: `Servos`."""

    def __init__(self, file: ServoFile) -> None:
        self._file = file
        self._port = open_port(PortHandler, file)
        self._packets = PacketHandler(2.0)
        self._goal = GroupSyncWrite(self._port, self._packets, GOAL, 4)
        try:
            begin(file, self._answers, lambda: self.hold([False] * len(file.servos)))
        except LinkError:
            self.close()
            raise

    def read(self) -> list[Reading]:
        try:
            return [self._read(servo) for servo in self._file.servos]
        except (OSError, serial.SerialException) as error:
            raise lost(self._file.port, error) from None

    def hold(self, on: list[bool]) -> bool:
        confirmed = True
        try:
            for servo, wanted in zip(self._file.servos, on, strict=True):
                if wanted:  # 0 also clears a watchdog that has barked; then it is set anew
                    for value in (0, WATCHDOG_MS // WATCHDOG_UNIT_MS):
                        confirmed &= self._write(servo.id, WATCHDOG, value)
                confirmed &= self._write(servo.id, TORQUE, int(wanted))
        except (OSError, serial.SerialException) as error:
            raise lost(self._file.port, error) from None
        return confirmed

    def move(self, position: list[float], velocity: list[float], on: list[bool]) -> None:
        self._goal.clearParam()
        for servo, angle, moves in zip(self._file.servos, position, on, strict=True):
            if not moves:
                continue
            count = round((servo.sign * angle + servo.zero) / TURN * COUNTS) + MIDDLE
            self._goal.addParam(servo.id, list((count & 0xFFFFFFFF).to_bytes(4, "little")))
        try:
            self._goal.txPacket()
        except (OSError, serial.SerialException) as error:
            raise lost(self._file.port, error) from None

    def close(self) -> None:
        if self._port.is_open:
            self._port.closePort()

    def _answers(self, number: int) -> bool:
        return bool(self._packets.ping(self._port, number)[1] == COMM_SUCCESS)

    def _write(self, number: int, address: int, value: int) -> bool:
        result, error = self._packets.write1ByteTxRx(self._port, number, address, value)
        return bool(result == COMM_SUCCESS and not error & ~ALERT)

    def _read(self, servo: Servo) -> Reading:
        data, result, error = self._packets.readTxRx(self._port, servo.id, PRESENT, PRESENT_BYTES)
        if result != COMM_SUCCESS or error & ~ALERT or len(data) != PRESENT_BYTES:
            return SILENT
        raw = bytes(data)
        trouble = 0
        if error & ALERT:
            trouble, result, _ = self._packets.read1ByteTxRx(self._port, servo.id, HARDWARE_ERROR)
            if result != COMM_SUCCESS:
                return SILENT
        count = int.from_bytes(raw[6:10], "little", signed=True)
        ampere = AMPERE if servo.ampere is None else servo.ampere
        current = int.from_bytes(raw[0:2], "little", signed=True) * ampere
        speed = int.from_bytes(raw[2:6], "little", signed=True) * VELOCITY
        angle = (count - MIDDLE) * TURN / COUNTS - servo.zero
        return Reading(
            position=servo.sign * centered(angle),
            velocity=servo.sign * speed,
            current=SURGE if trouble & (SHOCK | OVERLOAD) else current,
            temperature=HOT if trouble & OVERHEATING else float(raw[20]),
            voltage=UNDER_VOLTAGE
            if trouble & VOLTAGE
            else int.from_bytes(raw[18:20], "little") * 0.1,
            valid=not trouble & ENCODER,
        )
