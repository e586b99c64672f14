"""Tests the guides: every block of the two "your own" pages is run, in order, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# file: (\S+)\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """(language, text) of every fenced block of a page."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def execute(page: str, folder: Path) -> str:
    """Write the files of `page` into `folder` and run its commands there; what they printed."""
    pytest.importorskip("onnx", reason="the page writes ONNX graphs")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EDGE_WM_CONFIG": str(folder / "config"),
    }
    printed = ""
    for language, text in blocks(page):
        named = FILE.match(text)
        if named:
            (folder / named[1]).write_text(text, encoding="utf-8")
            continue
        assert language == "bash", f"{page}: a block of {language} names no file:\n{text}"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{page}:\n{text}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("guide")


def test_your_own_model(folder):
    printed = execute("your-own-model.md", folder)
    assert "unicycle" in printed
    (run,) = (folder / "runs").iterdir()
    assert (run / "run.mcap").is_file()
    assert (run / "report.html").is_file()


def test_your_own_robot(folder):
    if not (folder / "unicycle.wmb").is_file():
        execute("your-own-model.md", folder)
    printed = execute("your-own-robot.md", folder)
    place = re.search(r"at \((\S+), (\S+)\), goals reached: 1", printed)
    assert place, printed
    x, y = float(place[1]), float(place[2])
    # The scout's truth, not its odometry: within the tolerance of 0.25 m and some of its drift.
    assert ((x - 0.8) ** 2 + (y - 0.4) ** 2) ** 0.5 < 0.3


def test_links_between_pages_lead_somewhere():
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
