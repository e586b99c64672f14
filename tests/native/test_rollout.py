"""The native rollout against a plain loop over single functions (same bits), and onnxruntime."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import models
import msgspec
import numpy as np
import onnx
import pytest
from models import EXTRAS, linear, node, onnx_file, part

from edge_wm import shipped
from edge_wm.backends import BACKENDS, load_graph
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.bundle.program import write_program
from edge_wm.compiler import compile_graph
from edge_wm.errors import UnsupportedOperation
from edge_wm.planner import CountBudget, make_planner
from edge_wm.robot import find_robot, load_robot
from edge_wm.runtime import Permitted, planner_settings
from edge_wm.types import Belief, PoseGoal, Rollout
from edge_wm.world_model import WorldModel

pytest.importorskip("edge_wm._native")
from edge_wm.backends.native import NativeRollout, kernels

Array = np.ndarray
CANDIDATES = (1, 2, 5, 6, 47, 97, 200)
HORIZONS = (1, 3, 12)
ROLLED_OUT = ("dynamics", "cost", "constraint", "value")
GOAL = PoseGoal(1.0, -0.5, 0.3)
ROVER = load_robot(find_robot("rover"))


# ---- models ---------------------------------------------------------------------------------
def _dynamics(sources: str, nodes: list[Any], inputs: Mapping[str, Any], **constants: Array) -> Any:
    """A function of the belief z (3,) that gives `next`."""
    graph = onnx_file(inputs, nodes, {"next": ["K", 3]}, constants)
    return part({"onnx": graph}, sources, "next=belief.z:-1,3")


def noisy() -> dict[str, Any]:
    """z' = (z + action side by side with its sum) + noise."""
    dynamics = _dynamics(
        "z=belief.z:-1,3 action=action:-1,2 noise=noise:-1,3",
        [
            node("MatMul", "action B", "moved"),
            node("Add", "z moved", "there"),
            node("Tanh", "noise", "shake"),
            node("Add", "there shake", "next"),
        ],
        {"z": ["K", 3], "action": ["K", 2], "noise": ["K", 3]},
        B=models.B.T.copy(),
    )
    return linear() | {"dynamics": dynamics}


def blocked() -> dict[str, Any]:
    """z' = z + a picked from a block of two actions; effort sees the whole block."""
    dynamics = _dynamics(
        "z=belief.z:-1,3 action=action:-1,4",
        [node("Gather", "action order", "picked", axis=1), node("Add", "z picked", "next")],
        {"z": ["K", 3], "action": ["K", 4]},
        order=np.array([0, 2, 1]),
    )
    cost = onnx_file(
        {"z": ["K", 3], "action": ["K", 4], "pose": ["K", 4]},
        [
            node("ReduceSumSquare", "action", "effort", axes=[1], keepdims=0),
            node("ReduceSumSquare", "z", "square", axes=[1], keepdims=0),
            node("ReduceMin", "pose", "least", axes=[1], keepdims=0),
            node("Add", "square least", "goal"),
        ],
        {"goal": ["K"], "effort": ["K"]},
    )
    return linear() | {
        "dynamics": dynamics,
        "cost": part(
            {"onnx": cost},
            "z=belief.z:-1,3 action=action:-1,4 pose=goal.pose:-1,4",
            "goal=cost.goal:-1 effort=cost.effort:-1",
        ),
    }


