"""Start what is active, verified anew; and what lies below it where that does not start.

A disk ages, a library is updated, a key is revoked: what passed its trial last month may not start
today. Every start opens the bundle again (digest, signature, structure, fit, and through `load`
its reference outputs) and takes the first generation of the chain that passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from edge_wm.bundle import Bundle, Trust, check_fit, open_bundle
from edge_wm.deploy.disk import FolderDisk
from edge_wm.deploy.store import Generation, Store, bundle_path
from edge_wm.errors import (
    BundleError,
    EdgeWmError,
    RefusedError,
    SystemTroubleError,
    UsageError,
)
from edge_wm.robot import Robot

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Started(Generic[Loaded]):
    """What a start came to."""

    generation: Generation
    bundle: Bundle
    loaded: Loaded  # what `load` made of the bundle
    skipped: tuple[str, ...]  # the generations above it, and why they did not start


def opened_store(folder: Path) -> Store:
    """The store in a folder; one that is not there holds nothing."""
    return Store(FolderDisk(folder), f"store {folder}")


def start(
    folder: Path, robot: Robot, trust: Trust, load: Callable[[Bundle], Loaded]
) -> Started[Loaded]:
    """The first generation that starts.

    load: makes of a bundle what runs it, and raises an EdgeWmError where it does not run here.

    Raises: UsageError (nothing was ever activated, or what `load` was asked for is wrong),
    SystemTroubleError (the computer's trouble: no older bundle is the answer to it), RefusedError
    (nothing starts: every reason).
    """
    store = opened_store(folder)
    _, skipped = store.generations()
    for generation in store.chain():
        named = f"generation {generation.number}, {generation.bundle.title}"
        try:
            bundle = startable(folder, generation, robot, trust)
        except EdgeWmError as error:
            skipped.append(f"{named}: {error}")
            continue
        try:
            return Started(generation, bundle, load(bundle), tuple(skipped))
        except (UsageError, SystemTroubleError):
            raise
        except EdgeWmError as error:
            skipped.append(f"{named}: {error}")
    if not skipped:
        raise UsageError(
            f"{store.name}: no bundle is active; install and activate one: edge-wm deploy install "
            "FILE, edge-wm deploy activate BUNDLE"
        )
    raise RefusedError(f"{store.name}: nothing in it starts: {'; '.join(skipped)}")


def startable(folder: Path, generation: Generation, robot: Robot, trust: Trust) -> Bundle:
    """The bundle of a generation, with every check that runs nothing of it.

    Raises: what is wrong with it, an EdgeWmError.
    """
    path = folder / bundle_path(generation.bundle.sha256)
    if not path.exists():
        raise BundleError("its bundle is not on this disk any more; install it again")
    bundle = open_bundle(path, trust)
    if bundle.sha256 != generation.bundle.sha256:
        raise BundleError("its bundle is damaged on this disk; install it again")
    check_fit(bundle.manifest, robot)
    return bundle
