"""Drive the simulated rover about and keep what it sees, does and suffers.

    python zoo/rover/make_data.py --episodes 1600 --out zoo/rover/work/data [--seed 0] [--jobs 2]

Each episode is another world (none with a seed >= HELD_BACK_SEED) with sensor noise, jitter and
the actuation delay on. The driver mixes six ways of moving; what matters is that it goes where
the planner must know its way: close to obstacles, into them, along them and away from them.
Frames after contact are kept: a model that never saw them does not know what contact leads to
(a prototype without them reached its goals in 63 % of the worlds instead of 99 %).

One row per camera frame; columns that describe a stretch of time describe that from the frame
before to this one. Commands are taken when they *act*, after the actuation delay, since that is
the time in which the model lives.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
from pathlib import Path

import numpy as np

from edge_wm.odometry import Odometry
from edge_wm.robot import Robot, find_robot, load_robot
from edge_wm.simulation import Disturbances, RoverSimulation
from edge_wm.types import Sample, Setpoint

EPISODE_S = 5.0
SETTLE_S = 0.3
COLUMNS = {
    "image": ((64, 64, 3), np.uint8),
    "episode": ((), np.int32),
    "stamp_s": ((), np.float64),
    "motion": ((2,), np.float32),  # vx, wz as odometry had it
    "true_motion": ((2,), np.float32),
    "pose": ((3,), np.float32),  # true x, y, yaw in the odometry frame
    "clearance": ((), np.float32),  # true, m from the footprint to the nearest obstacle
    "contact": ((), np.float32),  # share of the stretch that was spent touching something
    "ranges": ((41,), np.float32),  # m, the scan's front 120 degrees, right to left; at most 3
    "target": ((2,), np.float32),  # vx, wz that the driver wanted, mean over the stretch
    "commanded": ((2,), np.float32),  # the same after the limits on acceleration
}


class Driver:
    """Chooses twist targets: a new way of moving every second or so."""

    WAYS = ("wander", "seek", "zigzag", "retreat", "turn", "goal")
    SHARES = (0.20, 0.38, 0.18, 0.07, 0.06, 0.11)

    def __init__(self, simulation: RoverSimulation, generator: np.random.Generator) -> None:
        self._simulation = simulation
        self._generator = generator
        self._until_s = 0.0
        self._touching_s = 0.0
        self._way = "wander"
        self._hold_until_s = 0.0
        self._target = np.zeros(2)

    def target(self, now_s: float) -> np.ndarray:
        """(vx, wz) wanted at `now_s`; asked every 10 ms."""
        g = self._generator
        truth = self._simulation.truth()
        self._touching_s = self._touching_s + 0.01 if truth.contact else 0.0
        if now_s >= self._until_s or (self._touching_s > 0.8 and self._way != "retreat"):
            stuck = self._touching_s > g.uniform(0.3, 0.8)
            self._way = "retreat" if stuck else str(g.choice(self.WAYS, p=self.SHARES))
            self._until_s = now_s + g.uniform(0.6, 2.5)
            self._speed = g.uniform(0.2, 0.7)
            self._spin = g.normal(0.0, 0.8)
            self._aim = self._choose_aim(truth.pose)
            self._gain = g.uniform(1.5, 4.0)
            self._hold_until_s = now_s
        if now_s >= self._hold_until_s:
            self._hold_until_s = now_s + g.choice([0.05, 0.15, 0.15, 0.3])
            self._target = np.clip(self._wish(truth.pose), [-0.25, -1.8], [0.7, 1.8])
        return self._target

    def _wish(self, pose: tuple[float, float, float]) -> np.ndarray:
        g = self._generator
        if self._way == "zigzag":
            return np.array([g.uniform(-0.25, 0.7), g.uniform(-1.8, 1.8)])
        if self._way == "retreat":
            return np.array([g.uniform(-0.25, -0.05), self._spin])
        if self._way == "turn":
            return np.array([0.0, 1.5 * self._spin])
        if self._way == "wander":
            self._spin = 0.85 * self._spin + g.normal(0.0, 0.5)
            return np.array([self._speed, self._spin])
        bearing = math.atan2(self._aim[1] - pose[1], self._aim[0] - pose[0]) - pose[2]
        bearing = math.atan2(math.sin(bearing), math.cos(bearing))
        slower = max(math.cos(bearing), 0.0)
        return np.array([self._speed * slower, self._gain * bearing + g.normal(0.0, 0.3)])

    def _choose_aim(self, pose: tuple[float, float, float]) -> np.ndarray:
        """The goal, or a place on or beside an obstacle that is not far, rather ahead."""
        g = self._generator
        world = self._simulation.world
        if self._way == "goal":
            return np.array(world.goal)
        geometry = self._simulation.geometry()
        size = np.array([world.width, world.depth])
        points = g.uniform(-0.5, 0.5, size=(400, 2)) * size
        near = np.abs(geometry.clearance(points) - g.uniform(-0.05, 0.35)) < 0.05
        away = points - np.array(pose[:2])
        distance = np.hypot(*away.T)
        ahead = np.cos(np.arctan2(away[:, 1], away[:, 0]) - pose[2])
        score = distance - ahead + np.where(near, 0.0, 10.0) + g.uniform(0.0, 1.0, 400)
        return points[np.argmin(score)]


def episode(robot: Robot, number: int, seed: int) -> dict[str, np.ndarray]:
    """One episode: column name -> (frames, ...)."""
    generator = np.random.default_rng((seed, number))
    period_ns = robot.setpoint_period_ns
    delay_s = robot.actuation_delay_ns * 1e-9
    rates = np.array([[axis.acceleration, axis.braking] for axis in robot.axes])
    brakes = rates[:, 1].copy()
    log: list[list[float]] = []
    frames: list[Sample] = []
    scans: list[Sample] = []
    odometry, measured = Odometry(robot), []
    command = np.zeros(2)
    with RoverSimulation(robot, number, seed=seed, disturbances=Disturbances()) as simulation:
        driver = Driver(simulation, generator)
        for tick in range(round(EPISODE_S * 1e9 / period_ns)):
            now_ns = tick * period_ns
            for sample in simulation.step_to(now_ns):
                if sample.stream == "camera":
                    frames.append(sample)
                if sample.stream == "scan":
                    scans.append(sample)
                derived = odometry.push(sample)
                if derived is not None:
                    measured.append(derived)
            now_s = now_ns * 1e-9
            target = driver.target(now_s) if now_s >= SETTLE_S else np.zeros(2)
            speeding = (np.abs(target) > np.abs(command)) & (target * command >= 0)
            step = np.where(speeding, rates[:, 0], rates[:, 1]) * period_ns * 1e-9
            command = command + np.clip(target - command, -step, step)
            times_ns = np.array([now_ns, now_ns + period_ns])
            simulation.send(
                Setpoint(
                    0, tick, robot.axis_names, times_ns, np.zeros((2, 2)), np.stack([command] * 2),
                    brakes, times_ns, now_ns, now_ns + robot.dead_man_ns,
                )
            )  # fmt: skip
            truth = simulation.truth()
            log.append(
                [
                    now_s,
                    *truth.odom_pose,
                    *truth.twist,
                    truth.clearance,
                    truth.contact_ns * 1e-9,
                    *target,
                    *command,
                ]
            )
    return _rows(np.array(log), frames, scans, measured, number, delay_s)


def _rows(
    log: np.ndarray,
    frames: list[Sample],
    scans: list[Sample],
    measured: list[Sample],
    number: int,
    delay_s: float,
) -> dict[str, np.ndarray]:
    """The truth and the commands at, and between, the camera's stamps."""
    now = log[:, 0]
    log[:, 3] = np.unwrap(log[:, 3])
    frames = [s for s in frames if SETTLE_S <= s.stamp_ns * 1e-9 < now[-1]]
    stamps = np.array([s.stamp_ns for s in frames]) * 1e-9

    def at(values: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.stack([np.interp(times, now, column) for column in values.T], axis=-1)

    def mean(values: np.ndarray) -> np.ndarray:
        """Mean over each stretch between stamps, of values that hold for one period each."""
        period = now[1] - now[0]
        total = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values[:-1], 0)]) * period
        ends = at(total, stamps - delay_s)
        spans = np.diff(stamps)[:, None]
        return np.concatenate([np.zeros((1, values.shape[1])), np.diff(ends, axis=0) / spans])

    known = np.array([s.stamp_ns for s in measured]) * 1e-9
    twists = np.array([s.data[[3, 5]] for s in measured], np.float32)
    scanned = np.array([s.stamp_ns for s in scans]) * 1e-9
    nearest = np.abs(stamps[:, None] - scanned).argmin(axis=1)
    front = np.stack([s.data[40:81] for s in scans])[nearest]
    truth = at(log[:, 1:8], stamps)
    touched = np.concatenate([[0.0], np.diff(truth[:, 6]) / np.diff(stamps)])
    return {
        "image": np.stack([s.data for s in frames]),
        "episode": np.full(len(frames), number, np.int32),
        "stamp_s": stamps,
        "motion": twists[np.searchsorted(known, stamps, side="right") - 1],
        "true_motion": truth[:, 3:5].astype(np.float32),
        "pose": truth[:, :3].astype(np.float32),
        "clearance": truth[:, 5].astype(np.float32),
        "contact": np.clip(touched, 0.0, 1.0).astype(np.float32),
        "ranges": np.minimum(front, 3.0).astype(np.float32),
        "target": mean(log[:, 8:10]).astype(np.float32),
        "commanded": mean(log[:, 10:12]).astype(np.float32),
    }


def _work(task: tuple[int, int, int, int, Path]) -> int:
    """One job: episodes first, first + jobs, ... into one file per column."""
    job, jobs, episodes, seed, out = task
    robot = load_robot(find_robot("rover"))
    parts = [episode(robot, number, seed) for number in range(job, episodes, jobs)]
    for name, (shape, dtype) in COLUMNS.items():
        column = np.concatenate([part[name] for part in parts])
        assert (column.shape[1:], column.dtype) == (shape, dtype), name
        np.save(out / f"{name}.{job}.npy", column)
    return sum(len(part["episode"]) for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--episodes", type=int, default=1600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--out", type=Path, default=Path("zoo/rover/work/data"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = arguments.jobs
    tasks = [(j, jobs, arguments.episodes, arguments.seed, arguments.out) for j in range(jobs)]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        frames = pool.map(_work, tasks)
    print(f"{sum(frames)} frames of {arguments.episodes} episodes in {arguments.out}")


if __name__ == "__main__":
    main()
