"""Where the base is, from how far its wheels turned and how fast it turns.

The wheels say how far it went, the gyroscope how far it turned: wheels slip sideways when a
robot turns, and a gyroscope does not; it drifts instead, by a bias that can be read off whenever
the robot stands still.

    wheels  ──x─────────x─────────x──   distance and arc between two samples  ─► one pose each
    imu     ─x────x────x────x────x───   G: the integral of its rate about z   ─► turning between

Invariants. The pose is the sum of what was measured, whatever was lost in between: wheel angles
are absolute, and the turning of an interval is G(now) - G(as last used), so a rate that had to
be extrapolated because the IMU's message was late is made good by the next sample. One output for
each good wheel sample, with its stamp, a function of the samples and their order only.

The arc is exact for a constant twist: a chord of length ds · sin(u)/u with u = dyaw/2, in the
direction yaw + u (Thrun, Burgard, Fox: Probabilistic Robotics, 2005, section 5.3, equation 5.9,
rewritten so that going straight is no special case).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import Intake, Robot, Stream
from edge_wm.types import Drop, Sample

# Faster than this many times the axes' limits is a jump of the encoder, not a motion: pushed by
# hand or running downhill a base goes faster than it may drive, but not by much.
PLAUSIBLE = 3.0
# At rest: no wheel's rim moved further than STILL_DISTANCE for STILL_NS. Coarse encoders have
# 1,000 counts a turn, 0.4 mm at a rim of 0.06 m; a robot that creeps is faster than 2.5 mm/s.
STILL_DISTANCE = 0.0005  # m
STILL_NS = 200_000_000
# A gyroscope that turns faster than this is not at rest, even if the wheels are (the robot is
# carried): low-cost ones have biases up to 0.087 rad/s (ICM-20948 datasheet: 5 deg/s).
STILL_RATE = 0.1  # rad/s
BIAS_SAMPLES = 2000  # the bias is their mean at first, then forgets over as many (10 s at 200 Hz)
TWIST_NS = 30_000_000  # vx is the mean over about this long: tames the encoder's last digit
_TRACK = 64  # gyroscope samples kept: 320 ms at 200 Hz


@dataclass(frozen=True, slots=True)
class _Wheels:
    stamp_ns: int
    left: float  # rad, as the encoder counts
    right: float


class Odometry:
    """Makes the robot's `odometry` stream. The pose begins at (0, 0, 0) with the first sample."""

    def __init__(self, robot: Robot) -> None:
        """Raises UsageError if the robot file does not derive odometry from its wheels."""
        stream = robot.pose_stream
        if stream is None or not stream.derived_from or robot.base is None:
            raise UsageError(
                f"robot {robot.name}: must have a base and a stream of type odometry with "
                "derived_from to compute it here, found none; add them to the robot file, "
                "or publish odometry yourself"
            )
        sources = [robot.streams[name] for name in stream.derived_from]
        wheels = next(source for source in sources if source.type == "joint_state")
        imu = next((source for source in sources if source.type == "imu"), None)
        self.stream = stream
        self._base = robot.base
        self._columns = [
            wheels.joints.index(wheel) for wheel in (robot.base.left_wheel, robot.base.right_wheel)
        ]
        self._intake = Intake(wheels)
        self._gyro = _Gyro(imu) if imu else None
        self._fastest = PLAUSIBLE * _fastest_wheel(robot)
        self._good: _Wheels | None = None  # the last accepted
        self._odd: _Wheels | None = None  # refused just now: where the encoder restarted, perhaps
        self._still: _Wheels | None = None  # where the wheels were when they last moved
        self._x = self._y = self._yaw = 0.0  # m, m, rad (not wrapped)
        self._distance = 0.0  # m, driven in all
        self._past: deque[tuple[int, float, float]] = deque()  # stamp, distance, yaw: for the twist
        self._sequence = 0
        self._drops: deque[Drop] = deque(maxlen=1024)  # the newest, if nobody asks for them

    def push(self, sample: Sample) -> Sample | None:
        """Take any sample in; returns an odometry sample for each good one of the wheels."""
        if self._gyro is not None and sample.stream == self._gyro.stream.name:
            self._note(sample, self._gyro.push(sample))
        elif sample.stream == self._intake.stream.name:
            taken = self._intake.take(sample)
            if isinstance(taken, Sample):
                return self._drive(taken)
            self._note(sample, taken)
        return None

    def drops(self) -> tuple[Drop, ...]:
        """The samples that were refused since the last call, and why."""
        drops = tuple(self._drops)
        self._drops.clear()
        return drops

    def _drive(self, sample: Sample) -> Sample | None:
        left, right = self._columns
        now = _Wheels(sample.stamp_ns, float(sample.data[0, left]), float(sample.data[0, right]))
        before = self._before(now)
        if before is None:
            self._odd = now
            self._note(sample, Reason.sample_implausible)
            return None
        self._good, self._odd = now, None
        distance, yaw = self._base.twist(now.left - before.left, now.right - before.right)
        if self._gyro is not None:
            self._gyro.wheels_still = self._still_for_ns(now) >= STILL_NS
            turned = self._gyro.turned(now.stamp_ns)
            if turned is not None and not self._gyro.at_rest:
                yaw = turned
        self._move(distance, yaw)
        self._sequence += 1
        data = np.array([self._x, self._y, math.remainder(self._yaw, math.tau), 0.0, 0.0, 0.0])
        data[3], data[5] = self._twist(now.stamp_ns)
        return Sample(
            self.stream.name, sample.stamp_ns, sample.received_ns, self._sequence - 1, data
        )

    def _before(self, now: _Wheels) -> _Wheels | None:
        """The wheels to measure the way from; None where no motion leads to `now`."""
        if self._good is None or self._plausible(self._good, now):
            return self._good or now
        if self._odd is not None and self._plausible(self._odd, now):
            # It went on from there; the way in between is not known.
            self._past.clear()
            self._past.append((self._odd.stamp_ns, self._distance, self._yaw))
            return self._odd
        return None

    def _plausible(self, before: _Wheels, now: _Wheels) -> bool:
        # At least a period: stamps of arrival can lie closer together than the measurements.
        duration_ns = max(now.stamp_ns - before.stamp_ns, self._intake.stream.period_ns)
        furthest = self._fastest * duration_ns * 1e-9
        return max(abs(now.left - before.left), abs(now.right - before.right)) <= furthest

    def _still_for_ns(self, now: _Wheels) -> int:
        """How long no wheel has moved."""
        still = self._still
        allowed = STILL_DISTANCE / self._base.wheel_radius
        if still is None or max(abs(now.left - still.left), abs(now.right - still.right)) > allowed:
            self._still = still = now
        return now.stamp_ns - still.stamp_ns

    def _move(self, distance: float, yaw: float) -> None:
        half = 0.5 * yaw
        chord = distance * (math.sin(half) / half if half else 1.0)
        self._x += chord * math.cos(self._yaw + half)
        self._y += chord * math.sin(self._yaw + half)
        self._yaw += yaw
        self._distance += distance

    def _twist(self, now_ns: int) -> tuple[float, float]:
        """(vx, wz), means since the newest sample that is at least TWIST_NS old."""
        self._past.append((now_ns, self._distance, self._yaw))
        while len(self._past) > 2 and self._past[1][0] <= now_ns - TWIST_NS:
            self._past.popleft()
        then_ns, distance, yaw = self._past[0]
        if then_ns == now_ns:
            return 0.0, 0.0
        duration = (now_ns - then_ns) * 1e-9
        return (self._distance - distance) / duration, (self._yaw - yaw) / duration

    def _note(self, sample: Sample, reason: Reason | None) -> None:
        if reason is not None:
            self._drops.append(Drop(sample.stream, sample.stamp_ns, sample.received_ns, reason))


