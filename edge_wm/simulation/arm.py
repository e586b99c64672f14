"""The plant of a jointed arm: rigid bodies by MuJoCo, each joint turned by a DC motor with a gear.

    command ─► current controller ─► bridge: duty · bus voltage ─► winding ─► gear ─► joint
                                                  R i + L i' + k w = u     torque = k i

It needs neither a runtime nor a clock: one call of `step` is one millisecond, and everything
follows from the robot file, the parameters and the commands. Inside, physics advances by
`SUBSTEP_S`: the winding is integrated exactly for a constant voltage and speed, and MuJoCo gets
the torque of its mean current. Viscous and dry friction and the rotor's inertia are MuJoCo's own
`damping`, `frictionloss` and `armature`.

    plant = ArmPlant(load_robot(find_robot("arm")))
    plant.step([2.0, 0.0], "current")        # A; or "duty" (-1..1), "torque" (N m), "off"
    plant.reading()                          # what encoders and current sensors tell

What the rest of edge-wm knows of the arm's masses, motors and friction stands in `ARM`, and
nowhere else: `zoo/arm_analytic` takes its equations of motion from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from edge_wm.errors import MismatchError, UsageError
from edge_wm.robot import Box, Region, Robot
from edge_wm.types import Float64

STEP_NS = 1_000_000
SUBSTEPS = 4
SUBSTEP_S = 1e-9 * STEP_NS / SUBSTEPS  # 4 kHz: a quarter of the windings' time constants
VELOCITY_FILTER_S = 0.004  # of the encoder's speed: differences of single counts are too coarse
STOP_BEYOND = 0.05  # rad or m: the mechanical stops lie this far outside the position limits
AMBIENT_C = 25.0
SOLID = 2  # MuJoCo's contype of what stands around; the arm's own is 1

CommandKind = Literal["duty", "current", "torque", "off"]
COMMANDS: tuple[CommandKind, ...] = ("duty", "current", "torque", "off")


@dataclass(frozen=True, slots=True)
class Drive:
    """A motor with gear, seen from the joint, and the friction of both."""

    resistance: float  # ohm, of the winding
    inductance: float  # H
    torque_constant: float  # N m/A at the joint, gear included; as V s/rad the back-EMF's
    armature: float  # kg m^2 at the joint: the rotor's inertia times the gear ratio squared
    viscous: float  # N m s/rad
    coulomb: float  # N m
    current_max: float  # A, of the current controller
    position_gain: float  # N m/rad, of the position servo
    velocity_gain: float  # N m s/rad, of the position servo
    encoder_counts: int  # per turn of the joint
    thermal_resistance: float  # K/W, winding to air
    thermal_s: float  # s, time constant


@dataclass(frozen=True, slots=True)
class Segment:
    """The rigid body that one moving joint carries, with everything fixed to it."""

    mass: float  # kg
    center: tuple[float, float, float]  # m, of mass, in the joint's child frame
    inertia: tuple[float, float, float]  # kg m^2 about the center, along the frame's axes
    radius: float  # m: the capsule from the joint to the next one, which touches things


@dataclass(frozen=True, slots=True)
class ArmParameters:
    """What a robot file does not say of an arm. One segment and one drive for each joint."""

    segments: tuple[Segment, ...]
    drives: tuple[Drive, ...]
    bus_V: float


# Two aluminium tubes of a small bench arm, with 24 V motors of 50 W behind gears of 50 and 40.
ARM = ArmParameters(
    segments=(
        Segment(1.2, (0.13, 0.0, 0.0), (0.002, 0.012, 0.012), 0.035),
        Segment(0.8, (0.12, 0.0, 0.0), (0.001, 0.006, 0.006), 0.03),
    ),
    drives=(
        Drive(0.6, 0.6e-3, 1.0, 0.075, 0.3, 0.3, 20.0, 60.0, 6.0, 1 << 17, 1.5, 60.0),
        Drive(0.9, 0.7e-3, 0.64, 0.024, 0.1, 0.12, 15.0, 25.0, 2.0, 1 << 17, 2.0, 40.0),
    ),
    bus_V=24.0,
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the sensors of the drives tell, joint by joint."""

    position: Float64  # (J,) rad, in whole counts
    velocity: Float64  # (J,) rad/s, filtered differences of counts
    current: Float64  # (J,) A
    temperature: Float64  # (J,) degC, of the windings


