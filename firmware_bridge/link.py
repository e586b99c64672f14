"""A microcontroller as `edge_wm.device.Link`: setpoints in, samples out, one thread between.

    any thread      send(setpoint) ──► the newest waits ─┐
    link thread     select(port, wake-up, next deadline) ├─► Command ──► port
                    port ──► Status ──► samples ──► step_to()
                    every 50 ms: what time is it with you?

The thread owns the session; others hand it jobs (`arm`, `disarm`, `reset`). When the link breaks
it connects again by itself (HELLO, CLOCK, LIMITS), and there it ends: **it never arms**. Only
`arm()` does, and only until the device is disarmed for whatever reason. The device brakes by
itself when commands cease, so nothing here has to be in time for safety.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_wm.errors import EdgeWmError, LinkError, MismatchError, UsageError
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Link, Robot, Stream
from edge_wm.types import Sample, Setpoint
from firmware_bridge.conversion import (
    Sampler,
    check_axes,
    command_of,
    limits_of,
    link_load_permille,
    linked_axes,
)
from firmware_bridge.messages import Disarm, FaultRecord, Identity, LimitsReply, Status
from firmware_bridge.session import Session, open_session, reason_of
from firmware_bridge.transport import Transport, open_transport

CLOCK_PERIOD_NS = 50_000_000
SILENT_NS = 250_000_000  # fifty statuses missing: connect again
AGAIN_S = 0.5  # between two attempts to connect
JOB_WITHIN_S = 10.0


@dataclass(slots=True)
class Statistics:
    """Counted since the link was made, over all its sessions."""

    commands: int = 0
    withheld: int = 0  # setpoints that were not sent because the device was not armed
    superseded: int = 0  # setpoints that a newer one overtook before they were sent
    refused: Counter[Reason] = field(default_factory=Counter)  # setpoints that cannot be said
    refusal: str = ""  # of the newest of them
    reconnects: int = 0
    damaged: int = 0  # frames from the device
    lateness_ns: deque[int] = field(default_factory=lambda: deque(maxlen=1024))  # send to port


@dataclass(frozen=True, slots=True)
class LinkState:
    """What is known of the device at one moment."""

    connected: bool
    armed: bool
    why: str  # why it is not connected, or was disarmed; "" if all is well
    mode: Mode | None
    reason: Reason | None  # of a latched fault
    identity: Identity | None
    limits: LimitsReply | None
    status: Status | None
    clock_error_us: float
    round_trip_us: float  # median of the newest exchanges
    link_load_permille: int  # as it was told when arming


@dataclass(slots=True)
class _Job:
    work: Callable[[Session], Any]
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: EdgeWmError | None = None


def serial_link(robot: Robot) -> Link:
    """The robot file's entry of kind serial.

    Raises: MismatchError if there is none.
    """
    for link in robot.links:
        if link.kind == "serial":
            return link
    raise MismatchError(
        f"robot {robot.name}: links must hold an entry of kind serial to reach a board, found "
        f"{', '.join(link.kind for link in robot.links) or 'none'}; add it, or give --port"
    )


def link_to(robot: Robot, port: str) -> Link:
    """The robot file's serial entry, or the default one, on another port."""
    for link in robot.links:
        if link.kind == "serial":
            return Link("serial", port, link.baud, link.axes, link.current_max,
                        link.temperature_max, link.bus_voltage)  # fmt: skip
    return Link("serial", port, axes=robot.axis_names)


