"""Build a board's firmware and sign it, by imgtool; keys never lie in the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edge_wm.errors import SystemTroubleError, UsageError
from firmware_bridge.emulated import build_firmware
from firmware_bridge.flashing.keys import is_private_key

ROOT = Path(__file__).resolve().parents[2]
BOOT_BUILD = ROOT / "firmware_bridge" / "mcu" / "boot" / "build.sh"


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """How an image must be laid out for a board with edge-wm's bootloader, bytes."""

    header_size: int
    slot_size: int
    align: int


SLOTS = {"emulated-arm": SlotLayout(0x200, 0x40000, 4)}  # by hardware, as Identity names it
WITHOUT_BOOTLOADER = ("stm32f405", "rp2040")  # built whole: flash --blank
BOARDS = (*SLOTS, *WITHOUT_BOOTLOADER)


def build(board: str) -> Path:
    """Build the firmware of `board`; for a slot, what `sign` takes.

    Raises: UsageError (no such board), SystemTroubleError (no compiler, or it fails).
    """
    if board not in BOARDS:
        raise UsageError(f"the board must be one of {', '.join(BOARDS)}, got '{board}'; correct it")
    if shutil.which("arm-none-eabi-gcc") is None:
        raise SystemTroubleError(
            "building firmware needs arm-none-eabi-gcc, found none; scripts/setup.sh test installs "
            "it. To install firmware that is built and signed, no compiler is needed"
        )
    if board in WITHOUT_BOOTLOADER:
        return build_firmware(board)
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run([BOOT_BUILD, "slot.bin"], capture_output=True, text=True, env=environment)
    if done.returncode:
        last = "; ".join(done.stderr.strip().splitlines()[-3:])
        raise SystemTroubleError(f"the firmware does not build ({last}); run {BOOT_BUILD} slot.bin")
    return Path(done.stdout.split()[-1])


def sign(program: Path, key: Path, out: Path, *, hardware: str, counter: int, version: str) -> None:
    """Write the signed image of `program` to `out`.

    Raises: UsageError (a file that is missing, a key in the repository, what imgtool refuses).
    """
    if hardware not in SLOTS:
        raise UsageError(
            f"the hardware must be one of {', '.join(SLOTS)}, got '{hardware}'; correct it"
        )
    if not program.is_file():
        raise UsageError(f"program {program}: there is no such file; correct the path")
    if not is_private_key(key):
        raise UsageError(
            f"key {key} must be an Ed25519 private key in PEM; make one outside the repository by "
            "`imgtool keygen -t ed25519 -k KEY.pem`"
        )
    if key.resolve().is_relative_to(ROOT):
        raise UsageError(
            f"key {key} lies in the repository, where it would be published; move it out of {ROOT}"
        )
    layout = SLOTS[hardware]
    done = subprocess.run(
        [
            sys.executable, "-m", "imgtool.main", "sign", "--key", str(key),
            "--align", str(layout.align), "--header-size", hex(layout.header_size),
            "--slot-size", hex(layout.slot_size), "--pad-header", "--version", version,
            "--security-counter", str(counter), "--custom-tlv", "0xa0", hardware,
            str(program), str(out),
        ],
        capture_output=True,
        text=True,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise UsageError(f"imgtool does not sign {program} ({' '.join(last)}); mend that")
