"""Tests edge_wm.quantize: known errors, what must stay float32, refusals, the same bytes again."""

from __future__ import annotations

import models
import numpy as np
import pytest

from edge_wm.backends import load_graph
from edge_wm.bundle import developer_key, examine_bundle, load_trust, open_bundle
from edge_wm.bundle.program import Dense, read_program
from edge_wm.compiler import int8_layers
from edge_wm.errors import MismatchError, RefusedError, UsageError
from edge_wm.quantize import Settings, quantize, write_float32, write_quantized
from edge_wm.quantize.measure import Measurement, spearman
from quantize import wide


@pytest.fixture
def data(tmp_path):
    return [wide.samples(tmp_path / "samples.npz")]


@pytest.fixture
def key(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_WM_CONFIG", str(tmp_path / "config"))
    return developer_key()


# ---- what is measured -------------------------------------------------------------------------
def rounded(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """x (N, K) times weight (K, M) as int8: the arithmetic of bundle/program.py, in plain numpy."""
    scale = np.abs(weight).max(axis=0) / np.float32(127)
    w = np.rint(weight / scale)
    row = np.abs(x).max(axis=1, keepdims=True) / np.float32(127)
    return (np.rint(x / row) @ w) * (row * scale)


def test_the_error_of_a_linear_model_is_what_int8_arithmetic_says(data):
    result = quantize(wide.bundle(wide.linear()), data, Settings(bound=1.0))
    assert result.card["int8"] == ["dynamics:step"]

    arrays = np.load(data[0])
    starts = len(arrays["odometry"]) - wide.HORIZON + 1
    exact = inexact = arrays["odometry"][:starts] @ wide.E
    paths = [(exact, inexact)]
    for h in range(wide.HORIZON):
        action = arrays["action"][h : h + starts]
        exact = exact @ wide.A + action @ wide.B
        inexact = rounded(inexact, wide.A) + rounded(action, wide.B)
        paths.append((exact, inexact))
    spread = np.sqrt(np.concatenate([e for e, _ in paths]).var(axis=0).mean())
    expected = [np.sqrt(np.square(i - e).mean()) / spread for e, i in paths]
    assert expected[-1] > 0.005
    assert result.card["open_loop"]["z"] == pytest.approx(expected, rel=0.02, abs=1e-6)
    assert result.card["moments"] == starts


def test_int8_layers_names_what_becomes_int8():
    bundle = wide.bundle(wide.deep())
    function = bundle.manifest.functions["dynamics"]
    found = int8_layers(bundle.blob(function.graphs["onnx"]), function, "dynamics")
    assert found == {"first": wide.WIDTH**2 + 2 * wide.WIDTH, "second": wide.WIDTH**2}


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 40], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 1, 2, 2], [1, 2, 3, 4], 0.8944),
        ([1, 2, np.inf, np.inf], [1, 2, 9, 9], 1.0),
        ([1, 1, 1], [2, 2, 2], 1.0),
        ([1, 1, 1], [1, 2, 3], 0.0),
    ],
)
def test_rank_agreement(a, b, expected):
    assert spearman(np.array(a, float), np.array(b, float)) == pytest.approx(expected, abs=1e-4)


def test_of_good_layers_all_become_int8_and_plans_agree(data):
    card = quantize(wide.bundle(wide.deep()), data).card
    assert len(card["int8"]) == 2
    assert card["kept"] == []
    assert max(card["errors"].values()) <= 0.05
    assert card["rank_agreement"]["worst"] > 0.97
    assert card["plan_agreement"]["first_action_mean"] < 0.4
    assert not card["weak"]
    assert card["data"][0]["kind"] == "npz"


