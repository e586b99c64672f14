"""wm_supervisor: brings the robot up and down in order, and says what died.

    up:    bridge ─► guard ─► runtime (configure, activate each) ─► arm ─► inputs alive ─► enable
    down:  disable ─► runtime ─► guard ─► bridge (deactivate each)

It has a heartbeat, which the guard watches, and watches the others' itself. It never resets a
fault: a person does (/wm_guard/reset/<fault>), and then asks for `enable` here, which brings up
whatever was restarted meanwhile.
"""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.node import Node
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from edge_wm.errors import SystemTroubleError
from edge_wm.robot import find_robot, load_robot
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import report_of, stamp_of
from edge_wm_ros.managed import ERROR, OK, STALE, status
from edge_wm_ros.parameters import SupervisorSettings, declare, read
from edge_wm_ros.spinning import main

HEARTBEAT_S = 0.05
DEAD_NS = 500_000_000
AGAIN_AFTER_S = 0.4
ANSWER_WITHIN_S = 30.0  # loading a model takes seconds
ORDER = ("wm_bridge", "wm_guard", "wm_runtime")


@dataclass(slots=True)
class Watched:
    """One of the three nodes, as the supervisor sees it."""

    heard_ns: int = 0  # 0: never
    dead: bool = False
    unusable: dict[str, str] | None = None  # its inputs that cannot be used
    note: str = ""


