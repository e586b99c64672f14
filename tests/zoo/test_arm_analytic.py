"""zoo/arm_analytic: the shipped bundle against the plain equations (scipy) and against MuJoCo."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from simulation.test_arm import coriolis, mass_matrix

from edge_wm import shipped
from edge_wm.backends.choice import settle
from edge_wm.bundle import Bundle, load_trust, open_bundle
from edge_wm.planner import CountBudget, make_planner
from edge_wm.robot import Robot, find_robot, load_robot, sphere_centers
from edge_wm.runtime import Permitted, planner_settings
from edge_wm.simulation.arm import ARM, ArmPlant, arm_scene
from edge_wm.types import Belief, Float64, JointGoal, Motion
from edge_wm.world_model import WorldModel

ZOO = shipped.folder("zoo") / "arm_analytic"
STEP_S, SUBSTEPS = 0.1, 8
SPEED, ACCELERATION, EFFORT = np.array([2.0, 2.5]), np.array([8.0, 12.0]), np.array([12.0, 6.0])
BRAKING = np.array([10.0, 15.0])


def each(name: str) -> Float64:
    return np.array([getattr(drive, name) for drive in ARM.drives])


@pytest.fixture(scope="module")
def robot() -> Robot:
    return load_robot(find_robot("arm"))


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(ZOO / "arm.wmb", load_trust())


@pytest.fixture(scope="module")
def model(bundle: Bundle, robot: Robot) -> WorldModel:
    return WorldModel(bundle, robot)


# ---- the same motion, computed elsewhere -----------------------------------------------------
class Setpoint:
    """The setpoint's way to one action after another, for a (2,) arm: plain numbers."""

    def __init__(self, position: Float64, velocity: Float64) -> None:
        self.c, self.w = position.copy(), velocity.copy()

    def parts(self, action: Float64) -> list[tuple[Float64, Float64, Float64]]:
        """(position, velocity, acceleration) at the start of each part of one model step."""
        h, parts = STEP_S / SUBSTEPS, []
        for index in range(SUBSTEPS):
            wanted = np.clip((action - self.c) / (STEP_S - index * h), -SPEED, SPEED)
            most = ACCELERATION * h
            change = (np.clip(wanted, self.w - most, self.w + most) - self.w) / h
            parts.append((self.c, self.w, change))
            self.c = self.c + h * self.w + h * h / 2 * change
            self.w = self.w + h * change
        return parts


def torque(q: Float64, v: Float64, c: Float64, w: Float64) -> Float64:
    wanted = each("position_gain") * (c - q) + each("velocity_gain") * (w - v)
    return np.clip(wanted, -EFFORT, EFFORT)


def by_scipy(q: Float64, v: Float64, actions: Float64) -> Float64:
    """(H + 1, 4): positions and velocities after each action, by the plain equation."""
    setpoint, state = Setpoint(q, v), np.concatenate([q, v])
    path = [state]
    for action in actions:
        for c, w, a in setpoint.parts(action):

            def change(t: float, s: Float64, c=c, w=w, a=a) -> Float64:
                now = torque(s[:2], s[2:], c + t * w + t * t / 2 * a, w + t * a)
                force = now - each("viscous") * s[2:] - each("coulomb") * np.tanh(s[2:] / 0.05)
                turn = np.linalg.solve(mass_matrix(s[:2]), force - coriolis(s[:2], s[2:]))
                return np.concatenate([s[2:], turn])

            done = solve_ivp(change, (0, STEP_S / SUBSTEPS), state, rtol=1e-8, atol=1e-9)
            state = done.y[:, -1]
        path.append(state)
    return np.array(path)


def along(
    q: Float64, v: Float64, actions: Float64, step_s: float, advance: Callable[..., Float64]
) -> Float64:
    """The same path where `advance(c, w)` moves a machine on by `step_s` and tells its state."""
    setpoint, path = Setpoint(q, v), [np.concatenate([q, v])]
    for action in actions:
        parts = setpoint.parts(action)
        for now in step_s * np.arange(round(STEP_S / step_s)):
            index = int(now * SUBSTEPS / STEP_S + 1e-9)
            (c, w, a), t = parts[index], now - index * STEP_S / SUBSTEPS
            state = advance(c + t * w + t * t / 2 * a, w + t * a)
        path.append(state)
    return np.array(path)


