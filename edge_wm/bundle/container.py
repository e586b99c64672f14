"""The container: one flat file, every byte accounted for.

    offset     size  what
    0          8     magic  89 57 4D 42 0D 0A 1A 0A  ("\\x89WMB\\r\\n\\x1a\\n")
    8          4     container version, 1            little-endian, like every number here
    12         4     E, bytes of the envelope
    16         8     F, bytes of the whole file
    24         E     envelope: DSSE in JSON, its payload the manifest, in JSON
    24 + E     0-63  zeros, up to a multiple of 64
    ...        b0    first blob: manifest.blobs[0]   sha256(blob) is its digest, its only name
               0-63  zeros, up to a multiple of 64
    ...        bn    last blob, the last byte of the file

The magic begins with a byte above 127 and holds both line endings, as PNG's does, so a copy
in text mode is noticed. Blobs lie in ascending order of digest, without repeats, so the same
content always gives the same file. There are no paths, nothing is compressed, nothing is
executed, and alignment lets a kernel read weights in place.

Invariant: a length is compared with what is there before a byte is read by it, and the file
is read once: what was verified is what is used, whatever happens to the file afterwards.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from edge_wm.bundle.manifest import BlobEntry
from edge_wm.errors import BundleError, SystemTroubleError, UsageError

MAGIC = b"\x89WMB\r\n\x1a\n"
VERSION = 1
HEADER = struct.Struct("<8sIIQ")  # magic, container version, envelope bytes, file bytes
assert HEADER.size == 24
ALIGNMENT = 64  # a cache line; the widest vector register

# Limits: far above any model meant for a robot, far below what would trouble it.
MAX_FILE = 2 * 1024**3
MAX_ENVELOPE = 8 * 1024**2
MAX_BLOBS = 4096


def read_file(path: Path, limit: int = MAX_FILE) -> bytes:
    """The whole of a regular file of at most `limit` bytes.

    Raises: UsageError (no such file), BundleError (too large, no file), SystemTroubleError.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} must be a regular file; give the path of a .wmb file")
            if status.st_size > limit:
                raise BundleError(
                    f"bundle {path.name} must have at most {limit} bytes, got {status.st_size}"
                )
            return file.read(limit)
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}; check the path") from None
    except OSError as error:
        raise SystemTroubleError(f"cannot read {path}: {error.strerror}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    """Open without waiting for a writer, should the path be a pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def split(data: bytes, where: str) -> memoryview:
    """Check the header of the container in `data`; returns the envelope.

    Raises: BundleError.
    """
    anew = "copy the bundle again in binary mode, or build it anew"
    if len(data) < HEADER.size:
        raise BundleError(
            f"{where}: the header must have {HEADER.size} bytes, the file has {len(data)}; {anew}"
        )
    magic, version, envelope_size, file_size = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BundleError(f"{where}: not a bundle: must begin with {MAGIC!r}, got {magic!r}")
    if version != VERSION:
        raise BundleError(
            f"{where}: container version must be {VERSION}, got {version}; "
            "use an edge-wm that knows this version, or build the bundle anew"
        )
    if file_size != len(data):
        raise BundleError(
            f"{where}: the header says {file_size} bytes, the file has {len(data)}; {anew}"
        )
    room = min(MAX_ENVELOPE, len(data) - HEADER.size)
    if not 0 < envelope_size <= room:
        raise BundleError(
            f"{where}: the envelope must have at least 1 byte and at most the {room} there is "
            f"room for, the header says {envelope_size}; {anew}"
        )
    return memoryview(data)[HEADER.size : HEADER.size + envelope_size]


def blobs_in(
    data: bytes, envelope_size: int, entries: tuple[BlobEntry, ...], where: str
) -> dict[str, memoryview]:
    """The blobs behind the envelope by digest, each verified; nothing else may be there.

    Raises: BundleError.
    """
    if len(entries) > MAX_BLOBS:
        raise BundleError(
            f"{where}: manifest.blobs must be at most {MAX_BLOBS}, got {len(entries)}"
        )
    view, end, previous = memoryview(data), HEADER.size + envelope_size, ""
    blobs = {}
    for number, entry in enumerate(entries):
        at = f"{where}: manifest.blobs[{number}]"
        if entry.digest <= previous:
            raise BundleError(f"{at}.digest must be above the one before it; build it anew")
        start = _aligned(end)
        if not 0 < entry.size <= len(data) - start:
            raise BundleError(
                f"{at}.size must be 1 to {max(0, len(data) - start)}, the bytes left in the file, "
                f"got {entry.size}"
            )
        if any(view[end:start]):
            raise BundleError(f"{at}: the padding before it, bytes {end} to {start}, must be zero")
        end, previous = start + entry.size, entry.digest
        blobs[entry.digest] = view[start:end]
        found = hashlib.sha256(view[start:end]).hexdigest()
        if found != entry.digest:
            raise BundleError(
                f"{at}: sha256 must be {entry.digest}, got {found}; the file was damaged or "
                "tampered with: get it again"
            )
    if end != len(data):
        raise BundleError(
            f"{where}: the last blob ends at byte {end}, but the file has {len(data)}; "
            "nothing may follow: get the bundle again"
        )
    return blobs


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def pieces(
    envelope: bytes, blobs: Mapping[str, bytes | memoryview]
) -> Iterator[bytes | memoryview]:
    """The bytes of the container, piece by piece."""
    ordered = [blobs[digest] for digest in sorted(blobs)]
    end = HEADER.size + len(envelope)
    for blob in ordered:
        end = _aligned(end) + len(blob)
    if len(envelope) > MAX_ENVELOPE or end > MAX_FILE or len(ordered) > MAX_BLOBS:
        raise BundleError(
            f"a bundle must have at most {MAX_FILE} bytes, {MAX_ENVELOPE} of them envelope, and "
            f"{MAX_BLOBS} blobs; got {end}, {len(envelope)} and {len(ordered)}"
        )
    yield HEADER.pack(MAGIC, VERSION, len(envelope), end)
    yield envelope
    end = HEADER.size + len(envelope)
    for blob in ordered:
        yield bytes(_aligned(end) - end)
        yield blob
        end = _aligned(end) + len(blob)


def write_atomically(path: Path, content: Iterator[bytes | memoryview], mode: int = 0o644) -> None:
    """Write a file so that `path` holds the old bytes or all the new ones, never a part.

    Raises: SystemTroubleError (disk full, permission); then `path` is untouched.
    """
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            for piece in content:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _remove(temporary)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; make room and try again" if full else ""
        raise SystemTroubleError(
            f"cannot write {path}: {error.strerror}; nothing was changed{advice}"
        ) from None
    except BaseException:  # Ctrl-C, and errors of `content`, leave nothing behind either
        _remove(temporary)
        raise


def _remove(temporary: str) -> None:
    if temporary:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def _sync_folder(folder: Path) -> None:
    """Make the rename durable against a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