def wide() -> dict[str, Any]:
    """Beliefs z (3,) and memory (37,) through layers that no register width divides.

    The first layer reads action, both beliefs and dt, so that the first step mixes what is one
    row for all with what is not; one cost depends on the goal alone.
    """
    random = np.random.default_rng(3)

    def weights(rows: int, columns: int) -> Array:
        return (random.standard_normal((rows, columns)) / np.sqrt(rows)).astype(np.float32)

    dynamics = onnx_file(
        {"z": ["K", 3], "memory": ["K", 37], "action": ["K", 2], "dt": ["K", 1]},
        [
            node("Concat", "memory action z dt", "all", axis=1),
            node("MatMul", "all W1", "h1"),
            node("Add", "h1 b1", "h2"),
            node("Tanh", "h2", "h3"),
            node("MatMul", "memory Wm", "alone"),  # one row for all on the first step
            node("Sigmoid", "alone", "gate"),
            node("Mul", "h3 gate", "h4"),
            node("MatMul", "h4 W2", "change"),
            node("Add", "z change", "z_next"),
            node("Mul", "gate memory", "kept"),
            node("MatMul", "h3 W3", "new"),
            node("Add", "kept new", "memory_next"),
        ],
        {"z_next": ["K", 3], "memory_next": ["K", 37]},
        {
            "W1": weights(43, 37),
            "b1": weights(1, 37)[0],
            "Wm": weights(37, 37),
            "W2": weights(37, 3),
            "W3": weights(37, 37),
        },
    )
    cost = onnx_file(
        {"z": ["K", 3], "memory": ["K", 37], "action": ["K", 2], "pose": ["K", 4]},
        [
            node("ReduceSumSquare", "pose", "far", axes=[1], keepdims=1),
            node("MatMul", "memory W", "read"),
            node("Add", "read far", "goal"),
            node("ReduceMean", "pose", "effort", axes=[1], keepdims=1),
        ],
        {"goal": ["K", 1], "effort": ["K", 1]},
        {"W": weights(37, 1)},
    )
    ahead = "z=belief.z:-1,3 memory=belief.memory:-1,37 action=action:-1,2"
    functions = {
        "dynamics": part(
            {"onnx": dynamics}, ahead + " dt=dt:-1,1",
            "z_next=belief.z:-1,3 memory_next=belief.memory:-1,37",
        ),
        "cost": part(
            {"onnx": cost}, ahead + " pose=goal.pose:-1,4",
            "goal=cost.goal:-1,1 effort=cost.effort:-1,1",
        ),
    }  # fmt: skip
    return linear() | EXTRAS | functions | {"encoder": _wide_encoder()}


def _wide_encoder() -> dict[str, Any]:
    graph = onnx_file(
        {"odometry": [1, 6]},
        [node("MatMul", "odometry pick", "z"), node("MatMul", "odometry more", "memory")],
        {"z": [1, 3], "memory": [1, 37]},
        {"pick": models.PICK, "more": np.ones((6, 37), np.float32)},
    )
    return part(
        {"onnx": graph},
        "odometry=observation.odometry:1,6",
        "z=belief.z:1,3 memory=belief.memory:1,37",
    )


def passing() -> dict[str, Any]:
    """Two beliefs change places, one stays, one depends on dt alone, two are the same tensor."""
    names = ("a", "b", "kept", "timed", "one", "two")
    beliefs = {name: ["K", 19] for name in names}
    dynamics = onnx_file(
        {**beliefs, "action": ["K", 2], "dt": ["K", 1]},
        [
            node("MatMul", "action W", "push"),
            node("Add", "a push", "b_next"),
            node("Identity", "b", "a_next"),
            node("Identity", "kept", "kept_next"),
            node("Mul", "dt row", "timed_next"),
            node("Add", "one timed", "one_next"),
            node("Identity", "one_next", "two_next"),
        ],
        {f"{name}_next": ["K", 19] for name in names},
        {"W": np.ones((2, 19), np.float32), "row": np.arange(19, dtype=np.float32)},
    )
    cost = onnx_file(
        {**beliefs, "pose": ["K", 4]},
        [
            node("Concat", "a b two", "all", axis=1),
            node("ReduceMean", "all", "goal", axes=[1], keepdims=0),
            node("ReduceMax", "timed", "effort", axes=[1], keepdims=0),
        ],
        {"goal": ["K"], "effort": ["K"]},
    )
    read = " ".join(f"{name}=belief.{name}:-1,19" for name in names)
    given = " ".join(f"{name}_next=belief.{name}:-1,19" for name in names)
    return {
        "dynamics": part({"onnx": dynamics}, read + " action=action:-1,2 dt=dt:-1,1", given),
        "cost": part(
            {"onnx": cost},
            read + " pose=goal.pose:-1,4",
            "goal=cost.goal:-1 effort=cost.effort:-1",
        ),
        "encoder": _encoder_of(names),
    }


