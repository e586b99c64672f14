"""The rover in a generated world: give it setpoints, let time pass, receive samples.

    simulation = RoverSimulation(robot, world_seed=1_000_000)
    samples = simulation.step_to(now_ns)        # everything that arrived by then
    simulation.send(setpoint)                   # takes effect after the actuation delay
    simulation.truth()                          # for judging, never for driving

Physics advances in steps of 1 ms; each sensor measures at the first step after it is due, so a
stamp is at most 1 ms older than what it stands for. The invariant: everything follows from
(robot file, world_seed, seed, disturbances) and the setpoints with the times at which they were
sent, so the same calls give the same samples, bit for bit, on one machine.

World frame: the origin is the middle of the floor. Odometry frame: the pose at the start.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter

from edge_wm.simulation.camera import Camera  # isort: skip  (chooses EGL before mujoco loads)

import mujoco
import numpy as np

from edge_wm.errors import MismatchError, UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.simulation.motors import Motors
from edge_wm.simulation.scene import OBSTACLE_GROUP, PHYSICS_STEP_NS, mount, rover_scene
from edge_wm.simulation.sensors import (
    TIMINGS,
    CameraNoise,
    ImuNoise,
    RangeNoise,
    Schedule,
    WheelNoise,
)
from edge_wm.simulation.simulated import Disturbances, Truth, WheelDrive
from edge_wm.simulation.world import Geometry, World, make_world
from edge_wm.types import Array, Float64, PoseGoal, Sample, Setpoint

SETTLING_STEPS = 100  # physics steps before time starts, for the contacts to come to rest


class RoverSimulation:
    """A `Simulation` of a rover."""

    near = 0.30  # m from the goal that counts as being at it

    def __init__(
        self,
        robot: Robot,
        world_seed: int,
        *,
        seed: int = 0,
        disturbances: Disturbances | None = None,
        start_ns: int = 0,
        drive: WheelDrive | None = None,
    ) -> None:
        """World `world_seed`, sensor noise and timing from `seed`; time starts at `start_ns`.

        drive: turns the wheels instead of the built-in motors; `send` then has no effect.

        Raises: MismatchError if `robot` is not a differential base with the rover's streams.
        """
        _require_rover(robot)
        assert robot.base is not None
        if disturbances is None:
            disturbances = Disturbances()
        self.robot = robot
        self.disturbances = disturbances
        self.world: World = make_world(world_seed, robot.base.footprint_radius)
        self._base = robot.base
        self._drive = drive
        scene = rover_scene(self.world, robot, servos=drive is None)
        self._model = mujoco.MjModel.from_xml_string(scene)
        self._data = mujoco.MjData(self._model)
        mujoco.mj_step(self._model, self._data, nstep=SETTLING_STEPS)
        self._start_ns = start_ns
        self._steps = 0
        self._contact_ns = 0
        joint = self._model.joint("base")
        self._qpos = self._data.qpos[joint.qposadr[0] :][:7]  # views: x y z, quaternion w x y z
        self._qvel = self._data.qvel[joint.dofadr[0] :][:6]  # world-frame v, body-frame w

        wheels = [self._model.joint(side) for side in ("left", "right")]
        self._wheel_angles = [wheel.qposadr[0] for wheel in wheels]
        self._wheel_speeds = [wheel.dofadr[0] for wheel in wheels]
        delay_ns = robot.actuation_delay_ns + disturbances.extra_actuation_delay_ns
        self._motors = Motors(tuple(axis.name for axis in robot.axes), delay_ns)
        self._axis_of = {axis.name: index for index, axis in enumerate(robot.axes)}

        shape = robot.streams["camera"].shape
        self._camera = Camera(self._model, "camera", shape[0], shape[1])
        self._rays = _Rays(robot, self._model)
        streams = ("camera", "wheels", "imu", "scan")
        root = np.random.SeedSequence((world_seed, seed))
        generators = [np.random.Generator(np.random.Philox(s)) for s in root.spawn(8)]
        self._camera_noise = CameraNoise(generators[0])
        self._wheel_noise = WheelNoise()
        self._imu_noise = ImuNoise(generators[1])
        self._range_noise = RangeNoise(generators[2])
        self._drop = generators[3]
        self._schedules = {
            name: Schedule(
                TIMINGS[robot.streams[name].type],
                robot.streams[name].period_ns,
                start_ns,
                generators[4 + index],
            )
            for index, name in enumerate(streams)
        }
        self._next_due_ns = 0
        self._arriving: list[tuple[int, int, Sample]] = []  # a heap by arrival
        self._count = 0

    # ---- a link ---------------------------------------------------------------------------
    @property
    def now_ns(self) -> int:
        """The simulated time."""
        return self._start_ns + self._steps * PHYSICS_STEP_NS

    def send(self, setpoint: Setpoint) -> None:
        """Hand `setpoint` to the motors, now; a bad one is ignored and counted in `refused`."""
        self._motors.send(setpoint)

    @property
    def refused(self) -> Counter[Reason]:
        """How often the motors ignored a setpoint, or braked for want of one."""
        return self._motors.refused

    def step_to(self, now_ns: int) -> list[Sample]:
        """Let the world run until `now_ns` (to the last whole millisecond before it).

        Returns the samples that arrived by then, in order of arrival.
        """
        while self.now_ns + PHYSICS_STEP_NS <= now_ns:
            self._advance()
            if self.now_ns >= self._next_due_ns:
                self._measure()
        arrived = []
        while self._arriving and self._arriving[0][0] <= now_ns:
            arrived.append(heapq.heappop(self._arriving)[2])
        return arrived

    def close(self) -> None:
        """Free the renderer; may be called twice."""
        self._camera.close()

    def __enter__(self) -> RoverSimulation:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- for judging and drawing ----------------------------------------------------------
    @property
    def goal(self) -> PoseGoal:
        """Where to go, in the odometry frame; any heading."""
        x, y, _ = self._to_odom(*self.world.goal, 0.0)
        return PoseGoal(x, y, None, "odom")

    @property
    def goals(self) -> tuple[PoseGoal, PoseGoal]:
        """There and back."""
        return self.goal, PoseGoal(0.0, 0.0)

    @property
    def odometry_origin(self) -> tuple[float, float, float]:
        return self.world.start

    def truth(self) -> Truth:
        """The state of the world in this moment."""
        x, y = self._qpos[0], self._qpos[1]
        yaw = self._yaw()
        vx, vy = self._qvel[0], self._qvel[1]
        place = np.array([[x, y]])
        radius = self._base.footprint_radius
        return Truth(
            now_ns=self.now_ns,
            pose=(float(x), float(y), yaw),
            odom_pose=self._to_odom(float(x), float(y), yaw),
            twist=(
                float(vx * math.cos(yaw) + vy * math.sin(yaw)),
                float(self._qvel[5]),
            ),
            contact=self._in_contact(),
            contact_ns=self._contact_ns,
            clearance=float(self.geometry().clearance(place)[0]) - radius,
            goal_distance=math.hypot(x - self.world.goal[0], y - self.world.goal[1]),
        )

    def geometry(self) -> Geometry:
        """The obstacles where they are now, in the world frame."""
        before = self.world.geometry()
        rectangles = before.rectangles.copy()
        for index in np.flatnonzero(before.movable):
            body = self._data.body(f"block{index}")
            rectangles[index, :2] = body.xpos[:2]
            rectangles[index, 2] = math.atan2(body.xmat[3], body.xmat[0])
        return Geometry(before.circles, rectangles, before.movable)

    # ---- inside ---------------------------------------------------------------------------
    def _advance(self) -> None:
        if self._drive is None:
            command = self._motors.velocity(self.now_ns)
            vx, wz = command[self._axis_of["base.vx"]], command[self._axis_of["base.wz"]]
            self._data.ctrl[:] = self._base.wheel_speeds(vx, wz)
        else:
            angles, speeds = self._wheels()
            self._data.ctrl[:] = self._drive.torques(angles, speeds)
        mujoco.mj_step(self._model, self._data)
        self._steps += 1
        self._contact_ns += PHYSICS_STEP_NS * self._in_contact()

    def _wheels(self) -> tuple[Float64, Float64]:
        """The wheels' angles (rad) and speeds (rad/s), left and right."""
        return self._data.qpos[self._wheel_angles], self._data.qvel[self._wheel_speeds]

    def _in_contact(self) -> bool:
        return bool(self._data.sensordata[0] > 0.0)

    def _measure(self) -> None:
        """Take every measurement that is due."""
        now_ns = self.now_ns
        for name, schedule in self._schedules.items():
            if schedule.due_ns > now_ns:
                continue
            stamp_ns, sequence = schedule.due_ns, schedule.sequence
            arrival_ns = schedule.arrival_ns(now_ns)
            data: Array | None
            if name == "camera":
                arrival_ns += self.disturbances.extra_camera_delay_ns
                dropped = self._drop.random() < self.disturbances.camera_drop
                data = None if dropped else self._see()
            elif name == "wheels":
                data = self._wheel_noise(self._wheels()[0], stamp_ns)
            elif name == "imu":
                reading = np.concatenate([self._qvel[3:6], self._data.sensordata[1:4]])
                ideal = reading.astype(np.float32)
                data = self._imu_noise(reading) if self.disturbances.noise else ideal
            else:
                ranges = self._rays.cast(self._data)
                noisy = self._range_noise(ranges) if self.disturbances.noise else ranges
                data = self._rays.limited(noisy)
            if data is not None:
                sample = Sample(name, stamp_ns, arrival_ns, sequence, data)
                heapq.heappush(self._arriving, (arrival_ns, self._count, sample))
                self._count += 1
        self._next_due_ns = min(schedule.due_ns for schedule in self._schedules.values())

    def _see(self) -> Array:
        image = self._camera.render(self._data)
        return self._camera_noise(image) if self.disturbances.noise else image

    def _yaw(self) -> float:
        w, x, y, z = self._qpos[3:7]
        return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

    def _to_odom(self, x: float, y: float, yaw: float) -> tuple[float, float, float]:
        x0, y0, yaw0 = self.world.start
        dx, dy = x - x0, y - y0
        turned = yaw - yaw0
        return (
            math.cos(yaw0) * dx + math.sin(yaw0) * dy,
            math.cos(yaw0) * dy - math.sin(yaw0) * dx,
            math.atan2(math.sin(turned), math.cos(turned)),
        )


