"""Drives a runtime in real time: one thread a tick, and one that serves the link.

    link thread       samples ──► runtime.push        setpoints ──► link.send
    plan thread       begin ─► think ─► conclude      every plan period
    setpoint thread   step ──► the link thread's outbox   every setpoint period

Deadlines are absolute (see `ticking`). The invariant: nothing that happens in the plan thread can
keep the setpoint thread from sending, and however this ends (time is up, Ctrl-C, an exception in
any thread) the robot is braked to rest before the link is closed.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType

import numpy as np

from edge_wm.device import Link
from edge_wm.errors import LinkError, SystemTroubleError
from edge_wm.modes import Mode
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.recording import Prediction
from edge_wm.runtime import PlanRequest, Runtime, Thought
from edge_wm.runtime.planning import plan_tick
from edge_wm.ticking import SWITCH_INTERVAL_S, Deadlines, ticks
from edge_wm.types import Goal, Setpoint

LINK_POLL_S = 0.002
REST_NS = 100_000_000  # standing still for this long is rest
SENSORS_WITHIN_S = 5.0
ALIVE_S = 1.0  # also the time at rest in which the gyroscope's bias is learned
AT_REST_WITHIN_S = 2.0  # after a stop; more than any robot file's braking takes


class Live:
    """A run in real time; use as a context manager, which starts and stops it.

    goal: asked before each plan tick, with the time. shadow: do everything but send.
    imagine: makes predictions for people, given to the journal of `runtime`.
    watch: called by the link thread whenever the link has moved on.
    """

    def __init__(
        self,
        runtime: Runtime,
        link: Link,
        goal: Callable[[int], Goal | None],
        *,
        shadow: bool = False,
        imagine: Callable[[PlanRequest, Thought], Prediction | None] | None = None,
        watch: Callable[[], object] | None = None,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.runtime = runtime
        self.plan = Deadlines()
        self.setpoint = Deadlines()
        self._link = link
        self._goal = goal
        self._shadow = shadow
        self._imagine = imagine
        self._watch = watch
        self._clock = clock
        self._offset_ns = 0
        self._outbox: deque[Setpoint] = deque()
        self._stop = threading.Event()  # no more plans; brake
        self._end = threading.Event()  # all threads
        self._error: BaseException | None = None
        self._moving_ns = 0  # when a setpoint last commanded motion
        self._threads: list[threading.Thread] = []

    def now_ns(self) -> int:
        """The run's time: the link's clock, moved on in real time."""
        return self._clock() - self._offset_ns

    def __enter__(self) -> Live:
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._offset_ns = self._clock() - self._link.now_ns
        for name, body in (
            ("link", self._serve_link),
            ("setpoint", self._setpoint_ticks),
            ("plan", self._plan_ticks),
        ):
            thread = threading.Thread(
                target=self._guarded, args=(body,), name=f"edge-wm-{name}", daemon=True
            )
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Brake to rest, end the threads, close the link. Raises what a thread raised."""
        self._stop.set()
        self.runtime.request(Mode.stop, "supervisor", self.now_ns(), Reason.operator_stop)
        patience = time.monotonic() + AT_REST_WITHIN_S
        while time.monotonic() < patience and not self._resting() and not self._end.is_set():
            time.sleep(0.01)
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=5.0)
        self._link.close()
        sys.setswitchinterval(self._switch_interval)
        if self._error is not None and error is None:
            raise self._error

    def activate(self, arm: Callable[[], object] = lambda: None) -> None:
        """Let the robot move, once all streams that the model needs were usable for `ALIVE_S`.

        arm: switches the torque on, just before.

        Raises: SystemTroubleError naming those that are not within `SENSORS_WITHIN_S`.
        """
        patience = time.monotonic() + SENSORS_WITHIN_S
        alive_since = math.inf
        while time.monotonic() - alive_since < ALIVE_S and not self.failed:
            time.sleep(0.01)
            if not (missing := self.runtime.unusable()):
                alive_since = min(alive_since, time.monotonic())
                continue
            alive_since = math.inf
            if time.monotonic() > patience:
                why = "; ".join(
                    f"{name}: {EXPLANATIONS[reason].sentence} {EXPLANATIONS[reason].check}"
                    for name, reason in missing.items()
                )
                raise SystemTroubleError(
                    f"every stream that the model needs must be alive within "
                    f"{SENSORS_WITHIN_S:g} s, but {why}"
                )
        if not self.failed:
            arm()
            self.runtime.activate(self.now_ns())

    @property
    def failed(self) -> bool:
        """True once a thread has raised: leave the context to learn what."""
        return self._error is not None

    # ---- the three threads ------------------------------------------------------------------
    def _guarded(self, body: Callable[[], None]) -> None:
        try:
            body()
        except BaseException as error:
            self._error = self._error or error
            self._stop.set()
            if body != self._plan_ticks:
                self._end.set()  # nobody is left to brake: the device's own dead-man does

    def _serve_link(self) -> None:
        while not self._end.wait(LINK_POLL_S):
            while self._outbox:
                self._link.send(self._outbox.popleft())
            try:
                arrived = self._link.step_to(self.now_ns())
            except LinkError:  # the device brakes by itself; this one does not go on by itself
                now_ns = self.now_ns()
                self.runtime.request(Mode.fault, "supervisor", now_ns, Reason.bridge_silent)
                raise
            for sample in arrived:
                self.runtime.push(sample)
            if self._watch is not None:
                self._watch()

    def _setpoint_ticks(self) -> None:
        period_ns = self.runtime.robot.setpoint_period_ns
        for now_ns in ticks(period_ns, self.setpoint, self._end, self.now_ns):
            setpoint = self.runtime.step(now_ns).setpoint
            if np.any(setpoint.velocity):
                self._moving_ns = now_ns
            if not self._shadow:
                self._outbox.append(setpoint)

    def _plan_ticks(self) -> None:
        runtime = self.runtime
        for now_ns in ticks(runtime.robot.plan_period_ns, self.plan, self._stop, self.now_ns):
            plan_tick(runtime, self._goal(now_ns), now_ns, self.now_ns, self._imagine)

    # ---- inside -------------------------------------------------------------------------------
    def _resting(self) -> bool:
        """Has rest been commanded for long enough to have come true?"""
        rest_ns = self.now_ns() - self._moving_ns
        return rest_ns > self.runtime.robot.actuation_delay_ns + REST_NS