def _encoder_of(names: Sequence[str]) -> dict[str, Any]:
    graph = onnx_file(
        {"odometry": [1, 6]},
        [node("MatMul", f"odometry W_{name}", name) for name in names],
        {name: [1, 19] for name in names},
        {f"W_{name}": np.ones((6, 19), np.float32) for name in names},
    )
    given = " ".join(f"{name}=belief.{name}:1,19" for name in names)
    return part({"onnx": graph}, "odometry=observation.odometry:1,6", given)


def growing() -> dict[str, Any]:
    """z' = z * (the first number of the action): overflows, or becomes NaN, by itself."""
    dynamics = _dynamics(
        "z=belief.z:-1,3 action=action:-1,2",
        [node("Gather", "action first", "factor", axis=1), node("Mul", "z factor", "next")],
        {"z": ["K", 3], "action": ["K", 2]},
        first=np.array([0]),
    )
    return linear() | {"dynamics": dynamics}


TWO = {"belief": [{"name": "z", "shape": [3]}, {"name": "memory", "shape": [37]}]}
SIX = {"belief": [{"name": n, "shape": [19]} for n in ("a", "b", "kept", "timed", "one", "two")]}
STEPS = {"dt": {"min_s": 0.05, "max_s": 0.15}}
MODELS: dict[str, Any] = {
    "bare": (linear, {}),
    "constraint and value": (lambda: linear() | dict(EXTRAS), {}),
    "constraint": (lambda: linear() | {"constraint": EXTRAS["constraint"]}, {}),
    "value": (lambda: linear() | {"value": EXTRAS["value"]}, {}),
    "dt": (lambda: linear(dt=True), STEPS),
    "noise": (noisy, {}),
    "block": (blocked, {"block": 2}),
    "wide": (wide, TWO | STEPS),
    "passing": (passing, SIX | STEPS),
}


def compiled(functions: Mapping[str, Any], **changes: Any) -> Bundle:
    """The bundle, with a step program beside each graph that can have one."""
    plain = models.bundle(functions, **changes).manifest
    made = {}
    for name, function in functions.items():
        graphs = dict(function["graphs"])
        try:
            program = compile_graph(graphs["onnx"], plain.functions[name], name)  # type: ignore[index]
            graphs["program"] = write_program(program)
        except UnsupportedOperation:
            pass
        made[name] = function | {"graphs": graphs}
    return models.bundle(made, **changes)


def rover_in_float32() -> Bundle:
    """The shipped rover, its int8 dynamics compiled anew, to be near what onnxruntime gives."""
    opened = open_bundle(shipped.folder("zoo") / "rover" / "rover.wmb", load_trust())
    functions, blobs = dict(opened.manifest.functions), dict(opened.blobs)
    for name in ROLLED_OUT:
        function = functions[name]  # type: ignore[index]
        program = compile_graph(opened.blob(function.graphs["onnx"]), function, name)
        blob = write_program(program)
        blobs[models.digest(blob)] = memoryview(blob)
        graphs = {**function.graphs, "program": models.digest(blob)}
        functions[name] = msgspec.structs.replace(function, graphs=graphs)  # type: ignore[index]
    manifest = msgspec.structs.replace(opened.manifest, functions=functions)
    return replace(opened, manifest=manifest, blobs=blobs)


def bundle_named(name: str) -> Bundle:
    if name == "rover":
        return open_bundle(shipped.folder("zoo") / "rover" / "rover.wmb", load_trust())
    if name == "rover in float32":
        return rover_in_float32()
    functions, changes = MODELS[name]
    return compiled(functions(), **changes)


