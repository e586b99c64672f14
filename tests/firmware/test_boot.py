"""The updater: what it accepts, and that no power cut leaves a board without an image that runs.

Images are the unmodified imgtool's; the flash is simulated (mcu/boot/sim/powercut.c says how, and
what real flash would spoil it refuses). The unsafe variants are the same sources with one thought
taken out: the simulator must see each of them fail.
"""

from __future__ import annotations

import hashlib
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from firmware.bench_images import (
    BOOT,
    COUNTER_MISSING,
    COUNTER_OLD,
    DOWNLOADS,
    GOOD,
    HARDWARE_MISSING,
    HARDWARE_WRONG,
    HASH_MISSING,
    HASH_WRONG,
    HEADER_WRONG,
    KEY_UNKNOWN,
    NONE,
    SIGNATURE_MISSING,
    SIGNATURE_WRONG,
    TLV_WRONG,
    TOO_LARGE,
    TRUNCATED,
    Bench,
    build,
    imgtool,
)

KB = 1024
SLOT = {"uniform": 64 * KB, "f405": 384 * KB, "f405-mixed": 128 * KB, "rp2040": 64 * KB}


@pytest.fixture(scope="module")
def powercut() -> Path:
    return build("powercut")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def small(bench: Bench) -> tuple[Path, Path]:
    return bench.sized("old-4", 4 * KB), bench.sized("new-4", 4 * KB)


# ---- what an image must be ----------------------------------------------------------------------
def tlv_areas(image: bytes) -> tuple[int, int]:
    """Where the protected TLVs begin, and where the others do."""
    _, _, header, protected, body = struct.unpack_from("<IIHHI", image)
    return header + body, header + body + protected


def tlvs(image: bytes) -> dict[int, tuple[int, int]]:
    """Start and size of every value, by type."""
    found = {}
    for start in tlv_areas(image):
        _, total = struct.unpack_from("<HH", image, start)
        at = start + 4
        while at < start + total:
            kind, size = struct.unpack_from("<HH", image, at)
            found[kind] = (at + 4, size)
            at += 4 + size
    return found


def test_imgtool_s_images_are_good(bench: Bench, powercut: Path) -> None:
    """And what the updater takes for digest and signature is what other hands take for it."""
    body = b"\x11" * 5000
    images = [
        bench.sign(f"good-{sha}", body, "--sha", sha).read_bytes() for sha in ("auto", "256", "512")
    ]
    assert bench.check(powercut, images) == [GOOD] * 3
    assert bench.check(powercut, images, floor=5) == [GOOD] * 3
    key = serialization.load_pem_private_key((bench.folder / "key.pem").read_bytes(), None)
    for image, kind, sha in zip(
        images[1:], (0x10, 0x12), (hashlib.sha256, hashlib.sha512), strict=True
    ):
        at = tlvs(image)
        digest = sha(image[: tlv_areas(image)[1]]).digest()
        assert image[at[kind][0] : sum(at[kind])] == digest
        key.public_key().verify(image[at[0x24][0] : sum(at[0x24])], digest)
    assert "was correctly validated" in imgtool(
        "verify", "-k", bench.folder / "key.pem", bench.folder / "good-512.signed.bin"
    )


def allowed(offset: int, image: bytes) -> set[int]:
    """What a flipped bit at `offset` may be refused for: the layout's table, by hand."""
    protected, plain = tlv_areas(image)
    inside = {kind: start <= offset < start + size for kind, (start, size) in tlvs(image).items()}
    sizes = {HEADER_WRONG, TOO_LARGE, TRUNCATED, TLV_WRONG, HASH_WRONG}
    if offset < 4:
        return {NONE}
    if offset < 8 or 16 <= offset < 20 or 28 <= offset < 32:
        return {HEADER_WRONG}
    if offset < 16:
        return sizes
    if offset < protected:
        return {HASH_WRONG}
    if offset < protected + 2 or plain <= offset < plain + 2:
        return {TRUNCATED}
    if offset < plain:
        return {HASH_WRONG} if inside[0x50] or inside[0xA0] else {HASH_WRONG, TLV_WRONG, TOO_LARGE}
    if inside[0x10]:
        return {HASH_WRONG}
    if inside[0x01]:
        return {KEY_UNKNOWN}
    if inside[0x24]:
        return {SIGNATURE_WRONG}
    return {TLV_WRONG, TOO_LARGE}


def test_no_flipped_bit_is_accepted(bench: Bench, powercut: Path) -> None:
    image = bench.sized("flip", 4 * KB).read_bytes()
    protected, _ = tlv_areas(image)
    offsets = [*range(32), *range(32, protected, 61), *range(protected, len(image))]
    places = [(offset, bit) for offset in offsets for bit in range(8)]

    def flipped(offset: int, bit: int) -> bytes:
        changed = bytearray(image)
        changed[offset] ^= 1 << bit
        return bytes(changed)

    results = bench.check(powercut, (flipped(*place) for place in places))
    assert len(results) == len(places) > 1500
    wrong = [
        (offset, bit, result)
        for (offset, bit), result in zip(places, results, strict=True)
        if result not in allowed(offset, image)
    ]
    assert wrong == []


