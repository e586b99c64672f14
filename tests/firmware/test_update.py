"""Updates over the link's own wire, by the unmodified smpclient, on the emulated board (QEMU).

The images are imgtool's. SIGKILL of QEMU is a power cut: the flash is a file.
"""

from __future__ import annotations

import random
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import serial
from smp import packet
from smpclient import SMPClient
from smpclient.exceptions import SMPUploadError
from smpclient.generics import error, success
from smpclient.requests.image_management import (
    ImageErase,
    ImageStatesRead,
    ImageStatesWrite,
)
from smpclient.requests.os_management import EchoWrite, OSApplicationInfoRead, ResetWrite

from firmware.bench_images import Bench, build
from firmware.rig import limits_of
from firmware.slot_board import HARDWARE, SWAPPING, TRIAL, SlotBoard
from firmware_bridge.messages import Arm, Hello, Identity, LimitsReply, Status
from firmware_bridge.wire import Parser, encode

ENTRY = 0x21110200  # where an image's program lies in slot 0


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def firmware(bench: Bench) -> tuple[Path, Path]:
    """The real firmware twice: 1.0.0, and a longer 1.1.0."""
    program = build("slot.bin").read_bytes()
    old = bench.sign("old", program, hardware=HARDWARE, counter=1, version="1.0.0")
    longer = program + random.Random(1).randbytes(9000)
    return old, bench.sign("new", longer, hardware=HARDWARE, counter=2, version="1.1.0")


@pytest.fixture
def board(bench: Bench, firmware: tuple[Path, Path]) -> Iterator[SlotBoard]:
    with SlotBoard(bench.public, (firmware[0], None)) as board:
        yield board


async def send(client: SMPClient, image: Path) -> list[int]:
    """Upload it; the offsets that were confirmed."""
    data = image.read_bytes()
    upload = client.upload(data, first_timeout_s=30.0, subsequent_timeout_s=20.0)
    return [offset async for offset in upload]


async def try_it(client: SMPClient) -> Any:
    """Ask for the trial of what lies in slot 1; the answer."""
    listed = await client.request(ImageStatesRead())
    assert success(listed)
    (waiting,) = [one for one in listed.images if one.slot == 1]
    return await client.request(ImageStatesWrite(hash=waiting.hash), timeout_s=10.0)


async def install(client: SMPClient, image: Path) -> None:
    """Upload it, ask for its trial, reset."""
    await send(client, image)
    tested = await try_it(client)
    assert success(tested), tested
    assert [one.pending for one in tested.images if one.slot == 1] == [True]
    assert success(await client.request(ResetWrite()))


async def information(client: SMPClient) -> str:
    answer = await client.request(OSApplicationInfoRead())
    assert success(answer), answer
    return answer.output


def test_an_update_is_uploaded_tested_and_confirmed(
    board: SlotBoard, firmware: tuple[Path, Path]
) -> None:
    async def hello(client: SMPClient) -> Any:
        return await client.request(EchoWrite(d="is anybody there?"))

    assert board.smp(hello).r == "is anybody there?"
    before = board.states()
    assert (before[0].version, before[0].active, before[0].confirmed) == ("1.0.0", True, True)
    assert 1 not in before

    board.smp(lambda client: install(client, firmware[1]))
    trial = board.states()
    assert (trial[0].version, trial[0].active, trial[0].confirmed) == ("1.1.0", True, False)
    assert (trial[1].version, trial[1].confirmed) == ("1.0.0", True)

    async def confirm(client: SMPClient) -> Any:
        refused = await client.request(ImageStatesWrite(hash=trial[1].hash, confirm=True))
        upload = await client.request(ImageErase(slot=1))
        return refused, upload, await client.request(ImageStatesWrite(confirm=True), timeout_s=10.0)

    refused, erased, confirmed = board.smp(confirm)
    assert error(refused)
    assert refused.rsn == "only the image that runs can be confirmed: test it first"
    assert error(erased)  # the way back is not erased while it may be needed
    assert success(confirmed)
    assert confirmed.images[0].confirmed
    board.cut()
    board.start()
    after = board.states()
    assert (after[0].version, after[0].confirmed, after[1].version) == ("1.1.0", True, "1.0.0")
    assert board.slot(0, 4096) == firmware[1].read_bytes()[:4096]

    old = board.smp(try_it)
    assert error(old)
    assert "below the floor" in old.rsn