def graphs_of(bundle: Bundle, backend: str) -> dict[str, Any]:
    """What is rolled out, on `backend` where it has a graph for it, else on onnxruntime."""
    graphs = {}
    for name in ROLLED_OUT:
        if name in bundle.manifest.functions:
            function = bundle.manifest.functions[name]
            chosen = backend if BACKENDS[backend] in function.graphs else "onnxruntime"
            blob = bundle.blob(function.graphs[BACKENDS[chosen]])
            graphs[name] = load_graph(blob, function, chosen, name=name)
    return graphs


def model_of(bundle: Bundle, backend: str = "native") -> WorldModel:
    return WorldModel.of_graphs(bundle.manifest, graphs_of(bundle, backend), {GOAL.frame})


BUNDLES = {name: bundle_named(name) for name in (*MODELS, "rover", "rover in float32")}


# ---- what goes in ---------------------------------------------------------------------------
def belief_of(bundle: Bundle, seed: int = 5) -> Belief:
    random = np.random.default_rng(seed)
    tensors = {
        tensor.name: (0.3 * random.standard_normal(tensor.shape)).astype(tensor.dtype)
        for tensor in bundle.manifest.belief
    }
    return Belief(0, tensors)


def actions_of(bundle: Bundle, k: int, steps: int, seed: int = 0) -> Array:
    """(K, steps * block, A) SI; candidate k has the same ones whatever K is."""
    shape = (k, steps * bundle.manifest.block, len(bundle.manifest.needs.axes))
    values = np.random.default_rng([seed, steps]).standard_normal(shape)
    return (values * 0.4).astype(np.float32)


def goals_of(goal: PoseGoal) -> dict[str, Array]:
    return {"goal.pose": np.array([goal.x, goal.y, goal.yaw, 1.0], np.float32)}


def noise_of(bundle: Bundle, k: int, steps: int, seed: int) -> Array | None:
    """(steps, K, n): the documented generator, row after row."""
    for spec in bundle.manifest.functions["dynamics"].inputs:
        if spec.source == "noise":
            key, counter = np.array([seed, 2], np.uint64), np.zeros(4, np.uint64)
            generator = np.random.Generator(np.random.Philox(key=key, counter=counter))
            rows = generator.standard_normal((k, steps, *spec.shape[1:]), np.float32)
            return np.ascontiguousarray(rows.swapaxes(0, 1))
    return None


# ---- the plain loop -------------------------------------------------------------------------
def looped(bundle: Bundle, graphs: Mapping[str, Any], belief: Belief, actions: Array, seed: int):
    """One step after the other, one function after the other: the definition."""
    manifest, K = bundle.manifest, len(actions)
    steps = actions.shape[1] // manifest.block
    axes = manifest.needs.axes
    scale = np.array([axis.scale for axis in axes], np.float32)
    offset = np.array([axis.offset for axis in axes], np.float32)
    model_actions = ((actions - offset) / scale).reshape(K, steps, -1)
    noise = noise_of(bundle, K, steps, seed)
    sources: dict[str, Array] = dict(goals_of(GOAL))
    step_s = np.float32(manifest.step_ns * 1e-9)
    sources["dt"] = np.float32(step_s).reshape(1)
    now = {t.name: np.repeat(belief.tensors[t.name][None], K, axis=0) for t in manifest.belief}

    def run(name: str) -> dict[str, Array]:
        function = manifest.functions[name]
        feeds = {}
        for spec in function.inputs:
            value = sources[spec.source]
            each = spec.source.startswith("belief.") or spec.source in ("action", "noise")
            if spec.shape[:1] == (-1,) and not each:
                value = np.broadcast_to(value, (K, *spec.shape[1:]))
            feeds[spec.tensor] = value.reshape([K if n == -1 else n for n in spec.shape])
        outputs = graphs[name].run(feeds)
        return {spec.target: outputs[spec.tensor] for spec in function.outputs}

    infeasible = ~np.isfinite(actions).all(axis=(1, 2))
    terms = {
        spec.target.removeprefix("cost."): np.zeros(K, np.float32)
        for spec in manifest.functions["cost"].outputs
    }
    path = {name: [value] for name, value in now.items()}
    for h in range(steps):
        sources |= {f"belief.{name}": value for name, value in now.items()}
        sources["action"] = model_actions[:, h]
        if noise is not None:
            sources["noise"] = noise[h]
        after = run("dynamics")
        now = {t.name: after[f"belief.{t.name}"].reshape(K, *t.shape) for t in manifest.belief}
        for name, value in now.items():
            path[name].append(value)
        sources |= {f"belief.{name}": value for name, value in now.items()}
        for target, value in run("cost").items():
            terms[target.removeprefix("cost.")] += value.reshape(K)
        if "constraint" in manifest.functions:
            infeasible |= ~(run("constraint")["constraint"].reshape(K, -1) <= 0).all(axis=1)
    if "value" in manifest.functions:
        terms["value"] = run("value")["value"].reshape(K)
    beliefs = {name: np.stack(values, axis=1) for name, values in path.items()}
    for value in beliefs.values():
        infeasible |= ~np.isfinite(value).reshape(K, -1).all(axis=1)
    weights = {name: term.weight for name, term in manifest.cost_terms.items()}
    cost = np.zeros(K, np.float32)
    for name, value in terms.items():
        cost += np.float32(weights.get(name, 1.0)) * value
    infeasible |= ~np.isfinite(cost)
    cost[infeasible] = np.inf
    return Rollout(cost, infeasible, terms, beliefs)


