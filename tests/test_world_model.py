"""edge_wm.world_model: update, advance, rollout, policy and decode against plain numpy loops."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import models
import numpy as np
import pytest
from models import EXTRAS, OFFSET, SCALE, linear, node, onnx_file, part
from scipy.linalg import expm

from edge_wm import world_model
from edge_wm.backends.probe import probe
from edge_wm.errors import MismatchError, ModelError, UsageError
from edge_wm.reasons import Reason
from edge_wm.robot import find_robot, load_robot
from edge_wm.types import (
    Belief,
    ImageGoal,
    JointGoal,
    LatentGoal,
    Motion,
    Observation,
    PoseGoal,
    Sample,
    Seen,
)
from edge_wm.world_model import WorldModel

MS = 1_000_000
ROVER = load_robot(find_robot("rover"))
AXES = ("base.vx", "base.wz")
GOAL = PoseGoal(1.0, -0.5)
DENSE = Path(__file__).parent / "golden" / "backends" / "dense.tflite"


@pytest.fixture(scope="module", autouse=True)
def no_child() -> Iterator[None]:
    """Without the trial in a child process, which tests/backends proves, except where asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world_model, "probe", lambda *a, **k: None)
        yield


@pytest.fixture(scope="module")
def full() -> WorldModel:
    """The linear model with everything that a bundle can have."""
    return WorldModel(models.bundle(linear() | dict(EXTRAS)), ROVER)


@pytest.fixture(scope="module")
def timed() -> WorldModel:
    """The linear model whose dynamics takes dt from 50 to 150 ms."""
    return WorldModel(models.bundle(linear(dt=True), dt={"min_s": 0.05, "max_s": 0.15}), ROVER)


def belief(*z: float, stamp_ns: int = 0) -> Belief:
    return Belief(stamp_ns, {"z": np.array(z or (0.3, -0.2, 0.1), np.float32)})


def actions(k: int, h: int, seed: int = 0) -> np.ndarray:
    scale = np.array([0.4, 1.0])
    return (np.random.default_rng(seed).standard_normal((k, h, 2)) * scale).astype(np.float32)


def normalized(action: np.ndarray) -> np.ndarray:
    return (action.astype(float) - OFFSET.astype(float)) / SCALE.astype(float)


def observation(
    data: Any, stamp_ns: int = 0, reason: Reason | None = None, stream: str = "odometry"
) -> Observation:
    sample = None if data is None else Sample(stream, stamp_ns, stamp_ns, 0, np.asarray(data))
    return Observation(stamp_ns, stamp_ns, {stream: Seen(sample, 0, reason)})


ODOMETRY = np.array([5.0, 6.0, 7.0, 0.4, 0.0, -0.3])
STILL = np.zeros(2, np.float32)


def motion(velocity: Any, period_ms: int = 50, start_ns: int = 0) -> Motion:
    velocity = np.asarray(velocity, np.float64)
    times = start_ns + np.arange(len(velocity)) * period_ms * MS
    return Motion(AXES, times, np.zeros_like(velocity), velocity)


# ---- update --------------------------------------------------------------------------------
def test_update_encodes_what_was_seen(full: WorldModel):
    believed = full.update(observation(ODOMETRY, 123), STILL)
    assert isinstance(believed, Belief)
    assert believed.stamp_ns == 123
    assert believed.tensors["z"].dtype == np.float32
    np.testing.assert_allclose(believed.tensors["z"], [0.4, 0.0, -0.3], atol=1e-6)


@pytest.mark.parametrize(
    ("seen", "reason"),
    [
        (observation(None, reason=Reason.stream_missing), Reason.stream_missing),
        (observation(None), Reason.stream_missing),
        (observation(ODOMETRY, stream="wheels"), Reason.stream_missing),
        (observation(ODOMETRY, reason=Reason.stream_stale), Reason.stream_stale),
        (observation(ODOMETRY[:5]), Reason.sample_wrong_shape),
        (observation(np.full(6, np.nan)), Reason.belief_not_finite),
        (observation(np.full(6, np.inf)), Reason.belief_not_finite),
        (observation(np.full(6, 1e300)), Reason.belief_not_finite),
    ],
)
def test_update_answers_a_bad_world_with_a_reason(full: WorldModel, seen, reason: Reason):
    assert full.update(seen, STILL) is reason


def test_a_stream_that_the_model_does_not_need_may_be_bad(full: WorldModel):
    seen = observation(ODOMETRY)
    streams = {**seen.streams, "camera": Seen(None, 10**9, Reason.stream_missing)}
    assert isinstance(full.update(Observation(0, 0, streams), STILL), Belief)


