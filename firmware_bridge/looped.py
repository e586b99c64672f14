"""A simulated robot whose setpoints go through the real link into real firmware.

    runtime ── send ──► SerialLink ══ line ══► firmware ── torque, or speed ──► simulated robot
       ▲                    │                     ▲                                  │
       │        joint readings out of Status      └────── encoders (a window) ───────┤
       └────────────────────┴──────────── camera, ranges, gyroscope ─────────────────┘

Two boards can stand there:

    lock-step   the firmware works one millisecond for each of the simulation's (`FirmwareWheels`
                closes its servo loop through the simulated wheels); its clock is the simulation's,
                so a machine that stands still holds up both
    a real one  on a port, with its wheels off the floor: the simulated wheels turn as fast as its
                Status says that the real ones do (`FollowedWheels`), on the machine's clock

A thread moves the simulation on in real time, or as fast as the machine can: in lock-step the time
that it was held up is no time for firmware, wheels and runtime (`now_ns` is the clock of them all),
and the report says how much it was. The invariant: `arm` is called by whoever drives and by nobody
else, and when the firmware disarms itself, the line breaks or the board dies, `step_to`
raises LinkError with the reason; nothing is ever armed again by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from edge_wm import device
from edge_wm.errors import EdgeWmError, LinkError
from edge_wm.modes import LATCHED
from edge_wm.robot import Base, Link, Robot
from edge_wm.types import Float64, Sample, Setpoint
from firmware_bridge.conversion import MICRO, board_name
from firmware_bridge.link import LinkState, SerialLink
from firmware_bridge.lockstep import Lockstep
from firmware_bridge.window import GOOD

COUNT = math.tau / 4096  # rad: what a wheel's encoder tells apart
MILLIAMPERE_PER_NEWTON_METER = 100.0  # of the simulated motors, seen from the axis
STEP_S = 0.001
AT_ONCE_NS = 10_000_000  # no more than this at once, however long the machine stood still
FOLLOWING_GAIN = 0.4  # N m s/rad: the simulated wheels' own servo, see edge_wm/simulation/scene.py


class FirmwareWheels:
    """The wheel controllers of a differential base, as firmware in lock-step with the simulation.

    Axis 0 of the board is the base's speed (m/s, N), axis 1 its turning (rad/s, N m).
    """

    def __init__(self, base: Base, board: Lockstep) -> None:
        self._base = base
        self._board = board

    def torques(self, angles: Float64, speeds: Float64) -> Float64:
        """One millisecond of firmware. angles (2,) rad, speeds (2,) rad/s -> (2,) N m."""
        window, base = self._board.window, self._base
        counted = [math.floor(angle / COUNT) * COUNT for angle in angles.tolist()]
        readings = zip(base.twist(*counted), base.twist(*speeds.tolist()), strict=True)
        for axis, (position, velocity) in enumerate(readings):
            reading, asked = window.axis_in[axis], window.axis_out[axis]
            reading.position = ctypes.c_int32(round(position * MICRO)).value  # wraps
            reading.velocity = round(velocity * MICRO)
            reading.current_mA = round(asked.torque * 1e-3 * MILLIAMPERE_PER_NEWTON_METER)
            reading.flags = GOOD
        self._board.turn()
        if not window.torque_enable:
            return np.zeros(2)
        force, moment = (window.axis_out[axis].torque * 1e-3 for axis in range(2))
        # The wheels do the work that the axes do: force * vx + moment * wz.
        forward = 0.5 * base.wheel_radius * force
        turn = base.wheel_radius / base.track_width * moment
        return np.array([forward - turn, forward + turn])


class FirmwareJoints:
    """The joint controllers of an arm, as firmware in lock-step with its plant."""

    def __init__(self, board: Lockstep) -> None:
        self._board = board

    def torques(
        self, position: Float64, velocity: Float64, current: Float64, temperature: Float64
    ) -> Float64 | None:
        """One millisecond of firmware. (J,) each: rad, rad/s, A, degC -> N m; None: torque off."""
        window = self._board.window
        for axis in range(len(position)):
            reading = window.axis_in[axis]
            reading.position = round(float(position[axis]) * MICRO)
            reading.velocity = round(float(velocity[axis]) * MICRO)
            reading.current_mA = round(float(current[axis]) * 1e3)
            reading.temperature = round(float(temperature[axis]) * 10)
            reading.flags = GOOD
        self._board.turn()
        if not window.torque_enable:
            return None
        return np.array([window.axis_out[axis].torque * 1e-3 for axis in range(len(position))])


class FollowedWheels:
    """Simulated wheels that turn as fast as those that a real board measures."""

    def __init__(self, base: Base) -> None:
        self._base = base
        self._wanted = np.zeros(2)

    def turn(self, left: float, right: float) -> None:
        """What the board's wheels do, rad/s."""
        self._wanted = np.array([left, right])

    def follow(self, state: LinkState) -> None:
        """The same out of the device's newest Status; without a device they stand."""
        rows = () if state.status is None else state.status.axis[:2]
        vx, wz = (row.velocity / MICRO for row in rows) if rows else (0.0, 0.0)
        self.turn(*self._base.wheel_speeds(vx, wz))

    def torques(self, angles: Float64, speeds: Float64) -> Float64:
        """Of the wheels' own servo; (2,) rad, (2,) rad/s -> (2,) N m."""
        torques: Float64 = FOLLOWING_GAIN * (self._wanted - speeds)
        return torques


