"""Activation: a good bundle is committed, a bad one rolled back within 10 s, with its reason."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from deploy import bundles
from deploy.bad import BAD, ROVER, prepare, rolled_back
from edge_wm import deploy
from edge_wm.bundle import load_trust
from edge_wm.deploy.holding import running
from edge_wm.deploy.starting import opened_store, start
from edge_wm.deploy.store import bundle_path
from edge_wm.errors import ModelError, RefusedError, UsageError
from edge_wm.robot import load_robot

ROLLED_BACK_WITHIN_S = 10.0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGE_WM_CONFIG", str(folder / "config"))
        patch.setenv("EDGE_WM_CACHE", str(folder / "cache"))
        return prepare(folder)


@pytest.fixture
def store(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "store"))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_bundle_is_rolled_back_with_its_reason(store, tmp_path, name):
    reason, seconds = rolled_back(store, BAD[name], 0, tmp_path)
    assert re.search(BAD[name].says, reason), reason
    assert "\n" not in reason
    assert seconds <= ROLLED_BACK_WITHIN_S


def test_a_good_bundle_is_committed_and_rolled_back_by_hand(store):
    # The fixture has activated two: what is left is what a person does next.
    kept = opened_store(store)
    newer, older = kept.chain()
    assert (newer.bundle.version, older.bundle.version, kept.floor) == ("2.0.0", "1.0.0", 3)
    assert kept.trialed() is None
    back = deploy.rollback(store, ROVER, [])
    assert (back.number, back.why, back.bundle) == (3, "rolled back", older.bundle)
    with pytest.raises(UsageError, match="there is no generation to roll back to"):
        deploy.rollback(store, ROVER, [])


def test_the_reason_of_a_rollback_is_kept(store, tmp_path):
    reason, _ = rolled_back(store, BAD["outputs are another model's"], 0, tmp_path)
    trialed = opened_store(store).trialed()
    assert trialed is not None
    assert trialed.reason is not None
    assert trialed.reason in reason
    assert reason.endswith("stays active")


def test_a_trial_that_does_not_end_in_time_says_what_to_do(store, tmp_path):
    file = bundles.write(tmp_path / "new.wmb", version="3.0.0", counter=5)
    digest = deploy.install(store, file, []).sha256
    with pytest.raises(RefusedError) as refused:
        deploy.activate(store, digest, ROVER, [], health=deploy.Health(trial_s=0.05))
    assert (
        "was rolled back: starting: not ready after 0.05 s (a computer that is busy or slow needs "
        "more: --within); linear 2.0.0"
    ) in str(refused.value)


def test_nothing_is_switched_under_a_robot_that_runs(store, tmp_path):
    file = bundles.write(tmp_path / "new.wmb", version="3.0.0", counter=5)
    digest = deploy.install(store, file, []).sha256
    with running(store, "edge-wm run"), pytest.raises(RefusedError) as refused:
        deploy.activate(store, digest, ROVER, [])
    assert re.fullmatch(
        rf"store {store}: the robot runs from it \(process \d+, edge-wm run\), and a bundle is "
        "activated only while it is disarmed; end that run first",
        str(refused.value),
    )


# ---- starting -----------------------------------------------------------------------------
def test_a_start_falls_back_when_the_active_bundle_was_damaged(store):
    kept = opened_store(store)
    newer, older = kept.chain()
    path = store / bundle_path(newer.bundle.sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    started = start(store, load_robot(ROVER), load_trust(), lambda bundle: bundle.sha256)
    assert started.generation == older
    (skipped,) = started.skipped
    assert skipped.startswith(f"generation 2, {newer.bundle.title}: bundle ")


def test_a_start_falls_back_when_the_active_bundle_no_longer_computes_what_it_should(store):
    newer, older = opened_store(store).chain()

    def load(bundle):
        if bundle.sha256 == newer.bundle.sha256:
            raise ModelError("another library version")
        return "loaded"

    started = start(store, load_robot(ROVER), load_trust(), load)
    assert (started.generation, started.loaded) == (older, "loaded")
    assert started.skipped == (f"generation 2, {newer.bundle.title}: another library version",)


def test_a_start_with_nothing_that_starts_gives_every_reason(store):
    for digest in opened_store(store).bundles():
        (store / bundle_path(digest)).unlink()
    with pytest.raises(RefusedError, match=r"nothing in it starts: generation 2.*; generation 1"):
        start(store, load_robot(ROVER), load_trust(), lambda bundle: bundle)


def test_a_start_from_an_empty_store_says_what_to_do(tmp_path):
    with pytest.raises(UsageError, match="no bundle is active; install and activate one"):
        start(tmp_path / "none", load_robot(ROVER), load_trust(), lambda bundle: bundle)
    assert not (tmp_path / "none").exists()
