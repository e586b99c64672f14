"""Tests the guard's half of a robot, and the runtime whose guard is elsewhere.

In simulated time, with the simulated rover: what two halves do together is held against what one
process does; every silence and every lost input is held against a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from driving import WORLD, cockpit, rover

from edge_wm.errors import RefusedError
from edge_wm.guarding import Guarding
from edge_wm.modes import Mode
from edge_wm.planner import CountBudget
from edge_wm.reasons import Reason
from edge_wm.runtime import Driver, PlanRequest, RunSettings, Runtime
from edge_wm.runtime.remote import SILENT_NS, RemoteGuard
from edge_wm.simulation import RoverSimulation
from edge_wm.types import Sample, Trajectory, Verdict

STREAMS = ("camera", "odometry")
STEP_NS = 150_000_000
MS = 1_000_000
SILENCE_NS = {"runtime": 250 * MS, "bridge": 250 * MS, "supervisor": 500 * MS}
EVERYBODY = frozenset(SILENCE_NS)


def settings() -> RunSettings:
    return RunSettings.for_robot(rover(), 0)


class Halves:
    """A runtime and a guard that know each other by messages only, which here take no time."""

    def __init__(self, driver: Driver) -> None:
        self.sent: list[Trajectory] = []
        self.guarding = Guarding(rover(), silence_ns=SILENCE_NS)
        self.runtime = Runtime(
            rover(), driver, settings(), streams=STREAMS, step_ns=STEP_NS,
            guard=RemoteGuard(rover(), self.sent.append),
        )  # fmt: skip

    def push(self, sample: Sample) -> None:
        self.runtime.push(sample)
        self.guarding.push(sample)

    def step(self, now_ns: int) -> Verdict:
        verdict = self.guarding.step(now_ns)
        self.runtime.hear(self.guarding.state(now_ns), now_ns)
        return verdict

    def delivered(self, now_ns: int) -> None:
        """What was sent arrives."""
        for trajectory in self.sent:
            self.guarding.accept(trajectory, now_ns)
        self.sent.clear()

    def activate(self, now_ns: int) -> int:
        for who in EVERYBODY:
            self.guarding.hear(who, now_ns)
        epoch = self.guarding.activate(now_ns)
        self.runtime.hear(self.guarding.state(now_ns), now_ns)
        return epoch


def clock(simulation: RoverSimulation, seconds: float) -> Iterator[tuple[int, bool]]:
    """(now, is it a plan tick too) for every setpoint tick."""
    period_ns = rover().setpoint_period_ns
    start_ns = simulation.now_ns
    every = rover().plan_period_ns // period_ns
    for tick in range(round(seconds * 1e9) // period_ns):
        yield start_ns + tick * period_ns, tick % every == 0


def drive_halves(
    halves: Halves,
    simulation: RoverSimulation,
    seconds: float,
    *,
    alive: Callable[[int], frozenset[str]] = lambda _: EVERYBODY,
    sees: Callable[[int, Sample], bool] = lambda *_: True,
) -> list[Verdict]:
    """alive: who has a heartbeat at that time; sees: which samples arrive at the guard."""
    verdicts = []
    late: list[tuple[int, object, object]] = []
    for now_ns, plans in clock(simulation, seconds):
        for sample in simulation.step_to(now_ns):
            halves.runtime.push(sample)
            if sees(now_ns, sample):
                halves.guarding.push(sample)
        for who in alive(now_ns):
            halves.guarding.hear(who, now_ns)
        if late and late[0][0] <= now_ns:
            _, request, thought = late.pop()
            halves.runtime.conclude(now_ns, request, thought)
            if "runtime" in alive(now_ns):
                halves.delivered(now_ns)
            halves.sent.clear()
        if plans:
            request = halves.runtime.begin(now_ns, simulation.goal)
            thought = None
            if isinstance(request, PlanRequest):
                thought = halves.runtime.driver.think(request, CountBudget(1 << 30))
            late.append((now_ns + 30 * MS, request, thought))
        verdicts.append(halves.step(now_ns))
        simulation.send(verdicts[-1].setpoint)
    return verdicts


def drive_one(runtime: Runtime, simulation: RoverSimulation, seconds: float) -> list[Verdict]:
    """The same, in one process."""
    verdicts = []
    late: list[tuple[int, object, object]] = []
    for now_ns, plans in clock(simulation, seconds):
        for sample in simulation.step_to(now_ns):
            runtime.push(sample)
        if late and late[0][0] <= now_ns:
            runtime.conclude(now_ns, *late.pop()[1:])
        if plans:
            request = runtime.begin(now_ns, simulation.goal)
            thought = None
            if isinstance(request, PlanRequest):
                thought = runtime.driver.think(request, CountBudget(1 << 30))
            late.append((now_ns + 30 * MS, request, thought))
        verdicts.append(runtime.step(now_ns))
        simulation.send(verdicts[-1].setpoint)
    return verdicts


def told(verdict: Verdict) -> tuple[object, ...]:
    """What a verdict says, but for the number of the activation."""
    setpoint = verdict.setpoint
    arrays = [getattr(setpoint, n).tobytes() for n in ("times_ns", "velocity", "position")]
    return verdict.now_ns, verdict.mode, verdict.reasons, verdict.speed_scale, *arrays


@pytest.fixture
def simulation() -> Iterator[RoverSimulation]:
    with RoverSimulation(rover(), WORLD) as made:
        yield made


@pytest.fixture
def halves() -> Halves:
    return Halves(cockpit().driver("planner", 32))


def ready(halves: Halves, simulation: RoverSimulation) -> None:
    """Stand for a second, as every run does, and activate."""
    drive_halves(halves, simulation, 1.0)
    halves.activate(simulation.now_ns)


def speed(simulation: RoverSimulation) -> float:
    return max(map(abs, simulation.truth().twist))


@pytest.mark.parametrize("driver", ["planner", "straight"])
def test_two_halves_drive_as_one_process_does_to_the_last_bit(driver: str):
    halves = Halves(cockpit().driver(driver))
    with RoverSimulation(rover(), WORLD) as simulation:
        ready(halves, simulation)
        split = drive_halves(halves, simulation, 3.0)
    one = Runtime(rover(), cockpit().driver(driver), settings(), streams=STREAMS, step_ns=STEP_NS)
    with RoverSimulation(rover(), WORLD) as simulation:
        drive_one(one, simulation, 1.0)
        one.activate(simulation.now_ns)
        whole = drive_one(one, simulation, 3.0)
    assert [told(v) for v in split] == [told(v) for v in whole]
    assert max(abs(v.setpoint.velocity[0, 0]) for v in split) > 0.3


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_whoever_falls_silent_stops_the_robot_until_a_person_resets_it(
    who: str, halves: Halves, simulation: RoverSimulation
):
    ready(halves, simulation)
    drive_halves(halves, simulation, 2.0)
    assert speed(simulation) > 0.2
    died_ns = simulation.now_ns
    fault = {
        "runtime": Reason.runtime_silent,
        "bridge": Reason.bridge_silent,
        "supervisor": Reason.supervisor_silent,
    }[who]
    verdicts = drive_halves(halves, simulation, 1.5, alive=lambda _: EVERYBODY - {who})
    first = next(v for v in verdicts if v.mode is Mode.fault)
    # The last heartbeat was one setpoint period before.
    assert 0 <= first.now_ns - died_ns - SILENCE_NS[who] <= rover().setpoint_period_ns
    assert first.reasons == (fault,)
    assert halves.guarding.fault is fault
    assert speed(simulation) < 0.02

    # It comes back: nothing moves.
    verdicts = drive_halves(halves, simulation, 0.5)
    assert {v.mode for v in verdicts} == {Mode.fault}
    with pytest.raises(RefusedError) as refused:
        halves.guarding.activate(simulation.now_ns)
    assert str(refused.value) == (f"guard: mode fault is latched ({fault.name}); reset it first")
    assert not halves.guarding.reset(Reason.input_lost, simulation.now_ns)
    assert halves.guarding.fault is fault
    assert halves.guarding.reset(fault, simulation.now_ns)
    verdicts = drive_halves(halves, simulation, 0.3)
    assert {v.mode for v in verdicts} == {Mode.idle}
    assert halves.activate(simulation.now_ns) == 2
    drive_halves(halves, simulation, 1.0)
    assert speed(simulation) > 0.1


@pytest.mark.parametrize("who", sorted(EVERYBODY))
def test_whoever_is_replaced_before_it_is_missed_was_there_no_longer(
    who: str, halves: Halves, simulation: RoverSimulation
):
    for name in EVERYBODY:
        halves.guarding.hear(name, simulation.now_ns, "first")
    drive_halves(halves, simulation, 1.0, alive=lambda _: frozenset())
    for name in EVERYBODY:
        halves.guarding.hear(name, simulation.now_ns, "first")
    halves.guarding.activate(simulation.now_ns)
    halves.guarding.hear(who, simulation.now_ns, "second")
    verdict = halves.step(simulation.now_ns)
    assert verdict.mode is Mode.fault
    assert halves.guarding.fault is not None
    assert halves.guarding.fault.name == f"{who}_silent"


def test_a_short_gap_of_the_scanner_brakes_and_a_long_one_latches(
    halves: Halves, simulation: RoverSimulation
):
    ready(halves, simulation)
    drive_halves(halves, simulation, 1.5)
    dead = range(simulation.now_ns, simulation.now_ns + 600 * MS)
    verdicts = drive_halves(
        halves, simulation, 2.0, sees=lambda now_ns, s: s.stream != "scan" or now_ns not in dead
    )
    modes = [v.mode for v in verdicts]
    assert Mode.stop in modes
    assert modes[-1] is Mode.active
    assert Mode.fault not in modes

    verdicts = drive_halves(halves, simulation, 2.5, sees=lambda _, s: s.stream != "scan")
    stopped = next(v for v in verdicts if Reason.ranges_stale in v.reasons)
    latched = next(v for v in verdicts if v.mode is Mode.fault)
    assert abs(latched.now_ns - stopped.now_ns - 1_000 * MS) <= 2 * rover().setpoint_period_ns
    assert halves.guarding.fault is Reason.input_lost
    verdicts = drive_halves(halves, simulation, 0.5)  # it is back
    assert {v.mode for v in verdicts} == {Mode.fault}


def test_before_it_is_activated_everybody_must_be_heard_and_every_input_be_there(
    halves: Halves, simulation: RoverSimulation
):
    guarding = halves.guarding
    with pytest.raises(RefusedError) as refused:
        guarding.activate(SILENT_NS * 10)
    assert str(refused.value) == (
        "guard: must hear runtime and bridge and supervisor before it can be activated; start "
        "what is missing"
    )
    drive_halves(halves, simulation, 0.5, sees=lambda _, s: s.stream != "scan")
    with pytest.raises(RefusedError) as refused:
        guarding.activate(simulation.now_ns)
    assert str(refused.value) == (
        "guard: every input must be usable before it can be activated, but scan: stream_missing; "
        "look at these sensors"
    )
    assert guarding.unusable(simulation.now_ns) == {"scan": Reason.stream_missing}


def test_an_emergency_stop_is_latched_by_its_own_name(halves: Halves, simulation: RoverSimulation):
    ready(halves, simulation)
    drive_halves(halves, simulation, 1.5)
    assert halves.guarding.request(Mode.estop, "operator", simulation.now_ns)
    verdicts = drive_halves(halves, simulation, 1.0)
    assert {v.mode for v in verdicts} == {Mode.estop}
    assert speed(simulation) < 0.02
    assert halves.guarding.fault is Reason.estop_pressed
    assert not halves.guarding.reset(Reason.runtime_silent, simulation.now_ns)
    assert halves.guarding.reset(Reason.estop_pressed, simulation.now_ns)
    assert halves.guarding.mode is Mode.idle


def test_a_guard_that_was_restarted_refuses_trajectories_of_its_former_self(
    halves: Halves, simulation: RoverSimulation
):
    ready(halves, simulation)
    drive_halves(halves, simulation, 0.5)
    halves.guarding = Guarding(rover(), silence_ns=SILENCE_NS, first_epoch=1_000)
    drive_halves(halves, simulation, 0.3)
    assert halves.activate(simulation.now_ns) == 1_001
    sent = halves.runtime
    assert sent.guard.epoch == 1_001
    drive_halves(halves, simulation, 0.5)
    assert halves.guarding.counts.accepted > 0
    late = replace(
        halves.runtime.conclude(simulation.now_ns, Reason.no_goal, None).trajectory, epoch=1
    )
    answer = halves.guarding.accept(late, simulation.now_ns)
    assert answer.reasons == (Reason.trajectory_wrong_epoch,)


def test_a_guard_that_is_not_heard_is_not_planned_for(halves: Halves, simulation: RoverSimulation):
    ready(halves, simulation)
    drive_halves(halves, simulation, 0.5)
    now_ns = simulation.now_ns
    assert isinstance(halves.runtime.begin(now_ns, simulation.goal), PlanRequest)
    later_ns = now_ns + SILENT_NS + 20 * MS
    for sample in simulation.step_to(later_ns):
        halves.runtime.push(sample)
    assert halves.runtime.begin(later_ns, simulation.goal) is Reason.not_active
    assert halves.runtime.mode is Mode.idle


@pytest.mark.parametrize(
    ("back_ms", "jumped"), [(0, False), (50, False), (51, True), (10_000, True)]
)
def test_a_guard_whose_clock_went_back_says_nothing_more(
    halves: Halves, simulation: RoverSimulation, back_ms: int, jumped: bool
):
    ready(halves, simulation)
    drive_halves(halves, simulation, 1.5)
    guarding, now_ns = halves.guarding, simulation.now_ns
    last = guarding.step(now_ns)
    assert speed(simulation) > 0.1
    verdict = guarding.step(now_ns - back_ms * MS)
    assert guarding.clock_jumped == jumped
    assert (guarding.fault is Reason.clock_jumped) == jumped
    if not jumped:
        return
    assert verdict.mode is Mode.fault
    assert verdict.reasons == (Reason.clock_jumped,)
    assert verdict.setpoint is last.setpoint  # which is not to be sent
    # Neither time nor a person brings it back.
    assert not guarding.reset(Reason.clock_jumped, now_ns)
    with pytest.raises(RefusedError, match=r"mode fault is latched \(clock_jumped\); reset it"):
        guarding.activate(now_ns + 20_000 * MS)
    guarding.step(now_ns + 20_000 * MS)
    assert guarding.clock_jumped
