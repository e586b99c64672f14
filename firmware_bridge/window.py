"""The window between a plant and the firmware, as the plant sees it: mcu/port/window.h's mirror.

    plant (here)                                    firmware (another process, QEMU, a library)
    inputs, bytes ──► window, then tick + 1  ──►    sees it, works one millisecond
    outputs, bytes ◄── window                ◄──    writes them, then tick_done = tick

Positions are urad or um, velocities urad/s or um/s, torques mN m or mN, as in window.h, which draws
the layout. The invariant: each side writes its own fields only, and its counter (tick, tick_done,
a ring's written and read) last; so what a counter says is there, is there. CPython stores in the
order of the source, and x86 keeps the order of stores; on a processor that does not, `turn` in
lockstep.py hands over through a system call anyway once it has to wait.
"""

from __future__ import annotations

import ctypes
import mmap
import os

BYTES = 65536
RING = 16384
MAGIC = 0x574D5745  # written by the firmware when it has started
BOARDS = {"arm": 1, "rover": 2, "servos": 3}
# Bits of AxisIn.flags: the reading is valid, and the sensor answered.
POSITION, CURRENT, TEMPERATURE, ANSWERED = 1, 2, 4, 8
GOOD = POSITION | CURRENT | TEMPERATURE | ANSWERED
NOMINAL_BUS_MV, NOMINAL_TEMPERATURE = 24_000, 250  # 0.1 degC


class AxisIn(ctypes.LittleEndianStructure):
    """What the plant measures on one axis."""

    _pack_ = 1
    _fields_ = (
        ("position", ctypes.c_int32),
        ("velocity", ctypes.c_int32),
        ("current_mA", ctypes.c_int32),
        ("temperature", ctypes.c_int16),  # 0.1 degC
        ("flags", ctypes.c_uint8),
        ("reserved", ctypes.c_uint8),
    )


class AxisOut(ctypes.LittleEndianStructure):
    """What the firmware asks of one axis."""

    _pack_ = 1
    _fields_ = (
        ("torque", ctypes.c_int32),
        ("reference_position", ctypes.c_int32),
        ("reference_velocity", ctypes.c_int32),
    )


class Ring(ctypes.LittleEndianStructure):
    """Bytes on their way: `written` and `read` count for ever, modulo 2^32."""

    _pack_ = 1
    _fields_ = (
        ("written", ctypes.c_uint32),
        ("read", ctypes.c_uint32),
        ("reserved", ctypes.c_uint32 * 2),
        ("data", ctypes.c_uint8 * RING),
    )

    def put(self, data: bytes) -> int:
        """Append what fits; returns how many bytes did."""
        waiting = (self.written - self.read) & 0xFFFFFFFF
        data = data[: RING - waiting]
        at = self.written % RING
        first = min(len(data), RING - at)
        start = ctypes.addressof(self.data)
        ctypes.memmove(start + at, data[:first], first)
        ctypes.memmove(start, data[first:], len(data) - first)
        self.written += len(data)
        return len(data)

    def take(self) -> bytes:
        """All that waits."""
        count = (self.written - self.read) & 0xFFFFFFFF
        at = self.read % RING
        first = min(count, RING - at)
        start = ctypes.addressof(self.data)
        data = ctypes.string_at(start + at, first) + ctypes.string_at(start, count - first)
        self.read += count
        return data


class Window(ctypes.LittleEndianStructure):
    """See the head of this file. `Window()` is memory of this process, `Window.of(path)` a file."""

    _pack_ = 1
    _fields_ = (
        ("magic", ctypes.c_uint32),
        ("version", ctypes.c_uint32),
        ("layout", ctypes.c_uint32),  # the firmware's size of this struct
        ("board", ctypes.c_uint32),
        ("tick", ctypes.c_uint32),
        ("tick_done", ctypes.c_uint32),
        ("time_us", ctypes.c_uint64),
        ("boots", ctypes.c_uint32),
        ("servos", ctypes.c_uint8),  # how many, on that board
        ("reserved0", ctypes.c_uint8 * 27),
        ("axis_in", AxisIn * 8),
        ("bus_mV", ctypes.c_uint32),
        ("estop_open", ctypes.c_uint8),
        ("inject", ctypes.c_uint8),
        ("reserved1", ctypes.c_uint8 * 58),
        ("axis_out", AxisOut * 8),
        ("torque_enable", ctypes.c_uint32),
        ("reason", ctypes.c_uint16),
        ("mode", ctypes.c_uint8),
        ("fault_axis", ctypes.c_uint8),
        ("damp", ctypes.c_uint8),
        ("braking", ctypes.c_uint8),
        ("reset_cause", ctypes.c_uint8),
        ("reserved_2a", ctypes.c_uint8),
        ("unfed_us", ctypes.c_uint32),
        ("reserved2", ctypes.c_uint8 * 144),
        ("no_init", ctypes.c_uint8 * 3584),
        ("to_device", Ring),
        ("reserved3", ctypes.c_uint8 * 4080),
        ("to_host", Ring),
        ("reserved4", ctypes.c_uint8 * 24560),
    )

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Window:
        """The window at the start of the file `path`, shared with whoever maps it too."""
        with open(path, "r+b") as file:
            return cls.from_buffer(mmap.mmap(file.fileno(), BYTES))

    def prepare(self, board: str, axes: int = 2) -> None:
        """Before the firmware starts: which `board` it is, at rest, with good readings."""
        self.board = BOARDS[board]
        self.bus_mV = NOMINAL_BUS_MV
        for reading in self.axis_in[:axes]:
            reading.temperature, reading.flags = NOMINAL_TEMPERATURE, GOOD

    def outputs(self) -> bytes:
        """All that the firmware drives and tells in this millisecond, for a trace."""
        return ctypes.string_at(ctypes.addressof(self) + Window.axis_out.offset, 108)


assert ctypes.sizeof(Window) == BYTES
assert (Window.axis_in.offset, Window.axis_out.offset) == (64, 256)
assert (Window.no_init.offset, Window.to_device.offset, Window.to_host.offset) == (512, 4096, 24576)