def test_a_recurrent_belief_goes_on_from_moment_to_moment(tmp_path):
    """A posterior's memory: the float32 beliefs are those of a plain loop over all rows."""
    rows = 300  # more than are imagined from
    path = wide.samples(tmp_path / "long.npz", rows)
    result = quantize(wide.bundle(wide.deep(), recurrent=True), [path])
    arrays = np.load(path)
    belief, beliefs = np.zeros(wide.WIDTH, np.float32), []
    for i in range(rows):
        # The first action is none, which the model's numbers call -offset / scale.
        last = arrays["action"][i - 1] if i else -models.OFFSET / models.SCALE
        belief = 0.5 * belief + arrays["odometry"][i] @ wide.E + last @ wide.B
        beliefs.append(belief)
    assert result.card["moments"] == 160
    measurement = Measurement(result.programs, result.data)
    stamps = [m.observation.stamp_ns // 100_000_000 - 1 for m in measurement.moments]
    expected = np.array(beliefs)[stamps]
    found = measurement.float32.beliefs["z"][:, 0]
    assert np.allclose(found, expected, atol=1e-4)
    assert result.card["int8"] == ["dynamics:first", "dynamics:second"]


# ---- the greedy choice ----------------------------------------------------------------------
def planted():
    return wide.bundle(wide.deep(*wide.with_outlier()))


def test_a_planted_outlier_is_kept_in_float32_and_nothing_else(data):
    result = quantize(planted(), data)
    card = result.card
    layer = "dynamics:second"
    assert card["kept"] == [layer]
    assert card["int8"] == ["dynamics:first"]
    assert card["sensitivity"][layer] > 0.1 > 0.05 >= card["sensitivity"]["dynamics:first"]
    assert card["errors_all_int8"]["belief.z"] > 0.05 >= card["errors"]["belief.z"]
    program = read_program(result.programs.blob("dynamics", result.choice.int8), "dynamics")
    kinds = {
        program.constants[s.weight].dtype.name
        for o in program.operations
        if isinstance(o, Dense)
        for s in o.segments
    }
    assert kinds == {"int8", "float32"}


def test_what_the_user_keeps_stays_and_is_said_apart(data):
    card = quantize(planted(), data, Settings(keep=("dynamics:first",), bound=10.0)).card
    assert card["kept"] == []
    assert card["kept_by_hand"] == ["dynamics:first"]
    assert card["int8"] == ["dynamics:second"]


def test_a_bound_that_cannot_be_met_is_refused_with_what_to_do(data):
    with pytest.raises(RefusedError) as caught:
        quantize(planted(), data, Settings(bound=1e-5))
    text = str(caught.value)
    assert text.startswith(
        "bundle linear 1.0.0: the error of belief.z up to 4 steps ahead must be within 1e-05 of "
        "its spread, got 0.0"
    )
    assert (
        " with 1 layer kept in float32; one more would be 100% of the weights, above 50%; " in text
    )
    assert "it comes from dynamics:second (" in text
    assert text.endswith(", or keep these layers with --keep")
    assert caught.value.exit_code == 3


# ---- refusals -------------------------------------------------------------------------------
ARRAYS = "odometry (rows, 6); action (rows, 2); pose (rows, 4), optional"


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        (
            {"action": None},
            MismatchError,
            f"must have the arrays {ARRAYS}; got odometry, without action",
        ),
        ({"camera": np.zeros(3)}, MismatchError, f"array 'camera' is none of {ARRAYS}"),
        (
            {"action": np.zeros((80, 3), np.float32)},
            MismatchError,
            "array action must be numbers (80, 2), a row for each model step, got float32 [80, 3]",
        ),
        (
            {"odometry": np.full((80, 6), np.nan, np.float32)},
            RefusedError,
            "array odometry must be finite, it holds NaN or infinity",
        ),
    ],
)
def test_wrong_arrays_are_named(tmp_path, changes, error, says):
    path = wide.samples(tmp_path / "samples.npz", **changes)
    with pytest.raises(error) as caught:
        quantize(wide.bundle(wide.deep()), [path])
    assert str(caught.value) == f"{path}: {says}"


def test_too_few_samples_are_counted(tmp_path):
    bundle = wide.bundle(wide.deep())
    for rows, found in ((0 + 3, 0), (34, 31)):
        path = wide.samples(tmp_path / "few.npz", rows)
        with pytest.raises(RefusedError) as caught:
            quantize(bundle, [path])
        assert str(caught.value) == (
            "few.npz: at least 32 moments with 4 steps (0.4 s) of played actions after them are "
            f"needed, found {found}; give a longer recording, or more of them"
        )
    assert quantize(bundle, [wide.samples(tmp_path / "enough.npz", 35)]).card["moments"] == 32


def test_a_file_that_is_neither_is_refused(tmp_path):
    path = tmp_path / "run.bag"
    path.write_bytes(b"")
    with pytest.raises(UsageError) as caught:
        quantize(wide.bundle(wide.deep()), [path])
    assert str(caught.value) == (
        f"--data {path}: must be a recording of a run (.mcap), an .npz file, or, with --robot, a "
        "bag"
    )
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(UsageError, match=r"broken\.npz: must be an \.npz file: "):
        quantize(wide.bundle(wide.deep()), [broken])


def test_data_that_does_not_vary_is_refused(tmp_path):
    path = wide.samples(
        tmp_path / "still.npz",
        odometry=np.zeros((80, 6), np.float32),
        action=np.zeros((80, 2), np.float32),
    )
    with pytest.raises(RefusedError) as caught:
        quantize(wide.bundle(wide.deep()), [path])
    assert str(caught.value) == (
        "belief z: does not vary over the 77 moments of still.npz, so that an error has no "
        "measure; give data in which it does"
    )


def test_a_saturated_layer_is_refused_and_may_be_kept(data):
    bundle = wide.bundle(wide.deep(1e5 * wide.FIRST))
    with pytest.raises(RefusedError) as caught:
        quantize(bundle, data)
    text = str(caught.value)
    assert text.startswith("layer dynamics:first: is saturated: ")
    assert text.endswith(
        "% of its numbers are an end of tanh on samples.npz, so that int8 cannot be measured; give "
        "data of the kind that the model was trained on, or keep it with --keep dynamics:first"
    )
    kept = Settings(keep=("dynamics:first",), bound=1.0)
    assert quantize(bundle, data, kept).card["int8"] == ["dynamics:second"]


