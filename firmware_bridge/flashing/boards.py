"""Who is there: boards found by what they answer, not by the name of their port.

The firmware answers HELLO (serial number, hardware, firmware, mark) and SMP (slots, the counter's
floor); a board whose slots hold nothing that may run answers SMP only, from its bootloader.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from edge_wm.errors import EdgeWmError, LinkError
from firmware_bridge.conversion import board_name
from firmware_bridge.flashing.smp import Updater
from firmware_bridge.messages import SCHEMA_HASH, Identity

HELLO_S = 1.5
SMP_S = 3.0
INFORMATION = re.compile(
    r"(?P<hardware>[^;]*)(?P<developer>; developer keys)?"
    r"(; counter floor (?P<floor>\d+))?; last update: (?P<last>.*)"
)


@dataclass(frozen=True, slots=True)
class Slot:
    """An image in a slot."""

    version: str
    hash: str  # hex; SMP's: of header, body and protected TLVs
    confirmed: bool
    pending: bool  # runs at the next reset


@dataclass(frozen=True, slots=True)
class Board:
    """What a board says of itself."""

    port: str
    serial: str  # "" where only the bootloader answers
    hardware: str
    firmware: str  # version; "" where only the bootloader answers, or another release
    protocol: str  # the schema's hash; "" likewise
    developer: bool  # marked: accepts a developer's keys
    floor: int | None  # images with a lower security counter are refused; None: it does not say
    last_update: str
    slots: dict[int, Slot]

    @property
    def name(self) -> str:
        """For sentences."""
        return f"board {self.serial}" if self.serial else f"the board on {self.port}"

    @property
    def running(self) -> Slot | None:
        return self.slots.get(0)

    @property
    def mark(self) -> str:
        """To be shown in every line about it."""
        return "  DEVELOPER BOARD" if self.developer else ""


def look(updater: Updater) -> Board:
    """Ask the board on `updater`'s port.

    Raises: LinkError if neither firmware nor bootloader answers; DeviceRefusal (armed).
    """
    identity: Identity | None = None
    silence = ""
    try:
        identity = updater.session(HELLO_S).identity
    except LinkError as trouble:  # only the bootloader, or the firmware of another release
        silence = str(trouble)
    try:
        said = INFORMATION.fullmatch(updater.information(SMP_S))
        slots = look_at_slots(updater)
    except LinkError:
        if identity is not None:
            raise LinkError(
                f"port {updater.port}: {board_name(identity)} answers, but not as a board that can "
                "be updated over its link; use its own route: edge-wm flash --blank"
            ) from None
        raise LinkError(silence) from None
    marks = identity.capabilities & Identity.CAPABILITY_DEVELOPER if identity else 0
    return Board(
        port=updater.port,
        serial=text(identity.serial) if identity else "",
        hardware=said["hardware"] if said else (board_name(identity) if identity else ""),
        firmware=".".join(map(str, identity.firmware_version)) if identity else "",
        protocol=f"{SCHEMA_HASH:08x}" if identity else "",
        developer=bool(marks or (said and said["developer"])),
        floor=int(said["floor"]) if said and said["floor"] else None,
        last_update=said["last"] if said else "",
        slots=slots,
    )


def look_at_slots(updater: Updater) -> dict[int, Slot]:
    """The images that lie in a board's slots."""
    return {
        number: Slot(
            image.version, (image.hash or b"").hex(), bool(image.confirmed), bool(image.pending)
        )
        for number, image in updater.states(SMP_S).items()
    }


def text(raw: bytes) -> str:
    """A serial number: its letters, or hex where it has none."""
    letters = raw.rstrip(b"\0\xff")
    return letters.decode("ascii") if letters.isalnum() else raw.hex()


def find(ports: Iterable[str], baud: int) -> tuple[list[Board], dict[str, str]]:
    """The boards on `ports`, all asked at once, and what was wrong on the other ports."""

    def ask(port: str) -> Board | EdgeWmError:
        try:
            with Updater(port, baud) as updater:
                return look(updater)
        except EdgeWmError as trouble:
            return trouble

    ports = list(ports)
    with ThreadPoolExecutor(max_workers=max(len(ports), 1)) as pool:
        answers = dict(zip(ports, pool.map(ask, ports), strict=True))
    boards = [answer for answer in answers.values() if isinstance(answer, Board)]
    silent = {port: str(said) for port, said in answers.items() if not isinstance(said, Board)}
    return boards, silent
