"""`edge-wm flash` and `edge-wm firmware`, on the emulated board (QEMU) with the real bootloader.

Images are imgtool's; what must not be kept is built from the real firmware's source with one line
changed. The flash is a file: "nothing written" is compared byte for byte.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_wm.errors import EdgeWmError
from firmware.bench_images import BOOT, DOWNLOADS, ROOT, Bench, build, imgtool
from firmware.slot_board import FLASH, HARDWARE, SlotBoard
from firmware.test_update import CRASHES, HANGS
from firmware_bridge.emulated import build_firmware
from firmware_bridge.flashing.image import read_image
from firmware_bridge.flashing.install import Receipt, Watcher, install
from firmware_bridge.flashing.keys import load_keys
from firmware_bridge.proxy import FaultProxy

BAUD = 1_000_000
SECTOR = 4096
SLOT_PORT = ROOT / "firmware_bridge" / "mcu" / "port" / "mps2_an386_slot"
BREAKAGES = {  # of main.c: what must not be kept
    "self-test": ("INPUT_POSITION | INPUT_CURRENT |", "INPUT_CURRENT |"),
    "link": (
        "    window_ring *ring = &own.to_host;",
        "    window_ring *ring = &own.to_host; return;",
    ),
}


def bench_with_keys(folder: Path) -> Bench:
    """A bench, and folders of public keys as a technician has them."""
    bench = Bench(folder)
    for folder, key, name in (
        ("keys", "key", "acme"),
        ("keys-of-two", "key", "acme"),
        ("keys-of-two", "other", "bench.developer"),
    ):
        (bench.folder / folder).mkdir(exist_ok=True)
        public = imgtool("getpub", "-k", bench.folder / f"{key}.pem", "-e", "pem")
        (bench.folder / folder / f"{name}.pem").write_text(public)
    return bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return bench_with_keys(tmp_path_factory.mktemp("flash"))


@pytest.fixture(scope="module")
def images(bench: Bench) -> tuple[Path, Path]:
    """The real firmware twice: 1.0.0, and a longer 1.1.0."""
    program = build("slot.bin").read_bytes()
    old = bench.sign("old", program, hardware=HARDWARE, counter=1, version="1.0.0")
    longer = program + random.Random(1).randbytes(9000)
    return old, bench.sign("new", longer, hardware=HARDWARE, counter=2, version="1.1.0")


@pytest.fixture
def board(bench: Bench, images: tuple[Path, Path]) -> Iterator[SlotBoard]:
    with SlotBoard(bench.public, (images[0], None)) as board:
        yield board


@pytest.fixture
def socket_board(bench: Bench, images: tuple[Path, Path]) -> Iterator[SlotBoard]:
    with SlotBoard(bench.public, (images[0], None)) as board:
        board.cut()
        board.start(socket=True)
        yield board


def flash(
    bench: Bench, port: str, image: Path, uploaded: Callable[[int], None] = lambda _: None
) -> Receipt:
    read = read_image(image)
    watcher = Watcher(uploaded=uploaded)
    return install(port, BAUD, read, load_keys(bench.folder / "keys"), watcher, check_s=0.5)


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edge_wm", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=180,
    )


def broken(bench: Bench, how: str) -> Path:
    """The real firmware with one line of its port changed; its trial ends after 6 s."""
    folder = bench.folder / how
    if not folder.exists():
        shutil.copytree(SLOT_PORT, folder / "port" / "mps2_an386_slot")
        (folder / "out").mkdir()
        main = folder / "port" / "mps2_an386_slot" / "main.c"
        text = main.read_text()
        for old, new in (BREAKAGES[how], ("TRIAL_US = 30000000", "TRIAL_US = 6000000")):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        main.write_text(text)
        generated = build_firmware("generated")
        done = subprocess.run(
            ["make", "-s", "-C", BOOT, f"OUT={folder / 'out'}", f"CRYPTO={DOWNLOADS}",
             f"GEN={generated}", f"AN386={main.parent}", "slot.bin"],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    program = (folder / "out" / "slot.bin").read_bytes()
    return bench.sign(how, program, hardware=HARDWARE, counter=2, version="2.0.0")


def failing(bench: Bench, how: str) -> Path:
    """An image that must not be kept."""
    if how in BREAKAGES:
        return broken(bench, how)
    program = {"hangs": HANGS, "crashes": CRASHES}[how]
    return bench.sign(how, program, hardware=HARDWARE, counter=3, version="2.0.0")


# ---- the good way ---------------------------------------------------------------------------
def test_an_image_is_flashed_and_confirmed_by_one_command(
    bench: Bench, board: SlotBoard, images: tuple[Path, Path], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    options = ("--port", board.port, "--keys", bench.folder / "keys", "--log", log)
    done = command("flash", images[1], *options, "--check", "1", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    new = images[1].read_bytes()
    assert receipt["result"] == "confirmed"
    assert (receipt["serial"], receipt["hardware"]) == ("slotboard001", HARDWARE)
    assert (receipt["counter"], receipt["key"], receipt["log"]) == (2, "acme", str(log))
    assert (receipt["old_version"], receipt["version"]) == ("1.0.0", "1.1.0")
    assert re.search(r"1\.0\.0 \(\w{8}\) -> 1\.1\.0 \(\w{8}\), counter 2, key acme", done.stderr)
    assert "trial of 1.1.0" in log.read_text()
    assert board.slot(0, len(new)) == new
    states = board.states()
    assert (states[0].version, states[0].confirmed) == ("1.1.0", True)
    assert states[0].hash.hex().lower() == receipt["hash"]

    assert flash(bench, board.port, images[1]).result == "there already"
    older = command("flash", images[0], *options)
    assert older.returncode == 3
    assert "(security counter 1, the board's floor is 2); take a newer image" in older.stdout
    assert board.slot(0, len(new)) == new


def test_devices_lists_boards_by_what_they_answer(bench: Bench, images: tuple[Path, Path]) -> None:
    with (
        SlotBoard(bench.public, (images[0], None), serial="alpha0000001") as one,
        SlotBoard(bench.public_key("other"), (None, None), developer=True) as blank,
    ):
        one.states()
        done = command("flash", "devices", "--port", one.port, "--port", blank.port, "--json")
        assert done.returncode == 0, done.stderr
        first, second = json.loads(done.stdout)["boards"]
        assert (first["serial"], first["hardware"]) == ("alpha0000001", HARDWARE)
        assert first["slots"]["0"]["version"] == "1.0.0"
        assert (second["serial"], second["slots"]) == ("", {})
        assert (second["hardware"], second["developer"]) == (HARDWARE, True)
        shown = command("flash", "devices", "--port", blank.port).stdout
        assert "only its bootloader answers, slot 0 empty" in shown
        assert "DEVELOPER BOARD" in shown.splitlines()[0]
        # a developer's image runs on the marked board, and is refused for the other one
        made = bench.sign("dev", images[0].read_bytes()[0x200:], key="other", hardware=HARDWARE)
        done = command(
            "flash", made, "--all", "--port", one.port, "--port", blank.port,
            "--keys", bench.folder / "keys-of-two", "--check", "0.5", "--json",
            "--log", bench.folder / "log",
        )  # fmt: skip
        refused, kept = json.loads(done.stdout)
        assert done.returncode == 3
        assert (refused["result"], kept["result"]) == ("refused", "confirmed")
        assert "and board alpha0000001 is no developer's board" in refused["reason"]
        assert (kept["developer_key"], kept["developer_board"]) == (True, True)


# ---- what is refused, before anything is written ------------------------------------------------
def test_what_does_not_fit_is_refused_in_words_of_its_own_and_nothing_is_written(
    bench: Bench, board: SlotBoard, images: tuple[Path, Path]
) -> None:
    whole = images[1].read_bytes()
    damaged = bytearray(whole)
    damaged[0x1000] ^= 1
    wrong = bytearray(whole)
    wrong[-1] ^= 1  # the signature is the last TLV

    def file(name: str, data: bytes) -> Path:
        path = bench.folder / f"{name}.signed.bin"
        path.write_bytes(data)
        return path

    cases = {
        "truncated: at least": file("cut", whole[: len(whole) // 2]),
        "truncated": file("cut-end", whole[:-10]),
        "damaged: its bytes do not give the hash": file("damaged", bytes(damaged)),
        "the signature of key acme is wrong": file("wrong", bytes(wrong)),
        "no signed firmware image": file("not", b"hello" * 100),
        "must be signed by Ed25519": bench.sign("un", HANGS, key=None, hardware=HARDWARE),
        "with a key that is not trusted here": bench.sign(
            "foreign", HANGS, key="other", hardware=HARDWARE
        ),
        "for hardware 'emulated-rover', but board slotboard001 is 'emulated-arm'": bench.sign(
            "rover", HANGS, hardware="emulated-rover"
        ),
        "has no security counter": bench.sign("none", HANGS, hardware=HARDWARE, counter=None),
    }
    board.states()
    before = bytes(board.map[FLASH : FLASH + (1 << 20)])
    for words, image in cases.items():
        with pytest.raises(EdgeWmError, match=re.escape(words)) as refused:
            flash(bench, board.port, image)
        assert refused.value.exit_code == 3
    assert bytes(board.map[FLASH : FLASH + (1 << 20)]) == before


# ---- what is taken back ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("hangs", "the board took it back by itself: taken back: the watchdog, or a crash"),
        ("crashes", "the board took it back by itself: taken back: the watchdog, or a crash"),
        ("self-test", "self-test: axis 0 measures no position (taken back: it was not confirmed"),
        ("link", "the board took it back by itself: taken back: it was not confirmed before"),
    ],
)
def test_an_image_that_fails_is_taken_back_and_reported(
    how: str, reason: str, bench: Bench, board: SlotBoard
) -> None:
    receipt = flash(bench, board.port, failing(bench, how))
    assert receipt.result == "taken back"
    assert reason in receipt.reason
    states = board.states()
    assert (states[0].version, states[0].confirmed) == ("1.0.0", True)


@pytest.mark.parametrize("how", ["self-test", "crashes"])
def test_an_image_that_fails_on_an_empty_board_is_never_kept(how: str, bench: Bench) -> None:
    """No image ran before, so none is taken back: but the failed one does not stay as confirmed."""
    with SlotBoard(bench.public, (None, None)) as empty:
        receipt = flash(bench, empty.port, failing(bench, how))
        assert receipt.result == "taken back"
        assert 0 not in empty.states()  # and its bootloader answers


# ---- bad lines: the proof calls them too ----------------------------------------------------
def over_noise(bench: Bench, board: SlotBoard, image: Path, seed: int) -> Receipt:
    """One bit in a kilobyte, in each direction: the board's bytes come in smaller pieces."""
    up, down = board.folder / "up", board.folder / "down"
    with (
        FaultProxy(up, board.socket, {"flip": 64 / 1000}, seed, ["up"]) as to_board,
        FaultProxy(down, up, {"flip": 14 / 1000}, seed, ["down"]) as to_host,
    ):
        receipt = flash(bench, f"unix:{down}", image)
        for proxy, way in ((to_board, "up"), (to_host, "down")):
            per_kB = proxy.done["flip"] / proxy.passed[way] * 1000
            assert 0.3 < per_kB < 2.0, (
                way,
                per_kB,
            )  # by pieces of the machine's size
    return receipt


