"""edge_wm.backends.choice: what `auto` takes, from planted backends and on the shipped rover."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import models
import numpy as np
import onnxruntime
import pytest
from driving import BUNDLE_FILE, rover

from edge_wm import backends
from edge_wm.backends import choice, machine, onnx_runtime
from edge_wm.backends import probe as trial
from edge_wm.backends.choice import Choice, Timing, fastest, in_words, medians, settle, spelled
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.errors import BackendError, ModelError, UsageError
from edge_wm.world_model import WorldModel

READY = {"native": "edge-wm 1", "onnxruntime": "onnxruntime 1", "litert": "ai-edge-litert 1"}
FORMATS = ("program", "onnx", "tflite")
FUNCTIONS = ("encoder", "dynamics", "cost")


# ---- planted backends ----------------------------------------------------------------------
class Planted:
    """A graph that answers with zeros, or with ones where it is wrong, or not at all."""

    def __init__(self, function: Any, backend: str, fault: str) -> None:
        self.backend, self._function, self._fault = f"planted {backend}", function, fault

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._fault == "fails":
            raise BackendError(f"{self.backend} failed: no reason")
        rows = len(inputs[self._function.inputs[0].tensor])
        return {
            o.tensor: np.full(
                [rows if n == -1 else n for n in o.shape], float(self._fault == "wrong"), o.dtype
            )
            for o in self._function.outputs
        }


class Plant:
    """The planted machine: how long each backend takes, and what is wrong with it."""

    def __init__(self) -> None:
        self.ms = {"native": 3.0, "onnxruntime": 2.0, "litert": 4.0}
        self.faults: dict[tuple[str, str], str] = {}  # (function, backend) -> wrong, fails, crashes
        self.probed: list[dict[str, str]] = []

    def probe(self, bundle: Bundle, chosen: Mapping[str, str], **_: Any) -> None:
        self.probed.append(dict(chosen))
        for at in chosen.items():
            if self.faults.get(at) == "crashes":
                raise ModelError(f"running function {at[0]}: the inference library crashed")

    def load(self, blob: Any, function: Any, backend: str, *, name: str, **_: Any) -> Planted:
        return Planted(function, backend, self.faults.get((name, backend), ""))

    def medians(self, calls: Mapping[str, Any], budget_s: float) -> dict[str, float]:
        return {backend: self.ms[backend] for backend in calls}


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Plant:
    made = Plant()
    for module in (backends, choice):
        monkeypatch.setattr(module, "installed", lambda: dict(READY))
    monkeypatch.setattr(choice, "probe", made.probe)
    monkeypatch.setattr(choice, "load_graph", made.load)
    monkeypatch.setattr(choice, "medians", made.medians)
    return made


def planted(*formats: str) -> Bundle:
    """The linear model's declarations, with a graph in each format and a case of zeros each."""
    functions = models.linear()
    for name, function in functions.items():
        function["graphs"] = {kind: f"{name} {kind}".encode() for kind in formats or FORMATS}
    zeros = {1: np.zeros(2, np.float32), 3: np.zeros((2, 3), np.float32)}
    z, action = zeros[3], np.zeros((2, 2), np.float32)
    cost = {"z": z, "action": action, "pose": np.zeros((2, 4), np.float32)}
    reference = [
        ("dynamics", {"z": z, "action": action}, {"next": z}, 1e-3),
        ("cost", cost, {"goal": zeros[1], "effort": np.zeros((2, 1), np.float32)}, 1e-3),
    ]
    return models.bundle(functions, reference)


@pytest.mark.parametrize(
    ("ms", "taken"),
    [
        ({"native": 3.0, "onnxruntime": 2.0, "litert": 4.0}, "onnxruntime"),
        ({"native": 3.0, "onnxruntime": 4.0, "litert": 2.0}, "litert"),
        ({"native": 1.0, "onnxruntime": 2.0, "litert": 2.0}, "native"),
        ({"native": 2.19, "onnxruntime": 2.0, "litert": 4.0}, "native"),  # within 10 %
        ({"native": 2.2, "onnxruntime": 2.0, "litert": 4.0}, "native"),
        ({"native": 2.21, "onnxruntime": 2.0, "litert": 4.0}, "onnxruntime"),
        ({"native": 3.0, "onnxruntime": 2.1, "litert": 2.0}, "onnxruntime"),
        ({"onnxruntime-cuda": 1.0, "onnxruntime": 1.05}, "onnxruntime"),
        ({"litert": 7.0}, "litert"),
    ],
)
def test_the_fastest_is_taken_and_the_earlier_if_it_is_as_good(ms: dict[str, float], taken: str):
    assert fastest(ms) == taken
    assert fastest(dict(reversed(ms.items()))) == taken


