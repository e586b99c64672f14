"""Whether a model fits a robot: the two documents side by side, and both named if not.

The bundle says what the model was trained on, the robot file what there is. A model that sees
another camera or commands another axis must not run, however well it is signed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from edge_wm.bundle.manifest import Manifest
from edge_wm.errors import MismatchError


class _Stream(Protocol):
    @property
    def type(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...
    @property
    def unit(self) -> str: ...


class _Axis(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def unit(self) -> str: ...


class RobotLike(Protocol):
    """What of `edge_wm.robot.Robot` is compared (that room is a neighbor, so no import)."""

    @property
    def name(self) -> str: ...
    @property
    def streams(self) -> Mapping[str, _Stream]: ...
    @property
    def axes(self) -> Sequence[_Axis]: ...


def check_fit(manifest: Manifest, robot: RobotLike) -> None:
    """Whether this model can drive this robot: the same streams, the same axes in one order.

    Raises: MismatchError, naming both documents and what each says.
    """
    bundle, machine = f"bundle {manifest.name} {manifest.version}", f"robot file {robot.name}"
    advice = "use the bundle made for this robot, or train one on its streams and axes"
    for name, need in manifest.needs.streams.items():
        stream = robot.streams.get(name)
        if stream is None:
            raise MismatchError(
                f"{bundle} needs stream {name!r}; {machine} has only "
                f"{', '.join(robot.streams)}; {advice}"
            )
        wanted = (need.type, list(need.shape), need.dtype, need.unit)
        found = (stream.type, list(stream.shape), str(stream.dtype), stream.unit)
        for field, want, have in zip(
            ("type", "shape", "dtype", "unit"), wanted, found, strict=True
        ):
            if want != have:
                raise MismatchError(
                    f"{bundle} needs stream {name!r} with {field} {want}; "
                    f"{machine} says {field} {have}; {advice}"
                )
    wants = [axis.name for axis in manifest.needs.axes]
    has = [axis.name for axis in robot.axes]
    if wants != has:
        raise MismatchError(
            f"{bundle} commands the axes {', '.join(wants)}; "
            f"{machine} has {', '.join(has)} (the order counts); {advice}"
        )
    for axis_need, axis in zip(manifest.needs.axes, robot.axes, strict=True):
        for field in ("kind", "unit"):
            want, have = getattr(axis_need, field), getattr(axis, field)
            if want != have:
                raise MismatchError(
                    f"{bundle} commands axis {axis.name} with {field} {want!r}; "
                    f"{machine} says {field} {have!r}; {advice}"
                )
