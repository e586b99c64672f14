"""Feetech motors of the STS and SMS series, in position mode.

The memory table is that of Feetech's STS3215 manual:

    40  torque enable, 1 byte           56  present position, 2 bytes, 4096 a turn
    42  goal position, 2                58  present speed, 2, counts/s, bit 15 is the sign
                                        62  present voltage, 1, 0.1 V
                                        63  present temperature, 1, degC
                                        69  present current, 2, 6.5 mA, bit 15 is the sign

They have no watchdog of their own: should this process die with torque on, they hold their last
goal for ever.
"""

from __future__ import annotations

import serial
from scservo_sdk import COMM_SUCCESS, PortHandler, sms_sts

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

TORQUE, ACCELERATION = 40, 41
PRESENT, PRESENT_BYTES = 56, 15
COUNTS, MIDDLE = 4096, 2048
AMPERE = 6.5e-3
# Bits of the error byte of every answer.
VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 1, 2, 4, 8, 32


class Feetech:
    """See the head of this file: `Servos`."""

    def __init__(self, file: ServoFile) -> None:
        self._file = file
        self._port = open_port(PortHandler, file)
        self._packets = sms_sts(self._port)
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
                result, _ = self._packets.write1ByteTxRx(servo.id, TORQUE, int(wanted))
                confirmed &= result == COMM_SUCCESS
        except (OSError, serial.SerialException) as error:
            raise lost(self._file.port, error) from None
        return confirmed

    def move(self, position: list[float], velocity: list[float], on: list[bool]) -> None:
        self._packets.groupSyncWrite.clearParam()
        for servo, angle, moves in zip(self._file.servos, position, on, strict=True):
            if not moves:
                continue
            count = round((servo.sign * angle + servo.zero) / TURN * COUNTS) + MIDDLE
            goal = self._packets.scs_toscs(count, 15)
            # Speed 0: as fast as it can, so that it follows the reference.
            self._packets.SyncWritePosEx(servo.id, goal, 0, 0)
        try:
            self._packets.groupSyncWrite.txPacket()
        except (OSError, serial.SerialException) as error:
            raise lost(self._file.port, error) from None

    def close(self) -> None:
        if self._port.is_open:
            self._port.closePort()

    def _answers(self, number: int) -> bool:
        return bool(self._packets.ping(number)[1] == COMM_SUCCESS)

    def _read(self, servo: Servo) -> Reading:
        data, result, error = self._packets.readTxRx(servo.id, PRESENT, PRESENT_BYTES)
        if result != COMM_SUCCESS or len(data) != PRESENT_BYTES:
            return SILENT
        word = [data[at] | data[at + 1] << 8 for at in range(PRESENT_BYTES - 1)]
        signed = self._packets.scs_tohost
        ampere = AMPERE if servo.ampere is None else servo.ampere
        angle = (signed(word[0], 15) - MIDDLE) * TURN / COUNTS - servo.zero
        return Reading(
            position=servo.sign * centered(angle),
            velocity=servo.sign * signed(word[2], 15) * TURN / COUNTS,
            current=SURGE if error & (OVERCURRENT | OVERLOAD) else signed(word[13], 15) * ampere,
            temperature=HOT if error & OVERHEAT else float(data[7]),
            voltage=UNDER_VOLTAGE if error & VOLTAGE else data[6] * 0.1,
            valid=not error & ANGLE,
        )
