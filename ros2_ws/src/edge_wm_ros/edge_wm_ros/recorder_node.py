"""wm_recorder: the last seconds of every topic in memory, written when something happens.

    sensors, trajectories, states, diagnostics ──► ring (serialized, as they came)
    mode becomes fault or estop ─┐
    ~/dump (std_srvs/Trigger) ───┴─► a second later: <folder>/<time>_<reason>.mcap

It decodes nothing and is not needed by anybody: it may die, or be left out.
"""

from __future__ import annotations

import sys
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from edge_wm.errors import EdgeWmError, SystemTroubleError
from edge_wm.modes import LATCHED
from edge_wm.recording.ring import Dumped, Message, Ring
from edge_wm.robot import find_robot, load_robot
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import SENSOR_MESSAGES
from edge_wm_ros.parameters import RecorderSettings, declare, read
from edge_wm_ros.spinning import main

AFTER_S = 1.0  # what comes of it is written too
OWN_TOPICS: dict[str, type] = {
    names.GOAL: PoseStamped,
    names.TRAJECTORY: JointTrajectory,
    names.RUNTIME_STATUS: String,
    names.SETPOINT: JointTrajectory,
    names.GUARD_STATE: String,
    names.ACCEPTANCE: String,
    names.BRIDGE_STATE: String,
    names.MODE: String,
    "/diagnostics": DiagnosticArray,
}


class RecorderNode(Node):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_recorder")
        declare(self, RecorderSettings)
        self.settings = settings = read(self, RecorderSettings)
        robot = load_robot(find_robot(settings.robot))
        self._folder = Path(settings.folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SystemTroubleError(
                f"parameter folder: {self._folder} could not be made ({error.strerror}); name one "
                "that can be written to"
            ) from error
        self._ring = Ring(settings.seconds + AFTER_S, settings.megabytes * 2**20)
        self._pending: str | None = None  # why a dump is about to be written
        self._writers: list[threading.Thread] = []
        self._after = self.create_timer(AFTER_S, self._write)
        self._after.cancel()
        topics: dict[str, type] = {
            stream.topic: SENSOR_MESSAGES[stream.type]
            for stream in robot.streams.values()
            if not stream.derived_from
        }
        for topic, kind in (topics | OWN_TOPICS).items():
            keep = self._keeper(topic, kind)
            profile = qos.latched() if topic == names.MODE else qos.sensor(64)
            self.create_subscription(kind, topic, keep, profile, raw=True)
        self.create_subscription(String, names.MODE, self._on_mode, qos.latched())
        self.create_service(Trigger, "~/dump", self._on_dump)

    def stop(self) -> None:
        """What was asked for is written before the end."""
        if self._pending is not None:
            self._write()
        for writer in self._writers:
            writer.join()

    def _keeper(self, topic: str, kind: Any) -> Any:
        package, _, name = kind.__module__.split(".")[0], "", kind.__name__
        full = f"{package}/msg/{name}"

        def keep(data: bytes) -> None:
            now_ns = int(self.get_clock().now().nanoseconds)
            self._ring.add(Message(now_ns, topic, full, bytes(data)))

        return keep

    def _on_mode(self, message: String) -> None:
        if message.data in {mode.name for mode in LATCHED}:
            self._ask(message.data)

    def _on_dump(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._ask("asked_for")
        response.success = True
        response.message = f"written to {self._folder} in {AFTER_S:g} s"
        return response

    def _ask(self, reason: str) -> None:
        """One dump for whatever happens until it is written."""
        if self._pending is None:
            self._pending = reason
            self._after.reset()

    def _write(self) -> None:
        self._after.cancel()
        reason, self._pending = self._pending or "", None
        stamp = datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")
        path = self._folder / f"{stamp}_{reason}.mcap"
        writer = threading.Thread(target=self._dump, args=(path, reason), name="dump")
        self._writers = [w for w in self._writers if w.is_alive()] + [writer]
        writer.start()

    def _dump(self, path: Path, reason: str) -> None:
        try:
            dumped: Dumped = self._ring.dump(path, reason)
        except EdgeWmError as error:
            self.get_logger().error(str(error))
            return
        if self._ring.too_large:
            self.get_logger().warning(
                f"{self._ring.too_large} messages were larger than {self.settings.megabytes} MiB "
                "and are missing; raise the parameter megabytes"
            )
        seconds = (dumped.last_ns - dumped.first_ns) / 1e9
        self.get_logger().info(f"{dumped.messages} messages of {seconds:.1f} s in {dumped.path}")


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(RecorderNode))


if __name__ == "__main__":
    run()
