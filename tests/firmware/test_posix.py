"""The firmware as a process: its PTY, its window, and what it says to wrong arguments."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware.rig import build, limits_of
from firmware_bridge.emulated import EmulatedBoard
from firmware_bridge.messages import Hello, Identity, Status
from firmware_bridge.session import Session, open_session
from firmware_bridge.transport import SocketTransport, open_transport
from firmware_bridge.window import BYTES, Window
from firmware_bridge.wire import Parser, encode

IDLE, HOLD, FAULT, ESTOP = 0, 2, 6, 7
OVER_TEMPERATURE, ESTOP_PRESSED = 110, 61


@pytest.fixture(scope="module")
def executable() -> Path:
    return build("posix")


@pytest.fixture
def window(tmp_path: Path) -> Window:
    path = tmp_path / "window"
    path.write_bytes(bytes(BYTES))
    made = Window.of(path)
    made.prepare("arm")
    return made


@contextmanager
def running(executable: Path, *arguments: object) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen([executable, "--board", "arm", *map(str, arguments)])
    try:
        yield process
    finally:
        process.terminate()
        assert process.wait(timeout=5.0) == 0


def until(holds: Callable[[], object], within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


def status_where(session: Session, holds: Callable[[Status], bool]) -> Status:
    until(lambda: holds(session.newest_status()))
    assert session.status is not None
    return session.status


def test_a_pty_is_a_serial_port_that_one_host_after_the_other_opens(executable: Path) -> None:
    with EmulatedBoard("rover", executable=executable, pty=True) as board:
        assert board.port.startswith("/dev/")
        boots = set()
        for _ in range(2):
            transport = open_transport(board.port, 1_000_000)
            session = open_session(transport)
            assert session.identity is not None
            boots.add(session.identity.boots)
            assert session.identity.hardware.startswith(b"emulated-rover")
            assert session.clock_error_us() < 20_000  # a PTY costs milliseconds
            session.ping(bytes(35))
            transport.close()
        assert boots == {1}  # a host that leaves does not restart it


def test_a_window_alone_carries_bytes_and_readings_in_real_time(
    executable: Path, window: Window, tmp_path: Path
) -> None:
    with running(executable, "--window", tmp_path / "window"):
        until(lambda: window.magic)
        window.to_device.put(encode(Hello(77), session_id=0, sequence=1))
        parser, heard = Parser(), []

        def identified() -> bool:
            heard.extend(frame.message for frame in parser.feed(window.to_host.take()))
            return any(isinstance(message, Identity) for message in heard)

        until(identified)
        until(lambda: sum(isinstance(message, Status) for message in heard) > 3 or identified())
        begun_us = heard[-1].sampled_us if isinstance(heard[-1], Status) else 0
        window.bus_mV = 23_456
        until(lambda: identified() and heard[-1].bus_mV == 23_456)
        assert heard[-1].sampled_us > begun_us


def test_a_window_is_the_plant_while_the_line_is_a_socket(
    executable: Path, window: Window, tmp_path: Path
) -> None:
    line = tmp_path / "line"
    with running(executable, "--window", tmp_path / "window", "--listen", line):
        until(line.exists)
        transport = open_transport(f"unix:{line}", 0)
        assert isinstance(transport, SocketTransport)
        session = open_session(transport)
        session.agree_limits(limits_of(250_000))
        assert window.torque_enable == 0
        session.arm(0)
        until(lambda: (window.torque_enable, window.mode) == (1, HOLD))
        window.axis_in[1].temperature = 801
        status = status_where(session, lambda s: s.mode == FAULT)
        assert (status.reason, status.fault_axis) == (OVER_TEMPERATURE, 1)
        until(lambda: window.torque_enable == 0)
        window.axis_in[1].temperature = 250
        window.estop_open = 1
        status_where(session, lambda s: s.mode == ESTOP)
        until(lambda: (window.mode, window.reason) == (ESTOP, ESTOP_PRESSED))
        transport.close()


def test_in_lockstep_the_line_can_be_a_socket_too(
    executable: Path, window: Window, tmp_path: Path
) -> None:
    line, end = tmp_path / "line", threading.Event()

    def plant() -> None:
        while not end.wait(0.0005):
            if window.tick == window.tick_done:
                window.tick += 1

    arguments = ("--window", tmp_path / "window", "--lockstep", "--listen", line)
    with running(executable, *arguments):
        until(line.exists)
        thread = threading.Thread(target=plant)
        thread.start()
        try:
            transport = open_transport(f"unix:{line}", 0)
            session = open_session(transport)
            status = session.newest_status()
            assert status.sampled_us % 1000 == 0  # the plant's time, not the machine's
            assert status.sampled_us <= window.tick * 1000
            transport.close()
        finally:
            end.set()
            thread.join()


USAGE = (
    "usage: edge-wm-firmware --board arm|rover [--listen SOCKET | --pty] "
    "[--window FILE [--lockstep]]\n"
)


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 2, USAGE),
        (["--pty", "--listen", "x"], 2, USAGE),
        (["--lockstep", "--pty"], 2, USAGE),
        (["--board", "boat", "--pty"], 2, USAGE),
        (["--window"], 2, USAGE),
        (
            ["--window", "none"],
            1,
            "edge-wm-firmware: cannot open window none: No such file or directory\n",
        ),
        (
            ["--window", "small"],
            1,
            "edge-wm-firmware: window small must have 65536 bytes, has 3; make it anew\n",
        ),
    ],
)
def test_wrong_arguments_are_told(
    executable: Path, tmp_path: Path, arguments: list[str], code: int, told: str
) -> None:
    (tmp_path / "small").write_bytes(b"abc")
    done = subprocess.run(
        [executable, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=10
    )
    assert (done.returncode, done.stderr) == (code, told)
