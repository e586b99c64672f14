"""Ha and Schmidhuber's CarRacing world model (2018): M and C, from the paper's own JSON files.

    folder/rnn.json                           M, all weights as integers, 10,000 to one
      "0"  (256, 480)  output kernel            "1"  (480,)  output bias
      "2"  (291, 1024) LSTM kernel              "3"  (1024,) LSTM bias
    folder/carracing.cma.16.64.best.json      C, and the score it was kept for
      "0"  (867,)      3 biases, then (288, 3)  "1"  ()

M is TensorFlow's LSTM cell over [z (32), a (3)] and h (256): gates in the order i, j (the new
content), f, o, with 1 added to f. Its output is, for each of the 32 numbers of z, 5 logits, 5
means and 5 log spreads. One step of the dream (appendix A of the paper, and its sampling code):

    h, c   = LSTM([z, a], h, c)
    k      ~ softmax(logits / temperature)
    z'     = mean_k + exp(log_spread_k) sqrt(temperature) n,   n ~ N(0, 1)

Both draws come from given standard normal noise, (64,): the first 32 are made uniform by the
normal distribution's own function and choose the components, the other 32 are n. So a dream can be
replayed, in any number of candidates at once.

C acts on [z, h]: a = tanh(W [z, h] + b); gas is (a1 + 1) / 2, braking is a2 from 0 to 1.

V is not among these files: the bundle's stream is the z that it would give. There is no reward
head either, so there is no cost: the bundle imagines, and acts by C.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from edge_wm.errors import UsageError
from edge_wm.importers.graph_writer import GraphWriter
from edge_wm.importers.reading import read_checkpoint
from edge_wm.importers.spec import ImportedFunction, Port, write_spec
from edge_wm.types import Array, Float64

Z, A, H, MIXTURES = 32, 3, 256, 5
UNIT = 10_000  # of M's integers
FILES = ("rnn.json", "carracing.cma.16.64.best.json")
STEP_NS = 20_000_000  # CarRacing-v0 runs at 50 frames a second
HORIZON = 50
ROWS = 8  # of the reference cases

CARD = """# CarRacing, Ha and Schmidhuber 2018: M and C

Imported by `edge-wm import ha-carracing`, temperature {temperature:g}. Original weights: hardmaru's
WorldModelsExperiments on GitHub.
C was kept for a score of {score:.1f} in CarRacing-v0 (the paper reports 906 ± 21 over 100 trials).

| | |
|---|---|
| input | z (32), the latent of the paper's V, which is not part of this bundle |
| actions | steering -1 to 1, gas 0 to 1, brake 0 to 1; 50 a second |
| belief | z (32), LSTM h (256) and c (256) |
| parameters | M 422,368, C 867 |
| license | none is stated at their origin: for your own tests only, do not pass them on |

