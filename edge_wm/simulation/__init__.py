"""Robots in generated worlds, simulated by MuJoCo: a sink for setpoints, a source of samples."""

from edge_wm.simulation.rover import Disturbances, RoverSimulation, Truth
from edge_wm.simulation.world import HELD_BACK_SEED, Geometry, World, make_world

__all__ = [
    "HELD_BACK_SEED",
    "Disturbances",
    "Geometry",
    "RoverSimulation",
    "Truth",
    "World",
    "make_world",
]
