"""edge_wm.simulation.rover: physics, sensors, time stamps and rendering of the simulated rover."""

from __future__ import annotations

import hashlib
import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from edge_wm.errors import MismatchError, UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.simulation import HELD_BACK_SEED, Disturbances, RoverSimulation, Truth
from edge_wm.types import Sample, Setpoint

MS = 1_000_000
QUIET = Disturbances(noise=False)
OPEN_SEED = 19  # a world with half a meter of free floor around the robot (asserted below)


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(find_robot("rover"))


def setpoint(robot: Robot, sequence: int, now_ns: int, vx: float, wz: float) -> Setpoint:
    times_ns = np.array([now_ns, now_ns + 10 * MS])
    twist = np.array([[vx, wz], [vx, wz]])
    return Setpoint(
        1, sequence, robot.axis_names, times_ns, np.zeros((2, 2)), twist,
        np.array([2.0, 8.0]), times_ns, now_ns, now_ns + robot.dead_man_ns,
    )  # fmt: skip


def drive(
    simulation: RoverSimulation,
    seconds: float,
    twist: Callable[[float], tuple[float, float]],
    seen: list[Truth] | None = None,
) -> dict[str, list[Sample]]:
    """Command twist(t) every 10 ms, t in seconds from now; returns what was measured."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    began_ns = simulation.now_ns
    for tick in range(round(seconds * 100)):
        now_ns = began_ns + tick * 10 * MS
        for sample in simulation.step_to(now_ns):
            assert sample.received_ns <= now_ns
            samples[sample.stream].append(sample)
        vx, wz = twist(tick * 0.01)
        sequence = now_ns // MS
        simulation.send(setpoint(simulation.robot, sequence, now_ns, vx, wz))
        if seen is not None:
            seen.append(simulation.truth())
    return samples


def digest(samples: dict[str, list[Sample]]) -> str:
    h = hashlib.sha256()
    for stream in sorted(samples):
        for s in samples[stream]:
            h.update(f"{s.stream} {s.stamp_ns} {s.received_ns} {s.sequence}".encode())
            h.update(s.data.tobytes())
    return h.hexdigest()


def wander(t: float) -> tuple[float, float]:
    return 0.4, 1.2 * math.sin(2.0 * t)


# ---- repeatable ---------------------------------------------------------------------------
def test_the_same_calls_give_the_same_bits(robot: Robot) -> None:
    def once(world_seed: int, seed: int) -> str:
        with RoverSimulation(robot, world_seed, seed=seed) as simulation:
            return digest(drive(simulation, 1.0, wander))

    first = once(OPEN_SEED, 3)
    assert once(OPEN_SEED, 3) == first
    assert len({first, once(OPEN_SEED, 4), once(OPEN_SEED + 1, 3)}) == 3


def test_dropping_frames_changes_nothing_else(robot: Robot) -> None:
    def once(drop: float) -> dict[str, list[Sample]]:
        disturbances = Disturbances(camera_drop=drop)
        with RoverSimulation(robot, OPEN_SEED, disturbances=disturbances) as simulation:
            return drive(simulation, 2.0, wander)

    whole, lossy = once(0.0), once(0.4)
    assert 0.4 < len(lossy["camera"]) / len(whole["camera"]) < 0.8
    assert {s.sequence for s in lossy["camera"]} < {s.sequence for s in whole["camera"]}
    del whole["camera"], lossy["camera"]
    assert digest(lossy) == digest(whole)


# ---- motion -------------------------------------------------------------------------------
@pytest.mark.parametrize(("vx", "wz"), [(0.4, 0.0), (-0.2, 0.0), (0.0, 1.2), (0.3, 0.9)])
def test_it_drives_the_circle_that_it_is_told_to(robot: Robot, vx: float, wz: float) -> None:
    with RoverSimulation(robot, OPEN_SEED, disturbances=QUIET) as simulation:
        assert simulation.truth().clearance > 0.45
        drive(simulation, 0.5, lambda _: (vx, wz))
        before = simulation.truth()
        drive(simulation, 1.0, lambda _: (vx, wz))
        after = simulation.truth()
    assert not after.contact
    np.testing.assert_allclose(after.twist, (vx, wz), atol=0.08)
    turned = after.odom_pose[2] - before.odom_pose[2]
    assert turned == pytest.approx(wz, abs=0.08)
    gone = math.dist(before.odom_pose[:2], after.odom_pose[:2])
    chord = abs(vx) * (2 * math.sin(turned / 2) / turned if abs(turned) > 1e-3 else 1.0)
    assert gone == pytest.approx(chord, abs=0.02)


@pytest.mark.parametrize("extra_ms", [0, 50])
def test_a_command_acts_after_the_actuation_delay(robot: Robot, extra_ms: int) -> None:
    disturbances = Disturbances(noise=False, extra_actuation_delay_ns=extra_ms * MS)
    seen: list[Truth] = []
    with RoverSimulation(robot, OPEN_SEED, disturbances=disturbances) as simulation:
        began_ns = simulation.now_ns
        drive(simulation, 0.3, lambda _: (0.5, 0.0), seen)
    moving_ns = next(t.now_ns for t in seen if t.twist[0] > 0.01) - began_ns
    delay_ns = robot.actuation_delay_ns + extra_ms * MS
    assert delay_ns < moving_ns <= delay_ns + 20 * MS


def test_without_setpoints_it_brakes_by_itself(robot: Robot) -> None:
    with RoverSimulation(robot, OPEN_SEED, disturbances=QUIET) as simulation:
        drive(simulation, 1.0, lambda _: (0.5, 0.0))
        assert simulation.refused[Reason.setpoint_expired] == 0
        assert simulation.truth().twist[0] > 0.45
        until_ns = simulation.now_ns + robot.actuation_delay_ns + robot.dead_man_ns
        simulation.step_to(until_ns + 250 * MS + 200 * MS)  # 0.5 m/s at 2 m/s^2, and to settle
        assert simulation.refused[Reason.setpoint_expired] == 1
        assert abs(simulation.truth().twist[0]) < 0.005


def test_truth_agrees_with_itself(robot: Robot) -> None:
    seen: list[Truth] = []
    with RoverSimulation(robot, OPEN_SEED, disturbances=QUIET, start_ns=5_000 * MS) as simulation:
        assert simulation.now_ns == 5_000 * MS
        np.testing.assert_allclose(simulation.truth().odom_pose, 0.0, atol=1e-5)
        drive(simulation, 1.5, lambda t: (0.4, 0.8), seen)
        world, goal = simulation.world, simulation.goal
    poses = np.array([t.odom_pose for t in seen])
    twists = np.array([t.twist for t in seen])
    speed = np.hypot(*np.diff(poses[:, :2], axis=0).T) / 0.01
    np.testing.assert_allclose(speed[20:], np.abs(twists[:-1, 0])[20:], atol=0.05)
    np.testing.assert_allclose(np.diff(poses[:, 2])[20:] / 0.01, twists[:-1, 1][20:], atol=0.15)
    last = seen[-1]
    assert math.dist(last.pose[:2], world.goal) == pytest.approx(last.goal_distance)
    assert math.dist(last.odom_pose[:2], (goal.x, goal.y)) == pytest.approx(last.goal_distance)
    assert goal.frame == "odom"
    assert goal.yaw is None


def test_running_into_a_wall_is_contact_and_pushes_no_wall(robot: Robot) -> None:
    seen: list[Truth] = []
    with RoverSimulation(robot, OPEN_SEED, disturbances=QUIET) as simulation:
        while not seen or (seen[-1].contact_ns < 300 * MS and len(seen) < 1500):
            drive(simulation, 0.5, lambda _: (0.6, 0.0), seen)
        walls = simulation.geometry().rectangles[:4]
        np.testing.assert_array_equal(walls, simulation.world.geometry().rectangles[:4])
    touched = [t.contact_ns > 0 for t in seen]
    assert not touched[0]
    assert touched[-1]
    first = touched.index(True)
    assert min(t.clearance for t in seen[: first - 1]) > 0.0
    assert max(t.clearance for t in seen if t.contact) < 0.005
    assert min(t.clearance for t in seen) > -0.01
    assert all(a.contact_ns <= b.contact_ns for a, b in itertools.pairwise(seen))


def test_a_box_can_be_pushed(robot: Robot) -> None:
    for seed in range(40):
        with RoverSimulation(robot, seed, disturbances=QUIET) as simulation:
            before = simulation.geometry()
            place = np.array(simulation.world.start[:2])
            boxes = before.rectangles[before.movable]
            if not len(boxes) or np.hypot(*(boxes[:, :2] - place).T).min() > 1.0:
                continue
            aim = boxes[np.hypot(*(boxes[:, :2] - place).T).argmin(), :2]

            def towards(_: float, aim: np.ndarray = aim) -> tuple[float, float]:
                x, y, yaw = simulation.truth().pose
                off = math.atan2(aim[1] - y, aim[0] - x) - yaw
                off = math.atan2(math.sin(off), math.cos(off))
                return (0.4 if abs(off) < 0.3 else 0.0), 2.0 * off

            drive(simulation, 5.0, towards)
            moved = simulation.geometry().rectangles - before.rectangles
            assert np.abs(moved[before.movable]).max() > 0.05
            assert not moved[~before.movable].any()
            return
    raise AssertionError("no world with a box near the start")


# ---- sensors ------------------------------------------------------------------------------
def test_streams_have_the_robot_files_rates_shapes_and_real_time_stamps(robot: Robot) -> None:
    with RoverSimulation(robot, OPEN_SEED) as simulation:
        samples = drive(simulation, 5.0, wander)
    assert set(samples) == {"camera", "wheels", "imu", "scan"}
    for name, got in samples.items():
        stream = robot.streams[name]
        assert all(s.data.shape == stream.shape and s.data.dtype == stream.dtype for s in got)
        assert len(got) == pytest.approx(5.0e9 / stream.period_ns, abs=5)
        stamps = np.array([s.stamp_ns for s in got])
        arrivals = np.array([s.received_ns for s in got])
        assert (np.diff(stamps) > 0).all()
        assert (np.diff(arrivals) > 0).all()
        assert [s.sequence for s in got] == list(range(len(got)))
        assert np.diff(stamps).mean() == pytest.approx(stream.period_ns, rel=2e-3)
        assert len(set(np.diff(stamps).tolist())) > len(got) // 2  # no exact period
        age = arrivals - stamps
        assert age.min() > 0
        assert np.median(age) < stream.max_age_ns / 4
        assert all(s.data.flags.c_contiguous for s in got)
    camera = [s.received_ns - s.stamp_ns for s in samples["camera"]]
    assert 15 * MS <= np.median(camera) <= 26 * MS


def test_extra_camera_delay_shows_in_the_arrival_only(robot: Robot) -> None:
    def frames(extra_ns: int) -> list[Sample]:
        disturbances = Disturbances(extra_camera_delay_ns=extra_ns)
        with RoverSimulation(robot, OPEN_SEED, disturbances=disturbances) as simulation:
            return drive(simulation, 0.6, wander)["camera"]

    for plain, late in zip(frames(0), frames(50 * MS), strict=False):
        assert late.stamp_ns == plain.stamp_ns
        assert late.received_ns == plain.received_ns + 50 * MS
        np.testing.assert_array_equal(late.data, plain.data)


def test_ranges_end_on_obstacles(robot: Robot) -> None:
    for seed in (OPEN_SEED, HELD_BACK_SEED, HELD_BACK_SEED + 1):
        with RoverSimulation(robot, seed, disturbances=QUIET) as simulation:
            scan = simulation.step_to(200 * MS)
            ranges = [s.data for s in scan if s.stream == "scan"][-1]
            x, y, yaw = simulation.truth().pose
            angles = yaw + robot.streams["scan"].beam_angles()
            hit = np.isfinite(ranges)
            ends = np.stack([x + ranges * np.cos(angles), y + ranges * np.sin(angles)], axis=1)
            np.testing.assert_allclose(
                simulation.geometry().clearance(ends[hit].astype(np.float64)), 0.0, atol=0.01
            )
            half = [simulation.world.width / 2, simulation.world.depth / 2]
            assert hit.mean() > 0.5  # in a room there is a wall nearly everywhere
            assert (np.abs(ends[hit]) < np.array(half) + 0.02).all()


def test_noise_is_there_and_can_be_switched_off(robot: Robot) -> None:
    def still(noise: bool) -> dict[str, list[Sample]]:
        disturbances = Disturbances(noise=noise)
        with RoverSimulation(robot, OPEN_SEED, disturbances=disturbances) as simulation:
            return drive(simulation, 1.0, lambda _: (0.0, 0.0))

    for noise in (False, True):
        samples = still(noise)
        images = np.stack([s.data for s in samples["camera"]]).astype(float)
        scans = np.stack([s.data for s in samples["scan"]])
        gyro = np.stack([s.data for s in samples["imu"]])[:, 2]
        same = np.isfinite(scans).all(axis=0)
        assert bool(images.std(axis=0).mean() > 1.0) is noise
        assert bool(scans[:, same].std(axis=0).mean() > 0.005) is noise
        assert bool(gyro.std() > 0.002) is noise
        level = np.stack([s.data for s in samples["imu"]])[:, 5].mean()
        assert level == pytest.approx(9.81, abs=0.2)


def test_wheels_say_how_far_it_went(robot: Robot) -> None:
    assert robot.base is not None
    with RoverSimulation(robot, OPEN_SEED) as simulation:
        wheels = drive(simulation, 2.0, lambda _: (0.4, 0.0))["wheels"]
        truth = simulation.truth()
    forward, turned = robot.base.twist(*(wheels[-1].data[0] - wheels[0].data[0]).tolist())
    assert forward == pytest.approx(truth.odom_pose[0], abs=0.03)
    assert turned == pytest.approx(0.0, abs=0.05)
    speeds = np.array([s.data[1] for s in wheels[100:]])
    np.testing.assert_allclose(speeds.mean(axis=0), 0.4 / robot.base.wheel_radius, rtol=0.02)


def test_turning_left_moves_the_picture_to_the_right(robot: Robot) -> None:
    with RoverSimulation(robot, OPEN_SEED, disturbances=QUIET) as simulation:
        before = drive(simulation, 0.3, lambda _: (0.0, 0.0))["camera"][-1].data
        after = drive(simulation, 0.4, lambda _: (0.0, 0.6))["camera"][-1].data
        turned = simulation.truth().odom_pose[2]
    assert 0.05 < turned < 0.25

    def apart(shift: int) -> float:
        """Mean difference of the middle of both pictures, the first moved right by `shift`."""
        a, b = before[20:40, 20 - shift : 44 - shift], after[20:40, 20:44]
        return float(np.abs(a.astype(float) - b).mean())

    best = min(range(-10, 11), key=apart)
    per_radian = 32 / math.tan(math.radians(55.0))  # pixels per radian in the middle
    assert best == pytest.approx(turned * per_radian, abs=2.0)


# ---- the renderer's life ------------------------------------------------------------------
def test_many_simulations_one_after_another_and_side_by_side(robot: Robot) -> None:
    for seed in range(6):
        simulation = RoverSimulation(robot, seed)
        assert any(s.stream == "camera" for s in simulation.step_to(150 * MS))
        simulation.close()
        simulation.close()
    with RoverSimulation(robot, 1) as one, RoverSimulation(robot, 2) as two:
        mixed = []
        for tick in range(1, 20):
            mixed.append(digest({"all": one.step_to(tick * 10 * MS)}))
            two.step_to(tick * 10 * MS)
    with RoverSimulation(robot, 1) as alone:
        assert mixed == [digest({"all": alone.step_to(t * 10 * MS)}) for t in range(1, 20)]


def test_any_thread_may_step_it(robot: Robot) -> None:
    with RoverSimulation(robot, OPEN_SEED) as here:
        expected = [digest({"all": here.step_to(t * 100 * MS)}) for t in range(1, 4)]
    found = []
    with RoverSimulation(robot, OPEN_SEED) as simulation:
        for tick in range(1, 4):

            def step(tick: int = tick) -> None:
                found.append(digest({"all": simulation.step_to(tick * 100 * MS)}))

            thread = threading.Thread(target=step)
            thread.start()
            thread.join()
    assert found == expected


# ---- wrong robots -------------------------------------------------------------------------
def test_a_robot_that_is_no_rover_is_refused(robot: Robot) -> None:
    streams = {name: s for name, s in robot.streams.items() if name != "scan"}
    with pytest.raises(MismatchError) as error:
        RoverSimulation(replace(robot, streams=streams), 0)
    wanted = {"camera": "image", "wheels": "joint_state", "imu": "imu", "scan": "range_scan"}
    found = {"camera": "image", "wheels": "joint_state", "imu": "imu"}
    assert str(error.value) == (
        "robot file rover: the simulated rover needs a differential base and the streams "
        f"{wanted}, found base differential and {found}; use robots/rover.yaml or a copy of it"
    )
    with pytest.raises(UsageError, match=r"needs the axes base.vx and base.wz, found base.vx"):
        RoverSimulation(replace(robot, axes=robot.axes[:1]), 0)
    bare = dict(robot.streams)
    bare["camera"] = replace(bare["camera"], extrinsics=None)
    with pytest.raises(MismatchError, match=r"streams.camera needs extrinsics to be simulated"):
        RoverSimulation(replace(robot, streams=bare), 0)
