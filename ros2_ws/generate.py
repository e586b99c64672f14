"""Write what follows from the nodes' declarations: parameter files, services and tables.

    edge_wm_ros.parameters ─► edge_wm_bringup/config/<robot>.yaml, and the tables of README.md
    edge_wm_ros.processes  ─► edge_wm_bringup/systemd/<process>.service, edge-wm.target

Run it with a Python that has rclpy: `python ros2_ws/generate.py`. With `--check` it writes
nothing and exits 1 if a file is out of date (the test suite does that).
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_wm_ros.parameters import ALL, span, table
from edge_wm_ros.processes import Process, Value, processes

from edge_wm.robot import find_robot, load_robot

WORKSPACE = Path(__file__).resolve().parent
BRINGUP = WORKSPACE / "src" / "edge_wm_bringup"
ROBOTS = ("rover", "arm")
MARKS = ("<!-- parameters: written by generate.py -->", "<!-- end of parameters -->")


# ---- parameter files ------------------------------------------------------------------------
def parameter_file(robot: str) -> str:
    """Every parameter of every node that the robot can have, with its meaning above it."""
    has_base = load_robot(find_robot(robot)).base is not None
    listed = {p.name: p for p in processes(robot, simulated=has_base, record="runs", viz=True)}
    lines = [
        f"# Every parameter of every node, for the robot {robot}: the values that are used when",
        "# nothing else is said. Written by ros2_ws/generate.py; copy it to change it, and launch",
        f"# with parameters:=/path/to/my_{robot}.yaml. All are read at configure.",
    ]
    if not has_base:
        lines.append("# wm_sim is not here: it simulates bases.")
    for name in ALL:
        if name not in listed:
            continue
        lines += ["", f"{name}:", "  ros__parameters:"]
        lines += ["    # Take the time from /clock (a simulator or a bag) instead of the system."]
        lines += ["    use_sim_time: false"]
        values = {**defaults(name), **listed[name].parameters}
        for item in dataclasses.fields(ALL[name]):
            limits = f" [{span(item)}]" if span(item) else ""
            lines.append(f"    # {item.metadata['sentence']}{limits}")
            lines.append(f"    {item.name}: {json.dumps(values[item.name])}")
    return "\n".join(lines) + "\n"


def defaults(name: str) -> dict[str, Value]:
    return {item.name: item.default for item in dataclasses.fields(ALL[name])}


# ---- services -------------------------------------------------------------------------------
UNIT = """\
# Written by ros2_ws/generate.py. Install: copy edge-wm.target and the *.service files to
# /etc/systemd/system and environment.example to /etc/edge_wm/environment, correct the latter, then
#   systemctl daemon-reload && systemctl enable --now edge-wm.target
[Unit]
Description=edge-wm: {name}
PartOf=edge-wm.target
{after}
[Service]
Type=exec
EnvironmentFile=/etc/edge_wm/environment
ExecStart=/bin/bash -c '. "$EDGE_WM_INSTALL/setup.bash" && \
exec "$EDGE_WM_INSTALL/edge_wm_ros/lib/edge_wm_ros/{name}" \
--ros-args --params-file "$EDGE_WM_PARAMETERS"'
# The nodes stop in order on SIGINT: the guard brakes to rest before it goes.
KillSignal=SIGINT
TimeoutStopSec=5
# Started again after a crash; nothing moves by that alone. 2 and 3 are mistakes in what was asked
# for, which starting again does not mend: the journal says what to correct.
Restart=on-failure
RestartSec=0.5
RestartPreventExitStatus=2 3
# A core of its own keeps others' work away from it; the cores must be isolated to be its own.
#CPUAffinity={core}

[Install]
WantedBy=edge-wm.target
"""
TARGET = """\
# Written by ros2_ws/generate.py.
[Unit]
Description=edge-wm: a robot
Wants={services}

[Install]
WantedBy=multi-user.target
"""
CORES = {"wm_guard": "3", "wm_bridge": "3", "wm_runtime": "1 2"}  # of four; the others share 0
# Stopping is the reverse of starting: no more plans, the guard brakes, then the bridge.
AFTER = {"wm_guard": "wm_bridge", "wm_runtime": "wm_guard"}


def services() -> dict[str, str]:
    """File name -> text, for the processes of a real robot."""
    listed = processes("rover", simulated=False, record="runs", viz=True)
    units = {f"{process.name}.service": unit(process) for process in listed}
    units["edge-wm.target"] = TARGET.format(services=" ".join(units))
    return units


def unit(process: Process) -> str:
    after = AFTER.get(process.name)
    return UNIT.format(
        name=process.name,
        after=f"After={after}.service\n" if after else "",
        core=CORES.get(process.name, "0"),
    )


# ---- tables ---------------------------------------------------------------------------------
def readme(text: str) -> str:
    """The README with the tables of today between its marks."""
    tables = "\n\n".join(f"### {name}\n\n{table(name)}" for name in ALL)
    before, after = MARKS
    pattern = re.compile(f"{re.escape(before)}.*?{re.escape(after)}", re.DOTALL)
    if not pattern.search(text):
        sys.exit(f"README.md must have the lines {before!r} and {after!r}, and has not; add them")
    return pattern.sub(lambda _: f"{before}\n\n{tables}\n\n{after}", text)


def files() -> Iterator[tuple[Path, str]]:
    for robot in ROBOTS:
        yield BRINGUP / "config" / f"{robot}.yaml", parameter_file(robot)
    for name, text in services().items():
        yield BRINGUP / "systemd" / name, text
    page = WORKSPACE / "README.md"
    yield page, readme(page.read_text(encoding="utf-8"))


def main() -> int:
    outdated = []
    for path, text in files():
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        outdated.append(str(path.relative_to(WORKSPACE)))
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if "--check" in sys.argv and outdated:
        print(f"out of date: {', '.join(outdated)}; run python ros2_ws/generate.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
