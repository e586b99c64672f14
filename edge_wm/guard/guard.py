"""The guard: decides, knot by knot, what the motors are told; trusts no plan and sees no model.

    runtime ── trajectory ──► accept ──► waiting ─┐
                               │ refused: nothing changes
    scan, pose, joints ──► step ──► next knot: play it ─ slower ─ turn only ─ brake ──► Setpoint

`accept` checks a whole trajectory once: well made, in order, starting at the current command,
within every limit, ending at rest, inside the workspace. `step` then looks at the world before
each single knot, and takes the first that is allowed of: the plan's next knot (slower if
something is near), the plan's turning without its driving, braking.

The one invariant: a knot is sent only if braking from it, as the guard itself would do it, has
been checked against positions, regions and raw ranges. So in every moment a way to rest exists
that was found clear, and whatever goes wrong (a stale scan, a silent runtime, a wrong plan), that
way is taken.

Nothing here reads a clock or draws a number, and a bad world never raises.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from edge_wm.errors import RefusedError
from edge_wm.guard import limits
from edge_wm.guard.commanded import Commanded
from edge_wm.guard.mirror import GuardState
from edge_wm.guard.playback import Cursor, How, Knot, Track, driven_path
from edge_wm.guard.ranges import ORIGIN, Pose, between, compose, free_way, is_clear, moved_back
from edge_wm.guard.region import first_breach
from edge_wm.guard.surroundings import RESUME_MARGIN, SLOW_RELEASE, Surroundings
from edge_wm.modes import TRANSITIONS, Mode
from edge_wm.reasons import Reason
from edge_wm.robot import FUTURE_TOLERANCE_NS, Region, Robot, Stream, sphere_centers
from edge_wm.types import (
    Acceptance,
    Bool,
    Command,
    Float32,
    Float64,
    Motion,
    Observation,
    Sample,
    Setpoint,
    Trajectory,
    Verdict,
)

# A trajectory starts at most this far ahead.
LONGEST_LEAD_NS = 1_000_000_000

# However near something is, the speed limit falls no lower than this share: slower than that it
# saves no distance (a rover's stopping distance there is 2 cm), but the base would never arrive.
SLOWEST = 0.25

# The base's way is compared with the scan every this many knots: 2 cm at 0.7 m/s and 100 Hz,
# between which a circle of 0.2 m bulges 0.3 mm less than its sweep.
WAY_STRIDE = 3

# Braking is compared with the body's regions from every second knot and there at every sixth:
# between two checked postures of an arm at 200 Hz and 1 m/s tip speed lie 1 to 3 cm.
KNOT_STRIDE = 2
BRAKE_STRIDE = 6

# An axis that misses its setpoints by half its top speed (a position axis: by the way of 0.1 s at
# top speed) for this long is not lagging, it is blocked. Servos lag by some 50 ms.
TRACKING_SHARE = 0.5
TRACKING_LAG_S = 0.1
TRACKING_NS = 300_000_000

_MOTION_MODES = (Mode.hold, Mode.active, Mode.slow, Mode.stop)


class Guard:
    """The guard of one robot. One thread: the caller serializes the calls.

    Begin with `request(Mode.self_test)`, `request(Mode.hold)`, `activate`; call `step` at the
    robot file's setpoint rate, whatever else happens.
    """

    def __init__(self, robot: Robot, *, first_epoch: int = 0) -> None:
        """first_epoch: the counting of activations goes on from there."""
        self.robot = robot
        self._commanded = Commanded(robot)
        self._playback = self._commanded.playback
        self._around = Surroundings(robot, self._commanded) if robot.stopping is not None else None
        base, body = _regions_by_frame(robot)
        self._base_regions: list[tuple[Stream, list[Region], list[Region]]] = base
        self._body_regions: tuple[list[Region], list[Region]] = body
        self._freshness_ns = robot.plan_period_ns + max(
            (stream.max_age_ns for stream in robot.streams.values()), default=0
        )
        self._moving_joints = [
            (index, found)
            for index, axis in enumerate(robot.axes)
            if axis.kind in ("position", "velocity")
            and (found := robot.joint_stream(axis.name)) is not None
        ]

        self._mode = Mode.idle
        self._asked: Reason | None = None  # why somebody asked for the mode
        self._epoch = first_epoch
        self._activated = False
        self._accepted_sequence = -1
        self._setpoint_sequence = 0

        self._scale = 0.0
        self._placed = not any(axis.kind == "position" for axis in robot.axes)

        self._near = False
        self._blocked_until_ns = -1  # an obstacle or a region stopped the plan not long ago
        self._blocked_by = Reason.obstacle_ahead
        self._missing_since_ns: int | None = None  # an axis does not follow
        self._tracking_lost = False

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def epoch(self) -> int:
        """The number of activations, counted on from `first_epoch`."""
        return self._epoch

    @property
    def activated(self) -> bool:
        """May accepted trajectories move the robot?"""
        return self._activated

    # ---- who may do what ------------------------------------------------------------------
    def activate(self, now_ns: int) -> int:
        """Let accepted trajectories move the robot, until the next `request`. Returns the epoch.

        Raises RefusedError in any mode but hold.
        """
        if self._mode is not Mode.hold:
            raise RefusedError(
                f"guard: can be activated in mode hold, it is in {self._mode.name} at {now_ns} ns; "
                "ask for hold first (from a latched mode: reset it, then self_test, then hold)"
            )
        self._epoch += 1
        self._activated = True
        self._accepted_sequence = -1
        self._commanded.cursor = Cursor()
        self._asked = None
        return self._epoch

    def request(self, mode: Mode, who: str, now_ns: int, reason: Reason | None = None) -> bool:
        """Change the mode as mode.toml allows `who` ("supervisor" or "operator") to.

        What was accepted is forgotten, the robot brakes, and stays at rest until `activate`.
        Asking for the mode that it is in already does the same: a stop that the guard made by
        itself, and would end by itself, then lasts. Returns False, and changes nothing, if that
        is not allowed; False too for an unknown `who`, and for "guard", which asks nobody.
        """
        askers = TRANSITIONS.get((self._mode, mode), frozenset())
        if mode is self._mode:
            askers = frozenset().union(*(a for (_, to), a in TRANSITIONS.items() if to is mode))
        if who == "guard" or who not in askers:
            return False
        self._mode = mode
        self._activated = False
        self._commanded.cursor = Cursor()
        self._asked = reason
        if reason is None and mode is Mode.estop:
            self._asked = Reason.estop_pressed
        if reason is None and mode is Mode.stop and who == "operator":
            self._asked = Reason.operator_stop
        return True

    # ---- trajectories -----------------------------------------------------------------------
    def accept(self, trajectory: Trajectory, observation: Observation, now_ns: int) -> Acceptance:
        """Check a trajectory; if it is accepted, it plays from its start on.

        A refused one changes nothing. Reasons come in the order of the checks; where the order,
        the shape or the start is wrong, the rest is not looked at.
        """
        found = self._misplaced(trajectory, now_ns)
        found = found or limits.finite(trajectory)
        findings = [found] if found else []
        if not findings:
            findings = self._unjoined(trajectory)
        if not findings:
            findings = limits.findings(trajectory, self._playback.laws)
        if not findings:
            findings = self._out_of_bounds(trajectory, observation, now_ns)
        if not findings:
            self._take(trajectory)
        return Acceptance(
            accepted=not findings,
            epoch=trajectory.epoch,
            sequence=trajectory.sequence,
            now_ns=now_ns,
            reasons=tuple(dict.fromkeys(reason for reason, _ in findings)),
            detail=findings[0][1] if findings else "",
        )

    def _misplaced(self, trajectory: Trajectory, now_ns: int) -> limits.Finding | None:
        """Wrong in mode, epoch, order, shape or time."""
        if not self._activated or self._mode not in _MOTION_MODES or not self._commanded.knots:
            return Reason.not_active, f"mode {self._mode.name} is not activated"
        if trajectory.epoch != self._epoch:
            return Reason.trajectory_wrong_epoch, (
                f"epoch must be {self._epoch}, got {trajectory.epoch}"
            )
        if trajectory.sequence <= self._accepted_sequence:
            return Reason.trajectory_out_of_order, (
                f"sequence must be above {self._accepted_sequence}, got {trajectory.sequence}"
            )
        if not self._placed:
            return Reason.stream_missing, "no joint positions were ever seen"
        wrong = self._mistimed(trajectory, now_ns) or limits.malformed(
            trajectory, self.robot.axis_names, self.robot.axes
        )
        if wrong is not None:
            return Reason.trajectory_malformed, wrong
        age_ns = now_ns - trajectory.stamp_ns
        if age_ns > self._freshness_ns:
            return Reason.trajectory_old, (
                f"its observation is {age_ns * 1e-6:.1f} ms old, at most "
                f"{self._freshness_ns * 1e-6:g} ms are allowed (maximum age of the robot's "
                "streams and one plan period)"
            )
        return None

    def _mistimed(self, trajectory: Trajectory, now_ns: int) -> str | None:
        period_ns = self._playback.period_ns
        if trajectory.period_ns != period_ns:
            return f"period must be {period_ns} ns, got {trajectory.period_ns} ns"
        start = f"got {trajectory.start_ns} ns"
        if (trajectory.start_ns - self._commanded.times[-1]) % period_ns:
            return f"start must be a setpoint knot, as `command_at` gives it, {start}"
        if trajectory.start_ns > now_ns + LONGEST_LEAD_NS:
            return f"start must be within {LONGEST_LEAD_NS * 1e-9:g} s, {start}"
        if trajectory.stamp_ns > now_ns + FUTURE_TOLERANCE_NS:
            return f"stamp must not be in the future, got {trajectory.stamp_ns} ns"
        return None

    def _unjoined(self, trajectory: Trajectory) -> list[limits.Finding]:
        """Where it does not meet the current command at its start, or at the next knot if late.

        An axis that commands position cannot be led back onto another line, so it must meet it;
        velocity and twist axes can, within their limits, what they can change in a plan period.
        """
        join_ns = max(trajectory.start_ns, self._commanded.times[-1])
        late = join_ns > trajectory.start_ns
        index = (join_ns - trajectory.start_ns) // trajectory.period_ns
        if late and index > trajectory.brake_index:
            return [
                (
                    Reason.trajectory_late,
                    f"it starts {(join_ns - trajectory.start_ns) * 1e-6:g} ms before the next "
                    "setpoint, and of it only braking is left",
                )
            ]
        knot = self._commanded.predict(join_ns)
        plan_s = self.robot.plan_period_ns * 1e-9
        for axis, law in enumerate(self._playback.laws):
            if law.axis.kind == "position":
                allowed = limits.seams(law)
            else:
                allowed = (inf, law.axis.acceleration * plan_s, law.axis.jerk * plan_s)
            for name, values, have, most in zip(
                ("position", "velocity", "acceleration"),
                (trajectory.position, trajectory.velocity, trajectory.acceleration),
                (knot.position[axis], knot.velocity[axis], knot.acceleration[axis]),
                allowed,
                strict=True,
            ):
                value = float(values[index, axis])
                if not abs(value - have) <= most:
                    return [
                        (
                            Reason.trajectory_late if late else Reason.trajectory_discontinuous,
                            f"{name} of {law.axis.name} is {value:.6g} at its knot {index}, "
                            f"commanded is {have:.6g}, at most {most:.3g} apart is allowed",
                        )
                    ]
        return []

    def _out_of_bounds(
        self, trajectory: Trajectory, observation: Observation, now_ns: int
    ) -> list[limits.Finding]:
        """Where it, or braking from it, would leave position limits, workspace, keep-out zones."""
        findings = []
        laws = self._playback.laws
        if any(law.axis.kind == "position" for law in laws):
            ways = limits.brakes(trajectory, laws)
            found = limits.unstoppable(trajectory, laws, ways) or self._body_breach(ways)
            findings += [found] if found else []
        for stream, workspace, keep_out in self._base_regions:
            pose = self._base_pose(stream, observation, now_ns)
            if pose is None:
                findings.append(_stale_pose(stream, observation))
                continue
            join = self._commanded.predict(max(trajectory.start_ns, self._commanded.times[-1]))
            way = driven_path(
                compose(pose, between(self._commanded.knots[-1].pose, join.pose)),
                trajectory.velocity[:, self._playback.vx],
                trajectory.velocity[:, self._playback.wz],
                self._playback.period_s,
            )
            found = self._base_breach(way[:, :2], workspace, keep_out)
            findings += [found] if found else []
        return findings

    def _take(self, trajectory: Trajectory) -> None:
        track = Track(trajectory)
        cursor = self._commanded.cursor
        waiting = tuple(w for w in cursor.waiting if w.start_ns < track.start_ns)
        self._commanded.cursor = Cursor(cursor.track, cursor.at, (*waiting, track))
        self._accepted_sequence = trajectory.sequence

    # ---- regions ------------------------------------------------------------------------------
    def _body_breach(self, ways: Float64) -> limits.Finding | None:
        """ways: (M, N, A): the knots, then braking from each, which leaves the path."""
        workspace, keep_out = self._body_regions
        kinematics = self.robot.kinematics
        if kinematics is None or not (workspace or keep_out):
            return None
        names = self.robot.axis_names
        columns = [names.index(joint) for joint in kinematics.moving]
        radii = np.array([sphere.radius for sphere in kinematics.spheres])
        ends = np.arange(len(ways) - 1, 0, -BRAKE_STRIDE)[::-1]
        for rows, stride in ((np.array([0]), 1), (np.concatenate(([0], ends)), KNOT_STRIDE)):
            # knot by knot, braking from each after it: the first row is where the body is now
            picked = ways[rows][:, ::stride][:, :, columns].transpose(1, 0, 2)
            centers = sphere_centers(kinematics, picked.reshape(-1, len(columns)))
            breach = first_breach(workspace, keep_out, centers, radii)
            if breach is not None:
                reason, index, clearance = breach
                knot, after = divmod(index, len(rows))
                at = f"{knot * stride * self._playback.period_s:.3f} s"
                where = f"braking from {at}" if after else f"at {at}"
                return reason, f"{where} a part of the body is {-clearance:.4g} m too far"
        return None

    def _base_breach(
        self, way: Float64, workspace: list[Region], keep_out: list[Region]
    ) -> limits.Finding | None:
        assert self.robot.base is not None
        radius = np.array([self.robot.base.footprint_radius])
        breach = first_breach(workspace, keep_out, way[:, None, :], radius)
        if breach is None:
            return None
        reason, index, clearance = breach
        x, y = way[index]
        return reason, (
            f"after {index * self._playback.period_s:.3f} s, at x {x:.3f} m, y {y:.3f} m, "
            f"the footprint is {-clearance:.4g} m too far"
        )

    # ---- the setpoint tick --------------------------------------------------------------------
    def step(self, now_ns: int, observation: Observation) -> Verdict:
        """Decide the next knot and return what to send now.

        Knots lie on a grid of setpoint periods; calls may be early or late by half a period. A
        call that is too early repeats the last knots; missed calls are made up for, up to
        `dead_man_ns`, after which the motors brake by themselves and so does the guard.
        """
        missed = self._to_grid(now_ns, observation)
        causes = self._causes(now_ns, observation)
        if missed * self._playback.period_ns > self.robot.dead_man_ns and not self._resting:
            causes = (*causes, Reason.deadline_missed)
        if causes or not self._activated:
            self._commanded.cursor = Cursor()
            self._commanded.how = How.brake
        for _ in range(missed):
            self._decide(now_ns, observation)
        self._settle_mode(causes)
        return Verdict(
            now_ns=now_ns,
            mode=self._mode,
            setpoint=self._setpoint(),
            reasons=self._why(causes),
            speed_scale=self._scale,
        )

    @property
    def _resting(self) -> bool:
        return self._commanded.knots[-1].at_rest and self._commanded.cursor.empty

    def _to_grid(self, now_ns: int, observation: Observation) -> int:
        """How many knots are to be decided until one period after now."""
        period_ns = self._playback.period_ns
        if not self._commanded.knots:
            rest = self._playback.rest(now_ns, (0.0,) * len(self.robot.axes), ORIGIN)
            self._commanded.append(rest)
        self._place(observation)
        ahead_ns = now_ns + period_ns - self._commanded.times[-1]
        count = (ahead_ns + period_ns // 2) // period_ns
        off_grid = abs(ahead_ns - count * period_ns) > period_ns // 4
        if self._resting and ahead_ns > period_ns and (off_grid or count > 2):
            # at rest the grid may be laid anew, and a long silence needs no knots
            last = self._commanded.knots[-1]
            self._commanded.append(self._playback.rest(now_ns, last.position, last.pose))
            count = 1
        return max(0, count)

    def _place(self, observation: Observation) -> None:
        """While nothing is commanded, position axes are commanded to where they are."""
        if self._mode not in (Mode.idle, Mode.self_test) and self._placed:
            return
        if not self._commanded.knots[-1].at_rest:
            return
        position = list(self._commanded.knots[-1].position)
        seen_all = True
        for index, axis in enumerate(self.robot.axes):
            if axis.kind == "position":
                measured = self._measured(axis.name, observation)
                seen_all &= measured is not None
                position[index] = measured[1] if measured else position[index]
        last = self._commanded.knots[-1]
        self._commanded.knots[-1] = self._playback.rest(last.time_ns, tuple(position), last.pose)
        self._placed = seen_all or self._placed

    def _decide(self, now_ns: int, observation: Observation) -> None:
        """Append the next knot: the first allowed of playing, turning only, braking."""
        last = self._commanded.knots[-1]
        cursor = self._commanded.cursor.at_knot(last.time_ns, self._playback.period_ns)
        chosen = How.brake
        if cursor.track is not None:
            top_speed = self._speed_limit(last, cursor)
            for how in (How.play, How.turn) if self._playback.vx is not None else (How.play,):
                knot, after, scale = self._playback.following(last, cursor, how, top_speed)
                breach = self._breach(last, knot, how, now_ns, observation)
                if breach is None:
                    chosen = how
                    break
                self._blocked_by = breach
            if chosen is not How.play:
                self._blocked_until_ns = last.time_ns + 2 * self.robot.plan_period_ns
        if chosen is How.brake:
            knot, after, scale = self._playback.following(last, cursor, How.brake)
        self._commanded.how, self._scale, self._commanded.cursor = chosen, scale, after
        self._commanded.append(knot)

    def _breach(
        self, last: Knot, knot: Knot, how: How, now_ns: int, observation: Observation
    ) -> Reason | None:
        """What forbids to send `knot` after `last`, braking from it included; None: nothing."""
        points, radius = self._points, self._around.clear_radius if self._around else 0.0
        if self._blocked and how is How.play:
            radius += RESUME_MARGIN
        near = points is not None and self._within_reach(points, last, knot, radius)
        if not near and not self._base_regions:
            return None
        path = np.concatenate(([last.pose], self._playback.brake_path(knot)))
        if near and points is not None:
            way = np.concatenate((path[:-1:WAY_STRIDE, :2], path[-1:, :2]))
            if not is_clear(points, way, radius):
                return Reason.obstacle_ahead
        for stream, workspace, keep_out in self._base_regions:
            pose = self._base_pose(stream, observation, now_ns)
            if pose is None:
                return Reason.pose_stale
            # the path was driven from `last`, where the base will be at `pose`
            here = moved_back(path[:, :2].T, compose(last.pose, between(pose, ORIGIN)))
            found = self._base_breach(here.T, workspace, keep_out)
            if found is not None:
                return found[0]
        return None

    def _within_reach(self, points: Float64, last: Knot, knot: Knot, radius: float) -> bool:
        """False if no point is so near that braking from `knot` could matter."""
        vx = self._playback.vx
        if vx is None or points.shape[1] == 0:
            return False
        v, a = abs(knot.velocity[vx]), abs(knot.acceleration[vx])
        law = self._playback.laws[vx]
        reach = radius + law.stopping_distance(v, a) + abs(last.velocity[vx]) * law.period_s
        apart = np.square(points[0] - last.pose[0]) + np.square(points[1] - last.pose[1])
        return bool(apart.min() < reach * reach)

    def _speed_limit(self, last: Knot, cursor: Cursor) -> float:
        """The driving speed (m/s) that leaves more than the stopping distance free; maybe inf."""
        track, stopping, points = cursor.track, self.robot.stopping, self._points
        vx, wz = self._playback.vx, self._playback.wz
        if track is None or stopping is None or points is None or points.shape[1] == 0:
            return inf
        assert self._around is not None
        assert vx is not None
        assert wz is not None
        planned = track.motion(cursor.at + 1.0, vx)[0]
        law = self._playback.laws[vx]
        sign = 1.0 if planned > 0.0 else -1.0
        free = free_way(
            moved_back(points, last.pose),
            planned,
            track.motion(cursor.at + 1.0, wz)[0],
            self._around.clear_radius,
        ) - law.stopping_distance(sign * last.velocity[vx], sign * last.acceleration[vx])
        near_at = stopping.slow_distance * (SLOW_RELEASE if self._near else 1.0)
        self._near = free < near_at
        if not self._near:
            self._commanded.top_speed = inf
            return inf
        fastest = law.axis.velocity_max if planned > 0.0 else -law.axis.velocity_min
        limit = fastest * min(max(free / stopping.slow_distance, SLOWEST), 1.0)
        # it may fall at once and rises gently, so that the scanner's noise is not followed
        rise = 0.5 * law.axis.acceleration * law.period_s
        self._commanded.top_speed = min(limit, max(self._commanded.top_speed, 0.0) + rise)
        return self._commanded.top_speed

    @property
    def _blocked(self) -> bool:
        return self._commanded.times[-1] < self._blocked_until_ns

    def _settle_mode(self, causes: tuple[Reason, ...]) -> None:
        """The guard's own transitions: between hold, active, slow and stop, all are allowed."""
        if not self._activated:
            return
        if causes or self._blocked:
            self._mode = Mode.stop
        elif self._resting:
            self._mode = Mode.hold
        elif self._commanded.cursor.track is None and self._mode in (Mode.hold, Mode.stop):
            pass  # an accepted trajectory has not begun, or a stop is not yet at rest
        elif self._near and (self._scale < 1.0 or self._mode is Mode.slow):
            self._mode = Mode.slow
        else:
            self._mode = Mode.active

    def _why(self, causes: tuple[Reason, ...]) -> tuple[Reason, ...]:
        if not self._activated:
            return () if self._asked is None else (self._asked,)
        reasons = list(causes)
        if self._blocked:
            reasons.append(self._blocked_by)
        if self._mode is Mode.slow:
            reasons.append(Reason.obstacle_near)
        track = self._commanded.cursor.track
        if track is not None and self._commanded.cursor.at > track.brake_index > 0:
            reasons.append(Reason.trajectory_exhausted)
        return tuple(reasons)

    def _setpoint(self) -> Setpoint:
        """The last two knots, and how to stop in the same proportions if nothing follows.

        All axes end at the same time, so that a base stays on its arc.
        """
        first, second = self._commanded.knots[-2:]
        axes = self.robot.axes
        valid_until_ns = first.time_ns + self.robot.dead_man_ns
        longest = max(abs(v) / axis.braking for v, axis in zip(second.velocity, axes, strict=True))
        deceleration = [
            abs(v) / longest if v else axis.braking
            for v, axis in zip(second.velocity, axes, strict=True)
        ]
        end_ns = valid_until_ns + round(longest * 1e9)
        effort = None
        if any(axis.kind == "effort" for axis in axes) or any(first.effort + second.effort):
            effort = np.array([first.effort, second.effort])
        self._setpoint_sequence += 1
        return Setpoint(
            epoch=self._epoch,
            sequence=self._setpoint_sequence,
            axes=self.robot.axis_names,
            times_ns=np.array([first.time_ns, second.time_ns]),
            position=np.array([first.position, second.position]),
            velocity=np.array([first.velocity, second.velocity]),
            brake_deceleration=np.array(deceleration),
            brake_end_ns=np.array([end_ns if v else valid_until_ns for v in second.velocity]),
            apply_at_ns=first.time_ns,
            valid_until_ns=valid_until_ns,
            effort=effort,
        )

    # ---- what the guard sees ------------------------------------------------------------------
    def _causes(self, now_ns: int, observation: Observation) -> tuple[Reason, ...]:
        """Why nothing may move at all now."""
        causes = []
        if self._around is not None and not self._look(self._around, now_ns, observation):
            causes.append(Reason.ranges_stale)
        for stream, _, _ in self._base_regions:
            if _usable(stream, observation, now_ns) is None:
                causes.append(Reason.pose_stale)
        for index, (stream, _) in self._moving_joints:
            blind = _usable(stream, observation, now_ns) is None
            if blind and self.robot.axes[index].kind == "position":
                causes.append(Reason.stream_stale)
        if self._lost_track(now_ns, observation):
            causes.append(Reason.tracking_error)
        return tuple(dict.fromkeys(causes))

    @property
    def _points(self) -> Float64 | None:
        """(2, P) m: what the newest scan hit, where a base is that obeys; None: nothing usable."""
        return self._around.points if self._around else None

    def _look(self, around: Surroundings, now_ns: int, observation: Observation) -> bool:
        """False if the newest scan cannot be used."""
        around.look(_usable(around.stream, observation, now_ns))
        return around.points is not None

    def _base_pose(self, stream: Stream, observation: Observation, now_ns: int) -> Pose | None:
        """Where the base will be, in the odometry's frame, when it obeys the newest knot."""
        sample = _usable(stream, observation, now_ns)
        if sample is None or not np.isfinite(sample.data[:3]).all():
            return None
        x, y, yaw = (float(value) for value in sample.data[:3])
        then = self._commanded.pose_at(sample.stamp_ns - self.robot.actuation_delay_ns)
        return compose((x, y, yaw), between(then, self._commanded.knots[-1].pose))

    def _measured(self, joint: str, observation: Observation) -> tuple[int, float, float] | None:
        """Stamp, position and velocity of a joint; None if not seen or not finite."""
        found = self.robot.joint_stream(joint)
        if found is None:
            return None
        stream, column = found
        sample = _usable(stream, observation, observation.now_ns)
        if sample is None:
            return None
        position, velocity = (float(value) for value in sample.data[:, column])
        if not np.isfinite(position) or not np.isfinite(velocity):
            return None
        return sample.stamp_ns, position, velocity

    def _lost_track(self, now_ns: int, observation: Observation) -> bool:
        """True once an axis misses its setpoints for too long, until it follows and is at rest."""
        misses = self._misses(observation)
        if not misses:
            self._missing_since_ns = None
            if self._resting:
                self._tracking_lost = False
        elif self._missing_since_ns is None:
            self._missing_since_ns = now_ns
        elif now_ns - self._missing_since_ns >= TRACKING_NS:
            self._tracking_lost = True
        return self._tracking_lost

    def _misses(self, observation: Observation) -> bool:
        """True if a measured joint, or the base by its wheels, is far from what it was told."""
        delay_ns = self.robot.actuation_delay_ns
        for index, _ in self._moving_joints:
            axis = self.robot.axes[index]
            joint = self._measured(axis.name, observation)
            if joint is None:
                continue
            stamp_ns, position, velocity = joint
            told = self._commanded.knot_at(stamp_ns - delay_ns)
            fastest = max(axis.velocity_max, -axis.velocity_min)
            if axis.kind == "position":
                if abs(position - told.position[index]) > TRACKING_LAG_S * fastest:
                    return True
            elif abs(velocity - told.velocity[index]) > TRACKING_SHARE * fastest:
                return True
        base, vx, wz = self.robot.base, self._playback.vx, self._playback.wz
        if base is None or vx is None or wz is None:
            return False
        left = self._measured(base.left_wheel, observation)
        right = self._measured(base.right_wheel, observation)
        if left is None or right is None:
            return False
        told = self._commanded.knot_at(left[0] - delay_ns)
        for index, measured in zip((vx, wz), base.twist(left[2], right[2]), strict=True):
            axis = self.robot.axes[index]
            fastest = max(axis.velocity_max, -axis.velocity_min)
            if abs(measured - told.velocity[index]) > TRACKING_SHARE * fastest:
                return True
        return False

    # ---- what was and will be commanded -------------------------------------------------------
    def foresight(self, start_ns: int, step_ns: int) -> Callable[[Float32], Bool] | None:
        """See `Surroundings.foresight`; None for a robot without a scanner, or without a scan."""
        return self._around.foresight(start_ns, step_ns) if self._around else None

    def command_at(self, at_ns: int) -> Command:
        """See `Commanded.command_at`."""
        return self._commanded.command_at(at_ns)

    def motion(self, from_ns: int, until_ns: int) -> Motion:
        """See `Commanded.motion`."""
        return self._commanded.motion(from_ns, until_ns)

    def state(self, now_ns: int) -> GuardState:
        """All that another process needs to know what was and will be commanded (`Mirror`)."""
        commanded = self._commanded
        cursor = commanded.cursor
        return GuardState(
            now_ns=now_ns,
            mode=self._mode,
            epoch=self._epoch if self._activated else 0,
            accepted_sequence=self._accepted_sequence,
            knots=tuple(commanded.knots[-2:]),
            playing=None if cursor.track is None else cursor.track.sequence,
            at=cursor.at,
            waiting=tuple(track.sequence for track in cursor.waiting),
            how=commanded.how,
            top_speed=commanded.top_speed,
        )


