"""Write the arm's equations of motion as a bundle: no data, no training.

    python zoo/arm_analytic/export.py --out zoo/arm_analytic/work
    edge-wm bundle build zoo/arm_analytic/work --out arm.wmb

Each function of the world-model contract becomes an ONNX graph of equations.py, with the masses,
motors and friction of the simulated arm (edge_wm/simulation/arm.py) and the limits and regions of
robots/arm.yaml. The reference outputs are the same equations computed by numpy in float64.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equations as eq
import numpy as np
import yaml
from graphs import Graph, side_by_side, sqrt

from edge_wm.robot import Robot, find_robot, load_robot

STEP_S = 0.1
HORIZON = 10
DT_S = (0.01, STEP_S)
BELIEF = {"position": 2, "velocity": 2, "command": 2, "command_velocity": 2, "pose": 3}
COMFORT = 0.06  # m: nearer to post or walls than this costs something
LEAST_CLEARANCE = 0.02  # m: setpoints do not come nearer; the guard refuses them below 0
LEAST_BRAKING_CLEARANCE = 0.01  # m: nor where they could be braked to
COST_TERMS = {  # name: (weight, least, most, meaning)
    "goal": (0.15, 0.0, 10.0, "distance of the joints to the goal, rad, at every step"),
    "clearance": (0.5, 0.0, 10.0, "lack of clearance below 0.06 m, squared, 0 to 1"),
    "speed": (0.002, 0.0, 1.0, "square of the joints' speeds, (rad/s)^2"),
    "stretch": (1.0, 0.0, 10.0, "asking for more than the setpoint can follow, rad^2"),
    "value": (3.0, 0.0, 50.0, "distance to the goal, rad, of where it would come to rest"),
}
PLANNER = {
    "kind": "mppi",
    "candidates": 96,
    "iterations": 3,
    "elites": 16,
    "noise_std": [0.25, 0.35],
    "temperature": 0.1,
    "noise_beta": 2.0,
    "momentum": 0.1,
}
TOLERANCE = 2e-4  # of the reference outputs: float32 against float64


# ---- the functions, for graphs and for numpy ---------------------------------------------
def dynamics(arm: eq.Arm, q, v, c, w, action, dt):
    q, v, c, w = eq.step(arm, q, v, c, w, action, dt)
    return q, v, c, w, eq.tool(arm, q)


def distance(q, goal):
    """(K, 1) rad, smooth at the goal."""
    away = q - goal
    return sqrt((away * away) @ np.ones((2, 1)) + 1e-6)


def cost(arm: eq.Arm, q, v, c, w, action, goal):
    lack = eq.clip(eq.clearance(arm, c) * (-1.0 / COMFORT) + 1.0, 0.0, 1.0)
    ahead = action - c
    both = np.ones((2, 1))
    return distance(q, goal), lack * lack, (v * v) @ both, (ahead * ahead) @ both


def constraint(arm: eq.Arm, c, w):
    near = LEAST_CLEARANCE - eq.clearance(arm, c)
    return side_by_side([near, LEAST_BRAKING_CLEARANCE - eq.clearance(arm, eq.at_rest(arm, c, w))])


def value(arm: eq.Arm, c, w, goal):
    return distance(eq.at_rest(arm, c, w), goal)


def posterior(arm: eq.Arm, position, velocity, last_action):
    """The setpoint moves with the joints, which follow it within some 20 ms."""
    return position, velocity, last_action, velocity, eq.tool(arm, position)


# ---- graphs and manifest --------------------------------------------------------------------
SOURCES = {"action": "action", "dt": "dt", "goal": "goal.joints", "last_action": "last_action"}
SHORT = {"position": "q", "velocity": "v", "command": "c", "command_velocity": "w"}
STATE = tuple(SHORT)


class Function:
    """One function: its graph, its manifest entry and a reference case."""

    def __init__(
        self,
        compute: Callable[..., Any],
        inputs: dict[str, tuple[str, int]],  # tensor -> (source, width)
        outputs: dict[str, tuple[str, int]],  # tensor -> (target, width)
        batch: int,
    ) -> None:
        self._compute, self._inputs, self._outputs = compute, inputs, outputs
        self._batch = batch

    def onnx(self) -> bytes:
        graph = Graph()
        rows: int | str = "K" if self._batch == -1 else self._batch
        values = [graph.input(n, width, batch=rows) for n, (_, width) in self._inputs.items()]
        for (name, (_, width)), found in zip(
            self._outputs.items(), _several(self._compute(*values)), strict=True
        ):
            graph.output(name, found, width, batch=rows)
        return graph.onnx()

    def entry(self, name: str) -> dict[str, Any]:
        def tensors(found: dict[str, tuple[str, int]], key: str) -> list[dict[str, Any]]:
            return [
                {"tensor": tensor, key: word, "shape": [self._batch, width], "dtype": "float32"}
                for tensor, (word, width) in found.items()
            ]

        return {
            "graphs": {"onnx": f"{name}.onnx"},
            "inputs": tensors(self._inputs, "source"),
            "outputs": tensors(self._outputs, "target"),
        }

    def reference(self, generator: np.random.Generator) -> tuple[dict, dict]:
        """Inputs that an arm can be in, float32, and the outputs in float64, cut to float32."""
        rows = 32 if self._batch == -1 else self._batch
        inputs = {}
        for name, (source, width) in self._inputs.items():
            if source == "dt":
                drawn = generator.uniform(*DT_S, (rows, width))
            elif "velocity" in name:
                drawn = generator.uniform(-2.0, 2.0, (rows, width))
            else:
                drawn = generator.uniform(-2.2, 2.2, (rows, width))
            inputs[name] = drawn.astype(np.float32)
        if "action" in inputs:  # near where the arm is, as plans are
            for name in ("command", "action"):
                near = 0.2 * generator.standard_normal((rows, 2))
                inputs[name] = (inputs["position"] + near).astype(np.float32)
        plain = _several(self._compute(*(x.astype(np.float64) for x in inputs.values())))
        names = zip(self._outputs, plain, strict=True)
        return inputs, {name: found.astype(np.float32) for name, found in names}


def _several(found: Any) -> tuple[Any, ...]:
    return found if isinstance(found, tuple) else (found,)


def functions(arm: eq.Arm) -> dict[str, Function]:
    state = {name: (f"belief.{name}", 2) for name in STATE}
    command = {name: state[name] for name in ("command", "command_velocity")}
    after = {f"{name}_next": (f"belief.{name}", width) for name, width in BELIEF.items()}
    now = {f"{name}_now": (f"belief.{name}", width) for name, width in BELIEF.items()}
    goal = {"goal": ("goal.joints", 2)}

    def bound(compute: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *values: compute(arm, *values)

    return {
        "posterior": Function(
            bound(posterior),
            {
                "joint_position": ("latent.position", 2),
                "joint_velocity": ("latent.velocity", 2),
                "last_action": ("last_action", 2),
            },
            now,
            1,
        ),
        "dynamics": Function(
            bound(dynamics), state | {"action": ("action", 2), "dt": ("dt", 1)}, after, -1
        ),
        "cost": Function(
            bound(cost),
            state | {"action": ("action", 2)} | goal,
            {f"{name}_cost": (f"cost.{name}", 1) for name in COST_TERMS if name != "value"},
            -1,
        ),
        "constraint": Function(bound(constraint), command, {"near": ("constraint", 2)}, -1),
        "value": Function(bound(value), command | goal, {"rest": ("value", 1)}, -1),
    }


def encoder() -> bytes:
    """The joints' sample, (2, J): positions, then velocities."""
    graph = Graph()
    joints = graph.input("joints", 2, 2, batch=1)
    flat = graph.do("Reshape", joints, np.array([1, 4], np.int64))
    graph.output("position", flat[:, 0:2], 2, batch=1)
    graph.output("velocity", flat[:, 2:4], 2, batch=1)
    return graph.onnx()


