"""compiler: one step of LSTM and GRU, and attention."""

from __future__ import annotations

import math

import numpy as np
import pytest

from compiler.graphs import agree, kinds, node
from edge_wm.errors import UnsupportedOperation

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


def gru_cell(order="rzn"):
    """As PyTorch exports nn.GRUCell; `order` of the gates."""
    return [
        node("Gemm", "x wx bx", "gx", transB=1),
        node("Gemm", "h wh bh", "gh", transB=1),
        node("Split", "gx", " ".join(f"x{gate}" for gate in order), axis=1, num_outputs=3),
        node("Split", "gh", " ".join(f"h{gate}" for gate in order), axis=1, num_outputs=3),
        node("Add", "hr xr", "ar"),
        node("Sigmoid", "ar", "r"),
        node("Add", "xz hz", "az"),
        node("Sigmoid", "az", "z"),
        node("Mul", "r hn", "rh"),
        node("Add", "xn rh", "an"),
        node("Tanh", "an", "n"),
        node("Sub", "h n", "d"),
        node("Mul", "d z", "zd"),
        node("Add", "zd n", "y"),
    ]


def cell_constants(gates):
    return {
        "wx": RANDOM.standard_normal((gates * SIZE, INPUTS)),
        "wh": RANDOM.standard_normal((gates * SIZE, SIZE)),
        "bx": RANDOM.standard_normal(gates * SIZE),
        "bh": RANDOM.standard_normal(gates * SIZE),
        "one": 1.0,
    }


CELL = {"x": ["K", INPUTS], "h": ["K", SIZE]}


@pytest.mark.parametrize("order", ["rzn", "zrn"])
def test_a_gru_cell_taken_apart_is_one_operation(order):
    program = agree(CELL, gru_cell(order), {"y": ["K", SIZE]}, cell_constants(3), opset=18)
    assert kinds(program) == ["dense", "dense", "gru"]
    assert program.operations[-1].order == order


@pytest.mark.parametrize(
    "change",
    [
        {"Add hr xr": "Add hr hz"},  # both of the state
        {"Add hr xr": "Add hr xz"},  # two different parts
        {"Sub h n": "Sub n h"},
        {"Add zd n": "Add zd h"},
        {"Mul r hn": "Mul r xn"},
        {"Sigmoid az": "Tanh az"},
    ],
)
def test_what_looks_like_a_gru_cell_stays_as_it_is(change):
    ((before, after),) = change.items()
    nodes = []
    for each in gru_cell():
        if " ".join([each.op_type, *each.input]) == before:
            operator, _, inputs = after.partition(" ")
            each = node(operator, inputs, each.output[0])
        nodes.append(each)
    program = agree(CELL, nodes, {"y": ["K", SIZE]}, cell_constants(3), opset=18)
    assert "gru" not in kinds(program)


def test_a_gru_of_another_order_or_form_is_still_right():
    program = agree(CELL, gru_cell("nrz"), {"y": ["K", SIZE]}, cell_constants(3), opset=18)
    assert "gru" not in kinds(program)
    nodes = [
        *gru_cell()[:11],
        node("Sub", "one z", "keep"),
        node("Mul", "keep n", "kn"),
        node("Mul", "z h", "zh"),
        node("Add", "kn zh", "y"),
    ]
    agree(CELL, nodes, {"y": ["K", SIZE]}, cell_constants(3), opset=18)


def lstm_cell(order="ifgo"):
    return [
        node("Gemm", "x wx bx", "gx", transB=1),
        node("Gemm", "h wh bh", "gh", transB=1),
        node("Add", "gx gh", "sum"),
        node("Split", "sum", " ".join(order), axis=1, num_outputs=4),
        *[node("Sigmoid", name, f"s{name}") for name in "ifo"],
        node("Tanh", "g", "tg"),
        node("Mul", "sf c", "kept"),
        node("Mul", "si tg", "new"),
        node("Add", "kept new", "c_next"),
        node("Tanh", "c_next", "tc"),
        node("Mul", "so tc", "h_next"),
        node("Add", "c_next h_next", "both"),
    ]


@pytest.mark.parametrize("order", ["ifgo", "igfo", "iofg", "fiog"])
def test_an_lstm_cell_taken_apart_is_one_operation(order):
    """In the orders of PyTorch, TensorFlow and ONNX; in another, it is what it was."""
    inputs = {**CELL, "c": ["K", SIZE]}
    outputs = {name: ["K", SIZE] for name in ("h_next", "c_next", "both")}
    program = agree(inputs, lstm_cell(order), outputs, cell_constants(4), opset=18)
    if order == "fiog":
        assert "lstm" not in kinds(program)
    else:
        assert kinds(program) == ["dense", "lstm", "binary add"]
        assert program.operations[1].order == order


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


def test_attention_with_queries_and_keys_scaled_apart():
    """As PyTorch exports scaled_dot_product_attention."""
    nodes = [
        *projections(),
        node("Mul", "q half", "q3"),
        node("Mul", "k half", "k3"),
        node("MatMul", "q3 k3", "a"),
        node("Softmax", "a", "p", axis=-1),
        node("MatMul", "p v", "mixed"),
        *OUT,
    ]
    program = agree(X, nodes, Y, CONSTANTS | {"half": 0.5})
    assert kinds(program) == ["dense", "dense", "dense", "attention"]
    assert program.operations[-1].scale == 0.25


@pytest.mark.parametrize("mask", [np.triu(np.ones((4, 4))), np.eye(4)])
def test_another_mask_is_refused(mask):
    nodes = [
        *projections(),
        node("MatMul", "q k", "s"),
        node("Add", "s other", "a"),
        node("Softmax", "a", "p", axis=-1),
        node("MatMul", "p v", "mixed"),
        *OUT,
    ]
    other = np.where(mask > 0, 0, -1e9)
    with pytest.raises(UnsupportedOperation, match="'s': MatMul is not among"):
        agree(X, nodes, Y, CONSTANTS | {"other": other})


def test_a_layer_on_tokens_with_the_batch_behind_them():
    """As PyTorch's nn.MultiheadAttention ends: (T, K, E) as rows (T K, E), and back."""
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node("Reshape", "t rows", "r"),
        node("Gemm", "r w", "g"),
        node("Reshape", "g back", "b"),
        node("Transpose", "b", "y", perm=[1, 0, 2]),
    ]
    constants = {
        "rows": np.array([-1, WIDTH]),
        "w": RANDOM.standard_normal((WIDTH, 3)),
        "back": np.array([TOKENS, -1, 3]),
    }
    program = agree(X, nodes, {"y": ["K", TOKENS, 3]}, constants)
    assert kinds(program) == ["dense"]
