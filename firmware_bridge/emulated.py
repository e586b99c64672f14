"""The firmware itself as a process of this machine: the posix port, behind a Unix socket or a PTY.

The same C as on a board, in real time, with an ideal plant inside (for a simulated one see
lockstep.py); the process dies with its parent, and is stopped by its process id.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from edge_wm.errors import SystemTroubleError, UsageError

BOARDS = ("arm", "rover")
MCU = Path(__file__).resolve().parent / "mcu"
BUILD = MCU / "build.sh"
READY_WITHIN_S = 5.0


def build_firmware(what: str = "posix") -> Path:
    """Build a product of build.py (only what is out of date) and return its path.

    Raises: SystemTroubleError if there is no compiler, or it fails; with its last lines.
    """
    if not BUILD.is_file():
        raise SystemTroubleError(
            f"the firmware's build script {BUILD} is missing; use a checkout or a whole wheel"
        )
    if shutil.which("gcc") is None and shutil.which("cc") is None:
        raise SystemTroubleError(
            "the emulated board needs a C compiler, found none; sudo apt-get install -y gcc make"
        )
    done = subprocess.run([BUILD, what], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = "; ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise SystemTroubleError(f"the firmware does not build ({last}); run {BUILD} {what}")
    return Path(lines[-1])


class EmulatedBoard:
    """A running emulated board; a context manager. `port` is where it answers."""

    def __init__(self, board: str, *, executable: Path | None = None, pty: bool = False):
        """pty: behind a PTY, which is as slow as a serial driver, instead of a socket."""
        if board not in BOARDS:
            raise UsageError(
                f"the emulated board must be one of {', '.join(BOARDS)}, got '{board}'; correct it"
            )
        self.board = board
        executable = build_firmware() if executable is None else executable
        # A short path: a Unix socket's may have 107 characters only.
        self._folder = Path(tempfile.mkdtemp(prefix="edge-wm-"))
        self.socket = self._folder / "board"
        self.port = "" if pty else f"unix:{self.socket}"
        line = ["--pty"] if pty else ["--listen", str(self.socket)]
        command = [str(executable), "--board", board, *line]
        with open(self._folder / "log", "wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + READY_WITHIN_S
        while not self._ready():
            if self.process.poll() is not None or time.monotonic() > until:
                said = self._said()
                self.close()
                raise SystemTroubleError(
                    f"the emulated board did not start ({said or 'it said nothing'}); "
                    f"run {' '.join(command)} by hand"
                )
            time.sleep(0.005)

    def _ready(self) -> bool:
        """Does it listen? A PTY's name is the first thing that it says."""
        if self.port:
            return self.socket.exists()
        said = self._said()
        self.port = said.splitlines()[0] if said.startswith("/dev/") else ""
        return bool(self.port)

    def _said(self) -> str:
        return (self._folder / "log").read_text(errors="replace").strip()

    @property
    def pid(self) -> int:
        return self.process.pid

    def close(self) -> None:
        """End the process, by its id. May be called twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> EmulatedBoard:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
