"""Reads the events of a run back from its MCAP file, as far as the file is good.

A run that was killed leaves a file without an end; a bad disk leaves a damaged one. Both are
read up to the last whole chunk, and `Recording.troubles` says so in words. Only a file that is
no recording of ours at all is an error.

Invariant: what is read is what was recorded, bit for bit, in the same order with the same
numbers; a chunk whose checksum is wrong, and everything after it, is not read at all.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from io import BytesIO
from typing import Any, BinaryIO, TypeVar, cast

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Metadata, Schema

from edge_wm.errors import RecordingError, SystemTroubleError
from edge_wm.recording.events import Event, Header
from edge_wm.recording.messages import message_type
from edge_wm.recording.recorder import FORMAT, STREAM_KEY, checksum
from edge_wm.recording.samples import decode
from edge_wm.recording.wire import unpack
from edge_wm.types import Sample

_MAGIC = b"\x89MCAP0\r\n"
_RECORD = struct.Struct("<BQ")  # opcode, length
_MESSAGE = struct.Struct("<HIQQ")  # channel, sequence, log time, publish time; then the data
assert _RECORD.size == 9
assert _MESSAGE.size == 22

_CHUNK_LIMIT = 1 << 30  # bytes, unpacked

_SKIPPED = (  # besides chunks and metadata: indexes
    *(Opcode.HEADER, Opcode.DATA_END, Opcode.STATISTICS, Opcode.SUMMARY_OFFSET),
    *(Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE_INDEX, Opcode.CHUNK_INDEX),
    Opcode.METADATA_INDEX,
)

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class _Lane:
    """What a channel carries: events of a kind, samples of a stream, or nothing for replay."""

    name: str  # "Sample", "PlanEnd", ..., "Gap"; empty: a view
    stream: str  # "" unless standard messages carry the samples
    message: str  # message type


@dataclass(frozen=True)
class Recording:
    """A recording, opened by `open_recording`."""

    path: str
    header: Header
    software: str  # the version of edge-wm that wrote it
    complete: bool  # it was closed, and is undamaged
    lost: Mapping[str, int]  # events lost while recording, by kind, as far as the file says
    troubles: tuple[str, ...]  # what is wrong with it, in words; empty: nothing
    remarks: Mapping[str, str]  # what was said of the run at its end, for people
    _chunks: tuple[tuple[int, int], ...] = field(repr=False)  # (offset, length) of good ones

    def events(self) -> Iterator[tuple[int, Event]]:
        """Every event with its number, in order. Raises RecordingError where one is not ours."""
        yield from self._select(None)

    def only(self, kind: type[E]) -> Iterator[E]:
        """The events of one kind, in order; the others are not decoded."""
        for _, event in self._select(kind.__name__):
            yield cast(E, event)

    def samples(self, stream: str) -> Iterator[Sample]:
        """The samples of one stream, in order."""
        for _, event in self._select("Sample", stream):
            if isinstance(event, Sample) and event.stream == stream:
                yield event

    @property
    def exact(self) -> bool:
        """Whether no event is missing before the end, so that it can be replayed bit for bit."""
        return not self.lost

    def _select(self, wanted: str | None, stream: str = "") -> Iterator[tuple[int, Event]]:
        number = 0
        try:
            for lane, counters, data in _messages(self.path, self._chunks):
                sequence, received_ns, stamp_ns = counters
                if lane.name == "Gap":
                    first, count = message_type("Gap").decode(data)
                    number = first + count
                elif lane.name:
                    if not lane.stream and sequence != number & 0xFFFFFFFF:
                        raise ValueError(f"{lane.name} {sequence} is in its place")
                    elsewhere = stream and lane.stream not in ("", stream)
                    if wanted in (None, lane.name) and not elsewhere:
                        if lane.stream:
                            times = (stamp_ns, received_ns)
                            yield number, decode(lane.stream, lane.message, data, *times, sequence)
                        else:
                            yield number, unpack(lane.name, message_type(lane.name).decode(data))
                    number += 1
        except (ValueError, KeyError, IndexError, TypeError, struct.error) as error:
            raise RecordingError(
                f"{self.path}: event {number} is not as edge-wm {self.software} writes it "
                f"({error}); the file was changed, or needs a newer edge-wm"
            ) from error


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording and check every chunk of it.

    Raises SystemTroubleError where it cannot be read, RecordingError where it is no recording of
    edge-wm. One that is cut off or damaged is opened up to there: see `Recording.troubles`.
    """
    name = os.fspath(path)
    notes: dict[str, dict[str, str]] = {}
    chunks: list[tuple[int, int]] = []
    try:
        with open(name, "rb") as file:
            trouble = _scan(file, notes, chunks)
    except OSError as error:
        raise SystemTroubleError(
            f"{name}: cannot be read: {error.strerror or error}; give the run.mcap of a run"
        ) from error
    if "edge_wm" not in notes:
        found = trouble or "whole MCAP, but has no metadata `edge_wm`"
        raise RecordingError(
            f"{name}: expected a recording made by edge-wm, found a file that is {found}; give "
            "the run.mcap of a run"
        )
    header, software = _header(name, notes["edge_wm"])
    if "edge_wm.end" in notes:
        lost = cast(dict[str, int], json.loads(notes["edge_wm.end"]["lost"]))
    else:
        missing = sum(count for _, count in _gaps(name, chunks))
        lost = {"events": missing} if missing else {}
    troubles = []
    if trouble:
        troubles.append(f"{name}: is {trouble}; it is read up to there")
    if lost:
        parts = ", ".join(f"{count} {kind}" for kind, count in sorted(lost.items()))
        troubles.append(
            f"{name}: events were lost while recording ({parts}), so it cannot be replayed bit "
            "for bit"
        )
    remarks = notes.get("edge_wm.remarks", {})
    return Recording(
        name, header, software, not trouble, lost, tuple(troubles), remarks, tuple(chunks)
    )


