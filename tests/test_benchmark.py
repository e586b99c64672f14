"""Tests `edge-wm bench`: what it counts against an independent count, its verdicts, its words."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from driving import bundle, rover
from onnx import numpy_helper
from typer.testing import CliRunner

from edge_wm import benchmark
from edge_wm.benchmark import Benchmark, Percentiles, measure
from edge_wm.cli import app

COMMAND = sys.modules["edge_wm.cli.bench"]  # the package's `bench` is the command itself
EVEN = Percentiles(1.0, 1.0, 1.0, 1.0)
FOUND = Benchmark(
    bundle="rover 0.1.0", backend="native", candidates=128, horizon=12, iterations=2, ready_s=0.1,
    plans=10, wall=EVEN, cpu=Percentiles(2.0, 2.5, 3.0, 3.0), page_faults=0.0,
    multiply_adds=200_000_000, peak_before=80.0, peak_after=100.0,
)  # fmt: skip


def layers_work(blob: bytes) -> int:
    """Multiply-adds of a graph's dense layers, counted from the sizes of its ONNX weights."""
    graph = onnx.load_from_string(bytes(blob)).graph
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    dense = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    return sum(weights[node.input[1]].size for node in dense)


def test_it_counts_the_work_that_the_graphs_have():
    opened = bundle()
    found = measure(opened, rover(), backend="native", candidates=16, seconds=0.2)
    functions = opened.manifest.functions
    parts = {
        str(n): layers_work(opened.blob(functions[n].graphs["onnx"]))
        for n in functions
        if n in ("dynamics", "cost", "constraint")
    }
    assert parts["dynamics"] > 50_000
    expected = found.iterations * found.candidates * found.horizon * sum(parts.values())
    assert found.multiply_adds == pytest.approx(expected, rel=0.02)
    assert found.plans >= 10
    assert found.scratch_mib is not None
    assert 0.0 < found.scratch_mib < 10.0
    assert found.cpu.p50 <= found.cpu.p99 <= found.cpu.p999 <= found.cpu.most
    assert 0.0 < found.ready_s < 60.0


def test_percentiles_are_durations_that_happened():
    ms = np.arange(1, 1001)
    assert Percentiles.of(ms * 1e-3) == Percentiles(501.0, 991.0, 1000.0, 1000.0)


def test_what_follows_from_the_figures():
    assert FOUND.spread == 1.5
    assert FOUND.gmacs == pytest.approx(100.0)  # 0.2 G in 2 ms
    assert FOUND.share_of_peak == pytest.approx(1.0)
    assert FOUND.void
    assert not replace(FOUND, peak_after=91.0).void
    assert not replace(FOUND, peak_after=None).void
    assert replace(FOUND, multiply_adds=None).share_of_peak is None


@pytest.mark.parametrize(("budget", "code"), [("1.0", 0), ("0.99", 1)])
def test_over_budget_is_an_exit_code_and_a_sentence(monkeypatch, budget: str, code: int):
    monkeypatch.setattr(COMMAND, "measure", lambda *_, **__: FOUND)
    result = CliRunner().invoke(app, ["bench", "--budget", budget])
    assert result.exit_code == code
    sentence = (
        "over budget: 99 of 100 plans must take at most 0.99 ms, and take 1.00 ms; use fewer "
        "candidates, another backend or a lower plan rate"
    )
    assert (sentence in result.output) == bool(code)
    assert "VOID: the int8 peak moved by more than 15%, from 80 to 100 GMAC/s" in result.output


def test_json_has_what_the_table_has(monkeypatch):
    monkeypatch.setattr(COMMAND, "measure", lambda *_, **__: FOUND)
    result = CliRunner().invoke(app, ["bench", "--json"])
    facts = json.loads(result.stdout)
    assert facts["wall"]["p50"] == 1.0
    assert facts["void"] is True
    assert facts["over_budget"] is False


def test_without_the_compiled_module_the_peak_is_unknown(monkeypatch):
    monkeypatch.setitem(sys.modules, "edge_wm._native", None)
    monkeypatch.delattr("edge_wm._native", raising=False)
    assert benchmark.int8_peak() is None
