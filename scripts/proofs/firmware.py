"""The figures of the firmware: dead-man, faulted frames, determinism, fuzzing, round trip.

All but the round trip in lock-step. Every part is small enough to finish in minutes; an interrupted
proof continues at the next one.
Fuzzing keeps its corpus and its count of executions in build/firmware-fuzz, so that its parts
add up. Deadlines are on the firmware's clock.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from firmware.arm_in_lockstep import arm_trace
from firmware.rig import Native, build
from firmware.rig import Qemu as QemuRig
from firmware.test_lockstep import dead_man_case, drive
from firmware.test_wire_and_motion import faulted

from firmware_bridge.emulated import EmulatedBoard
from firmware_bridge.lockstep import Library, Qemu
from firmware_bridge.session import open_session
from firmware_bridge.transport import open_transport

ROOT = Path(__file__).resolve().parents[2]
FUZZ = ROOT / "build" / "firmware-fuzz"


def dead_man(first: int) -> dict[str, Any]:
    """100 random silences."""
    cases = [dead_man_case(seed) for seed in range(first, first + 100)]
    braking_us = max(silence - dead_man for dead_man, silence, _ in cases)
    torque_us = max(late for _, _, late in cases)
    passed = braking_us <= 1000 and torque_us <= 5000
    return {"passed": passed, "cases": 100, "braking_late_us": braking_us,
            "torque_off_late_us": torque_us}  # fmt: skip


def frames(seed: int) -> dict[str, Any]:
    """250,000 faulted frames (about a minute); 40 parts make 10^7."""
    applied, lost, good = faulted(1000 + seed, 250_000)
    return {"passed": applied == 0 and lost <= 2, "faulted": 250_000, "applied": applied,
            "lost_to_resynchronize": lost, "good": good}  # fmt: skip


def determinism() -> dict[str, Any]:
    """99 native runs and one in QEMU."""
    hashes = [drive(Native(capabilities=3)) for _ in range(99)]
    rig = QemuRig()
    try:
        hashes.append(drive(rig))
    finally:
        rig.close()
    return {"passed": len(set(hashes)) == 1, "runs": 100, "sha256": hashes[0]}


def arm_determinism() -> dict[str, Any]:
    """The same with a MuJoCo arm as the plant, while every processor has other work too."""
    spin = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        library, began = build("lockstep"), time.monotonic()
        runs = [arm_trace(Library("arm", library, capabilities=3)) for _ in range(95)]
        native_s = time.monotonic() - began
        began = time.monotonic()
        runs += [arm_trace(Qemu("arm", build("qemu"))) for _ in range(5)]
        qemu_s = time.monotonic() - began
    finally:
        for each in others:
            each.kill()
            each.wait()
    hashes = [trace for trace, _ in runs]
    one_s = runs[0][1].now_us / 1e6
    return {"passed": len(set(hashes)) == 1, "runs": 100, "of_them_in_qemu": 5,
            "sha256": hashes[0], "simulated_s": one_s,
            "times_real_time_native": round(95 * one_s / native_s, 1),
            "times_real_time_qemu": round(5 * one_s / qemu_s, 1)}  # fmt: skip


def fuzzing() -> dict[str, Any]:
    """Ten minutes more, until 10^8 executions of this build are reached; called again it adds."""
    target = build("fuzz")
    (FUZZ / "corpus").mkdir(parents=True, exist_ok=True)
    state = FUZZ / f"{target.parent.name}.json"
    done = json.loads(state.read_text())["executions"] if state.exists() else 0
    run = subprocess.run(
        [target, "-max_total_time=600", "-max_len=1024", "-print_final_stats=1", FUZZ / "corpus"],
        capture_output=True,
        text=True,
        cwd=FUZZ,
    )
    found = re.search(r"number_of_executed_units: (\d+)", run.stderr)
    done += int(found.group(1)) if found else 0
    state.write_text(json.dumps({"executions": done}))
    return {"passed": run.returncode == 0, "executions_so_far": done, "goal": 10**8}


def fuzzing_total() -> dict[str, Any]:
    """Did the parts add up?"""
    state = FUZZ / f"{build('fuzz').parent.name}.json"
    done = json.loads(state.read_text())["executions"] if state.exists() else 0
    return {"passed": done >= 10**8, "executions": done}


def round_trip() -> dict[str, Any]:
    """5,000 frames of 64 bytes at 1 kHz and back, to the host-native port on a socket."""
    trips_us = []
    with EmulatedBoard("arm") as board:
        session = open_session(open_transport(board.port, 1_000_000))
        for _ in range(5000):
            began_ns = time.perf_counter_ns()
            trips_us.append(session.ping(secrets.token_bytes(35)) * 1e-3)
            time.sleep(max(0.0, 1e-3 - (time.perf_counter_ns() - began_ns) * 1e-9))
    p50, p99 = (round(float(value)) for value in np.percentile(trips_us, [50, 99]))
    return {"passed": p50 <= 150, "frames": 5000, "p50_us": p50, "p99_us": p99}


def mutation(count: int) -> dict[str, Any]:
    """The first `count` mutants of a fixed order; what is known is not run again."""
    from mutate_firmware import score

    figures = score(0, count)
    return {"passed": figures["score"] >= 0.95} | figures


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    **{f"dead-man {first}-{first + 99}": partial(dead_man, first) for first in range(0, 1000, 100)},
    "determinism": determinism,
    "round trip": round_trip,
    "determinism with an arm": arm_determinism,
    **{f"frames {part}": partial(frames, part) for part in range(40)},
    # about 9,000 executions a second on one core of 2026: 20 parts of ten minutes
    **{f"fuzzing {part}": fuzzing for part in range(20)},
    "fuzzing total": fuzzing_total,
    **{f"mutation {count}": partial(mutation, count) for count in (40, 80, 120, 160, 200)},
}
