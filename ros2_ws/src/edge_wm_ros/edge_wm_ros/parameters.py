"""What can be set, node by node: declared once, with type, default, range and one sentence.

Everything is read once, at configure, into one frozen object, and is read-only from then on.
The tables in the README are generated from here (`python -m edge_wm_ros.parameters`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node

Settings = TypeVar("Settings")


def setting(
    default: Any, sentence: str, low: float | None = None, high: float | None = None
) -> Any:
    """A field of a settings class: its default, what it means, and its inclusive range."""
    return field(default=default, metadata={"sentence": sentence, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    bundle: str = setting("", "Path of the bundle; empty: the one shipped for the robot.")
    trust: str = setting("", "Paths of further public keys to trust, with ':' between them.")
    backend: str = setting("auto", "Which engine runs the model, as for `edge-wm run --backend`.")
    candidates: int = setting(0, "Candidates an iteration; 0: the bundle's.", 0, 65536)
    seed: int = setting(0, "Of the planner's random numbers.", 0, 2**31 - 1)
    goal_tolerance: float = setting(
        0.2, "A pose goal is reached within this (m, rad) of the odometry.", 0.001, 100.0
    )
    learn_delay: bool = setting(
        False, "Learn the actuation delay while driving, and plan with it; else the robot file's."
    )
    compressed: bool = setting(False, "Take images from <topic>/compressed (JPEG or PNG).")


@dataclass(frozen=True, slots=True)
class GuardSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    runtime_silence_ms: int = setting(
        250, "Without a status for this long the runtime counts as dead.", 20, 10_000
    )
    bridge_silence_ms: int = setting(
        250, "Without a state for this long the bridge counts as dead.", 20, 10_000
    )
    supervisor_silence_ms: int = setting(
        500, "Without a heartbeat for this long the supervisor counts as dead.", 20, 10_000
    )
    input_lost_ms: int = setting(
        1000, "A sensor that stays away longer than this latches a fault.", 100, 60_000
    )
    shadow: bool = setting(False, "Do everything but send setpoints.")
    output: str = setting(
        "bridge",
        "Where setpoints go: bridge, twist_stamped or twist (both to /cmd_vel), or "
        "joint_trajectory (to a stock joint_trajectory_controller).",
    )


@dataclass(frozen=True, slots=True)
class BridgeSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    guard_silence_ms: int = setting(
        250,
        "Without a setpoint for this long the bridge disarms (the device brakes much sooner).",
        20,
        10_000,
    )
    telemetry_silence_ms: int = setting(
        250, "Without telemetry for this long the device counts as dead.", 20, 10_000
    )


@dataclass(frozen=True, slots=True)
class SupervisorSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    autostart: bool = setting(True, "Bring the robot up to active without being asked.")
    bridge: bool = setting(True, "Is there a wm_bridge? False where wm_guard speaks to /cmd_vel.")
    alive_ms: int = setting(
        1000, "Every required input must have been usable for this long.", 0, 60_000
    )
    patience_s: float = setting(
        60.0, "Bring-up fails, and says what is missing, after this long.", 1.0, 3600.0
    )


@dataclass(frozen=True, slots=True)
class SimSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    seed: int = setting(0, "World, sensor noise and timing.", 0, 2**31 - 1)
    input: str = setting("device", "What drives it: device (setpoints) or cmd_vel (TwistStamped).")
    camera_drop: float = setting(0.0, "Share of frames that never arrive.", 0.0, 1.0)
    extra_camera_delay_ms: int = setting(0, "Frames arrive this much later.", 0, 10_000)


@dataclass(frozen=True, slots=True)
class VizSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    rate_hz: float = setting(5.0, "At most this many pictures a second.", 0.1, 60.0)
    publish_odometry_tf: bool = setting(
        False, "Publish odometry frame -> base frame on /tf; only where nobody else does."
    )
    publish_mounts_tf: bool = setting(
        True, "Publish the robot file's extrinsics on /tf_static; off where a URDF has them."
    )


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    robot: str = setting("rover", "A shipped robot's name, or the path of a robot file.")
    folder: str = setting("runs", "Where dumps are written.")
    seconds: float = setting(
        30.0, "How much is kept, and written when something happens.", 1.0, 3600.0
    )
    megabytes: int = setting(256, "At most this much memory is used for it.", 1, 65536)


ALL: dict[str, type] = {
    "wm_runtime": RuntimeSettings,
    "wm_guard": GuardSettings,
    "wm_bridge": BridgeSettings,
    "wm_supervisor": SupervisorSettings,
    "wm_sim": SimSettings,
    "wm_viz": VizSettings,
    "wm_recorder": RecorderSettings,
}


def declare(node: Node, kind: type[Settings]) -> None:
    """Declare every field of `kind` as a parameter, and refuse changes once they are in use."""
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        node.declare_parameter(item.name, item.default, _descriptor(item))

    def refuse(parameters: Any) -> SetParametersResult:
        if getattr(node, "settings", None) is None:
            return SetParametersResult(successful=True)
        names = ", ".join(parameter.name for parameter in parameters)
        return SetParametersResult(
            successful=False, reason=f"{names}: read at configure; clean the node up first"
        )

    node.add_on_set_parameters_callback(refuse)


def read(node: Node, kind: type[Settings]) -> Settings:
    """The parameters as one frozen object."""
    values = {f.name: node.get_parameter(f.name).value for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**values)


def _descriptor(item: dataclasses.Field[Any]) -> ParameterDescriptor:
    low, high = item.metadata["low"], item.metadata["high"]
    descriptor = ParameterDescriptor(description=item.metadata["sentence"])
    if low is not None and isinstance(item.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
    elif low is not None:
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    return descriptor


def span(item: dataclasses.Field[Any]) -> str:
    """A field's inclusive range in words; empty where it has none."""
    low, high = item.metadata["low"], item.metadata["high"]
    return "" if low is None else f"{low} … {high}"


def table(name: str) -> str:
    """The parameters of one node as a Markdown table."""
    lines = ["| parameter | default | range | meaning |", "|---|---|---|---|"]
    for item in dataclasses.fields(ALL[name]):
        sentence = item.metadata["sentence"].replace("<", "&lt;")
        default = '""' if item.default == "" else str(item.default).lower()
        if isinstance(item.default, str) and item.default:
            default = item.default
        lines.append(f"| `{item.name}` | {default} | {span(item)} | {sentence} |")
    return "\n".join(lines)


if __name__ == "__main__":
    for name in ALL:
        print(f"### {name}\n\n{table(name)}\n")
