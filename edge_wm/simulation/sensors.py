"""How ideal measurements become samples: noise, jitter, delay, loss.

A real sensor does not tick exactly: its clock drifts (here up to 100 ppm), each measurement is
early or late by some jitter, and it takes time to arrive; now and then a sample arrives much
later. `Schedule` says when the next measurement is due and when it will arrive. The invariant:
each sensor has a random generator of its own, so dropping one sensor's samples, or switching
off its noise, leaves all others as they were.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_wm.types import Float32, Float64

ENCODER_COUNTS = 4096  # per turn of the wheel
GYRO_BIAS, GYRO_NOISE = 0.003, 0.005  # rad/s: a MEMS gyro after calibration at rest
ACCELEROMETER_BIAS, ACCELEROMETER_NOISE = 0.05, 0.15  # m/s^2
RANGE_NOISE = 0.01  # m
MISSING_RETURNS = 0.005  # share of beams that come back empty
PIXEL_NOISE = (2.0, 6.0)  # standard deviation in gray levels, drawn once per run
EXPOSURE_SPREAD = 0.15  # of the logarithm of the brightness, drawn once per run
EXPOSURE_DRIFT = 0.02  # the same, changing from frame to frame


@dataclass(frozen=True, slots=True)
class Timing:
    """How one kind of sensor keeps time, in ns."""

    jitter_ns: int  # standard deviation of a measurement's moment
    delay_ns: tuple[int, int]  # from measurement to arrival, least and most
    late_ns: int = 0  # how much later than that some arrive ...
    late_share: float = 0.0  # ... and how many


TIMINGS = {
    "image": Timing(1_500_000, (15_000_000, 25_000_000), 30_000_000, 0.01),
    "joint_state": Timing(200_000, (1_000_000, 3_000_000), 10_000_000, 0.002),
    "imu": Timing(100_000, (500_000, 2_000_000), 8_000_000, 0.002),
    "range_scan": Timing(500_000, (5_000_000, 10_000_000), 20_000_000, 0.005),
}


class Schedule:
    """When one sensor measures, and when each measurement arrives."""

    def __init__(
        self, timing: Timing, period_ns: int, start_ns: int, generator: np.random.Generator
    ) -> None:
        self._timing = timing
        self._generator = generator
        self._period_ns = period_ns * (1.0 + generator.uniform(-1e-4, 1e-4))
        self._ideal_ns = start_ns + generator.uniform(0.0, self._period_ns)
        self._last_arrival_ns = start_ns
        self.sequence = 0
        self.due_ns = 0
        self._plan()

    def arrival_ns(self, measured_ns: int) -> int:
        """When the measurement taken at `measured_ns` arrives; then plans the next one.

        Samples of one sensor arrive in order, as on one wire.
        """
        low, high = self._timing.delay_ns
        delay = self._generator.integers(low, high + 1)
        if self._generator.random() < self._timing.late_share:
            delay += self._timing.late_ns
        self._last_arrival_ns = max(self._last_arrival_ns + 1, measured_ns + int(delay))
        self.sequence += 1
        self._plan()
        return self._last_arrival_ns

    def _plan(self) -> None:
        self._ideal_ns += self._period_ns
        jitter = self._timing.jitter_ns * self._generator.standard_normal()
        limit = 0.3 * self._period_ns
        self.due_ns = int(self._ideal_ns + min(max(jitter, -limit), limit))


class CameraNoise:
    """Gray-level noise, and a brightness that differs from run to run and drifts."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._level = float(generator.uniform(*PIXEL_NOISE))
        self._exposure = float(generator.normal(0.0, EXPOSURE_SPREAD))
        self._drift = 0.0

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """`image`: (height, width, 3) uint8, as rendered."""
        self._drift = 0.97 * self._drift + self._generator.normal(0.0, EXPOSURE_DRIFT)
        gain = np.float32(np.exp(self._exposure + self._drift))
        noise = self._generator.standard_normal(image.shape, dtype=np.float32)
        noisy = image * gain + noise * np.float32(self._level)
        seen: npt.NDArray[np.uint8] = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return seen


class WheelNoise:
    """Encoders count whole steps; the velocity is what the counts changed by."""

    def __init__(self) -> None:
        self._last: Float64 | None = None
        self._last_ns = 0

    def __call__(self, angles: Float64, measured_ns: int) -> Float32:
        """`angles`: (J,) rad. Returns (2, J): positions and velocities."""
        step = 2 * np.pi / ENCODER_COUNTS
        counted = np.floor(angles / step) * step
        if self._last is None:
            velocity = np.zeros_like(counted)
        else:
            velocity = (counted - self._last) / ((measured_ns - self._last_ns) * 1e-9)
        self._last, self._last_ns = counted, measured_ns
        return np.stack([counted, velocity]).astype(np.float32)


class ImuNoise:
    """A constant bias per run and white noise."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator
        self._sigma = np.array([GYRO_NOISE] * 3 + [ACCELEROMETER_NOISE] * 3)
        bias = np.array([GYRO_BIAS] * 3 + [ACCELEROMETER_BIAS] * 3)
        self._bias = generator.standard_normal(6) * bias

    def __call__(self, reading: Float64) -> Float32:
        """`reading`: (6,) rad/s and m/s^2."""
        noise = self._generator.standard_normal(6) * self._sigma
        noisy: Float64 = reading + self._bias + noise
        return noisy.astype(np.float32)


class RangeNoise:
    """White noise, and beams that do not come back."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def __call__(self, ranges: Float64) -> Float64:
        """`ranges`: (R,) m."""
        noisy = ranges + self._generator.standard_normal(len(ranges)) * RANGE_NOISE
        missing = self._generator.random(len(ranges)) < MISSING_RETURNS
        return np.where(missing, np.inf, noisy)
