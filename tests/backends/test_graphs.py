"""edge_wm.backends: one graph on onnxruntime and on LiteRT, against numpy and each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import pytest

from edge_wm import __version__, backends
from edge_wm.backends import choose, load_graph
from edge_wm.backends.native import chosen_kernels
from edge_wm.backends.reference import disagreement
from edge_wm.bundle.program import write_program
from edge_wm.compiler import compile_graph
from edge_wm.errors import BackendError, ModelError, UsageError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "backends"
DENSE = (GOLDEN / "dense.tflite").read_bytes()


def spec(tensor: str, *shape: int, dtype: str = "float32") -> SimpleNamespace:
    return SimpleNamespace(tensor=tensor, shape=shape, dtype=dtype)


def function(inputs: list[Any], outputs: list[Any]) -> SimpleNamespace:
    return SimpleNamespace(inputs=inputs, outputs=outputs)


STEP = function([spec("z", -1, 3), spec("action", -1, 2)], [spec("next", -1, 3)])


def batch(k: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """K random inputs and what z' = A z + B a gives for them, row by row in float64."""
    rng = np.random.default_rng(k)
    z = rng.standard_normal((k, 3), np.float32)
    action = rng.standard_normal((k, 2), np.float32)
    rows = [models.A.astype(float) @ z[i] + models.B.astype(float) @ action[i] for i in range(k)]
    return {"z": z, "action": action}, np.array(rows)


@pytest.mark.parametrize("k", [1, 7, 8, 9, 16, 128, 300])
@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_any_number_of_rows_gives_what_numpy_gives(backend: str, k: int):
    blob = models.dynamics() if backend == "onnxruntime" else DENSE
    inputs, expected = batch(k)
    outputs = load_graph(memoryview(blob), STEP, backend).run(inputs)
    assert list(outputs) == ["next"]
    assert outputs["next"].dtype == np.float32
    assert outputs["next"].flags.c_contiguous
    np.testing.assert_allclose(outputs["next"], expected, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_the_same_inputs_give_the_same_bits_and_fresh_arrays(backend: str):
    blob = models.dynamics() if backend == "onnxruntime" else DENSE
    inputs, _ = batch(20)
    graph = load_graph(blob, STEP, backend)
    first = graph.run(inputs)["next"]
    kept = first.copy()
    graph.run({name: value + 1 for name, value in inputs.items()})
    assert np.array_equal(first, kept)
    assert np.array_equal(load_graph(blob, STEP, backend).run(inputs)["next"], kept)


def test_rows_of_a_tile_do_not_see_the_filling():
    inputs, expected = batch(3)
    inputs["z"][2] = np.nan
    got = load_graph(DENSE, STEP, "litert").run(inputs)["next"]
    np.testing.assert_allclose(got[:2], expected[:2], atol=1e-6)
    assert np.isnan(got[2]).all()


def test_litert_finds_tensors_by_the_names_of_the_signature():
    weights = np.hstack([models.A, models.B])
    blob = models.tflite_dense({"z": 3, "action": 2}, "next", weights, batch=4, signature=True)
    inputs, expected = batch(6)
    np.testing.assert_allclose(
        load_graph(blob, STEP, "litert").run(inputs)["next"], expected, atol=1e-6
    )


def test_every_graph_names_its_library_and_version():
    ready = backends.installed()
    assert load_graph(models.dynamics(), STEP, "onnxruntime").backend == ready["onnxruntime"]
    assert load_graph(DENSE, STEP, "litert").backend == ready["litert"]
    assert ready["native"] == f"edge-wm {__version__}"
    blob = write_program(compile_graph(models.dynamics(), STEP, "step"))
    assert load_graph(blob, STEP, "native").backend == f"native {chosen_kernels()}"


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (
            function([spec("z", -1, 3), spec("act", -1, 2)], STEP.outputs),
            "function step: the manifest declares input 'act', the graph has action, z; "
            "correct the manifest or re-export the graph",
        ),
        (
            function([spec("z", -1, 4), spec("action", -1, 2)], STEP.outputs),
            "function step: input 'z' must be float32 (-1, 4), the graph has float32 {shape}; "
            "correct the manifest or re-export the graph",
        ),
        (
            function(STEP.inputs, [spec("next", -1, 3, dtype="float64")]),
            "function step: output 'next' must be float64 (-1, 3), the graph has float32 {shape}; "
            "correct the manifest or re-export the graph",
        ),
        (
            function(STEP.inputs, [spec("next", -1, 3, 1)]),
            "function step: output 'next' must be float32 (-1, 3, 1), the graph has float32 "
            "{shape}; correct the manifest or re-export the graph",
        ),
    ],
)
@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
def test_a_graph_that_is_not_as_declared_is_refused(backend: str, declared: Any, message: str):
    blob, shape = (models.dynamics(), "('K', 3)") if backend == "onnxruntime" else (DENSE, "(8, 3)")
    with pytest.raises(ModelError) as caught:
        load_graph(blob, declared, backend, name="step")
    assert str(caught.value) == message.format(shape=shape)


def test_a_tflite_file_must_have_one_batch_for_all():
    declared = function(STEP.inputs, [spec("next", 8, 3)])
    with pytest.raises(ModelError) as caught:
        load_graph(DENSE, declared, "litert", name="step")
    assert str(caught.value) == (
        "function step: every input and output with a batch axis must have the same fixed batch "
        "in a TFLite file, and every output must have one; found input z 8, input action 8, and "
        "without one: next; convert it again"
    )


