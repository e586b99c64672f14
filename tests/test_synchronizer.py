"""Synchronizer: the view of all streams at a moment, against a plain search through all samples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import FUTURE_TOLERANCE_NS, find_robot, load_robot
from edge_wm.synchronizer import NEVER_NS, Synchronizer
from edge_wm.types import Array, Drop, Sample

MS = 1_000_000
ROVER = load_robot(find_robot("rover"))


def image(stamp_ns: int, received_ns: int | None = None) -> Sample:
    data = np.random.default_rng(stamp_ns % 2**32).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return Sample("camera", stamp_ns, stamp_ns if received_ns is None else received_ns, 0, data)


def pose(stamp_ns: int, received_ns: int | None = None) -> Sample:
    received_ns = stamp_ns if received_ns is None else received_ns
    return Sample("odometry", stamp_ns, received_ns, 0, np.full(6, stamp_ns * 1e-9))


def scan(stamp_ns: int, data: Array | None = None) -> Sample:
    if data is None:
        data = np.random.default_rng(stamp_ns % 2**32).uniform(1, 2, 120).astype(np.float32)
    return Sample("scan", stamp_ns, stamp_ns, 0, data)


def plan_view() -> Synchronizer:
    return Synchronizer(ROVER, ["camera", "odometry"], "camera")


def test_nothing_yet() -> None:
    view = plan_view().observe(5 * MS)
    assert not view.usable
    assert view.reasons == (Reason.stream_missing,)
    assert view.stamp_ns == view.now_ns == 5 * MS
    for seen in view.streams.values():
        assert (seen.sample, seen.age_ns, seen.reason) == (None, NEVER_NS, Reason.stream_missing)


def test_matches_the_exposure_and_not_the_delivery() -> None:
    synchronizer = plan_view()
    poses = {t: pose(t * MS) for t in range(0, 130, 10)}
    for t in range(0, 130, 10):
        synchronizer.push(poses[t])
    shot = image(98 * MS, 120 * MS)
    synchronizer.push(shot)
    view = synchronizer.observe(125 * MS)
    assert view.usable
    assert view.stamp_ns == 98 * MS
    assert view.streams["camera"].sample is shot
    assert view.streams["odometry"].sample is poses[100]  # nearest, not newest
    assert view.streams["camera"].age_ns == 27 * MS
    assert view.streams["odometry"].age_ns == 25 * MS


def test_without_reference_the_newest_of_each() -> None:
    synchronizer = Synchronizer(ROVER, ["scan", "odometry"], None)
    for t in (0, 50, 100):
        synchronizer.push(scan(t * MS))
    synchronizer.push(pose(40 * MS))
    synchronizer.push(pose(60 * MS))
    view = synchronizer.observe(120 * MS)
    assert view.usable
    assert view.stamp_ns == 120 * MS
    assert [seen.age_ns for seen in view.streams.values()] == [20 * MS, 60 * MS]


@pytest.mark.parametrize(
    ("age_ms", "reason"), [(249, None), (250, None), (251, Reason.stream_stale)]
)
def test_stale(age_ms: int, reason: Reason | None) -> None:
    synchronizer = plan_view()
    synchronizer.push(image(1000 * MS))
    for t in range(950, 1000 + age_ms, 10):
        synchronizer.push(pose(t * MS))
    view = synchronizer.observe((1000 + age_ms) * MS)
    assert view.streams["camera"].reason is reason
    assert view.streams["odometry"].reason is None  # matched with an old image, itself alive
    assert view.reasons == (() if reason is None else (reason,))


@pytest.mark.parametrize(
    ("apart_ms", "reason"), [(59, None), (60, None), (61, Reason.stream_skewed)]
)
def test_skewed(apart_ms: int, reason: Reason | None) -> None:
    synchronizer = plan_view()
    synchronizer.push(pose(1000 * MS))
    synchronizer.push(image((1000 + apart_ms) * MS))
    view = synchronizer.observe((1000 + apart_ms) * MS)
    assert view.streams["odometry"].reason is reason


def test_each_stream_goes_stale_in_turn() -> None:
    streams = ["camera", "scan", "odometry"]
    for dead in streams:
        synchronizer = Synchronizer(ROVER, streams, None)
        for t in range(0, 1000, 10):
            for name, make in (("camera", image), ("scan", scan), ("odometry", pose)):
                if t % 50 == 0 and (name != dead or t < 500):
                    synchronizer.push(make(t * MS))
        view = synchronizer.observe(990 * MS)
        assert [n for n in streams if view.streams[n].reason is Reason.stream_stale] == [dead]


def test_drops_are_told_once_and_explain_the_stream() -> None:
    synchronizer = plan_view()
    bad = replace(image(10 * MS), data=np.zeros((32, 32, 3), np.uint8))
    synchronizer.push(bad)
    view = synchronizer.observe(11 * MS)
    assert view.drops == (Drop("camera", 10 * MS, 10 * MS, Reason.sample_wrong_shape),)
    assert view.streams["camera"].reason is Reason.sample_wrong_shape  # not merely 'missing'
    assert synchronizer.observe(12 * MS).drops == ()


def test_a_bad_sample_does_not_hide_a_good_one() -> None:
    synchronizer = plan_view()
    good = image(10 * MS)
    synchronizer.push(pose(10 * MS))
    synchronizer.push(good)
    synchronizer.push(image(5 * MS))
    synchronizer.push(good)
    synchronizer.push(image(500 * MS, 20 * MS))
    view = synchronizer.observe(20 * MS)
    assert view.usable
    assert view.streams["camera"].sample is good
    assert [drop.reason for drop in view.drops] == [
        Reason.sample_out_of_order,
        Reason.sample_duplicate,
        Reason.sample_from_future,
    ]
    late = synchronizer.observe(400 * MS)
    assert late.streams["camera"].reason is Reason.sample_from_future
    assert late.streams["odometry"].reason is Reason.stream_stale


def test_frozen_at_once_and_until_it_moves() -> None:
    synchronizer = Synchronizer(ROVER, ["scan"], None)
    still = scan(0).data
    for t in range(0, 200, 50):
        synchronizer.push(scan(t * MS, still.copy()))
        assert synchronizer.observe(t * MS).usable
    synchronizer.push(scan(200 * MS, still.copy()))
    view = synchronizer.observe(200 * MS)  # the last good one is only 50 ms old
    assert view.streams["scan"].reason is Reason.stream_frozen
    assert view.streams["scan"].age_ns == 50 * MS
    synchronizer.push(scan(250 * MS))
    assert synchronizer.observe(250 * MS).usable


def test_samples_of_other_streams_are_ignored() -> None:
    synchronizer = plan_view()
    synchronizer.push(scan(0))
    synchronizer.push(Sample("nobody", 0, 0, 0, np.zeros(1)))
    assert synchronizer.observe(0).drops == ()


def test_newest_before_now() -> None:
    synchronizer = Synchronizer(ROVER, ["odometry"], None)
    early, late = pose(10 * MS), pose(20 * MS)
    synchronizer.push(early)
    synchronizer.push(late)
    before = synchronizer.observe(20 * MS - FUTURE_TOLERANCE_NS - 1)
    assert before.streams["odometry"].sample is early
    slightly_ahead = synchronizer.observe(20 * MS - FUTURE_TOLERANCE_NS)
    assert slightly_ahead.streams["odometry"].sample is late
    assert slightly_ahead.streams["odometry"].age_ns == 0


def test_what_is_not_yet_is_not_matched() -> None:
    synchronizer = plan_view()
    early = pose(985 * MS)
    for sample in (early, pose(1010 * MS), image(1000 * MS)):
        synchronizer.push(sample)
    assert synchronizer.observe(1002 * MS).streams["odometry"].sample is early


def test_refused_use() -> None:
    with pytest.raises(UsageError) as caught:
        Synchronizer(ROVER, ["camra"], None)
    assert str(caught.value) == (
        "stream 'camra': must be one of robot rover (camera, wheels, imu, scan, odometry); "
        "add it to the robot file or ask for another"
    )
    with pytest.raises(UsageError) as caught:
        Synchronizer(ROVER, ["odometry"], "camera")
    assert str(caught.value) == (
        "reference stream 'camera': must be one of those observed (odometry); "
        "name one of them, or none"
    )


def test_drops_are_bounded_and_no_samples_are_hoarded() -> None:
    synchronizer = plan_view()
    for t in range(5000):
        synchronizer.push(pose(t * MS))
        synchronizer.push(pose(0))
    assert len(synchronizer.observe(5000 * MS).drops) == 1024
    assert sum(len(track.samples) for track in synchronizer._tracks.values()) < 100


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_against_a_plain_search(seed: int) -> None:
    """Random rates, delays and losses: the answer of a search through everything ever pushed."""
    generator = np.random.default_rng(seed)
    arrivals = []
    for name, make, period in (("camera", image, 50), ("odometry", pose, 10)):
        for index in range(1000 // period):
            if generator.random() < 0.2:
                continue
            stamp = int((index * period + generator.uniform(0, 4)) * MS)
            arrivals.append((stamp + int(generator.uniform(0, 45) * MS), name, stamp, make))
    arrivals.sort(key=lambda arrival: arrival[0])
    synchronizer = plan_view()
    kept: dict[str, list[Sample]] = {"camera": [], "odometry": []}
    for received, name, stamp, make in arrivals:
        sample = make(stamp, received)
        synchronizer.push(sample)
        if all(stamp > other.stamp_ns for other in kept[name]):
            kept[name].append(sample)
        view = synchronizer.observe(received)
        if not kept["camera"] or not kept["odometry"]:
            continue
        newest = kept["camera"][-1]
        assert view.stamp_ns == newest.stamp_ns
        assert view.streams["camera"].sample is newest
        best = min(kept["odometry"], key=lambda s: (abs(s.stamp_ns - newest.stamp_ns), s.stamp_ns))
        apart = abs(best.stamp_ns - newest.stamp_ns)
        seen = view.streams["odometry"]
        if received - kept["odometry"][-1].stamp_ns > 80 * MS:
            assert seen.reason in (Reason.stream_stale, Reason.sample_out_of_order)
        else:
            assert seen.sample is best
            assert seen.reason is (Reason.stream_skewed if apart > 60 * MS else None)
