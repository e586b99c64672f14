"""The door of one sensor stream: which samples come in, and why the others do not.

A driver may deliver anything: another camera mode, NaN for a failed reading, a message twice, an
old one late, a stamp of tomorrow, or its last good reading for ever. Whoever uses a stream asks
its `Intake` first. Nothing here raises: a bad sample is a Reason.

Invariant: what comes in has the declared shape and dtype, is finite (ranges may be +inf), is
newer than all before it and not from the future; and where noise is expected (`Stream.noisy`)
it is fresh: data that repeats is only as new as its first copy, so once that is older
than `max_age` the stream is frozen.

Because stamps from the future are refused, a sensor clock that jumps back delivers stamps that
are old in truth or soon overtaken: out-of-order refusals end by themselves.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edge_wm.reasons import Reason
from edge_wm.robot.nouns import Stream
from edge_wm.types import Array, Sample

# How far a sensor's clock may run ahead of ours: chrony holds a local network within 1 ms
# (chrony.conf(5), typical accuracy), so five times that is still a clock and not a fault.
FUTURE_TOLERANCE_NS = 5_000_000

_PROBES = 64  # values compared before a whole image is: noise differs in one of these


class Intake:
    """Decides for one stream, sample by sample, in the order of arrival."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.refused: Reason | None = None  # why the newest sample was refused, None if it was not
        self._last: Sample | None = None
        self._changed_ns = 0  # stamp of the first sample with the data of the last one
        self._dtype = np.dtype(stream.dtype)

    def take(self, sample: Sample) -> Sample | Reason:
        """The sample with the stamp that is believed, or why it is refused. O(1), no copy."""
        if self.stream.stamp == "arrival":
            sample = replace(sample, stamp_ns=sample.received_ns)
        self.refused = self._defect(sample) or self._disorder(sample) or self._stuck(sample)
        if self.refused is not None:
            return self.refused
        self._last = sample
        return sample

    def _defect(self, sample: Sample) -> Reason | None:
        data = sample.data
        if data.shape != self.stream.shape or data.dtype != self._dtype:
            return Reason.sample_wrong_shape
        if self.stream.type == "range_scan":
            finite = bool((data > -np.inf).all())  # NaN compares false, +inf is 'nothing in range'
        else:
            finite = self._dtype.kind != "f" or bool(np.isfinite(data).all())
        return None if finite else Reason.sample_not_finite

    def _disorder(self, sample: Sample) -> Reason | None:
        if sample.stamp_ns > sample.received_ns + FUTURE_TOLERANCE_NS:
            return Reason.sample_from_future
        if self._last is None or sample.stamp_ns > self._last.stamp_ns:
            return None
        if sample.stamp_ns < self._last.stamp_ns:
            return Reason.sample_out_of_order
        # Two messages of one moment are a repeat, but for arrival stamps: there the sensor's
        # counter tells, because two can be read from a socket within one tick of the clock.
        if self.stream.stamp == "arrival" and sample.sequence != self._last.sequence:
            return None
        return Reason.sample_duplicate

    def _stuck(self, sample: Sample) -> Reason | None:
        if not self.stream.noisy:
            return None
        if self._last is None or not _same(sample.data, self._last.data) or _empty(sample, self):
            self._changed_ns = sample.stamp_ns
            return None
        if sample.stamp_ns - self._changed_ns > self.stream.max_age_ns:
            return Reason.stream_frozen
        return None


def _same(a: Array, b: Array) -> bool:
    """Equal in every value; nearly free where noise makes them differ."""
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    step = max(1, flat_a.size // _PROBES)
    return bool((flat_a[::step] == flat_b[::step]).all()) and bool((flat_a == flat_b).all())


def _empty(sample: Sample, intake: Intake) -> bool:
    """A scan that sees nothing at all repeats in an open field, without being frozen."""
    return intake.stream.type == "range_scan" and bool((sample.data == np.inf).all())
