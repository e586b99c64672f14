"""firmware_bridge.messages: made from the schema, and byte for byte what nunavut makes of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from edge_wm.errors import UsageError
from firmware_bridge import messages
from firmware_bridge.messages import MESSAGES, AxisCommand, Command, EmergencyStop, Limits, Ping

REPOSITORY = Path(__file__).resolve().parents[2]
SCHEMA = REPOSITORY / "firmware_bridge" / "mcu" / "protocol" / "edge_wire"
KINDS = {name: kind for name, kind in vars(messages).items() if hasattr(kind, "STRUCT")}

# Fills every message of every type with the given bytes' values, with nunavut's own code.
NUNAVUT = """
import json, sys, nunavut_support
from importlib import import_module
for line in sys.stdin:
    name, data = line.split()
    kind = getattr(import_module("edge_wire"), name + "_1_0")
    value = nunavut_support.deserialize(kind, [memoryview(bytes.fromhex(data))])
    again = b"".join(bytes(part) for part in nunavut_support.serialize(value))
    print(json.dumps([nunavut_support.to_builtin(value), again.hex()]))
"""


def test_the_file_is_made_from_the_schema():
    done = subprocess.run(
        [sys.executable, "scripts/generate_wire.py", "--check"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_schema_hash_ignores_comments_and_blank_lines():
    digest = hashlib.sha256()
    for name in sorted(path.name for path in SCHEMA.iterdir()):
        kept = []
        for line in (SCHEMA / name).read_text().split("\n"):
            code = line.partition("#")[0].rstrip()
            kept += [code] if code else []
        digest.update(f"{name}\0{chr(10).join(kept)}\0".encode())
    assert int.from_bytes(digest.digest()[:4], "little") == messages.SCHEMA_HASH


def test_every_type_of_the_schema_is_there_and_none_besides():
    assert set(KINDS) == {path.name.split(".")[0] for path in SCHEMA.glob("*.dsdl")}
    assert len(MESSAGES) == 17
    assert all(number == kind.ID for number, kind in MESSAGES.items())
    assert max(kind.SIZE for kind in KINDS.values()) <= 240
    assert Command.SIZE <= 200


@pytest.fixture(scope="module")
def nunavut(tmp_path_factory):
    """Serializes and reads with nunavut's Python, in a process of its own (it needs a pickle)."""
    pytest.importorskip("nunavut")
    out = tmp_path_factory.mktemp("nunavut")
    subprocess.run(
        [sys.executable, "-m", "nunavut", "--target-language", "py", "--outdir", out, SCHEMA],
        check=True,
        capture_output=True,
    )

    def ask(pairs):
        text = "".join(f"{name} {data.hex()}\n" for name, data in pairs if data)
        done = subprocess.run(
            [sys.executable, "-c", NUNAVUT], input=text, capture_output=True, text=True, cwd=out
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return ask


def plain(value):
    """Our message as nunavut writes its own in plain values."""
    if isinstance(value, bytes | tuple):
        return [plain(one) for one in value]
    if isinstance(value, int):
        return value
    names = [field.name for field in dataclasses.fields(value)]
    return {name: plain(getattr(value, name)) for name in names}


def test_bytes_and_values_are_nunavuts(nunavut):
    noise = random.Random(20260101)
    pairs = []
    for name, kind in KINDS.items():
        samples = [bytes(kind.SIZE), b"\xff" * kind.SIZE]
        samples += [noise.randbytes(kind.SIZE) for _ in range(40)]
        pairs += [(name, data) for data in samples if data]
    answers = nunavut(pairs)
    assert len(answers) == len(pairs) > 700
    for (name, data), (values, again) in zip(pairs, answers, strict=True):
        ours = KINDS[name].unpack(data)
        assert ours.pack() == data == bytes.fromhex(again), name
        assert plain(ours) == values, name


def test_an_empty_message_is_no_bytes():
    assert EmergencyStop().pack() == b""
    assert EmergencyStop.unpack(b"") == EmergencyStop()


REST = AxisCommand((0, 0), (0, 0), 1, 1)


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        (
            lambda: Command(0, 1 << 64, 1, 1, 1, (REST,) * 8),
            "Command.apply_at_us must be a whole number from 0 to 18446744073709551615, got "
            "18446744073709551616; limit it before it is encoded",
        ),
        (
            lambda: Command(0, 1, 1, 1, 1, (REST,) * 7),
            "Command.axis must hold 8 values, got 7; fill it up with zeros",
        ),
        (
            lambda: AxisCommand((0, 1 << 31), (0, 0), 1, 1),
            "AxisCommand.position[1] must be a whole number from -2147483648 to 2147483647, got "
            "2147483648; limit it before it is encoded",
        ),
        (
            lambda: Command(0, 1, 1, 1, 1, (*(REST,) * 7, AxisCommand((0, 0), (0, 0), -1, 1))),
            "AxisCommand.brake_deceleration must be a whole number from 0 to 4294967295, got -1; "
            "limit it before it is encoded",
        ),
        (
            lambda: AxisCommand((0, 0), (0, float("nan")), 1, 1),
            "AxisCommand.velocity[1] must be a whole number from -2147483648 to 2147483647, got "
            "nan; limit it before it is encoded",
        ),
        (
            lambda: AxisCommand((0,), (0, 0, 0), 1, 1),
            "AxisCommand.position must hold 2 values, got 1; fill it up with zeros",
        ),
        (lambda: Ping(b"x"), "Ping.data must hold 35 values, got 1; fill it up with zeros"),
        (
            lambda: Limits(1, 1, 1, 70_000, ()),
            "Limits.bus_max_mV must be a whole number from 0 to 65535, got 70000; limit it before "
            "it is encoded",
        ),
    ],
)
def test_what_does_not_fit_is_refused(message, complaint):
    with pytest.raises(UsageError) as caught:
        message().pack()
    assert str(caught.value) == complaint
