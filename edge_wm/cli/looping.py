"""`edge-wm run --hil`: the simulated robot with the real firmware as its motor controllers."""

from __future__ import annotations

import re

from edge_wm.errors import UsageError
from edge_wm.robot import Robot, parse_robot
from edge_wm.simulation import ArmSimulation, RoverSimulation
from firmware_bridge.link import link_to
from firmware_bridge.lockstep import best_board
from firmware_bridge.looped import FirmwareJoints, FirmwareWheels, FollowedWheels, Looped

# An emulated board runs in real time on a machine that others use, which stands still for longer
# than a robot's dead-man time: the boards' compiled maximum. The report says so.
EMULATED_DEAD_MAN_MS = 250


def loosened(robot: Robot) -> Robot:
    """`robot` with the dead-man time of emulated runs, in its text too, so that a replay has it.

    Raises: UsageError if the file's text does not say dead_man_ms on a line of its own.
    """
    line = f"dead_man_ms: {EMULATED_DEAD_MAN_MS}  # of a run with an emulated controller"
    text, count = re.subn(r"(?m)^dead_man_ms:.*$", line, robot.text)
    if count != 1:
        raise UsageError(
            f"robot file {robot.name}: --hil sets dead_man_ms to {EMULATED_DEAD_MAN_MS}, for which "
            f"it must stand on one line of its own, found {count}; write it so"
        )
    return parse_robot(text, robot.name)


def looped_robot(
    robot: Robot, world_seed: int, seed: int, port: str | None
) -> tuple[ArmSimulation | RoverSimulation, Looped]:
    """The robot in world `world_seed`, moved by the board at `port`; None: by an emulated one.

    A setpoint takes effect after the robot file's actuation delay, as it does without firmware.

    Raises: what is wrong with the board or the link (LinkError, SystemTroubleError); MismatchError
    if it is no robot that can be simulated; UsageError for an arm on a port.
    """
    delay_ns = robot.actuation_delay_ns
    if port is not None:
        if robot.base is None:
            raise UsageError(
                f"robot {robot.name}: --hil-port lets simulated wheels follow those of a board, "
                "and an arm has none; use --hil, or the suites of `edge-wm hil --port`"
            )
        followed = FollowedWheels(robot.base)
        driven = RoverSimulation(robot, world_seed, seed=seed, drive=followed)
        link = link_to(robot, port)
        return driven, Looped(robot, driven, link, followed=followed, delay_ns=delay_ns)
    board = best_board("arm" if robot.base is None else "rover")
    simulation: ArmSimulation | RoverSimulation
    if robot.base is None:
        simulation = ArmSimulation(robot, world_seed, seed=seed, drive=FirmwareJoints(board))
    else:
        wheels = FirmwareWheels(robot.base, board)
        simulation = RoverSimulation(robot, world_seed, seed=seed, drive=wheels)
    link = link_to(robot, board.serve())
    return simulation, Looped(robot, simulation, link, board=board, delay_ns=delay_ns)
