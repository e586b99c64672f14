"""Tests bought motors: their SDKs against servos written from the vendors' protocol pages, and the
driver process against the link's own host side.
"""

from __future__ import annotations

import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edge_wm.errors import LinkError, UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, parse_robot
from edge_wm.types import Setpoint
from firmware_bridge.link import SerialLink, link_to
from firmware_bridge.motors import Servo, ServoFile, open_servos, read_servo_file
from motors import servos as fake

pytest.importorskip("dynamixel_sdk")
pytest.importorskip("scservo_sdk")

# On a machine that others use processes are held up for longer than the arm's dead-man time.
TEXT = find_robot("arm").read_text().replace("dead_man_ms: 40", "dead_man_ms: 250")
ARM = parse_robot(TEXT, "arm")
MS = 1_000_000
COUNT = 2 * np.pi / 4096
SLACK_S = 0.2


# ---- the fakes say what the vendors' pages say ---------------------------------------------------
@pytest.mark.parametrize(
    ("asked", "said"),
    [  # ROBOTIS e-manual, Protocol 2.0: ping, read of present position, write of a goal
        ("fffffd000103000119 4e", "fffffd00010700550006042665 5d"),
        ("fffffd000107000284000400 1d15", "fffffd000108005500a60000008cc0"),
        ("fffffd00010900037400000200 00ca89", "fffffd000104005500a10c"),
    ],
)
def test_a_dynamixel_answers_as_its_manual_says(asked: str, said: str):
    servo = fake.DynamixelServo(166)
    line = fake.DynamixelLine({1: servo})
    answer = line.take(bytes.fromhex(asked.replace(" ", "")))
    expected = bytes.fromhex(said.replace(" ", ""))
    if len(expected) == 14 and expected[9:11] == b"\x06\x04":  # another model and firmware
        assert (answer[:9], len(answer)) == (expected[:9], len(expected))
        assert fake.crc16(expected[:-2]) == int.from_bytes(expected[-2:], "little")
    else:
        assert answer == expected


@pytest.mark.parametrize(
    ("asked", "said"),
    [  # Feetech's protocol manual: ping, read of two bytes at 0x38
        ("ffff010201fb", "ffff010200fc"),
        ("ffff0104023802be", "ffff0104001805dd"),
    ],
)
def test_a_feetech_answers_as_its_manual_says(asked: str, said: str):
    line = fake.FeetechLine({1: fake.FeetechServo(0x0518)})
    assert line.take(bytes.fromhex(asked)) == bytes.fromhex(said)


# ---- one family's motors -------------------------------------------------------------------------
@dataclass
class Bench:
    """Two servos, 3 and 7; the second counts the other way and stands half a radian off."""

    family: str
    first: fake.Table
    second: fake.Table
    file: ServoFile
    torque: int  # its register
    alert: dict[Reason, int]  # how the servo itself says it

    def alarm(self, servo: fake.Table, reason: Reason) -> None:
        servo.error = 0x80 if self.family == "dynamixel" else self.alert[reason]
        servo.bytes[70] = self.alert[reason] if self.family == "dynamixel" else servo.bytes[70]

    def torques(self, servo: fake.Table) -> list[int]:
        return [data[0] for _, address, data in servo.heard if address == self.torque]

    def switched_off(self, servo: fake.Table, since: float) -> float:
        """When its torque was first switched off after `since`."""
        return next(
            at for at, address, data in servo.heard
            if address == self.torque and not data[0] and at > since
        )  # fmt: skip


@pytest.fixture(params=["dynamixel", "feetech"])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    zero = 512 * COUNT
    if request.param == "dynamixel":
        dynamixels = {3: fake.DynamixelServo(), 7: fake.DynamixelServo(2048 + 512)}
        line: fake.Line = fake.DynamixelLine(dynamixels)
        first, second, torque = dynamixels[3], dynamixels[7], 64
        alert = {Reason.under_voltage: 1, Reason.over_temperature: 4, Reason.sensor_invalid: 8,
                 Reason.over_current: 32}  # fmt: skip
    else:
        feetechs = {3: fake.FeetechServo(), 7: fake.FeetechServo(2048 + 512)}
        line = fake.FeetechLine(feetechs)
        first, second, torque = feetechs[3], feetechs[7], 40
        alert = {Reason.under_voltage: 1, Reason.over_temperature: 4, Reason.sensor_invalid: 2,
                 Reason.over_current: 32}  # fmt: skip
    with fake.on_a_pty(line) as port:
        file = ServoFile(request.param, port, [Servo(3), Servo(7, zero=zero, sign=-1)],
                         answer_ms=40)  # fmt: skip
        yield Bench(request.param, first, second, file, torque, alert)


