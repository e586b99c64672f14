"""The floor plan of edge_wm: which room may import which, read from the source.

A room imports only from lower floors, never sideways, never up; a heavy or optional library is
imported in one room only; `import edge_wm` needs numpy alone.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "edge_wm"
BRIDGE = REPOSITORY / "firmware_bridge"
BRIDGE_FLOORS = (0, 1)  # what firmware_bridge may import of edge_wm

FLOORS: Mapping[int, frozenset[str]] = {
    0: frozenset(
        {"errors", "types", "modes", "reasons", "shipped", "numbers", "ticking", "_native"}
    ),
    1: frozenset({"robot", "bundle", "recording", "device", "noise"}),
    2: frozenset(
        {
            "opening",
            "backends",
            "synchronizer",
            "odometry",
            "delay",
            "planner",
            "trajectory",
            "guard",
        }
    ),
    3: frozenset({"world_model", "compiler", "guarding"}),
    4: frozenset({"runtime", "simulation", "authoring", "bags", "importers"}),
    5: frozenset(
        {
            "evaluation",
            "replay",
            "open_loop",
            "report",
            "doctor",
            "provision",
            "calibrate",
            "quantize",
            "benchmark",
            "contract",
            "deploy",
        }
    ),
    6: frozenset({"cli"}),
    7: frozenset({"__main__"}),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# On floor 0 the nouns may use each other, in this order.
GROUND_ORDER = ("errors", "shipped", "modes", "reasons", "types", "_native", "numbers", "ticking")

# Who may import a library that is heavy, optional, or a door to the outside. Nobody: ().
DOORS: Mapping[str, tuple[str, ...]] = {
    "edge_wm._native": ("numbers", "backends", "planner", "benchmark"),
    "onnxruntime": ("backends",),
    "ai_edge_litert": ("backends",),
    "tflite_runtime": ("backends",),
    "tensorflow": (),
    "torch": ("importers",),
    "h5py": ("importers",),
    "safetensors": ("importers",),
    "jax": (),
    "onnx": ("compiler", "quantize", "importers"),
    "mujoco": ("simulation",),
    "matplotlib": ("report",),
    "rerun": ("cli",),
    "mcap": ("recording",),
    "mcap_ros2": ("recording",),
    "zstandard": ("recording",),
    "rclpy": ("cli",),  # to see whether it is there; the nodes are in ros2_ws
    "edge_wm_ros": ("cli",),
    "std_srvs": ("cli",),
    "serial": (),  # firmware_bridge alone
    "firmware_bridge": ("cli",),
    "dynamixel_sdk": (),
    "scservo_sdk": (),
    "moteus": (),
    "can": (),
    "cryptography": ("bundle",),
    "securesystemslib": ("bundle",),
    "tuf": ("deploy",),
    "typer": ("cli",),
    "rich": ("cli",),
    "pybind11": (),
    "pickle": (),
    "marshal": (),
    "shelve": (),
    "socket": (),
    "http": (),
    "urllib": (),
    "requests": (),
}


def room_of(path: Path) -> str:
    """The room that a source file, relative to the package, belongs to; "" is __init__.py."""
    first = path.parts[0].split(".")[0]
    return "" if first == "__init__" else first


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also of those inside functions and TYPE_CHECKING."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield node.lineno, "." * node.level + (node.module or "")
            elif node.module == "edge_wm":  # from edge_wm import guard
                for alias in node.names:
                    yield node.lineno, f"edge_wm.{alias.name}"
            else:
                yield node.lineno, node.module or ""


def violations(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file; `path` is relative to the package."""
    room = room_of(path)
    if room and room not in FLOOR_OF:
        return [f"{path}: the room `{room}` is on no floor; add it to FLOORS in {__file__}"]
    found = []
    for line, name in imports(source):
        where = f"{path}:{line}: {room or 'edge_wm'} imports {name}"
        top, _, rest = name.partition(".")
        if not top:
            found.append(f"{where}; write the whole name, so that a reader sees the room")
        elif top != "edge_wm":
            if top in DOORS and room not in DOORS[top]:
                allowed = ", ".join(DOORS[top]) or "no room of edge_wm"
                found.append(f"{where}; only {allowed} may")
        elif rest:
            other = rest.split(".")[0]
            if f"edge_wm.{other}" in DOORS and room not in DOORS[f"edge_wm.{other}"]:
                found.append(f"{where}; only {', '.join(DOORS[f'edge_wm.{other}'])} may")
            elif other == room or other not in FLOOR_OF:
                continue  # its own files, or a name such as edge_wm.__version__
            elif not room:
                found.append(f"{where}; `import edge_wm` imports no room")
            elif FLOOR_OF[room] == FLOOR_OF[other] == 0:
                if GROUND_ORDER.index(other) >= GROUND_ORDER.index(room):
                    found.append(f"{where}; on the ground floor only an earlier one may be")
            elif FLOOR_OF[other] >= FLOOR_OF[room]:
                found.append(
                    f"{where}: floor {FLOOR_OF[room]} may import lower floors only, "
                    f"{other} is on floor {FLOOR_OF[other]}"
                )
    return found


# Of the doors above, those that firmware_bridge may open as well.
BRIDGE_DOORS = ("serial", "socket", "dynamixel_sdk", "scservo_sdk", "moteus", "can")
FLASHING_DOORS = ("cryptography",)  # of firmware_bridge/flashing alone: signatures of images


