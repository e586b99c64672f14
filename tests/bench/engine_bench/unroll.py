"""Joins the functions of a world model into one graph over the whole horizon.

General engines lose time between calls, so their best form is one call for all H steps of all K
candidates, with every shape fixed:

    belief (1, ...) ─repeat─► dynamics ─► dynamics ─► ... ─► dynamics ─► value ─┐
    actions (H, K, A) ────────┴────────────┴───────────────────┘                ├─► cost (K,)
                     all H beliefs as one batch of H K rows ─► cost, constraint ┘

It works on any functions that keep the contract of edge_wm.bundle.manifest: a function's nodes
are copied under new names, the weights are shared by all copies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engine_bench.case import Case, StepFunction


class _Joint:
    """One graph that functions are copied into."""

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self._copies = 0

    def copy(
        self, name: str, function: StepFunction, feeds: Mapping[str, str], rows: int
    ) -> dict[str, str]:
        """Copy `function` in, fed by source; gives the name of each target's tensor."""
        graph = onnx.load_from_string(function.blob).graph
        self._copies += 1
        here = f"{name}{self._copies}."
        renamed = {"": ""}
        for tensor in graph.initializer:
            renamed[tensor.name] = shared = f"{name}.{tensor.name}"
            if shared not in self.constants:
                self.constants[shared] = onnx.TensorProto()
                self.constants[shared].CopyFrom(tensor)
                self.constants[shared].name = shared
        for spec in function.spec.inputs:
            if spec.source == "dt":
                step = np.full((rows, *spec.shape[1:]), self._step_s, np.float32)
                renamed[spec.tensor] = self.constant(f"{name}.dt", step)
            else:
                renamed[spec.tensor] = feeds[spec.source]
        for node in graph.node:
            copied = onnx.NodeProto()
            copied.CopyFrom(node)
            copied.name = here + (node.name or node.output[0])
            for names in (copied.input, copied.output):
                names[:] = [renamed.get(n, here + n) for n in names]
            self.nodes.append(copied)
        return {spec.target: here + spec.tensor for spec in function.spec.outputs}

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants[name] = numpy_helper.from_array(value, name)
        return name

    def row(self, of: str, index: int, name: str) -> str:
        """of[index]: one step of (H, K, ...)."""
        return self.node("Gather", [of, self.constant(name + ".i", np.int64(index))], name)

    def shaped(self, x: str, shape: Sequence[int], kind: str = "Reshape") -> str:
        target = self.constant(f"{x}.{kind}.shape", np.array(shape, np.int64))
        return self.node(kind, [x, target], f"{x}.{kind}")

    def finish(self, inputs: Mapping[str, Sequence[int]], outputs: Mapping[str, Sequence[int]]):
        def infos(named: Mapping[str, Sequence[int]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s))
                for n, s in named.items()
            ]

        graph = helper.make_graph(
            self.nodes, "graph", infos(inputs), infos(outputs), list(self.constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())


def unrolled_rollout(case: Case, functions: Mapping[str, StepFunction]) -> bytes:
    """The rollout of a case's K candidates as one graph.

    Inputs: every belief tensor and goal (1, ...), `actions` (H, K, A), `noise` (H, K, N).
    Outputs: `cost` (K,) where the case has a cost, and the last belief, `last.belief.<name>`.
    """
    if case.joined:
        return case.joined
    K, H, joint = case.candidates, case.horizon, _Joint(case.step_s)
    inputs: dict[str, Sequence[int]] = {"actions": (H, K, case.action)}
    if case.noise:
        inputs["noise"] = (H, K, case.noise)
    beliefs: dict[str, str] = {}
    for name, value in case.belief.items():
        source = f"belief.{name}"
        inputs[source] = value.shape
        beliefs[source] = joint.shaped(source, (K, *value.shape[1:]), "Expand")
    path: dict[str, list[str]] = {source: [] for source in beliefs}
    for h in range(H):
        feeds = beliefs | {"action": joint.row("actions", h, f"action{h}")}
        if case.noise:
            feeds["noise"] = joint.row("noise", h, f"noise{h}")
        after = joint.copy("dynamics", functions["dynamics"], feeds, K)
        beliefs = {source: after[source] for source in beliefs}
        for source, name in beliefs.items():
            path[source].append(name)

    outputs: dict[str, Sequence[int]] = {}
    if "cost" in functions:
        every = {
            source: names[0] if H == 1 else joint.node("Concat", names, f"{source}.all", axis=0)
            for source, names in path.items()
        }
        every["action"] = joint.shaped("actions", (H * K, case.action))
        for source, value in case.goals.items():
            inputs[source] = value.shape
            every[source] = joint.shaped(source, (H * K, *value.shape[1:]), "Expand")
        terms = _sum_of_terms(case, joint, functions, every)
        if "value" in functions:
            last = dict(beliefs)
            for source, v in case.goals.items():
                steps = joint.shaped(every[source], (H, K, *v.shape[1:]))
                last[source] = joint.row(steps, 0, f"{source}.last")
            value = joint.copy("value", functions["value"], last, K)["value"]
            weight = joint.constant("value.weight", np.float32(case.weights.get("value", 1)))
            flat = joint.shaped(value, (K,))
            terms = joint.node("Add", [terms, joint.node("Mul", [flat, weight], "ending")], "sum")
        joint.node("Identity", [terms], "cost")
        outputs["cost"] = (K,)
    for source, name in beliefs.items():
        joint.node("Identity", [name], f"last.{source}")
        outputs[f"last.{source}"] = (K, *case.belief[source.removeprefix("belief.")].shape[1:])
    return joint.finish(inputs, outputs)


def _sum_of_terms(
    case: Case, joint: _Joint, functions: Mapping[str, StepFunction], every: Mapping[str, str]
) -> str:
    """(K,): the weighted cost terms summed over the steps, infinite where a constraint says no."""
    K, H = case.candidates, case.horizon
    axis = joint.constant("over_steps", np.array([0], np.int64))
    total = ""
    for target, name in joint.copy("cost", functions["cost"], every, H * K).items():
        term = target.removeprefix("cost.")
        weight = joint.constant(f"{target}.weight", np.float32(case.weights.get(term, 1)))
        steps = joint.node("ReduceSum", [joint.shaped(name, (H, K)), axis], target, keepdims=0)
        part = joint.node("Mul", [steps, weight], f"{target}.weighted")
        total = joint.node("Add", [total, part], f"{target}.total") if total else part
    if "constraint" not in functions:
        return total
    risk = joint.copy("constraint", functions["constraint"], every, H * K)["constraint"]
    worst = joint.node("ReduceMax", [joint.shaped(risk, (H, K, -1))], "worst", axes=[0, 2],
                       keepdims=0)  # fmt: skip
    zero, never = joint.constant("zero", np.float32(0)), joint.constant("never", np.float32(np.inf))
    return joint.node("Where", [joint.node("Greater", [worst, zero], "out"), never, total], "safe")


def unrolled_policy(case: Case, functions: Mapping[str, StepFunction]) -> bytes:
    """What the policy would do for H steps: `noise` (H, P, A) -> `actions` (H, P, A)."""
    assert case.planning is not None
    P, H, joint = case.planning.policy_candidates, case.horizon, _Joint(case.step_s)
    inputs: dict[str, Sequence[int]] = {"noise": (H, P, case.action)}
    beliefs: dict[str, str] = {}
    for name, value in case.belief.items():
        inputs[f"belief.{name}"] = value.shape
        beliefs[f"belief.{name}"] = joint.shaped(f"belief.{name}", (P, *value.shape[1:]), "Expand")
    low, high = joint.constant("low", np.float32(-1)), joint.constant("high", np.float32(1))
    one, steps = (1, P, case.action), []
    for h in range(H):
        asked = joint.copy("policy", functions["policy"], beliefs, P)
        noise = joint.row("noise", h, f"noise{h}")
        away = joint.node("Mul", [asked["action.std"], noise], f"away{h}")
        moved = joint.node("Add", [asked["action.mean"], away], f"moved{h}")
        action = joint.node("Clip", [moved, low, high], f"action{h}")
        steps.append(joint.shaped(action, one))
        if h < H - 1:
            after = joint.copy("dynamics", functions["dynamics"], beliefs | {"action": action}, P)
            beliefs = {source: after[source] for source in beliefs}
    joint.node("Concat", steps, "actions", axis=0)
    return joint.finish(inputs, {"actions": (H, P, case.action)})
