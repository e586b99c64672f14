"""Whether a trajectory is well made, and within every limit of the robot file.

A trajectory is three columns per axis that must be one motion: acceleration linear between knots,
velocity its integral, position the integral of that. Then the knots say everything: acceleration
is extreme at a knot, jerk is a difference of two neighbors, and no column can hide what another
one shows.

The one invariant: every comparison is written so that NaN fails it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_wm.guard.axis import AxisLaw, brake_ways
from edge_wm.reasons import Reason
from edge_wm.robot import Axis
from edge_wm.types import Bool, Float64, Trajectory

# Limits are met to this share: what is computed from them in another order of operations differs
# by rounding, which jerk, a difference divided by the period, shows as up to some 1e-8.
ROUNDING = 1e-6

# Columns are one motion, and trajectories are joined, to this share of what one period of full
# jerk changes: it then shows in the jerk as a few thousandths.
SEAM = 1e-3

# No plan is longer: it bounds the time that a check takes.
LONGEST_NS = 20_000_000_000

Finding = tuple[Reason, str]


def seams(law: AxisLaw) -> tuple[float, float, float]:
    """How far position, velocity and acceleration of one axis may miss each other at a seam."""
    change = SEAM * law.jerk_step
    return change * law.period_s**2, change * law.period_s, change


def malformed(trajectory: Trajectory, names: tuple[str, ...], axes: Sequence[Axis]) -> str | None:
    """What is wrong with axes, shapes or timing, in a sentence; None if nothing is."""
    if trajectory.axes != names:
        return f"axes must be {', '.join(names)}, got {', '.join(map(str, trajectory.axes))}"
    position: object = trajectory.position
    knots = len(position) if isinstance(position, np.ndarray) and position.ndim else 0
    if knots == 0:
        return "a trajectory has at least one knot, this one has none"
    commands_effort = any(axis.kind == "effort" for axis in axes)
    for column in ("position", "velocity", "acceleration", "effort"):
        values = getattr(trajectory, column)
        if values is None and column == "effort" and not commands_effort:
            continue
        wanted = (knots, len(names))
        if not isinstance(values, np.ndarray) or values.dtype != np.float64:
            return f"{column} must be a float64 array of shape {wanted}, got {_kind(values)}"
        if values.shape != wanted:
            return f"{column} must have shape {wanted}, got {values.shape}"
    if not 0 <= trajectory.brake_index < knots:
        return f"brake_index must be in 0..{knots - 1}, got {trajectory.brake_index}"
    if (knots - 1) * trajectory.period_ns > LONGEST_NS:
        return f"a trajectory lasts at most {LONGEST_NS * 1e-9:g} s, got {knots} knots"
    return None


def _kind(values: object) -> str:
    return f"{values.dtype}" if isinstance(values, np.ndarray) else type(values).__name__


def finite(trajectory: Trajectory) -> Finding | None:
    """The first number that is not finite."""
    columns = ("position", "velocity", "acceleration", "effort")
    for name in columns:
        values = getattr(trajectory, name)
        if values is None or np.isfinite(values).all():
            continue
        index, axis = np.argwhere(~np.isfinite(values))[0]
        return Reason.trajectory_not_finite, (
            f"{name} of {trajectory.axes[axis]} at {_time(trajectory, index)} "
            f"is {values[index, axis]}"
        )
    return None


def findings(trajectory: Trajectory, laws: list[AxisLaw]) -> list[Finding]:
    """Every broken rule of one well-formed, finite trajectory, the first place of each.

    Overflow in here is a huge number in the trajectory: it becomes infinite, and fails.
    """
    with np.errstate(all="ignore"):
        return [
            found
            for found in (
                _torn(trajectory, laws),
                _not_at_rest(trajectory, laws),
                _position(trajectory, laws),
                _velocity(trajectory, laws),
                _acceleration(trajectory, laws),
                _jerk(trajectory, laws),
                _effort(trajectory, laws),
            )
            if found is not None
        ]


def _torn(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    """Columns that are not one motion."""
    h = laws[0].period_s
    p, v, a = trajectory.position, trajectory.velocity, trajectory.acceleration
    seam = np.array([seams(law) for law in laws])
    v_miss = np.diff(v, axis=0) - 0.5 * h * (a[:-1] + a[1:])
    p_miss = np.diff(p, axis=0) - h * v[:-1] - h * h / 6.0 * (2.0 * a[:-1] + a[1:])
    # positions are as fine as their rounding, which grows with the distance
    p_seam = seam[:, 0] + 4.0 * np.spacing(np.abs(p[1:]))
    for name, miss, allowed in (("velocity", v_miss, seam[:, 1]), ("position", p_miss, p_seam)):
        place = _first(~(np.abs(miss) <= allowed))
        if place is not None:
            index, axis = place
            return Reason.trajectory_malformed, (
                f"{name} of {trajectory.axes[axis]} at {_time(trajectory, index + 1)} is not the "
                f"integral of the knots before: it is off by {miss[index, axis]:.3g}"
            )
    return None


def _not_at_rest(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    for axis, law in enumerate(laws):
        v, a = float(trajectory.velocity[-1, axis]), float(trajectory.acceleration[-1, axis])
        _, v_seam, a_seam = seams(law)
        if not (abs(v) <= v_seam and abs(a) <= a_seam):
            return Reason.trajectory_not_at_rest, (
                f"{law.axis.name} must end at rest, its last knot has velocity {v:.4g} "
                f"and acceleration {a:.4g}"
            )
    return None


def _position_range(trajectory: Trajectory, law: AxisLaw, axis: int) -> tuple[float, float]:
    """The position limits, and where an axis stands outside them: no further out than that."""
    start = float(trajectory.position[0, axis])
    return min(law.axis.position_min, start), max(law.axis.position_max, start)


def _position(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    for axis, law in enumerate(laws):
        if law.axis.kind == "position":
            low, high = _position_range(trajectory, law, axis)
            values = trajectory.position[:, axis]
            found = _outside(trajectory, values, low, high, axis, "position")
            if found is not None:
                return Reason.position_limit, found
    return None


def _velocity(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    for axis, law in enumerate(laws):
        low, high = law.axis.velocity_min, law.axis.velocity_max
        values = trajectory.velocity[:, axis]
        found = _outside(trajectory, values, low, high, axis, "velocity")
        if found is not None:
            return Reason.velocity_limit, found
    return None


def _acceleration(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    """`acceleration` bounds speeding up, `braking` slowing down."""
    v, a = trajectory.velocity, trajectory.acceleration
    for axis, law in enumerate(laws):
        slowing = v[:, axis] * a[:, axis] < 0.0
        limit = np.where(slowing, law.axis.braking, law.axis.acceleration)
        place = _first(~(np.abs(a[:, axis]) <= limit * (1.0 + ROUNDING)))
        if place is not None:
            index = place[0]
            word = "braking" if slowing[index] else "acceleration"
            return Reason.acceleration_limit, (
                f"acceleration of {law.axis.name} at {_time(trajectory, index)} is "
                f"{a[index, axis]:.6g}, {word} allows {limit[index]:g}"
            )
    return None


def _jerk(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    jerk = np.diff(trajectory.acceleration, axis=0) / laws[0].period_s
    for axis, law in enumerate(laws):
        limit = law.axis.jerk
        place = _first(~(np.abs(jerk[:, axis]) <= limit * (1.0 + ROUNDING)))
        if place is not None:
            index = place[0]
            return Reason.jerk_limit, (
                f"jerk of {law.axis.name} from {_time(trajectory, index)} on is "
                f"{jerk[index, axis]:.6g}, allowed are {limit:g}"
            )
    return None


def _effort(trajectory: Trajectory, laws: list[AxisLaw]) -> Finding | None:
    if trajectory.effort is None:
        return None
    for axis, law in enumerate(laws):
        limit = law.axis.effort_max
        values = trajectory.effort[:, axis]
        found = _outside(trajectory, values, -limit, limit, axis, "effort")
        if found is not None:
            return Reason.effort_limit, found
    return None


def brakes(trajectory: Trajectory, laws: list[AxisLaw]) -> Float64:
    """(M, N, A): where the axes go if the guard brakes from each knot."""
    return brake_ways(laws, trajectory.position, trajectory.velocity, trajectory.acceleration)


def unstoppable(trajectory: Trajectory, laws: list[AxisLaw], ways: Float64) -> Finding | None:
    """A knot from which braking would leave the position limits.

    ways: (M, N, A), from `brakes`. The knots themselves are within limits; but a motion that
    turns back at a limit need not have its acceleration at zero there, and braking must. That
    braking lands on a knot, where a motion may turn between two, is forgiven: B h^2.
    """
    for axis, law in enumerate(laws):
        if law.axis.kind != "position":
            continue
        slack = law.axis.braking * law.period_s**2
        values = ways[:, :, axis]
        low, high = _position_range(trajectory, law, axis)
        worst = np.maximum((values - high).max(axis=0), (low - values).max(axis=0)) - slack
        place = _first(~(worst <= 0.0))
        if place is not None:
            index = place[0]
            return Reason.position_limit, (
                f"braking from {_time(trajectory, index)} would take {law.axis.name} "
                f"{worst[index] + slack:.4g} beyond its position limits"
            )
    return None


def _outside(
    trajectory: Trajectory, values: Float64, low: float, high: float, axis: int, name: str
) -> str | None:
    inside = (values >= low - ROUNDING * abs(low)) & (values <= high + ROUNDING * abs(high))
    place = _first(~inside)
    if place is None:
        return None
    index = place[0]
    return (
        f"{name} of {trajectory.axes[axis]} at {_time(trajectory, index)} is "
        f"{values[index]:.6g}, allowed are {low:g} to {high:g}"
    )


def _first(broken: Bool) -> tuple[int, ...] | None:
    """The place of the first True, by row; None if there is none."""
    if not broken.any():
        return None
    return tuple(int(i) for i in np.unravel_index(int(broken.argmax()), broken.shape))


def _time(trajectory: Trajectory, index: int) -> str:
    return f"{index * trajectory.period_ns * 1e-9:.3f} s"
