"""Odometry: against known circles, against a plain fine-stepped integration, and when sensors fail.

The plant is a base that drives a given twist exactly; its sensors are sampled from it here, with
or without the errors of real ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest

from edge_wm import odometry as room
from edge_wm.errors import UsageError
from edge_wm.odometry import Odometry
from edge_wm.reasons import Reason
from edge_wm.robot import Robot, find_robot, load_robot, parse_robot
from edge_wm.types import Sample

MS = 1_000_000
ROVER = load_robot(find_robot("rover"))
Twist = Callable[[float], tuple[float, float]]


def still(t: float) -> tuple[float, float]:
    return 0.0, 0.0


def wander(t: float) -> tuple[float, float]:
    """Rests for a second, then drives curves of all kinds, then rests again."""
    if t < 1.0 or t > 58.0:
        return 0.0, 0.0
    return 0.35 + 0.3 * math.sin(0.9 * t), 1.2 * math.sin(0.5 * t) + 0.4 * math.sin(2.3 * t)


@dataclass
class Plant:
    """A base that drives `twist`, stepped finely; the truth, and the sensors' ideal readings."""

    twist: Twist
    seconds: float
    step_ns: int = MS

    def __post_init__(self) -> None:
        count = int(self.seconds * 1e9) // self.step_ns + 1
        dt = self.step_ns * 1e-9
        self.pose = np.zeros((count, 3))
        self.wheels = np.zeros((count, 2))
        self.rate = np.zeros(count)
        x = y = yaw = left = right = 0.0
        for index in range(count):
            vx, wz = self.twist(index * dt)
            self.pose[index] = x, y, yaw
            self.wheels[index] = left, right
            self.rate[index] = wz
            for _ in range(4):  # Euler, finer than the sensors by 40 and more
                x += vx * math.cos(yaw) * dt / 4
                y += vx * math.sin(yaw) * dt / 4
                yaw += wz * dt / 4
            left += (vx - 0.13 * wz) / 0.06 * dt
            right += (vx + 0.13 * wz) / 0.06 * dt

    def wheel_samples(self, counts: int | None = None) -> list[Sample]:
        angles = self.wheels[::10]
        if counts is not None:
            angles = np.floor(angles * counts / math.tau) * math.tau / counts
        return [
            Sample(
                "wheels",
                index * 10 * MS,
                index * 10 * MS + MS,
                index,
                np.stack([pair, np.zeros(2)]).astype(np.float32),
            )
            for index, pair in enumerate(angles)
        ]

    def imu_samples(self, noise: float = 1e-4, bias: float = 0.0, seed: int = 0) -> list[Sample]:
        """White noise always: a gyroscope without any is frozen."""
        generator = np.random.default_rng(seed)
        samples = []
        for index, rate in enumerate(self.rate[::5]):
            data = noise * generator.standard_normal(6)
            data[2] += rate + bias
            stamp_ns = index * 5 * MS
            samples.append(Sample("imu", stamp_ns, stamp_ns + MS, index, data.astype(np.float32)))
        return samples


def drive(odometry: Odometry, *streams: list[Sample]) -> list[Sample]:
    """Everything in the order of arrival."""
    arriving = sorted((s for stream in streams for s in stream), key=lambda s: s.received_ns)
    return [out for out in (odometry.push(sample) for sample in arriving) if out is not None]


def apart(a: float, b: float) -> float:
    return abs(math.remainder(a - b, math.tau))


def test_one_sample_for_each_of_the_wheels_with_its_stamp() -> None:
    wheels = Plant(wander, 2.0).wheel_samples()
    outputs = drive(Odometry(ROVER), wheels)
    assert [(o.stamp_ns, o.received_ns) for o in outputs] == [
        (w.stamp_ns, w.received_ns) for w in wheels
    ]
    assert [o.sequence for o in outputs] == list(range(len(wheels)))
    first = outputs[0]
    assert first.stream == "odometry"
    assert first.data.dtype == np.float64
    np.testing.assert_array_equal(first.data, np.zeros(6))