def test_what_is_read_is_in_si_and_in_the_axis_sense(bench: Bench):
    servos = open_servos(bench.file)
    bench.second.bytes[56:60] = struct.pack("<HH", 2048 + 512 + 100, 300)
    bench.second.bytes[128:132] = struct.pack("<i", 50)
    bench.second.bytes[132:136] = struct.pack("<i", 2048 + 512 + 100)
    first, second = servos.read()
    servos.close()
    assert first.position == 0.0
    assert second.position == pytest.approx(-100 * COUNT)
    speed = 50 * 0.229 * 2 * np.pi / 60 if bench.family == "dynamixel" else 300 * COUNT
    assert second.velocity == pytest.approx(-speed)
    assert (second.temperature, second.voltage) == (30.0, pytest.approx(12.0))
    assert second.answered
    assert second.valid


def test_it_moves_where_it_is_told_with_torque_on(bench: Bench):
    servos = open_servos(bench.file)
    assert servos.hold([True, True])
    servos.move([0.3, 0.2], [0.0, 0.0], [True, True])
    deadline = time.monotonic() + 2.0
    while servos.read()[0].position == 0.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    positions = [reading.position for reading in servos.read()]
    assert servos.hold([False, False])
    servos.close()
    assert positions == pytest.approx([0.3, 0.2], abs=COUNT)
    assert bench.torques(bench.first) == [0, 1, 0]


def test_a_motor_that_is_not_there_is_named(bench: Bench):
    bench.second.mute = True
    with pytest.raises(LinkError, match="the motor with id 7 does not answer at 1000000 baud"):
        open_servos(bench.file)


@pytest.mark.parametrize("broken", ["mute", "flip"])
def test_an_answer_that_does_not_come_or_is_damaged_is_none(bench: Bench, broken: str):
    servos = open_servos(bench.file)
    setattr(bench.first, broken, True)
    first, second = servos.read()
    servos.close()
    assert not first.answered
    assert second.answered  # whose turn came after it


# ---- moteus, on python-can's virtual bus -----------------------------------------------------
class MoteusBus:
    """Two controllers: the register protocol of moteus' reference manual, of floats and int8."""

    def __init__(self, channel: str) -> None:
        can = pytest.importorskip("can")
        pytest.importorskip("moteus")
        self.registers = {n: {0: 0.0, 1: 0.25, 2: 0.0, 4: 0.0, 13: 24.0, 14: 30.0, 15: 0.0}
                          for n in (1, 2)}  # fmt: skip
        self.mute: set[int] = set()
        self.can = can.Bus(interface="virtual", channel=channel, fd=True)
        self._message = can.Message
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        self.can.shutdown()

    def _serve(self) -> None:
        while not self._end.is_set():
            message = self.can.recv(0.05)
            number = message.arbitration_id & 0x7F if message else 0
            if message is None or number not in self.registers or number in self.mute:
                continue
            reply = self._work(self.registers[number], bytes(message.data))
            if message.arbitration_id & 0x8000:
                self.can.send(self._message(arbitration_id=number << 8, is_extended_id=True,
                                            is_fd=True, data=reply))  # fmt: skip

    def _work(self, registers: dict[int, float], data: bytes) -> bytes:
        """0x00-0x0f write, 0x10-0x1f read; bits 2-3 the type, 0-1 the count (0: the next byte)."""
        at, reply = 0, b""
        while at < len(data):
            code, at = data[at], at + 1
            if code == 0x50:
                continue
            count = code & 3
            if not count:
                count, at = data[at], at + 1
            register, at = data[at], at + 1
            size, form = {0: (1, "b"), 1: (2, "h"), 2: (4, "i"), 3: (4, "f")}[code >> 2 & 3]
            if code & 0xF0 == 0x10:
                values = [registers.get(register + i, 0.0) for i in range(count)]
                packed = struct.pack(
                    f"<{count}{form}", *(v if form == "f" else int(v) for v in values)
                )
                reply += bytes([code + 0x10]) + (b"" if code & 3 else bytes([count]))
                reply += bytes([register]) + packed
                continue
            for i in range(count):
                (registers[register + i],) = struct.unpack_from(f"<{form}", data, at)
                at += size
        if registers[0] == 10.0:  # position mode
            registers[1] = registers.get(0x20, registers[1])
        return reply


