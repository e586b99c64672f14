"""firmware_bridge.link and edge-wm link against the firmware itself, as a process here.

Deadlines are read on the firmware's clock: its records and stamps. The emulated boards run in real
time on machines that others use, so their dead-man time is 250 ms here (the boards' maximum), and
50 ms more are allowed for a process that is not scheduled; tests/firmware holds the 1 ms in
lock-step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edge_wm.cli import main
from edge_wm.errors import DeviceRefusal, LinkError, MismatchError
from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.robot import Link, find_robot, load_robot
from firmware_bridge.emulated import EmulatedBoard, build_firmware
from firmware_bridge.hil.bench import Bench
from firmware_bridge.link import SerialLink
from firmware_bridge.messages import EmergencyStop, Status
from firmware_bridge.proxy import KINDS, FaultProxy
from firmware_bridge.transport import open_transport
from firmware_bridge.wire import encode

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="no gcc here to build the firmware with"
)


def loose(name: str):
    return dataclasses.replace(load_robot(find_robot(name)), dead_man_ns=250_000_000)


ARM, ROVER = loose("arm"), loose("rover")


@pytest.fixture(scope="module")
def executable():
    return build_firmware()


@pytest.fixture
def board(executable):
    with EmulatedBoard("arm", executable=executable) as board:
        yield board


@pytest.fixture
def rover(executable):
    with EmulatedBoard("rover", executable=executable) as board:
        yield board


def bench_of(robot, port: str) -> Bench:
    return Bench(robot, Link("serial", port), may_move=True)


def drive(link: SerialLink, seconds: float, vx: float) -> list:
    """Send setpoints as the guard would, at 100 Hz; returns the samples."""
    bench = bench_of(link.robot, link.link.port)
    samples, due = [], link.now_ns
    for _ in range(int(seconds * 100)):
        link.send(bench.setpoint(due, [0.0, 0.0], [vx, 0.0]))
        due += 10_000_000
        samples += link.step_to(max(due, link.now_ns))
        due = max(due, link.now_ns - 20_000_000)
    return samples


def wait_for(holds, seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_rover_drives_through_the_link_and_its_wheels_are_measured(rover):
    link = SerialLink(ROVER, Link("serial", rover.port))
    try:
        assert link.state.connected
        assert not link.armed
        link.arm()
        samples = drive(link, 1.0, 0.3)
        assert link.state.mode == Mode.active
        assert link.statistics.commands > 80
        assert link.state.status.frames_refused == 0
        wheels = [sample for sample in samples if sample.stream == "wheels"]
        assert len(wheels) > 60
        stamps = [sample.stamp_ns for sample in wheels]
        assert stamps == sorted(set(stamps))
        assert all(s.stamp_ns <= s.received_ns for s in wheels)
        last = wheels[-1].data
        np.testing.assert_allclose(last[1], 0.3 / ROVER.base.wheel_radius, rtol=0.2)
        assert last[0, 0] == pytest.approx(last[0, 1], abs=0.1)
        assert last[0, 0] > 1.0
        assert link.disarm().mode == Mode.idle
        assert not link.armed
    finally:
        link.close()
        link.close()


def test_setpoints_are_withheld_until_it_is_armed_and_bad_ones_are_counted(rover):
    link = SerialLink(ROVER, Link("serial", rover.port))
    try:
        drive(link, 0.1, 0.3)
        assert link.statistics.commands == 0
        assert link.statistics.withheld > 0
        link.arm()
        good = bench_of(ROVER, "x").setpoint(link.now_ns, [0.0, 0.0], [0.1, 0.0])
        link.send(dataclasses.replace(good, velocity=np.array([[np.nan, 0.0], [0.0, 0.0]])))
        wait_for(lambda: link.statistics.refused[Reason.setpoint_invalid] == 1)
    finally:
        link.close()


def test_silence_brakes_and_latches_on_the_devices_clock(rover):
    link = SerialLink(ROVER, Link("serial", rover.port))
    try:
        link.arm()
        drive(link, 0.5, 0.3)
        wait_for(lambda: link.state.mode == Mode.fault)
        assert link.state.why == "the device disarmed itself: setpoint_expired"
        assert link.state.reason == Reason.setpoint_expired
        record = link.faults()[0]
        assert record.reason == Reason.setpoint_expired
        assert record.value <= 300_000  # us since the last accepted command
        with pytest.raises(DeviceRefusal, match="the device refuses Arm: already_latched"):
            link.arm()
        with pytest.raises(DeviceRefusal, match="the device refuses Reset: already_latched"):
            link.reset(Reason.over_current)
        assert link.reset(Reason.setpoint_expired).mode == Mode.idle
        assert not link.armed
        link.arm()
    finally:
        link.close()


def test_a_reconnect_never_arms(rover, tmp_path):
    """The cable is pulled while it drives, and put back: it stays disarmed until someone arms."""
    with FaultProxy(tmp_path / "p", rover.socket, {}) as proxy:
        link = SerialLink(ROVER, Link("serial", f"unix:{tmp_path}/p"))
        try:
            link.arm()
            drive(link, 0.3, 0.3)
            proxy.pull()
            wait_for(lambda: not link.armed)
            assert "the device has been silent for 250 ms" in link.state.why
            proxy.plug()
            wait_for(lambda: link.state.connected, 10.0)
            drive(link, 0.5, 0.3)
            assert link.statistics.reconnects == 1
            assert not link.armed
            status = link.state.status
            assert not status.flags & (Status.ARMED | Status.TORQUE_ENABLED)
            assert link.faults()[0].reason == Reason.setpoint_expired
            link.reset(Reason.setpoint_expired)
            link.arm()
        finally:
            link.close()


def test_a_killed_board_is_told_and_found_again(executable, tmp_path):
    board = EmulatedBoard("rover", executable=executable)
    link = SerialLink(ROVER, Link("serial", board.port))
    try:
        link.arm()
        os.kill(board.pid, signal.SIGKILL)
        wait_for(lambda: not link.state.connected)
        assert link.state.why.startswith(f"port {board.port}: ")
        with pytest.raises(LinkError):
            link.arm()
    finally:
        link.close()
        board.close()


HOST = """
import sys, dataclasses
sys.path.insert(0, {root!r})
from tests.link.test_emulated import ROVER, drive
from edge_wm.robot import Link
from firmware_bridge.link import SerialLink
link = SerialLink(ROVER, Link("serial", sys.argv[1]))
link.arm()
print("armed", flush=True)
drive(link, 60.0, 0.3)
"""


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_a_host_that_dies_or_stands_still_stops_the_robot(rover, blow):
    root = str(find_robot("rover").parents[1])
    host = subprocess.Popen(
        [sys.executable, "-c", HOST.format(root=root), rover.port], stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert host.stdout.readline() == b"armed\n"
        time.sleep(0.5)
        host.send_signal(blow)
        time.sleep(0.6)
        host.kill()
    finally:
        host.kill()
        host.wait()
        host.stdout.close()
    bench = bench_of(ROVER, rover.port)
    try:
        status = bench.session.newest_status()
        assert status.mode == Mode.fault
        assert not status.flags & (Status.ARMED | Status.TORQUE_ENABLED)
        record = bench.newest_fault()
        assert record.reason == Reason.setpoint_expired
        assert record.value <= 300_000  # us from the last accepted command to braking
    finally:
        bench.close()


def test_no_frame_is_applied_wrongly_whatever_the_wire_does(rover, tmp_path):
    """Every fault at once for some seconds: what the firmware plays is what was commanded."""
    rates = dict.fromkeys(KINDS, 0.01) | {"delay": 0.001, "flood": 0.003}
    with FaultProxy(tmp_path / "p", rover.socket, rates, seed=4, directions=("up",)) as proxy:
        bench = bench_of(ROVER, f"unix:{tmp_path}/p")
        try:
            bench.arm()
            start = bench.positions(bench.session.newest_status())
            sent, seen = {}, []
            for command, statuses in bench.play(4.0, [0.2, 0.0], start, 500_000_000):
                sent[bench.session._sequence] = command
                seen += statuses
            assert sum(proxy.done.values()) > 20
            accepted = [s.command_sequence for s in seen if s.command_sequence]
            assert set(accepted) <= set(sent)
            assert accepted == sorted(accepted)
            turning = max(abs(status.axis[1].velocity) for status in seen)
            fast = max(status.axis[0].velocity for status in seen)
            assert turning < 20_000  # nobody commanded to turn
            assert fast < 230_000
        finally:
            bench.close()


# ---- the command line -----------------------------------------------------------------------
@pytest.fixture
def run(capsys, monkeypatch):
    """Run `edge-wm` here: (exit code, stdout, stderr)."""

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["edge-wm", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out = capsys.readouterr()
        return ended.value.code or 0, out.out, out.err

    return command


def test_link_status_monitor_faults_reset_and_disarm(board, run):
    port = board.port
    code, out, err = run("link", "status", "--port", port, "--robot", "arm", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["board"] == "emulated-arm"
    assert told["status"]["mode"] == "idle"
    assert told["limits"]["limits"]["dead_man_us"] == 40_000
    _, out, _ = run("link", "status", "--port", port)
    assert out.splitlines()[-1] == f"{port}: idle, disarmed, 0 fault records"
    _, out, _ = run("link", "monitor", "--port", port, "--for", "0.3", "--every", "0.1", "--json")
    assert all(json.loads(line)["mode"] == "idle" for line in out.splitlines())
    assert run("link", "disarm", "--port", port) == (0, f"{port}: disarmed, idle\n", "")
    assert run("link", "faults", "--port", port) == (0, "0 fault records\n", "")
    transport = open_transport(port, 0)
    transport.write(encode(EmergencyStop(), session_id=0, sequence=0))
    time.sleep(0.1)
    transport.close()
    _, out, _ = run("link", "status", "--port", port)
    assert "latched: estop_pressed. " in out
    code, _, err = run("link", "reset", "over_current", "--port", port)
    assert code == 3
    assert err.startswith(f"edge-wm: port {port}: the device refuses Reset: already_latched")
    code, out, _ = run("link", "reset", "estop_pressed", "--port", port)
    assert (code, out) == (0, f"{port}: estop_pressed released, idle\n")
    _, out, _ = run("link", "faults", "--port", port, "--json")
    assert [fault["reason"] for fault in json.loads(out)] == ["estop_pressed"]


def test_link_arm_holds_and_disarms(board, run):
    text = find_robot("arm").read_text().replace("dead_man_ms: 40", "dead_man_ms: 250")
    file = board.socket.parent / "arm.yaml"
    file.write_text(text)
    told = run("link", "arm", "--robot", str(file), "--port", board.port, "--for", "0.5")
    assert told == (
        0,
        f"{board.port}: held, disarmed, idle\n",
        f"{board.port}: torque on for 0.5 s, held at rest: shoulder, elbow\n",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (
            ("status",),
            2,
            "which board? Give --port /dev/ttyACM0, --robot NAME whose file has a serial link, or "
            "--emulated arm",
        ),
        (
            ("faults", "--port", "/dev/x", "--emulated", "arm"),
            2,
            "--port and --emulated: give one of them; which board do you mean?",
        ),
        (
            ("reset", "hunger", "--port", "/dev/x"),
            2,
            "the reason must be one that `edge-wm explain` lists, got 'hunger'; `edge-wm link "
            "status` names the one that is latched",
        ),
        (
            ("disarm", "--robot", "arm"),
            3,
            "robot arm: links must hold an entry of kind serial to reach a board, found "
            "simulated; add it, or give --port",
        ),
    ],
)
def test_wrong_usage_is_one_sentence(run, arguments, code, told):
    assert run("link", *arguments) == (code, "", f"edge-wm: {told}\n")


def test_the_wrong_robots_board_is_named(rover):
    with pytest.raises(
        MismatchError, match="axis shoulder is position in rad, but axis 0 of board"
    ):
        SerialLink(ARM, Link("serial", rover.port))
