"""From a node class to a process: start, spin, stop in the order that does not abort.

The events executor, where this distro has it, costs least and has the least jitter; its own
`spin` neither fires timers nor can be stopped in every release, so it is driven by `spin_once`.
An exception out of a callback is told and survived: any peer can send an illegal request, and a
robot does not stop listening because of one.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from edge_wm.errors import EdgeWmError
from edge_wm_ros.security import check_security

SPIN_S = 0.1


def make_executor() -> Executor:
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:  # Humble, Jazzy
        return SingleThreadedExecutor()
    executor: Executor = EventsExecutor()
    return executor


def main(make_node: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Run one node until SIGINT or SIGTERM. Returns the exit code.

    A node may have `stop()`, called before it is destroyed, to bring its threads to an end.
    """
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    _die_with_parent()
    node = executor = None
    try:
        check_security(os.environ)
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        executor = make_executor()
        node = make_node()
        executor.add_node(node)
        # A full collection over all that was imported takes 8 to 12 ms (x86, November 2026): longer
        # than a setpoint period.
        gc.collect()
        gc.freeze()
        while rclpy.ok() and not end.is_set():
            spin_once(executor, node)
    except EdgeWmError as error:
        print(f"{sys.argv[0]}: {error}", file=sys.stderr)
        return error.exit_code
    finally:
        stop: Any = getattr(node, "stop", None)
        if stop is not None:
            stop()
        if executor is not None:
            executor.shutdown()
        if node is not None:
            node.destroy_node()
        rclpy.try_shutdown()
    return 0


def spin_once(executor: Executor, node: Node) -> None:
    """Serve what is due; whatever a callback raises is logged, with its trace, and survived."""
    try:
        executor.spin_once(timeout_sec=SPIN_S)
    except (ExternalShutdownException, KeyboardInterrupt):
        return
    except Exception:
        node.get_logger().error(f"a callback failed:\n{traceback.format_exc()}")


def _die_with_parent() -> None:
    """Where a launcher asked for it (EDGE_WM_DIE_WITH_PARENT=pid): no process is left over."""
    parent = os.environ.get("EDGE_WM_DIE_WITH_PARENT")
    if not parent or not sys.platform.startswith("linux"):
        return
    import ctypes

    set_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)
    if os.getppid() != int(parent):  # it died before that
        os.kill(os.getpid(), signal.SIGTERM)
