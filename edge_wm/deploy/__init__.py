"""Bundles on the robot: kept, tried, switched, and fallen back from, whenever the power goes.

    pull        found in a repository, which may be a USB stick              pulling.py
    install     verified, then stored under its digest                       store.py
    activate    tried in a process that may die, then one atomic switch      trial.py, store.py
    start       verified anew; if it does not start, the generation below    starting.py

Every switch writes a new *generation*: a small file that names one stored bundle. The newest
readable generation is the active one, so a switch is one rename, and whatever is cut off leaves
the old generation or the new one, never neither. A trial runs *before* the switch: a rollback
undoes nothing, and a power cut in the middle of a trial is a rollback too.

The one invariant: a bundle becomes active only after it passed its trial on this machine, and what
was active before stays stored and startable until something newer has been committed above it.

Nothing here asks a calendar: order is the generations' numbers and the bundles' counters.
"""

from edge_wm.deploy.disk import Disk, FolderDisk
from edge_wm.deploy.pulling import pull
from edge_wm.deploy.starting import Started, start, startable
from edge_wm.deploy.store import Generation, Store, Stored, Trialed, default_folder
from edge_wm.deploy.switching import activate, install, remove, rollback
from edge_wm.deploy.trial import Health

__all__ = [
    "Disk",
    "FolderDisk",
    "Generation",
    "Health",
    "Started",
    "Store",
    "Stored",
    "Trialed",
    "activate",
    "default_folder",
    "install",
    "pull",
    "remove",
    "rollback",
    "start",
    "startable",
]