@pytest.fixture
def moteus() -> Iterator[MoteusBus]:
    made = MoteusBus("moteus")
    yield made
    made.close()


MOTEUS = ServoFile(
    "moteus", "moteus", [Servo(1), Servo(2, sign=-1)], interface="virtual", answer_ms=40
)


def test_moteus_moves_and_lets_go(moteus: MoteusBus):
    servos = open_servos(MOTEUS)
    assert [r.position for r in servos.read()] == pytest.approx([np.pi / 2, -np.pi / 2])
    assert servos.hold([True, True])
    servos.move([0.3, 0.2], [0.1, 0.0], [True, True])
    deadline = time.monotonic() + 2.0
    while moteus.registers[2][0] != 10.0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [r.position for r in servos.read()] == pytest.approx([0.3, 0.2])
    # Its own dead-man: the command's timeout, 0.1 s; and the speed in turns.
    assert moteus.registers[1][0x27] == pytest.approx(0.1)
    assert moteus.registers[1][0x21] == pytest.approx(0.1 / (2 * np.pi))
    assert servos.hold([False, False])
    servos.close()
    assert (moteus.registers[1][0], moteus.registers[2][0]) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "wrong"),
    [(38, "temperature"), (37, "voltage"), (40, "voltage"), (35, "valid"), (33, "current")],
)
def test_a_moteus_fault_is_a_reading_that_our_checks_refuse(moteus: MoteusBus, fault: int, wrong):
    servos = open_servos(MOTEUS)
    moteus.registers[2] |= {0: 1.0, 15: float(fault)}
    good, bad = servos.read()
    moteus.mute.add(1)
    silent, _ = servos.read()
    servos.close()
    assert getattr(bad, wrong) != getattr(good, wrong)
    assert good.answered
    assert not silent.answered


# ---- the driver process --------------------------------------------------------------------------
@pytest.fixture
def driver(bench: Bench, tmp_path: Path) -> Iterator[Path]:
    """`edge-wm servos` on the bench; gives its socket."""
    path = tmp_path / "servos.yaml"
    lines = [f"family: {bench.file.family}", f"port: {bench.file.port}"]
    lines += [f"answer_ms: {bench.file.answer_ms}", "servos:"]
    lines += [f"  - {{id: {s.id}, zero: {s.zero!r}, sign: {s.sign}}}" for s in bench.file.servos]
    path.write_text("\n".join(lines) + "\n")
    assert read_servo_file(path) == bench.file
    socket = tmp_path / "line"
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_wm", "servos", str(path), "--listen", str(socket)],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "listening" in line:
                break
        else:
            raise AssertionError("the driver ended")
        yield socket
    finally:
        process.send_signal(signal.SIGTERM)
        with process.stderr:
            said = process.stderr.read()
        assert process.wait(timeout=20.0) == 0, said
        assert "torque is off" in said
        assert bench.torques(bench.first)[-1] == 0


class Mover:
    """Arms, and moves both joints at 0.2 rad/s until it is told to stop."""

    def __init__(self, socket: Path) -> None:
        self.link = SerialLink(ARM, link_to(ARM, f"unix:{socket}"))
        self.link.arm()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = self.link.now_ns
        sequence = 0
        while not self._end.wait(0.008):
            now = self.link.now_ns
            times = np.array([now + 5 * MS, now + 25 * MS])
            position = 0.2 * np.outer((times - began) * 1e-9, [1.0, 1.0])
            sequence += 1
            self.link.send(
                Setpoint(
                    epoch=1, sequence=sequence, axes=ARM.axis_names, times_ns=times,
                    position=position, velocity=np.full((2, 2), 0.2),
                    brake_deceleration=np.array([10.0, 15.0]),
                    brake_end_ns=np.full(2, now + 5 * MS + ARM.dead_man_ns + 30 * MS),
                    apply_at_ns=now + 5 * MS, valid_until_ns=now + 5 * MS + ARM.dead_man_ns,
                )
            )  # fmt: skip

    def stop(self) -> float:
        """No more setpoints; when the last was sent."""
        self._end.set()
        self._thread.join()
        return time.monotonic()

    def latched(self, within_s: float = 3.0) -> Reason | None:
        until = time.monotonic() + within_s
        while time.monotonic() < until and self.link.state.reason is None:
            time.sleep(0.005)
        return self.link.state.reason


