"""Tests what edge_wm_bringup ships: launch file, parameters, layouts, services, security.

The launch system is not on PyPI: the launch file runs here against stand-ins for `launch` and
`launch_ros` that keep what they are told, and is held against the one list of processes.
"""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from edge_wm_ros import names
from edge_wm_ros.launching import PROFILE, environment
from edge_wm_ros.parameters import ALL
from edge_wm_ros.processes import processes
from edge_wm_ros.security import check_security

from edge_wm.errors import UsageError
from edge_wm.robot import find_robot, load_robot
from ros2.policy import allowed, policy

WORKSPACE = Path(__file__).resolve().parents[2] / "ros2_ws"
BRINGUP = WORKSPACE / "src" / "edge_wm_bringup"
LAUNCH = BRINGUP / "launch" / "robot.launch.py"
ROBOTS = ("rover", "arm")
OF_ROS = {"/diagnostics", "/clock", "/rosout", "/parameter_events", "/tf", "/tf_static"}


# ---- what is generated --------------------------------------------------------------------------
def test_the_generated_files_are_up_to_date():
    command = [sys.executable, str(WORKSPACE / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_a_changed_file_is_noticed(tmp_path: Path):
    copy = tmp_path / "ros2_ws"
    shutil.copytree(WORKSPACE, copy, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    file = copy / "src/edge_wm_bringup/config/rover.yaml"
    file.write_text(file.read_text().replace("runtime_silence_ms: 250", "runtime_silence_ms: 9"))
    command = [sys.executable, str(copy / "generate.py")]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == (
        "out of date: src/edge_wm_bringup/config/rover.yaml; run python ros2_ws/generate.py\n"
    )
    subprocess.run(command, check=True)
    assert subprocess.run([*command, "--check"]).returncode == 0


@pytest.mark.parametrize("robot", ROBOTS)
def test_a_parameter_file_is_complete_and_says_what_processes_say(robot: str):
    file = yaml.safe_load((BRINGUP / "config" / f"{robot}.yaml").read_text())
    listed = processes(robot, simulated=robot == "rover", record="runs", viz=True)
    assert set(file) == {process.name for process in listed}
    for process in listed:
        given = file[process.name]["ros__parameters"]
        declared = {item.name: item for item in dataclasses.fields(ALL[process.name])}
        assert set(given) == {*declared, "use_sim_time"}
        for name, item in declared.items():
            assert type(given[name]) is type(item.default), name
        assert {n: given[n] for n in process.parameters} == dict(process.parameters)


# ---- the launch file ----------------------------------------------------------------------------
def stand_in(kind: str) -> Callable[..., SimpleNamespace]:
    return lambda *positional, **named: SimpleNamespace(kind=kind, positional=positional, **named)


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """Runs the launch file with arguments, and returns the nodes that it would start."""
    modules = {
        "launch": {"LaunchDescription": list},
        "launch.actions": {
            name: stand_in(name)
            for name in ("DeclareLaunchArgument", "OpaqueFunction", "SetEnvironmentVariable")
        },
        "launch_ros": {},
        "launch_ros.actions": {"Node": stand_in("Node")},
    }
    for name, content in modules.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)

    def run(**arguments: str) -> list[Any]:
        code: dict[str, Any] = {"__file__": str(LAUNCH), "__name__": "robot_launch"}
        exec(compile(LAUNCH.read_text(), str(LAUNCH), "exec"), code)
        actions = code["generate_launch_description"]()
        declared = {
            action.positional[0]: action.default_value
            for action in actions
            if action.kind == "DeclareLaunchArgument"
        }
        assert set(arguments) <= set(declared)
        (function,) = [a.function for a in actions if a.kind == "OpaqueFunction"]
        context = SimpleNamespace(launch_configurations={**declared, **arguments})
        return [node for node in function(context) if node.kind == "Node"]

    return run


def parameters_of(node: Any) -> dict[str, Any]:
    """What a node gets in the end: files first, then what overrides them."""
    merged: dict[str, Any] = {}
    for source in node.parameters:
        if isinstance(source, str):
            source = yaml.safe_load(Path(source).read_text())[node.name]["ros__parameters"]
        merged |= source
    return merged


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({}, {}),
        ({"viz": "true"}, {"viz": True}),
        ({"simulated": "false"}, {"simulated": False}),
        (
            {"seed": "7", "shadow": "true", "candidates": "64", "backend": "native",
             "bundle": "/b.wmb", "record": "/runs", "viz": "True"},
            {"seed": 7, "shadow": True, "candidates": 64, "backend": "native",
             "bundle": "/b.wmb", "record": "/runs", "viz": True},
        ),
    ],
    ids=["defaults", "viz", "real robot", "everything"],
)  # fmt: skip
def test_it_declares_exactly_the_one_list(
    launch: Callable[..., list[Any]], given: dict[str, str], same: dict[str, Any]
):
    nodes, listed = launch(**given), processes("rover", **same)
    assert [node.name for node in nodes] == [process.name for process in listed]
    for node, process in zip(nodes, listed, strict=True):
        assert (node.package, node.executable) == ("edge_wm_ros", process.name)
        assert node.respawn == process.respawn
        found = parameters_of(node)
        assert {name: found[name] for name in process.parameters} == dict(process.parameters)