class _Rays:
    """The range scanner's beams."""

    def __init__(self, robot: Robot, model: mujoco.MjModel) -> None:
        stream = robot.streams["scan"]
        self._model = model
        self._least, self._most = stream.range_min, stream.range_max
        (count,) = stream.shape
        angles = np.linspace(stream.angle_min, stream.angle_max, count)
        self._beams = np.stack([np.cos(angles), np.sin(angles), np.zeros(count)], axis=1)
        self._origin = np.array(mount(robot, "scan").xyz)
        self._groups = np.zeros(6, np.uint8)
        self._groups[OBSTACLE_GROUP] = 1
        self._hit = np.empty(count, np.int32)
        self._distance = np.empty(count)

    def cast(self, data: mujoco.MjData) -> Float64:
        """(R,) m to the first obstacle along each beam; +inf where there is none."""
        rover = data.body("rover")
        turned = rover.xmat.reshape(3, 3)
        origin = rover.xpos + turned @ self._origin
        beams = np.ascontiguousarray(self._beams @ turned.T).ravel()
        mujoco.mj_multiRay(
            self._model, data, origin, beams, self._groups, 1, -1,
            self._hit, self._distance, None, len(self._hit), self._most + 1.0,
        )  # fmt: skip
        return np.where(self._hit < 0, np.inf, self._distance)

    def limited(self, ranges: Float64) -> Array:
        """What the scanner reports: float32, +inf outside its range."""
        inside = (ranges >= self._least) & (ranges <= self._most)
        return np.where(inside, ranges, np.inf).astype(np.float32)


def _require_rover(robot: Robot) -> None:
    wanted = {"camera": "image", "wheels": "joint_state", "imu": "imu", "scan": "range_scan"}
    found = {name: stream.type for name, stream in robot.streams.items() if name in wanted}
    if robot.base is None or robot.base.kind != "differential" or found != wanted:
        raise MismatchError(
            f"robot file {robot.name}: the simulated rover needs a differential base and the "
            f"streams {wanted}, found base {robot.base.kind if robot.base else None} and {found}; "
            "use robots/rover.yaml or a copy of it"
        )
    axes = tuple(axis.name for axis in robot.axes)
    if set(axes) != {"base.vx", "base.wz"}:
        raise UsageError(
            f"robot file {robot.name}: the simulated rover needs the axes base.vx and base.wz, "
            f"found {', '.join(axes)}"
        )
