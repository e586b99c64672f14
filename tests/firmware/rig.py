"""The real firmware turned by the test, one millisecond at a time, and an ideal plant around it.

`Native` is the shared library, `Qemu` the Cortex-M4 image; both share one window (port/window.h),
so one body of tests drives either. Time is the firmware's: tick * 1000 us, never the machine's.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from firmware_bridge import lockstep
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
from firmware_bridge.window import Window
from firmware_bridge.wire import Frame, Parser, encode

ROOT = Path(__file__).resolve().parents[2]


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

    axes = 2

    def __init__(self, board: lockstep.Lockstep) -> None:
        self.board = board
        self.window: Window = board.window
        self.parser = Parser()
        self.session_id = self.sequence = 0
        self.frames: list[Frame] = []
        self.status: Status | None = None
        self.crc = 0
        self.trace = hashlib.sha256()
        self.plant_runs = True

    def close(self) -> None:
        self.board.close()

    # ---- one millisecond ------------------------------------------------------------------
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
        for _ in range(count):
            if self.plant_runs:
                self.plant()
            self.board.turn()
            self.trace.update(self.window.outputs())
            self.hear()

    @property
    def now_us(self) -> int:
        return self.window.tick * 1000

    # ---- the line ---------------------------------------------------------------------------
    def write(self, data: bytes) -> None:
        self.window.to_device.put(data)

    def hear(self) -> None:
        data = self.window.to_host.take()
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
        made = lockstep.Library(board, library or build("lockstep"), capabilities=capabilities)
        super().__init__(made)
        self.start = made.start  # power on, or a reset by a cause


class Qemu(Rig):
    """The Cortex-M4 image in QEMU, with the window as a shared file."""

    def __init__(self, board: str = "arm") -> None:
        image = build("qemu")
        if shutil.which("qemu-system-arm") is None:
            pytest.skip("qemu-system-arm is not installed (scripts/setup.sh test installs it)")
        made = lockstep.Qemu(board, image)
        super().__init__(made)
        self.wait = made.wait
