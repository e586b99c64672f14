"""Tests edge_wm.recording: a run written and read again, whole, cut off, damaged, overrun."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from mcap.writer import Writer
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from edge_wm.errors import EdgeWmError, RecordingError, SystemTroubleError, UsageError
from edge_wm.recording import (
    Activate,
    Event,
    PlanEnd,
    Recorder,
    Request,
    Step,
    machine_class,
    open_recording,
    recorder,
)
from edge_wm.robot import load_robot
from edge_wm.types import Sample
from recording.runs import START_NS, make_header, make_run
from recording.same import assert_same

REPOSITORY = Path(__file__).resolve().parents[2]
ROVER = load_robot(REPOSITORY / "robots" / "rover.yaml")
HEADER = make_header(ROVER.text)
EVENTS = list(make_run(1.0))
SHORT = list(make_run(0.2))


def write(path: Path, events: list[Event]) -> recorder.Statistics:
    with Recorder(path, ROVER, HEADER) as r:
        for event in events:
            r.record(event)
    return r.statistics


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "run.mcap"
    write(path, EVENTS)
    return path


@pytest.fixture(scope="module")
def chunked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run in many small chunks."""
    path = tmp_path_factory.mktemp("chunked") / "run.mcap"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorder, "CHUNK_BYTES", 12_000)
        write(path, SHORT)
    return path


# ---- whole -----------------------------------------------------------------------------------
def test_a_run_is_read_as_it_was_recorded(run: Path) -> None:
    recording = open_recording(run)
    assert_same(recording.header, HEADER)
    assert recording.complete
    assert recording.exact
    assert recording.troubles == ()
    read = list(recording.events())
    assert [number for number, _ in read] == list(range(len(EVENTS)))
    for (_, event), recorded in zip(read, EVENTS, strict=True):
        assert_same(event, recorded)


def test_only_gives_the_events_of_one_kind(run: Path) -> None:
    recording = open_recording(run)
    for kind in (Sample, PlanEnd, Step, Request):
        expected = [event for event in EVENTS if isinstance(event, kind)]
        for event, recorded in itertools.zip_longest(recording.only(kind), expected):
            assert_same(event, recorded)


@pytest.mark.parametrize("stream", ["camera", "odometry", "no such stream"])
def test_samples_gives_those_of_one_stream(stream: str, run: Path) -> None:
    expected = [e for e in EVENTS if isinstance(e, Sample) and e.stream == stream]
    assert_same(list(open_recording(run).samples(stream)), expected)


def test_samples_that_no_standard_message_carries_are_read_exactly(tmp_path: Path) -> None:
    scan = next(e for e in EVENTS if isinstance(e, Sample) and e.stream == "scan")
    odd: list[Event] = [
        scan,
        replace(scan, sequence=2**40),
        replace(scan, stamp_ns=-7),
        replace(scan, received_ns=-7),
        replace(scan, data=np.zeros((3, 2, 1), np.complex128)),
        replace(scan, data=np.zeros((), np.int16)),
        replace(scan, data=np.arange(5, dtype=">f4")),
        replace(scan, data=np.zeros((0, 4), np.bool_)),
        replace(scan, stream="a stream of no robot file"),
        replace(scan, data=scan.data.astype(np.float64)[::2].copy()),
        scan,
    ]
    write(tmp_path / "run.mcap", odd)
    read = [event for _, event in open_recording(tmp_path / "run.mcap").events()]
    assert_same(read, odd)


def test_a_run_without_events_is_a_recording(tmp_path: Path) -> None:
    assert write(tmp_path / "run.mcap", []).events == 0
    recording = open_recording(tmp_path / "run.mcap")
    assert recording.complete
    assert list(recording.events()) == []


def test_rosbags_opens_it_and_decodes_every_message(run: Path) -> None:
    counts: dict[str, int] = {}
    images = []
    with AnyReader([run], default_typestore=get_typestore(Stores.ROS2_HUMBLE)) as reader:
        for connection, time_ns, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            counts[connection.topic] = counts.get(connection.topic, 0) + 1
            if connection.topic == "/camera/image_raw":
                images.append((time_ns, message))
    samples = [event for event in EVENTS if isinstance(event, Sample)]
    for stream in ("camera", "imu", "wheels", "scan", "odometry"):
        expected = sum(sample.stream == stream for sample in samples)
        assert counts[ROVER.streams[stream].topic] == expected
    kinds = ("activate", "request", "plan_begin", "plan_end", "step", "prediction", "truth")
    assert all(counts[f"/edge_wm/record/{kind}"] > 0 for kind in kinds)
    cameras = [sample for sample in samples if sample.stream == "camera"]
    for (time_ns, message), sample in zip(images, cameras, strict=True):
        assert time_ns == sample.received_ns
        stamp = message.header.stamp
        assert stamp.sec * 1_000_000_000 + stamp.nanosec == sample.stamp_ns
        assert (message.height, message.width, message.encoding) == (64, 64, "rgb8")
        assert message.data.tobytes() == sample.data.tobytes()


