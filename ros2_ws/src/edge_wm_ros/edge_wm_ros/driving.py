"""Drives a simulated robot through ROS: starts its processes, gives it goals, tells how it went.

This is what `edge-wm run --ros` and the tests use. It sees what any other ROS node could see.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from edge_wm.types import Trajectory
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import trajectory_of
from edge_wm_ros.launching import Fleet, environment
from edge_wm_ros.processes import Process

GOAL_EVERY_S = 0.5
STANDING = (0.02, 0.05)  # m/s, rad/s: the rover's rest speeds; slower is standing still


@dataclass(frozen=True, slots=True)
class Line:
    """One status of the diagnostics."""

    level: bytes
    message: str
    values: dict[str, str]


@dataclass(slots=True)
class Heard:
    """The newest of what the nodes tell; a reader sees whole values."""

    mode: str = ""
    truth: dict[str, Any] = field(default_factory=dict)
    runtime: dict[str, Any] = field(default_factory=dict)
    guard: dict[str, Any] = field(default_factory=dict)
    bridge: dict[str, Any] = field(default_factory=dict)
    goal: PoseStamped | None = None
    distance: float = 0.0  # m driven, in truth
    fastest: list[float] = field(default_factory=lambda: [0.0, 0.0])  # vx (m/s), wz (rad/s), ever
    moved_ns: int = 0  # the last moment at which it moved
    latencies_ms: list[float] = field(default_factory=list)  # image taken -> its plan is commanded
    ticks_ns: list[int] = field(default_factory=list)  # of the guard, as it stamps them
    diagnostics: dict[str, Line] = field(default_factory=dict)  # by name


class Drive:
    """A fleet, and a node that watches it; use as a context manager."""

    def __init__(self, listed: list[Process], *, logs: Path, respawn: bool = True) -> None:
        os.environ.update(environment())  # before rclpy reads it
        import rclpy

        from edge_wm_ros.spinning import make_executor, spin_once

        self.fleet = Fleet(listed, logs=logs, respawn=respawn)
        self.heard = Heard()
        self._rclpy = rclpy
        self._spin_once = spin_once
        self._make_executor = make_executor
        self._end = threading.Event()
        self._taken_ns: dict[tuple[int, int], int] = {}  # when a trajectory's image was taken

    def __enter__(self) -> Drive:
        rclpy = self._rclpy
        rclpy.init(signal_handler_options=rclpy.signals.SignalHandlerOptions.NO)
        self.node = rclpy.create_node("edge_wm_drive")
        self._executor = self._make_executor()
        self._executor.add_node(self.node)
        heard, subscribe = self.heard, self.node.create_subscription

        def take(name: str) -> Callable[[String], None]:
            def taken(message: String) -> None:
                with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
                    setattr(heard, name, msgspec.json.decode(message.data, type=dict[str, Any]))

            return taken

        def take_truth(message: String) -> None:
            truth, before = msgspec.json.decode(message.data), heard.truth
            if before:
                (x, y, _), (x0, y0, _) = truth["odom_pose"], before["odom_pose"]
                heard.distance += ((x - x0) ** 2 + (y - y0) ** 2) ** 0.5
            twist = [abs(v) for v in truth["twist"]]
            heard.fastest = [max(pair) for pair in zip(heard.fastest, twist, strict=True)]
            if any(v > slow for v, slow in zip(twist, STANDING, strict=True)):
                heard.moved_ns = truth["now_ns"]
            heard.truth = truth

        subscribe(String, names.SIM_TRUTH, take_truth, qos.newest(200))
        subscribe(String, names.RUNTIME_STATUS, take("runtime"), qos.newest())
        subscribe(String, names.GUARD_STATE, self._take_guard, qos.sensor(10))
        subscribe(JointTrajectory, names.TRAJECTORY, self._take_trajectory, qos.sensor(1))
        subscribe(String, names.BRIDGE_STATE, take("bridge"), qos.newest())
        subscribe(
            String, names.MODE, lambda message: setattr(heard, "mode", message.data), qos.latched()
        )
        subscribe(PoseStamped, names.SIM_GOAL, lambda m: setattr(heard, "goal", m), qos.latched())
        subscribe(DiagnosticArray, "/diagnostics", self._take_diagnostics, qos.newest(20))
        self._goals = self.node.create_publisher(PoseStamped, names.GOAL, qos.newest())
        self._thread = threading.Thread(target=self._spin, name="watch", daemon=True)
        self._thread.start()
        self.fleet.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.fleet.stop()
        self._end.set()
        self._thread.join()
        self._executor.shutdown()
        self.node.destroy_node()
        self._rclpy.try_shutdown()

    def _spin(self) -> None:
        while not self._end.is_set():
            self._spin_once(self._executor, self.node)

    def _take_trajectory(self, message: JointTrajectory) -> None:
        trajectory = trajectory_of(message)
        if isinstance(trajectory, Trajectory):
            self._taken_ns[trajectory.epoch, trajectory.sequence] = trajectory.stamp_ns

    def _take_guard(self, message: String) -> None:
        heard = self.heard
        # Whoever else publishes here may say anything.
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError, KeyError):
            heard.guard = msgspec.json.decode(message.data, type=dict[str, Any])
            heard.ticks_ns.append(heard.guard["now_ns"])
            taken_ns = self._taken_ns.pop((heard.guard["epoch"], heard.guard["playing"]), None)
            if taken_ns is not None:
                heard.latencies_ms.append((heard.guard["now_ns"] - taken_ns) / 1e6)

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for line in message.status:
            values = {value.key: value.value for value in line.values}
            self.heard.diagnostics[line.name] = Line(line.level, line.message, values)

    # ---- what a person would do -----------------------------------------------------------------
    def send_goal(self, there: bool = True) -> None:
        """The world's goal, or back to the start."""
        if self.heard.goal is None:
            return
        goal = self.heard.goal
        if not there:
            goal = PoseStamped()
            goal.header.frame_id = self.heard.goal.header.frame_id
            goal.pose.orientation.w = 0.0
        goal.header.stamp = self.node.get_clock().now().to_msg()
        self._goals.publish(goal)

    def send_place(self, x: float, y: float) -> None:
        """A place as seen from the base: x ahead, y to the left (m)."""
        goal = PoseStamped()
        goal.header.frame_id = "base_link"
        goal.header.stamp = self.node.get_clock().now().to_msg()
        goal.pose.position.x, goal.pose.position.y = x, y
        goal.pose.orientation.w = 0.0
        self._goals.publish(goal)

    def until(self, told: Callable[[Heard], object], within_s: float) -> bool:
        """Wait for something to be heard. Restarts what died meanwhile, as a launcher does."""
        patience = time.monotonic() + within_s
        while time.monotonic() < patience:
            with contextlib.suppress(KeyError):  # not heard yet
                if told(self.heard):
                    return True
            self.fleet.watch()
            time.sleep(0.01)
        return False

    def call(self, kind: Any, name: str, request: Any, within_s: float = 10.0) -> Any:
        """Call a service; the answer, or None if none came."""
        client = self.node.create_client(kind, name)
        try:
            until = time.monotonic() + within_s
            while time.monotonic() < until:  # a restarted server loses what came before it found us
                if not client.wait_for_service(timeout_sec=0.1):
                    continue
                answered = threading.Event()
                future = client.call_async(request)
                future.add_done_callback(lambda _, answered=answered: answered.set())
                if answered.wait(1.0):
                    return future.result()
            return None
        finally:
            self.node.destroy_client(client)

    def drive_to_goal(self, within_s: float) -> bool:
        """Send the world's goal until the runtime says that it is reached."""
        sent_s = -GOAL_EVERY_S

        def told(heard: Heard) -> bool:
            nonlocal sent_s
            if time.monotonic() - sent_s > GOAL_EVERY_S:
                sent_s = time.monotonic()
                self.send_goal()
            return bool(heard.runtime["goals_reached"]) or heard.truth["contact_ns"] > 0

        return self.until(told, within_s) and self.heard.truth["contact_ns"] == 0
