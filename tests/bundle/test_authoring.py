"""Building bundles from a spec, the bundle commands, and that docs/bundle.md is true."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from onnx import helper
from typer.testing import CliRunner

from bundle import tiny
from bundle.conftest import Written, signing_key, trust_in
from edge_wm import shipped
from edge_wm.authoring import build_bundle, sample_input
from edge_wm.bundle import Function, load_trust, open_bundle
from edge_wm.bundle.manifest import Input, manifest_from
from edge_wm.bundle.sizes import RULES
from edge_wm.bundle.tflite_sizes import TFLITE_RULES
from edge_wm.errors import BundleError, EdgeWmError, ModelError, TrustError, UsageError

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "bundle.md"
Arrays = Mapping[str, np.ndarray]


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """The tiny model as a training script would leave it."""
    folder = tmp_path / "export"
    folder.mkdir()
    document, _ = tiny.document()
    for name, blob in tiny.graphs().items():
        (folder / f"{name}.onnx").write_bytes(blob)
        document["functions"][name]["graphs"] = {"onnx": f"{name}.onnx"}
    (folder / "MODEL_CARD.md").write_text("# Tiny\n")
    document["model_card"] = document["calibration_sha256"] = "MODEL_CARD.md"
    del document["reference"]
    (folder / "manifest.json").write_text(json.dumps(document))
    return folder


def change(folder: Path, **fields: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def run(name: str, kind: str, blob: bytes, function: Function, inputs: Arrays) -> Arrays:
    """The tiny functions by hand, instead of an inference library."""
    if name == "encoder":
        return {"z": inputs["odometry"][3:4]}
    if name == "dynamics":
        return {"next": inputs["z"] + np.float32(0.1) * inputs["action"]}
    return {"goal": inputs["z"] ** 2}


# ---- build_bundle -----------------------------------------------------------------------
def test_every_function_gets_a_reference_case(spec: Path, tmp_path: Path) -> None:
    key = signing_key(1)
    built = build_bundle(spec, tmp_path / "x.wmb", key, run)
    bundle = open_bundle(tmp_path / "x.wmb", trust_in(key))
    assert built.parity == {
        f"{name}.{kind}": 0.0
        for name in ("encoder", "dynamics", "cost")
        for kind in ("onnx", "program")
    }
    assert [case.function for case in bundle.manifest.reference] == ["encoder", "dynamics", "cost"]
    case = bundle.manifest.reference[1]
    z, action = (
        np.frombuffer(bundle.blob(case.inputs[name]), "<f4").reshape(4, 1)
        for name in ("z", "action")
    )
    stored = np.frombuffer(bundle.blob(case.outputs["next"]), "<f4").reshape(4, 1)
    np.testing.assert_array_equal(stored, z + np.float32(0.1) * action)
    assert bundle.model_card == "# Tiny\n"
    assert bundle.manifest.calibration_sha256 == tiny.digest(b"# Tiny\n")


def test_the_same_spec_gives_the_same_bytes(spec: Path, tmp_path: Path) -> None:
    for name in ("a.wmb", "b.wmb"):
        build_bundle(spec / "manifest.json", tmp_path / name, signing_key(1), run)
    assert (tmp_path / "a.wmb").read_bytes() == (tmp_path / "b.wmb").read_bytes()


@pytest.mark.parametrize("error", [0.0, 0.0009, 0.0012, float("nan")])
def test_given_outputs_are_held_against_the_graph(spec: Path, tmp_path: Path, error: float) -> None:
    z, action = np.ones((3, 1), np.float32), np.ones((3, 1), np.float32)
    arrays = {"z": z, "action": action, "next": (z + 0.1 * action + error).astype(np.float32)}
    for name, array in arrays.items():
        np.save(spec / f"{name}.npy", array)
    case = {
        "function": "dynamics",
        "inputs": {"z": "z.npy", "action": "action.npy"},
        "outputs": {"next": "next.npy"},
        "tolerance": "1e-3",  # as YAML reads it
    }
    change(spec, reference=[case])
    if error < 0.001:
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), run)
        return
    with pytest.raises(ModelError, match=r"dynamics.onnx must reproduce the reference outputs"):
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), run)
    assert not (tmp_path / "x.wmb").exists()


def test_a_second_format_is_held_against_the_first(spec: Path, tmp_path: Path) -> None:
    (spec / "cost.tflite").write_bytes(tiny.tflite_cost())
    functions = json.loads((spec / "manifest.json").read_text())["functions"]
    functions["cost"]["graphs"]["tflite"] = "cost.tflite"
    change(spec, functions=functions)

    def wrong_in_tflite(name: str, kind: str, *rest: Any) -> Arrays:
        outputs = run(name, kind, *rest)
        return {"goal": outputs["goal"] + 1} if kind == "tflite" else outputs

    build_bundle(spec, tmp_path / "x.wmb", signing_key(1), run)
    with pytest.raises(ModelError, match=r"cost\.tflite must reproduce"):
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), wrong_in_tflite)


def test_a_graph_of_wrong_structure_never_runs(spec: Path, tmp_path: Path) -> None:
    nodes = [helper.make_node("RandomUniformLike", ["z"], ["goal"])]
    ports = {"z": (1, ["K", 1])}, {"goal": (1, ["K", 1])}
    (spec / "cost.onnx").write_bytes(tiny.graph(ports[0], nodes, ports[1]))

    def never(*_: Any) -> Arrays:
        raise AssertionError("reached an inference library")

    with pytest.raises(ModelError, match=r"spec manifest.json: cost.onnx: .*'RandomUniformLike'"):
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), never)


@pytest.mark.parametrize(
    ("fields", "kind", "message"),
    [
        ({"model_card": "none.md"}, UsageError, "there is no file .*none.md; check the path"),
        ({"model_card": 7}, UsageError, "the spec must name a file beside it, got 7"),
        ({"functions": []}, BundleError, r"functions must be a mapping, got \[\]"),
        ({"reference": {}}, BundleError, "reference must be a list of cases"),
        (
            {"reference": [{"function": "sum"}]},
            BundleError,
            r"reference\[0\].function 'sum' is not among functions",
        ),
        (
            {"reference": [{"function": "cost", "output": {}}]},
            BundleError,
            r"reference\[0\] has an unknown field 'output'",
        ),
        (
            {"reference": [{"function": "cost", "inputs": {}}]},
            BundleError,
            r"reference\[0\].inputs must give a .npy file for z",
        ),
        (
            {"reference": [{"function": "cost", "inputs": {"z": "MODEL_CARD.md"}}]},
            UsageError,
            "MODEL_CARD.md must be a .npy file",
        ),
        ({"horizon": 0}, BundleError, "spec manifest.json: manifest.horizon must be from 1"),
    ],
)
def test_specs_that_are_wrong(
    spec: Path, tmp_path: Path, fields: dict[str, Any], kind: type[Exception], message: str
) -> None:
    change(spec, **fields)
    with pytest.raises(kind, match=message):
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), run)
    assert not (tmp_path / "x.wmb").exists()


def test_a_pickle_is_not_read(spec: Path, tmp_path: Path) -> None:
    np.save(spec / "z.npy", np.array([{"a": 1}], object), allow_pickle=True)
    change(spec, reference=[{"function": "cost", "inputs": {"z": "z.npy"}}])
    with pytest.raises(UsageError, match=r"z\.npy must be a \.npy file"):
        build_bundle(spec, tmp_path / "x.wmb", signing_key(1), run)


def test_a_folder_without_a_spec(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no manifest.yaml or manifest.yml or manifest"):
        build_bundle(tmp_path, tmp_path / "x.wmb", signing_key(1), run)


def test_sampled_inputs_are_plausible() -> None:
    document, _ = tiny.document()
    document["dt"] = {"min_s": 0.05, "max_s": 0.15}
    manifest = manifest_from(document, "m")
    dt = sample_input(manifest, Input(tensor="dt", source="dt", shape=(-1, 1)))
    assert dt.shape == (4, 1)
    assert np.all((dt >= 0.05) & (dt <= 0.15))
    image = Input(tensor="i", source="observation.camera", shape=(1, 64, 64, 3), dtype="uint8")
    pixels = sample_input(manifest, image)
    assert (pixels.dtype, pixels.min(), pixels.max()) == (np.uint8, 0, 255)


# ---- the commands -----------------------------------------------------------------------
@pytest.fixture
def app() -> typer.Typer:
    from edge_wm.cli.bundle import app

    return app


def call(app: typer.Typer, *arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result.stdout


def test_build_inspect_verify_sign_diff(
    app: typer.Typer, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path, again = tmp_path / "x.wmb", tmp_path / "y.wmb"
    assert "signed with the developer key" in call(app, "build", spec, "--out", path)
    assert "belief.z [-1, 1]" in call(app, "inspect", path)
    facts = json.loads(call(app, "inspect", path, "--json"))
    assert facts["signer"]["kind"] == "developer"
    assert facts["manifest"]["name"] == "tiny"
    assert "3 reference cases reproduced on native" in call(app, "verify", path)
    on_onnx = call(app, "verify", path, "--backend", "onnxruntime")
    assert "3 reference cases reproduced on onnxruntime" in on_onnx
    secret = tmp_path / "my.key"
    secret.write_bytes(signing_key(5).signer.private_bytes)
    secret.chmod(0o600)
    public = tmp_path / "my.pub"
    signed = call(app, "sign", path, "--out", again, "--key", secret, "--public", public, "--json")
    assert json.loads(signed)["key_id"] == signing_key(5).key_id
    with pytest.raises(TrustError, match="signed by the unknown key"):
        call(app, "verify", again)
    assert json.loads(call(app, "verify", again, "--trust", public, "--json"))["verified"]
    assert call(app, "diff", path, path) == "no difference\n"
    (only,) = json.loads(call(app, "diff", path, again, "--json", code=1))
    assert only["where"] == "signed with"
    change(spec, horizon=6)
    call(app, "build", spec, "--out", again, "--key", secret, "--json")
    differences = json.loads(call(app, "diff", path, again, "--json", code=1))
    assert {"where": "manifest.horizon", "first": 5, "second": 6} in differences
    assert "manifest.horizon" in call(app, "diff", path, again, code=1)


def test_verify_runs_the_graphs_on_this_machine(
    app: typer.Typer, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def wrong(name: str, *rest: Any) -> Arrays:
        outputs = run(name, *rest)
        return {k: v + 1 for k, v in outputs.items()} if name == "cost" else outputs

    from edge_wm.bundle import developer_key

    build_bundle(spec, tmp_path / "x.wmb", developer_key(), wrong)
    with pytest.raises(ModelError, match="cost"):
        call(app, "verify", tmp_path / "x.wmb")


def test_verify_counts_only_the_cases_that_hold_for_the_backend(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = shipped.folder("zoo") / "rover" / "rover.wmb"
    of_programs = [
        c for c in open_bundle(path, load_trust(())).manifest.reference if c.formats == ("program",)
    ]
    assert of_programs, "its int8 programs have cases of their own"
    held = len(open_bundle(path, load_trust(())).manifest.reference) - len(of_programs)
    said = call(app, "verify", path, "--backend", "onnxruntime")
    assert f"{held} reference cases reproduced on onnxruntime" in said


def test_verify_says_that_it_does_not_fit(app: typer.Typer, written: Written) -> None:
    public = written.path.with_name("k.pub")
    from edge_wm.bundle.signatures import public_key_text

    public.write_text(public_key_text(written.key, "k", ["model"]))
    with pytest.raises(EdgeWmError) as caught:
        call(app, "verify", written.path, "--trust", public, "--robot", "rover")
    assert caught.value.exit_code == 3
    assert "commands the axes base.vx; robot file rover has base.vx, base.wz" in str(caught.value)


# ---- docs/bundle.md ---------------------------------------------------------------------
def test_the_spec_in_the_documentation_builds(tmp_path: Path) -> None:
    text = DOCUMENT.read_text()
    (found,) = re.findall(r"```yaml\n# manifest.yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "manifest.yaml").write_text(found)
    (tmp_path / "MODEL_CARD.md").write_text("# Point\n")
    f32, node = 1, helper.make_node
    files = {
        "encoder": tiny.graph(
            {"odometry": (f32, [1, 6])},
            [node("Identity", ["odometry"], ["state"])],
            {"state": (f32, [1, 6])},
        ),
        "dynamics": tiny.graph(
            {"state": (f32, ["K", 6]), "action": (f32, ["K", 2])},
            [node("MatMul", ["action", "b"], ["d"]), node("Add", ["state", "d"], ["next"])],
            {"next": (f32, ["K", 6])},
            {"b": np.full((2, 6), 0.1, np.float32)},
        ),
        "cost": tiny.graph(
            {"state": (f32, ["K", 6]), "pose": (f32, ["K", 4])},
            [
                node("Slice", ["state", "zero", "two", "one"], ["at"]),
                node("Slice", ["pose", "zero", "two", "one"], ["to"]),
                node("Sub", ["at", "to"], ["d"]),
                node("Mul", ["d", "d"], ["dd"]),
                node("ReduceSum", ["dd", "one"], ["distance"]),
            ],
            {"distance": (f32, ["K", 1])},
            {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])},
        ),
    }
    for name, blob in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(blob)
    pytest.importorskip("onnxruntime")
    from edge_wm.cli.bundle import run_graph

    key = signing_key(1)
    build_bundle(tmp_path, tmp_path / "point.wmb", key, run_graph)
    bundle = open_bundle(tmp_path / "point.wmb", trust_in(key))
    assert bundle.manifest.name == "point"
    assert yaml.safe_load(found)["horizon"] == bundle.manifest.horizon


@pytest.mark.parametrize(("kind", "rules"), [("onnx", RULES), ("tflite", TFLITE_RULES)])
def test_the_documentation_lists_the_operators(kind: str, rules: Mapping[str, object]) -> None:
    listed = DOCUMENT.read_text().split(f"<!-- operators:{kind} -->\n")[1].split("\n\n")[0]
    assert set(re.findall(r"\w+", listed)) == set(rules)