def test_every_function_gets_the_fastest(plant: Plant):
    settled = settle(planted(), "auto")
    assert settled.fresh
    assert dict(settled.chosen) == dict.fromkeys(FUNCTIONS, "onnxruntime")
    assert [(row.group, row.backend, row.ms, row.chosen) for row in settled.timings] == [
        (name, backend, plant.ms[backend], backend == "onnxruntime")
        for name in FUNCTIONS
        for backend in READY
    ]


def test_a_backend_that_computes_something_else_is_out_with_its_reason(plant: Plant):
    plant.faults["dynamics", "onnxruntime"] = "wrong"
    settled = settle(planted(), "auto")
    assert dict(settled.chosen) == {
        "encoder": "onnxruntime",
        "dynamics": "native",
        "cost": "onnxruntime",
    }
    (out,) = (row for row in settled.timings if row.ms is None)
    assert out == Timing(
        "dynamics",
        ("dynamics",),
        "onnxruntime",
        None,
        "function dynamics: reference case 0, output 'next' on planted onnxruntime: 6 of 6 numbers "
        "differ, the worst at [0, 0]: expected 0, got 1, error 1 above the bound 0.001; this "
        "machine or library version computes something else than the bundle was built with: try "
        "another backend",
    )


def test_a_crash_in_the_child_is_blamed_on_the_function_that_crashed(plant: Plant):
    plant.faults["cost", "onnxruntime"] = "crashes"
    settled = settle(planted(), "auto")
    assert settled.chosen["cost"] == "native"
    assert settled.chosen["dynamics"] == "onnxruntime"
    (out,) = (row for row in settled.timings if row.ms is None)
    assert (out.group, out.reason) == (
        "cost",
        "running function cost: the inference library crashed",
    )
    assert {"cost": "onnxruntime"} in plant.probed  # apart, after all together had failed


def test_where_every_candidate_fails_each_is_named_with_its_reason(plant: Plant):
    plant.faults |= {
        ("cost", "native"): "wrong",
        ("cost", "onnxruntime"): "crashes",
        ("cost", "litert"): "fails",
    }
    with pytest.raises(ModelError) as caught:
        settle(planted(), "auto")
    assert str(caught.value) == (
        "function cost: no backend can run it on this machine; native: function cost: reference "
        "case 0, output 'goal' on planted native: 2 of 2 numbers differ, the worst at [0]: "
        "expected 0, got 1, error 1 above the bound 0.001; this machine or library version "
        "computes something else than the bundle was built with: try another backend; "
        "onnxruntime: running function cost: the inference library crashed; "
        "litert: planted litert failed: no reason"
    )
    assert not list(machine.cache_folder().rglob("*.json"))


def test_only_what_is_installed_and_has_a_graph_takes_part(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
):
    plant.ms["litert"] = 1.0
    assert set(settle(planted("program", "onnx"), "auto").chosen.values()) == {"onnxruntime"}
    for module in (backends, choice):
        monkeypatch.setattr(module, "installed", lambda: {"native": "edge-wm 1"})
    assert set(settle(planted(), "auto").chosen.values()) == {"native"}
    for module in (backends, choice):
        monkeypatch.setattr(module, "installed", dict)
    with pytest.raises(BackendError, match=r"^backend onnxruntime needs onnxruntime or"):
        settle(planted("onnx"), "auto")