class Looped:
    """See the head of this file: an `edge_wm.device.Link`.

    simulation: with `FirmwareWheels` (give `board`) or `FollowedWheels` (give `followed`); from
    here on only this may step it. delay_ns: how much later than its own times a setpoint takes
    effect, on the device's clock. The constructor connects, and raises what is wrong.
    """

    def __init__(
        self,
        robot: Robot,
        simulation: device.Link,
        link: Link,
        *,
        board: Lockstep | None = None,
        followed: FollowedWheels | None = None,
        delay_ns: int = 0,
    ) -> None:
        self.robot = robot
        self.dead_man_ns = robot.dead_man_ns  # until the device has said what it holds
        self._simulation = simulation
        self._board = board
        self._followed = followed
        self._link = link
        self._lock = threading.Lock()  # of the simulation and what arrived
        self._arrived: list[Sample] = []
        self._trouble: Exception | None = None
        self._armed = False
        self._closed = False
        self._end = threading.Event()
        self._began_ns = time.monotonic_ns() - simulation.now_ns
        self._connected_ns = self._began_ns
        self._serial: SerialLink | None = None
        self._last: dict[str, Any] = {}
        self._measured: set[str] = set()  # streams that the device measures
        self._thread = threading.Thread(target=self._run, name="edge-wm-plant", daemon=True)
        self._thread.start()
        try:
            self._serial = SerialLink(robot, link, clock_ns=lambda: self.now_ns, delay_ns=delay_ns)
        except EdgeWmError as error:
            why = self._trouble or error  # a plant that has failed is why nobody answers
            self.close()
            raise why from None
        limits = self._serial.state.limits
        assert limits is not None
        self.dead_man_ns = limits.limits.dead_man_us * 1000
        with self._lock:  # what it measured until now is old, and partly the device's to measure
            self._measured = {stream.name for stream in self._serial.streams}
            self._arrived.clear()
            self._began_ns = self._connected_ns = time.monotonic_ns() - simulation.now_ns

    # ---- edge_wm.device.Link ----------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        """The firmware's clock: the simulation's where it is in lock-step, else the machine's."""
        return self._simulation.now_ns if self._board is not None else self._real_ns()

    def send(self, setpoint: Setpoint) -> None:
        assert self._serial is not None
        self._serial.send(setpoint)

    def step_to(self, now_ns: int) -> list[Sample]:
        """What arrived; never waits: the simulation runs by itself.

        Raises: LinkError once the device is not armed any more although it was.
        """
        assert self._serial is not None
        if self._trouble is not None:
            raise self._trouble
        if self._armed and not self._serial.armed:
            raise LinkError(f"port {self._link.port}: {self._why()}; nothing was armed again")
        with self._lock:
            arrived, self._arrived = self._arrived, []
        arrived += self._serial.step_to(self._serial.now_ns)
        arrived.sort(key=lambda sample: sample.received_ns)
        return arrived

    def close(self) -> None:
        """Brake and let go of torque, end the simulation and the link; may be called twice."""
        if self._closed:
            return
        self._closed = True
        if self._serial is not None:
            if self._trouble is None and self._serial.armed:
                with contextlib.suppress(EdgeWmError):
                    self._serial.disarm()  # while the plant still runs
            self._last = self.facts()
            self._serial.close()
        self._end.set()
        self._thread.join(timeout=5.0)
        self._simulation.close()
        if self._board is not None:
            self._board.close()

    # ---- for whoever drives -----------------------------------------------------------------
    def arm(self) -> None:
        """Torque on. From now on setpoints are sent; without one for the dead-man time it brakes.

        Raises: DeviceRefusal with the device's reason; LinkError if it is not connected.
        """
        assert self._serial is not None
        self._serial.arm()
        self._armed = True

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """The simulation does not move on meanwhile, so that it can be looked at."""
        with self._lock:
            yield

    def facts(self) -> dict[str, Any]:
        """What the report has to say of the link; after `close`, how it was at the end."""
        if self._closed and self._last:
            return self._last
        assert self._serial is not None
        state, counted = self._serial.state, self._serial.statistics
        status = state.status
        lateness = list(counted.lateness_ns)
        return {
            "firmware": self._board.name if self._board else f"a board at {self._link.port}",
            "board": board_name(state.identity) if state.identity else "not connected",
            "dead_man_ms": self.dead_man_ns / 1e6,
            "times_real_time": round(self._speed(), 3),
            "clock_error_us": round(state.clock_error_us) if state.connected else None,
            "round_trip_us": round(state.round_trip_us),
            "load_percent": self._serial.load_permille() / 10,
            "load_of_baud": self._link.baud,
            "commands": counted.commands,
            "send_p99_us": round(float(np.percentile(lateness, 99)) / 1e3) if lateness else None,
            "superseded": counted.superseded,
            "withheld": counted.withheld,
            "not_sayable": sum(counted.refused.values()),
            "not_sayable_newest": counted.refusal,
            "reconnects": counted.reconnects,
            "frames_lost_to_device": status.frames_damaged if status else None,
            "frames_lost_to_host": self._serial.damaged(),
            "frames_refused": status.frames_refused if status else None,
            "mode": state.mode.name if state.mode is not None else None,
            "latched": state.reason.name if state.reason and state.mode in LATCHED else None,
            "why": state.why or str(self._trouble or ""),
        }

    # ---- the plant's thread -----------------------------------------------------------------
    def _run(self) -> None:
        behind = False
        while not self._end.wait(0.0 if behind else STEP_S):
            try:
                if self._followed is not None and self._serial is not None:
                    self._followed.follow(self._serial.state)
                with self._lock:
                    wanted_ns = self._real_ns()
                    until_ns = min(wanted_ns, self._simulation.now_ns + AT_ONCE_NS)
                    behind = until_ns < wanted_ns
                    if behind and self._board is not None:  # its time stands as long as it did
                        self._began_ns += wanted_ns - until_ns
                    samples = self._simulation.step_to(until_ns)
                    self._arrived += (s for s in samples if s.stream not in self._measured)
            except Exception as error:  # whatever it is, whoever drives must learn of it
                self._trouble = error
                return

    def _real_ns(self) -> int:
        return time.monotonic_ns() - self._began_ns

    def _speed(self) -> float:
        """How fast the simulation was, of real time."""
        real_ns = time.monotonic_ns() - self._connected_ns
        return 1.0 - (self._began_ns - self._connected_ns) / max(real_ns, 1)

    def _why(self) -> str:
        assert self._serial is not None
        return self._serial.state.why or "the device is not armed any more"
