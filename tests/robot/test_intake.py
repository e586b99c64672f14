"""Intake: which samples of a stream come in, with the boundary of each refusal from both sides."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from edge_wm.reasons import Reason
from edge_wm.robot import FUTURE_TOLERANCE_NS, Intake, Stream, find_robot, load_robot, parse_robot
from edge_wm.types import Array, Sample

MS = 1_000_000
ROVER = load_robot(find_robot("rover"))


def sample(stream: str, stamp_ns: int, data: Array, received_ns: int | None = None) -> Sample:
    return Sample(stream, stamp_ns, stamp_ns if received_ns is None else received_ns, 0, data)


def noise(stream: Stream, seed: int) -> Array:
    generator = np.random.default_rng(seed)
    if stream.dtype == "uint8":
        return generator.integers(0, 255, stream.shape, dtype=np.uint8)
    return generator.uniform(0.1, 1.0, stream.shape).astype(stream.dtype)


@pytest.mark.parametrize("name", list(ROVER.streams))
def test_good_samples_of_every_type_come_in(name: str) -> None:
    stream = ROVER.streams[name]
    intake = Intake(stream)
    for index in range(5):
        given = sample(name, index * stream.period_ns, noise(stream, index))
        taken = intake.take(given)
        assert taken is given  # no copy
        assert intake.refused is None


@pytest.mark.parametrize("name", list(ROVER.streams))
def test_wrong_shape_and_dtype(name: str) -> None:
    stream = ROVER.streams[name]
    good = noise(stream, 0)
    for bad in (
        good[:-1],
        good[..., None],
        np.zeros((0,), good.dtype),
        good.astype(np.float16),
        good.astype(np.dtype(stream.dtype).newbyteorder(">"))
        if stream.dtype != "uint8"
        else good.T,
    ):
        if bad.shape == good.shape and bad.dtype == good.dtype:
            continue  # a square image turned
        assert Intake(stream).take(sample(name, 0, bad)) is Reason.sample_wrong_shape


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["wheels", "imu", "scan", "odometry"])
def test_not_finite(name: str, value: float) -> None:
    stream = ROVER.streams[name]
    data = noise(stream, 0)
    data.flat[-1] = value
    taken = Intake(stream).take(sample(name, 0, data))
    if name == "scan" and value == math.inf:
        assert isinstance(taken, Sample)  # nothing in range
    else:
        assert taken is Reason.sample_not_finite


def test_order() -> None:
    stream = ROVER.streams["wheels"]
    intake = Intake(stream)
    data = noise(stream, 0)
    assert isinstance(intake.take(sample("wheels", 10, data, 100)), Sample)
    assert intake.take(sample("wheels", 9, data, 100)) is Reason.sample_out_of_order
    assert intake.take(sample("wheels", 10, data, 100)) is Reason.sample_duplicate
    assert intake.refused is Reason.sample_duplicate
    assert isinstance(intake.take(sample("wheels", 11, data, 100)), Sample)
    assert intake.refused is None


def test_future() -> None:
    stream = ROVER.streams["wheels"]
    data = noise(stream, 0)
    at_limit = sample("wheels", 1000 + FUTURE_TOLERANCE_NS, data, 1000)
    assert isinstance(Intake(stream).take(at_limit), Sample)
    above = replace(at_limit, stamp_ns=at_limit.stamp_ns + 1)
    intake = Intake(stream)
    assert intake.take(above) is Reason.sample_from_future
    assert isinstance(intake.take(sample("wheels", 1000, data)), Sample)  # it left no trace


def test_arrival_stamps_believe_this_process() -> None:
    stream = replace(ROVER.streams["wheels"], stamp="arrival")
    intake = Intake(stream)
    data = noise(stream, 0)
    first = intake.take(Sample("wheels", 10**18, 100, 0, data))
    assert isinstance(first, Sample)
    assert (first.stamp_ns, first.received_ns) == (100, 100)
    assert first.data is data
    # Two messages read in one tick of the clock are two if the sensor counted them so.
    assert intake.take(Sample("wheels", 10**18, 100, 0, data)) is Reason.sample_duplicate
    assert isinstance(intake.take(Sample("wheels", 10**18, 100, 1, data)), Sample)
    assert intake.take(Sample("wheels", 0, 99, 2, data)) is Reason.sample_out_of_order


@pytest.mark.parametrize("name", ["camera", "imu", "scan"])
def test_frozen_once_the_first_copy_is_older_than_max_age(name: str) -> None:
    stream = ROVER.streams[name]
    intake = Intake(stream)
    still, other = noise(stream, 0), noise(stream, 1)
    assert isinstance(intake.take(sample(name, 0, other)), Sample)
    start_ns = stream.period_ns
    for stamp_ns in (start_ns, start_ns + 1, start_ns + stream.max_age_ns):
        assert isinstance(intake.take(sample(name, stamp_ns, still.copy())), Sample)
    too_old = start_ns + stream.max_age_ns + 1
    assert intake.take(sample(name, too_old, still.copy())) is Reason.stream_frozen
    assert intake.take(sample(name, too_old + 1, still.copy())) is Reason.stream_frozen
    one_value = still.copy()
    one_value.flat[-1] += 1  # the last value alone tells a new reading
    assert isinstance(intake.take(sample(name, too_old + 2, one_value)), Sample)
    assert isinstance(intake.take(sample(name, too_old + 3, one_value.copy())), Sample)


def test_an_ideal_sensor_is_never_frozen() -> None:
    text = ROVER.text.replace("    unit: rgb8\n", "    unit: rgb8\n    noisy: false\n")
    stream = parse_robot(text, "ideal.yaml").streams["camera"]
    assert ROVER.streams["camera"].noisy
    assert not stream.noisy
    intake = Intake(stream)
    for index in range(50):
        again = noise(stream, 0)
        assert isinstance(intake.take(sample("camera", index * stream.period_ns, again)), Sample)


@pytest.mark.parametrize("name", ["wheels", "odometry"])
def test_what_may_stand_still_is_never_frozen(name: str) -> None:
    stream = ROVER.streams[name]
    intake = Intake(stream)
    data = noise(stream, 0)
    for index in range(50):
        assert isinstance(intake.take(sample(name, index * stream.period_ns, data)), Sample)


def test_a_scan_of_an_open_field_is_not_frozen() -> None:
    stream = ROVER.streams["scan"]
    intake = Intake(stream)
    nothing = np.full(stream.shape, np.inf, np.float32)
    for index in range(50):
        assert isinstance(intake.take(sample("scan", index * stream.period_ns, nothing)), Sample)
