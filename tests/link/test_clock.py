"""firmware_bridge.clock: held against a clock whose true time is known."""

from __future__ import annotations

import random

import numpy as np
import pytest

from firmware_bridge.clock import Clock


class Emulated:
    """A device clock that is off by an offset and a drift, behind a link with jitter."""

    def __init__(self, seed: int, drift_ppm: float, offset_us: int = 987_654_321) -> None:
        self.noise = random.Random(seed)
        self.drift, self.offset_us = drift_ppm * 1e-6, offset_us

    def device_us(self, host_ns: float) -> float:
        return self.offset_us + host_ns * (1 + self.drift) / 1000

    def delay_ns(self) -> float:
        """A way: 60 us, exponential jitter of 300 us, and one in twenty 5 to 45 ms late."""
        late = self.noise.uniform(5e6, 45e6) if self.noise.random() < 0.05 else 0.0
        return 60_000 + self.noise.expovariate(1 / 300_000) + late

    def exchange(self, clock: Clock, sent_ns: int) -> int:
        arrived = sent_ns + self.delay_ns()
        left = arrived + 30_000
        heard = round(left + self.delay_ns())
        clock.add(sent_ns, int(self.device_us(arrived)), int(self.device_us(left)), heard)
        return heard


def start(emulated: Emulated) -> tuple[Clock, int]:
    clock, now = Clock(), 5_000_000_000
    for _ in range(64):
        now = emulated.exchange(clock, now) + 100_000
    return clock, now


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("drift_ppm", [-50.0, 0.0, 50.0])
def test_half_a_millisecond_after_ten_seconds(seed, drift_ppm):
    """The issue's figure: <= 0.5 ms p99, with 50 ppm drift and jitter."""
    emulated = Emulated(seed, drift_ppm)
    clock, now = start(emulated)
    begun, errors, bounds = now, [], []
    while now < begun + 30_000_000_000:
        emulated.exchange(clock, now)
        if now > begun + 10_000_000_000:
            errors.append(abs(clock.device_us(now) - emulated.device_us(now)))
            bounds.append(clock.error_us(now))
        now += 50_000_000
    assert np.percentile(errors, 99) <= 500
    assert max(errors) <= 500
    assert (np.array(errors) <= np.array(bounds)).all()
    assert np.percentile(bounds, 99) <= 1000


@pytest.mark.parametrize("seed", range(8))
def test_the_bound_holds_at_once_and_when_nothing_is_heard_for_ten_seconds(seed):
    emulated = Emulated(seed, 50.0)
    clock, now = start(emulated)
    assert clock.error_us(now) < 1000
    for later in range(0, 10_000_000_000, 100_000_000):
        error = abs(clock.device_us(now + later) - emulated.device_us(now + later))
        assert error <= clock.error_us(now + later)


def test_a_quiet_link_gives_the_slope_and_both_directions_agree():
    emulated = Emulated(1, 40.0)
    emulated.delay_ns = lambda: 50_000.0
    clock, now = start(emulated)
    for _ in range(400):
        now = emulated.exchange(clock, now + 50_000_000)
    assert clock.slope_ppm == pytest.approx(40.0, abs=1.0)
    for at in (now, now + 3_000_000_000):
        assert clock.host_ns(clock.device_us(at)) == pytest.approx(at, abs=2_000)


def test_before_the_first_exchange_nothing_is_known():
    assert Clock().error_us(0) > 1e9


def test_asymmetric_ways_stay_within_the_bound():
    """All the delay on one way: the worst case, in which the middle is wrong by half of it."""
    clock = Clock()
    clock.add(0, 1000, 1000, 1_000_000)  # the device's clock is ours; the question took 1 ms
    assert abs(clock.device_us(0) - 0) <= clock.error_us(0)
