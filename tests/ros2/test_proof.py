"""scripts/proofs/ros.py: its parts can be imported where rclpy is, which is not the main suite."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_the_topic_ros_has_parts():
    # A process of its own: the proof sets variables of the environment when it is imported.
    code = (
        f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import prove;"
        "assert all(callable(part) for part in prove.parts_of('ros').values());"
        "print(len(prove.parts_of('ros')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 22
