"""An arm at its table: give it setpoints, let time pass, receive samples.

    simulation = ArmSimulation(robot, world_seed=1_000_000)
    samples = simulation.step_to(now_ns)        # everything that arrived by then
    simulation.send(setpoint)                   # takes effect after the actuation delay
    simulation.truth()                          # for judging, never for moving

The plant is `ArmPlant` (arm.py). Between it and the setpoints stands what a drive does once a
millisecond: a position servo on what its encoder says, cut to the robot file's `effort`. The
world of a seed is a posture to start from and postures to go to, in turn. The invariant is that
of the rover: the same calls give the same samples, bit for bit, on one machine.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from edge_wm.errors import MismatchError
from edge_wm.reasons import Reason
from edge_wm.robot import Box, Robot
from edge_wm.simulation.arm import ARM, STEP_NS, ArmParameters, ArmPlant
from edge_wm.simulation.motors import Motors
from edge_wm.simulation.sensors import TIMINGS, Schedule
from edge_wm.simulation.simulated import Disturbances, JointDrive, Truth
from edge_wm.simulation.world import Geometry
from edge_wm.types import Float64, JointGoal, Sample, Setpoint

GOALS = 6  # postures of one world
ROOM = 0.06  # m that every posture keeps from all that stands around
ON_THE_WAY = 0.03  # m that the straight way between two postures keeps from it
FARTHEST = 0.85  # of the position limits, where postures are drawn
LEAST_WAY = 0.6  # rad between two postures, of the joint that turns most
WALL = 0.06  # m, the thickness that walls are drawn with


class ArmSimulation:
    """A `Simulation` of an arm."""

    near = 0.06  # rad: a joint's error that counts as being at the goal

    def __init__(
        self,
        robot: Robot,
        world_seed: int,
        *,
        seed: int = 0,
        disturbances: Disturbances | None = None,
        start_ns: int = 0,
        parameters: ArmParameters = ARM,
        drive: JointDrive | None = None,
    ) -> None:
        """Postures from `world_seed`, sensor timing from `seed`; time starts at `start_ns`.

        drive: moves the joints instead of the built-in servos; `send` then has no effect.

        Raises: MismatchError if `robot` is no arm of `parameters`, or if not every joint is
        measured by one stream and commanded by position.
        """
        self.disturbances = Disturbances() if disturbances is None else disturbances
        self.robot = robot
        self._drive = drive
        self._plant = ArmPlant(robot, parameters)
        self._stream, self._columns = _joint_stream(robot)
        self.start, self.goals = self._postures(world_seed)
        self._plant.reset(self.start.tolist())
        self._start_ns = start_ns
        self._contact_ns = 0

        delay_ns = robot.actuation_delay_ns + self.disturbances.extra_actuation_delay_ns
        self._motors = Motors(robot.axis_names, delay_ns)
        self._held, _ = self._plant.encoders()
        self._torque_max = [
            min(axis.effort_max, drive.torque_constant * drive.current_max)
            for axis, drive in zip(robot.axes, parameters.drives, strict=True)
        ]
        generator = np.random.Generator(np.random.Philox(key=seed, counter=world_seed))
        stream = robot.streams[self._stream]
        self._schedule = Schedule(TIMINGS[stream.type], stream.period_ns, start_ns, generator)
        self._arriving: list[tuple[int, int, Sample]] = []  # a heap by arrival

    # ---- a link ---------------------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        """The simulated time."""
        return self._start_ns + self._plant.steps * STEP_NS

    def send(self, setpoint: Setpoint) -> None:
        """Hand `setpoint` to the drives, now; a bad one is ignored and counted in `refused`."""
        self._motors.send(setpoint)

    @property
    def refused(self) -> Counter[Reason]:
        return self._motors.refused

    def step_to(self, now_ns: int) -> list[Sample]:
        """Let the arm move until `now_ns` (to the last whole millisecond before it).

        Returns the samples that arrived by then, in order of arrival.
        """
        while self.now_ns + STEP_NS <= now_ns:
            torques = self._servo() if self._drive is None else self._driven(self._drive)
            if torques is None:
                self._plant.step(self._held, "off")
            else:
                self._plant.step(torques, "torque")
            self._contact_ns += STEP_NS * self._plant.touching
            if self.now_ns >= self._schedule.due_ns:
                self._measure()
        arrived = []
        while self._arriving and self._arriving[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._arriving)[2])
        return arrived

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> ArmSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- for judging and drawing ------------------------------------------------------------
    @property
    def goal(self) -> JointGoal:
        """The first posture to go to."""
        return self.goals[0]

    @property
    def odometry_origin(self) -> tuple[float, float, float]:
        return 0.0, 0.0, 0.0

    @property
    def joints(self) -> tuple[Float64, Float64]:
        """Positions (J,) rad and velocities (J,) rad/s, in truth."""
        return self._plant.position, self._plant.velocity

    def truth(self) -> Truth:
        tool = self._plant.tool()
        return Truth(
            now_ns=self.now_ns,
            pose=tool,
            odom_pose=tool,
            twist=self._plant.tool_twist(),
            contact=self._plant.touching,
            contact_ns=self._contact_ns,
            clearance=self._plant.clearance(),
            goal_distance=float(np.abs(self._plant.position - self.goal.position).max()),
        )

    def geometry(self) -> Geometry:
        """Zones and the walls of the workspace; nothing of it moves."""
        circles: list[list[float]] = []
        rectangles: list[list[float]] = []
        for zone in self.robot.keep_out:
            if isinstance(zone, Box):
                rectangles.append(_rectangle(zone.lower, zone.upper))
            else:
                circles.append([*zone.center[:2], zone.radius])
        for room in self.robot.workspace:
            if isinstance(room, Box):
                (x0, y0), (x1, y1) = room.lower[:2], room.upper[:2]
                rectangles += [
                    _rectangle((x0 - WALL, y0 - WALL), (x0, y1 + WALL)),
                    _rectangle((x1, y0 - WALL), (x1 + WALL, y1 + WALL)),
                    _rectangle((x0, y0 - WALL), (x1, y0)),
                    _rectangle((x0, y1), (x1, y1 + WALL)),
                ]
        return Geometry(
            np.array(circles).reshape(-1, 3),
            np.array(rectangles).reshape(-1, 5),
            np.zeros(len(rectangles), np.bool_),
        )

    # ---- inside -----------------------------------------------------------------------------
    def _servo(self) -> list[float]:
        """The torques that the drives ask of their motors: what a microcontroller computes."""
        wanted = self._motors.position(self.now_ns)
        velocity = self._motors.velocity(self.now_ns)
        if wanted is None:
            wanted = self._held
        position, speed = self._plant.encoders()
        torques = []
        for joint, drive in enumerate(self._plant.parameters.drives):
            torque = drive.position_gain * (wanted[joint] - position[joint])
            torque += drive.velocity_gain * (velocity[joint] - speed[joint])
            most = self._torque_max[joint]
            torques.append(min(max(torque, -most), most))
        return torques

    def _driven(self, drive: JointDrive) -> list[float] | None:
        """The torques that somebody else asks of the motors; None: torque is off."""
        now = self._plant.reading()
        torques = drive.torques(now.position, now.velocity, now.current, now.temperature)
        return None if torques is None else torques.tolist()

    def _measure(self) -> None:
        stamp_ns, sequence = self._schedule.due_ns, self._schedule.sequence
        arrival_ns = self._schedule.arrival_ns(self.now_ns)
        if self.disturbances.noise:
            reading = self._plant.reading()
            data = np.stack([reading.position, reading.velocity])
        else:
            data = np.stack([self._plant.position, self._plant.velocity])
        data = np.ascontiguousarray(data[:, self._columns], np.float32)
        sample = Sample(self._stream, stamp_ns, arrival_ns, sequence, data)
        heapq.heappush(self._arriving, (arrival_ns, sequence, sample))

    def _postures(self, world_seed: int) -> tuple[Float64, tuple[JointGoal, ...]]:
        """Where the arm stands at first, and where it shall go: all free, the ways between too."""
        generator = np.random.Generator(np.random.Philox(key=world_seed))
        low = np.array([max(axis.position_min, -math.pi) for axis in self.robot.axes]) * FARTHEST
        high = np.array([min(axis.position_max, math.pi) for axis in self.robot.axes]) * FARTHEST
        found: list[Float64] = []
        while len(found) < GOALS + 1:
            posture = generator.uniform(low, high)
            if self._room(posture[None]) < ROOM:
                continue
            if found:
                way = found[-1] + np.linspace(0.0, 1.0, 40)[:, None] * (posture - found[-1])
                too_near = np.abs(posture - found[-1]).max() < LEAST_WAY
                back = found[0] + np.linspace(0.0, 1.0, 40)[:, None] * (posture - found[0])
                last = len(found) == GOALS
                blocked = self._room(way) < ON_THE_WAY or (last and self._room(back) < ON_THE_WAY)
                if too_near or blocked:
                    continue
            found.append(posture)
        return found[0], tuple(JointGoal(posture) for posture in found[1:])

    def _room(self, postures: Float64) -> float:
        """m, the least clearance of the body in any of `postures` (N, J)."""
        room = math.inf
        for posture in postures:
            self._plant.reset(posture.tolist())
            room = min(room, self._plant.clearance())
        return room


def _joint_stream(robot: Robot) -> tuple[str, list[int]]:
    """The stream that measures the axes, and for each of its columns the axis in it."""
    commanded = all(axis.kind == "position" for axis in robot.axes)
    first, *others = robot.streams.values()
    if commanded and not others and set(first.joints) == set(robot.axis_names):
        return first.name, [robot.axis_names.index(joint) for joint in first.joints]
    raise MismatchError(
        f"robot file {robot.name}: the simulated arm needs axes of kind position and one stream, a "
        f"joint_state of all of them; found the streams {', '.join(robot.streams)} and axes of "
        f"kind {', '.join(axis.kind for axis in robot.axes)}; use robots/arm.yaml or a copy of it"
    )


def _rectangle(low: Sequence[float], high: Sequence[float]) -> list[float]:
    """x, y, yaw, half extents, as `Geometry` has them."""
    return [
        (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, 0.0,
        (high[0] - low[0]) / 2, (high[1] - low[1]) / 2,
    ]  # fmt: skip
