"""The kernels without Python (kernels_test.cpp): on this processor, and on emulated ARM ones.

One golden file holds for all instruction sets of both. That the test program sees the instruction
sets that a processor has is part of the test: QEMU stops a program that uses others.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.txt")
GROUPS = len(GOLDEN.read_text().splitlines())
ARM = {  # of QEMU's processors: what we choose on them, the best first
    "cortex-a53": ["plain"],
    "cortex-a72": ["plain"],  # Raspberry Pi 4
    "cortex-a76": ["dotprod", "plain"],  # Raspberry Pi 5; stands in for Jetson Orin's A78AE
    "max,sme=off": ["i8mm", "dotprod", "plain"],
}
pytestmark = pytest.mark.skipif(
    shutil.which("cmake") is None or shutil.which("ninja") is None,
    reason="no cmake and ninja here; scripts/setup.sh test installs them",
)


def built(folder: Path, *options: str) -> Path:
    """The test program, built in `folder`, which is kept: the next time little is compiled."""
    options = ("-DEDGE_WM_NATIVE_TEST=ON", f"-DPython_EXECUTABLE={sys.executable}", *options)
    for command in (
        ["cmake", "-S", str(REPOSITORY), "-B", str(folder), "-G", "Ninja", *options],
        ["cmake", "--build", str(folder), "--target", "kernels_test"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "tests" / "arm" / "kernels_test"


@pytest.fixture(scope="session")
def here() -> Path:
    # Beside the compiled module, whose kernels are then not compiled again.
    return built(REPOSITORY / "build" / f"native-{sys.implementation.cache_tag}")


@pytest.fixture(scope="session")
def for_arm() -> Path:
    if platform.machine() != "x86_64":
        pytest.skip("cross-compiled on x86-64 only; on ARM the native test runs the real thing")
    for program, package in (
        ("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"),
        ("qemu-aarch64", "qemu-user"),
    ):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here: ARM kernels not tested; apt-get install {package}")
    toolchain = REPOSITORY / "cmake" / "aarch64-linux-gnu.cmake"
    return built(
        REPOSITORY / "build" / "aarch64",
        f"-DCMAKE_TOOLCHAIN_FILE={toolchain}",
        "-DEDGE_WM_PYTHON=OFF",
    )


def check(command: list[str], sets: list[str]) -> None:
    done = subprocess.run(
        [*command, str(GOLDEN), *sets], capture_output=True, text=True, timeout=300
    )
    expected = f"sets: {' '.join(sets)}\nsame: {GROUPS} groups, {len(sets)} sets\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")


def expected_here() -> list[str]:
    """The instruction sets that /proc/cpuinfo allows, the best first."""
    flags = set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith(("flags", "Features")):
            flags = set(line.split(":", 1)[1].split())
            break
    if platform.machine() == "aarch64":
        sets = ["i8mm"] if {"i8mm", "asimddp"} <= flags else []
        return [*sets, "dotprod", "plain"] if "asimddp" in flags else ["plain"]
    avx2 = {"avx2", "fma", "f16c"} <= flags
    vnni = avx2 and {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni"} <= flags
    amx = vnni and {"amx_tile", "amx_int8"} <= flags
    there = (("amx", amx), ("avx512vnni", vnni), ("avx2", avx2))
    sets = [name for name, has in there if has] + ["plain"]
    simde = avx2 and os.path.exists("/usr/include/simde/x86/avx512.h")
    return [*sets, "avx512vnni_on_simde"] if simde else sets


def test_every_instruction_set_of_this_processor_gives_the_golden_bits(here: Path) -> None:
    check([str(here)], expected_here())


@pytest.mark.parametrize("processor", ARM)
def test_arm_gives_the_golden_bits(processor: str, for_arm: Path) -> None:
    emulator = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", processor]
    check([*emulator, str(for_arm)], ARM[processor])


def test_the_inner_loops_keep_their_sums_in_registers(for_arm: Path) -> None:
    """No stack access in the loops of six rows; `make bench-arm` also asks what they cost."""
    spec = importlib.util.spec_from_file_location(
        "bench_arm", REPOSITORY / "scripts" / "bench_arm.py"
    )
    assert spec is not None
    assert spec.loader is not None
    bench_arm = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench_arm)
    for case in bench_arm.CASES:
        loop = bench_arm.hot_loop(case, bench_arm.OBJECTS / case.file)
        assert loop.count(case.instruction) % 24 == 0
        assert loop.spills == 0, (case.name, loop.lines)


def test_a_wrong_bit_is_told(here: Path, tmp_path: Path) -> None:
    """The test's test: another hash for one group, and a missing instruction set."""
    lines = GOLDEN.read_text().splitlines()
    name = lines[0].split()[0]
    wrong = tmp_path / "golden.txt"
    wrong.write_text("\n".join([f"{name} 0123456789abcdef", *lines[1:]]) + "\n")
    done = subprocess.run(
        [str(here), str(wrong), "neon"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert f"DIFFERENT {name}: golden 0123456789abcdef, plain " in done.stdout
    assert "DIFFERENT sets: wanted neon\n" in done.stdout
    assert "NOT the same" in done.stdout
