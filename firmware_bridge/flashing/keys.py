"""The keys whose images may be installed: public halves, one PEM file each, in a folder.

    ~/.config/edge-wm/firmware-keys/acme-2026.pem         a key for products
    ~/.config/edge-wm/firmware-keys/bench.developer.pem   a developer's: for marked boards only

A board has keys of its own and believes nobody else; these tell a technician *before* anything is
written. The private halves lie elsewhere, and never in the repository (`imgtool keygen`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from edge_wm.bundle.signatures import config_folder
from edge_wm.errors import SystemTroubleError, TrustError, UsageError

DEVELOPER = ".developer"  # at the end of a key file's name, before .pem


@dataclass(frozen=True, slots=True)
class FirmwareKey:
    """A public key and the name of its file."""

    name: str
    public: Ed25519PublicKey

    @property
    def developer(self) -> bool:
        """Accepted by developer-marked boards only."""
        return self.name.endswith(DEVELOPER)

    def is_named_by(self, key_hash: bytes) -> bool:
        """Is `key_hash` (32 or 64 bytes) the SHA-2 of this key, as imgtool writes it?"""
        der = self.public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return key_hash in (hashlib.sha256(der).digest(), hashlib.sha512(der).digest())

    def signed(self, signature: bytes, digest: bytes) -> bool:
        """Is `signature` this key's of `digest`?"""
        try:
            self.public.verify(signature, digest)
        except InvalidSignature:
            return False
        return True


def check_installed() -> None:
    """Are the libraries of the extra `flash` here?

    Raises: SystemTroubleError.
    """
    missing = [name for name in ("smpclient", "imgtool") if find_spec(name) is None]
    if missing:
        raise SystemTroubleError(
            f"firmware needs {' and '.join(missing)}, which this Python has not; "
            "pip install 'edge-wm[flash]'"
        )


def default_folder() -> Path:
    """Where this user's firmware keys lie."""
    return config_folder() / "firmware-keys"


def load_key(path: Path) -> FirmwareKey:
    """The public key in a PEM file.

    Raises: UsageError (cannot be read), TrustError (no Ed25519 public key).
    """
    try:
        public = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UsageError(f"key file {path}: {error.strerror}; correct the path") from None
    except (ValueError, UnsupportedAlgorithm):
        public = None
    if not isinstance(public, Ed25519PublicKey):
        raise TrustError(
            f"key file {path} must hold an Ed25519 public key in PEM; make it by "
            "`imgtool getpub -k PRIVATE.pem -e pem`"
        )
    return FirmwareKey(path.stem, public)


def load_keys(folder: Path | None = None) -> tuple[FirmwareKey, ...]:
    """The keys in `folder`, or in the default one, by name.

    Raises: UsageError (no folder, or no key in it), TrustError (a file that is no key).
    """
    folder = default_folder() if folder is None else folder
    keys = tuple(load_key(path) for path in sorted(folder.glob("*.pem")))
    if not keys:
        raise UsageError(
            f"folder {folder} must hold the public keys (*.pem) whose images may be installed, "
            "found none; put the maker's key there, or name a folder by --keys"
        )
    return keys


def is_private_key(path: Path) -> bool:
    """Does `path` hold an Ed25519 private key in PEM, without a password?"""
    try:
        return hasattr(load_pem_private_key(path.read_bytes(), None), "sign")
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return False
