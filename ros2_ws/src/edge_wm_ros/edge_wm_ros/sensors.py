"""Subscriptions for a robot file's streams: message in, `Sample` pushed, refusals counted.

Each subscription pushes at once and does nothing else. What never arrived is counted too: the
stamps of a periodic sensor say how many samples lie in a gap.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from edge_wm.reasons import Reason
from edge_wm.robot import Robot, Stream
from edge_wm.types import Sample
from edge_wm_ros import qos
from edge_wm_ros.conversions import SENSOR_MESSAGES, sample_of

DEPTHS = {"image": 4, "imu": 64}  # messages waiting; the others 16


class Sensors:
    """The streams `names` of a robot, as subscriptions of `node`."""

    def __init__(
        self,
        node: Node,
        robot: Robot,
        names: Iterable[str],
        push: Callable[[Sample], None],
        now_ns: Callable[[], int],
        *,
        compressed: bool = False,
    ) -> None:
        """push: where samples go. compressed: take images from <topic>/compressed."""
        self.received: Counter[str] = Counter()
        self.refused: Counter[tuple[str, Reason]] = Counter()
        self._node, self._push, self._now_ns = node, push, now_ns
        self._lock = threading.Lock()
        self._last_stamp_ns: dict[str, int] = {}
        self._subscriptions = [self._subscribe(robot.streams[name], compressed) for name in names]

    def close(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []

    def _subscribe(self, stream: Stream, compressed: bool) -> Any:
        kind: type = SENSOR_MESSAGES[stream.type]
        topic = stream.topic
        if stream.type == "image" and compressed:
            kind, topic = CompressedImage, f"{topic}/compressed"

        def arrived(message: Any) -> None:
            self._arrived(stream, message)

        def incompatible(event: Any) -> None:
            self._node.get_logger().error(
                f"{topic}: a publisher offers a quality of service that does not fit "
                f"(policy {event.last_policy_kind}); nothing of it arrives"
            )

        return self._node.create_subscription(
            kind,
            topic,
            arrived,
            qos.sensor(DEPTHS.get(stream.type, 16)),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=incompatible),
        )

    def _arrived(self, stream: Stream, message: Any) -> None:
        now_ns = self._now_ns()
        self.received[stream.name] += 1
        sample = sample_of(message, stream, now_ns, self.received[stream.name])
        if isinstance(sample, Reason):
            self.refused[stream.name, sample] += 1
            return
        last_ns = self._last_stamp_ns.get(stream.name)
        if last_ns is None or last_ns < sample.stamp_ns <= now_ns + stream.period_ns:
            self._last_stamp_ns[stream.name] = sample.stamp_ns
            if last_ns is not None:
                lost = round((sample.stamp_ns - last_ns) / stream.period_ns) - 1
                if lost > 0:
                    self.refused[stream.name, Reason.sample_missing] += lost
        self._push(sample)
