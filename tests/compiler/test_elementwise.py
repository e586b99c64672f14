"""compiler: what is computed number by number, and activations that exporters took apart."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.graphs import agree, kinds, node

X = {"x": ["K", 6]}
Y = {"y": ["K", 6]}
POSITIVE = {"x": lambda random, shape: random.uniform(0.1, 4, shape)}


@pytest.mark.parametrize(
    "operator",
    ["Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "Identity", "Neg", "Relu", "Round", "Sigmoid",
     "Sign", "Sin", "Softplus", "Softsign", "Tan", "Tanh", "HardSwish", "Elu", "Selu", "Celu"],
)  # fmt: skip
def test_a_function_of_each_number(operator):
    agree(X, [node(operator, "x", "y")], Y)


@pytest.mark.parametrize("operator", ["Log", "Sqrt", "Reciprocal"])
def test_a_function_of_positive_numbers(operator):
    agree(X, [node(operator, "x", "y")], Y, feeds=POSITIVE)


@pytest.mark.parametrize(
    ("operator", "settings"),
    [
        ("LeakyRelu", {"alpha": 0.2}),
        ("LeakyRelu", {"alpha": 1.5}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
        ("Elu", {"alpha": 0.5}),
        ("Celu", {"alpha": 2.0}),
        ("Selu", {"alpha": 1.2, "gamma": 1.1}),
    ],
)
def test_a_function_with_settings(operator, settings):
    agree(X, [node(operator, "x", "y", **settings)], Y)


@pytest.mark.parametrize(
    ("operator", "settings", "kind"),
    [
        ("Mish", {}, "mish"),
        ("Gelu", {}, "gelu"),
        ("Gelu", {"approximate": "tanh"}, "gelu_tanh"),
    ],
)
def test_an_activation_of_newer_opsets(operator, settings, kind):
    program = agree(X, [node(operator, "x", "y", **settings)], Y, opset=20)
    assert kinds(program) == [f"unary {kind}"]


@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize(
    ("a", "b", "out"),
    [
        (["K", 6], ["K", 6], ["K", 6]),
        (["K", 6], ["K", 1], ["K", 6]),
        (["K", 1], ["K", 6], ["K", 6]),
        (["K", 6], [1, 6], ["K", 6]),
        (["K", 6], [6], ["K", 6]),
        (["K", 6], [], ["K", 6]),
        (["K", 3, 1, 2], ["K", 1, 4, 2], ["K", 3, 4, 2]),
        (["K", 3, 1, 2], [4, 1], ["K", 3, 4, 2]),
        (["K", 2, 1, 2, 1, 2], ["K", 1, 2, 1, 2, 1], ["K", 2, 2, 2, 2, 2]),
        ([1, 6], [1, 6], [1, 6]),
    ],
)
def test_two_tensors_broadcast(operator, a, b, out):
    near_one = {"b": lambda random, shape: random.uniform(0.5, 2, shape)}
    agree({"a": a, "b": b}, [node(operator, "a b", "y")], {"y": out}, feeds=near_one)


@pytest.mark.parametrize("operator", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_any_number_of_tensors(operator, count):
    names = ["a", "b", "c"][:count]
    agree(
        {name: ["K", 4] for name in names}, [node(operator, " ".join(names), "y")], {"y": ["K", 4]}
    )


@pytest.mark.parametrize("operator", ["Less", "Greater", "Equal", "LessOrEqual", "GreaterOrEqual"])
def test_a_comparison(operator):
    few = {name: lambda random, shape: random.integers(0, 3, shape) for name in "ab"}
    nodes = [node(operator, "a b", "c"), node("Cast", "c", "y", to=1)]
    agree({"a": ["K", 9], "b": ["K", 9]}, nodes, {"y": ["K", 9]}, feeds=few)


@pytest.mark.parametrize("operator", ["And", "Or", "Xor"])
def test_logic(operator):
    nodes = [
        node("Greater", "a zero", "p"),
        node("Greater", "b zero", "q"),
        node(operator, "p q", "r"),
        node("Not", "r", "s"),
        node("Where", "s a b", "y"),
    ]
    agree({"a": ["K", 9], "b": ["K", 9]}, nodes, {"y": ["K", 9]}, {"zero": 0.0})


def test_where_with_a_constant_condition_and_a_scalar():
    constants = {"condition": np.array([True, False, True, True, False, False]), "low": -3.0}
    agree(X, [node("Where", "condition x low", "y")], Y, constants)


@pytest.mark.parametrize("exponent", [2.0, 0.5, -1.0, -0.5, 1.0, 3.0, 1.7])
def test_a_power(exponent):
    agree(X, [node("Pow", "x e", "y")], Y, {"e": exponent}, feeds=POSITIVE)


def test_a_power_of_each_number():
    agree(X, [node("Pow", "x e", "y")], Y, {"e": np.arange(6.0)}, feeds=POSITIVE)


def test_squares_and_roots_have_an_operation_of_their_own():
    for exponent, kind in ((2.0, "square"), (0.5, "sqrt"), (-1.0, "reciprocal")):
        program = agree(X, [node("Pow", "x e", "y")], Y, {"e": exponent}, feeds=POSITIVE)
        assert kinds(program) == [f"unary {kind}"]


@pytest.mark.parametrize("limits", ["low high", "low -", "- high", "low"])
def test_clip(limits):
    agree(X, [node("Clip", f"x {limits}", "y")], Y, {"low": -0.5, "high": 0.7})


def test_prelu():
    agree(X, [node("PRelu", "x slope", "y")], Y, {"slope": np.linspace(-1, 1, 6)})


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [("float32", "int64", "toward zero"), ("float32", "bool", "is it 0"), ("uint8", "float32", "")],
)
def test_a_cast(before, after, text):
    code = {"int64": 7, "bool": 9, "float32": 1}[after]
    nodes = [node("Cast", "x", "c", to=code), node("Cast", "c", "y", to=1)]
    some = {
        "x": lambda random, shape: random.integers(0, 5, shape) * (1 if before == "uint8" else -0.7)
    }
    agree(X, nodes, Y, dtypes={"x": before}, feeds=some)


def test_casts_between_floats_and_dropout_are_no_operations():
    nodes = [
        node("Cast", "x", "a", to=11),
        node("Cast", "a", "b", to=1),
        node("Dropout", "b", "c"),
        node("Identity", "c", "d"),
        node("Relu", "d", "y"),
    ]
    assert kinds(agree(X, nodes, Y)) == ["unary relu"]


# ---- activations as exporters write them ----------------------------------------------------
GELU = {"half": 0.5, "one": 1.0, "root": math.sqrt(2), "inverse": math.sqrt(0.5)}
TANH = {"half": 0.5, "one": 1.0, "c": 0.044715, "s": math.sqrt(2 / math.pi), "three": 3.0}
FORMS = {
    "silu": ([node("Sigmoid", "x", "s"), node("Mul", "x s", "y")], {}),
    "silu, turned": ([node("Sigmoid", "x", "s"), node("Mul", "s x", "y")], {}),
    "mish": (
        [node("Softplus", "x", "p"), node("Tanh", "p", "t"), node("Mul", "x t", "y")],
        {},
    ),
    "gelu": (  # PyTorch
        [
            node("Div", "x root", "d"),
            node("Erf", "d", "e"),
            node("Add", "e one", "p"),
            node("Mul", "x p", "m"),
            node("Mul", "m half", "y"),
        ],
        GELU,
    ),
    "gelu, the half first": (  # JAX
        [
            node("Mul", "half x", "h"),
            node("Mul", "x inverse", "d"),
            node("Erf", "d", "e"),
            node("Add", "one e", "p"),
            node("Mul", "h p", "y"),
        ],
        GELU,
    ),
    "gelu_tanh": (
        [
            node("Pow", "x three", "cube"),
            node("Mul", "cube c", "small"),
            node("Add", "x small", "sum"),
            node("Mul", "sum s", "inner"),
            node("Tanh", "inner", "t"),
            node("Add", "t one", "p"),
            node("Mul", "half x", "h"),
            node("Mul", "h p", "y"),
        ],
        TANH,
    ),
    "gelu_tanh, the cube as products": (
        [
            node("Mul", "x x", "square"),
            node("Mul", "square x", "cube"),
            node("Mul", "c cube", "small"),
            node("Add", "small x", "sum"),
            node("Mul", "s sum", "inner"),
            node("Tanh", "inner", "t"),
            node("Add", "one t", "p"),
            node("Mul", "x p", "m"),
            node("Mul", "half m", "y"),
        ],
        TANH,
    ),
    "gelu_tanh, factored": (
        [
            node("Mul", "x x", "square"),
            node("Mul", "c square", "small"),
            node("Add", "one small", "sum"),
            node("Mul", "s x", "sx"),
            node("Mul", "sx sum", "inner"),
            node("Tanh", "inner", "t"),
            node("Add", "one t", "p"),
            node("Mul", "x p", "m"),
            node("Mul", "half m", "y"),
        ],
        TANH,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_activation_taken_apart_is_one_operation(form):
    nodes, constants = FORMS[form]
    assert kinds(agree(X, nodes, Y, constants)) == [f"unary {form.split(',')[0]}"]


@pytest.mark.parametrize(
    ("form", "constants"),
    [
        ("gelu", GELU | {"half": 0.25}),
        ("gelu", GELU | {"root": 1.0}),
        ("gelu", GELU | {"one": 2.0}),
        ("gelu_tanh", TANH | {"c": 0.05}),
        ("gelu_tanh", TANH | {"s": 0.7}),
        ("gelu_tanh", TANH | {"three": 2.0}),
    ],
)
def test_what_looks_like_an_activation_stays_as_it_is(form, constants):
    assert len(kinds(agree(X, FORMS[form][0], Y, constants))) > 1


@pytest.mark.parametrize("form", FORMS)
def test_an_activation_goes_into_the_layer_before(form):
    nodes, constants = FORMS[form]
    layer = node("Gemm", "z weight bias", "x", transB=1)
    random = np.random.default_rng(1)
    weights = {"weight": random.standard_normal((6, 4)), "bias": random.standard_normal(6)}
    program = agree({"z": ["K", 4]}, [layer, *nodes], Y, weights | constants)
    assert kinds(program) == [f"dense {form.split(',')[0]}"]


def test_an_activation_stays_apart_where_others_read_the_layer():
    nodes = [node("MatMul", "x w", "d"), node("Relu", "d", "r"), node("Add", "d r", "y")]
    program = agree(X, nodes, Y, {"w": np.eye(6)[::-1]})
    assert kinds(program) == ["dense", "unary relu", "binary add"]


def test_columns_of_rows_are_read_where_they_lie():
    nodes = [node("Slice", "x b e a", "s"), node("Exp", "s", "y")]
    constants = {"b": [1], "e": [3], "a": [2]}
    program = agree({"x": ["K", 3, 5]}, nodes, {"y": ["K", 3, 2]}, constants)
    assert kinds(program) == ["unary exp"]
