"""Try a bundle before it becomes active: the real runtime, in a process that may die.

    parent                                       child: python -m edge_wm.deploy.trial
      │ stdin: what to try (JSON)      ───────►   limits on itself
      │                                           signature, fit to the robot file
      │                                           model loaded, reference outputs reproduced
      │ stdout: one JSON line a step   ◄───────   the runtime for `WINDOW_S`, at a standing robot:
      │   {"doing": ..., "within_s": ...}             two ticks, planner, guard, no fault
      │   {"ended": null or the reason}           plans in time, outputs finite
      └ ends the child when a step outlasts its time, or all of them `TRIAL_S`

A bundle that crashes, hangs, starves, lies or dawdles ends the child, and the answer is a reason.
Invariant: `try_bundle` returns within `TRIAL_S` and a moment, and never raises for what the bundle
does.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, NoReturn

import msgspec
import numpy as np

from edge_wm.backends.probe import OUT_OF_MEMORY, confine
from edge_wm.errors import EdgeWmError, SystemTroubleError

if TYPE_CHECKING:
    from edge_wm.bundle import Bundle
    from edge_wm.robot import Robot
    from edge_wm.runtime import Driver, PlanRequest, Thought
    from edge_wm.types import Budget, Float32
    from edge_wm.world_model import WorldModel

TRIAL_S = 9.0  # so that a bad bundle is rolled back within 10 s
WINDOW_S = 2.0  # of the runtime, after its second of settling
MEMORY_BYTES = 3 << 30  # address space of the child; its libraries alone take 1 GiB
HOPELESS = 10  # a plan that takes this many times its time is not waited for


@dataclass(frozen=True, slots=True)
class Health:
    """What a trial may take, s."""

    trial_s: float = TRIAL_S  # in all; each step's own time grows with it
    window_s: float = WINDOW_S


class _Request(msgspec.Struct, frozen=True):
    bundle: str
    robot: str  # the robot file
    trust: tuple[str, ...]  # public key files beside the usual ones
    developer: bool  # whether this machine's developer key is enough
    window_s: float
    parent: int


# ---- parent -------------------------------------------------------------------------------
def try_bundle(
    bundle: Path,
    robot_file: Path,
    trust: Sequence[Path],
    *,
    developer: bool,
    health: Health | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> str | None:
    """Why the bundle must not be activated on this machine; None if it may.

    tell: hears what the trial is doing, for people.

    Raises: SystemTroubleError if no process can be started.
    """
    health = health or Health()
    request = _Request(
        str(bundle.resolve()),
        str(robot_file.resolve()),
        tuple(str(path.resolve()) for path in trust),
        developer,
        health.window_s,
        os.getpid(),
    )
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__]
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    deadline = time.monotonic() + health.trial_s
    with tempfile.TemporaryFile() as noise:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                cwd=Path(__file__).resolve().parents[2],  # where `import edge_wm` finds this one
                env=environment,
            )
        except OSError as error:
            raise SystemTroubleError(
                f"could not start a process to try the bundle in: {error}; free memory or "
                "processes and try again"
            ) from error
        try:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(msgspec.json.encode(request))
            child.stdin.close()
            return _verdict(child, child.stdout, noise, deadline, health, tell)
        except BrokenPipeError:
            return _died(child.wait(), "starting", noise)
        finally:
            child.kill()  # its own children die with it
            child.wait()
            if child.stdout is not None:
                child.stdout.close()


def _verdict(
    child: subprocess.Popen[bytes],
    answers: IO[bytes],
    noise: IO[bytes],
    deadline: float,
    health: Health,
    tell: Callable[[str], None],
) -> str | None:
    """Follow the child's lines to its end, or to the end of its time."""
    doing, until = "starting", deadline
    with selectors.DefaultSelector() as selector:
        selector.register(answers, selectors.EVENT_READ)
        pending = b""
        while True:
            left = min(until, deadline) - time.monotonic()
            if left <= 0 or not selector.select(left):
                if deadline <= until:
                    return (
                        f"{doing}: not ready after {health.trial_s:g} s (a computer that is busy "
                        "or slow needs more: --within)"
                    )
                return f"{doing}: it hung"
            piece = os.read(answers.fileno(), 1 << 16)
            if not piece:
                return _died(child.wait(), doing, noise)
            *lines, pending = (pending + piece).split(b"\n")
            for line in map(json.loads, lines):
                if "ended" in line:
                    return None if line["ended"] is None else str(line["ended"])
                if line["doing"] != doing:
                    doing = line["doing"]
                    tell(doing)
                until = time.monotonic() + line["within_s"] * health.trial_s / TRIAL_S