class ArmPlant:
    """An arm with its motors. Not thread-safe."""

    def __init__(self, robot: Robot, parameters: ArmParameters = ARM) -> None:
        """At rest with every joint at zero.

        Raises: MismatchError if the robot file has no arm of as many turning joints as
        `parameters` has segments, each after the other.
        """
        require_chain(robot, parameters)
        self.robot = robot
        self.parameters = parameters
        self._model = mujoco.MjModel.from_xml_string(arm_scene(robot, parameters))
        self._data = mujoco.MjData(self._model)
        self.joints = len(parameters.drives)
        solid = self._model.geom_contype == SOLID
        self._others = [int(geom) for geom in np.flatnonzero(solid)]
        self._own = [int(geom) for geom in np.flatnonzero(~solid)]
        # What one winding does in a substep: i -> ... + decay i; and its mean on the way.
        taus = [drive.inductance / drive.resistance for drive in parameters.drives]
        self._radians = [math.tau / drive.encoder_counts for drive in parameters.drives]
        self._stops = [
            (axis.position_min - STOP_BEYOND, axis.position_max + STOP_BEYOND)
            for axis in robot.axes
        ]
        self._decay = [math.exp(-SUBSTEP_S / tau) for tau in taus]
        self._mean = [
            tau / SUBSTEP_S * (1.0 - decay) for tau, decay in zip(taus, self._decay, strict=True)
        ]
        self.reset()

    def reset(self, position: Sequence[float] | None = None) -> None:
        """At rest at `position` ((J,) rad; zero if absent), with cold windings and no current."""
        mujoco.mj_resetData(self._model, self._data)
        if position is not None:
            self._data.qpos[:] = position
        mujoco.mj_forward(self._model, self._data)
        self.steps = 0
        self._current = [0.0] * self.joints
        self._integral = [0.0] * self.joints  # V, of the current controllers
        self._temperature = [AMBIENT_C] * self.joints
        self._counted = self._count()
        self._velocity = [0.0] * self.joints

    # ---- moving on ------------------------------------------------------------------------
    def step(self, command: Sequence[float], what: CommandKind = "duty") -> None:
        """Let one millisecond pass with `command` held: (J,), in the unit of `what`.

        duty: share of the bus voltage at the winding, cut to -1..1. current (A) and torque (N m,
        of the motor at the joint): the drive's own controller makes the duty, within
        `current_max`. off: the bridge is open, no current flows; the numbers do not count.

        Raises: UsageError for a wrong number of joints, or a `what` that is none of these.
        """
        if what not in COMMANDS or len(command) != self.joints:
            raise UsageError(
                f"plant of {self.robot.name}: a command must be {self.joints} numbers and one of "
                f"{', '.join(COMMANDS)}, got {len(command)} numbers and {what!r}"
            )
        drives = self.parameters.drives
        if what == "torque":
            wanted = [c / d.torque_constant for c, d in zip(command, drives, strict=True)]
        else:
            wanted = [float(value) for value in command]
        for _ in range(SUBSTEPS):
            speeds = self._data.qvel.tolist()
            self._data.ctrl[:] = [
                self._torque(joint, drive, wanted[joint], what, speeds[joint])
                for joint, drive in enumerate(drives)
            ]
            mujoco.mj_step(self._model, self._data)
        self.steps += 1
        self._measure()

    def _torque(
        self, joint: int, drive: Drive, wanted: float, what: CommandKind, speed: float
    ) -> float:
        """The motor's mean torque over one substep; moves its current on."""
        if what == "off":
            self._current[joint] = self._integral[joint] = 0.0
            return 0.0
        if what == "duty":
            voltage = min(max(wanted, -1.0), 1.0) * self.parameters.bus_V
        else:
            voltage = self._regulated(joint, drive, wanted, speed)
        before = self._current[joint]
        final = (voltage - drive.torque_constant * speed) / drive.resistance
        self._current[joint] = final + (before - final) * self._decay[joint]
        return drive.torque_constant * (final + (before - final) * self._mean[joint])

    def _regulated(self, joint: int, drive: Drive, wanted: float, speed: float) -> float:
        """The current controller: PI with the winding's pole cancelled, a quarter a substep.

        Its integral stands still while the bridge gives all it has.
        """
        wanted = min(max(wanted, -drive.current_max), drive.current_max)
        error = wanted - self._current[joint]
        bandwidth = 0.25 / SUBSTEP_S
        integral = self._integral[joint] + bandwidth * drive.resistance * SUBSTEP_S * error
        voltage = bandwidth * drive.inductance * error + integral
        limit = self.parameters.bus_V
        if abs(voltage) <= limit:
            self._integral[joint] = integral
        return min(max(voltage, -limit), limit)

    def _count(self) -> list[int]:
        return [
            math.floor(q / radians)
            for q, radians in zip(self._data.qpos.tolist(), self._radians, strict=True)
        ]

    def _measure(self) -> None:
        """Encoders and thermometers, once a millisecond."""
        step_s = SUBSTEPS * SUBSTEP_S
        share = step_s / (VELOCITY_FILTER_S + step_s)
        before, self._counted = self._counted, self._count()
        for joint, drive in enumerate(self.parameters.drives):
            change = (self._counted[joint] - before[joint]) * self._radians[joint]
            self._velocity[joint] += share * (change / step_s - self._velocity[joint])
            heat = drive.resistance * self._current[joint] ** 2
            warmer = AMBIENT_C + heat * drive.thermal_resistance - self._temperature[joint]
            self._temperature[joint] += step_s / drive.thermal_s * warmer

    # ---- what it is ------------------------------------------------------------------------
    def encoders(self) -> tuple[list[float], list[float]]:
        """Position (rad) and velocity (rad/s) of each joint, as in `reading`."""
        counts = zip(self._counted, self._radians, strict=True)
        return [count * radians for count, radians in counts], list(self._velocity)

    def reading(self) -> Reading:
        """What the sensors tell now."""
        position, velocity = self.encoders()
        return Reading(
            position=np.array(position),
            velocity=np.array(velocity),
            current=np.array(self._current),
            temperature=np.array(self._temperature),
        )

    @property
    def position(self) -> Float64:
        """(J,) rad, in truth."""
        return np.array(self._data.qpos)

    @property
    def velocity(self) -> Float64:
        """(J,) rad/s, in truth."""
        return np.array(self._data.qvel)

    @property
    def touching(self) -> bool:
        """Whether the arm touches something, or a joint stands at its mechanical stop."""
        joints = zip(self._data.qpos.tolist(), self._stops, strict=True)
        return bool(self._data.ncon) or any(not low < q < high for q, (low, high) in joints)

    def clearance(self) -> float:
        """m from the arm's capsules to the nearest solid thing; negative inside, inf if none."""
        nearest = math.inf
        for mine in self._own:
            for other in self._others:
                away = mujoco.mj_geomDistance(self._model, self._data, mine, other, 1e3, None)
                nearest = min(nearest, away)
        return nearest

    def tool(self) -> tuple[float, float, float]:
        """x, y (m) and heading (rad) of the last frame of the chain, from above, in truth."""
        body = self._data.body(self._model.nbody - 1)
        return float(body.xpos[0]), float(body.xpos[1]), math.atan2(body.xmat[3], body.xmat[0])

    def tool_twist(self) -> tuple[float, float]:
        """m/s along the tool's heading and rad/s about the vertical, in truth."""
        twist = np.zeros(6)
        body, kind = self._model.nbody - 1, mujoco.mjtObj.mjOBJ_BODY.value
        mujoco.mj_objectVelocity(self._model, self._data, kind, body, twist, 1)
        return float(twist[3]), float(twist[2])


