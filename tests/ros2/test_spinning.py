"""Tests how a node's process is run: what `spinning.main` does around a node."""

from __future__ import annotations

import subprocess
import sys

from edge_wm_ros.launching import environment

PRINT_FROZEN = """
import gc, os, signal
from rclpy.node import Node
from edge_wm_ros.spinning import main

class Told(Node):
    def __init__(self):
        super().__init__("told")
        self.create_timer(0.01, self.tell)

    def tell(self):
        print(gc.get_freeze_count(), len(gc.get_objects()), flush=True)
        os.kill(os.getpid(), signal.SIGINT)

raise SystemExit(main(Told))
"""


def test_what_was_imported_is_left_out_of_full_collections():
    """Or one of 10 ms falls into a setpoint's tick now and then."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_FROZEN],
        capture_output=True, text=True, timeout=30, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    frozen, collected = map(int, done.stdout.split()[:2])
    assert frozen > 20 * collected