class SupervisorNode(Node):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_supervisor")
        declare(self, SupervisorSettings)
        self.settings = read(self, SupervisorSettings)
        robot = load_robot(find_robot(self.settings.robot))
        self._order = ORDER if self.settings.bridge else ORDER[1:]
        self._watched = {name: Watched() for name in self._order}
        self.phase = "idle"  # what is being done, or why it was not
        self._failed = False
        self._instance = f"wm_supervisor {time.time_ns()}"
        self._wish = threading.Event()  # somebody wants the robot up
        self._end = threading.Event()
        self._heartbeat = self.create_publisher(Header, names.HEARTBEAT, qos.newest())
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.newest(10))
        period_ns = robot.setpoint_period_ns
        self.create_subscription(String, names.GUARD_STATE, self._on_guard, qos.stream(period_ns))
        self.create_subscription(String, names.RUNTIME_STATUS, self._on_runtime, qos.newest())
        self.create_subscription(String, names.BRIDGE_STATE, self._on_bridge, qos.newest())
        self.create_timer(HEARTBEAT_S, self._beat)
        self.create_timer(0.5, self._tell)
        self._change = {
            n: self.create_client(ChangeState, f"/{n}/change_state") for n in self._order
        }
        self._state = {n: self.create_client(GetState, f"/{n}/get_state") for n in self._order}
        self._enable_guard = self.create_client(SetBool, "/wm_guard/enable")
        self._arm_bridge = self.create_client(Trigger, "/wm_bridge/arm")
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/shut_down", self._on_shut_down)
        self._unasked = self.settings.autostart
        if self._unasked:
            self._wish.set()
        self._thread = threading.Thread(target=self._work, name="supervise", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._end.set()

    def _now_ns(self) -> int:
        return int(self.get_clock().now().nanoseconds)

    # ---- heartbeats -----------------------------------------------------------------------------
    def _beat(self) -> None:
        now_ns = self._now_ns()
        self._heartbeat.publish(Header(stamp=stamp_of(now_ns), frame_id=self._instance))
        for name, watched in self._watched.items():
            dead = watched.heard_ns > 0 and now_ns - watched.heard_ns > DEAD_NS
            if dead and not watched.dead:
                self.get_logger().error(f"{name} is silent: it crashed, hangs or was stopped")
            elif watched.dead and not dead:
                self.get_logger().info(f"{name} is back")
            watched.dead = dead

    def _on_guard(self, message: String) -> None:
        report = report_of(message.data)
        if isinstance(report, str):
            return
        watched = self._watched["wm_guard"]
        watched.heard_ns, watched.unusable = self._now_ns(), report.unusable
        watched.note = f"mode {report.mode}" + (f", fault {report.fault}" if report.fault else "")

    def _on_runtime(self, message: String) -> None:
        self._take("wm_runtime", message.data, "reason")

    def _on_bridge(self, message: String) -> None:
        self._take("wm_bridge", message.data, "latched")

    def _take(self, name: str, text: str, note: str) -> None:
        if name not in self._watched:
            return
        try:
            told = msgspec.json.decode(text, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return
        watched = self._watched[name]
        watched.heard_ns = self._now_ns()
        unusable = told.get("unusable")
        watched.unusable = unusable if isinstance(unusable, dict) else {}
        watched.note = str(told.get(note) or "")

    # ---- what is asked for ----------------------------------------------------------------------
    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success, self._unasked = True, False
        if request.data:
            self._wish.set()
            response.message = "bringing the robot up; see /diagnostics and /edge_wm/mode"
            return response
        self._wish.clear()
        self._enable_guard.call_async(SetBool.Request(data=False))
        response.message = "disabling"
        return response

    def _on_shut_down(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Reverse of bring-up; answered at once, watch the lifecycle states."""
        self._wish.clear()
        threading.Thread(target=self._bring_down, name="down", daemon=True).start()
        response.success, response.message = True, "shutting down"
        return response

    # ---- the supervisor's thread -----------------------------------------------------------------
    def _work(self) -> None:
        while not self._end.wait(0.02):
            if not self._wish.is_set():
                continue
            self._wish.clear()
            self._failed = False
            try:
                self._bring_up()
                self.phase = "up"
            except SystemTroubleError as error:
                self._failed, self.phase = True, str(error)
                self.get_logger().error(self.phase)
            except Exception as error:  # rclpy going away under us
                if not self._end.is_set():
                    raise
                self.phase = f"stopped ({error})"

    def _bring_up(self) -> None:
        patience = time.monotonic() + self.settings.patience_s
        guard = self._lifecycle("wm_guard", patience)
        if self._unasked and guard != State.PRIMARY_STATE_UNCONFIGURED:
            raise SystemTroubleError(
                "bring-up: wm_guard was running before this supervisor, so the robot is not "
                "enabled unasked; call /wm_supervisor/enable when it is safe"
            )
        # Configuring moves nothing and takes the model's node seconds: all at once. Activating is
        # done in order.
        with ThreadPoolExecutor(len(self._order)) as pool:
            list(pool.map(lambda name: self._configure(name, patience), self._order))
        for name in self._order:
            if self._lifecycle(name, patience) == State.PRIMARY_STATE_INACTIVE:
                self.phase = f"activating {name}"
                self._transition(
                    name, Transition.TRANSITION_ACTIVATE, "activate", State.PRIMARY_STATE_ACTIVE
                )
        while not self._enabled(patience):
            self._end.wait(0.05)
        self.get_logger().info("the robot is up")

    def _enabled(self, patience: float) -> bool:
        """Arm the bridge, wait for the inputs, enable. False: refused, and there is time to try
        again: what was fulfilled may have passed meanwhile (a bridge that disarmed itself)."""
        if self.settings.bridge:
            self._insist(self._arm_bridge, Trigger.Request(), "arming the bridge", patience)
        self._await_inputs(patience)
        answer = self._answer(self._enable_guard, SetBool.Request(data=True), AGAIN_AFTER_S)
        if answer is not None and answer.success:
            return True
        told = answer.message if answer is not None else "/wm_guard/enable does not answer"
        self.phase = f"enabling: {told}"
        if self._end.is_set() or time.monotonic() > patience or "latched" in told:
            raise SystemTroubleError(f"bring-up: enabling was refused: {told}")
        return False

    def _configure(self, name: str, patience: float) -> None:
        if self._lifecycle(name, patience) == State.PRIMARY_STATE_UNCONFIGURED:
            self.phase = f"configuring {name}"
            self._transition(
                name, Transition.TRANSITION_CONFIGURE, "configure", State.PRIMARY_STATE_INACTIVE
            )

    def _bring_down(self) -> None:
        self.phase = "going down"
        for name in reversed(self._order):
            try:
                if name == "wm_runtime":
                    self._answer(self._enable_guard, SetBool.Request(data=False), AGAIN_AFTER_S)
                self._transition(
                    name,
                    Transition.TRANSITION_DEACTIVATE,
                    "deactivate",
                    State.PRIMARY_STATE_INACTIVE,
                )
            except SystemTroubleError as error:
                self.get_logger().warning(str(error))
        self.phase = "down"

    def _await_inputs(self, patience: float) -> None:
        """Until every required input was usable for `alive_ms` without a break."""
        alive_s = self.settings.alive_ms * 1e-3
        since = time.monotonic()
        while time.monotonic() - since < alive_s:
            if self._end.wait(0.01):
                return
            bad = {
                f"{name}: {stream} {reason}": None
                for name, watched in self._watched.items()
                if watched.unusable is None or watched.unusable
                for stream, reason in (watched.unusable or {"its state": "not heard"}).items()
            }
            if not bad:
                continue
            since = time.monotonic()
            self.phase = f"waiting for inputs ({', '.join(bad)})"
            if since > patience:
                raise SystemTroubleError(
                    f"bring-up: every input must be usable within {self.settings.patience_s:g} s, "
                    f"but {', '.join(bad)}; look at these sensors"
                )

    def _insist(self, client: Any, request: Any, doing: str, patience: float) -> None:
        """Ask until it is granted; what is refused may come true (an input that begins)."""
        while True:
            answer = self._answer(client, request, AGAIN_AFTER_S)
            if answer is not None and answer.success:
                return
            told = answer.message if answer is not None else f"{client.srv_name} does not answer"
            self.phase = f"{doing}: {told}"
            if time.monotonic() > patience or "latched" in told:
                raise SystemTroubleError(f"bring-up: {doing} was refused: {told}")
            if self._end.wait(0.05):
                raise SystemTroubleError("bring-up: interrupted")

    def _lifecycle(self, name: str, patience: float) -> int:
        client = self._state[name]
        while not self._end.is_set() and time.monotonic() < patience:
            if client.wait_for_service(timeout_sec=0.05):
                answer = self._answer(client, GetState.Request(), AGAIN_AFTER_S)
                if answer is not None:
                    return int(answer.current_state.id)
        raise SystemTroubleError(
            f"bring-up: {name} must be there within {self.settings.patience_s:g} s, and is "
            "not; start it, or look at its log"
        )

    def _transition(self, name: str, number: int, doing: str, target: int) -> None:
        """Change a node's lifecycle state. An answer may be lost on its way: the state tells."""
        request = ChangeState.Request(transition=Transition(id=number))
        patience = time.monotonic() + ANSWER_WITHIN_S
        while time.monotonic() < patience and not self._end.is_set():
            answer = self._answer(self._change[name], request, AGAIN_AFTER_S)
            if answer is not None and answer.success:
                return
            if self._lifecycle(name, patience) == target:
                return
            if answer is not None:
                raise SystemTroubleError(
                    f"bring-up: {name} did not {doing}; its log and /diagnostics say why"
                )
        raise SystemTroubleError(
            f"bring-up: {name} did not {doing} within {ANSWER_WITHIN_S:g} s; look at its log"
        )

    def _answer(self, client: Any, request: Any, within_s: float) -> Any:
        """Call a service from this thread (the executor's receives the answer); None: no answer.

        A server that was restarted may not have found us yet: what it was asked before is lost.
        """
        answered = threading.Event()
        future = client.call_async(request)
        future.add_done_callback(lambda _: answered.set())
        until = time.monotonic() + within_s
        while not answered.wait(0.02):
            if self._end.is_set() or time.monotonic() > until:
                client.remove_pending_request(future)
                return None
        return future.result()

    # ---- diagnostics -----------------------------------------------------------------------------
    def _tell(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = stamp_of(self._now_ns())
        message.status = [
            status("wm_supervisor: phase", ERROR if self._failed else OK, self.phase),
            *(
                status(
                    f"wm_supervisor: {name}",
                    ERROR if watched.dead else STALE if not watched.heard_ns else OK,
                    "silent: it crashed, hangs or was stopped" if watched.dead
                    else watched.note or ("alive" if watched.heard_ns else "not heard yet"),
                )
                for name, watched in self._watched.items()
            ),
        ]  # fmt: skip
        self._diagnostics.publish(message)


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(SupervisorNode))


if __name__ == "__main__":
    run()