def wait_for(told, within_s: float = 3.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if told():
            return True
        time.sleep(0.005)
    return False


def test_it_follows_and_when_setpoints_cease_it_brakes_then_lets_go(bench: Bench, driver: Path):
    mover = Mover(driver)
    try:
        offset = 132 if bench.family == "dynamixel" else 56
        assert wait_for(lambda: abs(bench.first.number(offset, 2) - 2048) > 100)
        stopped = mover.stop()
        assert mover.latched() is Reason.setpoint_expired
        both = (bench.first, bench.second)
        assert wait_for(lambda: [bench.torques(servo)[-1] for servo in both] == [0, 0])
        off = max(bench.switched_off(servo, stopped) for servo in both)
    finally:
        mover.stop()
        mover.link.close()
    # Dead-man, braking of 0.2 rad/s at 10 rad/s2, two periods of the bus.
    assert off - stopped <= ARM.dead_man_ns * 1e-9 + 0.02 + 0.02 + SLACK_S
    assert bench.torques(bench.first)[-1] == 0


KILLED = """
import sys, time
from pathlib import Path
from motors.test_motors import Mover
Mover(Path(sys.argv[1])); print("armed", flush=True); time.sleep(60)
"""


def test_the_runtime_is_killed(bench: Bench, driver: Path):
    tests = str(Path(__file__).parents[1])
    host = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{KILLED}", str(driver)],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert host.stdout is not None
    with host.stdout:
        assert host.stdout.readline() == "armed\n"
    assert wait_for(lambda: 1 in bench.torques(bench.second))
    time.sleep(0.3)
    host.kill()
    killed = time.monotonic()
    host.wait()
    assert wait_for(lambda: bench.torques(bench.second)[-1] == 0)
    assert (
        bench.switched_off(bench.second, killed) - killed <= ARM.dead_man_ns * 1e-9 + 0.04 + SLACK_S
    )


@pytest.mark.parametrize(
    "reason",
    [Reason.over_temperature, Reason.over_current, Reason.under_voltage, Reason.sensor_invalid],
)
def test_what_a_motor_says_of_itself_latches_with_its_axis(
    bench: Bench, driver: Path, reason: Reason
):
    mover = Mover(driver)
    try:
        assert wait_for(lambda: 1 in bench.torques(bench.second))
        # Their supply is one reading for all: what the second says must not hide the first.
        bench.alarm(bench.first if reason is Reason.under_voltage else bench.second, reason)
        assert mover.latched() is reason
        (record, *_) = mover.link.faults()
        assert record.axis == (255 if reason is Reason.under_voltage else 1)
        assert wait_for(lambda: bench.torques(bench.first)[-1] == 0)
    finally:
        mover.stop()
        mover.link.close()


@pytest.mark.parametrize("broken", ["mute", "flip"])
def test_a_motor_that_falls_silent_or_is_not_understood_stops_all(
    bench: Bench, driver: Path, broken: str
):
    mover = Mover(driver)
    try:
        assert wait_for(lambda: 1 in bench.torques(bench.second))
        setattr(bench.second, broken, True)
        assert mover.latched() is Reason.sensor_lost
        (record, *_) = mover.link.faults()
        assert record.axis == 1
        assert wait_for(lambda: bench.torques(bench.first)[-1] == 0)
        setattr(bench.second, broken, False)
        # It is asked until it has confirmed.
        assert wait_for(lambda: bench.torques(bench.second)[-1] == 0)
    finally:
        mover.stop()
        mover.link.close()


# ---- the servo file ------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("family: futaba\nport: x\nservos: [{id: 1}]", "Invalid enum value 'futaba'"),
        ("family: feetech\nport: x\nservos: []", "servos must be 1 to 8, found 0"),
        ("family: feetech\nport: x\nservos: [{id: 1}, {id: 1}]", "must have an id of its own"),
        ("family: feetech\nport: x\nservos: [{id: 1, gear: 2}]", "unknown field `gear`"),
        ("family: feetech\nport: x\nservos: [{id: 1, sign: 0}]", "sign must be 1 or -1"),
        ("family: feetech\nport: x\nperiod_ms: 50\nservos: [{id: 1}]", "2 to 20, found 50"),
        ("family: [", "servo file"),
    ],
)
def test_a_wrong_servo_file_is_one_sentence(tmp_path: Path, text: str, sentence: str):
    path = tmp_path / "servos.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence.replace("[", r"\[")):
        read_servo_file(path)