def _died(status: int, doing: str, noise: IO[bytes]) -> str:
    noise.seek(0)
    words = noise.read().decode("utf-8", "replace")
    if OUT_OF_MEMORY.search(words) or status == -signal.SIGKILL:
        return f"{doing}: it ran out of memory"
    if status == -signal.SIGXCPU:
        return f"{doing}: it hung"
    how = f"by {signal.Signals(-status).name}" if status < 0 else f"with exit status {status}"
    said = next((": " + line.strip() for line in reversed(words.splitlines()) if line.strip()), "")
    return f"{doing}: it crashed {how}{said[:300]}"


# ---- child --------------------------------------------------------------------------------
class _Unfit(Exception):
    """The bundle must not be activated: why."""


Say = Callable[[str, float], None]  # what is being done, and within how many seconds


def _child() -> NoReturn:
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=_Request)
    memory = MEMORY_BYTES + 16 * os.path.getsize(request.bundle)
    if not confine(request.parent, cpu_s=60, memory_bytes=memory, output_bytes=64 << 20):
        os._exit(1)
    # The answers get a descriptor of their own: libraries print to 1 as they please.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(doing: str, within_s: float) -> None:
        print(json.dumps({"doing": doing, "within_s": within_s}), file=answers, flush=True)

    reason = None
    try:
        _try(request, say)
    except (_Unfit, EdgeWmError) as error:
        reason = str(error)
    except MemoryError:
        reason = "it ran out of memory"
    print(json.dumps({"ended": reason}), file=answers, flush=True)
    os._exit(0)  # nothing that the model left running is waited for


def _try(request: _Request, say: Say) -> None:
    """Every check in its order. Raises: _Unfit, EdgeWmError."""
    say("opening the bundle", 5.0)
    from edge_wm.bundle import check_fit, load_trust, open_bundle
    from edge_wm.robot import load_robot
    from edge_wm.world_model import WorldModel

    robot = load_robot(Path(request.robot))
    trust = load_trust([Path(path) for path in request.trust], developer=request.developer)
    bundle = open_bundle(request.bundle, trust)
    check_fit(bundle.manifest, robot)
    say("loading the model and reproducing its reference outputs", 7.0)
    model = WorldModel(bundle, robot)
    _require_health(robot, bundle, model, request.window_s, say)


@dataclass
class _Watched:
    """A driver that keeps how long each plan took, and what came of it."""

    inner: Driver
    durations_ns: list[int] = field(default_factory=list)
    thoughts: list[Thought] = field(default_factory=list)
    since_ns: int | None = None  # when the plan that is being made was begun

    def reset(self, seed: int) -> None:
        self.inner.reset(seed)

    def think(self, request: PlanRequest, budget: Budget) -> Thought:
        begun_ns = time.monotonic_ns()
        self.since_ns = begun_ns
        thought = self.inner.think(request, budget)
        self.since_ns = None
        self.durations_ns.append(time.monotonic_ns() - begun_ns)
        self.thoughts.append(thought)
        return thought