def test_no_truncated_image_is_accepted(bench: Bench, powercut: Path) -> None:
    image = bench.sized("short", 4 * KB).read_bytes()
    protected, plain = tlv_areas(image)
    lengths = [*range(0, len(image), 37), *range(plain, len(image))]
    results = bench.check(powercut, (image[:length] for length in lengths))
    for length, result in zip(lengths, results, strict=True):
        if length < 4:
            assert result == NONE
        elif 32 <= length <= protected:
            assert result == TRUNCATED, length
        else:
            assert result in (HEADER_WRONG, TOO_LARGE, TRUNCATED, TLV_WRONG, HASH_WRONG,
                              KEY_UNKNOWN, SIGNATURE_WRONG), length  # fmt: skip


def test_each_wrong_image_is_refused_for_its_own_reason(bench: Bench, powercut: Path) -> None:
    body = bytes(range(256)) * 12
    good = bench.sign("right", body).read_bytes()
    other = bench.sign("other-key", body, key="other").read_bytes()
    at, at_other = tlvs(good), tlvs(other)
    posing = bytearray(other)  # signed by another key, and says that it was ours
    posing[at_other[0x01][0] : sum(at_other[0x01])] = good[at[0x01][0] : sum(at[0x01])]
    _, plain = tlv_areas(good)
    twice = bytearray(good + good[at[0x10][0] - 4 : sum(at[0x10])])
    struct.pack_into("<H", twice, plain + 2, len(twice) - plain)
    too_large = bytearray(good)
    struct.pack_into("<I", too_large, 12, SLOT["uniform"])
    unsigned = bench.sign("unsigned", body, key=None).read_bytes()
    unhashed = bytearray(good[:plain] + struct.pack("<HH", 0x6907, 4))
    cases = {
        "nothing": (b"", NONE),
        "another key": (other, KEY_UNKNOWN),
        "another key that names ours": (bytes(posing), SIGNATURE_WRONG),
        "no key": (unsigned, SIGNATURE_MISSING),
        "no hash": (bytes(unhashed), HASH_MISSING),
        "two hashes": (bytes(twice), TLV_WRONG),
        "another board": (bench.sign("hw", body, hardware="bench-boar").read_bytes(),
                          HARDWARE_WRONG),
        "another board, longer": (bench.sign("hw2", body, hardware="bench-board2").read_bytes(),
                                  HARDWARE_WRONG),
        "no board": (bench.sign("nohw", body, hardware=None).read_bytes(), HARDWARE_MISSING),
        "no counter": (bench.sign("nosec", body, counter=None).read_bytes(), COUNTER_MISSING),
        "an older one": (bench.sign("older", body, counter=4).read_bytes(), COUNTER_OLD),
        "neither": (bench.sign("bare", body, counter=None, hardware=None).read_bytes(),
                    HARDWARE_MISSING),
        "larger than the slot": (bytes(too_large), TOO_LARGE),
        "a signature of the whole": (bench.sign("pure", body, "--pure").read_bytes(), TLV_WRONG),
    }  # fmt: skip
    results = bench.check(powercut, (image for image, _ in cases.values()), floor=5)
    assert dict(zip(cases, results, strict=True)) == {
        name: result for name, (_, result) in cases.items()
    }


# ---- power cuts ---------------------------------------------------------------------------------
def test_the_power_may_be_cut_at_any_operation(
    bench: Bench, powercut: Path, small: tuple[Path, Path]
) -> None:
    """Clean and torn, with more cuts while the first is recovered from; 4 kB to a whole slot."""
    old, new = small
    full = {name: bench.sized(f"full-{name}", size) for name, size in SLOT.items()}
    middle = bench.sized("middle", 21_000)
    every = {"tear": 1, "second": 1}
    jobs = [
        # geometry, old, new, options; where cuts are counted, every one would take minutes
        *((name, old, new, {"end": end, "journal": journal, **every})
          for name in SLOT for end in ("silent", "confirm")
          for journal in ("blank", "garbage", "60")[1 if name == "f405-mixed" else 0 :]),
        *((name, old, new, {"end": "silent", "tear": 0, "second": 0}) for name in SLOT),
        *((name, new, old, {"end": "repair", "journal": "7", **every}) for name in SLOT),
        ("uniform", middle, full["uniform"], {"journal": "5", **every, "cuts": 700}),
        ("uniform", full["uniform"], old, {"end": "confirm", **every, "cuts": 500}),
        ("rp2040", full["rp2040"], middle, {"journal": "2", **every, "cuts": 700}),
        ("rp2040", middle, full["rp2040"], {"end": "confirm", "tear": 0, "second": 0, "cuts": 500}),
        ("f405-mixed", old, full["f405-mixed"], {**every, "cuts": 500}),
        ("f405", full["f405"], middle, {"end": "confirm", **every, "cuts": 200}),
        ("f405", old, full["f405"], {**every, "cuts": 200}),
    ]  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        lived = list(pool.map(lambda job: bench.cut(powercut, *job[:3], **job[3]), jobs))
    failures = [(job, one) for job, one in zip(jobs, lived, strict=True) if one.broken]
    assert failures == []
    assert sum(one.cuts for one in lived) >= 5000
    # both ends were seen, so that the cuts fell before, in and after the decisive record
    confirming = [
        one for job, one in zip(jobs, lived, strict=True) if job[3].get("end") == "confirm"
    ]
    assert all(one.old and one.new for one in confirming)


