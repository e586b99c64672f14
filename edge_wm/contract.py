"""Does a bag carry what a robot file promises? Stream by stream, in words.

    bag ──► per stream of the robot file: topic, type, rate, gaps, stamps, frame, shape, NaN,
            frozen data ──► findings: "wrong" (the runtime would refuse it) or "suspect" (a unit
            that the numbers speak against; the evidence is told)

A robot that does not drive as it should is often fed with something else than everybody believes.
This says what, from a recording that anybody made with `ros2 bag record`.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from edge_wm.recording.bag import BagMessage
from edge_wm.recording.messages import message_type
from edge_wm.robot import FUTURE_TOLERANCE_NS, Robot, Stream
from edge_wm.types import Float64

KINDS = {
    "image": "sensor_msgs/msg/Image",
    "joint_state": "sensor_msgs/msg/JointState",
    "imu": "sensor_msgs/msg/Imu",
    "range_scan": "sensor_msgs/msg/LaserScan",
    "odometry": "nav_msgs/msg/Odometry",
}
RATE_SHARE = 0.8  # of the robot file's rate is enough; more is no trouble
ANGLE_TOLERANCE = 1e-3  # rad
FASTEST_TURN = 35.0  # rad/s: low-cost gyroscopes end at 2,000 degrees a second (ICM-20948: 34.9)
DEGREES = 180.0 / math.pi

Level = Literal["ok", "suspect", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is to be said of a stream."""

    stream: str
    level: Level
    text: str


@dataclass(slots=True)
class _Seen:
    """What a topic of the right type brought."""

    received_ns: list[int] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    frames: set[str] = field(default_factory=set)
    problems: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    values: list[Float64] = field(default_factory=list)
    repeats: int = 0
    last: bytes = b""


def check(messages: Iterable[BagMessage], robot: Robot) -> list[Finding]:
    """Everything there is to say, in the order of the robot file's streams."""
    wanted = {s.topic: s for s in robot.streams.values() if not s.derived_from and s.type in KINDS}
    kinds: dict[str, str] = {}
    seen: dict[str, _Seen] = defaultdict(_Seen)
    for message in messages:
        kinds[message.topic] = message.kind
        stream = wanted.get(message.topic)
        if stream is not None and message.kind == KINDS[stream.type]:
            _take(seen[stream.name], stream, message)
    findings = []
    for stream in wanted.values():
        kind = kinds.get(stream.topic)
        if kind is None or kind != KINDS[stream.type]:
            findings.append(_absent(stream, kind, kinds))
            continue
        found = list(_judge(seen[stream.name], stream, robot))
        count = len(seen[stream.name].stamps_ns)
        findings += found or [Finding(stream.name, "ok", f"{count} messages on {stream.topic}")]
    return findings


def _absent(stream: Stream, kind: str | None, kinds: dict[str, str]) -> Finding:
    wanted = KINDS[stream.type]
    others = sorted(topic for topic, other in kinds.items() if other == wanted)
    hint = f"topics of that type in the bag: {', '.join(others)}" if others else "no topic has it"
    what = "is missing" if kind is None else f"has type {kind}"
    return Finding(
        stream.name, "wrong", f"{stream.topic} {what}, must be there as {wanted}; {hint}"
    )


def _take(seen: _Seen, stream: Stream, message: BagMessage) -> None:
    try:
        values = message_type(message.kind).decode(message.data)
    except (ValueError, struct.error):
        seen.problems["cannot be decoded"] += 1
        return
    seen.received_ns.append(message.received_ns)
    seen.stamps_ns.append(int(values[0]) * 1_000_000_000 + int(values[1]))
    seen.frames.add(values[2])
    body = bytes(message.data[12:])  # without head and stamp
    seen.repeats += body == seen.last
    seen.last = body
    data = _numbers(stream, values, seen.problems)
    if data is not None:
        if np.isnan(data).any():
            seen.problems["holds NaN"] += 1
        seen.values.append(data)


def _numbers(stream: Stream, values: list[Any], problems: dict[str, int]) -> Float64 | None:
    """The numbers that units can be told from; what does not fit the robot file is counted."""
    if stream.type == "image":
        height, width, encoding = values[3], values[4], values[5]
        if (height, width) != stream.shape[:2]:
            found = f"{width} x {height}"
            problems[f"is {found}, must be {stream.shape[1]} x {stream.shape[0]}"] += 1
        if encoding not in ("rgb8", "bgr8", "rgba8", "bgra8"):
            problems[f"has encoding {encoding!r}, must be rgb8, bgr8, rgba8 or bgra8"] += 1
        return None
    if stream.type == "imu":
        return np.array([*values[16:19], *values[28:31]], np.float64)
    if stream.type == "joint_state":
        names, position, velocity = list(values[3]), values[4], values[5]
        missing = [joint for joint in stream.joints if joint not in names]
        if missing:
            problems[f"lacks the joints {', '.join(missing)}"] += 1
        if len(position) != len(names) or len(velocity) != len(names):
            problems["must have a position and a velocity for every joint"] += 1
            return None
        if missing:
            return None
        columns = [names.index(joint) for joint in stream.joints]
        return np.array([[position[c] for c in columns], [velocity[c] for c in columns]])
    if stream.type == "range_scan":
        if len(values[10]) != stream.shape[0]:
            problems[f"has {len(values[10])} beams, must have {stream.shape[0]}"] += 1
        apart = (values[3] - stream.angle_min, values[4] - stream.angle_max)
        if not all(abs(a) <= ANGLE_TOLERANCE for a in apart):
            problems[
                f"goes from {values[3]:.4f} to {values[4]:.4f} rad, must go from "
                f"{stream.angle_min:.4f} to {stream.angle_max:.4f}"
            ] += 1
        return np.asarray(values[10], np.float64)
    return np.array(values[4:7], np.float64)