def test_a_robot_without_a_file_of_parameters_gets_all_of_them(
    launch: Callable[..., list[Any]], tmp_path: Path
):
    robot = tmp_path / "scout.yaml"
    robot.write_text("")
    nodes, listed = launch(robot=str(robot)), processes(str(robot))
    assert [node.parameters for node in nodes] == [[dict(p.parameters)] for p in listed]


def test_what_is_written_in_ones_own_file_stays(launch: Callable[..., list[Any]], tmp_path: Path):
    own = tmp_path / "mine.yaml"
    text = (BRINGUP / "config" / "rover.yaml").read_text()
    own.write_text(text.replace("seed: 0", "seed: 3").replace("candidates: 0", "candidates: 99"))
    runtime = next(n for n in launch(parameters=str(own), seed="4") if n.name == "wm_runtime")
    assert parameters_of(runtime)["candidates"] == 99
    assert parameters_of(runtime)["seed"] == 4


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"viz": "yes"}, "viz: must be true or false, found 'yes'; correct the argument"),
        ({"seed": "1.5"}, "seed: must be a whole number, found '1.5'; correct the argument"),
        ({"parameters": "/no"}, "parameters: /no must be a file, found none; correct the path"),
    ],
)
def test_arguments_that_cannot_be(
    launch: Callable[..., list[Any]], given: dict[str, str], text: str
):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        launch(**given)


