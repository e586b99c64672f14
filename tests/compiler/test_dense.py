"""compiler: dense layers in all their forms, ensembles, convolutions."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.graphs import agree, compiled, kinds, node
from edge_wm.bundle.program import Dense, Patches

RANDOM = np.random.default_rng(3)
W = RANDOM.standard_normal((5, 7))
BIAS = RANDOM.standard_normal(7)
X, Y = {"x": ["K", 5]}, {"y": ["K", 7]}


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.5, "beta": 2.0}])
@pytest.mark.parametrize("bias", ["", "bias", "row", "one"])
@pytest.mark.parametrize("turned", [0, 1])
def test_gemm(settings, bias, turned):
    constants = {"w": W.T if turned else W, "bias": BIAS, "row": BIAS[None], "one": np.ones(1)}
    nodes = [node("Gemm", f"x w {bias}", "y", transB=turned, **settings)]
    assert kinds(agree(X, nodes, Y, constants)) == ["dense"]


def test_gemm_with_a_bias_of_each_candidate():
    nodes = [node("Gemm", "x w c", "y", beta=0.5)]
    program = agree({**X, "c": ["K", 7]}, nodes, Y, {"w": W})
    assert kinds(program) == ["binary mul", "dense", "binary add"]


def test_gemm_of_a_transposed_input():
    agree({"x": [5, 2]}, [node("Gemm", "x w", "y", transA=1)], {"y": [2, 7]}, {"w": W})


@pytest.mark.parametrize(
    ("x", "w", "y"),
    [
        (["K", 5], (5, 7), ["K", 7]),
        (["K", 3, 5], (5, 7), ["K", 3, 7]),
        (["K", 2, 3, 5], (5, 7), ["K", 2, 3, 7]),
        (["K", 3, 5], (5,), ["K", 3]),
        ([5], (5, 7), [7]),
        ([1, 5], (5, 7), [1, 7]),
        (["K", 4, 1, 5], (4, 5, 7), ["K", 4, 1, 7]),
        (["K", 4, 3, 5], (4, 5, 7), ["K", 4, 3, 7]),
        (["K", 1, 1, 5], (4, 5, 7), ["K", 4, 1, 7]),
        (["K", 2, 4, 3, 5], (4, 5, 7), ["K", 2, 4, 3, 7]),
        (["K", 2, 4, 3, 5], (2, 1, 5, 7), ["K", 2, 4, 3, 7]),
        ([4, "K", 5], (4, 5, 7), [4, "K", 7]),
    ],
)
def test_matmul(x, w, y):
    """The last is an ensemble with the batch behind the members, as vmap has it."""
    nodes = [node("MatMul", "x w", "z"), node("Transpose", "z", "y", perm=perm(y))]
    agree({"x": x} if x[0] != 4 else {"x0": [x[1], x[0], x[2]]},
          ([node("Transpose", "x0", "x", perm=[1, 0, 2])] if x[0] == 4 else []) + nodes,
          {"y": [y[1], y[0], y[2]] if y[0] == 4 else y},
          {"w": RANDOM.standard_normal(w)})  # fmt: skip


def perm(shape):
    return [1, 0, 2] if shape[0] == 4 else list(range(len(shape)))


@pytest.mark.parametrize(
    ("w", "x", "y"),
    [((4, 5), ["K", 5, 3], ["K", 4, 3]), ((2, 4, 5), ["K", 2, 5, 3], ["K", 2, 4, 3])],
)
def test_a_constant_matrix_on_the_left(w, x, y):
    agree({"x": x}, [node("MatMul", "w x", "y")], {"y": y}, {"w": RANDOM.standard_normal(w)})


def test_scales_and_biases_go_into_the_layer():
    nodes = [
        node("MatMul", "x w", "a"),
        node("Add", "a bias", "b"),
        node("Mul", "b scale", "c"),
        node("Sub", "c bias", "d"),
        node("Div", "d scale", "e"),
        node("Relu", "e", "y"),
    ]
    constants = {"w": W, "bias": BIAS, "scale": np.linspace(0.5, 2, 7)}
    assert kinds(agree(X, nodes, Y, constants)) == ["dense relu"]


def test_biases_of_an_ensemble_go_into_its_layers():
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "c"), node("Tanh", "c", "y")]
    constants = {"w": RANDOM.standard_normal((3, 5, 7)), "b": RANDOM.standard_normal((3, 1, 7))}
    program = agree({"x": ["K", 1, 1, 5]}, nodes, {"y": ["K", 3, 1, 7]}, constants)
    assert kinds(program) == ["dense tanh"] * 3


def test_a_constant_that_differs_by_token_stays_apart():
    nodes = [node("MatMul", "x w", "a"), node("Add", "a b", "y")]
    constants = {"w": W, "b": RANDOM.standard_normal((3, 7))}
    program = agree({"x": ["K", 3, 5]}, nodes, {"y": ["K", 3, 7]}, constants)
    assert kinds(program) == ["dense", "binary add"]


def test_a_concatenation_becomes_segments():
    nodes = [
        node("Concat", "x z", "inner", axis=-1),
        node("Concat", "inner k", "all", axis=-1),
        node("Gemm", "all w", "y"),
    ]
    inputs = {**X, "z": ["K", 3], "k": ["K", 2]}
    program = agree(inputs, nodes, Y, {"w": RANDOM.standard_normal((10, 7))})
    (layer,) = program.operations
    assert isinstance(layer, Dense)
    assert [segment.size for segment in layer.segments] == [5, 3, 2]


def test_a_wide_layer_s_narrow_inputs_become_one_float32_segment():
    nodes = [node("Concat", "x z wide k", "all", axis=-1), node("Gemm", "all w", "y")]
    inputs = {**X, "z": ["K", 3], "wide": ["K", 20], "k": ["K", 2]}
    constants = {"w": RANDOM.standard_normal((30, 64))}
    y = {"y": ["K", 64]}
    program = agree(inputs, nodes, y, constants)
    *copies, layer = program.operations
    assert kinds(program) == ["copy", "copy", "copy", "dense"], copies
    assert isinstance(layer, Dense)
    assert [segment.size for segment in layer.segments] == [20, 10]
    layer = compiled(inputs, nodes, y, constants, precision="int8").operations[-1]
    assert isinstance(layer, Dense)
    assert [segment.scale is None for segment in layer.segments] == [False, True]


def test_slices_are_read_where_they_lie():
    nodes = [node("Split", "x n", "a b", axis=1), node("MatMul", "b w", "y")]
    program = agree({"x": ["K", 8]}, nodes, Y, {"n": [3, 5], "w": W})
    (layer,) = program.operations
    assert isinstance(layer, Dense)
    assert layer.segments[0].x.offset == 3


def test_two_layers_added_up_are_one():
    nodes = [
        node("Gemm", "x w bias", "a"),
        node("Gemm", "z v bias", "b"),
        node("Add", "a b", "c"),
        node("Tanh", "c", "y"),
    ]
    constants = {"w": W, "v": RANDOM.standard_normal((3, 7)), "bias": BIAS}
    assert kinds(agree({**X, "z": ["K", 3]}, nodes, Y, constants)) == ["dense tanh"]


def test_a_chain_on_rows_of_a_transposed_tensor():
    nodes = [node("Transpose", "x", "t", perm=[0, 2, 1]), node("MatMul", "t w", "y")]
    program = agree({"x": ["K", 5, 3]}, nodes, {"y": ["K", 3, 7]}, {"w": W})
    assert kinds(program) == ["copy", "dense"]


def test_batch_norm_goes_into_the_layer_before():
    nodes = [node("Gemm", "x w bias", "a"), node("BatchNormalization", "a s t m v", "y")]
    constants = {"w": W, "bias": BIAS, **statistics(7)}
    assert kinds(agree(X, nodes, Y, constants)) == ["dense"]


def test_batch_norm_alone_is_a_scale_and_a_shift():
    nodes = [node("BatchNormalization", "x s t m v", "y", epsilon=1e-3)]
    program = agree({"x": ["K", 3, 2, 4]}, nodes, {"y": ["K", 3, 2, 4]}, statistics(3))
    assert kinds(program) == ["binary mul", "binary add"]


def statistics(channels):
    values = RANDOM.uniform(0.5, 2, (4, channels))
    return dict(zip("stmv", values, strict=True))


# ---- convolution --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("size", "settings"),
    [
        ((3, 3), {}),
        ((3, 3), {"pads": [1, 1, 1, 1]}),
        ((3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((2, 3), {"pads": [0, 2, 1, 0], "strides": [1, 2]}),
        ((4, 4), {"strides": [2, 2]}),
        ((3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 4), {"auto_pad": "SAME_LOWER"}),
        ((3, 2), {"auto_pad": "VALID"}),
        ((1, 1), {}),
        ((1, 1), {"strides": [2, 2]}),
        ((6, 7), {}),
        ((1, 7), {}),
    ],
)
@pytest.mark.parametrize("batch", ["K", 1])
def test_a_convolution(size, settings, batch):
    weight = RANDOM.standard_normal((4, 3, *size))
    auto, strides = settings.get("auto_pad", ""), settings.get("strides", [1, 1])
    pads = settings.get("pads", [0] * 4)
    out = [
        -(-n // s) if auto.startswith("SAME") else (n + pads[axis] + pads[axis + 2] - k) // s + 1
        for axis, (n, k, s) in enumerate(zip((6, 7), size, strides, strict=True))
    ]
    nodes = [node("Conv", "x w b", "y", **settings)]
    constants = {"w": weight, "b": RANDOM.standard_normal(4)}
    agree({"x": [batch, 3, 6, 7]}, nodes, {"y": [batch, 4, *out]}, constants)


def test_a_convolution_of_several_images_and_along_one_axis():
    constants = {"w": RANDOM.standard_normal((4, 3, 3)), "v": RANDOM.standard_normal((4, 3, 3, 3))}
    agree(
        {"x": ["K", 3, 8]}, [node("Conv", "x w", "y", pads=[1, 1])], {"y": ["K", 4, 8]}, constants
    )
    agree({"x": [2, 3, 5, 5]}, [node("Conv", "x v", "y")], {"y": [2, 4, 3, 3]}, constants)


def encoder(batch="K"):
    """(height, width, channels) in, two convolutions with norm and activation, a dense layer."""
    nodes = [
        node("Transpose", "image", "first", perm=[0, 3, 1, 2]),
        node("Conv", "first w1", "c1", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "c1 s t m v", "n1"),
        node("Relu", "n1", "r1"),
        node("Conv", "r1 w2 b2", "c2", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Sigmoid", "c2", "s2"),
        node("Mul", "c2 s2", "r2"),
        node("Transpose", "r2", "last", perm=[0, 2, 3, 1]),
        node("Reshape", "last shape", "flat"),
        node("Gemm", "flat w3 b3", "y", transB=1),
    ]
    random = np.random.default_rng(5)
    constants = {
        "w1": random.standard_normal((4, 3, 3, 3)),
        "w2": random.standard_normal((6, 4, 3, 3)),
        "b2": random.standard_normal(6),
        "w3": random.standard_normal((5, 24)),
        "b3": random.standard_normal(5),
        "shape": np.array([0, 24]),
        **statistics(4),
    }
    return {"image": [batch, 8, 8, 3]}, nodes, {"y": [batch, 5]}, constants


def test_an_encoder_stays_in_one_layout():
    program = agree(*encoder())
    assert kinds(program) == ["patches", "dense relu", "patches", "dense silu", "dense"]
    assert isinstance(program.operations[0], Patches)


def test_flattening_channels_first_takes_one_copy():
    inputs, nodes, outputs, constants = encoder()
    nodes = [*nodes[:7], node("Reshape", "r2 shape", "flat"), nodes[-1]]
    program = agree(inputs, nodes, outputs, constants)
    assert kinds(program) == ["patches", "dense relu", "patches", "dense silu", "copy", "dense"]


def test_a_residual_block_and_a_mean_of_each_channel():
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Add", "x c", "s"),
        node("Relu", "s", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "y"),
    ]
    constants = {"w": RANDOM.standard_normal((3, 3, 3, 3))}
    agree({"x": ["K", 3, 4, 5]}, nodes, {"y": ["K", 3]}, constants)
