"""Turns the planner's proposal into a trajectory that the motors can follow and that ends at rest.

A proposal is a staircase: one velocity (or one joint position) per model step, as if the robot
could jump from one to the next. Here it becomes smooth:

    action   ┌────┐                     action 1 ┌─────
             │    └────                         ╱│
    ─────────┘              ─►          ───────╱ │            then, after the last action, the
    command                             command                braking tail down to rest

The motion is sampled at the setpoint period T, with constant jerk within each period, so that the
knots are exactly one motion and not three approximate columns:

    a' = a + T j        v' = v + T (a + a') / 2        p' = p + T v + T² (2 a + a') / 6

Every finite difference of the columns is then a mean of accelerations or jerks that were within
the limits, and a checker that takes differences finds what is here and nothing else.

The one invariant: from every knot the axis can brake to rest within its acceleration, jerk and
position limits, because no step is taken after which it could not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import sqrt

import numpy as np

from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Axis
from edge_wm.types import Command, Float64, Proposal, Trajectory

# Below this distance from its target in (SI units)/s an axis is put exactly onto it. A change of
# velocity this small appears as 1e-8 SI in the acceleration at 100 Hz.
SETTLED = 1e-12

# A command from which braking takes longer is no command of any robot, and would hold up the tick
# that finishes it; the guard takes no longer trajectory either.
LONGEST_BRAKE_S = 20.0

# A position axis that is behind its line catches up with this gain, 1/s (time constant 80 ms);
# from far behind with the speed from which half the braking stops it in time.
POSITION_GAIN = 12.0


def finish(
    proposal: Proposal,
    command: Command,
    axes: Sequence[Axis],
    *,
    epoch: int,
    sequence: int,
    period_ns: int,
) -> Trajectory | Reason:
    """Make the trajectory that starts at `command`, follows the proposal and brakes to rest.

    Knot 0 is the command itself, at `command.at_ns`, and there the first action begins. Action h
    is held from h to h + 1 model steps: velocity and twist axes go to it as fast as their limits
    allow, without overshoot; position axes move so as to be there when the step ends; effort axes
    get it as it is, within `effort_max`. Speeding up uses `acceleration`, slowing down `braking`.
    A proposal that carries a reason has nothing to follow: the result brakes from knot 0.

    Limits hold from the first knot at which the command itself is within them: a command that is
    outside (a limit was lowered, or it accelerates so hard that jerk cannot take it back in time)
    is led back as fast as jerk and acceleration allow.

    Returns `Reason.trajectory_not_finite` where the proposal or the command is not finite, and
    `Reason.trajectory_malformed` where braking from the command would take longer than 20 s.

    Raises:
        UsageError: proposal, command and axes do not have the same axes, or the period is longer
            than a model step.
    """
    names = tuple(axis.name for axis in axes)
    horizon = len(proposal.actions)
    if proposal.axes != names or proposal.actions.shape != (horizon, len(names)):
        raise UsageError(
            f"trajectory.finish: the proposal must have actions (H, {len(names)}) for the axes "
            f"{', '.join(names)}; it has {proposal.actions.shape} for {', '.join(proposal.axes)}; "
            "plan and finish with the same robot file"
        )
    if not 0 < period_ns <= proposal.step_ns:
        raise UsageError(
            f"trajectory.finish: the setpoint period must be above 0 and at most a model step "
            f"({proposal.step_ns} ns), it is {period_ns} ns; correct setpoint_rate_hz"
        )
    start = np.array([command.position, command.velocity, command.acceleration], np.float64)
    if start.shape != (3, len(names)):
        raise UsageError(
            f"trajectory.finish: the command must have position, velocity and acceleration of "
            f"shape ({len(names)},), it has {start.shape[1:]}; take it from the guard"
        )
    if not (np.isfinite(proposal.actions).all() and np.isfinite(start).all()):
        return Reason.trajectory_not_finite
    if any(
        _brake_s(float(start[1, i]), float(start[2, i]), axis) > LONGEST_BRAKE_S
        for i, axis in enumerate(axes)
    ):
        return Reason.trajectory_malformed

    if proposal.reason is not None:
        horizon = 0
    period_s = period_ns * 1e-9
    # ticks[h] is the first tick of action h: the first at or after the action begins
    ticks = [-(-h * proposal.step_ns // period_ns) for h in range(horizon + 1)]
    tracks: list[tuple[list[float], list[float], float]] = []
    for column, axis in enumerate(axes):
        actions = [float(a) for a in proposal.actions[:horizon, column]]
        p, v, a = (float(x) for x in start[:, column])
        if axis.kind == "position":
            track = _follow_positions(actions, ticks, p, v, a, axis, period_s)
        elif axis.kind == "effort":
            p, track = 0.0, ([0.0] * (ticks[-1] + 1), [0.0] * (ticks[-1] + 1))
        else:
            p, track = 0.0, _follow_velocities(actions, ticks, v, a, axis, period_s)
        tracks.append((*track, p))
    knots = max(len(v) for v, _, _ in tracks)

    position = np.empty((knots, len(names)))
    velocity = np.zeros((knots, len(names)))
    acceleration = np.zeros((knots, len(names)))
    for column, (v_list, a_list, p) in enumerate(tracks):
        velocity[: len(v_list), column] = v_list
        acceleration[: len(a_list), column] = a_list
        position[0, column] = p
    change = period_s * velocity[:-1] + period_s**2 / 6.0 * (
        2.0 * acceleration[:-1] + acceleration[1:]
    )
    position[1:] = change
    np.cumsum(position, axis=0, out=position)
    return Trajectory(
        epoch=epoch,
        sequence=sequence,
        stamp_ns=proposal.stamp_ns,
        start_ns=command.at_ns,
        period_ns=period_ns,
        axes=names,
        position=position,
        velocity=velocity,
        acceleration=acceleration,
        brake_index=ticks[-1],
        effort=_efforts(proposal, ticks, axes, knots),
    )


def _efforts(
    proposal: Proposal, ticks: list[int], axes: Sequence[Axis], knots: int
) -> Float64 | None:
    """(N, A): the commanded efforts, zero in the braking tail; None if no axis commands effort."""
    if all(axis.kind != "effort" for axis in axes):
        return None
    effort = np.zeros((knots, len(axes)))
    for column, axis in enumerate(axes):
        if axis.kind == "effort":
            held = np.repeat(proposal.actions[: len(ticks) - 1, column], np.diff(ticks))
            effort[: len(held), column] = np.clip(held, -axis.effort_max, axis.effort_max)
    return effort


def _follow_velocities(
    actions: list[float], ticks: list[int], v: float, a: float, axis: Axis, period_s: float
) -> tuple[list[float], list[float]]:
    """Velocities and accelerations of one velocity or twist axis, its braking tail included."""
    vs, accs = [v], [a]
    lowest, highest = axis.velocity_min, axis.velocity_max
    for h, action in enumerate(actions):
        target = min(max(action, lowest), highest)
        for _ in range(ticks[h], ticks[h + 1]):
            v, a = _step(v, a, target, axis, period_s)
            vs.append(v)
            accs.append(a)
    _brake(vs, accs, axis, period_s)
    return vs, accs


def _follow_positions(
    actions: list[float],
    ticks: list[int],
    p: float,
    v: float,
    a: float,
    axis: Axis,
    period_s: float,
) -> tuple[list[float], list[float]]:
    """The same for a position axis, which stays able to stop before its position limits."""
    vs, accs = [v], [a]
    # what braking can need at most; only nearer than this to a limit is it worth a look
    speed, gain = max(axis.velocity_max, -axis.velocity_min, abs(v)), max(axis.acceleration, abs(a))
    far = _way_to_rest(speed, gain, axis, period_s)
    low, high = axis.position_min + far, axis.position_max - far
    for line_p, line_v, line_a in _through(actions, ticks, p, v, axis, period_s):
        # so much faster, because `_step` arrives with a = 0 and the line goes on accelerating
        ahead = 0.5 * line_a * abs(line_a) / axis.jerk
        behind = line_p - p
        catch_up = min(POSITION_GAIN * abs(behind), sqrt(axis.braking * abs(behind)))
        wanted = line_v + ahead + (catch_up if behind > 0.0 else -catch_up)
        wanted = min(max(wanted, axis.velocity_min), axis.velocity_max)
        next_v, next_a = _step(v, a, wanted, axis, period_s)
        next_p = p + period_s * v + period_s**2 / 6.0 * (2.0 * a + next_a)
        inside = low <= next_p <= high
        if not inside and not _can_stop(next_p, next_v, next_a, axis, period_s):
            next_v, next_a = _step(v, a, 0.0, axis, period_s)
            next_p = p + period_s * v + period_s**2 / 6.0 * (2.0 * a + next_a)
        p, v, a = next_p, next_v, next_a
        vs.append(v)
        accs.append(a)
    _brake(vs, accs, axis, period_s)
    return vs, accs


def _through(
    actions: list[float], ticks: list[int], p: float, v: float, axis: Axis, period_s: float
) -> Iterator[tuple[float, float, float]]:
    """Position now, and velocity and acceleration at the next tick, of a line through the targets.

    A cubic between each two targets (Hermite), with the mean of the neighboring slopes as the
    velocity at each target (Catmull and Rom 1974), beginning as the command, ending at rest.
    """
    targets = [p] + [min(max(q, axis.position_min), axis.position_max) for q in actions]
    for h in range(len(actions)):
        count = ticks[h + 1] - ticks[h]
        span = count * period_s
        rise = targets[h + 1] - targets[h]
        end_v = 0.0
        if h + 2 < len(targets):
            end_v = (targets[h + 2] - targets[h]) / ((ticks[h + 2] - ticks[h]) * period_s)
        # q(s) = p + v s + square s^2 + cube s^3 with s in s since the step's beginning
        square = (3.0 * rise / span - 2.0 * v - end_v) / span
        cube = (v + end_v - 2.0 * rise / span) / span**2
        for k in range(count):
            s, t = k * period_s, (k + 1) * period_s
            yield (
                targets[h] + s * (v + s * (square + s * cube)),
                v + t * (2.0 * square + t * 3.0 * cube),
                2.0 * square + 6.0 * cube * t,
            )
        v = end_v


def _brake(vs: list[float], accs: list[float], axis: Axis, period_s: float) -> None:
    """Append the way to rest from the last knot."""
    v, a = vs[-1], accs[-1]
    while v != 0.0 or a != 0.0:
        v, a = _step(v, a, 0.0, axis, period_s)
        vs.append(v)
        accs.append(a)


def _brake_s(v: float, a: float, axis: Axis) -> float:
    """An upper bound of the time to rest: jerk takes `a` back, then the braking of an S-curve."""
    peak = abs(v) + a * a / (2.0 * axis.jerk)
    return peak / axis.braking + (abs(a) + 2.0 * axis.braking) / axis.jerk


def _can_stop(p: float, v: float, a: float, axis: Axis, period_s: float) -> bool:
    """True if braking surely stays within the position limits.

    Where the axis is outside already (a limit was moved) only the way further out is forbidden.
    """
    return _way_to_rest(v, a, axis, period_s) <= max(axis.position_max - p, 0.0) and (
        _way_to_rest(-v, -a, axis, period_s) <= max(p - axis.position_min, 0.0)
    )


def _way_to_rest(v: float, a: float, axis: Axis, period_s: float) -> float:
    """An upper bound of how far in the positive direction an axis gets while it brakes.

    In continuous time, from velocity u and a = 0, jerk J leads down to the braking B and back
    (u >= B^2 / J), or turns halfway (u < B^2 / J); by symmetry the mean velocity is u / 2:

        way(u) = u / 2 (u / B + B / J)   or   u / 2 (2 sqrt(u / J))

    With a > 0 it first rises to u = v + a^2 / (2 J); with a < 0 it is already on the way from
    that u, by the time |a| / J. Braking in whole periods is later than this by two at most.
    """
    gain = max(a, -axis.braking)
    ramp_s = abs(gain) / axis.jerk
    u = v + 0.5 * ramp_s * abs(gain)
    if u <= 0.0 or (v <= 0.0 and gain <= 0.0):
        return 0.0
    way = 2.0 * period_s * u
    if u >= axis.braking**2 / axis.jerk:
        way += 0.5 * u * (u / axis.braking + axis.braking / axis.jerk)
    else:
        way += u * sqrt(u / axis.jerk)
    if gain >= 0.0:
        return way + u * ramp_s
    return way - ramp_s * (u - axis.jerk * ramp_s**2 / 6.0)


def _step(v: float, a: float, target: float, axis: Axis, period_s: float) -> tuple[float, float]:
    """One period nearer to the velocity `target`: the next velocity and acceleration.

    Takes the acceleration a' from which v and a arrive together: v' plus what is gained while
    jerk takes a' back to zero, one full jerk step after the other and the rest in the last one,
    must be the target. With d = jerk T and n whole steps in a' that gain is

        T (a / 2 + a' (n + 1) - d n (n + 1) / 2),   n d <= a' < (n + 1) d,

    which rises with a', so that it is solved in closed form. An answer that jerk or acceleration
    do not allow is cut to what they do, jerk last: it is the device's, the others can wait. Once
    an answer is not cut, the following ones are the ones that it reckoned with, and the target is
    met exactly, with a = 0 and without overshoot.
    """
    jerk_step = axis.jerk * period_s
    gain = (target - v) / period_s - 0.5 * a
    size = gain if gain >= 0.0 else -gain
    whole = int(0.5 * (sqrt(1.0 + 8.0 * size / jerk_step) - 1.0))
    wanted = (size + 0.5 * jerk_step * whole * (whole + 1)) / (whole + 1)
    if gain < 0.0:
        wanted = -wanted

    # `braking` only towards a target on the same side of zero: it must not carry through zero
    slow_down = axis.braking if v * target >= 0.0 else min(axis.acceleration, axis.braking)
    lowest, highest = -axis.acceleration, axis.acceleration
    if v > 0.0:
        lowest = -slow_down
    elif v < 0.0:
        highest = slow_down
    wanted = min(max(wanted, lowest), highest)
    wanted = min(max(wanted, a - jerk_step), a + jerk_step)
    reached = v + 0.5 * period_s * (a + wanted)
    if abs(reached - target) < SETTLED and abs(wanted) < SETTLED / period_s:
        return target, 0.0
    return reached, wanted
