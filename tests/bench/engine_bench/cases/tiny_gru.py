"""A GRU of 24 units, 1,024 candidates over 30 steps, float32: where calls cost more than products.

Its input is the action alone, so a general engine may run the whole sequence in its own GRU
operator: that is the best form here (`joined`).
"""

from __future__ import annotations

import numpy as np

from engine_bench.case import Case, StepFunction
from engine_bench.graph_writer import GraphWriter, Value

H, A, OUT = 24, 4, 4
CANDIDATES, HORIZON = 1024, 30


def rollout() -> Case:
    functions = _functions(False)
    h = np.tanh(np.random.default_rng(7).normal(0, 0.5, (1, H))).astype(np.float32)
    macs = functions["dynamics"].macs + functions["cost"].macs
    return Case(
        name="tiny-gru",
        title=f"GRU-{H}, {CANDIDATES:,} × {HORIZON}, fp32",
        work="rollout",
        functions=functions,
        rewritten=_functions(True),
        macs=CANDIDATES * HORIZON * macs,
        candidates=CANDIDATES,
        horizon=HORIZON,
        action=A,
        belief={"h": h},
        joined=_sequence(),
        int8=False,
    )


def _functions(rewritten: bool) -> dict[str, StepFunction]:
    w = GraphWriter(21, rewritten)
    h, action = w.input("h", (-1, H)), w.input("action", (-1, A))
    w.output("next_h", _gru(w, action, h))
    dynamics = w.function(f"h=belief.h:-1,{H} action=action:-1,{A}", f"next_h=belief.h:-1,{H}")
    w = GraphWriter(22)
    seen = w.dense(w.input("h", (-1, H)), OUT)
    square = w.node("Mul", seen, seen)
    w.output("cost", Value(w.node("ReduceMean", square, axes=[1], keepdims=1), 1))
    return {"dynamics": dynamics, "cost": w.function(f"h=belief.h:-1,{H}", "cost=cost.far:-1,1")}


def _sequence() -> bytes:
    """The whole rollout with one GRU operator; inputs and outputs as unroll.py writes them."""
    w = GraphWriter(22)
    actions = w.input("actions", (HORIZON, CANDIDATES, A))
    h = w.input("belief.h", (1, H))
    start = w.node(
        "Expand", w.node("Unsqueeze", h, w.constant([0])), w.constant([1, CANDIDATES, H])
    )
    weights = [w.constant(v[None]) for v in _weights()]
    every, last = w.node_of(
        "GRU", [actions, *weights, "", start], 2, hidden_size=H, linear_before_reset=1
    )
    seen = w.dense(w.reshape(Value(every, H), H), OUT)
    mean = w.node("ReduceMean", w.node("Mul", seen, seen), axes=[1], keepdims=1)
    steps = w.node("Reshape", mean, w.constant([HORIZON, CANDIDATES]))
    w.output("cost", Value(w.node("ReduceSum", steps, w.constant([0]), keepdims=0), 1))
    w.output("last.belief.h", Value(w.node("Squeeze", last, w.constant([0])), H))
    return w.function(
        "", f"cost=cost.far:{CANDIDATES} last.belief.h=belief.h:{CANDIDATES},{H}"
    ).blob


def _weights() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(3H, A), (3H, H) and (6H,): gates in ONNX's order: update, reset, new."""
    random = np.random.default_rng(23)
    kernel = random.normal(0, 1 / np.sqrt(A), (3 * H, A)).astype(np.float32)
    recurrent = random.normal(0, 1 / np.sqrt(H), (3 * H, H)).astype(np.float32)
    return kernel, recurrent, random.normal(0, 0.1, 6 * H).astype(np.float32)


def _gru(w: GraphWriter, x: Value, h: Value) -> Value:
    kernel, recurrent, bias = _weights()
    w.macs += 3 * H * (A + H)
    if not w.rewritten:
        first = w.constant([0])
        weights = [w.constant(v[None]) for v in (kernel, recurrent, bias)]
        lifted = [w.node("Unsqueeze", v, first) for v in (x, h)]
        outputs = w.node_of(
            "GRU", [lifted[0], *weights, "", lifted[1]], 2, hidden_size=H, linear_before_reset=1
        )
        return Value(w.node("Squeeze", outputs[1], first), H)
    sums = [
        Value(w.node("Gemm", v, w.constant(m), w.constant(b), transB=1), 3 * H)
        for v, m, b in ((x, kernel, bias[: 3 * H]), (h, recurrent, bias[3 * H :]))
    ]
    gates = [[w.columns(s, i * H, (i + 1) * H) for i in range(3)] for s in sums]
    update, reset = (w.node("Sigmoid", w.node("Add", gates[0][i], gates[1][i])) for i in range(2))
    new = w.node("Tanh", w.node("Add", gates[0][2], w.node("Mul", reset, gates[1][2])))
    away = w.node("Mul", update, w.node("Sub", h, new))
    return Value(w.node("Add", new, away), H)
