"""Tests the ring of the last seconds: what it keeps, its bound, and that others read it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_typestore

from edge_wm.errors import SystemTroubleError, UsageError
from edge_wm.recording.messages import message_type
from edge_wm.recording.ring import MESSAGE_BYTES, Message, Ring

S = 1_000_000_000
TEXT = message_type("std_msgs/msg/String")


def text(log_ns: int, words: str = "x", topic: str = "/said") -> Message:
    return Message(log_ns, topic, "std_msgs/msg/String", TEXT.encode(words))


def read(path: Path) -> list[tuple[str, int, object]]:
    """Topic, time and message, by rosbags."""
    with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_KILTED)) as reader:
        return [
            (connection.topic, log_ns, reader.deserialize(data, connection.msgtype))
            for connection, log_ns, data in reader.messages()
        ]


def test_a_dump_has_exactly_the_last_seconds_and_rosbags_reads_them(tmp_path: Path):
    ring = Ring(2.0, 10**6)
    for tenth in range(100):
        ring.add(text(tenth * S // 10, f"at {tenth}", "/a" if tenth % 2 else "/b"))
    dumped = ring.dump(tmp_path / "x.mcap", "fault")
    assert (dumped.messages, dumped.first_ns, dumped.last_ns) == (21, 79 * S // 10, 99 * S // 10)
    found = read(tmp_path / "x.mcap")
    assert [(topic, at, m.data) for topic, at, m in found] == [
        ("/a" if tenth % 2 else "/b", tenth * S // 10, f"at {tenth}") for tenth in range(79, 100)
    ]
    assert [f.name for f in tmp_path.iterdir()] == ["x.mcap"]


def test_every_kind_that_the_recorder_writes_is_read_as_it_was(tmp_path: Path):
    store = get_typestore(Stores.ROS2_KILTED)
    value = store.types["diagnostic_msgs/msg/KeyValue"](key="a", value="1")
    line = store.types["diagnostic_msgs/msg/DiagnosticStatus"](
        level=2, name="n", message="m", hardware_id="h", values=[value, value]
    )
    stamp = store.types["builtin_interfaces/msg/Time"](sec=1, nanosec=2)
    header = store.types["std_msgs/msg/Header"](stamp=stamp, frame_id="f")
    array = store.types["diagnostic_msgs/msg/DiagnosticArray"](header=header, status=[line, line])
    kind = "diagnostic_msgs/msg/DiagnosticArray"
    ring = Ring(1.0, 10**6)
    ring.add(Message(5, "/diagnostics", kind, bytes(store.serialize_cdr(array, kind))))
    ring.dump(tmp_path / "x.mcap", "")
    ((_, _, found),) = read(tmp_path / "x.mcap")
    assert found.header.stamp.nanosec == 2
    told = [(s.level, s.name, [(v.key, v.value) for v in s.values]) for s in found.status]
    assert told == [(2, "n", [("a", "1"), ("a", "1")])] * 2


def test_memory_is_bounded_and_the_oldest_go_first(tmp_path: Path):
    weight = MESSAGE_BYTES + len(TEXT.encode("x"))
    ring = Ring(1000.0, 10 * weight)
    for second in range(50):
        ring.add(text(second * S))
        assert ring.bytes <= 10 * weight
    dumped = ring.dump(tmp_path / "x.mcap", "")
    assert (dumped.messages, dumped.first_ns) == (10, 40 * S)
    ring.add(text(50 * S, "y" * 10 * weight))
    assert ring.too_large == 1
    assert ring.bytes == 10 * weight


def test_an_empty_ring_is_an_empty_file(tmp_path: Path):
    assert Ring(1.0, 1000).dump(tmp_path / "x.mcap", "").messages == 0
    assert (tmp_path / "x.mcap").stat().st_size > 0


def test_a_dump_is_never_written_over_another(tmp_path: Path):
    path = tmp_path / "x.mcap"
    path.write_text("precious")
    with pytest.raises(UsageError) as error:
        Ring(1.0, 1000).dump(path, "")
    assert str(error.value) == f"{path}: exists already; a dump is never written over"
    assert path.read_text() == "precious"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    ring = Ring(1.0, 10**6)
    ring.add(text(1))
    with pytest.raises(SystemTroubleError) as error:
        ring.dump(tmp_path / "x.mcap", "")
    assert str(error.value) == (
        f"{tmp_path / 'x.mcap'}: cannot be written: No space left on device; free some space or "
        "choose another folder"
    )
    assert list(tmp_path.iterdir()) == []


def test_messages_may_come_while_it_is_written(tmp_path: Path):
    ring = Ring(1000.0, 10**7)
    end = threading.Event()

    def feed() -> None:
        second = 0
        while not end.is_set():
            ring.add(text(second * S))
            second += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        for index in range(20):
            dumped = ring.dump(tmp_path / f"{index}.mcap", "")
            times = [at for _, at, _ in read(tmp_path / f"{index}.mcap")] if index == 19 else None
    finally:
        end.set()
        thread.join()
    assert times is not None
    assert len(times) == dumped.messages
    assert times == list(range(dumped.first_ns, dumped.last_ns + 1, S))


@pytest.mark.parametrize(("seconds", "size"), [(0.0, 1), (-1.0, 1), (float("nan"), 1), (1.0, 0)])
def test_a_ring_that_keeps_nothing_is_refused(seconds: float, size: int):
    with pytest.raises(UsageError, match=r"^ring: must keep more than 0 s in more than 0 bytes"):
        Ring(seconds, size)