def assert_same_bits(got: Rollout, wanted: Rollout, first: int | None = None) -> None:
    """All that two rollouts say, of the first candidates where one has more."""
    pairs = [("cost", got.cost, wanted.cost), ("infeasible", got.infeasible, wanted.infeasible)]
    assert list(got.terms) == list(wanted.terms)
    pairs += [(name, value, wanted.terms[name]) for name, value in got.terms.items()]
    assert (got.beliefs is None) == (wanted.beliefs is None)
    if got.beliefs is not None and wanted.beliefs is not None:
        assert list(got.beliefs) == list(wanted.beliefs)
        pairs += [(name, value, wanted.beliefs[name]) for name, value in got.beliefs.items()]
    for what, one, other in pairs:
        one, other = one[:first], other[:first]
        assert one.dtype == other.dtype, what
        assert one.shape == other.shape, what
        same = one.tobytes() == other.tobytes()
        assert same, f"{what}: {np.argwhere(one != other)[:5].tolist()}"


# ---- against the loop, and against onnxruntime --------------------------------------------------
@pytest.mark.parametrize("name", BUNDLES)
def test_the_same_bits_as_one_function_after_the_other(name: str) -> None:
    bundle = BUNDLES[name]
    model, graphs = model_of(bundle), graphs_of(bundle, "native")
    assert model.backends["dynamics"].startswith("native")
    belief = belief_of(bundle)
    for steps in HORIZONS:
        for k in CANDIDATES:
            actions = actions_of(bundle, k, steps)
            got = model.rollout(belief, actions, GOAL, 9, keep_beliefs=True)
            assert_same_bits(got, looped(bundle, graphs, belief, actions, 9))


@pytest.mark.parametrize("name", [*MODELS, "rover in float32"])
def test_near_what_onnxruntime_gives(name: str) -> None:
    bundle = BUNDLES[name]
    native, other = model_of(bundle), model_of(bundle, "onnxruntime")
    belief = belief_of(bundle)
    for steps in HORIZONS:
        for k in CANDIDATES:
            actions = actions_of(bundle, k, steps)
            got = native.rollout(belief, actions, GOAL, 9, keep_beliefs=True)
            wanted = other.rollout(belief, actions, GOAL, 9, keep_beliefs=True)
            np.testing.assert_array_equal(got.infeasible, wanted.infeasible)
            close = {"rtol": 2e-4, "atol": 2e-4}
            np.testing.assert_allclose(got.cost, wanted.cost, **close)
            assert list(got.terms) == list(wanted.terms)
            for term, value in got.terms.items():
                np.testing.assert_allclose(value, wanted.terms[term], **close)
            assert got.beliefs is not None
            assert wanted.beliefs is not None
            for tensor, value in got.beliefs.items():
                np.testing.assert_allclose(value, wanted.beliefs[tensor], **close)