def camera_model(dtype: str) -> WorldModel:
    """z = the color of the image's first pixel."""
    nodes = [node("Slice", "image from to axes", "pixel"), node("Flatten", "pixel", "raw")]
    nodes.append(node("Cast", "raw", "z", to=1))
    constants = {n: np.array(v) for n, v in (("from", [0, 0]), ("to", [1, 1]), ("axes", [1, 2]))}
    encoder = onnx_file(
        {"image": [1, 64, 64, 3]}, nodes, {"z": [1, 3]}, constants, {"image": dtype}
    )
    functions = linear() | {
        "encoder": part(
            {"onnx": encoder}, f"image=observation.camera:1,64,64,3:{dtype}", "z=belief.z:1,3"
        )
    }
    stream = ROVER.streams["camera"]
    camera = {"type": "image", "shape": [64, 64, 3], "dtype": "uint8", "unit": stream.unit}
    needs = {"streams": {"camera": camera}, "axes": AXES_NEEDED}
    return WorldModel(models.bundle(functions, needs=needs), ROVER)


AXES_NEEDED = [
    {"name": "base.vx", "kind": "twist", "unit": "m/s", "scale": 0.5, "offset": 0.1},
    {"name": "base.wz", "kind": "twist", "unit": "rad/s", "scale": 2.0},
]


@pytest.mark.parametrize(("dtype", "full_scale"), [("uint8", 255.0), ("float32", 1.0)])
def test_an_image_is_read_in_bytes_or_from_0_to_1(dtype: str, full_scale: float):
    image = np.zeros((64, 64, 3), np.uint8)
    image[0, 0] = (255, 51, 0)
    believed = camera_model(dtype).update(observation(image, stream="camera"), STILL)
    assert isinstance(believed, Belief)
    np.testing.assert_allclose(believed.tensors["z"] / full_scale, [1, 0.2, 0], atol=1e-6)


def recurrent(**changes: Any) -> WorldModel:
    """memory' = (memory + 1, odometry vx, the first action): counts its own updates."""
    encoder = onnx_file(
        {"odometry": [6]},
        [node("Slice", "odometry from to", "seen")],
        {"seen": [1]},
        {"from": np.array([3]), "to": np.array([4])},
    )
    posterior = onnx_file(
        {"memory": [1, 3], "seen": [1], "acted": [1, 2]},
        [
            node("Slice", "memory zero one axis", "count"),
            node("Add", "count unit", "more"),
            node("Reshape", "seen square", "column"),
            node("Slice", "acted zero one axis", "first"),
            node("Concat", "more column first", "after", axis=1),
        ],
        {"after": [1, 3]},
        {
            "zero": np.array([0]),
            "one": np.array([1]),
            "axis": np.array([1]),
            "unit": np.array([[1]], np.float32),
            "square": np.array([1, 1]),
        },
    )
    functions = linear() | {
        "encoder": part({"onnx": encoder}, "odometry=observation.odometry:6", "seen=latent.vx:1"),
        "posterior": part(
            {"onnx": posterior},
            "memory=belief.z:1,3 seen=latent.vx:1 acted=last_action:1,2",
            "after=belief.z:1,3",
        ),
    }
    return WorldModel(models.bundle(functions, **changes), ROVER)


def test_a_recurrent_model_continues_from_one_step_before():
    model = recurrent()  # its step is 100 ms

    def count(at_ms: int) -> float:
        last = np.array([0.35, 0.0], np.float32)
        believed = model.update(observation(ODOMETRY, at_ms * MS), last)
        assert isinstance(believed, Belief)
        np.testing.assert_allclose(believed.tensors["z"][1:], [0.4, 0.5], atol=1e-6)
        return float(believed.tensors["z"][0])

    # 20 Hz updates of a 10 Hz model: two chains that take turns.
    assert [count(t) for t in (0, 50, 100, 150, 200)] == [1, 2, 2, 3, 3]
    # The same moment again, as when no new image came, changes nothing.
    assert [count(t) for t in (200, 250, 250, 300)] == [3, 4, 4, 4]
    # Half a step off is near enough, more is not: it begins again.
    assert count(450) == 5
    assert count(601) == 1
    model.reset(0)
    assert count(701) == 1


# ---- advance -------------------------------------------------------------------------------
def test_mean_action_is_the_exact_average_of_linear_velocity(full: WorldModel):
    rng = np.random.default_rng(1)
    moving = motion(rng.standard_normal((12, 2)), period_ms=10, start_ns=10**18)
    for start_ms, end_ms in ((0, 110), (3, 4), (13, 97), (20, 30), (-30, 50), (90, 200), (55, 55)):
        start, end = 10**18 + start_ms * MS, 10**18 + end_ms * MS
        fine = np.linspace(start - 10**18, max(end, start + 1) - 10**18, 20_001)
        at = np.clip((fine[1:] + fine[:-1]) / 2, 0, 110 * MS)
        times = (moving.times_ns - 10**18).astype(float)
        expected = [np.interp(at, times, column).mean() for column in moving.velocity.T]
        got = full.mean_action(moving, start, end)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, atol=2e-5)


def test_mean_action_of_one_knot_is_that_knot(full: WorldModel):
    still = motion([[0.2, -0.4]])
    np.testing.assert_allclose(full.mean_action(still, -10 * MS, 10 * MS), [0.2, -0.4])


