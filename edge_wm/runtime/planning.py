"""One plan tick in real time, for the threads that drive a `Runtime`."""

from __future__ import annotations

from collections.abc import Callable

from edge_wm.planner import ClockBudget
from edge_wm.recording import PlanEnd, Prediction
from edge_wm.runtime import PlanRequest, Runtime, Thought
from edge_wm.types import Goal

IMAGINE_EVERY = 10  # plan ticks between two predictions for people
# What planning may use of the time until its trajectory starts; the rest is for finishing it.
BUDGET_SHARE = 0.8


def plan_tick(
    runtime: Runtime,
    goal: Goal | None,
    begun_ns: int,
    now_ns: Callable[[], int],
    imagine: Callable[[PlanRequest, Thought], Prediction | None] | None = None,
) -> tuple[PlanEnd, Prediction | None]:
    """One plan tick in real time; every so often also what the model imagines, for people."""
    request = runtime.begin(begun_ns, goal)
    thought: Thought | None = None
    if isinstance(request, PlanRequest):
        deadline_ns = begun_ns + int(BUDGET_SHARE * runtime.settings.plan_latency_ns)
        thought = runtime.driver.think(request, ClockBudget(deadline_ns, now_ns))
    end = runtime.conclude(now_ns(), request, thought)
    if imagine is None or thought is None or end.tick % IMAGINE_EVERY:
        return end, None
    assert isinstance(request, PlanRequest)
    prediction = imagine(request, thought)
    if prediction is not None:
        runtime.note(prediction)
    return end, prediction
