"""The general engines, each as exported and in its best form, on one thread that does not spin.

| competitor | calls | graphs |
|---|---|---|
| as exported | one a step and function | as a bundle has them, free batch |
| best form | one a rollout, inputs and outputs bound to fixed memory | joined over the horizon |

onnxruntime gets Mish rewritten (it has no such operator and splits it into three); OpenVINO
recognizes Mish, so its best form keeps it. LiteRT gets what tflite_graphs.py writes: nothing else
converts ONNX to TFLite without torch or TensorFlow; int8 there is dynamic only. torch, when
installed, runs the exported graph operator by operator, as its eager mode would.

Every library is imported by the first competitor of it that is built.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np

from edge_wm.types import Array
from engine_bench import int8_graphs, planning
from engine_bench.case import Case
from engine_bench.imagination import (
    Bound,
    Engine,
    JoinedEngine,
    Run,
    StepEngine,
    joined_inputs,
)
from engine_bench.unroll import unrolled_policy, unrolled_rollout

Precision = Literal["fp32", "int8 static", "int8 dynamic"]
Form = Literal["as exported", "best form", ""]


@dataclass(frozen=True)
class Competitor:
    """One way to do the work of a case."""

    library: str
    precision: str
    form: Form
    build: Callable[[], Engine]
    prepare: Callable[[], object] = lambda: None  # writes the graphs, without loading them

    @property
    def name(self) -> str:
        return f"{self.library} {self.precision}" + (f", {self.form}" if self.form else "")


def competitors(case: Case, threads: int = 1) -> tuple[list[Competitor], dict[str, str]]:
    """Those that can run the case, and why the others are not run."""
    made, absent = [], {}
    precisions: tuple[Precision, ...] = ("fp32", "int8 static", "int8 dynamic")
    for library, loads in LIBRARIES.items():
        if find_spec(loads.module) is None:
            absent[library] = "not run: not installed"
            continue
        for precision in precisions[: 3 if case.int8 else 1]:
            if precision in loads.precisions:
                made += _of(case, library, loads, precision, threads)
    if find_spec("ai_edge_litert") is None:
        absent["LiteRT"] = "not run: not installed"
    else:
        made += _litert(case, threads, absent)
    if find_spec("torch") is None:
        absent["torch"] = "not run: not installed"
    else:
        made.append(Competitor("torch", "fp32", "as exported", lambda: _torch(case, threads)))
    return made, absent


# ---- graphs ---------------------------------------------------------------------------------
def _of(
    case: Case, library: str, loads: Library, precision: Precision, threads: int
) -> list[Competitor]:
    """Both forms of a case on a library that reads ONNX."""

    def stepped() -> dict[str, bytes]:
        return {
            name: _quantized(function.blob, precision, lambda name=name: _recorded(case)[name])
            for name, function in case.functions.items()
        }

    def joined() -> dict[str, bytes]:
        return {
            name: _quantized(blob, precision, lambda name=name: _joined_calibration(case, name))
            for name, blob in _joined(case, loads.rewritten).items()
        }

    def build_stepped() -> Engine:
        return StepEngine(case, {n: loads.steps(b, threads) for n, b in stepped().items()})

    def build_joined() -> Engine:
        return JoinedEngine(
            {n: loads.bound(blob, joined_inputs(case, n), threads) for n, blob in joined().items()}
        )

    forms = [Competitor(library, precision, "best form", build_joined, joined)]
    # An encoder is one call either way, and the same graph.
    if case.work != "encode":
        forms.append(Competitor(library, precision, "as exported", build_stepped, stepped))
    return forms


def _joined(case: Case, rewritten: bool) -> dict[str, bytes]:
    functions = case.rewritten if rewritten else case.functions
    if case.work == "encode":
        return {"encoder": functions["encoder"].blob}
    graphs = {"rollout": unrolled_rollout(case, functions)}
    if case.planning and case.planning.policy_candidates:
        graphs["policy"] = unrolled_policy(case, functions)
    return graphs


def _quantized(
    blob: bytes, precision: Precision, calibration: Callable[[], Sequence[Mapping[str, Array]]]
) -> bytes:
    if precision == "fp32":
        return blob
    if precision == "int8 dynamic":
        return int8_graphs.dynamic(blob)
    return int8_graphs.static(blob, calibration)


def _joined_calibration(case: Case, graph: str) -> list[dict[str, Array]]:
    """Random candidates, as planning draws them at first."""
    sets = []
    for seed in range(1, 4):
        inputs = joined_inputs(case, graph)
        if graph == "rollout":
            inputs["actions"] = case.actions(seed)
        if "noise" in inputs:
            random = np.random.default_rng(seed)
            inputs["noise"] = random.standard_normal(inputs["noise"].shape, np.float32)
        sets.append(inputs)
    return sets


def _recorded(case: Case) -> dict[str, list[Mapping[str, Array]]]:
    """What each function is fed with during one measurement's work: its calibration."""
    seen: dict[str, list[Mapping[str, Array]]] = {name: [] for name in case.functions}

    def recording(name: str, run: Run) -> Run:
        def both(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            if len(seen[name]) < case.horizon:
                seen[name].append(dict(feeds))
            return run(feeds)

        return both

    runs = {n: recording(n, _onnxruntime_steps(f.blob, 1)) for n, f in case.functions.items()}
    engine = StepEngine(case, runs)
    if case.work == "encode":
        engine.encode()
    else:
        engine.rollout(case.actions(1), case.noises(1))
        if case.planning and case.planning.policy_candidates:
            shape = (case.horizon, case.planning.policy_candidates, case.action)
            engine.propose(np.random.default_rng(1).standard_normal(shape, np.float32))
    return seen


def reference(case: Case) -> Engine:
    """What every competitor is held against: the exported functions in fp32 on onnxruntime."""
    runs = {n: _onnxruntime_steps(f.blob, 1) for n, f in case.functions.items()}
    return StepEngine(case, runs)


def reference_result(case: Case) -> Array:
    return planning.work(case, reference(case), 0)


# ---- onnxruntime ----------------------------------------------------------------------------
def _session(blob: bytes, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    return ort.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def _onnxruntime_steps(blob: bytes, threads: int) -> Run:
    session = _session(blob, threads)
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


class _OnnxruntimeBound:
    """IO binding to numpy memory on both sides."""

    def __init__(self, blob: bytes, inputs: Mapping[str, Array], threads: int) -> None:
        import onnxruntime as ort

        self._session = _session(blob, threads)
        self._binding = self._session.io_binding()
        self.inputs = {n: np.ascontiguousarray(v).copy() for n, v in inputs.items()}
        self.outputs = {o.name: np.zeros(o.shape, np.float32) for o in self._session.get_outputs()}
        self._values = []
        for arrays, bind in (
            (self.inputs, self._binding.bind_ortvalue_input),
            (self.outputs, self._binding.bind_ortvalue_output),
        ):
            for name, array in arrays.items():
                self._values.append(ort.OrtValue.ortvalue_from_numpy(array))
                bind(name, self._values[-1])
        known = {i.name for i in self._session.get_inputs()}
        assert known == set(self.inputs), (known, set(self.inputs))

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


# ---- OpenVINO -------------------------------------------------------------------------------
def _compiled(blob: bytes, threads: int) -> Any:
    import openvino as ov

    core = ov.Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(core.read_model(blob, b""), "CPU", settings)


def _openvino_steps(blob: bytes, threads: int) -> Run:
    request = _compiled(blob, threads).create_infer_request()

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        results = request.infer(dict(feeds), share_inputs=True)
        return {name: value for port, value in results.items() for name in port.get_names()}

    return run


class _OpenvinoBound:
    """One infer request with its tensors in numpy memory."""

    def __init__(self, blob: bytes, inputs: Mapping[str, Array], threads: int) -> None:
        import openvino as ov

        compiled = _compiled(blob, threads)
        self._request = compiled.create_infer_request()
        self.inputs = {n: np.ascontiguousarray(v).copy() for n, v in inputs.items()}
        self.outputs: dict[str, Array] = {}
        for port in compiled.inputs:
            (name,) = port.get_names() & set(inputs)
            self._request.set_tensor(port, ov.Tensor(self.inputs[name], shared_memory=True))
        for port in compiled.outputs:
            # A tensor may have inner names too; ours are `cost` and `last.belief...`.
            name = min(port.get_names(), key=lambda n: (n != "cost", "last." not in n, n))
            self.outputs[name] = np.zeros(tuple(port.shape), np.float32)
            self._request.set_tensor(port, ov.Tensor(self.outputs[name], shared_memory=True))

    def run(self) -> None:
        self._request.infer()


@dataclass(frozen=True)
class Library:
    """How a library that reads ONNX is used."""

    module: str
    precisions: tuple[Precision, ...]
    rewritten: bool  # does it want Mish rewritten?
    steps: Callable[[bytes, int], Run]
    bound: Callable[[bytes, Mapping[str, Array], int], Bound]


LIBRARIES: Mapping[str, Library] = {
    "onnxruntime": Library(
        "onnxruntime", ("fp32", "int8 static", "int8 dynamic"), True, _onnxruntime_steps,
        _OnnxruntimeBound,
    ),
    "OpenVINO": Library(
        "openvino", ("fp32", "int8 static"), False, _openvino_steps, _OpenvinoBound
    ),
}  # fmt: skip


# ---- LiteRT and torch -----------------------------------------------------------------------
def _litert(case: Case, threads: int, absent: dict[str, str]) -> list[Competitor]:
    """As exported where the bundle has TFLite files, and what tflite_graphs.py writes."""
    from engine_bench.tflite_graphs import NotConverted, tflite_file

    made = []
    if all(f.tflite for f in case.functions.values()):
        made.append(
            Competitor("LiteRT", "fp32", "as exported", lambda: _litert_steps(case, threads))
        )
    # Its GRU and LSTM operators are not written; their steps are.
    graphs = _joined(replace(case, joined=b""), rewritten=True)
    for precision in ("fp32", "int8 dynamic") if case.int8 else ("fp32",):
        try:
            files = {n: tflite_file(b, precision != "fp32") for n, b in graphs.items()}
        except NotConverted as error:
            absent["LiteRT"] = f"not run: no converter ({error})"
            break

        def build(files: Mapping[str, bytes] = files) -> Engine:
            return JoinedEngine(
                {n: _LitertBound(b, joined_inputs(case, n), threads) for n, b in files.items()}
            )

        made.append(Competitor("LiteRT", precision, "best form", build))
    return made


def _litert_steps(case: Case, threads: int) -> Engine:
    from edge_wm.backends import load_graph

    runs = {
        name: load_graph(f.tflite, f.spec, "litert", name=name, threads=threads).run
        for name, f in case.functions.items()
    }
    return StepEngine(case, runs)


class _LitertBound:
    """An interpreter; its tensors are read and written where they lie."""

    def __init__(self, blob: bytes, inputs: Mapping[str, Array], threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_content=blob, num_threads=threads)
        self._interpreter.allocate_tensors()
        self.inputs = {d["name"]: self._memory(d) for d in self._interpreter.get_input_details()}
        for name, value in inputs.items():
            if name in self.inputs:
                self.inputs[name][...] = value
        self.run()
        self.outputs = {d["name"]: self._memory(d) for d in self._interpreter.get_output_details()}

    def run(self) -> None:
        self._interpreter.invoke()

    def _memory(self, detail: Mapping[str, Any]) -> Array:
        """A tensor's memory; not numpy's own view, because invoke refuses while one lives."""
        view = self._interpreter.tensor(detail["index"])()
        address, shape = view.__array_interface__["data"][0], view.shape
        raw = (ctypes.c_char * view.nbytes).from_address(address)
        return np.frombuffer(raw, view.dtype).reshape(shape)


def _torch(case: Case, threads: int) -> Engine:
    from engine_bench.torch_graph import torch_run

    return StepEngine(case, {n: torch_run(f.blob, threads) for n, f in case.functions.items()})
