"""The first installation on a blank board, through the board's own route: a command to be run.

A blank microcontroller answers nobody but its own ROM or a debug probe, so this page of commands is
all there is; none of them was run here (docs/not-run-here.md).
"""

from __future__ import annotations

from pathlib import Path

from edge_wm.errors import UsageError

PLUG = "hold BOOTSEL, plug the board in, let go; RPI-RP2 appears"
DFU = "BOOT0 to 3.3 V, reset; `lsusb` shows 0483:df11"
ROUTES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rp2040": (PLUG, ("picotool", "load", "--verify", "--execute", "{file}")),
    "stm32f405": (
        DFU,
        ("dfu-util", "-a", "0", "-d", "0483:df11", "-s", "0x08000000:leave", "-D", "{file}"),
    ),
    "stm32f405-openocd": (
        "a debug probe on SWDIO, SWCLK and ground",
        (
            "openocd", "-f", "interface/stlink.cfg", "-f", "target/stm32f4x.cfg",
            "-c", "program {file} verify reset exit",
        ),
    ),
    "rp2040-openocd": (
        "a debug probe on SWDIO, SWCLK and ground",
        (
            "openocd", "-f", "interface/cmsis-dap.cfg", "-f", "target/rp2040.cfg",
            "-c", "program {file} verify reset exit",
        ),
    ),
}  # fmt: skip
SUFFIXES = {"rp2040": (".uf2", ".elf"), "stm32f405": (".bin", ".dfu")}


def route(board: str, file: Path) -> tuple[str, list[str]]:
    """What to do by hand first, and the command that writes `file`.

    Raises: UsageError (no such route, no such file, or a kind of file that it does not take).
    """
    if board not in ROUTES:
        raise UsageError(
            f"the blank board must be one of {', '.join(ROUTES)}, got '{board}'; correct it"
        )
    if not file.is_file():
        raise UsageError(f"firmware {file}: there is no such file; correct the path")
    taken = SUFFIXES.get(board, (".elf",))
    if file.suffix not in taken:
        raise UsageError(
            f"firmware {file}: {board} takes {' or '.join(taken)}, got '{file.suffix}'; "
            "make it by `edge-wm firmware build`, and objcopy or picotool"
        )
    first, command = ROUTES[board]
    return first, [part.format(file=file) for part in command]
