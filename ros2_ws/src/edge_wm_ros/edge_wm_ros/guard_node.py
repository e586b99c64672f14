"""wm_guard: the setpoint tick in a process of its own. It has no model.

    trajectory ──► accept ──► acceptance          every setpoint period: setpoint, state
    ranges, joints, IMU, odometry ──► push        on change: mode
    heartbeats of runtime, bridge, supervisor     services: enable, estop, reset/<fault>

`enable` lets accepted trajectories move the robot; it is refused, with the reason, while an input
is not usable or somebody is silent. A latched fault is reset by its name:

    ros2 service call /wm_guard/reset/runtime_silent std_srvs/srv/Trigger
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TypeVar

import msgspec
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.event_handler import SubscriptionEventCallbacks
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import SetBool, Trigger
from trajectory_msgs.msg import JointTrajectory

from edge_wm.errors import EdgeWmError, UsageError
from edge_wm.guarding import SILENCES, Guarding
from edge_wm.guarding.senses import guard_streams
from edge_wm.modes import LATCHED, Mode
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.robot import find_robot, load_robot
from edge_wm.ticking import SWITCH_INTERVAL_S, Deadlines, ticks
from edge_wm.types import Setpoint, Verdict
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import (
    controller_message,
    report_text,
    setpoint_message,
    trajectory_of,
    twist_of,
)
from edge_wm_ros.managed import ERROR, OK, WARN, ManagedNode, status
from edge_wm_ros.parameters import GuardSettings, declare, read
from edge_wm_ros.sensors import Sensors
from edge_wm_ros.spinning import main

AT_REST_WITHIN_S = 2.0  # after a stop; more than any robot file's braking takes
Told = TypeVar("Told")
OUTPUTS = ("bridge", "twist_stamped", "twist", "joint_trajectory")
RESETTABLE = (
    Reason.runtime_silent, Reason.bridge_silent, Reason.supervisor_silent, Reason.input_lost,
    Reason.estop_pressed, Reason.tracking_error, Reason.clock_jumped,
)  # fmt: skip


class BridgeState(msgspec.Struct):
    """What the guard wants to know of the bridge's state."""

    armed: bool
    started_ns: int


class RuntimeStatus(msgspec.Struct):
    """What the guard wants to know of the runtime's status."""

    started_ns: int


