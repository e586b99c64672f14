"""What carries the bytes: a serial port (USB, UART, PTY) or a socket.

    /dev/ttyACM0        pyserial, opened for this process alone
    unix:PATH           a Unix socket: the emulated board, the fault proxy
    tcp:HOST:PORT       a TCP socket: a terminal server
    anything with ://   an URL that pyserial knows

Every failure to open, read or write leaves here as a LinkError that names the port, the cause and
what to do. The invariant: nothing here waits longer than it was allowed to.
"""

from __future__ import annotations

import errno
import getpass
import os
import select
import socket
import time
from pathlib import Path
from typing import Protocol

from edge_wm.errors import LinkError, UsageError

WRITE_WITHIN_S = 0.25  # the largest frame takes 2.7 ms at 1 Mbaud
CONNECT_WITHIN_S = 2.0


class Transport(Protocol):
    """An open byte stream."""

    name: str  # the port, as the user wrote it

    def fileno(self) -> int:
        """For `select`."""
        ...

    def read(self) -> bytes:
        """What has arrived; b"" if nothing has."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def close(self) -> None:
        """Let go of the port. May be called twice."""
        ...


def open_transport(port: str, baud: int) -> Transport:
    """Open `port`.

    Raises:
        LinkError: it is missing, busy, not allowed, or nobody listens.
        UsageError: it is not the name of a port.
    """
    if not port:
        raise UsageError("the port must be a device file or an address, got ''; name it")
    if port.startswith("unix:"):
        return SocketTransport(port, socket.AF_UNIX, port[5:])
    if port.startswith("tcp:"):
        host, _, number = port[4:].rpartition(":")
        if not host or not number.isdigit() or not 0 < int(number) < 65536:
            raise UsageError(
                f"the port must be tcp:HOST:PORT with a PORT of 1 to 65535, got {port!r}; "
                "correct it"
            )
        return SocketTransport(port, socket.AF_INET, (host, int(number)))
    return SerialTransport(port, baud)


def wait_readable(transport: Transport, wait_s: float) -> bool:
    """Whether something can be read within `wait_s`."""
    return bool(select.select([transport], [], [], max(wait_s, 0.0))[0])


class SocketTransport:
    """A connected stream socket."""

    def __init__(self, name: str, family: int, address: str | tuple[str, int]) -> None:
        self.name = name
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_WITHIN_S)
        try:
            self._socket.connect(address)
            if family == socket.AF_INET:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            self._socket.close()
            raise open_trouble(name, error) from None
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise gone(self.name, error) from None
        if not data:
            raise gone(self.name, None)
        return data

    def write(self, data: bytes) -> None:
        until = time.monotonic() + WRITE_WITHIN_S
        try:
            while data:
                left = until - time.monotonic()
                if not select.select([], [self._socket], [], max(left, 0.0))[1]:
                    raise TimeoutError(errno.ETIMEDOUT, "the other end takes no bytes")
                data = data[self._socket.send(data) :]
        except OSError as error:
            raise gone(self.name, error) from None

    def close(self) -> None:
        self._socket.close()


class SerialTransport:
    """A serial port by pyserial, locked against other programs."""

    def __init__(self, name: str, baud: int) -> None:
        import serial

        self.name = name
        try:
            self._serial = serial.serial_for_url(
                name, baudrate=baud, timeout=0, write_timeout=WRITE_WITHIN_S, do_not_open=True
            )
            if "://" not in name:
                self._serial.exclusive = True
            self._serial.open()
        except (OSError, ValueError) as error:  # SerialException is an OSError
            raise open_trouble(name, error) from None

    def fileno(self) -> int:
        return int(self._serial.fileno())

    def read(self) -> bytes:
        try:
            return bytes(self._serial.read(65536))
        except (OSError, TypeError) as error:  # TypeError: closed by another thread
            raise gone(self.name, error) from None

    def write(self, data: bytes) -> None:
        try:
            self._serial.write(data)
        except (OSError, TypeError) as error:
            raise gone(self.name, error) from None

    def close(self) -> None:
        self._serial.close()


def gone(port: str, error: Exception | None) -> LinkError:
    """The port was open and is not any more."""
    why = getattr(error, "strerror", None) or (str(error) if error else "the other end closed it")
    return LinkError(
        f"port {port}: the connection broke ({why}); check the cable and connect again"
    )


def open_trouble(port: str, error: Exception) -> LinkError:
    """Why `port` could not be opened, and what to do."""
    path = Path(port.removeprefix("unix:"))
    code = getattr(error, "errno", None)
    if code in (errno.EACCES, errno.EPERM):
        return LinkError(
            f"port {port}: the user {getpass.getuser()} may not open it; "
            f"sudo usermod -aG dialout {getpass.getuser()}, log in again, then try again"
        )
    if code == errno.ENOENT:
        there = ", ".join(serial_ports()) or "none"
        return LinkError(
            f"port {port}: there is none of that name; plug the board in, or name another "
            f"(serial ports here: {there})"
        )
    if code in (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK):
        by = ", ".join(holders(path)) or "another program"
        return LinkError(f"port {port}: {by} uses it; end that program, then try again")
    if code == errno.ECONNREFUSED or isinstance(error, TimeoutError):
        return LinkError(
            f"port {port}: nobody answers there; start the emulated board or the terminal server, "
            "or correct the address"
        )
    why = getattr(error, "strerror", None) or str(error)
    return LinkError(f"port {port}: cannot be opened ({why}); is it a serial port?")


def holders(path: Path) -> list[str]:
    """The other processes that hold `path` open, as `name (process 123)`; those we may see."""
    wanted, found = os.path.realpath(path), []
    for folder in sorted(Path("/proc").glob("[0-9]*"), key=lambda each: int(each.name)):
        if int(folder.name) == os.getpid():
            continue
        try:
            if any(os.path.realpath(fd) == wanted for fd in (folder / "fd").iterdir()):
                name = (folder / "comm").read_text().strip()
                found.append(f"{name} (process {folder.name})")
        except OSError:
            continue  # another user's, or gone
    return found


def serial_ports() -> list[str]:
    """The serial ports of this machine that are worth naming."""
    from serial.tools.list_ports import comports

    return sorted(port.device for port in comports() if port.vid is not None)