def test_some_candidates_are_infeasible_and_some_are_not() -> None:
    """Or the comparisons above would prove nothing about the constraint."""
    bundle = BUNDLES["constraint and value"]
    belief = Belief(0, {"z": np.array([1.9, 0.0, 0.0], np.float32)})
    actions = actions_of(bundle, 200, 12) * 4
    got = model_of(bundle).rollout(belief, actions, GOAL, 0, keep_beliefs=True)
    assert 20 < got.infeasible.sum() < 180
    assert_same_bits(got, looped(bundle, graphs_of(bundle, "native"), belief, actions, 0))
    assert got.beliefs is not None
    np.testing.assert_array_equal(got.infeasible, (got.beliefs["z"][:, 1:, 0] > 2).any(axis=1))


# ---- what the result does not depend on -----------------------------------------------------
def run_native(rollout: NativeRollout, bundle: Bundle, belief: Belief, actions: Array) -> Rollout:
    steps = actions.shape[1] // bundle.manifest.block
    return Rollout(
        *rollout.run(
            belief.tensors,
            goals_of(GOAL),
            actions.reshape(len(actions), steps, -1),
            dt=0.1,
            weights={name: term.weight for name, term in bundle.manifest.cost_terms.items()},
            noise=noise_of(bundle, len(actions), steps, 9),
            keep_beliefs=True,
        )
    )


@pytest.mark.parametrize(
    "name", ["constraint and value", "noise", "block", "wide", "passing", "rover"]
)
def test_threads_and_tiles_change_nothing(name: str) -> None:
    bundle = BUNDLES[name]
    graphs, belief = graphs_of(bundle, "native"), belief_of(bundle)
    made = {
        (threads, tile): NativeRollout(bundle.manifest, graphs, threads=threads, tile=tile)
        for threads in (1, 2, 3)
        for tile in (0, 1, 5, 6, 24, 96)
    }
    for k in (1, 6, 97, 200):
        actions = actions_of(bundle, k, 3)
        wanted = run_native(made[1, 96], bundle, belief, actions)
        for key, rollout in made.items():
            for _ in range(1 if key[0] == 1 else 3):  # who takes which tile is left to chance
                assert_same_bits(run_native(rollout, bundle, belief, actions), wanted)


@pytest.mark.parametrize("name", [*MODELS, "rover"])
def test_the_first_candidates_cost_the_same_whatever_follows_them(name: str) -> None:
    bundle = BUNDLES[name]
    model, belief = model_of(bundle), belief_of(bundle)
    actions = actions_of(bundle, max(CANDIDATES), 3)
    whole = model.rollout(belief, actions, GOAL, 9, keep_beliefs=True)
    for k in CANDIDATES:
        some = model.rollout(belief, actions[:k], GOAL, 9, keep_beliefs=True)
        assert_same_bits(some, whole, first=k)


@pytest.mark.parametrize("name", ["constraint and value", "noise", "wide", "rover"])
def test_every_kernel_set_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = BUNDLES[name]
    belief, actions = belief_of(bundle), actions_of(bundle, 47, 3)
    results = []
    for kernel_set in kernels():
        monkeypatch.setenv("EDGE_WM_KERNELS", kernel_set)
        model = model_of(bundle)
        assert model.backends["dynamics"] == f"native {kernel_set}"
        results.append(model.rollout(belief, actions, GOAL, 9, keep_beliefs=True))
    for result in results[1:]:
        assert_same_bits(result, results[0])


# ---- numbers that are not finite ------------------------------------------------------------
BAD = [np.nan, np.inf, -np.inf]


