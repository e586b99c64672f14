"""The nouns that travel between the rooms of edge-wm.

One control tick turns `Sample`s into an `Observation`, that into a `Belief`, that into a
`Proposal`, that into a `Trajectory`, which the guard answers with an `Acceptance`; and a
faster tick turns the accepted trajectory into one `Setpoint` after another, each wrapped in a
`Verdict` that says why it is what it is.

Invariants of every value here: made once and never changed (frozen, arrays read-only by
agreement), SI units, every time an integer number of nanoseconds on the runtime's clock with
`_ns` in its name. Arrays are C-contiguous. Axes, everywhere in this order and with one
meaning each: K candidates, H horizon steps, A action axes, N trajectory knots, J joints,
R range beams.

Sensor data and model tensors are in their declared dtype, computed model values float32;
motion (trajectories and setpoints) is float64, because a position is differentiated three
times at the setpoint rate to check its jerk, which float32's 24 bits do not carry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_wm.modes import Mode
from edge_wm.reasons import Reason

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

# What `Sample.data` holds, by stream type (the types that a robot file can name).
STREAM_TYPES: Mapping[str, str] = {
    "image": "(height, width, 3) uint8, RGB",
    "joint_state": "(2, J) float32: positions (rad or m), then velocities (rad/s or m/s)",
    "imu": "(6,) float32: angular velocity x y z (rad/s), linear acceleration x y z (m/s^2)",
    "range_scan": "(R,) float32, m, counter-clockwise from angle_min; +inf is 'nothing in range'",
    "odometry": "(6,) float64: x, y (m), yaw (rad) in the odometry frame; "
    "vx, vy (m/s), wz (rad/s) in the base frame",
    "vector": "(N,) float32, meaning and units as the robot file says",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one stream."""

    stream: str
    stamp_ns: int  # when it was measured
    received_ns: int  # when it reached this process
    sequence: int  # the sensor's own counter, or ours where it has none
    data: Array  # layout by stream type, see STREAM_TYPES


@dataclass(frozen=True, slots=True)
class Seen:
    """What the synchronizer has to say of one stream at one moment."""

    sample: Sample | None  # None: nothing usable yet
    age_ns: int  # now - stamp; a very large number where there is no sample
    reason: Reason | None  # why it is not usable (stale, skewed, missing ...), None if it is


@dataclass(frozen=True, slots=True)
class Drop:
    """A sample that the synchronizer refused, and why."""

    stream: str
    stamp_ns: int
    received_ns: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Observation:
    """The newest consistent view of all streams at `now_ns`."""

    now_ns: int
    stamp_ns: int  # the moment that the view describes: the reference stream's stamp, or now
    streams: Mapping[str, Seen]
    drops: tuple[Drop, ...] = ()  # refused since the last observation

    @property
    def usable(self) -> bool:
        """True if every stream has a fresh, consistent sample."""
        return all(seen.reason is None for seen in self.streams.values())

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why it is not usable, in stream order, without repeats."""
        return tuple(dict.fromkeys(s.reason for s in self.streams.values() if s.reason is not None))


@dataclass(frozen=True, slots=True)
class Belief:
    """What the world model holds true at `stamp_ns`: named tensors without a batch axis."""

    stamp_ns: int
    tensors: Mapping[str, Array]


# ---- goals ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PoseGoal:
    """A base pose to reach. `yaw` None: any heading will do."""

    x: float  # m
    y: float  # m
    yaw: float | None = None  # rad
    frame: str = "odom"


@dataclass(frozen=True, slots=True, eq=False)
class JointGoal:
    position: Float64  # (J,) rad or m, in the robot file's joint order

    def __eq__(self, other: object) -> bool:
        return isinstance(other, JointGoal) and np.array_equal(self.position, other.position)


@dataclass(frozen=True, slots=True, eq=False)
class ImageGoal:
    image: Array  # (height, width, 3) uint8

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageGoal) and np.array_equal(self.image, other.image)


@dataclass(frozen=True, slots=True, eq=False)
class LatentGoal:
    latent: Float32  # (Z,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatentGoal) and np.array_equal(self.latent, other.latent)


Goal = PoseGoal | JointGoal | ImageGoal | LatentGoal


# ---- planning ---------------------------------------------------------------------------
class Budget(Protocol):
    """Asked by the planner between iterations; live it reads a clock, in replay a list."""

    def more(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Rollout:
    """The outcome of imagining K action sequences."""

    cost: Float32  # (K,), weighted sum over terms and steps; +inf where infeasible or not finite
    infeasible: Bool  # (K,)
    terms: Mapping[str, Float32] = field(default_factory=dict)  # name -> (K,), unweighted sums
    beliefs: Mapping[str, Array] | None = None  # name -> (K, H + 1, ...), on request


class RolloutFunction(Protocol):
    """How a planner imagines. actions: (K, H, A) float32, SI units."""

    def __call__(self, belief: Belief, actions: Float32, goal: Goal, seed: int) -> Rollout: ...


@dataclass(frozen=True, slots=True)
class PolicyProposal:
    """What a learned policy would do; the planner mixes it into its candidates."""

    mean: Float32  # (H, A), SI units
    std: Float32  # (H, A), SI units, 0 where the policy is sure


@dataclass(frozen=True, slots=True)
class Proposal:
    """The planner's answer: not yet allowed to move anything."""

    stamp_ns: int  # the observation it was planned from
    apply_at_ns: int  # the moment at which its first action takes effect
    step_ns: int  # the duration of one action
    axes: tuple[str, ...]
    actions: Float32  # (H, A), SI units
    cost: float  # of `actions`; +inf if no feasible candidate was found
    iterations: int
    candidates: int  # rolled out over all iterations
    infeasible: int  # of those
    answers: tuple[bool, ...]  # what the budget said each time that it was asked
    reason: Reason | None = None  # set where the planner has nothing good to propose
    terms: Mapping[str, float] = field(default_factory=dict)  # cost terms of `actions`


