"""A made-up run of the rover, with an event of every kind: what the tests here record."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording import (
    Activate,
    Event,
    Header,
    PlanBegin,
    PlanEnd,
    Prediction,
    Request,
    Step,
    Truth,
    World,
)
from edge_wm.types import (
    Acceptance,
    Belief,
    Drop,
    PoseGoal,
    Proposal,
    Sample,
    Setpoint,
    Trajectory,
    Verdict,
)

AXES = ("base.vx", "base.wz")
MS = 1_000_000
START_NS = 5_000_000_000


def make_header(robot_text: str) -> Header:
    return Header(
        robot_text=robot_text,
        bundle_name="rover-test",
        bundle_version="1.0",
        bundle_sha256="ab" * 32,
        backend="onnxruntime",
        backend_version="1.32.0",
        kernel="",
        machine={"cpu": "test", "architecture": "x86_64"},
        seed=7,
        settings={"shadow": False, "duration_s": 3.0, "goals": [[1.0, 2.0]]},
        started="2026-11-22T15:00:00+00:00",
    )


def pose_at(time_ns: int) -> tuple[float, float, float]:
    """A circle of 1 m radius, 0.4 m/s."""
    angle = 0.4 * (time_ns - START_NS) * 1e-9
    return math.sin(angle), 1.0 - math.cos(angle), angle


def make_run(duration_s: float = 2.0, seed: int = 0, latent: int = 64) -> Iterator[Event]:
    """Every stream of the rover, plans at 20 Hz, setpoints at 100 Hz, in simulated time."""
    random = np.random.Generator(np.random.Philox(key=seed))
    yield Activate(START_NS, 1)
    yield Request(START_NS, Mode.hold, "supervisor")
    rectangles = np.array([[3.0, 0.0, 0.0, 0.05, 2.0], [1.2, 1.8, 0.4, 0.2, 0.15]])
    circles = np.array([[0.2, 1.0, 0.2]])
    yield World(START_NS, circles, rectangles, np.array([False, True]), (0.1, -0.2, 0.3))
    for millisecond in range(0, int(duration_s * 1000), 5):
        now_ns = START_NS + millisecond * MS
        yield from _samples(now_ns, millisecond, random)
        if millisecond % 50 == 0:
            yield from _plan(now_ns, millisecond // 50, random, latent)
        if millisecond % 10 == 0:
            yield Step(now_ns, _verdict(now_ns, millisecond // 10, random), 150_000)
        if millisecond % 50 == 0:
            x, y, yaw = pose_at(now_ns)
            yield Truth(now_ns, x, y, yaw, contact=False)
    yield Request(now_ns, Mode.estop, "operator", Reason.estop_pressed)


def _samples(now_ns: int, millisecond: int, random: np.random.Generator) -> Iterator[Sample]:
    stamp_ns, count = now_ns - 3 * MS, millisecond
    imu = random.normal(size=6).astype(np.float32)
    yield Sample("imu", stamp_ns, now_ns, count // 5, imu)
    if millisecond % 10 == 0:
        x, y, yaw = pose_at(stamp_ns)
        wheels = np.array([[yaw * 5, yaw * 6], [2.0, 2.5]], np.float32)
        yield Sample("wheels", stamp_ns, now_ns, count // 10, wheels)
        odometry = np.array([x, y, yaw, 0.4, 0.0, 0.4])
        yield Sample("odometry", stamp_ns, now_ns, count // 10, odometry)
    if millisecond % 50 == 0:
        ranges = random.uniform(0.1, 5.0, 120).astype(np.float32)
        ranges[::7] = np.inf
        yield Sample("scan", stamp_ns - 5 * MS, now_ns, count // 50, ranges)
        image = random.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        yield Sample("camera", stamp_ns - 15 * MS, now_ns, count // 50, image)


def _plan(now_ns: int, tick: int, random: np.random.Generator, latent: int) -> Iterator[Event]:
    goal = PoseGoal(2.0, 1.0, None if tick < 10 else 0.5)
    yield PlanBegin(tick, now_ns, goal)
    ages = {"camera": 18 * MS, "odometry": 3 * MS}
    end_ns = now_ns + 21 * MS
    if tick % 10 == 3:
        drop = Drop("imu", now_ns - 50 * MS, now_ns, Reason.sample_out_of_order)
        yield PlanEnd(tick, end_ns, Reason.stream_stale, ages, (drop,), stages={"observe": 80_000})
        return
    z = random.normal(size=latent).astype(np.float32)
    pose = np.array(pose_at(now_ns), np.float32)
    belief = Belief(now_ns, {"z": z, "pose": pose})
    actions = np.tile(np.array([0.4, 0.4], np.float32), (12, 1))
    proposal = Proposal(
        stamp_ns=now_ns - 18 * MS,
        apply_at_ns=now_ns + 80 * MS,
        step_ns=150 * MS,
        axes=AXES,
        actions=actions,
        cost=float(random.normal()),
        iterations=2,
        candidates=256,
        infeasible=31,
        answers=(True, False),
        terms={"goal": 1.25, "risk": float(random.uniform())},
    )
    knots = 200
    velocity = np.full((knots, 2), 0.4) * np.linspace(1.0, 0.0, knots)[:, None]
    position = np.cumsum(velocity, axis=0) * 0.01
    start_ns = now_ns + 40 * MS
    trajectory = Trajectory(
        1, tick, now_ns, start_ns, 10 * MS, AXES, position, velocity, 0 * velocity, 180
    )
    refused = tick % 10 == 7
    reasons = (Reason.trajectory_late,) if refused else ()
    detail = "starts 12 ms in the past" if refused else ""
    acceptance = Acceptance(not refused, 1, tick, end_ns, reasons, detail)
    stages = {
        "observe": 80_000,
        "update": int(random.uniform(1, 3) * MS),
        "plan": int(random.gamma(4.0, 3.0) * MS),
        "finish": 600_000,
        "accept": 300_000,
    }
    yield PlanEnd(tick, end_ns, None, ages, (), belief, proposal, trajectory, acceptance, stages)
    if tick % 10 == 0:
        times_ns = now_ns + 150 * MS * np.arange(13)
        poses = np.array([pose_at(t) for t in times_ns.tolist()], np.float32)
        poses[:, 1] += 0.02 * np.arange(13, dtype=np.float32)
        imagined = {"z": np.tile(z, (13, 1)), "pose": poses}
        images = random.integers(0, 255, (4, 64, 64, 3), dtype=np.uint8)
        yield Prediction(tick, times_ns, imagined, times_ns[::4].copy(), images)


def _verdict(now_ns: int, count: int, random: np.random.Generator) -> Verdict:
    times_ns = now_ns + 10 * MS * np.arange(2)
    velocity = np.array([[0.4, 0.4], [0.4, float(random.normal())]])
    setpoint = Setpoint(
        epoch=1,
        sequence=count,
        axes=AXES,
        times_ns=times_ns,
        position=np.zeros((2, 2)),
        velocity=velocity,
        brake_deceleration=np.array([2.0, 8.0]),
        brake_end_ns=times_ns[:1] + np.array([200 * MS, 50 * MS]),
        apply_at_ns=int(times_ns[0]),
        valid_until_ns=int(times_ns[0]) + 50 * MS,
    )
    near = count % 100 > 70
    mode, reasons = (Mode.slow, (Reason.obstacle_near,)) if near else (Mode.active, ())
    return Verdict(now_ns, mode, setpoint, reasons, 0.5 if near else 1.0)
