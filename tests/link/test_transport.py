"""firmware_bridge.transport: real ports, and the whole sentence for each thing that goes wrong."""

from __future__ import annotations

import errno
import getpass
import os
import pty
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_wm.errors import LinkError, UsageError
from firmware_bridge.transport import (
    holders,
    open_transport,
    open_trouble,
    serial_ports,
    wait_readable,
)

HOLD = """
import sys, serial, time
port = serial.Serial(sys.argv[1], exclusive=True)
print("open", flush=True)
time.sleep(60)
"""


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    yield master, os.ttyname(slave)
    os.close(master)
    os.close(slave)


def read_all(transport, count: int) -> bytes:
    data = b""
    until = time.monotonic() + 5
    while len(data) < count and time.monotonic() < until:
        if wait_readable(transport, 0.1):
            data += transport.read()
    return data


def test_every_byte_passes_a_serial_port_both_ways(terminal):
    master, name = terminal
    transport = open_transport(name, 1_000_000)
    transport.write(bytes(range(256)))
    assert os.read(master, 1000) == bytes(range(256))  # raw: nothing is translated
    os.write(master, bytes(range(256)))
    assert read_all(transport, 256) == bytes(range(256))
    assert transport.read() == b""
    transport.close()
    transport.close()


@pytest.mark.parametrize("family", ["unix", "tcp"])
def test_every_byte_passes_a_socket_and_its_end_is_told(family, tmp_path):
    if family == "unix":
        listener, port = socket.socket(socket.AF_UNIX), f"unix:{tmp_path}/s"
        listener.bind(f"{tmp_path}/s")
    else:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        port = f"tcp:127.0.0.1:{listener.getsockname()[1]}"
    with listener:
        listener.listen()
        transport = open_transport(port, 0)
        peer, _ = listener.accept()
        transport.write(b"\x00abc\xff")
        assert peer.recv(100) == b"\x00abc\xff"
        assert transport.read() == b""
        peer.sendall(b"xyz")
        assert read_all(transport, 3) == b"xyz"
        peer.close()
        assert wait_readable(transport, 5)
        with pytest.raises(LinkError) as caught:
            transport.read()
        transport.close()
    assert str(caught.value) == (
        f"port {port}: the connection broke (the other end closed it); check the cable and "
        "connect again"
    )


def test_a_busy_port_names_the_process(terminal):
    _, name = terminal
    other = subprocess.Popen([sys.executable, "-c", HOLD, name], stdout=subprocess.PIPE)
    try:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(LinkError) as caught:
            open_transport(name, 1_000_000)
        comm = Path(f"/proc/{other.pid}/comm").read_text().strip()
    finally:
        other.kill()
        other.wait()
        other.stdout.close()
    assert str(caught.value) == (
        f"port {name}: {comm} (process {other.pid}) uses it; end that program, then try again"
    )
    open_transport(name, 1_000_000).close()


def test_a_missing_port_lists_those_that_are_there():
    there = ", ".join(serial_ports()) or "none"
    with pytest.raises(LinkError) as caught:
        open_transport("/dev/ttyNone7", 1_000_000)
    assert str(caught.value) == (
        "port /dev/ttyNone7: there is none of that name; plug the board in, or name another "
        f"(serial ports here: {there})"
    )


def test_a_socket_that_nobody_listens_at(tmp_path):
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with pytest.raises(LinkError) as caught:
        open_transport(f"unix:{path}", 0)
    assert str(caught.value) == (
        f"port unix:{path}: nobody answers there; start the emulated board or the terminal server, "
        "or correct the address"
    )


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
def test_no_permission_gives_the_dialout_hint(code):
    """Called directly: the suite may run as root, whom no port refuses."""
    user = getpass.getuser()
    assert str(open_trouble("/dev/ttyACM0", OSError(code, "no"))) == (
        f"port /dev/ttyACM0: the user {user} may not open it; sudo usermod -aG dialout {user}, "
        "log in again, then try again"
    )


def test_what_is_no_serial_port(tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(LinkError, match=r"cannot be opened .*; is it a serial port\?"):
        open_transport(str(file), 1_000_000)


@pytest.mark.parametrize("port", ["tcp:host", "tcp::1", "tcp:h:0", "tcp:h:65536", "tcp:h:x"])
def test_an_address_that_is_none(port):
    with pytest.raises(UsageError) as caught:
        open_transport(port, 0)
    assert str(caught.value) == (
        f"the port must be tcp:HOST:PORT with a PORT of 1 to 65535, got {port!r}; correct it"
    )


def test_no_port_at_all():
    with pytest.raises(UsageError):
        open_transport("", 0)


def test_this_process_is_no_holder(terminal):
    assert holders(terminal[1]) == []