def test_the_mcap_library_finds_its_index_whole(run: Path) -> None:
    with run.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        assert summary is not None
        assert summary.statistics is not None
        messages = list(reader.iter_messages())
        assert reader.get_header().profile == "ros2"
    assert summary.statistics.message_count == len(messages)
    assert min(message.log_time for _, _, message in messages) >= START_NS


# ---- many threads, too much, values that do not fit --------------------------------------------
def test_events_of_many_threads_keep_the_order_of_their_numbers(tmp_path: Path) -> None:
    numbers: dict[tuple[int, int], int] = {}
    with Recorder(tmp_path / "run.mcap", ROVER, HEADER) as r:

        def produce(thread: int) -> None:
            for count in range(300):
                numbers[thread, count] = r.record(Activate(thread, count))

        threads = [threading.Thread(target=produce, args=(t,)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(numbers.values()) == list(range(1200))
    for number, event in open_recording(tmp_path / "run.mcap").events():
        assert isinstance(event, Activate)
        assert numbers[event.now_ns, event.epoch] == number


def test_a_full_queue_loses_events_counts_them_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "LOOK_EVERY_S", 0.2)
    told: list[SystemTroubleError] = []
    path = tmp_path / "run.mcap"
    with Recorder(path, ROVER, HEADER, on_trouble=told.append, queue_bytes=10 * 1024) as r:
        for count in range(15):
            r.record(Activate(count, count))
        while r._queue:
            time.sleep(0.01)
        r.record(Activate(99, 99))
    message = (
        f"{path}: the disk does not keep up, so events are missing from the recording and it "
        "cannot be replayed bit for bit; record to a faster disk"
    )
    assert [str(error) for error in told] == [message]
    assert r.statistics.lost == {"Activate": 5}
    assert r.statistics.trouble == message
    recording = open_recording(path)
    assert recording.complete
    assert not recording.exact
    assert recording.lost == {"Activate": 5}
    assert recording.troubles == (
        f"{path}: events were lost while recording (5 Activate), so it cannot be replayed bit for "
        "bit",
    )
    assert [number for number, _ in recording.events()] == [*range(10), 15]


def test_a_value_that_does_not_fit_loses_its_event_only(tmp_path: Path) -> None:
    told: list[SystemTroubleError] = []
    path = tmp_path / "run.mcap"
    with Recorder(path, ROVER, HEADER, on_trouble=told.append) as r:
        r.record(Activate(1, 0))
        r.record(Activate(1, 2**63))
        r.record(Activate(1, 2))
        r.record(Request(1, None, "operator"))  # type: ignore[arg-type]
        r.record(Activate(1, 4))
        r.record("not an event")  # type: ignore[arg-type]
        r.record(Activate(1, 6))
    assert [str(error).split(" (")[0] for error in told] == [
        f"{path}: event 1, a Activate, cannot be recorded and is missing",
        f"{path}: event 3, a Request, cannot be recorded and is missing",
        f"{path}: event 5, a str, cannot be recorded and is missing",
    ]
    recording = open_recording(path)
    assert [(n, e.epoch) for n, e in recording.events()] == [
        (0, 0),
        (2, 2),
        (4, 4),
        (6, 6),
    ]
    assert recording.lost == {"Activate": 1, "Request": 1, "str": 1}
    assert not recording.exact


def test_what_is_said_of_a_run_at_its_end_is_read_again(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.mcap", ROVER, HEADER) as r:
        for event in SHORT:
            r.record(event)
        r.close({"board": "emulated-rover", "why": ""})
    recording = open_recording(tmp_path / "run.mcap")
    assert recording.remarks == {"board": "emulated-rover", "why": ""}
    assert recording.complete
    assert len(list(recording.events())) == len(SHORT)
    write(tmp_path / "silent.mcap", SHORT)
    assert open_recording(tmp_path / "silent.mcap").remarks == {}


def test_what_comes_after_the_end_is_counted_as_lost(tmp_path: Path) -> None:
    r = Recorder(tmp_path / "run.mcap", ROVER, HEADER)
    r.record(Activate(0, 0))
    assert r.close().lost == {}
    r.record(Activate(1, 1))
    assert r.close().lost == {"Activate": 1}
    assert len(list(open_recording(tmp_path / "run.mcap").events())) == 1


# ---- a disk in the way -------------------------------------------------------------------------
def test_a_recording_is_never_written_over(run: Path) -> None:
    before = run.read_bytes()
    with pytest.raises(UsageError) as caught:
        Recorder(run, ROVER, HEADER)
    assert str(caught.value) == (
        f"{run}: exists already; a recording is never written over: choose another name"
    )
    assert run.read_bytes() == before


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "run.mcap"
    with pytest.raises(SystemTroubleError) as caught:
        Recorder(path, ROVER, HEADER)
    assert str(caught.value) == (
        f"{path}: cannot be written: No such file or directory; what was recorded before is "
        "readable; free some space or choose another folder"
    )


@pytest.mark.parametrize("room", [0, 1, 30_000, 100_000, 200_000])
def test_a_full_disk_ends_the_recording_and_not_the_run(
    room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "CHUNK_BYTES", 20_000)
    monkeypatch.setattr(recorder, "LOOK_EVERY_S", 0.001)
    path = tmp_path / "run.mcap"
    told: list[SystemTroubleError] = []
    r = Recorder(path, ROVER, HEADER, on_trouble=told.append)
    full_at = r._file.size + room
    _fill_disk(monkeypatch, r, full_at)
    for event in EVENTS:
        r.record(event)
    statistics = r.close()
    assert [str(error) for error in told] == [
        f"{path}: cannot be written: No space left on device; what was recorded before is "
        "readable; free some space or choose another folder"
    ]
    assert path.stat().st_size == statistics.bytes_written <= full_at
    recording = open_recording(path)
    read = list(recording.events())
    assert_same([event for _, event in read], EVENTS[: len(read)])
    assert len(read) > 0 or room < 100_000
    assert len(read) + sum(statistics.lost.values()) == statistics.events == len(EVENTS)
    assert recording.troubles == (
        f"{path}: is cut off at byte {path.stat().st_size}; it is read up to there",
    )


def _fill_disk(monkeypatch: pytest.MonkeyPatch, r: Recorder, full_at: int) -> None:
    """Let the recorder's file grow to `full_at` bytes, and no further."""
    real: Callable[..., int] = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if descriptor != r._file._descriptor:
            return real(descriptor, data)
        left = full_at - r._file.size
        if left <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:left])

    monkeypatch.setattr(os, "write", write)


