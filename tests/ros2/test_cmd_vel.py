"""Tests the rover without a bridge: the guard speaks to /cmd_vel, as to a stock base controller."""

from __future__ import annotations

from pathlib import Path

from edge_wm_ros.driving import Drive
from edge_wm_ros.processes import processes

from ros2.test_robot import AT_REST, MS, PATIENT, ROVER, UP_WITHIN_S, set_off, speed, tell

TIMEOUT_NS = 100 * MS  # of the simulated base controller


def test_it_drives_by_cmd_vel_and_its_base_brakes_when_the_guard_dies(tmp_path: Path):
    extra = {"wm_guard": PATIENT["wm_guard"]}
    listed = processes("rover", seed=5, output="twist_stamped", extra=extra)
    assert "wm_bridge" not in {process.name for process in listed}
    with Drive(listed, logs=tmp_path / "logs", respawn=False) as drive:
        assert drive.until(lambda heard: heard.guard["epoch"] > 0, UP_WITHIN_S), tell(drive)
        set_off(drive)
        killed_ns = drive.heard.truth["now_ns"]
        drive.heard.fastest = [0.0, 0.0]
        drive.fleet.kill("wm_guard")
        rests = drive.until(lambda heard: heard.truth["now_ns"] - heard.moved_ns > 300 * MS, 8.0)
        assert rests, tell(drive)
        assert speed(drive.heard) < AT_REST
        braking_ns = round(
            1e9 * max(v / a.braking for v, a in zip(drive.heard.fastest, ROVER.axes, strict=True))
        )
        noticed_ns = TIMEOUT_NS + ROVER.setpoint_period_ns + ROVER.actuation_delay_ns
        took_ns = drive.heard.moved_ns - killed_ns
        assert took_ns <= noticed_ns + braking_ns + 150 * MS, f"{took_ns / MS:.0f} ms"
