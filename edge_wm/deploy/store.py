"""The store: bundles by digest, and generations that say which of them runs.

    <store>/bundles/<sha256>.wmb       a bundle's bytes; the name is their digest
    <store>/generations/<number>.json  one commit: line 1 the sha256 of line 2, line 2 a record
    <store>/trial.json                 the last trial that was not committed, in the same form
    <store>/lock, <store>/running      who writes, and who runs (holding.py)

Each file is written beside its place, synced, renamed into it, and its folder synced. A
generation is written only once the bundle that it names is safe in the same way; it is never
changed afterwards. The newest readable one is active, and each names the one `below` it, to which
a start falls back and `rollback` returns.

The floor is the lowest counter that may still be activated. A commit raises it to the lower of
the new bundle's counter and that of the generation below: an old bundle cannot come back, and the
way back to what ran before stays open.

Invariant: `generations` and `floor` follow from files that passed their checksum, whatever else
lies in the folder; leftovers of a power cut are ignored, and overwritten by the next try.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from edge_wm.deploy.disk import Disk
from edge_wm.errors import BundleError, RefusedError, SystemTroubleError, UsageError

BUNDLES, GENERATIONS, TRIAL = "bundles", "generations", "trial.json"
PIECE = 1 << 20  # bytes written at once
_BUNDLE_NAME = re.compile(r"([0-9a-f]{64})\.wmb")
_GENERATION_NAME = re.compile(r"([0-9]{8})\.json")

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
Number = Annotated[int, msgspec.Meta(ge=1, le=99_999_999)]
Counter = Annotated[int, msgspec.Meta(ge=0)]


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a generation says of its bundle."""

    sha256: Digest
    name: str
    version: str
    counter: Counter  # of the manifest; 0 where it has none

    @property
    def title(self) -> str:
        return f"{self.name} {self.version} ({self.sha256[:12]})"


class Generation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One commit."""

    format: Literal["edge-wm/generation/1"] = "edge-wm/generation/1"
    number: Number
    bundle: Stored
    floor: Counter  # after this commit
    below: Number | None  # the generation to fall back to
    why: Literal["activated", "rolled back"]


class Trialed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A trial that began and was not committed."""

    format: Literal["edge-wm/trial/1"] = "edge-wm/trial/1"
    bundle: Stored
    reason: str | None  # None: it has not ended, or was cut off


Record = TypeVar("Record", Generation, Trialed)


