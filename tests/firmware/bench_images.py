"""Images for the updater's tests, made by the unmodified `imgtool`, and its simulated flash.

`Bench` keeps a folder with keys and images; `cut` lets the power fail (mcu/boot/sim/powercut.c),
`check` asks the updater's C what it thinks of images.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from imgtool.main import imgtool as command_line

ROOT = Path(__file__).resolve().parents[2]
BOOT = ROOT / "firmware_bridge" / "mcu" / "boot"
DOWNLOADS = ROOT / "build" / "downloads"
HEADER_SIZE = 0x200
HARDWARE = "bench-board"
GOOD = 0
(
    NONE, HEADER_WRONG, TOO_LARGE, TRUNCATED, TLV_WRONG, HASH_MISSING, HASH_WRONG,
    SIGNATURE_MISSING, KEY_UNKNOWN, SIGNATURE_WRONG, HARDWARE_MISSING, HARDWARE_WRONG,
    COUNTER_MISSING, COUNTER_OLD,
) = range(1, 15)  # fmt: skip


def build(what: str, *arguments: str) -> Path:
    """A product of the updater; skips where there is no compiler."""
    compiler = "arm-none-eabi-gcc" if what in ("bootloader.elf", "slot.bin") else "gcc"
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed (scripts/setup.sh test installs it)")
    if not (ROOT / "build" / "downloads" / "bearssl" / "inc" / "bearssl.h").is_file():
        pytest.skip("the updater's cryptography is not here (scripts/setup.sh test fetches it)")
    done = subprocess.run(
        [BOOT / "build.sh", what, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.split()[-1])


def imgtool(*arguments: str | Path) -> str:
    """Run imgtool's command line in this process, which saves its start; what it says."""
    done = CliRunner().invoke(command_line, [str(one) for one in arguments])
    assert done.exit_code == 0, done.output
    return done.output


@dataclass(frozen=True)
class Cuts:
    """What powercut counted."""

    operations: int
    cuts: int
    broken: int
    old: int  # lives that ended with the old image
    new: int
    first: int  # the first operation whose cut broke it
    why: str


class Bench:
    """Keys and images in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("key", "other"):
            imgtool("keygen", "-k", folder / f"{name}.pem", "-t", "ed25519")
        self.public = self.public_key("key")

    def public_key(self, name: str) -> bytes:
        """32 bytes."""
        private = serialization.load_pem_private_key(
            (self.folder / f"{name}.pem").read_bytes(), None
        )
        return private.public_key().public_bytes_raw()

    def sign(
        self,
        name: str,
        body: bytes,
        *options: str,
        key: str | None = "key",
        hardware: str | None = HARDWARE,
        counter: int | None = 5,
        version: str = "1.2.3+4",
    ) -> Path:
        """The signed image of `body`."""
        program, image = self.folder / f"{name}.bin", self.folder / f"{name}.signed.bin"
        program.write_bytes(body)
        arguments: list[str | Path] = [
            "sign", "--align", "4", "--version", version, "--header-size", hex(HEADER_SIZE),
            "--pad-header", "--slot-size", "0x400000", *options,
        ]  # fmt: skip
        if key is not None:
            arguments += ["-k", self.folder / f"{key}.pem"]
        if counter is not None:
            arguments += ["-s", str(counter)]
        if hardware is not None:
            arguments += ["--custom-tlv", "0xa0", hardware]
        imgtool(*arguments, program, image)
        return image

    def sized(self, name: str, size: int, **options) -> Path:
        """A signed image of exactly `size` bytes, of which few are erased."""
        overhead = HEADER_SIZE + 27 + 144  # protected TLVs of an 11-letter name; the others
        image = self.sign(name, random.Random(name).randbytes(size - overhead), **options)
        assert image.stat().st_size == size
        return image

    # ---- the updater ----------------------------------------------------------------------------
    def cut(
        self,
        executable: Path,
        geometry: str,
        old: Path,
        new: Path,
        *,
        journal: str = "blank",
        end: str = "silent",
        tear: int = 1,
        second: int = 1,
        seed: int = 1,
        cuts: int = 0,
    ) -> Cuts:
        """Live an update's life once for each cut."""
        done = subprocess.run(
            [executable, "cuts", self.public.hex(), HARDWARE, geometry, old, new, journal, end,
             str(tear), str(second), str(seed), str(cuts)],
            capture_output=True,
            text=True,
        )  # fmt: skip
        found = re.match(
            r"operations (\d+) cuts (\d+) broken (\d+) old (\d+) new (\d+) at (-?\d+): (.*)",
            done.stdout,
        )
        assert found is not None, done.stderr[-3000:]
        *numbers, why = found.groups()
        return Cuts(*map(int, numbers), why=why)

    def check(
        self,
        executable: Path,
        images: Iterable[bytes],
        *,
        geometry: str = "uniform",
        floor: int = 0,
        hardware: str = HARDWARE,
    ) -> list[int]:
        """An image_result for each image."""
        stream = b"".join(struct.pack("<I", len(image)) + image for image in images)
        done = subprocess.run(
            [executable, "check", self.public.hex(), hardware, geometry, str(floor)],
            input=stream,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return [int(line) for line in done.stdout.split()]
