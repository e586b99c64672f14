"""Writes the events of a run to an MCAP file, without holding up the run.

    tick threads ── record(event) ──►  bounded queue  ──► writer thread ──► chunks ──► run.mcap
                    (numbers it)       (bytes counted)     (encodes)        each second

The picture's one rule: the run never waits and never fails for its recording. A queue that is
full loses the newest event, a disk that is full ends the recording; both are counted, told once
through `on_trouble`, and visible in the file: a lost event leaves a gap in the numbering.

Invariant: at any moment the file on disk is readable up to its last whole chunk, which is at
most about a second old. Nothing is written twice, nothing is taken back, so a process that is
killed leaves a good prefix.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
import time
import zlib
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import TracebackType
from typing import IO, NamedTuple, cast

from mcap.writer import CompressionType, Writer

import edge_wm
from edge_wm.errors import SystemTroubleError, UsageError
from edge_wm.recording.events import Event, Header, PlanEnd, Prediction
from edge_wm.recording.messages import message_type
from edge_wm.recording.samples import MESSAGES, encode
from edge_wm.recording.views import Robot, Views
from edge_wm.recording.wire import pack
from edge_wm.types import Array, Sample

FORMAT = "1"
STREAM_KEY = "edge_wm.stream"  # channel metadata: the stream whose samples the channel carries
RECORD_TOPIC = "/edge_wm/record/"
_OWN = "edge_wm_msgs/msg/"
QUEUE_BYTES = 64 * 1024 * 1024  # two seconds of a VGA camera at 30 Hz
CHUNK_BYTES = 4 * 1024 * 1024
FLUSH_EVERY_S = 1.0
LOOK_EVERY_S = 0.02  # short bursts: the writer never holds the interpreter for long
EVENT_BYTES = 1024  # what an event weighs in the queue besides its large arrays


@dataclass(frozen=True, slots=True)
class Statistics:
    """How the recording went."""

    events: int  # recorded or lost
    lost: Mapping[str, int]  # by kind of event
    bytes_written: int
    trouble: str | None  # the first trouble: why events were lost or the recording ended early


class Recorder:
    """Records events in the order of the `record` calls, from any number of threads.

    `on_trouble` is called at most once for each kind of trouble, from the writer's thread.

    Raises UsageError where `path` exists already, SystemTroubleError where it cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        robot: Robot,
        header: Header,
        *,
        on_trouble: Callable[[SystemTroubleError], None] | None = None,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        self.path = os.fspath(path)
        self._on_trouble = on_trouble
        self._queue_bytes = queue_bytes
        self._lock = threading.Lock()  # of everything down to _closing
        self._queue: deque[tuple[int, Event, int]] = deque()
        self._queued_bytes = 0
        self._next = 0
        self._lost: Counter[str] = Counter()
        self._overflowed = False
        self._closing = threading.Event()
        self._remarks: dict[str, str] = {}
        self._unsafe: Counter[str] = Counter()  # written, but not yet on disk for good
        self._told: dict[str, str] = {}  # kind of trouble -> message
        self._flush_at_s = 0.0
        self._file = _File(self.path)
        try:
            self._mcap = _Mcap(self._file, robot, header)
        except OSError as error:
            self._file.close()
            raise _cannot_write(self.path, error) from error
        self._thread = threading.Thread(target=self._write, name="edge-wm-recorder", daemon=True)
        self._thread.start()

    def record(self, event: Event) -> int:
        """Take the event over and return its number; never waits, never raises for a bad disk."""
        weight = _weight(event)
        with self._lock:
            number = self._next
            self._next += 1
            full = self._queued_bytes + weight > self._queue_bytes
            if full or self._closing.is_set():
                self._lost[type(event).__name__] += 1
                self._overflowed |= full
            else:
                self._queued_bytes += weight
                self._queue.append((number, event, weight))
        return number

    def close(self, remarks: Mapping[str, str] | None = None) -> Statistics:
        """Write what is queued and the index, close the file. May be called twice.

        remarks: what else is to be said of the run, for people (name -> text).
        """
        with self._lock:
            if remarks:
                self._remarks = dict(remarks)
            self._closing.set()
        self._thread.join()
        return self.statistics

    @property
    def statistics(self) -> Statistics:
        with self._lock:
            trouble = next(iter(self._told.values()), None)
            return Statistics(self._next, dict(self._lost), self._file.size, trouble)

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # ---- the writer's thread ----------------------------------------------------------
    def _write(self) -> None:
        try:
            while not self._closing.wait(LOOK_EVERY_S):
                self._drain()
                self._flush_if_due()
            self._drain()
            self._mcap.finish(self.statistics, self._remarks)
        except OSError as error:
            self._give_up(error)
        finally:
            self._file.close()

    def _flush_if_due(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._flush_at_s:
            self._mcap.flush()
            self._unsafe.clear()
            self._flush_at_s = now_s + FLUSH_EVERY_S

    def _drain(self) -> None:
        while self._queue:
            self._flush_if_due()
            with self._lock:
                number, event, weight = self._queue.popleft()
                self._queued_bytes -= weight
            kind = type(event).__name__
            self._unsafe[kind] += 1
            try:
                self._mcap.write(number, event)
                if self._file.mark():  # a chunk was filled, with all up to here in it
                    self._unsafe.clear()
            except OSError:
                raise
            except Exception as error:  # whatever does not fit its message costs one event
                self._unsafe[kind] -= 1
                with self._lock:
                    self._lost[kind] += 1
                self._tell(
                    f"{self.path}: event {number}, a {kind}, cannot be recorded and is missing "
                    f"({error}); this is a fault of the program that recorded it",
                    kind=kind,
                )
        if self._overflowed:
            self._tell(
                f"{self.path}: the disk does not keep up, so events are missing from the recording "
                "and it cannot be replayed bit for bit; record to a faster disk",
                kind="overflow",
            )

    def _give_up(self, error: OSError) -> None:
        """The disk is in the way: keep the file readable, count what is lost."""
        self._file.cut_back()
        with self._lock:
            self._closing.set()
            self._lost.update(self._unsafe)
            self._lost.update(type(event).__name__ for _, event, _ in self._queue)
            self._queue.clear()
        self._tell(str(_cannot_write(self.path, error)), kind="disk")

    def _tell(self, message: str, kind: str) -> None:
        if kind not in self._told:
            self._told[kind] = message
            if self._on_trouble is not None:
                self._on_trouble(SystemTroubleError(message))


class _Mcap:
    """Events as MCAP records; schemas and channels are added as they first come up."""

    def __init__(self, file: _File, robot: Robot, header: Header) -> None:
        self._file = file
        self._streams = robot.streams
        self._views = Views(robot)
        self._schemas: dict[str, int] = {}
        self._channels: dict[tuple[str, str], int] = {}
        self._expected = 0
        self._writer = Writer(
            cast(IO[bytes], file), chunk_size=CHUNK_BYTES, compression=CompressionType.ZSTD
        )
        self._writer.start(profile="ros2", library=f"edge-wm {edge_wm.__version__}")
        conditions = {field.name: getattr(header, field.name) for field in fields(header)}
        texts = {n: v if isinstance(v, str) else json.dumps(v) for n, v in conditions.items()}
        self._note("edge_wm", {"format": FORMAT, "edge_wm": edge_wm.__version__, **texts})
        self.flush()

    def write(self, number: int, event: Event) -> None:
        """One event, after a mark where events before it are missing, then what it shows."""
        entry = self._entry(number, event)
        if number != self._expected:
            gap = message_type("Gap").encode(self._expected, number - self._expected)
            self._add(_Entry(_topic("Gap"), _OWN + "Gap", gap, entry.log_ns, entry.log_ns))
        self._add(entry)
        self._expected = number + 1
        for topic, kind, now_ns, message in self._views.of(event, entry.log_ns):
            self._add(_Entry(topic, kind, message, now_ns, now_ns))

    def flush(self) -> None:
        self._writer.flush()  # type: ignore[no-untyped-call]
        self._file.mark()

    def finish(self, statistics: Statistics, remarks: dict[str, str]) -> None:
        if remarks:
            self._note("edge_wm.remarks", remarks)
        end = {"events": str(statistics.events), "lost": json.dumps(statistics.lost)}
        self._note("edge_wm.end", end)
        self._writer.finish()  # type: ignore[no-untyped-call]
        self._file.sync()

    def _note(self, name: str, texts: dict[str, str]) -> None:
        self._writer.add_metadata(name, {**texts, "crc32": checksum(texts)})

    def _entry(self, number: int, event: Event) -> _Entry:
        if isinstance(event, Sample):
            stream = self._streams.get(event.stream)
            message = encode(stream, event) if stream else None
            if stream and message is not None:
                times = (event.received_ns, event.stamp_ns)
                kind = MESSAGES[stream.type]
                return _Entry(
                    stream.topic, kind, message, *times, event.sequence, stream=event.stream
                )
        name = type(event).__name__
        message = message_type(name).encode(*pack(event))
        now_ns = _now_ns(event)
        return _Entry(_topic(name), _OWN + name, message, now_ns, now_ns, number & 0xFFFFFFFF)

    def _add(self, entry: _Entry) -> None:
        channel = self._channels.get((entry.topic, entry.kind))
        if channel is None:
            schema = self._schemas.get(entry.kind)
            if schema is None:
                text = message_type(entry.kind).schema.encode()
                schema = self._writer.register_schema(entry.kind, "ros2msg", text)
                self._schemas[entry.kind] = schema
            carries = {STREAM_KEY: entry.stream} if entry.stream else {}
            channel = self._writer.register_channel(entry.topic, "cdr", schema, carries)
            self._channels[entry.topic, entry.kind] = channel
        self._writer.add_message(
            channel, max(entry.log_ns, 0), entry.message, max(entry.publish_ns, 0), entry.sequence
        )


class _Entry(NamedTuple):
    topic: str
    kind: str  # message type
    message: bytes
    log_ns: int
    publish_ns: int
    sequence: int = 0
    stream: str = ""  # whose sample it is; empty: not a sample


class _File:
    """The file on disk: written whole or failing, cut back to the last mark after a failure."""

    def __init__(self, path: str) -> None:
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(path, flags, 0o644)
        except FileExistsError as error:
            raise UsageError(
                f"{path}: exists already; a recording is never written over: choose another name"
            ) from error
        except OSError as error:
            raise _cannot_write(path, error) from error
        self.size = 0
        self._marked = 0

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            count = os.write(self._descriptor, left)
            left = left[count:]
            self.size += count
        return len(data)

    def tell(self) -> int:
        return self.size

    def flush(self) -> None:
        """Part of what `Writer` expects of a file; nothing is held back here."""

    def mark(self) -> bool:
        """What is written so far is whole. Returns whether anything was, since the last mark."""
        grown, self._marked = self.size > self._marked, self.size
        return grown

    def cut_back(self) -> None:
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, self._marked)
        self.size = self._marked

    def sync(self) -> None:
        os.fsync(self._descriptor)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # what matters was synced
            os.close(self._descriptor)