def test_an_upload_that_a_reset_ended_goes_on(
    board: SlotBoard, firmware: tuple[Path, Path]
) -> None:
    image = firmware[1].read_bytes()

    async def half(client: SMPClient) -> None:
        async for offset in client.upload(image, first_timeout_s=30.0, subsequent_timeout_s=20.0):
            if offset > len(image) // 2:
                return

    board.smp(half)
    board.cut()
    board.start()
    board.states()
    offsets = board.smp(lambda client: send(client, firmware[1]))
    assert len(image) // 2 - 4096 - 256 <= offsets[0] <= len(image) // 2 + 1024
    assert offsets[-1] == len(image)
    assert board.slot(1, len(image)) == image


def blob(code: bytes) -> bytes:
    """A program of Cortex-M4 instructions: every vector leads to its start."""
    return struct.pack("<16I", 0x20010000, *[ENTRY + 64 | 1] * 15) + code + b"\0" * 200


HANGS = blob(b"\xfe\xe7")  # b .
# ldr r0, AIRCR; ldr r1, SYSRESETREQ; str r1, [r0]; b .
CRASHES = blob(struct.pack("<4H2I", 0x4801, 0x4902, 0x6001, 0xE7FE, 0xE000ED0C, 0x05FA0004))


@pytest.mark.parametrize(("name", "program"), [("hangs", HANGS), ("crashes", CRASHES)])
def test_an_image_that_fails_is_taken_back(
    name: str, program: bytes, board: SlotBoard, bench: Bench
) -> None:
    image = bench.sign(name, program, hardware=HARDWARE, counter=3, version="2.0.0")
    board.smp(lambda client: install(client, image))
    states = board.states()
    assert (states[0].version, states[0].confirmed, states[1].version) == ("1.0.0", True, "2.0.0")
    said = board.smp(information)
    assert (
        said == "emulated-arm; counter floor 1; last update: "
        "taken back: the watchdog, or a crash, ended its trial"
    )


def test_an_image_that_nobody_confirms_is_taken_back(
    board: SlotBoard, firmware: tuple[Path, Path]
) -> None:
    board.smp(lambda client: install(client, firmware[1]))
    assert board.states()[0].version == "1.1.0"
    board.smp(lambda client: client.request(ResetWrite()))
    assert board.states()[0].version == "1.0.0"
    assert "not confirmed before a reset" in board.smp(information)


def test_images_that_do_not_fit_are_refused_in_words(board: SlotBoard, bench: Bench) -> None:
    cases = {
        "the image is for other hardware": {"hardware": "emulated-rover"},
        "the image is signed with a key that this board does not have": {"key": "other"},
        "the image does not say for which hardware it is": {"hardware": None},
        "the image has no security counter": {"counter": None},
    }

    async def refused(client: SMPClient) -> list[str]:
        said = []
        for number, options in enumerate(cases.values()):
            image = bench.sign(f"no-{number}", HANGS, **{"hardware": HARDWARE, **options})
            await send(client, image)
            answer = await try_it(client)
            assert error(answer)
            said.append(answer.rsn)
        with pytest.raises(SMPUploadError) as too_large:
            await send(client, bench.sign("huge", bytes(0x40000), hardware=HARDWARE))
        said.append(str(too_large.value))
        return said

    *reasons, large = board.smp(refused)
    assert reasons == list(cases)
    assert "the image is too large" in large
    board.cut()
    board.start()
    assert board.states()[0].version == "1.0.0"


def test_a_blank_board_waits_for_its_first_image(bench: Bench, firmware: tuple[Path, Path]) -> None:
    with SlotBoard(bench.public, (None, None)) as board:
        assert board.states() == {}
        board.smp(lambda client: install(client, firmware[0]))
        states = board.states()
        assert (states[0].version, states[0].active) == ("1.0.0", True)