class _Gyro:
    """The angle that the base turned by, as the IMU's rate about the base's z adds up."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._intake = Intake(stream)
        placed = stream.extrinsics
        self._up = placed.rotation()[2] if placed else np.array([0.0, 0.0, 1.0])
        self._track: deque[tuple[int, float, float]] = deque(maxlen=_TRACK)  # stamp, angle, rate
        self._used: tuple[int, float] | None = None  # stamp and angle, as last told
        self._bias = 0.0  # rad/s
        self._count = 0  # of samples that it is the mean of
        self.wheels_still = False  # told by the odometry

    def push(self, sample: Sample) -> Reason | None:
        """Take a sample of the IMU in, or say why not."""
        taken = self._intake.take(sample)
        if isinstance(taken, Reason):
            return taken
        rate = float(self._up @ taken.data[:3])
        angle = 0.0
        if self._track:
            stamp_ns, angle, last_rate = self._track[-1]
            gap_ns = taken.stamp_ns - stamp_ns
            if gap_ns > self.stream.max_age_ns:  # nobody knows how it turned meanwhile
                self._track.clear()
                self._used = None
            angle += 0.5 * (last_rate + rate) * gap_ns * 1e-9
        self._track.append((taken.stamp_ns, angle, rate))
        if self.at_rest:
            self._count = min(self._count + 1, BIAS_SAMPLES)
            self._bias += (rate - self._bias) / self._count
        return None

    def turned(self, now_ns: int) -> float | None:
        """rad, since the last call; None where the IMU does not cover that time."""
        before, angle = self._used, self._angle(now_ns)
        self._used = None if angle is None else (now_ns, angle)
        if before is None or angle is None:
            return None
        return angle - before[1] - self._bias * (now_ns - before[0]) * 1e-9

    @property
    def at_rest(self) -> bool:
        """Wheels and gyroscope agree that nothing moves: what is left of the rate is bias."""
        return self.wheels_still and abs(self._track[-1][2] - self._bias) < STILL_RATE

    def _angle(self, at_ns: int) -> float | None:
        """The track's angle at a moment: between two samples, or shortly after the last."""
        after: tuple[int, float, float] | None = None
        for stamp_ns, angle, rate in reversed(self._track):
            if stamp_ns <= at_ns:
                if after is None:
                    if at_ns - stamp_ns > self.stream.max_age_ns:
                        return None
                    return angle + rate * (at_ns - stamp_ns) * 1e-9
                share = (at_ns - stamp_ns) / (after[0] - stamp_ns)
                return angle + share * (after[1] - angle)
            after = (stamp_ns, angle, rate)
        return None


def _fastest_wheel(robot: Robot) -> float:
    """rad/s, at the axes' limits."""
    assert robot.base is not None
    vx, wz = (
        max(axis.velocity_max, -axis.velocity_min)
        for name in ("base.vx", "base.wz")
        for axis in robot.axes
        if axis.name == name
    )
    return robot.base.wheel_speeds(vx, wz)[1]
