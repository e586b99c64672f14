"""From a sensor's measurement to the motors' command: where the time goes, stage by stage.

    taken ─► received ─► synchronized ─► encoded ─► planned ─► guarded ─► commanded
             the driver   waits for the   encode     advance,   finish,    waits for its start, is
             and the wire  plan tick                 plan       accept     the next setpoint

One line of the waterfall is one accepted trajectory whose motion was commanded; it begins at the
stamp of the image (the reference stream's sample) that it was planned from. What follows, the
link and the actuation delay, is the robot file's to say and not in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from edge_wm.errors import ModelError
from edge_wm.recording import PlanBegin, PlanEnd, Recording, Step
from edge_wm.types import Float64, Sample

STAGES = ("received", "synchronized", "encoded", "planned", "guarded", "commanded")
MEANINGS: Mapping[str, str] = {
    "received": "measured until it reached this process",
    "synchronized": "waiting for the plan tick",
    "encoded": "encoder, belief",
    "planned": "advance over the delay, imagine, choose",
    "guarded": "trajectory finished and accepted",
    "commanded": "waiting for its start and the setpoint tick",
}


@dataclass(frozen=True, slots=True)
class Worst:
    """The slowest of all, so that it can be found in the recording."""

    stage: str
    milliseconds: float
    stamp_ns: int  # of the sample
    tick: int  # of the plan


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The durations of each trajectory, in the order of `STAGES`."""

    stream: str  # whose sample begins it
    durations_ms: Float64  # (N, 6)
    stamps_ns: Sequence[int]  # (N,)
    ticks: Sequence[int]  # (N,)

    @property
    def total_ms(self) -> Float64:
        """(N,) from measured to commanded."""
        total: Float64 = self.durations_ms.sum(axis=1)
        return total

    def percentiles(self) -> dict[str, dict[str, float]]:
        """p50, p99, p99.9 and max of each stage and of the total, ms."""
        columns = {name: self.durations_ms[:, i] for i, name in enumerate(STAGES)}
        return {
            name: {f"p{share:g}": float(np.percentile(values, share)) for share in (50, 99, 99.9)}
            | {"max": float(values.max())}
            for name, values in {**columns, "total": self.total_ms}.items()
        }

    def worst(self, stage: str) -> Worst:
        values = self.total_ms if stage == "total" else self.durations_ms[:, STAGES.index(stage)]
        index = int(values.argmax())
        return Worst(stage, float(values[index]), self.stamps_ns[index], self.ticks[index])


def waterfall(recording: Recording) -> Waterfall:
    """Read the waterfall off a recorded run.

    Raises: ModelError if no accepted trajectory was commanded in it.
    """
    received: dict[str, dict[int, int]] = {}  # stream -> stamp -> when it arrived
    begun: dict[int, int] = {}
    waiting: list[PlanEnd] = []  # accepted, not yet commanded
    commanded: list[tuple[PlanEnd, int]] = []  # with the setpoint tick that first used it
    for _, event in recording.events():
        if isinstance(event, Sample):
            received.setdefault(event.stream, {})[event.stamp_ns] = event.received_ns
        elif isinstance(event, PlanBegin):
            begun[event.tick] = event.now_ns
        elif isinstance(event, PlanEnd):
            accepted = event.acceptance is not None and event.acceptance.accepted
            if accepted and event.tick in begun and "encode" in event.stages:
                waiting.append(event)
        elif isinstance(event, Step):
            newest_ns = int(event.verdict.setpoint.times_ns[-1])
            while waiting and _start_ns(waiting[0]) < newest_ns:
                commanded.append((waiting.pop(0), event.now_ns))
    stream = _reference(received, [_stamp_ns(end) for end, _ in commanded])
    arrived = received.get(stream, {})
    rows, stamps, ticks = [], [], []
    for end, step_ns in commanded:
        stamp_ns, stages = _stamp_ns(end), end.stages
        if stamp_ns not in arrived:
            continue
        encoded_ns = begun[end.tick] + stages["encode"]
        planned_ns = encoded_ns + stages.get("advance", 0) + stages.get("plan", 0)
        guarded_ns = planned_ns + stages.get("trajectory", 0) + stages.get("guard", 0)
        moments = [stamp_ns, arrived[stamp_ns], begun[end.tick], encoded_ns, planned_ns, guarded_ns]
        rows.append(np.diff([*moments, max(step_ns, guarded_ns)]) / 1e6)
        stamps.append(stamp_ns)
        ticks.append(end.tick)
    if not rows:
        raise ModelError(
            f"{recording.path}: must have at least one accepted trajectory that was commanded, and "
            "has none; record a run in which the robot was active"
        )
    return Waterfall(stream, np.array(rows), stamps, ticks)


def _reference(received: Mapping[str, Mapping[int, int]], stamps_ns: Sequence[int]) -> str:
    """The stream that the observations' stamps are of; the slowest, where several fit as well."""
    fits = {
        name: (sum(stamp in samples for stamp in stamps_ns), -len(samples))
        for name, samples in received.items()
    }
    return max(fits, key=lambda name: fits[name], default="")


def _stamp_ns(end: PlanEnd) -> int:
    assert end.trajectory is not None
    return end.trajectory.stamp_ns


def _start_ns(end: PlanEnd) -> int:
    assert end.trajectory is not None
    return end.trajectory.start_ns


def draw(found: Waterfall) -> Figure:
    """The median trajectory as a waterfall, each stage with its 99th percentile."""
    from edge_wm.report.plots import BAD, FAINT, HAPPENED, STYLE

    table = found.percentiles()
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.0, 3.4), layout="constrained")
        axes = figure.subplots()
        start = 0.0
        for row, name in enumerate(STAGES):
            median, late = table[name]["p50"], table[name]["p99"]
            axes.barh(row, median, left=start, color=HAPPENED, height=0.62)
            axes.plot([start + median, start + late], [row, row], color=BAD, linewidth=1.4)
            axes.plot([start + late], [row], "|", color=BAD, markersize=9)
            axes.text(start + late + 1.0, row, f"{median:.1f} ms", va="center", fontsize=8)
            axes.plot([start + median] * 2, [row, row + 1], color=FAINT, linewidth=0.6)
            start += median
        total = table["total"]
        axes.set_yticks(range(len(STAGES)), [f"{n}\n{MEANINGS[n]}" for n in STAGES], fontsize=7)
        axes.set_ylim(len(STAGES) - 0.4, -0.6)
        axes.set_xlabel(f"ms since the {found.stream} measured; blue: median, red: up to 99 of 100")
        axes.set_title(
            f"From sensor to command: {total['p50']:.0f} ms, 99 of 100 within {total['p99']:.0f} "
            f"ms ({len(found.ticks)} plans)"
        )
        axes.grid(axis="y", visible=False)
    return figure