class SerialLink:
    """See the head of this file.

    clock_ns: the clock of setpoints and samples, in ns. delay_ns: how much later than its own times
    a setpoint takes effect, so that it is there in time. The constructor connects, and raises what
    is wrong (LinkError, DeviceRefusal, MismatchError); later trouble is in `state.why`.
    """

    def __init__(
        self,
        robot: Robot,
        link: Link | None = None,
        *,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        delay_ns: int = 0,
    ) -> None:
        self.robot = robot
        self.link = serial_link(robot) if link is None else link
        self.statistics = Statistics()
        self._axes = linked_axes(robot, self.link)
        self._limits = limits_of(robot, self.link)
        self._clock_ns = clock_ns
        self._delay_ns = delay_ns
        self._sampler = Sampler(robot, self._axes)
        self._samples: deque[Sample] = deque(maxlen=4096)
        self._outbox: deque[tuple[Setpoint, int]] = deque()
        self._jobs: deque[_Job] = deque()
        self._armed = False
        self._why = ""
        self._load = 0
        self._clock_due_ns = 0
        self._end = threading.Event()
        self._transport: Transport | None = None
        self._session: Session | None = None
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            self._connect()
        except EdgeWmError:
            self._let_go()
            os.close(self._wake)
            raise
        self._thread = threading.Thread(target=self._serve, name="edge-wm-serial", daemon=True)
        self._thread.start()

    # ---- edge_wm.device.Link ----------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        return self._clock_ns()

    def send(self, setpoint: Setpoint) -> None:
        """Hand `setpoint` to the link thread; never waits. One that is not armed is dropped."""
        if self._end.is_set():
            return
        self._outbox.append((setpoint, time.monotonic_ns()))
        self._ring()

    def step_to(self, now_ns: int) -> list[Sample]:
        """What arrived until `now_ns`."""
        while (left := now_ns - self._clock_ns()) > 0:
            time.sleep(left * 1e-9)
        arrived = []
        while self._samples:
            arrived.append(self._samples.popleft())
        return arrived

    def close(self) -> None:
        """Tell the device to brake and let go of torque, end the thread, free the port."""
        if self._end.is_set():
            return
        self._end.set()
        self._ring()
        self._thread.join(timeout=5.0)
        os.close(self._wake)

    # ---- for people and supervisors ---------------------------------------------------------
    def arm(self) -> Status:
        """Torque on. From now on setpoints are sent; without one for dead_man_ms it brakes.

        Raises: DeviceRefusal with the device's reason; LinkError if it is not connected.
        """

        def work(session: Session) -> Status:
            self._outbox.clear()
            assert session.identity is not None
            rate = session.identity.link_bits_per_s
            self._load = link_load_permille(rate, self.robot.setpoint_period_ns)
            status = session.arm(self._load)
            self._armed, self._why = True, ""
            return status

        armed: Status = self._do(work)
        return armed

    def disarm(self) -> Status:
        """Brake, then torque off; returns when it is off."""

        def work(session: Session) -> Status:
            self._armed, self._why = False, ""
            return session.disarm()

        status: Status = self._do(work)
        return status

    def reset(self, reason: Reason) -> Status:
        """Release the latched fault `reason`; the device stays disarmed."""
        status: Status = self._do(lambda session: session.reset(reason))
        return status

    def faults(self) -> list[FaultRecord]:
        """The device's fault records, the newest first."""
        records: list[FaultRecord] = self._do(lambda session: session.faults())
        return records

    @property
    def armed(self) -> bool:
        return self._armed

    @property
    def streams(self) -> tuple[Stream, ...]:
        """The robot file's streams that the device measures."""
        return self._sampler.streams

    def load_permille(self) -> int:
        """How much of a wire of the robot file's baud rate the session takes."""
        return link_load_permille(self.link.baud, self.robot.setpoint_period_ns)

    def damaged(self) -> int:
        """Frames from the device that did not arrive intact, over all sessions."""
        session = self._session
        return self.statistics.damaged + (session.parser.counters.damaged if session else 0)

    @property
    def state(self) -> LinkState:
        session = self._session
        if session is None:
            return LinkState(
                False, False, self._why, None, None, None, None, None, float("inf"), 0.0, 0
            )
        status = session.status
        trips = list(session.clock.round_trips_us)
        return LinkState(
            connected=True,
            armed=self._armed,
            why=self._why,
            mode=Mode(status.mode) if status and status.mode in Mode.__members__.values() else None,
            reason=reason_of(status.reason) if status else None,
            identity=session.identity,
            limits=session.limits,
            status=status,
            clock_error_us=session.clock.error_us(self._clock_ns()),
            round_trip_us=float(np.median(trips)) if trips else 0.0,
            link_load_permille=self._load,
        )

    def _do(self, work: Callable[[Session], Any]) -> Any:
        """Let the link thread do `work`, and wait for it."""
        job = _Job(work)
        self._jobs.append(job)
        self._ring()
        if self._end.is_set() or not job.done.wait(JOB_WITHIN_S):
            raise LinkError(
                f"port {self.link.port}: the link is closed or does not get through "
                f"({self._why or 'busy'}); connect again"
            )
        if job.error is not None:
            raise job.error
        return job.result

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # BlockingIOError: it rings already
            os.eventfd_write(self._wake, 1)

    # ---- the link thread --------------------------------------------------------------------
    def _serve(self) -> None:
        while not self._end.is_set():
            try:
                if self._session is None:
                    self._connect()
                    self.statistics.reconnects += 1
                self._turn(self._session)
            except EdgeWmError as error:
                self._lost(str(error))
                self._end.wait(AGAIN_S)
            except (OSError, ValueError) as error:  # select on a port that has gone
                self._lost(f"port {self.link.port}: {error}; check the cable")
                self._end.wait(AGAIN_S)
        if self._session is not None:
            with contextlib.suppress(EdgeWmError, OSError):
                self._session.send(Disarm())
        self._let_go()

    def _connect(self) -> None:
        """HELLO, CLOCK, LIMITS. Not ARM."""
        self._armed = False
        self._transport = open_transport(self.link.port, self.link.baud)
        session = open_session(self._transport, self._clock_ns)
        assert session.identity is not None
        check_axes(self.robot, self._axes, session.identity)
        session.agree_limits(self._limits)
        self._sampler.restart()
        self._clock_due_ns = time.monotonic_ns()
        self._session = session

    def _turn(self, session: Session | None) -> None:
        """Wait for the next thing to do, and do it."""
        assert session is not None
        assert self._transport is not None
        wait_s = (self._clock_due_ns - time.monotonic_ns()) * 1e-9
        port = self._transport.fileno()
        ready, _, _ = select.select([port, self._wake], [], [], max(wait_s, 0.0))
        if self._wake in ready:
            with contextlib.suppress(OSError):
                os.eventfd_read(self._wake)
        self._send_newest(session)
        if port in ready:
            session.hear()
        self._take(session)
        if time.monotonic_ns() >= self._clock_due_ns:
            session.ask_clock()
            self._clock_due_ns += CLOCK_PERIOD_NS
            if time.monotonic_ns() > self._clock_due_ns:  # the machine stood still
                self._clock_due_ns = time.monotonic_ns() + CLOCK_PERIOD_NS
        while self._jobs:
            self._run(self._jobs.popleft(), session)
        if self._clock_ns() - session.heard_ns > SILENT_NS:
            raise LinkError(
                f"port {self.link.port}: the device has been silent for "
                f"{SILENT_NS / 1e6:g} ms; check its power and cable"
            )

    def _send_newest(self, session: Session) -> None:
        newest: tuple[Setpoint, int] | None = None
        while self._outbox:
            self.statistics.superseded += newest is not None
            newest = self._outbox.popleft()
        if newest is None:
            return
        if not self._armed or session.limits is None:
            self.statistics.withheld += 1
            return
        try:
            command = command_of(
                newest[0], self._axes, session.clock, session.limits.crc, self._delay_ns
            )
            session.send(command)
        except UsageError as error:
            self.statistics.refused[Reason.setpoint_invalid] += 1
            self.statistics.refusal = str(error)
            return
        self.statistics.commands += 1
        self.statistics.lateness_ns.append(time.monotonic_ns() - newest[1])

    def _take(self, session: Session) -> None:
        """Samples out of the statuses; and did the device disarm itself?"""
        statuses = session.take_statuses()
        now_ns = self._clock_ns()
        for status in statuses:
            stamp_ns = min(session.clock.host_ns(status.sampled_us), now_ns)
            self._samples.extend(self._sampler.take(status, stamp_ns, now_ns))
        newest = session.status
        if self._armed and newest is not None and not newest.flags & Status.ARMED:
            self._armed = False
            reason = reason_of(newest.reason)
            self._why = f"the device disarmed itself: {reason.name if reason else newest.reason}"

    def _run(self, job: _Job, session: Session) -> None:
        try:
            job.result = job.work(session)
        except EdgeWmError as error:
            job.error = error
        job.done.set()

    def _lost(self, why: str) -> None:
        self._armed, self._why = False, why
        self._outbox.clear()
        self._let_go()
        while self._jobs:
            job = self._jobs.popleft()
            job.error = LinkError(why)
            job.done.set()

    def _let_go(self) -> None:
        if self._session is not None:
            self.statistics.damaged += self._session.parser.counters.damaged
        self._session = None
        if self._transport is not None:
            self._transport.close()
            self._transport = None
