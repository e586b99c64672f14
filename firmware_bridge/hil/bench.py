"""The bench that the suites work at: a robot, a board, and short ways to make it do things."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edge_wm.errors import EdgeWmError
from edge_wm.reasons import Reason
from edge_wm.robot import Link, Robot
from edge_wm.types import Float64, Setpoint
from firmware_bridge.conversion import (
    MICRO,
    command_of,
    limits_of,
    link_load_permille,
    linked_axes,
)
from firmware_bridge.messages import Command, FaultRecord, Limits, LimitsReply, Status
from firmware_bridge.session import Session, latched_by, open_session
from firmware_bridge.transport import Transport, open_transport

POSITION_SPAN = 0.1  # rad or m that a position axis may move from where it stands
SPEED_SHARE = 0.3  # of the velocity limit
REST_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at: what was measured, what was required."""

    name: str
    ok: bool
    measured: str
    required: str


def at_most(name: str, value: float, limit: float, unit: str) -> Check:
    return Check(name, value <= limit, f"{value:.3g} {unit}", f"at most {limit:.3g} {unit}")


def equal(name: str, value: object, wanted: object) -> Check:
    return Check(name, value == wanted, str(value), str(wanted))


class Bench:
    """A board under test. `session` is open whenever a suite runs."""

    def __init__(
        self,
        robot: Robot,
        link: Link,
        *,
        may_move: bool,
        seconds: float = 10.0,
        slack_us: int = 1000,
    ) -> None:
        self.robot = robot
        self.link = link
        self.may_move = may_move
        self.slack_us = slack_us  # how late on its own clock the device may begin to brake
        self.seconds = seconds  # of the endurance suite
        self.axes = linked_axes(robot, link)
        self.limits = limits_of(robot, link)
        self._transport: Transport | None = None
        self._session: Session | None = None
        self._sequence = 0

    @property
    def session(self) -> Session:
        if self._session is None:
            self._transport = open_transport(self.link.port, self.link.baud)
            self._session = open_session(self._transport)
        return self._session

    def leave(self) -> None:
        """End a suite: brake, torque off, latches released, port free."""
        if self._session is not None:
            with contextlib.suppress(EdgeWmError):
                self._session.disarm()
            with contextlib.suppress(EdgeWmError):
                self.release()
        self.close()

    def close(self) -> None:
        self._session = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    # ---- short ways -------------------------------------------------------------------------
    def motion(self) -> str:
        """Which axis moves how far, for the person beside the robot."""
        parts = []
        for axis, speed in zip(self.axes, self.speeds(), strict=True):
            unit = axis.unit.removesuffix("/s")
            if axis.kind == "position":
                parts.append(f"{axis.name} up to {POSITION_SPAN:g} {unit} from where it stands")
            else:
                parts.append(f"{axis.name} at up to {speed:.2g} {axis.unit} for some seconds")
        return ", ".join(parts)

    def speeds(self) -> list[float]:
        """The speed of each axis in a moving suite, SI."""
        out = []
        for axis in self.axes:
            speed = SPEED_SHARE * min(axis.velocity_max, -axis.velocity_min or axis.velocity_max)
            if axis.kind == "position":
                # Out, braked and back within the span.
                speed = min(speed, (0.5 * POSITION_SPAN * axis.braking) ** 0.5, POSITION_SPAN)
            out.append(speed)
        return out

    def agree(self, limits: Limits | None = None) -> LimitsReply:
        return self.session.agree_limits(self.limits if limits is None else limits)

    def load(self) -> int:
        assert self.session.identity is not None
        rate = self.session.identity.link_bits_per_s
        return link_load_permille(rate, self.robot.setpoint_period_ns)

    def arm(self) -> Status:
        self.release()
        self.agree()
        self.at_rest()
        self.session.agree_clock(self.session.clock.exchanges + 8)
        return self.session.arm(self.load())

    def release(self) -> None:
        """Reset whatever is latched."""
        reason = self.latched()
        if reason is not None:
            self.session.reset(reason)

    def at_rest(self) -> Status:
        """Wait until no axis moves; returns the status that shows it."""
        until = time.monotonic() + REST_WITHIN_S
        while True:
            status = self.session.newest_status()
            rows = zip(status.axis, self.axes, strict=False)
            if all(abs(row.velocity) <= axis.rest_speed * MICRO for row, axis in rows):
                return status
            if time.monotonic() > until:
                return status

    def positions(self, status: Status) -> list[float]:
        return [row.position / MICRO for row in status.axis[: len(self.axes)]]

    def setpoint(
        self,
        now_ns: int,
        position: Sequence[float] | Float64,
        velocity: Sequence[float] | Float64,
        valid_ns: int | None = None,
    ) -> Setpoint:
        """Move evenly with `velocity` from `position`, which is where it shall be at now_ns."""
        self._sequence += 1
        period_ns = self.robot.setpoint_period_ns
        start, speed = np.array(position), np.array(velocity)
        valid_ns = self.robot.dead_man_ns if valid_ns is None else valid_ns
        brakes = np.array([axis.braking for axis in self.axes])
        stop_ns = np.ceil(np.abs(speed) / brakes * 1e9).astype(np.int64)
        return Setpoint(
            epoch=1,
            sequence=self._sequence,
            axes=tuple(axis.name for axis in self.axes),
            times_ns=np.array([now_ns, now_ns + period_ns]),
            position=np.array([start, start + speed * period_ns * 1e-9]),
            velocity=np.array([speed, speed]),
            brake_deceleration=brakes,
            brake_end_ns=now_ns + valid_ns + stop_ns,
            apply_at_ns=now_ns,
            valid_until_ns=now_ns + valid_ns,
        )

    def command(self, setpoint: Setpoint) -> Command:
        assert self.session.limits is not None
        return command_of(setpoint, self.axes, self.session.clock, self.session.limits.crc)

    def play(
        self,
        seconds: float,
        velocity: Sequence[float],
        start: Sequence[float],
        valid_ns: int | None = None,
    ) -> Iterator[tuple[Command, list[Status]]]:
        """Ramp to `velocity` and keep it; yields each command with the statuses since the last.

        The ramp stays at half of the axes' acceleration, so that the limiter need not act.
        """
        session, period_ns = self.session, self.robot.setpoint_period_ns
        position, speed = np.array(start), np.zeros(len(self.axes))
        step = 0.5e-9 * period_ns * np.array([axis.acceleration for axis in self.axes])
        due_ns = session.now_ns()
        session.take_statuses()
        for _ in range(max(int(seconds * 1e9 / period_ns), 1)):
            after = speed + np.clip(np.array(velocity) - speed, -step, step)
            point = self.setpoint(due_ns, position, speed, valid_ns)
            point = replace(
                point,
                position=np.array([position, position + 0.5e-9 * period_ns * (speed + after)]),
                velocity=np.array([speed, after]),
            )
            command = self.command(point)
            session.send(command)
            position, speed = point.position[1], after
            due_ns += period_ns
            while (left_ns := due_ns - session.now_ns()) > 0:
                session.hear(left_ns * 1e-9)
            due_ns = max(due_ns, session.now_ns() - period_ns)
            yield command, session.take_statuses()

    def silence(self, seconds: float) -> list[Status]:
        """Say nothing; the statuses of that time."""
        self.session.take_statuses()
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.session.hear(left)
        return self.session.take_statuses()

    def latched(self) -> Reason | None:
        return latched_by(self.session.newest_status())

    def newest_fault(self) -> FaultRecord:
        return self.session.fault(0)
