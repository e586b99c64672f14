"""Run one topic's proof and append its figures to docs/proofs.json: prove.py TOPIC.

A proof is a file `scripts/proofs/<topic>.py` with `PARTS`: names and functions that take nothing
and return a dictionary of figures, in which `passed` says whether the part shows what it must.

The invariant: a figure stands next to the commit, the machine and the date it was taken with.
After each part its result is written, so a proof that was interrupted continues at the part that
is missing; a part is repeated when the commit or the machine is another, or when the checkout has
changes that no commit names. Exits 1 if a part does not pass.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
PROOFS = REPOSITORY / "scripts" / "proofs"
RESULTS = REPOSITORY / "docs" / "proofs.json"

Part = Callable[[], dict[str, Any]]


def parts_of(topic: str) -> Mapping[str, Part]:
    """The parts of a topic, by name, in order."""
    path = PROOFS / f"{topic}.py"
    if not path.is_file():
        topics = ", ".join(sorted(path.stem for path in PROOFS.glob("*.py")))
        sys.exit(f"prove: no topic {topic!r}; there are: {topics}")
    spec = importlib.util.spec_from_file_location(f"proof_{topic}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    parts: Mapping[str, Part] = module.PARTS
    return parts


def commit_of(repository: Path) -> str:
    """The commit checked out, with "+changes" if the files are not (all) that commit's."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(repository), *arguments], capture_output=True, text=True
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    changes = git("status", "--porcelain", "--", ".", ":!docs/proofs.json")
    return (head or "no commit") + ("+changes" if changes else "")


def machine() -> str:
    """This machine's class: processor, cores, Python."""
    try:
        cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if "model name" in line
        ]
    except OSError:
        names = []
    name = names[0] if names else platform.machine()
    cores = len(os.sched_getaffinity(0))
    return f"{name}, {cores} cores, Python {platform.python_version()}"


def load(path: Path) -> list[dict[str, Any]]:
    """All results so far, oldest first."""
    results: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return results


def save(path: Path, results: list[dict[str, Any]]) -> None:
    """Write the results whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(path)


def prove(
    topic: str,
    parts: Mapping[str, Part],
    *,
    results: Path,
    commit: str,
    machine: str,
    today: str,
    say: Callable[[str], None] = print,
) -> bool:
    """Run the parts that have no result for this commit and machine; True if all pass."""
    passed = True
    for name, part in parts.items():
        key = {"topic": topic, "part": name, "commit": commit, "machine": machine}
        past = [entry for entry in load(results) if key.items() <= entry.items()]
        if past and "+changes" not in commit:
            figures = past[-1]["figures"]
            say(f"{topic}/{name}: from {past[-1]['date']}: {json.dumps(figures)}")
        else:
            say(f"{topic}/{name}: running")
            began = time.monotonic()
            figures = part()
            seconds = round(time.monotonic() - began, 1)
            entry = {**key, "date": today, "seconds": seconds, "figures": figures}
            save(results, [*load(results), entry])
            say(f"{topic}/{name}: {seconds} s: {json.dumps(figures)}")
        passed = passed and bool(figures["passed"])
    return passed


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: prove.py TOPIC")
    topic = sys.argv[1]
    passed = prove(
        topic,
        parts_of(topic),
        results=RESULTS,
        commit=commit_of(REPOSITORY),
        machine=machine(),
        today=datetime.now(timezone.utc).date().isoformat(),
    )
    print(f"{topic}: {'proved' if passed else 'NOT proved'}; figures in {RESULTS}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