# ---- timing --------------------------------------------------------------------------------
@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """takes(name, seconds): a call of that length on a clock of its own; `takes.order` is kept."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock.now)

    def make(name: str, seconds: float) -> Any:
        def call() -> None:
            make.order.append(name)
            clock.now += seconds

        return call

    make.order = []
    return make


@pytest.mark.parametrize(("budget_s", "rounds"), [(0.0, 3), (2.0, 3), (4.0, 5), (1e9, 25)])
def test_the_backends_take_turns_while_there_is_time(takes: Any, budget_s: float, rounds: int):
    ms = medians({"a": takes("a", 0.375), "b": takes("b", 0.5)}, budget_s)
    assert takes.order == ["a", "b"] * rounds
    assert ms == {"a": 375.0, "b": 500.0}


def test_who_is_hopeless_is_not_run_again_once_the_time_is_used_up(takes: Any):
    calls = {"fast": takes("fast", 1), "slow": takes("slow", 4), "close": takes("close", 2)}
    assert medians(calls, 0.5) == {"fast": 1e3, "slow": 4e3, "close": 2e3}
    assert takes.order == ["fast", "slow", "close", "fast", "close", "fast", "close"]


# ---- rules that do not measure -------------------------------------------------------------
@pytest.fixture
def never(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: Any, **__: Any) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(choice, "measure", measured)


@pytest.mark.usefixtures("plant", "never")
def test_first_and_names_measure_nothing():
    assert settle(planted(), "first") == Choice(dict.fromkeys(FUNCTIONS, "native"))
    assert settle(planted("tflite", "onnx"), "first").chosen["cost"] == "onnxruntime"
    assert settle(planted(), "litert") == Choice(dict.fromkeys(FUNCTIONS, "litert"))
    mixed = settle(planted(), "cost=litert,encoder=onnxruntime").chosen
    assert mixed == {"encoder": "onnxruntime", "dynamics": "native", "cost": "litert"}
    assert settle(planted(), spelled(mixed)).chosen == mixed
    assert spelled(mixed) == "encoder=onnxruntime,dynamics=native,cost=litert"
    assert spelled(dict.fromkeys(FUNCTIONS, "litert")) == "litert"


@pytest.mark.usefixtures("plant", "never")
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            "fastest",
            "backend must be one of auto, first, native, onnxruntime, litert, onnxruntime-cuda, "
            "onnxruntime-tensorrt; got 'fastest'",
        ),
        (
            "cost=auto",
            "backend must be one of auto, first, native, onnxruntime, litert, onnxruntime-cuda, "
            "onnxruntime-tensorrt; got 'auto'",
        ),
        (
            "wings=native",
            "backend 'wings=native': no function 'wings'; the bundle has encoder, dynamics, cost",
        ),
    ],
)
def test_a_backend_that_is_none_is_refused(asked: str, message: str):
    with pytest.raises(UsageError) as caught:
        settle(planted(), asked)
    assert str(caught.value) == message


@pytest.mark.usefixtures("never")
def test_a_world_model_does_not_measure_unless_asked():
    model = WorldModel(models.bundle(models.linear()), rover())
    assert model.backend == "onnxruntime"
    with pytest.raises(AssertionError, match="measured"):
        WorldModel(models.bundle(models.linear()), rover(), backend="auto")


# ---- remembering ---------------------------------------------------------------------------
@pytest.fixture
def measured(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often was measured: the list's length."""
    times: list[int] = []
    real = choice.measure
    monkeypatch.setattr(choice, "measure", lambda *a, **k: times.append(1) or real(*a, **k))
    return times


def only_file(cache: Path) -> Path:
    (found,) = (cache / "choice").iterdir()
    return found


def test_a_choice_is_remembered(plant: Plant, measured: list[int], cache: Path):
    told: list[str] = []
    first = settle(planted(), "auto", tell=told.append)
    plant.ms["litert"] = 0.1
    second = settle(planted(), "auto", tell=told.append)
    assert len(measured) == 1
    assert told == ["measuring backends on this machine ..."]
    assert (second.chosen, second.timings, second.fresh) == (first.chosen, first.timings, False)
    third = settle(planted(), "auto", again=True, tell=told.append)
    assert len(measured) == 2
    assert third.chosen["cost"] == "litert"
    assert settle(planted(), "auto").chosen["cost"] == "litert"
    assert json.loads(only_file(cache).read_text())["key"]["edge_wm"]


