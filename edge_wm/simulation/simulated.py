"""What every simulated robot is: a link that also tells the truth, for judging it.

`make_simulation` takes the one that the robot file describes: a base drives through generated
rooms (`rover`), an arm moves at its table (`table`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edge_wm.device import Link
from edge_wm.reasons import Reason
from edge_wm.simulation.world import Geometry
from edge_wm.types import Float64, Goal


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What is made worse, or better, than the robot file says."""

    noise: bool = True  # sensor noise of all kinds; False: ideal values, still late and jittered
    extra_actuation_delay_ns: int = 0  # on top of the robot file's
    extra_camera_delay_ns: int = 0  # later arrival; the stamps stay true
    camera_drop: float = 0.0  # share of frames that never arrive, 0..1


@dataclass(frozen=True, slots=True)
class Truth:
    """What really is, at `now_ns`. The pose is that of a base, or of an arm's tool from above."""

    now_ns: int
    pose: tuple[float, float, float]  # x, y (m), yaw (rad) in the world frame
    odom_pose: tuple[float, float, float]  # the same in the odometry frame
    twist: tuple[float, float]  # m/s along the heading, rad/s
    contact: bool  # the robot touches something in this moment
    contact_ns: int  # for how long it has done so since the start, in total
    clearance: float  # m from the robot (a base: its footprint) to the nearest obstacle
    goal_distance: float  # to the first goal: m of a base, rad of an arm's farthest joint


class Simulation(Link, Protocol):
    """A simulated robot."""

    @property
    def refused(self) -> Counter[Reason]:
        """How often the motors ignored a setpoint, or braked for want of one."""
        ...

    @property
    def goals(self) -> Sequence[Goal]:
        """Where to go, in turn; after the last one to the first again."""
        ...

    @property
    def near(self) -> float:
        """The largest `Truth.goal_distance` that counts as being at the goal."""
        ...

    @property
    def odometry_origin(self) -> tuple[float, float, float]:
        """x, y (m), yaw (rad) of the odometry frame in the world frame."""
        ...

    def truth(self) -> Truth:
        """The state of the world in this moment."""
        ...

    def geometry(self) -> Geometry:
        """What stands around, from above, in the world frame."""
        ...


# ---- motor controllers outside of a simulation, which then has none of its own ----------------
class WheelDrive(Protocol):
    """Those of a base's two wheels."""

    def torques(self, angles: Float64, speeds: Float64) -> Float64:
        """The wheels' torques, (left, right) N m, for the next millisecond.

        angles (2,) rad, speeds (2,) rad/s: the wheels now, left and right. Called once for each
        physics step, in order.
        """
        ...


class JointDrive(Protocol):
    """Those of an arm's joints."""

    def torques(
        self, position: Float64, velocity: Float64, current: Float64, temperature: Float64
    ) -> Float64 | None:
        """The joints' torques, (J,) N m, for the next millisecond; None: the bridges are open.

        What the sensors tell, (J,) each: rad, rad/s, A, degC. Called once a millisecond, in order.
        """
        ...
