"""What is benchmarked: a world model's functions, and the work that one measurement does.

A case is written twice: `functions` as an exporter writes them (Mish as Softplus, Tanh, Mul; the
LSTM operator), which is what a bundle holds and the native engine compiles, and `rewritten` as a
patient user of a general engine would have them. Both compute the same.

Axes: K candidates, H model steps, A numbers of an action, N numbers of noise of a step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_wm.bundle.manifest import Function, Input, Output
from edge_wm.types import Array


@dataclass(frozen=True)
class StepFunction:
    """One function of the world model: its ONNX file and what the manifest says of it."""

    blob: bytes = field(repr=False)
    spec: Function
    macs: int = 0  # multiply-adds of one row
    tflite: bytes = field(default=b"", repr=False)  # for a fixed batch; empty: there is none


@dataclass(frozen=True)
class Planning:
    """How a plan is made of rollouts; actions are the model's own numbers, from -1 to 1."""

    kind: Literal["mppi", "cem"]
    candidates: int  # K, the policy's among them
    iterations: int
    elites: int
    temperature: float = 0.5  # MPPI weighs an elite by exp((best - cost) * temperature)
    policy_candidates: int = 0
    std: tuple[float, float] = (0.05, 2.0)  # least and first spread


@dataclass(frozen=True)
class Case:
    """One row of the table.

    work: plan (`planning` says how), rollout (one of K candidates over H steps), or encode.
    belief: (1, ...) each, where every rollout starts. goals: source -> (1, ...).
    """

    name: str
    title: str
    work: Literal["plan", "rollout", "encode"]
    functions: Mapping[str, StepFunction]
    rewritten: Mapping[str, StepFunction]
    macs: int  # of one measurement
    candidates: int = 1
    horizon: int = 1
    action: int = 0  # A
    noise: int = 0  # N
    belief: Mapping[str, Array] = field(default_factory=dict)
    goals: Mapping[str, Array] = field(default_factory=dict)
    observation: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)  # of cost terms; 1 if not named
    planning: Planning | None = None
    step_s: float = 0.1  # what functions with an input `dt` get
    joined: bytes = field(default=b"", repr=False)  # a better whole rollout than `unroll` writes
    int8: bool = True  # False: the case is float32 by its nature

    def actions(self, seed: int) -> Array:
        """(H, K, A): random candidates."""
        shape = (self.horizon, self.candidates, self.action)
        return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)

    def noises(self, seed: int) -> Array:
        """(H, K, N): standard normal; drawn ahead, because it is an input of the model."""
        shape = (self.horizon, self.candidates, self.noise)
        return np.random.default_rng([seed, 1]).standard_normal(shape, np.float32)


def declared(inputs: str, outputs: str, blob: bytes) -> Function:
    """A manifest's function from "tensor=meaning:shape[:dtype]" words, as in "z=belief.z:-1,3"."""

    def words(text: str) -> list[tuple[str, str, tuple[int, ...], str]]:
        made = []
        for word in text.split():
            tensor, _, rest = word.partition("=")
            meaning, shape, dtype = [*rest.split(":"), "float32"][:3]
            made.append((tensor, meaning, tuple(int(n) for n in shape.split(",") if n), dtype))
        return made

    return Function(
        graphs={"onnx": hashlib.sha256(blob).hexdigest()},
        inputs=tuple(
            Input(tensor=t, source=m, shape=s, dtype=d)  # type: ignore[arg-type]
            for t, m, s, d in words(inputs)
        ),
        outputs=tuple(
            Output(tensor=t, target=m, shape=s, dtype=d)  # type: ignore[arg-type]
            for t, m, s, d in words(outputs)
        ),
    )
