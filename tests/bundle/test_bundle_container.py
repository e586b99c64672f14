"""The bundle's container: its bytes, and that every other byte is refused."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import random
import struct
from pathlib import Path

import pytest

import edge_wm.bundle
from bundle import tiny
from bundle.conftest import Written
from edge_wm.bundle import container as container_module
from edge_wm.bundle import examine_bundle, open_bundle, sign_bundle, write_bundle
from edge_wm.bundle.manifest import manifest_from
from edge_wm.errors import BundleError, EdgeWmError, SystemTroubleError, TrustError, UsageError

GOLDEN = Path(__file__).parent / "golden" / "tiny.wmb"


def test_the_golden_bundle_is_written_byte_for_byte(written: Written) -> None:
    # golden/README.md says how the file was made; a change here is a change of the format
    assert written.data == GOLDEN.read_bytes()


def test_the_bytes_are_as_docs_bundle_md_draws_them(written: Written) -> None:
    data = written.data
    magic, version, envelope_size, file_size = struct.unpack_from("<8sIIQ", data)
    assert (magic, version, file_size) == (b"\x89WMB\r\n\x1a\n", 1, len(data))
    envelope = json.loads(data[24 : 24 + envelope_size])
    manifest = json.loads(base64.b64decode(envelope["payload"]))
    assert envelope["payloadType"] == "application/vnd.edge-wm.manifest.v1+json"
    end = 24 + envelope_size
    for blob in manifest["blobs"]:
        start = -(-end // 64) * 64
        assert data[end:start] == bytes(start - end)
        end = start + blob["size"]
        assert hashlib.sha256(data[start:end]).hexdigest() == blob["digest"]
    assert end == len(data)


def test_the_signature_is_dsse_and_ed25519(written: Written) -> None:
    # verified with nothing of edge-wm and nothing of securesystemslib
    (size,) = struct.unpack_from("<I", written.data, 12)
    envelope = json.loads(written.data[24 : 24 + size])
    payload, kind = base64.b64decode(envelope["payload"]), envelope["payloadType"].encode()
    message = b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
    (signature,) = envelope["signatures"]
    public = written.key.signer._private_key.public_key()
    public.verify(base64.b64decode(signature["sig"]), message)


def test_round_trip(written: Written) -> None:
    document, blobs = tiny.document()
    bundle = open_bundle(written.path, written.trust)
    assert {bytes(b) for b in bundle.blobs.values()} == set(blobs)
    assert bundle.manifest.functions == manifest_from(document, "tiny").functions
    assert bundle.sha256 == hashlib.sha256(written.data).hexdigest()
    assert bundle.model_card == "# Tiny\n\nA point on a line.\n"
    assert bundle.signer is not None
    assert bundle.signer.name == "key 1"
    for digest, blob in bundle.blobs.items():
        assert bundle.blob(digest) is blob
        assert blob.readonly


def test_signing_again_changes_the_envelope_only(written: Written, tmp_path: Path) -> None:
    bundle = examine_bundle(written.path, written.trust)
    sign_bundle(bundle, tmp_path / "again.wmb", written.key)
    assert (tmp_path / "again.wmb").read_bytes() == written.data


def refused(data: bytes, written: Written) -> EdgeWmError:
    """How `data` is refused, as if it had been read from a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_wm.bundle, "read_file", lambda path, limit: data)
        with pytest.raises(EdgeWmError) as caught:
            open_bundle("changed.wmb", written.trust)
    return caught.value


def test_every_flipped_byte_of_header_and_envelope_is_refused(written: Written) -> None:
    data = written.data
    (size,) = struct.unpack_from("<I", data, 12)
    rng = random.Random(1)
    for at in range(24 + size):
        changed = bytearray(data)
        changed[at] ^= 1 << rng.randrange(8)
        error = refused(bytes(changed), written)
        assert isinstance(error, BundleError | TrustError), (at, error)


def test_flipped_bytes_of_blobs_and_padding_are_refused(written: Written) -> None:
    data = written.data
    (size,) = struct.unpack_from("<I", data, 12)
    for at in range(24 + size, len(data), 5):
        changed = bytearray(data)
        changed[at] ^= 0x10
        error = refused(bytes(changed), written)
        assert isinstance(error, BundleError), (at, error)


def test_cut_off_anywhere_is_refused(written: Written) -> None:
    data = written.data
    for length in [*range(0, 64), *range(64, len(data), 17)]:
        assert isinstance(refused(data[:length], written), BundleError)
        # also where the header was mended to say so
        if length >= 24:
            mended = data[:16] + struct.pack("<Q", length) + data[24:length]
            assert isinstance(refused(mended, written), BundleError | TrustError)


def test_something_behind_the_last_blob_is_refused(written: Written) -> None:
    data = written.data + b"\0"
    mended = data[:16] + struct.pack("<Q", len(data)) + data[24:]
    assert str(refused(mended, written)) == (
        f"bundle changed.wmb: the last blob ends at byte {len(data) - 1}, but the file has "
        f"{len(data)}; nothing may follow: get the bundle again"
    )


def test_a_missing_file_a_folder_and_a_pipe(written: Written, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        open_bundle(tmp_path / "none.wmb", written.trust)
    with pytest.raises((SystemTroubleError, BundleError)):
        open_bundle(tmp_path, written.trust)
    os.mkfifo(tmp_path / "pipe.wmb")
    with pytest.raises(BundleError, match="must be a regular file"):
        open_bundle(tmp_path / "pipe.wmb", written.trust)


def test_a_file_above_the_limit_is_not_read(written: Written) -> None:
    path = written.path.with_name("huge.wmb")
    with path.open("wb") as file:
        file.truncate(2 * 1024**3 + 1)  # sparse: takes no room
    with pytest.raises(BundleError, match="must have at most 2147483648 bytes, got 2147483649"):
        open_bundle(path, written.trust)


# ---- writing ----------------------------------------------------------------------------
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"),
                                     KeyboardInterrupt()])  # fmt: skip
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_nothing_half_written(
    written: Written, monkeypatch: pytest.MonkeyPatch, failure: BaseException, call: str
) -> None:
    before = written.data
    document, blobs = tiny.document()
    document["version"] = "2.0.0"
    manifest = manifest_from(document, "tiny")

    def fail(*_: object) -> None:
        raise failure

    if call == "write":
        monkeypatch.setattr(container_module, "HEADER", Failing(fail))
    else:
        monkeypatch.setattr(os, call, fail)
    expected = KeyboardInterrupt if isinstance(failure, KeyboardInterrupt) else SystemTroubleError
    with pytest.raises(expected) as caught:
        write_bundle(written.path, manifest, blobs, written.key)
    monkeypatch.undo()
    assert written.data == before
    assert [p.name for p in written.path.parent.glob("*.wmb*")] == ["tiny.wmb"]
    assert not list(written.path.parent.glob(".tiny.wmb*"))
    if expected is SystemTroubleError:
        assert str(caught.value) == (
            f"cannot write {written.path}: No space left on device; nothing was changed; "
            "make room and try again"
        )


class Failing:
    """A HEADER that fails after a part of the file could have been written."""

    size = 24

    def __init__(self, fail: object) -> None:
        self.pack = fail


def test_a_folder_that_is_not_there(written: Written, tmp_path: Path) -> None:
    document, blobs = tiny.document()
    path = tmp_path / "nowhere" / "x.wmb"
    with pytest.raises(SystemTroubleError) as caught:
        write_bundle(path, manifest_from(document, "tiny"), blobs, written.key)
    assert str(caught.value) == (
        f"cannot write {path}: No such file or directory; nothing was changed"
    )
