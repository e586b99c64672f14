"""The driver process: the firmware's core between a Unix socket and a bus of bought motors.

    until the next period   bytes of the socket ──► core ──► its answers
    every period            motors ──► readings ──► core ──► reference, torque ──► motors

The core is the C of our boards (the lock-step library), so limits, session, dead-man, braking
suffix, faults and latches are theirs, and its time is this machine's monotonic clock. The
invariant: torque goes on only after the core said so, and as long as the core wants it off every
period asks every motor for it until all have confirmed. However this process is told to end
(SIGTERM, SIGINT) it brakes first, as for an emergency stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

from edge_wm.errors import LinkError
from firmware_bridge.conversion import MICRO
from firmware_bridge.lockstep import Library, Line
from firmware_bridge.motors import OVER_VOLTAGE, Reading, ServoFile, Servos, open_servos
from firmware_bridge.window import ANSWERED, CURRENT, POSITION, TEMPERATURE

INT32 = 2**31 - 1
END_WITHIN_S = 3.0  # braking to rest before it ends


class Driver:
    """See the head of this file. `run` is all of it; use as a context manager."""

    def __init__(
        self, file: ServoFile, path: Path, open_bus: Callable[[ServoFile], Servos] = open_servos
    ) -> None:
        """path: where the Unix socket shall be.

        Raises: what `open_servos` raises; the torque is off until a host arms.
        """
        self.file = file
        self._count = len(file.servos)
        self._servos = open_bus(file)
        self._board = Library("servos", capabilities=0, servos=self._count)
        self.port = f"unix:{path}"
        self._line = Line(self._board.window, path)
        self._confirmed: list[bool] | None = [False] * self._count
        self._end = False

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def stop(self) -> None:
        """Brake, torque off, and end `run`."""
        self._end = True

    def close(self) -> None:
        """Torque off at once, whatever moves; frees port and socket. May be called twice."""
        with contextlib.suppress(LinkError):
            self._servos.hold([False] * self._count)
        self._servos.close()
        self._line.close()

    def run(self) -> None:
        """Until `stop`.

        Raises: LinkError if the bus breaks: then nothing can be told to a motor any more.
        """
        period_ns = self.file.period_ms * 1_000_000
        due_ns, patience_ns = time.monotonic_ns(), None
        window = self._board.window
        self._period()  # before the first word of a host: it may arm at once
        while True:
            due_ns = max(due_ns + period_ns, time.monotonic_ns())  # a late one is not made up for
            self._serve_line(due_ns)
            self._period()
            if not self._end:
                continue
            window.estop_open = 1
            if patience_ns is None:
                patience_ns = time.monotonic_ns() + round(END_WITHIN_S * 1e9)
            off = not window.torque_enable and not any(self._confirmed or [True])
            if off or time.monotonic_ns() > patience_ns:
                return

    def _serve_line(self, until_ns: int) -> None:
        """Hear and answer the host at once, until it is time for the motors."""
        while True:  # once at least: a bus that takes longer than its period starves nobody
            left_ns = until_ns - time.monotonic_ns()
            select.select(self._line.filenos(), [], [], max(left_ns * 1e-9, 0.0))
            self._line.take_in()
            self._board.link(time.monotonic_ns() // 1000)
            self._line.give_out()
            if left_ns <= 0:
                return

    def _period(self) -> None:
        readings = self._servos.read()
        for reading, row in zip(readings, self._board.window.axis_in, strict=False):
            self._enter(reading, row)
        voltages = [one.voltage for one in readings if one.answered and one.voltage is not None]
        if voltages:  # one number for all: whoever complains of too much, else the lowest
            worst = max(voltages) if max(voltages) >= OVER_VOLTAGE else min(voltages)
            self._board.window.bus_mV = round(worst * 1e3)
        self._board.work(time.monotonic_ns() // 1000)
        self._line.give_out()
        self._drive()

    def _enter(self, reading: Reading, row: ctypes.LittleEndianStructure) -> None:
        if reading.answered:
            row.position = _whole(reading.position * MICRO)
            row.velocity = _whole(reading.velocity * MICRO)
            row.current_mA = _whole(reading.current * 1e3)
            row.temperature = round(reading.temperature * 10)
        row.flags = (
            (POSITION if reading.valid else 0)
            | CURRENT | TEMPERATURE | (ANSWERED if reading.answered else 0)
        )  # fmt: skip

    def _drive(self) -> None:
        window = self._board.window
        wanted = [
            bool(window.torque_enable) and not window.damp >> axis & 1
            for axis in range(self._count)
        ]
        if any(wanted):  # before the torque: it must not start from an older goal
            rows = window.axis_out[: self._count]
            self._servos.move(
                [row.reference_position / MICRO for row in rows],
                [row.reference_velocity / MICRO for row in rows],
                wanted,
            )
        if wanted != self._confirmed:
            self._confirmed = wanted if self._servos.hold(wanted) else None


def run_driver(file: ServoFile, path: Path, say: Callable[[str], object]) -> None:
    """A driver process, until SIGTERM or SIGINT."""
    with Driver(file, path) as driver:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: driver.stop())
        say(driver.port)
        driver.run()


def _whole(value: float) -> int:
    return max(-INT32, min(INT32, round(value)))