def _usable(stream: Stream, observation: Observation, now_ns: int) -> Sample | None:
    """The stream's sample if it is there, well-formed and fresh. The guard looks for itself."""
    seen = observation.streams.get(stream.name)
    if seen is None or seen.sample is None or seen.reason is not None:
        return None
    age_ns = now_ns - seen.sample.stamp_ns
    if not -FUTURE_TOLERANCE_NS <= age_ns <= stream.max_age_ns:
        return None
    return seen.sample if seen.sample.data.shape == stream.shape else None


def _stale_pose(stream: Stream, observation: Observation) -> limits.Finding:
    seen = observation.streams.get(stream.name)
    age = (
        "never seen" if seen is None or seen.sample is None else f"{seen.age_ns * 1e-6:.1f} ms old"
    )
    return Reason.pose_stale, (
        f"{stream.name} is {age} or not finite, at most {stream.max_age_ns * 1e-6:g} ms are allowed"
    )


def _regions_by_frame(
    robot: Robot,
) -> tuple[list[tuple[Stream, list[Region], list[Region]]], tuple[list[Region], list[Region]]]:
    """The regions that each odometry stream's pose is held against, and those of the body."""
    of_base = []
    frames = set()
    for stream in robot.streams.values():
        if stream.type != "odometry" or stream.frame in frames:
            continue
        frames.add(stream.frame)
        workspace = [region for region in robot.workspace if region.frame == stream.frame]
        keep_out = [region for region in robot.keep_out if region.frame == stream.frame]
        if workspace or keep_out:
            of_base.append((stream, workspace, keep_out))
    body = (
        [region for region in robot.workspace if region.frame not in frames],
        [region for region in robot.keep_out if region.frame not in frames],
    )
    return of_base, body
