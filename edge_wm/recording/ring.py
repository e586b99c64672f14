"""The last seconds of a robot's topics, in memory, written when something happened.

    message ──► add ──► [ ring: the last N seconds, at most so many bytes ]
                                     │ dump(path, reason)
                                     ▼
                        an MCAP file that Foxglove and rosbag2 open

A robot that drives all day is not recorded all day; what one wants to have is the half minute
before the fault. Messages are kept as they came, serialized; nothing is decoded.

Invariant: memory is bounded, whatever arrives: the oldest messages go first, and a message that
is larger than the ring is counted and not kept. A dump is written whole or not at all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from mcap.writer import CompressionType, Writer

import edge_wm
from edge_wm.errors import SystemTroubleError, UsageError
from edge_wm.recording.messages import message_type

MESSAGE_BYTES = 200  # what one costs beside its data


class Message(NamedTuple):
    """One message as it arrived."""

    log_ns: int
    topic: str
    kind: str  # message type, as "sensor_msgs/msg/Imu"
    data: bytes  # CDR


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump holds."""

    path: str
    messages: int
    first_ns: int
    last_ns: int


class Ring:
    """Keeps the newest messages. `add` and `dump` may be called from different threads."""

    def __init__(self, seconds: float, max_bytes: int) -> None:
        """Raises UsageError unless both are positive."""
        if not (seconds > 0.0 and max_bytes > 0):
            raise UsageError(
                f"ring: must keep more than 0 s in more than 0 bytes, got {seconds:g} s and "
                f"{max_bytes}; ask for more"
            )
        self._span_ns = round(seconds * 1e9)
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._messages: deque[Message] = deque()
        self._bytes = 0
        self.too_large = 0  # messages that were not kept

    @property
    def bytes(self) -> int:
        """Memory in use."""
        return self._bytes

    def add(self, message: Message) -> None:
        """Keep a message; forget those that are too old, or too many."""
        weight = _weight(message)
        with self._lock:
            if weight > self._max_bytes:
                self.too_large += 1
                return
            self._messages.append(message)
            self._bytes += weight
            oldest_ns = message.log_ns - self._span_ns
            while self._bytes > self._max_bytes or self._messages[0].log_ns < oldest_ns:
                self._bytes -= _weight(self._messages.popleft())

    def dump(self, path: str | os.PathLike[str], reason: str) -> Dumped:
        """Write what is kept to `path`; messages that arrive meanwhile are kept, not written.

        Raises UsageError where `path` exists, SystemTroubleError where it cannot be written.
        """
        with self._lock:
            kept = list(self._messages)
        kept.sort(key=lambda message: message.log_ns)
        name = os.fspath(path)
        if os.path.exists(name):
            raise UsageError(f"{name}: exists already; a dump is never written over")
        partial = f"{name}.partial"
        try:
            with open(partial, "xb") as file:
                _write(Writer(file, compression=CompressionType.ZSTD), kept, reason)
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, name)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(partial)
            raise SystemTroubleError(
                f"{name}: cannot be written: {error.strerror or error}; free some space or choose "
                "another folder"
            ) from error
        first_ns, last_ns = (kept[0].log_ns, kept[-1].log_ns) if kept else (0, 0)
        return Dumped(name, len(kept), first_ns, last_ns)


def _write(writer: Writer, messages: list[Message], reason: str) -> None:
    writer.start(profile="ros2", library=f"edge-wm {edge_wm.__version__}")
    writer.add_metadata("edge_wm.ring", {"reason": reason})
    schemas: dict[str, int] = {}
    channels: dict[tuple[str, str], int] = {}
    for message in messages:
        key = message.topic, message.kind
        if key not in channels:
            if message.kind not in schemas:
                text = message_type(message.kind).schema.encode()
                schemas[message.kind] = writer.register_schema(message.kind, "ros2msg", text)
            channels[key] = writer.register_channel(message.topic, "cdr", schemas[message.kind])
        writer.add_message(channels[key], message.log_ns, message.data, message.log_ns)
    writer.finish()  # type: ignore[no-untyped-call]


def _weight(message: Message) -> int:
    return MESSAGE_BYTES + len(message.data)
