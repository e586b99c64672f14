"""What a run consists of: the events that are recorded, in the order in which they happened.

A run is one sequence of events, numbered from 0. The first group is what the outside did to
the runtime (samples, requests, activations, goals) and when each tick began; the second is what
the runtime answered (plan ends, verdicts); the third is for people only. Feeding the first
group to the same bundle on the same machine class gives the second group, bit for bit: that is
what `edge-wm replay` checks.

    inputs     Sample · Activate · Request · PlanBegin · (Step: its now_ns)
    answers    PlanEnd · Step (its verdict)
    for people Prediction · Truth · World
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.types import (
    Acceptance,
    Array,
    Belief,
    Bool,
    Drop,
    Float64,
    Goal,
    Int64,
    Proposal,
    Sample,
    Trajectory,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Header:
    """The conditions of a run: replay compares them before it promises equal bits."""

    robot_text: str  # the robot file, whole
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    backend: str  # "native", or where functions differ "encoder=onnxruntime,dynamics=native"
    backend_version: str
    kernel: str  # the kernel path that the backend chose, "" where it does not say
    machine: Mapping[str, str]  # the machine class, see `machine_class`
    seed: int
    settings: Mapping[str, Any] = field(default_factory=dict)  # run settings, JSON values
    started: str = ""  # wall-clock time, ISO 8601


@dataclass(frozen=True, slots=True)
class Activate:
    """The guard was activated, and counted this epoch."""

    now_ns: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Request:
    """Somebody asked the guard for a mode."""

    now_ns: int
    mode: Mode
    who: str  # "guard", "supervisor", "operator"
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class PlanBegin:
    """A plan tick looked at the world at `now_ns`, wanting `goal`."""

    tick: int
    now_ns: int
    goal: Goal | None


@dataclass(frozen=True, slots=True)
class PlanEnd:
    """What came out of a plan tick. Whatever it did not get to is None."""

    tick: int
    now_ns: int  # when it was done
    reason: Reason | None = None  # why nothing was proposed (unusable observation, goal reached)
    ages_ns: Mapping[str, int] = field(default_factory=dict)  # stream -> age at its begin
    drops: tuple[Drop, ...] = ()  # samples refused since the last plan tick
    belief: Belief | None = None  # after the update, before it was advanced
    proposal: Proposal | None = None
    trajectory: Trajectory | None = None
    acceptance: Acceptance | None = None
    stages: Mapping[str, int] = field(default_factory=dict)  # stage -> duration, ns


@dataclass(frozen=True, slots=True)
class Step:
    """One setpoint tick: what was sent, and why."""

    now_ns: int
    verdict: Verdict
    duration_ns: int = 0  # what the guard took; 0 in simulated time


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the world model imagined for the proposal of plan tick `tick`, for N moments.

    Entry 0 is the belief advanced to the moment at which the proposal begins to act. The images
    are for n of the moments.
    """

    tick: int
    times_ns: Int64  # (N,), ascending
    beliefs: Mapping[str, Array]  # name -> (N, ...), the belief's tensors
    image_times_ns: Int64 = field(default_factory=lambda: np.empty(0, np.int64))  # (n,)
    images: Array = field(  # (n, height, width, 3) uint8, decoded
        default_factory=lambda: np.empty((0, 0, 0, 3), np.uint8)
    )


@dataclass(frozen=True, slots=True)
class Truth:
    """Where a simulated robot really was, in the world frame."""

    now_ns: int
    x: float  # m
    y: float  # m
    yaw: float  # rad
    contact: bool  # touching something that stands


@dataclass(frozen=True, slots=True)
class World:
    """What stood where in a simulated world at `now_ns`, from above, in the world frame."""

    now_ns: int
    circles: Float64  # (C, 3): x, y, radius (m)
    rectangles: Float64  # (B, 5): x, y (m), yaw (rad), half extents along its own x and y (m)
    movable: Bool  # (B,): which rectangles can be pushed
    odometry_origin: tuple[float, float, float] = (0.0, 0.0, 0.0)  # x, y, yaw of its frame here


Event = Sample | Activate | Request | PlanBegin | PlanEnd | Step | Prediction | Truth | World
