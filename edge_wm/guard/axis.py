"""The law by which one axis moves when the guard decides: braking, and joining a trajectory.

An axis has a velocity v and an acceleration a. In each setpoint period h the acceleration goes
linearly to a new value a', so that with the constant jerk (a' - a) / h

    v' = v + h (a + a') / 2            p' = p + h v + h² (2 a + a') / 6

Seen half a period ahead, w = v + h a / 2, this becomes w' = w + h a': each period adds its
acceleration once. So what is gained while jerk takes an acceleration a' back to zero, in n whole
steps of d = jerk · h and a last smaller one, is h (a' + (a' - d) + … + (a' - n d)), and the
a' that closes a gap exactly, as fast as jerk allows, has a closed form (`landing`).

The one invariant: whatever is asked, the next state is within the limits of velocity,
acceleration and jerk, if the last one was; and it can be brought to rest within them.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from edge_wm.robot import Axis
from edge_wm.types import Float64

# Nearer to rest than this (SI units per s) is rest: the rounding of 64 bits, not motion.
SETTLED = 1e-12

# A brake within any file's limits ends long before this many periods; beyond, the file is absurd
# and the way is cut, in the direction of refusing.
MAX_BRAKE_KNOTS = 100_000


class AxisLaw:
    """One axis' limits, with the numbers that every step needs worked out."""

    def __init__(self, axis: Axis, period_s: float) -> None:
        self.axis = axis
        self.period_s = period_s
        self.jerk_step = axis.jerk * period_s
        self._lowest = axis.velocity_min
        self._highest = axis.velocity_max

    def brake(self, v: float, a: float) -> tuple[float, float]:
        """The next velocity and acceleration on the quickest way to rest."""
        way = self.brake_way(v, a, 1)
        return way[0] if way else (0.0, 0.0)

    def brake_way(
        self, v: float, a: float, most: int = MAX_BRAKE_KNOTS
    ) -> list[tuple[float, float]]:
        """Velocity and acceleration at every next knot until rest, or at the first `most`.

        `_landing` and `_go` are written out: this loop is most of a setpoint tick near an obstacle
        (50 knots, two axes: 45 us written out, 105 us called; x86, Python 3.11, November 2026).
        """
        h, half, step = self.period_s, 0.5 * self.period_s, self.jerk_step
        faster, slower = self.axis.acceleration, self.axis.braking
        way: list[tuple[float, float]] = []
        while (v or a) and len(way) < most:
            gap = -v - half * a
            size = abs(gap) / h
            n = int(0.5 * (sqrt(1.0 + 8.0 * size / step) - 1.0))
            wanted = (size + 0.5 * step * n * (n + 1)) / (n + 1)
            if gap < 0.0:
                wanted = -wanted
            lowest, highest = -slower if v > 0.0 else -faster, slower if v < 0.0 else faster
            if wanted < lowest:
                wanted = lowest
            elif wanted > highest:
                wanted = highest
            if wanted < a - step:
                wanted = a - step
            elif wanted > a + step:
                wanted = a + step
            v += half * (a + wanted)
            a = wanted
            if abs(v) < SETTLED and abs(a) < SETTLED / h:
                v = a = 0.0
            way.append((v, a))
        return way

    def pursue(
        self, v: float, a: float, now: tuple[float, float], then: tuple[float, float]
    ) -> tuple[float, float]:
        """The next velocity and acceleration on the quickest way onto a moving reference.

        now, then: the reference's velocity and acceleration at the last and the next knot. An
        axis that is on the reference stays on it exactly; another one reaches it with the same
        acceleration, without leaving its own limits.
        """
        half = 0.5 * self.period_s
        ahead = v + half * a
        wanted = then[1] + self._landing(now[0] + half * now[1] - ahead)
        # no faster than from where jerk can still end the acceleration at the velocity limit
        wanted = min(wanted, self._landing(self._highest - ahead))
        wanted = max(wanted, self._landing(self._lowest - ahead))
        # `braking` must not carry through zero, where slowing down becomes speeding up
        braking = self.axis.braking
        if v * then[0] < 0.0:
            braking = min(braking, self.axis.acceleration)
        return self._go(v, a, wanted, braking)

    def stopping_distance(self, v: float, a: float) -> float:
        """An upper bound of the distance to rest, from speed v >= 0 with acceleration a, m or rad.

        Jerk J first takes a to zero: the speed becomes u = v + a² / 2J, meanwhile. From u and no
        acceleration, J leads down to the deceleration B and back up, symmetrically, so that the
        mean speed is u / 2, for u / B + B / J (or 2 sqrt(u / J) if B is never reached):

            u / 2 · (u / B + B / J)      or      u sqrt(u / J)

        A braking axis (a < 0) is on that way already: what it has behind it is not subtracted,
        and one period is added because braking begins with the next knot.
        """
        jerk, braking = self.axis.jerk, self.axis.braking
        ramp_s = max(a, 0.0) / jerk
        u = max(v, 0.0) + 0.5 * ramp_s * max(a, 0.0)
        if u >= braking**2 / jerk:
            way = 0.5 * u * (u / braking + braking / jerk)
        else:
            way = u * sqrt(u / jerk)
        return way + u * (ramp_s + self.period_s)

    def _landing(self, gap: float) -> float:
        """The acceleration from which jerk, back to zero, closes exactly the velocity `gap`."""
        size = abs(gap) / self.period_s
        n = int(0.5 * (sqrt(1.0 + 8.0 * size / self.jerk_step) - 1.0))
        wanted = (size + 0.5 * self.jerk_step * n * (n + 1)) / (n + 1)
        return wanted if gap >= 0.0 else -wanted

    def _go(self, v: float, a: float, wanted: float, braking: float) -> tuple[float, float]:
        """Take `wanted` as far as the limits allow; jerk last: motors feel it first."""
        if v > 0.0:
            wanted = min(max(wanted, -braking), self.axis.acceleration)
        elif v < 0.0:
            wanted = min(max(wanted, -self.axis.acceleration), braking)
        else:
            wanted = min(max(wanted, -self.axis.acceleration), self.axis.acceleration)
        wanted = min(max(wanted, a - self.jerk_step), a + self.jerk_step)
        reached = v + 0.5 * self.period_s * (a + wanted)
        if abs(reached) < SETTLED and abs(wanted) < SETTLED / self.period_s:
            return 0.0, 0.0
        return reached, wanted