def over_a_pulled_cable(bench: Bench, board: SlotBoard, image: Path) -> tuple[Receipt, int]:
    """The cable is out for 3 s; the receipt, and the offset at which it was pulled."""
    pulled: list[int] = []
    with FaultProxy(board.folder / "p", board.socket, {}) as proxy:

        def uploaded(offset: int) -> None:
            if offset > 20000 and not pulled:
                pulled.append(offset)
                proxy.pull()
                threading.Timer(3.0, proxy.plug).start()

        receipt = flash(bench, f"unix:{board.folder / 'p'}", image, uploaded)
    return receipt, pulled[0]


def over_a_reset(bench: Bench, board: SlotBoard, image: Path) -> tuple[Receipt, int]:
    """The board's power is cut at half of the upload; the receipt, and the offset."""
    size, cut = image.stat().st_size, list[int]()

    def uploaded(offset: int) -> None:
        if offset > size // 2 and not cut:
            cut.append(offset)
            board.cut()
            board.socket.unlink(missing_ok=True)
            board.start(socket=True)

    return flash(bench, board.port, image, uploaded), cut[0]


# ---- bad lines --------------------------------------------------------------------------------
def test_a_noisy_line_does_not_stop_it(
    bench: Bench, socket_board: SlotBoard, images: tuple[Path, Path], tmp_path: Path
) -> None:
    """One bit in a kilobyte, in both directions."""
    receipt = over_noise(bench, socket_board, images[1], seed=5)
    assert receipt.result == "confirmed"
    assert receipt.retries > 5
    new = images[1].read_bytes()
    assert socket_board.slot(0, len(new)) == new


