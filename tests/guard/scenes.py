"""What the guard's tests share: robots, what they see, and motions made without the guard."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from edge_wm.guard import Guard
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, find_robot, load_robot, parse_robot
from edge_wm.types import Float64, Observation, Sample, Seen, Trajectory

START_NS = 5_000_000_000

ROVER = load_robot(find_robot("rover"))
ARM = load_robot(find_robot("arm"))


def rover_with(**lines: str) -> Robot:
    """The rover with top-level entries of its file replaced, or left out: `workspace="[...]"`."""
    kept, inside = [], False
    for line in ROVER.text.splitlines():
        if line[:1] not in ("", " ", "#"):
            inside = line.split(":")[0] in lines
        if not inside:
            kept.append(line)
    kept += [f"{key}: {value}" for key, value in lines.items() if value]
    return parse_robot("\n".join(kept) + "\n", "rover.yaml")


def seen(stream: str, data: np.ndarray, now_ns: int, age_ns: int = 0) -> Seen:
    return Seen(Sample(stream, now_ns - age_ns, now_ns, 0, data), age_ns, None)


def observation(now_ns: int, **streams: Seen) -> Observation:
    return Observation(now_ns, now_ns, streams)


def ranges_to(points: np.ndarray, robot: Robot = ROVER) -> np.ndarray:
    """(R,) float32: what the scanner reads of discs of 1 cm radius at points (P, 2), at its own
    place and yaw 0; +inf where it meets nothing. Plain loops."""
    stream = robot.streams["scan"]
    readings = []
    for angle in stream.beam_angles():
        nearest = np.inf
        for x, y in points:
            along = x * np.cos(angle) + y * np.sin(angle)
            beside = -x * np.sin(angle) + y * np.cos(angle)
            if along > 0 and abs(beside) < 0.01:
                nearest = min(nearest, along)
        readings.append(nearest)
    return np.array(readings, np.float32)


def free_scan(robot: Robot = ROVER) -> np.ndarray:
    return np.full(robot.streams["scan"].shape, np.inf, np.float32)


def rover_view(
    now_ns: int,
    ranges: np.ndarray | None = None,
    pose: tuple[float, float, float] = (0.0, 0.0, 0.0),
    scan_age_ns: int = 0,
    pose_age_ns: int = 0,
) -> Observation:
    """A scan (free if not given) and an odometry pose."""
    odometry = np.array([*pose, 0.0, 0.0, 0.0])
    return observation(
        now_ns,
        scan=seen("scan", free_scan() if ranges is None else ranges, now_ns, scan_age_ns),
        odometry=seen("odometry", odometry, now_ns, pose_age_ns),
    )


def arm_view(now_ns: int, q: tuple[float, float] = (0.0, 0.0)) -> Observation:
    return observation(now_ns, joints=seen("joints", np.array([q, (0.0, 0.0)], np.float32), now_ns))


def view(robot: Robot, now_ns: int, **kwargs) -> Observation:
    return arm_view(now_ns, **kwargs) if robot.base is None else rover_view(now_ns, **kwargs)


def ready(robot: Robot = ROVER, now_ns: int = START_NS, **kwargs) -> Guard:
    """An activated guard that has had its first setpoint tick at `now_ns`, robot at rest."""
    guard = Guard(robot)
    guard.step(now_ns - robot.setpoint_period_ns, view(robot, now_ns, **kwargs))
    assert guard.request(Mode.self_test, "supervisor", now_ns)
    assert guard.request(Mode.hold, "supervisor", now_ns)
    guard.activate(now_ns)
    guard.step(now_ns, view(robot, now_ns, **kwargs))
    return guard


def bump(peak: float, rise: int, hold: int, cruise: int, period_s: float) -> Float64:
    """(N,) accelerations of one go: 0 up to `peak` in `rise` periods, `hold` periods there, back,
    `cruise` periods at constant speed, and the same mirrored: it ends at rest."""
    ramp = np.linspace(0.0, peak, rise + 1)
    up = np.concatenate((ramp, np.full(hold, peak), ramp[-2::-1]))
    return np.concatenate((up, np.zeros(cruise), -up[1:]))


def motion_of(
    accelerations: Float64, period_s: float, start: tuple[float, float] = (0.0, 0.0)
) -> tuple[Float64, Float64]:
    """(N,) positions and velocities of an acceleration that is linear between knots; plain loop."""
    p, v = start
    ps, vs = [p], [v]
    for a, b in itertools.pairwise(accelerations):
        p += period_s * v + period_s**2 * (a / 3.0 + b / 6.0)
        v += period_s * (a + b) / 2.0
        ps.append(p)
        vs.append(v)
    return np.array(ps), np.array(vs)


def trajectory(
    robot: Robot,
    start_ns: int,
    accelerations: Mapping[int, Float64],
    *,
    start: tuple[float, ...] | None = None,
    sequence: int = 1,
    stamp_ns: int = START_NS,
    brake_index: int = 0,
    epoch: int = 1,
) -> Trajectory:
    """A trajectory from rest: accelerations by axis number, the other axes stay."""
    h = robot.setpoint_period_ns * 1e-9
    axes = len(robot.axes)
    knots = max((len(a) for a in accelerations.values()), default=1)
    p, v, a = np.zeros((knots, axes)), np.zeros((knots, axes)), np.zeros((knots, axes))
    for axis in range(axes):
        column = np.zeros(knots)
        given = accelerations.get(axis, np.zeros(1))
        column[: len(given)] = given
        at = start[axis] if start is not None else 0.0
        p[:, axis], v[:, axis] = motion_of(column, h, (at, 0.0))
        a[:, axis] = column
    v[-1] = a[-1] = 0.0  # what rounding left
    return Trajectory(
        epoch=epoch,
        sequence=sequence,
        stamp_ns=stamp_ns,
        start_ns=start_ns,
        period_ns=robot.setpoint_period_ns,
        axes=robot.axis_names,
        position=p,
        velocity=v,
        acceleration=a,
        brake_index=brake_index,
    )


def drive(robot: Robot = ROVER, start_ns: int = START_NS + 10_000_000, **kwargs) -> Trajectory:
    """A legal trajectory: about 0.5 m/s forwards for about 0.5 s, and to rest."""
    return trajectory(robot, start_ns, {0: bump(1.5, 8, 26, 20, 0.01)}, **kwargs)


def sweep(robot: Robot = ARM, start_ns: int = START_NS + 5_000_000, **kwargs) -> Trajectory:
    """A legal trajectory of the arm: the shoulder turns by about 0.4 rad."""
    return trajectory(robot, start_ns, {0: bump(5.0, 12, 20, 20, 0.005)}, **kwargs)


def names(reasons: tuple[Reason, ...]) -> list[str]:
    return [reason.name for reason in reasons]