def by_mujoco(robot: Robot, q: Float64, v: Float64, actions: Float64) -> Float64:
    """By mj_step, with the torques of the servo alone: no windings, no encoders."""
    step_s = 0.25e-3
    arm = mujoco.MjModel.from_xml_string(arm_scene(robot, step_s=step_s))
    data = mujoco.MjData(arm)
    data.qpos[:], data.qvel[:] = q, v

    def advance(c: Float64, w: Float64) -> Float64:
        data.ctrl[:] = torque(data.qpos, data.qvel, c, w)
        mujoco.mj_step(arm, data)
        return np.concatenate([data.qpos, data.qvel])

    return along(q, v, actions, step_s, advance)


def by_plant(robot: Robot, q: Float64, actions: Float64) -> Float64:
    """By the whole plant from rest, its servo reading encoders: what the model stands for."""
    plant = ArmPlant(robot)
    plant.reset(q.tolist())

    def advance(c: Float64, w: Float64) -> Float64:
        seen = plant.reading()
        plant.step(torque(seen.position, seen.velocity, c, w).tolist(), "torque")
        return np.concatenate([plant.position, plant.velocity])

    return along(q, np.zeros(2), actions, 1e-3, advance)


def imagined(model: WorldModel, q: Float64, v: Float64, actions: Float64) -> Float64:
    """(K, H + 1, 4) of actions (K, H, 2)."""
    path = model.rollout(
        belief_at(q, v), actions.astype(np.float32), JointGoal(np.zeros(2)), 0, keep_beliefs=True
    ).beliefs
    assert path is not None
    return np.concatenate([path["position"], path["velocity"]], axis=2)


def belief_at(q: Float64, v: Float64) -> Belief:
    tensors = {
        "position": q, "velocity": v, "command": q, "command_velocity": v,
        "command_acceleration": np.zeros(2), "pose": np.zeros(3),
    }  # fmt: skip
    return Belief(0, {name: value.astype(np.float32) for name, value in tensors.items()})


CASES = [
    # position, velocity, and what the actions are drawn about
    ([0.0, 0.0], [0.0, 0.0], [-0.8, 1.0]),
    ([-1.2, 1.5], [0.0, 0.0], [-0.6, 0.4]),
    ([-0.5, -1.0], [1.0, -1.5], [0.2, -1.6]),
    ([-2.0, 0.3], [0.0, 2.0], [-2.0, 1.2]),
]


def actions_towards(q: Float64, end: Float64, count: int = 3) -> Float64:
    """(K, 10, 2): from q to the end in a straight line, and with noise."""
    random = np.random.default_rng(3)
    line = q + np.minimum(np.linspace(0.15, 1.5, 10), 1.0)[:, None] * (end - q)
    return line + random.normal(0.0, 0.1, (count, 10, 2)) * np.arange(count)[:, None, None]


@pytest.mark.parametrize(("q", "v", "end"), CASES)
def test_the_dynamics_are_those_of_the_plain_equation(model, q, v, end) -> None:
    q, v = np.array(q), np.array(v)
    actions = actions_towards(q, np.array(end))
    found = imagined(model, q, v, actions)
    for k, path in enumerate(found):
        plain = by_scipy(q, v, actions[k])
        assert np.abs(plain[-1, :2] - q).max() > 0.3
        np.testing.assert_allclose(path[:, :2], plain[:, :2], atol=1e-3)
        np.testing.assert_allclose(path[:, 2:], plain[:, 2:], atol=2e-2)


@pytest.mark.parametrize(("q", "v", "end"), CASES)
def test_the_dynamics_are_those_of_mujoco(model, robot, q, v, end) -> None:
    """Dry friction is sharp there and smooth here; that is most of what is between them."""
    q, v = np.array(q), np.array(v)
    actions = actions_towards(q, np.array(end))
    found = imagined(model, q, v, actions)
    for k, path in enumerate(found):
        there = by_mujoco(robot, q, v, actions[k])
        np.testing.assert_allclose(path[:, :2], there[:, :2], atol=6e-3)
        np.testing.assert_allclose(path[:, 2:], there[:, 2:], atol=0.12)


