"""scripts/prove.py: figures kept with their commit, proofs that continue where they were cut."""

from __future__ import annotations

import importlib.util
import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "prove.py"
spec = importlib.util.spec_from_file_location("prove", SCRIPT)
prove = importlib.util.module_from_spec(spec)
spec.loader.exec_module(prove)

HERE = {"commit": "abc", "machine": "this one", "today": "2026-11-22"}


def run(results: Path, parts, **where) -> tuple[bool, list[str]]:
    said: list[str] = []
    passed = prove.prove("t", parts, results=results, say=said.append, **{**HERE, **where})
    return passed, said


def counted(calls: list[str], name: str, passed: bool = True):
    def part():
        calls.append(name)
        return {"passed": passed, "n": len(calls)}

    return part


def test_figures_stand_next_to_commit_machine_and_date(tmp_path):
    results = tmp_path / "docs" / "proofs.json"
    assert run(results, {"a": counted([], "a")})[0]
    (entry,) = json.loads(results.read_text())
    assert entry.pop("seconds") >= 0
    assert entry == {
        "topic": "t",
        "part": "a",
        "commit": "abc",
        "machine": "this one",
        "date": "2026-11-22",
        "figures": {"passed": True, "n": 1},
    }


def test_an_interrupted_proof_continues_at_the_missing_part(tmp_path):
    results, calls = tmp_path / "proofs.json", []

    def cut():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(results, {"a": counted(calls, "a"), "b": cut, "c": counted(calls, "c")})
    parts = {name: counted(calls, name) for name in "abc"}
    assert run(results, parts)[0]
    assert calls == ["a", "b", "c"]
    assert [entry["part"] for entry in json.loads(results.read_text())] == ["a", "b", "c"]
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("other", [{"commit": "def"}, {"machine": "that one"}])
def test_another_commit_or_machine_is_another_proof(tmp_path, other):
    results, calls = tmp_path / "proofs.json", []
    for where in ({}, other, {}, other):
        run(results, {"a": counted(calls, "a")}, **where)
    assert len(calls) == 2
    assert len(json.loads(results.read_text())) == 2


def test_nothing_is_taken_over_from_a_changed_checkout(tmp_path):
    results, calls = tmp_path / "proofs.json", []
    for _ in range(2):
        run(results, {"a": counted(calls, "a")}, commit="abc+changes")
    assert len(calls) == 2


def test_one_failing_part_fails_the_topic_also_when_it_is_taken_over(tmp_path):
    parts = {"a": counted([], "a", passed=False), "b": counted([], "b")}
    assert not run(tmp_path / "proofs.json", parts)[0]
    assert not run(tmp_path / "proofs.json", parts)[0]


def test_commit_of_names_changes_but_not_the_proofs_themselves(tmp_path):
    assert prove.commit_of(tmp_path) == "no commit"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@x"]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "proofs.json").write_text("[]")
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *command], check=True)
    clean = prove.commit_of(tmp_path)
    assert len(clean) == 12
    (tmp_path / "docs" / "proofs.json").write_text("[1]")
    assert prove.commit_of(tmp_path) == clean
    (tmp_path / "file").write_text("2")
    assert prove.commit_of(tmp_path) == clean + "+changes"


@pytest.mark.parametrize(
    "topic",
    # ros needs rclpy, which another environment has: tests/ros2/test_proof.py looks at it.
    sorted({path.stem for path in (SCRIPT.parent / "proofs").glob("*.py")} - {"ros"}),
)
def test_every_topic_has_parts(topic):
    parts = prove.parts_of(topic)
    assert parts
    assert all(callable(part) for part in parts.values())


def test_an_unknown_topic_lists_the_known():
    with pytest.raises(SystemExit, match=r"^prove: no topic 'nope'; there are: .*native"):
        prove.parts_of("nope")