def spoiled(bundle: Bundle, bad: Sequence[int], value: float, k: int, steps: int) -> Array:
    actions = actions_of(bundle, k, steps)
    for i, candidate in enumerate(bad):
        actions[candidate, i % actions.shape[1], i % actions.shape[2]] = value
    return actions


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", [*MODELS, "rover"])
def test_a_bad_action_spoils_its_own_candidate_alone(name: str, value: float) -> None:
    bundle = BUNDLES[name]
    model, belief = model_of(bundle), belief_of(bundle)
    good = model.rollout(belief, actions_of(bundle, 97, 3), GOAL, 9)
    bad = [0, 5, 6, 41, 96]
    got = model.rollout(belief, spoiled(bundle, bad, value, 97, 3), GOAL, 9)
    spared = np.setdiff1d(np.arange(97), bad)
    assert got.infeasible[bad].all()
    assert (got.cost[bad] == np.inf).all()
    np.testing.assert_array_equal(got.infeasible[spared], good.infeasible[spared])
    assert got.cost[spared].tobytes() == good.cost[spared].tobytes()


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["bare", "wide", "rover"])
def test_a_bad_belief_spoils_all(name: str, value: float) -> None:
    bundle = BUNDLES[name]
    model = model_of(bundle)
    for tensor in bundle.manifest.belief:
        belief = belief_of(bundle)
        belief.tensors[tensor.name].reshape(-1)[-1] = value
        got = model.rollout(belief, actions_of(bundle, 97, 3), GOAL, 9)
        assert got.infeasible.all()
        assert (got.cost == np.inf).all()
    good = model.rollout(belief_of(bundle), actions_of(bundle, 97, 3), GOAL, 9)
    assert np.isfinite(good.cost).any()  # nothing stays behind


@pytest.mark.parametrize("steps", HORIZONS)
def test_a_belief_that_overflows_on_the_way_spoils_its_own_candidate_alone(steps: int) -> None:
    bundle = compiled(growing())
    model = model_of(bundle)
    belief = Belief(0, {"z": np.array([1e20, -1e10, 0.0], np.float32)})
    actions = np.zeros((97, steps, 2), np.float32)
    bad = [3, 6, 48, 95]
    actions[bad, steps - 1, 0] = 1e30  # z overflows; its last number is 0 * finite
    if steps > 1:
        actions[bad, : steps - 1, 0] = 0.6  # (SI - 0.1) / 0.5 = 1: z stays as it is
    actions[:, :, 0][np.setdiff1d(np.arange(97), bad)] = 0.1  # 0: z is 0
    got = model.rollout(belief, actions, GOAL, 0, keep_beliefs=True)
    assert got.beliefs is not None
    assert np.isinf(got.beliefs["z"][bad, -1]).any(axis=1).all()
    assert np.flatnonzero(got.infeasible).tolist() == bad
    assert np.flatnonzero(got.cost == np.inf).tolist() == bad
    assert_same_bits(got, looped(bundle, graphs_of(bundle, "native"), belief, actions, 0))


def test_a_cost_that_overflows_spoils_its_own_candidate_alone() -> None:
    bundle = BUNDLES["bare"]
    actions = actions_of(bundle, 97, 3)
    actions[[2, 90], 1] = 1e25  # z stays finite, its square does not
    got = model_of(bundle).rollout(belief_of(bundle), actions, GOAL, 0, keep_beliefs=True)
    assert got.beliefs is not None
    assert np.isfinite(got.beliefs["z"]).all()
    assert np.flatnonzero(got.infeasible).tolist() == [2, 90]
    assert np.flatnonzero(got.cost == np.inf).tolist() == [2, 90]


# ---- with the planner, and without a program ----------------------------------------------------
@pytest.mark.parametrize("name", ["rover", "constraint and value", "value", "block"])
def test_the_planners_compiled_loop_proposes_what_the_python_loop_proposes(name: str) -> None:
    bundle = BUNDLES[name]
    model = model_of(bundle)
    settings = planner_settings(bundle.manifest)
    belief = belief_of(bundle)
    # In actions, `block` of them to a model step.
    assert settings.horizon == bundle.manifest.horizon * bundle.manifest.block
    assert settings.step_ns * bundle.manifest.block == bundle.manifest.step_ns
    assert model.imagination(belief, GOAL) is not None
    proposals = []
    for native in (True, False):
        planner = make_planner(replace(settings, iterations=3), ROVER.axes, native=native)
        planner.reset(11)
        made = []
        for plan in range(3):
            here = Belief(plan * bundle.manifest.step_ns, belief.tensors)
            rollout = Permitted(model.rollout, model)
            made.append(planner.propose(here, GOAL, rollout, CountBudget(9), stamp_ns=0))
        proposals.append(made)
    for one, other in zip(*proposals, strict=True):
        assert one.actions.tobytes() == other.actions.tobytes()
        assert one.cost == other.cost
        assert one.terms == other.terms
        assert np.isfinite(one.cost)