def _scan(file: BinaryIO, notes: dict[str, dict[str, str]], chunks: list[tuple[int, int]]) -> str:
    """Collect metadata and good chunks; return what stopped it before the end, "" if nothing."""
    size = os.fstat(file.fileno()).st_size
    if file.read(len(_MAGIC)) != _MAGIC:
        return "not MCAP"
    at = len(_MAGIC)
    while True:
        head = file.read(_RECORD.size)
        body = at + _RECORD.size
        if len(head) < _RECORD.size:
            return f"cut off at byte {at}"
        opcode, length = _RECORD.unpack(head)
        if length > size - body:
            return f"cut off in the record at byte {at}"
        if opcode in (Opcode.CHUNK, Opcode.METADATA):
            try:
                if opcode == Opcode.CHUNK:
                    _unpacked(file.read(length))
                    chunks.append((body, length))
                else:
                    note = Metadata.read(ReadDataStream(BytesIO(file.read(length))))
                    if note.metadata.pop("crc32", "") != checksum(note.metadata):
                        raise ValueError("its checksum is wrong")
                    notes[note.name] = note.metadata
            except (ValueError, McapError, struct.error, zstandard.ZstdError) as error:
                return f"damaged at byte {at} ({error or type(error).__name__})"
        elif opcode == Opcode.FOOTER and body + length + len(_MAGIC) == size:
            return ""
        elif opcode not in _SKIPPED:
            return f"damaged at byte {at} (opcode {opcode})"
        at = body + length
        file.seek(at)


def _header(path: str, note: Mapping[str, str]) -> tuple[Header, str]:
    if note.get("format") != FORMAT:
        raise RecordingError(
            f"{path}: expected a recording of format {FORMAT}, found {note.get('format')} (by "
            f"edge-wm {note.get('edge_wm')}); use that version of edge-wm"
        )
    try:
        values: dict[str, Any] = {
            f.name: note[f.name] if f.type == "str" else json.loads(note[f.name])
            for f in fields(Header)
        }
    except (KeyError, ValueError) as error:
        raise RecordingError(f"{path}: metadata `edge_wm`: bad or missing: {error}") from error
    return Header(**values), note["edge_wm"]


def _unpacked(body: bytes) -> memoryview:
    """The records inside a chunk. Raises ValueError, McapError or ZstdError if it is damaged."""
    chunk = Chunk.read(ReadDataStream(BytesIO(body)))
    data = chunk.data
    if chunk.compression == "zstd":
        size = zstandard.frame_content_size(data)
        if not size == chunk.uncompressed_size <= _CHUNK_LIMIT:
            raise ValueError(f"a chunk of {size} bytes where {chunk.uncompressed_size} are stated")
        data = zstandard.decompress(data)
    elif chunk.compression:
        raise ValueError(f"compression {chunk.compression!r} where zstd or none is expected")
    if zlib.crc32(data) != chunk.uncompressed_crc:
        raise ValueError("its checksum is wrong")
    return memoryview(data)


def _messages(
    path: str, chunks: Sequence[tuple[int, int]]
) -> Iterator[tuple[_Lane, tuple[int, int, int], memoryview]]:
    """(lane, (sequence, log time, publish time), data) of every message, in order."""
    schemas: dict[int, str] = {}
    lanes: dict[int, _Lane] = {}
    with open(path, "rb") as file:
        for offset, length in chunks:
            file.seek(offset)
            data = _unpacked(file.read(length))
            at = 0
            while at < len(data):
                opcode, count = _RECORD.unpack_from(data, at)
                at += _RECORD.size
                record = data[at : at + count]
                at += count
                if opcode == Opcode.MESSAGE:
                    channel, *counters = _MESSAGE.unpack_from(record)
                    yield lanes[channel], tuple(counters), record[_MESSAGE.size :]
                elif opcode == Opcode.SCHEMA:
                    schema = Schema.read(ReadDataStream(BytesIO(record)))
                    schemas[schema.id] = schema.name
                elif opcode == Opcode.CHANNEL:
                    found = Channel.read(ReadDataStream(BytesIO(record)))
                    lanes[found.id] = _lane(schemas[found.schema_id], found.metadata)


def _lane(message: str, metadata: Mapping[str, str]) -> _Lane:
    stream = metadata.get(STREAM_KEY, "")
    package, _, name = message.partition("/msg/")
    if stream:
        return _Lane("Sample", stream, message)
    return _Lane(name if package == "edge_wm_msgs" else "", "", message)


def _gaps(path: str, chunks: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(first, count) of the events that are missing."""
    for lane, _, data in _messages(path, chunks):
        if lane.name == "Gap":
            first, count = message_type("Gap").decode(data)
            yield first, count