def require_chain(robot: Robot, parameters: ArmParameters) -> None:
    """Raises: MismatchError if `robot` is no chain of turning joints with these parameters."""
    chain = [] if robot.kinematics is None else list(robot.kinematics.joints)
    parents = [] if robot.kinematics is None else [robot.kinematics.root]
    parents += [joint.child for joint in chain[:-1]]
    moving = tuple(joint.name for joint in chain if joint.kind != "fixed")
    one_after_other = [joint.parent for joint in chain] == parents
    turning = all(joint.kind in ("revolute", "continuous", "fixed") for joint in chain)
    wanted = len(parameters.drives)
    if not (one_after_other and turning and moving == robot.axis_names and len(moving) == wanted):
        raise MismatchError(
            f"robot file {robot.name}: the simulated arm needs {wanted} turning joints, each "
            "carried by the one before and each an axis, in that order; found joints "
            f"{', '.join(moving) or 'none'} and axes {', '.join(robot.axis_names)}; use "
            "robots/arm.yaml or a copy of it"
        )


# ---- MuJoCo's model ------------------------------------------------------------------------
def arm_scene(robot: Robot, parameters: ArmParameters = ARM, *, step_s: float = SUBSTEP_S) -> str:
    """The MJCF text of the arm among what it must not touch: zones are solid, walls are planes."""
    assert robot.kinematics is not None
    motors = "".join(f'<motor joint="{name}"/>' for name in robot.axis_names)
    return f"""<mujoco model="{robot.name}">
  <compiler angle="radian" autolimits="true" inertiafromgeom="false"/>
  <option timestep="{step_s!r}" integrator="implicitfast"/>
  <size memory="1M"/>
  <default><geom contype="1" conaffinity="2"/></default>
  <worldbody>
    {"".join(_obstacle(zone) for zone in robot.keep_out)}
    {"".join(_walls(robot.workspace))}
    {_bodies(robot, parameters)}
  </worldbody>
  <actuator>{motors}</actuator>
</mujoco>"""


