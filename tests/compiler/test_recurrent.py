"""compiler: one step of LSTM and GRU, and attention."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.graphs import agree, kinds, node

RANDOM = np.random.default_rng(6)
SIZE, INPUTS = 6, 5


def weights(gates, bias=True):
    found = {
        "w": RANDOM.standard_normal((1, gates * SIZE, INPUTS)),
        "r": RANDOM.standard_normal((1, gates * SIZE, SIZE)),
    }
    if bias:
        found["b"] = RANDOM.standard_normal((1, 2 * gates * SIZE))
    return {name: 0.5 * value for name, value in found.items()}


def around(cell, states):
    """A cell between tensors with the batch first."""
    before = [node("Unsqueeze", "x zero", "xs")]
    before += [node("Unsqueeze", f"{s} zero", f"{s}s") for s in states]
    after = [node("Squeeze", f"{s}n zero", f"{s}_next") for s in states]
    return [*before, cell, *after]


@pytest.mark.parametrize("bias", ["b", "-"])
def test_a_step_of_an_lstm(bias):
    cell = node("LSTM", f"xs w r {bias} - hs cs", "all hn cn", hidden_size=SIZE)
    inputs = {"x": ["K", INPUTS], "h": ["K", SIZE], "c": ["K", SIZE]}
    outputs = {"h_next": ["K", SIZE], "c_next": ["K", SIZE]}
    constants = {"zero": [0], **weights(4, bias == "b")}
    program = agree(inputs, around(cell, "hc"), outputs, constants)
    assert kinds(program) == ["dense", "lstm"]


def test_an_lstm_without_a_state_before_and_with_all_its_outputs():
    nodes = [
        node("Unsqueeze", "x zero", "xs"),
        node("LSTM", "xs w r b", "all hn cn", hidden_size=SIZE),
        node("Squeeze", "all two", "y"),
    ]
    constants = {"zero": [0], "two": [0, 1], **weights(4)}
    agree({"x": ["K", INPUTS]}, nodes, {"y": ["K", SIZE]}, constants)


@pytest.mark.parametrize("after", [0, 1])
@pytest.mark.parametrize("bias", ["b", "-"])
def test_a_step_of_a_gru(after, bias):
    cell = node("GRU", f"xs w r {bias} - hs", "all hn", hidden_size=SIZE, linear_before_reset=after)
    inputs = {"x": ["K", INPUTS], "h": ["K", SIZE]}
    constants = {"zero": [0], **weights(3, bias == "b")}
    program = agree(inputs, around(cell, "h"), {"h_next": ["K", SIZE]}, constants)
    assert ("gru" in kinds(program)) == bool(after)


def test_a_gru_on_a_concatenation():
    """As in a recurrent state-space model: the state and the action are the cell's input."""
    cell = node("GRU", "xs w r b - hs", "all hn", hidden_size=SIZE, linear_before_reset=1)
    nodes = [node("Concat", "s a", "x", axis=-1), *around(cell, "h")]
    inputs = {"s": ["K", 3], "a": ["K", 2], "h": ["K", SIZE]}
    program = agree(inputs, nodes, {"h_next": ["K", SIZE]}, {"zero": [0], **weights(3)})
    assert kinds(program) == ["dense", "dense", "gru"]


def test_a_gru_cell_taken_apart():
    """As PyTorch exports nn.GRUCell."""
    nodes = [
        node("Gemm", "x wx bx", "gx", transB=1),
        node("Gemm", "h wh bh", "gh", transB=1),
        node("Split", "gx", "xr xz xn", axis=1, num_outputs=3),
        node("Split", "gh", "hr hz hn", axis=1, num_outputs=3),
        node("Add", "xr hr", "ar"),
        node("Sigmoid", "ar", "r"),
        node("Add", "xz hz", "az"),
        node("Sigmoid", "az", "z"),
        node("Mul", "r hn", "rh"),
        node("Add", "xn rh", "an"),
        node("Tanh", "an", "n"),
        node("Sub", "h n", "d"),
        node("Mul", "z d", "zd"),
        node("Add", "n zd", "y"),
    ]
    constants = {
        "wx": RANDOM.standard_normal((3 * SIZE, INPUTS)),
        "wh": RANDOM.standard_normal((3 * SIZE, SIZE)),
        "bx": RANDOM.standard_normal(3 * SIZE),
        "bh": RANDOM.standard_normal(3 * SIZE),
    }
    inputs = {"x": ["K", INPUTS], "h": ["K", SIZE]}
    agree(inputs, nodes, {"y": ["K", SIZE]}, constants, opset=18)


def test_an_lstm_cell_taken_apart():
    nodes = [
        node("Gemm", "x wx bx", "gx", transB=1),
        node("Gemm", "h wh bh", "gh", transB=1),
        node("Add", "gx gh", "g"),
        node("Split", "g", "i f n o", axis=1, num_outputs=4),
        *[node("Sigmoid", name, f"s{name}") for name in "ifo"],
        node("Tanh", "n", "tn"),
        node("Mul", "sf c", "kept"),
        node("Mul", "si tn", "new"),
        node("Add", "kept new", "c_next"),
        node("Tanh", "c_next", "tc"),
        node("Mul", "so tc", "h_next"),
    ]
    constants = {
        "wx": RANDOM.standard_normal((4 * SIZE, INPUTS)),
        "wh": RANDOM.standard_normal((4 * SIZE, SIZE)),
        "bx": RANDOM.standard_normal(4 * SIZE),
        "bh": RANDOM.standard_normal(4 * SIZE),
    }
    inputs = {"x": ["K", INPUTS], "h": ["K", SIZE], "c": ["K", SIZE]}
    outputs = {"h_next": ["K", SIZE], "c_next": ["K", SIZE]}
    program = agree(inputs, nodes, outputs, constants, opset=18)
    assert kinds(program)[0] == "dense"
    assert kinds(program).count("dense") == 1


