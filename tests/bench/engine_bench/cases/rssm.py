"""One step of a recurrent state-space model like DreamerV3's (Hafner et al. 2023), 256 rows.

    x  = silu(norm(W [stochastic, action]))           stochastic: 32 one-hot vectors of 32
    h' = GRU(x, h) of 512 units, layer norm on its sums, the update gate biased by -1
    logits = W silu(norm(W h')),  mixed with 1 % of the uniform distribution
    stochastic' = one-hot of the largest logit + Gumbel noise

The Gumbel noise is made of the standard normal `noise` (K, 1024): -log(-log(Phi(noise))).
"""

from __future__ import annotations

import numpy as np

from engine_bench.case import Case, StepFunction
from engine_bench.graph_writer import GraphWriter, Value

H, GROUPS, CLASSES, A, ROWS = 512, 32, 32, 6, 256
S = GROUPS * CLASSES


def step() -> Case:
    functions, random = _functions(), np.random.default_rng(7)
    stochastic = np.eye(CLASSES, dtype=np.float32)[random.integers(CLASSES, size=GROUPS)]
    return Case(
        name="rssm",
        title=f"RSSM step, GRU {H}, {GROUPS} × {CLASSES}, {ROWS} rows",
        work="rollout",
        functions=functions,
        rewritten=functions,
        macs=ROWS * sum(f.macs for f in functions.values()),
        candidates=ROWS,
        horizon=1,
        action=A,
        noise=S,
        belief={
            "h": np.tanh(random.normal(0, 0.5, (1, H))).astype(np.float32),
            "s": stochastic.reshape(1, S),
        },
    )


def _functions() -> dict[str, StepFunction]:
    w = GraphWriter(11)
    h, s = w.input("h", (-1, H)), w.input("s", (-1, S))
    action, noise = w.input("action", (-1, A)), w.input("noise", (-1, S))
    x = w.silu(w.layer_norm(w.dense(w.concat(s, action), H, gain=4.0)))
    sums = w.layer_norm(w.dense(w.concat(x, h), 3 * H, bias=False))
    reset = w.each("Sigmoid", w.columns(sums, 0, H))
    new = w.node("Tanh", w.node("Mul", reset, w.columns(sums, H, 2 * H)))
    update = w.node("Sigmoid", w.node("Sub", w.columns(sums, 2 * H, 3 * H), w.constant(1.0)))
    rest = w.node("Sub", w.constant(1.0), update)
    next_h = Value(w.node("Add", w.node("Mul", update, new), w.node("Mul", rest, h)), H)
    logits = w.dense(w.silu(w.layer_norm(w.dense(next_h, H))), S, gain=2.0)
    w.output("next_h", next_h)
    w.output("next_s", _one_hot_sample(w, logits, noise))
    dynamics = w.function(
        f"h=belief.h:-1,{H} s=belief.s:-1,{S} action=action:-1,{A} noise=noise:-1,{S}",
        f"next_h=belief.h:-1,{H} next_s=belief.s:-1,{S}",
    )
    w = GraphWriter(12)
    read = w.dense(w.concat(w.input("h", (-1, H)), w.input("s", (-1, S))), 1)
    w.output("cost", read)
    cost = w.function(f"h=belief.h:-1,{H} s=belief.s:-1,{S}", "cost=cost.reward:-1,1")
    return {"dynamics": dynamics, "cost": cost}


def _one_hot_sample(w: GraphWriter, logits: Value, noise: Value) -> Value:
    share = w.node("Softmax", w.reshape(logits, GROUPS, CLASSES), axis=-1)
    mixed = w.node("Mul", share, w.constant(0.99))
    mixed = w.node("Log", w.node("Add", mixed, w.constant(0.01 / CLASSES)))
    level = w.node("Clip", w.uniform(noise), w.constant(1e-6), w.constant(1 - 1e-6))
    gumbel = w.node("Neg", w.node("Log", w.node("Neg", w.node("Log", level))))
    perturbed = w.node("Add", mixed, w.reshape(Value(gumbel, S), GROUPS, CLASSES))
    best = w.node("ArgMax", perturbed, axis=-1, keepdims=0)
    values = w.constant(np.array([0, 1], np.float32))
    hot = w.node("OneHot", best, w.constant_of(np.int64(CLASSES)), values, axis=-1)
    return w.reshape(Value(hot, CLASSES, GROUPS, flat=False), S)
