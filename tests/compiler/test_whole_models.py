"""compiler: whole steps of known families of world models, small."""

from __future__ import annotations

import numpy as np

from compiler.graphs import agree, kinds, node

RANDOM = np.random.default_rng(8)


def weight(*shape):
    return RANDOM.standard_normal(shape) / np.sqrt(shape[-1])


def normed(name, x, after):
    """TD-MPC2's NormedLinear: a layer, layer norm, Mish."""
    return [
        node("Gemm", f"{x} {name}w {name}b", f"{name}1", transB=1),
        node("LayerNormalization", f"{name}1 {name}s {name}t", f"{name}2", axis=-1),
        node("Softplus", f"{name}2", f"{name}3"),
        node("Tanh", f"{name}3", f"{name}4"),
        node("Mul", f"{name}2 {name}4", after),
    ]


def normed_constants(name, size, inputs):
    return {
        f"{name}w": weight(size, inputs),
        f"{name}b": weight(size),
        f"{name}s": 1 + weight(size),
        f"{name}t": weight(size),
    }


def test_a_step_of_td_mpc2():
    """Latent and action, two normed layers, simplicial norm over groups of 8."""
    nodes = [
        node("Concat", "z action", "x", axis=-1),
        *normed("a", "x", "h"),
        *normed("b", "h", "k"),
        node("Gemm", "k wo bo", "o", transB=1),
        node("LayerNormalization", "o so to", "n", axis=-1),
        node("Reshape", "n groups", "g"),
        node("Softmax", "g", "s", axis=-1),
        node("Reshape", "s flat", "next"),
    ]
    constants = {
        **normed_constants("a", 32, 18),
        **normed_constants("b", 32, 32),
        "wo": weight(16, 32),
        "bo": weight(16),
        "so": 1 + weight(16),
        "to": weight(16),
        "groups": np.array([0, -1, 8]),
        "flat": np.array([0, 16]),
    }
    inputs = {"z": ["K", 16], "action": ["K", 2]}
    program = agree(inputs, nodes, {"next": ["K", 16]}, constants)
    layer = ["dense", "norm mish"]
    assert kinds(program) == [*layer, *layer, "dense", "norm", "softmax"]


def test_an_ensemble_of_values_as_two_hot_bins():
    """TD-MPC2's Q: five members on one input, then the expected value of a softmax over bins."""
    nodes = [
        node("Concat", "z action", "x", axis=-1),
        node("MatMul", "x w1", "h1"),  # (5, K, 12): the batch behind the members
        node("Add", "h1 b1", "h2"),
        node("LayerNormalization", "h2 one", "h3", axis=-1),
        node("Mul", "h3 s1", "h4"),
        node("Softplus", "h4", "p"),
        node("Tanh", "p", "t"),
        node("Mul", "h4 t", "h5"),
        node("MatMul", "h5 w2", "o1"),
        node("Add", "o1 b2", "o2"),
        node("Softmax", "o2", "o3", axis=-1),
        node("Mul", "o3 bins", "o4"),
        node("ReduceSum", "o4 last", "o5", keepdims=0),
        node("Neg", "o5", "o6"),
        node("ReduceMax", "o6", "value", axes=[0], keepdims=0),
    ]
    constants = {
        "w1": weight(5, 6, 12), "b1": weight(5, 1, 12), "one": np.ones(12),
        "s1": 1 + weight(5, 1, 12), "w2": weight(5, 12, 7), "b2": weight(5, 1, 7),
        "bins": np.linspace(-3, 3, 7), "last": [-1],
    }  # fmt: skip
    inputs = {"z": ["K", 4], "action": ["K", 2]}
    program = agree(inputs, nodes, {"value": ["K"]}, constants)
    assert kinds(program).count("dense") == 10


def test_a_step_of_a_recurrent_state_space_model():
    """DreamerV3: a GRU with layer norm, and a mode of 4 classes of 3 each as one-hot."""
    nodes = [
        node("Concat", "z action", "x", axis=-1),
        node("MatMul", "x w1", "x1"),
        node("Sigmoid", "x1", "x2"),
        node("Mul", "x1 x2", "x3"),
        node("Concat", "x3 h", "both", axis=-1),
        node("MatMul", "both wg", "g1"),
        node("LayerNormalization", "g1 sg tg", "g2", axis=-1),
        node("Split", "g2", "reset candidate update", axis=-1, num_outputs=3),
        node("Sigmoid", "reset", "r"),
        node("Mul", "r candidate", "rc"),
        node("Tanh", "rc", "c"),
        node("Sub", "update one", "u1"),
        node("Sigmoid", "u1", "u"),
        node("Mul", "u c", "uc"),
        node("Sub", "one u", "v"),
        node("Mul", "v h", "vh"),
        node("Add", "uc vh", "h_next"),
        node("Gemm", "h_next wp bp", "l1"),
        node("Reshape", "l1 classes", "l2"),
        node("ArgMax", "l2", "l3", axis=-1, keepdims=0),
        node("OneHot", "l3 depth values", "l4", axis=-1),
        node("Reshape", "l4 flat", "z_next"),
    ]
    constants = {
        "w1": weight(14, 8), "wg": weight(18, 30), "sg": 1 + weight(30), "tg": weight(30),
        "one": 1.0, "wp": weight(10, 12), "bp": weight(12), "classes": np.array([0, 4, 3]),
        "depth": np.array(3), "values": [0.0, 1.0], "flat": np.array([0, 12]),
    }  # fmt: skip
    inputs = {"z": ["K", 12], "action": ["K", 2], "h": ["K", 10]}
    outputs = {"h_next": ["K", 10], "z_next": ["K", 12]}
    program = agree(inputs, nodes, outputs, constants, opset=18)
    assert kinds(program)[:3] == ["dense silu", "dense", "norm"]
    assert "copy" not in kinds(program)
