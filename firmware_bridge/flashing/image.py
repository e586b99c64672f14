"""A signed firmware image, read and checked on the host as the board will check it.

    header 32 bytes │ zeros │ body │ protected TLVs │ TLVs: digest, key's hash, signature
    └────────────────── the digest covers this ─────┘

The layout is MCUboot's, made by `imgtool`, parsed by smpclient; docs/bootloader.md lists what a
board demands. Each way to be wrong has words of its own, and none of them needs a board.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError
from smpclient.mcuboot import IMAGE_TLV, ImageInfo, MCUBootImageError

from edge_wm.errors import FormatError, MismatchError, TrustError, UsageError
from firmware_bridge.flashing.keys import FirmwareKey

HARDWARE_TLV = 0xA0  # vendor-defined, as mcu/boot/signed_image.c reads it
HASHES = {IMAGE_TLV.SHA256: hashlib.sha256, IMAGE_TLV.SHA512: hashlib.sha512}


@dataclass(frozen=True, slots=True)
class SignedImage:
    """What an image says of itself. Nothing of it is believed before `signer` has looked."""

    path: Path
    data: bytes
    version: str
    hardware: str  # "" if it does not say
    counter: int | None  # the security counter
    digest: bytes  # over header, body and protected TLVs; what SMP calls the image's hash
    key_hash: bytes
    signature: bytes

    def signer(self, keys: Sequence[FirmwareKey]) -> FirmwareKey:
        """The trusted key that signed it.

        Raises: TrustError (none did, or the signature does not hold).
        """
        where = f"image {self.path}"
        if not self.signature or not self.key_hash:
            raise TrustError(
                f"{where}: must be signed by Ed25519, found no signature; sign it by "
                "`edge-wm firmware sign`, or ask its maker"
            )
        named = [key for key in keys if key.is_named_by(self.key_hash)]
        if not named:
            trusted = ", ".join(key.name for key in keys)
            raise TrustError(
                f"{where}: signed with a key that is not trusted here ({self.key_hash.hex()[:16]}"
                f"…; trusted: {trusted}); get the image from your maker again, or add the key"
            )
        if not named[0].signed(self.signature, self.digest):
            raise TrustError(
                f"{where}: the signature of key {named[0].name} is wrong; get the image again"
            )
        return named[0]

    def check_fit(self, hardware: str, floor: int | None, developer: bool, key: FirmwareKey,
                  board: str) -> None:  # fmt: skip
        """May this image, signed by `key`, run on the board named `board`?

        hardware: the board's; floor: its lowest counter, None if unknown; developer: its mark.
        Raises: MismatchError (hardware, counter), TrustError (a developer's key).
        """
        where = f"image {self.path}"
        if self.hardware != hardware:
            raise MismatchError(
                f"{where}: for hardware '{self.hardware or 'nobody says which'}', but {board} is "
                f"'{hardware}'; take the image for '{hardware}'"
            )
        if self.counter is None:
            raise MismatchError(
                f"{where}: has no security counter, which {board} demands; sign it with --counter"
            )
        if floor is not None and self.counter < floor:
            raise MismatchError(
                f"{where}: older than {board} allows (security counter {self.counter}, the board's "
                f"floor is {floor}); take a newer image"
            )
        if key.developer and not developer:
            raise TrustError(
                f"{where}: signed with the developer key {key.name}, and {board} is no developer's "
                "board; take an image that is signed for products"
            )


def read_image(path: Path) -> SignedImage:
    """Parse `path` and recompute its digest.

    Raises: UsageError (cannot be read), FormatError (no image, truncated, damaged).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"image {path}: {error.strerror}; correct the path") from None
    info = _parse(path, data)
    header = info.header
    tlvs = {tlv.header.type: tlv.value for tlv in info.tlvs}
    protected = {tlv.header.type: tlv.value for tlv in info.protected_tlvs or []}
    kind = next((kind for kind in HASHES if kind in tlvs), None)
    covered = header.hdr_size + header.img_size + header.protect_tlv_size
    if kind is None or HASHES[kind](data[:covered]).digest() != tlvs[kind]:
        found = "none" if kind is None else f"{tlvs[kind].hex()[:16]}…"
        raise FormatError(
            f"image {path}: damaged: its bytes do not give the hash that it carries ({found}); "
            "get it again"
        )
    counter = protected.get(IMAGE_TLV.SEC_CNT)
    version = header.ver
    build = f".{version.build_num}" if version.build_num else ""
    return SignedImage(
        path=path,
        data=data,
        version=f"{version.major}.{version.minor}.{version.revision}{build}",
        hardware=protected.get(HARDWARE_TLV, b"").decode("ascii", "replace"),
        counter=int.from_bytes(counter, "little") if counter is not None else None,
        digest=tlvs[kind],
        key_hash=tlvs.get(IMAGE_TLV.KEYHASH, b""),
        signature=tlvs.get(IMAGE_TLV.ED25519, b""),
    )


def _parse(path: Path, data: bytes) -> ImageInfo:
    """smpclient's reading, its complaints in our words."""
    if data[:4] != b"\x3d\xb8\xf3\x96":
        raise FormatError(
            f"image {path}: no signed firmware image (it must begin with 3db8f396, found "
            f"{data[:4].hex() or 'nothing'}); take the .signed.bin file"
        )
    if len(data) >= 32:
        header_size, protected, body = struct.unpack_from("<HHI", data, 8)
        needed = header_size + body + protected + 4
        if len(data) < needed:
            raise _truncated(path, needed, len(data))
    try:
        info = ImageInfo.load_file(str(path))
    except struct.error:
        raise _truncated(path, len(data) + 1, len(data)) from None
    except (MCUBootImageError, ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        if "TLV requires length" in first:
            raise _truncated(path, len(data) + 1, len(data)) from None
        raise FormatError(f"image {path}: damaged ({first}); get it again") from None
    end = info.header.hdr_size + info.header.img_size + info.header.protect_tlv_size
    if len(data) < end + info.tlv_info.tlv_tot:
        raise _truncated(path, end + info.tlv_info.tlv_tot, len(data))
    return info


def _truncated(path: Path, needed: int, found: int) -> FormatError:
    return FormatError(
        f"image {path}: truncated: at least {needed} bytes are needed, found {found}; get it again"
    )
