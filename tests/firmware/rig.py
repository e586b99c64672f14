"""The real firmware turned by the test, one millisecond at a time, and an ideal plant around it.

`Native` is the shared library, `Qemu` the Cortex-M4 image; both share one window (port/window.h),
so one body of tests drives either. Time is the firmware's: tick * 1000 us, never the machine's.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from firmware_bridge.messages import (
    Arm,
    AxisCommand,
    AxisLimits,
    Command,
    Hello,
    Identity,
    Limits,
    LimitsReply,
    Message,
    Refusal,
    Status,
)
from firmware_bridge.wire import Frame, Parser, encode

ROOT = Path(__file__).resolve().parents[2]
RING = 16384
GOOD = 0b1111  # position, current and temperature valid, sensor answered


class AxisIn(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("position", ctypes.c_int32),
        ("velocity", ctypes.c_int32),
        ("current_mA", ctypes.c_int32),
        ("temperature", ctypes.c_int16),
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    )


class AxisOut(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("torque", ctypes.c_int32),
        ("reference_position", ctypes.c_int32),
        ("reference_velocity", ctypes.c_int32),
    )


class Ring(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("written", ctypes.c_uint32),
        ("read", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 2),
        ("data", ctypes.c_uint8 * RING),
    )


class Window(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("layout", ctypes.c_uint32),
        ("board", ctypes.c_uint32),
        ("tick", ctypes.c_uint32),
        ("tick_done", ctypes.c_uint32),
        ("time_us", ctypes.c_uint64),
        ("boots", ctypes.c_uint32),
        ("reserved0", ctypes.c_uint8 * 28),
        ("axis_in", AxisIn * 8),
        ("bus_mV", ctypes.c_uint32),
        ("estop_open", ctypes.c_uint8),
        ("inject", ctypes.c_uint8),
        ("reserved1", ctypes.c_uint8 * 58),
        ("axis_out", AxisOut * 8),
        ("torque_enable", ctypes.c_uint32),
        ("reason", ctypes.c_uint16),
        ("mode", ctypes.c_uint8),
        ("fault_axis", ctypes.c_uint8),
        ("damp", ctypes.c_uint8),
        ("braking", ctypes.c_uint8),
        ("reset_cause", ctypes.c_uint8),
        ("reserved_2a", ctypes.c_uint8),
        ("unfed_us", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint8 * 144),
        ("no_init", ctypes.c_uint8 * 3584),
        ("to_device", Ring),
        ("reserved3", ctypes.c_uint8 * 4080),
        ("to_host", Ring),
        ("reserved4", ctypes.c_uint8 * 24560),
    )


assert ctypes.sizeof(Window) == 65536


@functools.cache
def build(what: str) -> Path:
    """The firmware's build of this checkout; skips where its compiler is missing."""
    host = {"posix": "gcc", "lockstep": "gcc", "fuzz": "clang-14"}
    compiler = host.get(what, "arm-none-eabi-gcc")
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed (scripts/setup.sh test installs it)")
    done = subprocess.run(
        [sys.executable, ROOT / "firmware_bridge" / "build.py", what],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


class Rig:
    """A board in lock-step, its host and its plant. Subclasses turn the millisecond."""

    window: Window
    axes = 2

    def begin(self, board: str) -> None:
        self.window.board = {"arm": 1, "rover": 2}[board]
        self.window.bus_mV = 24000
        for axis in range(self.axes):
            reading = self.window.axis_in[axis]
            reading.temperature, reading.flags = 250, GOOD
        self.parser = Parser()
        self.session_id = self.sequence = 0
        self.frames: list[Frame] = []
        self.status: Status | None = None
        self.crc = 0
        self.trace = hashlib.sha256()
        self.plant_runs = True

    # ---- one millisecond ------------------------------------------------------------------
    def turn(self) -> None:
        """Wait until the firmware has worked the tick that window.tick names."""
        raise NotImplementedError

    def plant(self) -> None:
        """Follows the reference without error; without torque it stands."""
        w = self.window
        for axis in range(self.axes):
            if w.torque_enable:
                w.axis_in[axis].position = w.axis_out[axis].reference_position
                w.axis_in[axis].velocity = w.axis_out[axis].reference_velocity
            else:
                w.axis_in[axis].velocity = 0

    def tick(self, count: int = 1) -> None:
        w = self.window
        for _ in range(count):
            if self.plant_runs:
                self.plant()
            w.tick += 1
            self.turn()
            self.trace.update(bytes(w)[256:364])
            self.hear()

    @property
    def now_us(self) -> int:
        return self.window.tick * 1000

    # ---- the line ---------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        ring = self.window.to_device
        for byte in data:
            ring.data[ring.written % RING] = byte
            ring.written += 1

    def hear(self) -> None:
        ring = self.window.to_host
        count = ring.written - ring.read
        data = bytes(ring.data[(ring.read + i) % RING] for i in range(count))
        ring.read = ring.written
        self.trace.update(data)
        for frame in self.parser.feed(data):
            self.frames.append(frame)
            if isinstance(frame.message, Status):
                self.status = frame.message

    def frame(self, message: Message, *, sequence: int | None = None) -> bytes:
        self.sequence += 1
        return encode(
            message,
            session_id=self.session_id,
            sequence=self.sequence if sequence is None else sequence,
        )

    def say(self, message: Message) -> None:
        self.write(self.frame(message))

    def ask(self, message: Message, wanted: type) -> Message:
        """Say it, run two milliseconds, and give the answer of the wanted kind."""
        self.frames.clear()
        self.say(message)
        self.tick(2)
        answers = [one.message for one in self.frames if isinstance(one.message, wanted)]
        assert answers, [one.message for one in self.frames]
        refusals = [one for one in answers if isinstance(one, Refusal)]
        return refusals[0] if refusals else answers[-1]

    # ---- the usual steps ----------------------------------------------------------------------
    def hello(self) -> Identity:
        self.session_id = self.sequence = 0
        self.tick()
        identity = self.ask(Hello(0x12345678 + self.window.tick), Identity)
        self.session_id = next(
            one.header.session_id for one in self.frames if isinstance(one.message, Identity)
        )
        self.sequence = 1
        return identity

    def agree(self, limits: Limits | None = None) -> LimitsReply:
        reply = self.ask(limits or limits_of(), LimitsReply)
        self.crc = reply.crc
        return reply

    def arm(self) -> None:
        assert self.ask(Arm(self.crc, 100, 10), (Status, Refusal)).mode == 2  # hold

    def ready(self, limits: Limits | None = None) -> None:
        self.hello()
        self.agree(limits)
        self.arm()

    def command(self, *axes: AxisCommand, apply_in_us: int = 0, **changes: int) -> Command:
        values = {
            "limits_crc": self.crc,
            "apply_at_us": self.now_us + apply_in_us,
            "knot_us": 20000,
            "valid_us": 100000,
            "axes": len(axes),
        } | changes
        return Command(axis=(*axes, *[ZERO_AXIS] * (8 - len(axes))), **values)


ZERO_AXIS = AxisCommand((0, 0), (0, 0), 0, 0)
ZERO_LIMITS = AxisLimits(0, 0, 0, 0, 0, 0, 0, 0)


def limits_of(dead_man_us: int = 50_000, **changes: int) -> Limits:
    """Limits within both boards' compiled ones."""
    values = {
        "position_min": -1_500_000,
        "position_max": 1_500_000,
        "velocity_max": 2_000_000,
        "acceleration_max": 4_000_000,
        "braking": 4_000_000,
        "torque_max": 10_000,
        "current_max": 10_000,
        "temperature_max": 800,
    } | changes
    axis = AxisLimits(**values)
    return Limits(2, dead_man_us, 20_000, 28_000, (axis, axis, *[ZERO_LIMITS] * 6))


def steady(
    velocity: int,
    *,
    brake: int = 4_000_000,
    brake_ms: int = 1000,
    position: int = 0,
    knot_us: int = 20000,
) -> AxisCommand:
    """A constant velocity from `position` on."""
    return AxisCommand(
        (position, position + velocity * knot_us // 1_000_000),
        (velocity, velocity),
        brake,
        brake_ms,
    )


class Native(Rig):
    """The shared library."""

    def __init__(
        self, board: str = "arm", library: Path | None = None, capabilities: int = 1
    ) -> None:
        self.capabilities = capabilities
        self.library = ctypes.CDLL(str(library or build("lockstep")))
        self.window = Window()
        self.begin(board)
        self.start()

    def start(self, cause: int = 0) -> None:
        """Power on, or a reset by `cause`, which whoever resets leaves in the no-init memory."""
        self.library.lockstep_start_after(
            ctypes.byref(self.window), ctypes.c_uint32(cause), ctypes.c_uint8(self.capabilities)
        )

    def turn(self) -> None:
        self.library.lockstep_tick()

    def close(self) -> None:
        pass


class Qemu(Rig):
    """The Cortex-M4 image in QEMU, with the window as a shared file."""

    def __init__(self, board: str = "arm") -> None:
        image = build("qemu")
        if shutil.which("qemu-system-arm") is None:
            pytest.skip("qemu-system-arm is not installed (scripts/setup.sh test installs it)")
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = tempfile.mkdtemp(prefix="edge-wm-qemu-", dir=shm)
        path = os.path.join(self.folder, "window")
        with open(path, "wb") as file:
            file.truncate(16 << 20)
        with open(path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 65536)
        self.window = Window.from_buffer(self.map)
        self.begin(board)
        command = [
            "qemu-system-arm", "-M", "mps2-an386,memory-backend=ps",
            "-object", f"memory-backend-file,id=ps,size=16M,mem-path={path},share=on",
            "-kernel", str(image), "-display", "none", "-monitor", "none", "-serial", "none",
        ]  # fmt: skip
        # Dies with this process: setpriv is util-linux.
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])
        self.wait(lambda: self.window.magic == 0x574D5745, "to start")

    def wait(self, done, what: str, within_s: float = 20.0) -> None:
        """The machine's patience, not a promise of the firmware."""
        until = time.monotonic() + within_s
        turns = 0
        while not done():
            turns += 1
            if turns % 64 == 0:
                time.sleep(0.0001)
            if time.monotonic() > until or self.process.poll() is not None:
                pytest.fail(f"QEMU did not get {what} within {within_s} s")

    def turn(self) -> None:
        self.wait(lambda: self.window.tick_done == self.window.tick, "through a tick")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
