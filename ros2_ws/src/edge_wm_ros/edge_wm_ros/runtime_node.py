"""wm_runtime: the plan tick. It has the model, may crash, and commands nothing.

    sensors ──► push            every plan period: trajectory (to the guard), status, base_path
    /goal_pose, /goal_joints,   every tenth: imagined (decoded futures side by side)
    /goal_image ──► goal        timing: how long each stage of the plan took
    the guard's state ──► hear

`configure` verifies the bundle against the robot file, loads the model, checks it against its
reference outputs on this machine and against the time that a plan may take; it fails with the
reason if one of them does not fit.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from array import array
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from nav_msgs.msg import Path as PathMessage
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from edge_wm.backends.choice import settle, spelled
from edge_wm.bundle import check_fit
from edge_wm.errors import EdgeWmError, MismatchError
from edge_wm.guarding.senses import guard_streams
from edge_wm.opening import open_for
from edge_wm.planner import PlannerSettings, make_planner
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.recording import PlanEnd, Prediction
from edge_wm.recording.views import driven_path
from edge_wm.runtime import ModelDriver, RunSettings, Runtime, planner_settings
from edge_wm.runtime.planning import BUDGET_SHARE, plan_tick
from edge_wm.runtime.remote import RemoteGuard
from edge_wm.ticking import SWITCH_INTERVAL_S, Deadlines, ticks
from edge_wm.types import Goal, ImageGoal, JointGoal, PoseGoal, Trajectory
from edge_wm.world_model import WorldModel
from edge_wm_ros import names, qos
from edge_wm_ros.conversions import (
    future_message,
    goal_of,
    image_goal_of,
    joint_goal_of,
    report_of,
    stamp_of,
    state_of,
    time_ns,
    trajectory_message,
)
from edge_wm_ros.frames import Frames
from edge_wm_ros.managed import ERROR, OK, WARN, ManagedNode, status
from edge_wm_ros.parameters import RuntimeSettings, declare, read
from edge_wm_ros.sensors import Sensors
from edge_wm_ros.spinning import main
from edge_wm_ros.summaries import belief_message, message_types

GOAL_OLD_NS = 10_000_000_000  # a goal with an older stamp is yesterday's
PATH_KNOT_EVERY_NS = 100_000_000
KINDS = {PoseGoal: "pose", JointGoal: "joint position", ImageGoal: "image"}


class RuntimeNode(ManagedNode):
    """See the head of this file."""

    def __init__(self) -> None:
        super().__init__("wm_runtime")
        declare(self, RuntimeSettings)
        self.settings: RuntimeSettings | None = None
        self._runtime: Runtime | None = None
        self._driver: ModelDriver | None = None
        self._sensors: Sensors | None = None
        self._held: list[Any] = []
        self._started_ns = time.time_ns()  # tells this process from one after it
        self._thread: threading.Thread | None = None
        self._end = threading.Event()
        self._deadlines = Deadlines()
        self._goal: Goal | None = None
        self._goals_refused = 0
        self._goal_told, self._goal_told_s = "", 0.0  # the last refusal, and when it was logged
        self._states_refused = 0
        self._stages: dict[str, float] = {}  # ms, of the last plan
        self._backends = ""

    # ---- transitions --------------------------------------------------------------------------
    def configure(self) -> None:
        settings = read(self, RuntimeSettings)
        trust = [Path(text) for text in settings.trust.split(":") if text]
        bundle_file = Path(settings.bundle) if settings.bundle else None
        _, robot, bundle = open_for(settings.robot, bundle_file, trust)
        manifest = bundle.manifest
        check_fit(manifest, robot)
        choice = settle(bundle, settings.backend, tell=self.get_logger().info)
        model = WorldModel(bundle, robot, backend=spelled(choice.chosen))
        planning = planner_settings(manifest, settings.candidates or None)
        driver = ModelDriver(model, make_planner(planning, robot.axes))
        run = RunSettings.for_robot(robot, settings.seed)
        run = replace(run, goal_tolerance=settings.goal_tolerance, learn_delay=settings.learn_delay)
        plan_ns, setpoint_ns = robot.plan_period_ns, robot.setpoint_period_ns
        self._trajectories = self.create_publisher(
            JointTrajectory, names.TRAJECTORY, qos.stream(plan_ns, lifespan_ns=2 * plan_ns)
        )
        runtime = Runtime(
            robot,
            driver,
            run,
            streams=tuple(manifest.needs.streams),
            step_ns=manifest.step_ns,
            guard=RemoteGuard(robot, self._send),
        )
        _require_fast(model, planning, run.plan_latency_ns)
        derived = {name for name, s in robot.streams.items() if s.derived_from}
        sources = [n for name in derived for n in robot.streams[name].derived_from]
        wanted = dict.fromkeys([*manifest.needs.streams, *guard_streams(robot), *sources])
        self._runtime, self._driver, self.settings = runtime, driver, settings
        self._backends = model.backend
        self._sensors = Sensors(
            self,
            robot,
            [name for name in wanted if name not in derived],
            runtime.push,
            self.now_ns,
            compressed=settings.compressed,
        )
        self._statuses = self.create_publisher(String, names.RUNTIME_STATUS, qos.newest())
        self._timings = self.create_publisher(DiagnosticArray, names.TIMING, qos.newest())
        self._paths = self.create_publisher(PathMessage, names.BASE_PATH, qos.newest())
        self._images = self.create_publisher(Image, names.IMAGINED, qos.newest())
        self._futures = [
            self.create_publisher(JointTrajectory, topic, qos.newest())
            for topic in (names.FUTURE_MEAN, names.FUTURE_STD)
        ]
        kinds = message_types()
        self._beliefs: Any = None
        if kinds is not None:
            self._beliefs = self.create_publisher(kinds[1], names.BELIEF, qos.newest())
        self._held = [
            self.create_subscription(
                String, names.GUARD_STATE, self._on_state, qos.stream(setpoint_ns)
            ),
            self.create_subscription(PoseStamped, names.GOAL, self._on_goal, qos.newest()),
            self.create_subscription(
                JointState, names.GOAL_JOINTS, self._on_joint_goal, qos.newest()
            ),
            self.create_subscription(Image, names.GOAL_IMAGE, self._on_image_goal, qos.newest()),
        ]
        self._frames = Frames(self)
        self._reload = self.create_service(Trigger, "~/reload_bundle", self._on_reload)

    def activate(self) -> None:
        self._end.clear()
        self._deadlines = Deadlines()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._thread = threading.Thread(target=self._tick, name="plan", daemon=True)
        self._thread.start()

    def deactivate(self) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            self._thread = None

    def cleanup(self) -> None:
        if self._sensors is not None:
            self._sensors.close()
        for held in self._held:
            self.destroy_subscription(held)
        if self._runtime is not None:
            self.destroy_service(self._reload)
        self._held, self._sensors = [], None
        self._runtime, self._driver, self.settings = None, None, None

    # ---- the plan tick --------------------------------------------------------------------------
    def _tick(self) -> None:
        runtime, driver = self._runtime, self._driver
        assert runtime is not None
        assert driver is not None
        for now_ns in ticks(runtime.robot.plan_period_ns, self._deadlines, self._end, self.now_ns):
            watched = self.count_subscribers(names.IMAGINED) > 0
            end, prediction = plan_tick(
                runtime, self._goal, now_ns, self.now_ns, driver.imagine if watched else None
            )
            self._stages = {name: ns / 1e6 for name, ns in end.stages.items()}
            self._tell(runtime, end)
            self._tell_timing(end)
            self._tell_future(driver, end)
            if prediction is not None:
                self._show(prediction)

    def _send(self, trajectory: Trajectory) -> None:
        """Called by the runtime, under its lock."""
        self._trajectories.publish(trajectory_message(trajectory))

    def _tell(self, runtime: Runtime, end: PlanEnd) -> None:
        counts = runtime.counts
        told = {
            "now_ns": end.now_ns,
            "started_ns": self._started_ns,
            "tick": end.tick,
            "mode": runtime.mode.name,
            "reason": end.reason.name if end.reason else None,
            "unusable": {name: reason.name for name, reason in runtime.unusable().items()},
            "ages_ms": {name: ns / 1e6 for name, ns in end.ages_ns.items() if ns < 1e12},
            "plans": counts.plans,
            "late": counts.late,
            "goals_reached": counts.goals_reached,
            "goals_refused": self._goals_refused,
            "candidates": runtime.candidates,
            "pose": runtime.pose(),
            "foreign_trajectory": isinstance(runtime.guard, RemoteGuard) and runtime.guard.foreign,
            "stages_ms": self._stages,
            "delay_ms": runtime.delay_ns / 1e6,
            "deadlines_missed": self._deadlines.missed,
            "plan_p99_ms": self._deadlines.p99_ms(),
        }
        self._statuses.publish(String(data=msgspec.json.encode(told).decode()))
        if self._beliefs is not None and end.belief is not None:
            self._beliefs.publish(belief_message(self._beliefs.msg_type, end.belief, end.now_ns))
        pose = runtime.pose()
        if end.trajectory is None or pose is None or self.count_subscribers(names.BASE_PATH) == 0:
            return
        way = driven_path(end.trajectory, pose)
        if way is not None:
            self._paths.publish(self._path(end.trajectory, way))

    def _tell_timing(self, end: PlanEnd) -> None:
        message = DiagnosticArray()
        message.header.stamp = stamp_of(end.trajectory.stamp_ns if end.trajectory else end.now_ns)
        whole = end.reason.name if end.reason else "planned"
        assert self._runtime is not None
        delay_ms = self._runtime.delay_ns / 1e6
        stages = {name: f"{ms:.3f}" for name, ms in self._stages.items()}
        stages["actuation_delay"] = f"{delay_ms:.3f}"  # not a stage, but what comes after them
        message.status = [status("wm_runtime: stages, ms", OK, whole, **stages)]
        self._timings.publish(message)

    def _tell_future(self, driver: ModelDriver, end: PlanEnd) -> None:
        """What the planner had come down to: mean and standard deviation of every step's action."""
        distribution, proposal = driver.planner.distribution, end.proposal
        if distribution is None or proposal is None or proposal.reason is not None:
            return
        assert self._runtime is not None
        for publisher, actions in zip(self._futures, distribution, strict=True):
            if publisher.get_subscription_count() > 0:
                publisher.publish(future_message(proposal, actions, self._runtime.robot))

    def _path(self, trajectory: Trajectory, way: Any) -> PathMessage:
        assert self._runtime is not None
        stream = self._runtime.robot.pose_stream
        message = PathMessage()
        message.header.stamp = stamp_of(trajectory.stamp_ns)
        message.header.frame_id = stream.frame if stream else "odom"
        for index in range(0, len(way), max(1, PATH_KNOT_EVERY_NS // trajectory.period_ns)):
            x, y, yaw = way[index].tolist()
            place = PoseStamped()
            place.header.frame_id = message.header.frame_id
            place.header.stamp = stamp_of(trajectory.start_ns + index * trajectory.period_ns)
            place.pose.position.x, place.pose.position.y = x, y
            place.pose.orientation.z, place.pose.orientation.w = (
                math.sin(yaw / 2),
                math.cos(yaw / 2),
            )
            message.poses.append(place)
        return message

    def _show(self, prediction: Prediction) -> None:
        if not len(prediction.images):
            return
        strip = np.concatenate(list(prediction.images), axis=1)
        message = Image()
        message.header.stamp = stamp_of(int(prediction.times_ns[0]))
        message.height, message.width = strip.shape[:2]
        message.encoding, message.step = "rgb8", 3 * strip.shape[1]
        message.data = array("B", strip.tobytes())
        self._images.publish(message)

    # ---- what arrives ---------------------------------------------------------------------------
    def _on_state(self, message: String) -> None:
        runtime = self._runtime
        report = report_of(message.data)
        if runtime is None or isinstance(report, str):
            self._states_refused += runtime is not None
            return
        state = state_of(report, len(runtime.robot.axes))
        if isinstance(state, str) or not runtime.hear(state, self.now_ns()):
            self._states_refused += 1

    def _on_goal(self, message: PoseStamped) -> None:
        assert self._runtime is not None
        robot, now_ns = self._runtime.robot, self.now_ns()
        given_ns = time_ns(message.header.stamp)
        if given_ns and abs(now_ns - given_ns) > GOAL_OLD_NS:
            return self._take_goal(
                f"goal: its stamp is {abs(now_ns - given_ns) / 1e9:.1f} s away from now, at most "
                f"{GOAL_OLD_NS / 1e9:g} s are allowed; send it again"
            )
        pose_stream, place = robot.pose_stream, message
        if pose_stream is not None:
            base = robot.base.frame if robot.base else "base_link"
            if message.header.frame_id not in (pose_stream.frame, base):
                found = self._frames.within(pose_stream.frame, message, now_ns)
                if isinstance(found, str):
                    return self._take_goal(found)
                place = found
        return self._take_goal(goal_of(place, robot, self._runtime.pose()))

    def _on_joint_goal(self, message: JointState) -> None:
        assert self._runtime is not None
        self._take_goal(joint_goal_of(message, self._runtime.robot))

    def _on_image_goal(self, message: Image) -> None:
        self._take_goal(image_goal_of(message))

    def _take_goal(self, goal: Goal | str) -> None:
        assert self._driver is not None
        model = self._driver.model
        if not isinstance(goal, str) and model.check_goal(goal) is not None:
            kinds = ", ".join(model.manifest.goal_kinds) or "none"
            goal = (
                f"goal: bundle {model.manifest.name} cannot plan for this {KINDS[type(goal)]}; it "
                f"takes goals of kind {kinds}"
            )
        if isinstance(goal, str):
            self._goals_refused += 1
            if goal != self._goal_told or time.monotonic() - self._goal_told_s > 1.0:
                self._goal_told, self._goal_told_s = goal, time.monotonic()
                self.get_logger().warning(goal)
            return
        self._goal = goal

    def _on_reload(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """The bundle's file changed: take it in, if it is good, without moving."""
        response.success = False
        if self._thread is not None:
            response.message = "wm_runtime is active; deactivate it first, then reload"
            return response
        before = self._runtime, self._driver
        try:
            self.cleanup()
            self.configure()
            response.success, response.message = True, "reloaded"
        except EdgeWmError as error:
            self._runtime, self._driver = before
            response.message = str(error)
        return response

    # ---- diagnostics -----------------------------------------------------------------------------
    def statuses(self) -> list[Any]:
        runtime = self._runtime
        if runtime is None or self._sensors is None:
            return []
        counts, unusable = runtime.counts, runtime.unusable()
        no_plan = counts.no_plan.most_common(1)
        told = EXPLANATIONS[no_plan[0][0]].sentence if no_plan else "planning"
        return [
            status(
                "wm_runtime: plan tick", WARN if self._deadlines.missed else OK, told,
                backend=self._backends, plans=counts.plans, late=counts.late,
                deadlines_missed=self._deadlines.missed, p99_ms=f"{self._deadlines.p99_ms():.2f}",
                states_refused=self._states_refused, goals_refused=self._goals_refused,
                **{f"no_plan_{r.name}": n for r, n in counts.no_plan.items()},
                **{f"dropped_{r.name}": n for r, n in counts.drops.items()},
            ),
            *(
                status(f"wm_runtime: stage {name}", OK, f"{ms:.2f} ms", milliseconds=f"{ms:.3f}")
                for name, ms in self._stages.items()
            ),
            *(
                status(
                    f"wm_runtime: input {name}",
                    ERROR if unusable.get(name) is Reason.stream_missing else
                    WARN if name in unusable else OK,
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


def _require_fast(model: WorldModel, planning: PlannerSettings, latency_ns: int) -> None:
    """Raises MismatchError unless one iteration of planning fits into the time that a plan has."""
    goal = PoseGoal(1.0, 0.0)
    if model.check_goal(goal) is not None:
        return  # a model of other goals is judged by the deadlines that it misses
    shape = (planning.candidates, planning.horizon, len(model.manifest.needs.axes))
    actions, fastest = np.zeros(shape, np.float32), math.inf
    for _ in range(3):
        began = time.perf_counter()
        model.rollout(model.blank_belief(0), actions, goal, 0)
        fastest = min(fastest, time.perf_counter() - began)
    allowed = BUDGET_SHARE * latency_ns * 1e-9
    if fastest > allowed:
        raise MismatchError(
            f"bundle {model.manifest.name}: one iteration of {planning.candidates} candidates "
            f"takes {fastest * 1e3:.1f} ms here, and a whole plan has {allowed * 1e3:.1f} ms; use "
            "fewer candidates, another backend, or a lower plan_rate_hz"
        )


def run() -> None:
    """Entry point of the executable."""
    sys.exit(main(RuntimeNode))


if __name__ == "__main__":
    run()
