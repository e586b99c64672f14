"""Rules for what is computed number by number, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from edge_wm.bundle.program import BinaryKind, UnaryKind
from edge_wm.compiler.builder import Builder
from edge_wm.compiler.places import Place

SELU = (1.67326319217681884765625, 1.05070102214813232421875)  # ONNX's defaults, float32

UNARY: Mapping[str, UnaryKind] = {
    "Abs": "abs",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Not": "not",
    "Reciprocal": "reciprocal",
    "Relu": "relu",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
BINARY: Mapping[str, BinaryKind] = {
    "Add": "add",
    "And": "and",
    "Equal": "equal",
    "Greater": "greater",
    "Less": "less",
    "Max": "max",
    "Min": "min",
    "Mul": "mul",
    "Or": "or",
    "Sub": "sub",
    "Sum": "add",
}


def unary(b: Builder) -> None:
    b.give(b.unary(UNARY[b.node.op], b.place(0)))


def activation(b: Builder) -> None:
    """What `fusing` has put together: attribute `kind`."""
    b.give(b.unary(b.node.attributes["kind"], b.place(0)))


def binary(b: Builder) -> None:
    """Two inputs, or as many as Sum, Max and Min have."""
    result = b.place(0)
    if len(b.node.inputs) == 1:
        b.give(result)
        return
    for index in range(1, len(b.node.inputs)):
        result = b.binary(BINARY[b.node.op], result, b.place(index))
    b.give(result)


def divide(b: Builder) -> None:
    if "int" in b.form(b.node.inputs[0]).dtype:
        b.refuse("integers are divided toward zero")
    b.give(b.binary("div", b.place(0), b.place(1)))


def or_equal(b: Builder) -> None:
    x, y = b.place(0), b.place(1)
    kind: BinaryKind = "less" if b.node.op == "LessOrEqual" else "greater"
    b.give(b.binary("or", b.binary(kind, x, y), b.binary("equal", x, y)))


def xor(b: Builder) -> None:
    b.give(b.unary("not", b.binary("equal", b.place(0), b.place(1))))


def mean(b: Builder) -> None:
    result = b.place(0)
    for index in range(1, len(b.node.inputs)):
        result = b.binary("add", result, b.place(index))
    b.give(b.with_scalar("div", result, len(b.node.inputs)))


def power(b: Builder) -> None:
    """With the exponents that have an operation of their own, that one."""
    exponent = b.graph.constants.get(b.node.inputs[1])
    x = b.place(0)
    same = exponent is not None and exponent.size == 1 and exponent.ndim <= x.index.ndim
    special = float(exponent.flat[0]) if same and exponent is not None else None
    kinds: Mapping[float, UnaryKind] = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal"}
    if special in kinds:
        b.give(b.unary(kinds[special], x))  # type: ignore[index]
    elif special == -0.5:
        b.give(b.unary("reciprocal", b.unary("sqrt", x)))
    elif special == 1.0:
        b.give(x)
    else:
        b.give(b.binary("pow", x, b.place(1)))


def where(b: Builder) -> None:
    b.give(b.select(b.place(0), b.place(1), b.place(2)))


def gelu(b: Builder) -> None:
    tanh = b.node.attributes.get("approximate", "none") == "tanh"
    b.give(b.unary("gelu_tanh" if tanh else "gelu", b.place(0)))


def swish(b: Builder) -> None:
    x, alpha = b.place(0), b.node.attributes.get("alpha", 1.0)
    if alpha == 1:
        b.give(b.unary("silu", x))
    else:
        b.give(b.binary("mul", x, b.unary("sigmoid", b.with_scalar("mul", x, alpha))))


def elu(b: Builder) -> None:
    """Elu, Selu and Celu: gain * (max(x, 0) + alpha * elu(min(x, 0) / inside))."""
    settings, op = b.node.attributes, b.node.op
    defaults = SELU if op == "Selu" else (1.0, 1.0)
    alpha, gain = settings.get("alpha", defaults[0]), settings.get("gamma", defaults[1])
    x = b.place(0)
    if alpha == 1 and gain == 1:
        b.give(b.unary("elu", x))
        return
    below = b.with_scalar("min", x, 0)
    if op == "Celu":
        below = b.with_scalar("div", below, alpha)
    below = b.with_scalar("mul", b.unary("elu", below), alpha)
    result = b.binary("add", b.unary("relu", x), below)
    b.give(result if gain == 1 else b.with_scalar("mul", result, gain))


def leaky_relu(b: Builder) -> None:
    """max(x, a x), and min(x, a x) where a is above 1."""
    x, alpha = b.place(0), b.node.attributes.get("alpha", 0.01)
    b.give(b.binary("max" if alpha <= 1 else "min", x, b.with_scalar("mul", x, alpha)))


def prelu(b: Builder) -> None:
    x = b.place(0)
    below = b.binary("mul", b.with_scalar("min", x, 0), b.place(1))
    b.give(b.binary("add", b.unary("relu", x), below))


def clip(b: Builder) -> None:
    result = b.place(0)
    limits: tuple[tuple[str, BinaryKind], ...] = (("min", "max"), ("max", "min"))
    for name, kind in limits:
        if name in b.node.attributes:
            limit = b.node.attributes[name]
            if limit is None:
                b.refuse("its limits must be constants")
            result = b.with_scalar(kind, result, float(np.asarray(limit).flat[0]))
    b.give(result)


def _hard_sigmoid(b: Builder, x: Place, alpha: float, beta: float) -> Place:
    line = b.with_scalar("add", b.with_scalar("mul", x, alpha), beta)
    return b.with_scalar("min", b.with_scalar("max", line, 0), 1)


def hard_sigmoid(b: Builder) -> None:
    settings = b.node.attributes
    b.give(_hard_sigmoid(b, b.place(0), settings.get("alpha", 0.2), settings.get("beta", 0.5)))


def hard_swish(b: Builder) -> None:
    x = b.place(0)
    b.give(b.binary("mul", x, _hard_sigmoid(b, x, 1 / 6, 0.5)))


def softsign(b: Builder) -> None:
    x = b.place(0)
    b.give(b.binary("div", x, b.with_scalar("add", b.unary("abs", x), 1)))


def ceil(b: Builder) -> None:
    b.give(b.unary("neg", b.unary("floor", b.unary("neg", b.place(0)))))


def tan(b: Builder) -> None:
    x = b.place(0)
    b.give(b.binary("div", b.unary("sin", x), b.unary("cos", x)))


def cast(b: Builder) -> None:
    """Registers hold float32 whatever the tensor is: only what loses something is computed."""
    before, after = b.form(b.node.inputs[0]).dtype, b.form(b.node.outputs[0]).dtype
    x = b.place(0)
    if after == "bool" and before != "bool":
        b.give(b.unary("not", b.unary("not", x)))
    elif "float" in before and "int" in after:  # toward zero
        b.give(b.binary("mul", b.unary("sign", x), b.unary("floor", b.unary("abs", x))))
    else:
        b.give(b.operand(0))


def identity(b: Builder) -> None:
    if b.node.attributes.get("training_mode") is not None and np.any(
        b.node.attributes["training_mode"]
    ):
        b.refuse("training mode")
    b.give(b.operand(0))


RULES: Mapping[str, Callable[[Builder], Any]] = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(BINARY, binary),
    "Activation": activation,
    "Cast": cast,
    "CastLike": cast,
    "Ceil": ceil,
    "Celu": elu,
    "Clip": clip,
    "Div": divide,
    "Dropout": identity,
    "Elu": elu,
    "Gelu": gelu,
    "GreaterOrEqual": or_equal,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": identity,
    "LeakyRelu": leaky_relu,
    "LessOrEqual": or_equal,
    "Mean": mean,
    "PRelu": prelu,
    "Pow": power,
    "Selu": elu,
    "Softsign": softsign,
    "Swish": swish,
    "Tan": tan,
    "Where": where,
    "Xor": xor,
}