@pytest.mark.parametrize("backend", ["onnxruntime", "litert"])
@pytest.mark.parametrize("blob", [b"", b"not a graph at all"])
def test_what_is_no_graph_is_refused_in_the_librarys_words(backend: str, blob: bytes):
    with pytest.raises(ModelError, match=r"^function step: .* refuses the graph: .+; .+"):
        load_graph(blob, STEP, backend, name="step")


def test_a_failing_run_is_a_backend_error():
    graph = load_graph(models.dynamics(), STEP, "onnxruntime", name="step")
    inputs, _ = batch(2)
    inputs["action"] = inputs["action"][:1].repeat(3, axis=0)
    with pytest.raises(BackendError, match=r"^function step: onnxruntime .* failed: "):
        graph.run(inputs)
    with pytest.raises(BackendError, match=r"^function step: ai-edge-litert .* failed: "):
        load_graph(DENSE, STEP, "litert", name="step")._invoke(inputs)


def test_what_is_no_step_program_is_refused_by_native():
    with pytest.raises(ModelError) as caught:
        load_graph(b"", STEP, "native", name="dynamics")
    assert str(caught.value) == (
        "function dynamics: step program: a step program must have at least 12 bytes"
    )


def test_first_takes_the_first_backend_that_is_installed_and_has_a_graph(
    monkeypatch: pytest.MonkeyPatch,
):
    assert choose("cost", ["onnx", "tflite"]) == "onnxruntime"
    assert choose("cost", ["tflite"]) == "litert"
    assert choose("cost", ["onnx", "tflite"], "litert") == "litert"
    monkeypatch.setattr(backends, "installed", lambda: {"litert": "ai-edge-litert 2"})
    assert choose("cost", ["onnx", "tflite"]) == "litert"


def test_a_choice_that_cannot_be_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError) as usage:
        choose("cost", ["onnx"], "tensorrt")
    assert str(usage.value) == (
        "backend must be one of auto, first, native, onnxruntime, litert, onnxruntime-cuda, "
        "onnxruntime-tensorrt; got 'tensorrt'"
    )
    with pytest.raises(UsageError, match=r"^backend must be one of native, onnxruntime, litert"):
        load_graph(b"", STEP, "auto")
    with pytest.raises(ModelError) as model:
        choose("cost", ["onnx"], "litert")
    assert str(model.value) == (
        "function cost: backend litert needs a graph in format tflite, the bundle has onnx; "
        "use another backend or rebuild the bundle"
    )
    monkeypatch.setattr(backends, "installed", dict)
    for asked in ("first", "onnxruntime"):
        with pytest.raises(BackendError) as missing:
            choose("cost", ["onnx"], asked)
        assert str(missing.value) == (
            "backend onnxruntime needs onnxruntime or onnxruntime-gpu, which is not installed; "
            'run: pip install "edge-wm[onnxruntime]"'
        )


def test_a_missing_library_names_the_extra_to_install():
    script = """
import sys
sys.modules["onnxruntime"] = sys.modules["ai_edge_litert"] = sys.modules["tflite_runtime"] = None
from edge_wm.backends import load_graph
from edge_wm.errors import BackendError
for backend in ("onnxruntime", "litert"):
    try:
        load_graph(b"", None, backend)
    except BackendError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "backend onnxruntime needs onnxruntime or onnxruntime-gpu, which is not installed; "
        'run: pip install "edge-wm[onnxruntime]"',
        "backend litert needs ai-edge-litert or tflite-runtime, which is not installed; "
        'run: pip install "edge-wm[litert]"',
    ], done.stderr


# ---- comparing with stored outputs ---------------------------------------------------------
@pytest.mark.parametrize(
    ("got", "stored", "agrees"),
    [
        ([1.0], [1.0], True),
        ([1.0009], [1.0], True),
        ([1.0011], [1.0], False),
        ([0.0009], [0.0], True),
        ([0.0011], [0.0], False),
        ([1000.9], [1000.0], True),
        ([1001.1], [1000.0], False),
        ([np.nan], [1.0], False),
        ([np.nan], [np.nan], True),
        ([1.0], [np.nan], False),
        ([np.inf], [np.inf], True),
        ([-np.inf], [np.inf], False),
        ([np.inf], [1.0], False),
        ([1.0], [np.inf], False),
        ([], [], True),
    ],
)
def test_agreement_is_relative_above_one_and_absolute_below(
    got: list[float], stored: list[float], agrees: bool
):
    problem = disagreement(np.float32(got), np.float32(stored), 1e-3)
    assert (problem is None) == agrees


def test_a_disagreement_names_the_worst_number():
    got = np.array([[1.0, 2.0], [3.5, 4.0]], np.float32)
    stored = np.array([[1.0, 2.01], [3.0, 4.0]], np.float32)
    assert disagreement(got, stored, 1e-3) == (
        "2 of 4 numbers differ, the worst at [1, 0]: expected 3, got 3.5, error 0.5 above the "
        "bound 0.003"
    )
    assert disagreement(got, stored[:1], 1e-3) == "must be float32 (1, 2), got float32 (2, 2)"
    assert disagreement(np.array([3], np.uint8), np.array([4], np.uint8), 0.0) == (
        "1 of 1 numbers differ, the worst at [0]: expected 4, got 3, error 1 above the bound 0"
    )
