"""A small TUF repository, made with python-tuf's own metadata: an office, and a technician."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

OFFICE_ROLES = ("targets", "snapshot", "timestamp")


def signer(seed: int) -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


class Repository:
    """Root needs two of its keys, the office's roles one; `deploy/*` is the technician's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 0
        self.root_keys = [signer(1), signer(2)]
        self.office, self.technician = signer(3), signer(4)
        self.expires = datetime.now(timezone.utc) + timedelta(days=30)
        self.listed: dict[str, TargetFile] = {}
        (folder / "metadata").mkdir(parents=True)
        (folder / "targets" / "deploy").mkdir(parents=True)
        self.root_version = 0
        self.write_root(self.root_keys)

    def write_root(self, signers: list[CryptoSigner]) -> None:
        """A new version of root with the present `root_keys` and `office`, signed by `signers`."""
        self.root_version += 1
        root = Root(version=self.root_version, expires=self.expires, consistent_snapshot=True)
        for key in self.root_keys:
            root.add_key(key.public_key, "root")
        root.roles["root"].threshold = 2
        for role in OFFICE_ROLES:
            root.add_key(self.office.public_key, role)
        self._write(f"{self.root_version}.root", Metadata(root), signers)

    def list(self, path: str, data: bytes, *, lie: bool = False) -> None:
        """List a target for the next `publish`; `lie`: other bytes than those listed."""
        self.listed[path] = TargetFile.from_data(path, data, ["sha256"])
        folder, _, name = path.rpartition("/")
        file = self.folder / "targets" / folder / f"{hashlib.sha256(data).hexdigest()}.{name}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data[:-1] + b"!" if lie else data)

    def publish(self) -> None:
        self.version += 1
        v, expires = self.version, self.expires
        technician = Targets(version=v, expires=expires, targets=self.listed)
        self._write(f"{v}.technician", Metadata(technician), [self.technician])
        key = self.technician.public_key
        role = DelegatedRole("technician", [key.keyid], 1, True, paths=["deploy/*"])
        targets = Targets(
            version=v,
            expires=expires,
            delegations=Delegations({key.keyid: key}, {"technician": role}),
        )
        self._write(f"{v}.targets", Metadata(targets), [self.office])
        meta = {"targets.json": MetaFile(v), "technician.json": MetaFile(v)}
        self._write(
            f"{v}.snapshot", Metadata(Snapshot(v, expires=expires, meta=meta)), [self.office]
        )
        timestamp = Timestamp(v, expires=expires, snapshot_meta=MetaFile(v))
        self._write("timestamp", Metadata(timestamp), [self.office])

    def _write(self, name: str, metadata: Metadata, signers: list[CryptoSigner]) -> None:  # type: ignore[type-arg]
        for number, key in enumerate(signers):
            metadata.sign(key, append=number > 0)
        metadata.to_file(str(self.folder / "metadata" / f"{name}.json"))
