"""Adversarial trajectories, and an oracle that says of each what the guard has to answer.

The oracle is written from the words of the robot file and of docs/guard.md, in plain loops over
plain numbers, and shares no code with the guard. Where a value is within a ten-thousandth of its
limit (for postures, some mm), either answer is right, and the case is not counted.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_wm.guard import Guard
from edge_wm.reasons import Reason
from edge_wm.robot import Axis, Robot
from edge_wm.types import Observation, Trajectory
from guard.scenes import ARM, START_NS, arm_view, bump, motion_of, ready, rover_view, rover_with

ROVER = rover_with(
    workspace="[{frame: odom, box: {lower: [-0.9, -0.8], upper: [0.9, 0.8]}}]",
    keep_out="[{frame: odom, sphere: {center: [0.55, 0.1], radius: 0.05}}]",
)
POSE = (-0.1, 0.05, 0.3)
PLAYED = 12  # knots of the trajectory that is being played when a moving guard is asked


@dataclass(frozen=True)
class Situation:
    """A guard, what it sees, and what it commands at each knot from its newest one on."""

    guard: Guard
    robot: Robot
    view: Observation
    now_ns: int
    newest_ns: int
    commands: list[list[tuple[float, float, float]]]  # knot -> axis -> position, velocity, accel.


def situations() -> list[Situation]:
    """A rover and an arm at rest, and both in the middle of a motion."""
    found = []
    for robot in (ROVER, ARM):
        h = robot.setpoint_period_ns
        view = rover_view(START_NS, pose=POSE) if robot is ROVER else arm_view(START_NS)
        guard = ready(robot, **({"pose": POSE} if robot is ROVER else {}))
        rest = [[(0.0, 0.0, 0.0)] * 2] * 400
        found.append(Situation(guard, robot, view, START_NS, START_NS + h, rest))

        guard = copy.deepcopy(guard)
        gentle = bump(0.5 * robot.axes[0].acceleration, 10, 10, 15, h * 1e-9)
        p, v = motion_of(gentle, h * 1e-9)
        column = np.stack([p, v, gentle], axis=1)
        columns = np.stack([column, np.zeros_like(column)], axis=1)
        columns[-1, :, 1:] = 0.0
        plan = Trajectory(
            1, 1, START_NS, START_NS + h, h, robot.axis_names, *columns.transpose(2, 0, 1), 0
        )
        assert guard.accept(plan, view, START_NS).accepted
        for k in range(1, PLAYED + 1):
            now_ns = START_NS + k * h
            view = arm_view(now_ns) if robot is ARM else rover_view(now_ns, pose=POSE)
            guard.step(now_ns, view)
        ahead = [[tuple(axis) for axis in knot] for knot in columns[PLAYED:].tolist()]
        ahead += [[(axis[0], 0.0, 0.0) for axis in ahead[-1]]] * 400
        found.append(Situation(guard, robot, view, now_ns, now_ns + h, ahead))
    return found


# ---- the cases --------------------------------------------------------------------------------
def cases(rng: np.random.Generator, situation: Situation, count: int) -> Iterator[Trajectory]:
    for _ in range(count):
        case = _plan(rng, situation)
        for _ in range(rng.choice([0, 1, 2], p=[0.5, 0.4, 0.1])):
            case = _spoiled(rng, case, situation)
        yield case


def _plan(rng: np.random.Generator, situation: Situation) -> Trajectory:
    """A plan that is well made and has velocities, accelerations and jerks around the limits."""
    robot = situation.robot
    h = robot.setpoint_period_ns * 1e-9
    lead = int(rng.integers(0, 12))
    columns = []
    for axis, (p, v, a) in zip(robot.axes, situation.commands[lead], strict=True):
        if v or a:  # what is commanded goes on as it is, then comes something new
            rest = [knot[robot.axes.index(axis)] for knot in situation.commands[lead:300]]
            end = next(i for i, knot in enumerate(rest) if knot[1] == knot[2] == 0.0)
            column = np.concatenate(([knot[2] for knot in rest[: end + 1]], _go(rng, axis, h)[1:]))
        else:
            column = _go(rng, axis, h)
        if rng.random() < 0.3:
            column = np.concatenate((column, _go(rng, axis, h)[1:]))
        columns.append((p, v, column))
    knots = max(len(column) for _, _, column in columns)
    values = np.zeros((3, knots, len(columns)))
    for index, (p, v, column) in enumerate(columns):
        full = np.concatenate((column, np.zeros(knots - len(column))))
        gains = 0.5 * h * (full[:-1] + full[1:])
        values[1, :, index] = v + np.concatenate(([0.0], np.cumsum(gains)))
        ways = h * values[1, :-1, index] + h * h / 6.0 * (2.0 * full[:-1] + full[1:])
        values[0, :, index] = p + np.concatenate(([0.0], np.cumsum(ways)))
        values[2, :, index] = full
    values[1:, -1][np.abs(values[1:, -1]) < 1e-11] = 0.0
    effort = None
    if rng.random() < 0.1:
        effort = rng.normal(size=(knots, len(columns))) * 3.0
    return Trajectory(
        epoch=1,
        sequence=2,
        stamp_ns=situation.now_ns - int(rng.integers(0, 60_000_000)),
        start_ns=situation.newest_ns + lead * robot.setpoint_period_ns,
        period_ns=robot.setpoint_period_ns,
        axes=robot.axis_names,
        position=values[0],
        velocity=values[1],
        acceleration=values[2],
        brake_index=int(rng.integers(0, knots)),
        effort=effort,
    )


def _go(rng: np.random.Generator, axis: Axis, h: float) -> np.ndarray:
    """Accelerations of one go there and to rest again; about half keep all limits."""
    if rng.random() < 0.2:
        return np.zeros(1)
    sign = rng.choice([-1.0, 1.0])
    fastest = axis.velocity_max if sign > 0 else -axis.velocity_min
    speed = fastest * _share(rng, 1.1)
    parts = []
    for direction, limit in ((sign, axis.acceleration), (-sign, axis.braking)):
        jerk, gain = axis.jerk * _share(rng, 1.03), limit * _share(rng, 1.03)
        rise = max(1, math.ceil(min(gain, math.sqrt(speed * jerk)) / (jerk * h)))
        hold = max(0, math.ceil(speed / (gain * h) - 1e-9) - rise)
        peak = speed / ((rise + hold) * h)  # a trapezoid of this height gains exactly `speed`
        ramp = np.linspace(0.0, peak, rise + 1)
        parts.append(direction * np.concatenate((ramp, np.full(hold, peak), ramp[-2::-1])))
    longest = 20 if rng.random() < 0.7 else round(1.2 / h)
    cruise = np.zeros(int(rng.integers(0, longest)))
    return np.concatenate((parts[0], cruise, parts[1][1:]))


def _share(rng: np.random.Generator, most: float) -> float:
    """Of a limit: mostly below it, sometimes close to it, on either side."""
    return float(rng.uniform(2 - most, most) if rng.random() < 0.25 else rng.uniform(0.05, 0.98))


def _spoiled(rng: np.random.Generator, case: Trajectory, situation: Situation) -> Trajectory:
    """Something about it changed, often to just beyond what is allowed."""
    robot = situation.robot
    h = robot.setpoint_period_ns
    knots = len(case.position)
    index, axis = int(rng.integers(knots)), int(rng.integers(len(robot.axes)))
    name = str(rng.choice(["position", "velocity", "acceleration"]))
    around = float(np.exp(rng.normal(0.0, 0.5)))
    limits = robot.axes[axis]
    h_s = h * 1e-9
    match int(rng.integers(16)):
        case 0:
            values = getattr(case, name).copy()
            with np.errstate(over="ignore"):  # of a column made float32 before
                values[index, axis] = rng.choice([np.nan, np.inf, -np.inf, 1e300])
            return replace(case, **{name: values})
        case 1:  # a step in one column, from invisible to large
            values = getattr(case, name).copy()
            values[index:, axis] += rng.choice([-1, 1]) * 10.0 ** rng.uniform(-12, 0)
            return replace(case, **{name: values})
        case 2:
            cut = max(1, knots - int(rng.integers(0, 40)))
            return replace(
                case,
                position=case.position[:cut].copy(),
                velocity=case.velocity[:cut].copy(),
                acceleration=case.acceleration[:cut].copy(),
                effort=None,
                brake_index=min(case.brake_index, cut - 1),
            )
        case 3:
            return replace(case, epoch=int(rng.integers(0, 3)))
        case 4:
            return replace(case, sequence=int(rng.integers(0, 4)))
        case 5:
            bound = robot.plan_period_ns + max(s.max_age_ns for s in robot.streams.values())
            return replace(case, stamp_ns=situation.now_ns - round(bound * around))
        case 6:
            return replace(case, stamp_ns=situation.now_ns + round(5_000_000 * around))
        case 7:  # late by some knots
            return replace(case, start_ns=case.start_ns - int(rng.integers(1, 40)) * h)
        case 8:
            return replace(case, start_ns=case.start_ns + int(rng.integers(1, h)))
        case 9:
            far = round(1e9 * around) // h * h
            return replace(case, start_ns=situation.newest_ns + far)
        case 10:
            wrong = rng.choice([case.period_ns // 2, 2 * case.period_ns, 0, -case.period_ns])
            return replace(case, period_ns=int(wrong))
        case 11:
            return replace(case, axes=case.axes[::-1])
        case 12:
            shape = (knots, len(robot.axes) + 1)
            return replace(case, **{name: np.zeros(shape)})
        case 13:
            with np.errstate(over="ignore"):
                return replace(case, **{name: getattr(case, name).astype(np.float32)})
        case 14:
            return replace(case, brake_index=int(rng.choice([-1, knots, 0, knots - 1])))
        case _:  # all of it shifted at the start, around what a seam may miss
            if limits.kind == "position":
                size = 1e-3 * limits.jerk * np.array([h_s**3, h_s**2, h_s])
            else:
                size = robot.plan_period_ns * 1e-9 * np.array([0, limits.acceleration, limits.jerk])
            shift = dict(zip(("position", "velocity", "acceleration"), size, strict=True))
            values = getattr(case, name).copy()
            values[:, axis] += rng.choice([-1, 1]) * shift[name] * around
            return replace(case, **{name: values})


# ---- the oracle -------------------------------------------------------------------------------
class Oracle:
    """Judges one trajectory. `near`: something was too close to its limit to call."""

    def __init__(self, situation: Situation, case: Trajectory) -> None:
        self.case = case
        self.situation = situation
        self.robot = situation.robot
        self.h = self.robot.setpoint_period_ns * 1e-9
        self.near = False

    def reasons(self) -> set[Reason]:
        found = self._order() or self._shape() or self._time()
        if not found:
            found = self._join()
        if not found:
            found = self._motion()
        if not found:
            found = self._region()
        return found

    def above(self, value: float, limit: float) -> bool:
        """True if the value breaks the limit."""
        if math.isfinite(limit) and abs(value - limit) <= 1e-4 * abs(limit) + 1e-12:
            self.near = True
        return not value <= limit

    def _order(self) -> set[Reason]:
        moving = any(v for _, v, _ in self.situation.commands[0])
        if self.case.epoch != 1:
            return {Reason.trajectory_wrong_epoch}
        if self.case.sequence <= (1 if moving else -1):
            return {Reason.trajectory_out_of_order}
        return set()

    def _shape(self) -> set[Reason]:
        case, robot = self.case, self.robot
        knots, width = len(case.position), len(robot.axes)
        good = case.period_ns == robot.setpoint_period_ns and case.axes == robot.axis_names
        good = good and 0 <= case.brake_index < knots
        for column in (case.position, case.velocity, case.acceleration):
            good = good and column.shape == (knots, width) and column.dtype == np.float64
        early = (case.start_ns - self.situation.newest_ns) % robot.setpoint_period_ns
        good = good and early == 0 and case.start_ns <= self.situation.now_ns + 10**9
        good = good and case.stamp_ns <= self.situation.now_ns + 5_000_000
        return set() if good else {Reason.trajectory_malformed}

    def _time(self) -> set[Reason]:
        robot, case = self.robot, self.case
        oldest = max(s.max_age_ns for s in robot.streams.values()) + robot.plan_period_ns
        if self.situation.now_ns - case.stamp_ns > oldest:
            return {Reason.trajectory_old}
        columns = [case.position, case.velocity, case.acceleration]
        columns += [] if case.effort is None else [case.effort]
        for column in columns:
            if not np.isfinite(column).all():
                return {Reason.trajectory_not_finite}
        return set()

    def _join(self) -> set[Reason]:
        case = self.case
        lead = (case.start_ns - self.situation.newest_ns) // case.period_ns
        late = lead < 0
        at = -lead if late else 0
        bad = Reason.trajectory_late if late else Reason.trajectory_discontinuous
        if late and at > case.brake_index:
            return {bad}
        plan_s = self.robot.plan_period_ns * 1e-9
        for i, axis in enumerate(self.robot.axes):
            p, v, a = self.situation.commands[max(lead, 0)][i]
            mine = [float(c[at, i]) for c in (case.position, case.velocity, case.acceleration)]
            if axis.kind == "position":
                seam = 1e-3 * axis.jerk * self.h
                bounds = [seam * self.h**2, seam * self.h, seam]
            else:
                bounds = [math.inf, axis.acceleration * plan_s, axis.jerk * plan_s]
            for value, have, bound in zip(mine, (p, v, a), bounds, strict=True):
                if self.above(abs(value - have), bound):
                    return {bad}
        return set()

    def _motion(self) -> set[Reason]:
        """Velocity, acceleration and jerk of each axis, from each column in turn."""
        found = set()
        for i, axis in enumerate(self.robot.axes):
            p = self.case.position[:, i].tolist()
            v = self.case.velocity[:, i].tolist()
            a = self.case.acceleration[:, i].tolist()
            seam = 1e-3 * axis.jerk * self.h
            if self.above(abs(v[-1]), seam * self.h) or self.above(abs(a[-1]), seam):
                found.add(Reason.trajectory_not_at_rest)
            if axis.kind == "position" and (
                self.above(max(p), max(axis.position_max, p[0]))
                or self.above(-min(p), -min(axis.position_min, p[0]))
            ):
                found.add(Reason.position_limit)
            if self.above(max(v), axis.velocity_max) or self.above(-min(v), -axis.velocity_min):
                found.add(Reason.velocity_limit)
            t = self.h
            slowing, hurrying, jerks, v_misses, p_misses = [0.0], [0.0], [0.0], [0.0], [0.0]
            for k in range(len(p)):
                slows = (v[k] > 0 > a[k]) or (v[k] < 0 < a[k])
                (slowing if slows else hurrying).append(abs(a[k]))
                if k == 0:
                    continue
                b = k - 1
                jerk = (a[k] - a[b]) / t
                jerks.append(abs(jerk))
                # a cubic with this jerk, in closed form, must go through the next knot
                v_misses.append(abs(v[b] + a[b] * t + jerk * t * t / 2 - v[k]))
                p_misses.append(
                    abs(p[b] + v[b] * t + a[b] * t * t / 2 + jerk * t**3 / 6 - p[k])
                    - 4 * math.ulp(abs(p[k]))
                )
            if self.above(max(slowing), axis.braking):
                found.add(Reason.acceleration_limit)
            if self.above(max(hurrying), axis.acceleration):
                found.add(Reason.acceleration_limit)
            if self.above(max(jerks), axis.jerk):
                found.add(Reason.jerk_limit)
            if self.above(max(v_misses), seam * t) or self.above(max(p_misses), seam * t * t):
                found.add(Reason.trajectory_malformed)
            efforts = [0.0] if self.case.effort is None else self.case.effort[:, i].tolist()
            if self.above(max(map(abs, efforts)), axis.effort_max):
                found.add(Reason.effort_limit)
        return found

    # ---- postures and places ------------------------------------------------------------------
    def _region(self) -> set[Reason]:
        return self._arm() if self.robot is ARM else self._base()

    def _base(self) -> set[Reason]:
        """Small steps along the way, from where the base will be at the start."""
        found = set()
        x, y, yaw = self._base_at_start()
        worst_out, worst_in = math.inf, math.inf
        first_out = first_in = None
        v = self.case.velocity.tolist()
        fine = 2
        for k in range(len(v)):
            out = min(0.9 - 0.18 - abs(x), 0.8 - 0.18 - abs(y))
            into = math.hypot(x - 0.55, y - 0.1) - 0.05 - 0.18
            first_out = out if first_out is None else first_out
            first_in = into if first_in is None else first_in
            worst_out, worst_in = min(worst_out, out), min(worst_in, into)
            if k + 1 < len(v):
                for s in range(fine):
                    share = (s + 0.5) / fine
                    vx = v[k][0] + share * (v[k + 1][0] - v[k][0])
                    wz = v[k][1] + share * (v[k + 1][1] - v[k][1])
                    yaw += 0.5 * wz * self.h / fine
                    x += vx * math.cos(yaw) * self.h / fine
                    y += vx * math.sin(yaw) * self.h / fine
                    yaw += 0.5 * wz * self.h / fine
        for worst, first, reason in (
            (worst_out, first_out, Reason.outside_workspace),
            (worst_in, first_in, Reason.inside_keep_out),
        ):
            if abs(worst - min(0.0, first)) < 1e-3:
                self.near = True
            if worst < min(0.0, first):
                found.add(reason)
        return found

    def _base_at_start(self) -> tuple[float, float, float]:
        """The pose was measured now, when the commands of `delay` ago acted: add the rest."""
        x, y, yaw = POSE
        moving = any(v for _, v, _ in self.situation.commands[0])
        lead = max(0, (self.case.start_ns - self.situation.newest_ns) // self.case.period_ns)
        if not moving:
            return x, y, yaw
        h = self.h
        gentle = bump(0.5 * self.robot.axes[0].acceleration, 10, 10, 15, h)
        _, v = motion_of(gentle, h)
        delay = self.robot.actuation_delay_ns // self.robot.setpoint_period_ns
        first, last = PLAYED - 1 - delay, min(PLAYED + lead, len(v) - 1)
        way = sum(h * (v[k] + v[k + 1]) / 2 for k in range(first, last))
        return x + way * math.cos(yaw), y + way * math.sin(yaw), yaw

    def _arm(self) -> set[Reason]:
        found = set()
        q = self.case.position
        if self._posture_breaches(q, found, 1e-3):
            return found
        ways = [
            np.stack([self._braking(k, i) for i in (0, 1)], axis=1) for k in range(0, len(q), 5)
        ]
        way = np.concatenate(ways)
        for i, axis in enumerate(self.robot.axes):
            high, low = max(axis.position_max, q[0, i]), min(axis.position_min, q[0, i])
            beyond = max(way[:, i].max() - high, low - way[:, i].min())
            if abs(beyond) < 4e-3:
                self.near = True
            if beyond > 0:
                found.add(Reason.position_limit)
        self._posture_breaches(way, found, 6e-3)
        return found

    def _braking(self, k: int, i: int) -> np.ndarray:
        """(M,) positions while one axis brakes, in continuous time, by the textbook."""
        axis = self.robot.axes[i]
        p, v, a = (
            float(c[k, i]) for c in (self.case.position, self.case.velocity, self.case.acceleration)
        )
        sign = 1.0 if v + a * abs(a) / (2 * axis.jerk) >= 0 else -1.0
        v, a = sign * v, sign * a
        peak = min(math.sqrt(max(axis.jerk * v + a * a / 2, 0.0)), axis.braking)
        t1 = max(0.0, (a + peak) / axis.jerk)
        v1 = v + a * t1 - axis.jerk * t1 * t1 / 2
        t3 = peak / axis.jerk
        t2 = max(0.0, (v1 - peak * t3 / 2) / peak) if peak else 0.0
        ps = [p]
        x, u, g = p, v, a
        for duration, jerk in ((t1, -axis.jerk), (t2, 0.0), (t3, axis.jerk)):
            for s in (0.25, 0.5, 0.75, 1.0):
                t = s * duration
                ps.append(x + sign * (u * t + g * t * t / 2 + jerk * t**3 / 6))
            x = ps[-1]
            u, g = u + g * duration + jerk * duration**2 / 2, g + jerk * duration
        return np.array(ps)

    def _posture_breaches(self, q: np.ndarray, found: set[Reason], band: float) -> bool:
        """Two links in a plane at height 0.15 m, by hand."""
        one, both = q[:, 0], q[:, 0] + q[:, 1]
        elbow = 0.3 * np.stack([np.cos(one), np.sin(one)], axis=1)
        spheres = [(r * np.stack([np.cos(one), np.sin(one)], 1), 0.06) for r in (0.0, 0.1, 0.2)]
        for along, radius in ((0.0, 0.06), (0.08, 0.05), (0.16, 0.05), (0.25, 0.04)):
            spheres.append((elbow + along * np.stack([np.cos(both), np.sin(both)], 1), radius))
        out, into = np.full(len(q), np.inf), np.full(len(q), np.inf)
        for center, radius in spheres:
            x, y = center[:, 0], center[:, 1]
            sides = np.stack([x + 0.25, 0.7 - x, y + 0.7, 0.7 - y, np.full_like(x, 0.15)], 1)
            out = np.minimum(out, sides.min(axis=1) - radius)
            into = np.minimum(into, np.hypot(x - 0.3, y - 0.4) - 0.08 - radius)
        broken = False
        for clearance, reason in ((out, Reason.outside_workspace), (into, Reason.inside_keep_out)):
            if (np.abs(clearance) < band).any():
                self.near = True
            if (clearance < 0).any():
                found.add(reason)
                broken = True
        return broken


def compare(count: int, seed: int) -> Counter[str]:
    """Ask guard and oracle about `count` trajectories; raise AssertionError where they differ.

    Returns how many were accepted, refused (also by reason) and not counted.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    tally: Counter[str] = Counter()
    all_situations = situations()
    shares = (0.43, 0.43, 0.07, 0.07)  # the arm's oracle is slow
    for situation, share in zip(all_situations, shares, strict=True):
        for case in cases(rng, situation, round(count * share)):
            oracle = Oracle(situation, case)
            expected = oracle.reasons()
            guard = copy.copy(situation.guard)  # accepting replaces attributes, changes none
            guard._commanded = copy.copy(guard._commanded)
            answer = guard.accept(case, situation.view, situation.now_ns)
            tally["cases"] += 1
            assert answer.accepted == (not answer.reasons)
            if oracle.near:
                tally["too near to call"] += 1
                continue
            assert answer.accepted == (not expected), (expected, answer, case)
            if answer.accepted:
                tally["accepted"] += 1
                continue
            assert answer.reasons[0] in expected, (expected, answer, case)
            assert answer.detail
            tally["refused"] += 1
            tally[answer.reasons[0].name] += 1
    return tally
