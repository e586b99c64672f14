"""Events to the values of our own messages, and back: two short functions for each.

Invariant: `unpack(pack(event)) == event`, every array with the same dtype, shape and bits. The
order of the values is that of the definitions in `messages.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from edge_wm.modes import Mode
from edge_wm.reasons import Reason
from edge_wm.recording.events import (
    Activate,
    Event,
    PlanBegin,
    PlanEnd,
    Prediction,
    Request,
    Step,
    Truth,
    World,
)
from edge_wm.types import (
    Acceptance,
    Array,
    Belief,
    Drop,
    Goal,
    ImageGoal,
    JointGoal,
    LatentGoal,
    PoseGoal,
    Proposal,
    Sample,
    Setpoint,
    Trajectory,
    Verdict,
)

Values = Sequence[Any]


# ---- the pieces -------------------------------------------------------------------------
def _tensor(name: str, array: Array) -> list[Any]:
    if array.dtype.hasobject:
        raise ValueError(f"an array of dtype {array.dtype} holds Python objects, not data")
    return [name, array.dtype.str, array.shape, array.tobytes()]


def _read_tensor(values: Values) -> Array:
    _, dtype, shape, data = values
    tensor: Array = np.frombuffer(data, np.dtype(dtype)).reshape(tuple(shape)).copy()
    return tensor


def _tensors(named: Mapping[str, Array]) -> list[list[Any]]:
    return [_tensor(name, array) for name, array in named.items()]


def _read_tensors(values: Values) -> dict[str, Array]:
    return {entry[0]: _read_tensor(entry) for entry in values}


def _read_reason(number: int) -> Reason | None:
    return Reason(number) if number else None


def _read_reasons(numbers: Array) -> tuple[Reason, ...]:
    return tuple(Reason(number) for number in numbers.tolist())


def _read_drop(values: Values) -> Drop:
    stream, stamp_ns, received_ns, reason = values
    return Drop(stream, stamp_ns, received_ns, Reason(reason))


def _goal(goal: Goal | None) -> list[Any]:
    if isinstance(goal, PoseGoal):
        yaw = 0.0 if goal.yaw is None else goal.yaw
        return ["pose", goal.frame, goal.x, goal.y, yaw, goal.yaw is not None, []]
    empty = [0.0, 0.0, 0.0, False]
    if isinstance(goal, JointGoal):
        return ["joints", "", *empty, [_tensor("position", goal.position)]]
    if isinstance(goal, ImageGoal):
        return ["image", "", *empty, [_tensor("image", goal.image)]]
    if isinstance(goal, LatentGoal):
        return ["latent", "", *empty, [_tensor("latent", goal.latent)]]
    return ["", "", *empty, []]


def _read_goal(values: Values) -> Goal | None:
    kind, frame, x, y, yaw, has_yaw, tensor = values
    if kind == "pose":
        return PoseGoal(x, y, yaw if has_yaw else None, frame)
    if kind == "joints":
        return JointGoal(_read_tensor(tensor[0]))
    if kind == "image":
        return ImageGoal(_read_tensor(tensor[0]))
    if kind == "latent":
        return LatentGoal(_read_tensor(tensor[0]))
    if kind == "":
        return None
    raise ValueError(f"unknown kind of goal {kind!r}")


def _proposal(p: Proposal) -> list[Any]:
    return [
        p.stamp_ns,
        p.apply_at_ns,
        p.step_ns,
        p.axes,
        len(p.actions),
        p.actions,
        p.cost,
        p.iterations,
        p.candidates,
        p.infeasible,
        bytes(p.answers),
        p.reason or 0,
        list(p.terms.items()),
    ]


def _read_proposal(values: Values) -> Proposal:
    (stamp_ns, apply_at_ns, step_ns, axes, steps, actions, cost, iterations, candidates) = values[
        :9
    ]
    infeasible, answers, reason, terms = values[9:]
    return Proposal(
        stamp_ns,
        apply_at_ns,
        step_ns,
        tuple(axes),
        actions.reshape(steps, len(axes)),
        cost,
        iterations,
        candidates,
        infeasible,
        tuple(bool(answer) for answer in answers),
        _read_reason(reason),
        dict(terms),
    )


def _trajectory(t: Trajectory) -> list[Any]:
    return [
        t.epoch,
        t.sequence,
        t.stamp_ns,
        t.start_ns,
        t.period_ns,
        t.axes,
        len(t.position),
        t.position,
        t.velocity,
        t.acceleration,
        t.brake_index,
        t.effort is not None,
        () if t.effort is None else t.effort,
    ]


def _read_trajectory(values: Values) -> Trajectory:
    epoch, sequence, stamp_ns, start_ns, period_ns, axes, knots = values[:7]
    position, velocity, acceleration, brake_index, has_effort, effort = values[7:]
    shape = (knots, len(axes))
    return Trajectory(
        epoch,
        sequence,
        stamp_ns,
        start_ns,
        period_ns,
        tuple(axes),
        position.reshape(shape),
        velocity.reshape(shape),
        acceleration.reshape(shape),
        brake_index,
        effort.reshape(shape) if has_effort else None,
    )


def _acceptance(a: Acceptance) -> list[Any]:
    return [a.accepted, a.epoch, a.sequence, a.now_ns, a.reasons, a.detail]


def _read_acceptance(values: Values) -> Acceptance:
    accepted, epoch, sequence, now_ns, reasons, detail = values
    return Acceptance(accepted, epoch, sequence, now_ns, _read_reasons(reasons), detail)


# ---- the events -------------------------------------------------------------------------
def _sample(e: Sample) -> list[Any]:
    return [e.stream, e.stamp_ns, e.received_ns, e.sequence, *_tensor("", e.data)]


def _read_sample(values: Values) -> Sample:
    stream, stamp_ns, received_ns, sequence = values[:4]
    return Sample(stream, stamp_ns, received_ns, sequence, _read_tensor(values[4:]))


def _activate(e: Activate) -> list[Any]:
    return [e.now_ns, e.epoch]


def _read_activate(values: Values) -> Activate:
    return Activate(*values)


def _request(e: Request) -> list[Any]:
    return [e.now_ns, e.mode, e.who, e.reason or 0]


def _read_request(values: Values) -> Request:
    now_ns, mode, who, reason = values
    return Request(now_ns, Mode(mode), who, _read_reason(reason))


def _plan_begin(e: PlanBegin) -> list[Any]:
    return [e.tick, e.now_ns, *_goal(e.goal)]


def _read_plan_begin(values: Values) -> PlanBegin:
    return PlanBegin(values[0], values[1], _read_goal(values[2:]))


def _plan_end(e: PlanEnd) -> list[Any]:
    return [
        e.tick,
        e.now_ns,
        e.reason or 0,
        list(e.ages_ns.items()),
        [(d.stream, d.stamp_ns, d.received_ns, d.reason) for d in e.drops],
        [] if e.belief is None else [(e.belief.stamp_ns, _tensors(e.belief.tensors))],
        [] if e.proposal is None else [_proposal(e.proposal)],
        [] if e.trajectory is None else [_trajectory(e.trajectory)],
        [] if e.acceptance is None else [_acceptance(e.acceptance)],
        list(e.stages.items()),
    ]


def _read_plan_end(values: Values) -> PlanEnd:
    tick, now_ns, reason, ages, drops, belief, proposal, trajectory, acceptance, stages = values
    return PlanEnd(
        tick,
        now_ns,
        _read_reason(reason),
        dict(ages),
        tuple(_read_drop(drop) for drop in drops),
        Belief(belief[0][0], _read_tensors(belief[0][1])) if belief else None,
        _read_proposal(proposal[0]) if proposal else None,
        _read_trajectory(trajectory[0]) if trajectory else None,
        _read_acceptance(acceptance[0]) if acceptance else None,
        dict(stages),
    )


def _step(e: Step) -> list[Any]:
    verdict, setpoint = e.verdict, e.verdict.setpoint
    return [
        e.now_ns,
        e.duration_ns,
        verdict.now_ns,
        verdict.mode,
        verdict.speed_scale,
        verdict.reasons,
        setpoint.epoch,
        setpoint.sequence,
        setpoint.axes,
        setpoint.times_ns,
        setpoint.position,
        setpoint.velocity,
        setpoint.effort is not None,
        () if setpoint.effort is None else setpoint.effort,
        setpoint.brake_deceleration,
        setpoint.brake_end_ns,
        setpoint.apply_at_ns,
        setpoint.valid_until_ns,
    ]


def _read_step(values: Values) -> Step:
    now_ns, duration_ns, verdict_ns, mode, speed_scale, reasons = values[:6]
    epoch, sequence, axes, times_ns, position, velocity, has_effort, effort = values[6:14]
    brake_deceleration, brake_end_ns, apply_at_ns, valid_until_ns = values[14:]
    shape = (len(times_ns), len(axes))
    setpoint = Setpoint(
        epoch,
        sequence,
        tuple(axes),
        times_ns,
        position.reshape(shape),
        velocity.reshape(shape),
        brake_deceleration,
        brake_end_ns,
        apply_at_ns,
        valid_until_ns,
        effort.reshape(shape) if has_effort else None,
    )
    verdict = Verdict(verdict_ns, Mode(mode), setpoint, _read_reasons(reasons), speed_scale)
    return Step(now_ns, verdict, duration_ns)


def _prediction(e: Prediction) -> list[Any]:
    beliefs, images = _tensors(e.beliefs), _tensor("", e.images)
    return [e.tick, e.times_ns, beliefs, e.image_times_ns, *images]


def _read_prediction(values: Values) -> Prediction:
    tick, times_ns, beliefs, image_times_ns = values[:4]
    images = _read_tensor(values[4:])
    return Prediction(tick, times_ns, _read_tensors(beliefs), image_times_ns, images)


def _truth(e: Truth) -> list[Any]:
    return [e.now_ns, e.x, e.y, e.yaw, e.contact]


def _read_truth(values: Values) -> Truth:
    return Truth(*values)


def _world(e: World) -> list[Any]:
    movable = np.asarray(e.movable, np.bool_).tobytes()
    return [e.now_ns, e.circles, e.rectangles, movable, *e.odometry_origin]


def _read_world(values: Values) -> World:
    now_ns, circles, rectangles, movable, x, y, yaw = values
    mask = np.frombuffer(movable, np.bool_).copy()
    return World(now_ns, circles.reshape(-1, 3), rectangles.reshape(-1, 5), mask, (x, y, yaw))


_PACK: dict[type, Callable[[Any], list[Any]]] = {
    Sample: _sample,
    Activate: _activate,
    Request: _request,
    PlanBegin: _plan_begin,
    PlanEnd: _plan_end,
    Step: _step,
    Prediction: _prediction,
    Truth: _truth,
    World: _world,
}
_UNPACK: dict[str, Callable[[Values], Event]] = {
    "Sample": _read_sample,
    "Activate": _read_activate,
    "Request": _read_request,
    "PlanBegin": _read_plan_begin,
    "PlanEnd": _read_plan_end,
    "Step": _read_step,
    "Prediction": _read_prediction,
    "Truth": _read_truth,
    "World": _read_world,
}


def pack(event: Event) -> list[Any]:
    """The values of the event's own message (`type(event).__name__`), laid flat."""
    return _PACK[type(event)](event)


def unpack(name: str, values: Values) -> Event:
    """The event of a message `name` ("PlanEnd"). Raises ValueError where it is none of ours."""
    return _UNPACK[name](values)