Limits: no V, so no images; no reward head, so nothing to plan by. The first belief has had one
step on zeros, where the original starts with h = 0.
"""


def import_ha_carracing(checkpoint: Path, folder: Path, temperature: float) -> None:
    """Write the spec of M and C into `folder`.

    checkpoint: the folder that holds both files. temperature: of the dream, above 0.

    Raises: CheckpointError, UsageError, BackendError, SystemTroubleError.
    """
    if not checkpoint.is_dir():
        raise UsageError(
            f"{checkpoint} must be a folder with {' and '.join(FILES)}, and is not; name it"
        )
    if not (math.isfinite(temperature) and temperature > 0):
        raise UsageError(f"--temperature must be finite and above 0, got {temperature:g}")
    model, score = _read(checkpoint)
    write_spec(
        folder,
        _manifest(temperature),
        {
            "encoder": _encoder(),
            "posterior": _posterior(model),
            "dynamics": _dynamics(model, temperature),
            "policy": _policy(model),
        },
        CARD.format(temperature=temperature, score=score),
    )


class Weights:
    """M and C in float64, as plain arithmetic that the graphs are held against."""

    def __init__(
        self, kernel: Array, bias: Array, output: Array, output_bias: Array, controller: Array
    ) -> None:
        self.kernel, self.bias = kernel, bias  # (35 + 256, 1024), (1024,): i, j, f, o
        self.output = output.reshape(H, Z, 3, MIXTURES)
        self.output_bias = output_bias.reshape(Z, 3, MIXTURES)
        self.control_bias = controller[:A]
        self.control = controller[A:].reshape(Z + H, A)

    def cell(self, z: Array, a: Array, h: Array, c: Array) -> tuple[Float64, Float64]:
        """h and c after one step, (K, 256) each."""
        gates = np.concatenate([z, a, h], axis=1).astype(np.float64) @ self.kernel + self.bias
        i, j, f, o = np.split(gates, 4, axis=1)
        after = c * _sigmoid(f + 1.0) + _sigmoid(i) * np.tanh(j)
        return np.tanh(after) * _sigmoid(o), after

    def drawn(self, h: Array, noise: Array, temperature: float) -> Float64:
        """z (K, 32) from h and noise (K, 64)."""
        mixture = np.tensordot(h, self.output, 1) + self.output_bias  # (K, Z, 3, 5)
        logits = mixture[:, :, 0] / temperature
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        reached = np.cumsum(shares, axis=2)
        chance = 0.5 + 0.5 * np.vectorize(math.erf)(noise[:, :Z] / math.sqrt(2.0))
        chosen = (reached[:, :, :-1] <= (chance * reached[:, :, -1])[:, :, None]).sum(axis=2)
        mean, spread = (
            np.take_along_axis(mixture[:, :, kind], chosen[:, :, None], 2)[:, :, 0]
            for kind in (1, 2)
        )
        sample: Float64 = mean + np.exp(spread) * math.sqrt(temperature) * noise[:, Z:]
        return sample

    def acts(self, z: Array, h: Array) -> Float64:
        """(K, 3): steering, gas, brake."""
        a = np.tanh(np.concatenate([z, h], axis=1) @ self.control + self.control_bias)
        return np.stack([a[:, 0], (a[:, 1] + 1) / 2, np.clip(a[:, 2], 0, 1)], axis=1)


def _sigmoid(x: Float64) -> Float64:
    return 1.0 / (1.0 + np.exp(-x))


def _read(folder: Path) -> tuple[Weights, float]:
    rnn = read_checkpoint(folder / FILES[0], "json")
    numbers = 3 * MIXTURES * Z
    output, output_bias = rnn.take("0", H, numbers), rnn.take("1", numbers)
    kernel, bias = rnn.take("2", Z + A + H, 4 * H), rnn.take("3", 4 * H)
    rnn.require_all_taken()
    best = read_checkpoint(folder / FILES[1], "json")
    controller, score = best.take("0", A + (Z + H) * A), best.take("1")
    best.require_all_taken()
    weights = Weights(kernel / UNIT, bias / UNIT, output / UNIT, output_bias / UNIT, controller)
    return weights, float(score)


# ---- functions ------------------------------------------------------------------------------
def _encoder() -> ImportedFunction:
    """The stream as it is: what V would have given."""
    w = GraphWriter(rows=1)
    w.output("z", w.input("seen", Z), Z)
    return ImportedFunction(
        w.file(),
        (Port("seen", "observation.z", (1, Z)),),
        (Port("z", "latent.z", (1, Z)),),
    )


def _lstm(w: GraphWriter, m: Weights, z: str, a: str, h: str, c: str) -> tuple[str, str]:
    """TensorFlow's cell, its columns put in the order i, f, o, j and its 1 into the bias of f."""
    i, j, f, o = (slice(n * H, (n + 1) * H) for n in range(4))
    order = np.r_[i, f, o, j]
    bias = m.bias + np.repeat([0.0, 0.0, 1.0, 0.0], H)
    x = w.do("Concat", z, a, h, axis=1)
    gates = w.dense("lstm", x, m.kernel[:, order].T, bias[order])
    sizes = w.constant([H, H, H, H])
    enter, keep, leave, new = w.several("Split", gates, sizes, count=4, axis=1)
    kept = w.do("Mul", w.do("Sigmoid", keep), c)
    added = w.do("Mul", w.do("Sigmoid", enter), w.do("Tanh", new))
    after = w.do("Add", kept, added)
    return w.do("Mul", w.do("Sigmoid", leave), w.do("Tanh", after)), after


def _drawn(w: GraphWriter, m: Weights, h: str, noise: str, temperature: float) -> str:
    """One sample of each mixture: the first component whose cumulative share exceeds chance."""
    kinds = 3 * MIXTURES * Z
    # Columns by kind and component, so that each of the 15 is one slice of all z.
    weight = m.output.transpose(0, 2, 3, 1).reshape(H, kinds).T
    bias = m.output_bias.transpose(1, 2, 0).reshape(kinds)
    numbers = w.dense("mixture", h, weight, bias)
    parts = w.several(
        "Split", numbers, w.constant([Z] * (3 * MIXTURES)), count=3 * MIXTURES, axis=1
    )
    logits, means, spreads = (parts[n * MIXTURES : (n + 1) * MIXTURES] for n in range(3))
    warmth = w.constant(1.0 / temperature)
    most = w.do("Max", *logits)
    shares = [w.do("Exp", w.do("Mul", w.do("Sub", x, most), warmth)) for x in logits]
    reached = [shares[0]]
    for share in shares[1:]:
        reached.append(w.do("Add", reached[-1], share))
    erf = w.do("Erf", w.do("Mul", w.columns(noise, 0, Z), w.constant(1.0 / math.sqrt(2.0))))
    half = w.constant(0.5)
    chance = w.do("Add", w.do("Mul", erf, half), half)
    level = w.do("Mul", chance, reached[-1])
    mean, spread = means[-1], spreads[-1]
    for component in reversed(range(MIXTURES - 1)):
        chosen = w.do("Greater", reached[component], level)
        mean = w.do("Where", chosen, means[component], mean)
        spread = w.do("Where", chosen, spreads[component], spread)
    width = w.do("Mul", w.do("Exp", spread), w.constant(math.sqrt(temperature)))
    return w.do("Add", mean, w.do("Mul", width, w.columns(noise, Z, 2 * Z)))