def checksum(texts: Mapping[str, str]) -> str:
    """Of a metadata record, which MCAP itself does not protect."""
    return str(zlib.crc32(json.dumps(texts, sort_keys=True).encode()))


def _cannot_write(path: str, error: OSError) -> SystemTroubleError:
    return SystemTroubleError(
        f"{path}: cannot be written: {error.strerror or error}; what was recorded before is "
        "readable; free some space or choose another folder"
    )


def _topic(name: str) -> str:
    return RECORD_TOPIC + re.sub("(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _now_ns(event: Event) -> int:
    if isinstance(event, Sample):
        return event.received_ns
    return int(event.times_ns[0]) if isinstance(event, Prediction) else event.now_ns


def _weight(event: Event) -> int:
    """About how much memory an event holds."""
    if isinstance(event, Sample):
        return EVENT_BYTES + event.data.nbytes
    if isinstance(event, Prediction):
        return EVENT_BYTES + event.images.nbytes + _total(event.beliefs)
    if isinstance(event, PlanEnd):
        held = 0 if event.trajectory is None else 3 * event.trajectory.position.nbytes
        return EVENT_BYTES + held + (_total(event.belief.tensors) if event.belief else 0)
    return EVENT_BYTES


def _total(tensors: Mapping[str, Array]) -> int:
    return sum(tensor.nbytes for tensor in tensors.values())