# ---- cut off, damaged --------------------------------------------------------------------------
CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from recording.runs import make_header, make_run
from edge_wm.recording import Recorder, recorder
from edge_wm.robot import load_robot
recorder.FLUSH_EVERY_S = 0.02
robot = load_robot({robot!r})
r = Recorder({path!r}, robot, make_header(robot.text))
print("ready", flush=True)
for event in make_run(1000.0):
    r.record(event)
"""


@pytest.mark.parametrize("after_bytes", [5_000, 100_000, 500_000])
def test_a_killed_run_leaves_what_it_recorded(after_bytes: int, tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    robot = str(REPOSITORY / "robots" / "rover.yaml")
    program = CHILD.format(tests=str(REPOSITORY / "tests"), robot=robot, path=str(path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        while path.stat().st_size < after_bytes:
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    recording = open_recording(path)
    assert not recording.complete
    read = [event for _, event in recording.events()]
    assert len(read) > 0
    for event, recorded in zip(read, make_run(1000.0), strict=False):
        assert_same(event, recorded)


def _prefix_or_refusal(path: Path) -> int:
    """How many events are read; they must be a prefix of what was recorded."""
    try:
        recording = open_recording(path)
        read = [event for _, event in recording.events()]
    except RecordingError:
        return 0
    assert recording.header == HEADER
    assert len(read) <= len(SHORT)
    for event, recorded in zip(read, SHORT, strict=False):
        assert_same(event, recorded)
    assert recording.complete == (len(read) == len(SHORT)) or recording.troubles
    return len(read)


def test_a_recording_cut_off_anywhere_is_read_up_to_there(chunked: Path, tmp_path: Path) -> None:
    whole = chunked.read_bytes()
    starts = _record_starts(whole)
    cuts = {start + d for start in starts for d in (0, 9)}
    cuts |= set(random.Random(0).sample(range(len(whole)), 20))
    path = tmp_path / "cut.mcap"
    read = []
    for cut in sorted(c for c in cuts if 0 <= c < len(whole)):
        path.write_bytes(whole[:cut])
        read.append(_prefix_or_refusal(path))
    assert read == sorted(read)  # more bytes never mean fewer events
    assert read[0] == 0
    assert read[-1] == len(SHORT)
    assert len(set(read)) > 10  # each chunk counts


def _record_starts(whole: bytes) -> list[int]:
    starts, at = [], 8
    while at + 9 < len(whole):
        starts.append(at)
        at += 9 + int.from_bytes(whole[at + 1 : at + 9], "little")
    return starts


def test_a_recording_with_any_byte_changed_gives_a_prefix_or_a_refusal(
    chunked: Path, tmp_path: Path
) -> None:
    whole = chunked.read_bytes()
    chance = random.Random(1)
    heads = {start + d for start in _record_starts(whole) for d in range(10)}
    places = chance.sample(sorted(heads), 60) + chance.sample(range(len(whole)), 60)
    path = tmp_path / "damaged.mcap"
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        _prefix_or_refusal(path)


def test_a_chunk_that_is_missing_is_noticed(chunked: Path, tmp_path: Path) -> None:
    whole = chunked.read_bytes()
    starts = _record_starts(whole)
    third = [start for start in starts if whole[start] == 6][2]
    behind = starts[starts.index(third) + 1]
    path = tmp_path / "missing.mcap"
    path.write_bytes(whole[:third] + whole[behind:])
    with pytest.raises(RecordingError) as caught:
        list(open_recording(path).events())
    assert "is in its place); the file was changed, or needs a newer edge-wm" in str(caught.value)


def test_what_is_no_recording_is_refused_by_name(tmp_path: Path, run: Path) -> None:
    path = tmp_path / "other.mcap"
    foreign = tmp_path / "foreign.mcap"
    with foreign.open("wb") as file:
        writer = Writer(file)
        writer.start()
        writer.finish()
    cases = {
        b"": "not MCAP",
        b"\x89MCAP1\r\n": "not MCAP",
        b"format: edge-wm/robot/1\n": "not MCAP",
        run.read_bytes()[:8]: "cut off at byte 8",
        run.read_bytes()[:40]: "cut off in the record at byte 8",
        foreign.read_bytes(): "whole MCAP, but has no metadata `edge_wm`",
    }
    for content, found in cases.items():
        path.write_bytes(content)
        with pytest.raises(RecordingError) as caught:
            open_recording(path)
        assert str(caught.value) == (
            f"{path}: expected a recording made by edge-wm, found a file that is {found}; give "
            "the run.mcap of a run"
        )


def test_a_recording_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.mcap"
    with pytest.raises(SystemTroubleError) as caught:
        open_recording(path)
    assert str(caught.value) == (
        f"{path}: cannot be read: No such file or directory; give the run.mcap of a run"
    )


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.mcap"
    monkeypatch.setattr(recorder, "FORMAT", "2")
    write(path, EVENTS[:3])
    with pytest.raises(RecordingError) as caught:
        open_recording(path)
    assert str(caught.value) == (
        f"{path}: expected a recording of format 1, found 2 (by edge-wm 0.1.0); use that version "
        "of edge-wm"
    )


def test_every_error_is_one_of_ours(run: Path) -> None:
    assert issubclass(RecordingError, EdgeWmError)
    with run.open("rb") as file:  # and the library agrees with us that the file is whole
        assert sum(1 for _ in StreamReader(file, validate_crcs=True).records) > len(EVENTS)


# ---- the machine class -------------------------------------------------------------------------
def test_the_machine_class_is_stable_and_names_what_matters(tmp_path: Path) -> None:
    here = machine_class()
    assert here == machine_class()
    assert {"architecture", "system", "python", "numpy"} <= set(here)
    assert all(isinstance(value, str) and value for value in here.values())
    (tmp_path / "proc").mkdir()
    text = "CPU part\t: 0xd42\nCPU part\t: 0xd42\nCPU part\t: 0xd0b\nModel\t\t: Raspberry Pi 5\n"
    (tmp_path / "proc" / "cpuinfo").write_text(text)
    assert machine_class(tmp_path)["cpu"] == "Raspberry Pi 5"
    assert machine_class(tmp_path)["cpu_parts"] == "0xd0b 0xd42"
    assert "cpu" not in machine_class(tmp_path / "nothing")
