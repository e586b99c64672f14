"""compiler: norms in their many forms, softmax, sums and pools."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.graphs import agree, kinds, node

RANDOM = np.random.default_rng(4)
X, Y = {"x": ["K", 3, 8]}, {"y": ["K", 3, 8]}
SCALE = {"w": RANDOM.standard_normal(8), "b": RANDOM.standard_normal(8)}
NUMBERS = {"eps": 1e-3, "two": 2.0, "half": 0.5, "minus": -0.5, "one": 1.0}


def center(x="x"):
    return [
        node("ReduceMean", x, "mean", axes=[-1], keepdims=1),
        node("Sub", f"{x} mean", "d"),
    ]


def variance(d="d", power=True):
    return [
        node("Pow", f"{d} two", "square") if power else node("Mul", f"{d} {d}", "square"),
        node("ReduceMean", "square", "variance", axes=[-1], keepdims=1),
        node("Add", "variance eps", "safe"),
    ]


def ways(d="d"):
    """How to divide by sqrt(safe)."""
    return {
        "div sqrt": [node("Sqrt", "safe", "root"), node("Div", f"{d} root", "unit")],
        "mul reciprocal": [
            node("Sqrt", "safe", "root"),
            node("Reciprocal", "root", "inverse"),
            node("Mul", f"{d} inverse", "unit"),
        ],
        "mul one over": [
            node("Sqrt", "safe", "root"),
            node("Div", "one root", "inverse"),
            node("Mul", f"inverse {d}", "unit"),
        ],
        "div pow": [node("Pow", "safe half", "root"), node("Div", f"{d} root", "unit")],
        "mul pow": [node("Pow", "safe minus", "inverse"), node("Mul", f"{d} inverse", "unit")],
    }


AFFINE = [node("Mul", "unit w", "scaled"), node("Add", "scaled b", "y")]


@pytest.mark.parametrize("way", ways())
@pytest.mark.parametrize("power", [True, False])
def test_layer_norm_taken_apart_is_one_operation(way, power):
    nodes = [*center(), *variance(power=power), *ways()[way], *AFFINE]
    assert kinds(agree(X, nodes, Y, SCALE | NUMBERS)) == ["norm"]


@pytest.mark.parametrize("way", ways())
def test_rms_norm_taken_apart_is_one_operation(way):
    nodes = [*variance("x"), *ways("x")[way], node("Mul", "w unit", "y")]
    assert kinds(agree(X, nodes, Y, SCALE | NUMBERS)) == ["norm"]


def test_layer_norm_with_the_difference_taken_twice():
    """As TensorFlow's squared difference comes out."""
    nodes = [
        *center(),
        node("Sub", "x mean", "e"),
        *variance("e", power=False),
        *ways()["div sqrt"],
        node("Relu", "unit", "y"),
    ]
    assert kinds(agree(X, nodes, Y, NUMBERS)) == ["norm relu"]


@pytest.mark.parametrize("names", ["w", "w b"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_layer_norm(names, axis):
    constants = SCALE if axis == -1 else {k: RANDOM.standard_normal((3, 8)) for k in "wb"}
    nodes = [node("LayerNormalization", f"x {names}", "y", axis=axis, epsilon=1e-4)]
    assert kinds(agree(X, nodes, Y, constants)) == ["norm"]


def test_rms_norm():
    nodes = [node("RMSNormalization", "x w", "n", epsilon=1e-4), node("Tanh", "n", "y")]
    program = agree(X, nodes, Y, SCALE, opset=23)
    assert kinds(program) == ["norm tanh"]


def test_a_norm_of_a_slice_and_of_a_transposed_tensor():
    nodes = [
        node("Split", "x", "a b", axis=-1),
        node("LayerNormalization", "b w", "y", axis=-1),
    ]
    constants = {"w": RANDOM.standard_normal(4)}
    assert kinds(agree(X, nodes, {"y": ["K", 3, 4]}, constants)) == ["norm"]
    nodes = [
        node("Transpose", "x", "t", perm=[0, 2, 1]),
        node("LayerNormalization", "t w", "y", axis=-1),
    ]
    constants = {"w": RANDOM.standard_normal(3)}
    assert kinds(agree(X, nodes, {"y": ["K", 8, 3]}, constants)) == ["copy", "norm"]


def test_norms_of_channels():
    image = ["K", 4, 3, 5]
    nodes = [node("InstanceNormalization", "x s b", "y")]
    constants = {"s": RANDOM.standard_normal(4), "b": RANDOM.standard_normal(4)}
    agree({"x": image}, nodes, {"y": image}, constants)


@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax(operator, axis):
    agree(X, [node(operator, "x", "y", axis=axis)], Y)


def test_simplicial_norm():
    """Softmax over groups of 8, as TD-MPC2 has it."""
    nodes = [
        node("Reshape", "x groups", "g"),
        node("Softmax", "g", "s", axis=-1),
        node("Reshape", "s flat", "y"),
    ]
    constants = {"groups": np.array([0, -1, 8]), "flat": np.array([0, 32])}
    program = agree({"x": ["K", 32]}, nodes, {"y": ["K", 32]}, constants)
    assert kinds(program) == ["softmax"]


@pytest.mark.parametrize(
    "operator",
    ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare",
     "ReduceLogSumExp"],
)  # fmt: skip
@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("axes", [[1], [2], [-1, 1], [1, 3], [1, 2, 3]])
def test_a_reduction(operator, keep, axes):
    shape = ["K", 3, 4, 2]
    gone = {axis % 4 for axis in axes}
    after = [1 if a in gone else n for a, n in enumerate(shape) if keep or a not in gone]
    agree({"x": shape}, [node(operator, "x", "y", axes=axes, keepdims=keep)], {"y": after})


def test_a_sum_over_axes_given_as_an_input():
    agree(X, [node("ReduceSum", "x a", "y", keepdims=0)], {"y": ["K", 8]}, {"a": [1]})


def test_a_sum_over_everything_of_a_goal():
    agree({"x": [1, 4]}, [node("ReduceSum", "x", "y", keepdims=1)], {"y": [1, 1]})


@pytest.mark.parametrize("operator", ["AveragePool", "MaxPool"])
@pytest.mark.parametrize("kernel", [[2, 2], [2, 3], [4, 6]])
def test_a_pool_whose_windows_tile_the_image(operator, kernel):
    nodes = [node(operator, "x", "y", kernel_shape=kernel, strides=kernel)]
    out = ["K", 3, 4 // kernel[0], 6 // kernel[1]]
    agree({"x": ["K", 3, 4, 6]}, nodes, {"y": out})
