"""A lifecycle node whose transitions cannot fail silently.

rclpy swallows an exception in a transition: the state does not change and nobody learns why.
Here every transition is a plain method (`configure`, `activate`, `deactivate`, `cleanup`) that
raises when it cannot be done; the reason is logged, kept in `trouble`, published in the
diagnostics, and the transition fails.

Invariant: whatever a transition raises, the node ends up with its outputs silent: a failed
activation is followed by `deactivate`, and an error anywhere by both `deactivate` and `cleanup`.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from edge_wm.errors import EdgeWmError
from edge_wm_ros import qos
from edge_wm_ros.conversions import stamp_of

DIAGNOSTICS_PERIOD_S = 0.5

OK, WARN, ERROR, STALE = (
    DiagnosticStatus.OK,
    DiagnosticStatus.WARN,
    DiagnosticStatus.ERROR,
    DiagnosticStatus.STALE,
)


class ManagedNode(LifecycleNode):
    """Subclasses override the four plain methods and `statuses`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.trouble = ""  # why the last transition failed
        self._said = "unconfigured"
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.newest(10))
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._diagnose)

    # ---- for subclasses ---------------------------------------------------------------------
    def configure(self) -> None:
        """Open, verify, allocate; nothing is published yet."""

    def activate(self) -> None:
        """Begin to work."""

    def deactivate(self) -> None:
        """Stop working; safe to call when nothing runs."""

    def cleanup(self) -> None:
        """Give back what `configure` took; safe to call when nothing was taken."""

    def statuses(self) -> list[DiagnosticStatus]:
        """What the diagnostics say beside the lifecycle's own line."""
        return []

    # ---- time -------------------------------------------------------------------------------
    def now_ns(self) -> int:
        """The node's clock: the system's, or /clock with `use_sim_time`."""
        return int(self.get_clock().now().nanoseconds)

    # ---- transitions, as rclpy calls them -----------------------------------------------------
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try("configure", self.configure, "inactive", [self.cleanup])

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)
        return self._try("activate", self.activate, "active", [self.deactivate])

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_deactivate(state)
        return self._try("deactivate", self.deactivate, "inactive", [])

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try("clean up", self.cleanup, "unconfigured", [])

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try("shut down", self.stop, "finalized", [])

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._try("recover", self.stop, "unconfigured", [])

    def stop(self) -> None:
        """From any state to silence."""
        self.deactivate()
        self.cleanup()

    def _try(
        self, name: str, action: Callable[[], None], then: str, undo: list[Callable[[], None]]
    ) -> TransitionCallbackReturn:
        try:
            action()
        except Exception as error:
            known = isinstance(error, EdgeWmError)
            self.trouble = f"cannot {name}: {error}"
            self.get_logger().error(self.trouble if known else traceback.format_exc())
            for step in undo:
                try:
                    step()
                except Exception:
                    self.get_logger().error(traceback.format_exc())
            return TransitionCallbackReturn.FAILURE
        self.trouble, self._said = "", then
        return TransitionCallbackReturn.SUCCESS

    # ---- diagnostics, as REP 107 has them -----------------------------------------------------
    def _diagnose(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = stamp_of(self.now_ns())
        own = status(
            f"{self.get_name()}: lifecycle", ERROR if self.trouble else OK,
            self.trouble or self._said,
        )  # fmt: skip
        message.status = [own, *self.statuses()]
        self._diagnostics.publish(message)


def status(name: str, level: bytes, message: str, **values: object) -> DiagnosticStatus:
    """One line of diagnostics; `values` are its numbers, with their units in the names."""
    return DiagnosticStatus(
        name=name,
        level=level,
        message=message,
        hardware_id="edge_wm",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
