"""Where onnx is not installed: all but compiling works, and compiling says what to install."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class NoOnnx:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "onnx":
            raise ModuleNotFoundError(f"hidden by the test: {name}")
        return None

sys.meta_path.insert(0, NoOnnx())
import edge_wm.cli
from edge_wm.bundle import load_trust, open_bundle
from edge_wm.compiler import compile_graph
from edge_wm.errors import BackendError
from edge_wm.shipped import folder

bundle = open_bundle(folder("zoo") / "rover" / "rover.wmb", load_trust(()))
function = bundle.manifest.functions["value"]
try:
    compile_graph(bundle.blob(function.graphs["onnx"]), function, "rover.value")
except BackendError as error:
    print(error)
"""


def test_the_command_line_loads_and_compiling_says_what_is_missing():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "rover.value: compiling a graph needs onnx, which is not installed; run: "
        'pip install "edge-wm[compile]"\n'
    )
