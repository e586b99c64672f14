"""firmware_bridge.looped: the simulated rover with real firmware as its wheel controllers.

The firmware and the wheels are in lock-step; the host is in real time, with a dead-man of 250 ms.
What matters for safety is read from the window and the simulation, on the firmware's clock.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_wm.cli.looping import loosened
from edge_wm.errors import DeviceRefusal, LinkError, UsageError
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Link, find_robot, load_robot
from edge_wm.simulation import RoverSimulation
from firmware_bridge.emulated import EmulatedBoard, build_firmware
from firmware_bridge.hil.bench import Bench
from firmware_bridge.link import link_to
from firmware_bridge.lockstep import Library, Lockstep, Native
from firmware_bridge.looped import FirmwareWheels, FollowedWheels, Looped
from firmware_bridge.proxy import FaultProxy

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no gcc here to build the firmware with"
)
ROVER = loosened(load_robot(find_robot("rover")))
assert ROVER.base is not None
WORLD = 1_000_003


class Rig:
    """A rover in the loop, and the parts to look at."""

    def __init__(self, board: Lockstep, port: str) -> None:
        assert ROVER.base is not None
        self.board = board
        self.simulation = RoverSimulation(ROVER, WORLD, drive=FirmwareWheels(ROVER.base, board))
        self.looped = Looped(ROVER, self.simulation, link_to(ROVER, port), board=board)
        self._bench = Bench(ROVER, Link("serial", port), may_move=True)
        self.samples: list = []

    def drive(self, seconds: float, vx: float) -> None:
        """Setpoints at their rate, in the firmware's time; what arrives goes to `samples`."""
        due_ns = self.simulation.now_ns
        end_ns = due_ns + int(seconds * 1e9)
        while due_ns < end_ns:
            self.looped.send(self._bench.setpoint(due_ns, [0.0, 0.0], [vx, 0.0]))
            due_ns += ROVER.setpoint_period_ns
            while self.simulation.now_ns < due_ns:
                time.sleep(0.001)
                self.samples += self.looped.step_to(due_ns)
            due_ns = max(due_ns, self.simulation.now_ns)

    def until_it_breaks(self, seconds: float = 5.0) -> str:
        """Drive on; what the link then says."""
        with pytest.raises(LinkError) as broken:
            self.drive(seconds, 0.3)
        return str(broken.value)


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Library("rover", build_firmware("lockstep")) as board:
        made = Rig(board, board.serve())
        yield made
        made.looped.close()
        made.looped.close()


def test_the_base_does_the_work_that_the_axes_do() -> None:
    """Force times speed is wheel torque times wheel speed, whatever the firmware asks for."""
    board = Library("rover", build_firmware("lockstep"))
    assert ROVER.base is not None
    wheels = FirmwareWheels(ROVER.base, board)
    speeds = np.array(ROVER.base.wheel_speeds(0.4, -1.1))
    board.turn = lambda: None  # type: ignore[method-assign]
    board.window.torque_enable = 1
    board.window.axis_out[0].torque, board.window.axis_out[1].torque = 7_000, -2_500  # mN, mN m
    torques = wheels.torques(np.zeros(2), speeds)
    assert torques @ speeds == pytest.approx(7.0 * 0.4 + 2.5 * 1.1)
    assert board.window.axis_in[0].velocity == pytest.approx(400_000, abs=1)
    assert board.window.axis_in[1].velocity == pytest.approx(-1_100_000, abs=1)
    wheels.torques(np.array([1e5, 1e5]), speeds)  # 6 km: the distance wraps
    wrapped = (6_000_000_000 + 2**31) % 2**32 - 2**31
    assert 0 <= wrapped - board.window.axis_in[0].position < 93  # um, a count
    board.window.torque_enable = 0
    assert not wheels.torques(np.zeros(2), speeds).any()


def test_it_drives_and_its_wheels_are_measured_by_the_firmware(rig: Rig) -> None:
    rig.drive(0.3, 0.3)
    assert rig.simulation.truth().twist[0] == pytest.approx(0.0, abs=0.02)  # nobody armed it
    rig.looped.arm()
    rig.samples.clear()
    rig.drive(1.2, 0.3)
    assert rig.simulation.truth().twist[0] == pytest.approx(0.3, abs=0.05)
    assert rig.board.window.mode == Mode.active
    assert {sample.stream for sample in rig.samples} == {"camera", "wheels", "imu", "scan"}
    wheels = [sample for sample in rig.samples if sample.stream == "wheels"]
    stamps = [sample.stamp_ns for sample in wheels]
    assert stamps == sorted(set(stamps))
    assert len(wheels) > 60
    np.testing.assert_allclose(wheels[-1].data[1], 0.3 / 0.06, atol=1.0)
    facts = rig.looped.facts()
    assert facts["dead_man_ms"] == 250
    assert facts["commands"] > 40  # some are overtaken where the machine is busy
    assert facts["frames_refused"] == facts["not_sayable"] == facts["reconnects"] == 0
    assert 20 < facts["load_percent"] < 60
    assert facts["clock_error_us"] <= 1000
    rig.looped.close()
    assert rig.looped.facts()["mode"] == "idle"  # disarmed, not latched
    assert rig.board.window.torque_enable == 0