def ask_after_arm(board: SlotBoard) -> bytes:
    """Hello, limits, then Arm and an SMP request in one piece: SMP's answer."""
    board.states()
    parser, raw = Parser(), bytearray()
    request = b"".join(packet.encode(EchoWrite(d="now?").BYTES))
    with serial.Serial(board.port, timeout=0.01) as port:

        def listen(wanted: type) -> Any:
            until = time.monotonic() + 20.0
            while time.monotonic() < until:
                data = port.read(4096)
                raw.extend(data)
                for frame in parser.feed(data):
                    if isinstance(frame.message, wanted):
                        return frame
            raise AssertionError(f"no {wanted.__name__} within 20 s")

        port.write(encode(Hello(77), session_id=0, sequence=1))
        session = listen(Identity).header.session_id
        port.write(encode(limits_of(dead_man_us=250_000), session_id=session, sequence=2))
        crc = listen(LimitsReply).message.crc
        raw.clear()
        port.write(encode(Arm(crc, 100, 10), session_id=session, sequence=3) + request)
        while not listen(Status).message.flags & Status.ARMED:
            pass
        until = time.monotonic() + 20.0
        while (found := re.search(rb"\x06\x09[A-Za-z0-9+/=]+\n", raw)) is None:
            raw.extend(port.read(4096))
            assert time.monotonic() < until, bytes(raw)
    decoder = packet.decode()
    next(decoder)
    with pytest.raises(StopIteration) as answer:
        decoder.send(found.group())
    return answer.value.value


def test_the_link_and_smp_share_the_wire_and_an_armed_board_refuses(board: SlotBoard) -> None:
    for _ in range(4):
        said = ask_after_arm(board)
        if b"now?" not in said:
            break
        # The machine stood still for more than the dead-man time: the board is no longer armed.
        board.cut()
        board.start()
    assert b"the robot is armed: disarm it first" in said


def kill_in_a_swap(
    board: SlotBoard, snapshot: bytes, firmware: tuple[Path, Path], rng: random.Random
) -> tuple[int, int]:
    """Kill QEMU at a random step: (state, step). Then old or new must run, and both be whole."""
    old, new = (image.read_bytes() for image in firmware)
    board.cut()
    board.map[:] = snapshot
    units = -(-max(len(old), len(new)) // 4096)
    target = rng.randrange(3 * units + 2)
    board.start()
    until = time.monotonic() + 30.0
    while True:
        state, step = board.journal()
        if (state == SWAPPING and step >= target) or state == TRIAL:
            break
        assert time.monotonic() < until, (state, step)
    time.sleep(rng.random() * 0.003)
    board.cut()
    at = board.journal()
    board.start()
    states = board.states()
    version = {"1.0.0": (old, new), "1.1.0": (new, old)}[states[0].version]
    assert board.slot(0, len(version[0])) == version[0]
    assert board.slot(1, len(version[1])) == version[1]
    return at


def test_sigkill_while_the_images_change_places(
    board: SlotBoard, firmware: tuple[Path, Path]
) -> None:
    async def request(client: SMPClient) -> None:
        await send(client, firmware[1])
        assert success(await try_it(client))

    board.smp(request)
    board.cut()
    snapshot = bytes(board.map[:])
    rng = random.Random(6)
    places = [kill_in_a_swap(board, snapshot, firmware, rng) for _ in range(10)]
    assert sum(state == SWAPPING for state, _ in places) >= 5, places


def test_the_server_survives_nonsense(bench: Bench) -> None:
    """Under sanitizers: frames with a right checksum and a wrong inside, and plain noise."""
    rng = random.Random(3)
    messages = [
        request.BYTES
        for request in (
            EchoWrite(d="x" * 200),
            ImageStatesWrite(hash=b"\1" * 32),
            ImageStatesWrite(confirm=True),
            ImageErase(slot=1),
            ImageStatesRead(),
            OSApplicationInfoRead(),
        )
    ]
    stream = bytearray()
    for _ in range(4000):
        message = bytearray(rng.choice(messages))
        for _ in range(rng.randrange(1, 5)):
            message[rng.randrange(8, len(message))] = rng.randrange(256)
        if rng.random() < 0.2:
            message = message[: rng.randrange(8, len(message))]
        message[2:4] = struct.pack(">H", len(message) - 8)
        lines = bytearray(b"".join(packet.encode(bytes(message))))
        if rng.random() < 0.2:
            lines[rng.randrange(len(lines))] = rng.randrange(256)
        stream += lines
        if rng.random() < 0.1:
            stream += rng.randbytes(rng.randrange(400)) + b"\0\0"
    # Noise may have left it in what looks like a frame of the link: whoever asks again is heard.
    stream += 12 * b"".join(packet.encode(EchoWrite(d="still there").BYTES))
    done = subprocess.run(
        [build("powercut-sanitized"), "smp", bench.public.hex(), "bench-board", "uniform"],
        input=bytes(stream),
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    last = done.stdout[done.stdout.rindex(b"\x06\x09") :]
    decoder = packet.decode()
    next(decoder)
    with pytest.raises(StopIteration) as answer:
        decoder.send(last)
    assert b"still there" in answer.value.value
