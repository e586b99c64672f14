"""Change the firmware's safety code in one place at a time, and see whether a test notices.

    scripts/mutate_firmware.py [--seed 0] [--count 40]

A mutant swaps a comparison, an arithmetic or logical operator, a sign, a constant or a condition in
core/safety.c, faults.c, limits.c, motion.c or wire.c, in a copy of the sources. It is killed if the
copy's lock-step tests fail, or it does not build; the unchanged copy must pass them first.
Survivors are listed: each is a missing test, or a change without effect, which
docs/firmware-checks.md then names and explains. Results go to build/firmware-mutants.json, and a
mutant that is there for the same sources and tests is not run again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from firmware_bridge.build import build

ROOT = Path(__file__).resolve().parent.parent

CORE = ROOT / "firmware_bridge" / "mcu" / "core"
FILES = ("safety.c", "faults.c", "limits.c", "motion.c", "wire.c")
TESTS = ROOT / "tests" / "firmware"
# Tests that no mutant is given: slow, or of other code.
SLOW = (
    "fuzz",
    "qemu",
    "crash_resets",
    "faulted",
    "test_boot",
    "test_update",
    "test_flash",
    "stm32f405",
)
RESULTS = ROOT / "build" / "firmware-mutants.json"
SWAPS = (
    (r" < ", " <= "), (r" <= ", " < "), (r" > ", " >= "), (r" >= ", " > "), (r" == ", " != "),
    (r" != ", " == "), (r" && ", " || "), (r" \|\| ", " && "), (r" \+ ", " - "), (r" - ", " + "),
    (r" \* ", " / "), (r"\btrue\b", "false"), (r"\bfalse\b", "true"), (r"if \(", "if (!("),
    (r"\b1000U?\b", "1001"), (r" = 0;", " = 1;"),
)  # fmt: skip

Mutant = tuple[str, int, str, str]  # file, line (from 0), before, after


def mutants() -> list[Mutant]:
    """All there are, in order."""
    found = []
    for name in FILES:
        for number, line in enumerate((CORE / name).read_text("ascii").splitlines()):
            if line.lstrip().startswith(("/*", "*", "#", "static const", "enum")):
                continue
            code = line.split("/*")[0]
            for pattern, to in SWAPS:
                for match in re.finditer(pattern, code):
                    head, tail = line[: match.start()], line[match.end() :]
                    changed = head + to + tail
                    if to == "if (!(":
                        if not tail.endswith(") {"):
                            continue
                        changed = head + to + tail[:-3] + ")) {"
                    found.append((name, number, line, changed))
    return found


def passes(folder: Path, generated: Path, within_s: float) -> bool:
    """Do the tests of the copy in `folder` pass, and in time?"""
    # The generated headers are the same for every mutant: its build does not make them anew.
    digest = subprocess.run(
        [sys.executable, "-c", "import build; print(build.digest().hex())"],
        cwd=folder / "firmware_bridge", capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    shutil.copytree(generated, folder / "build" / "firmware" / digest[:16] / "generated")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "tests/firmware",
             "--ignore=tests/firmware/test_boards.py",
             "-k", " and ".join(f"not {name}" for name in SLOW)],
            cwd=folder,
            capture_output=True,
            timeout=within_s,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )  # fmt: skip
        return done.returncode == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        shutil.rmtree(folder / "build", ignore_errors=True)


def survives(mutant: Mutant, folder: Path, generated: Path, within_s: float) -> bool:
    """Do the tests pass although `folder`'s sources are changed?"""
    name, number, _, changed = mutant
    original = (CORE / name).read_text("ascii").splitlines()
    original[number] = changed
    path = folder / "firmware_bridge" / "mcu" / "core" / name
    path.write_text("\n".join(original) + "\n")
    try:
        return passes(folder, generated, within_s)
    finally:
        path.write_text((CORE / name).read_text("ascii"))


def score(seed: int, count: int) -> dict[str, object]:
    """Run `count` mutants of the seed's order (or what is left of them), and add up."""
    tests = [path for path in TESTS.glob("*.py") if path.name != "test_boards.py"]
    files = sorted([*CORE.glob("*.[ch]"), *tests])
    content = b"".join(path.read_bytes() for path in files)
    version = hashlib.sha256(content).hexdigest()[:16]
    known: dict[str, bool] = {}
    if RESULTS.exists():
        kept = json.loads(RESULTS.read_text())
        known = kept["survived"] if kept["version"] == version else {}
    generated = build("generated")
    every = mutants()
    random.Random(seed).shuffle(every)
    with tempfile.TemporaryDirectory(prefix="edge-wm-mutants-") as place:
        folder = Path(place)
        for part in ("firmware_bridge", "edge_wm", "tests/firmware", "tests/conftest.py",
                     "pyproject.toml"):  # fmt: skip
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            (folder / part).parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / part, folder / part)
        began = time.monotonic()
        if not passes(folder, generated, 600.0):
            sys.exit("mutate_firmware: the tests fail without a change; mend them first")
        # A mutant may loop for ever; one that does not may be slowed down by others.
        within_s = max(60.0, 6 * (time.monotonic() - began))
        for mutant in every[:count]:
            key = f"{mutant[0]}:{mutant[1] + 1}: {mutant[2].strip()}  ->  {mutant[3].strip()}"
            if key not in known:
                known[key] = survives(mutant, folder, generated, within_s)
                RESULTS.parent.mkdir(exist_ok=True)
                RESULTS.write_text(json.dumps({"version": version, "survived": known}, indent=1))
    left = sorted(key for key, survived in known.items() if survived)
    killed = len(known) - len(left)
    return {"mutants": len(known), "of": len(every), "killed": killed,
            "score": round(killed / max(1, len(known)), 4), "survivors": left}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    arguments = parser.parse_args()
    print(json.dumps(score(arguments.seed, arguments.count), indent=1))