def test_a_setpoint_takes_effect_after_the_delay_that_is_asked_for() -> None:
    with Library("rover", build_firmware("lockstep")) as board:
        assert ROVER.base is not None
        simulation = RoverSimulation(ROVER, WORLD, drive=FirmwareWheels(ROVER.base, board))
        port = board.serve()
        looped = Looped(ROVER, simulation, link_to(ROVER, port), board=board, delay_ns=60_000_000)
        try:
            looped.arm()
            bench = Bench(ROVER, Link("serial", port), may_move=True)
            sent_ns = simulation.now_ns
            looped.send(bench.setpoint(sent_ns, [0.0, 0.0], [0.3, 0.0]))
            while board.window.axis_out[0].reference_velocity == 0:
                assert simulation.now_ns < sent_ns + 200_000_000
            assert sent_ns + 59_000_000 <= simulation.now_ns <= sent_ns + 80_000_000
        finally:
            looped.close()


def test_a_fault_of_the_firmware_ends_it_and_nothing_is_armed_again(rig: Rig) -> None:
    rig.looped.arm()
    rig.drive(0.5, 0.3)
    rig.board.window.estop_open = 1
    told = rig.until_it_breaks()
    assert "the device disarmed itself: estop_pressed; nothing was armed again" in told
    rig.board.window.estop_open = 0
    time.sleep(0.6)
    assert "estop_pressed" in rig.until_it_breaks()
    assert rig.board.window.torque_enable == 0
    assert abs(rig.simulation.truth().twist[0]) < 0.06  # it rolls out without torque
    with pytest.raises(DeviceRefusal, match="already_latched"):
        rig.looped.arm()


def test_a_pulled_cable_brakes_within_the_dead_man_and_stays_so_when_it_is_back(
    tmp_path,
) -> None:
    with Library("rover", build_firmware("lockstep")) as board:
        line = Path(board.serve().removeprefix("unix:"))
        with FaultProxy(tmp_path / "p", line, {}) as proxy:
            rig = Rig(board, f"unix:{tmp_path}/p")
            try:
                rig.looped.arm()
                rig.drive(0.5, 0.3)
                pulled_ns = rig.simulation.now_ns
                proxy.pull()
                while not board.window.braking:
                    assert rig.simulation.now_ns < pulled_ns + 260_000_000
                told = rig.until_it_breaks()
                assert "the device has been silent for 250 ms" in told
                proxy.plug()
                time.sleep(1.5)  # the link has connected again
                assert rig.looped.facts()["reconnects"] == 1
                assert (board.window.mode, board.window.torque_enable) == (Mode.fault, 0)
                assert "nothing was armed again" in rig.until_it_breaks()
                assert rig.looped.facts()["latched"] == Reason.setpoint_expired.name
            finally:
                rig.looped.close()


def test_a_killed_board_is_told() -> None:
    with Native("rover", build_firmware()) as board:
        rig = Rig(board, board.serve())
        try:
            rig.looped.arm()
            os.kill(board.pid, signal.SIGKILL)
            assert "it was killed by signal 9" in rig.until_it_breaks()
            assert "it was killed by signal 9" in rig.looped.facts()["why"]
        finally:
            rig.looped.close()


def follow_a_real_board() -> tuple[tuple[float, float], str]:
    """Drive a second through a board on a PTY: the simulated twist then, and what was told."""
    assert ROVER.base is not None
    followed = FollowedWheels(ROVER.base)
    with EmulatedBoard("rover", pty=True) as board:
        simulation = RoverSimulation(ROVER, WORLD, drive=followed)
        looped = Looped(ROVER, simulation, link_to(ROVER, board.port), followed=followed)
        bench = Bench(ROVER, Link("serial", "x"), may_move=True)
        try:
            looped.arm()
            end_ns = looped.now_ns + 1_200_000_000
            while (now_ns := looped.now_ns) < end_ns:
                looped.send(bench.setpoint(now_ns, [0.0, 0.0], [0.2, 0.5]))
                time.sleep(0.01)
                looped.step_to(now_ns)
            assert looped.facts()["firmware"] == f"a board at {board.port}"
            return simulation.truth().twist, ""
        except LinkError as error:
            return simulation.truth().twist, str(error)
        finally:
            looped.close()


def test_a_real_boards_wheels_are_followed_by_the_simulated_ones() -> None:
    """On a port and in real time: here the firmware with its ideal wheels, behind a PTY."""
    for _ in range(3):  # once more where a shared machine held it up for the dead-man time
        (vx, wz), told = follow_a_real_board()
        if not told:
            break
        assert "setpoint_expired" in told
    assert told == ""
    assert vx == pytest.approx(0.2, abs=0.05)
    assert wz == pytest.approx(0.5, abs=0.15)


def test_the_dead_man_of_an_emulated_run_stands_in_the_robots_own_text() -> None:
    robot = load_robot(find_robot("rover"))
    assert loosened(robot).dead_man_ns == 250_000_000
    assert "dead_man_ms: 250" in loosened(robot).text
    assert math.isclose(robot.dead_man_ns, 50_000_000)
    inside = robot.text.replace("dead_man_ms: 50", "'dead_man_ms': 50")
    from edge_wm.robot import parse_robot

    with pytest.raises(UsageError, match="must stand on one line of its own, found 0; write it so"):
        loosened(parse_robot(inside, "rover"))
