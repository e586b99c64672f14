"""The tables of modes and reasons: generated files up to date, transitions sane."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_wm import __version__
from edge_wm.modes import LATCHED, MEANINGS, TRANSITIONS, Mode
from edge_wm.reasons import EXPLANATIONS, Reason

REPOSITORY = Path(__file__).resolve().parent.parent
GENERATE = REPOSITORY / "scripts" / "generate_tables.py"


def test_the_generated_files_are_up_to_date():
    done = subprocess.run(
        [sys.executable, str(GENERATE), "--check"], capture_output=True, text=True, cwd="/"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_changed_table_is_noticed(tmp_path):
    for folder in ("scripts", "edge_wm"):
        (tmp_path / folder).mkdir()
    script = tmp_path / "scripts" / "generate_tables.py"
    script.write_text(GENERATE.read_text())
    for name in ("mode.toml", "modes.py", "reasons.toml", "reasons.py"):
        text = (REPOSITORY / "edge_wm" / name).read_text()
        (tmp_path / "edge_wm" / name).write_text(text)
    table = tmp_path / "edge_wm" / "reasons.toml"
    table.write_text(table.read_text().replace("pose_stale", "pose_old"))
    check = [sys.executable, str(script), "--check"]

    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == "out of date: reasons.py; run python scripts/generate_tables.py\n"
    subprocess.run([sys.executable, str(script)], check=True)
    subprocess.run(check, check=True)


def test_one_version_everywhere():
    pyproject = (REPOSITORY / "pyproject.toml").read_text()
    assert f'\nversion = "{__version__}"\n' in pyproject
    assert f"\n## {__version__} " in (REPOSITORY / "CHANGELOG.md").read_text()


# ---- modes ------------------------------------------------------------------------------
MOVING = {Mode.active, Mode.slow}


def reachable(start: Mode, who: set[str]) -> set[Mode]:
    seen, frontier = {start}, [start]
    while frontier:
        here = frontier.pop()
        for (source, target), by in TRANSITIONS.items():
            if source == here and by & who and target not in seen:
                seen.add(target)
                frontier.append(target)
    return seen


def test_every_mode_has_a_meaning_and_can_be_reached():
    assert set(MEANINGS) == set(Mode)
    assert reachable(Mode.idle, {"guard", "supervisor", "operator"}) == set(Mode)


def test_the_numbers_are_a_byte_without_gaps():
    assert sorted(Mode) == list(range(len(Mode)))


def test_no_mode_goes_to_itself_and_everyone_who_may_ask_is_known():
    for (source, target), by in TRANSITIONS.items():
        assert source != target
        assert by
        assert by <= {"guard", "supervisor", "operator"}


def test_the_emergency_stop_can_be_reached_from_everywhere_by_anyone():
    for mode in set(Mode) - {Mode.estop}:
        assert TRANSITIONS[mode, Mode.estop] == {"guard", "supervisor", "operator"}


@pytest.mark.parametrize("mode", sorted(LATCHED))
def test_only_an_operator_releases_a_latched_mode(mode):
    for (source, target), by in TRANSITIONS.items():
        if source == mode and target not in LATCHED:
            assert by == {"operator"}
            assert target == Mode.idle


def test_only_the_guard_sets_the_robot_in_motion():
    for (source, target), by in TRANSITIONS.items():
        if target in MOVING and source not in MOVING:
            assert by == {"guard"}


@pytest.mark.parametrize("mode", sorted(MOVING))
@pytest.mark.parametrize("who", ["guard", "supervisor", "operator"])
def test_anyone_can_stop_a_moving_robot(mode, who):
    assert who in TRANSITIONS[mode, Mode.stop]


def test_nothing_moves_before_the_self_test():
    assert {target for source, target in TRANSITIONS if source == Mode.idle} == {
        Mode.self_test,
        Mode.estop,
    }


def test_fault_and_idle_never_lead_straight_to_motion():
    for mode in LATCHED | {Mode.idle, Mode.self_test}:
        assert not any((mode, moving) in TRANSITIONS for moving in MOVING)


# ---- reasons ----------------------------------------------------------------------------
def test_every_reason_is_explained_in_whole_sentences():
    assert set(EXPLANATIONS) == set(Reason)
    for reason, explanation in EXPLANATIONS.items():
        for text in (explanation.sentence, explanation.cause, explanation.check):
            assert re.fullmatch(r"[A-Z`].*[.?]", text), f"{reason.name}: {text!r}"


def test_reasons_are_told_apart():
    assert len({explanation.sentence for explanation in EXPLANATIONS.values()}) == len(Reason)
    assert not {reason.name for reason in Reason} & {mode.name for mode in Mode}


def test_reason_numbers_fit_the_firmware():
    assert min(Reason) >= 1, "0 is 'no reason' on the wire"
    assert max(Reason) <= 255
