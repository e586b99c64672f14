"""Count what cppcheck finds in the firmware: its own findings, and MISRA C:2012's by its addon.

    scripts/check_misra.py [--check]

Looks at core/ and at the boards' ports, not at the generated headers. docs/firmware-checks.md
holds the accepted deviations, a rule, its count and its reason each. With --check it exits 1 if
cppcheck has a finding of its own, or there is a rule that the page does not name.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from firmware_bridge.build import MCU, build

ROOT = Path(__file__).resolve().parent.parent

PAGE = ROOT / "docs" / "firmware-checks.md"
FOLDERS = ("core", "port", "port/mps2_an386", "port/rp2040", "port/stm32f405")


def accepted() -> dict[str, int]:
    """The page's table: rule -> count."""
    rows = re.findall(r"^\| (\d+\.\d+) \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    return {rule: int(count) for rule, count in rows}


def findings() -> tuple[Counter[str], list[str]]:
    """MISRA's by rule, and cppcheck's own as lines."""
    files = sorted(file for folder in FOLDERS for file in (MCU / folder).glob("*.c"))
    generated = build("generated")
    with tempfile.TemporaryDirectory() as folder:  # or it leaves its notes beside the sources
        done = subprocess.run(command_of(files, generated, folder), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"check_misra: cppcheck failed: {(done.stderr + done.stdout)[-2000:]}")
    rules: Counter[str] = Counter()
    own = []
    for line in sorted(set(done.stderr.splitlines())):
        found = re.match(r"misra-c2012-(\d+\.\d+) ", line)
        if found:
            rules[found.group(1)] += 1
        elif line.strip():
            own.append(line)
    return rules, own


def command_of(files: list[Path], generated: Path, notes: str) -> list[str | Path]:
    """cppcheck's command line; `notes`: an empty folder for what it writes down on its way."""
    return [
        "cppcheck", "--quiet", f"--cppcheck-build-dir={notes}", "--std=c11", "--addon=misra",
        "--enable=warning,portability",
        "--inline-suppr", "--template={id} {file}:{line}: {message}",
        "--suppress=missingIncludeSystem", f"--suppress=*:{generated}/*",
        f"-I{MCU / 'core'}", f"-I{MCU / 'port'}", f"-I{generated}", *files,
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    if shutil.which("cppcheck") is None:
        sys.exit("check_misra: needs cppcheck, found none; sudo apt-get install -y cppcheck")
    rules, own = findings()
    known = accepted()
    for rule, count in sorted(rules.items(), key=lambda one: tuple(map(int, one[0].split(".")))):
        print(f"{rule:6} {count:4}  {PAGE.name}: {known.get(rule, 'not accepted')}")
    for line in own:
        print(line)
    worse = [rule for rule in rules if rule not in known]
    if check and (worse or own):
        print(f"not accepted: {', '.join([*sorted(worse), *own])}; mend it, or say why in {PAGE}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