@pytest.mark.parametrize("gyro", [False, True])
@pytest.mark.parametrize(("vx", "wz"), [(0.5, 1.0), (0.3, -1.7), (-0.2, 0.5), (0.6, 0.0), (0, 1.5)])
def test_known_arcs(vx: float, wz: float, gyro: bool) -> None:
    plant = Plant(lambda t: (vx, wz), 6.0)
    streams = [plant.wheel_samples()] + ([plant.imu_samples(noise=1e-6)] if gyro else [])
    last = drive(Odometry(ROVER), *streams)[-1].data
    turned = wz * 6.0
    if wz:
        radius = vx / wz
        expected = (radius * math.sin(turned), radius * (1 - math.cos(turned)))
    else:
        expected = (vx * 6.0, 0.0)
    # float32 encoders resolve 4e-6 rad after 60 rad: 0.2 um at the rim
    assert tuple(last[:2]) == pytest.approx(expected, abs=2e-5)
    assert apart(last[2], turned) < 2e-5
    assert abs(last[2]) <= math.pi
    assert tuple(last[3:]) == pytest.approx((vx, 0.0, wz), abs=1e-3)


def test_the_arc_is_exact_however_sparse_the_samples() -> None:
    plant = Plant(lambda t: (0.5, 1.5), 3.0)
    sparse = plant.wheel_samples()[::30]  # 0.3 s and 26 degrees apart
    last = drive(Odometry(ROVER), sparse)[-1].data
    np.testing.assert_allclose(last[:2], plant.pose[-1][:2], atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_a_minute_with_real_sensors(seed: int) -> None:
    """Encoder of 2,048 counts, gyroscope with a bias of 0.02 and 0.005 rad/s of noise (MEMS)."""
    plant = Plant(wander, 60.0)
    wheels = plant.wheel_samples(counts=2048)
    imu = plant.imu_samples(noise=0.005, bias=0.02, seed=seed)
    outputs = drive(Odometry(ROVER), wheels, imu)
    truth = plant.pose[::10]
    errors = np.array(
        [np.hypot(*(o.data[:2] - p[:2])) for o, p in zip(outputs, truth, strict=True)]
    )
    turns = np.array([apart(o.data[2], p[2]) for o, p in zip(outputs, truth, strict=True)])
    # 0.2 s of unknown bias is 4 mrad; the walk of the noise over 60 s is 2.7 mrad (1 sigma); what
    # the bias is wrong by after 0.8 s at rest, 0.005 / sqrt(160), makes 24 mrad a minute.
    assert turns.max() < 0.08
    assert errors.max() < 0.08 * 6.0  # it stays within 6 m of where it began
    uncorrected = Odometry(ROVER)
    assert uncorrected._gyro is not None
    uncorrected._gyro._bias, uncorrected._gyro._count = 0.0, 10**9  # never learns
    lost = drive(uncorrected, wheels, imu)[-1].data[2]
    assert apart(lost, truth[-1][2]) > 1.0


def test_bias_is_learned_at_rest_only() -> None:
    plant = Plant(still, 3.0)
    outputs = drive(Odometry(ROVER), plant.wheel_samples(), plant.imu_samples(0.005, 0.05))
    yaws = np.array([o.data[2] for o in outputs])
    assert abs(yaws[20] - 0.05 * 0.2) < 2e-3  # until it counts as at rest
    np.testing.assert_array_equal(yaws[25:], yaws[25])
    np.testing.assert_array_equal([o.data[5] for o in outputs[30:]], 0.0)

    turning = Plant(lambda t: (0.0, 0.02), 20.0)  # slow, but the wheels see it
    last = drive(Odometry(ROVER), turning.wheel_samples(), turning.imu_samples())[-1]
    assert apart(last.data[2], 0.4) < 5e-3


def test_carried_and_turned_with_wheels_still() -> None:
    plant = Plant(lambda t: (0.0, 0.5 if 1.0 <= t < 3.0 else 0.0), 4.0)
    wheels = [replace(s, data=np.zeros((2, 2), np.float32)) for s in plant.wheel_samples()]
    last = drive(Odometry(ROVER), wheels, plant.imu_samples())[-1]
    assert apart(last.data[2], 1.0) < 5e-3


def test_wheels_that_slip_in_a_turn_do_not_turn_the_heading() -> None:
    plant = Plant(lambda t: (0.2, 1.0), 3.0)
    wheels = [
        replace(s, data=np.stack([s.data[0] * np.float32([0.7, 1.2]), s.data[1]]))
        for s in plant.wheel_samples()
    ]
    fused = drive(Odometry(ROVER), wheels, plant.imu_samples())[-1]
    assert apart(fused.data[2], 3.0) < 0.01
    alone = drive(Odometry(ROVER), wheels)[-1]
    assert apart(alone.data[2], 3.0) > 0.3


@pytest.mark.parametrize("lost", [0.1, 0.3, 0.6])
def test_lost_samples_cost_little(lost: float) -> None:
    plant = Plant(wander, 30.0)
    generator = np.random.default_rng(0)
    wheels = [s for s in plant.wheel_samples() if generator.random() > lost]
    imu = [s for s in plant.imu_samples() if generator.random() > lost]
    outputs = drive(Odometry(ROVER), wheels, imu)
    assert len(outputs) == len(wheels)
    truth = plant.pose[outputs[-1].stamp_ns // MS]
    assert np.hypot(*(outputs[-1].data[:2] - truth[:2])) < 0.03
    assert apart(outputs[-1].data[2], truth[2]) < 0.02


def test_late_imu_messages_are_made_good() -> None:
    """Rates that had to be extrapolated are replaced: lateness leaves no trace in the end."""
    plant = Plant(wander, 60.0)
    generator = np.random.default_rng(0)
    wheels, imu = plant.wheel_samples(), plant.imu_samples()
    late, arrival = [], 0
    for sample in imu:
        arrival = max(arrival, sample.stamp_ns + int(generator.uniform(0, 40) * MS))
        late.append(replace(sample, received_ns=arrival))
    on_time = drive(Odometry(ROVER), wheels, imu)[-1].data
    delayed = drive(Odometry(ROVER), wheels, late)[-1].data
    assert apart(on_time[2], delayed[2]) < 1e-3
    assert np.hypot(*(on_time[:2] - delayed[:2])) < 5e-3


def test_turning_is_read_off_between_two_imu_samples() -> None:
    """Wheel stamps fall anywhere between the IMU's; the wheels slip, so they cannot tell."""
    plant = Plant(lambda t: (0.0, 1.5), 3.0)
    generator = np.random.default_rng(0)
    wheels = []
    for index in range(1, 290):
        stamp_ns = index * 10 * MS + int(generator.uniform(0, 9) * MS)
        slipping = np.array([[-stamp_ns * 1e-9, stamp_ns * 1e-9], [0, 0]], np.float32)
        wheels.append(Sample("wheels", stamp_ns, stamp_ns + 12 * MS, index, slipping))
    yaws = [o.data[2] for o in drive(Odometry(ROVER), wheels, plant.imu_samples(noise=1e-6))]
    for sample, yaw in zip(wheels[1:], yaws[1:], strict=True):
        turned = 1.5 * (sample.stamp_ns - wheels[1].stamp_ns) * 1e-9
        assert apart(yaw - yaws[1], turned) < 1e-4


@pytest.mark.parametrize("how", ["silent", "frozen", "nan", "shape"])
def test_a_failed_gyroscope_falls_back_on_the_wheels(how: str) -> None:
    plant = Plant(wander, 20.0)
    imu = []
    for sample in plant.imu_samples():
        if sample.stamp_ns < 5e9:
            imu.append(sample)
        elif how == "frozen":
            imu.append(replace(sample, data=imu[-1].data.copy()))
        elif how == "nan":
            imu.append(replace(sample, data=np.full(6, np.nan, np.float32)))
        elif how == "shape":
            imu.append(replace(sample, data=np.zeros(3, np.float32)))
    odometry = Odometry(ROVER)
    outputs = drive(odometry, plant.wheel_samples(), imu)
    assert len(outputs) == 2001
    # For max_age, 60 ms, the last rate was believed: up to 0.06 s * 1.6 rad/s.
    assert apart(outputs[-1].data[2], plant.pose[-1][2]) < 0.1
    reasons = {drop.reason for drop in odometry.drops()}
    assert (
        reasons
        == {
            "silent": set(),
            "frozen": {Reason.stream_frozen},
            "nan": {Reason.sample_not_finite},
            "shape": {Reason.sample_wrong_shape},
        }[how]
    )
    assert odometry.drops() == ()


@pytest.mark.parametrize("both", [False, True])
def test_a_gap_in_the_imu_is_bridged_by_the_wheels(both: bool) -> None:
    """It turns only while the IMU is silent, so the rates on both sides know nothing of it."""
    plant = Plant(lambda t: (0.3, 1.0 if 2.2 <= t < 3.8 else 0.0), 6.0)
    imu = [s for s in plant.imu_samples() if not 2e9 < s.stamp_ns < 3.9e9]
    wheels = [s for s in plant.wheel_samples() if not (both and 2e9 < s.stamp_ns < 4e9)]
    last = drive(Odometry(ROVER), wheels, imu)[-1]
    assert apart(last.data[2], 1.6) < 1e-3


def test_an_encoder_that_jumps_once() -> None:
    plant = Plant(lambda t: (0.3, 0.4), 2.0)
    wheels = plant.wheel_samples()
    spike = wheels[100].data.copy()
    spike[0, 0] += 50.0
    wheels[100] = replace(wheels[100], data=spike)
    odometry = Odometry(ROVER)
    outputs = drive(odometry, wheels)
    assert [d.reason for d in odometry.drops()] == [Reason.sample_implausible]
    assert len(outputs) == 200
    np.testing.assert_allclose(outputs[-1].data[:3], plant.pose[-1], atol=1e-4)


def test_an_encoder_that_starts_over() -> None:
    plant = Plant(lambda t: (0.3, 0.0), 2.0)
    wheels = plant.wheel_samples()
    origin = wheels[100].data[0].copy()
    for index in range(100, len(wheels)):
        moved = wheels[index].data.copy()
        moved[0] -= origin
        wheels[index] = replace(wheels[index], data=moved)
    odometry = Odometry(ROVER)
    outputs = drive(odometry, wheels)
    assert [(d.stamp_ns, d.reason) for d in odometry.drops()] == [
        (1000 * MS, Reason.sample_implausible)
    ]
    assert len(outputs) == 200
    assert outputs[-1].data[0] == pytest.approx(0.6 - 0.003, abs=1e-5)  # one interval is not known
    np.testing.assert_allclose([o.data[3] for o in outputs[1:]], 0.3, atol=1e-3)


def test_plausible_at_the_boundary() -> None:
    base = ROVER.base
    assert base is not None
    furthest = np.float32(room.PLAUSIBLE * base.wheel_speeds(0.7, 1.8)[1] * 0.01)
    for factor, accepted in ((0.999, True), (1.001, False)):
        odometry = Odometry(ROVER)
        odometry.push(Sample("wheels", 0, 0, 0, np.zeros((2, 2), np.float32)))
        step = np.array([[0.0, -factor * furthest], [0.0, 0.0]], np.float32)
        assert (odometry.push(Sample("wheels", 10 * MS, 10 * MS, 1, step)) is not None) is accepted


def test_bad_wheel_samples_give_nothing_and_a_reason() -> None:
    odometry = Odometry(ROVER)
    good = Sample("wheels", 10 * MS, 11 * MS, 0, np.zeros((2, 2), np.float32))
    assert odometry.push(good) is not None
    for bad, reason in (
        (good, Reason.sample_duplicate),
        (replace(good, stamp_ns=9 * MS), Reason.sample_out_of_order),
        (replace(good, stamp_ns=99 * MS), Reason.sample_from_future),
        (replace(good, stamp_ns=12 * MS, data=np.full((2, 2), np.nan, np.float32)),
         Reason.sample_not_finite),
        (replace(good, stamp_ns=12 * MS, data=np.zeros((2, 3), np.float32)),
         Reason.sample_wrong_shape),
    ):  # fmt: skip
        assert odometry.push(bad) is None
        assert [d.reason for d in odometry.drops()] == [reason]
    assert odometry.push(replace(good, stream="camera")) is None
    assert odometry.drops() == ()


def test_same_samples_same_bits() -> None:
    plant = Plant(wander, 10.0)
    streams = plant.wheel_samples(2048), plant.imu_samples(0.005, 0.02)
    first, second = drive(Odometry(ROVER), *streams), drive(Odometry(ROVER), *streams)
    assert [o.data.tobytes() for o in first] == [o.data.tobytes() for o in second]


def turned_imu() -> Robot:
    """The rover with its IMU mounted upside down."""
    text = ROVER.text.replace(
        "xyz: [0.0, 0.0, 0.08], rpy: [0.0, 0.0, 0.0]",
        f"xyz: [0.0, 0.0, 0.08], rpy: [{math.pi}, 0.0, 0.0]",
    )
    assert text != ROVER.text
    return parse_robot(text, "upside_down.yaml")


def test_the_imu_may_be_mounted_upside_down() -> None:
    plant = Plant(lambda t: (0.0, 1.0), 2.0)
    imu = [
        replace(s, data=s.data * np.float32([1, -1, -1, 1, -1, -1])) for s in plant.imu_samples()
    ]
    still_wheels = [replace(s, data=np.zeros((2, 2), np.float32)) for s in plant.wheel_samples()]
    last = drive(Odometry(turned_imu()), still_wheels, imu)[-1]
    assert apart(last.data[2], 2.0) < 0.02


def test_a_robot_without_wheel_odometry() -> None:
    with pytest.raises(UsageError) as caught:
        Odometry(load_robot(find_robot("arm")))
    assert str(caught.value) == (
        "robot arm: must have a base and a stream of type odometry with derived_from to compute "
        "it here, found none; add them to the robot file, or publish odometry yourself"
    )
