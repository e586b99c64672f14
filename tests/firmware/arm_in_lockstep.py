"""The two-joint arm (MuJoCo, motor electrics, friction, encoders) turned by the real firmware.

Firmware and plant exchange once a millisecond through the window; nothing here reads a clock, so
the whole run, bytes and bodies, has one SHA-256.
"""

from __future__ import annotations

import math

import numpy as np

from edge_wm.robot import find_robot, load_robot
from edge_wm.simulation.arm import ArmPlant
from firmware.rig import Rig
from firmware_bridge.conversion import MICRO, limits_of
from firmware_bridge.link import link_to
from firmware_bridge.lockstep import Lockstep
from firmware_bridge.looped import FirmwareJoints
from firmware_bridge.messages import AxisCommand

ROBOT = load_robot(find_robot("arm"))
LIMITS = limits_of(ROBOT, link_to(ROBOT, "window"))
PERIOD_MS = 5  # setpoint_rate_hz of robots/arm.yaml
SWEEP = (-0.6, -0.9)  # rad, away from the post
TURN_S = 1.6


class ArmRig(Rig):
    """A host and a board that move the plant of robots/arm.yaml."""

    def __init__(self, board: Lockstep) -> None:
        super().__init__(board)
        self.body = ArmPlant(ROBOT)
        self._joints = FirmwareJoints(board)
        self.furthest = 0.0  # rad that the arm was from its reference
        self.swept = np.zeros(2)  # rad, the largest position

    def tick(self, count: int = 1) -> None:
        for _ in range(count):
            reading = self.body.reading()
            torques = self._joints.torques(
                reading.position, reading.velocity, reading.current, reading.temperature
            )
            if torques is None:
                self.body.step([0.0, 0.0], "off")
            else:
                self.body.step(torques.tolist(), "torque")
                wanted = [axis.reference_position / MICRO for axis in self.window.axis_out[:2]]
                behind = np.abs(self.body.position - np.array(wanted))
                self.furthest = max(self.furthest, float(behind.max()))
                self.swept = np.maximum(self.swept, np.abs(self.body.position))
            self.trace.update(self.window.outputs())
            self.trace.update(self.body.position.tobytes() + self.body.velocity.tobytes())
            self.hear()

    def sweep(self, seconds: float) -> None:
        """Smoothly to and fro on both joints, then fall silent until the torque is off."""
        self.hello()
        self.agree(LIMITS)
        self.arm()
        for step in range(int(seconds * 1000) // PERIOD_MS):
            moments = [(step + ahead) * PERIOD_MS * 1e-3 for ahead in (0, 1)]
            axes = [AxisCommand(*knots(reach, moments), 4_000_000, 900) for reach in SWEEP]
            self.say(self.command(*axes, knot_us=PERIOD_MS * 1000, valid_us=30_000))
            self.tick(PERIOD_MS)
        while self.window.torque_enable:
            self.tick()


def knots(reach: float, moments: list[float]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Two knots of reach * sin^2: position (urad) and velocity (urad/s), from rest to rest."""
    w = math.tau / TURN_S
    positions = [reach * math.sin(0.5 * w * t) ** 2 for t in moments]
    speeds = [0.5 * reach * w * math.sin(w * t) for t in moments]
    return (
        (round(positions[0] * MICRO), round(positions[1] * MICRO)),
        (round(speeds[0] * MICRO), round(speeds[1] * MICRO)),
    )


def arm_trace(board: Lockstep, seconds: float = 2.0) -> tuple[str, ArmRig]:
    """The SHA-256 of all that firmware and plant did in a sweep, and the rig after it."""
    rig = ArmRig(board)
    try:
        rig.sweep(seconds)
    finally:
        rig.close()
    return rig.trace.hexdigest(), rig
