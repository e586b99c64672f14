"""edge_wm.importers: policies in ONNX, and the recurrent quadrotor policy in HDF5."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from edge_wm.errors import CheckpointError, ModelError, UsageError
from edge_wm.importers.policy_onnx import LAYOUTS
from edge_wm.types import LatentGoal, Observation, Sample, Seen
from tests.importers.loading import imported, model_of

h5py = pytest.importorskip("h5py")

STEP_NS = 20_000_000


def playground(name: str) -> Path:
    named = os.environ.get("EDGE_WM_EXTRA_WEIGHTS", "")
    path = Path(named) / "playground" / f"{name}.onnx"
    if not named or not path.is_file():
        pytest.skip(f"EDGE_WM_EXTRA_WEIGHTS names no folder with playground/{name}.onnx")
    return path


def made_up(path: Path, inputs: int, outputs: int, change=lambda model: None) -> Path:
    """A policy as Playground exports it: opset 11, normalization, SiLU layers, a split, tanh."""
    random = np.random.default_rng(0)

    def tensor(name, *shape, std=0.3):
        return numpy_helper.from_array(random.normal(0, std, shape).astype(np.float32), name)

    nodes = [
        helper.make_node("Sub", ["obs", "mean"], ["a"]),
        helper.make_node("Mul", ["a", "scale"], ["b"]),
        helper.make_node("Gemm", ["b", "w0", "b0"], ["c"]),
        helper.make_node("Sigmoid", ["c"], ["d"]),
        helper.make_node("Mul", ["c", "d"], ["e"]),
        helper.make_node("Gemm", ["e", "w1", "b1"], ["f"]),
        helper.make_node("Split", ["f"], ["g", "unused"], axis=1),
        helper.make_node("Tanh", ["g"], ["continuous_actions"]),
    ]
    constants = [
        tensor("mean", inputs),
        tensor("scale", inputs, std=1.0),
        tensor("w0", inputs, 32),
        tensor("b0", 32),
        tensor("w1", 32, 2 * outputs),
        tensor("b1", 2 * outputs),
    ]
    graph = helper.make_graph(
        nodes,
        "policy",
        [helper.make_tensor_value_info("obs", TensorProto.FLOAT, [1, inputs])],
        [helper.make_tensor_value_info("continuous_actions", TensorProto.FLOAT, [1, outputs])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


def seen(streams: dict[str, np.ndarray], stamp_ns: int) -> Observation:
    views = {
        name: Seen(Sample(name, stamp_ns, stamp_ns, 0, data), 0, None)
        for name, data in streams.items()
    }
    return Observation(stamp_ns, stamp_ns, views)


def run_through(model, policy: Path, layout: str, steps: int = 5) -> float:
    """The largest difference between the bundle and onnxruntime on the file, over some steps.

    What onnxruntime is fed is put together here, part by part, as the environment does it.
    """
    session = onnxruntime.InferenceSession(policy.read_bytes())
    said = yaml.safe_load((LAYOUTS / f"{layout}.yaml").read_text())
    random, worst = np.random.default_rng(1), 0.0
    scale = np.array([axis["scale"] for axis in said["axes"]])
    offset = np.array([axis.get("offset", 0.0) for axis in said["axes"]])
    last = np.zeros(len(scale), np.float32)  # as the policy gave it
    for step in range(steps):
        streams = {
            name: random.normal(0, 1, spec["shape"]).astype(np.float32)
            for name, spec in said["streams"].items()
        }
        command = np.array([0.5, -0.2, 1.0], np.float32)
        parts = []
        for part in said["input"]:
            if "stream" in part:
                flat = streams[part["stream"]].ravel()[part.get("begin", 0) : part.get("end")]
                parts.append(flat - np.array(part.get("minus", 0.0)))
            else:
                parts.append(last if "last_action" in part else command)
        (wanted,) = session.run(None, {"obs": np.concatenate(parts)[None].astype(np.float32)})
        belief = model.update(
            seen(streams, (step + 1) * STEP_NS), (last * scale + offset).astype(np.float32)
        )
        goal = LatentGoal(command) if model.manifest.goal_kinds else None
        proposal = model.policy(belief, goal)
        worst = max(worst, float(np.abs(proposal.mean[0] - (wanted[0] * scale + offset)).max()))
        last = wanted[0]
    return worst


@pytest.mark.parametrize(
    ("layout", "inputs", "outputs"), [("go1_joystick", 48, 12), ("leap_reorient", 57, 16)]
)
@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_a_policy_acts_as_onnxruntime_on_its_file(tmp_path, layout, inputs, outputs, backend):
    policy = made_up(tmp_path / "p.onnx", inputs, outputs)
    path = imported("policy-onnx", policy, tmp_path / "x.wmb", "--layout", layout)
    assert run_through(model_of(path, backend), policy, layout) < 1e-5


@pytest.mark.parametrize(
    ("file", "layout"),
    [("go1_policy", "go1_joystick"), ("leap_reorient_policy", "leap_reorient")],
)
def test_playgrounds_policies_act_as_onnxruntime_on_their_files(tmp_path, file, layout):
    policy = playground(file)
    path = imported("policy-onnx", policy, tmp_path / "x.wmb", "--layout", layout)
    assert run_through(model_of(path), policy, layout) < 1e-4


def test_a_bundle_that_only_acts_says_so(tmp_path):
    policy = made_up(tmp_path / "p.onnx", 48, 12)
    model = model_of(
        imported("policy-onnx", policy, tmp_path / "x.wmb", "--layout", "go1_joystick")
    )
    assert set(model.manifest.functions) == {"encoder", "posterior", "policy"}
    with pytest.raises(UsageError, match="has no dynamics to imagine with; ask its policy instead"):
        model.rollout(model.blank_belief(0), np.zeros((1, 1, 12), np.float32), None, 0)
    with pytest.raises(UsageError, match="cannot plan for None"):  # it wants a command
        model.policy(model.blank_belief(0), None)


def branches(model):
    branch = helper.make_graph(
        [helper.make_node("Identity", ["f"], ["out"])], "b", [],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    node = helper.make_node("If", ["yes"], ["f2"], then_branch=branch, else_branch=branch)
    model.graph.node.insert(6, node)
    model.graph.node[7].input[0] = "f2"


def two_inputs(model):
    model.graph.input.append(helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 4]))


@pytest.mark.parametrize(
    ("inputs", "outputs", "change", "kind", "message"),
    [
        (47, 12, lambda m: None, CheckpointError,
         "checkpoint p.onnx: tensor 'obs' must be [1, 48], as the layout says, got [1, 47]; give "
         "the layout that this policy was trained with"),
        (48, 11, lambda m: None, CheckpointError,
         "checkpoint p.onnx: tensor 'continuous_actions' must be [1, 12], as the layout says, got "
         "[1, 11]; give the layout that this policy was trained with"),
        (48, 12, two_inputs, CheckpointError,
         "checkpoint p.onnx: must have one input, got 'obs', 'state'; export the policy alone, "
         "without a state"),
        (48, 12, branches, ModelError, "policy.onnx: a subgraph (control flow) must not be in"),
    ],
)  # fmt: skip
def test_a_wrong_policy_is_refused(tmp_path, inputs, outputs, change, kind, message):
    policy = made_up(tmp_path / "p.onnx", inputs, outputs, change)
    with pytest.raises(kind) as caught:
        imported("policy-onnx", policy, tmp_path / "x.wmb", "--layout", "go1_joystick")
    assert message in str(caught.value)
    assert not (tmp_path / "x.wmb").exists()


def test_a_layout_must_be_given_and_be_right(tmp_path):
    policy = made_up(tmp_path / "p.onnx", 48, 12)
    with pytest.raises(UsageError, match="one of go1_joystick, leap_reorient, or a file"):
        imported("policy-onnx", policy, tmp_path / "x.wmb")
    said = yaml.safe_load((LAYOUTS / "go1_joystick.yaml").read_text())
    for change, message in (
        ({"stream": "nose"}, r"input\[0\].stream must be one of .*, got 'nose'"),
        ({"goal": 2, "last_action": True}, r"input\[0\] must be one of stream, last_action and"),
        ({"stream": "gravity", "end": 9}, r"input\[0\] must be from 0 to 3, got 0 to 9"),
        ({"stream": "gravity", "minus": [1.0]}, r"minus must have 3 numbers, got 1"),
        ({"sream": "gravity"}, "unknown field `sream`"),
    ):
        file = tmp_path / "layout.yaml"
        file.write_text(yaml.safe_dump(said | {"input": [change, *said["input"][1:]]}))
        with pytest.raises(UsageError, match=message):
            imported("policy-onnx", policy, tmp_path / "x.wmb", "--layout", str(file))


# ---- the quadrotor policy ---------------------------------------------------------------------
def gru_policy(path: Path, change=lambda file: None, n: int = 8) -> Path:
    """A file of the same names and shapes, its example computed by a loop over single numbers."""
    random = np.random.default_rng(0)

    def drawn(*shape):
        return random.normal(0, 0.4, shape).astype(np.float32)

    w, b = (drawn(n, 22), drawn(4, n)), (drawn(1, n), drawn(1, 4))
    wi, wh, bi, bh = drawn(3 * n, n), drawn(3 * n, n), drawn(3 * n), drawn(3 * n)
    inputs = drawn(20, 2, 22)
    outputs = np.zeros((20, 2, 4))

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    for row in range(2):
        h = np.zeros(n)
        for t in range(20):
            x = np.maximum(w[0].astype(float) @ inputs[t, row] + b[0][0], 0)
            new = h.copy()
            for k in range(n):
                r = sigmoid(wi[k] @ x + bi[k] + wh[k] @ h + bh[k])
                z = sigmoid(wi[n + k] @ x + bi[n + k] + wh[n + k] @ h + bh[n + k])
                c = np.tanh(wi[2 * n + k] @ x + bi[2 * n + k] + r * (wh[2 * n + k] @ h
                                                                     + bh[2 * n + k]))  # fmt: skip
                new[k] = z * h[k] + (1 - z) * c
            h = new
            outputs[t, row] = w[1] @ h + b[1][0]
    with h5py.File(path, "w") as file:
        for i, kind in enumerate(("dense", "gru", "dense")):
            file.create_group(f"actor/layers/{i}").attrs["type"] = kind
        for i, activation in ((0, "RELU"), (2, "IDENTITY")):
            file[f"actor/layers/{i}"].attrs["activation_function"] = activation
            file[f"actor/layers/{i}/weights/parameters"] = w[i // 2]
            file[f"actor/layers/{i}/biases/parameters"] = b[i // 2]
        for name, value in (("weights_input", wi), ("weights_hidden", wh), ("biases_input", bi),
                            ("biases_hidden", bh),
                            ("initial_hidden_state", np.zeros(n, np.float32))):  # fmt: skip
            file[f"actor/layers/1/{name}/parameters"] = value
        file["example/input"], file["example/output"] = inputs, outputs.astype(np.float32)
        change(file)
    return path


def fly(model, path: Path, steps: int) -> float:
    """The largest difference from the file's own example, through the contract's functions."""
    with h5py.File(path) as file:
        inputs, outputs = file["example/input"][()], file["example/output"][()]
    worst = 0.0
    for row in range(inputs.shape[1]):
        model.reset(0)
        for t in range(steps):
            stamp_ns = (t + 1) * model.manifest.step_ns
            belief = model.update(seen({"state": inputs[t, row, :18]}, stamp_ns),
                                  inputs[t, row, 18:])  # fmt: skip
            action = model.policy(belief, None).mean[0]
            worst = max(worst, float(np.abs(action - outputs[t, row]).max()))
    return worst


@pytest.mark.parametrize("backend", ["native", "onnxruntime"])
def test_a_recurrent_policy_gives_its_example(tmp_path, backend):
    path = gru_policy(tmp_path / "checkpoint.h5")
    bundle = imported("foundation-policy", path, tmp_path / "x.wmb")
    assert fly(model_of(bundle, backend), path, 20) < 1e-5


def test_the_shipped_policy_gives_its_test_vector(tmp_path):
    spec = find_spec("foundation_policy")
    if spec is None or spec.origin is None:
        pytest.skip("PyPI's foundation-policy is not installed")
    path = Path(spec.origin).parent / "blob" / "checkpoint.h5"
    bundle = imported("foundation-policy", path, tmp_path / "x.wmb")
    assert fly(model_of(bundle), path, 500) < 1e-5


def resize(file):
    del file["actor/layers/1/weights_hidden/parameters"]
    file["actor/layers/1/weights_hidden/parameters"] = np.zeros((24, 7), np.float32)


def lose(file):
    del file["actor/layers/2/biases"]


def diverge(file):
    file["actor/layers/0/weights/parameters"][3, 3] = np.nan


def lie(file):
    file["example/output"][5, 0] += 0.01


def another_activation(file):
    file["actor/layers/0"].attrs["activation_function"] = "TANH"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (resize, "tensor 'actor/layers/1/weights_hidden/parameters' must be [24, 8], got [24, 7];"),
        (lose, "must hold tensor 'actor/layers/2/biases/parameters', got"),
        (diverge, "tensor 'actor/layers/0/weights/parameters' must hold finite numbers, got NaN"),
        (lie, "must reproduce its own example within 0.0001, got 0.01"),
        (another_activation, "actor/layers/0.activation_function must be RELU, got 'TANH'"),
    ],
)
def test_a_wrong_recurrent_policy_is_refused(tmp_path, change, message):
    path = gru_policy(tmp_path / "checkpoint.h5", change)
    with pytest.raises(CheckpointError) as caught:
        imported("foundation-policy", path, tmp_path / "x.wmb")
    assert message in str(caught.value)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.98])
def test_a_cut_recurrent_policy_is_refused(tmp_path, share):
    path = gru_policy(tmp_path / "checkpoint.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"checkpoint checkpoint\.h5: must be an HDF5 file"):
        imported("foundation-policy", path, tmp_path / "x.wmb")


def test_onnx_files_stay_what_they_were(tmp_path):
    """Lifting to opset 20 changes no number: the lifted graph against the file itself."""
    from edge_wm.importers.reading import read_checkpoint

    path = made_up(tmp_path / "p.onnx", 6, 2)
    lifted = read_checkpoint(path, "onnx").blob("onnx")
    assert onnx.load_model_from_string(lifted).opset_import[0].version == 20
    x = {"obs": np.random.default_rng(0).normal(size=(1, 6)).astype(np.float32)}
    a, b = (onnxruntime.InferenceSession(blob).run(None, x)[0] for blob in
            (path.read_bytes(), lifted))  # fmt: skip
    np.testing.assert_array_equal(a, b)