def _bodies(robot: Robot, parameters: ArmParameters) -> str:
    """The chain of bodies, each inside the one before."""
    assert robot.kinematics is not None
    chain = robot.kinematics.joints
    text, moved = "", 0
    for index, joint in enumerate(chain):
        text += (
            f'<body name="{joint.child}" pos="{_row(joint.xyz)}" quat="{_quaternion(joint.rpy)}">'
        )
        if joint.kind == "fixed":
            continue
        segment, drive = parameters.segments[moved], parameters.drives[moved]
        axis = robot.axes[moved]
        moved += 1
        stops = ""
        if joint.kind == "revolute":
            low, high = axis.position_min - STOP_BEYOND, axis.position_max + STOP_BEYOND
            stops = f'range="{low!r} {high!r}"'
        text += (
            f'<joint name="{joint.name}" type="hinge" axis="{_row(joint.axis)}" {stops} '
            f'damping="{drive.viscous!r}" frictionloss="{drive.coulomb!r}" '
            f'armature="{drive.armature!r}"/>'
            f'<inertial mass="{segment.mass!r}" pos="{_row(segment.center)}" '
            f'diaginertia="{_row(segment.inertia)}"/>'
        )
        if index + 1 < len(chain):
            text += (
                f'<geom type="capsule" fromto="0 0 0 {_row(chain[index + 1].xyz)}" '
                f'size="{segment.radius!r}"/>'
            )
    return text + "</body>" * len(chain)


def _obstacle(zone: Region) -> str:
    solid = f'contype="{SOLID}" conaffinity="1"'
    if isinstance(zone, Box):
        middle = (np.array(zone.lower) + np.array(zone.upper)) / 2
        half = (np.array(zone.upper) - np.array(zone.lower)) / 2
        return f'<geom type="box" pos="{_row(middle)}" size="{_row(half)}" {solid}/>'
    return f'<geom type="sphere" pos="{_row(zone.center)}" size="{zone.radius!r}" {solid}/>'


def _walls(workspace: Sequence[Region]) -> list[str]:
    """The faces of a workspace that is one box, looking inwards."""
    if len(workspace) != 1 or not isinstance(workspace[0], Box):
        return []
    walls = []
    for side, corner in ((1.0, workspace[0].lower), (-1.0, workspace[0].upper)):
        for axis in range(3):
            place, normal = np.zeros(3), np.zeros(3)
            place[axis], normal[axis] = corner[axis], side
            walls.append(
                f'<geom type="plane" size="2 2 0.1" pos="{_row(place)}" zaxis="{_row(normal)}" '
                f'contype="{SOLID}" conaffinity="1"/>'
            )
    return walls


def _quaternion(rpy: Sequence[float]) -> str:
    """w x y z of Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, sp, sy), (cr, cp, cy) = np.sin(np.array(rpy) / 2), np.cos(np.array(rpy) / 2)
    return _row(
        [
            cr * cp * cy + sr * sp * sy,
            sr * cp * cy - cr * sp * sy,
            cr * sp * cy + sr * cp * sy,
            cr * cp * sy - sr * sp * cy,
        ]
    )


def _row(values: object) -> str:
    return " ".join(repr(float(value)) for value in np.asarray(values).ravel())
