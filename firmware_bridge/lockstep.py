"""The real firmware, one millisecond at a time: the plant says when, and both share a window.

    Library   the native build inside this process, the fastest: tests, searches
    Native    the native build as a process, `edge-wm-firmware --window FILE --lockstep`
    Qemu      the Cortex-M4 image in QEMU's mps2-an386, with its watchdog and fault handlers

All three run the same core/ and share window.py, so whoever can turn one can turn the others. The
firmware's time is tick * 1000 us: nothing here reads a clock, except to notice that a process has
died. `serve` puts the line on a Unix socket, so that the whole host side (`SerialLink`,
`edge-wm link`, the fault proxy) can reach a board whose milliseconds somebody else turns.

The invariant: when `turn` returns, the firmware has worked exactly one millisecond more; if it
cannot, LinkError says so within `WITHIN_S` and it cannot be turned again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from edge_wm.errors import LinkError, SystemTroubleError, UsageError
from firmware_bridge.emulated import build_firmware
from firmware_bridge.window import BOARDS, BYTES, MAGIC, Window

WITHIN_S = 20.0  # the machine's patience, not a promise of the firmware
KEEPS_UP_S = 0.0003  # the simulated rover takes most of the other 0.7 ms
SPINS = 200  # looks at the window before the processor is given to somebody else
QEMU_MEMORY = 16 << 20


class Lockstep:
    """A board whose milliseconds the caller turns; use as a context manager."""

    name = ""  # for people

    def __init__(self, window: Window, board: str) -> None:
        self.window = window
        self.board = board
        self._line: Line | None = None

    def turn(self) -> None:
        """One millisecond: the inputs lie in the window, the outputs will.

        Raises: LinkError if the firmware has ended or does not answer.
        """
        if self._line is not None:
            self._line.take_in()
        self.window.tick += 1
        self._work()
        if self._line is not None:
            self._line.give_out()

    def serve(self) -> str:
        """Carry the line's bytes over a Unix socket from now on; returns the port's name."""
        self._line = Line(self.window)
        return f"unix:{self._line.path}"

    @property
    def now_ns(self) -> int:
        """The firmware's time."""
        return int(self.window.tick) * 1_000_000

    def close(self) -> None:
        """End it. May be called twice."""
        if self._line is not None:
            self._line.close()

    def _work(self) -> None:
        """Wait until the firmware has worked the tick that window.tick names."""
        raise NotImplementedError

    def __enter__(self) -> Lockstep:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Library(Lockstep):
    """The native build inside this process."""

    name = "the native build, inside this process"

    def __init__(
        self, board: str, library: Path | None = None, *, capabilities: int = 1, servos: int = 2
    ) -> None:
        _check(board)
        super().__init__(Window(), board)
        self.window.prepare(board)
        self.window.servos = servos  # of the board of that name
        self._capabilities = capabilities
        self._library = ctypes.CDLL(str(library or build_firmware("lockstep")))
        self.start()

    def start(self, cause: int = 0) -> None:
        """Power on, or a reset by `cause` (Identity's), which the no-init memory carries."""
        self._library.lockstep_start_after(
            ctypes.byref(self.window), ctypes.c_uint32(cause), ctypes.c_uint8(self._capabilities)
        )

    def work(self, now_us: int) -> None:
        """For a plant in real time: all that is due at `now_us`, which never goes back."""
        self._library.lockstep_work(ctypes.c_uint64(now_us))

    def link(self, now_us: int) -> None:
        """In between: hear what the line has brought, and answer."""
        self._library.lockstep_link(ctypes.c_uint64(now_us))

    def _work(self) -> None:
        self._library.lockstep_tick()


class Process(Lockstep):
    """A firmware in a process of its own, which dies with this one."""

    def __init__(self, board: str, command: Callable[[str], list[str]], size: int) -> None:
        """command: the words that start it, given the path of its window."""
        _check(board)
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # no disk between the two
        self.folder = Path(tempfile.mkdtemp(prefix="edge-wm-", dir=shm))
        path = self.folder / "window"
        with open(path, "wb") as file:
            file.truncate(size)
        super().__init__(Window.of(path), board)
        self.window.prepare(board)
        words = command(str(path))
        with open(self.folder / "log", "wb") as log:
            # Dies with this process: setpriv is util-linux.
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *words], stdout=log, stderr=log
            )
        try:
            self.wait(lambda: self.window.magic == MAGIC, "start")
        except LinkError:
            self.close()
            raise
        if self.window.layout != BYTES:
            self.close()
            raise LinkError(
                f"the firmware's window must be {BYTES} bytes, it says {self.window.layout}; "
                "build it from this checkout"
            )

    def wait(self, done: Callable[[], bool], what: str, within_s: float = WITHIN_S) -> None:
        """Until `done()`.

        Raises: LinkError if the process ends or `within_s` is over; it did not `what`.
        """
        turns, until = 0, time.monotonic() + within_s
        while not done():
            turns += 1
            if turns < SPINS:
                continue
            time.sleep(0.00002)
            if turns % 64 == 0 and (self.process.poll() is not None or time.monotonic() > until):
                raise LinkError(
                    f"the firmware did not {what} within {within_s:g} s"
                    if self.process.poll() is None
                    else f"the firmware did not {what}: {self._ended()}"
                )

    def close(self) -> None:
        super().close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        return self.process.pid

    def _work(self) -> None:
        window = self.window
        self.wait(lambda: window.tick_done == window.tick, "work its millisecond")

    def _ended(self) -> str:
        said = (self.folder / "log").read_text(errors="replace").strip().splitlines()
        code = self.process.returncode
        ended = f"it was killed by signal {-code}" if code < 0 else f"it ended with code {code}"
        return f"{ended} ({said[-1]})" if said else ended