# ---- motion -----------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Trajectory:
    """A finished motion: starts at the current command and ends at rest.

    Knot i is at `start_ns + i * period_ns`. For an axis of kind position, `position` is the
    joint position; for velocity and twist axes it is the distance traveled since the start.
    """

    epoch: int  # counter of activations; the guard refuses another epoch's
    sequence: int  # counts up within an epoch
    stamp_ns: int  # the observation it was planned from
    start_ns: int  # the time of knot 0
    period_ns: int
    axes: tuple[str, ...]
    position: Float64  # (N, A)
    velocity: Float64  # (N, A)
    acceleration: Float64  # (N, A)
    brake_index: int  # knots from here on are the braking tail; the last knot is at rest
    effort: Float64 | None = None  # (N, A), only where an axis commands effort

    @property
    def end_ns(self) -> int:
        return self.start_ns + (len(self.position) - 1) * self.period_ns


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The guard's answer to a trajectory."""

    accepted: bool
    epoch: int
    sequence: int
    now_ns: int
    reasons: tuple[Reason, ...]  # empty if accepted
    detail: str = ""  # one sentence: the first violated limit with its value, axis and time


@dataclass(frozen=True, slots=True)
class Setpoint:
    """What is sent to the motors: two or more knots, and how to stop if nothing follows.

    After `valid_until_ns` the device brakes each axis by `brake_deceleration` from wherever it
    is, and is at rest at `brake_end_ns`.
    """

    epoch: int
    sequence: int
    axes: tuple[str, ...]
    times_ns: Int64  # (M,), ascending, M >= 2
    position: Float64  # (M, A)
    velocity: Float64  # (M, A)
    brake_deceleration: Float64  # (A,), > 0
    brake_end_ns: Int64  # (A,)
    apply_at_ns: int  # = times_ns[0]
    valid_until_ns: int
    effort: Float64 | None = None  # (M, A)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The guard's answer to one setpoint tick."""

    now_ns: int
    mode: Mode
    setpoint: Setpoint
    reasons: tuple[Reason, ...]  # what it did and why; empty: playing the trajectory untouched
    speed_scale: float = 1.0  # 1: as planned, 0: braking or at rest


@dataclass(frozen=True, slots=True)
class Command:
    """What is commanded at one moment: where a new trajectory has to start."""

    at_ns: int
    position: Float64  # (A,); for velocity and twist axes the distance since activation
    velocity: Float64  # (A,)
    acceleration: Float64  # (A,)


@dataclass(frozen=True, slots=True)
class Motion:
    """Motion over a stretch of time: what was sent, or what is committed to be sent."""

    axes: tuple[str, ...]
    times_ns: Int64  # (N,), ascending
    position: Float64  # (N, A)
    velocity: Float64  # (N, A)
