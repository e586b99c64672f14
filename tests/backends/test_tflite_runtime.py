"""The LiteRT adapter on tflite-runtime 2.14, in an environment of its own (numpy below 2)."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import models
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-tflite" / "bin" / "python"
DENSE = ROOT / "tests" / "golden" / "backends" / "dense.tflite"

SCRIPT = """
import json, sys
from types import SimpleNamespace as Spec
import numpy as np
from edge_wm.backends import choose, load_graph
from edge_wm.errors import ModelError

assert np.__version__.startswith("1.")
step = Spec(
    inputs=[Spec(tensor="z", shape=(-1, 3), dtype="float32"),
            Spec(tensor="action", shape=(-1, 2), dtype="float32")],
    outputs=[Spec(tensor="next", shape=(-1, 3), dtype="float32")],
)
graph = load_graph(open(sys.argv[1], "rb").read(), step, choose("step", ["onnx", "tflite"]))
given = json.load(sys.stdin)
inputs = {name: np.array(value, np.float32) for name, value in given.items()}
answer = {"backend": graph.backend, "next": graph.run(inputs)["next"].tolist()}
try:
    load_graph(b"no graph", step, "litert", name="step")
except ModelError as error:
    answer["refused"] = str(error)
print(json.dumps(answer))
"""


@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-tflite: `make test` builds it")
@pytest.mark.parametrize("k", [1, 8, 19])
def test_the_older_library_gives_the_same(k: int):
    rng = np.random.default_rng(k)
    z, action = rng.standard_normal((k, 3)), rng.standard_normal((k, 2))
    done = subprocess.run(
        [PYTHON, "-c", SCRIPT, DENSE],
        input=json.dumps({"z": z.tolist(), "action": action.tolist()}),
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["backend"] == "tflite-runtime 2.14.0"
    expected = z @ models.A.T.astype(float) + action @ models.B.T.astype(float)
    np.testing.assert_allclose(answer["next"], expected, atol=1e-5)
    assert answer["refused"].startswith("function step: tflite-runtime 2.14.0 refuses the graph: ")
