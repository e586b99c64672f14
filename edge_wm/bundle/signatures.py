"""Who may say what a robot's model is: Ed25519 keys, each with its scopes.

A bundle's manifest travels in a DSSE envelope (https://github.com/secure-systems-lab/dsse)
with exactly one signature. Three kinds of keys can have made it:

    project    shipped in edge_wm/trust/*.pub; a second file there is a second key (rotation)
    user       public keys in <config>/trust/*.pub, or in files named on the command line
    developer  made by `edge-wm bundle sign` on this machine, its private part in
               <config>/developer.key: good for simulation and developer-marked boards only

<config> is $EDGE_WM_CONFIG, or edge-wm below $XDG_CONFIG_HOME or ~/.config. A public key file:

    format: edge-wm/key/1
    name: robots of the east hall
    ed25519: 3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29
    scopes: [model]             # of model, limits, firmware, deploy

Scopes are given by whoever trusts the key, in that file; the signer cannot widen them.

Invariant: nothing behind the envelope is parsed before its signature was verified, and an
envelope has one spelling only: one that is valid, but not as `seal` writes it, is refused.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from edge_wm.bundle.container import read_file, write_atomically
from edge_wm.errors import BundleError, SystemTroubleError, TrustError, UsageError

PAYLOAD_TYPE = "application/vnd.edge-wm.manifest.v1+json"
KEY_FORMAT = "edge-wm/key/1"
MAX_KEY_FILE = 64 * 1024
PROJECT_KEYS = Path(__file__).resolve().parent.parent / "trust"

Scope = Literal["model", "limits", "firmware", "deploy"]
SCOPES: tuple[Scope, ...] = ("model", "limits", "firmware", "deploy")


@dataclass(frozen=True)
class TrustedKey:
    """A public key, with what it is trusted for."""

    name: str
    kind: Literal["project", "user", "developer"]
    scopes: frozenset[str]
    key: SSlibKey = field(repr=False)

    @property
    def key_id(self) -> str:
        """sha256 over the public key, as securesystemslib and TUF compute it; 64 hex digits."""
        return str(self.key.keyid)

    @property
    def title(self) -> str:
        """For people: kind, name, and what a developer key is good for."""
        if self.kind == "developer":
            return "developer key of this machine (simulation and developer-marked boards only)"
        return f"{self.kind} key {self.name!r}"


@dataclass(frozen=True)
class Trust:
    """The keys that this launch trusts. Made by `load_trust`."""

    keys: tuple[TrustedKey, ...]

    def find(self, key_id: str) -> TrustedKey | None:
        """The key of that id, if it is known here."""
        return next((key for key in self.keys if key.key_id == key_id), None)


@dataclass(frozen=True)
class SigningKey:
    """A private key that can sign."""

    name: str
    signer: CryptoSigner = field(repr=False)

    @property
    def key_id(self) -> str:
        return str(self.signer.public_key.keyid)


# ---- public keys ------------------------------------------------------------------------
class _KeyFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: Literal["edge-wm/key/1"]
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    ed25519: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    scopes: Annotated[tuple[Scope, ...], msgspec.Meta(min_length=1)]


def config_folder() -> Path:
    """Where this user's keys lie: $EDGE_WM_CONFIG, $XDG_CONFIG_HOME/edge-wm, ~/.config/edge-wm."""
    if own := os.environ.get("EDGE_WM_CONFIG"):
        return Path(own)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "edge-wm"


def load_public_key(path: Path, kind: Literal["project", "user"] = "user") -> TrustedKey:
    """The public key in a .pub file.

    Raises: UsageError (no such file), TrustError (not a key file; names file and field).
    """
    try:
        found = msgspec.yaml.decode(read_file(path, MAX_KEY_FILE), type=_KeyFile)
    except (msgspec.DecodeError, BundleError, UnicodeDecodeError, RecursionError) as error:
        raise TrustError(
            f"key file {path}: expected format, name, ed25519 (64 hex digits) and scopes "
            f"({', '.join(SCOPES)}), as docs/bundle.md shows: {error}"
        ) from None
    public = Ed25519PublicKey.from_public_bytes(bytes.fromhex(found.ed25519))
    return TrustedKey(found.name, kind, frozenset(found.scopes), SSlibKey.from_crypto(public))


def load_trust(extra: Sequence[str | os.PathLike[str]] = (), *, developer: bool = True) -> Trust:
    """The project's keys, this user's, those in the files `extra`, and the developer key.

    developer: False where a developer key must not be enough, that is for robots whose links
    are neither simulated nor developer-marked; a bundle signed by it is then refused by name.

    Raises: UsageError, TrustError (a file that is no key file).
    """
    own = config_folder() / "trust"
    keys = [load_public_key(path, "project") for path in sorted(PROJECT_KEYS.glob("*.pub"))]
    keys += [load_public_key(path) for path in sorted(own.glob("*.pub"))]
    keys += [load_public_key(Path(path)) for path in extra]
    secret = config_folder() / "developer.key"
    if secret.is_file():
        scopes = frozenset[str](SCOPES if developer else ())
        public = load_signing_key(secret).signer.public_key
        keys.append(TrustedKey("developer", "developer", scopes, public))
    by_id: dict[str, TrustedKey] = {}
    for key in keys:  # the same key twice has the scopes of both
        known = by_id.get(key.key_id, key)
        by_id[key.key_id] = replace(known, scopes=known.scopes | key.scopes)
    return Trust(tuple(by_id.values()))


