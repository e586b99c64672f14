"""What the whole suite shares: repeatable property tests, and the time that each topic took."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples on every run and no clock in the verdict: a red suite is red for a reason.
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.load_profile("suite")

TESTS = Path(__file__).resolve().parent
SECONDS = pytest.StashKey[dict[str, float]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[SECONDS] = defaultdict(float)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    path = item.path.relative_to(TESTS)
    topic = path.parts[0] if len(path.parts) > 1 else path.stem.removeprefix("test_")
    item.config.stash[SECONDS][topic] += call.duration
    return (yield)


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    seconds = config.stash[SECONDS]
    if not seconds:
        return
    terminalreporter.section("time per topic")
    for topic, spent in sorted(seconds.items(), key=lambda entry: -entry[1]):
        terminalreporter.write_line(f"{spent:8.1f} s  {topic}")
