"""Simulated robots, by MuJoCo: sinks for setpoints, sources of samples."""

from edge_wm.robot import Robot
from edge_wm.simulation.rover import RoverSimulation
from edge_wm.simulation.simulated import Disturbances, Simulation, Truth
from edge_wm.simulation.table import ArmSimulation
from edge_wm.simulation.world import HELD_BACK_SEED, Geometry, World, make_world

__all__ = [
    "HELD_BACK_SEED",
    "ArmSimulation",
    "Disturbances",
    "Geometry",
    "RoverSimulation",
    "Simulation",
    "Truth",
    "World",
    "make_simulation",
    "make_world",
]


def make_simulation(
    robot: Robot, world_seed: int, *, seed: int = 0, disturbances: Disturbances | None = None
) -> ArmSimulation | RoverSimulation:
    """The simulation of what the robot file describes: with kinematics an arm, else a base.

    Raises: MismatchError, UsageError if it is none that can be simulated.
    """
    kind = RoverSimulation if robot.kinematics is None else ArmSimulation
    return kind(robot, world_seed, seed=seed, disturbances=disturbances)
