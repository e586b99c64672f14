"""The guard's half of a robot, for a process of its own: no model, the setpoint tick, and watch.

    samples ──► push ─► odometry, view ─┐
    trajectory ──► accept ──────────────┤
    heartbeats ──► hear ────────────────┴─► step ──► Verdict{setpoint, reasons}

Beside what `Guard` checks itself, this watches those on whom the robot's safety rests: whoever
falls silent while the guard is activated (the runtime, the bridge, the supervisor), and a sensor
that stays away, latches a fault. The robot brakes at once in both cases; the latch is there so
that nothing moves again because a process was restarted or a cable plugged in: a person resets
the named fault, then activates.

A clock that goes back makes every time that the guard holds meaningless: it would repeat its last
command until that time comes again. It says nothing more then, so that the device brakes by
itself, and stays so until it is made anew.

Like `Runtime` it is passive: no thread, no clock, one lock.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_wm.errors import RefusedError
from edge_wm.guard import Guard, GuardState
from edge_wm.guarding.senses import Senses, guard_streams
from edge_wm.modes import LATCHED, Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.synchronizer import Synchronizer
from edge_wm.types import Acceptance, Observation, Sample, Trajectory, Verdict

# Who has to be heard, and the fault that its silence latches.
SILENCES: Mapping[str, Reason] = {
    "runtime": Reason.runtime_silent,
    "bridge": Reason.bridge_silent,
    "supervisor": Reason.supervisor_silent,
}
# Inputs without which the guard brakes, and after a while does not go on by itself.
INPUT_REASONS = (Reason.ranges_stale, Reason.pose_stale, Reason.stream_stale)
GONE_NS = -(1 << 62)  # when somebody was last heard who is not there


@dataclass(slots=True)
class GuardCounts:
    """What happened so far, for diagnostics."""

    steps: int = 0
    accepted: int = 0
    refusals: Counter[Reason] = field(default_factory=Counter)  # of trajectories
    reasons: Counter[Reason] = field(default_factory=Counter)  # of setpoint ticks
    drops: Counter[Reason] = field(default_factory=Counter)  # of samples


class Guarding:
    """One robot's guard with its senses. Every method may be called from any thread."""

    def __init__(
        self,
        robot: Robot,
        *,
        silence_ns: Mapping[str, int],
        input_lost_ns: int = 1_000_000_000,
        first_epoch: int = 0,
    ) -> None:
        """silence_ns: who is watched (keys of `SILENCES`), and after how long it counts as silent.

        first_epoch: counting of activations goes on from there, so that a guard that was
        restarted does not use an epoch again.
        """
        self.robot = robot
        self.clock_jumped = False  # then nothing may be sent any more
        self.counts = GuardCounts()
        self._lock = threading.Lock()
        self._guard = Guard(robot, first_epoch=first_epoch)
        self._view = Synchronizer(robot, guard_streams(robot), None)
        self._senses = Senses(robot, [self._view])
        self._silence_ns = dict(silence_ns)
        self._input_lost_ns = input_lost_ns
        self._heard_ns: dict[str, int] = {}
        self._instances: dict[str, str] = {}
        self._lost_since_ns: int | None = None
        self._fault: Reason | None = None
        self._verdict: Verdict | None = None  # of the last tick

    def push(self, sample: Sample) -> None:
        """A sample arrived."""
        with self._lock:
            _, drops = self._senses.push(sample)
            self.counts.drops.update(drop.reason for drop in drops)

    def hear(self, who: str, now_ns: int, instance: str = "") -> None:
        """A heartbeat of `who` arrived. instance: which process it is of, if that can change.

        While the guard is activated, another process's heartbeat is none: the one that was there
        is gone, however soon it was replaced.
        """
        with self._lock:
            if self._guard.activated and self._instances.get(who, instance) != instance:
                self._heard_ns[who] = GONE_NS
                return
            self._instances[who] = instance
            self._heard_ns[who] = now_ns

    def accept(self, trajectory: Trajectory, now_ns: int) -> Acceptance:
        """A trajectory arrived: the guard's answer."""
        with self._lock:
            acceptance = self._guard.accept(trajectory, self._observe(now_ns), now_ns)
            self.counts.accepted += acceptance.accepted
            self.counts.refusals.update(acceptance.reasons)
            return acceptance

    def step(self, now_ns: int) -> Verdict:
        """One setpoint tick. Its setpoint may be sent unless `clock_jumped`."""
        with self._lock:
            before = self._verdict
            if before is not None and now_ns < before.now_ns - self.robot.dead_man_ns:
                self._latch(Reason.clock_jumped, now_ns)
                self._fault, self.clock_jumped = Reason.clock_jumped, True
            if self.clock_jumped and before is not None:
                mode, why = self._guard.mode, (Reason.clock_jumped,)
                return Verdict(now_ns, mode, before.setpoint, why, 0.0)
            if self._guard.activated:
                for who, limit_ns in self._silence_ns.items():
                    if now_ns - self._heard_ns.get(who, GONE_NS) > limit_ns:
                        self._latch(SILENCES[who], now_ns)
            verdict = self._guard.step(now_ns, self._observe(now_ns))
            if any(reason in INPUT_REASONS for reason in verdict.reasons):
                self._lost_since_ns = self._lost_since_ns or now_ns
                if now_ns - self._lost_since_ns > self._input_lost_ns and self._guard.activated:
                    self._latch(Reason.input_lost, now_ns)
            else:
                self._lost_since_ns = None
            self.counts.steps += 1
            self.counts.reasons.update(verdict.reasons)
            self._verdict = verdict
            return verdict

    def activate(self, now_ns: int) -> int:
        """Let accepted trajectories move the robot. Returns the epoch.

        Raises: RefusedError in a latched mode, and while somebody who is watched is silent or an
        input that the guard needs is not usable.
        """
        with self._lock:
            if self._guard.mode in LATCHED:
                fault = self._fault.name if self._fault else "none"
                raise RefusedError(
                    f"guard: mode {self._guard.mode.name} is latched ({fault}); reset it first"
                )
            silent = [
                who
                for who, limit_ns in self._silence_ns.items()
                if now_ns - self._heard_ns.get(who, GONE_NS) > limit_ns
            ]
            if silent:
                raise RefusedError(
                    f"guard: must hear {' and '.join(silent)} before it can be activated; start "
                    "what is missing"
                )
            if bad := self._unusable(now_ns):
                told = ", ".join(f"{name}: {reason.name}" for name, reason in bad.items())
                raise RefusedError(
                    f"guard: every input must be usable before it can be activated, but {told}; "
                    "look at these sensors"
                )
            if self._guard.mode is Mode.idle:
                self._guard.request(Mode.self_test, "supervisor", now_ns)
                self._guard.request(Mode.hold, "supervisor", now_ns)
            elif self._guard.mode is not Mode.hold:
                self._guard.request(Mode.hold, "supervisor", now_ns)
            self._lost_since_ns = None
            return self._guard.activate(now_ns)

    def request(self, mode: Mode, who: str, now_ns: int, reason: Reason | None = None) -> bool:
        """Ask for a mode as `who` ("supervisor" or "operator"); False if refused."""
        with self._lock:
            changed = self._guard.request(mode, who, now_ns, reason)
            if changed:
                self._fault = self._why(mode, reason) if mode in LATCHED else None
            return changed

    def reset(self, fault: Reason, now_ns: int) -> bool:
        """An operator resets the latched `fault`. False if another one, or none, is latched."""
        with self._lock:
            if self._guard.mode not in LATCHED or self._fault is not fault or self.clock_jumped:
                return False
            self._fault = None
            return self._guard.request(Mode.idle, "operator", now_ns)

    def state(self, now_ns: int) -> GuardState:
        """See `Guard.state`."""
        with self._lock:
            return self._guard.state(now_ns)

    @property
    def mode(self) -> Mode:
        return self._guard.mode

    @property
    def fault(self) -> Reason | None:
        """Why a latched mode was entered; None if none is latched."""
        return self._fault

    def unusable(self, now_ns: int) -> dict[str, Reason]:
        """The inputs that cannot be used now, and why."""
        with self._lock:
            return self._unusable(now_ns)

    # ---- inside: the lock is held ---------------------------------------------------------
    def _unusable(self, now_ns: int) -> dict[str, Reason]:
        seen = self._observe(now_ns).streams
        return {name: s.reason for name, s in seen.items() if s.reason is not None}

    def _latch(self, reason: Reason, now_ns: int) -> None:
        if self._guard.mode is Mode.idle:  # from which no fault can come: go on to where it can
            self._guard.request(Mode.self_test, "supervisor", now_ns)
        if self._guard.request(Mode.fault, "supervisor", now_ns, reason):
            self._fault = reason

    def _why(self, mode: Mode, reason: Reason | None) -> Reason | None:
        return Reason.estop_pressed if reason is None and mode is Mode.estop else reason

    def _observe(self, now_ns: int) -> Observation:
        observation = self._view.observe(now_ns)
        self.counts.drops.update(drop.reason for drop in observation.drops)
        return observation
