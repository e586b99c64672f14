"""`edge-wm robot check` and `from-urdf`: output, JSON, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_wm.cli.robot import app
from edge_wm.errors import RobotFileError, SystemTroubleError, UsageError
from edge_wm.robot import find_robot

URDF = b"""<robot name="one"><link name="a"/><link name="b"/>
  <joint name="turn" type="continuous"><parent link="a"/><child link="b"/></joint></robot>"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def error(*arguments: str) -> BaseException:
    """What the command raises; `edge_wm.cli.main` turns it into one line and an exit code."""
    found = CliRunner().invoke(app, list(arguments)).exception
    assert found is not None
    return found


def test_check_shows_the_robot() -> None:
    text = run("check", "rover")
    assert "camera" in text
    assert "base.wz" in text
    assert text.splitlines()[-1] == f"{find_robot('rover')}: ok, 5 streams, 2 axes"


def test_check_as_json() -> None:
    facts = json.loads(run("check", "arm", "--json"))
    assert facts["name"] == "arm"
    assert facts["axes"]["elbow"]["position_max"] == 2.4
    assert facts["streams"]["joints"]["shape"] == [2, 2]
    rover = json.loads(run("check", "rover", "--json"))
    assert rover["axes"]["base.vx"]["position_max"] is None  # no limit; JSON has no infinity


def test_check_refuses(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(find_robot("rover").read_text().replace("braking: 2.0", "braking: -2.0"))
    refused = error("check", str(bad))
    assert isinstance(refused, RobotFileError)
    assert refused.exit_code == 3
    assert str(refused) == (
        f"robot file {bad}: axes.base.vx.braking must be a number at least 1e-06, got -2.0; "
        "see docs/robot-file.md"
    )
    unknown = error("check", "rovr")
    assert isinstance(unknown, UsageError)
    assert unknown.exit_code == 2


def test_from_urdf_to_stdout_and_to_a_file(tmp_path: Path) -> None:
    urdf = tmp_path / "one.urdf"
    urdf.write_bytes(URDF)
    text = run("from-urdf", str(urdf))
    assert text.startswith("# one: begun from a URDF")
    output = tmp_path / "one.yaml"
    said = run("from-urdf", str(urdf), "-o", str(output))
    assert output.read_text() == text
    missing = sum("FILL_IN" in line for line in text.splitlines() if not line.startswith("#"))
    assert said == f"{output}: written, {missing} values to fill in\n"
    facts = json.loads(run("from-urdf", str(urdf), "--json"))
    assert facts == {"text": text, "fill_in": missing, "output": None}


def test_from_urdf_never_writes_over_a_file_nor_half_of_one(tmp_path: Path) -> None:
    urdf = tmp_path / "one.urdf"
    urdf.write_bytes(URDF)
    output = tmp_path / "mine.yaml"
    output.write_text("precious")
    refused = error("from-urdf", str(urdf), "-o", str(output))
    assert isinstance(refused, UsageError)
    assert str(refused) == f"{output}: must not exist yet, found a file; choose another --output"
    assert output.read_text() == "precious"
    trouble = error("from-urdf", str(urdf), "-o", str(tmp_path / "no" / "folder.yaml"))
    assert isinstance(trouble, SystemTroubleError)
    urdf.write_bytes(URDF[:-20])
    broken = error("from-urdf", str(urdf), "-o", str(tmp_path / "broken.yaml"))
    assert isinstance(broken, RobotFileError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.yaml", "one.urdf"]


def test_from_urdf_without_a_file(tmp_path: Path) -> None:
    missing = error("from-urdf", str(tmp_path / "none.urdf"))
    assert isinstance(missing, UsageError)
    assert str(missing) == (
        f"URDF {tmp_path / 'none.urdf'}: must be a file, found none; correct the path"
    )


@pytest.mark.parametrize("command", ["check", "from-urdf"])
def test_help_is_imperative_and_says_json(command: str) -> None:
    text = run(command, "--help")
    assert "--json" in text
