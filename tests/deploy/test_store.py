"""edge_wm.deploy.store: cut off before every step, on a full disk, on a read-only one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.power import CUTS, ModelDisk, PowerCut
from edge_wm.bundle import load_trust
from edge_wm.deploy import store as store_room
from edge_wm.deploy.starting import start
from edge_wm.deploy.store import Store, Stored, Trialed
from edge_wm.errors import BundleError, RefusedError, SystemTroubleError, UsageError
from edge_wm.robot import find_robot, load_robot

MakeStore = Callable[[ModelDisk], Store]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_room, "PIECE", 1000)  # so that a small bundle takes several writes


def named(data: bytes, counter: int) -> Stored:
    digest = hashlib.sha256(data).hexdigest()
    return Stored(sha256=digest, name="linear", version="1.0.0", counter=counter)


# ---- the stories that are cut off ---------------------------------------------------------
@dataclass
class Story:
    """What happens to a store from `begin` on; `done` says how far it came for certain."""

    begin: Callable[[Store], None]
    tell: Callable[[Store, list[str]], None]
    before: str | None  # digest that is active at first
    after: str | None  # and at last
    floors: tuple[int, int]


def stories(a: bytes, b: bytes) -> dict[str, Story]:
    A, B = named(a, 3), named(b, 5)

    def activate(store: Store, data: bytes, bundle: Stored, done: list[str]) -> None:
        store.put(data)
        done.append("installed")
        chain = store.chain()
        if chain and chain[0].bundle == bundle:
            return
        store.note_trial(Trialed(bundle=bundle, reason=None))
        store.commit(bundle)
        done.append("committed")
        store.forget_trial()

    def first(store: Store, done: list[str]) -> None:
        activate(store, a, A, done)

    def second(store: Store, done: list[str]) -> None:
        activate(store, b, B, done)

    def back(store: Store, done: list[str]) -> None:
        chain = store.chain()
        if chain[0].bundle == B:
            store.return_to(chain[1])
        done.append("committed")

    def both(store: Store) -> None:
        first(store, [])
        second(store, [])

    def rolled_back(store: Store, done: list[str]) -> None:
        store.put(b)
        store.note_trial(Trialed(bundle=B, reason=None))
        store.note_trial(Trialed(bundle=B, reason="it hung"))
        done.append("committed")

    def removed(store: Store, done: list[str]) -> None:
        if B.sha256 in store.bundles():
            store.remove(B.sha256)
        done.append("committed")

    def installed(store: Store) -> None:
        first(store, [])
        store.put(b)

    return {
        "first": Story(lambda _: None, first, None, A.sha256, (0, 0)),
        "second": Story(lambda s: first(s, []), second, A.sha256, B.sha256, (0, 3)),
        "rollback": Story(both, back, B.sha256, A.sha256, (3, 3)),
        "bad trial": Story(lambda s: first(s, []), rolled_back, A.sha256, A.sha256, (0, 0)),
        "removal": Story(installed, removed, A.sha256, A.sha256, (0, 0)),
    }


def settled(story: Story) -> ModelDisk:
    """A disk on which the beginning of the story is safe."""
    disk = ModelDisk()
    story.begin(Store(disk))
    return disk.survivor("kept")


def check(disk: ModelDisk, story: Story, done: list[str]) -> None:
    """It starts, with the old bundle or the new one, and nothing on it is half."""
    store = Store(disk)
    generations, damaged = store.generations()
    assert damaged == []
    for digest in store.bundles():
        store.require(digest)
    chain = store.chain()
    active = chain[0].bundle.sha256 if chain else None
    assert active in (story.before, story.after)
    if "committed" in done:
        assert active == story.after
    for generation in chain[:2]:
        store.require(generation.bundle.sha256)
    assert store.floor in story.floors
    assert len({g.number for g in generations}) == len(generations)


def sweep(
    story: Story,
    make: MakeStore = Store,
    look: Callable[[ModelDisk], None] = lambda _: None,
) -> int:
    """Cut the story off before each of its steps, in every way; then tell it again, cut off once
    more somewhere, and again to its end. Returns the number of cuts."""
    whole = settled(story)
    story.tell(make(whole), [])
    cuts = 0
    for step in range(1, whole.steps + 2):
        for how in CUTS:
            disk, done = settled(story), list[str]()
            disk.cut_at = step
            with contextlib.suppress(PowerCut):
                story.tell(make(disk), done)
            left = disk.survivor(how)
            check(left, story, done)
            look(left)
            dice = random.Random(f"{step} {how}")
            left.cut_at = dice.randrange(1, whole.steps + 2)
            with contextlib.suppress(PowerCut):
                story.tell(make(left), done)
            last = left.survivor(dice.choice(CUTS))
            check(last, story, done)
            story.tell(make(last), done)
            check(last, story, ["committed"])
            cuts += 2
    return cuts


@pytest.fixture
def told(first: Path, second: Path) -> dict[str, Story]:
    return stories(first.read_bytes(), second.read_bytes())


@pytest.mark.parametrize("name", ["first", "second", "rollback", "bad trial", "removal"])
def test_a_power_cut_before_any_step_leaves_the_old_bundle_or_the_new(told, name):
    assert sweep(told[name]) >= 2 * len(CUTS) * 3


def test_what_a_power_cut_left_really_starts(told, tmp_path):
    """The same, on a real disk, with every check that a start makes of a bundle."""
    robot = load_robot(find_robot("rover"))
    trust = load_trust()
    seen: set[tuple[tuple[str, bytes], ...]] = set()

    def look(left: ModelDisk) -> None:
        content = tuple(sorted((path, file.content) for path, file in left.files.items()))
        if content in seen:
            return
        seen.add(content)
        folder = tmp_path / f"store{len(seen)}"
        for path, data in content:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        started = start(folder, robot, trust, lambda bundle: bundle.sha256)
        assert started.skipped == ()
        assert started.loaded in (told["second"].before, told["second"].after)

    sweep(told["second"], look=look)
    assert len(seen) > 20


class WithoutFolderSync(ModelDisk):
    def sync_folder(self, folder: str) -> None:
        del folder


class SwitchedTooEarly(Store):
    """Renames before the content is safe."""

    def _write(self, folder: str, path: str, data: bytes) -> None:
        self.disk.append(f"{path}.part", data)
        self.disk.rename(f"{path}.part", path)
        self.disk.sync(path)
        self.disk.sync_folder(folder)


def test_a_store_that_does_not_sync_its_folders_is_caught(told):
    def make(disk: ModelDisk) -> Store:
        disk.__class__ = WithoutFolderSync
        return Store(disk)

    with pytest.raises((AssertionError, BundleError)):
        sweep(told["second"], make)


def test_a_store_that_switches_before_the_content_is_safe_is_caught(told):
    with pytest.raises((AssertionError, BundleError)):
        sweep(told["second"], SwitchedTooEarly)


# ---- disks that refuse --------------------------------------------------------------------
@pytest.mark.parametrize("name", ["first", "second", "rollback", "bad trial"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_at_any_step_leaves_what_was_active(told, name, number):
    story = told[name]
    whole = settled(story)
    story.tell(Store(whole), [])
    failed = 0
    for step in range(1, whole.steps + 1):
        disk, done = settled(story), list[str]()
        disk.fail_at, disk.fail_with = step, number
        trouble = _trouble(lambda disk=disk, done=done: story.tell(Store(disk, "store s"), done))
        if trouble:
            failed += 1
            assert trouble.startswith("store s: cannot write: ")
            assert ("make room" in trouble) == (number == errno.ENOSPC)
        # What a running machine sees, and what it sees after a power cut.
        for left in (disk, *(disk.survivor(how) for how in CUTS)):
            left.fail_at = None
            check(left, story, done)
        story.tell(Store(disk), done)
        check(disk, story, ["committed"])
    assert failed >= 3


def _trouble(work: Callable[[], None]) -> str:
    try:
        work()
    except SystemTroubleError as error:
        return str(error)
    return ""


def test_a_read_only_disk_starts_and_refuses_to_be_changed(told):
    story = told["second"]
    disk = settled(story)
    disk.fail_at, disk.fail_with = 0, errno.EROFS
    store = Store(disk, "store s")
    assert [g.bundle.sha256 for g in store.chain()] == [story.before]
    with pytest.raises(SystemTroubleError, match="the disk is read-only: mount it writable"):
        story.tell(store, [])
    check(disk, story, [])


# ---- floor, chain, damage -----------------------------------------------------------------
def numbered(counters: list[int]) -> tuple[Store, list[Stored]]:
    store, made = Store(ModelDisk(), "store s"), []
    for i, counter in enumerate(counters):
        data = bytes([i]) * 10
        store.put(data)
        made.append(named(data, counter))
    return store, made


def test_the_floor_follows_the_generation_below_and_no_further():
    store, (a, b, c) = numbered([3, 5, 9])
    floors = [store.commit(bundle).floor for bundle in (a, b, c)]
    assert floors == [0, 3, 5]
    assert [g.bundle for g in store.chain()] == [c, b]  # a is below the floor
    with pytest.raises(RefusedError) as refused:
        store.commit(a)
    assert str(refused.value) == (
        f"store s: {a.title} has counter 3, and this robot accepts 5 or more since a newer one was "
        "committed; use a newer bundle"
    )
    assert store.return_to(store.chain()[1]).floor == 5
    assert [g.bundle for g in store.chain()] == [b]
    assert store.commit(c).floor == 5


def test_bundles_without_a_counter_can_always_come_back():
    store, (a, b, c) = numbered([0, 0, 0])
    for bundle in (a, b, c, a):
        assert store.commit(bundle).floor == 0
    assert [g.bundle for g in store.chain()] == [a, c, b, a]
    store.return_to(store.chain()[1])
    assert [g.bundle for g in store.chain()] == [c, b, a]


def test_an_older_bundle_cannot_lower_the_floor():
    store, (a, b) = numbered([4, 6])
    store.commit(b)
    store.commit(a)  # allowed: nothing below b had raised the floor
    assert store.floor == 4
    store.commit(b)
    assert store.floor == 4


def test_a_damaged_generation_is_told_and_the_one_before_takes_its_place():
    store, (a, b) = numbered([0, 0])
    store.commit(a)
    store.commit(b)
    file = store.disk.files["generations/00000002.json"]
    for content in (b"", file.content[:-1], file.content.replace(b"linear", b"lineax")):
        file.content = content
        assert store.generations()[1] == ["generation 2: its record is damaged on this disk"]
        assert [g.bundle for g in store.chain()] == [a]
    assert store.commit(b).number == 3  # a number is never used twice


def test_a_bundle_that_is_not_whole_is_not_committed():
    store, (a, _) = numbered([0, 0])
    store.disk.files[f"bundles/{a.sha256}.wmb"].content += b"!"
    with pytest.raises(BundleError, match="missing or damaged on this disk; install it again"):
        store.commit(a)
    store.put(bytes([0]) * 10)  # installing again mends it
    store.commit(a)


def test_what_a_start_may_need_is_not_removed():
    store, (a, b, c) = numbered([0, 0, 0])
    for bundle in (a, b, c):
        store.commit(bundle)
    for bundle in (b, c):
        with pytest.raises(RefusedError, match="active or the next to fall back to"):
            store.remove(bundle.sha256)
    store.remove(a.sha256)
    with pytest.raises(UsageError, match="no bundle"):
        store.remove(a.sha256)
    assert store.bundles() == sorted([b.sha256, c.sha256])


def test_a_trial_that_was_cut_off_is_remembered_until_one_is_committed():
    store, (a, b) = numbered([0, 0])
    store.commit(a)
    store.note_trial(Trialed(bundle=b, reason=None))
    assert store.trialed() == Trialed(bundle=b, reason=None)
    store.commit(b)  # and the power goes before the trial is forgotten
    assert store.trialed() is None
