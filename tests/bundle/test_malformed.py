"""Malformed bundles: each is refused in its own words, and none reaches an inference library.

malformed.py makes them; malformed.txt holds, by name, the whole error that each must get, read
and agreed to by a person ("$CONFIG" stands for the user's config folder).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bundle import malformed
from bundle.conftest import trust_in
from edge_wm.bundle import open_bundle

LINES = (Path(__file__).parent / "malformed.txt").read_text().splitlines()
EXPECTED = dict(line.split(": ", 1) for line in LINES)

# Opens every bundle of a folder in a process in which an inference library cannot be imported.
CHILD = """
import importlib.abc, json, pathlib, sys

LIBRARIES = {"onnx", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tensorflow", "torch",
             "flatbuffers"}

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in LIBRARIES:
            raise AssertionError(f"a malformed bundle led to the import of {name}")

sys.meta_path.insert(0, Refuse())
from edge_wm.bundle import load_trust, open_bundle
from edge_wm.errors import EdgeWmError

folder = pathlib.Path(sys.argv[1])
trust = load_trust([folder / "key.pub"])
found = {}
for path in sorted(folder.glob("*.wmb")):
    try:
        open_bundle(path, trust)
        found[path.stem] = "opened"
    except EdgeWmError as error:
        text = str(error).replace(f"bundle {path.name}: ", "", 1)
        found[path.stem] = f"{type(error).__name__}: {text}"
    assert not LIBRARIES & set(sys.modules), path
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What became of each bundle."""
    folder = tmp_path_factory.mktemp("malformed")
    key = malformed.KEY.signer.public_key.keyval["public"]
    (folder / "key.pub").write_text(
        f"format: edge-wm/key/1\nname: key 1\ned25519: {key}\nscopes: [model]\n"
    )
    for name, make in {**malformed.CASES, "good": malformed.good}.items():
        (folder / f"{name}.wmb").write_bytes(make())
    environment = os.environ | {"EDGE_WM_CONFIG": str(folder / "config")}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(folder)]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert child.returncode == 0, child.stderr
    results: dict[str, str] = json.loads(child.stdout.replace(str(folder / "config"), "$CONFIG"))
    return results


@pytest.mark.parametrize("name", malformed.CASES)
def test_refused_in_its_own_words(found: dict[str, str], name: str) -> None:
    assert found[name] == EXPECTED[name]


def test_there_are_enough_and_all_have_a_line() -> None:
    assert len(malformed.CASES) >= 40
    assert set(EXPECTED) == set(malformed.CASES)


def test_the_same_writer_makes_bundles_that_open(found: dict[str, str], tmp_path: Path) -> None:
    assert found["good"] == "opened"
    for name, data in {
        "onnx": malformed.good(),
        "edited": malformed.edited("horizon", 6),
        "tflite": malformed.tflite_cost(),
    }.items():
        (tmp_path / name).write_bytes(data)
        open_bundle(tmp_path / name, trust_in(malformed.KEY))
