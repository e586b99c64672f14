"""Tests the link's messages: the same bytes in Python, in nunavut's Python and in nunavut's C."""

from __future__ import annotations

import ctypes
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge_wm.errors import FormatError, UsageError
from firmware_bridge import messages
from firmware_bridge.message import Message
from firmware_bridge.messages import BY_ID, AxisCommand, Command, Disarm, Hello, Limits, Reset
from link.conftest import REPOSITORY, nunavut

KINDS = [
    kind for kind in vars(messages).values()
    if isinstance(kind, type) and issubclass(kind, Message) and kind is not Message
]  # fmt: skip
# Run with nunavut's modules on the path: names and random bytes in, field values and bytes out.
THEIRS = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
import nunavut_support as n

def plain(value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, (int, float)):
        return value
    return {f: plain(getattr(value, f)) for f in vars(value) and
            [k.lstrip("_") for k in vars(value)]}

told = []
for name, text in json.load(sys.stdin):
    kind = getattr(importlib.import_module(f"edge_wire.{name}_1_0"), f"{name}_1_0")
    made = n.deserialize(kind, [memoryview(bytes.fromhex(text))])
    told.append((plain(made) if text else {}, b"".join(map(bytes, n.serialize(made))).hex()))
json.dump(told, sys.stdout)
"""


def ours(message: Message) -> dict:
    """A message's fields, as THEIRS writes them."""
    found = {}
    for field in message.FIELDS:
        value = getattr(message, field.name)
        items = list(value) if field.count else [value]
        told = [ours(item) if isinstance(item, Message) else item for item in items]
        found[field.name] = told if field.count else told[0]
    return found


def draw(seed: int) -> list[tuple[type[Message], bytes]]:
    generator = random.Random(seed)
    edges = [b"\0", b"\xff", b"\x80", b"\x7f"]
    found = []
    for kind in KINDS:
        found += [(kind, edge * kind.SIZE) for edge in edges]
        found += [(kind, generator.randbytes(kind.SIZE)) for _ in range(20)]
    return found


def test_all_messages_are_there_and_none_is_too_long():
    names = {file.name.split(".")[0] for file in (Path(__file__).parents[2] / "firmware_bridge" /
             "mcu" / "protocol" / "edge_wire").glob("*.dsdl")}  # fmt: skip
    assert {kind.__name__ for kind in KINDS} == names
    assert sorted(BY_ID) == list(range(1, 18))
    assert all(kind.SIZE <= 240 for kind in KINDS)
    assert Command.SIZE <= 200


def test_bytes_and_values_are_those_of_nunavuts_python(tmp_path: Path):
    cases = draw(1)
    asked = json.dumps([(kind.__name__, data.hex()) for kind, data in cases])
    done = subprocess.run(
        [sys.executable, "-c", THEIRS, str(nunavut("py", tmp_path / "py"))],
        input=asked, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for (kind, data), (values, back) in zip(cases, json.loads(done.stdout), strict=True):
        message = kind.unpack(data)
        assert ours(message) == values, kind.__name__
        assert message.pack() == data == bytes.fromhex(back), kind.__name__


def test_bytes_are_those_of_nunavuts_c(ends: ctypes.CDLL):
    for kind, data in draw(2):
        out = ctypes.create_string_buffer(300)
        through = getattr(ends, f"through_{kind.__name__}")
        size = through(data, ctypes.c_size_t(len(data)), out, ctypes.c_size_t(300))
        assert out.raw[:size] == data == kind.unpack(data).pack(), kind.__name__


def test_a_message_by_hand():
    assert Hello(nonce=0x01020304).pack() == bytes([4, 3, 2, 1])
    assert Disarm().pack() == b""
    axis = AxisCommand((-1, 2), (3, -4), 5, 6)
    assert axis.pack() == b"".join(
        value.to_bytes(4, "little", signed=True) for value in (-1, 2, 3, -4, 5)
    ) + bytes([6, 0])
    assert Command.unpack(Command(1, 2, 3, 4, 1, (axis,) * 8).pack()).axis[7] == axis


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Reset(-1), "Reset.reason: must be a whole number 0 to 65535, got -1"),
        (lambda: Reset(65536), "Reset.reason: must be a whole number 0 to 65535, got 65536"),
        (lambda: Reset(1.0), "Reset.reason: must be a whole number 0 to 65535, got 1.0"),
        (
            lambda: AxisCommand((2**31, 0), (0, 0), 1, 1),
            "AxisCommand.position[0]: must be a whole number -2147483648 to 2147483647, got "
            "2147483648",
        ),
        (lambda: Limits(2, 1, 0, 0, ()), "Limits.axis: must have 8 items, got 0"),
        (
            lambda: Command(1, 2, 3, 4, 1, (AxisCommand((0, 0), (0, 0), -5, 1),) * 8),
            "Command.axis[0].brake_deceleration: must be a whole number 0 to 4294967295, got -5",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(make, sentence: str):
    with pytest.raises(UsageError) as error:
        make().pack()
    assert str(error.value) == sentence


def test_another_size_is_refused():
    with pytest.raises(FormatError) as error:
        Hello.unpack(b"12345")
    assert str(error.value) == (
        "Hello: must have 4 bytes, got 5; both ends must speak the same schema"
    )


def test_the_generated_file_is_up_to_date():
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts" / "generate_wire.py", "--check"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
