"""The emulated board that can be updated: QEMU, its flash a file, its UART a PTY.

`SlotBoard.cut()` is SIGKILL: what the flash's file then holds is what a power cut would have left.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
import time
import tty
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from smp.exceptions import SMPBadStartDelimiter
from smpclient import SMPClient
from smpclient.generics import success
from smpclient.requests.image_management import ImageStatesRead
from smpclient.transport.serial import SMPSerialTransport

from firmware.bench_images import build
from firmware_bridge.wire import crc32c

HARDWARE = "emulated-arm"
FLASH = 0x100000  # of the file: 0x21100000 is the flash, the file begins at 0x21000000
JOURNAL, SLOT, SLOT_SIZE = (0x0000, 0x2000), (0x10000, 0x50000), 0x40000
SERIAL = 0x3000
IDLE, REQUESTED, SWAPPING, TRIAL, REVERTING = 1, 2, 3, 4, 5


def drain(port: str) -> None:
    """Drop what an ended conversation left on a PTY: smpclient would take it for an answer."""
    handle = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    try:
        tty.setraw(handle)
        until = time.monotonic() + 1.0
        while time.monotonic() < until and select.select([handle], [], [], 0.1)[0]:
            os.read(handle, 4096)
    finally:
        os.close(handle)


class SlotBoard:
    """A board with images in its slots; a context manager, started by `start`."""

    def __init__(
        self,
        public_key: bytes,
        images: tuple[Path | None, Path | None],
        *,
        serial: str = "slotboard001",
        developer: bool = False,
    ) -> None:
        if shutil.which("qemu-system-arm") is None:
            pytest.skip("qemu-system-arm is not installed (scripts/setup.sh test installs it)")
        mark = ("developer",) if developer else ()
        self.bootloader = build("bootloader.elf", public_key.hex(), *mark)
        shm = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="edge-wm-slot-", dir=shm))
        self.file = self.folder / "flash"
        with open(self.file, "wb") as file:
            file.truncate(16 << 20)
        with open(self.file, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), 16 << 20)
        self.map[FLASH : FLASH + (1 << 20)] = b"\xff" * (1 << 20)
        self.map[FLASH + SERIAL : FLASH + SERIAL + 12] = serial.encode()
        for slot, image in enumerate(images):
            if image is not None:
                data = image.read_bytes()
                self.map[FLASH + SLOT[slot] : FLASH + SLOT[slot] + len(data)] = data
        self.socket = self.folder / "uart"  # instead of a PTY, where it is wanted
        self.process: subprocess.Popen[bytes] | None = None
        self.port = ""

    # ---- power ----------------------------------------------------------------------------------
    def start(self, *, socket: bool = False) -> None:
        """Power on, its UART a PTY or a Unix socket; it dies with this process."""
        uart = f"socket,id=u0,path={self.socket},server=on,wait=off" if socket else "pty,id=u0"
        command = [
            "setpriv", "--pdeathsig", "KILL",
            "qemu-system-arm", "-M", "mps2-an386,memory-backend=ps",
            "-object", f"memory-backend-file,id=ps,size=16M,mem-path={self.file},share=on",
            "-kernel", str(self.bootloader), "-display", "none", "-monitor", "none",
            "-chardev", uart, "-serial", "chardev:u0",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        assert self.process.stdout is not None
        if socket:
            self.port = f"unix:{self.socket}"
            until = time.monotonic() + 10.0
            while not self.socket.exists():
                assert time.monotonic() < until, "QEMU does not listen"
                time.sleep(0.01)
            return
        said = self.process.stdout.readline().decode()
        found = re.search(r"redirected to (\S+)", said)
        assert found is not None, said
        self.port = found.group(1)

    def cut(self) -> None:
        """The power is cut."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def __enter__(self) -> SlotBoard:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self.map.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    # ---- what the flash holds, read from outside ----------------------------------------------
    def slot(self, which: int, size: int) -> bytes:
        return self.map[FLASH + SLOT[which] : FLASH + SLOT[which] + size]

    def journal(self) -> tuple[int, int]:
        """State and step of the newest record, by the format's table (mcu/boot/journal.h)."""
        data = self.map[FLASH + JOURNAL[0] : FLASH + JOURNAL[1]]
        newest, found = -1, (IDLE, 0)
        for at in range(0, len(data), 32):
            record = data[at : at + 32]
            sequence, state, step = struct.unpack_from("<IB3xH", record)
            if crc32c(record[:28]) == struct.unpack_from("<I", record, 28)[0] and sequence > newest:
                newest, found = sequence, (state, step)
        return found

    # ---- SMP ------------------------------------------------------------------------------------
    def smp(self, talk: Callable[[SMPClient], Awaitable[Any]]) -> Any:
        """A conversation by the unmodified smpclient."""

        async def whole() -> Any:
            drain(self.port)
            client = SMPClient(SMPSerialTransport(), self.port, timeout_s=3.0)
            await client.connect(5.0)
            try:
                return await talk(client)
            finally:
                await client.disconnect()

        return asyncio.run(whole())

    def states(self, within_s: float = 30.0) -> dict[int, Any]:
        """The images by slot; asked again until the board has started and answers."""

        async def ask(client: SMPClient) -> Any:
            return await client.request(ImageStatesRead(), timeout_s=2.0)

        until = time.monotonic() + within_s
        while True:
            try:
                answer = self.smp(ask)
                assert success(answer), answer
                return {image.slot: image for image in answer.images}
            except (TimeoutError, SMPBadStartDelimiter):  # the latter: the tail of an older answer
                assert self.process is not None
                assert self.process.poll() is None, "QEMU has ended"
                if time.monotonic() > until:
                    raise