def test_no_compiled_imagination_where_dynamics_reads_noise() -> None:
    bundle = BUNDLES["noise"]
    assert model_of(bundle).imagination(belief_of(bundle), GOAL) is None


def lame(name: str) -> dict[str, Any]:
    """The linear model; one function's result goes through an operation that has no program."""
    functions = linear() | dict(EXTRAS)
    function = functions[name]
    graph = onnx.load_model_from_string(function["graphs"]["onnx"])
    result = graph.graph.output[0].name
    axes = "kn"[: len(graph.graph.output[0].type.tensor_type.shape.dim)]
    for made in graph.graph.node:
        made.output[:] = [f"{n}_before" if n == result else n for n in made.output]
    graph.graph.node.append(node("Einsum", f"{result}_before", result, equation=f"{axes}->{axes}"))
    return functions | {name: function | {"graphs": {"onnx": graph.SerializeToString()}}}


@pytest.mark.parametrize("name", ROLLED_OUT)
def test_a_function_that_cannot_be_compiled_is_rolled_out_on_onnxruntime(name: str) -> None:
    bundle = compiled(lame(name))
    functions = {str(n): f for n, f in bundle.manifest.functions.items()}
    assert [n for n in functions if "program" not in functions[n].graphs] == [name]
    model, belief = model_of(bundle), belief_of(bundle)
    assert {n for n in ROLLED_OUT if not model.backends[n].startswith("native")} == {name}
    assert model.imagination(belief, GOAL) is None
    actions = actions_of(bundle, 47, 3)
    got = model.rollout(belief, actions, GOAL, 9)
    wanted = model_of(BUNDLES["constraint and value"]).rollout(belief, actions, GOAL, 9)
    np.testing.assert_allclose(got.cost, wanted.cost, rtol=1e-5)
    np.testing.assert_array_equal(got.infeasible, wanted.infeasible)


# ---- what a call may not do -----------------------------------------------------------------
def test_no_candidates_and_no_steps_are_refused_or_do_nothing() -> None:
    bundle = BUNDLES["bare"]
    rollout = NativeRollout(bundle.manifest, graphs_of(bundle, "native"))
    for shape in ((0, 3, 2), (3, 0, 2)):
        with pytest.raises(ValueError, match=r"^K and steps are at least 1$"):
            rollout.run(
                belief_of(bundle).tensors,
                goals_of(GOAL),
                np.zeros(shape, np.float32),
                dt=0.1,
                weights={},
            )
    cost, infeasible, terms = rollout.imagination().imagine(np.zeros((0, 4, 2), np.float32), 0)
    assert (cost.shape, infeasible.shape, terms.shape) == ((0,), (0,), (2, 0))


@pytest.mark.skipif(sys.platform != "linux", reason="counts glibc's allocations")
@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_rollout_allocates_nothing_and_touches_no_new_page(tmp_path: Path) -> None:
    here = Path(__file__).resolve().parent
    cpp = here.parent.parent / "cpp"
    program = tmp_path / "allocations"
    sources = [
        here / "rollout_allocations.cpp",
        *(cpp / "rollout").glob("*.cpp"),
        cpp / "program" / "program.cpp",
        cpp / "kernels" / "kernels_plain.cpp",
        cpp / "kernels" / "nonfinite.cpp",
    ]
    command = ["c++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    subprocess.run([*command, "-pthread", *map(str, sources), "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
