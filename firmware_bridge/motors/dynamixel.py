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

import math

from dynamixel_sdk import COMM_SUCCESS, GroupSyncWrite, PacketHandler, PortHandler

from firmware_bridge.motors import HOT, SILENT, SURGE, UNDER_VOLTAGE, Reading, Servo
from firmware_bridge.motors.bus import SerialServos, position_of

TORQUE, HARDWARE_ERROR, WATCHDOG, GOAL = 64, 70, 98, 116
PRESENT, PRESENT_BYTES = 126, 21
VELOCITY = 0.229 / 60 * math.tau  # rad/s of one count
AMPERE = 2.69e-3
ALERT = 0x80
WATCHDOG_MS, WATCHDOG_UNIT_MS = 200, 20
# Bits of the hardware error status.
VOLTAGE, OVERHEATING, ENCODER, SHOCK, OVERLOAD = 1, 4, 8, 16, 32


class Dynamixel(SerialServos):
    """See the head of this file: `Servos`."""

    SDK_PORT = PortHandler

    def make_sdk(self) -> None:
        self._packets = PacketHandler(2.0)
        self._goals = GroupSyncWrite(self.port, self._packets, GOAL, 4)

    def answers(self, number: int) -> bool:
        return bool(self._packets.ping(self.port, number)[1] == COMM_SUCCESS)

    def hold_one(self, number: int, on: bool) -> bool:
        told = []
        if on:  # 0 also clears a watchdog that has barked; then it is set anew
            told = [
                self._write(number, WATCHDOG, value)
                for value in (0, WATCHDOG_MS // WATCHDOG_UNIT_MS)
            ]
        return all([*told, self._write(number, TORQUE, int(on))])

    def send_goals(self, counts: dict[int, int]) -> None:
        self._goals.clearParam()
        for number, count in counts.items():
            self._goals.addParam(number, list((count & 0xFFFFFFFF).to_bytes(4, "little")))
        self._goals.txPacket()

    def read_one(self, servo: Servo) -> Reading:
        data, result, error = self._packets.readTxRx(self.port, servo.id, PRESENT, PRESENT_BYTES)
        if result != COMM_SUCCESS or error & ~ALERT or len(data) != PRESENT_BYTES:
            return SILENT
        raw = bytes(data)
        trouble = 0
        if error & ALERT:
            trouble, result, _ = self._packets.read1ByteTxRx(self.port, servo.id, HARDWARE_ERROR)
            if result != COMM_SUCCESS:
                return SILENT
        ampere = AMPERE if servo.ampere is None else servo.ampere
        current = int.from_bytes(raw[0:2], "little", signed=True) * ampere
        speed = int.from_bytes(raw[2:6], "little", signed=True) * VELOCITY
        voltage = int.from_bytes(raw[18:20], "little") * 0.1
        return Reading(
            position=position_of(servo, int.from_bytes(raw[6:10], "little", signed=True)),
            velocity=servo.sign * speed,
            current=SURGE if trouble & (SHOCK | OVERLOAD) else current,
            temperature=HOT if trouble & OVERHEATING else float(raw[20]),
            voltage=UNDER_VOLTAGE if trouble & VOLTAGE else voltage,
            valid=not trouble & ENCODER,
        )

    def _write(self, number: int, address: int, value: int) -> bool:
        result, error = self._packets.write1ByteTxRx(self.port, number, address, value)
        return bool(result == COMM_SUCCESS and not error & ~ALERT)
