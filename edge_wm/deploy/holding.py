"""Who holds a store: one writer at a time, and no switch under a robot that runs from it.

    <store>/lock      held alone by install, activate, rollback, remove
    <store>/running   held together by every run from the store, alone by activate and rollback

Both are advisory locks of the kernel (flock): they end with the process that holds them, however
it ends, so nothing stale is ever left. The file's text only names the holder, for the message.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from edge_wm.errors import RefusedError, SystemTroubleError


@contextlib.contextmanager
def writing(folder: Path, what: str) -> Iterator[None]:
    """Be the only one that writes to the store, which is made if it is not there.

    what: the command, for the message to whoever comes second.

    Raises: RefusedError naming the holder, SystemTroubleError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sync_parents(folder)
    except OSError as error:
        raise SystemTroubleError(
            f"store {folder} cannot be made: {error.strerror}; name another with --store"
        ) from None
    with _held(folder, "lock", fcntl.LOCK_EX, what) as other:
        if other is not None:
            raise RefusedError(
                f"store {folder} is being written to by {other}; wait until it is done"
            )
        yield


@contextlib.contextmanager
def switching(folder: Path, what: str) -> Iterator[None]:
    """Hold off every start from the store while it is switched.

    Raises: RefusedError if a robot runs from it, SystemTroubleError.
    """
    with _held(folder, "running", fcntl.LOCK_EX, what) as other:
        if other is not None:
            raise RefusedError(
                f"store {folder}: the robot runs from it ({other}), and a bundle is activated only "
                "while it is disarmed; end that run first"
            )
        yield


@contextlib.contextmanager
def running(folder: Path, what: str) -> Iterator[None]:
    """Keep the store from being switched while the robot runs from it.

    Raises: RefusedError while it is being switched.
    """
    with _held(folder, "running", fcntl.LOCK_SH, what) as other:
        if other is not None:
            raise RefusedError(
                f"store {folder} is being switched by {other}; start again when it is done"
            )
        yield


def holder(folder: Path, name: str) -> str | None:
    """Who holds "lock" or "running" in the store now, in words; None if nobody does."""
    try:
        handle = os.open(folder / name, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        return _named(handle)
    except OSError:
        return None
    finally:
        os.close(handle)


@contextlib.contextmanager
def _held(folder: Path, name: str, how: int, what: str) -> Iterator[str | None]:
    """Hold the lock and give None, or give who holds it."""
    handle, may_write = _opened(folder / name)
    if handle is None:  # no store, or a read-only one that nobody ever switched or can switch
        yield None
        return
    try:
        if not _locked(handle, how):
            yield _named(handle)
            return
        if may_write:
            with contextlib.suppress(OSError):  # a full disk: the holder stays without a name
                os.ftruncate(handle, 0)
                os.pwrite(handle, f"process {os.getpid()}, {what}".encode(), 0)
        yield None
    finally:
        os.close(handle)


def _locked(handle: int, how: int) -> bool:
    """Take the lock; a moment's patience, because `holder` takes it for an instant to ask."""
    for left in reversed(range(10)):
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if left:
                time.sleep(0.02)
    return False


def _opened(path: Path) -> tuple[int | None, bool]:
    """The lock file, and whether it may be written to; None where it cannot exist."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), True
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.ENOENT):
            raise SystemTroubleError(
                f"cannot open {path}: {error.strerror}; mend the disk, or name another store with "
                "--store"
            ) from None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
    except OSError:
        return None, False


def _named(handle: int) -> str:
    return os.pread(handle, 200, 0).decode("utf-8", "replace") or "another process"


def _sync_parents(folder: Path) -> None:
    """A store that was just made is still there after a power cut, with the folders above it."""
    for path in (folder.parent, folder.parent.parent):
        with contextlib.suppress(OSError):  # some file systems cannot, and /proc never
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