def _judge(seen: _Seen, stream: Stream, robot: Robot) -> Iterator[Finding]:
    def wrong(text: str) -> Finding:
        return Finding(stream.name, "wrong", text)

    count = len(seen.stamps_ns)
    for text, times in seen.problems.items():
        yield wrong(f"{times} of {max(count, times)} messages: {text}")
    if count < 2:
        yield wrong(f"only {count} messages can be used; record more")
        return
    stamps = np.array(seen.stamps_ns) if stream.stamp == "sensor" else np.array(seen.received_ns)
    received = np.array(seen.received_ns)
    if stream.type != "joint_state" and seen.frames != {stream.frame}:
        found = ", ".join(repr(frame) for frame in sorted(seen.frames))
        yield wrong(f"frame_id is {found}, must be {stream.frame!r}")
    steps = np.diff(stamps)
    for text, bad in (
        ("older than the one before", int((steps < 0).sum())),
        ("stamped like the one before", int((steps == 0).sum())),
        (
            "stamped later than they were received (two clocks?)",
            int((stamps - received > FUTURE_TOLERANCE_NS).sum()),
        ),
    ):
        if bad:
            yield wrong(f"{bad} of {count} messages are {text}")
    span_s = float(stamps.max() - stamps.min()) * 1e-9
    rate, wanted = (count - 1) / span_s if span_s > 0 else math.inf, 1e9 / stream.period_ns
    if rate < RATE_SHARE * wanted:
        yield wrong(f"comes {rate:.1f} times a second, must come {wanted:g} times")
    gap_ns = int(np.diff(np.sort(received)).max())
    if gap_ns > stream.max_age_ns:
        yield wrong(
            f"is away for up to {gap_ns / 1e6:.0f} ms, at most {stream.max_age_ns / 1e6:g} ms "
            "(max_age_ms) are allowed"
        )
    age_ms = float(np.median(received - stamps)) / 1e6
    if age_ms > stream.max_age_ns / 1e6:
        yield wrong(
            f"is {age_ms:.0f} ms old when it arrives (median), at most "
            f"{stream.max_age_ns / 1e6:g} ms are allowed"
        )
    if stream.noisy and seen.repeats > 0.5 * count:
        yield wrong(f"{seen.repeats} of {count} messages repeat the one before: a frozen sensor")
    yield from _units(seen, stream, robot)


def _units(seen: _Seen, stream: Stream, robot: Robot) -> Iterator[Finding]:
    """What the numbers say of the units; suspicions, each with its evidence."""
    if not seen.values:
        return
    if stream.type == "range_scan":
        ranges = np.concatenate(seen.values)
        near = ranges[np.isfinite(ranges)]
        if len(near) and float(np.median(near)) > 20.0 * stream.range_max:
            yield Finding(
                stream.name, "suspect",
                f"half of the ranges are above {np.median(near):.0f}, and the scanner sees "
                f"{stream.range_max:g} m: millimetres?",
            )  # fmt: skip
        return
    data = np.stack(seen.values)
    if stream.type == "imu":
        gravity = float(np.median(np.linalg.norm(data[:, 3:], axis=1)))
        if 0.8 < gravity < 1.2:
            yield Finding(
                stream.name, "suspect",
                f"the acceleration is {gravity:.2f} at rest, must be 9.81 m/s^2: in g?",
            )  # fmt: skip
        elif not 8.0 < gravity < 12.0:
            yield Finding(
                stream.name, "suspect",
                f"the acceleration is {gravity:.2f} m/s^2 (median), must be about 9.81: is gravity "
                "taken out, or another unit?",
            )  # fmt: skip
        turn = float(np.nanmax(np.abs(data[:, :3])))
        if turn > FASTEST_TURN:
            yield Finding(
                stream.name, "suspect",
                f"it turns with up to {turn:.0f}, and gyroscopes end at {FASTEST_TURN:g} rad/s: "
                "degrees a second?",
            )  # fmt: skip
    if stream.type == "joint_state":
        yield from _joint_units(data, seen, stream, robot)


def _joint_units(data: Float64, seen: _Seen, stream: Stream, robot: Robot) -> Iterator[Finding]:
    seconds = np.diff(np.array(seen.stamps_ns[: len(data)])) * 1e-9
    moved = np.abs(np.diff(data[:, 0], axis=0)).sum()
    told = (np.abs(data[1:, 1]) * seconds[:, None]).sum()
    if moved > 0 and told > 0:
        ratio = told / moved
        for text, expected in (
            ("velocities are in degrees a second and positions in rad", DEGREES),
            ("positions are in degrees and velocities in rad/s", 1.0 / DEGREES),
        ):
            if 0.7 < ratio / expected < 1.4:
                yield Finding(
                    stream.name, "suspect",
                    f"the velocities add up to {ratio:.3g} times the way of the positions: {text}?",
                )  # fmt: skip
    base = robot.base
    if base is None or not {base.left_wheel, base.right_wheel} <= set(stream.joints):
        return
    speeds = {axis.name: max(axis.velocity_max, -axis.velocity_min) for axis in robot.axes}
    most = max(map(abs, base.wheel_speeds(speeds.get("base.vx", 0.0), speeds.get("base.wz", 0.0))))
    fastest = float(np.nanmax(np.abs(data[:, 1])))
    if fastest > 3.0 * most:
        yield Finding(
            stream.name, "suspect",
            f"wheels turn with up to {fastest:.0f}, and the robot file's limits allow {most:.1f} "
            "rad/s: degrees a second?",
        )  # fmt: skip