def test_mean_action_refuses_what_is_no_motion_of_these_axes(full: WorldModel):
    other = Motion(("a", "b"), np.zeros(1, int), np.zeros((1, 2)), np.zeros((1, 2)))
    with pytest.raises(UsageError) as caught:
        full.mean_action(other, 0, 1)
    assert str(caught.value) == (
        "bundle linear: motion must have the axes base.vx, base.wz, got a, b"
    )
    with pytest.raises(UsageError) as caught:
        full.mean_action(motion(np.zeros((0, 2))), 0, 1)
    assert str(caught.value) == (
        "bundle linear: motion from 0 to 1 ns has no knots; give the standing robot as one knot"
    )


@pytest.mark.parametrize(
    ("delay_ms", "steps", "step_ms"),
    [
        (-20, 0, 0),
        (0, 0, 0),
        (24, 0, 0),  # half of the shortest step
        (26, 1, 50),
        (50, 1, 50),
        (51, 1, 51),
        (100, 1, 100),
        (149.9, 1, 149.9),
        (150, 1, 150),
        (151, 2, 75.5),
        (299, 2, 149.5),
        (300, 2, 150),
        (301, 3, 301 / 3),
        (1000, 7, 1000 / 7),
    ],
)
def test_advance_covers_any_delay_in_steps_that_the_model_knows(
    timed: WorldModel, delay_ms: float, steps: int, step_ms: float
):
    moving = motion([[0.0, 0.0], [0.6, -1.0], [0.2, 0.5], [0.1, 0.1]], period_ms=70)
    delay_ns = round(delay_ms * MS)
    start = belief(0.3, -0.2, 0.1, stamp_ns=20 * MS)
    got = timed.advance(start, moving, 20 * MS + delay_ns)

    z = start.tensors["z"].astype(float)
    for i in range(steps):
        edges = [20 * MS + delay_ns * j / steps for j in (i, i + 1)]
        at = np.linspace(*edges, 2001)
        times = moving.times_ns.astype(float)
        mean = [np.interp((at[1:] + at[:-1]) / 2, times, c).mean() for c in moving.velocity.T]
        rate = models.F.astype(float) @ z + models.G.astype(float) @ normalized(np.array(mean))
        z = z + step_ms * 1e-3 * rate
    assert isinstance(got, Belief)
    assert got.stamp_ns == 20 * MS + delay_ns
    np.testing.assert_allclose(got.tensors["z"], z, atol=1e-5)


@pytest.mark.parametrize(
    ("delay_ms", "steps"), [(0, 0), (49, 0), (50, 1), (149, 1), (150, 2), (249, 2), (1000, 10)]
)
def test_advance_rounds_to_whole_steps_where_the_model_takes_no_dt(
    full: WorldModel, delay_ms: int, steps: int
):
    got = full.advance(belief(), motion([[0.35, 0.5]]), delay_ms * MS)
    z = belief().tensors["z"].astype(float)
    for _ in range(steps):
        z = models.A.astype(float) @ z + models.B.astype(float) @ [0.5, 0.25]
    assert isinstance(got, Belief)
    assert got.stamp_ns == delay_ms * MS
    np.testing.assert_allclose(got.tensors["z"], z, atol=1e-6)


def test_many_small_steps_come_near_the_exact_solution(timed: WorldModel):
    dt = 0.6
    got = timed.advance(belief(), motion([[0.35, 0.5]]), round(dt * 1e9))
    assert isinstance(got, Belief)
    system = np.zeros((5, 5))
    system[:3, :3], system[:3, 3:] = models.F, models.G
    exact = expm(system * dt) @ np.concatenate([belief().tensors["z"], [0.5, 0.25]])
    np.testing.assert_allclose(got.tensors["z"], exact[:3], atol=0.03)


def test_an_advanced_belief_that_is_not_finite_is_a_reason(timed: WorldModel):
    moving = motion([[np.nan, 0.0]])
    assert timed.advance(belief(), moving, 100 * MS) is Reason.belief_not_finite


# ---- rollout -------------------------------------------------------------------------------
def plain_rollout(start: np.ndarray, acts: np.ndarray, goal: PoseGoal) -> dict[str, np.ndarray]:
    """One candidate after the other, one step after the other, in float64."""
    A, B = models.A.astype(float), models.B.astype(float)
    found: dict[str, list] = {"goal": [], "effort": [], "value": [], "risk": [], "z": []}
    for candidate in acts:
        z = start.astype(float)
        way = [z]
        goal_cost = effort = 0.0
        for action in candidate:
            a = normalized(action)
            z = A @ z + B @ a
            way.append(z)
            goal_cost += (z[0] - goal.x) ** 2 + (z[1] - goal.y) ** 2
            effort += a @ a
        found["goal"].append(goal_cost)
        found["effort"].append(effort)
        found["value"].append(10 * z @ z)
        found["risk"].append(max(z[0] for z in way[1:]) - 2)
        found["z"].append(way)
    return {name: np.array(values) for name, values in found.items()}


