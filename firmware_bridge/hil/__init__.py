"""Hardware in the loop: what a board has to show before it may move a robot.

Numbered suites in the order of trust; a suite that moves motors comes after those that show that
it can be stopped.

    1 identify   2 link   3 clock   4 limits   5 dead-man   6 faults   7 tracking   8 endurance

The same code runs against the emulated board and a real one. Whatever has a deadline is measured
on the device's clock (the stamps of Status and fault records): the host may be late, the device
may not. A suite that was not run is reported as such, never as passed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edge_wm.errors import EdgeWmError, UsageError
from firmware_bridge.hil.bench import Bench, Check
from firmware_bridge.hil.suites import (
    clock,
    dead_man,
    endurance,
    faults,
    identify,
    limits,
    link,
    tracking,
)


@dataclass(frozen=True, slots=True)
class Suite:
    """One numbered suite. `motion`: it moves motors, and says how far before it does."""

    number: int
    name: str
    run: Callable[[Bench], Iterator[Check]]
    motion: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a suite showed. `skipped` says why it was not run; "" if it was."""

    suite: Suite
    checks: Sequence[Check]
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return not self.skipped and bool(self.checks) and all(check.ok for check in self.checks)


SUITES = (
    Suite(1, "identify", identify),
    Suite(2, "link", link),
    Suite(3, "clock", clock),
    Suite(4, "limits", limits),
    Suite(5, "dead-man", dead_man, motion=True),
    Suite(6, "faults", faults),
    Suite(7, "trajectory tracking", tracking, motion=True),
    Suite(8, "endurance", endurance, motion=True),
)


def chosen(numbers: Sequence[int]) -> tuple[Suite, ...]:
    """The suites of these numbers, in their order; all if none is named.

    Raises: UsageError for a number that there is not.
    """
    for number in numbers:
        if not 1 <= number <= len(SUITES):
            names = ", ".join(f"{suite.number} {suite.name}" for suite in SUITES)
            raise UsageError(f"--suite must be one of {names}; got {number}")
    return tuple(suite for suite in SUITES if not numbers or suite.number in numbers)


def run_suite(suite: Suite, bench: Bench) -> Result:
    """Run one suite; trouble on the link is a check that failed."""
    if suite.motion and not bench.may_move:
        why = f"moves motors: {bench.motion()}; give --allow-motion when the robot is secured"
        return Result(suite, (), why)
    checks = []
    try:
        for check in suite.run(bench):
            checks.append(check)
    except EdgeWmError as error:
        checks.append(Check("suite runs to its end", False, str(error), "no trouble"))
    finally:
        bench.leave()
    return Result(suite, tuple(checks))
