"""A JEPA predictor like LeWM's (Maes et al. 2026), planned by CEM over latents.

Six transformer blocks of width 192 over a history of three latents; each token is conditioned on
its action by AdaLN (Peebles and Xie 2023, "DiT": shift, scale and gate of both halves). Only the
last token is read, so the last block needs it alone, and the files say so.

The sizes are the issue's: 3 heads of 64 and an MLP of 768. LeWM's own configuration has 16 heads
of 64 and 2,048 (github.com/lucas-maes/le-wm, config/train/model/lewm.yaml): 2.7 times the work.

The belief is what the predictor remembers: the last two latents and actions, oldest first, and
the newest latent. The cost is the squared distance to the goal's latent.
"""

from __future__ import annotations

import numpy as np

from engine_bench.case import Case, Planning, StepFunction
from engine_bench.graph_writer import GraphWriter, Value

WIDTH, HEADS, MLP, BLOCKS, TOKENS, A = 192, 3, 768, 6, 3, 10
HORIZON = 5


def plan() -> Case:
    """300 candidates, 5 steps, 10 iterations, 30 elites."""
    functions, random = _functions(), np.random.default_rng(7)
    planning = Planning("cem", 300, 10, 30, std=(0.0, 0.5))
    rollouts = planning.candidates * planning.iterations
    return Case(
        name="jepa",
        title="JEPA predictor plan, 300 × 5 × 10",
        work="plan",
        functions=functions,
        rewritten=functions,
        macs=rollouts * HORIZON * functions["dynamics"].macs,
        candidates=planning.candidates,
        horizon=HORIZON,
        action=A,
        belief={
            "z": random.standard_normal((1, TOKENS, WIDTH), np.float32),
            "past": random.uniform(-1, 1, (1, TOKENS - 1, A)).astype(np.float32),
        },
        goals={"goal.latent": random.standard_normal((1, WIDTH), np.float32)},
        planning=planning,
    )


def _functions() -> dict[str, StepFunction]:
    w = GraphWriter(31)
    z, past = w.input("z", (-1, TOKENS, WIDTH)), w.input("past", (-1, TOKENS - 1, A))
    action = w.reshape(w.input("action", (-1, A)), 1, A)
    actions = Value(w.node("Concat", past, action, axis=1), A, TOKENS, flat=False)
    condition = w.silu(w.dense(w.silu(w.dense(actions, WIDTH)), WIDTH))
    place = w.weights(1, TOKENS, WIDTH, std=0.1)
    x = w.each("Add", z, place)
    for block in range(BLOCKS):
        x = _block(w, x, condition, last=block == BLOCKS - 1)
    new = w.dense(w.layer_norm(x), WIDTH)
    w.output("next_z", Value(w.node("Concat", _tokens(w, z, 1, TOKENS), new, axis=1), WIDTH))
    w.output("next_past", _tokens(w, actions, 1, TOKENS))
    dynamics = w.function(
        f"z=belief.z:-1,{TOKENS},{WIDTH} past=belief.past:-1,{TOKENS - 1},{A} action=action:-1,{A}",
        f"next_z=belief.z:-1,{TOKENS},{WIDTH} next_past=belief.past:-1,{TOKENS - 1},{A}",
    )
    w = GraphWriter(32)
    last = _tokens(w, w.input("z", (-1, TOKENS, WIDTH)), TOKENS - 1, TOKENS)
    away = w.node("Sub", w.reshape(last, WIDTH), w.input("goal", (-1, WIDTH)))
    square = w.node("Mul", away, away)
    w.output("cost", Value(w.node("ReduceMean", square, axes=[1], keepdims=1), 1))
    cost = w.function(
        f"z=belief.z:-1,{TOKENS},{WIDTH} goal=goal.latent:-1,{WIDTH}", "cost=cost.goal:-1,1"
    )
    return {"dynamics": dynamics, "cost": cost}


def _tokens(w: GraphWriter, x: Value, start: int, stop: int) -> Value:
    ends = [w.constant([n]) for n in (start, stop, 1)]
    return Value(w.node("Slice", x, *ends), x.width, stop - start, flat=False)


def _block(w: GraphWriter, x: Value, condition: Value, last: bool) -> Value:
    """Attention and MLP, each on normed, shifted and scaled tokens, each through a gate."""
    every = w.dense(condition, 6 * WIDTH, gain=0.5)
    shift, scale, gate, shift2, scale2, gate2 = (
        w.columns(every, i * WIDTH, (i + 1) * WIDTH) for i in range(6)
    )
    seen = _modulated(w, x, shift, scale)
    asking = _tokens(w, seen, TOKENS - 1, TOKENS) if last else seen
    if last:
        x, gate, shift2, scale2, gate2 = (
            _tokens(w, v, TOKENS - 1, TOKENS) for v in (x, gate, shift2, scale2, gate2)
        )
    q, k, v = w.dense(asking, WIDTH), w.dense(seen, WIDTH), w.dense(seen, WIDTH)
    told = w.dense(w.attention(q, k, v, HEADS, causal=True), WIDTH)
    x = w.each("Add", x, w.node("Mul", gate, told))
    inner = w.gelu(w.dense(_modulated(w, x, shift2, scale2), MLP))
    return w.each("Add", x, w.node("Mul", gate2, w.dense(inner, WIDTH)))


def _modulated(w: GraphWriter, x: Value, shift: Value, scale: Value) -> Value:
    more = w.node("Add", scale, w.constant(1.0))
    return w.each("Add", w.each("Mul", w.layer_norm(x, affine=False), more), shift)