@pytest.mark.parametrize(("k", "h"), [(1, 1), (1, 12), (7, 3), (128, 12)])
def test_rollout_is_the_plain_loop(full: WorldModel, k: int, h: int):
    acts = actions(k, h)
    got = full.rollout(belief(), acts, GOAL, 0, keep_beliefs=True)
    want = plain_rollout(belief().tensors["z"], acts, GOAL)
    for name in ("goal", "effort", "value"):
        np.testing.assert_allclose(got.terms[name], want[name], rtol=2e-5, atol=1e-5)
    assert got.beliefs is not None
    np.testing.assert_allclose(got.beliefs["z"], want["z"], atol=1e-5)
    assert got.beliefs["z"].shape == (k, h + 1, 3)
    assert got.beliefs["z"].flags.c_contiguous
    total = 2.0 * want["goal"] + 0.5 * want["effort"] + want["value"]
    assert got.cost.dtype == np.float32
    np.testing.assert_allclose(got.cost, total, rtol=2e-5)
    assert not got.infeasible.any()


def test_rollout_gives_the_same_bits_twice_and_keeps_beliefs_on_request_only(full: WorldModel):
    first = full.rollout(belief(), actions(64, 6), GOAL, 3)
    full.rollout(belief(9, 9, 9), actions(5, 2), GOAL, 4)
    again = full.rollout(belief(), actions(64, 6), GOAL, 3)
    assert np.array_equal(first.cost, again.cost)
    assert first.beliefs is None


@pytest.mark.parametrize(
    ("first", "infeasible"), [(1.99, False), (2.0, False), (2.01, True), (np.nan, True)]
)
def test_infeasible_is_where_the_constraint_is_above_0_or_nan(first: float, infeasible: bool):
    """risk = z[0] - 2, with dynamics that leave z alone."""
    stay = onnx_file(
        {"z": ["K", 3], "action": ["K", 2]},
        [node("Identity", "z", "next")],
        {"next": ["K", 3]},
    )
    functions = linear() | {"constraint": EXTRAS["constraint"]}
    functions["dynamics"] = functions["dynamics"] | {"graphs": {"onnx": stay}}
    model = WorldModel(models.bundle(functions), ROVER)
    got = model.rollout(belief(first, 0, 0), actions(3, 2), GOAL, 0)
    assert got.infeasible.tolist() == [infeasible] * 3
    assert np.isposinf(got.cost).tolist() == [infeasible] * 3


def test_one_bad_step_on_the_way_is_enough(full: WorldModel):
    acts = np.zeros((2, 8, 2), np.float32)
    acts[1, 0, 0] = 4.0  # z[0] jumps above 2 and comes back
    got = full.rollout(belief(0, 0, 0), acts, GOAL, 0, keep_beliefs=True)
    assert got.beliefs is not None
    assert got.beliefs["z"][1, 1, 0] > 2 > got.beliefs["z"][1, -1, 0]
    assert got.infeasible.tolist() == [False, True]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_a_candidate_that_is_not_finite_loses_and_leaves_the_others_alone(
    full: WorldModel, bad: float
):
    acts = actions(9, 5)
    clean = full.rollout(belief(), acts, GOAL, 0)
    acts[4, 3, 1] = bad
    got = full.rollout(belief(), acts, GOAL, 0)
    assert np.flatnonzero(got.infeasible).tolist() == [4]
    assert np.flatnonzero(np.isposinf(got.cost)).tolist() == [4]
    others = np.arange(9) != 4
    assert np.array_equal(got.cost[others], clean.cost[others])


def test_a_belief_that_is_not_finite_leaves_no_candidate(full: WorldModel):
    got = full.rollout(belief(np.nan, 0, 0), actions(4, 3), GOAL, 0)
    assert got.infeasible.all()
    assert np.isposinf(got.cost).all()


def test_nan_that_no_cost_looks_at_still_makes_a_candidate_infeasible():
    """A second belief tensor, log(action), that cost does not read."""
    dynamics = onnx_file(
        {"z": ["K", 3], "junk": ["K", 2], "action": ["K", 2]},
        [node("Identity", "z", "next"), node("Log", "action", "log")],
        {"next": ["K", 3], "log": ["K", 2]},
    )
    encoder = onnx_file(
        {"odometry": [1, 6]},
        [node("MatMul", "odometry pick", "z"), node("Slice", "z from to axis", "junk")],
        {"z": [1, 3], "junk": [1, 2]},
        {"pick": models.PICK, "from": np.array([0]), "to": np.array([2]), "axis": np.array([1])},
    )
    functions = linear() | {
        "encoder": part(
            {"onnx": encoder},
            "odometry=observation.odometry:1,6",
            "z=belief.z:1,3 junk=belief.junk:1,2",
        ),
        "dynamics": part(
            {"onnx": dynamics},
            "z=belief.z:-1,3 junk=belief.junk:-1,2 action=action:-1,2",
            "next=belief.z:-1,3 log=belief.junk:-1,2",
        ),
    }
    two = [{"name": "z", "shape": [3]}, {"name": "junk", "shape": [2]}]
    model = WorldModel(models.bundle(functions, belief=two), ROVER)
    start = Belief(0, {"z": np.zeros(3, np.float32), "junk": np.zeros(2, np.float32)})
    acts = np.full((3, 2, 2), 0.6, np.float32)
    acts[1, 0, 0] = -0.6  # the log of a negative number, then overwritten by a good one
    got = model.rollout(start, acts, GOAL, 0)
    assert got.infeasible.tolist() == [False, True, False]


