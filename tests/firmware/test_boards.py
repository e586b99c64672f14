"""The ports to real microcontrollers: what can be seen without one.

The STM32F405's clock, line, timer, start-up and fault handlers run in QEMU's netduinoplus2, with
the ideal plant where that board has nothing on its pins. The RP2040's image is only looked at.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import secrets
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from edge_wm.errors import DeviceRefusal, LinkError
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Link, find_robot, load_robot
from firmware.rig import ROOT, build
from firmware_bridge.hil.bench import Bench
from firmware_bridge.messages import Arm, Identity, Limits, Refusal, Status
from firmware_bridge.session import Session
from firmware_bridge.transport import open_transport

MCU = ROOT / "firmware_bridge" / "mcu"
STACK_BYTES = 32 << 10
SESSION_S = 60.0  # the patience of a test on a busy machine, not a promise
T = TypeVar("T")

# ---- the images -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Image:
    """What a linked image says about itself, by binutils."""

    symbols: dict[str, int]
    flash: bytes  # from `start` on

    @classmethod
    def of(cls, path: Path, folder: Path) -> Image:
        listed = subprocess.run(
            ["arm-none-eabi-nm", path], capture_output=True, text=True, check=True
        ).stdout
        symbols = {}
        for line in listed.splitlines():
            *value, _kind, name = line.split()
            if value:
                symbols[name] = int(value[0], 16)
        binary = folder / "image.bin"
        subprocess.run(["arm-none-eabi-objcopy", "-O", "binary", path, binary], check=True)
        return cls(symbols, binary.read_bytes())


BOARDS = {
    # flash, its size, ram, its size, interrupts
    "stm32f405": (0x08000000, 1 << 20, 0x20000000, 128 << 10, 82),
    "rp2040": (0x10000100, (2 << 20) - 256, 0x20000000, 256 << 10, 26),
}


@pytest.mark.parametrize("board", BOARDS)
def test_an_image_starts_where_the_processor_looks(board: str, tmp_path: Path) -> None:
    flash, flash_size, ram, ram_size, interrupts = BOARDS[board]
    image = Image.of(build(board), tmp_path)
    assert len(image.flash) < flash_size
    stack, start, *handlers = struct.unpack_from(f"<{16 + interrupts}I", image.flash)
    assert image.symbols["vectors"] == flash
    assert stack == image.symbols["stack_top"] == ram + STACK_BYTES
    assert image.symbols["stack_bottom"] == ram  # it grows into the guard, not into variables
    assert start == image.symbols["reset"] | 1
    ours = {"hard_fault", "line_pump", "on_alarm"}
    if board == "rp2040":
        ours.add("plant_pins_changed")
    assert set(handlers) == {0} | {image.symbols[name] | 1 for name in ours}
    # What survives a reset is not among what start-up code writes.
    assert image.symbols["bss_end"] <= image.symbols["kept"]
    assert image.symbols["end"] <= ram + ram_size


@pytest.mark.parametrize("board", BOARDS)
def test_an_image_has_no_float_no_heap_and_no_printf(board: str, tmp_path: Path) -> None:
    names = set(Image.of(build(board), tmp_path).symbols)
    heap = {"malloc", "_malloc_r", "free", "_sbrk", "printf", "_vfprintf_r"}
    floats = {name for name in names if name.startswith(("__aeabi_f", "__aeabi_d2", "__aeabi_dm"))}
    assert not names & heap
    assert not floats
    assert {"core_tick", "safety_tick", "port_wait"} <= names  # it looked at the right thing


def test_core_and_boards_are_clean_under_gccs_analyzer() -> None:
    generated = build("generated")
    targets = ["analyze"]
    if shutil.which("arm-none-eabi-gcc"):
        targets.append("analyze-boards")
    done = subprocess.run(
        ["make", "-s", "-C", MCU, f"OUT={generated.parent}", f"GEN={generated}", *targets],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- what the peripherals count, in the core's units --------------------------------------------


class AxisInput(ctypes.Structure):
    _fields_ = (
        ("position", ctypes.c_int32),
        ("velocity", ctypes.c_int32),
        ("current_mA", ctypes.c_int32),
        ("temperature", ctypes.c_int16),
        ("flags", ctypes.c_uint8),
    )


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    library = tmp_path_factory.mktemp("measure") / "measure.so"
    subprocess.run(
        ["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O1",
         f"-I{MCU / 'core'}", f"-I{MCU / 'port'}", MCU / "port" / "measure.c", "-o", library],
        check=True,
    )  # fmt: skip
    loaded = ctypes.CDLL(str(library))
    loaded.analog_current.restype = loaded.analog_temperature.restype = ctypes.c_bool
    loaded.analog_bus_mV.restype = loaded.measure_duty.restype = ctypes.c_uint32
    return loaded


@pytest.mark.parametrize("per_ms", [-32000, -7, 0, 1, 40])
def test_an_encoder_measures_position_and_speed_and_wraps(
    measure: ctypes.CDLL, per_ms: int
) -> None:
    encoder = ctypes.create_string_buffer(1024)
    reading = AxisInput()
    clock = 2**32 - 5000  # the microseconds wrap, too
    for step in range(3000):
        measure.encoder_sample(
            encoder,
            ctypes.c_int32(per_ms),
            ctypes.c_uint32(8192),
            ctypes.c_uint32((clock + 1000 * step) % 2**32),
            ctypes.byref(reading),
        )
        exact = (step + 1) * per_ms * 6283185 / 8192
        wrapped = (round(exact) + 2**31) % 2**32 - 2**31
        assert abs((reading.position - wrapped + 2**31) % 2**32 - 2**31) <= 1
        if step > 20:
            speed = max(-(2**31), min(2**31 - 1, per_ms * 1000 * 6283185 / 8192))
            assert abs(reading.velocity - speed) <= 2000 / 15


def test_converters_give_units_and_refuse_a_broken_wire(measure: ctypes.CDLL) -> None:
    current, tenths = ctypes.c_int32(), ctypes.c_int16()
    for raw in (0, 1, 2048, 4094, 4095):
        inside = 0 < raw < 4095
        assert measure.analog_current(raw, 10000, ctypes.byref(current)) == inside
        assert current.value == pytest.approx((raw - 2048) / 2048 * 10000, abs=1)
        assert measure.analog_temperature(raw, ctypes.byref(tenths)) == inside
        assert tenths.value == pytest.approx(raw / 4095 * 3300 - 500, abs=1)
        assert measure.analog_bus_mV(raw, 11) == pytest.approx(raw / 4095 * 3300 * 11, abs=11)
    for torque in (0, 1, -1, 500, 999, 1000, -1000, 5000, -(2**31)):
        expected = min(8400, abs(torque) * 8400 // 1000)
        assert measure.measure_duty(ctypes.c_int32(torque), 1000, 8400) == expected


# ---- the STM32F405 in QEMU -------------------------------------------------------------------


class Netduino:
    """QEMU's STM32F405 board; its USART1 is a Unix socket. It dies with this process."""

    def __init__(self, what: str) -> None:
        image = build(what)
        if shutil.which("qemu-system-arm") is None:
            pytest.skip("qemu-system-arm is not installed (scripts/setup.sh test installs it)")
        self.folder = Path(tempfile.mkdtemp(prefix="edge-wm-f405-"))
        self.port = f"unix:{self.folder / 'usart1'}"
        self.debugger = self.folder / "gdb"
        command = [
            "qemu-system-arm", "-M", "netduinoplus2", "-kernel", str(image),
            "-serial", f"unix:{self.folder / 'usart1'},server=on,wait=off",
            "-gdb", f"unix:{self.debugger},server=on,wait=off",
            "-display", "none", "-monitor", "none",
        ]  # fmt: skip
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command])
        until = time.monotonic() + SESSION_S
        while not (self.folder / "usart1").exists():
            assert self.process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)

    def set_register(self, number: int, value: int) -> None:
        """By the GDB remote protocol, which stops the processor when it is connected."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(SESSION_S)
            line.connect(str(self.debugger))
            asked = {
                "qXfer:features:read:target.xml:0,fff": b"</target>#",  # or it knows no P
                f"P{number:x}={struct.pack('<I', value).hex()}": b"$OK#",
                "D": b"$OK#",  # go on
            }
            for text, answer in asked.items():
                line.sendall(f"+${text}#{sum(text.encode()) % 256:02x}".encode())
                reply = b""
                while answer not in reply:
                    reply += line.recv(4096)
                    assert not reply.endswith(b"$#00"), (text, reply)
            line.sendall(b"+")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def netduino(what: str) -> Iterator[Netduino]:
    board = Netduino(what)
    try:
        yield board
    finally:
        board.close()


@contextlib.contextmanager
def hello(port: str) -> Iterator[Session]:
    """HELLO; a port that is just starting is asked again."""
    with contextlib.closing(open_transport(port, 1_000_000)) as transport:
        session = Session(transport)
        session.hello(SESSION_S)
        yield session


def robot():
    """The dead-man time that real time on a shared machine needs."""
    return dataclasses.replace(load_robot(find_robot("arm")), dead_man_ns=250_000_000)


def patiently(ask: Callable[[], T]) -> T:
    """Ask once more where a busy machine let the answer come too late."""
    until = time.monotonic() + SESSION_S
    while True:
        try:
            return ask()
        except LinkError:
            assert time.monotonic() < until


def driven(bench: Bench) -> tuple[set[Mode], list[float]]:
    """Arm and drive for 60 commands: the modes that were seen, and how far each axis came."""
    bench.arm()
    session = bench.session
    start = bench.positions(session.newest_status())
    modes, reached = set(), start
    for _ in range(60):
        session.send(bench.command(bench.setpoint(session.now_ns(), reached, [0.1, -0.1])))
        status = session.newest_status()  # never ahead of it: QEMU stalls when its line is full
        modes.add(Mode(status.mode))
        reached = bench.positions(status)
    return modes, [there - here for there, here in zip(reached, start, strict=True)]


@pytest.mark.timeout(300)
def test_the_stm32f405_runs_a_whole_session_over_its_usart() -> None:
    """HELLO, CLOCK, LIMITS, ARM, COMMAND, silence: deadlines on the clock of its own timer."""
    with contextlib.ExitStack() as stack:
        board = stack.enter_context(netduino("stm32f405-emulated"))
        bench = Bench(robot(), Link("serial", board.port), may_move=True)
        stack.callback(bench.close)
        session = bench.session
        identity = session.identity
        assert identity is not None
        assert identity.link_bits_per_s == 1_000_000
        assert identity.capabilities == 3
        assert identity.reset_cause == Identity.RESET_POWER_ON
        for _ in range(100):
            data = secrets.token_bytes(35)
            patiently(lambda data=data: session.ping(data))  # compares what comes back
        before, began = session.newest_status().sampled_us, time.monotonic()
        bench.silence(2.0)
        took_us = (time.monotonic() - began) * 1e6
        assert session.newest_status().sampled_us - before == pytest.approx(took_us, rel=0.2)

        modes: set[Mode] = {Mode.fault}
        until = time.monotonic() + 2 * SESSION_S
        while Mode.fault in modes:  # it may not be scheduled for longer than its dead-man time,
            try:  # or its answers be too late for a clock
                modes, way = driven(bench)
            except (DeviceRefusal, LinkError):
                if time.monotonic() > until:
                    raise
                bench.close()
                session = bench.session
        assert modes - {Mode.hold} == {Mode.active}
        assert way[0] > 0.01
        assert way[1] < -0.01
        until = time.monotonic() + SESSION_S
        while bench.latched() is None:
            assert time.monotonic() < until
        record = patiently(bench.newest_fault)
        assert record.reason == Reason.setpoint_expired
        assert record.limit == 250_000  # late or expired: which, is not in a busy machine's hands
        assert session.newest_status().flags & (Status.ARMED | Status.TORQUE_ENABLED) == 0
        released = patiently(lambda: session.reset(Reason.setpoint_expired))
        assert Mode(released.mode) == Mode.idle


@pytest.mark.parametrize(
    ("register", "value", "cause", "reason"),
    [
        (15, 0xF0000000, Identity.RESET_HARD_FAULT, Reason.firmware_crashed),  # pc: nowhere
        (13, 0x20000200, Identity.RESET_STACK_OVERFLOW, Reason.firmware_crashed),  # sp: the guard
    ],
)
def test_a_crash_of_the_stm32f405_resets_and_starts_latched(
    register: int, value: int, cause: int, reason: Reason
) -> None:
    with netduino("stm32f405-emulated") as board:
        with hello(board.port) as session:
            first = session.identity
            assert first is not None
            board.set_register(register, value)
        with hello(board.port) as session:
            again = session.identity
            assert again is not None
            assert (again.reset_cause, again.boots) == (cause, first.boots + 1)
            assert patiently(lambda: session.fault(0)).reason == reason
            assert Mode(session.newest_status().mode) == Mode.fault
            assert Mode(patiently(lambda: session.reset(reason)).mode) == Mode.idle


def test_the_real_image_does_not_arm_where_its_sensors_do_not_answer() -> None:
    """QEMU has no converter behind the pins and no encoder mode: fail closed.

    Its timers run too fast for this image (main.c), so no clock is agreed on.
    """
    with netduino("stm32f405") as board, hello(board.port) as session:
        identity = session.identity
        assert identity is not None
        assert identity.hardware == b"stm32f405\0\0\0\0\0\0\0"
        asked = Bench(robot(), Link("serial", board.port), may_move=False).limits
        wheel = dataclasses.replace(asked.axis[0], position_min=0, position_max=0)
        limits = Limits(2, 50_000, 20_000, 28_000, (wheel, wheel, *asked.axis[2:]))
        crc = session.agree_limits(limits).crc
        asked_in = session.send(Arm(crc, 0, 0))
        until = time.monotonic() + SESSION_S
        refusals: list[Refusal] = []
        while not refusals and time.monotonic() < until:
            heard = session.hear(0.1)
            refusals = [one for one in heard if isinstance(one, Refusal)]
        assert [(one.sequence, one.reason) for one in refusals] == [
            (asked_in, Reason.sensor_invalid)
        ]
        status = session.newest_status()
        assert status.flags & (Status.ARMED | Status.TORQUE_ENABLED) == 0
