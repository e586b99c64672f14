"""`edge-wm run --ros`: the same drive, with each part of the robot as a ROS 2 node of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from edge_wm.errors import SystemTroubleError, UsageError

UP_WITHIN_S = 60.0  # loading a model, and measuring backends the first time
SAY_EVERY_S = 0.2
GOAL_EVERY_S = 0.5
RECORDED_S = 30.0  # the last of a run, at least
OK = b"\x00"  # diagnostic_msgs/DiagnosticStatus


def drive_with_ros(
    new_folder: Callable[[], Path],
    tell_line: Callable[[], AbstractContextManager[Callable[[str], None]]],
    *,
    robot: str,
    bundle: str,
    duration: float,
    seed: int,
    shadow: bool,
    candidates: int,
    backend: str,
    trust: list[Path],
    learn_delay: bool,
) -> dict[str, Any]:
    """Start the nodes, drive there and back for `duration` (s), end them; returns the summary.

    new_folder: makes the run's folder; each process logs into its `logs`, and what was recorded
    lies in its `dumps`. Raises UsageError without ROS 2 in this Python, SystemTroubleError if the
    robot does not come up.
    """
    try:
        import rclpy  # noqa: F401
        from edge_wm_ros.driving import Drive
        from edge_wm_ros.processes import processes
        from std_srvs.srv import Trigger
    except ImportError as error:
        raise UsageError(
            f"--ros: this Python must have ROS 2's rclpy and the package edge_wm_ros, and has not "
            f"({error}); `make run-ros` sets both up, or source a ROS 2 distribution and build "
            "ros2_ws with colcon (ros2_ws/README.md)"
        ) from error
    folder = new_folder()
    listed = processes(
        robot, seed=seed, shadow=shadow, candidates=candidates, backend=backend, bundle=bundle,
        record=str(folder / "dumps"),
        extra={
            "wm_runtime": {"trust": ":".join(map(str, trust)), "learn_delay": learn_delay},
            "wm_recorder": {"seconds": max(RECORDED_S, duration)},
        },
    )  # fmt: skip
    began = time.monotonic()
    interrupted = False
    drive = Drive(listed, logs=folder / "logs")
    with tell_line() as tell, drive:
        heard = drive.heard
        try:
            tell("starting the nodes")
            up = drive.until(lambda now: now.guard["epoch"] > 0, UP_WITHIN_S)
            up_s = time.monotonic() - began
            if not up:
                raise SystemTroubleError(
                    f"the robot must be up within {UP_WITHIN_S:g} s, and is not: "
                    f"{_why(heard.diagnostics)}; the nodes' logs are in {folder / 'logs'}"
                )
            _there_and_back(drive, duration, tell)
            tell("writing what was recorded")
            drive.call(Trigger, "/wm_recorder/dump", Trigger.Request())
        except KeyboardInterrupt:
            interrupted = True
        ended, fault = time.monotonic(), heard.guard.get("fault")
    runtime, truth = heard.runtime, heard.truth
    return {
        "seconds": round(ended - began - up_s, 2) if up else 0.0,
        "interrupted": interrupted,
        "bring_up_s": round(up_s, 2),
        "shutdown_s": round(time.monotonic() - ended, 2),
        "distance_m": round(heard.distance, 2),
        "goals_reached": runtime.get("goals_reached", 0),
        "contact_s": round(truth.get("contact_ns", 0) * 1e-9, 3),
        "plans": runtime.get("plans", 0),
        "plan_p99_ms": round(runtime.get("plan_p99_ms", 0.0), 2),
        "plan_deadlines_missed": runtime.get("deadlines_missed", 0),
        "late_plans": runtime.get("late", 0),
        "actuation_delay_ms": round(runtime.get("delay_ms", 0.0), 1),
        "fault": fault,
        "restarts": {name: n for name, n in drive.fleet.restarts.items() if n},
        "dumps": sorted(file.name for file in (folder / "dumps").glob("*.mcap")),
        "folder": str(folder),
    }


def _there_and_back(drive: Any, duration: float, tell: Callable[[str], None]) -> None:
    heard = drive.heard
    began = time.monotonic()
    said = sent = 0.0
    while (driven := time.monotonic() - began) < duration:
        if time.monotonic() - sent > GOAL_EVERY_S:
            sent = time.monotonic()
            drive.send_goal(there=heard.runtime.get("goals_reached", 0) % 2 == 0)
        if time.monotonic() - said > SAY_EVERY_S:
            said = time.monotonic()
            tell(_status(heard, driven))
        for name in drive.fleet.watch():
            tell(f"{name} died; it is started again (its log is in logs/)")
        time.sleep(0.05)


def _status(heard: Any, driven: float) -> str:
    runtime, guard = heard.runtime, heard.guard
    ages = " ".join(f"{n} {ms:.0f} ms" for n, ms in runtime.get("ages_ms", {}).items())
    parts = [
        f"{driven:5.1f} s",
        f"{heard.mode:6}",
        f"plans {runtime.get('plans', 0)} p99 {runtime.get('plan_p99_ms', 0.0):4.1f} ms",
        f"late {runtime.get('late', 0)}",
        f"ages {ages}",
        f"goals {runtime.get('goals_reached', 0)}",
    ]
    if guard.get("reasons"):
        parts.append(f"guard {', '.join(guard['reasons'])}")
    if guard.get("fault"):
        parts.append(f"FAULT {guard['fault']}")
    if heard.truth.get("contact_ns"):
        parts.append(f"CONTACT {heard.truth['contact_ns'] * 1e-9:.2f} s")
    return " | ".join(parts)


def _why(diagnostics: dict[str, Any]) -> str:
    """The lines that are not well, and what the supervisor is at."""
    bad = [f"{name}: {line.message}" for name, line in diagnostics.items() if line.level != OK]
    phase = diagnostics.get("wm_supervisor: phase")
    return "; ".join([*bad, *([phase.message] if phase else [])]) or "no node was heard"
