"""compiler: what only moves numbers costs nothing until another order is needed."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.graphs import agree, kinds, node

CASES = {
    "reshape": ([["K", 12], ["K", 3, 4]], [node("Reshape", "x s", "y")], {"s": [-1, 3, 4]}),
    "flatten": ([["K", 3, 4], ["K", 12]], [node("Flatten", "x", "y")], {}),
    "squeeze": ([["K", 1, 4], ["K", 4]], [node("Squeeze", "x a", "y")], {"a": [1]}),
    "unsqueeze": ([["K", 4], ["K", 1, 4, 1]], [node("Unsqueeze", "x a", "y")], {"a": [1, 3]}),
    "transpose": ([["K", 3, 4], ["K", 4, 3]], [node("Transpose", "x", "y", perm=[0, 2, 1])], {}),
    "transpose of four": (
        [["K", 2, 3, 4], ["K", 4, 2, 3]],
        [node("Transpose", "x", "y", perm=[0, 3, 1, 2])],
        {},
    ),
    "transpose of six": (
        [["K", 2, 2, 3, 2, 2], ["K", 2, 2, 2, 3, 2]],
        [node("Transpose", "x", "y", perm=[0, 5, 2, 4, 3, 1])],
        {},
    ),
    "expand": ([["K", 1, 4], ["K", 3, 4]], [node("Expand", "x s", "y")], {"s": [1, 3, 4]}),
    "tile": ([["K", 3], ["K", 6]], [node("Tile", "x r", "y")], {"r": [1, 2]}),
    "tile of one": ([["K", 1, 3], ["K", 4, 3]], [node("Tile", "x r", "y")], {"r": [1, 4, 1]}),
    "slice": (
        [["K", 8], ["K", 3]],
        [node("Slice", "x b e a", "y")],
        {"b": [2], "e": [5], "a": [1]},
    ),
    "slice with steps": (
        [["K", 8, 3], ["K", 4, 2]],
        [node("Slice", "x b e a s", "y")],
        {"b": [1, -1], "e": [100, -5], "a": [1, -1], "s": [2, -2]},
    ),
    "gather": ([["K", 8], ["K", 3]], [node("Gather", "x i", "y", axis=1)], {"i": [5, 0, -1]}),
    "gather of one": (
        [["K", 4, 3], ["K", 3]],
        [node("Gather", "x i", "y", axis=1)],
        {"i": np.array(2)},
    ),
    "depth to space": (
        [["K", 8, 2, 3], ["K", 2, 4, 6]],
        [node("DepthToSpace", "x", "y", blocksize=2, mode="DCR")],
        {},
    ),
    "depth to space, by columns": (
        [["K", 8, 2, 3], ["K", 2, 4, 6]],
        [node("DepthToSpace", "x", "y", blocksize=2, mode="CRD")],
        {},
    ),
    "space to depth": (
        [["K", 2, 4, 6], ["K", 8, 2, 3]],
        [node("SpaceToDepth", "x", "y", blocksize=2)],
        {},
    ),
    "pad": ([["K", 3, 2], ["K", 6, 5]], [node("Pad", "x p", "y")], {"p": [0, 1, 2, 0, 2, 1]}),
    "pad with a number": (
        [["K", 3], ["K", 5]],
        [node("Pad", "x p v", "y")],
        {"p": [0, 1, 0, 1], "v": 7.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_numbers_move(case):
    (before, after), nodes, constants = CASES[case]
    program = agree({"x": before}, nodes, {"y": after}, constants)
    assert set(kinds(program)) == {"copy"}


@pytest.mark.parametrize("case", ["reshape", "flatten", "squeeze", "unsqueeze"])
def test_numbers_that_lie_so_already_are_not_moved(case):
    (before, after), nodes, constants = CASES[case]
    first = node("Relu", "z", "x")
    program = agree({"z": before}, [first, *nodes], {"y": after}, constants)
    assert kinds(program) == ["unary relu"]


@pytest.mark.parametrize("case", CASES)
def test_what_is_computed_after_a_move(case):
    (before, after), nodes, constants = CASES[case]
    last = node("Sigmoid", "y", "z")
    agree({"x": before}, [*nodes, last], {"z": after}, constants)
    last = node("Mul", "y y", "z")
    agree({"x": before}, [*nodes, last], {"z": after}, constants)


def test_a_gather_of_scattered_numbers_is_a_few_copies():
    nodes = [node("Gather", "x i", "y", axis=2)]
    program = agree({"x": ["K", 7, 9]}, nodes, {"y": ["K", 7, 4]}, {"i": [0, 1, 5, 8]})
    assert kinds(program) == ["copy"] * 2


def test_split_and_concat():
    nodes = [
        node("Split", "x n", "a b c", axis=1),
        node("Relu", "b", "d"),
        node("Concat", "c d a", "y", axis=1),
    ]
    agree({"x": ["K", 9]}, nodes, {"y": ["K", 9]}, {"n": [2, 3, 4]})


def test_a_split_that_is_put_together_again_is_nothing():
    nodes = [
        node("Split", "x", "a b", axis=-1, num_outputs=2),
        node("Concat", "a b", "c", axis=-1),
        node("Exp", "c", "y"),
    ]
    assert kinds(agree({"x": ["K", 6]}, nodes, {"y": ["K", 6]}, opset=18)) == ["unary exp"]


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_concat_of_images(axis):
    shape = ["K", 2, 3, 4]
    other = [*shape[:axis], 5, *shape[axis + 1 :]]
    whole = [*shape[:axis], shape[axis] + 5, *shape[axis + 1 :]]
    agree({"x": shape, "z": other}, [node("Concat", "x z", "y", axis=axis)], {"y": whole})


def test_a_constant_beside_a_batch():
    nodes = [
        node("Shape", "x", "all"),
        node("Gather", "all zero", "rows"),
        node("Concat", "rows rest", "shape", axis=0),
        node("Expand", "k shape", "c"),
        node("Concat", "x c", "y", axis=1),
    ]
    constants = {"zero": [0], "rest": [4], "k": np.arange(4.0).reshape(1, 4)}
    agree({"x": ["K", 3]}, nodes, {"y": ["K", 7]}, constants)


def test_zeros_for_each_candidate():
    nodes = [
        node("Shape", "x", "shape"),
        node("ConstantOfShape", "shape", "zeros"),
        node("Max", "x zeros", "y"),
    ]
    agree({"x": ["K", 3]}, nodes, {"y": ["K", 3]})


def test_rows_of_all_candidates_in_one_axis():
    """As a transformer flattens (K, T, C) to (K T, C) and back."""
    nodes = [
        node("Reshape", "x flat", "rows"),
        node("MatMul", "rows w", "wide"),
        node("Reshape", "wide back", "y"),
    ]
    constants = {"flat": [-1, 4], "back": [-1, 3, 2], "w": np.arange(8.0).reshape(4, 2) - 3}
    program = agree({"x": ["K", 3, 4]}, nodes, {"y": ["K", 3, 2]}, constants)
    assert kinds(program) == ["dense"]


def test_a_batch_axis_behind_axes_of_one():
    nodes = [node("Transpose", "x", "t", perm=[1, 0, 2]), node("Squeeze", "t a", "y")]
    agree({"x": ["K", 1, 3]}, nodes, {"y": ["K", 3]}, {"a": [0]})


@pytest.mark.parametrize("dtype", ["int64", "float32"])
def test_a_table_is_looked_up(dtype):
    table = np.random.default_rng(1).standard_normal((5, 3))
    some = {"x": lambda random, shape: random.integers(0, 5, shape)}
    nodes = [node("Cast", "x", "i", to=7), node("Gather", "table i", "y")]
    inputs, outputs = {"x": ["K", 2]}, {"y": ["K", 2, 3]}
    program = agree(inputs, nodes, outputs, {"table": table}, dtypes={"x": dtype}, feeds=some)
    assert kinds(program)[-1] == "lookup"


def test_the_largest_as_one_hot():
    nodes = [
        node("ArgMax", "x", "i", axis=-1, keepdims=0),
        node("OneHot", "i depth values", "y", axis=-1),
    ]
    constants = {"depth": np.array([6]), "values": [0.0, 1.0]}
    program = agree({"x": ["K", 4, 6]}, nodes, {"y": ["K", 4, 6]}, constants)
    assert kinds(program) == ["one_hot"]


def test_the_largest_as_one_hot_along_another_axis():
    nodes = [
        node("ArgMax", "x", "i", axis=1, keepdims=0),
        node("OneHot", "i depth values", "y", axis=1),
    ]
    constants = {"depth": np.array([4]), "values": [0.0, 1.0]}
    agree({"x": ["K", 4, 6]}, nodes, {"y": ["K", 4, 6]}, constants)


@pytest.mark.parametrize("keep", [0, 1])
@pytest.mark.parametrize("turned", [False, True])
def test_the_largest_as_pytorch_writes_one_hot(keep, turned):
    nodes = [node("ArgMax", "x", "i" if keep else "j", axis=-1, keepdims=keep)]
    if not keep:
        nodes.append(node("Unsqueeze", "j last", "i"))
    nodes += [node("Equal", "n i" if turned else "i n", "e"), node("Cast", "e", "y", to=1)]
    constants = {"last": [-1], "n": np.arange(6)}
    program = agree({"x": ["K", 4, 6]}, nodes, {"y": ["K", 4, 6]}, constants)
    assert kinds(program) == ["one_hot"]


@pytest.mark.parametrize("way", [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")])
def test_an_image_grows_by_whole_multiples(way):
    settings = {"coordinate_transformation_mode": way[0], "nearest_mode": way[1]}
    nodes = [node("Resize", "x - scales", "y", mode="nearest", **settings)]
    constants = {"scales": [1.0, 1.0, 2.0, 3.0]}
    agree({"x": ["K", 2, 3, 4]}, nodes, {"y": ["K", 2, 6, 12]}, constants)
