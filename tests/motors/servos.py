"""Bought servos as bytes on a PTY, written from the vendors' protocol pages, not from their SDKs.

A servo moves to its goal at once while its torque is on. `trouble` makes it answer as if something
were wrong; everything that changes its torque or goal is kept with the time, in `heard`.
"""

from __future__ import annotations

import os
import pty
import select
import threading
import time
import tty
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# Ids: the broadcast, and one that no servo has, for a frame that is damaged.
EVERYBODY, NOBODY = 0xFE, 0xFF


class Table:
    """One servo's memory, and what it was told."""

    def __init__(self, size: int) -> None:
        self.bytes = bytearray(size)
        self.mute = False
        self.flip = False  # one bit of every answer
        self.error = 0  # of the status packet
        self.heard: list[tuple[float, int, bytes]] = []  # (time, address, bytes written)

    def write(self, address: int, data: bytes) -> None:
        self.heard.append((time.monotonic(), address, data))
        self.bytes[address : address + len(data)] = data

    def number(self, address: int, size: int) -> int:
        return int.from_bytes(self.bytes[address : address + size], "little", signed=size == 4)


class Line:
    """All servos of a bus: bytes in, bytes out. Both families have the same instructions."""

    width = 0  # bytes of an address, and of a length
    pong = b""  # what a ping is answered with

    def __init__(self, servos: Mapping[int, Table]) -> None:
        self.servos = servos
        self.got = b""

    def take(self, data: bytes) -> bytes:
        self.got += data
        said = b""
        while (frame := self.cut()) is not None:
            said += self._serve(*frame)
        return said

    def cut(self) -> tuple[int, bytes] | None:
        """The next frame out of `got`: id and body (instruction, parameters); None: not yet."""
        raise NotImplementedError

    def spell(self, number: int, servo: Table, data: bytes) -> bytes:
        """A status packet."""
        raise NotImplementedError

    def _serve(self, number: int, body: bytes) -> bytes:
        instruction, rest, width = body[0], body[1:], self.width
        first, second = (int.from_bytes(rest[i : i + width], "little") for i in (0, width))
        if number == EVERYBODY and instruction == 0x83:  # sync write: nobody answers
            for at in range(2 * width, len(rest), second + 1):
                if rest[at] in self.servos:
                    self.servos[rest[at]].write(first, rest[at + 1 : at + 1 + second])
            return b""
        servo = self.servos.get(number)
        if servo is None or servo.mute:
            return b""
        data = self.pong if instruction == 0x01 else b""
        if instruction == 0x02:
            data = bytes(servo.bytes[first : first + second])
        elif instruction == 0x03:
            servo.write(first, rest[width:])
        return self.spell(number, servo, data)


# ---- Dynamixel, protocol 2.0 -----------------------------------------------------------------
def crc16(data: bytes) -> int:
    """CRC-16 (BUYPASS): polynomial 0x8005, start 0, bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc


class DynamixelServo(Table):
    """An XM430's control table."""

    def __init__(self, count: int = 2048) -> None:
        super().__init__(256)
        self.bytes[132:136] = count.to_bytes(4, "little", signed=True)
        self.bytes[144:147] = (120).to_bytes(2, "little") + bytes([30])

    def write(self, address: int, data: bytes) -> None:
        super().write(address, data)
        if address == 64 and data[0]:  # torque on: the goal becomes where it stands
            self.bytes[116:120] = self.bytes[132:136]
        if self.bytes[64]:
            self.bytes[132:136] = self.bytes[116:120]


def dynamixel_frame(number: int, body: bytes) -> bytes:
    """Header, id, length, body (stuffed), CRC."""
    stuffed = body.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    frame = b"\xff\xff\xfd\x00" + bytes([number]) + (len(stuffed) + 2).to_bytes(2, "little")
    frame += stuffed
    return frame + crc16(frame).to_bytes(2, "little")


class DynamixelLine(Line):
    width = 2
    pong = b"\xfc\x03\x2d"  # model number 1020, firmware 45

    def cut(self) -> tuple[int, bytes] | None:
        at = self.got.find(b"\xff\xff\xfd\x00")
        if at < 0 or len(self.got) < at + 7:
            return None
        end = at + 7 + int.from_bytes(self.got[at + 5 : at + 7], "little")
        if len(self.got) < end:
            return None
        frame, self.got = self.got[at:end], self.got[end:]
        whole = crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little")
        body = frame[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
        return (frame[4], body) if whole else (NOBODY, body)

    def spell(self, number: int, servo: Table, data: bytes) -> bytes:
        frame = bytearray(dynamixel_frame(number, bytes([0x55, servo.error]) + data))
        if servo.flip:
            frame[8] ^= 0x10  # the error byte
        return bytes(frame)


# ---- Feetech, STS ----------------------------------------------------------------------------
class FeetechServo(Table):
    """An STS3215's memory table."""

    def __init__(self, count: int = 2048) -> None:
        super().__init__(128)
        self.bytes[56:58] = count.to_bytes(2, "little")
        self.bytes[62:64] = bytes([120, 30])

    def write(self, address: int, data: bytes) -> None:
        super().write(address, data)
        if self.bytes[40] and address != 40:
            self.bytes[56:58] = self.bytes[42:44]


def feetech_frame(number: int, body: bytes) -> bytes:
    """Header, id, length, body, checksum."""
    inner = bytes([number, len(body) + 1]) + body
    return b"\xff\xff" + inner + bytes([~sum(inner) & 0xFF])


class FeetechLine(Line):
    width = 1
    pong = b""

    def cut(self) -> tuple[int, bytes] | None:
        at = self.got.find(b"\xff\xff")
        if at < 0 or len(self.got) < at + 4 or len(self.got) < at + 4 + self.got[at + 3]:
            return None
        end = at + 4 + self.got[at + 3]
        frame, self.got = self.got[at:end], self.got[end:]
        whole = sum(frame[2:]) & 0xFF == 0xFF
        return (frame[2], frame[4:-1]) if whole else (NOBODY, frame[4:-1])

    def spell(self, number: int, servo: Table, data: bytes) -> bytes:
        frame = bytearray(feetech_frame(number, bytes([servo.error]) + data))
        if servo.flip:
            frame[4] ^= 0x10
        return bytes(frame)


@contextmanager
def on_a_pty(line: Line) -> Iterator[str]:
    """Serve `line` on a PTY; gives its name."""
    master, slave = pty.openpty()
    tty.setraw(master)
    end = threading.Event()

    def serve() -> None:
        while not end.is_set():
            if select.select([master], [], [], 0.05)[0] and (
                said := line.take(os.read(master, 4096))
            ):
                os.write(master, said)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield os.ttyname(slave)
    finally:
        end.set()
        thread.join()
        os.close(master)
        os.close(slave)