def test_weights_change_within_their_ranges_only():
    model = WorldModel(models.bundle(linear()), ROVER)
    acts = actions(5, 3)
    terms = model.rollout(belief(), acts, GOAL, 0).terms
    model.set_weights({"goal": 10.0, "effort": 0.1})
    assert model.weights == {"goal": 10.0, "effort": 0.1}
    np.testing.assert_allclose(
        model.rollout(belief(), acts, GOAL, 0).cost,
        10 * terms["goal"] + 0.1 * terms["effort"],
        rtol=1e-5,
    )
    for weight in (0.0999, 1.001, np.nan, np.inf):
        with pytest.raises(UsageError) as caught:
            model.set_weights({"goal": 1.0, "effort": weight})
        assert str(caught.value) == (
            f"bundle linear: the weight of cost term effort must be from 0.1 to 1, got {weight:g}"
        )
    with pytest.raises(UsageError) as caught:
        model.set_weights({"speed": 1.0})
    assert str(caught.value) == "bundle linear: no cost term 'speed'; it has goal, effort"
    assert model.weights == {"goal": 10.0, "effort": 0.1}


@pytest.mark.parametrize("shape", [(0, 3, 2), (2, 0, 2), (2, 3, 1), (2, 3), (1, 2, 3, 2)])
def test_rollout_refuses_actions_of_another_shape(full: WorldModel, shape: tuple[int, ...]):
    with pytest.raises(UsageError) as caught:
        full.rollout(belief(), np.zeros(shape, np.float32), GOAL, 0)
    assert str(caught.value) == (
        f"bundle linear: actions must be (K, H, 2) with H a multiple of 1, got {shape}"
    )


def test_a_model_with_blocks_takes_several_actions_a_step():
    """next = z + (a1, a2, w1) of a block of two actions (a1, w1), (a2, w2)."""
    dynamics = onnx_file(
        {"z": ["K", 3], "action": ["K", 4]},
        [node("Gather", "action order", "picked", axis=1), node("Add", "z picked", "next")],
        {"next": ["K", 3]},
        {"order": np.array([0, 2, 1])},
    )
    functions = linear() | {
        "dynamics": part(
            {"onnx": dynamics}, "z=belief.z:-1,3 action=action:-1,4", "next=belief.z:-1,3"
        ),
        "cost": part(
            {
                "onnx": onnx_file(
                    {"z": ["K", 3], "action": ["K", 4], "pose": ["K", 4]},
                    [
                        node("ReduceSumSquare", "action", "effort", axes=[1], keepdims=0),
                        node("ReduceSumSquare", "z", "square", axes=[1], keepdims=0),
                        node("ReduceMin", "pose", "least", axes=[1], keepdims=0),
                        node("Add", "square least", "goal"),
                    ],
                    {"goal": ["K"], "effort": ["K"]},
                )
            },
            "z=belief.z:-1,3 action=action:-1,4 pose=goal.pose:-1,4",
            "goal=cost.goal:-1 effort=cost.effort:-1",
        ),
    }
    model = WorldModel(models.bundle(functions, block=2), ROVER)
    acts = actions(3, 6)
    got = model.rollout(belief(0, 0, 0), acts, GOAL, 0, keep_beliefs=True)
    n = normalized(acts)
    assert got.beliefs is not None
    assert got.beliefs["z"].shape == (3, 4, 3)
    np.testing.assert_allclose(
        got.beliefs["z"][:, -1],
        np.stack([n[:, 0::2, 0].sum(1), n[:, 1::2, 0].sum(1), n[:, 0::2, 1].sum(1)], axis=1),
        atol=1e-5,
    )
    np.testing.assert_allclose(got.terms["effort"], (n**2).sum((1, 2)), rtol=1e-5)
    with pytest.raises(UsageError, match=r"with H a multiple of 2, got \(3, 5, 2\)$"):
        model.rollout(belief(), acts[:, :5], GOAL, 0)
    moving = motion([[0.0, 0.0], [1.0, 2.0]], period_ms=100)
    np.testing.assert_allclose(
        model.mean_action(moving, 0, 100 * MS), [0.25, 0.5, 0.75, 1.5], atol=1e-6
    )


# ---- noise ---------------------------------------------------------------------------------
def noisy() -> WorldModel:
    dynamics = onnx_file(
        {"z": ["K", 3], "action": ["K", 2], "noise": ["K", 3]},
        [node("Add", "z noise", "next")],
        {"next": ["K", 3]},
    )
    functions = linear() | {
        "dynamics": part(
            {"onnx": dynamics},
            "z=belief.z:-1,3 action=action:-1,2 noise=noise:-1,3",
            "next=belief.z:-1,3",
        )
    }
    return WorldModel(models.bundle(functions), ROVER)


