"""What a run found, and the ratios between its rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from engine_bench.clock import Times

OURS = "edge-wm native"
GATED_PEERS = ("onnxruntime", "LiteRT")  # the "best of onnxruntime and LiteRT"


@dataclass(frozen=True)
class Row:
    """One competitor in one case. Times in s; of process CPU time unless they say wall."""

    case: str
    library: str
    precision: str
    form: str
    rounds: int
    least: float
    median: float
    p99: float
    p999: float
    wall_median: float
    gmacs: float  # 10^9 multiply-adds a second, at the least time
    share: float | None = None  # of the int8 peak
    memory_mib: float | None = None
    accuracy: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        form = f", {self.form}" if self.form else ""
        return f"{self.library} {self.precision}{form}"


@dataclass(frozen=True)
class Report:
    """All of one run."""

    processor: str
    instruction_sets: dict[str, bool]
    gate: str
    core: int | None
    threads: int
    peak_before: float | None  # int8, 10^9 multiply-adds a second on one core
    peak_after: float | None
    void: bool
    titles: dict[str, str]
    rows: tuple[Row, ...]
    absent: dict[str, dict[str, str]]  # case -> competitor -> why it was not run

    def of(self, case: str) -> list[Row]:
        return [row for row in self.rows if row.case == case]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def row(
    case: str, parts: tuple[str, str, str], times: Times, macs: int, peak: float | None,
    memory_mib: float | None, accuracy: dict[str, float], wall: bool,
) -> Row:  # fmt: skip
    """wall: more than one thread works, so that wall time is what counts."""
    counted = Times(times.wall, times.wall) if wall else times
    gmacs = macs / counted.least * 1e-9
    return Row(
        case, *parts, len(times.cpu), counted.least, counted.median, counted.percentile(99),
        counted.percentile(99.9), float(Times(times.wall, times.wall).median), gmacs,
        gmacs / peak if peak else None, memory_mib, accuracy,
    )  # fmt: skip


def ours(rows: Iterable[Row]) -> Row | None:
    """The native engine's row that the budget is about: int8 where there is one."""
    found = [row for row in rows if row.library == OURS]
    return min(found, key=lambda row: row.precision != "int8") if found else None


def peer_times(rows: Iterable[Row], against: str) -> tuple[float, float] | None:
    """(least, median) of the fastest peer of a kind; each may be another form's."""
    kinds = {
        "best": lambda r: r.library in GATED_PEERS,
        "exported": lambda r: (
            r.library == "onnxruntime" and r.form == "as exported" and "int8" in r.precision
        ),
        "openvino": lambda r: r.library == "OpenVINO",
    }
    peers = [row for row in rows if kinds[against](row)]
    if not peers:
        return None
    return min(row.least for row in peers), min(row.median for row in peers)


def ratio(row: Row, peer: tuple[float, float] | None) -> tuple[float, float] | None:
    """How many times faster `row` is than `peer`: (by minima, by medians)."""
    return (peer[0] / row.least, peer[1] / row.median) if peer else None
