"""Run where edge_wm_msgs is: wm_viz tells verdicts, and a belief in short. Prints JSON."""

from __future__ import annotations

import json
import time

import msgspec
import numpy as np
import rclpy
from edge_wm_msgs.msg import BeliefSummary, Verdict
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import GuardReport
from edge_wm_ros.spinning import make_executor
from edge_wm_ros.summaries import belief_message
from edge_wm_ros.viz_node import VizNode
from std_msgs.msg import String

from edge_wm.types import Belief

PERIOD_NS = 10_000_000


def main() -> None:
    """A guard that plays every second knot, so at half speed."""
    rclpy.init()
    viz, watcher, executor = VizNode(), rclpy.create_node("watcher"), make_executor()
    for node in (viz, watcher):
        executor.add_node(node)
    heard: list[Verdict] = []
    watcher.create_subscription(Verdict, names.VERDICT, heard.append, qos.newest(10))
    states = watcher.create_publisher(String, names.GUARD_STATE, qos.newest(10))
    until, begin_ns, tick = time.monotonic() + 10.0, time.time_ns(), 0
    while len(heard) < 5 and time.monotonic() < until:
        tick += 1
        told = GuardReport(
            begin_ns + tick * PERIOD_NS, "slow", 3, 7, [], 7,
            tick / 2, [], "play", None, ["obstacle_near"], None, {},
        )  # fmt: skip
        states.publish(String(data=msgspec.json.encode(told).decode()))
        executor.spin_once(timeout_sec=0.1)
    last = heard[-1]
    belief = Belief(begin_ns, {"z": np.array([3.0, 4.0], np.float32)})
    summary = belief_message(BeliefSummary, belief, begin_ns + PERIOD_NS)
    told = {
        "mode": last.mode,
        "reasons": [int(number) for number in last.reasons],
        "names": list(last.reason_names),
        "speed_scale": last.speed_scale,
        "epoch": last.epoch,
        "sequence": last.sequence,
        "belief": [list(summary.names), list(summary.norms), summary.age.nanosec],
    }
    executor.shutdown()
    for node in (viz, watcher):
        node.destroy_node()
    rclpy.try_shutdown()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