def test_a_cable_pulled_for_three_seconds_goes_on_where_it_stood(
    bench: Bench, socket_board: SlotBoard, images: tuple[Path, Path]
) -> None:
    receipt, pulled = over_a_pulled_cable(bench, socket_board, images[1])
    assert receipt.result == "confirmed"
    assert pulled <= receipt.resumed_at[0] <= pulled + 1024  # there, or one message more


def test_a_reset_at_half_of_it_goes_on_within_a_chunk(
    bench: Bench, socket_board: SlotBoard, images: tuple[Path, Path]
) -> None:
    receipt, cut = over_a_reset(bench, socket_board, images[1])
    assert receipt.result == "confirmed"
    assert cut - SECTOR - 256 <= min(receipt.resumed_at) <= cut + 1024
    new = images[1].read_bytes()
    assert socket_board.slot(0, len(new)) == new


# ---- firmware, and a blank board ----------------------------------------------------------------
def test_firmware_is_built_signed_and_inspected(bench: Bench, tmp_path: Path) -> None:
    built = command("firmware", "build", "emulated-arm", "--json")
    assert built.returncode == 0, built.stderr
    program = Path(json.loads(built.stdout)["path"])
    out = tmp_path / "x.signed.bin"
    signed = command(
        "firmware", "sign", program, "--key", bench.folder / "key.pem", "--version", "3.2.1",
        "--counter", "9", "--out", out,
    )  # fmt: skip
    assert signed.returncode == 0, signed.stderr
    shown = command("firmware", "inspect", out, "--keys", bench.folder / "keys", "--json")
    facts = json.loads(shown.stdout)
    assert (facts["version"], facts["hardware"]) == ("3.2.1", HARDWARE)
    assert (facts["counter"], facts["key"], facts["developer_key"]) == (9, "acme", False)
    dumped = imgtool("dumpinfo", out)  # another reader of the same file
    assert facts["hash"][:16] in re.sub(r"[^0-9a-f]", "", dumped.replace("0x", "").lower())

    inside = ROOT / "build" / "inside.pem"
    inside.write_bytes((bench.folder / "key.pem").read_bytes())
    try:
        done = command(
            "firmware", "sign", program, "--key", inside, "--version", "1.0.0", "--counter", "1"
        )
    finally:
        inside.unlink()
    assert done.returncode == 2
    assert "lies in the repository, where it would be published" in done.stderr


def test_a_blank_board_is_shown_its_own_route(tmp_path: Path) -> None:
    file = tmp_path / "rp2040.uf2"
    file.write_bytes(b"")
    done = command("flash", "--blank", "rp2040", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"picotool load --verify --execute {file}"
    assert "hold BOOTSEL" in done.stderr
    other = command("flash", "--blank", "stm32f405", file)
    assert other.returncode == 2
    assert "stm32f405 takes .bin or .dfu, got '.uf2'" in other.stderr


def test_a_silent_port_and_no_keys_are_said_in_one_sentence(
    images: tuple[Path, Path], tmp_path: Path
) -> None:
    keyless = command("flash", images[1], "--port", "/dev/null/x", "--keys", tmp_path)
    assert keyless.returncode == 2
    assert "must hold the public keys (*.pem)" in keyless.stderr
    gone = command("flash", "devices", "--port", tmp_path / "none")
    assert gone.returncode == 1
    assert "there is none of that name; plug the board in" in gone.stderr
    assert "Traceback" not in gone.stderr + keyless.stderr
