"""The MDN-RNN of Ha and Schmidhuber 2018 ("World Models"), dreaming.

An LSTM over (z, action), then for each of the 32 numbers of z a mixture of 5 normals, of which
one number is drawn: the component by the inverse of its cumulative share, from noise. The cost is
a linear readout of (z, h), as the paper's controller is.

As exported it has the LSTM operator with a sequence of one; rewritten, its gates are one product,
which static quantization reaches and the operator is not.
"""

from __future__ import annotations

import numpy as np

from engine_bench.case import Case, StepFunction
from engine_bench.graph_writer import GraphWriter, Value

Z, A, MIXTURES = 32, 3, 5
CANDIDATES, HORIZON = 256, 16


def hidden_256() -> Case:
    return _case(256)


def hidden_512() -> Case:
    return _case(512)


def _case(hidden: int) -> Case:
    functions, random = _functions(hidden, False), np.random.default_rng(7)
    macs = functions["dynamics"].macs + functions["cost"].macs
    return Case(
        name=f"mdn-lstm-{hidden}",
        title=f"MDN-LSTM {hidden}, {CANDIDATES} × {HORIZON}",
        work="rollout",
        functions=functions,
        rewritten=_functions(hidden, True),
        macs=CANDIDATES * HORIZON * macs,
        candidates=CANDIDATES,
        horizon=HORIZON,
        action=A,
        noise=2 * Z,
        belief={
            "z": random.normal(0, 0.8, (1, Z)).astype(np.float32),
            "h": np.tanh(random.normal(0, 0.4, (1, hidden))).astype(np.float32),
            "c": random.normal(0, 0.6, (1, hidden)).astype(np.float32),
        },
    )


def _functions(hidden: int, rewritten: bool) -> dict[str, StepFunction]:
    w = GraphWriter(hidden, rewritten)
    z, action = w.input("z", (-1, Z)), w.input("action", (-1, A))
    h, c = w.input("h", (-1, hidden)), w.input("c", (-1, hidden))
    noise = w.input("noise", (-1, 2 * Z))
    new_h, new_c = _lstm(w, w.concat(z, action), h, c)
    w.output("next_z", _drawn(w, w.dense(new_h, 3 * MIXTURES * Z, gain=1.5), noise))
    w.output("next_h", new_h)
    w.output("next_c", new_c)
    dynamics = w.function(
        f"z=belief.z:-1,{Z} action=action:-1,{A} h=belief.h:-1,{hidden} "
        f"c=belief.c:-1,{hidden} noise=noise:-1,{2 * Z}",
        f"next_z=belief.z:-1,{Z} next_h=belief.h:-1,{hidden} next_c=belief.c:-1,{hidden}",
    )
    w = GraphWriter(hidden + 1)
    read = w.dense(w.concat(w.input("z", (-1, Z)), w.input("h", (-1, hidden))), 1)
    w.output("cost", w.each("Tanh", read))
    cost = w.function(f"z=belief.z:-1,{Z} h=belief.h:-1,{hidden}", "cost=cost.control:-1,1")
    return {"dynamics": dynamics, "cost": cost}


def _lstm(w: GraphWriter, x: Value, h: Value, c: Value) -> tuple[Value, Value]:
    """One step; gates in ONNX's order: input, output, forget, cell."""
    size, wide = h.width, x.width
    w.macs += 4 * size * (wide + size)
    random = np.random.default_rng(size + 2)
    kernel = random.normal(0, 1.5 / np.sqrt(wide), (4 * size, wide)).astype(np.float32)
    recurrent = random.normal(0, 1.5 / np.sqrt(size), (4 * size, size)).astype(np.float32)
    bias = random.normal(0, 0.1, 4 * size).astype(np.float32)
    if not w.rewritten:
        first, zero = w.constant([0]), np.zeros(4 * size, np.float32)
        states = [w.node("Unsqueeze", state, first) for state in (h, c)]
        name = w.node("Unsqueeze", x, first)
        weights = [w.constant(v[None]) for v in (kernel, recurrent, np.concatenate([bias, zero]))]
        outputs = w.node_of("LSTM", [name, *weights, "", *states], 3, hidden_size=size)
        return tuple(Value(w.node("Squeeze", o, first), size) for o in outputs[1:])  # type: ignore
    sums = Value(w.node("Gemm", w.concat(x, h), w.constant(np.hstack([kernel, recurrent])),
                        w.constant(bias), transB=1), 4 * size)  # fmt: skip
    part = [w.columns(sums, i * size, (i + 1) * size) for i in range(4)]
    enter, leave, keep = (w.each("Sigmoid", p) for p in part[:3])
    kept = w.node("Mul", keep, c)
    new_c = Value(w.node("Add", kept, w.node("Mul", enter, w.node("Tanh", part[3]))), size)
    return w.each("Mul", leave, w.node("Tanh", new_c)), new_c


def _drawn(w: GraphWriter, numbers: Value, noise: Value) -> Value:
    """One sample of each of the Z mixtures. numbers: shares, means, log spreads, M by Z each.

    The component is the first whose cumulative share exceeds u: comparisons and a chain of Where.
    """

    def group(kind: int) -> list[Value]:
        first = kind * MIXTURES * Z
        return [w.columns(numbers, first + m * Z, first + (m + 1) * Z) for m in range(MIXTURES)]

    logits, means, spreads = group(0), group(1), group(2)
    most = w.node("Max", *logits)
    powers = [w.node("Exp", w.node("Sub", logit, most)) for logit in logits]
    reached = [powers[0]]
    for power in powers[1:]:
        reached.append(w.node("Add", reached[-1], power))
    level = w.node("Mul", w.uniform(w.columns(noise, 0, Z)), reached[-1])
    mean, spread = means[-1].name, spreads[-1].name
    for m in reversed(range(MIXTURES - 1)):
        chosen = w.node("Greater", reached[m], level)
        mean, spread = (
            w.node("Where", chosen, means[m], mean),
            w.node("Where", chosen, spreads[m], spread),
        )
    small = w.node("Exp", w.node("Min", w.node("Mul", spread, w.constant(0.3)), w.constant(0.0)))
    away = w.node("Mul", small, w.columns(noise, Z, 2 * Z))
    return Value(w.node("Add", mean, w.node("Mul", away, w.constant(0.5))), Z)
