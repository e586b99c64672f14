"""edge_wm.deploy with real processes: two at once, clocks that lie, and the command line."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_wm import deploy
from edge_wm.cli import app
from edge_wm.deploy.holding import writing
from edge_wm.deploy.starting import opened_store
from edge_wm.errors import EdgeWmError, RefusedError

HOLD = """
import sys
from pathlib import Path
from edge_wm.deploy.holding import writing
with writing(Path(sys.argv[1]), "edge-wm deploy install other.wmb"):
    print("held", flush=True)
    sys.stdin.read()
"""


def edge_wm(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edge_wm", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_the_second_writer_is_told_who_is_first_and_a_killed_one_leaves_nothing(tmp_path, first):
    store = tmp_path / "store"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RefusedError) as refused:
            deploy.install(store, first, [])
        assert str(refused.value) == (
            f"store {store} is being written to by process {holder.pid}, edge-wm deploy install "
            "other.wmb; wait until it is done"
        )
    finally:
        holder.kill()
        holder.communicate()
    deploy.install(store, first, [])


def test_two_installers_at_once_leave_whole_bundles(tmp_path, first, second):
    store = tmp_path / "store"
    processes = [edge_wm("deploy", "install", f, "--store", store) for f in (first, second)]
    results = [ended(process) for process in processes]
    assert {code for code, _, _ in results} <= {0, 3}
    assert 0 in {code for code, _, _ in results}
    for code, _, err in results:
        assert code == 0 or re.search(r"is being written to by process \d+", err)
    kept = opened_store(store)
    assert len(kept.bundles()) == sum(code == 0 for code, _, _ in results)
    for digest in kept.bundles():
        kept.require(digest)


CLOCK = """
import os, time
epoch = float(os.environ["EPOCH_S"])
time.time = lambda: epoch
time.time_ns = lambda: int(epoch * 1e9)
"""
SWITCH = """
import sys, time
from pathlib import Path
from edge_wm import deploy
from edge_wm.deploy.trial import Health
from edge_wm.robot import find_robot
assert time.time() == float(sys.argv[1])
store = Path(sys.argv[2])
for file in sys.argv[3:]:
    digest = deploy.install(store, Path(file), []).sha256
    health = Health(trial_s=30.0, window_s=0.3)
    deploy.activate(store, digest, find_robot("rover"), [], health=health)
print(deploy.rollback(store, find_robot("rover"), []).bundle.counter)
"""


@pytest.mark.parametrize("epoch_s", [0.0, 4102444800.0])  # 1970 and 2100
def test_the_clock_decides_nothing(tmp_path, first, second, epoch_s):
    """In this process's children too; and files that seem to come from the other end of time."""
    (tmp_path / "sitecustomize.py").write_text(CLOCK)
    other_s = 4102444800.0 - epoch_s
    for file in (first, second):
        os.utime(file, (other_s, other_s))
    script = [sys.executable, "-c", SWITCH, str(epoch_s), tmp_path / "store", first, second]
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "EPOCH_S": str(epoch_s)}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr


def test_the_command_line_from_install_to_removal(tmp_path, first, second):
    store = tmp_path / "store"

    def call(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["deploy", *map(str, arguments), "--store", str(store)])
        if isinstance(done.exception, EdgeWmError):
            return done.exception.exit_code, done.stdout, str(done.exception)
        return done.exit_code, done.stdout, done.stderr

    digests = []
    for file in (first, second):
        code, out, err = call("install", file, "--json")
        assert code == 0, err
        digests.append(json.loads(out)["sha256"])
    code, out, err = call("activate", "linear")
    assert (code, out) == (2, "")
    assert "'linear' may be any of" in err
    code, out, err = call("activate", "linear@1.0.0", "--within", 30)
    assert code == 0, err
    assert out == f"linear 1.0.0 ({digests[0][:12]}) is active (generation 1)\n"
    assert "trial: running" in err
    code, out, _ = call("status", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["starts"]["sha256"] == digests[0]
    assert Path(facts["starts"]["path"]).read_bytes() == first.read_bytes()
    assert (facts["floor"], facts["not_committed"], facts["run_by"]) == (0, None, None)
    assert call("remove", digests[0][:8])[0] == 3
    assert call("remove", digests[1][:8])[:2] == (0, f"removed {digests[1][:12]}\n")
    rows = json.loads(call("list", "--json")[1])["bundles"]
    assert [(row["sha256"], row["role"]) for row in rows] == [(digests[0], "active")]
    (store / "bundles" / f"{digests[0]}.wmb").write_bytes(b"")
    code, out, _ = call("status")
    assert code == 3
    assert "does not start" in out


def test_run_starts_what_the_store_falls_back_to(tmp_path, first, second):
    store = tmp_path / "store"
    kept = opened_store(store)
    with writing(store, "test"):
        for file, counter in ((first, 3), (second, 5)):
            digest = kept.put(file.read_bytes())
            kept.commit(
                deploy.Stored(sha256=digest, name="linear", version="1.0.0", counter=counter)
            )
    (store / "bundles" / f"{digest}.wmb").write_bytes(b"")
    run = edge_wm("run", "--store", store, "--duration", 1, "--no-report", "--backend", "first",
                  "--out", tmp_path / "runs", "--json")  # fmt: skip
    code, out, err = ended(run)
    assert code == 0, err
    assert json.loads(out)["plans"] > 0
    assert "not started: generation 2" in err
    code, _, err = ended(edge_wm("run", "--store", store, "--bundle", first))
    assert code == 2
    assert "leave --bundle out" in err


@pytest.mark.parametrize(
    "command", ["install", "pull", "list", "activate", "rollback", "status", "remove"]
)
def test_every_command_has_store_and_json(command):
    # A wide terminal: the help is cut to its width.
    shown = CliRunner().invoke(app, ["deploy", command, "--help"], env={"COLUMNS": "200"}).stdout
    assert "--json" in shown
    assert "--store" in shown
