"""A recurrent quadrotor policy (RAPTOR, PyPI's foundation-policy), from its HDF5 checkpoint.

    actor/layers/0   dense, ReLU   weights/parameters (N, 22)   biases/parameters (1, N)
    actor/layers/1   gru           weights_input, weights_hidden /parameters (3 N, N)
                                   biases_input, biases_hidden   /parameters (3 N,)
                                   initial_hidden_state          /parameters (N,), zeros
    actor/layers/2   dense, none   weights/parameters (4, N)    biases/parameters (1, 4)
    example          input (T, B, 22), output (T, B, 4): what the trainer's own code gave

The GRU's gates are in the order r, z, n, with the reset after the product:

    r, z = sigmoid(Wi x + bi + Wh h + bh)      n = tanh(Wi x + bi + r (Wh h + bh))
    h'   = z h + (1 - z) n

The 22 numbers are position error (3), rotation matrix (9, by rows), velocity (3), angular velocity
(3), and the last action (4), which the contract knows. The rest are the bundle's one stream. The
4 actions are rotor setpoints from -1 (slowest) to 1, 100 a second.

The example is run before anything is written: an import that does not reproduce it is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edge_wm.errors import CheckpointError
from edge_wm.importers.checkpoint import Checkpoint
from edge_wm.importers.graph_writer import GraphWriter
from edge_wm.importers.reading import read_checkpoint
from edge_wm.importers.spec import ImportedFunction, Port, write_spec
from edge_wm.types import Array, Float64

STATE, A = 18, 4
STEP_NS = 10_000_000
EXAMPLE_BOUND = 1e-4  # of the example's outputs: float32 on another machine over T steps

CARD = """# A recurrent quadrotor policy

Imported by `edge-wm import foundation-policy`. It adapts to the quadrotor that it flies by its
hidden state ({size} numbers). No dynamics: it acts, and imagines nothing.

