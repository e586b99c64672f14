"""Lock-step HIL: the firmware turns a MuJoCo arm, and every run has the same trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

from firmware.arm_in_lockstep import SWEEP, ArmRig, arm_trace
from firmware.rig import build
from firmware_bridge.lockstep import Library, Native, Qemu

FAULT, EXPIRED = 6, 63


@pytest.fixture
def busy() -> Iterator[None]:
    """Every processor has something else to do, too."""
    spin = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *spin])
              for _ in range(os.cpu_count() or 1)]  # fmt: skip
    yield
    for each in others:
        each.kill()
        each.wait()


def test_the_trace_of_firmware_and_arm_is_the_same_in_five_runs_under_load(busy: None) -> None:
    library = build("lockstep")
    traces = {arm_trace(Library("arm", library), 0.7)[0] for _ in range(4)}
    traces.add(arm_trace(Native("arm", build("posix")), 0.7)[0])
    assert len(traces) == 1
    moved = arm_trace(Library("arm", library), 0.8)[0]
    assert moved not in traces  # another run would show


@pytest.mark.skipif(shutil.which("qemu-system-arm") is None, reason="no qemu-system-arm here")
def test_qemu_and_the_native_build_turn_the_arm_alike(busy: None) -> None:
    begun = time.monotonic()
    emulated, rig = arm_trace(Qemu("arm", build("qemu")), 0.7)
    assert rig.window.boots == 1  # its watchdog did not take a busy machine for a hang
    print(f"{rig.now_us / 1e6 / (time.monotonic() - begun):.2f} times real time")
    native, _ = arm_trace(Library("arm", build("lockstep"), capabilities=3), 0.7)
    assert emulated == native


def test_the_arm_follows_its_reference_and_falls_silent_into_rest() -> None:
    _, rig = arm_trace(Library("arm", build("lockstep")))
    np.testing.assert_allclose(rig.swept, np.abs(SWEEP), atol=0.03)
    assert rig.furthest < 0.05  # rad
    assert (rig.window.mode, rig.window.reason) == (FAULT, EXPIRED)
    assert not rig.body.touching
    assert np.abs(rig.body.velocity).max() < 0.1  # rad/s, where the suffix left it
    assert rig.status is not None
    assert rig.status.frames_refused == 0


def test_a_blocked_joint_is_a_frozen_encoder() -> None:
    """The plant stands still although it is driven: what no ideal plant can show."""
    rig = ArmRig(Library("arm", build("lockstep")))
    rig.body.step = lambda *_: None
    rig.sweep(1.0)
    assert (rig.window.mode, rig.window.reason) == (FAULT, 116)
