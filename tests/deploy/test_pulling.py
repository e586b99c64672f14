"""edge_wm.deploy.pulling: what a repository lists is installed; the rest is refused by name."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from deploy import bundles
from deploy.repository import Repository, signer
from edge_wm import deploy
from edge_wm.bundle import SigningKey
from edge_wm.errors import RefusedError, TrustError, UsageError


@pytest.fixture
def stick(tmp_path: Path, first: Path) -> Repository:
    made = Repository(tmp_path / "stick")
    made.list("deploy/rover.wmb", first.read_bytes())
    made.publish()
    return made


@pytest.fixture
def store(tmp_path: Path, stick: Repository) -> Path:
    """A store that has pulled once."""
    folder = tmp_path / "store"
    root = shutil.copy(stick.folder / "metadata" / "1.root.json", tmp_path / "root.json")
    assert deploy.pull(folder, stick.folder, "rover", Path(root), []).version == "1.0.0"
    return folder


def refused(store: Path, stick: Repository, kind: type[Exception] = RefusedError) -> str:
    before = deploy.starting.opened_store(store).bundles()
    with pytest.raises(kind) as error:
        deploy.pull(store, stick.folder, "rover", None, [])
    assert deploy.starting.opened_store(store).bundles() == before
    return str(error.value)


def test_a_newer_bundle_is_pulled_and_nothing_is_activated(store, stick, second):
    stick.list("deploy/rover.wmb", second.read_bytes())
    stick.publish()
    assert deploy.pull(store, stick.folder, "rover", None, []).version == "2.0.0"
    kept = deploy.starting.opened_store(store)
    assert (len(kept.bundles()), kept.chain()) == (2, [])


def test_keys_are_rotated_by_the_old_root_and_the_new(store, stick, second):
    old = stick.root_keys
    stick.root_keys, stick.office = [signer(11), signer(12)], signer(13)
    stick.write_root([*old, *stick.root_keys])
    stick.list("deploy/rover.wmb", second.read_bytes())
    stick.publish()
    assert deploy.pull(store, stick.folder, "rover", None, []).version == "2.0.0"


def test_a_new_root_by_too_few_of_the_old_keys_is_refused(store, stick):
    old = stick.root_keys
    stick.root_keys = [signer(11), signer(12)]
    stick.write_root([old[0], *stick.root_keys])
    assert "is not signed by enough of the keys that this robot trusts" in refused(store, stick)


def test_an_older_copy_is_a_rollback(store, stick, second, tmp_path):
    old = shutil.copytree(stick.folder, tmp_path / "old")
    stick.list("deploy/rover.wmb", second.read_bytes())
    stick.publish()
    deploy.pull(store, stick.folder, "rover", None, [])
    stick.folder = Path(old)
    assert "is older than what this robot has seen already" in refused(store, stick)


def test_an_expired_copy_may_be_frozen(store, stick):
    stick.expires = datetime.now(timezone.utc) - timedelta(days=1)
    stick.publish()
    assert "is out of date" in refused(store, stick)
    assert "somebody may have frozen it" in refused(store, stick)


@pytest.mark.parametrize("role", ["office", "technician"])
def test_a_wrong_key_is_refused(store, stick, role):
    if role == "office":
        stick.office = signer(99)
        stick.publish()
    else:
        right, stick.technician = stick.technician, signer(99)
        stick.publish()
        right_role = stick.folder / "metadata" / f"{stick.version}.technician.json"
        wrong = right_role.read_bytes()
        stick.version -= 1
        stick.technician = right
        stick.publish()
        right_role.write_bytes(wrong)
    assert "is not signed by enough of the keys that this robot trusts" in refused(store, stick)


def test_a_bundle_that_is_not_the_one_listed_is_refused(store, stick, second):
    stick.list("deploy/rover.wmb", second.read_bytes(), lie=True)
    stick.publish()
    assert "holds a file that is not the one it lists" in refused(store, stick)


def test_the_technician_hands_out_bundles_and_signs_no_model(store, stick, tmp_path):
    key = SigningKey("technician", stick.technician)
    own = bundles.write(tmp_path / "own.wmb", version="3.0.0", key=key)
    stick.list("deploy/rover.wmb", own.read_bytes())
    stick.publish()
    assert "signed by the unknown key" in refused(store, stick, TrustError)


def test_the_technician_has_no_say_beyond_deploy(store, stick, second):
    del stick.listed["deploy/rover.wmb"]
    stick.list("models/rover.wmb", second.read_bytes())
    stick.list("deploy/arm.wmb", second.read_bytes())
    stick.publish()
    assert "deploy/rover.wmb is not listed by a role that may" in refused(store, stick, UsageError)
    from tuf.ngclient import Updater

    from edge_wm.deploy.pulling import _folder_fetcher

    updater = Updater(
        str(store / "pull" / "metadata"),
        "metadata/",
        None,
        "targets/",
        fetcher=_folder_fetcher(stick.folder),
        bootstrap=(store / "pull" / "root.json").read_bytes(),
    )
    assert updater.get_targetinfo("models/rover.wmb") is None
    assert updater.get_targetinfo("deploy/arm.wmb") is not None


def test_the_first_pull_needs_a_root_and_another_root_is_refused(tmp_path, stick, store):
    with pytest.raises(UsageError, match="trusts no repository yet; give its first root"):
        deploy.pull(tmp_path / "fresh", stick.folder, "rover", None, [])
    other = Repository(tmp_path / "other")
    other.root_keys = [signer(1), signer(5)]
    other.write_root(other.root_keys)
    root = other.folder / "metadata" / "2.root.json"
    with pytest.raises(RefusedError, match="trusts another repository's root already"):
        deploy.pull(store, stick.folder, "rover", root, [])


def test_a_root_that_the_repository_does_not_fit_is_not_pinned(tmp_path, stick):
    other, fresh = Repository(tmp_path / "other"), tmp_path / "fresh"
    other.root_keys, other.office = [signer(5), signer(6)], signer(7)
    other.root_version = 0
    other.write_root(other.root_keys)
    with pytest.raises(RefusedError, match="not signed by enough of the keys"):
        deploy.pull(fresh, stick.folder, "rover", other.folder / "metadata" / "1.root.json", [])
    right = stick.folder / "metadata" / "1.root.json"
    assert deploy.pull(fresh, stick.folder, "rover", right, []).version == "1.0.0"


def test_a_folder_that_is_no_repository_or_not_whole(store, stick, tmp_path):
    with pytest.raises(UsageError, match="is no repository: it has no folder `metadata`"):
        deploy.pull(store, tmp_path, "rover", None, [])
    (stick.folder / "metadata" / "timestamp.json").unlink()
    assert "is not whole" in refused(store, stick, UsageError)
