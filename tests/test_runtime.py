"""Tests the runtime: two ticks over one lock, what is journaled, and what a bad world does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from driving import WORLD, Events, cockpit, drive, job, rover

from edge_wm.evaluation import StraightDriver
from edge_wm.modes import Mode
from edge_wm.planner import CountBudget, PlannerSettings, make_planner
from edge_wm.reasons import Reason
from edge_wm.recording import Activate, PlanBegin, PlanEnd, Step
from edge_wm.runtime import Permitted, RunSettings, Runtime, Thought
from edge_wm.simulation import RoverSimulation
from edge_wm.types import Belief, PoseGoal, Rollout, Sample

STREAMS = ("camera", "odometry")
STEP_NS = 150_000_000


class Spin(StraightDriver):
    """Turns on the spot: a motion that no obstacle can stop."""

    def think(self, request, budget):
        thought = super().think(request, budget)
        actions = np.tile(np.float32([0.0, 0.8]), (12, 1))
        return Thought(replace(thought.proposal, actions=actions))


@pytest.fixture
def simulation():
    with RoverSimulation(rover(), WORLD) as made:
        yield made


def make(driver=None, journal=None) -> Runtime:
    driver = driver or Spin(rover(), 12, STEP_NS)
    settings = RunSettings.for_robot(rover(), 0)
    return Runtime(rover(), driver, settings, streams=STREAMS, step_ns=STEP_NS, journal=journal)


def speed(simulation) -> float:
    vx, wz = simulation.truth().twist
    return max(abs(vx), abs(wz))


def at_rest(simulation) -> bool:
    vx, wz = simulation.truth().twist
    return abs(vx) < 0.02 and abs(wz) < 0.05


def test_nothing_moves_before_it_is_activated(simulation):
    journal = Events()
    runtime = make(journal=journal)
    drive(runtime, simulation, 1.5, activate=False)
    assert at_rest(simulation)
    assert {end.reason for end in journal.of(PlanEnd)} == {Reason.not_active}
    assert {step.verdict.mode for step in journal.of(Step)} == {Mode.idle}


def test_after_activation_accepted_trajectories_move_it(simulation):
    journal = Events()
    runtime = make(journal=journal)
    drive(runtime, simulation, 3.0)
    assert simulation.truth().twist[1] == pytest.approx(0.8, abs=0.15)
    assert len(journal.of(Activate)) == 1
    accepted = [end for end in journal.of(PlanEnd) if end.acceptance]
    assert len(accepted) > 20
    assert all(end.acceptance.accepted for end in accepted)
    assert runtime.counts.accepted == len(accepted)


@pytest.mark.parametrize("stream", ["camera", "wheels", "imu", "scan"])
def test_each_stream_going_silent_stops_the_robot_with_a_reason(simulation, stream):
    journal = Events()
    runtime = make(journal=journal)
    drive(runtime, simulation, 2.0)
    assert speed(simulation) > 0.3
    cut_ns = simulation.now_ns
    drive(runtime, simulation, 2.5, let_through=lambda sample: sample.stream != stream)
    told = {end.reason for end in journal.of(PlanEnd) if end.now_ns > cut_ns}
    told |= {r for step in journal.of(Step) if step.now_ns > cut_ns for r in step.verdict.reasons}
    if stream == "imu":
        assert Reason.stream_stale in told or at_rest(simulation) is False
        return
    if stream == "scan":  # turning on the spot needs no ranges; driving does
        assert Reason.ranges_stale in told
        return
    assert at_rest(simulation)
    assert told & {Reason.stream_stale, Reason.stream_skewed}
    assert Reason.trajectory_exhausted in told


def test_it_goes_on_by_itself_when_the_stream_is_back(simulation):
    runtime = make()
    drive(runtime, simulation, 2.0)
    drive(runtime, simulation, 3.0, let_through=lambda sample: sample.stream != "camera")
    assert at_rest(simulation)
    drive(runtime, simulation, 1.5)
    assert speed(simulation) > 0.3


class Broken(Spin):
    """Proposes numbers that are not finite from its 20th plan on."""

    def __init__(self, bad: float) -> None:
        super().__init__(rover(), 12, STEP_NS)
        self._bad, self._plans = bad, 0

    def think(self, request, budget):
        thought = super().think(request, budget)
        self._plans += 1
        if self._plans < 20:
            return thought
        actions = thought.proposal.actions.copy()
        actions[3, 1] = self._bad
        return Thought(replace(thought.proposal, actions=actions))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_proposal_that_is_not_finite_brakes_and_is_told(simulation, bad):
    journal = Events()
    runtime = make(Broken(bad), journal)
    drive(runtime, simulation, 4.0)
    assert at_rest(simulation)
    assert journal.of(PlanEnd)[-1].reason is Reason.trajectory_not_finite
    for step in journal.of(Step):
        assert np.isfinite(step.verdict.setpoint.velocity).all()


def test_a_late_plan_still_yields_valid_setpoints_and_is_counted(simulation):
    journal = Events()
    runtime = make(journal=journal)
    drive(runtime, simulation, 4.0, latency_ns=90_000_000)
    assert runtime.counts.late > 10
    assert speed(simulation) > 0.3
    steps = [step for step in journal.of(Step) if step.verdict.mode is not Mode.idle]
    assert len(steps) > 200
    for step in steps:
        setpoint = step.verdict.setpoint
        assert np.isfinite(setpoint.velocity).all()
        assert setpoint.valid_until_ns > step.now_ns
    assert simulation.refused[Reason.setpoint_expired] == 0


def test_rogue_samples_neither_raise_nor_move_a_limit(simulation):
    journal = Events()
    runtime = make(journal=journal)
    generator = np.random.default_rng(5)
    drive(runtime, simulation, 1.5)
    for round_ in range(40):
        now_ns = simulation.now_ns
        for stream, data in (
            ("camera", np.zeros((2, 2, 3), np.uint8)),
            ("camera", np.zeros((64, 64, 3), np.float32)),
            ("wheels", np.full((2, 2), np.nan, np.float32)),
            ("wheels", np.full((2, 2), 1e30, np.float32)),
            ("imu", np.full(6, np.inf, np.float32)),
            ("scan", np.full(120, np.nan, np.float32)),
            ("scan", np.full(7, 1.0, np.float32)),
            ("odometry", np.full(6, np.nan)),
        ):
            stamp_ns = now_ns + int(generator.integers(-(10**10), 10**10))
            runtime.push(Sample(stream, stamp_ns, now_ns, round_, data))
        drive(runtime, simulation, 0.05)
    steps = journal.of(Step)
    velocity = np.array([step.verdict.setpoint.velocity[-1] for step in steps])
    for column, axis in enumerate(rover().axes):
        assert velocity[:, column].min() >= axis.velocity_min - 1e-9
        assert velocity[:, column].max() <= axis.velocity_max + 1e-9
    assert sum(runtime.counts.drops.values()) >= 100


def test_a_stop_brakes_to_rest_and_estop_latches(simulation):
    runtime = make()
    drive(runtime, simulation, 2.0)
    assert runtime.request(Mode.estop, "operator", simulation.now_ns, Reason.estop_pressed)
    drive(runtime, simulation, 1.5)
    assert at_rest(simulation)
    assert runtime.mode is Mode.estop
    assert not runtime.request(Mode.active, "supervisor", simulation.now_ns)
    drive(runtime, simulation, 0.5)
    assert at_rest(simulation)


def test_the_journal_holds_every_tick_in_order():
    journal = Events()
    cockpit().drive(job(plan_latency_ns=30_000_000), journal)
    ticks = [event.tick for event in journal.of(PlanBegin)]
    assert ticks == list(range(1, len(ticks) + 1))
    ends = [event.tick for event in journal.of(PlanEnd)]
    assert ends == ticks[: len(ends)]
    times = [event.now_ns for event in journal.of(Step)]
    assert (np.diff(times) == rover().setpoint_period_ns).all()


# ---- the rollout that the planner is handed ------------------------------------------------
class DistanceModel:
    """Stands in for a world model that is compiled: the squared distance to 0.5."""

    def __init__(self) -> None:
        native = pytest.importorskip("edge_wm._native")
        self.compiled = native.DistanceImagination(np.full((6, 2), 0.5, np.float32), 9.0)
        self.asked = 0

    def imagination(self, belief, goal):
        return self.compiled

    def term_names(self, goal):
        return ("distance",)

    def rollout(self, belief, actions, goal, seed):
        self.asked += 1
        cost, infeasible, terms = self.compiled.imagine(actions, seed)
        return Rollout(cost, infeasible, {"distance": terms[0]})


def plan_with(rollout, native: bool):
    settings = PlannerSettings("mppi", 6, STEP_NS, 64, 3, 16, (0.3, 0.3), 0.05, 2.0)
    planner = make_planner(settings, rover().axes, native=native)
    return planner.propose(Belief(0, {}), PoseGoal(1, 0), rollout, CountBudget(9), stamp_ns=0)


def test_a_compiled_model_and_the_guard_s_foresight_plan_together_without_a_python_rollout():
    model, seen = DistanceModel(), []

    def passes(actions):
        seen.append(actions)
        return actions[:, 0, 0] < 0.2

    rollout = Permitted(model.rollout, model, passes)
    compiled, plain = plan_with(rollout, True), plan_with(rollout, False)
    assert model.asked == 3  # by the Python loop alone
    assert len(seen) == 6
    assert compiled.actions.tobytes() == plain.actions.tobytes()
    assert replace(compiled, actions=None) == replace(plain, actions=None)
    assert compiled.actions[0, 0] < 0.2
    assert compiled.infeasible > 0
    assert compiled.terms == {"distance": compiled.cost}


def test_a_driver_s_own_rollout_is_not_passed_by():
    model = DistanceModel()

    def elsewhere(belief, actions, goal, seed):
        cost = np.square(actions + 0.4).sum(axis=(1, 2))
        return Rollout(cost, np.zeros(len(cost), bool))

    for native in (False, True):
        found = plan_with(Permitted(elsewhere, model), native)
        assert found.actions.mean() < 0.0
    assert model.asked == 0


def test_a_model_that_is_not_compiled_imagines_in_python():
    model = DistanceModel()
    model.imagination = lambda belief, goal: None  # a backend or a model that it cannot serve
    assert plan_with(Permitted(model.rollout, model), True).terms.keys() == {"distance"}
    assert model.asked == 3