class Native(Process):
    """The native build as a process."""

    name = "the native build, as a process"

    def __init__(self, board: str, executable: Path | None = None) -> None:
        program = str(executable or build_firmware())
        super().__init__(
            board,
            lambda path: [program, "--board", board, "--window", path, "--lockstep"],
            BYTES,
        )


class Qemu(Process):
    """The Cortex-M4 image in QEMU."""

    name = "the Cortex-M4 image, in QEMU's mps2-an386"

    def __init__(self, board: str, image: Path | None = None) -> None:
        if shutil.which("qemu-system-arm") is None:
            raise SystemTroubleError(
                "the emulated Cortex-M4 needs qemu-system-arm, found none; "
                "sudo apt-get install -y qemu-system-arm"
            )
        elf = str(image or build_firmware("qemu"))

        def command(path: str) -> list[str]:
            memory = f"memory-backend-file,id=ps,size={QEMU_MEMORY},mem-path={path},share=on"
            # Its time is counted in instructions (16 ns each): by the machine's clock, a machine
            # that stands still for 20 ms would be a hang to the firmware's watchdog.
            return [
                "qemu-system-arm", "-M", "mps2-an386,memory-backend=ps", "-object", memory,
                "-icount", "shift=4", "-kernel", elf,
                "-display", "none", "-monitor", "none", "-serial", "none",
            ]  # fmt: skip

        super().__init__(board, command, QEMU_MEMORY)


def best_board(board: str) -> Lockstep:
    """The emulated Cortex-M4 where this machine has it and it keeps real time, else the library.

    An emulator is another process: where the processors are taken, each millisecond waits for it.
    """
    if all(shutil.which(tool) for tool in ("qemu-system-arm", "arm-none-eabi-gcc")):
        emulated = Qemu(board)
        if turnaround_s(emulated) <= KEEPS_UP_S:
            return emulated
        emulated.close()
    return Library(board)


def turnaround_s(board: Lockstep, turns: int = 100) -> float:
    """How long a millisecond of firmware takes that comes when it is due: 9 of 10 take less."""
    taken = []
    for _ in range(turns):
        time.sleep(0.001)
        begun = time.perf_counter()
        board.turn()
        taken.append(time.perf_counter() - begun)
    return sorted(taken)[turns * 9 // 10]


class Line:
    """A wire between a Unix socket and the window's rings, moved along once a millisecond.

    As on a wire, what nobody takes is lost; one peer at a time, the newest counts.
    """

    def __init__(self, window: Window, path: Path | None = None) -> None:
        """path: of the socket; a left-over one there is replaced. None: in a folder of its own."""
        self._window = window
        # A short path: a Unix socket's may have 107 characters only.
        self.path = path or Path(tempfile.mkdtemp(prefix="edge-wm-")) / "line"
        self._own_folder = path is None
        if path is not None and path.is_socket():
            path.unlink()
        self._peer: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen(1)
        self._listener.setblocking(False)

    def filenos(self) -> list[int]:
        """What to wait for: a peer, and its bytes."""
        peer = [] if self._peer is None else [self._peer.fileno()]
        return [self._listener.fileno(), *peer]

    def take_in(self) -> None:
        """What the host said, to the device."""
        with contextlib.suppress(BlockingIOError):
            peer, _ = self._listener.accept()
            self._hang_up()
            peer.setblocking(False)
            self._peer = peer
        if self._peer is None:
            return
        try:
            data = self._peer.recv(2048)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._hang_up()
        self._window.to_device.put(data)

    def give_out(self) -> None:
        """What the device said, to the host."""
        data = self._window.to_host.take()
        if self._peer is None or not data:
            return
        try:
            self._peer.send(data)
        except BlockingIOError:
            pass  # the host does not read: lost
        except OSError:
            self._hang_up()

    def close(self) -> None:
        self._hang_up()
        self._listener.close()
        if self._own_folder:
            shutil.rmtree(self.path.parent, ignore_errors=True)
        else:
            self.path.unlink(missing_ok=True)

    def _hang_up(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None


def _check(board: str) -> None:
    if board not in BOARDS:
        raise UsageError(
            f"the emulated board must be one of {', '.join(BOARDS)}, got '{board}'; correct it"
        )
