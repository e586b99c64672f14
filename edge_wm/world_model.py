"""The world-model contract, kept by whatever graphs a bundle brings.

A bundle's functions are joined by names only: the manifest says what each input is fed from
and what each output is. This room feeds them, and knows no model family.

    Observation ──encoder──► latent ──posterior──► Belief          update
    Belief ──dynamics, one stretch of the committed motion each──► Belief        advance
    Belief ──dynamics──► 1 ──dynamics──► 2 ... H      for K candidates at once   rollout
                 each imagined belief ──cost, constraint──► (H * K,)
                         the last one ──value──► (K,)

Cost and constraint see the belief *after* an action together with that action.

Actions are SI everywhere outside; model_action = (SI - offset) / scale happens here and nowhere
else. An action is what an axis does over its stretch of time: for velocity and twist axes the
average over the stretch, for position axes the position at its end.

The invariant: no number that is not finite leaves this room as if it were good. A belief that
is not finite is a Reason; a candidate that touches NaN or infinity anywhere on its way is
infeasible and costs +inf.

Not thread-safe: one WorldModel belongs to one plan tick.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_wm.backends import BACKENDS, Graph, load_graph, native_rollout
from edge_wm.backends.choice import settle, spelled
from edge_wm.backends.probe import probe
from edge_wm.backends.reference import cases_for, require_reference, warm_up
from edge_wm.bundle import Bundle, check_fit
from edge_wm.bundle.manifest import ROLLED_OUT, Function, Input, Manifest
from edge_wm.bundle.structure import largest_batch
from edge_wm.errors import MismatchError, ModelError, UsageError
from edge_wm.numbers import nonfinite_rows
from edge_wm.reasons import Reason
from edge_wm.robot import Robot
from edge_wm.types import (
    Array,
    Belief,
    Bool,
    Float32,
    Float64,
    Goal,
    ImageGoal,
    Int64,
    JointGoal,
    Motion,
    Observation,
    PolicyProposal,
    PoseGoal,
    Rollout,
)

if TYPE_CHECKING:
    from edge_wm.planner import Imagination

# What the noise of a call is for; part of the generator's key, so that no two share numbers.
_UPDATE, _ADVANCE, _ROLLOUT, _POLICY = range(4)


class WorldModel:
    """A bundle's functions on chosen backends, for one robot."""

    def __init__(
        self, bundle: Bundle, robot: Robot, *, backend: str = "first", threads: int = 1
    ) -> None:
        """Try the bundle in a child process, load it, and hold it against its reference outputs.

        backend: one of edge_wm.backends.BACKENDS for every function; "first", which takes for
            each function the first that is installed and has a graph; "auto", which measures
            (edge_wm.backends.choice); or what `self.backend` was before.

        Raises:
            MismatchError: the bundle does not fit the robot file.
            BackendError: the inference library is not installed.
            ModelError: a graph crashes or hangs its library, is refused by it, or does not give
                its reference outputs on this machine.
        """
        manifest = bundle.manifest
        check_fit(manifest, robot)
        _require_runnable(manifest)
        functions: dict[str, Function] = {str(n): f for n, f in manifest.functions.items()}
        chosen = settle(bundle, backend, threads=threads).chosen
        probe(bundle, chosen, threads=threads)
        graphs: dict[str, Graph] = {}
        for name, function in functions.items():
            digests = {str(kind): digest for kind, digest in function.graphs.items()}
            blob = bundle.blob(digests[BACKENDS[chosen[name]]])
            rows = largest_batch(manifest, name)
            graphs[name] = load_graph(
                blob, function, chosen[name], name=name, threads=threads, rows=rows
            )
            warm_up(function, graphs[name], rows)
        require_reference(bundle, functions, cases_for(manifest.reference, chosen), graphs)
        frames = {s.frame for s in robot.streams.values() if s.type == "odometry"}
        self._join(manifest, graphs, frames, threads)
        self.backend = spelled(chosen)  # makes the same choice again, without measuring

    @classmethod
    def of_graphs(
        cls, manifest: Manifest, graphs: Mapping[str, Graph], pose_frames: Collection[str]
    ) -> WorldModel:
        """A world model of graphs that the caller loaded and answers for: to measure, not to drive.

        pose_frames: the frames that a pose goal may be given in.

        Raises: MismatchError, ModelError, as making one of a bundle does for its manifest.
        """
        _require_runnable(manifest)
        model = cls.__new__(cls)
        model._join(manifest, graphs, pose_frames, threads=1)
        return model

    def _join(
        self,
        manifest: Manifest,
        graphs: Mapping[str, Graph],
        pose_frames: Collection[str],
        threads: int,
    ) -> None:
        """Join loaded functions to a model."""
        self.manifest = manifest
        self._functions: dict[str, Function] = {str(n): f for n, f in manifest.functions.items()}
        self._graphs = dict(graphs)
        self._native = native_rollout(manifest, self._graphs, threads)
        # function -> library and version that runs it, for the recording's header.
        self.backends: dict[str, str] = {name: g.backend for name, g in self._graphs.items()}

        needs = manifest.needs.axes
        self._axes = tuple(axis.name for axis in needs)
        self._scale = np.array([axis.scale for axis in needs], np.float32)
        self._offset = np.array([axis.offset for axis in needs], np.float32)
        self._is_position = np.array([axis.kind == "position" for axis in needs])
        self._weights = {name: term.weight for name, term in manifest.cost_terms.items()}
        self._pose_frames = frozenset(pose_frames)
        self._goal: tuple[Goal, dict[str, Array]] | None = None
        self.reset(0)

    @property
    def scratch_bytes(self) -> int | None:
        """What the native rollout keeps beside its weights; None where there is none."""
        return None if self._native is None else self._native.scratch_bytes

    # ---- settings -------------------------------------------------------------------------
    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each cost term."""
        return dict(self._weights)

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change weights of cost terms within the ranges of the manifest.

        Raises:
            UsageError: no such term, or out of its range; nothing is changed then.
        """
        terms = self.manifest.cost_terms
        for name, weight in weights.items():
            if name not in terms:
                raise UsageError(
                    f"bundle {self.manifest.name}: no cost term {name!r}; "
                    f"it has {', '.join(terms) or 'none'}"
                )
            if not terms[name].min <= weight <= terms[name].max:
                raise UsageError(
                    f"bundle {self.manifest.name}: the weight of cost term {name} must be from "
                    f"{terms[name].min:g} to {terms[name].max:g}, got {weight:g}"
                )
        self._weights.update(weights)

    def reset(self, seed: int) -> None:
        """Forget what was believed before; `seed` is that of the noise in update and advance."""
        self._seed = seed
        self._history: deque[Belief] = deque()

    # ---- belief ---------------------------------------------------------------------------
    def blank_belief(self, stamp_ns: int) -> Belief:
        """The belief of a model that has seen nothing: zeros."""
        zeros = {t.name: np.zeros(t.shape, t.dtype) for t in self.manifest.belief}
        return Belief(stamp_ns, zeros)

    def update(self, observation: Observation, last_action: Float32) -> Belief | Reason:
        """What to believe at `observation.stamp_ns`, or why nothing can be.

        last_action: (block * A,) SI: what acted over the step before it (`mean_action`).

        A recurrent model continues from what it believed one model step earlier, also when
        it is updated more often than that: updates every third of a step make three chains of
        beliefs that take turns, each at the spacing that the model was trained on. Where no
        belief lies within half a step of that moment, it starts again from zeros.
        """
        items: dict[str, Array] = {}
        for spec in self._functions["encoder"].inputs:
            stream = spec.source.removeprefix("observation.")
            seen = observation.streams.get(stream)
            if seen is None or (seen.sample is None and seen.reason is None):
                return Reason.stream_missing
            if seen.reason is not None or seen.sample is None:
                return seen.reason or Reason.stream_missing
            data = seen.sample.data
            if data.shape != self.manifest.needs.streams[stream].shape:
                return Reason.sample_wrong_shape
            items[spec.source] = data
        encoded = self._run("encoder", items)
        stamp_ns = observation.stamp_ns
        if "posterior" in self._functions:
            before = self._one_step_before(stamp_ns)
            items = encoded | _named(before.tensors)
            items["last_action"] = self._normalize(np.reshape(last_action, (1, -1)))[0]
            items["dt"] = self._dt((stamp_ns - before.stamp_ns) * 1e-9)
            items |= self._noise("posterior", 1, _UPDATE, self._seed, stamp_ns)
            encoded = self._run("posterior", items)
        belief = Belief(stamp_ns, self._belief_tensors(encoded))
        if not _finite(belief):
            return Reason.belief_not_finite
        self._remember(belief)
        return belief

    def advance(self, belief: Belief, committed: Motion, apply_at_ns: int) -> Belief | Reason:
        """The belief at `apply_at_ns`, if the axes move as `committed` until then.

        The stretch is cut into equal steps that the model was trained on: within the manifest's
        `dt` if the model takes one, else as many whole steps as come nearest. Motion outside
        the knots of `committed` is that of its first or last knot.
        """
        tensors: Mapping[str, Array] = belief.tensors
        steps, step_s = self._steps(apply_at_ns - belief.stamp_ns)
        span_ns = apply_at_ns - belief.stamp_ns
        for i in range(steps):
            start_ns = belief.stamp_ns + span_ns * i // steps
            end_ns = belief.stamp_ns + span_ns * (i + 1) // steps
            action = self.mean_action(committed, start_ns, end_ns)
            items = _named(tensors)
            items["action"] = self._normalize(action[None])[0]
            items["dt"] = np.array(step_s, np.float32)
            items |= self._noise("dynamics", 1, _ADVANCE, self._seed, start_ns)
            tensors = self._belief_tensors(self._run("dynamics", items))
        advanced = Belief(apply_at_ns, tensors)
        return advanced if _finite(advanced) else Reason.belief_not_finite

    def mean_action(self, motion: Motion, from_ns: int, until_ns: int) -> Float32:
        """The action that `motion` amounts to between two times: (block * A,) SI.

        Each of the `block` equal parts of the stretch gives A numbers: the average velocity for
        velocity and twist axes (exact for velocities that are linear between knots), the
        position at the end for position axes.
        """
        if motion.axes != self._axes:
            raise UsageError(
                f"bundle {self.manifest.name}: motion must have the axes {', '.join(self._axes)}, "
                f"got {', '.join(motion.axes)}"
            )
        if not len(motion.times_ns):
            raise UsageError(
                f"bundle {self.manifest.name}: motion from {from_ns} to {until_ns} ns has no "
                "knots; give the standing robot as one knot"
            )
        block = self.manifest.block
        edges = [from_ns + (until_ns - from_ns) * i // block for i in range(block + 1)]
        parts = [
            np.where(
                self._is_position,
                _values(motion.position, motion.times_ns - end, np.zeros(1))[0],
                _mean(motion.velocity, motion.times_ns - start, end - start),
            )
            for start, end in pairwise(edges)
        ]
        return np.concatenate(parts).astype(np.float32)

    # ---- imagination ----------------------------------------------------------------------
    def check_goal(self, goal: Goal) -> Reason | None:
        """Why this bundle cannot plan for `goal`, None if it can."""
        return None if self._goal_kind(goal) else Reason.goal_refused

    def rollout(
        self,
        belief: Belief,
        actions: Float32,
        goal: Goal | None,
        seed: int,
        keep_beliefs: bool = False,
    ) -> Rollout:
        """Imagine K action sequences from one belief.

        actions: (K, H, A) float32, SI; H in actions, `block` of them to a model step.
        seed: of the model's noise; candidate k meets the same noise whatever K is.
        goal: None for a bundle that reads no goal.
        keep_beliefs: also give the imagined beliefs, (K, steps + 1, ...) each.

        Raises:
            UsageError: wrong shape, a goal that `check_goal` refuses, or a bundle without
                dynamics.
        """
        manifest = self.manifest
        if "dynamics" not in self._functions:
            raise UsageError(
                f"bundle {manifest.name} has no dynamics to imagine with; ask its policy instead"
            )
        K, H, A = actions.shape if actions.ndim == 3 else (0, 0, 0)
        if not K or not H or len(self._axes) != A or H % manifest.block:
            raise UsageError(
                f"bundle {manifest.name}: actions must be (K, H, {len(self._axes)}) with H a "
                f"multiple of {manifest.block}, got {actions.shape}"
            )
        if self._native is not None:
            steps = H // manifest.block
            noise = self._noise("dynamics", K, _ROLLOUT, seed, 0, steps).get("noise")
            outcome = self._native.run(
                belief.tensors,
                self._goal_tensors(goal),
                actions.reshape(K, steps, -1),
                dt=float(self._dt(manifest.step_ns * 1e-9)),
                weights=self._weights,
                noise=None if noise is None else noise.reshape(steps, K, -1),
                keep_beliefs=keep_beliefs,
            )
            return Rollout(*outcome)
        model_actions = self._normalize(actions.reshape(K, -1)).reshape(K, H // manifest.block, -1)
        model_actions = np.ascontiguousarray(model_actions.swapaxes(0, 1))
        path = self._imagine(belief, model_actions, seed)
        terms, infeasible = self._judge(path, model_actions, self._goal_tensors(goal))
        infeasible |= _not_finite(actions.reshape(K, -1))
        cost = np.zeros(K, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            for name, term in terms.items():
                cost += np.float32(self._weights.get(name, 1.0)) * term
        infeasible |= ~np.isfinite(cost)
        cost[infeasible] = np.inf
        beliefs = None
        if keep_beliefs:
            beliefs = {n: np.ascontiguousarray(v.swapaxes(0, 1)) for n, v in path.items()}
        return Rollout(cost, infeasible, terms, beliefs)

    def imagination(self, belief: Belief, goal: Goal) -> Imagination | None:
        """The rollout from `belief` to `goal` for the planner's compiled loop.

        It holds until the next call of it or of `rollout`. None where a function does not run
        natively, or reads noise.

        Raises:
            UsageError: a goal that `check_goal` refuses.
        """
        if self._native is None:
            return None
        self._native.prepare(
            belief.tensors,
            self._goal_tensors(goal),
            dt=float(self._dt(self.manifest.step_ns * 1e-9)),
            weights=self._weights,
        )
        compiled: Imagination | None = self._native.imagination()
        return compiled

    def term_names(self, goal: Goal) -> Sequence[str]:
        """The cost terms in the order in which `imagination` gives them."""
        return [] if self._native is None else self._native.terms

    def _imagine(self, belief: Belief, actions: Float32, seed: int) -> dict[str, Array]:
        """The beliefs that K action sequences lead through: name -> (steps + 1, K, ...).

        actions: (steps, K, block * A) in the model's numbers. Time comes before candidates, so
        that each step is one contiguous batch.
        """
        steps, K, _ = actions.shape
        noise = self._noise("dynamics", K, _ROLLOUT, seed, 0, steps)
        dt = np.full(K, self._dt(self.manifest.step_ns * 1e-9))
        path: dict[str, Array] = {}
        for tensor in self.manifest.belief:
            path[tensor.name] = np.empty((steps + 1, K, *tensor.shape), tensor.dtype)
            path[tensor.name][0] = belief.tensors[tensor.name]
        for h in range(steps):
            batch = _named({name: values[h] for name, values in path.items()})
            batch |= {"action": actions[h], "dt": dt}
            batch |= {source: values[h] for source, values in noise.items()}
            after = self._run("dynamics", {}, batch)
            for name, values in path.items():
                values[h + 1] = after[f"belief.{name}"].reshape(values.shape[1:])
        return path

    def _judge(
        self, path: Mapping[str, Array], actions: Float32, goals: Mapping[str, Array]
    ) -> tuple[dict[str, Float32], Bool]:
        """Each cost term summed over the steps, (K,), and who is infeasible on the way, (K,)."""
        steps, K, _ = actions.shape
        infeasible = np.zeros(K, np.bool_)
        for values in path.values():
            infeasible |= _not_finite(values.reshape((steps + 1) * K, -1)).reshape(-1, K).any(0)
        # Cost and constraint of all steps in one batch; the value of the last step only.
        batch = _named({n: v[1:].reshape(steps * K, *v.shape[2:]) for n, v in path.items()})
        batch["action"] = actions.reshape(steps * K, -1)
        terms: dict[str, Float32] = {}
        with np.errstate(invalid="ignore", over="ignore"):
            judged = self._run("cost", goals, batch) if "cost" in self._functions else {}
            for target, value in judged.items():
                terms[target.removeprefix("cost.")] = value.reshape(steps, K).sum(axis=0)
        if "constraint" in self._functions:
            risk = self._run("constraint", {}, batch)["constraint"].reshape(steps, K, -1)
            infeasible |= ~(risk <= 0).all(axis=(0, 2))  # NaN is not <= 0
        if "value" in self._functions:
            last = _named({name: values[-1] for name, values in path.items()})
            terms["value"] = self._run("value", goals, last)["value"].reshape(K)
        return terms, infeasible

    def policy(self, belief: Belief, goal: Goal | None) -> PolicyProposal | None:
        """What the bundle's policy would do from `belief` on: (H, A) SI.

        goal: None for a bundle that reads no goal.

        A policy that gives one action at a time is followed through the dynamics for the
        manifest's horizon. None if the bundle has no policy or its answer is not finite.

        Raises:
            UsageError: a goal that `check_goal` refuses.
        """
        manifest = self.manifest
        if "policy" not in self._functions:
            return None
        goals = self._goal_tensors(goal)
        tensors: Mapping[str, Array] = belief.tensors
        means: list[Array] = []
        stds: list[Array] = []
        imagine = "dynamics" in self._functions
        for h in range(manifest.horizon if imagine else 1):
            items = _named(tensors)
            noise = self._noise("policy", 1, _POLICY, self._seed, belief.stamp_ns + h)
            answer = self._run("policy", items | goals | noise)
            if "action.chunk" in answer:
                means = [answer["action.chunk"]]
                break
            means.append(answer["action.mean"])
            if "action.std" in answer:
                stds.append(answer["action.std"])
            if imagine:
                items |= {"action": means[-1], "dt": self._dt(manifest.step_ns * 1e-9)}
                items |= self._noise("dynamics", 1, _POLICY, self._seed, belief.stamp_ns + h)
                tensors = self._belief_tensors(self._run("dynamics", items))
        A = len(self._axes)
        mean = np.concatenate([m.reshape(-1, A) for m in means]) * self._scale + self._offset
        std = np.zeros_like(mean)
        if stds:
            std = np.concatenate([s.reshape(-1, A) for s in stds]) * self._scale
        if not (np.isfinite(mean).all() and np.isfinite(std).all()):
            return None
        return PolicyProposal(mean, std)

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """Images of N beliefs, for people: (N, height, width, 3).

        tensors: belief name -> (N, ...), as `rollout` keeps them for one candidate.

        Raises:
            UsageError: the bundle has no decoder, or a belief tensor is missing.
        """
        decoder = self._functions.get("decoder")
        if decoder is None:
            raise UsageError(f"bundle {self.manifest.name} has no decoder; it imagines no images")
        batch = _named(tensors)
        missing = [spec.source for spec in decoder.inputs if spec.source not in batch]
        if missing:
            raise UsageError(f"bundle {self.manifest.name}: decode needs {', '.join(missing)}")
        if decoder.inputs[0].shape[:1] == (-1,):
            image = self._run("decoder", {}, batch)["image"]
            return image.reshape(-1, *image.shape[-3:])
        rows = len(batch[decoder.inputs[0].source])
        images = [
            self._run("decoder", {source: value[i] for source, value in batch.items()})["image"]
            for i in range(rows)
        ]
        return np.stack([image.reshape(image.shape[-3:]) for image in images])

    # ---- feeding graphs -------------------------------------------------------------------
    def _run(
        self, name: str, items: Mapping[str, Array], batch: Mapping[str, Array] | None = None
    ) -> dict[str, Array]:
        """Run function `name`; sources in, targets out.

        items: source -> one value, repeated for a tensor with a batch axis. batch: source ->
        one value per row. Without `batch` there is one row, and outputs are of that row.
        """
        function = self._functions[name]
        rows = len(next(iter(batch.values()))) if batch else 1
        feeds = {
            spec.tensor: _fed(spec, batch[spec.source], True, rows)
            if batch and spec.source in batch
            else _fed(spec, items[spec.source], False, rows)
            for spec in function.inputs
        }
        outputs = self._graphs[name].run(feeds)
        return {spec.target: outputs[spec.tensor] for spec in function.outputs}

    def _belief_tensors(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        return {t.name: outputs[f"belief.{t.name}"].reshape(t.shape) for t in self.manifest.belief}

    def _normalize(self, actions: Float32) -> Float32:
        """(N, any number of whole actions) SI -> the same in the model's numbers."""
        flat = actions.reshape(len(actions), -1, len(self._axes)).astype(np.float32, copy=False)
        scaled: Float32 = (flat - self._offset) / self._scale
        return scaled.reshape(len(actions), -1)

    def _noise(
        self, name: str, rows: int, purpose: int, seed: int, counter: int, steps: int = 0
    ) -> dict[str, Array]:
        """Standard normal numbers for function `name`, by key and counter only.

        For `steps` of them (steps, rows, ...), drawn row after row so that a row's numbers do
        not depend on how many rows there are; else one value, or (rows, ...).
        """
        for spec in self._functions[name].inputs:
            if spec.source == "noise":
                mask = 2**64 - 1
                key = np.array([seed & mask, purpose], np.uint64)
                start = np.array([0, counter & mask, 0, 0], np.uint64)
                generator = np.random.Generator(np.random.Philox(key=key, counter=start))
                item = spec.shape[1:] if spec.shape[:1] == (-1,) else spec.shape
                if not steps:
                    return {"noise": generator.standard_normal(item, np.float32)}
                values = generator.standard_normal((rows, steps, *item), np.float32)
                return {"noise": np.ascontiguousarray(values.swapaxes(0, 1))}
        return {}

    # ---- time -----------------------------------------------------------------------------
    def _dt(self, seconds: float) -> Array:
        dt = self.manifest.dt
        return np.array(min(max(seconds, dt.min_s), dt.max_s) if dt else seconds, np.float32)

    def _steps(self, delay_ns: int) -> tuple[int, float]:
        """How many steps, of how many seconds each, come nearest to a delay."""
        if delay_ns <= 0 or "dynamics" not in self._functions:
            return 0, 0.0
        dynamics, dt = self._functions["dynamics"], self.manifest.dt
        if dt is None or all(spec.source != "dt" for spec in dynamics.inputs):
            step_ns = self.manifest.step_ns
            return (2 * delay_ns + step_ns) // (2 * step_ns), step_ns * 1e-9
        least, most = round(dt.min_s * 1e9), round(dt.max_s * 1e9)
        choices = [
            (n, min(max(delay_ns / max(n, 1), least), most))
            for n in (delay_ns // most, delay_ns // most + 1)
        ]
        # In nanoseconds, where a delay of exactly n steps is exactly that; ties take fewer steps.
        steps, each_ns = min(choices, key=lambda choice: abs(choice[0] * choice[1] - delay_ns))
        return steps, each_ns * 1e-9

    def _one_step_before(self, stamp_ns: int) -> Belief:
        """The remembered belief nearest to one model step before, zeros if none is near."""
        step_ns = self.manifest.step_ns
        before_ns = stamp_ns - step_ns
        near = min(self._history, key=lambda b: abs(b.stamp_ns - before_ns), default=None)
        if near is not None and 2 * abs(near.stamp_ns - before_ns) <= step_ns:
            return near
        return self.blank_belief(before_ns)

    def _remember(self, belief: Belief) -> None:
        """Keep what the next updates may continue from: at most two model steps."""
        if "posterior" not in self._functions:
            return
        while self._history and self._history[-1].stamp_ns >= belief.stamp_ns:
            self._history.pop()
        self._history.append(belief)
        while belief.stamp_ns - self._history[0].stamp_ns > 2 * self.manifest.step_ns:
            self._history.popleft()

    # ---- goals ----------------------------------------------------------------------------
    def _goal_kind(self, goal: Goal) -> str | None:
        """The kind of a goal that this bundle can plan for, None if it cannot."""
        if isinstance(goal, PoseGoal):
            kind = "pose"
            numbers = [goal.x, goal.y, 0.0 if goal.yaw is None else goal.yaw]
            good = bool(np.isfinite(numbers).all()) and goal.frame in self._pose_frames
        elif isinstance(goal, JointGoal):
            kind, good = "joints", self._goal_fits("goal.joints", goal.position)
        elif isinstance(goal, ImageGoal):
            kind, good = "image", self._goal_fits("goal.image", goal.image)
        else:
            kind, good = "latent", self._goal_fits("goal.latent", goal.latent)
        return kind if good and kind in self.manifest.goal_kinds else None

    def _goal_fits(self, source: str, value: Array) -> bool:
        """Whether a goal's value is finite and has the shape that the graphs read."""
        shapes = [
            spec.shape[1:] if len(spec.shape) > value.ndim else spec.shape
            for function in self._functions.values()
            for spec in function.inputs
            if spec.source == source
        ]
        return all(shape == value.shape for shape in shapes) and bool(np.isfinite(value).all())

    def _goal_tensors(self, goal: Goal | None) -> dict[str, Array]:
        """source -> value of everything that `goal` gives; kept for the next call.

        None is for a bundle that reads no goal.

        Raises:
            UsageError: this bundle cannot plan for it.
        """
        if goal is None and not self.manifest.goal_kinds:
            return {}
        if goal is not None and self._goal is not None and self._goal[0] is goal:
            return self._goal[1]
        kind = None if goal is None else self._goal_kind(goal)
        if goal is None or kind is None:
            raise UsageError(
                f"bundle {self.manifest.name}: cannot plan for {goal}; it plans for goals of kind "
                f"{', '.join(self.manifest.goal_kinds) or 'none'}, poses in frame "
                f"{', '.join(sorted(self._pose_frames)) or 'none'}; ask check_goal first"
            )
        value: Any
        if isinstance(goal, PoseGoal):
            has_yaw = goal.yaw is not None
            value = np.array([goal.x, goal.y, goal.yaw if has_yaw else 0.0, has_yaw], np.float32)
        elif isinstance(goal, JointGoal):
            value = goal.position.astype(np.float32)
        elif isinstance(goal, ImageGoal):
            value = goal.image
        else:
            value = goal.latent.astype(np.float32)
        tensors = {f"goal.{kind}": value}
        encoder = self._functions.get("goal_encoder")
        if encoder is not None and {spec.source for spec in encoder.inputs} <= set(tensors):
            tensors |= self._run("goal_encoder", tensors)
        self._goal = (goal, tensors)
        return tensors


def _named(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """Belief tensors by the names that a manifest's sources have."""
    return {f"belief.{name}": value for name, value in tensors.items()}


def _fed(spec: Input, value: Array, batched: bool, rows: int) -> Array:
    """`value` as the graph reads it: dtype, shape, repeated where it is one and should be many.

    An image in bytes becomes 0 to 1 where a graph reads float32.
    """
    if value.dtype != spec.dtype:
        with np.errstate(over="ignore"):
            value = value.astype(spec.dtype) / (255 if value.dtype == np.uint8 else 1)
            value = value.astype(spec.dtype, copy=False)
    if spec.shape[:1] != (-1,):
        return np.asarray(value.reshape(spec.shape), order="C")
    shape = (rows, *spec.shape[1:])
    if not batched:
        value = np.broadcast_to(value.reshape(spec.shape[1:]), shape)
    return np.asarray(value.reshape(shape), order="C")


def _not_finite(rows: Array) -> Bool:
    """(N, M) of any dtype: which rows hold NaN or infinity."""
    if rows.dtype == np.float32:
        return nonfinite_rows(np.ascontiguousarray(rows))
    return np.logical_not(np.isfinite(rows).all(axis=1))


def _finite(belief: Belief) -> bool:
    return all(bool(np.isfinite(value).all()) for value in belief.tensors.values())


def _values(knots: Float64, times_ns: Int64, at_ns: Float64) -> Float64:
    """Linear between knots, the nearest knot outside. knots: (N, A), at_ns: (T,) -> (T, A)."""
    times = times_ns.astype(np.float64)
    return np.stack([np.interp(at_ns, times, column) for column in knots.T], axis=1)


def _mean(knots: Float64, times_ns: Int64, span_ns: int) -> Float64:
    """The average from 0 to `span_ns` of what is linear between knots (N, A): (A,)."""
    times = times_ns.astype(np.float64)
    inside = times[(times > 0) & (times < span_ns)]
    at_ns = np.concatenate([[0.0], inside, [float(max(span_ns, 0))]])
    values = _values(knots, times_ns, at_ns)
    if span_ns <= 0:
        start: Float64 = values[0]
        return start
    weights = np.diff(at_ns)[:, None] / span_ns
    mean: Float64 = (weights * (values[1:] + values[:-1]) / 2).sum(axis=0)
    return mean


def _require_runnable(manifest: Manifest) -> None:
    """What this room asks of a manifest beyond its own consistency.

    Raises:
        MismatchError: an axis commands effort, which a Motion does not carry.
        ModelError: a graph that is rolled out reads a belief or an action without a batch axis.
    """
    for axis in manifest.needs.axes:
        if axis.kind == "effort":
            raise MismatchError(
                f"bundle {manifest.name}: axis {axis.name} is of kind effort, and motion is "
                "recorded as position and velocity only; command it by position or velocity"
            )
    for name in ROLLED_OUT:
        for spec in manifest.functions[name].inputs if name in manifest.functions else ():
            each = spec.source.startswith("belief.") or spec.source in ("action", "noise")
            if each and spec.shape[:1] != (-1,):
                raise ModelError(
                    f"bundle {manifest.name}: functions.{name}.inputs.{spec.tensor}.shape must "
                    f"begin with -1, the batch of candidates, got {list(spec.shape)}; export it "
                    "with a batch axis"
                )
