"""The motor side of the simulated robot: what a microcontroller does with setpoints.

It plays the newest setpoint's knots after the actuation delay, and it does not trust the sender:
a setpoint that is not finite, out of order or from an older activation is ignored and counted,
and once the last good one's `valid_until_ns` has passed it brakes by itself, axis by axis.

    command time      apply_at ────────── valid_until
                         knots, interpolated     then |v| falls by brake_deceleration
    physical time     all of it `delay_ns` later

A base's motors follow the velocity, an arm's the position with the velocity beside it.
"""

from __future__ import annotations

from collections import Counter, deque

import numpy as np

from edge_wm.reasons import Reason
from edge_wm.types import Setpoint


class Motors:
    """Turns setpoints into position and velocity of each axis, at any physical time, in order."""

    def __init__(self, axes: tuple[str, ...], delay_ns: int) -> None:
        self.refused: Counter[Reason] = Counter()
        self._axes = axes
        self._delay_ns = delay_ns
        self._waiting: deque[Setpoint] = deque()  # on their way, still without effect
        self._epoch = -1
        self._sequence = -1
        self._times: list[int] = []  # of the setpoint in effect
        self._position: list[list[float]] = []
        self._velocity: list[list[float]] = []
        self._deceleration: list[float] = []
        self._valid_until_ns = 0
        self._expired = True  # nothing received yet counts as expired, but not as a refusal
        self._rest = [0.0] * len(axes)

    def send(self, setpoint: Setpoint) -> None:
        """Take `setpoint` over, or ignore and count it."""
        if not self._good(setpoint):
            self.refused[Reason.setpoint_invalid] += 1
            return
        self._epoch, self._sequence = setpoint.epoch, setpoint.sequence
        self._waiting.append(setpoint)

    def velocity(self, now_ns: int) -> list[float]:
        """The commanded velocity of each axis at the physical time `now_ns` (never backwards)."""
        command_ns = self._at(now_ns)
        if not self._times:
            return self._rest
        if command_ns <= self._valid_until_ns:
            return self._interpolate(self._velocity, command_ns)
        since = (command_ns - self._valid_until_ns) * 1e-9
        return [
            max(abs(v) - d * since, 0.0) * (1.0 if v > 0 else -1.0)
            for v, d in zip(
                self._interpolate(self._velocity, self._valid_until_ns),
                self._deceleration,
                strict=True,
            )
        ]

    def position(self, now_ns: int) -> list[float] | None:
        """The commanded position of each axis at `now_ns`, braking included.

        None before the first setpoint acts: then a drive holds where it stands.
        """
        command_ns = self._at(now_ns)
        if not self._times:
            return None
        if command_ns <= self._valid_until_ns:
            return self._interpolate(self._position, command_ns)
        since = (command_ns - self._valid_until_ns) * 1e-9
        last_p = self._interpolate(self._position, self._valid_until_ns)
        last_v = self._interpolate(self._velocity, self._valid_until_ns)
        braked = []
        for p, v, d in zip(last_p, last_v, self._deceleration, strict=True):
            t = min(since, abs(v) / d)  # until it rests
            braked.append(p + v * t - 0.5 * (d if v > 0 else -d) * t * t)
        return braked

    def _at(self, now_ns: int) -> int:
        """The time of commands that act at `now_ns`; what waited for it takes over."""
        command_ns = now_ns - self._delay_ns
        while self._waiting and self._waiting[0].apply_at_ns <= command_ns:
            self._load(self._waiting.popleft())
        if self._times and command_ns > self._valid_until_ns and not self._expired:
            self._expired = True
            self.refused[Reason.setpoint_expired] += 1
        return command_ns

    def _good(self, setpoint: Setpoint) -> bool:
        if setpoint.axes != self._axes or setpoint.epoch < self._epoch:
            return False
        if setpoint.epoch == self._epoch and setpoint.sequence <= self._sequence:
            return False
        knots, axes = len(setpoint.times_ns), len(self._axes)
        columns = (setpoint.position, setpoint.velocity)
        if knots < 2 or any(column.shape != (knots, axes) for column in columns):
            return False
        if not np.isfinite(columns).all() or not (np.diff(setpoint.times_ns) > 0).all():
            return False
        brakes = setpoint.brake_deceleration
        return brakes.shape == (axes,) and bool((np.isfinite(brakes) & (brakes > 0)).all())

    def _load(self, setpoint: Setpoint) -> None:
        self._times = setpoint.times_ns.tolist()
        self._position = setpoint.position.tolist()
        self._velocity = setpoint.velocity.tolist()
        self._deceleration = setpoint.brake_deceleration.tolist()
        self._valid_until_ns = setpoint.valid_until_ns
        self._expired = False

    def _interpolate(self, column: list[list[float]], at_ns: int) -> list[float]:
        """Linear between the knots, constant before the first and after the last."""
        times = self._times
        if at_ns <= times[0]:
            return column[0]
        for index in range(1, len(times)):
            if at_ns < times[index]:
                share = (at_ns - times[index - 1]) / (times[index] - times[index - 1])
                before, after = column[index - 1], column[index]
                return [b + share * (a - b) for b, a in zip(before, after, strict=True)]
        return column[-1]
