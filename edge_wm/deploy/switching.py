"""What changes a store: install, activate, rollback, remove; each by one writer at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_wm.bundle import Bundle, check_fit, load_trust, open_bundle
from edge_wm.bundle.container import read_file
from edge_wm.deploy.holding import switching, writing
from edge_wm.deploy.starting import opened_store, startable
from edge_wm.deploy.store import Generation, Stored, Trialed, bundle_path
from edge_wm.deploy.trial import Health, try_bundle
from edge_wm.errors import BundleError, RefusedError, UsageError
from edge_wm.robot import Robot, load_robot


def install(folder: Path, file: Path, trust: Sequence[Path]) -> Stored:
    """Verify a bundle and store it; nothing is activated.

    trust: public key files beside the usual ones.

    Raises: UsageError, BundleError, TrustError, ModelError (it is refused), RefusedError (another
    command writes to the store), SystemTroubleError.
    """
    bundle = open_bundle(file, load_trust(trust))
    data = read_file(file)
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise BundleError(f"{file} changed while it was read; install it again")
    with writing(folder, f"edge-wm deploy install {file.name}"):
        opened_store(folder).put(data)
    return stored(bundle)


def activate(
    folder: Path,
    digest: str,
    robot_file: Path,
    trust: Sequence[Path],
    *,
    health: Health | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> Generation:
    """Try a stored bundle on this machine, and make it active if it passes.

    Whatever goes wrong, what was active stays active.

    Raises: RefusedError (the robot runs, the counter is below the floor, or it was rolled back:
    with the reason), and as `install`.
    """
    robot = load_robot(robot_file)
    with (
        writing(folder, "edge-wm deploy activate"),
        switching(folder, "edge-wm deploy activate"),
    ):
        store = opened_store(folder)
        active = next(iter(store.chain()), None)
        if digest not in store.bundles():
            raise UsageError(f"{store.name}: no bundle {digest[:12]}; see edge-wm deploy list")
        store.require(digest)
        path = folder / bundle_path(digest)
        bundle = open_bundle(path, load_trust(trust, developer=simulated(robot)))
        check_fit(bundle.manifest, robot)
        chosen = stored(bundle)
        if active is not None and active.bundle.sha256 == digest:
            raise UsageError(f"{store.name}: {chosen.title} is active already")
        store.require_floor(chosen)
        store.note_trial(Trialed(bundle=chosen, reason=None))
        reason = try_bundle(
            path, robot_file, trust, developer=simulated(robot), health=health, tell=tell
        )
        if reason is not None:
            store.note_trial(Trialed(bundle=chosen, reason=reason))
            stays = "nothing is active" if active is None else f"{active.bundle.title} stays active"
            raise RefusedError(f"{chosen.title} was rolled back: {reason}; {stays}")
        generation = store.commit(chosen)
        store.forget_trial()
        return generation


def rollback(folder: Path, robot_file: Path, trust: Sequence[Path]) -> Generation:
    """Make what was active before active again: verified, and not tried a second time.

    Raises: UsageError (there is nothing before), RefusedError (the robot runs), what is wrong with
    that bundle, SystemTroubleError.
    """
    robot = load_robot(robot_file)
    with (
        writing(folder, "edge-wm deploy rollback"),
        switching(folder, "edge-wm deploy rollback"),
    ):
        store = opened_store(folder)
        chain = store.chain()
        if len(chain) < 2:
            raise UsageError(
                f"{store.name}: there is no generation to roll back to; activate another bundle"
            )
        startable(folder, chain[1], robot, load_trust(trust, developer=simulated(robot)))
        return store.return_to(chain[1])


def remove(folder: Path, digest: str) -> None:
    """Take a bundle that no start needs off the disk. Raises: as `Store.remove`."""
    with writing(folder, "edge-wm deploy remove"):
        opened_store(folder).remove(digest)


def stored(bundle: Bundle) -> Stored:
    """A bundle as generations name it."""
    manifest = bundle.manifest
    return Stored(
        sha256=bundle.sha256,
        name=manifest.name,
        version=manifest.version,
        counter=manifest.counter or 0,
    )


def simulated(robot: Robot) -> bool:
    """Whether a developer's key is enough for this robot."""
    return all(link.kind == "simulated" for link in robot.links)
