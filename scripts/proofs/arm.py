"""ARM without ARM hardware: a wheel for aarch64 built here, in an emulated Python 3.11.

    Debian's arm64 packages ──► build/arm/root/usr/bin/python3.11 ─┐
    PyPI's aarch64 wheels ────► build/arm/site ────────────────────┤ qemu-aarch64
    this checkout ──g++──► edge_wm-…-manylinux_…_aarch64.whl ──────┘   ──► tests/arm/rollout.py

What must be shown: the emulated Python imports numpy, onnxruntime and edge-wm, and the shipped
rover's beliefs and costs there are x86's, bit for bit, on every instruction set; the wheel needs
no newer C library than Ubuntu 22.04 (JetPack 6) has; the source distribution builds without a
network. Nothing here is a time: emulated ones mean nothing.

Everything lies in build/arm and is kept; about 0.5 GB.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build" / "arm"
ROOT, SITE, WHEELS = BUILD / "root", BUILD / "site", BUILD / "wheels"
DEBIAN = ("python3.11", "libpython3.11-dev", "libstdc++6", "libgomp1")
PYPI = (
    "numpy",
    "onnxruntime",
    "msgspec",
    "pyyaml",
    "cryptography",
    "securesystemslib",
    "mcap",
    "zstandard",
    "typer",
    "rich",
)
TOOLS = BUILD / "tools"  # auditwheel, wheel
FLOOR = (2, 35)  # glibc of Ubuntu 22.04, JetPack 6; Debian 12 and Raspberry Pi OS have 2.36
PROCESSORS = {"cortex-a72": "plain", "cortex-a76": "dotprod", "max,sme=off": "i8mm"}
# onnxruntime reads it at import; QEMU 7.2 would show the host's. From Linux on a Cortex-A76.
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc \
dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
CPU revision\t: 1

"""


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, cwd=BUILD
    )
    if done.returncode != 0:
        raise SystemExit(f"prove arm: {' '.join(command)}:\n{done.stdout}{done.stderr}")
    return done.stdout


def pip(*arguments: str, **environment: str) -> None:
    run(sys.executable, "-m", "pip", *arguments, "-q", "--disable-pip-version-check", **environment)


# ---- what is downloaded --------------------------------------------------------------------
def fetch_python() -> None:
    """Debian's arm64 Python, unpacked: with a package list of its own, nothing is installed."""
    if (BUILD / "root.done").exists():
        return
    apt = BUILD / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "etc"):
        (apt / folder).mkdir(parents=True, exist_ok=True)
    (apt / "status").write_text("")
    (apt / "apt.conf").write_text(
        'APT::Architecture "arm64";\nAPT::Architectures { "arm64"; };\n'
        f'Dir::State "{apt}";\nDir::State::status "{apt}/status";\n'
        f'Dir::State::lists "{apt}/lists";\nDir::Cache "{apt}/cache";\n'
    )
    config = {"APT_CONFIG": str(apt / "apt.conf")}
    run("apt-get", "update", "-q", **config)
    run("apt-get", "install", "-y", "-d", "--no-install-recommends", *DEBIAN, **config)
    shutil.rmtree(ROOT, ignore_errors=True)
    for package in sorted((apt / "cache" / "archives").glob("*.deb")):
        run("dpkg-deb", "-x", str(package), str(ROOT))
    (ROOT / "proc").mkdir(exist_ok=True)
    (ROOT / "proc" / "cpuinfo").write_text(CPUINFO)
    (BUILD / "root.done").touch()


def fetch_packages() -> None:
    if (BUILD / "site.done").exists():
        return
    shutil.rmtree(SITE, ignore_errors=True)
    platforms = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    pip(
        "install",
        "--only-binary=:all:",
        *(f"--platform={name}_aarch64" for name in platforms),
        "--python-version=3.11",
        "--implementation=cp",
        "--abi=cp311",
        "--abi=abi3",
        "--abi=none",
        f"--target={SITE}",
        f"--constraint={REPOSITORY / 'constraints.txt'}",
        *PYPI,
    )
    pip("install", f"--target={TOOLS}", "auditwheel", "wheel")
    (BUILD / "site.done").touch()


# ---- what is built -------------------------------------------------------------------------
def build_wheel() -> Path:
    """The wheel for aarch64 and Python 3.11, compiled here."""
    shutil.rmtree(WHEELS, ignore_errors=True)
    headers = ROOT / "usr" / "include"
    defines = {
        "PYBIND11_USE_CROSSCOMPILING": "ON",
        "Python_EXECUTABLE": sys.executable,
        "Python_SOABI": "cpython-311-aarch64-linux-gnu",
        "Python_INCLUDE_DIR": str(headers / "python3.11"),
        "Python_INCLUDE_DIRS": str(headers / "python3.11"),
    }
    pip(
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        f"--wheel-dir={WHEELS}",
        f"--config-settings=build-dir={BUILD / 'build'}",
        *(f"--config-settings=cmake.define.{name}={value}" for name, value in defines.items()),
        str(REPOSITORY),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        CMAKE_TOOLCHAIN_FILE=str(REPOSITORY / "cmake" / "aarch64-linux-gnu.cmake"),
        CXXFLAGS=f"-idirafter {headers}",  # pyconfig.h includes aarch64-linux-gnu/python3.11/…
        _PYTHON_HOST_PLATFORM="linux-aarch64",
        SETUPTOOLS_EXT_SUFFIX=".cpython-311-aarch64-linux-gnu.so",
    )
    (wheel,) = WHEELS.glob("edge_wm-*-linux_aarch64.whl")
    return wheel


