"""The arm driven by its analytic bundle: goals, the guard, recordings, the command line."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from driving import Events, drive
from test_cli import call

from edge_wm.bundle import load_trust, open_bundle
from edge_wm.cli.goals import goals_of
from edge_wm.errors import UsageError
from edge_wm.evaluation import ARM_DRIVERS, Cockpit, Conditions, Job, StraightDriver, drivers_of
from edge_wm.opening import bundle_path
from edge_wm.reasons import Reason
from edge_wm.recording import PlanEnd, Step, open_recording
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.runtime import RunSettings, Runtime
from edge_wm.simulation import ArmSimulation
from edge_wm.types import JointGoal, PoseGoal, Sample

WORLD = 1_000_000


@cache
def arm() -> Robot:
    return load_robot(find_robot("arm"))


@cache
def cockpit() -> Cockpit:
    return Cockpit(arm(), open_bundle(bundle_path(arm(), None), load_trust()))


def least_time(way: np.ndarray) -> float:
    """s from rest to rest, by velocity, acceleration and braking alone: no jerk, no obstacles."""
    times = []
    for axis, distance in zip(arm().axes, np.abs(way), strict=True):
        speed = min(axis.velocity_max, -axis.velocity_min)
        ramps = speed**2 / 2 * (1 / axis.acceleration + 1 / axis.braking)
        if distance < ramps:
            speed = np.sqrt(2 * distance / (1 / axis.acceleration + 1 / axis.braking))
            ramps = distance
        cruise = (distance - ramps) / speed
        times.append(cruise + speed * (1 / axis.acceleration + 1 / axis.braking))
    return max(times)


# ---- in simulated time -------------------------------------------------------------------------
@pytest.mark.parametrize("world", range(WORLD, WORLD + 4))
def test_it_reaches_its_goal_quickly_within_every_limit_and_touches_nothing(world: int) -> None:
    journal = Events()
    episode = cockpit().drive(Job("planner", world, 0, Conditions()), journal)
    assert episode.success
    assert not episode.collision
    simulation = ArmSimulation(arm(), world)
    bound = least_time(simulation.goal.position - simulation.start)
    assert bound - 0.1 < episode.seconds - 1.0 < 2 * bound + 1.0
    data = np.array([event.data for event in journal.of(Sample)])
    for column, axis in enumerate(arm().axes):
        position, velocity = data[:, 0, column], data[:, 1, column]
        assert axis.position_min < position.min()
        assert position.max() < axis.position_max
        assert np.abs(velocity).max() < 1.15 * axis.velocity_max  # the servo may overshoot a little
    commands = np.array([step.verdict.setpoint.velocity[0] for step in journal.of(Step)])
    assert (np.abs(commands) <= [axis.velocity_max + 1e-9 for axis in arm().axes]).all()
    accepted = [end.acceptance.accepted for end in journal.of(PlanEnd) if end.acceptance]
    assert sum(accepted) > 0.7 * len(accepted)


def test_the_guard_keeps_a_driver_that_knows_no_post_away_from_it() -> None:
    """Straight through the post: refused, and the arm stands where it was."""
    simulation, journal = ArmSimulation(arm(), WORLD), Events()
    settings = RunSettings.for_robot(arm(), 0)
    driver = StraightDriver(arm(), 10, 100_000_000)
    runtime = Runtime(
        arm(), driver, settings, streams=("joints",), step_ns=100_000_000, journal=journal
    )
    simulation.goals = (JointGoal(np.array([0.3, 0.0])),)
    drive(runtime, simulation, 4.0)
    assert runtime.counts.goals_reached == 1
    before = runtime.counts.refusals[Reason.inside_keep_out]
    simulation.goals = (JointGoal(np.array([1.6, 0.0])),)
    drive(runtime, simulation, 4.0, activate=False)
    assert runtime.counts.goals_reached == 1
    assert runtime.counts.refusals[Reason.inside_keep_out] > before + 20
    truth = simulation.truth()
    assert truth.contact_ns == 0
    assert truth.clearance > 0.0
    assert simulation.joints[0][0] < np.arctan2(0.4, 0.3)


def test_goals_are_reached_one_after_the_other() -> None:
    job = Job("planner", WORLD, 0, Conditions())
    simulation = cockpit()._simulation(job)
    runtime = cockpit()._runtime(job, simulation, None)
    goals = simulation.goals
    assert len(goals) > 2
    for count in range(1, 4):
        simulation.goals = (goals[count - 1],)
        drive(runtime, simulation, 4.0, activate=count == 1)
        assert runtime.counts.goals_reached == count
        np.testing.assert_allclose(simulation.joints[0], goals[count - 1].position, atol=0.06)
    assert simulation.truth().contact_ns == 0


def test_a_joint_goal_counts_as_reached_within_its_tolerance() -> None:
    settings = RunSettings.for_robot(arm(), 0)
    simulation = ArmSimulation(arm(), WORLD)
    runtime = Runtime(
        arm(), StraightDriver(arm(), 10, 100_000_000), settings, streams=("joints",),
        step_ns=100_000_000,
    )  # fmt: skip
    here = simulation.start
    simulation.goals = (JointGoal(here),)
    drive(runtime, simulation, 1.2)
    assert runtime.counts.goals_reached == 1
    for off, reached in ((0.027, True), (0.033, False), (-0.027, True), (-0.033, False)):
        for joint in range(2):
            goal = JointGoal(here + off * np.eye(2)[joint])
            answer = runtime.begin(simulation.now_ns, goal)
            assert (answer is Reason.goal_reached) is reached
            runtime.conclude(simulation.now_ns, Reason.no_goal, None)
    wrong = runtime.begin(simulation.now_ns, JointGoal(here[:1]))
    assert wrong is not Reason.goal_reached


def test_an_arm_has_its_own_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_wm.evaluation.TIME_LIMIT_S", 5.0)
    assert drivers_of(arm()) == ARM_DRIVERS
    episode = cockpit().drive(Job("straight", WORLD, 0, Conditions()))
    assert episode.success
    wandering = cockpit().drive(Job("random", WORLD + 1, 0, Conditions()))
    assert not wandering.collision


# ---- goals as a person writes them ---------------------------------------------------------------
def test_goals_are_joints_or_points() -> None:
    (posture,) = goals_of(["elbow=-1.2, shoulder=0.5"], arm())
    assert posture == JointGoal(np.array([0.5, -1.2]))
    (point,) = goals_of(["x=0.3,y=-0.2"], arm())
    assert isinstance(point, JointGoal)
    q1, q2 = point.position
    assert 0.3 * np.cos(q1) + 0.25 * np.cos(q1 + q2) == pytest.approx(0.3, abs=1e-5)
    assert 0.3 * np.sin(q1) + 0.25 * np.sin(q1 + q2) == pytest.approx(-0.2, abs=1e-5)
    rover = load_robot(find_robot("rover"))
    assert goals_of(["x=1,y=2", "x=0,y=0,yaw=0.5"], rover) == (
        PoseGoal(1.0, 2.0),
        PoseGoal(0.0, 0.0, 0.5),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("shoulder=0.5", "for the robot arm it must name shoulder and elbow, or x and y, maybe z, "
                         "of the tool, found shoulder"),
        ("shoulder=0.5,elbow=-3", "elbow must be from -2.4 to 2.4, found -3"),
        ("shoulder=a,elbow=0", "must be NAME=NUMBER,..., found 'shoulder=a'"),
        ("shoulder=nan,elbow=0", "must be NAME=NUMBER,..., found 'shoulder=nan'"),
        ("x=0.9,y=0", "the tool cannot reach that point within the limits"),
        ("x=0.3,y=0.4", "the arm cannot stand there: inside_keep_out, a part of its body is"),
        ("shoulder=2.5,elbow=0", "the arm cannot stand there: outside_workspace, a part of its"),
    ],
)  # fmt: skip
def test_goals_that_cannot_be_are_told_with_what_they_must_be(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        goals_of([text], arm())
    assert str(error.value).startswith(f"--goal {text}: {says}")


# ---- the command line ----------------------------------------------------------------------------
def test_run_drives_the_arm_records_it_and_reports(tmp_path: Path) -> None:
    """A shared machine holds processes up for longer than joints of the real arm may be late."""
    text = arm().text
    for strict, patient in (
        ("max_age_ms: 30", "max_age_ms: 500"),
        ("setpoint_rate_hz: 200", "setpoint_rate_hz: 50"),
        ("dead_man_ms: 40", "dead_man_ms: 200"),
    ):
        assert text.count(strict) == 1
        text = text.replace(strict, patient)
    (tmp_path / "arm.yaml").write_text(text)
    done = call(
        "run", "--robot", "arm.yaml", "--duration", "8", "--goal", "shoulder=-0.4,elbow=0.9",
        "--goal", "x=0.35,y=-0.3", "--json", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["contact_s"] == 0.0
    assert summary["plans"] > 20
    assert summary["distance_m"] > 0.05, summary  # how far it gets depends on the machine's load
    assert summary["lost_events"] == {}
    (folder,) = (tmp_path / "runs").iterdir()
    pictures = {path.stem for path in folder.glob("*.png")}
    assert pictures == {"path", "prediction_error", "latency", "timeline"}
    goals = {end.tick for end in open_recording(folder / "run.mcap").only(PlanEnd) if end.proposal}
    assert len(goals) > 20
    replayed = call("replay", str(folder / "run.mcap"), "--diff", cwd=tmp_path)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "bit-exact" in replayed.stdout


def test_eval_knows_the_arm_s_drivers() -> None:
    arguments = ("eval", "--robot", "arm", "--episodes", "1")
    done = call(*arguments, "--drivers", "planner", "--json")
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert [line["driver"] for line in table["rows"]] == ["planner"]
    assert table["success_rate"] == 1.0
    refused = call(*arguments, "--drivers", "geometry")
    assert refused.returncode == 2
    assert "no driver 'geometry' for the robot arm; choose of planner, straight" in refused.stderr
