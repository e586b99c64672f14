"""Keys, trust and a written tiny bundle for the tests of the bundle room."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from bundle import tiny
from edge_wm.bundle import SigningKey, Trust, TrustedKey, write_bundle
from edge_wm.bundle.manifest import manifest_from


def signing_key(seed: int) -> SigningKey:
    """The same key for the same number, on every run."""
    secret = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return SigningKey(f"key {seed}", CryptoSigner(secret))


def trust_in(*keys: SigningKey, scopes: tuple[str, ...] = ("model",)) -> Trust:
    return Trust(
        tuple(TrustedKey(k.name, "user", frozenset(scopes), k.signer.public_key) for k in keys)
    )


@dataclass(frozen=True)
class Written:
    path: Path
    key: SigningKey
    trust: Trust

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's config folder: empty, and nobody's real one."""
    folder = tmp_path / "config"
    monkeypatch.setenv("EDGE_WM_CONFIG", str(folder))
    return folder


@pytest.fixture
def written(tmp_path: Path) -> Written:
    key = signing_key(1)
    document, blobs = tiny.document()
    path = tmp_path / "tiny.wmb"
    write_bundle(path, manifest_from(document, "tiny"), blobs, key)
    return Written(path, key, trust_in(key))
