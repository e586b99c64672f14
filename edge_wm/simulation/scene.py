"""From a world and a robot file to MuJoCo's XML (MJCF).

The rover is a plate on two driven wheels and two sliding casters; its hull is one cylinder of
the footprint's radius, so "the robot touches something" is "the hull's touch sensor is not
zero". Boxes slide in the plane with dry friction instead of resting on four contacts each,
which makes an idle box free of cost. There are no shadows, reflections or multisampling: that
is what makes software rendering of a 64 x 64 image take about a millisecond.

Everything that can be seen is drawn from the seed: colors, textures, light. A model that is
trained on many worlds cannot lean on any of them.
"""

from __future__ import annotations

import math

import numpy as np

from edge_wm.errors import MismatchError
from edge_wm.robot import Extrinsics, Robot
from edge_wm.simulation.world import World

PHYSICS_STEP_NS = 1_000_000
FIELD_OF_VIEW = 110.0  # degrees, vertical and (the image is square) horizontal

# Geom groups: what the camera sees and what the range scanner hits.
FLOOR_GROUP, ROVER_GROUP, OBSTACLE_GROUP, HIDDEN_GROUP = 0, 1, 2, 3

HULL_LOW, HULL_HIGH = 0.03, 0.10  # m above the floor
CHASSIS_MASS, WHEEL_MASS = 5.0, 0.3  # kg
WHEEL_SERVO_GAIN = 0.4  # N m s/rad: 6 kg on two wheels follow a step in about 30 ms
WHEEL_TORQUE = 1.2  # N m: 20 N per wheel, so a blocked rover pushes with 40 N
BOX_DENSITY, BOX_FRICTION = 60.0, 0.4  # kg/m^3 (a cardboard box with something in it)


def rover_scene(world: World, robot: Robot, *, servos: bool = True) -> str:
    """The MJCF text of `robot` (a differential base with a camera) in `world`.

    servos: the wheels have velocity servos of their own (ctrl is rad/s); else ctrl is their
    torque in N m, and whoever gives it closes the loop.
    """
    assert robot.base is not None
    generator = np.random.Generator(np.random.Philox(key=world.seed, counter=1))
    assets, bodies = [], []

    materials = []
    for index in range(7):  # 0 floor, 1-2 walls, 3-6 pillars and boxes
        kind = generator.choice(["checker", "gradient", "flat"])
        low, high = (0.25, 0.75) if index == 0 else (0.1, 0.95)
        rgb1 = generator.uniform(low, high, 3)
        rgb2 = np.clip(rgb1 + generator.normal(0.0, 0.15, 3), 0.0, 1.0)
        mark = generator.choice(["random", "none", "edge" if index > 2 else "none"])
        repeat = generator.uniform(0.5, 2.5)
        assets.append(
            f'<texture name="t{index}" type="{"2d" if index < 3 else "cube"}" builtin="{kind}" '
            f'width="64" height="64" rgb1="{_row(rgb1)}" rgb2="{_row(rgb2)}" mark="{mark}" '
            f'random="0.05" markrgb="{_row(generator.uniform(0.0, 1.0, 3))}"/>'
            f'<material name="m{index}" texture="t{index}" texuniform="true" '
            f'texrepeat="{repeat:.3f} {repeat:.3f}" specular="0.1" shininess="0.1"/>'
        )
        materials.append(f"m{index}")
    sky1, sky2 = generator.uniform(0.2, 1.0, 3), generator.uniform(0.2, 1.0, 3)
    assets.append(
        f'<texture type="skybox" builtin="gradient" width="32" height="32" '
        f'rgb1="{_row(sky1)}" rgb2="{_row(sky2)}"/>'
    )

    for index, pillar in enumerate(world.pillars):
        bodies.append(
            f'<geom name="pillar{index}" type="cylinder" pos="{pillar.x:.5f} {pillar.y:.5f} '
            f'{pillar.height / 2:.5f}" size="{pillar.radius:.5f} {pillar.height / 2:.5f}" '
            f'group="{OBSTACLE_GROUP}" material="{generator.choice(materials[3:])}"/>'
        )
    for index, block in enumerate(world.blocks):
        pose = (
            f'pos="{block.x:.5f} {block.y:.5f} {block.height / 2:.5f}" euler="0 0 {block.yaw:.5f}"'
        )
        size = f'size="{block.half_x:.5f} {block.half_y:.5f} {block.height / 2:.5f}"'
        if not block.movable:
            bodies.append(
                f'<geom name="block{index}" type="box" {pose} {size} '
                f'group="{OBSTACLE_GROUP}" material="{generator.choice(materials[1:3])}"/>'
            )
            continue
        mass = BOX_DENSITY * 8 * block.half_x * block.half_y * block.height / 2
        friction = BOX_FRICTION * mass * 9.81
        turning = friction * 0.38 * math.hypot(2 * block.half_x, 2 * block.half_y)
        bodies.append(
            f'<body name="block{index}" {pose}>'
            f'<joint type="slide" axis="1 0 0" frictionloss="{friction:.4f}"/>'
            f'<joint type="slide" axis="0 1 0" frictionloss="{friction:.4f}"/>'
            f'<joint type="hinge" axis="0 0 1" frictionloss="{turning:.4f}"/>'
            f'<geom type="box" {size} mass="{mass:.4f}" contype="2" conaffinity="2" '
            f'group="{OBSTACLE_GROUP}" material="{generator.choice(materials[3:])}"/>'
            f"</body>"
        )

    ambient = generator.uniform(0.25, 0.5)
    lights = "".join(
        f'<light directional="true" castshadow="false" '
        f'dir="{_row([*generator.uniform(-1, 1, 2), -1.0])}" '
        f'diffuse="{_row(generator.uniform(0.2, 0.5) * generator.uniform(0.8, 1.0, 3))}" '
        f'specular="0 0 0"/>'
        for _ in range(2)
    )
    return f"""<mujoco model="rover">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP_NS * 1e-9}" integrator="implicitfast"
          cone="elliptic" impratio="10"/>
  <size memory="4M"/>
  <visual>
    <quality shadowsize="0" offsamples="0"/>
    <global offwidth="64" offheight="64" fovy="{FIELD_OF_VIEW}"/>
    <map znear="0.005" zfar="20"/>
    <headlight ambient="{_row([ambient] * 3)}" diffuse="0.15 0.15 0.15" specular="0 0 0"/>
  </visual>
  <asset>{"".join(assets)}</asset>
  <default><geom contype="1" conaffinity="3"/></default>
  <worldbody>
    {lights}
    <geom name="floor" type="plane" size="{world.width} {world.depth} 0.1" material="m0"
          group="{FLOOR_GROUP}" contype="1" conaffinity="1"/>
    {"".join(bodies)}
    {_rover(world, robot)}
  </worldbody>
  <actuator>{"".join(_actuator(side, servos) for side in ("left", "right"))}</actuator>
  <sensor>
    <touch name="hull" site="hull"/>
    <accelerometer name="accelerometer" site="imu"/>
    <gyro name="gyro" site="imu"/>
  </sensor>
</mujoco>"""