ENCODER = {
    "graphs": {"onnx": "encoder.onnx"},
    "inputs": [
        {"tensor": "joints", "source": "observation.joints", "shape": [1, 2, 2], "dtype": "float32"}
    ],
    "outputs": [
        {"tensor": name, "target": f"latent.{name}", "shape": [1, 2], "dtype": "float32"}
        for name in ("position", "velocity")
    ],
}


def manifest(robot: Robot, made: dict[str, Function], card: dict[str, Any]) -> dict[str, Any]:
    """The spec of the bundle, with file names where digests will stand."""
    return {
        "format": "edge-wm/bundle/1",
        "name": "arm_analytic",
        "version": "0.1.0",
        "description": "Moves the two-joint arm to joint positions, by its equations of motion.",
        "license": "Apache-2.0",
        "needs": {
            "streams": {
                "joints": {
                    "type": "joint_state", "shape": [2, 2], "dtype": "float32", "unit": "rad",
                }
            },
            "axes": [
                {"name": axis.name, "kind": axis.kind, "unit": axis.unit, "scale": 1.0,
                 "offset": 0.0}
                for axis in robot.axes
            ],
        },
        "step_ns": round(STEP_S * 1e9),
        "block": 1,
        "horizon": HORIZON,
        "dt": {"min_s": DT_S[0], "max_s": DT_S[1]},
        "belief": [{"name": n, "shape": [s], "dtype": "float32"} for n, s in BELIEF.items()],
        "functions": {"encoder": ENCODER}
        | {name: function.entry(name) for name, function in made.items()},
        "planner": PLANNER,
        "cost_terms": {
            name: {"weight": weight, "min": least, "max": most, "meaning": meaning}
            for name, (weight, least, most, meaning) in COST_TERMS.items()
        },
        "goal_kinds": ["joints"],
        "accuracy_card": card,
        "model_card": "MODEL_CARD.md",
    }  # fmt: skip


def export(out: Path, card: dict[str, Any] | None = None) -> None:
    """Write graphs, reference cases, manifest and model card into the folder `out`."""
    robot = load_robot(find_robot("arm"))
    made = functions(eq.arm_of(robot))
    out.mkdir(parents=True, exist_ok=True)
    (out / "encoder.onnx").write_bytes(encoder())
    generator = np.random.default_rng(0)
    cases = []
    for name, function in made.items():
        (out / f"{name}.onnx").write_bytes(function.onnx())
        inputs, outputs = function.reference(generator)
        files = [
            {tensor: f"{name}.{tensor}.npy" for tensor in tensors} for tensors in (inputs, outputs)
        ]
        for tensor, array in (inputs | outputs).items():
            np.save(out / f"{name}.{tensor}.npy", array)
        cases.append(
            {"function": name, "inputs": files[0], "outputs": files[1], "tolerance": TOLERANCE}
        )
    (out / "MODEL_CARD.md").write_text(Path(__file__).with_name("MODEL_CARD.md").read_text())
    spec = manifest(robot, made, card or {}) | {"reference": cases}
    text = yaml.safe_dump(spec, sort_keys=False, width=100)
    (out / "manifest.yaml").write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("zoo/arm_analytic/work"))
    out = parser.parse_args().out
    export(out)
    size = sum(file.stat().st_size for file in out.glob("*.onnx"))
    print(f"{len(list(out.glob('*.onnx')))} graphs, {size / 1e3:.0f} kB in {out}")


if __name__ == "__main__":
    main()
