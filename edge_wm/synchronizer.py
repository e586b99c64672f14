"""One consistent view of sensors that measure at different times and rates.

Streams arrive whenever they like; a tick needs one sample of each. Two kinds of view:

    with a reference (the plan tick, camera)          without (the guard tick): newest of each
    camera   ──x─────────x─────────X·······│ now      scan     ──x─────────X·······│ now
    odometry ─x──x──x──x──x──x──x──X──x──x─│          odometry ─x──x──x──x──x──x──X│
                                   ▲ nearest to the camera's stamp, within max_skew

A view with a reference describes one moment in the past, that of the reference's newest sample:
an image is matched with the odometry of its exposure, not with that of its delivery. A stream is
stale by its *newest* sample, skewed by the one that was *matched*.

Invariant: what `observe` returns depends on the samples pushed and the `now_ns` given, in their
order, and on nothing else. Bad samples become `Drop`s, bad streams a `Reason`; nothing raises.
One thread: the caller serializes the calls.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from edge_wm.errors import UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import FUTURE_TOLERANCE_NS, Intake, Robot, Stream
from edge_wm.types import Drop, Observation, Sample, Seen

NEVER_NS = 1 << 62  # the age of a sample that never came (146 years)
_MAX_DROPS = 1024  # kept between two observations; only a caller that never observes loses some


class Synchronizer:
    """Collects samples of `streams` and shows them as one `Observation`.

    `reference` is the stream that the view's moment is taken from, None for now itself.
    """

    def __init__(self, robot: Robot, streams: Sequence[str], reference: str | None) -> None:
        """Raises UsageError: a stream is not in the robot file, or the reference not observed."""
        for name in streams:
            if name not in robot.streams:
                raise UsageError(
                    f"stream '{name}': must be one of robot {robot.name} "
                    f"({', '.join(robot.streams)}); add it to the robot file or ask for another"
                )
        if reference is not None and reference not in streams:
            raise UsageError(
                f"reference stream '{reference}': must be one of those observed "
                f"({', '.join(streams)}); name one of them, or none"
            )
        self.streams = tuple(streams)
        span_ns = robot.streams[reference].max_age_ns if reference else 0
        self._tracks = {name: _Track(robot.streams[name], span_ns) for name in streams}
        self._reference = self._tracks[reference] if reference else None
        self._drops: deque[Drop] = deque(maxlen=_MAX_DROPS)

    def push(self, sample: Sample) -> None:
        """Take a sample in, or drop it with a reason. Samples of other streams are ignored."""
        track = self._tracks.get(sample.stream)
        if track is None:
            return
        taken = track.intake.take(sample)
        if isinstance(taken, Sample):
            track.samples.append(taken)
        else:
            self._drops.append(Drop(sample.stream, sample.stamp_ns, sample.received_ns, taken))

    def observe(self, now_ns: int) -> Observation:
        """The view at `now_ns`; each drop is told in one observation only."""
        reference = self._reference.newest(now_ns) if self._reference else None
        moment_ns = reference.stamp_ns if reference else None
        streams = {name: track.see(now_ns, moment_ns) for name, track in self._tracks.items()}
        drops = tuple(self._drops)
        self._drops.clear()
        return Observation(now_ns, now_ns if moment_ns is None else moment_ns, streams, drops)


class _Track:
    """The recent samples of one stream, oldest first."""

    def __init__(self, stream: Stream, span_ns: int) -> None:
        self.stream = stream
        self.intake = Intake(stream)
        # Enough to reach back to the oldest reference that can still be used, with some to spare
        # for sensors that are faster than they say.
        self.samples: deque[Sample] = deque(maxlen=4 + 2 * span_ns // stream.period_ns)

    def newest(self, now_ns: int) -> Sample | None:
        """The newest sample that is not from the future, give or take the clocks' difference."""
        latest_ns = now_ns + FUTURE_TOLERANCE_NS
        return next((s for s in reversed(self.samples) if s.stamp_ns <= latest_ns), None)

    def see(self, now_ns: int, moment_ns: int | None) -> Seen:
        """The sample nearest to `moment_ns` (None: the newest), and whether it can be used."""
        newest = self.newest(now_ns)
        if newest is None:
            return Seen(None, NEVER_NS, self.intake.refused or Reason.stream_missing)
        matched = newest if moment_ns is None else self._nearest(moment_ns, newest)
        reason = None
        if self.intake.refused is Reason.stream_frozen:
            reason = Reason.stream_frozen
        elif now_ns - newest.stamp_ns > self.stream.max_age_ns:
            reason = self.intake.refused or Reason.stream_stale
        elif moment_ns is not None and abs(matched.stamp_ns - moment_ns) > self.stream.max_skew_ns:
            reason = Reason.stream_skewed
        return Seen(matched, max(0, now_ns - matched.stamp_ns), reason)

    def _nearest(self, moment_ns: int, newest: Sample) -> Sample:
        after = newest
        for sample in reversed(self.samples):
            if sample.stamp_ns <= moment_ns:
                closer = moment_ns - sample.stamp_ns <= abs(after.stamp_ns - moment_ns)
                return sample if closer else after
            if sample.stamp_ns <= newest.stamp_ns:
                after = sample
        return after
