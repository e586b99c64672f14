"""Bags that others recorded: rosbag2 as MCAP or SQLite, a file or a folder; message by message.

Nothing is decoded here; a message is its topic, its type, when it was received, and its CDR.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mcap.exceptions import McapError
from mcap.reader import make_reader

from edge_wm.errors import ModelError, UsageError

SUFFIXES = (".mcap", ".db3")


class BagMessage(NamedTuple):
    """One message as it was recorded."""

    topic: str
    kind: str  # message type, as "sensor_msgs/msg/Imu"
    received_ns: int
    data: bytes  # CDR


def read_bag(path: Path) -> Iterator[BagMessage]:
    """Every message of a bag, file by file, each in the order of reception.

    Raises: UsageError where there is no bag, ModelError where it cannot be read.
    """
    for file in bag_files(path):
        try:
            yield from _mcap(file) if file.suffix == ".mcap" else _sqlite(file)
        except (McapError, sqlite3.Error, struct.error, ValueError, EOFError) as error:
            raise ModelError(
                f"{file}: cannot be read as a bag ({error}); if its recording was cut off, "
                "`mcap recover` or `ros2 bag reindex` may mend it"
            ) from error


def bag_files(path: Path) -> list[Path]:
    """The files of a bag: itself, or those of its folder."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
        if not files:
            raise UsageError(
                f"{path}: must hold a bag's .mcap or .db3 files, and holds none; name another"
            )
        return files
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: must be a bag, a folder or a file that ends with .mcap or .db3; "
            f"{'name another' if path.exists() else 'there is nothing of that name'}"
        )
    return [path]


def _mcap(file: Path) -> Iterator[BagMessage]:
    with file.open("rb") as stream:
        for schema, channel, message in make_reader(stream).iter_messages():
            if schema is not None and channel.message_encoding == "cdr":
                yield BagMessage(channel.topic, schema.name, message.log_time, message.data)


def _sqlite(file: Path) -> Iterator[BagMessage]:
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT topics.name, topics.type, messages.timestamp, messages.data FROM messages "
            "JOIN topics ON topics.id = messages.topic_id "
            "WHERE topics.serialization_format = 'cdr' ORDER BY messages.timestamp"
        )
        for topic, kind, received_ns, data in rows:
            yield BagMessage(topic, kind, received_ns, data)
    finally:
        connection.close()
