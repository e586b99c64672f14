"""Writes firmware_bridge/messages.py from the link's schema: generate_wire.py [--check]

The schema is DSDL (firmware_bridge/mcu/protocol/edge_wire). The firmware's C comes from nunavut
when it is built; nunavut's Python, though, restores a pickle when it is imported and needs pydsdl
on the robot, so the host's classes are written here, from the same files, and held against
nunavut's in tests/link/test_messages.py. --check writes nothing and exits 1 if the file is not up
to date.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pydsdl

REPOSITORY = Path(__file__).resolve().parent.parent
SCHEMA = REPOSITORY / "firmware_bridge" / "mcu" / "protocol" / "edge_wire"
OUT = REPOSITORY / "firmware_bridge" / "messages.py"
LETTERS = {
    ("uint", 8): "B", ("uint", 16): "H", ("uint", 32): "I", ("uint", 64): "Q",
    ("int", 8): "b", ("int", 16): "h", ("int", 32): "i", ("int", 64): "q",
}  # fmt: skip
HEAD = '''"""The link's messages, written by scripts/generate_wire.py from the schema; do not edit.

Every message has a fixed size. Numbers are integers in the units that the schema names beside them
(firmware_bridge/mcu/protocol/edge_wire); `Message` says how they become bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from firmware_bridge.message import Field, Message

SCHEMA_HASH = {hash:#010x}  # of the schema's files, without comments; see `schema_hash`
'''
TAIL = """
BY_ID: dict[int, type[Message]] = {{
{entries}
}}
"""


def schema_hash(folder: Path) -> int:
    """The first four bytes, little-endian, of the SHA-256 over the files without their comments."""
    found = hashlib.sha256()
    for file in sorted(folder.glob("*.dsdl")):
        lines = (line.split("#")[0].split() for line in file.read_text().splitlines())
        text = "\n".join(" ".join(words) for words in lines if words)
        found.update(file.name.encode() + b"\0" + text.encode() + b"\0")
    return int.from_bytes(found.digest()[:4], "little")


def text_of(folder: Path) -> str:
    """The whole module."""
    types = pydsdl.read_namespace(folder, [])
    parts = [HEAD.format(hash=schema_hash(folder))]
    entries = []
    for kind in _in_order(types):
        parts.append(_class_text(kind))
        ids = [c.value.native_value for c in kind.constants if c.name == "ID"]
        if ids:
            entries.append((int(ids[0]), f"    {int(ids[0])}: {kind.short_name},"))
    parts.append(TAIL.format(entries="\n".join(line for _, line in sorted(entries))))
    return _formatted("\n".join(parts))


def _in_order(types: list[pydsdl.CompositeType]) -> list[pydsdl.CompositeType]:
    """Those that others consist of first."""
    done: list[pydsdl.CompositeType] = []

    def add(kind: pydsdl.CompositeType) -> None:
        for field in kind.fields:
            inner = getattr(field.data_type, "element_type", field.data_type)
            if isinstance(inner, pydsdl.CompositeType):
                add(inner)
        if kind not in done:
            done.append(kind)

    for kind in types:
        add(kind)
    return done


def _class_text(kind: pydsdl.CompositeType) -> str:
    lines = ["", "@dataclass(frozen=True, slots=True)", f"class {kind.short_name}(Message):"]
    doc = " ".join(kind.doc.split())
    if doc:
        lines += [f'    """{doc}"""', ""]
    for constant in kind.constants:
        lines.append(f"    {constant.name}: ClassVar[int] = {int(constant.value.native_value)}")
    fields = []
    for field in kind.fields:
        data, count = field.data_type, 0
        if isinstance(data, pydsdl.FixedLengthArrayType):
            data, count = data.element_type, data.capacity
        letter, python = _kind_of(data)
        fields.append(f'        Field("{field.name}", {letter}, {count}),')
        python = f"tuple[{python}, ...]" if count else python
        lines.append(f"    {field.name}: {python}")
    lines += ["    FIELDS: ClassVar[tuple[Field, ...]] = (", *fields, "    )"]
    lines.append(f"    SIZE: ClassVar[int] = {kind.extent // 8}")
    return "\n".join(lines) + "\n"


def _kind_of(data: pydsdl.SerializableType) -> tuple[str, str]:
    """(what `Field.kind` is, the Python type)."""
    if isinstance(data, pydsdl.CompositeType):
        return data.short_name, data.short_name
    if isinstance(data, pydsdl.UnsignedIntegerType):
        return f'"{LETTERS["uint", data.bit_length]}"', "int"
    assert isinstance(data, pydsdl.SignedIntegerType), data
    return f'"{LETTERS["int", data.bit_length]}"', "int"


def _formatted(text: str) -> str:
    """As ruff would write it, where ruff is."""
    command = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(OUT), "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return done.stdout


def main() -> int:
    text = text_of(SCHEMA)
    if "--check" in sys.argv[1:]:
        same = OUT.is_file() and OUT.read_text() == text
        print(f"{OUT.name}: {'up to date' if same else 'not up to date; run generate_wire.py'}")
        return 0 if same else 1
    OUT.write_text(text)
    print(f"{OUT} written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