def brake_ways(
    laws: list[AxisLaw], position: Float64, velocity: Float64, acceleration: Float64
) -> Float64:
    """The ways that axes take if they brake from each of N knots: `AxisLaw.brake`, vectorized.

    position, velocity, acceleration: (N, A). Returns positions (M, N, A): row m is m periods
    after the knot, row 0 the knot itself; M is as many as the longest brake needs.
    """
    h = laws[0].period_s
    step = np.array([law.jerk_step for law in laws])
    gain = np.array([law.axis.acceleration for law in laws])
    loss = np.array([law.axis.braking for law in laws])
    p, v, a = position, velocity, acceleration
    ways = [p]
    while (v.any() or a.any()) and len(ways) < MAX_BRAKE_KNOTS:
        gap = -v - 0.5 * h * a
        size = np.abs(gap) / h
        n = np.floor(0.5 * (np.sqrt(1.0 + 8.0 * size / step) - 1.0))
        wanted = np.copysign((size + 0.5 * step * n * (n + 1)) / (n + 1), gap)
        wanted = np.clip(wanted, np.where(v > 0.0, -loss, -gain), np.where(v < 0.0, loss, gain))
        wanted = np.clip(wanted, a - step, a + step)
        reached = v + 0.5 * h * (a + wanted)
        rest = (np.abs(reached) < SETTLED) & (np.abs(wanted) < SETTLED / h)
        p = p + h * v + h * h / 6.0 * (2.0 * a + wanted)
        v, a = np.where(rest, 0.0, reached), np.where(rest, 0.0, wanted)
        ways.append(p)
    return np.array(ways)
