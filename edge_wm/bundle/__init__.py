"""The bundle: a world model as one signed file that either is exactly right or is refused.

A robot runs what this file says, so a bundle is opened in one order, each step trusting only
the ones before it:

    container   magic, version, lengths                          container.py
    signature   by a known key, with the scope `model`           signatures.py
    manifest    known format, every field right and consistent   manifest.py
    blobs       each with its digest, none missing, none left    container.py
    graphs      small enough, closed operators, as declared      structure.py

Only then does `open_bundle` return, and only what it returned may be given to an inference
library. Invariant: a `Bundle` was verified whole and its bytes cannot change any more.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from edge_wm.bundle.container import (
    MAX_FILE,
    blobs_in,
    pieces,
    read_file,
    split,
    write_atomically,
)
from edge_wm.bundle.fit import check_fit
from edge_wm.bundle.manifest import (
    BlobEntry,
    Function,
    Input,
    Manifest,
    Output,
    ReferenceCase,
    batch_of,
    digests,
    manifest_from,
    parse_manifest,
)
from edge_wm.bundle.signatures import (
    SigningKey,
    Trust,
    TrustedKey,
    developer_key,
    load_signing_key,
    load_trust,
    open_envelope,
    require,
    seal,
    signed_by,
)
from edge_wm.bundle.structure import check_graph
from edge_wm.errors import BundleError

__all__ = [
    "Bundle",
    "Function",
    "Manifest",
    "ReferenceCase",
    "SigningKey",
    "Trust",
    "TrustedKey",
    "check_fit",
    "developer_key",
    "examine_bundle",
    "load_signing_key",
    "load_trust",
    "open_bundle",
    "sign_bundle",
    "write_bundle",
]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. Made by `open_bundle` and `examine_bundle` only."""

    path: Path
    sha256: str  # of the whole file, 64 hex digits
    manifest: Manifest
    signer: TrustedKey | None  # None: by a key unknown here (`examine_bundle` only)
    key_id: str  # of the key that signed, known or not
    blobs: Mapping[str, memoryview] = field(repr=False)
    payload: bytes = field(repr=False)  # the signed bytes of the manifest

    def blob(self, digest: str) -> memoryview:
        """A blob's bytes, read-only, valid as long as any reference to them."""
        return self.blobs[digest]

    @property
    def model_card(self) -> str:
        """The model card, markdown; empty if there is none."""
        digest = self.manifest.model_card
        return bytes(self.blobs[digest]).decode() if digest else ""


def open_bundle(path: str | os.PathLike[str], trust: Trust) -> Bundle:
    """Open a bundle to run it: everything is verified, including who signed it.

    Raises: UsageError (no such file), BundleError (container, manifest), TrustError (signature),
    ModelError (a graph), SystemTroubleError.
    """
    return _open(Path(path), trust, trusted=True)


def examine_bundle(path: str | os.PathLike[str], trust: Trust) -> Bundle:
    """Open a bundle to look at it or to sign it, never to run it: its signer may be unknown.

    All else is verified as in `open_bundle`. Raises as `open_bundle`.
    """
    return _open(Path(path), trust, trusted=False)


def _open(path: Path, trust: Trust, trusted: bool) -> Bundle:
    where = f"bundle {path.name}"
    data = read_file(path, MAX_FILE)
    envelope_bytes = split(data, where)
    envelope = open_envelope(envelope_bytes, where)
    signer = signed_by(envelope, trust, where)
    if trusted:
        signer = require(signer, envelope, trust, "model", where)
    manifest = parse_manifest(envelope.payload, where)
    blobs = blobs_in(data, len(envelope_bytes), manifest.blobs, where)
    _check_content(manifest, blobs, where)
    (key_id,) = envelope.signatures
    sha256 = hashlib.sha256(data).hexdigest()
    return Bundle(path, sha256, manifest, signer, key_id, blobs, envelope.payload)


def _check_content(manifest: Manifest, blobs: Mapping[str, bytes | memoryview], where: str) -> None:
    """The manifest against the blobs: none missing, none unused, each what it is said to be."""
    named = digests(manifest)
    for digest in sorted(named - set(blobs)):
        raise BundleError(f"{where}: the manifest refers to blob {digest[:16]}, which is not there")
    for digest in sorted(set(blobs) - named):
        raise BundleError(f"{where}: blob {digest[:16]} is there, but the manifest never uses it")
    if manifest.model_card:
        try:
            bytes(blobs[manifest.model_card]).decode()
        except UnicodeDecodeError as error:
            raise BundleError(f"{where}: the model card must be UTF-8 text: {error}") from None
    for number, case in enumerate(manifest.reference):
        _check_reference(manifest, case, blobs, f"{where}: manifest.reference[{number}]")
    for name, function in manifest.functions.items():
        for kind, digest in function.graphs.items():
            check_graph(kind, blobs[digest], manifest, name, f"{where}: {name}.{kind}")


def _check_reference(
    manifest: Manifest, case: ReferenceCase, blobs: Mapping[str, bytes | memoryview], at: str
) -> None:
    function = manifest.functions[case.function]
    batches = set()
    tensors: Sequence[Input | Output] = (*function.inputs, *function.outputs)
    for tensor in tensors:
        digest = (case.inputs | case.outputs)[tensor.tensor]
        size = len(blobs[digest])
        batch = batch_of(tensor.shape, size, tensor.dtype)
        if batch is None:
            raise BundleError(
                f"{at}.{tensor.tensor} must fill {tensor.dtype} {list(tensor.shape)}, "
                f"got {size} bytes"
            )
        if tensor.shape[:1] == (-1,):
            batches.add(batch)
    if len(batches) > 1:
        raise BundleError(f"{at} must have one batch size, got {sorted(batches)}")


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    blobs: Sequence[bytes | memoryview],
    key: SigningKey,
) -> None:
    """Write a bundle atomically, after the same checks that opening it will make.

    manifest: `blobs` in it is filled in here, from the blobs given.

    Raises: BundleError, ModelError (then nothing was written), SystemTroubleError.
    """
    path = Path(path)
    by_digest = {hashlib.sha256(blob).hexdigest(): blob for blob in blobs}
    entries = tuple(BlobEntry(digest=d, size=len(by_digest[d])) for d in sorted(by_digest))
    where = f"bundle {path.name}"
    manifest = msgspec.structs.replace(manifest, blobs=entries)
    manifest = manifest_from(msgspec.to_builtins(manifest), where)
    _check_content(manifest, by_digest, where)
    envelope = seal(msgspec.json.encode(manifest), key)
    write_atomically(path, pieces(envelope, by_digest))


def sign_bundle(bundle: Bundle, path: str | os.PathLike[str], key: SigningKey) -> None:
    """Write `bundle` to `path` with `key`'s signature in place of its own; all else unchanged.

    Raises: SystemTroubleError.
    """
    write_atomically(Path(path), pieces(seal(bundle.payload, key), bundle.blobs))