def test_the_whole_plant_moves_as_imagined(model, robot) -> None:
    for q, _, end in CASES[:2]:
        q, end = np.array(q), np.array(end)
        actions = actions_towards(q, end, count=2)
        for k, path in enumerate(imagined(model, q, np.zeros(2), actions)):
            there = by_plant(robot, q, actions[k])
            moved = np.abs(there[:, :2] - q).max()
            assert np.abs(path[:, :2] - there[:, :2]).max() < 0.03 * moved


def test_every_backend_gives_the_same(bundle, robot, model) -> None:
    q, actions = (
        np.array([-1.2, 1.5]),
        actions_towards(np.array([-1.2, 1.5]), np.array([-0.6, 0.4])),
    )
    other = WorldModel(bundle, robot, backend="onnxruntime")
    assert set(other.backends.values()) != set(model.backends.values())
    np.testing.assert_allclose(
        imagined(other, q, np.zeros(2), actions),
        imagined(model, q, np.zeros(2), actions),
        atol=1e-4,
    )


# ---- cost, constraint ------------------------------------------------------------------------
def clearance(robot: Robot, q: Float64) -> float:
    """Between the body's spheres, the post and the wall, from the robot file's own kinematics."""
    assert robot.kinematics is not None
    (post,), (room,) = robot.keep_out, robot.workspace
    away = []
    for center, sphere in zip(
        sphere_centers(robot.kinematics, q), robot.kinematics.spheres, strict=True
    ):
        away.append(np.linalg.norm(center - np.array(post.center)) - post.radius - sphere.radius)
        low, high = np.array(room.lower)[:2], np.array(room.upper)[:2]
        away += [*(center[:2] - low - sphere.radius), *(high - center[:2] - sphere.radius)]
    return float(min(away))


def test_near_the_post_or_the_wall_is_infeasible_and_nowhere_else(model, robot) -> None:
    """One action that stays: infeasible where the body would be nearer than 2 cm."""
    random = np.random.default_rng(5)
    seen = set()
    for _ in range(300):
        q = random.uniform([-2.6, -2.4], [2.6, 2.4])
        near = clearance(robot, q)
        if abs(near - 0.02) < 2e-3:
            continue
        stay = np.tile(q, (1, 1, 1)).astype(np.float32)
        outcome = model.rollout(belief_at(q, np.zeros(2)), stay, JointGoal(q), 0)
        assert bool(outcome.infeasible[0]) == (near < 0.02), (q, near)
        seen.add(near < 0.02)
        if near > 0.0:
            lack = np.clip(1.0 - near / 0.06, 0.0, 1.0) ** 2
            assert outcome.terms["clearance"][0] == pytest.approx(lack, abs=5e-3)
    assert seen == {True, False}


def test_a_setpoint_that_could_not_be_braked_before_the_post_is_infeasible(model) -> None:
    angle = float(np.arctan2(0.4, 0.3))
    q = np.array([angle - 0.42, 0.0])  # 4 cm of clearance
    toward, away = np.array([2.0, 0.0]), np.array([-2.0, 0.0])
    for velocity, refused in ((toward, True), (away, False)):
        action = (q + 0.1 * velocity).reshape(1, 1, 2).astype(np.float32)
        outcome = model.rollout(belief_at(q, velocity), action, JointGoal(q), 0)
        assert bool(outcome.infeasible[0]) is refused


