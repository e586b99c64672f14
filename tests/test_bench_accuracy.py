"""tests/bench/engine_bench: accuracy measures, joined graphs, the clock and the budget."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).parent / "bench"
sys.path.insert(0, str(BENCH))
if importlib.util.find_spec("onnxruntime") is None:
    pytest.skip("the benchmark needs onnxruntime", allow_module_level=True)

import onnx.reference  # noqa: E402
from engine_bench import accuracy, budget, clock, machine, peers, planning  # noqa: E402
from engine_bench.cases import CASES  # noqa: E402
from engine_bench.imagination import JoinedEngine, StepEngine, joined_inputs  # noqa: E402
from engine_bench.results import Report, Row, ours, peer_times, ratio  # noqa: E402
from engine_bench.unroll import unrolled_rollout  # noqa: E402

RANDOM = np.random.default_rng(0)


# ---- measures -------------------------------------------------------------------------------
def test_elites_kept_counts_the_common_ones():
    cost = np.arange(10.0)
    assert accuracy.elites_kept(cost, cost, 4) == 4
    assert accuracy.elites_kept(cost, -cost, 4) == 0
    moved = cost.copy()
    moved[0] = 99.0
    assert accuracy.elites_kept(cost, moved, 4) == 3


def test_elites_kept_leaves_out_what_is_infeasible():
    cost = np.arange(10.0)
    assert accuracy.elites_kept(cost, np.where(cost < 2, np.inf, cost), 4) == 2


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([1, 2, 3, 4], 1.0),
        ([4, 3, 2, 1], -1.0),
        ([10, 200, 3000, 40000], 1.0),
        ([1, 1, 2, 2], 0.8944),
    ],
)
def test_rank_correlation(other, expected):
    found = accuracy.rank_correlation(np.array([1, 2, 3, 4]), np.array(other))
    assert found == pytest.approx(expected, abs=1e-4)


def test_rank_correlation_is_scipys():
    stats = pytest.importorskip("scipy.stats")
    a, b = RANDOM.integers(0, 9, 50), RANDOM.integers(0, 9, 50)
    assert accuracy.rank_correlation(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_rank_correlation_of_equal_costs_is_unknown():
    assert math.isnan(accuracy.rank_correlation(np.ones(4), np.arange(4)))


def test_value_gap_is_in_spreads_of_the_candidates():
    candidates = np.array([0.0, 4.0])  # standard deviation 2
    assert accuracy.value_gap(np.array([3.0]), np.array([2.0]), candidates) == 0.5
    assert accuracy.value_gap(np.array([2.0]), np.array([3.0]), candidates) == -0.5


def test_infeasible_costs_are_errors_only_where_engines_disagree():
    cost = np.array([1.0, np.inf, 3.0])
    assert accuracy.cost_error(cost, np.array([1.5, np.inf, 3.0])) == 0.5
    assert accuracy.cost_error(cost, np.array([1.0, 2.0, 3.0])) == math.inf
    assert accuracy.value_gap(np.array([2.0]), np.array([1.0]), cost) == 1.0


def test_state_error_is_in_spreads_between_rows():
    rows = np.array([[-1.0, 5.0], [1.0, 5.0]])  # spread sqrt(1 / 2) over all numbers
    assert accuracy.state_error(rows, rows) == 0
    assert accuracy.state_error(rows, rows + 0.1) == pytest.approx(0.1 / math.sqrt(0.5))


def test_latent_cosine_is_the_mean_over_rows():
    a = np.array([[1.0, 0.0], [0.0, 2.0]])
    assert accuracy.latent_cosine(a, 3 * a) == pytest.approx(1)
    assert accuracy.latent_cosine(a, np.array([[1.0, 0.0], [1.0, 0.0]])) == pytest.approx(0.5)


def test_an_engine_compared_with_itself_loses_nothing():
    case = CASES["tiny-gru"]()
    found = accuracy.compare(case, peers.reference(case), peers.reference(case))
    assert found["cost_error"] == found["state_error"] == 0
    assert found["latent_cosine"] == pytest.approx(1)
    assert found["rank_correlation"] == pytest.approx(1)
    assert found["elites_kept"] == accuracy.ELITES


class Drifting(StepEngine):
    """The reference, but what it remembers is off by a constant after every step."""

    def __init__(self, case, off: float) -> None:
        self.__dict__.update(vars(peers.reference(case)))
        self._off = off

    def _call(self, name, fed, rows):
        found = super()._call(name, fed, rows)
        return {s: v + self._off if s == "belief.h" else v for s, v in found.items()}


def test_what_follows_from_the_same_draws_is_told_apart_from_other_draws():
    case = replace(CASES["mdn-lstm-256"](), candidates=8)
    actions, noise = case.actions(1), case.noises(1)
    reference = peers.reference(case)
    free = reference.driven(actions, noise)
    last = reference.rollout(actions, noise).last
    for source, path in free.items():  # without draws from elsewhere it is the rollout
        np.testing.assert_array_equal(path[-1], last[source.removeprefix("belief.")])
    assert accuracy.driven_error(reference, reference, actions, noise) == 0.0
    small, large = (
        accuracy.driven_error(reference, Drifting(case, off), actions, noise)
        for off in (0.001, 0.01)
    )
    assert 0.0 < small < 0.2 * large
    # Its own draws go another way as soon as one is decided otherwise.
    true, ours = last, Drifting(case, 0.01).rollout(actions, noise).last
    apart = max(accuracy.state_error(true[name], ours[name]) for name in true)
    assert apart > large


# ---- cases ----------------------------------------------------------------------------------
def numpy_engine(case):
    """The exported functions in onnx's own evaluator: plain numpy, one operator after the other."""
    runs = {}
    for name, function in case.functions.items():
        evaluator = onnx.reference.ReferenceEvaluator(onnx.load_from_string(function.blob))
        names = evaluator.output_names
        runs[name] = lambda feeds, e=evaluator, n=names: dict(
            zip(n, e.run(None, feeds), strict=True)
        )
    return StepEngine(case, runs)


