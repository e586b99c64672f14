"""The robot file: what the robot is, in one checked value.

    text ─ document.read ─► plain values ─ document.convert ─► typed parts ─ checks.checked ─► Robot

A robot file (`robots/<name>.yaml`, described in docs/robot-file.md) is written by the robotics
engineer and holds everything about the robot that is true whatever model runs on it: sensor
streams, axes with their limits, the base or the arm's kinematics, regions, rates and delays.

Invariant: a `Robot` exists only if its file passed every check, so nobody checks it again; and
every limit in it is enforced somewhere, or the file would have been refused.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from edge_wm import shipped
from edge_wm.errors import RobotFileError, SystemTroubleError, UsageError
from edge_wm.robot import checks, document
from edge_wm.robot.intake import FUTURE_TOLERANCE_NS, Intake
from edge_wm.robot.kinematics import (
    BodySphere,
    Joint,
    Kinematics,
    frame_poses,
    rotation,
    sphere_centers,
    transform,
)
from edge_wm.robot.nouns import (
    Axis,
    AxisKind,
    Base,
    Box,
    Extrinsics,
    Link,
    Region,
    Robot,
    Sphere,
    Stopping,
    Stream,
    StreamType,
)
from edge_wm.robot.reaching import postures_at, tool_position

__all__ = [
    "FUTURE_TOLERANCE_NS",
    "Axis",
    "AxisKind",
    "Base",
    "BodySphere",
    "Box",
    "Extrinsics",
    "Intake",
    "Joint",
    "Kinematics",
    "Link",
    "Region",
    "Robot",
    "Sphere",
    "Stopping",
    "Stream",
    "StreamType",
    "find_robot",
    "frame_poses",
    "load_robot",
    "parse_robot",
    "postures_at",
    "rotation",
    "sphere_centers",
    "tool_position",
    "transform",
]


def find_robot(name_or_path: str) -> Path:
    """Where the robot file is: a path (with a folder or an ending), or a shipped robot's name.

    Raises:
        UsageError: there is no such file, or no such shipped robot; those that exist are listed.
    """
    path = Path(name_or_path)
    if path.name != name_or_path or path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UsageError(
                f"robot file {name_or_path}: must be a file, found none; correct the path"
            )
        return path
    folder = shipped.folder("robots")
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name_or_path not in names:
        raise UsageError(
            f"robot '{name_or_path}': must be one of {', '.join(names)} or the path of a robot "
            "file, found neither; correct the name, or write ./NAME.yaml"
        )
    return folder / f"{name_or_path}.yaml"


def load_robot(path: str | os.PathLike[str]) -> Robot:
    """Read and check a robot file.

    Raises:
        UsageError: there is no such file.
        SystemTroubleError: it cannot be read.
        RobotFileError: it is wrong; the message names the file and the path inside it.
    """
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read(document.MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"robot file {name}: must be a file, found none; correct the path"
        ) from None
    except OSError as error:
        raise SystemTroubleError(
            f"robot file {name}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RobotFileError(
            f"robot file {name}: must be UTF-8 text, found byte 0x{data[error.start]:02x} at "
            f"offset {error.start}; is this the right file?"
        ) from None
    return parse_robot(text, name)


def parse_robot(text: str, name: str) -> Robot:
    """Check a robot file's text; `name` is what errors call it.

    Raises:
        RobotFileError: it is wrong; the message names the file and the path inside it.
    """
    part = document.convert(document.read(text, name), name)
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return checks.checked(part, sha256=digest, text=text, file=name)
