"""edge_wm.simulation.arm: the plant against the plain equations, integrated by scipy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from edge_wm.errors import MismatchError, UsageError
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.simulation.arm import AMBIENT_C, ARM, ArmParameters, ArmPlant

UPPER = 0.3  # m, from shoulder to elbow


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(find_robot("arm"))


def without_dry_friction() -> ArmParameters:
    return replace(ARM, drives=tuple(replace(drive, coulomb=0.0) for drive in ARM.drives))


def mass_matrix(q: np.ndarray) -> np.ndarray:
    """Two turning joints in a plane; Lynch and Park, Modern Robotics (2017), equation 8.11."""
    (m1, c1, i1), (m2, c2, i2) = [(s.mass, s.center[0], s.inertia[2]) for s in ARM.segments]
    a1, a2 = (drive.armature for drive in ARM.drives)
    far = m2 * UPPER * c2 * np.cos(q[1])
    both = i2 + m2 * c2**2
    return np.array(
        [
            [i1 + m1 * c1**2 + m2 * UPPER**2 + both + 2 * far + a1, both + far],
            [both + far, both + a2],
        ]
    )


def coriolis(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    pull = ARM.segments[1].mass * UPPER * ARM.segments[1].center[0] * np.sin(q[1])
    return pull * np.array([-v[1] * (2 * v[0] + v[1]), v[0] ** 2])


def motion(voltage: np.ndarray):
    """d/dt of position, velocity and current under constant voltages, without dry friction."""
    drives = ARM.drives
    k, resistance, inductance, viscous = (
        np.array([getattr(drive, name) for drive in drives])
        for name in ("torque_constant", "resistance", "inductance", "viscous")
    )

    def change(_: float, state: np.ndarray) -> np.ndarray:
        q, v, i = state.reshape(3, 2)
        force = k * i - viscous * v - coriolis(q, v)
        turn = np.linalg.solve(mass_matrix(q), force)
        return np.concatenate([v, turn, (voltage - resistance * i - k * v) / inductance])

    return change


@pytest.mark.parametrize("duty", [(0.15, 0.0), (0.0, -0.06), (-0.1, 0.06), (0.05, -0.05)])
def test_under_a_voltage_it_moves_as_the_equations_say(robot: Robot, duty) -> None:
    plant = ArmPlant(robot, without_dry_friction())
    start = np.array([-0.6, -1.2 if duty[1] > 0 else 1.2])
    plant.reset(start.tolist())
    state = np.concatenate([start, np.zeros(4)])
    way = solve_ivp(
        motion(np.array(duty) * ARM.bus_V), (0.0, 0.3), state, rtol=1e-9, atol=1e-11,
        t_eval=np.arange(1, 301) * 1e-3,
    )  # fmt: skip
    moved = np.abs(way.y[:2, -1] - start).max()
    assert moved > 0.2
    for index in range(300):
        plant.step(duty, "duty")
        assert not plant.touching
        np.testing.assert_allclose(plant.position, way.y[:2, index], atol=2e-3)
        np.testing.assert_allclose(plant.velocity, way.y[2:4, index], atol=1e-2)
        np.testing.assert_allclose(plant.reading().current, way.y[4:, index], atol=0.03)


def test_a_blocked_winding_follows_its_own_differential_equation(robot: Robot) -> None:
    stiff = tuple(replace(drive, armature=1e6) for drive in ARM.drives)
    plant = ArmPlant(robot, replace(ARM, drives=stiff))
    voltage = 0.25 * ARM.bus_V
    for index in range(1, 8):
        plant.step((0.25, 0.25), "duty")
        for drive, current in zip(ARM.drives, plant.reading().current, strict=True):
            tau = drive.inductance / drive.resistance
            expected = voltage / drive.resistance * (1.0 - np.exp(-index * 1e-3 / tau))
            assert current == pytest.approx(expected, rel=1e-6)


def test_the_current_controller_reaches_what_is_wanted_within_what_the_bus_gives(robot) -> None:
    plant = ArmPlant(robot)
    for _ in range(5):
        plant.step((4.0, -2.0), "current")
    np.testing.assert_allclose(plant.reading().current, (4.0, -2.0), rtol=0.03)
    plant.reset()
    for _ in range(30):
        plant.step((100.0, 100.0), "current")
        assert (plant.reading().current <= [drive.current_max for drive in ARM.drives]).all()
    plant.step((0.0, 0.0), "off")
    np.testing.assert_array_equal(plant.reading().current, 0.0)


def test_dry_friction_holds_what_is_weaker_and_stops_what_coasts(robot: Robot) -> None:
    plant = ArmPlant(robot)
    weak = [0.8 * drive.coulomb for drive in ARM.drives]
    for _ in range(300):
        plant.step(weak, "torque")
    np.testing.assert_allclose(plant.position, 0.0, atol=2e-3)
    for _ in range(100):
        plant.step([3.0, 1.5], "torque")
    assert (plant.velocity > 0.3).all()
    for _ in range(1200):
        plant.step([0.0, 0.0], "off")
    np.testing.assert_allclose(plant.velocity, 0.0, atol=1e-3)


def test_encoders_tell_whole_counts_and_windings_get_warm(robot: Robot) -> None:
    plant = ArmPlant(robot)
    for _ in range(200):
        plant.step([1.0, -0.4], "torque")
    reading, counts = plant.reading(), np.array([drive.encoder_counts for drive in ARM.drives])
    in_counts = reading.position / (2 * np.pi) * counts
    np.testing.assert_allclose(in_counts, np.rint(in_counts), atol=1e-6)
    lag = plant.position - reading.position
    assert ((lag >= 0) & (lag < 2 * np.pi / counts)).all()
    np.testing.assert_allclose(reading.velocity, plant.velocity, atol=0.1)
    assert (reading.temperature > AMBIENT_C).all()
    plant.reset()
    np.testing.assert_array_equal(plant.reading().temperature, AMBIENT_C)


def test_it_runs_against_the_post_the_wall_and_its_stops_and_says_so(robot: Robot) -> None:
    angle = np.arctan2(0.4, 0.3)
    for start, torque in (
        ([angle - 0.5, 0.0], [2.0, 0.0]),  # the post
        ([1.9, 0.0], [2.0, 0.0]),  # the wall
        ([-0.5, -2.0], [0.0, -1.5]),  # the elbow's stop
    ):
        plant = ArmPlant(robot)
        plant.reset(start)
        assert not plant.touching
        for _ in range(2000):
            plant.step(torque, "torque")
            if plant.touching:
                break
        assert plant.touching


def test_the_same_commands_give_the_same_bits(robot: Robot) -> None:
    ways = []
    for _ in range(2):
        plant = ArmPlant(robot)
        random = np.random.default_rng(7)
        for _ in range(200):
            plant.step(random.uniform(-0.3, 0.3, 2).tolist(), "duty")
        ways.append((plant.position.tobytes(), plant.reading().current.tobytes()))
    assert ways[0] == ways[1]


def test_wrong_commands_and_robots_are_refused(robot: Robot) -> None:
    plant = ArmPlant(robot)
    with pytest.raises(UsageError) as error:
        plant.step([1.0], "torque")
    assert str(error.value) == (
        "plant of arm: a command must be 2 numbers and one of duty, current, torque, off, "
        "got 1 numbers and 'torque'"
    )
    rover = load_robot(find_robot("rover"))
    with pytest.raises(MismatchError) as mismatch:
        ArmPlant(rover)
    assert str(mismatch.value) == (
        "robot file rover: the simulated arm needs 2 turning joints, each carried by the one "
        "before and each an axis, in that order; found joints none and axes base.vx, base.wz; "
        "use robots/arm.yaml or a copy of it"
    )