def test_the_updater_holds_under_sanitizers(bench: Bench, small: tuple[Path, Path]) -> None:
    """Address and undefined-behaviour sanitizers, over cuts and over broken images."""
    sanitized = build("powercut-sanitized")
    for geometry in SLOT:
        lived = bench.cut(sanitized, geometry, *small, journal="1", cuts=20)
        assert (lived.broken, lived.cuts) == (0, 20)
    image = small[1].read_bytes()
    protected, _ = tlv_areas(image)
    broken = [image[:at] + bytes([image[at] ^ 0xFF]) + image[at + 1 :]
              for at in (*range(32), *range(protected, len(image)))]  # fmt: skip
    assert GOOD not in bench.check(sanitized, broken)


# name, file, the thought that is there, what is there without it
UNSAFE = [
    (
        "the journal is written before the copy is made",
        "boot.c",
        "        if (!copy_step(b->flash, entry.step)) {\n            return false;\n        }\n"
        "        entry.step++;\n        if (!journal_append(&b->journal, &entry)) {",
        "        entry.step++;\n        if (!journal_append(&b->journal, &entry)) {\n"
        "            return false;\n        }\n"
        "        if (!copy_step(b->flash, (uint16_t)(entry.step - 1))) {",
    ),
    (
        "both pages of the journal are erased at once",
        "journal.c",
        "if (!flash_erase(f, page.offset, page.size)) {",
        "if (!flash_erase(f, f->journal[1].offset, page.size) || "
        "!flash_erase(f, f->journal[0].offset, page.size)) {",
    ),
    (
        "a record counts without its checksum",
        "journal.c",
        "get(&record[28], 4) != wire_crc32c(record, 28)) {",
        "record[7] != 0) {",
    ),
    (
        "the newest record is believed at once",
        "journal.c",
        "return rests || begin_page(j);",
        "return rests || j->any;",
    ),
    (
        "what looks erased is not erased again",
        "flash.c",
        "if (sector == 0 || !f->erase(offset + done, sector)) {",
        "uint8_t bytes[FLASH_CHUNK];\n        bool erased = true;\n"
        "        for (uint32_t at = 0; at < sector && erased; at += FLASH_CHUNK) {\n"
        "            erased = f->read(offset + done + at, bytes, FLASH_CHUNK) &&\n"
        "                     flash_is_erased(bytes, FLASH_CHUNK);\n        }\n"
        "        if (sector == 0 || (!erased && !f->erase(offset + done, sector))) {",
    ),
    (
        "only as much is swapped as the new image is long",
        "boot.c",
        "old_size > info->size ? old_size : info->size",
        "old_size > SLOT_MAX ? old_size : info->size",
    ),
    (
        "a trial may start as often as it likes",
        "boot.c",
        "b->journal.entry.boots >= TRIAL_STARTS",
        "b->journal.entry.boots >= 255",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "safe", "unsafe"), UNSAFE, ids=[one[0] for one in UNSAFE])
def test_an_updater_without_one_of_its_thoughts_fails(
    name: str,
    file: str,
    safe: str,
    unsafe: str,
    bench: Bench,
    powercut: Path,
    small: tuple[Path, Path],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "boot"
    shutil.copytree(BOOT, folder)
    source = (folder / file).read_text("ascii")
    assert source.count(safe) == 1, "the sources have moved on: put the variant right"
    (folder / file).write_text(source.replace(safe, unsafe.replace("SLOT_MAX", "0xFFFFFFU")))
    shutil.copy2(powercut.parent / "crypto.o", tmp_path / "crypto.o")
    (tmp_path / "crypto.o").touch()
    subprocess.run(
        ["make", "-s", "-C", folder, f"OUT={tmp_path}", f"CRYPTO={DOWNLOADS}",
         f"CORE={BOOT.parent / 'core'}", "HOST=-O1", "powercut"],
        check=True,
    )  # fmt: skip
    old, new = bench.sized("unsafe-old", 9 * KB), small[1]
    broken = 0
    for seed in range(20):
        for geometry in ("rp2040", "uniform"):
            broken += bench.cut(tmp_path / "powercut", geometry, old, new, seed=seed,
                                journal=str(seed)).broken  # fmt: skip
        if broken:
            break
    assert broken > 0, name
