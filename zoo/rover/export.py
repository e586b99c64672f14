"""Write the trained model as graphs, with everything a bundle is made of.

    python zoo/rover/export.py --model zoo/rover/work/model.pt --out zoo/rover/work/export

Each function of the world-model contract becomes one ONNX and one TFLite file from the same
weights (see graphs.py), and `manifest.yaml` says what is what, in the terms of docs/bundle.md.
The exported graphs are compared with PyTorch before anything is written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import yaml
from ai_edge_litert.interpreter import Interpreter
from graphs import Network, Tensor
from model import (
    ACTION_SCALE,
    AXES,
    BELIEF,
    CLEARANCE_SCALE,
    DT_S,
    HORIZON,
    MOTION_SCALE,
    STEP_S,
    WorldModel,
    Z,
    along_arc,
)

CANDIDATES = 128
RISK_BOUND = 0.95  # a step in which contact is more likely than this is infeasible
COMFORT = 0.15  # m: nearer to an obstacle than this costs something
NEAR_GOAL = 0.5  # m: from here on the goal's heading counts
COST_TERMS = {  # name: (weight, least, most, meaning)
    "goal": (0.02, 0.0, 10.0, "distance to the goal, m, at every step"),
    "heading": (0.0, 0.0, 10.0, "looking away from the goal: 0 at it, up to 2 away from it"),
    "yaw": (0.2, 0.0, 10.0, "heading error near the goal, if it has a heading: 0 to 2"),
    "risk": (2.0, 0.5, 100.0, "probability of touching something, at every step"),
    "clearance": (0.3, 0.0, 10.0, "lack of clearance below 0.15 m, squared, 0 to 1"),
    "reverse": (0.1, 0.0, 10.0, "driving backwards, as a share of full speed"),
    "turn": (0.01, 0.0, 10.0, "turning, as a share of full speed, squared"),
    "value": (5.0, 0.0, 50.0, "distance to the goal at the end of the horizon, m"),
}
PLANNER = {
    "kind": "mppi",
    "candidates": CANDIDATES,
    "iterations": 2,
    "elites": 16,
    "noise_std": [0.4, 1.4],
    "temperature": 0.3,
    "noise_beta": 3.0,
    "momentum": 0.1,
}
BATCH = {  # of the TFLite files
    "encoder": 1,
    "dynamics": CANDIDATES,
    "cost": CANDIDATES * HORIZON,
    "constraint": CANDIDATES * HORIZON,
    "value": CANDIDATES,
    "decoder": HORIZON + 1,
}


# ---- the functions ------------------------------------------------------------------------
class Functions:
    """Each method writes one function down, with the trained weights."""

    def __init__(self, model: WorldModel) -> None:
        self._weights = {name: p.detach().numpy() for name, p in model.state_dict().items()}

    def encoder(self) -> Network:
        n = Network()
        camera = n.input("camera", (1, 64, 64, 3), "uint8")
        odometry = n.input("odometry", (1, 6))
        x = n.pair("mul", n.to_float(camera), 1.0 / 255.0)
        x = n.pair("sub", x, n.mean(x))
        power = n.mean(n.pair("mul", x, x))
        x = n.pair("div", x, n.each("sqrt", n.pair("add", power, 1e-3)))
        for index in range(4):
            at = f"encoder.convolutions.{index}"
            x = n.conv(x, self._weights[f"{at}.weight"], self._weights[f"{at}.bias"], 2, relu=True)
        z = self._norm(n, "encoder.norm", self._dense(n, "encoder.project", n.reshape(x, (1024,))))
        motion = n.concat([n.columns(odometry, 3, 4), n.columns(odometry, 5, 6)])
        now = n.concat([z, n.pair("mul", motion, 1.0 / np.array(MOTION_SCALE))])
        out = self._dense(n, "heads.out", self._dense(n, "heads.hidden", now, relu=True))
        n.output("z_now", z)
        n.output("motion_now", motion)
        n.output("pose_now", n.columns(odometry, 0, 3))
        n.output("risk_now", n.columns(out, 0, 1))
        n.output("clearance_now", n.pair("mul", n.columns(out, 1, 2), CLEARANCE_SCALE))
        return n

    def dynamics(self) -> Network:
        n = Network()
        z, motion, pose = (n.input(name, (-1, BELIEF[name])) for name in ("z", "motion", "pose"))
        action, dt = n.input("action", (-1, 2)), n.input("dt", (-1, 1))
        now = n.pair("mul", motion, 1.0 / np.array(MOTION_SCALE))
        time = n.pair("mul", n.pair("sub", dt, 0.1), 20.0)
        x = n.concat([z, now, action, time])
        x = self._dense(n, "dynamics.first", x, relu=True)
        x = self._dense(n, "dynamics.second", x, relu=True)
        head = self._dense(n, "dynamics.head", x)
        both = n.concat([action, action])
        twists = n.pair("mul", n.pair("add", both, n.columns(head, 0, 4)), (*MOTION_SCALE,) * 2)
        way = n.pair("mul", n.columns(twists, 2, 3), dt)
        turn = n.pair("mul", n.columns(twists, 3, 4), dt)
        yaw = n.columns(pose, 2, 3)
        middle = n.pair("add", yaw, n.pair("mul", turn, 0.5))
        dx = n.pair("mul", way, n.each("cos", middle))
        dy = n.pair("mul", way, n.each("sin", middle))
        moved = n.concat([dx, dy, turn])
        change = self._dense(n, "dynamics.change", x)
        n.output("z_next", self._norm(n, "dynamics.norm", n.pair("add", z, change)))
        n.output("motion_next", n.columns(twists, 0, 2))
        n.output("pose_next", n.pair("add", pose, moved))
        n.output("risk_next", n.columns(head, 4, 5))
        n.output("clearance_next", n.pair("mul", n.columns(head, 5, 6), CLEARANCE_SCALE))
        return n

    def cost(self) -> Network:
        n = Network()
        pose, risk = n.input("pose", (-1, 3)), n.input("risk", (-1, 1))
        clearance, action = n.input("clearance", (-1, 1)), n.input("action", (-1, 2))
        goal = n.input("goal", (-1, 4))
        dx, dy, distance = self._away(n, pose, goal)
        yaw = n.columns(pose, 2, 3)
        ahead = n.pair(
            "add",
            n.pair("mul", dx, n.each("cos", yaw)),
            n.pair("mul", dy, n.each("sin", yaw)),
        )
        heading = n.pair("div", n.pair("sub", distance, ahead), n.pair("add", distance, 0.3))
        n.output("goal_cost", distance)
        n.output("heading_cost", heading)
        error = n.each("cos", n.pair("sub", yaw, n.columns(goal, 2, 3)))
        near = n.each("relu", n.pair("add", n.pair("mul", distance, -1.0 / NEAR_GOAL), 1.0))
        wrong = n.pair("mul", n.pair("add", n.pair("mul", error, -1.0), 1.0), near)
        n.output("yaw_cost", n.pair("mul", wrong, n.columns(goal, 3, 4)))
        n.output("risk_cost", n.each("sigmoid", risk))
        lack = n.each("relu", n.pair("add", n.pair("mul", clearance, -1.0 / COMFORT), 1.0))
        n.output("clearance_cost", n.pair("mul", lack, lack))
        n.output("reverse_cost", n.each("relu", n.pair("mul", n.columns(action, 0, 1), -1.0)))
        turn = n.columns(action, 1, 2)
        n.output("turn_cost", n.pair("mul", turn, turn))
        return n

    def constraint(self) -> Network:
        n = Network()
        chance = n.each("sigmoid", n.input("risk", (-1, 1)))
        n.output("constraint", n.pair("sub", chance, RISK_BOUND))
        return n

    def value(self) -> Network:
        n = Network()
        pose, goal = n.input("pose", (-1, 3)), n.input("goal", (-1, 4))
        n.output("value", self._away(n, pose, goal)[2])
        return n

    def decoder(self) -> Network:
        n = Network()
        z = n.input("z", (-1, Z))
        x = n.reshape(self._dense(n, "decoder.expand", z, relu=True), (4, 4, 32))
        for index in range(4):
            at = f"decoder.convolutions.{index}"
            weight, bias = (_depth_first(self._weights[f"{at}.{w}"]) for w in ("weight", "bias"))
            x = n.spread(n.conv(x, weight, bias, 1))
            x = n.each("sigmoid" if index == 3 else "relu", x)
        n.output("image", x)
        return n

    def _away(self, n: Network, pose: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """dx, dy and the distance to the goal, m."""
        dx = n.pair("sub", n.columns(goal, 0, 1), n.columns(pose, 0, 1))
        dy = n.pair("sub", n.columns(goal, 1, 2), n.columns(pose, 1, 2))
        square = n.pair("add", n.pair("mul", dx, dx), n.pair("mul", dy, dy))
        return dx, dy, n.each("sqrt", square)

    def _dense(self, n: Network, at: str, x: Tensor, relu: bool = False) -> Tensor:
        return n.dense(x, self._weights[f"{at}.weight"], self._weights[f"{at}.bias"], relu=relu)

    def _norm(self, n: Network, at: str, x: Tensor) -> Tensor:
        return n.norm(x, self._weights[f"{at}.weight"], self._weights[f"{at}.bias"])


def _depth_first(values: np.ndarray) -> np.ndarray:
    """PyTorch's pixel shuffle has channel C' 4 + (2 i + j), depth to space (2 i + j) C' + c."""
    return values.reshape(-1, 4, *values.shape[1:]).swapaxes(0, 1).reshape(values.shape)


