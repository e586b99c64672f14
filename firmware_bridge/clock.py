"""The device's clock, as the host sees it.

The host asks "what time is it?" and notes four times:

    host     sent ─────────────────────────── heard        host ns
    device          received ──── replied                  device us

The question was received after it was sent, and the answer was sent before it was heard. So at
`sent` the device's clock stood at most at `received`, and at `heard` at least at `replied`: the
offset (device - host) lies in an interval as wide as the round trip, whatever delayed which way.
Of 64 exchanges the one with the shortest round trip says nearly all there is to know. Two such
minima that lie apart in time give the slope, that is how much faster the device's crystal runs.

Invariant: `error_us` bounds the error as long as the crystals differ by less than `DRIFT_PPM`.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

GROUP = 64  # exchanges of which the shortest round trip counts
KEPT = 32  # groups
DRIFT_PPM = 200.0  # what two bad crystals may differ by
SLOPE_PPM = 25.0  # a slope that is not known better than this is not used


@dataclass(frozen=True, slots=True)
class Point:
    """One exchange: at `host_ns` the device was ahead by offset_ns, give or take half_ns."""

    host_ns: int  # the middle of the exchange
    offset_ns: float
    half_ns: float


def point(sent_ns: int, received_us: int, replied_us: int, heard_ns: int) -> Point:
    """What one exchange says. A device counts whole microseconds: half_ns allows for one."""
    middle_ns = (sent_ns + heard_ns) // 2
    offset_ns = 500.0 * (received_us + replied_us) - middle_ns
    half_ns = 0.5 * ((heard_ns - sent_ns) - 1000.0 * (replied_us - received_us))
    return Point(middle_ns, offset_ns, max(half_ns, 0.0) + 1000.0)


class Clock:
    """Fed with exchanges; translates between host ns and device us."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.round_trips_us: deque[float] = deque(maxlen=1024)
        self._groups: deque[Point] = deque(maxlen=KEPT)  # the best of each full group
        self._best: Point | None = None  # of the group that is being filled
        self._filled = 0
        self._reference = Point(0, 0.0, 1e18)
        self._slope = 0.0  # d offset / d host time
        self._slope_error = DRIFT_PPM * 1e-6

    def add(self, sent_ns: int, received_us: int, replied_us: int, heard_ns: int) -> None:
        """Learn from one exchange."""
        new = point(sent_ns, received_us, replied_us, heard_ns)
        self.exchanges += 1
        self.round_trips_us.append((new.half_ns - 1000.0) * 2e-3)
        if self._best is None or new.half_ns < self._best.half_ns:
            self._best = new
        self._filled += 1
        if self._filled == GROUP:
            self._groups.append(self._best)
            self._best, self._filled = None, 0
        self._fit(new.host_ns)

    def device_us(self, host_ns: int) -> int:
        """The device's time at `host_ns`."""
        ahead_ns = self._reference.offset_ns + self._slope * (host_ns - self._reference.host_ns)
        return round((host_ns + ahead_ns) / 1000.0)

    def host_ns(self, device_us: int) -> int:
        """The host's time at which the device's clock stood at `device_us`."""
        device_ns = 1000 * device_us
        about_ns = device_ns - self._reference.offset_ns
        ahead_ns = self._reference.offset_ns + self._slope * (about_ns - self._reference.host_ns)
        return round(device_ns - ahead_ns)

    def error_us(self, host_ns: int) -> float:
        """How wrong `device_us(host_ns)` may be; very large before the first exchange."""
        age_ns = abs(host_ns - self._reference.host_ns)
        return (self._reference.half_ns + self._slope_error * age_ns) * 1e-3

    @property
    def slope_ppm(self) -> float:
        """How much faster the device's clock runs than ours; 0 until it is known."""
        return self._slope * 1e6

    def _fit(self, now_ns: int) -> None:
        points = [*self._groups, *([self._best] if self._best else [])]
        first, last = min(points, key=_early), min(points, key=_late)
        apart_ns = last.host_ns - first.host_ns
        self._slope, self._slope_error = 0.0, DRIFT_PPM * 1e-6
        if apart_ns > 0:
            unsure = (first.half_ns + last.half_ns) / apart_ns
            slope = (last.offset_ns - first.offset_ns) / apart_ns
            if unsure < SLOPE_PPM * 1e-6 and abs(slope) < DRIFT_PPM * 1e-6:
                self._slope, self._slope_error = slope, unsure
        drift = self._slope_error
        self._reference = min(points, key=lambda p: p.half_ns + drift * (now_ns - p.host_ns))


def _early(one: Point) -> float:
    """Small for a point that is old and sure: the slope's one end."""
    return one.half_ns + SLOPE_PPM * 1e-6 * one.host_ns


def _late(one: Point) -> float:
    return one.half_ns - SLOPE_PPM * 1e-6 * one.host_ns