def _require_health(
    robot: Robot, bundle: Bundle, model: WorldModel, window_s: float, say: Say
) -> None:
    """Run the real runtime at a standing robot, and look at what it did."""
    from edge_wm.deploy.standing import StandingRobot, near_goal
    from edge_wm.modes import LATCHED
    from edge_wm.planner import make_planner
    from edge_wm.runtime import ModelDriver, RunSettings, Runtime, planner_settings
    from edge_wm.runtime.live import Live

    manifest = bundle.manifest
    planner = planner_settings(manifest)
    driver = _Watched(ModelDriver(model, make_planner(planner, robot.axes)))
    settings = RunSettings.for_robot(robot, seed=0)
    runtime = Runtime(
        robot,
        driver,
        settings,
        streams=tuple(manifest.needs.streams),
        step_ns=manifest.step_ns,
    )
    goal = near_goal(robot)
    say("running", 7.0)
    live = Live(runtime, StandingRobot(robot), lambda _: goal)
    live.__enter__()  # and never left: this process ends with it
    live.activate()
    until = time.monotonic() + window_s
    while time.monotonic() < until:
        time.sleep(0.05)
        say("running", 3.0)
        if live.failed:
            live.__exit__(None, None, None)  # raises what went wrong in its thread
        if runtime.mode in LATCHED:
            raise _Unfit(f"running: the guard latched {runtime.mode.name}")
        _require_beliefs(driver.thoughts)
        _require_pace(driver, settings.plan_latency_ns * HOPELESS, settings.plan_latency_ns)
    say("judging what it did", 3.0)
    _require_plans(driver, settings.plan_latency_ns)
    _require_finite(robot, model, driver.thoughts, planner.horizon)


def _require_pace(driver: _Watched, bearable_ns: int, allowed_ns: int) -> None:
    since_ns = driver.since_ns
    if since_ns is not None and (taken_ns := time.monotonic_ns() - since_ns) > bearable_ns:
        raise _Unfit(
            f"running: a plan took more than {taken_ns / 1e6:.0f} ms, the robot has "
            f"{allowed_ns / 1e6:.0f} ms for one"
        )


def _require_beliefs(thoughts: Sequence[Thought]) -> None:
    from edge_wm.reasons import Reason

    if any(thought.proposal is Reason.belief_not_finite for thought in thoughts):
        raise _Unfit("running: the model's beliefs are not finite")


def _require_plans(driver: _Watched, allowed_ns: int) -> None:
    """Plans were made, and in time."""
    from edge_wm.reasons import Reason

    if not driver.thoughts:
        raise _Unfit("running: no plan was made")
    if not any(thought.advanced for thought in driver.thoughts):
        reasons = Counter(t.proposal for t in driver.thoughts if isinstance(t.proposal, Reason))
        ((reason, _),) = reasons.most_common(1)
        raise _Unfit(f"running: no plan was made ({reason.name})")
    median_ns = float(np.median(driver.durations_ns))
    if median_ns > allowed_ns:
        raise _Unfit(
            f"running: a plan took {median_ns / 1e6:.0f} ms (median of "
            f"{len(driver.durations_ns)}), the robot has {allowed_ns / 1e6:.0f} ms for one"
        )


def _require_finite(
    robot: Robot, model: WorldModel, thoughts: Sequence[Thought], horizon: int
) -> None:
    """Imagine from the last belief, over the whole range of actions: every number is finite.

    The planner alone would not tell: to it a candidate that is not finite is only infeasible.
    """
    from edge_wm.deploy.standing import near_goal

    belief = next(thought.advanced for thought in reversed(thoughts) if thought.advanced)
    actions = _some_actions(robot, horizon)
    rollout = model.rollout(belief, actions, near_goal(robot), seed=0, keep_beliefs=True)
    for name, beliefs in (rollout.beliefs or {}).items():
        if not np.isfinite(beliefs).all():
            raise _Unfit(f"judging what it did: imagined belief {name!r} is not finite")
    for name, term in rollout.terms.items():
        if not np.isfinite(term).all():
            raise _Unfit(f"judging what it did: cost term {name!r} is not finite")


def _some_actions(robot: Robot, horizon: int, count: int = 32) -> Float32:
    """(K, H, A) float32, SI, uniform over each axis's range; 0 where it has no bounds."""
    ranges = {
        "position": lambda axis: (axis.position_min, axis.position_max),
        "effort": lambda axis: (-axis.effort_max, axis.effort_max),
    }
    bounds = np.array(
        [ranges.get(a.kind, lambda a: (a.velocity_min, a.velocity_max))(a) for a in robot.axes]
    )
    bounds[~np.isfinite(bounds).all(axis=1)] = 0.0
    random = np.random.default_rng(0)
    size = (count, horizon, len(robot.axes))
    return random.uniform(bounds[:, 0], bounds[:, 1], size).astype(np.float32)


if __name__ == "__main__":
    _child()
