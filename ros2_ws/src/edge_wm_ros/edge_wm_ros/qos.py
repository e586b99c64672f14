"""Quality of service of every topic: why it is what it is stands beside it."""

from __future__ import annotations

from rclpy.duration import Duration
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    LivelinessPolicy,
    QoSProfile,
    ReliabilityPolicy,
)


def sensor(depth: int) -> QoSProfile:
    """A subscription that matches whatever a driver offers: best effort fits reliable too."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.BEST_EFFORT
    )


def sensor_offer(depth: int) -> QoSProfile:
    """What the simulated robot offers: reliable, so that loss is ours to see, never the wire's."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE
    )


def stream(period_ns: int, lifespan_ns: int | None = None) -> QoSProfile:
    """Trajectories, setpoints and states: the newest is all that matters, and it must come.

    The deadline of one and a half periods makes both ends notice when it does not.
    """
    profile = QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        deadline=Duration(nanoseconds=period_ns * 3 // 2),
        liveliness=LivelinessPolicy.AUTOMATIC,
    )
    if lifespan_ns is not None:
        profile.lifespan = Duration(nanoseconds=lifespan_ns)
    return profile


def newest(depth: int = 1) -> QoSProfile:
    """Reliable, without a deadline: goals, the emergency stop, heartbeats, things for people."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=ReliabilityPolicy.RELIABLE
    )


def latched() -> QoSProfile:
    """Whoever comes later still gets the last one."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy.RELIABLE,
        durability=DurabilityPolicy.TRANSIENT_LOCAL,
    )
