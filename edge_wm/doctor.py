"""What this machine is, what of it edge-wm can use, and how to mend what it cannot.

    read_machine   board, processor, cores, memory, clocks: from files, below any root
    read_software  Python, packages, inference libraries, a sourced ROS
    read_transport ROS 2's shared memory against the largest image of the robot files
    try_machine    renders a picture, imports the libraries, asks the scheduler

The invariant: the doctor changes nothing and survives everything. A file that is not there gives
no finding or says so; what may crash (an inference library, a graphics driver) runs in a child
process with a time limit. Every finding that is not ok says in one line what to do.
"""

from __future__ import annotations

import math
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from edge_wm import numbers, shipped
from edge_wm.robot import Robot, load_robot

Level = Literal["ok", "warn", "fail"]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's answer."""

    topic: str
    level: Level
    found: str
    fix: str = ""  # what to do, where the level is not ok


def examine(folder: Path) -> list[Finding]:
    """Everything about this machine; `folder` is where runs are written."""
    return [
        *read_machine(Path("/")),
        *read_software(os.environ, installed_version),
        *read_transport(os.environ, installed_version, shipped_robots()),
        *try_machine(folder),
    ]


# ---- the machine, from files ------------------------------------------------------------
# ARM's processor parts (CPU implementer 0x41), from the Technical Reference Manuals' MIDR_EL1.
ARM_PARTS: Mapping[str, str] = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
    "0xd83": "Neoverse-V3AE",
}
# The instruction sets that make a difference to inference: /proc/cpuinfo's word -> ours.
FEATURES: Mapping[str, str] = {
    "avx2": "AVX2",
    "fma": "FMA",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "amx_int8": "AMX int8",
    "asimd": "NEON",
    "asimdhp": "fp16",
    "asimddp": "dot product",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "SVE",
}


def read_machine(root: Path) -> Iterator[Finding]:
    """Findings from the files below `root` ("/" on a real machine); silent on absent ones."""
    yield from _board(root)
    yield from _processor(root)
    yield from _cores(root)
    yield from _memory(root)
    yield from _clocks(root)
    yield from _kernel(root)


def _text(root: Path, path: str) -> str:
    """The file's text without NULs and outer blanks; "" if it cannot be read."""
    try:
        return (root / path).read_text(encoding="utf-8", errors="replace").strip("\0 \n\t")
    except OSError:
        return ""


def _board(root: Path) -> Iterator[Finding]:
    model = _text(root, "proc/device-tree/model")
    if model:
        yield Finding("board", "ok", model)
    release = _text(root, "etc/nv_tegra_release")
    if release:
        match = re.match(r"# R(\d+) \(release\), REVISION: ([\d.]+)", release)
        version = f"R{match[1]}.{match[2]}" if match else release.splitlines()[0]
        yield Finding("jetson", "ok", f"Jetson Linux {version}")
        mode = _text(root, "var/lib/nvpmodel/status")
        if mode:
            yield Finding("jetson power mode", "ok", mode.removeprefix("pmode:"))


def _processor(root: Path) -> Iterator[Finding]:
    cpuinfo = _text(root, "proc/cpuinfo")
    fields: dict[str, list[str]] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), []).append(value.strip())
    names = fields.get("model name", [])
    if fields.get("CPU part"):
        names = [ARM_PARTS.get(part, f"ARM part {part}") for part in fields["CPU part"]]
    if not names:
        yield Finding(
            "processor", "warn", "unknown", "/proc/cpuinfo names no processor; nothing to mend"
        )
        return
    counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    words = set(" ".join(fields.get("flags", []) + fields.get("Features", [])).split())
    present = [ours for word, ours in FEATURES.items() if word in words]
    yield Finding("processor", "ok", f"{counted} ({', '.join(present) or 'no vector features'})")