@pytest.mark.parametrize(
    "what", ["processor", "driver", "cores", "kernels", "library", "bundle", "threads", "version"]
)
def test_a_choice_holds_for_this_device_and_this_bundle_only(
    plant: Plant, measured: list[int], monkeypatch: pytest.MonkeyPatch, what: str
):
    settle(planted(), "auto")
    bundle, threads = planted(), 1
    if what in ("processor", "driver"):
        monkeypatch.setattr(choice, what, lambda: "another")
    elif what == "cores":
        monkeypatch.setattr(choice.os, "sched_getaffinity", lambda _: set(range(99)))
    elif what == "kernels":
        monkeypatch.setenv("EDGE_WM_KERNELS", "plain")
    elif what == "library":
        monkeypatch.setattr(choice, "installed", lambda: READY | {"litert": "ai-edge-litert 2"})
    elif what == "version":
        monkeypatch.setattr(choice, "__version__", "99")
    elif what == "threads":
        threads = 2
    else:
        bundle = dataclasses.replace(bundle, sha256="1" * 64)
    settle(bundle, "auto", threads=threads)
    assert len(measured) == 2


def edited(text: str, **changes: Any) -> str:
    return json.dumps(json.loads(text) | changes)


def rows(text: str) -> list[dict[str, Any]]:
    return list(json.loads(text)["timings"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "\0" * len(text),
        lambda text: "[]",
        lambda text: edited(text, more=1),
        lambda text: edited(text, key={}),
        lambda text: edited(text, timings=[]),
        lambda text: edited(text, timings=[row | {"chosen": True} for row in rows(text)]),
        lambda text: edited(text, timings=[r for r in rows(text) if r["group"] != "cost"]),
        lambda text: text.replace('"onnxruntime"', '"abacus"'),
        lambda text: edited(text, timings=[r | {"ms": None} for r in rows(text)]),
        lambda text: edited(text, timings=[r | {"ms": "fast"} for r in rows(text)]),
    ],
)
def test_a_damaged_file_is_measured_anew_and_mended(measured: list[int], cache: Path, damage: Any):
    settle(planted(), "auto")
    path = only_file(cache)
    whole = path.read_bytes()
    path.write_text(damage(whole.decode()))
    again = settle(planted(), "auto")
    assert len(measured) == 2
    assert again.fresh
    assert path.read_bytes() == whole
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # nothing half-written beside it


def test_without_a_cache_folder_every_start_measures(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "file").write_text("in the way")
    for folder in (str(tmp_path / "file"), "relative"):
        monkeypatch.setenv("EDGE_WM_CACHE", folder)
        assert settle(planted(), "auto").fresh
    assert len(measured) == 2
    assert not Path("relative").exists()


# ---- in words ------------------------------------------------------------------------------
def test_one_line_says_what_was_chosen_and_why():
    together = ("dynamics", "cost")
    timings = [
        Timing("rollout", together, "native", 1.05, chosen=True),
        Timing("rollout", together, "onnxruntime", 1.0),
        Timing("rollout", together, "litert", None, "wrong"),
        Timing("encoder", ("encoder",), "native", 20.0),
        Timing("encoder", ("encoder",), "litert", 0.5, chosen=True),
        Timing("decoder", ("decoder",), "native", 0.25, chosen=True),
    ]
    assert in_words(timings) == [
        "rollout (dynamics, cost): native 1.05 ms; onnxruntime 1 ms, litert is out; within 10 %, "
        "so the first of them",
        "encoder: litert 0.5 ms; native 20 ms",
        "decoder: native 0.25 ms; no other",
    ]


# ---- for real ------------------------------------------------------------------------------
def test_the_rover_is_measured_on_this_machine():
    bundle = open_bundle(BUNDLE_FILE, load_trust(()))
    settled = settle(bundle, "auto")
    assert set(settled.chosen) == set(map(str, bundle.manifest.functions))
    together = ("dynamics", "cost", "constraint", "value")
    assert {row.functions for row in settled.timings if row.group == "rollout"} == {together}
    assert len({settled.chosen[name] for name in together}) == 1
    assert all(row.ms is not None and row.ms > 0 for row in settled.timings)
    model = WorldModel(bundle, rover(), backend=spelled(settled.chosen))
    assert model.backend == spelled(settled.chosen)
    assert not settle(bundle, "auto").fresh


# ---- onnxruntime's GPU providers: the selection only, no GPU was ever seen ------------------
CUDA, TENSORRT, CPU = (f"{p}ExecutionProvider" for p in ("CUDA", "Tensorrt", "CPU"))


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    version = backends._version
    monkeypatch.setattr(
        backends, "_version", lambda d: "1.23.0" if d == "onnxruntime-gpu" else version(d)
    )