def mount(robot: Robot, stream: str) -> Extrinsics:
    """Where the sensor of `stream` sits on the robot.

    Raises: MismatchError if the robot file does not say.
    """
    extrinsics = robot.streams[stream].extrinsics
    if extrinsics is None:
        raise MismatchError(
            f"robot file {robot.name}: streams.{stream} needs extrinsics to be simulated, found "
            "none; add `extrinsics: {parent: base_link, xyz: [...], rpy: [...]}`"
        )
    return extrinsics


def _rover(world: World, robot: Robot) -> str:
    base = robot.base
    assert base is not None
    radius, half_track = base.wheel_radius, base.track_width / 2
    camera, imu = mount(robot, "camera"), mount(robot, "imu")
    half_hull, middle = (HULL_HIGH - HULL_LOW) / 2, (HULL_HIGH + HULL_LOW) / 2
    x, y, yaw = world.start
    wheels = "".join(
        f'<body name="{side}_wheel" pos="0 {sign * half_track} {radius}">'
        f'<joint name="{side}" type="hinge" axis="0 1 0" damping="0.002" armature="0.0005"/>'
        f'<geom type="ellipsoid" size="{radius} 0.012 {radius}" mass="{WHEEL_MASS}" '
        f'friction="1.0 0.005 0.0001" condim="4" group="{ROVER_GROUP}" '
        f'rgba="0.1 0.1 0.1 1"/></body>'
        for side, sign in (("left", 1), ("right", -1))
    )
    casters = "".join(
        f'<geom type="sphere" pos="{sign * 0.13} 0 0.02" size="0.02" mass="0.05" '
        f'friction="0.01 0.001 0.0001" condim="3" priority="1" group="{ROVER_GROUP}"/>'
        for sign in (1, -1)
    )
    hull = f"{base.footprint_radius} {half_hull}"
    touch = f"{base.footprint_radius + 0.05} {half_hull + 0.05}"
    return f"""<body name="rover" pos="{x:.5f} {y:.5f} 0" euler="0 0 {yaw:.5f}">
      <freejoint name="base"/>
      <geom name="hull" type="cylinder" pos="0 0 {middle}" size="{hull}"
            mass="{CHASSIS_MASS}" friction="0.3" group="{ROVER_GROUP}" rgba="0.2 0.3 0.6 1"/>
      <site name="hull" type="cylinder" pos="0 0 {middle}" group="{HIDDEN_GROUP}"
            size="{touch}"/>
      <site name="imu" pos="{_row(imu.xyz)}" group="{HIDDEN_GROUP}"/>
      <camera name="camera" pos="{_row(camera.xyz)}" fovy="{FIELD_OF_VIEW}"
              xyaxes="{_camera_axes(camera.rpy)}"/>
      {wheels}
      <body name="casters">{casters}</body>
    </body>"""


def _actuator(wheel: str, servo: bool) -> str:
    kind = f'velocity kv="{WHEEL_SERVO_GAIN}"' if servo else "motor"
    force = f"{-WHEEL_TORQUE} {WHEEL_TORQUE}"
    return f'<{kind} name="{wheel}" joint="{wheel}" forcerange="{force}"/>'


def _camera_axes(rpy: tuple[float, float, float]) -> str:
    """MuJoCo's camera looks along its own -z with y up; ours looks along x with z up."""
    roll, pitch, yaw = rpy
    cr, sr, cp, sp = math.cos(roll), math.sin(roll), math.cos(pitch), math.sin(pitch)
    cy, sy = math.cos(yaw), math.sin(yaw)
    left = [cy * sp * sr - sy * cr, sy * sp * sr + cy * cr, cp * sr]
    up = [cy * sp * cr + sy * sr, sy * sp * cr - cy * sr, cp * cr]
    return _row([-value for value in left] + up)


def _row(values: object) -> str:
    return " ".join(f"{float(value):.5f}" for value in np.asarray(values).ravel())