def test_noise_follows_from_the_seed_alone():
    model = noisy()

    def imagined(k: int, seed: int) -> np.ndarray:
        got = model.rollout(belief(0, 0, 0), np.zeros((k, 6, 2), np.float32), GOAL, seed, True)
        assert got.beliefs is not None
        return np.diff(got.beliefs["z"], axis=1)

    many = imagined(512, 7)
    assert np.array_equal(many, imagined(512, 7))
    np.testing.assert_allclose(imagined(5, 7), many[:5], atol=1e-6)  # whatever K is
    for other in (8, -7, 2**63, 2**70 + 1):
        assert abs(np.corrcoef(many.ravel(), imagined(512, other).ravel())[0, 1]) < 0.05
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05
    assert abs(np.corrcoef(many[0].ravel(), many[1].ravel())[0, 1]) < 0.9


def test_noise_of_advance_follows_from_the_seed_and_the_time():
    model = noisy()
    still = motion([[0.0, 0.0]])

    def moved(stamp_ns: int, seed: int) -> np.ndarray:
        model.reset(seed)
        got = model.advance(belief(0, 0, 0, stamp_ns=stamp_ns), still, stamp_ns + 200 * MS)
        assert isinstance(got, Belief)
        return got.tensors["z"]

    assert np.array_equal(moved(0, 1), moved(0, 1))
    assert not np.array_equal(moved(0, 1), moved(1, 1))
    assert not np.array_equal(moved(0, 1), moved(0, 2))


# ---- goals ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        (PoseGoal(1, 2), None),
        (PoseGoal(1, 2, 0.5, "odom"), None),
        (PoseGoal(1, 2, None, "map"), Reason.goal_refused),
        (PoseGoal(np.nan, 2), Reason.goal_refused),
        (PoseGoal(1, np.inf), Reason.goal_refused),
        (PoseGoal(1, 2, np.nan), Reason.goal_refused),
        (JointGoal(np.zeros(2)), Reason.goal_refused),
        (ImageGoal(np.zeros((64, 64, 3), np.uint8)), Reason.goal_refused),
        (LatentGoal(np.zeros(3, np.float32)), Reason.goal_refused),
    ],
)
def test_goals_of_another_kind_or_frame_are_refused(full: WorldModel, goal, reason):
    assert full.check_goal(goal) is reason
    if reason is None:
        full.rollout(belief(), actions(2, 2), goal, 0)
        return
    with pytest.raises(UsageError) as caught:
        full.rollout(belief(), actions(2, 2), goal, 0)
    assert str(caught.value) == (
        f"bundle linear: cannot plan for {goal}; it plans for goals of kind pose, poses in frame "
        "odom; ask check_goal first"
    )


def goal_cost(meaning: str, size: int) -> dict[str, Any]:
    """cost.goal = the sum of the goal's numbers, cost.effort = 0 * |z|^2."""
    nodes = [
        node("ReduceSum", "goal axis", "sum", keepdims=0),
        node("ReduceSumSquare", "z", "square", axes=[1], keepdims=0),
        node("Mul", "square zero", "effort"),
        node("Add", "effort sum", "cost"),
    ]
    graph = onnx_file(
        {"z": ["K", 3], "goal": ["K", size]},
        nodes,
        {"cost": ["K"], "effort": ["K"]},
        {"axis": np.array([1]), "zero": np.array(0, np.float32)},
    )
    return part(
        {"onnx": graph},
        f"z=belief.z:-1,3 goal={meaning}:-1,{size}",
        "cost=cost.goal:-1 effort=cost.effort:-1",
    )


def goal_sum(model: WorldModel, goal: Any) -> float:
    """What the cost graph saw of the goal, per step."""
    assert model.check_goal(goal) is None
    got = model.rollout(belief(), actions(3, 4), goal, 0)
    assert len(set(got.terms["goal"].tolist())) == 1
    return float(got.terms["goal"][0]) / 4


def test_a_pose_goal_says_whether_its_heading_counts():
    model = WorldModel(models.bundle(linear() | {"cost": goal_cost("goal.pose", 4)}), ROVER)
    assert goal_sum(model, PoseGoal(1, 2)) == pytest.approx(3)
    assert goal_sum(model, PoseGoal(1, 2, 0.5)) == pytest.approx(4.5)
    assert goal_sum(model, PoseGoal(1, 2, 0.0)) == pytest.approx(4)


def test_joint_and_latent_goals_must_have_the_shape_that_the_graphs_read():
    for kind, make in (("joints", JointGoal), ("latent", LatentGoal)):
        functions = linear() | {"cost": goal_cost(f"goal.{kind}", 2)}
        model = WorldModel(models.bundle(functions, goal_kinds=[kind]), ROVER)
        assert goal_sum(model, make(np.array([1.0, 2.0]))) == pytest.approx(3)
        for bad in (np.zeros(3), np.zeros((1, 2)), np.array([np.nan, 0])):
            assert model.check_goal(make(bad)) is Reason.goal_refused


def test_an_image_goal_goes_through_the_goal_encoder():
    encoder = onnx_file(
        {"image": [4, 4, 3]},
        [node("ReduceMax", "image", "latent", axes=[0, 1], keepdims=0)],
        {"latent": [3]},
    )
    functions = linear() | {
        "cost": goal_cost("goal.latent", 3),
        "goal_encoder": part({"onnx": encoder}, "image=goal.image:4,4,3", "latent=goal.latent:3"),
    }
    model = WorldModel(models.bundle(functions, goal_kinds=["image", "latent"]), ROVER)
    image = np.zeros((4, 4, 3), np.uint8)
    image[1, 2] = (255, 51, 0)
    assert goal_sum(model, ImageGoal(image)) == pytest.approx(1.2)
    assert goal_sum(model, LatentGoal(np.ones(3, np.float32))) == pytest.approx(3)
    assert model.check_goal(ImageGoal(image[:3])) is Reason.goal_refused


