"""The one list of processes that make up a robot.

`edge-wm run --ros` starts exactly these, and the launch files of edge_wm_bringup declare exactly
these: what the tests run is what a launch file launches.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Process:
    """One process: a module of this package that is a node."""

    name: str  # of the node, and of the executable
    module: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    respawn: bool = True  # started again if it dies; nothing moves by that alone


def processes(
    robot: str,
    *,
    simulated: bool = True,
    seed: int = 0,
    shadow: bool = False,
    output: str = "bridge",
    candidates: int = 0,
    backend: str = "auto",
    bundle: str = "",
    record: str = "",
    viz: bool = False,
    extra: Mapping[str, Mapping[str, Value]] | None = None,
) -> list[Process]:
    """What to start for a robot, in this order.

    output: where the guard's setpoints go: bridge, or, without one, twist_stamped, twist or
    joint_trajectory.
    record: a folder for dumps of the ring buffer; empty: no recorder. viz: markers and transforms
    for RViz and Foxglove. extra: further parameters by node.
    """
    listed: list[tuple[str, dict[str, Value]]] = []
    if simulated:
        driven_by = "device" if output == "bridge" else "cmd_vel"
        listed.append(("wm_sim", {"robot": robot, "seed": seed, "input": driven_by}))
    if output == "bridge":
        listed.append(("wm_bridge", {"robot": robot}))
    listed += [
        ("wm_guard", {"robot": robot, "shadow": shadow, "output": output}),
        (
            "wm_runtime",
            {
                "robot": robot,
                "seed": seed,
                "candidates": candidates,
                "backend": backend,
                "bundle": bundle,
            },
        ),
        ("wm_supervisor", {"robot": robot, "bridge": output == "bridge"}),
    ]
    if record:
        listed.append(("wm_recorder", {"robot": robot, "folder": record}))
    if viz:  # a simulated robot has nobody else who publishes odometry on /tf
        listed.append(("wm_viz", {"robot": robot, "publish_odometry_tf": simulated}))
    added = extra or {}
    return [
        Process(
            name, f"edge_wm_ros.{name.removeprefix('wm_')}_node", {**own, **added.get(name, {})}
        )
        for name, own in listed
    ]


def arguments(process: Process) -> list[str]:
    """Command-line arguments that set a process's parameters."""
    given = []
    for name, value in process.parameters.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if isinstance(value, str):
            text = f"'{value}'" if value else "''"
        given += ["-p", f"{name}:={text}"]
    return ["--ros-args", *given] if given else []
