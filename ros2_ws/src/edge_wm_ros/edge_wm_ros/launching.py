"""Starts the processes of a robot without the launch system, watches them, and ends them.

    environment   discovery stays on this machine: loopback and shared memory, by the shipped
                  transport profile
    children      each in a session of its own, dies with this process, is started again if it dies
    the end       SIGINT to the guard, which brakes to rest, then to all others; SIGKILL for
                  whoever does not go

Invariant: when `stop` returns no process is left.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edge_wm_ros.processes import Process, arguments

RESPAWN_AFTER_S = 0.5
GONE_WITHIN_S = 1.5  # after SIGINT, then SIGKILL
STOP_FIRST = ("wm_guard",)
PROFILE = Path(__file__).resolve().parent / "fastdds_loopback.xml"


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment in which nothing of ROS leaves this machine.

    What the caller's environment sets of ROS_DOMAIN_ID, RMW_IMPLEMENTATION and the profile stays.
    """
    found = dict(os.environ if given is None else given)
    found.setdefault("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    found.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(PROFILE))
    found.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")
    found.setdefault(
        "AMENT_PREFIX_PATH", sys.prefix
    )  # the PyPI wheels; a sourced distro has its own
    found.setdefault("MUJOCO_GL", "egl")
    found.setdefault("OPENBLAS_NUM_THREADS", "1")
    return found


class Fleet:
    """The processes of one robot."""

    def __init__(
        self,
        listed: Sequence[Process],
        *,
        logs: Path,
        respawn: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """logs: a folder; each process writes `<name>.log` there."""
        self.listed = {process.name: process for process in listed}
        self.restarts: dict[str, int] = dict.fromkeys(self.listed, 0)
        self._logs, self._respawn = logs, respawn
        self._env = environment(env) | {"EDGE_WM_DIE_WITH_PARENT": str(os.getpid())}
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._files: dict[str, IO[bytes]] = {}
        self._gone_s: dict[str, float] = {}
        logs.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        for name in self.listed:
            self._start(name)

    def pid(self, name: str) -> int:
        return self._children[name].pid

    def kill(self, name: str) -> None:
        """SIGKILL one of them, as a crash would."""
        self._children[name].kill()
        self._children[name].wait()

    def watch(self) -> list[str]:
        """Start again what died, after a moment. Returns the names of what is dead now."""
        dead = []
        for name, child in list(self._children.items()):
            if child.poll() is None:
                self._gone_s.pop(name, None)
                continue
            dead.append(name)
            since = self._gone_s.setdefault(name, time.monotonic())
            again = self._respawn and self.listed[name].respawn
            if again and time.monotonic() - since >= RESPAWN_AFTER_S:
                self.restarts[name] += 1
                self._gone_s.pop(name)
                self._start(name)
        return dead

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self._logs / f"{name}.log").read_text(errors="replace")

    def stop(self) -> None:
        """End all: SIGINT, and SIGKILL for whoever does not go. May be called twice."""
        first = [[name] for name in STOP_FIRST if name in self._children]
        others = [name for name in self._children if name not in STOP_FIRST]
        for names in (*first, others):
            children = [self._children[name] for name in names]
            for child in children:
                if child.poll() is None:
                    child.send_signal(signal.SIGINT)
            until = time.monotonic() + GONE_WITHIN_S
            for child in children:
                try:
                    child.wait(max(0.01, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
        for file in self._files.values():
            file.close()
        self._children.clear()
        self._files.clear()

    def _start(self, name: str) -> None:
        process = self.listed[name]
        if name not in self._files:
            self._files[name] = (self._logs / f"{name}.log").open("ab")
        self._children[name] = subprocess.Popen(
            [sys.executable, "-m", process.module, *arguments(process)],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self._files[name],
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C goes to this process, which ends them in order
        )