def _listed(cpus: str) -> int:
    """How many processors a kernel list such as "0-3,6" names; 0 if it is no such list."""
    if not re.fullmatch(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*", cpus):
        return 0
    count = 0
    for part in cpus.split(","):
        first, _, last = part.partition("-")
        count += int(last or first) - int(first) + 1
    return count


def _cores(root: Path) -> Iterator[Finding]:
    folder = "sys/devices/system/cpu"
    online, present = (_listed(_text(root, f"{folder}/{name}")) for name in ("online", "present"))
    isolated = _text(root, f"{folder}/isolated")
    if not online:
        return
    found = f"{online} of {present} online" + (f", isolated: {isolated}" if isolated else "")
    usable: float = online
    quota = re.fullmatch(r"(\d+) ([1-9]\d*)", _text(root, "sys/fs/cgroup/cpu.max"))
    if quota:  # "max 100000" where there is no quota
        usable = min(usable, int(quota[1]) / int(quota[2]))
        found += f", of which this container may use {usable:.1f}"
    if usable < 2:
        fix = "give it two cores: one keeps the setpoint tick apart from the planner"
        yield Finding("cores", "warn", found, fix)
    elif online < present:
        fix = "a power mode took cores offline; on a Jetson: sudo nvpmodel -m 0"
        yield Finding("cores", "warn", found, fix)
    else:
        yield Finding("cores", "ok", found)


def _memory(root: Path) -> Iterator[Finding]:
    sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", _text(root, "proc/meminfo"), re.MULTILINE))
    if not {"MemAvailable", "MemTotal"} <= sizes.keys():
        return
    available, total = (int(sizes[key]) // 1024 for key in ("MemAvailable", "MemTotal"))
    found = f"{available} MiB of {total} MiB available"
    # The rover's run takes about 300 MiB; loading a model in a child process some more.
    if available < 300:
        yield Finding("memory", "fail", found, "stop other programs: a run needs about 300 MiB")
    elif available < 1024:
        yield Finding("memory", "warn", found, "stop other programs, or expect swapping")
    else:
        yield Finding("memory", "ok", found)


def _clocks(root: Path) -> Iterator[Finding]:
    folders = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq")
    governors = sorted({_text(folder, "scaling_governor") for folder in folders} - {""})
    if governors:
        slow = [name for name in governors if name != "performance"]
        fix = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
        yield Finding(
            "governor", "warn" if slow else "ok", ", ".join(governors), fix if slow else ""
        )
    temperatures = []
    for path in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        text = _text(path, "temp")
        if re.fullmatch(r"\d{1,6}", text) and 0 < int(text) < 200_000:  # others: broken sensors
            temperatures.append((int(text) / 1000, _text(path, "type") or path.name))
    if temperatures:
        hottest, zone = max(temperatures)
        found = f"{hottest:.0f} degrees Celsius at most ({zone})"
        # Jetson and Raspberry Pi throttle from 80-99 degrees on.
        fix = "cool it: the processor slows down from about 80 degrees on"
        yield Finding("temperature", *(("warn", found, fix) if hottest >= 80 else ("ok", found)))
    source = _text(root, "sys/devices/system/clocksource/clocksource0/current_clocksource")
    if source in ("hpet", "acpi_pm", "jiffies"):
        fix = "reading this clock is slow; look in `dmesg` for why the kernel left the faster one"
        yield Finding("clock source", "warn", source, fix)
    elif source:
        yield Finding("clock source", "ok", source)


def _kernel(root: Path) -> Iterator[Finding]:
    release = _text(root, "proc/sys/kernel/osrelease")
    if release:
        realtime = _text(root, "sys/kernel/realtime") == "1"
        yield Finding("kernel", "ok", release + (", real-time" if realtime else ""))


# ---- Python and its packages ------------------------------------------------------------
BASE = (
    "numpy",
    "msgspec",
    "pyyaml",
    "cryptography",
    "securesystemslib",
    "mcap",
    "zstandard",
    "typer",
    "rich",
    "pyserial",
)
# Extra -> (package, what cannot be done without it).
EXTRAS: Mapping[str, tuple[str, str]] = {
    "sim": ("mujoco", "`edge-wm run` without a robot, and `edge-wm eval`"),
    "report": ("matplotlib", "the report of a run"),
}
ROS_WHEELS = tuple(f"ros-{distro}-rclpy" for distro in ("jazzy", "kilted", "lyrical"))


def installed_version(package: str) -> str | None:
    """The version of an installed package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def read_software(
    environment: Mapping[str, str], version: Callable[[str], str | None]
) -> Iterator[Finding]:
    """Findings from the environment and from `version`, which tells a package's version."""
    python = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        yield Finding("python", "ok", f"{python} ({sys.executable})")
    else:
        yield Finding("python", "warn", python, "edge-wm is written for Python 3.10 to 3.13")

    versions = {package: version(package) for package in BASE}
    absent = [package for package, found in versions.items() if found is None]
    if absent:
        yield Finding("packages", "fail", f"missing: {', '.join(absent)}", "pip install edge-wm")
    else:
        yield Finding("packages", "ok", ", ".join(f"{p} {v}" for p, v in versions.items()))
    for extra, (package, what) in EXTRAS.items():
        found = version(package)
        if found is None:
            fix = f'for {what}: pip install "edge-wm[{extra}]"'
            yield Finding(extra, "warn", f"{package} is not installed", fix)
        else:
            yield Finding(extra, "ok", f"{package} {found}")

    wheels = [package for package in ROS_WHEELS if version(package) is not None]
    sourced = [p for p in environment.get("AMENT_PREFIX_PATH", "").split(":") if "/opt/ros" in p]
    if wheels and sourced:
        yield Finding(
            "ros 2",
            "fail",
            f"{wheels[0]} is installed here while {sourced[0]} is sourced: the two crash together",
            "open a shell without the sourced distribution, or leave this virtual environment",
        )
    elif wheels or sourced:
        yield Finding("ros 2", "ok", wheels[0] if wheels else sourced[0])


# ---- ROS 2's transport --------------------------------------------------------------------
FAST_DDS = "rmw_fastrtps_cpp"  # ROS 2's default up to Lyrical
PROFILE_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
DEFAULT_SEGMENT = 512 * 1024  # SharedMemTransportDescriptor's segment_size, Fast DDS 2.6 to 3.2
# A stream of images keeps four of them: those that wait, and the one that is being written.
IMAGES_KEPT = 4
SHIPPED_PROFILE = "FASTDDS_DEFAULT_PROFILES_FILE=<share of edge_wm_ros>/fastdds_loopback.xml"


def shipped_robots() -> list[Robot]:
    """The robots whose files come with edge-wm."""
    return [load_robot(file) for file in sorted(shipped.folder("robots").glob("*.yaml"))]


def read_transport(
    environment: Mapping[str, str], version: Callable[[str], str | None], robots: Sequence[Robot]
) -> Iterator[Finding]:
    """Whether the images of these robots fit into Fast DDS's shared memory; silent without ROS.

    Images over best effort are lost, without a word, where the segment does not hold them.
    """
    wheels = any(version(package) is not None for package in ROS_WHEELS)
    if not wheels and "/opt/ros" not in environment.get("AMENT_PREFIX_PATH", ""):
        return
    chosen = environment.get("RMW_IMPLEMENTATION") or FAST_DDS
    images = [
        (math.prod(stream.shape), f"{robot.name}'s {stream.name}")
        for robot in robots
        for stream in robot.streams.values()
        if stream.type == "image"
    ]
    if chosen != FAST_DDS or not images:
        return
    path = next((environment[name] for name in PROFILE_VARIABLES if environment.get(name)), "")
    segment, told = shared_memory(path)
    size, name = max(images)
    found = f"{told}; the largest image is {_sized(size)} ({name})"
    fix = f"a segment of {IMAGES_KEPT} images or more: {SHIPPED_PROFILE}, see docs/ros.md"
    if segment is None or segment < size:
        yield Finding("ros 2 images", "fail", found, fix)
    elif segment < IMAGES_KEPT * size:
        yield Finding("ros 2 images", "warn", found, fix)
    else:
        yield Finding("ros 2 images", "ok", found)


def shared_memory(path: str) -> tuple[int | None, str]:
    """The size (bytes) of Fast DDS's segment under the profile at `path`, and a word on it.

    path: "" where no profile is given. None: there is no shared memory. What Fast DDS cannot read
    it logs once, and goes on with its default: so does this.
    """
    default = f"{_sized(DEFAULT_SEGMENT)} of shared memory (Fast DDS's default"
    if not path:
        return DEFAULT_SEGMENT, f"{default}, no profile is set)"
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError, UnicodeError) as error:
        return DEFAULT_SEGMENT, f"{default}: {path} cannot be read: {error})"
    for element in root.iter():  # the namespace says nothing here
        element.tag = element.tag.rpartition("}")[2]
    participants = list(root.iter("participant"))
    ours = [p for p in participants if p.get("is_default_profile") == "true"]
    if not ours:
        return DEFAULT_SEGMENT, f"{default}: {path} has no default participant profile)"
    wanted = {str(item.text).strip() for item in ours[0].iterfind(".//userTransports/transport_id")}
    for transport in root.iter("transport_descriptor"):
        text = {item.tag: str(item.text).strip() for item in transport}
        if text.get("type") == "SHM" and text.get("transport_id") in wanted:
            size = text.get("segment_size", "")
            segment = int(size) if size.isdecimal() and len(size) < 16 else DEFAULT_SEGMENT
            return segment, f"{_sized(segment)} of shared memory ({path})"
    builtin = ours[0].findtext(".//useBuiltinTransports", "true").strip()
    if builtin == "true":
        return DEFAULT_SEGMENT, f"{default}: {path} adds none)"
    return None, f"no shared memory: {path} has other transports only"


def _sized(size: int) -> str:
    return f"{size / MIB:g} MiB" if size >= MIB and size % MIB == 0 else f"{-(-size // 1024)} KiB"


# ---- trying things ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Tried:
    """How a child process ended: its last line of output, or what went wrong."""

    ok: bool
    line: str


def try_python(
    program: str, *, environment: Mapping[str, str] | None = None, limit_s: float = 60
) -> Tried:
    """Run a Python program in a child process that may crash or hang."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=limit_s,
            env={**os.environ, **(environment or {})},
        )
    except subprocess.TimeoutExpired:
        return Tried(False, f"did not finish in {limit_s:g} s")
    if done.returncode < 0:
        return Tried(False, f"crashed with signal {-done.returncode}")
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return Tried(done.returncode == 0, lines[-1] if lines else f"exit code {done.returncode}")


TRY_ONNXRUNTIME = (
    "import onnxruntime as ort; ort.set_default_logger_severity(4);"
    "print(ort.__version__ + ', ' + ' '.join(ort.get_available_providers()))"
)
TRY_LITERT = (
    "from importlib import metadata; from ai_edge_litert.interpreter import Interpreter;"
    "print(metadata.version('ai-edge-litert'))"
)
TRY_RENDERING = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    '<mujoco><worldbody><light pos="0 0 3"/><geom size="1"/></worldbody></mujoco>')
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
with mujoco.Renderer(model, 32, 32) as renderer:
    renderer.update_scene(data)
    picture = renderer.render()
print('ok' if picture.any() else 'black')
"""


def try_machine(folder: Path) -> Iterator[Finding]:
    """Findings that take doing something: about two seconds."""
    yield native_finding()
    onnxruntime = try_python(TRY_ONNXRUNTIME)
    yield from backend_findings(onnxruntime, try_python(TRY_LITERT))
    yield from gpu_findings(installed_version("onnxruntime-gpu"), onnxruntime)
    if installed_version("mujoco") is not None:
        tried = try_python(TRY_RENDERING, environment={"MUJOCO_GL": "egl"})
        yield rendering_finding(tried)
    yield disk_finding(folder, shutil.disk_usage(_existing(folder)).free)
    yield limits_finding(*_soft_limits())
    yield jitter_finding(measure_lateness_ns())


def native_finding(native: bool | None = None) -> Finding:
    """Whether the compiled module is there."""
    if numbers.NATIVE if native is None else native:
        return Finding("native module", "ok", "compiled")
    built = sorted(path.name for path in Path(numbers.__file__).parent.glob("_native*.so"))
    found = f"built for another Python: {', '.join(built)}" if built else "not compiled"
    fix = "numpy does its work, slower; in a checkout: make run; else: pip install edge-wm"
    return Finding("native module", "warn", found, fix)


def gpu_findings(version: str | None, onnxruntime: Tried) -> Iterator[Finding]:
    """onnxruntime's GPU build. On ARM, PyPI's and NVIDIA's share a name; one has TensorRT."""
    if version is None:
        return
    found = [
        name for name in ("CUDA", "Tensorrt") if f"{name}ExecutionProvider" in onnxruntime.line
    ]
    if platform.machine() == "aarch64" and "Tensorrt" not in found:
        yield Finding(
            "onnxruntime-gpu",
            "fail",
            f"{version} from PyPI has no code for Jetson Orin or Thor and no TensorRT",
            'pip uninstall onnxruntime-gpu; pip install "edge-wm[onnxruntime]", or NVIDIA\'s build',
        )
    elif not found:
        yield Finding(
            "onnxruntime-gpu",
            "warn",
            f"{version} offers neither CUDA nor TensorRT",
            "pip uninstall onnxruntime onnxruntime-gpu; then install one of the two",
        )
    else:
        yield Finding("onnxruntime-gpu", "ok", f"{version}, offers {' and '.join(found)}")


def backend_findings(onnxruntime: Tried, litert: Tried) -> Iterator[Finding]:
    """The inference libraries: one that works is needed, two are not."""
    any_works = onnxruntime.ok or litert.ok
    for name, tried in (("onnxruntime", onnxruntime), ("litert", litert)):
        if tried.ok:
            yield Finding(name, "ok", tried.line)
            continue
        absent = "ModuleNotFoundError" in tried.line
        found = "not installed" if absent else tried.line
        again = "" if absent else "--force-reinstall "
        fix = f'pip install {again}"edge-wm[{name}]"'
        if not any_works:
            yield Finding(name, "fail", found, f"no model can run: {fix}")
        elif absent:
            yield Finding(name, "ok", found)
        else:
            yield Finding(name, "warn", found, fix)


def rendering_finding(tried: Tried) -> Finding:
    """Whether the simulated camera can see."""
    if tried.ok and tried.line == "ok":
        return Finding("rendering", "ok", "EGL draws without a screen")
    fix = "sudo apt-get install -y libegl1 libegl-mesa0 libopengl0 libgl1-mesa-dri"
    found = "EGL draws black pictures" if tried.ok else f"EGL does not work: {tried.line}"
    return Finding("rendering", "fail", found, fix)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def disk_finding(folder: Path, free: int) -> Finding:
    """Room for recordings: the rover writes about half a MiB a second."""
    found = f"{free // MIB} MiB free for {folder}"
    fix = "delete old folders in runs/, or give another place with --out"
    if free < 200 * MIB:
        return Finding("disk", "fail", found, fix)
    if free < 2048 * MIB:
        return Finding("disk", "warn", found, fix)
    return Finding("disk", "ok", found)


def _soft_limits() -> tuple[int, int, bool]:
    rtprio = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
    memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return rtprio, memlock, os.geteuid() == 0


def limits_finding(rtprio: int, memlock: int, root: bool) -> Finding:
    """The limits that real-time scheduling needs on a deployed robot."""
    locked = "unlimited" if memlock == resource.RLIM_INFINITY else f"{memlock // 1024} KiB"
    found = f"real-time priority {rtprio}, locked memory {locked}" + (", root" if root else "")
    if root or (rtprio > 0 and memlock == resource.RLIM_INFINITY):
        return Finding("limits", "ok", found)
    fix = (
        "only for deployment: `@realtime - rtprio 50` and `@realtime - memlock unlimited` in "
        "/etc/security/limits.d/realtime.conf, and be in that group"
    )
    return Finding("limits", "warn", found, fix)


def measure_lateness_ns(
    clock: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
    *,
    period_ns: int = 5_000_000,
    ticks: int = 80,
) -> list[int]:
    """How late the scheduler wakes a thread that sleeps to absolute deadlines: (ticks,) ns."""
    late = []
    start = clock()
    for tick in range(1, ticks + 1):
        due = start + tick * period_ns
        sleep(max(0, due - clock()) / 1e9)
        late.append(clock() - due)
    return late


def jitter_finding(late_ns: Sequence[int]) -> Finding:
    """Whether 100 setpoints a second can be sent on time (10 ms apart, dead-man 50 ms)."""
    ordered = sorted(late_ns)
    median, worst = ordered[len(ordered) // 2] / 1e6, ordered[-1] / 1e6
    resolution = time.get_clock_info("monotonic").resolution * 1e9
    found = f"woken {median:.2f} ms late (median), {worst:.2f} ms (worst), clock {resolution:g} ns"
    if worst > 10:
        fix = "something else uses the cores: stop it, or keep it off them (taskset, isolcpus)"
        return Finding("scheduling", "warn", found, fix)
    return Finding("scheduling", "ok", found)
