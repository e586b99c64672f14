"""wm_sim: the MuJoCo rover as a ROS robot: sensors out, setpoints or velocities in.

It plays the part of the hardware: its motors have the dead-man of a real controller, its sensors
are late and noisy, and its time is the system's. It runs in real time; where the machine is too
slow it falls behind, and everybody sees old stamps.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from typing import Any

import msgspec
import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.node import Node
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from edge_wm.errors import UsageError
from edge_wm.robot import find_robot, load_robot
from edge_wm.simulation import Disturbances, RoverSimulation
from edge_wm.simulation.world import HELD_BACK_SEED
from edge_wm.types import Setpoint
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import (
    SENSOR_MESSAGES,
    message_of,
    setpoint_of,
    stamp_of,
    time_ns,
    within_limits,
)
from edge_wm_ros.parameters import SimSettings, declare, read
from edge_wm_ros.spinning import main

POLL_S = 0.002
STEP_NS = 1_000_000  # of the physics
TRUTH_EVERY_NS = 20_000_000
INPUTS = ("device", "cmd_vel")
TWIST_TIMEOUT_NS = 100_000_000  # a base controller's: without a new velocity it brakes


class SimNode(Node):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_sim")
        declare(self, SimSettings)
        self.settings = settings = read(self, SimSettings)
        if settings.input not in INPUTS:
            raise UsageError(
                f"parameter input: must be one of {', '.join(INPUTS)}, found {settings.input!r}"
            )
        self._robot = robot = load_robot(find_robot(settings.robot))
        self._inbox: deque[Setpoint] = deque()
        self._malformed = 0
        self._beyond_limits = 0
        self._count = 0
        depths = {"image": 4, "imu": 64}
        self._outlets = {
            name: self.create_publisher(
                SENSOR_MESSAGES[stream.type],
                names.DEVICE_JOINTS if self._through_device(stream.type) else stream.topic,
                qos.sensor_offer(depths.get(stream.type, 16)),
            )
            for name, stream in robot.streams.items()
            if not stream.derived_from
        }
        self._truth = self.create_publisher(String, names.SIM_TRUTH, qos.newest(200))
        self._goal = self.create_publisher(PoseStamped, names.SIM_GOAL, qos.latched())
        if settings.input == "device":
            profile = qos.stream(robot.setpoint_period_ns)
            self.create_subscription(
                JointTrajectory, names.DEVICE_SETPOINT, self._on_setpoint, profile
            )
        else:
            self.create_subscription(TwistStamped, names.CMD_VEL, self._on_twist, qos.sensor(1))
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="world", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join(timeout=2.0)

    def _through_device(self, kind: str) -> bool:
        """Joints are measured by the motor controller, which the bridge speaks to."""
        return kind == "joint_state" and self.settings.input == "device"

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # ---- what arrives -----------------------------------------------------------------------
    def _on_setpoint(self, message: JointTrajectory) -> None:
        setpoint = setpoint_of(message)
        if isinstance(setpoint, str):
            self._malformed += 1
        elif setpoint.axes != self._robot.axis_names or not within_limits(setpoint, self._robot):
            self._beyond_limits += 1  # as a motor controller's own limits would
        else:
            self._inbox.append(setpoint)

    def _on_twist(self, message: TwistStamped) -> None:
        """A velocity as a setpoint that holds it, and expires."""
        axes = self._robot.axes
        twist = {"base.vx": message.twist.linear.x, "base.wz": message.twist.angular.z}
        velocity = np.array([[twist.get(axis.name, 0.0) for axis in axes]] * 2)
        if not np.isfinite(velocity).all():
            self._malformed += 1
            return
        self._count += 1
        apply_at_ns = time_ns(message.header.stamp)
        valid_until_ns = apply_at_ns + TWIST_TIMEOUT_NS
        braking = np.array([axis.braking for axis in axes])
        ends = valid_until_ns + np.rint(np.abs(velocity[1]) / braking * 1e9).astype(np.int64)
        self._inbox.append(
            Setpoint(
                epoch=0,
                sequence=self._count,
                axes=self._robot.axis_names,
                times_ns=np.array([apply_at_ns, apply_at_ns + self._robot.setpoint_period_ns]),
                position=np.zeros_like(velocity),
                velocity=velocity,
                brake_deceleration=braking,
                brake_end_ns=ends,
                apply_at_ns=apply_at_ns,
                valid_until_ns=valid_until_ns,
            )
        )

    # ---- the world's thread -------------------------------------------------------------------
    def _run(self) -> None:
        settings = self.settings
        disturbances = Disturbances(
            camera_drop=settings.camera_drop,
            extra_camera_delay_ns=settings.extra_camera_delay_ms * 1_000_000,
        )
        try:
            simulation = RoverSimulation(
                self._robot,
                HELD_BACK_SEED + settings.seed,
                seed=settings.seed,
                disturbances=disturbances,
                start_ns=self._now_ns(),
            )
        except Exception as error:
            self.get_logger().fatal(f"the simulation could not be made: {error}")
            return
        with simulation:
            self._publish_goal(simulation)
            truth_due_ns = 0
            while not self._end.is_set():
                time.sleep(POLL_S)
                while self._inbox:
                    simulation.send(self._inbox.popleft())
                until_ns = self._now_ns()
                while simulation.now_ns < until_ns - STEP_NS and not self._end.is_set():
                    # in small steps, also where it was held up and has to catch up
                    self._step(simulation, min(until_ns, simulation.now_ns + TRUTH_EVERY_NS))
                    if simulation.now_ns >= truth_due_ns:
                        truth_due_ns = simulation.now_ns + TRUTH_EVERY_NS
                        self._publish_truth(simulation)

    def _step(self, simulation: RoverSimulation, until_ns: int) -> None:
        for sample in simulation.step_to(until_ns):
            stream = self._robot.streams[sample.stream]
            self._outlets[sample.stream].publish(message_of(sample, stream))

    def _publish_goal(self, simulation: RoverSimulation) -> None:
        goal = PoseStamped()
        goal.header.stamp = stamp_of(simulation.now_ns)
        goal.header.frame_id = simulation.goal.frame
        goal.pose.position.x, goal.pose.position.y = simulation.goal.x, simulation.goal.y
        goal.pose.orientation.w = 0.0  # all zeros: any heading
        self._goal.publish(goal)

    def _publish_truth(self, simulation: RoverSimulation) -> None:
        truth = simulation.truth()
        told: dict[str, Any] = {
            "now_ns": truth.now_ns,
            "behind_ms": (self._now_ns() - truth.now_ns) / 1e6,
            "odom_pose": truth.odom_pose,
            "twist": truth.twist,
            "contact": truth.contact,
            "contact_ns": truth.contact_ns,
            "clearance": truth.clearance,
            "goal_distance": truth.goal_distance,
            "refused": {reason.name: count for reason, count in simulation.refused.items()},
            "malformed": self._malformed,
            "beyond_limits": self._beyond_limits,
        }
        self._truth.publish(String(data=msgspec.json.encode(told).decode()))


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(SimNode))


if __name__ == "__main__":
    run()
