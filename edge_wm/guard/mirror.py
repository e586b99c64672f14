"""What another process knows of the guard: enough to plan from, nothing to command with.

    guard process                                     runtime process
    Guard ── state(now) ──► GuardState (a message) ──► Mirror ── motion, command_at, foresight
    Guard.accept ◄────────── trajectory (a message) ◄── sent(trajectory)

A state is small: the newest knots, and how far the guard is in which accepted trajectory. The
runtime made those trajectories and keeps the last of them, so it predicts what will be commanded
by the guard's own rule (`Commanded.predicted`), bit for bit, without having its setpoints.

Invariant: a mirror never decides. A state that names a trajectory which this process did not
send (it was restarted, or another one plans) predicts braking, and says so in `foreign`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from edge_wm.guard.commanded import Commanded
from edge_wm.guard.playback import Cursor, How, Knot, Track
from edge_wm.guard.surroundings import Surroundings
from edge_wm.modes import Mode
from edge_wm.robot import Robot
from edge_wm.types import Bool, Command, Float32, Motion, Sample, Trajectory

KEPT_TRAJECTORIES = 32  # sent: one and a half seconds of them at 20 Hz


@dataclass(frozen=True, slots=True)
class GuardState:
    """The guard after a setpoint tick."""

    now_ns: int
    mode: Mode
    epoch: int  # of the present activation; 0: not activated
    accepted_sequence: int  # of the newest accepted trajectory; -1: none yet in this epoch
    knots: tuple[Knot, ...]  # the last two that were decided, or fewer
    playing: int | None  # the sequence of the trajectory that is played
    at: float  # periods since its start
    waiting: tuple[int, ...]  # sequences of those accepted that begin later
    how: How
    top_speed: float  # m/s, +inf where nothing is near


class Mirror:
    """The guard's commands, as far as its states tell. One thread at a time."""

    def __init__(self, robot: Robot) -> None:
        self._commanded = Commanded(robot)
        self._around = Surroundings(robot, self._commanded) if robot.stopping is not None else None
        self._tracks: deque[tuple[int, Track]] = deque(maxlen=KEPT_TRAJECTORIES)  # with epochs
        self._state: GuardState | None = None
        self.foreign = False  # the guard plays a trajectory that was not sent from here

    @property
    def state(self) -> GuardState | None:
        """The newest state; None before the first."""
        return self._state

    def sent(self, trajectory: Trajectory) -> None:
        """Remember a trajectory that goes to the guard."""
        self._tracks.append((trajectory.epoch, Track(trajectory)))

    def update(self, state: GuardState) -> None:
        """Take over a newer state; an older one, or one without knots, changes nothing."""
        commanded = self._commanded
        if not state.knots or (self._state is not None and state.now_ns < self._state.now_ns):
            return
        self._state = state
        commanded.how, commanded.top_speed = state.how, state.top_speed
        tracks = {track.sequence: track for epoch, track in self._tracks if epoch == state.epoch}
        playing = None if state.playing is None else tracks.get(state.playing)
        waiting = tuple(tracks[sequence] for sequence in state.waiting if sequence in tracks)
        lost = state.playing is not None and playing is None
        self.foreign = lost or len(waiting) < len(state.waiting)
        commanded.cursor = Cursor(playing, state.at if playing else 0.0, waiting)
        for knot in state.knots:
            while commanded.times and commanded.times[-1] >= knot.time_ns:
                commanded.knots.pop()
                commanded.times.pop()
            commanded.append(knot)

    def look(self, scan: Sample | None) -> None:
        """See `Surroundings.look`."""
        if self._around is not None and self._commanded.knots:
            self._around.look(scan)

    def foresight(self, start_ns: int, step_ns: int) -> Callable[[Float32], Bool] | None:
        """See `Surroundings.foresight`."""
        return self._around.foresight(start_ns, step_ns) if self._around else None

    def command_at(self, at_ns: int) -> Command:
        """See `Commanded.command_at`."""
        return self._commanded.command_at(at_ns)

    def motion(self, from_ns: int, until_ns: int) -> Motion:
        """See `Commanded.motion`."""
        return self._commanded.motion(from_ns, until_ns)