def test_it_launches_nothing_where_security_would_not_hold(
    launch: Callable[..., list[Any]], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ROS_SECURITY_ENABLE", "True")
    with pytest.raises(UsageError, match="must be true or false, found 'True', which ROS takes"):
        launch()


def test_executables_are_those_that_are_installed():
    setup = (WORKSPACE / "src/edge_wm_ros/setup.py").read_text()
    installed = re.search(r"NODES = \((.*?)\)", setup)[1]
    for name in ALL:
        assert f'"{name.removeprefix("wm_")}"' in installed


# ---- layouts ------------------------------------------------------------------------------------
def topics() -> set[str]:
    """All topics that exist: those of the nodes, of the shipped robot files, and of ROS itself."""
    ours = {value for key, value in vars(names).items() if key.isupper()}
    streams = (s for r in ROBOTS for s in load_robot(find_robot(r)).streams.values())
    return ours | {stream.topic for stream in streams} | OF_ROS


def values_of(tree: Any, wanted: Callable[[str, Any], bool]) -> Iterator[Any]:
    """Every value of a tree of dictionaries and lists whose key and value are wanted."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in pairs:
        if wanted(str(key), value):
            yield value
        if isinstance(value, dict | list):
            yield from values_of(value, wanted)


def test_rviz_shows_topics_that_exist():
    layout = yaml.safe_load((BRINGUP / "rviz" / "edge_wm.rviz").read_text())
    found = [t["Value"] for t in values_of(layout, lambda key, _: key == "Topic")]
    assert names.MARKERS in found
    assert names.GOAL in found
    assert set(found) <= topics()
    assert layout["Visualization Manager"]["Global Options"]["Fixed Frame"] == "odom"


def test_foxglove_shows_topics_that_exist():
    layout = json.loads((BRINGUP / "foxglove" / "edge_wm.json").read_text())
    texts = values_of(layout, lambda _, value: isinstance(value, str) and value.startswith("/"))
    keys = [key for panel in values_of(layout, lambda k, _: k == "topics") for key in panel]
    found = {text.split(".")[0] for text in [*texts, *keys]}
    assert {names.MARKERS, names.GOAL, names.GUARD_STATE} <= found
    assert found <= topics()
    panels = list(values_of(layout["layout"], lambda _, value: isinstance(value, str)))
    assert set(panels) - {"row", "column"} == set(layout["configById"])


@pytest.mark.parametrize("page", ["ros2_ws/README.md", "docs/ros.md"])
def test_pages_name_topics_and_services_that_exist(page: str):
    file = WORKSPACE.parent / page
    services = {
        service
        for profile in policy().values()
        for what in ("reply", "request")
        for service in allowed(profile, "services", what)
    }
    named = re.findall(r"`(/(?:wm_|edge_wm/)\w+(?:/\w+)*)`", file.read_text())
    assert len(named) > 5
    assert set(named) - topics() - services - {"/wm_guard/reset"} == set()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text()):
        assert "://" in target or (file.parent / target).exists(), target


# ---- services -----------------------------------------------------------------------------------
def units() -> list[Path]:
    return sorted((BRINGUP / "systemd").glob("*.service"))


def test_a_service_for_each_process_of_a_real_robot():
    listed = processes("rover", simulated=False, record="runs", viz=True)
    assert {file.stem for file in units()} == {process.name for process in listed}
    for file in units():
        lines = file.read_text().splitlines()
        assert f'/{file.stem}" --ros-args --params-file' in file.read_text()
        for line in ("KillSignal=SIGINT", "Restart=on-failure", "Type=exec"):
            assert line in lines
        assert not any(line.startswith(("WatchdogSec", "CPUAffinity")) for line in lines)
    target = (BRINGUP / "systemd" / "edge-wm.target").read_text()
    assert all(file.name in target for file in units())


def test_services_pass_systemds_own_check(tmp_path: Path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for file in (BRINGUP / "systemd").iterdir():
        shutil.copy(file, tmp_path)
    made = [str(file) for file in tmp_path.iterdir() if file.suffix in (".service", ".target")]
    command = ["systemd-analyze", "verify", *made]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_environment_of_the_services_is_the_one_that_stays_on_this_machine():
    text = (BRINGUP / "systemd" / "environment.example").read_text()
    told = dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))
    wanted = environment({})
    for name in ("RMW_IMPLEMENTATION", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        assert told[name] == wanted[name]
    assert Path(told["FASTDDS_DEFAULT_PROFILES_FILE"]).name == PROFILE.name
    assert f"edge_wm_ros/{PROFILE.name}" in (WORKSPACE / "src/edge_wm_ros/setup.py").read_text()


# ---- security -----------------------------------------------------------------------------------
def test_the_policy_knows_every_process_and_names_what_exists():
    found = policy()
    listed = processes("rover", record="runs", viz=True)
    assert {process.name for process in listed} | {"operator"} == set(found)
    for node, profile in found.items():
        for what in ("publish", "subscribe"):
            unknown = allowed(profile, "topics", what) - topics()
            assert {t for t in unknown if not t.endswith("/transition_event")} == set(), node
    # Commands come from one place each, whatever a compromised process tries.
    for topic, only in {
        names.DEVICE_SETPOINT: "wm_bridge",
        names.SETPOINT: "wm_guard",
        names.TRAJECTORY: "wm_runtime",
        names.HEARTBEAT: "wm_supervisor",
    }.items():
        assert [n for n, p in found.items() if topic in allowed(p, "topics", "publish")] == [only]


def test_the_governance_lets_nobody_in_unknown():
    root = ElementTree.parse(BRINGUP / "security" / "governance.xml").getroot()
    assert root.find(".//allow_unauthenticated_participants").text == "false"
    assert root.find(".//enable_join_access_control").text == "true"
    assert {e.text for e in root.iter("data_protection_kind")} == {"ENCRYPT"}


@pytest.mark.parametrize("node", ["guard", "supervisor", "viz"])
def test_a_ros_without_security_fails_closed(node: str, tmp_path: Path):
    """The wheels' DDS has none: with a keystore and Enforce a node does not start and says why."""
    enclave = tmp_path / "enclaves" / "edge_wm" / f"wm_{node}"
    enclave.mkdir(parents=True)
    for name in ("identity_ca.cert.pem", "cert.pem", "key.pem", "permissions_ca.cert.pem",
                 "governance.p7s", "permissions.p7s"):  # fmt: skip
        (enclave / name).write_text("not a key")
    secure = environment() | {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }
    arguments = ["--ros-args", "--enclave", f"/edge_wm/wm_{node}"]
    done = subprocess.run(
        [sys.executable, "-m", f"edge_wm_ros.{node}_node", *arguments],
        env=secure, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode not in (0, None)
    if "SECURITY=ON" not in done.stderr:  # a DDS that has it: the keys are none
        assert "SECURITY ERROR" in done.stderr or "security" in done.stderr.lower()


def test_security_that_would_not_hold_is_refused(tmp_path: Path):
    (tmp_path / "enclaves").mkdir()
    good = {
        "ROS_SECURITY_ENABLE": "true",
        "ROS_SECURITY_STRATEGY": "Enforce",
        "ROS_SECURITY_KEYSTORE": str(tmp_path),
    }
    assert check_security(good)
    assert not check_security({})
    assert not check_security({"ROS_SECURITY_ENABLE": "false"})
    for changed, text in (
        (
            {"ROS_SECURITY_ENABLE": "TRUE"},
            "ROS_SECURITY_ENABLE: must be true or false, found 'TRUE', which ROS takes for false; "
            "correct or unset it",
        ),
        (
            {"ROS_SECURITY_ENABLE": ""},
            "ROS_SECURITY_STRATEGY is 'Enforce' while ROS_SECURITY_ENABLE is not true: nothing "
            "would be protected; set ROS_SECURITY_ENABLE=true, or unset both",
        ),
        (
            {"ROS_SECURITY_STRATEGY": "enforce"},
            "ROS_SECURITY_STRATEGY: must be Enforce where ROS_SECURITY_ENABLE is true, found "
            "'enforce': a node without keys would talk in the clear; set it to Enforce",
        ),
        (
            {"ROS_SECURITY_KEYSTORE": "/nowhere"},
            "ROS_SECURITY_KEYSTORE: must be a keystore (a folder with enclaves/ in it), found "
            "'/nowhere'; make one with: ros2 security create_keystore",
        ),
    ):
        with pytest.raises(UsageError, match=f"^{re.escape(text)}$"):
            check_security(good | changed)
