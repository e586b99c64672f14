"""How a message of the link becomes bytes: fixed layout, little-endian, no padding, integers only.

A message class lists its fields (`messages.py`, which is generated); this packs and unpacks them.
The invariant: what does not fit into its field is refused with the field's name, never cut off.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from edge_wm.errors import FormatError, UsageError

Self = TypeVar("Self", bound="Message")
SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8}  # bytes, of `struct`
RANGES = {
    letter: (-(1 << (8 * size - 1)), (1 << (8 * size - 1)) - 1)
    if letter.islower()
    else (0, (1 << (8 * size)) - 1)
    for letter, size in SIZES.items()
}


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a message."""

    name: str
    kind: str | type[Message]  # a letter of `struct`, or another message
    count: int  # 0: one; else an array of so many


class Message:
    """Base of all messages; see the head of this file."""

    __slots__ = ()
    FIELDS: ClassVar[tuple[Field, ...]] = ()
    SIZE: ClassVar[int] = 0  # bytes
    ID: ClassVar[int] = 0  # on the wire; 0 for what is only a part of others

    def pack(self) -> bytes:
        """The message's bytes. Raises: UsageError, naming the field that does not fit."""
        numbers: list[int] = []
        _flatten(self, type(self).__name__, numbers)
        return _layout(type(self)).pack(*numbers)

    @classmethod
    def unpack(cls: type[Self], data: bytes | memoryview) -> Self:
        """The inverse of `pack`. Raises: FormatError, if the size is another."""
        if len(data) != cls.SIZE:
            raise FormatError(
                f"{cls.__name__}: must have {cls.SIZE} bytes, got {len(data)}; both ends must "
                "speak the same schema"
            )
        return _made(cls, iter(_layout(cls).unpack(data)))


_LAYOUTS: dict[type[Message], struct.Struct] = {}


def _layout(kind: type[Message]) -> struct.Struct:
    layout = _LAYOUTS.get(kind)
    if layout is None:
        layout = _LAYOUTS[kind] = struct.Struct("<" + _letters(kind))
        assert layout.size == kind.SIZE, kind
    return layout


def _letters(kind: type[Message]) -> str:
    found = ""
    for field in kind.FIELDS:
        one = field.kind if isinstance(field.kind, str) else _letters(field.kind)
        found += one * (field.count or 1)
    return found


def _flatten(message: Message, path: str, numbers: list[int]) -> None:
    for field in message.FIELDS:
        value: Any = getattr(message, field.name)
        items = value if field.count else (value,)
        where = f"{path}.{field.name}"
        if len(items) != (field.count or 1):
            raise UsageError(f"{where}: must have {field.count} items, got {len(items)}")
        for index, item in enumerate(items):
            place = f"{where}[{index}]" if field.count else where
            if not isinstance(field.kind, str):
                _flatten(item, place, numbers)
                continue
            low, high = RANGES[field.kind]
            if not isinstance(item, int) or not low <= item <= high:
                raise UsageError(f"{place}: must be a whole number {low} to {high}, got {item!r}")
            numbers.append(item)


def _made(kind: type[Self], numbers: Iterator[int]) -> Self:
    values: dict[str, Any] = {}
    for field in kind.FIELDS:
        items = tuple(
            next(numbers) if isinstance(field.kind, str) else _made(field.kind, numbers)
            for _ in range(field.count or 1)
        )
        values[field.name] = items if field.count else items[0]
    return kind(**values)