def test_a_constant_layer_is_refused(data):
    with pytest.raises(RefusedError) as caught:
        quantize(wide.bundle(wide.deep(0 * wide.FIRST, drive=0 * wide.B)), data)
    assert str(caught.value).startswith(
        "layer dynamics:first: gives the same 64 numbers in all 192 rows on samples.npz, so that "
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Settings(functions=("decoder",)), "--functions: bundle linear has no function 'decoder'; "
                                           "choose of encoder, dynamics, cost"),
        (Settings(keep=("third",)), "--keep: bundle linear has no layer 'third' that may become "
                                    "int8; it has dynamics:first, dynamics:second"),
    ],
)  # fmt: skip
def test_unknown_names_are_answered_with_the_choices(data, settings, says):
    with pytest.raises(UsageError) as caught:
        quantize(wide.bundle(wide.deep()), data, settings)
    assert str(caught.value).startswith(says)


def test_a_bundle_without_large_layers_is_refused(data):
    with pytest.raises(RefusedError) as caught:
        quantize(wide.bundle(wide.deep()), data, Settings(functions=("cost",)))
    assert str(caught.value) == (
        "bundle linear: has no layer of 1024 weights or more that may become int8"
    )


# ---- without data ---------------------------------------------------------------------------
def test_without_data_it_measures_on_reference_inputs_and_says_so():
    result = quantize(wide.bundle(wide.deep()), [])
    assert result.card["weak"]
    assert result.card["data"][0]["kind"] == "reference inputs"
    assert result.data.sha256 is None


# ---- the bundle -----------------------------------------------------------------------------
def test_the_same_input_gives_the_same_bytes(tmp_path, data, key):
    written = []
    for name in ("one.wmb", "two.wmb"):
        write_quantized(quantize(planted(), data), tmp_path / name, key)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


def test_what_is_written_opens_and_carries_the_card(tmp_path, data, key):
    result = quantize(planted(), data)
    write_quantized(result, tmp_path / "int8.wmb", key)
    opened = open_bundle(tmp_path / "int8.wmb", load_trust())
    assert opened.manifest.accuracy_card["int8"] == result.card
    assert opened.manifest.calibration_sha256 == result.card["data"][0]["sha256"]
    own = [c for c in opened.manifest.reference if c.formats == ("program",)]
    assert [c.function for c in own] == ["dynamics"]
    assert own[0].tolerance == 1e-6
    function = opened.manifest.functions["dynamics"]
    assert set(function.graphs) == {"onnx", "program"}
    graph = load_graph(opened.blob(function.graphs["program"]), function, "native", name="dynamics")
    z = np.random.default_rng(0).standard_normal((3, wide.WIDTH)).astype(np.float32)
    action = np.ones((3, 2), np.float32)
    again = result.programs.graph("dynamics", result.choice.int8).run({"z": z, "action": action})
    assert np.array_equal(graph.run({"z": z, "action": action})["next"], again["next"])


def test_programs_only_leaves_the_graphs_out(tmp_path, data, key):
    result = quantize(planted(), data)
    small = write_quantized(result, tmp_path / "small.wmb", key, programs_only=True)
    large = write_quantized(result, tmp_path / "large.wmb", key)
    assert small.size < large.size
    opened = open_bundle(tmp_path / "small.wmb", load_trust())
    assert all(set(f.graphs) == {"program"} for f in opened.manifest.functions.values())
    covered = {case.function for case in opened.manifest.reference}
    assert covered == {"encoder", "dynamics", "cost"}


def test_float32_programs_can_be_written_beside(tmp_path, data, key):
    result = quantize(planted(), data)
    write_float32(result.programs, tmp_path / "float32.wmb", key)
    opened = examine_bundle(tmp_path / "float32.wmb", load_trust())
    assert "int8" not in opened.manifest.accuracy_card
    assert all(case.formats == () for case in opened.manifest.reference)


def test_quantizing_again_starts_from_the_graphs(tmp_path, data, key):
    """An int8 bundle is no worse a source: its programs and cases are made anew."""
    result = quantize(planted(), data)
    write_quantized(result, tmp_path / "one.wmb", key)
    opened = open_bundle(tmp_path / "one.wmb", load_trust())
    write_quantized(quantize(opened, data), tmp_path / "two.wmb", key)
    assert (tmp_path / "one.wmb").read_bytes() == (tmp_path / "two.wmb").read_bytes()


def test_only_the_data_decides_where_it_lies_not(tmp_path, data):
    moved = wide.samples(tmp_path / "elsewhere.npz")
    cards = [quantize(planted(), [path]).card for path in (data[0], moved)]
    assert cards[0].pop("data")[0]["sha256"] == cards[1].pop("data")[0]["sha256"]
    assert cards[0] == cards[1]
