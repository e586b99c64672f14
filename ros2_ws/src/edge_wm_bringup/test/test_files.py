"""Tests that what this package ships can be read: `colcon test`. More of it is in tests/ros2."""

from __future__ import annotations

import ast
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("file", sorted((HERE / "launch").iterdir()), ids=lambda f: f.name)
def test_launch_files_are_python(file: Path):
    tree = ast.parse(file.read_text(), str(file))
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert "generate_launch_description" in defined


@pytest.mark.parametrize("file", sorted((HERE / "config").iterdir()), ids=lambda f: f.name)
def test_parameter_files_have_parameters_for_each_node(file: Path):
    yaml = pytest.importorskip("yaml", reason="python3-yaml is not installed")
    for node, content in yaml.safe_load(file.read_text()).items():
        assert node.startswith("wm_")
        assert content["ros__parameters"]["robot"] == file.stem


def test_layouts_and_policies_can_be_parsed():
    json.loads((HERE / "foxglove" / "edge_wm.json").read_text())
    for file in (HERE / "security").glob("*.xml"):
        ElementTree.parse(file)
