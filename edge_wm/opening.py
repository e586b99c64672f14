"""From a robot's name and a bundle's path to both, opened, verified and trusted."""

from __future__ import annotations

from pathlib import Path

from edge_wm import shipped
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.errors import UsageError
from edge_wm.robot import Robot, find_robot, load_robot


def bundle_path(robot: Robot, given: Path | None) -> Path:
    """The bundle that was asked for, or the one shipped for `robot`: zoo/*/<robot>.wmb.

    Raises: UsageError if there is none.
    """
    if given is not None:
        return given
    zoo = shipped.folder("zoo")
    found = sorted(zoo.glob(f"*/{robot.name}.wmb"))
    if not found:
        raise UsageError(
            f"no bundle is shipped for the robot {robot.name!r} ({zoo}/*/{robot.name}.wmb does not "
            "exist); name one with --bundle FILE"
        )
    return found[0]


def open_for(
    robot_name: str, bundle: Path | None, trust: list[Path] | None
) -> tuple[Path, Robot, Bundle]:
    """The robot file's path, the robot, and its verified bundle."""
    robot_file = find_robot(robot_name)
    robot = load_robot(robot_file)
    simulated = all(link.kind == "simulated" for link in robot.links)
    trusted = load_trust(trust or (), developer=simulated)
    return robot_file, robot, open_bundle(bundle_path(robot, bundle), trusted)
