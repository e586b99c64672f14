"""edge_wm.backends.probe: graphs that crash, hang or starve their library end a child, not us."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import models
import numpy as np
import pytest

from edge_wm.backends import probe as trial
from edge_wm.backends.probe import Limits, Outcome, probe, try_in_child
from edge_wm.bundle import Bundle
from edge_wm.errors import BackendError, ModelError

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "backends"
Z = np.array([[1, 2, 3], [0, -1, 2]], np.float32)
ACTION = np.array([[1, 0], [0.5, -1]], np.float32)
NEXT = (Z @ models.A.T + ACTION @ models.B.T).astype(np.float32)


def case(wanted: np.ndarray = NEXT, tolerance: float = 1e-5):
    return ("dynamics", {"z": Z, "action": ACTION}, {"next": wanted}, tolerance)


def with_dynamics(kind: str, blob: bytes, reference=()) -> Bundle:
    functions = models.linear()
    functions["dynamics"]["graphs"] = {kind: blob}
    return models.bundle(functions, reference)


def attempt(bundle: Bundle, backend: str, limits: Limits) -> Outcome:
    request = trial._request(bundle, {"dynamics": backend}, threads=1)
    return try_in_child(bundle, request, limits)


def folding_bomb(n: int, products: int) -> bytes:
    """A file of a few hundred bytes that multiplies (n, n) constants while it is loaded."""
    nodes = [models.node("ConstantOfShape", "shape", "c0")]
    nodes += [models.node("MatMul", f"c{i} c{i}", f"c{i + 1}") for i in range(products)]
    return _with_constant(nodes, f"c{products}", np.array([n, n]))


def hungry(n: int) -> bytes:
    """A file of a few hundred bytes that wants n numbers when it is run."""
    return _with_constant([models.node("ConstantOfShape", "shape", "c")], "c", np.array([n]))


def _with_constant(nodes: list, constant: str, shape: np.ndarray) -> bytes:
    nodes = [
        *nodes,
        models.node("ReduceMax", constant, "most", keepdims=0),
        models.node("Add", "z most", "moved"),
        models.node("Slice", "action from one one", "first"),
        models.node("Add", "moved first", "next"),
    ]
    constants = {"shape": shape, "from": np.array([0]), "one": np.array([1])}
    return models.onnx_file(
        {"z": ["K", 3], "action": ["K", 2]}, nodes, {"next": ["K", 3]}, constants
    )


def test_a_good_bundle_passes_on_both_libraries():
    functions = models.linear()
    functions["dynamics"]["graphs"]["tflite"] = (GOLDEN / "dense.tflite").read_bytes()
    bundle = models.bundle(functions, [case()])
    probe(bundle, dict.fromkeys(functions, "onnxruntime"))
    probe(bundle, {"dynamics": "litert"})


def test_a_crashing_library_is_reported_and_we_live():
    bundle = with_dynamics("tflite", (GOLDEN / "crash.tflite").read_bytes())
    outcome = attempt(bundle, "litert", Limits())
    assert outcome.ending in ("crashed", "refused")
    if outcome.ending == "crashed":
        assert outcome.detail == (
            "trying the bundle in a child process: loading function dynamics on litert: the "
            "inference library crashed by SIGSEGV; do not use this bundle: build it again, or "
            "try another backend"
        )


def test_a_tflite_file_that_wants_the_whole_memory_is_ended():
    bundle = with_dynamics("tflite", (GOLDEN / "greedy.tflite").read_bytes())
    assert attempt(bundle, "litert", Limits(cpu_s=5)).ending in ("refused", "out of memory", "hung")


def test_constant_folding_without_end_is_hung_by_processor_time():
    bomb = folding_bomb(3000, 100)
    assert len(bomb) < 4000
    outcome = attempt(with_dynamics("onnx", bomb), "onnxruntime", Limits(cpu_s=1))
    assert outcome == Outcome(
        "hung",
        "trying the bundle in a child process: loading function dynamics on onnxruntime: the "
        "inference library hung: used 1 s of processor time; do not use this bundle: build it "
        "again, or try another backend",
    )


def test_no_answer_in_time_is_hung_by_wall_time():
    bundle = with_dynamics("onnx", folding_bomb(3000, 100))
    outcome = attempt(bundle, "onnxruntime", Limits(wall_s=1.0))
    assert outcome.ending == "hung"
    assert "the inference library hung: no answer for 1 s" in outcome.detail


def test_a_graph_that_wants_too_much_memory_is_out_of_memory():
    outcome = attempt(with_dynamics("onnx", hungry(2 * 10**9)), "onnxruntime", Limits())
    assert outcome == Outcome(
        "out of memory",
        "trying the bundle in a child process: running function dynamics: the inference library "
        "ran out of its memory limit; do not use this bundle: build it again, or try another "
        "backend",
    )


def test_memory_within_the_limit_is_allowed():
    assert attempt(with_dynamics("onnx", hungry(10**7)), "onnxruntime", Limits()).ending == "passed"


def test_a_refusal_is_passed_on_in_words():
    outcome = attempt(with_dynamics("onnx", b"no graph"), "onnxruntime", Limits())
    assert outcome.ending == "refused"
    assert outcome.detail.startswith("function dynamics: onnxruntime ")


@pytest.mark.parametrize(("error", "passes"), [(0.0, True), (0.9e-3, True), (1.1e-3, False)])
def test_outputs_other_than_stored_are_wrong(error: float, passes: bool):
    wanted = NEXT.copy()
    wanted[1, 2] = (NEXT[1, 2] + error) if abs(NEXT[1, 2]) < 1 else NEXT[1, 2] * (1 + error)
    bundle = with_dynamics("onnx", models.dynamics(), [case(), case(wanted, 1e-3)])
    outcome = attempt(bundle, "onnxruntime", Limits())
    assert outcome.ending == ("passed" if passes else "wrong output")
    if not passes:
        assert outcome.detail.startswith(
            "function dynamics: reference case 1, output 'next' on onnxruntime "
        )
        assert ": 1 of 6 numbers differ, the worst at [1, 2]: expected " in outcome.detail
        with pytest.raises(ModelError) as caught:
            probe(bundle, {"dynamics": "onnxruntime"})
        assert str(caught.value) == outcome.detail


PASSED = {"ended": "passed", "detail": "", "missing_library": False}


@pytest.mark.parametrize(
    ("status", "answers", "noise", "ending"),
    [
        (0, [{"doing": "x"}, PASSED], "", "passed"),
        (0, [{"doing": "x"}], "", "crashed"),
        (0, [], "", "crashed"),
        (1, [{"doing": "x"}], "Traceback\nOSError: odd\n", "crashed"),
        (-signal.SIGSEGV, [PASSED], "", "crashed"),
        (-signal.SIGABRT, [], "", "crashed"),
        (-signal.SIGABRT, [], "terminate called after 'std::bad_alloc'", "out of memory"),
        (1, [], "MemoryError", "out of memory"),
        (-signal.SIGKILL, [], "", "out of memory"),
        (-signal.SIGXCPU, [], "", "hung"),
        (None, [], "", "hung"),
    ],
)
def test_every_way_a_child_can_end_has_its_name(status, answers, noise, ending):
    text = "\n".join(json.dumps(line) for line in answers) + "\nhalf a li"
    assert trial._outcome(status, text, noise, Limits()).ending == ending


def test_a_pass_is_remembered_until_anything_changes(cache: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = with_dynamics("onnx", models.dynamics(), [case()])
    started = []
    real = trial.try_in_child
    monkeypatch.setattr(trial, "try_in_child", lambda *a: started.append(1) or real(*a))
    probe(bundle, {"dynamics": "onnxruntime"})
    probe(bundle, {"dynamics": "onnxruntime"})
    assert len(started) == 1
    assert len(list(cache.rglob("*"))) == 2  # a folder and one empty file
    probe(bundle, {"dynamics": "onnxruntime"}, threads=2)
    assert len(started) == 2
    changed = with_dynamics("onnx", models.dynamics(), [case(tolerance=1e-4)])
    probe(changed, {"dynamics": "onnxruntime"})
    assert len(started) == 3
    monkeypatch.setattr(trial, "installed", lambda: {"onnxruntime": "onnxruntime 99"})
    probe(bundle, {"dynamics": "onnxruntime"})
    assert len(started) == 4


def test_a_failure_is_never_remembered(cache: Path):
    bundle = with_dynamics("onnx", b"no graph")
    for _ in range(2):
        with pytest.raises(ModelError, match="refuses the graph"):
            probe(bundle, {"dynamics": "onnxruntime"})
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("EDGE_WM_CACHE", str(tmp_path / "file"))
    probe(with_dynamics("onnx", models.dynamics()), {"dynamics": "onnxruntime"})


def test_a_library_that_cannot_be_imported_is_a_backend_error(monkeypatch: pytest.MonkeyPatch):
    missing = Outcome("refused", "backend litert needs ...", missing_library=True)
    monkeypatch.setattr(trial, "try_in_child", lambda *a: missing)
    with pytest.raises(BackendError, match="backend litert needs"):
        probe(with_dynamics("onnx", models.dynamics()), {"dynamics": "onnxruntime"})


@pytest.mark.skipif(sys.platform != "linux", reason="the parent's death is a Linux signal")
def test_the_child_dies_with_its_parent(tmp_path: Path):
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
import test_probe
bundle = test_probe.with_dynamics("onnx", test_probe.folding_bomb(3000, 1000))
print("ready", flush=True)
test_probe.attempt(bundle, "onnxruntime", test_probe.Limits())
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    child = _first_child(parent.pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    parent.stdout.close()
    for _ in range(12000):
        if not _alive(child):
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    raise AssertionError("the child outlived its parent by 120 s")


def _first_child(parent: int) -> int:
    for _ in range(12000):
        text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
        # The command line is the parent's own until the child has replaced it.
        for child in text.split():
            if b"edge_wm.backends.probe" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        time.sleep(0.01)
    raise AssertionError("no child process within 120 s")


def _alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
