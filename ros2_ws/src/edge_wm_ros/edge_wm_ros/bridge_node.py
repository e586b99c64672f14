"""wm_bridge: owns the link to the motors. Setpoints in, what the device measures out.

The link here is a device that listens on topics: the simulated robot, with a dead-man of its own.
The bridge adds nothing to a setpoint and takes nothing away; it refuses what is malformed, from
an older epoch, out of order, expired or faster than the robot file allows, and counts it.

Invariant: once the guard's setpoints have stopped coming, the bridge forwards none until it is
armed again, so that a guard that was restarted moves nothing by itself.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Any

import msgspec
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from edge_wm.errors import MismatchError
from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, load_robot
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import setpoint_of, within_limits
from edge_wm_ros.managed import ERROR, OK, ManagedNode, status
from edge_wm_ros.parameters import BridgeSettings, declare, read
from edge_wm_ros.spinning import main

STATE_PERIOD_S = 0.02
EPOCHS_AHEAD = 86_400  # activations since the guard started, less the seconds since then
LONGEST_LEAD_NS = 1_000_000_000  # a setpoint holds at most this far into the future


class BridgeNode(ManagedNode):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_bridge")
        declare(self, BridgeSettings)
        self.settings: BridgeSettings | None = None
        self._held: list[Any] = []
        self._started_ns = time.time_ns()  # tells this process from one after it
        self._armed = False
        self._working = False
        self._newest = (-1, -1)  # epoch and sequence of the last one forwarded
        self._heard_ns = 0  # the last good setpoint
        self._telemetry_ns = 0
        self._latched: str | None = None
        self.forwarded = 0
        self.refused: Counter[Reason] = Counter()

    def configure(self) -> None:
        settings = read(self, BridgeSettings)
        robot = load_robot(find_robot(settings.robot))
        joints = next((s for s in robot.streams.values() if s.type == "joint_state"), None)
        if joints is None:
            raise MismatchError(
                f"robot {robot.name}: must have a joint_state stream, for what the device "
                "measures; add it to the robot file"
            )
        self.settings, self._robot = settings, robot
        period_ns = robot.setpoint_period_ns
        self._silent_ns = settings.guard_silence_ms * 1_000_000
        self._telemetry_silent_ns = settings.telemetry_silence_ms * 1_000_000
        self._out = self.create_publisher(
            JointTrajectory, names.DEVICE_SETPOINT, qos.stream(period_ns)
        )
        self._joints = self.create_publisher(JointState, joints.topic, qos.sensor_offer(16))
        self._states = self.create_publisher(String, names.BRIDGE_STATE, qos.newest())
        self._held = [
            self.create_subscription(
                JointTrajectory, names.SETPOINT, self._on_setpoint, qos.stream(period_ns)
            ),
            self.create_subscription(
                JointState, names.DEVICE_JOINTS, self._on_joints, qos.sensor(16)
            ),
        ]
        self._arm_service = self.create_service(Trigger, "~/arm", self._arm)
        self._timer = self.create_timer(STATE_PERIOD_S, self._watch)

    def activate(self) -> None:
        self._working = True

    def deactivate(self) -> None:
        self._working = self._armed = False

    def cleanup(self) -> None:
        for held in self._held:
            self.destroy_subscription(held)
        if self.settings is not None:
            self.destroy_service(self._arm_service)
            self.destroy_timer(self._timer)
        self._held, self.settings = [], None

    def _on_setpoint(self, message: JointTrajectory) -> None:
        now_ns = self.now_ns()
        setpoint = setpoint_of(message)
        if isinstance(setpoint, str) or setpoint.axes != self._robot.axis_names:
            self.refused[Reason.setpoint_invalid] += 1
            return
        if (setpoint.epoch, setpoint.sequence) <= self._newest:
            self.refused[Reason.setpoint_invalid] += 1
            return
        if setpoint.valid_until_ns <= now_ns:
            self.refused[Reason.setpoint_expired] += 1
            return
        ahead = setpoint.epoch - now_ns // 1_000_000_000  # epochs count on from a clock
        if setpoint.valid_until_ns > now_ns + LONGEST_LEAD_NS or ahead > EPOCHS_AHEAD:
            self.refused[Reason.setpoint_invalid] += 1
            return
        if not within_limits(setpoint, self._robot):
            self.refused[Reason.velocity_limit] += 1
            return
        self._newest = (setpoint.epoch, setpoint.sequence)
        self._heard_ns = now_ns
        if not (self._working and self._armed):
            self.refused[Reason.not_active] += 1
            return
        self._out.publish(message)
        self.forwarded += 1

    def _on_joints(self, message: JointState) -> None:
        self._telemetry_ns = self.now_ns()
        self._joints.publish(message)

    def _arm(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        now_ns = self.now_ns()
        response.success = False
        if not self._working:
            response.message = "wm_bridge is not active; activate its lifecycle first"
        elif now_ns - self._telemetry_ns > self._telemetry_silent_ns:
            response.message = "the device sends nothing; start it, or look at its link"
        elif now_ns - self._heard_ns > self._silent_ns:
            response.message = "the guard sends no setpoints; activate wm_guard first"
        else:
            self._armed, self._latched = True, None
            response.success, response.message = True, "armed"
        return response

    def _watch(self) -> None:
        now_ns = self.now_ns()
        if self._armed and now_ns - self._heard_ns > self._silent_ns:
            self._disarm(Reason.guard_silent.name)
        if self._armed and now_ns - self._telemetry_ns > self._telemetry_silent_ns:
            self._disarm("device_silent")
        told = {
            "now_ns": now_ns,
            "started_ns": self._started_ns,
            "armed": self._armed,
            "latched": self._latched,
            "forwarded": self.forwarded,
            "refused": {reason.name: count for reason, count in self.refused.items()},
        }
        if not self._working:
            return
        self._states.publish(String(data=msgspec.json.encode(told).decode()))

    def _disarm(self, why: str) -> None:
        self._armed, self._latched = False, why
        self.get_logger().error(f"disarmed: {why}")

    def statuses(self) -> list[Any]:
        level = ERROR if self._latched else OK
        return [
            status(
                "wm_bridge: link", level, self._latched or ("armed" if self._armed else "disarmed"),
                forwarded=self.forwarded,
                **{f"refused_{reason.name}": count for reason, count in self.refused.items()},
            )
        ]  # fmt: skip


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(BridgeNode))


if __name__ == "__main__":
    run()