# ---- private keys -----------------------------------------------------------------------
def load_signing_key(path: Path) -> SigningKey:
    """The Ed25519 private key in a PEM file (PKCS#8, unencrypted, readable by its owner only).

    Raises: UsageError (no such file), TrustError (another kind of key, or others may read it).
    """
    pem = read_file(path, MAX_KEY_FILE)
    if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise TrustError(f"private key {path} must be readable by you alone: chmod 600 {path}")
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(
            f"private key {path} must be an unencrypted Ed25519 key in PEM "
            f"(openssl genpkey -algorithm ed25519): {error}"
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise TrustError(
            f"private key {path} must be an Ed25519 key (openssl genpkey -algorithm ed25519), "
            f"got {type(key).__name__.lstrip('_')}"
        )
    return SigningKey(path.stem, CryptoSigner(key))


def make_signing_key(path: Path) -> SigningKey:
    """Make an Ed25519 private key at `path`, mode 0600, its folder 0700 where it is new.

    Raises: UsageError (there is one already), SystemTroubleError.
    """
    if path.exists():
        raise UsageError(f"there is a private key at {path} already; remove it or use it")
    signer = CryptoSigner.generate_ed25519()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemTroubleError(f"cannot make {path.parent}: {error.strerror}") from None
    write_atomically(path, iter([signer.private_bytes]), mode=0o600)
    return SigningKey(path.stem, signer)


def developer_key() -> SigningKey:
    """This machine's developer key; made now if there is none.

    Raises: TrustError (the file there is no private key), SystemTroubleError.
    """
    path = config_folder() / "developer.key"
    return load_signing_key(path) if path.exists() else make_signing_key(path)


def public_key_text(key: SigningKey, name: str, scopes: Sequence[Scope]) -> str:
    """The .pub file that makes others trust what `key` signs, within `scopes`."""
    raw = str(key.signer.public_key.keyval["public"])
    value = {"format": KEY_FORMAT, "name": name, "ed25519": raw, "scopes": list(scopes)}
    return msgspec.yaml.encode(msgspec.convert(value, _KeyFile)).decode()


# ---- envelopes --------------------------------------------------------------------------
class _Signature(msgspec.Struct, forbid_unknown_fields=True):
    keyid: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$", max_length=64)]
    sig: str


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    payload: str
    payload_type: str = msgspec.field(name="payloadType")
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=1)]


def seal(payload: bytes, key: SigningKey) -> bytes:
    """The signed envelope around `payload`, in its one spelling."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(key.signer)
    return _spelled(envelope)


def _spelled(envelope: Envelope) -> bytes:
    return json.dumps(envelope.to_dict(), sort_keys=True, separators=(",", ":")).encode()


def open_envelope(data: bytes | memoryview, where: str) -> Envelope:
    """The envelope in `data`, its signature not yet verified.

    Raises: BundleError.
    """
    try:
        loose = msgspec.json.decode(data, type=_Envelope)
        envelope = Envelope.from_dict(msgspec.to_builtins(loose))
    except (msgspec.DecodeError, ValueError) as error:
        raise BundleError(
            f"{where}: the envelope must be DSSE in JSON with one signature: {error}; "
            "get the bundle again"
        ) from None
    if _spelled(envelope) != bytes(data):
        raise BundleError(
            f"{where}: the envelope is not spelled as edge-wm writes it; get the bundle again"
        )
    if envelope.payload_type != PAYLOAD_TYPE:
        raise BundleError(
            f"{where}: the envelope's payloadType must be {PAYLOAD_TYPE}, "
            f"got {envelope.payload_type!r}; use an edge-wm that knows it"
        )
    return envelope


def signed_by(envelope: Envelope, trust: Trust, where: str) -> TrustedKey | None:
    """The known key that made the signature; None if its key is unknown here.

    Raises: TrustError (the signature is not by the key that it names).
    """
    (key_id,) = envelope.signatures
    known = trust.find(key_id)
    if known is None:
        return None
    try:
        envelope.verify([known.key], 1)
    except VerificationError:
        raise TrustError(
            f"{where}: the signature is not by {known.title}, which it names, or the manifest "
            "was changed after signing; get the bundle again"
        ) from None
    return known


def require(
    known: TrustedKey | None, envelope: Envelope, trust: Trust, scope: Scope, where: str
) -> TrustedKey:
    """The key that made the signature, if it is trusted for `scope`.

    Raises: TrustError.
    """
    if known is None:
        (key_id,) = envelope.signatures
        names = ", ".join(key.title for key in trust.keys) or "none"
        raise TrustError(
            f"{where}: signed by the unknown key {key_id[:16]}; trusted here: {names}; "
            f"if you trust its maker, put the public key file into {config_folder() / 'trust'} "
            "or name it with --trust FILE"
        )
    if scope not in known.scopes:
        if known.kind == "developer":
            raise TrustError(
                f"{where}: signed by the {known.title}, and this robot is neither simulated nor "
                "marked as a developer's; sign it with a trusted key: edge-wm bundle sign --key"
            )
        raise TrustError(
            f"{where}: signed by {known.title}, which is trusted for "
            f"{', '.join(sorted(known.scopes))}, not for {scope}; add the scope to its key file "
            "if you mean it"
        )
    return known
