"""The doctor: each finding from a made-up machine, and the commands `doctor` and `explain`."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import resource
import sys
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge_wm import doctor, numbers
from edge_wm.cli.doctor import doctor as doctor_command
from edge_wm.cli.explain import explain, find
from edge_wm.doctor import MIB, Finding, Tried
from edge_wm.errors import UsageError
from edge_wm.modes import Mode
from edge_wm.reasons import EXPLANATIONS, Reason
from edge_wm.robot import Robot, find_robot, load_robot

REPOSITORY = Path(__file__).resolve().parent.parent


def machine(root: Path, files: dict[str, str]) -> dict[str, Finding]:
    """The findings for a machine that consists of these files, by topic."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    findings = list(doctor.read_machine(root))
    assert len({finding.topic for finding in findings}) == len(findings)
    for finding in findings:
        assert (finding.level == "ok") == (finding.fix == ""), finding
    return {finding.topic: finding for finding in findings}


# As these machines print it, shortened to what is read.
ARM_CORE = (
    "processor\t: {n}\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd evtstrm aes crc32 atomics fphp "
    "asimdhp cpuid asimdrdm lrcpc dcpop asimddp\nCPU implementer\t: 0x41\n"
    "CPU architecture: 8\nCPU part\t: {part}\n\n"
)
JETSON_ORIN = {
    "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic\n",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:fanNull",
    "proc/cpuinfo": "".join(ARM_CORE.format(n=n, part="0xd42") for n in range(8)),
    "proc/meminfo": "MemTotal:       31326968 kB\nMemFree: 1 kB\nMemAvailable:   28000000 kB\n",
    "proc/sys/kernel/osrelease": "5.15.148-tegra\n",
    "sys/kernel/realtime": "1\n",
    "sys/devices/system/cpu/online": "0-7\n",
    "sys/devices/system/cpu/present": "0-11\n",
    "sys/devices/system/cpu/isolated": "6-7\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "schedutil\n",
    "sys/class/thermal/thermal_zone0/temp": "51250\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",  # a sensor that is switched off
    "sys/devices/system/clocksource/clocksource0/current_clocksource": "arch_sys_counter\n",
}
RASPBERRY_PI_5 = {
    "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
    "proc/cpuinfo": "".join(ARM_CORE.format(n=n, part="0xd0b") for n in range(4))
    + "Model\t\t: Raspberry Pi 5 Model B Rev 1.0\n",
    "proc/meminfo": "MemTotal: 8256224 kB\nMemAvailable: 7300000 kB\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/present": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/class/thermal/thermal_zone0/temp": "81000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
}


def test_a_jetson_orin(tmp_path):
    found = machine(tmp_path, JETSON_ORIN)
    assert found["board"].found == "NVIDIA Jetson AGX Orin Developer Kit"
    assert found["jetson"].found == "Jetson Linux R36.4.3"
    assert found["jetson power mode"].found == "0002 fmode:fanNull"
    assert found["processor"] == Finding(
        "processor", "ok", "8 x Cortex-A78AE (NEON, fp16, dot product)"
    )
    assert found["cores"] == Finding(
        "cores",
        "warn",
        "8 of 12 online, isolated: 6-7",
        "a power mode took cores offline; on a Jetson: sudo nvpmodel -m 0",
    )
    assert found["memory"].found == "27343 MiB of 30592 MiB available"
    assert found["governor"] == Finding(
        "governor",
        "warn",
        "schedutil",
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
    )
    assert found["temperature"] == Finding(
        "temperature", "ok", "51 degrees Celsius at most (cpu-thermal)"
    )
    assert found["kernel"].found == "5.15.148-tegra, real-time"
    assert found["clock source"].found == "arch_sys_counter"


def test_a_raspberry_pi_that_is_too_hot(tmp_path):
    found = machine(tmp_path, RASPBERRY_PI_5)
    assert found["board"].found == "Raspberry Pi 5 Model B Rev 1.0"
    assert found["processor"].found == "4 x Cortex-A76 (NEON, fp16, dot product)"
    assert found["governor"] == Finding("governor", "ok", "performance")
    assert found["temperature"].level == "warn"
    assert "jetson" not in found


