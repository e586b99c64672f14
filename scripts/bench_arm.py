"""What the kernels' inner loops cost on ARM cores, as far as that can be said without one.

    object file ──objdump──► the hot loop of each product ──llvm-mca──► cycles a pass

Three kinds of figures, and no measured time among them: emulated time says nothing about ARM.

1. Counted in the compiled loop: instructions a multiply-add, and loads or stores of the stack in it
   (a spilled accumulator).
2. llvm-mca's model of a core that it knows well: Neoverse N1 for SDOT (an A76 with larger
   caches), Neoverse N2 for SMMLA. Caches are taken to answer at once.
3. An ESTIMATE for the Cortex-A78AE of a Jetson Orin at 2.2 GHz: as many 128-bit SDOT a cycle as the
   N1 (two; Arm's Software Optimization Guides of both), so the N1's cycles at that clock.

Exits 1 if the SDOT loop spills or takes more than 12.5 cycles for 24 SDOT (12 is the peak).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

REPOSITORY = Path(__file__).resolve().parent.parent
BUILD = REPOSITORY / "build" / "aarch64"
OBJECTS = BUILD / "CMakeFiles" / "edge_wm_kernels.dir" / "cpp" / "kernels"
MOST_CYCLES = 12.5  # a pass of 24 SDOT
A78AE_GHZ = 2.2  # Jetson AGX Orin 64 GB, MAXN (NVIDIA's Technical Brief, 2022)
PASSES = 1000


class Case(NamedTuple):
    """A product of the kernels: where its loop is, and the core whose model llvm-mca has."""

    name: str
    file: str
    instruction: str
    macs: int  # of one instruction
    core: str


CASES = (
    Case("int8, dotprod", "kernels_dotprod.cpp.o", "sdot", 16, "neoverse-n1"),
    Case("int8, i8mm", "kernels_i8mm.cpp.o", "smmla", 32, "neoverse-n2"),
    Case("float32", "kernels_dotprod.cpp.o", "fmla", 4, "neoverse-n1"),
)


class Loop(NamedTuple):
    """The instructions of a loop's body, as an assembler reads them."""

    lines: tuple[str, ...]

    def count(self, instruction: str) -> int:
        return sum(line.split()[0] == instruction for line in self.lines)

    @property
    def spills(self) -> int:
        return sum("[sp" in line for line in self.lines)


def loops(assembly: str) -> Iterator[Loop]:
    """The innermost loops of a disassembly: what lies between a backward branch and its target."""
    code: list[tuple[int, str]] = []
    for line in assembly.splitlines():
        found = re.match(r"\s*([0-9a-f]+):\t(.+)", line)
        if not found:
            code = []  # another function begins
            continue
        at = int(found[1], 16)
        text = re.sub(r"\s*(//|<).*", "", found[2]).replace("\t", " ").strip()
        code.append((at, text))
        branch = re.fullmatch(r"(?:b\.\w+|cbn?z \w+,|tbn?z \w+, #\d+,) (?:0x)?([0-9a-f]+)", text)
        if branch and code[0][0] <= (start := int(branch[1], 16)) < at:
            body = [text for place, text in code[:-1] if place >= start]
            if not any(re.match(r"b\.|b |cb|tb|ret", text) for text in body):
                yield Loop(tuple(body))


def hot_loop(case: Case, object_file: Path) -> Loop:
    """The loop with six rows: the one with the most of the instruction that also loads."""
    assembly = run("aarch64-linux-gnu-objdump", "-d", "--no-show-raw-insn", str(object_file))
    found = [
        loop
        for loop in loops(assembly)
        if loop.count(case.instruction) >= 24 and any("ld" in line for line in loop.lines)
    ]
    if not found:
        sys.exit(f"bench-arm: no loop of 24 {case.instruction} in {object_file}")
    return min(found, key=lambda loop: len(loop.lines) / loop.count(case.instruction))


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"bench-arm: {' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def cycles(loop: Loop, mca: str, core: str) -> float:
    """Of one pass, by llvm-mca's model, in the steady state."""
    text = "\n".join(loop.lines) + "\nsubs x0, x0, #1\n"  # stands for the branch
    options = ("-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+i8mm")
    report = run(mca, *options, f"-iterations={PASSES}", text=text)
    found = re.search(r"Total Cycles:\s+(\d+)", report)
    assert found is not None, report
    return int(found[1]) / PASSES


