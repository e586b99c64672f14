"""Shows a run live in Rerun: the camera, the way driven and planned, speed and latencies.

It is a second journal: it sees the events that are recorded and nothing else, and it only hands
them on; the viewer is a process of its own.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from edge_wm.errors import BackendError
from edge_wm.recording import Event, PlanEnd, Prediction, Step, Truth, World
from edge_wm.robot import Robot
from edge_wm.types import Sample

WAY_LENGTH = 2000  # poses shown of the way driven


class Viewer:
    """A journal that draws. With `save`, into a file for `rerun FILE` instead of a window."""

    def __init__(self, robot: Robot, save: Path | None = None) -> None:
        """Raises: BackendError if Rerun is not installed."""
        try:
            import rerun
        except ImportError as error:
            raise BackendError(
                '--view needs Rerun, which is not installed: pip install "edge-wm[view]"'
            ) from error
        self._rr: ModuleType = rerun
        self._robot = robot
        self._stream = rerun.RecordingStream(f"edge-wm {robot.name}")
        self._way: deque[tuple[float, float]] = deque(maxlen=WAY_LENGTH)
        self._origin = (0.0, 0.0, 0.0)
        if save is None:
            self._stream.spawn()
        else:
            self._stream.save(save)

    def record(self, event: Event) -> int:
        """Draw `event` if there is something to see in it."""
        match event:
            case Sample() if self._robot.streams[event.stream].type == "image":
                self._log(event.received_ns, event.stream, self._rr.Image(event.data))
            case Step():
                setpoint = event.verdict.setpoint
                for axis, velocity in zip(setpoint.axes, setpoint.velocity[-1], strict=True):
                    self._log(event.now_ns, f"command/{axis}", self._rr.Scalars(float(velocity)))
            case PlanEnd():
                for stage, duration_ns in event.stages.items():
                    self._log(event.now_ns, f"stage/{stage}", self._rr.Scalars(duration_ns * 1e-6))
                if event.reason is not None:
                    self._log(event.now_ns, "reasons", self._rr.TextLog(event.reason.name))
            case Prediction() if "pose" in event.beliefs:
                planned = self._rr.LineStrips2D(
                    [event.beliefs["pose"][:, :2]], colors=[[255, 160, 0]]
                )
                self._log(int(event.times_ns[0]), "map/imagined", planned)
            case World():
                self._origin = event.odometry_origin
                self._draw(event)
            case Truth():
                self._way.append(self._to_odom(event.x, event.y))
                self._log(event.now_ns, "map/driven", self._rr.LineStrips2D([list(self._way)]))
            case _:
                pass
        return 0

    def _log(self, now_ns: int, path: str, value: Any) -> None:
        self._stream.set_time("run", duration=now_ns * 1e-9)
        self._stream.log(path, value)

    def _to_odom(self, x: float, y: float) -> tuple[float, float]:
        ox, oy, yaw = self._origin
        dx, dy = x - ox, y - oy
        return (
            float(np.cos(yaw) * dx + np.sin(yaw) * dy),
            float(np.cos(yaw) * dy - np.sin(yaw) * dx),
        )

    def _draw(self, world: World) -> None:
        """The obstacles from above, in the odometry frame like all that is planned."""
        outlines = []
        for x, y, yaw, half_x, half_y in world.rectangles:
            corners = [(half_x, half_y), (-half_x, half_y), (-half_x, -half_y), (half_x, -half_y)]
            c, s = np.cos(yaw), np.sin(yaw)
            ring = [self._to_odom(x + c * u - s * v, y + s * u + c * v) for u, v in corners]
            outlines.append([*ring, ring[0]])
        for x, y, radius in world.circles:
            angles = np.linspace(0.0, 2 * np.pi, 25)
            outlines.append(
                [self._to_odom(x + radius * np.cos(a), y + radius * np.sin(a)) for a in angles]
            )
        self._log(world.now_ns, "map/world", self._rr.LineStrips2D(outlines))