def bridge_violations(path: Path, source: str) -> list[str]:
    """What is wrong with the imports of one file of firmware_bridge."""
    found = []
    for line, name in imports(source):
        where = f"firmware_bridge/{path}:{line}: firmware_bridge imports {name}"
        top, _, rest = name.partition(".")
        room = rest.split(".")[0]
        if not top:
            found.append(f"{where}; write the whole name")
        elif top == "edge_wm" and FLOOR_OF.get(room, 0) not in BRIDGE_FLOORS:
            found.append(f"{where}; it may import floors 0 and 1 only")
        elif top == "edge_wm" and room == "_native":
            found.append(f"{where}; only the rooms of edge_wm may")
        elif top in FLASHING_DOORS and path.parts[0] == "flashing":
            continue
        elif top in DOORS and top not in (*BRIDGE_DOORS, "firmware_bridge"):
            found.append(f"{where}; only {', '.join(DOORS[top]) or 'nobody'} may")
    return found


def test_the_firmware_bridge_keeps_to_the_ground_floors():
    found = []
    for path in sorted(BRIDGE.rglob("*.py")):
        found += bridge_violations(path.relative_to(BRIDGE), path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from edge_wm.guard import Guard", "floors 0 and 1 only"),
        ("from edge_wm import runtime", "floors 0 and 1 only"),
        ("import rclpy", "only cli may"),
        ("import pickle", "only nobody may"),
        ("from . import wire", "write the whole name"),
    ],
)
def test_a_wrong_import_of_the_bridge_is_found(source, complaint):
    (found,) = bridge_violations(Path("link.py"), source)
    assert complaint in found


def test_a_right_import_of_the_bridge_passes():
    source = "import serial\nimport socket\nfrom edge_wm.robot import Robot\n"
    source += "from edge_wm import __version__\nfrom firmware_bridge.wire import Parser"
    assert bridge_violations(Path("link.py"), source) == []


def test_every_room_keeps_to_the_floor_plan():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        found += violations(path.relative_to(PACKAGE), path.read_text(encoding="utf-8"))
    assert found == []


@pytest.mark.parametrize(
    ("path", "source", "complaint"),
    [
        ("guard.py", "from edge_wm.planner import Planner", "planner is on floor 2"),
        ("guard.py", "from edge_wm import planner", "planner is on floor 2"),
        ("guard.py", "import edge_wm.world_model", "world_model is on floor 3"),
        ("guard.py", "def f():\n    import edge_wm.world_model", "guard.py:2"),
        ("guard/limits.py", "from edge_wm.world_model import X", "guard/limits.py:1"),
        ("guard/limits.py", "from . import region", "write the whole name"),
        ("types.py", "from edge_wm.robot import Robot", "robot is on floor 1"),
        ("modes.py", "from edge_wm.types import Sample", "only an earlier one"),
        ("__init__.py", "from edge_wm.errors import EdgeWmError", "imports no room"),
        ("helpers.py", "", "on no floor"),
        ("planner.py", "import onnxruntime", "only backends may"),
        ("planner.py", "from onnxruntime import InferenceSession", "only backends may"),
        ("planner.py", "import matplotlib.pyplot as plt", "only report may"),
        ("backends/x.py", "import torch", "only importers may"),
        ("recording/x.py", "import pickle", "no room of edge_wm may"),
        (
            "guard.py",
            "from edge_wm import _native",
            "only numbers, backends, planner, benchmark may",
        ),
        (
            "guard.py",
            "from edge_wm._native import nonfinite_rows",
            "only numbers, backends, planner, benchmark may",
        ),
        ("cli/x.py", "from urllib.request import urlopen", "no room of edge_wm may"),
    ],
)
def test_a_wrong_import_is_found(path, source, complaint):
    (found,) = violations(Path(path), source)
    assert complaint in found


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("guard.py", "from edge_wm.robot import Robot\nfrom edge_wm.types import Verdict"),
        ("guard/limits.py", "from edge_wm.guard.region import Box"),
        ("cli/bundle.py", "from edge_wm.bundle import open_bundle\nimport typer"),
        ("cli/version.py", "from edge_wm import __version__"),
        ("types.py", "from edge_wm.modes import Mode"),
        ("backends/onnx.py", "import onnxruntime as ort"),
        ("planner.py", "import numpy as np\nfrom collections.abc import Mapping"),
    ],
)
def test_a_right_import_passes(path, source):
    assert violations(Path(path), source) == []


def test_no_room_is_named_for_what_does_not_fit_elsewhere():
    stems = {path.stem for path in PACKAGE.rglob("*.py")}
    assert not stems & {"utils", "util", "common", "helpers", "base", "manager", "misc"}


def test_import_edge_wm_needs_numpy_alone():
    """Every other installed package is hidden from a fresh interpreter."""
    program = """
import sys

class OnlyNumpy:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("edge_wm", "numpy") or top in sys.stdlib_module_names or path is not None:
            return None
        raise ModuleNotFoundError(f"hidden by the test: {name}")

sys.meta_path.insert(0, OnlyNumpy())
import edge_wm
from edge_wm import errors, modes, numbers, reasons, shipped, types
print(edge_wm.__version__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    from edge_wm import __version__

    assert done.stdout.strip() == __version__