def test_cores_of_two_kinds_and_one_that_we_do_not_know(tmp_path):
    cpuinfo = "".join(ARM_CORE.format(n=0, part=p) for p in ("0xd05", "0xd05", "0xfff"))
    found = machine(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert found["processor"].found.startswith("2 x Cortex-A55, 1 x ARM part 0xfff (")


def test_an_x86_machine(tmp_path):
    cpuinfo = "model name\t: AMD EPYC\nflags\t\t: fpu avx2 fma avx512f avx512_vnni\n\n" * 2
    found = machine(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert found["processor"].found == "2 x AMD EPYC (AVX2, FMA, AVX-512, AVX-512 VNNI)"


def test_nothing_to_read(tmp_path):
    assert machine(tmp_path, {}).keys() == {"processor"}


@pytest.mark.parametrize(
    ("online", "present", "quota", "level"),
    [
        ("0-3", "0-3", "", "ok"),
        ("0-3", "0-3", "max 100000", "ok"),
        ("0-3", "0-3", "200000 100000", "ok"),
        ("0-3", "0-3", "199999 100000", "warn"),
        ("0,2-3", "0-3", "", "warn"),
        ("0", "0", "", "warn"),
        ("0-1", "0-1", "", "ok"),
    ],
)
def test_cores(tmp_path, online, present, quota, level):
    folder = "sys/devices/system/cpu"
    files = {f"{folder}/online": online, f"{folder}/present": present}
    assert machine(tmp_path, {**files, "sys/fs/cgroup/cpu.max": quota})["cores"].level == level


@pytest.mark.parametrize(
    ("available_MiB", "level"), [(299, "fail"), (300, "warn"), (1023, "warn"), (1024, "ok")]
)
def test_memory(tmp_path, available_MiB, level):
    text = f"MemTotal: 4194304 kB\nMemAvailable: {available_MiB * 1024} kB\n"
    assert machine(tmp_path, {"proc/meminfo": text})["memory"].level == level


@pytest.mark.parametrize(("source", "level"), [("tsc", "ok"), ("hpet", "warn")])
def test_clock_source(tmp_path, source, level):
    name = "sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert machine(tmp_path, {name: source})["clock source"].level == level


FILES = sorted({*JETSON_ORIN, "sys/fs/cgroup/cpu.max"})


@given(st.dictionaries(st.sampled_from(FILES), st.text() | st.from_regex(r"[-0-9,: kBmax]*")))
def test_any_text_in_any_file_is_survived(tmp_path_factory, files):
    machine(tmp_path_factory.mktemp("root"), files)


# ---- software ---------------------------------------------------------------------------
def software(versions: dict[str, str], environment: dict[str, str] | None = None):
    everything = dict.fromkeys(doctor.BASE, "1.0") | versions
    findings = doctor.read_software(environment or {}, everything.get)
    return {finding.topic: finding for finding in findings}


def test_the_base_packages_are_those_of_pyproject():
    text = (REPOSITORY / "pyproject.toml").read_text()
    (block,) = re.findall(r"\ndependencies = \[\n(.*?)\n\]", text, re.DOTALL)
    assert re.findall(r'"([\w-]+)', block) == list(doctor.BASE)


def test_a_missing_base_package_is_in_the_way():
    found = software({"msgspec": None, "mcap": None})  # type: ignore[dict-item]
    assert found["packages"] == Finding(
        "packages", "fail", "missing: msgspec, mcap", "pip install edge-wm"
    )


def test_missing_extras_are_worth_a_look():
    found = software({"matplotlib": "3.9"})
    assert found["report"] == Finding("report", "ok", "matplotlib 3.9")
    assert found["sim"] == Finding(
        "sim",
        "warn",
        "mujoco is not installed",
        'for `edge-wm run` without a robot, and `edge-wm eval`: pip install "edge-wm[sim]"',
    )


ROS_WHEEL = {"ros-kilted-rclpy": "9.1.2"}
SOURCED = {"AMENT_PREFIX_PATH": "/home/me/ws/install:/opt/ros/jazzy"}


@pytest.mark.parametrize(
    ("versions", "environment", "level"),
    [
        ({}, {}, None),
        (ROS_WHEEL, {}, "ok"),
        (ROS_WHEEL, {"AMENT_PREFIX_PATH": "/home/me/.venv"}, "ok"),
        ({}, SOURCED, "ok"),
        (ROS_WHEEL, SOURCED, "fail"),
    ],
)
def test_a_sourced_ros_mixed_with_wheels(versions, environment, level):
    finding = software(versions, environment).get("ros 2")
    assert (finding.level if finding else None) == level


@pytest.mark.parametrize(
    ("processor", "providers", "level", "found"),
    [
        ("aarch64", "CUDA", "fail", "1.32.0 from PyPI has no code for Jetson Orin or Thor and no "
         "TensorRT"),
        ("aarch64", "", "fail", "1.32.0 from PyPI has no code for Jetson Orin or Thor and no "
         "TensorRT"),
        ("aarch64", "Tensorrt CUDA", "ok", "1.32.0, offers CUDA and Tensorrt"),
        ("x86_64", "CUDA", "ok", "1.32.0, offers CUDA"),
        ("x86_64", "", "warn", "1.32.0 offers neither CUDA nor TensorRT"),
    ],
)  # fmt: skip
def test_onnxruntime_gpu_says_what_it_lacks(monkeypatch, processor, providers, level, found):
    monkeypatch.setattr(platform, "machine", lambda: processor)
    names = " ".join(f"{name}ExecutionProvider" for name in (*providers.split(), "CPU"))
    (finding,) = doctor.gpu_findings("1.32.0", Tried(True, f"1.32.0, {names}"))
    assert (finding.level, finding.found) == (level, found)
    assert (finding.fix == "") == (level == "ok")
    assert list(doctor.gpu_findings(None, Tried(True, f"1.32.0, {names}"))) == []


@pytest.mark.parametrize(
    ("version", "level"),
    [((3, 9), "warn"), ((3, 10), "ok"), ((3, 13), "ok"), ((3, 14), "warn")],
)
def test_python_version(monkeypatch, version, level):
    monkeypatch.setattr(sys, "version_info", (*version, 0, "final", 0))
    assert software({})["python"].level == level


# ---- ROS 2's transport ----------------------------------------------------------------------
SHIPPED_PROFILE = REPOSITORY / "ros2_ws/src/edge_wm_ros/edge_wm_ros/fastdds_loopback.xml"
ROVER = load_robot(find_robot("rover"))
ROVER_IMAGE = 64 * 64 * 3


def with_image(shape: tuple[int, ...]) -> Robot:
    camera = dataclasses.replace(ROVER.streams["camera"], shape=shape)
    return dataclasses.replace(ROVER, streams={"camera": camera})


def transport(robot: Robot = ROVER, **environment: str) -> list[Finding]:
    ros = {"AMENT_PREFIX_PATH": "/opt/ros/jazzy"} | environment
    return list(doctor.read_transport(ros, lambda _: None, [robot]))


def test_without_ros_nothing_is_said_of_its_transport():
    assert list(doctor.read_transport({}, lambda _: None, [ROVER])) == []
    assert transport(RMW_IMPLEMENTATION="rmw_cyclonedds_cpp") == []
    assert transport(dataclasses.replace(ROVER, streams={})) == []


def test_the_shipped_profile_holds_vga_images():
    (found,) = transport(
        with_image((480, 640, 3)), FASTDDS_DEFAULT_PROFILES_FILE=str(SHIPPED_PROFILE)
    )
    assert found == Finding(
        "ros 2 images",
        "ok",
        f"16 MiB of shared memory ({SHIPPED_PROFILE}); the largest image is 900 KiB "
        "(rover's camera)",
    )


def test_the_default_loses_vga_images():
    (found,) = transport(with_image((480, 640, 3)))
    assert found.level == "fail"
    assert found.found == (
        "512 KiB of shared memory (Fast DDS's default, no profile is set); the largest image is "
        "900 KiB (rover's camera)"
    )
    assert found.fix == (
        "a segment of 4 images or more: FASTDDS_DEFAULT_PROFILES_FILE=<share of edge_wm_ros>/"
        "fastdds_loopback.xml, see docs/ros.md"
    )


@pytest.mark.parametrize(
    ("bytes_", "level"),
    [(ROVER_IMAGE - 1, "fail"), (ROVER_IMAGE, "warn"), (4 * ROVER_IMAGE - 1, "warn"),
     (4 * ROVER_IMAGE, "ok")],
)  # fmt: skip
def test_around_the_bounds_of_the_segment(tmp_path, bytes_: int, level: str):
    profile = tmp_path / "profile.xml"
    profile.write_text(SHIPPED_PROFILE.read_text().replace("16777216", str(bytes_)))
    (found,) = transport(FASTRTPS_DEFAULT_PROFILES_FILE=str(profile))
    assert found.level == level
    assert (found.fix == "") == (level == "ok")


@pytest.mark.parametrize(
    ("old", "new", "segment", "told"),
    [
        ("<dds", "<dds <", 512 * 1024, "cannot be read: not well-formed"),
        (' is_default_profile="true"', "", 512 * 1024, "has no default participant profile"),
        ("<transport_id>shm</transport_id><transport_id>", "<transport_id>", None,
         "has other transports only"),
        ("<userTransports><transport_id>shm</transport_id>", "<userTransports>", None,
         "has other transports only"),
        ("<useBuiltinTransports>false", "<useBuiltinTransports>true", 16 * MIB, "of shared memory"),
        ("16777216", "a lot", 512 * 1024, "of shared memory"),
        ("16777216", "9" * 5000, 512 * 1024, "of shared memory"),
    ],
)  # fmt: skip
def test_profiles_of_all_kinds(tmp_path, old: str, new: str, segment: int | None, told: str):
    profile = tmp_path / "profile.xml"
    text = SHIPPED_PROFILE.read_text()
    assert old in text
    profile.write_text(text.replace(old, new))
    found, words = doctor.shared_memory(str(profile))
    assert found == segment
    assert told in words


def test_a_profile_that_adds_no_transport_leaves_the_default(tmp_path):
    profile = tmp_path / "profile.xml"
    profile.write_text(
        '<profiles><participant is_default_profile="true"><rtps/></participant></profiles>'
    )
    assert doctor.shared_memory(str(profile)) == (
        512 * 1024,
        f"512 KiB of shared memory (Fast DDS's default: {profile} adds none)",
    )
    found, words = doctor.shared_memory(str(tmp_path / "absent.xml"))
    assert found == 512 * 1024
    assert "absent.xml cannot be read" in words


# ---- what is tried ----------------------------------------------------------------------
WORKS = Tried(True, "1.32.0")
ABSENT = Tried(False, "ModuleNotFoundError: No module named 'x'")
CRASHES = Tried(False, "crashed with signal 11")


@pytest.mark.parametrize(
    ("onnxruntime", "litert", "levels"),
    [
        (WORKS, WORKS, ("ok", "ok")),
        (WORKS, ABSENT, ("ok", "ok")),
        (ABSENT, WORKS, ("ok", "ok")),
        (WORKS, CRASHES, ("ok", "warn")),
        (CRASHES, ABSENT, ("fail", "fail")),
        (ABSENT, ABSENT, ("fail", "fail")),
    ],
)
def test_one_inference_library_is_enough(onnxruntime, litert, levels):
    findings = tuple(doctor.backend_findings(onnxruntime, litert))
    assert tuple(finding.level for finding in findings) == levels


def test_how_to_get_an_inference_library():
    absent, crashes = doctor.backend_findings(ABSENT, CRASHES)
    assert absent.fix == 'no model can run: pip install "edge-wm[onnxruntime]"'
    assert crashes.fix == 'no model can run: pip install --force-reinstall "edge-wm[litert]"'


@pytest.mark.parametrize(
    ("program", "ok", "line"),
    [
        ("print('first'); print('last')", True, "last"),
        ("raise ValueError('no')", False, "ValueError: no"),
        ("import os; os.abort()", False, "crashed with signal 6"),
        ("import sys; sys.exit(3)", False, "exit code 3"),
        ("while True: pass", False, "did not finish in 0.5 s"),
    ],
    ids=["works", "raises", "crashes", "exits", "hangs"],
)
def test_a_child_may_end_as_it_likes(program, ok, line):
    limit_s = 0.5 if "while" in program else 60
    assert doctor.try_python(program, limit_s=limit_s) == Tried(ok, line)


def test_a_child_gets_its_environment():
    program = "import os; print(os.environ['MUJOCO_GL'])"
    assert doctor.try_python(program, environment={"MUJOCO_GL": "egl"}) == Tried(True, "egl")


@pytest.mark.parametrize(
    ("tried", "level", "found"),
    [
        (Tried(True, "ok"), "ok", "EGL draws without a screen"),
        (Tried(True, "black"), "fail", "EGL draws black pictures"),
        (Tried(False, "no libEGL"), "fail", "EGL does not work: no libEGL"),
    ],
)
def test_rendering(tried, level, found):
    finding = doctor.rendering_finding(tried)
    assert (finding.level, finding.found) == (level, found)
    assert (finding.fix == "") == (level == "ok")


def test_the_rendering_fix_names_what_set_up_installs():
    setup = (REPOSITORY / "scripts" / "setup.sh").read_text()
    for package in doctor.rendering_finding(CRASHES).fix.split("-y ")[1].split():
        assert f"missing {package} " in setup


@pytest.mark.parametrize(
    ("free", "level"),
    [
        (200 * MIB - 1, "fail"),
        (200 * MIB, "warn"),
        (2048 * MIB - 1, "warn"),
        (2048 * MIB, "ok"),
    ],
)
def test_disk(free, level):
    assert doctor.disk_finding(Path("runs"), free).level == level


@pytest.mark.parametrize(
    ("rtprio", "memlock", "root", "level"),
    [
        (0, 65536, False, "warn"),
        (50, 65536, False, "warn"),
        (0, resource.RLIM_INFINITY, False, "warn"),
        (50, resource.RLIM_INFINITY, False, "ok"),
        (0, 65536, True, "ok"),
    ],
)
def test_limits(rtprio, memlock, root, level):
    assert doctor.limits_finding(rtprio, memlock, root).level == level


def test_native_module(monkeypatch, tmp_path):
    assert doctor.native_finding(True).level == "ok"
    monkeypatch.setattr(numbers, "__file__", str(tmp_path / "numbers.py"))
    assert doctor.native_finding(False).found == "not compiled"
    (tmp_path / "_native.cpython-39-x86_64-linux-gnu.so").touch()
    finding = doctor.native_finding(False)
    assert finding.level == "warn"
    assert finding.found == "built for another Python: _native.cpython-39-x86_64-linux-gnu.so"


class Clock:
    """A clock that only sleeping moves, always `late` too far."""

    def __init__(self, late_ns: int) -> None:
        self.now_ns, self.late_ns = 0, late_ns

    def __call__(self) -> int:
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9) + self.late_ns


def test_lateness_is_against_absolute_deadlines_and_does_not_add_up():
    clock = Clock(late_ns=1_000_000)
    assert doctor.measure_lateness_ns(clock, clock.sleep, ticks=4) == [1_000_000] * 4


@pytest.mark.parametrize(("worst_ms", "level"), [(10, "ok"), (11, "warn")])
def test_scheduling(worst_ms, level):
    finding = doctor.jitter_finding([50_000, 60_000, worst_ms * 1_000_000])
    assert finding.level == level
    assert finding.found.startswith(f"woken 0.06 ms late (median), {worst_ms}.00 ms (worst), clock")


# ---- the commands -----------------------------------------------------------------------
DOCTOR_COMMAND = sys.modules[doctor_command.__module__]  # its name in edge_wm.cli is the function's
app = typer.Typer()
app.command("doctor")(doctor_command)
app.command("explain")(explain)


def call(*arguments: str):
    return CliRunner().invoke(app, arguments)


FINDINGS = [Finding("board", "ok", "a board"), Finding("disk", "warn", "3 MiB", "delete old runs")]


def test_doctor_prints_a_line_each_and_what_to_do(monkeypatch):
    monkeypatch.setattr(DOCTOR_COMMAND, "examine", lambda folder: FINDINGS)
    done = call("doctor")
    assert done.exit_code == 0
    assert done.stdout == (
        "ok    board  a board\n"
        "warn  disk   3 MiB\n"
        "             -> delete old runs\n"
        "1 ok, 1 to look at, 0 in the way\n"
    )


def test_doctor_fails_if_something_is_in_the_way(monkeypatch):
    failing = [*FINDINGS, Finding("rendering", "fail", "EGL is missing", "install it")]
    monkeypatch.setattr(DOCTOR_COMMAND, "examine", lambda folder: failing)
    assert call("doctor").exit_code == 1
    done = call("doctor", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)[2] == {
        "topic": "rendering",
        "level": "fail",
        "found": "EGL is missing",
        "fix": "install it",
    }


def test_doctor_on_this_machine(tmp_path):
    findings = doctor.examine(tmp_path / "not" / "there" / "yet")
    topics = [finding.topic for finding in findings]
    for topic in ("processor", "python", "packages", "native module", "onnxruntime", "disk"):
        assert topics.count(topic) == 1
    assert not (tmp_path / "not").exists(), "the doctor changes nothing"


@pytest.mark.parametrize("what", ["50", "obstacle_ahead", "obstacle-ahead", "Obstacle Ahead"])
def test_explain_a_reason(what):
    explanation = EXPLANATIONS[Reason.obstacle_ahead]
    assert call("explain", what).stdout == (
        "obstacle_ahead (reason 50)\n"
        f"  {explanation.sentence}\n"
        f"  likely cause: {explanation.cause}\n"
        f"  what to check: {explanation.check}\n"
    )


def test_explain_a_mode():
    assert call("explain", "fault").stdout == (
        "fault (mode 6)\n"
        "  Latched: the robot brakes and stays at rest until an operator resets the named fault.\n"
        "  to idle: by operator\n"
        "  to estop: by guard, operator, supervisor\n"
    )


@pytest.mark.parametrize("member", [*Mode, *Reason], ids=lambda member: member.name)
def test_everything_can_be_explained(member):
    assert find(member.name) is member
    facts = json.loads(call("explain", member.name, "--json").stdout)
    assert (facts["name"], facts["number"]) == (member.name, int(member))


def test_explain_lists_everything():
    text = call("explain").stdout
    facts = json.loads(call("explain", "--json").stdout)
    assert [mode["name"] for mode in facts["modes"]] == [mode.name for mode in Mode]
    assert [reason["name"] for reason in facts["reasons"]] == [reason.name for reason in Reason]
    for member in (*Mode, *Reason):
        assert f" {member.name} " in text


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("0", "no reason has the number 0; `edge-wm explain` lists them all"),
        ("9999", "no reason has the number 9999; `edge-wm explain` lists them all"),
        (
            "pose_stal",
            "no reason or mode is called 'pose_stal'; did you mean pose_stale, stream_stale, "
            "ranges_stale? `edge-wm explain` lists them all",
        ),
        ("qqq", "no reason or mode is called 'qqq'; `edge-wm explain` lists them all"),
    ],
)
def test_explain_something_unknown(what, message):
    with pytest.raises(UsageError) as error:
        find(what)
    assert str(error.value) == message