def test_cost_terms_are_what_the_manifest_says(model) -> None:
    q, goal = np.array([-0.5, -1.0]), np.array([0.1, -1.4])
    actions = actions_towards(q, goal, count=2)
    outcome = model.rollout(
        belief_at(q, np.zeros(2)), actions.astype(np.float32), JointGoal(goal), 0, keep_beliefs=True
    )
    assert outcome.beliefs is not None
    position, velocity, command, pace, acceleration = (
        outcome.beliefs[name][:, 1:].astype(np.float64)
        for name in (
            "position", "velocity", "command", "command_velocity", "command_acceleration",
        )
    )  # fmt: skip
    before = outcome.beliefs["command_velocity"][:, :-1].astype(np.float64)
    np.testing.assert_allclose(acceleration, (pace - before) / STEP_S, atol=1e-3)

    def distance(away: Float64) -> Float64:
        return np.sqrt(np.square(away).sum(axis=-1) + 0.1**2) - 0.1

    rest = command[:, -1] + pace[:, -1] * np.abs(pace[:, -1]) / (2 * BRAKING)
    expected = {
        "goal": distance(position - goal).sum(axis=1),
        "speed": np.square(velocity).sum(axis=(1, 2)),
        "stretch": np.square(actions - command).sum(axis=(1, 2)),
        "acceleration": np.square(acceleration).sum(axis=(1, 2)),
        "value": distance(rest - goal),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(outcome.terms[name], values, rtol=1e-3, atol=1e-4)


# ---- planning --------------------------------------------------------------------------------
def test_the_planner_comes_near_what_an_optimizer_finds(bundle, robot, model) -> None:
    """Powell's method goes on from its answer: three quarters of what can be won are won."""
    settings = planner_settings(bundle.manifest)
    q, goal = np.array([-1.2, 1.5]), JointGoal(np.array([-0.3, 0.3]))
    belief = belief_at(q, np.zeros(2))
    planner = make_planner(settings, robot.axes)
    still = Motion(robot.axis_names, np.array([0]), q[None], np.zeros((1, 2)))
    for _ in range(6):  # as live: each plan starts from the one before
        planner.commit(still)
        plan = planner.propose(
            belief, goal, Permitted(model.rollout, model), CountBudget(99), stamp_ns=0
        )

    def cost(flat: Float64) -> float:
        actions = flat.reshape(1, *plan.actions.shape).astype(np.float32)
        return float(model.rollout(belief, actions, goal, 0).cost[0])

    assert cost(plan.actions.ravel()) == pytest.approx(plan.cost, rel=1e-5)
    standing = cost(np.tile(q, len(plan.actions)))
    better = minimize(cost, plan.actions.ravel(), method="Powell", options={"maxfev": 1500}).fun
    assert plan.cost < better + 0.25 * (standing - better)


def test_a_plan_ends_in_mujoco_where_it_was_imagined_to(bundle, robot, model) -> None:
    q, goal = np.array([-0.2, -1.0]), JointGoal(np.array([-0.9, 0.2]))
    planner = make_planner(planner_settings(bundle.manifest), robot.axes)
    planner.commit(Motion(robot.axis_names, np.array([0]), q[None], np.zeros((1, 2))))
    plan = planner.propose(
        belief_at(q, np.zeros(2)), goal, Permitted(model.rollout, model), CountBudget(99),
        stamp_ns=0,
    )  # fmt: skip
    actions = plan.actions.astype(np.float64)
    path = imagined(model, q, np.zeros(2), actions[None])[0]
    there = by_mujoco(robot, q, np.zeros(2), actions)
    assert np.abs(there[-1, :2] - q).max() > 0.5
    np.testing.assert_allclose(path[:, :2], there[:, :2], atol=8e-3)


# ---- the file --------------------------------------------------------------------------------
@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("onnx")
    monkeypatch.syspath_prepend(str(ZOO))
    for name in ("graphs", "equations", "export"):
        sys.modules.pop(name, None)
    import export

    yield export.export
    for name in ("graphs", "equations", "export"):
        sys.modules.pop(name, None)


def test_the_shipped_bundle_holds_what_its_script_writes(bundle, export, tmp_path: Path) -> None:
    export(tmp_path)
    for name, function in bundle.manifest.functions.items():
        written = hashlib.sha256((tmp_path / f"{name}.onnx").read_bytes()).hexdigest()
        assert function.graphs["onnx"] == written, f"{name}: build the bundle again"


def test_every_function_runs_on_the_native_kernels(bundle) -> None:
    assert set(settle(bundle, "first").chosen.values()) == {"native"}
