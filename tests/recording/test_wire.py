"""Tests edge_wm.recording.wire and samples: every event comes back with every bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import Event, PlanBegin, PlanEnd, Prediction, Request, Step, World
from edge_wm.recording.messages import message_type
from edge_wm.recording.samples import MESSAGES, decode, encode
from edge_wm.recording.wire import pack, unpack
from edge_wm.robot import load_robot
from edge_wm.types import (
    Acceptance,
    Goal,
    ImageGoal,
    JointGoal,
    LatentGoal,
    PoseGoal,
    Sample,
    Trajectory,
)
from recording.runs import make_run
from recording.same import assert_same

ROVER = load_robot(Path(__file__).resolve().parents[2] / "robots" / "rover.yaml")
NAN, INF = float("nan"), float("inf")
EVENTS = list(make_run(1.0))


def there_and_back(event: Event) -> Event:
    name = type(event).__name__
    return unpack(name, message_type(name).decode(message_type(name).encode(*pack(event))))


def first(kind: type[Any]) -> Any:
    return next(event for event in EVENTS if isinstance(event, kind))


def planned() -> PlanEnd:
    return next(e for e in EVENTS if isinstance(e, PlanEnd) and e.proposal is not None)


def test_every_event_of_a_run_comes_back_exactly() -> None:
    assert {type(event).__name__ for event in EVENTS} >= {"Sample", "PlanEnd", "Step", "World"}
    for event in EVENTS:
        assert_same(there_and_back(event), event)


@pytest.mark.parametrize(
    "goal",
    [
        None,
        PoseGoal(1.0, -2.5),
        PoseGoal(1.0, -2.5, 0.0),
        PoseGoal(NAN, INF, -3.0, "map"),
        JointGoal(np.array([0.1, -0.2])),
        ImageGoal(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)),
        LatentGoal(np.array([1.0, np.nan], np.float32)),
    ],
)
def test_every_kind_of_goal_comes_back(goal: Goal | None) -> None:
    assert_same(there_and_back(PlanBegin(3, 17, goal)), PlanBegin(3, 17, goal))


def test_what_a_plan_did_not_get_to_stays_none() -> None:
    empty = PlanEnd(1, 2)
    assert_same(there_and_back(empty), empty)
    refused = replace(planned(), belief=None, trajectory=None, acceptance=None)
    assert_same(there_and_back(refused), refused)


def test_extreme_plans_come_back() -> None:
    end = planned()
    proposal = replace(
        end.proposal,
        actions=np.zeros((0, 2), np.float32),
        cost=INF,
        answers=(),
        terms={},
        reason=Reason.no_feasible_candidate,
    )
    assert end.trajectory is not None
    nans = np.full_like(end.trajectory.position, NAN)
    trajectory = replace(end.trajectory, velocity=nans, effort=nans)
    acceptance = Acceptance(False, 2**40, 0, -5, tuple(Reason), "ä → 1.5 m/s²")
    changed = replace(end, proposal=proposal, trajectory=trajectory, acceptance=acceptance)
    assert_same(there_and_back(changed), changed)


def test_setpoints_with_effort_and_every_mode_and_reason_come_back() -> None:
    step: Step = first(Step)
    for mode in Mode:
        setpoint = replace(step.verdict.setpoint, effort=np.array([[NAN, 1.0], [2.0, -0.0]]))
        verdict = replace(step.verdict, mode=mode, reasons=tuple(Reason), setpoint=setpoint)
        assert_same(there_and_back(Step(5, verdict, 7)), Step(5, verdict, 7))
    for reason in (None, *Reason):
        request = Request(1, Mode.estop, "operator", reason)
        assert_same(there_and_back(request), request)


def test_empty_worlds_and_predictions_without_images_come_back() -> None:
    world = World(0, np.empty((0, 3)), np.empty((0, 5)), np.empty(0, np.bool_))
    assert_same(there_and_back(world), world)
    bare = Prediction(4, np.arange(3), {"z": np.zeros((3, 2, 2), np.float32)})
    assert_same(there_and_back(bare), bare)


def test_a_number_of_a_reason_that_is_not_known_is_a_value_error() -> None:
    values = pack(Request(1, Mode.hold, "operator"))
    values[-1] = 65535
    with pytest.raises(ValueError, match="65535"):
        unpack("Request", values)


floats = st.floats(width=64)


@given(
    hnp.arrays(np.float64, (3, 2), elements=floats),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(0, 2),
)
def test_any_trajectory_comes_back(numbers: np.ndarray, time_ns: int, brake_index: int) -> None:
    trajectory = Trajectory(
        1, 2, time_ns, time_ns, 10, ("a", "b"), numbers, -numbers, numbers[::-1].copy(), brake_index
    )
    end = PlanEnd(1, time_ns, trajectory=trajectory)
    assert_same(there_and_back(end), end)


# ---- samples as standard messages ----------------------------------------------------------
def sample_of(stream: str) -> Sample:
    return next(e for e in EVENTS if isinstance(e, Sample) and e.stream == stream)


def standard(sample: Sample) -> bytes | None:
    return encode(ROVER.streams[sample.stream], sample)


def back(sample: Sample, message: bytes) -> Sample:
    kind = MESSAGES[ROVER.streams[sample.stream].type]
    times = (sample.stamp_ns, sample.received_ns, sample.sequence)
    return decode(sample.stream, kind, memoryview(message), *times)


@pytest.mark.parametrize("stream", ["camera", "wheels", "imu", "scan"])
def test_a_sample_comes_back_from_its_standard_message(stream: str) -> None:
    for event in EVENTS:
        if isinstance(event, Sample) and event.stream == stream:
            message = standard(event)
            assert message is not None
            assert_same(back(event, message), event)


def test_odometry_is_not_carried_by_its_standard_message() -> None:
    assert standard(sample_of("odometry")) is None


float32s = st.floats(width=32)


@given(hnp.arrays(np.float32, 6, elements=float32s))
def test_any_imu_reading_comes_back_or_is_not_carried(data: np.ndarray) -> None:
    sample = replace(sample_of("imu"), data=data)
    message = standard(sample)
    assert (message is None) == (not np.isfinite(data).all())
    if message is not None:
        assert_same(back(sample, message), sample)


@given(hnp.arrays(np.uint32, 120))
def test_any_bits_of_ranges_come_back(bits: np.ndarray) -> None:
    sample = replace(sample_of("scan"), data=bits.view(np.float32))
    message = standard(sample)
    assert message is not None
    assert_same(back(sample, message), sample)


FIRST_NS, LAST_NS = 0, 2**31 * 10**9 - 1


@pytest.mark.parametrize(
    ("stream", "change", "carried"),
    [
        ("imu", {"stamp_ns": FIRST_NS}, True),
        ("imu", {"stamp_ns": FIRST_NS - 1}, False),
        ("imu", {"stamp_ns": LAST_NS}, True),
        ("imu", {"stamp_ns": LAST_NS + 1}, False),
        ("imu", {"received_ns": -1}, False),
        ("imu", {"received_ns": 2**63 - 1}, True),
        ("imu", {"sequence": -1}, False),
        ("imu", {"sequence": 2**32 - 1}, True),
        ("imu", {"sequence": 2**32}, False),
        ("imu", {"data": np.zeros(5, np.float32)}, False),
        ("imu", {"data": np.zeros(7, np.float32)}, False),
        ("imu", {"data": np.zeros(6)}, False),
        ("imu", {"data": np.array([0, 0, np.nan, 0, 0, 0], np.float32)}, False),
        ("imu", {"data": np.array([0, 0, np.inf, 0, 0, -np.inf], np.float32)}, False),
        ("imu", {"data": np.full(6, np.finfo(np.float32).max)}, True),
        ("wheels", {"data": np.zeros((2, 3), np.float32)}, False),
        ("wheels", {"data": np.zeros(2, np.float32)}, False),
        ("wheels", {"data": np.array([[0, np.nan], [0, 0]], np.float32)}, False),
        ("camera", {"data": np.zeros((48, 32, 3), np.uint8)}, True),
        ("camera", {"data": np.zeros((0, 0, 3), np.uint8)}, True),
        ("camera", {"data": np.zeros((64, 64, 4), np.uint8)}, False),
        ("camera", {"data": np.zeros((64, 64), np.uint8)}, False),
        ("camera", {"data": np.zeros((64, 64, 3), np.float32)}, False),
        ("scan", {"data": np.zeros(0, np.float32)}, True),
        ("scan", {"data": np.zeros(120)}, False),
    ],
)
def test_what_a_standard_message_carries(
    stream: str, change: dict[str, Any], carried: bool
) -> None:
    sample = replace(sample_of(stream), **change)
    message = standard(sample)
    assert (message is not None) == carried
    assert_same(there_and_back(sample), sample)
    if message is not None:
        assert_same(back(sample, message), sample)