@pytest.mark.parametrize("name", ["tdmpc2", "mdn-lstm-256", "jepa", "rssm", "tiny-gru", "rover"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_the_joined_graph_is_the_steps_in_numpy(name):
    """The rewritten functions over the horizon, in one graph, against the exported ones."""
    case = replace(CASES[name](), candidates=3, joined=b"")
    actions, noise = case.actions(1), case.noises(1)
    plain = numpy_engine(case).rollout(actions, noise)
    inputs = joined_inputs(case, "rollout")
    blob = unrolled_rollout(case, case.rewritten)
    bound = peers.LIBRARIES["onnxruntime"].bound(blob, inputs, 1)
    joined = JoinedEngine({"rollout": bound}).rollout(actions, noise)
    np.testing.assert_allclose(joined.cost, plain.cost, rtol=2e-4, atol=2e-4)
    for belief, value in plain.last.items():
        np.testing.assert_allclose(joined.last[belief], value, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", ["tdmpc2", "jepa", "mdn-lstm-512", "rssm", "tiny-gru"])
def test_rollouts_stay_finite_and_do_not_saturate(name):
    case = replace(CASES[name](), candidates=32)
    found = peers.reference(case).rollout(case.actions(2), case.noises(2))
    assert np.isfinite(found.cost).all()
    assert found.cost.std() > 1e-3
    assert len(np.unique(found.cost)) == 32


def test_the_tiny_grus_sequence_is_its_steps():
    case = CASES["tiny-gru"]()
    actions, noise = case.actions(1), case.noises(1)
    bound = peers.LIBRARIES["onnxruntime"].bound(case.joined, joined_inputs(case, "rollout"), 1)
    joined = JoinedEngine({"rollout": bound}).rollout(actions, noise)
    plain = peers.reference(case).rollout(actions, noise)
    np.testing.assert_allclose(joined.cost, plain.cost, rtol=1e-5, atol=1e-5)


def test_the_multiply_adds_are_the_issues():
    assert CASES["tdmpc2"]().macs == pytest.approx(17.8e9, rel=0.01)


def test_a_plan_finds_what_is_cheap():
    """CEM on a bowl: the cost of an action is its distance to 0.3."""

    class Bowl:
        def rollout(self, actions, noise):
            cost = np.square(actions - 0.3).sum(axis=(0, 2))
            return type("Imagined", (), {"cost": cost})

    case = replace(CASES["jepa"](), work="plan")
    found = planning.plan(case, Bowl(), np.random.default_rng(0))
    assert found.shape == (case.horizon, case.action)
    np.testing.assert_allclose(found, 0.3, atol=0.1)


# ---- clock and budget -----------------------------------------------------------------------
def test_the_race_takes_turns_and_moves_the_first_on():
    order = []
    ticks = iter(range(10**6))
    competitors = {name: lambda seed, n=name: order.append((n, seed)) for name in "abc"}
    times = clock.race(competitors, 0.0, (2, 2), lambda: next(ticks), lambda: next(ticks))
    assert order[6:] == [("a", 0), ("b", 0), ("c", 0), ("b", 1), ("c", 1), ("a", 1)]
    assert [len(times[name].cpu) for name in "abc"] == [2, 2, 2]
    assert times["a"].least == pytest.approx(1e-9)
    assert times["a"].percentile(99.9) == pytest.approx(1e-9)


def test_a_race_ends_when_the_time_is_up():
    ticks = iter(range(0, 10**12, 10**8))  # 0.1 s from one question to the next
    times = clock.race({"a": lambda seed: None}, 1.0, (2, 99), lambda: next(ticks), lambda: 0)
    assert len(times["a"].cpu) == 4


@pytest.mark.parametrize(
    ("before", "after", "void"),
    [(100, 84, True), (100, 86, False), (100, 116, True), (None, 1, False)],
)
def test_a_run_is_void_when_the_peak_moved(before, after, void):
    assert machine.moved(before, after) is void


def row(library, precision, form, least, median, **more):
    return Row(
        "tdmpc2", library, precision, form, 9, least, median, median, median, median, 1.0, **more
    )


def report(*rows, gate="avx2"):
    return Report(
        "cpu", {}, gate, 0, 1, None, None, False, {"tdmpc2": "TD-MPC2"}, rows, {"tdmpc2": {}}
    )


OURS = row("edge-wm native", "int8", "", 1.0, 1.2, share=0.5, accuracy={"elites_kept": 60})
PEER = row("onnxruntime", "fp32", "best form", 1.6, 1.7)
OTHER = row("OpenVINO", "fp32", "best form", 0.5, 0.5)


def test_the_ratio_is_to_the_best_of_onnxruntime_and_litert():
    rows = report(OURS, PEER, OTHER).of("tdmpc2")
    assert ours(rows) is OURS
    assert ratio(OURS, peer_times(rows, "best")) == pytest.approx((1.6, 1.7 / 1.2))
    assert ratio(OURS, peer_times(rows, "openvino")) == pytest.approx((0.5, 0.5 / 1.2))


def test_a_budget_says_what_is_missed():
    wanted = budget.Budget(
        speed=(budget.Speed(case="tdmpc2", machine="avx2", against="best", least=1.5),
               budget.Speed(case="tdmpc2", machine="vnni", against="best", least=9.0),
               budget.Speed(case="jepa", machine="any", against="best", least=9.0)),
        share=(budget.Share(case="tdmpc2", machine="any", least=0.6),),
        accuracy=(budget.Accuracy(case="tdmpc2", measure="elites_kept", least=61),),
    )  # fmt: skip
    assert list(budget.misses(report(OURS, PEER), wanted)) == [
        "tdmpc2: must be at least 1.5 times as fast as the peer (best), is 1.60 by minima and "
        "1.42 by medians",
        "tdmpc2: must reach 60% of the int8 peak, reaches 50%",
        "tdmpc2: elites_kept must be from 61 to inf, is 60",
    ]


def test_an_engine_that_did_not_run_misses_its_budget():
    wanted = budget.Budget(
        speed=(budget.Speed(case="tdmpc2", machine="any", against="best", least=1.0),)
    )
    assert list(budget.misses(report(PEER), wanted)) == ["tdmpc2: the native engine did not run"]
    assert list(budget.misses(report(OURS), wanted)) == ["tdmpc2: no peer to compare with (best)"]
    assert list(budget.misses(report(OURS, PEER), wanted)) == []


def test_the_shipped_budget_names_cases_that_exist():
    wanted = budget.read_budget(BENCH / "budget.yaml")
    parts = (*wanted.speed, *wanted.share, *wanted.tail, *wanted.accuracy)
    assert {part.case for part in parts} <= set(CASES)
    gated = {part.case for part in wanted.speed if part.machine in ("avx2", "any")}
    assert gated == set(CASES)
