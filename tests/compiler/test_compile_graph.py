"""compiler: the shipped rover, int8, determinism, and what is refused, in whole sentences."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from models import bundle, linear
from programs import run_program

from compiler.graphs import (
    compiled,
    declared,
    graph_file,
    kinds,
    node,
    same_as_onnxruntime,
)
from edge_wm import shipped
from edge_wm.bundle import load_trust, open_bundle
from edge_wm.bundle.program import Dense, read_program, write_program
from edge_wm.compiler import compile_graph
from edge_wm.errors import ModelError, UnsupportedOperation

RANDOM = np.random.default_rng(7)
ROVER = shipped.folder("zoo") / "rover" / "rover.wmb"


@pytest.fixture(scope="module")
def rover():
    return open_bundle(ROVER, load_trust())


def graph_of(opened, name):
    function = opened.manifest.functions[name]
    return bytes(opened.blobs[function.graphs["onnx"]]), function


# ---- the shipped model ------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["encoder", "dynamics", "cost", "constraint", "value", "decoder"])
def test_the_rover_computes_what_onnxruntime_computes(rover, name):
    blob, function = graph_of(rover, name)
    program = read_program(write_program(compile_graph(blob, function, name)), name)
    pixels = {i.tensor: lambda random, shape: random.integers(0, 256, shape)
              for i in function.inputs if i.dtype == "uint8"}  # fmt: skip
    # goals with a yaw, so that every cost is a number to compare
    poses = {i.tensor: lambda random, shape: random.uniform(0.5, 1, shape)
             for i in function.inputs if i.source == "goal.pose"}  # fmt: skip
    same_as_onnxruntime(program, blob, function, pixels | poses, least=1)


def test_the_rovers_images_take_no_copies_between_layers(rover):
    program = compile_graph(*graph_of(rover, "encoder"), "encoder")
    pairs = list(zip(kinds(program), kinds(program)[1:], strict=False))
    assert pairs.count(("patches", "dense relu")) == 4
    assert all(later != "copy" for earlier, later in pairs if earlier == "patches")


@pytest.mark.parametrize("name", ["encoder", "dynamics", "cost"])
def test_a_linear_model(name):
    opened = bundle(linear(dt=True), dt={"min_s": 0.05, "max_s": 0.2})
    blob, function = graph_of(opened, name)
    same_as_onnxruntime(compile_graph(blob, function, name), blob, function)


def test_the_same_graph_gives_the_same_bytes(rover):
    blob, function = graph_of(rover, "dynamics")
    for precision in ("float32", "int8"):
        files = {
            write_program(compile_graph(blob, function, "dynamics", precision=precision))
            for _ in range(3)
        }
        assert len(files) == 1


# ---- int8 -----------------------------------------------------------------------------------
def layers(program):
    return [o for o in program.operations if isinstance(o, Dense)]


def two_layers():
    nodes = [
        node("Gemm", "x w1 b1", "h", transB=1),
        node("Relu", "h", "r"),
        node("MatMul", "r w2", "y"),
    ]
    constants = {
        "w1": WEIGHTS[0],
        "b1": BIAS,
        "w2": WEIGHTS[1].T,
    }
    return {"x": ["K", 32]}, nodes, {"y": ["K", 24]}, constants


WEIGHTS = RANDOM.standard_normal((48, 32)), RANDOM.standard_normal((24, 48))
BIAS = RANDOM.standard_normal(48)


def fake_quantized(x, weight):
    """x times the weight transposed as int8, one number after another, in float64."""
    scales = np.abs(weight.astype(np.float32)).max(axis=1) / np.float32(127)
    out = np.zeros((len(x), len(weight)))
    for row, numbers in enumerate(x.astype(np.float32)):
        s = np.abs(numbers).max() / np.float32(127)
        for n, (w, scale) in enumerate(zip(weight.astype(np.float32), scales, strict=True)):
            for number, value in zip(numbers, w, strict=True):
                out[row, n] += round(float(number / s)) * round(float(value / scale))
            out[row, n] *= float(s) * float(scale)
    return out


def test_int8_layers_compute_what_a_plain_loop_computes():
    program = compiled(*two_layers(), precision="int8")
    assert [program.constants[o.segments[0].weight].dtype for o in layers(program)] == [np.int8] * 2
    x = RANDOM.standard_normal((3, 32)).astype(np.float32)
    hidden = np.maximum(fake_quantized(x, WEIGHTS[0]) + BIAS, 0)
    expected = fake_quantized(hidden, WEIGHTS[1])
    found = run_program(program, {"x": x}, 3)["y"]
    # a number at a rounding boundary may fall to either side: one step of 127 in few of them
    np.testing.assert_allclose(found, expected, atol=0.002 * np.abs(expected).max())


def test_int8_is_near_float32(rover):
    blob, function = graph_of(rover, "dynamics")
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    given = {i.tensor: RANDOM.standard_normal((5, *i.shape[1:])).astype(np.float32)
             for i in function.inputs}  # fmt: skip
    program = compile_graph(blob, function, "dynamics", precision="int8")
    assert any(constant.dtype == np.int8 for constant in program.constants)
    found = run_program(program, given, 5)
    for output, expected in zip(session.get_outputs(), session.run(None, given), strict=True):
        error = np.abs(found[output.name] - expected).max()
        assert error <= 0.1 * np.abs(expected).max(), output.name  # of random, unlikely states


@pytest.mark.parametrize("name", ["h", "w1"])
def test_a_layer_to_keep_stays_float32_by_its_node_or_weight(name):
    first, second = layers(compiled(*two_layers(), precision="int8", keep=[name]))
    assert first.segments[0].scale is None
    assert second.segments[0].scale is not None


@pytest.mark.parametrize(("rows", "quantized"), [(31, False), (32, True)])
def test_small_weights_stay_float32(rows, quantized):
    program = compiled(
        {"x": ["K", 32]},
        [node("MatMul", "x w", "y")],
        {"y": ["K", rows]},
        {"w": RANDOM.standard_normal((32, rows))},
        precision="int8",
    )
    assert (layers(program)[0].segments[0].scale is not None) == quantized


def test_an_output_whose_weights_are_zero_is_its_bias():
    weight = RANDOM.standard_normal((40, 32))
    weight[7] = 0
    program = compiled(
        {"x": ["K", 32]},
        [node("Gemm", "x w b", "y", transB=1)],
        {"y": ["K", 40]},
        {"w": weight, "b": np.arange(40.0)},
        precision="int8",
    )
    found = run_program(program, {"x": np.ones((2, 32), np.float32)}, 2)["y"]
    assert (found[:, 7] == 7).all()


def test_a_concatenation_is_quantized_piece_by_piece():
    nodes = [node("Concat", "x z", "c", axis=-1), node("MatMul", "c w", "y")]
    constants = {"w": RANDOM.standard_normal((40, 32))}
    inputs = {"x": ["K", 32], "z": ["K", 8]}
    program = compiled(inputs, nodes, {"y": ["K", 32]}, constants, precision="int8")
    x = RANDOM.standard_normal((2, 32)).astype(np.float32)
    z = (1000 * RANDOM.standard_normal((2, 8))).astype(np.float32)
    found = run_program(program, {"x": x, "z": z}, 2)["y"]
    small = run_program(program, {"x": x, "z": 0 * z}, 2)["y"]
    expected = x @ constants["w"][:32]
    np.testing.assert_allclose(small, expected, atol=0.05 * np.abs(expected).max())
    assert np.isfinite(found).all()


# ---- what is refused ------------------------------------------------------------------------
HEAD = "graph: node "
TAIL = "; run this function on onnxruntime"
K4, Y4 = {"x": ["K", 4]}, {"y": ["K", 4]}
IMAGE = {"x": ["K", 4, 6, 6]}
REFUSED = {
    "a product of activations": (
        ({"a": ["K", 2, 3], "b": ["K", 3, 2]}, [node("MatMul", "a b", "y")], {"y": ["K", 2, 2]}),
        "'y': MatMul is not among the operations of step programs (one of its operands must be "
        "constant, or it must be attention)",
    ),
    "a sum over candidates": (
        (K4, [node("ReduceSum", "x a", "s"), node("Add", "x s", "y")], Y4, {"a": [0]}),
        "'s': ReduceSum is not among the operations of step programs (over the batch)",
    ),
    "candidates with each other": (
        (K4, [node("Unsqueeze", "x a", "u"), node("Sub", "u x", "d"),
              node("ReduceSum", "d b", "y", keepdims=0)],
         Y4, {"a": [1], "b": [1]}),
        "'d': Sub is not among the operations of step programs ('d' mixes candidates: [3, 3, 4] "
        "with 3, [5, 5, 4] with 5 of them)",
    ),
    "a softmax over candidates": (
        (K4, [node("Softmax", "x", "y", axis=0)], Y4),
        "'y': Softmax is not among the operations of step programs (over the batch)",
    ),
    "a depthwise convolution": (
        (IMAGE, [node("Conv", "x w", "y", group=4)], {"y": ["K", 4, 4, 4]},
         {"w": np.ones((4, 1, 3, 3))}),
        "'y': Conv is not among the operations of step programs (4 groups)",
    ),
    "a dilated convolution": (
        (IMAGE, [node("Conv", "x w", "y", dilations=[2, 2])], {"y": ["K", 4, 2, 2]},
         {"w": np.ones((4, 4, 3, 3))}),
        "'y': Conv is not among the operations of step programs (dilations [2, 2])",
    ),
    "a transposed convolution": (
        (IMAGE, [node("ConvTranspose", "x w", "y")], {"y": ["K", 4, 8, 8]},
         {"w": np.ones((4, 4, 3, 3))}),
        "'y': ConvTranspose is not among the operations of step programs (there is no rule for "
        "it)",
    ),
    "a cut through the batch": (
        (K4, [node("Slice", "x b e", "s"), node("ReduceSum", "s a", "t"),
              node("Add", "x t", "y")], Y4, {"b": [0], "e": [1], "a": [1]}),
        "'s': Slice is not among the operations of step programs (it cuts the batch)",
    ),
    "the largest, as a number": (
        (K4, [node("ArgMax", "x", "i", axis=1), node("Cast", "i", "y", to=1)], {"y": ["K", 1]}),
        "'i': ArgMax is not among the operations of step programs (only where a OneHot follows)",
    ),
    "a division of integers": (
        (K4, [node("Cast", "x", "i", to=7), node("Div", "i two", "d"),
              node("Cast", "d", "y", to=1)], Y4, {"two": np.array(2)}),
        "'d': Div is not among the operations of step programs (integers are divided toward "
        "zero)",
    ),
    "a window that overlaps": (
        (IMAGE, [node("MaxPool", "x", "y", kernel_shape=[3, 3])], {"y": ["K", 4, 4, 4]}),
        "'y': MaxPool is not among the operations of step programs (windows must lie side by "
        "side, without pads)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_expressed_is_refused(case):
    graph, sentence = REFUSED[case]
    with pytest.raises(UnsupportedOperation) as refused:
        compiled(*graph)
    assert str(refused.value) == HEAD + sentence + TAIL
    assert isinstance(refused.value, ModelError)
    assert f"node {refused.value.node!r}: {refused.value.operation}" in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"direction": "reverse"}, "it must go forward, with (steps, batch, numbers)"),
        ({"clip": 1.0}, "its activations must be the usual ones"),
        ({"activations": ["Relu", "Tanh", "Tanh"]}, "its activations must be the usual ones"),
    ],
)
def test_an_unusual_lstm_is_refused(settings, why):
    nodes = [
        node("Unsqueeze", "x zero", "xs"),
        node("LSTM", "xs w r", "all h", hidden_size=2, **settings),
        node("Squeeze", "h zero", "y"),
    ]
    constants = {"zero": [0], "w": np.ones((1, 8, 3)), "r": np.ones((1, 8, 2))}
    with pytest.raises(UnsupportedOperation) as refused:
        compiled({"x": ["K", 3]}, nodes, {"y": ["K", 2]}, constants)
    sentence = f"'all': LSTM is not among the operations of step programs ({why})"
    assert str(refused.value) == HEAD + sentence + TAIL


def test_the_bundles_reader_speaks_first():
    blob = graph_file(K4, [node("Foo", "x", "y")], Y4)
    with pytest.raises(ModelError) as refused:
        compile_graph(blob, declared(K4, Y4), "graph")
    assert str(refused.value) == (
        "graph: with a batch of 3: node 0 (Foo 'y'): operator 'Foo' must not be in a bundle's "
        "graph; docs/bundle.md lists those that may"
    )


def test_other_inputs_than_the_functions_are_refused():
    blob = graph_file(K4, [node("Relu", "x", "y")], Y4)
    with pytest.raises(ModelError) as refused:
        compile_graph(blob, declared({"z": ["K", 4]}, Y4), "graph")
    assert str(refused.value) == "graph: inputs must be z as the manifest says, got x"


def test_an_input_that_is_an_output_is_copied_and_one_that_is_not_read_stays():
    inputs = {"x": ["K", 4], "unused": ["K", 2]}
    nodes = [node("Identity", "x", "y"), node("Identity", "x", "z")]
    program = compiled(inputs, nodes, {"y": ["K", 4], "z": ["K", 4]})
    assert kinds(program) == ["copy", "copy"]
    assert [port.tensor for port in program.inputs] == ["x", "unused"]


def test_a_constant_output():
    program = compiled(K4, [node("Add", "one one", "y")], {"y": [1, 4]}, {"one": np.ones((1, 4))})
    assert (run_program(program, {"x": np.zeros((2, 4))}, 2)["y"] == 2).all()
