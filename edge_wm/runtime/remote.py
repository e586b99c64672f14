"""The guard as the runtime knows it when it is another process.

Trajectories go there and are answered later; what was and will be commanded comes from the
guard's states (`edge_wm.guard.Mirror`). A guard that fell silent counts as not activated.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_wm.guard import GuardState, Mirror
from edge_wm.modes import Mode
from edge_wm.robot import FUTURE_TOLERANCE_NS, Robot
from edge_wm.types import Bool, Command, Float32, Motion, Observation, Trajectory

SILENT_NS = 250_000_000  # without a state for this long, the guard is taken for dead


class RemoteGuard:
    """Stands where a `Guard` stands in `Runtime`; the caller serializes the calls."""

    def __init__(self, robot: Robot, send: Callable[[Trajectory], None]) -> None:
        """send: takes a trajectory to the guard and returns at once."""
        self._robot = robot
        self._mirror = Mirror(robot)
        self._send = send
        self._heard_ns = 0
        self.silent = True

    def hear(self, state: GuardState, now_ns: int) -> bool:
        """A state arrived. False: it is from the future, so not the guard's; it changes nothing."""
        if state.now_ns > now_ns + FUTURE_TOLERANCE_NS:
            return False
        self._mirror.update(state)
        self._heard_ns = now_ns
        return True

    def look(self, now_ns: int, observation: Observation) -> None:
        """Before a plan: take in the newest scan, and whether the guard is alive."""
        self.silent = self._mirror.state is None or now_ns - self._heard_ns > SILENT_NS
        stopping = self._robot.stopping
        if stopping is not None:
            seen = observation.streams[stopping.stream]
            self._mirror.look(seen.sample if seen.reason is None else None)

    @property
    def foreign(self) -> bool:
        """Does the guard play a trajectory that was not sent from here?"""
        return self._mirror.foreign

    @property
    def mode(self) -> Mode:
        state = self._mirror.state
        return Mode.idle if state is None or self.silent else state.mode

    @property
    def epoch(self) -> int:
        state = self._mirror.state
        return 0 if state is None or self.silent else state.epoch

    def accept(self, trajectory: Trajectory, observation: Observation, now_ns: int) -> None:
        """Send a trajectory; the guard's answer is not known yet."""
        self._mirror.sent(trajectory)
        self._send(trajectory)

    def foresight(self, start_ns: int, step_ns: int) -> Callable[[Float32], Bool] | None:
        return self._mirror.foresight(start_ns, step_ns)

    def command_at(self, at_ns: int) -> Command:
        return self._mirror.command_at(at_ns)

    def motion(self, from_ns: int, until_ns: int) -> Motion:
        return self._mirror.motion(from_ns, until_ns)
