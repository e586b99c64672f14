"""Tidy a program up: activations into the layers before them, what nobody reads away, numbers
dense and in the order of first use, so that the same graph gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, get_args

import msgspec

from edge_wm.bundle.program import (
    Activation,
    Dense,
    Norm,
    Operation,
    Port,
    Program,
    Register,
    Rows,
    Segment,
    Unary,
    View,
    accesses,
)
from edge_wm.types import Array


def finished(
    inputs: tuple[Port, ...],
    outputs: tuple[Port, ...],
    registers: list[Register],
    operations: list[Operation],
    constants: list[Array],
) -> Program:
    """The program, tidied up."""
    operations = _activated(operations, registers, {port.register for port in outputs})
    operations = _read(operations, {port.register for port in outputs})
    used = dict.fromkeys(port.register for port in inputs)
    for operation in operations:
        used |= dict.fromkeys(access.register for access in accesses(operation))
    used |= dict.fromkeys(port.register for port in outputs)
    numbers = {old: new for new, old in enumerate(used)}
    held: dict[int, int] = {}

    def constant(index: int | None) -> int | None:
        return None if index is None else held.setdefault(index, len(held))

    kept = tuple(
        msgspec.structs.replace(registers[old], constant=constant(registers[old].constant))
        for old in used
    )
    done = tuple(_renumbered(operation, numbers, constant) for operation in operations)
    return Program(
        tuple(msgspec.structs.replace(p, register=numbers[p.register]) for p in inputs),
        tuple(msgspec.structs.replace(p, register=numbers[p.register]) for p in outputs),
        kept,
        done,
        tuple(constants[index] for index in held),
    )


def _activated(
    operations: list[Operation], registers: list[Register], outputs: Iterable[int]
) -> list[Operation]:
    """Dense layers and norms with the activation that alone reads all that they write."""
    writers: dict[int, list[int]] = {}
    readers: dict[int, list[int]] = {}
    for index, operation in enumerate(operations):
        for access in accesses(operation):
            (writers if access.writes else readers).setdefault(access.register, []).append(index)
    done: list[Operation | None] = list(operations)
    kinds = get_args(Activation)
    for index, operation in enumerate(operations):
        if not isinstance(operation, Unary) or operation.kind not in kinds:
            continue
        register = operation.x.register
        whole = operation.x.offset == 0 and operation.size == registers[register].width
        layers = writers.get(register, [])
        if register in outputs or not whole or readers[register] != [index] or not layers:
            continue
        parts = [done[layer] for layer in layers]
        if all(isinstance(part, Dense | Norm) and part.activation == "none" for part in parts):
            for layer, part in zip(layers, parts, strict=True):
                out = msgspec.structs.replace(part.out, register=operation.out.register)  # type: ignore[union-attr]
                done[layer] = msgspec.structs.replace(part, out=out, activation=operation.kind)  # type: ignore[type-var]
            writers[operation.out.register] = layers
            done[index] = None
    return [operation for operation in done if operation is not None]


def _read(operations: list[Operation], outputs: Iterable[int]) -> list[Operation]:
    """Only the operations that an output depends on."""
    needed, kept = set(outputs), []
    for operation in reversed(operations):
        touched = list(accesses(operation))
        if any(access.writes and access.register in needed for access in touched):
            needed.update(access.register for access in touched if not access.writes)
            kept.append(operation)
    return kept[::-1]


_CONSTANTS = ("weight", "bias", "scale", "table")


def _renumbered(part: Any, numbers: Mapping[int, int], constant: Any) -> Any:
    """An operation, or a part of one, with the new numbers of its registers and constants."""
    if not isinstance(part, msgspec.Struct):
        return part
    changes: dict[str, Any] = {}
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, Rows | View | Segment):
            changes[name] = _renumbered(value, numbers, constant)
        elif isinstance(value, tuple) and value and isinstance(value[0], Segment):
            changes[name] = tuple(_renumbered(item, numbers, constant) for item in value)
        elif name == "register":
            changes[name] = numbers[value]
        elif name in _CONSTANTS and not isinstance(value, float):
            changes[name] = constant(value)
    return msgspec.structs.replace(part, **changes)
