"""The few steps that the store takes on a disk, so that a test can stop it at each of them.

A power cut leaves on a disk what was synced, and of the rest anything: all, nothing, a part.

    append     changes a file's content: kept for certain after `sync` of the file
    rename     changes two names at once, `remove` and the first `append` one: kept for certain
               after `sync_folder` of the folder they are in

Paths are relative to the store, at most one folder deep; "" is the store's own folder. All
raise OSError.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """Where a store lies: a folder, or the tests' model of one."""

    def read(self, path: str) -> bytes:
        """The whole file. Raises FileNotFoundError."""
        ...

    def names(self, folder: str) -> list[str]:
        """What is in the folder, in no order; nothing where there is no folder."""
        ...

    def make_folder(self, folder: str) -> None:
        """Make the folder if it is not there."""
        ...

    def append(self, path: str, piece: bytes | memoryview) -> None:
        """Write at the end of the file, which is made if it is not there."""
        ...

    def sync(self, path: str) -> None:
        """Return when the file's content would survive a power cut."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in place of what had that name."""
        ...

    def remove(self, path: str) -> None:
        """Take the file away, if it is there."""
        ...

    def sync_folder(self, folder: str) -> None:
        """Return when the folder's names would survive a power cut."""
        ...


class FolderDisk:
    """A real folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, path: str) -> bytes:
        return (self.folder / path).read_bytes()

    def names(self, folder: str) -> list[str]:
        try:
            return os.listdir(self.folder / folder)
        except FileNotFoundError:
            return []

    def make_folder(self, folder: str) -> None:
        (self.folder / folder).mkdir(exist_ok=True)

    def append(self, path: str, piece: bytes | memoryview) -> None:
        with open(self.folder / path, "ab", buffering=0) as file:
            rest = memoryview(piece)
            while rest:
                rest = rest[file.write(rest) :]

    def sync(self, path: str) -> None:
        _sync(self.folder / path)

    def rename(self, old: str, new: str) -> None:
        os.replace(self.folder / old, self.folder / new)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / path)

    def sync_folder(self, folder: str) -> None:
        _sync(self.folder / folder)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
