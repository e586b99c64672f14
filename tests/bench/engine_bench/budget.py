"""Holds a run against a budget file, such as tests/bench/budget.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from engine_bench.results import Report, ours, peer_times, ratio

Machine = Literal["vnni", "avx2", "any"]
ROUNDS_FOR_TAIL = 1000


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of the file: a field that it does not know is an error."""


class Speed(_Part, frozen=True, kw_only=True):
    case: str
    machine: Machine
    against: Literal["best", "exported", "openvino"]
    least: float


class Share(_Part, frozen=True, kw_only=True):
    case: str
    machine: Machine
    least: float


class Tail(_Part, frozen=True, kw_only=True):
    case: str
    machine: Machine
    most: float


class Accuracy(_Part, frozen=True, kw_only=True):
    case: str
    measure: str
    least: float = float("-inf")
    most: float = float("inf")


class Budget(_Part, frozen=True, kw_only=True):
    speed: tuple[Speed, ...] = ()
    share: tuple[Share, ...] = ()
    tail: tuple[Tail, ...] = ()
    accuracy: tuple[Accuracy, ...] = ()


def read_budget(path: Path) -> Budget:
    """Raises: OSError; msgspec.ValidationError or DecodeError, naming the field."""
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.yaml.decode
    return decode(path.read_bytes(), type=Budget)


def misses(report: Report, budget: Budget) -> Iterator[str]:
    """What the run does not reach, of the cases that were run; one line each."""
    for speed in budget.speed:
        row = ours(report.of(speed.case))
        if not _applies(report, speed.case, speed.machine):
            continue
        if row is None:
            yield f"{speed.case}: the native engine did not run"
            continue
        found = ratio(row, peer_times(report.of(speed.case), speed.against))
        if found is None:
            yield f"{speed.case}: no peer to compare with ({speed.against})"
        elif not min(found) >= speed.least:
            yield (
                f"{speed.case}: must be at least {speed.least:g} times as fast as the peer "
                f"({speed.against}), is {found[0]:.2f} by minima and {found[1]:.2f} by medians"
            )
    for share in budget.share:
        row = ours(report.of(share.case))
        if row is None or row.share is None or not _applies(report, share.case, share.machine):
            continue
        if not row.share >= share.least:
            yield (
                f"{share.case}: must reach {share.least:.0%} of the int8 peak, "
                f"reaches {row.share:.0%}"
            )
    for tail in budget.tail:
        row = ours(report.of(tail.case))
        if row is None or not _applies(report, tail.case, tail.machine):
            continue
        if row.rounds >= ROUNDS_FOR_TAIL and not row.p999 / row.median <= tail.most:
            yield (
                f"{tail.case}: p99.9 must be at most {tail.most:g} times p50, "
                f"is {row.p999 / row.median:.2f} times"
            )
    for wanted in budget.accuracy:
        row = ours(report.of(wanted.case))
        if row is None or wanted.measure not in row.accuracy:
            continue
        value = row.accuracy[wanted.measure]
        if not wanted.least <= value <= wanted.most:
            yield (
                f"{wanted.case}: {wanted.measure} must be from {wanted.least:g} to "
                f"{wanted.most:g}, is {value:.4g}"
            )


def _applies(report: Report, case: str, machine: Machine) -> bool:
    return case in report.titles and machine in (report.gate, "any")