def wheel() -> dict[str, Any]:
    """Build it, and name it after the oldest C library that it can be used with."""
    BUILD.mkdir(parents=True, exist_ok=True)
    fetch_python()
    fetch_packages()
    built = build_wheel()
    tools = {"PYTHONPATH": str(TOOLS)}
    shown = run(sys.executable, "-m", "auditwheel", "show", str(built), **tools)
    found = re.search(r'platform tag:\s*"manylinux_(\d+)_(\d+)_aarch64"', shown)
    assert found is not None, shown
    floor = (int(found[1]), int(found[2]))
    tag = f"manylinux_{floor[0]}_{floor[1]}_aarch64"
    run(
        *(sys.executable, "-m", "wheel", "tags", "--remove", f"--platform-tag={tag}", str(built)),
        **tools,
    )
    (named,) = WHEELS.glob(f"edge_wm-*-{tag}.whl")
    return {"passed": floor <= FLOOR, "wheel": named.name, "bytes": named.stat().st_size}


# ---- what is run ---------------------------------------------------------------------------
def rollout_here(kernels: str) -> dict[str, Any]:
    """tests/arm/rollout.py in this Python, on this processor."""
    printed = run(
        sys.executable,
        str(REPOSITORY / "tests" / "arm" / "rollout.py"),
        str(REPOSITORY / "zoo" / "rover" / "rover.wmb"),
        EDGE_WM_KERNELS=kernels,
    )
    return json.loads(printed)


def rollout_on_arm(processor: str, kernels: str = "") -> dict[str, Any]:
    """The same in the emulated Python, with the wheel's edge-wm and the wheel's bundle."""
    printed = run(
        *("qemu-aarch64", "-cpu", processor, "-L", str(ROOT)),
        *("-E", f"PYTHONPATH={BUILD / 'installed'}:{SITE}", "-E", f"EDGE_WM_KERNELS={kernels}"),
        *("-E", "PYTHONDONTWRITEBYTECODE=1"),
        str(ROOT / "usr" / "bin" / "python3.11"),
        str(REPOSITORY / "tests" / "arm" / "rollout.py"),
        str(BUILD / "installed" / "edge_wm" / "share" / "zoo" / "rover" / "rover.wmb"),
    )
    return json.loads(printed)


def install_wheel() -> None:
    shutil.rmtree(BUILD / "installed", ignore_errors=True)
    (file,) = WHEELS.glob("edge_wm-*manylinux*_aarch64.whl")
    shutil.unpack_archive(file, BUILD / "installed", format="zip")


def rollouts() -> dict[str, Any]:
    """The rover's belief and imagination on three ARM processors, against x86."""
    install_wheel()
    hashes = ("encoder_onnxruntime", "encoder_native", "cost", "terms", "beliefs")
    here = {name: rollout_here(name) for name in rollout_here("")["available"]}
    arm = {name: rollout_on_arm(name) for name in PROCESSORS}
    picked = {name: answer["kernels"] for name, answer in arm.items()}
    answers = [*here.values(), *arm.values()]
    same = {name: len({answer[name] for answer in answers}) == 1 for name in hashes}
    return {
        # onnxruntime's own bits are its affair: told, not required.
        "passed": picked == PROCESSORS
        and all(answer["machine"] == "aarch64" for answer in arm.values())
        and all(same[name] for name in hashes if name != "encoder_onnxruntime"),
        "kernels_on_x86": list(here),
        "kernels_on_arm": picked,
        "same_bits": same,
        "hashes": {name: answers[0][name] for name in hashes},
        "feasible": answers[0]["feasible"],
    }


def source_distribution() -> dict[str, Any]:
    """Jetsons build it on the device: here, without a network, with g++ 11 where it is installed.

    With this machine's CMake; 3.22.6 (from PyPI) and g++ 11.3 were tried by hand in November 2026.
    """
    folder = BUILD / "sdist"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    build = "from scikit_build_core.build import build_sdist; print(build_sdist('SDIST'))"
    done = subprocess.run(
        [sys.executable, "-c", build.replace("SDIST", str(folder))],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    (archive,) = folder.glob("*.tar.gz")
    compilers = [name for name in ("g++-11", "g++") if shutil.which(name)]
    # `unshare -n` takes the network away; where it is not allowed, pip's --no-index has to do.
    apart = subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    built = {}
    for compiler in compilers:
        out = folder / compiler
        run(
            *(("unshare", "-rn") if apart else ()),
            *(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"),
            *("--no-index", "--disable-pip-version-check", f"--wheel-dir={out}", str(archive)),
            PATH=path,
            CXX=compiler,
        )
        (made,) = out.glob("*.whl")
        built[run(compiler, "-dumpfullversion").strip()] = made.name
    cmake = run("cmake", "--version").split()[2]
    return {
        "passed": bool(built)
        and all(sysconfig.get_platform()[:5] in name for name in built.values()),
        "sdist_bytes": archive.stat().st_size,
        "without_network": apart,
        "built_with": built,
        "cmake": cmake,
    }


def inner_loops() -> dict[str, Any]:
    """`make bench-arm`'s figures: an estimate by llvm-mca."""
    bench = [sys.executable, str(REPOSITORY / "scripts" / "bench_arm.py"), "--json"]
    done = subprocess.run(bench, capture_output=True, text=True)
    if done.returncode not in (0, 1) or not done.stdout:
        raise SystemExit(done.stderr)
    return {"passed": done.returncode == 0, **json.loads(done.stdout)}


PARTS = {
    "wheel": wheel,
    "rollouts": rollouts,
    "source distribution": source_distribution,
    "inner loops": inner_loops,
}