@pytest.mark.usefixtures("gpu_build")
@pytest.mark.parametrize(
    ("available", "expected"),
    [
        ([CPU], []),
        ([CUDA, CPU], ["onnxruntime-cuda"]),
        ([TENSORRT, CUDA, CPU], ["onnxruntime-cuda", "onnxruntime-tensorrt"]),
    ],
)
def test_gpu_providers_take_part_where_the_build_has_them(
    monkeypatch: pytest.MonkeyPatch, available: list[str], expected: list[str]
):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    ready = backends.installed()
    assert [name for name in ready if name in backends.PROVIDERS] == expected
    if expected:
        assert ready["onnxruntime-cuda"] == f"onnxruntime-gpu 1.23.0 {CUDA}"
    assert backends.choose("cost", ["onnx"]) == "onnxruntime"  # never by the fixed rule


def test_the_processors_build_is_not_asked_for_providers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backends, "_available_providers", lambda: pytest.fail("asked"))
    assert not backends.PROVIDERS.keys() & backends.installed().keys()


def test_a_gpu_backend_that_is_not_there_says_what_pypi_lacks():
    with pytest.raises(BackendError) as caught:
        backends.choose("cost", ["onnx"], "onnxruntime-tensorrt")
    assert str(caught.value) == (
        "backend onnxruntime-tensorrt needs a GPU build of onnxruntime with "
        "TensorrtExecutionProvider, which is not installed; on a Jetson install NVIDIA's build for "
        "its JetPack (PyPI's onnxruntime-gpu has no code for Orin or Thor and no TensorRT there)"
    )


def test_a_provider_that_does_not_start_is_an_error_and_not_the_processor(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(
        onnx_runtime.ort,
        "InferenceSession",
        lambda *a, **k: SimpleNamespace(get_providers=lambda: [CPU]),
    )
    spec = SimpleNamespace(inputs=[], outputs=[])
    with pytest.raises(BackendError) as caught:
        backends.load_graph(b"", spec, "onnxruntime-cuda", name="cost")
    assert str(caught.value) == (
        f"function cost: onnxruntime {onnxruntime.__version__} could not start {CUDA} and would "
        "have run on the processor unasked; check the driver and the CUDA and TensorRT libraries "
        "with `edge-wm doctor`, or use another backend"
    )


def test_engines_are_kept_apart_for_each_device_and_driver(
    cache: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = SimpleNamespace(
        inputs=[
            SimpleNamespace(tensor="z", shape=(-1, 3), dtype="float32"),
            SimpleNamespace(tensor="dt", shape=(1,), dtype="float32"),
        ]
    )

    def options() -> dict[str, str]:
        (tensorrt, *rest) = onnx_runtime.providers_for(TENSORRT, spec, 128)
        assert rest == [CUDA, CPU]
        assert tensorrt[0] == TENSORRT
        return dict(tensorrt[1])

    here = options()
    assert here["trt_profile_min_shapes"] == "z:1x3"
    assert here["trt_profile_opt_shapes"] == here["trt_profile_max_shapes"] == "z:128x3"
    assert Path(here["trt_engine_cache_path"]).parent == cache / "engines"
    assert Path(here["trt_engine_cache_path"]).is_dir()
    assert options() == here
    monkeypatch.setattr(machine, "driver", lambda: "another")
    assert options()["trt_engine_cache_path"] != here["trt_engine_cache_path"]
    assert onnx_runtime.providers_for(CUDA, spec, 1) == [CUDA, CPU]
    assert onnx_runtime.providers_for(CPU, spec, 1) == [CPU]


def test_the_child_of_a_gpu_backend_has_no_limit_on_address_space(
    monkeypatch: pytest.MonkeyPatch,
):
    given: list[trial.Limits] = []

    def in_child(bundle: Any, request: Any, limits: trial.Limits) -> trial.Outcome:
        given.append(limits)
        return trial.Outcome("passed")

    monkeypatch.setattr(trial, "try_in_child", in_child)
    bundle = models.bundle(models.linear())
    trial.probe(bundle, {"cost": "onnxruntime"})
    trial.probe(bundle, {"cost": "onnxruntime-cuda"})
    assert given == [trial.Limits(), trial.GPU_LIMITS]
    assert given[1].memory_bytes == 0