class GuardNode(ManagedNode):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_guard")
        declare(self, GuardSettings)
        self.settings: GuardSettings | None = None
        self._guarding: Guarding | None = None
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._held: list[Any] = []  # subscriptions and services, to be given back
        self._sensors: Sensors | None = None
        self._malformed = 0
        self._late_publisher = 0  # deadlines that the runtime's trajectories missed
        self._deadlines = Deadlines()
        self._mode: Mode | None = None
        self._resting_since_ns = 0

    # ---- transitions --------------------------------------------------------------------------
    def configure(self) -> None:
        settings = read(self, GuardSettings)
        if settings.output not in OUTPUTS:
            raise UsageError(
                f"parameter output: must be one of {', '.join(OUTPUTS)}, found {settings.output!r}"
            )
        robot = load_robot(find_robot(settings.robot))
        if settings.output == "joint_trajectory":
            others = [axis.name for axis in robot.axes if axis.kind != "position"]
            if others:
                raise UsageError(
                    f"parameter output: joint_trajectory needs axes of kind position only, and of "
                    f"{robot.name} {', '.join(others)} are not; use another output"
                )
        elif settings.output != "bridge" and robot.base is None:
            raise UsageError(
                f"parameter output: {settings.output} needs a robot with a base, and "
                f"{robot.name} has none; use bridge or joint_trajectory"
            )
        watched = {
            who: getattr(settings, f"{who}_silence_ms") * 1_000_000
            for who in SILENCES
            if not (who == "bridge" and settings.output != "bridge")
        }
        # Epochs count on from the clock: a guard that was restarted never uses one again.
        guarding = Guarding(
            robot,
            silence_ns=watched,
            input_lost_ns=settings.input_lost_ms * 1_000_000,
            first_epoch=time.time_ns() // 1_000_000_000,
        )
        period_ns, plan_ns = robot.setpoint_period_ns, robot.plan_period_ns
        derived = [n for n, s in robot.streams.items() if s.derived_from]
        sources = [n for name in derived for n in robot.streams[name].derived_from]
        wanted = dict.fromkeys([*guard_streams(robot), *sources])
        self._guarding, self.settings = guarding, settings
        self._sensors = Sensors(
            self, robot, [n for n in wanted if n not in derived], guarding.push, self.now_ns
        )
        self._setpoints = self.create_publisher(
            JointTrajectory, names.SETPOINT, qos.stream(period_ns)
        )
        self._outlet: Any = None  # beside the bridge's
        if settings.output == "joint_trajectory":
            self._outlet = self.create_publisher(JointTrajectory, names.CONTROLLER, qos.newest())
        elif settings.output != "bridge":
            kind = TwistStamped if settings.output == "twist_stamped" else Twist
            self._outlet = self.create_publisher(kind, names.CMD_VEL, qos.newest())
        self._states = self.create_publisher(String, names.GUARD_STATE, qos.stream(period_ns))
        self._acceptances = self.create_publisher(String, names.ACCEPTANCE, qos.newest(10))
        self._modes = self.create_publisher(String, names.MODE, qos.latched())

        def missed(_: object) -> None:
            self._late_publisher += 1

        subscribe = self.create_subscription
        self._held = [
            subscribe(
                JointTrajectory, names.TRAJECTORY, self._on_trajectory,
                qos.stream(plan_ns, lifespan_ns=2 * plan_ns),
                event_callbacks=SubscriptionEventCallbacks(deadline=missed),
            ),
            subscribe(String, names.RUNTIME_STATUS, self._on_runtime, qos.newest()),
            subscribe(String, names.BRIDGE_STATE, self._on_bridge, qos.newest()),
            subscribe(Header, names.HEARTBEAT, self._on_supervisor, qos.newest()),
            subscribe(Bool, names.ESTOP, self._on_estop, qos.newest(10)),
            self.create_service(SetBool, "~/enable", self._enable),
            self.create_service(Trigger, "~/estop", self._estop),
            *(
                self.create_service(Trigger, f"~/reset/{fault.name}", self._resetter(fault))
                for fault in RESETTABLE
            ),
        ]  # fmt: skip

    def activate(self) -> None:
        self._end.clear()
        self._deadlines = Deadlines()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._tick, name="setpoint", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        """Brake to rest, then stop publishing."""
        if self._thread is None or self._guarding is None:
            return
        self._guarding.request(Mode.stop, "supervisor", self.now_ns(), Reason.operator_stop)
        patience = time.monotonic() + AT_REST_WITHIN_S
        while time.monotonic() < patience and self._resting_since_ns == 0:
            time.sleep(0.005)
        self._end.set()
        self._thread.join(timeout=1.0)
        self._thread = None

    def cleanup(self) -> None:
        if self._sensors is not None:
            self._sensors.close()
        for held in self._held:
            destroy = self.destroy_service if hasattr(held, "srv_name") else None
            (destroy or self.destroy_subscription)(held)
        self._held, self._sensors, self._guarding, self.settings = [], None, None, None

    # ---- the setpoint tick ----------------------------------------------------------------------
    def _tick(self) -> None:
        guarding, settings = self._guarding, self.settings
        assert guarding is not None
        assert settings is not None
        period_ns = guarding.robot.setpoint_period_ns
        for now_ns in ticks(period_ns, self._deadlines, self._end, self.now_ns):
            verdict = guarding.step(now_ns)
            if not settings.shadow and not guarding.clock_jumped:
                self._send(verdict.setpoint)
            self._tell_state(guarding, verdict)

    def _send(self, setpoint: Setpoint) -> None:
        self._setpoints.publish(setpoint_message(setpoint))
        if self._outlet is None:
            return
        assert self._guarding is not None
        kind = self._outlet.msg_type
        if kind is JointTrajectory:
            self._outlet.publish(controller_message(setpoint))
        else:
            twist = twist_of(setpoint, self._guarding.robot)
            self._outlet.publish(twist if kind is TwistStamped else twist.twist)

    def _tell_state(self, guarding: Guarding, verdict: Verdict) -> None:
        now_ns = verdict.now_ns
        moves = bool(verdict.setpoint.velocity.any())
        self._resting_since_ns = 0 if moves else self._resting_since_ns or now_ns
        text = report_text(
            guarding.state(now_ns), verdict.reasons, guarding.fault, guarding.unusable(now_ns)
        )
        self._states.publish(String(data=text))
        if verdict.mode is not self._mode:
            self._mode = verdict.mode
            self._modes.publish(String(data=verdict.mode.name))
            why = ", ".join(reason.name for reason in verdict.reasons)
            self.get_logger().info(f"mode {verdict.mode.name}{f' ({why})' if why else ''}")

    # ---- what arrives ---------------------------------------------------------------------------
    def _on_trajectory(self, message: JointTrajectory) -> None:
        assert self._guarding is not None
        trajectory = trajectory_of(message)
        if isinstance(trajectory, str):
            self._malformed += 1
            self._acceptances.publish(_answer(False, -1, -1, ["trajectory_malformed"], trajectory))
            return
        answer = self._guarding.accept(trajectory, self.now_ns())
        reasons = [reason.name for reason in answer.reasons]
        self._acceptances.publish(
            _answer(answer.accepted, answer.epoch, answer.sequence, reasons, answer.detail)
        )

    def _on_supervisor(self, message: Header) -> None:
        if self._guarding is not None:
            self._guarding.hear("supervisor", self.now_ns(), message.frame_id)

    def _on_runtime(self, message: String) -> None:
        status = _decoded(message, RuntimeStatus)
        if status is not None and self._guarding is not None:
            self._guarding.hear("runtime", self.now_ns(), str(status.started_ns))

    def _on_bridge(self, message: String) -> None:
        """A bridge that forwards nothing is none."""
        state = _decoded(message, BridgeState)
        if state is not None and state.armed and self._guarding is not None:
            self._guarding.hear("bridge", self.now_ns(), str(state.started_ns))

    def _on_estop(self, message: Bool) -> None:
        if message.data and self._guarding is not None:
            self._guarding.request(Mode.estop, "operator", self.now_ns())

    # ---- services -------------------------------------------------------------------------------
    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        guarding = self._guarding
        response.success = False
        if guarding is None or self._thread is None:
            response.message = "wm_guard is not active; activate its lifecycle first"
        elif not request.data:
            response.success = guarding.request(Mode.hold, "operator", self.now_ns())
            response.message = f"mode {guarding.mode.name}"
        else:
            try:
                epoch = guarding.activate(self.now_ns())
                response.success, response.message = True, f"enabled, epoch {epoch}"
            except EdgeWmError as error:
                response.message = str(error)
        return response

    def _estop(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        assert self._guarding is not None
        response.success = self._guarding.request(Mode.estop, "operator", self.now_ns())
        response.message = f"mode {self._guarding.mode.name}"
        return response

    def _resetter(self, fault: Reason) -> Any:
        def reset(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
            assert self._guarding is not None
            response.success = self._guarding.reset(fault, self.now_ns())
            latched = self._guarding.fault
            response.message = f"{fault.name} was reset; enable the robot to go on"
            if self._guarding.clock_jumped:
                response.message = "the clock went back: clean wm_guard up and configure it anew"
            elif not response.success:
                response.message = (
                    f"{fault.name} is not latched; latched is {latched.name if latched else 'none'}"
                )
            return response

        return reset

    # ---- diagnostics -----------------------------------------------------------------------------
    def statuses(self) -> list[Any]:
        guarding = self._guarding
        if guarding is None or self._sensors is None:
            return []
        counts, fault = guarding.counts, guarding.fault
        latched = guarding.mode in LATCHED
        told = EXPLANATIONS[fault].sentence if fault else f"mode {guarding.mode.name}"
        unusable = guarding.unusable(self.now_ns())
        return [
            status(
                "wm_guard: mode", ERROR if latched else OK, told,
                mode=guarding.mode.name, fault=fault.name if fault else "none",
                accepted=counts.accepted, malformed=self._malformed,
                trajectory_deadlines_missed=self._late_publisher,
                **{f"refused_{r.name}": n for r, n in counts.refusals.items()},
                **{f"tick_{r.name}": n for r, n in counts.reasons.items()},
                **{f"dropped_{r.name}": n for r, n in counts.drops.items()},
            ),
            status(
                "wm_guard: setpoint tick", WARN if self._deadlines.missed else OK,
                f"{self._deadlines.missed} deadlines missed of {self._deadlines.ticks}",
                p99_ms=f"{self._deadlines.p99_ms():.2f}",
            ),
            *(
                status(
                    f"wm_guard: input {name}", WARN if name in unusable else OK,
                    unusable[name].name if name in unusable else "usable",
                    received=self._sensors.received[name],
                    **{
                        f"refused_{reason.name}": count
                        for (stream, reason), count in self._sensors.refused.items()
                        if stream == name
                    },
                )
                for name in dict.fromkeys([*self._sensors.received, *unusable])
            ),
        ]  # fmt: skip


def _decoded(message: String, kind: type[Told]) -> Told | None:
    """What a JSON text tells; None if it does not."""
    try:
        return msgspec.json.decode(message.data, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _answer(accepted: bool, epoch: int, sequence: int, reasons: list[str], detail: str) -> String:
    told = {
        "accepted": accepted,
        "epoch": epoch,
        "sequence": sequence,
        "reasons": reasons,
        "detail": detail,
    }
    return String(data=msgspec.json.encode(told).decode())


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(GuardNode))


if __name__ == "__main__":
    run()