@dataclass(frozen=True)
class Store:
    """A store on a disk. Writers hold the lock (holding.py); readers need none."""

    disk: Disk
    name: str = "store"  # for messages

    # ---- bundles ----------------------------------------------------------------------------
    def bundles(self) -> list[str]:
        """The digests of all stored bundles, in order."""
        with self._readable():
            found = [_BUNDLE_NAME.fullmatch(name) for name in self.disk.names(BUNDLES)]
        return sorted(match[1] for match in found if match)

    def put(self, data: bytes) -> str:
        """Store a bundle's bytes, safe from a power cut when this returns; gives their digest.

        Raises: SystemTroubleError.
        """
        digest = hashlib.sha256(data).hexdigest()
        with self._writable():
            self._prepare()
            if self._intact(digest):
                self.disk.sync_folder(BUNDLES)  # whoever renamed it may have been cut off
            else:
                self._write(BUNDLES, bundle_path(digest), data)
        return digest

    def require(self, digest: str) -> None:
        """Raises BundleError unless the stored bundle's bytes are those of its digest."""
        if not self._intact(digest):
            raise BundleError(
                f"{self.name}: bundle {digest[:12]} is missing or damaged on this disk; install it "
                "again: edge-wm deploy install FILE"
            )

    def _intact(self, digest: str) -> bool:
        try:
            return hashlib.sha256(self.disk.read(bundle_path(digest))).hexdigest() == digest
        except OSError:
            return False

    def remove(self, digest: str) -> None:
        """Take a bundle off the disk.

        Raises: UsageError (not stored), RefusedError (a start may need it), SystemTroubleError.
        """
        if digest not in self.bundles():
            raise UsageError(f"{self.name}: no bundle {digest[:12]}; see edge-wm deploy list")
        for generation in self.chain()[:2]:
            if generation.bundle.sha256 == digest:
                raise RefusedError(
                    f"{self.name}: {generation.bundle.title} is what generation "
                    f"{generation.number} starts, which is active or the next to fall back to; "
                    "activate another bundle first"
                )
        with self._writable():
            self.disk.remove(bundle_path(digest))
            self.disk.sync_folder(BUNDLES)

    # ---- generations ------------------------------------------------------------------------
    def generations(self) -> tuple[list[Generation], list[str]]:
        """Those that can be read, newest first; and what is wrong with the others."""
        good: list[Generation] = []
        bad: list[str] = []
        with self._readable():
            names = sorted(self.disk.names(GENERATIONS), reverse=True)
        for name in names:
            match = _GENERATION_NAME.fullmatch(name)
            if not match:
                continue
            generation = self._read(f"{GENERATIONS}/{name}", Generation)
            if generation is None or generation.number != int(match[1]):
                bad.append(f"generation {int(match[1])}: its record is damaged on this disk")
            else:
                good.append(generation)
        return good, bad

    @property
    def floor(self) -> int:
        """The lowest counter that may be activated."""
        return max((generation.floor for generation in self.generations()[0]), default=0)

    def chain(self) -> list[Generation]:
        """The active generation, then what a start falls back to, in order; none below the floor.

        Where a record is damaged, the next older one takes its place.
        """
        found, _ = self.generations()
        by_number = {generation.number: generation for generation in found}
        floor = max((generation.floor for generation in found), default=0)
        chain: list[Generation] = []
        wanted = found[0].number if found else None
        while wanted is not None:
            number = max((n for n in by_number if n <= wanted), default=None)
            if number is None or (chain and number >= chain[-1].number):
                break
            generation = by_number[number]
            if generation.bundle.counter >= floor:
                chain.append(generation)
            wanted = generation.below
        return chain

    def require_floor(self, bundle: Stored) -> None:
        """Raises RefusedError if the bundle's counter is below the floor."""
        if bundle.counter < (floor := self.floor):
            raise RefusedError(
                f"{self.name}: {bundle.title} has counter {bundle.counter}, and this robot accepts "
                f"{floor} or more since a newer one was committed; use a newer bundle"
            )

    def commit(self, bundle: Stored) -> Generation:
        """Make a stored bundle the active one; safe from a power cut when this returns.

        Raises: BundleError (its bytes are not there), RefusedError (floor), SystemTroubleError.
        """
        active = next(iter(self.chain()), None)
        if active is None:
            return self._switch(bundle, bundle.counter, None, "activated")
        floor = min(bundle.counter, active.bundle.counter)
        return self._switch(bundle, floor, active.number, "activated")

    def return_to(self, earlier: Generation) -> Generation:
        """Make what an earlier generation started active again. Raises: as `commit`."""
        return self._switch(earlier.bundle, 0, earlier.below, "rolled back")

    def _switch(
        self,
        bundle: Stored,
        floor: int,
        below: int | None,
        why: Literal["activated", "rolled back"],
    ) -> Generation:
        self.require_floor(bundle)
        self.require(bundle.sha256)
        if below is None:  # nothing ran before: nothing may be lost by raising the floor
            floor = 0
        with self._writable():
            self._prepare()
            self.disk.sync_folder(BUNDLES)
            taken = [_GENERATION_NAME.fullmatch(name) for name in self.disk.names(GENERATIONS)]
            generation = Generation(
                number=1 + max((int(match[1]) for match in taken if match), default=0),
                bundle=bundle,
                floor=max(self.floor, floor),
                below=below,
                why=why,
            )
            self._write(
                GENERATIONS, f"{GENERATIONS}/{generation.number:08}.json", _spelled(generation)
            )
        return generation

    # ---- trials -----------------------------------------------------------------------------
    def trialed(self) -> Trialed | None:
        """The last trial, if it was not committed."""
        trialed = self._read(TRIAL, Trialed)
        active = next(iter(self.chain()), None)
        if trialed is None or trialed.reason is not None or active is None:
            return trialed
        # It passed, and the power went after the commit.
        return None if trialed.bundle == active.bundle else trialed

    def note_trial(self, trialed: Trialed) -> None:
        """Keep that a trial began, or why it was rolled back. Raises: SystemTroubleError."""
        with self._writable():
            self._prepare()
            self._write("", TRIAL, _spelled(trialed))

    def forget_trial(self) -> None:
        """After its commit. Raises: SystemTroubleError."""
        with self._writable():
            self.disk.remove(TRIAL)
            self.disk.sync_folder("")

    def pin(self, path: str, data: bytes) -> None:
        """Keep a file of another room in this store, written as safely. Raises: as `put`."""
        folder = path.rpartition("/")[0]
        with self._writable():
            self.disk.make_folder(folder)
            self.disk.sync_folder("")
            self._write(folder, path, data)

    # ---- steps ------------------------------------------------------------------------------
    def _prepare(self) -> None:
        for folder in (BUNDLES, GENERATIONS):
            self.disk.make_folder(folder)
        self.disk.sync_folder("")

    def _write(self, folder: str, path: str, data: bytes) -> None:
        """The whole file or none of it, and safe when this returns."""
        part = f"{path}.part"
        self.disk.remove(part)  # of a try that was cut off
        try:
            view = memoryview(data)
            for start in range(0, len(data), PIECE):
                self.disk.append(part, view[start : start + PIECE])
            self.disk.sync(part)
            self.disk.rename(part, path)
            self.disk.sync_folder(folder)
        except OSError:
            with contextlib.suppress(OSError):
                self.disk.remove(part)
            raise

    def _read(self, path: str, kind: type[Record]) -> Record | None:
        """A record that passes its checksum; None if there is none."""
        try:
            digest, _, line = self.disk.read(path).partition(b"\n")
            if hashlib.sha256(line).hexdigest().encode() != digest:
                return None
            return msgspec.json.decode(line, type=kind)
        except (OSError, ValueError):  # msgspec's errors are ValueErrors
            return None

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        """The one door by which a disk's trouble comes in while writing."""
        try:
            yield
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0, "mend the disk and try again")
            raise SystemTroubleError(
                f"{self.name}: cannot write: {error.strerror or error}; the active bundle is what "
                f"it was; {advice}"
            ) from None

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise SystemTroubleError(
                f"{self.name}: cannot read: {error.strerror or error}; mend the disk, or name "
                "another store with --store"
            ) from None


_ADVICE: dict[int, str] = {
    errno.ENOSPC: "make room (edge-wm deploy remove BUNDLE) and try again",
    errno.EDQUOT: "make room (edge-wm deploy remove BUNDLE) and try again",
    errno.EROFS: "the disk is read-only: mount it writable and try again",
    errno.EACCES: "take an account that may write there",
}


def _spelled(record: Any) -> bytes:
    line = msgspec.json.encode(record)
    return hashlib.sha256(line).hexdigest().encode() + b"\n" + line


def bundle_path(digest: str) -> str:
    """Where a bundle lies inside its store."""
    return f"{BUNDLES}/{digest}.wmb"


def default_folder() -> Path:
    """$XDG_DATA_HOME/edge-wm/store, or ~/.local/share/edge-wm/store."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "edge-wm" / "store"
