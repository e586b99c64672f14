"""What the runtime needs of whatever moves the robot.

The guard hands one setpoint after another to a `Sink`: a simulator, a serial link to a
microcontroller, a ROS topic. The invariant on which safety rests: a sink never waits, and it
brakes by itself once a setpoint's `valid_until_ns` has passed without a successor.
"""

from __future__ import annotations

from typing import Protocol

from edge_wm.types import Sample, Setpoint


class Sink(Protocol):
    """Where setpoints go."""

    def send(self, setpoint: Setpoint) -> None:
        """Take `setpoint` over and return at once; a bad one is ignored and counted."""
        ...


class Link(Sink, Protocol):
    """A sink that also delivers what the robot measures."""

    @property
    def now_ns(self) -> int:
        """The link's clock: that of every stamp in its samples."""
        ...

    def step_to(self, now_ns: int) -> list[Sample]:
        """Let time pass until `now_ns`; return what arrived by then, in order of arrival."""
        ...

    def close(self) -> None:
        """Release what the link holds; the robot is left braking. May be called twice."""
        ...
