"""What tests of the upper floors share: the shipped robot and bundle, runs in simulated time."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from edge_wm import shipped
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.evaluation import SETTLE_NS, Cockpit, Conditions, Job
from edge_wm.planner import CountBudget
from edge_wm.recording import Event
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.runtime import PlanRequest, Runtime
from edge_wm.simulation import Disturbances, RoverSimulation
from edge_wm.types import Sample

ROBOT_FILE = find_robot("rover")
BUNDLE_FILE = shipped.folder("zoo") / "rover" / "rover.wmb"
WORLD = 1_000_003


@cache
def rover() -> Robot:
    return load_robot(ROBOT_FILE)


@cache
def bundle() -> Bundle:
    return open_bundle(BUNDLE_FILE, load_trust())


@cache
def cockpit() -> Cockpit:
    return Cockpit(rover(), bundle())


def job(driver: str = "planner", world: int = WORLD, seed: int = 0, **conditions) -> Job:
    disturbances = conditions.pop("disturbances", Disturbances())
    return Job(driver, world, seed, Conditions(disturbances, **conditions))


class Events(list[Event]):
    """A journal that keeps everything."""

    def record(self, event: Event) -> int:
        self.append(event)
        return len(self) - 1

    def of(self, kind: type) -> list:
        return [event for event in self if isinstance(event, kind)]


def drive(
    runtime: Runtime,
    simulation: RoverSimulation,
    seconds: float,
    *,
    let_through: Callable[[Sample], bool] = lambda sample: True,
    latency_ns: int | None = None,
    activate: bool = True,
) -> None:
    """The two ticks in simulated time, from now for `seconds`, without an end at the goal."""
    robot = runtime.robot
    latency_ns = runtime.settings.plan_latency_ns if latency_ns is None else latency_ns
    pending = None
    due_ns = max(SETTLE_NS, simulation.now_ns)
    end_ns = simulation.now_ns + int(seconds * 1e9)
    while simulation.now_ns < end_ns:
        now_ns = simulation.now_ns + robot.setpoint_period_ns
        for sample in simulation.step_to(now_ns):
            if let_through(sample):
                runtime.push(sample)
        if now_ns == SETTLE_NS and activate:
            runtime.activate(now_ns)
        if pending is not None and now_ns >= pending[0]:
            runtime.conclude(now_ns, pending[1], pending[2])
            pending = None
        if now_ns >= due_ns and pending is None:
            due_ns += robot.plan_period_ns
            request = runtime.begin(now_ns, simulation.goal)
            thought = None
            if isinstance(request, PlanRequest):
                thought = runtime.driver.think(request, CountBudget(1 << 30))
            pending = (now_ns + latency_ns, request, thought)
        if now_ns >= SETTLE_NS:
            simulation.send(runtime.step(now_ns).setpoint)