# ---- what the tensors are -------------------------------------------------------------------
SOURCES = {
    "camera": "observation.camera",
    "odometry": "observation.odometry",
    "action": "action",
    "dt": "dt",
    "goal": "goal.pose",
} | {name: f"belief.{name}" for name in BELIEF}


def _target(tensor: str) -> str:
    for ending in ("_now", "_next"):
        if tensor.endswith(ending):
            return f"belief.{tensor.removesuffix(ending)}"
    return f"cost.{tensor.removesuffix('_cost')}" if tensor.endswith("_cost") else tensor


def manifest(networks: dict[str, Network], card: dict[str, Any]) -> dict[str, Any]:
    """The bundle's manifest, with file names where digests will stand."""

    def tensors(found: list[Tensor], key: str) -> list[dict[str, Any]]:
        return [
            {
                "tensor": t.name,
                key: SOURCES[t.name] if key == "source" else _target(t.name),
                "shape": list(t.shape),
                "dtype": t.dtype,
            }
            for t in found
        ]

    return {
        "format": "edge-wm/bundle/1",
        "name": "rover",
        "version": "0.1.0",
        "description": "Drives the rover to a pose past obstacles, by camera and odometry.",
        "license": "Apache-2.0",
        "needs": {
            "streams": {
                "camera": {"type": "image", "shape": [64, 64, 3], "dtype": "uint8", "unit": "rgb8"},
                "odometry": {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI"},
            },
            "axes": [
                {"name": name, "kind": "twist", "unit": unit, "scale": scale, "offset": 0.0}
                for name, unit, scale in zip(AXES, ("m/s", "rad/s"), ACTION_SCALE, strict=True)
            ],
        },
        "step_ns": round(STEP_S * 1e9),
        "block": 1,
        "horizon": HORIZON,
        "dt": {"min_s": DT_S[0], "max_s": DT_S[1]},
        "belief": [{"name": n, "shape": [s], "dtype": "float32"} for n, s in BELIEF.items()],
        "functions": {
            name: {
                "graphs": {"onnx": f"{name}.onnx", "tflite": f"{name}.tflite"},
                "inputs": tensors(network.inputs, "source"),
                "outputs": tensors(network.outputs, "target"),
            }
            for name, network in networks.items()
        },
        "planner": PLANNER,
        "cost_terms": {
            name: {"weight": weight, "min": least, "max": most, "meaning": meaning}
            for name, (weight, least, most, meaning) in COST_TERMS.items()
        },
        "goal_kinds": ["pose"],
        "accuracy_card": card,
        "model_card": "MODEL_CARD.md",
    }


# ---- comparing ------------------------------------------------------------------------------
def run_onnx(blob: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(blob, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_tflite(blob: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    interpreter = Interpreter(model_content=blob, num_threads=1)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], inputs[details["name"]])
    interpreter.invoke()
    return {d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}


@torch.no_grad()
def by_torch(model: WorldModel, name: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What PyTorch makes of the inputs of one of the learned functions."""
    x = {key: torch.from_numpy(value) for key, value in inputs.items()}
    found: tuple[torch.Tensor, ...]
    if name == "encoder":
        z = model.encoder(x["camera"].permute(0, 3, 1, 2).float())
        motion = x["odometry"][:, [3, 5]]
        found = (z, motion, x["odometry"][:, :3], *model.heads(z, motion))
    elif name == "dynamics":
        z, motion, mean, risk, clearance = model.dynamics(x["z"], x["motion"], x["action"], x["dt"])
        found = (z, motion, along_arc(x["pose"], mean, x["dt"]), risk, clearance)
    else:
        found = (model.decoder(x["z"]),)
    names = [*(f"{b}_now" for b in BELIEF)] if name == "encoder" else ["image"]
    names = [f"{b}_next" for b in BELIEF] if name == "dynamics" else names
    return {n: value.numpy() for n, value in zip(names, found, strict=True)}


def example(network: Network, batch: int, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Plausible inputs."""
    made = {}
    for tensor in network.inputs:
        shape = [batch if size == -1 else size for size in tensor.shape]
        if tensor.dtype == "uint8":
            made[tensor.name] = generator.integers(0, 256, shape, np.uint8)
        elif tensor.name == "dt":
            made[tensor.name] = generator.uniform(*DT_S, shape).astype(np.float32)
        else:
            made[tensor.name] = generator.normal(0.0, 0.7, shape).astype(np.float32)
    return made


def check(model: WorldModel, networks: dict[str, Network], files: dict[str, bytes]) -> float:
    """The largest difference between the files, and to PyTorch, relative to max(1, |value|)."""
    generator = np.random.default_rng(0)
    worst = 0.0
    for name, network in networks.items():
        inputs = example(network, BATCH[name], generator)
        results = [
            run_onnx(files[f"{name}.onnx"], inputs),
            run_tflite(files[f"{name}.tflite"], inputs),
        ]
        if name in ("encoder", "dynamics", "decoder"):
            results.append(by_torch(model, name, inputs))
        for other in results[1:]:
            for key, value in results[0].items():
                apart = np.abs(value - other[key]) / np.maximum(1.0, np.abs(value))
                worst = max(worst, float(apart.max()))
                if apart.max() > 1e-3:
                    raise SystemExit(f"{name}.{key}: exports differ by {apart.max():.2g}")
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("zoo/rover/work/model.pt"))
    parser.add_argument("--out", type=Path, default=Path("zoo/rover/work/export"))
    arguments = parser.parse_args()
    model = WorldModel().eval()
    model.load_state_dict(torch.load(arguments.model, weights_only=True))
    functions = Functions(model)
    networks = {name: getattr(functions, name)() for name in BATCH}
    files = {f"{name}.onnx": network.onnx() for name, network in networks.items()}
    files |= {f"{name}.tflite": n.tflite(BATCH[name]) for name, n in networks.items()}
    worst = check(model, networks, files)
    card_file = arguments.model.with_suffix(".json")
    card = json.loads(card_file.read_text()) if card_file.exists() else {}
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, blob in files.items():
        (arguments.out / name).write_bytes(blob)
    model_card = Path(__file__).with_name("MODEL_CARD.md")
    if model_card.exists():
        (arguments.out / "MODEL_CARD.md").write_text(model_card.read_text())
    text = yaml.safe_dump(manifest(networks, card), sort_keys=False, width=100)
    (arguments.out / "manifest.yaml").write_text(text)
    total = sum(len(blob) for blob in files.values())
    print(f"{len(files)} graphs, {total / 1e6:.2f} MB in {arguments.out}; differ by {worst:.1e}")


if __name__ == "__main__":
    main()