# ---- attention ----------------------------------------------------------------------------
TOKENS, HEADS, HEAD = 4, 2, 3
WIDTH = HEADS * HEAD


def projections():
    """q, k, v from x, as (K, heads, tokens, numbers of a head), k transposed."""
    nodes = []
    for name in "qkv":
        perm = [0, 2, 3, 1] if name == "k" else [0, 2, 1, 3]
        nodes += [
            node("MatMul", f"x w{name}", f"{name}1"),
            node("Reshape", f"{name}1 heads", f"{name}2"),
            node("Transpose", f"{name}2", name, perm=perm),
        ]
    return nodes


OUT = [node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3]), node("Reshape", "turned flat", "y")]
CONSTANTS = {
    **{f"w{name}": RANDOM.standard_normal((WIDTH, WIDTH)) for name in "qkv"},
    "heads": np.array([0, 0, HEADS, HEAD]),
    "flat": np.array([0, 0, WIDTH]),
    "scale": 1 / math.sqrt(HEAD),
    "root": math.sqrt(HEAD),
    "mask": np.where(np.tril(np.ones((TOKENS, TOKENS))) > 0, 0, -1e9)[None, None],
    "seen": np.tril(np.ones((TOKENS, TOKENS))) > 0,
    "low": -np.inf,
    "none": np.zeros((TOKENS, TOKENS)),
}
X = {"x": ["K", TOKENS, WIDTH]}
Y = {"y": ["K", TOKENS, WIDTH]}
SCORES = {
    "scaled": [node("MatMul", "q k", "s"), node("Mul", "s scale", "a")],
    "divided": [node("MatMul", "q k", "s"), node("Div", "s root", "a")],
    "plain": [node("MatMul", "q k", "a")],
    "masked with zeros": [node("MatMul", "q k", "s"), node("Add", "s none", "a")],
    "causal": [
        node("MatMul", "q k", "s"),
        node("Mul", "s scale", "t"),
        node("Add", "t mask", "a"),
    ],
    "causal, by a condition": [
        node("MatMul", "q k", "s"),
        node("Where", "seen s low", "t"),
        node("Div", "t root", "a"),
    ],
}


@pytest.mark.parametrize("form", SCORES)
def test_attention(form):
    nodes = [
        *projections(),
        *SCORES[form],
        node("Softmax", "a", "p", axis=-1),
        node("MatMul", "p v", "mixed"),
        *OUT,
    ]
    program = agree(X, nodes, Y, CONSTANTS)
    assert kinds(program) == ["dense", "dense", "dense", "attention"]
    assert program.operations[-1].causal == form.startswith("causal")


def test_attention_of_one_head_with_one_query_to_a_memory():
    nodes = [
        node("Transpose", "k", "kt", perm=[0, 2, 1]),
        node("MatMul", "q kt", "s"),
        node("Softmax", "s", "p", axis=-1),
        node("MatMul", "p v", "y"),
    ]
    inputs = {"q": ["K", 1, 3], "k": ["K", 5, 3], "v": ["K", 5, 3]}
    assert kinds(agree(inputs, nodes, {"y": ["K", 1, 3]})) == ["attention"]


def test_a_block_of_a_transformer():
    """Norm and modulation (as in a diffusion transformer), attention, residual, MLP."""
    nodes = [
        node("LayerNormalization", "x ones", "n", axis=-1),
        node("Gemm", "c wm bm", "m"),
        node("Split", "m", "shift size gate", axis=-1, num_outputs=3),
        *[node("Unsqueeze", f"{name} one", f"{name}1") for name in ("shift", "size", "gate")],
        node("Add", "size1 unit", "gain"),
        node("Mul", "n gain", "scaled"),
        node("Add", "scaled shift1", "z"),
        *[node(n.op_type, " ".join(n.input).replace("x ", "z "), n.output[0],
               **({"perm": list(n.attribute[0].ints)} if n.attribute else {}))
          for n in projections()],
        *SCORES["causal"],
        node("Softmax", "a", "p", axis=-1),
        node("MatMul", "p v", "mixed"),
        node("Transpose", "mixed", "turned", perm=[0, 2, 1, 3]),
        node("Reshape", "turned flat", "joined"),
        node("MatMul", "joined wo", "o"),
        node("Mul", "o gate1", "gated"),
        node("Add", "x gated", "u"),
        node("MatMul", "u w1", "h1"),
        node("Gelu", "h1", "h2"),
        node("MatMul", "h2 w2", "h3"),
        node("Add", "u h3", "y"),
    ]  # fmt: skip
    constants = CONSTANTS | {
        "ones": np.ones(WIDTH),
        "unit": 1.0,
        "one": [1],
        "wm": RANDOM.standard_normal((4, 3 * WIDTH)),
        "bm": RANDOM.standard_normal(3 * WIDTH),
        "wo": RANDOM.standard_normal((WIDTH, WIDTH)),
        "w1": RANDOM.standard_normal((WIDTH, 10)),
        "w2": RANDOM.standard_normal((10, WIDTH)),
    }
    program = agree({**X, "c": ["K", 4]}, nodes, Y, constants, opset=20)
    assert "copy" not in kinds(program)
