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

import math

from scservo_sdk import COMM_SUCCESS, PortHandler, sms_sts

from firmware_bridge.motors import HOT, SILENT, SURGE, UNDER_VOLTAGE, Reading, Servo
from firmware_bridge.motors.bus import COUNTS, SerialServos, position_of

TORQUE = 40
PRESENT, PRESENT_BYTES = 56, 15
AMPERE = 6.5e-3
# Bits of the error byte of every answer.
VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 1, 2, 4, 8, 32


class Feetech(SerialServos):
    """See the head of this file: `Servos`."""

    SDK_PORT = PortHandler

    def make_sdk(self) -> None:
        self._packets = sms_sts(self.port)

    def answers(self, number: int) -> bool:
        return bool(self._packets.ping(number)[1] == COMM_SUCCESS)

    def hold_one(self, number: int, on: bool) -> bool:
        result, _ = self._packets.write1ByteTxRx(number, TORQUE, int(on))
        return bool(result == COMM_SUCCESS)

    def send_goals(self, counts: dict[int, int]) -> None:
        self._packets.groupSyncWrite.clearParam()
        for number, count in counts.items():
            # Speed 0: as fast as it can, so that it follows the reference.
            self._packets.SyncWritePosEx(number, self._packets.scs_toscs(count, 15), 0, 0)
        self._packets.groupSyncWrite.txPacket()

    def read_one(self, servo: Servo) -> Reading:
        data, result, error = self._packets.readTxRx(servo.id, PRESENT, PRESENT_BYTES)
        if result != COMM_SUCCESS or len(data) != PRESENT_BYTES:
            return SILENT

        def signed(at: int) -> int:
            return int(self._packets.scs_tohost(data[at] | data[at + 1] << 8, 15))

        ampere = AMPERE if servo.ampere is None else servo.ampere
        return Reading(
            position=position_of(servo, signed(0)),
            velocity=servo.sign * signed(2) * math.tau / COUNTS,
            current=SURGE if error & (OVERCURRENT | OVERLOAD) else signed(13) * ampere,
            temperature=HOT if error & OVERHEAT else float(data[7]),
            voltage=UNDER_VOLTAGE if error & VOLTAGE else data[6] * 0.1,
            valid=not error & ANGLE,
        )