def _case(*widths: int) -> list[Array]:
    """Plausible inputs (ROWS, width) each, the same every time."""
    random = np.random.default_rng(0)
    return [np.tanh(random.standard_normal((ROWS, width))).astype(np.float32) for width in widths]


def _dynamics(m: Weights, temperature: float) -> ImportedFunction:
    w = GraphWriter()
    widths = {"z": Z, "h": H, "c": H, "action": A, "noise": 2 * Z}
    z, h, c, action, noise = (w.input(name, width) for name, width in widths.items())
    new_h, new_c = _lstm(w, m, z, action, h, c)
    w.output("z_next", _drawn(w, m, new_h, noise, temperature), Z)
    w.output("h_next", new_h, H)
    w.output("c_next", new_c, H)
    given = dict(zip(widths, _case(*widths.values()), strict=True))
    after_h, after_c = m.cell(given["z"], given["action"], given["h"], given["c"])
    after_z = m.drawn(after_h, given["noise"], temperature)
    belief = ("z", "h", "c")
    return ImportedFunction(
        w.file(),
        tuple(
            Port(name, f"belief.{name}" if name in belief else name, (-1, width))
            for name, width in widths.items()
        ),
        tuple(Port(f"{name}_next", f"belief.{name}", (-1, widths[name])) for name in belief),
        given,
        {"z_next": after_z, "h_next": after_h, "c_next": after_c},
    )


def _posterior(m: Weights) -> ImportedFunction:
    """h and c from what was believed and done; z is what is seen."""
    w = GraphWriter(rows=1)
    widths = {"seen": Z, "z": Z, "h": H, "c": H, "last_action": A}
    seen, z, h, c, action = (w.input(name, width) for name, width in widths.items())
    new_h, new_c = _lstm(w, m, z, action, h, c)
    for name, value, width in (("z_now", seen, Z), ("h_now", new_h, H), ("c_now", new_c, H)):
        w.output(name, value, width)
    given = {n: v[:1] for n, v in zip(widths, _case(*widths.values()), strict=True)}
    after_h, after_c = m.cell(given["z"], given["last_action"], given["h"], given["c"])
    words = ("latent.z", "belief.z", "belief.h", "belief.c", "last_action")
    return ImportedFunction(
        w.file(),
        tuple(Port(n, word, (1, widths[n])) for n, word in zip(widths, words, strict=True)),
        tuple(Port(f"{n}_now", f"belief.{n}", (1, widths[n])) for n in ("z", "h", "c")),
        given,
        {"z_now": given["seen"], "h_now": after_h, "c_now": after_c},
    )


def _policy(m: Weights) -> ImportedFunction:
    w = GraphWriter()
    z, h = w.input("z", Z), w.input("h", H)
    x = w.do("Concat", z, h, axis=1)
    a = w.do("Tanh", w.dense("controller", x, m.control.T, m.control_bias))
    steering, gas, brake = w.several("Split", a, w.constant([1, 1, 1]), count=3, axis=1)
    half = w.constant(0.5)
    gas = w.do("Add", w.do("Mul", gas, half), half)
    brake = w.do("Clip", brake, w.constant(0.0), w.constant(1.0))
    w.output("action", w.do("Concat", steering, gas, brake, axis=1), A)
    given = dict(zip(("z", "h"), _case(Z, H), strict=True))
    return ImportedFunction(
        w.file(),
        (Port("z", "belief.z", (-1, Z)), Port("h", "belief.h", (-1, H))),
        (Port("action", "action.mean", (-1, A)),),
        given,
        {"action": m.acts(given["z"], given["h"])},
    )


def _manifest(temperature: float) -> dict[str, Any]:
    axes = ("steering", "gas", "brake")
    return {
        "name": "ha_carracing",
        "version": "1.0.0",
        "description": "Ha and Schmidhuber's CarRacing M and C (2018), dreaming at temperature "
        f"{temperature:g}.",
        "license": "none stated; not to be passed on",
        "needs": {
            "streams": {"z": {"type": "vector", "shape": [Z], "dtype": "float32", "unit": "1"}},
            "axes": [{"name": n, "kind": "position", "unit": "1", "scale": 1.0} for n in axes],
        },
        "step_ns": STEP_NS,
        "horizon": HORIZON,
        "belief": [{"name": "z", "shape": [Z]}, {"name": "h", "shape": [H]},
                   {"name": "c", "shape": [H]}],
        "accuracy_card": {"temperature": temperature},
    }  # fmt: skip