# ---- policy and decoder ----------------------------------------------------------------------
def test_a_policy_is_followed_through_the_dynamics(full: WorldModel):
    got = full.policy(belief(), GOAL)
    assert got is not None
    z = belief().tensors["z"].astype(float)
    means = []
    for _ in range(4):  # the manifest's horizon
        means.append(z[:2] * SCALE + OFFSET)
        z = models.A.astype(float) @ z + models.B.astype(float) @ z[:2]
    np.testing.assert_allclose(got.mean, means, atol=1e-6)
    np.testing.assert_allclose(got.std, np.tile(0.1 * SCALE, (4, 1)), atol=1e-6)
    assert got.mean.dtype == got.std.dtype == np.float32


def test_a_policy_whose_answer_is_not_finite_is_silent(full: WorldModel):
    assert full.policy(belief(np.nan, 0, 0), GOAL) is None


def chunk_policy() -> WorldModel:
    """No dynamics: three actions (z, z), (2z, 2z), (3z, 3z) of the first number of z."""
    graph = onnx_file(
        {"z": [1, 3]},
        [node("Slice", "z from to axis", "first"), node("Mul", "first steps", "chunk")],
        {"chunk": [1, 3, 2]},
        {
            "from": np.array([0]),
            "to": np.array([1]),
            "axis": np.array([1]),
            "steps": np.array([[[1, 1], [2, 2], [3, 3]]], np.float32),
        },
    )
    functions = {
        "encoder": linear()["encoder"],
        "policy": part({"onnx": graph}, "z=belief.z:1,3", "chunk=action.chunk:1,3,2"),
    }
    return WorldModel(models.bundle(functions), ROVER)


def test_a_chunk_is_given_as_it_is_and_without_dynamics_time_only_passes():
    model = chunk_policy()
    assert model.check_goal(GOAL) is Reason.goal_refused
    got = model.advance(belief(0.5, 0, 0), motion([[1.0, 1.0]]), 500 * MS)
    assert isinstance(got, Belief)
    assert got.stamp_ns == 500 * MS
    assert got.tensors["z"].tolist() == [0.5, 0, 0]
    with pytest.raises(UsageError) as caught:
        model.rollout(belief(), actions(2, 2), GOAL, 0)
    assert str(caught.value) == (
        "bundle linear has no dynamics to imagine with; ask its policy instead"
    )


def test_a_bundle_without_policy_has_none(timed: WorldModel):
    assert timed.policy(belief(), GOAL) is None


def test_decode_makes_an_image_of_every_belief(full: WorldModel):
    z = np.random.default_rng(0).random((13, 3)).astype(np.float32)
    images = full.decode({"z": z})
    assert images.shape == (13, 1, 1, 3)
    assert np.array_equal(images.reshape(13, 3), z)
    with pytest.raises(UsageError) as caught:
        full.decode({"motion": z})
    assert str(caught.value) == "bundle linear: decode needs belief.z"


def test_decode_without_a_decoder_or_a_batch_axis(timed: WorldModel):
    with pytest.raises(UsageError) as caught:
        timed.decode({"z": np.zeros((1, 3), np.float32)})
    assert str(caught.value) == "bundle linear has no decoder; it imagines no images"
    graph = onnx_file(
        {"z": [3]},
        [node("Reshape", "z shape", "image")],
        {"image": [1, 1, 3]},
        {"shape": np.array([1, 1, 3])},
    )
    single = part({"onnx": graph}, "z=belief.z:3", "image=image:1,1,3")
    model = WorldModel(models.bundle(linear() | {"decoder": single}), ROVER)
    z = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(model.decode({"z": z}).reshape(2, 3), z)


# ---- loading ---------------------------------------------------------------------------------
def test_the_same_model_on_both_libraries():
    functions = linear()
    functions["dynamics"]["graphs"]["tflite"] = DENSE.read_bytes()
    bundle = models.bundle(functions)
    onnx_model = WorldModel(bundle, ROVER)
    assert set(onnx_model.backends) == {"encoder", "dynamics", "cost"}
    assert {name.split()[0] for name in onnx_model.backends.values()} == {"onnxruntime"}
    with pytest.raises(ModelError) as caught:
        WorldModel(bundle, ROVER, backend="litert")
    assert str(caught.value) == (
        "function encoder: backend litert needs a graph in format tflite, the bundle has onnx; "
        "use another backend or rebuild the bundle"
    )
    # Where a function comes as TFLite only, "auto" mixes the libraries.
    functions["dynamics"]["graphs"] = {"tflite": DENSE.read_bytes()}
    mixed = WorldModel(models.bundle(functions), ROVER)
    assert mixed.backends["dynamics"].split()[0] in ("ai-edge-litert", "tflite-runtime")
    acts = actions(100, 12)
    expected = onnx_model.rollout(belief(), acts, GOAL, 0)
    got = mixed.rollout(belief(), acts, GOAL, 0)
    np.testing.assert_allclose(got.cost, expected.cost, rtol=1e-5)


