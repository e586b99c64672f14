"""One board, one image: from what is there to what comes, or back.

    look ─► check ─► disarm ─► upload ─► read back ─► trial ─► check-up ─► confirm
             │                   │ lost: again,         │          │
             ▼ refused:          │ where it stood       └──────────┴─► taken back, with the reason
               nothing written   └─► failed: the old image runs

`install` returns a Receipt for an end that the board stands behind (confirmed, there
already, taken back) and raises what keeps it from that. The invariant: confirm is asked for
in one place, after the new image has said its own hash in HELLO and measured for a while
without a fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_wm.errors import DeviceRefusal, EdgeWmError, LinkError
from edge_wm.modes import LATCHED, Mode
from edge_wm.reasons import EXPLANATIONS
from firmware_bridge.flashing.boards import Board, look
from firmware_bridge.flashing.image import SignedImage
from firmware_bridge.flashing.keys import FirmwareKey
from firmware_bridge.flashing.smp import Updater
from firmware_bridge.messages import Identity, Status
from firmware_bridge.session import Session, reason_of

START_WITHIN_S = 120.0  # a reset, a swap, a trial that ends by itself, and the swap back
HELLO_TRIES = 3
ALL_VALID = 7  # position, current, temperature: AxisStatus.flags
SETTLE_RESETS = 3

Result = Literal["confirmed", "there already", "taken back", "refused", "failed"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one board; for the office."""

    port: str
    serial: str
    hardware: str
    developer_board: bool
    result: Result
    reason: str  # "" if confirmed
    old_version: str
    old_hash: str
    version: str
    hash: str
    counter: int | None
    key: str
    developer_key: bool
    bytes: int
    upload_s: float
    retries: int
    resumed_at: tuple[int, ...]  # offsets at which the upload went on after it had been lost
    seconds: float


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who is told: of each step, of bytes of the upload, and of every retry (for the log)."""

    step: Callable[[str], None] = lambda _: None
    uploaded: Callable[[int], None] = lambda _: None
    detail: Callable[[str], None] = lambda _: None


class TrialFailed(EdgeWmError):
    """The new image runs and must not stay: the message says why."""


def install(
    port: str,
    baud: int,
    image: SignedImage,
    keys: Sequence[FirmwareKey],
    watcher: Watcher,
    check_s: float = 3.0,
) -> Receipt:
    """Bring `image` onto the board at `port`; see the head of this file.

    check_s: how long the new image's telemetry is watched before it is confirmed, s.
    Raises: TrustError, MismatchError (before anything is written), DeviceRefusal, LinkError.
    """
    begun = time.monotonic()
    key = image.signer(keys)
    with Updater(port, baud, watcher.detail) as updater:
        disarm(updater, watcher)
        board = look(updater)
        image.check_fit(board.hardware, board.floor, board.developer, key, board.name)
        watcher.step(change(board, image, key))
        resumed, upload_s, why = list[int](), 0.0, ""
        stands = settle(updater, board, image)
        if stands == "runs":
            result: Result = "there already"
            why = "this image runs, confirmed; nothing was written"
        else:
            if stands == "elsewhere":
                resumed, upload_s = upload(updater, image, watcher)
            try:
                if stands != "on trial":
                    start_trial(updater, image, watcher)
                check_up(updater, image, check_s, watcher)
                updater.confirm(image.digest)
                result = "confirmed"
            except (TrialFailed, LinkError, DeviceRefusal) as trouble:
                why = take_back(updater, image, str(trouble), watcher)
                result = "taken back"
        old = board.running
        return Receipt(
            port=port,
            serial=board.serial,
            hardware=board.hardware,
            developer_board=board.developer,
            result=result,
            reason=why,
            old_version=old.version if old else "",
            old_hash=old.hash if old else "",
            version=image.version,
            hash=image.digest.hex(),
            counter=image.counter,
            key=key.name,
            developer_key=key.developer,
            bytes=len(image.data),
            upload_s=round(upload_s, 3),
            retries=updater.retries,
            resumed_at=tuple(resumed),
            seconds=round(time.monotonic() - begun, 3),
        )


def change(board: Board, image: SignedImage, key: FirmwareKey) -> str:
    """What is there, and what comes, in one line."""
    old = board.running
    there = f"{old.version} ({old.hash[:8]})" if old else "no image"
    mark = ", DEVELOPER KEY" if key.developer else ""
    return (
        f"{board.port}: {board.hardware} {board.serial or '(bootloader only)'}{board.mark}: "
        f"{there} -> {image.version} ({image.digest.hex()[:8]}), counter {image.counter}, "
        f"key {key.name}{mark}"
    )


# ---- the steps ------------------------------------------------------------------------------
def disarm(updater: Updater, watcher: Watcher) -> None:
    """Brake and torque off, if the firmware answers and is armed. A bootloader drives nothing."""
    try:
        session = updater.session()
    except LinkError:
        return
    if session.newest_status().flags & (Status.ARMED | Status.TORQUE_ENABLED):
        watcher.step(f"{updater.port}: armed: braking, then torque off")
        session.disarm()


def settle(
    updater: Updater, board: Board, image: SignedImage
) -> Literal["runs", "on trial", "waits", "elsewhere"]:
    """Where does `image` stand on this board? Ends the trial of any other image."""
    wanted = image.digest.hex()
    slots = board.slots
    for _ in range(SETTLE_RESETS):
        running, waiting = slots.get(0), slots.get(1)
        if running and running.hash == wanted:
            return "runs" if running.confirmed else "on trial"
        if waiting and waiting.pending and waiting.hash == wanted:
            return "waits"
        if not (waiting and waiting.pending) and (running is None or running.confirmed):
            return "elsewhere"
        updater.reset()
        time.sleep(1.0)
        slots = look(updater).slots
    raise DeviceRefusal(
        f"port {updater.port}: {board.name} still tries another image after {SETTLE_RESETS} "
        "resets; switch it off and on, then flash again"
    )


def upload(updater: Updater, image: SignedImage, watcher: Watcher) -> tuple[list[int], float]:
    """Write slot 1 and read its hash back: where it was resumed, and the seconds it took."""
    begun = time.monotonic()
    watcher.step(f"{updater.port}: uploading {len(image.data)} bytes")
    resumed = updater.upload(image.data, watcher.uploaded)
    lies = updater.states().get(1)
    if lies is None or lies.hash != image.digest:
        raise DeviceRefusal(
            f"port {updater.port}: slot 1 must hold {image.digest.hex()[:16]}… after the upload, "
            f"found {lies.hash.hex()[:16] + '…' if lies else 'no image'}; flash again"
        )
    return resumed, time.monotonic() - begun


def start_trial(updater: Updater, image: SignedImage, watcher: Watcher) -> None:
    """Let the image run once, and wait until the board says that it does.

    Raises: TrialFailed if the board has taken it back meanwhile, with its words.
    """
    waiting = updater.states().get(1)
    if waiting is None or not waiting.pending:
        updater.try_next(image.digest)
    watcher.step(f"{updater.port}: trial of {image.version}")
    until = time.monotonic() + START_WITHIN_S
    updater.reset()
    while time.monotonic() < until:
        slots = updater.states(START_WITHIN_S)
        if 0 in slots and slots[0].hash == image.digest:
            return
        if 1 in slots and slots[1].pending:  # it has not heard the reset
            updater.reset()
        else:
            raise TrialFailed(f"the board took it back by itself: {last_update(updater)}")
    raise LinkError(f"port {updater.port}: the trial did not begin in {START_WITHIN_S:g} s")


def check_up(updater: Updater, image: SignedImage, check_s: float, watcher: Watcher) -> None:
    """HELLO with the new image's hash, then its telemetry for `check_s` seconds.

    Raises: TrialFailed; LinkError if it falls silent.
    """
    watcher.step(f"{updater.port}: self-test and telemetry for {check_s:g} s")
    session = greet(updater)
    identity = session.identity
    assert identity is not None
    if identity.image_sha256 != image.digest[:32]:
        raise TrialFailed(
            f"HELLO must name the new image's hash {image.digest.hex()[:16]}…, got "
            f"{identity.image_sha256.hex()[:16]}…"
        )
    first = session.newest_status()
    until = time.monotonic() + check_s
    while True:
        now = session.newest_status()
        judge(now, identity)
        if now.fault_records > first.fault_records:
            raise TrialFailed("it wrote a fault record while it was watched: edge-wm link faults")
        if time.monotonic() >= until:
            break
    if now.sampled_us <= first.sampled_us:
        raise TrialFailed("its measurements stand still")


def greet(updater: Updater) -> Session:
    """HELLO, more than once on a bad line."""
    for left in reversed(range(HELLO_TRIES)):
        try:
            return updater.session()
        except LinkError:
            if not left:
                raise
    raise AssertionError("not reached")


def judge(now: Status, identity: Identity) -> None:
    """Is one status what a healthy board at rest sends?

    Raises: TrialFailed with what is wrong.
    """
    if now.mode in LATCHED:
        reason = reason_of(now.reason)
        why = EXPLANATIONS[reason].sentence if reason else ""
        name = reason.name if reason else str(now.reason)
        raise TrialFailed(f"self-test: {Mode(now.mode).name} for {name}. {why}")
    for axis, kind in enumerate(identity.axis_kind):
        if kind != Identity.AXIS_NONE and now.axis[axis].flags & ALL_VALID != ALL_VALID:
            names = ("position", "current", "temperature")
            lacking = [
                name for bit, name in enumerate(names) if not now.axis[axis].flags >> bit & 1
            ]
            raise TrialFailed(f"self-test: axis {axis} measures no {', '.join(lacking)}")


def take_back(updater: Updater, image: SignedImage, why: str, watcher: Watcher) -> str:
    """End the trial and wait for the old image, or none; the reason, with the board's words.

    Raises: LinkError if the board does not come back.
    """
    watcher.step(f"{updater.port}: taking it back: {why}")
    until = time.monotonic() + START_WITHIN_S
    while time.monotonic() < until:
        slots = updater.states(START_WITHIN_S)
        if 0 in slots and slots[0].confirmed and slots[0].hash != image.digest:
            words = last_update(updater)
            return why if words in why else f"{why} ({words})"
        if 0 not in slots and 1 in slots and not slots[1].pending:
            return f"{why}; no image ran before, and none runs now"
        if 0 in slots and slots[0].confirmed:  # the confirmation was heard, its answer was lost
            raise LinkError(f"port {updater.port}: {why}; but {image.version} runs, confirmed")
        updater.reset()
        time.sleep(0.5)
    raise LinkError(
        f"port {updater.port}: {why}; and the old image did not come back in "
        f"{START_WITHIN_S:g} s: switch the board off and on, then edge-wm flash devices"
    )


def last_update(updater: Updater) -> str:
    """The board's words on its last update."""
    return updater.information().partition("last update: ")[2]