def figures(case: Case, mca: str) -> dict[str, Any]:
    loop = hot_loop(case, OBJECTS / case.file)
    products = loop.count(case.instruction)
    of_24 = cycles(loop, mca, case.core) / products * 24
    macs_a_cycle = 24 * case.macs / of_24
    return {
        "case": case.name,
        "instruction": case.instruction,
        "core_model": case.core,
        "instructions_in_loop": len(loop.lines) + 1,
        "products_in_loop": products,
        "instructions_per_mac": round((len(loop.lines) + 1) / (products * case.macs), 4),
        "stack_accesses": loop.spills,
        "cycles_per_24": round(of_24, 2),
        "mac_per_cycle": round(macs_a_cycle, 2),
        "share_of_peak": round(12 / of_24, 3),  # two such instructions a cycle
        "estimate_a78ae_gmac_s": (
            round(macs_a_cycle * A78AE_GHZ, 1) if case.core == "neoverse-n1" else None
        ),
    }


def build() -> None:
    toolchain = REPOSITORY / "cmake" / "aarch64-linux-gnu.cmake"
    options = ("-G", "Ninja", "-DEDGE_WM_PYTHON=OFF", "-DEDGE_WM_NATIVE_TEST=ON")
    source = ("-S", str(REPOSITORY), "-B", str(BUILD))
    run("cmake", *source, *options, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}")
    run("cmake", "--build", str(BUILD), "--target", "edge_wm_kernels")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    mca = next((name for name in ("llvm-mca-19", "llvm-mca") if shutil.which(name)), None)
    for program in ("aarch64-linux-gnu-g++", "aarch64-linux-gnu-objdump", "cmake"):
        if shutil.which(program) is None:
            sys.exit(f"bench-arm: no {program} here; run: scripts/setup.sh bench-arm")
    if mca is None:
        sys.exit("bench-arm: no llvm-mca here; run: scripts/setup.sh bench-arm")
    build()
    rows = [figures(case, mca) for case in CASES]
    passed = rows[0]["stack_accesses"] == 0 and rows[0]["cycles_per_24"] <= MOST_CYCLES
    compiler = run("aarch64-linux-gnu-g++", "-dumpfullversion").strip()
    if arguments.json:
        print(json.dumps({"compiler": f"g++ {compiler}", "model": mca, "loops": rows}, indent=1))
        sys.exit(0 if passed else 1)
    print(
        f"Inner loops for six rows and sixteen outputs; g++ {compiler}, {mca}, nothing measured.\n"
    )
    print("product         core model    cycles per 24   of peak   instr./MAC   stack accesses")
    for row in rows:
        print(
            f"{row['case']:<15} {row['core_model']:<13} "
            f"{row['cycles_per_24']:>5.2f} {row['instruction']:<9}"
            f"{row['share_of_peak']:>7.0%} {row['instructions_per_mac']:>12.4f}"
            f"{row['stack_accesses']:>10}"
        )
    print(
        f"\nESTIMATE for Cortex-A78AE at {A78AE_GHZ} GHz, one core, everything in its first cache:"
    )
    for row in rows:
        if row["estimate_a78ae_gmac_s"]:
            print(
                f"  {row['case']}: {row['estimate_a78ae_gmac_s']} GMAC/s (estimated, not measured)"
            )
    verdict = "met" if passed else "NOT met"
    print(f"\nat most {MOST_CYCLES} cycles for 24 SDOT, without spills: {verdict}")
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