def test_a_bundle_that_computes_something_else_here_is_refused():
    z, action = np.ones((2, 3), np.float32), np.ones((2, 2), np.float32)
    stored = (z @ models.A.T + action @ models.B.T).astype(np.float32)
    good = ("dynamics", {"z": z, "action": action}, {"next": stored}, 1e-5)
    WorldModel(models.bundle(linear(), [good]), ROVER)
    bad = ("dynamics", {"z": z, "action": action}, {"next": stored + 1}, 1e-5)
    with pytest.raises(ModelError, match=r"^function dynamics: reference case 1, output 'next'"):
        WorldModel(models.bundle(linear(), [good, bad]), ROVER)


def test_a_bundle_is_tried_in_a_child_process_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("EDGE_WM_CACHE", str(tmp_path))
    monkeypatch.setattr(world_model, "probe", probe)
    functions = linear()
    functions["dynamics"]["graphs"] = {"onnx": b"no graph"}
    monkeypatch.setattr(world_model, "load_graph", lambda *a, **k: pytest.fail("loaded here"))
    with pytest.raises(ModelError, match=r"^function dynamics: onnxruntime .* refuses the graph"):
        WorldModel(models.bundle(functions), ROVER)
    monkeypatch.undo()
    monkeypatch.setenv("EDGE_WM_CACHE", str(tmp_path))
    monkeypatch.setattr(world_model, "probe", probe)
    WorldModel(models.bundle(linear()), ROVER)
    assert len(list(tmp_path.rglob("*"))) == 2  # remembered


def test_a_bundle_for_another_robot_is_refused():
    with pytest.raises(MismatchError, match=r"^bundle linear 1\.0\.0 needs stream 'odometry'"):
        WorldModel(models.bundle(linear()), load_robot(find_robot("arm")))


def test_an_effort_axis_is_refused_in_words():
    axes = [{**axis, "kind": "effort"} for axis in AXES_NEEDED]
    streams = {"odometry": {"type": "odometry", "shape": [6], "dtype": "float64", "unit": "SI"}}
    robot = dataclasses.replace(
        ROVER, axes=tuple(dataclasses.replace(axis, kind="effort") for axis in ROVER.axes)
    )
    with pytest.raises(MismatchError) as caught:
        WorldModel(models.bundle(linear(), needs={"streams": streams, "axes": axes}), robot)
    assert str(caught.value) == (
        "bundle linear: axis base.vx is of kind effort, and motion is recorded as position and "
        "velocity only; command it by position or velocity"
    )


def test_a_rolled_out_graph_must_take_a_batch():
    functions = linear()
    functions["cost"] = functions["cost"] | {
        "inputs": [
            {**tensor, "shape": [1, 3]} if tensor["tensor"] == "z" else tensor
            for tensor in functions["cost"]["inputs"]
        ]
    }
    with pytest.raises(ModelError) as caught:
        WorldModel(models.bundle(functions), ROVER)
    assert str(caught.value) == (
        "bundle linear: functions.cost.inputs.z.shape must begin with -1, the batch of "
        "candidates, got [1, 3]; export it with a batch axis"
    )


def test_position_axes_act_by_where_they_are_at_the_end():
    arm = load_robot(find_robot("arm"))
    encoder = onnx_file({"joints": [2, 2]}, [node("Flatten", "joints", "z")], {"z": [1, 4]}, {})
    stream = arm.streams["joints"]
    policy = onnx_file(
        {"z": [1, 4]},
        [node("Slice", "z from to axis", "mean")],
        {"mean": [1, 2]},
        {"from": np.array([0]), "to": np.array([2]), "axis": np.array([1])},
    )
    functions = {
        "encoder": part({"onnx": encoder}, "joints=observation.joints:2,2", "z=belief.z:1,4"),
        "policy": part({"onnx": policy}, "z=belief.z:1,4", "mean=action.mean:1,2"),
    }
    needs = {
        "streams": {
            "joints": {
                "type": "joint_state",
                "shape": [2, 2],
                "dtype": stream.dtype,
                "unit": stream.unit,
            }
        },
        "axes": [
            {"name": axis.name, "kind": axis.kind, "unit": axis.unit, "scale": 1.0}
            for axis in arm.axes
        ],
    }
    shape = [{"name": "z", "shape": [4]}]
    model = WorldModel(models.bundle(functions, needs=needs, belief=shape), arm)
    position = np.array([[0.0, 1.0], [0.4, 0.6]])
    moving = Motion(
        tuple(axis.name for axis in arm.axes), np.array([0, 100 * MS]), position, position * 0
    )
    np.testing.assert_allclose(model.mean_action(moving, 0, 50 * MS), [0.2, 0.8], atol=1e-6)
    np.testing.assert_allclose(model.mean_action(moving, 0, 300 * MS), [0.4, 0.6], atol=1e-6)
