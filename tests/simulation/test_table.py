"""edge_wm.simulation.table: samples, setpoints, the dead-man, and the postures of a world."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_wm.errors import MismatchError
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.simulation import ArmSimulation, Disturbances, RoverSimulation, make_simulation
from edge_wm.types import Setpoint

MS = 1_000_000
SEED = 1_000_000
PERIOD_NS = 5 * MS
DEAD_MAN_NS = 40 * MS


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(find_robot("arm"))


def setpoint(
    sequence: int,
    at_ns: int,
    position: np.ndarray,
    velocity: np.ndarray,
    axes=("shoulder", "elbow"),
) -> Setpoint:
    """From `position` on with a constant velocity."""
    return Setpoint(
        epoch=1,
        sequence=sequence,
        axes=axes,
        times_ns=np.array([at_ns, at_ns + PERIOD_NS]),
        position=np.array([position, position + velocity * PERIOD_NS * 1e-9]),
        velocity=np.array([velocity, velocity]),
        brake_deceleration=np.array([10.0, 15.0]),
        brake_end_ns=np.array([at_ns, at_ns]) + 1000 * MS,
        apply_at_ns=at_ns,
        valid_until_ns=at_ns + DEAD_MAN_NS,
    )


def move(simulation: ArmSimulation, velocity: np.ndarray, seconds: float) -> np.ndarray:
    """Setpoints from where it stands with a constant velocity; returns the last position sent."""
    position, sequence = simulation.joints[0], 0
    while simulation.now_ns < seconds * 1e9:
        simulation.send(setpoint(sequence, simulation.now_ns, position, velocity))
        simulation.step_to(simulation.now_ns + PERIOD_NS)
        position = position + velocity * PERIOD_NS * 1e-9
        sequence += 1
    return position


def test_the_robot_file_chooses_the_simulation(robot: Robot) -> None:
    assert isinstance(make_simulation(robot, SEED), ArmSimulation)
    with make_simulation(load_robot(find_robot("rover")), SEED) as simulation:
        assert isinstance(simulation, RoverSimulation)


def test_the_same_calls_give_the_same_samples_and_others_do_not(robot: Robot) -> None:
    def way(world_seed: int, seed: int) -> list[bytes]:
        simulation = make_simulation(robot, world_seed, seed=seed)
        simulation.step_to(300 * MS)
        return [s.data.tobytes() + bytes(str(s.received_ns), "ascii")
                for s in simulation.step_to(400 * MS)]  # fmt: skip

    first = way(SEED, 3)
    assert way(SEED, 3) == first
    assert way(SEED, 4) != first
    assert way(SEED + 1, 3) != first


def test_joints_are_sampled_at_their_rate_and_close_to_the_truth(robot: Robot) -> None:
    simulation = ArmSimulation(robot, SEED)
    samples = simulation.step_to(1000 * MS)
    assert 195 <= len(samples) <= 201
    assert all(s.received_ns > s.stamp_ns for s in samples)
    gaps = np.diff([s.stamp_ns for s in samples])
    assert (gaps > 3 * MS).all()
    assert (gaps < 7 * MS).all()
    assert samples[-1].data.dtype == np.float32
    np.testing.assert_allclose(samples[-1].data[0], simulation.joints[0], atol=1e-4)
    exact = ArmSimulation(robot, SEED, disturbances=Disturbances(noise=False))
    np.testing.assert_allclose(exact.step_to(100 * MS)[-1].data[0], exact.joints[0], atol=1e-6)


def test_before_the_first_setpoint_the_drives_hold(robot: Robot) -> None:
    simulation = ArmSimulation(robot, SEED)
    simulation.step_to(500 * MS)
    np.testing.assert_allclose(simulation.joints[0], simulation.start, atol=1e-3)
    assert not simulation.refused


def test_setpoints_act_after_the_delay_and_are_followed(robot: Robot) -> None:
    delay = Disturbances(extra_actuation_delay_ns=100 * MS)
    for disturbances, delay_ms in ((None, 20), (delay, 120)):
        simulation = ArmSimulation(robot, SEED, disturbances=disturbances)
        velocity = np.array([0.5, -0.4])
        simulation.send(setpoint(0, 0, simulation.start, velocity))
        simulation.step_to((delay_ms - 1) * MS)
        np.testing.assert_allclose(simulation.joints[0], simulation.start, atol=1e-3)
        sent = move(simulation, velocity, 0.6)
        lag = sent - simulation.joints[0]
        np.testing.assert_allclose(lag, velocity * delay_ms * 1e-3, atol=0.015)
        np.testing.assert_allclose(simulation.joints[1], velocity, atol=0.05)


def test_without_setpoints_it_brakes_to_rest_by_itself(robot: Robot) -> None:
    simulation = ArmSimulation(robot, SEED)
    velocity = np.array([1.0, -0.8])
    sent = move(simulation, velocity, 0.5)
    silent_ns = simulation.now_ns
    simulation.step_to(silent_ns + 400 * MS)
    np.testing.assert_allclose(simulation.joints[1], 0.0, atol=0.02)
    # beyond the last knot it moves on until the dead-man, then brakes
    way = velocity * (DEAD_MAN_NS - PERIOD_NS) * 1e-9
    way += velocity * np.abs(velocity) / (2 * np.array([10.0, 15.0]))
    np.testing.assert_allclose(simulation.joints[0], sent + way, atol=0.01)
    assert simulation.refused == {Reason.setpoint_expired: 1}


def test_postures_are_free_and_so_are_the_straight_ways_between_them(robot: Robot) -> None:
    for seed in range(SEED, SEED + 5):
        simulation = ArmSimulation(robot, seed)
        stops = [simulation.start, *(goal.position for goal in simulation.goals)]
        assert simulation.truth().clearance > 0.05
        for before, after in zip(stops, [*stops[1:], stops[0]], strict=True):
            assert np.abs(after - before).max() > 0.3
            for share in np.linspace(0.0, 1.0, 23):
                simulation._plant.reset((before + share * (after - before)).tolist())
                assert not simulation._plant.touching
                assert simulation._plant.clearance() > 0.02


def test_the_truth_tells_the_tool_the_goal_and_a_touch(robot: Robot) -> None:
    simulation = ArmSimulation(robot, SEED)
    q1, q2 = simulation.start
    truth = simulation.truth()
    x = 0.3 * np.cos(q1) + 0.25 * np.cos(q1 + q2)
    y = 0.3 * np.sin(q1) + 0.25 * np.sin(q1 + q2)
    np.testing.assert_allclose(truth.pose, (x, y, q1 + q2), atol=1e-6)
    away = np.abs(simulation.goals[0].position - simulation.start).max()
    assert truth.goal_distance == pytest.approx(away)
    assert not truth.contact
    simulation._plant.reset([np.arctan2(0.4, 0.3), 0.0])
    assert simulation.truth().contact
    assert simulation.truth().clearance < 0.0
    simulation.step_to(10 * MS)
    assert simulation.truth().contact_ns == 10 * MS
    geometry = simulation.geometry()
    np.testing.assert_allclose(geometry.circles, [[0.3, 0.4, 0.08]])
    assert geometry.clearance(np.array([[-0.26, 0.0]]))[0] < 0.0


def test_bad_setpoints_are_ignored_and_counted(robot: Robot) -> None:
    simulation = ArmSimulation(robot, SEED)
    still = simulation.start
    bad = setpoint(0, 0, still, np.zeros(2))
    simulation.send(replace(bad, position=np.full((2, 2), np.nan)))
    simulation.send(replace(bad, axes=("elbow", "shoulder")))
    assert simulation.refused == {Reason.setpoint_invalid: 2}


def test_another_arm_is_refused_with_what_is_needed(robot: Robot) -> None:
    twice = {"joints": robot.streams["joints"], "again": robot.streams["joints"]}
    with pytest.raises(MismatchError) as error:
        ArmSimulation(replace(robot, streams=twice), SEED)
    assert str(error.value) == (
        "robot file arm: the simulated arm needs axes of kind position and one stream, a "
        "joint_state of all of them; found the streams joints, again and axes of kind position, "
        "position; use robots/arm.yaml or a copy of it"
    )