| | |
|---|---|
| input | position error, m (3); rotation matrix (9); velocity, m/s (3); turning, rad/s (3) |
| actions | 4 rotor setpoints from -1 to 1, 100 a second |
| belief | hidden ({size}) |
| its own example | {steps} steps, reproduced within {error:.1g} |
| license | MIT (PyPI's foundation-policy) |

Limits: it must be updated once a step of 10 ms from a good state estimate; whoever flies it needs
a guard that knows the quadrotor.
"""


def import_foundation_policy(checkpoint: Path, folder: Path) -> None:
    """Write the spec of the policy into `folder`.

    Raises: CheckpointError, BackendError, SystemTroubleError.
    """
    weights, inputs, outputs = _read(read_checkpoint(checkpoint, "hdf5"))
    hidden, error, case = np.zeros((inputs.shape[1], weights.size)), 0.0, None
    for step, (x, wanted) in enumerate(zip(inputs, outputs, strict=True)):
        after = weights.remember(x, hidden)
        error = max(error, float(np.abs(weights.act(after) - wanted).max()))
        if step == len(inputs) // 2:
            case = (x, hidden, after)
        hidden = after
    if not error <= EXAMPLE_BOUND or case is None:
        raise CheckpointError(
            f"checkpoint {checkpoint.name}: must reproduce its own example within "
            f"{EXAMPLE_BOUND:g}, got {error:g}; weights and example are of different networks"
        )
    card = CARD.format(size=weights.size, steps=len(inputs), error=error)
    functions = {
        "encoder": _encoder(),
        "posterior": _posterior(weights, *case),
        "policy": _policy(weights, case[2]),
    }
    write_spec(folder, _manifest(weights.size, error), functions, card)


class Weights:
    """The three layers in float64, as plain arithmetic that the graphs are held against."""

    def __init__(self, layers: dict[str, Array]) -> None:
        self.__dict__.update({name: array.astype(np.float64) for name, array in layers.items()})
        self.size = len(layers["enter_bias"])

    enter: Float64
    enter_bias: Float64
    from_input: Float64
    from_input_bias: Float64
    from_hidden: Float64
    from_hidden_bias: Float64
    leave: Float64
    leave_bias: Float64

    def remember(self, x: Array, hidden: Array) -> Float64:
        """(B, 22), (B, N) -> the hidden state after it."""
        x = np.maximum(x @ self.enter.T + self.enter_bias, 0)
        given = x @ self.from_input.T + self.from_input_bias
        kept = hidden @ self.from_hidden.T + self.from_hidden_bias
        n = self.size
        r, z = (1 / (1 + np.exp(-(given + kept)[:, i * n : (i + 1) * n])) for i in (0, 1))
        new = np.tanh(given[:, 2 * n :] + r * kept[:, 2 * n :])
        after: Float64 = z * hidden + (1 - z) * new
        return after

    def act(self, hidden: Array) -> Float64:
        action: Float64 = hidden @ self.leave.T + self.leave_bias
        return action


def _read(c: Checkpoint) -> tuple[Weights, Array, Array]:
    layer = "actor/layers/{}"
    for number, kind in enumerate(("dense", "gru", "dense")):
        c.word(f"{layer.format(number)}.type", (kind,))
    c.word(f"{layer.format(0)}.activation_function", ("RELU",))
    c.word(f"{layer.format(2)}.activation_function", ("IDENTITY",))

    def name(number: int, part: str) -> str:
        return f"actor/layers/{number}/{part}/parameters"

    n = c.shape(name(0, "biases"))[-1]
    layers = {
        "enter": c.take(name(0, "weights"), n, STATE + A),
        "enter_bias": c.take(name(0, "biases"), 1, n)[0],
        "from_input": c.take(name(1, "weights_input"), 3 * n, n),
        "from_input_bias": c.take(name(1, "biases_input"), 3 * n),
        "from_hidden": c.take(name(1, "weights_hidden"), 3 * n, n),
        "from_hidden_bias": c.take(name(1, "biases_hidden"), 3 * n),
        "leave": c.take(name(2, "weights"), A, n),
        "leave_bias": c.take(name(2, "biases"), 1, A)[0],
    }
    start = name(1, "initial_hidden_state")
    if np.any(c.take(start, n)):
        raise CheckpointError(
            f"checkpoint {c.path.name}: tensor {start!r} must be zeros, as a belief begins, and is "
            "not; train with an initial state of zeros"
        )
    steps, batch = (*c.shape("example/input"), 1, 1)[:2]
    inputs = c.take("example/input", steps, batch, STATE + A)
    outputs = c.take("example/output", steps, batch, A)
    c.require_all_taken()
    return Weights(layers), inputs, outputs


# ---- functions ------------------------------------------------------------------------------
def _encoder() -> ImportedFunction:
    w = GraphWriter(rows=1)
    w.output("state", w.input("seen", STATE), STATE)
    return ImportedFunction(
        w.file(),
        (Port("seen", "observation.state", (1, STATE)),),
        (Port("state", "latent.state", (1, STATE)),),
    )


def _posterior(m: Weights, x: Array, hidden: Array, after: Array) -> ImportedFunction:
    n = m.size
    w = GraphWriter(rows=1)
    state, last = w.input("state", STATE), w.input("last_action", A)
    before = w.input("hidden", n)
    entered = w.do(
        "Relu", w.dense("enter", w.do("Concat", state, last, axis=1), m.enter, m.enter_bias)
    )

    def onnx_order(array: Array) -> Array:
        """r, z, n as ONNX has them: z, r, n."""
        return np.concatenate([array[n : 2 * n], array[:n], array[2 * n :]])

    first = w.constant([0])
    weights = (
        w.constant(onnx_order(m.from_input)[None], "gru.weight"),
        w.constant(onnx_order(m.from_hidden)[None], "gru.recurrent"),
        w.constant(
            np.concatenate([onnx_order(m.from_input_bias), onnx_order(m.from_hidden_bias)])[None],
            "gru.bias",
        ),
    )
    sequence = w.do("Unsqueeze", entered, first)
    kept = w.do("Unsqueeze", before, first)
    _, last_hidden = w.several(
        "GRU", sequence, *weights, "", kept, count=2, name="gru", hidden_size=n,
        linear_before_reset=1,
    )  # fmt: skip
    w.output("hidden_now", w.do("Squeeze", last_hidden, first), n)
    given = {"state": x[:1, :STATE], "last_action": x[:1, STATE:], "hidden": hidden[:1]}
    return ImportedFunction(
        w.file(),
        (
            Port("state", "latent.state", (1, STATE)),
            Port("last_action", "last_action", (1, A)),
            Port("hidden", "belief.hidden", (1, n)),
        ),
        (Port("hidden_now", "belief.hidden", (1, n)),),
        given,
        {"hidden_now": after[:1]},
    )


def _policy(m: Weights, hidden: Array) -> ImportedFunction:
    w = GraphWriter()
    w.output("action", w.dense("leave", w.input("hidden", m.size), m.leave, m.leave_bias), A)
    return ImportedFunction(
        w.file(),
        (Port("hidden", "belief.hidden", (-1, m.size)),),
        (Port("action", "action.mean", (-1, A)),),
        {"hidden": hidden},
        {"action": m.act(hidden)},
    )


def _manifest(size: int, error: float) -> dict[str, Any]:
    stream = {"type": "vector", "shape": [STATE], "dtype": "float32", "unit": "SI"}
    return {
        "name": "foundation_policy",
        "version": "1.0.0",
        "description": "A recurrent policy that flies quadrotors it has not seen (RAPTOR).",
        "license": "MIT",
        "needs": {
            "streams": {"state": stream},
            "axes": [
                {"name": f"rotor{i + 1}", "kind": "velocity", "unit": "1", "scale": 1.0}
                for i in range(A)
            ],
        },
        "step_ns": STEP_NS,
        "horizon": 1,
        "belief": [{"name": "hidden", "shape": [size]}],
        "accuracy_card": {"example_error": error},
    }
