"""Take a robot's bundle from a TUF repository, which may be a USB stick.

    <source>/metadata/   root, timestamp, snapshot, targets, and the roles they delegate to
    <source>/targets/    the bundles, named by digest

Two questions, two kinds of keys. The repository (https://theupdateframework.io) says *which* bundle
a robot is to have now: its target is `deploy/<robot>.wmb`, and the office may delegate `deploy/*`
to a technician's key. Who *made* the model is the bundle's own signature, which `install`
verifies: a technician can hand out what was signed, and sign no model.

python-tuf does all of TUF: rotation of keys, thresholds, expiry, rollback. Here are only the way
to a folder, the pinned first root, and words for what was refused.

Invariant: nothing is installed that the repository's present metadata does not list by digest.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from edge_wm.bundle.container import read_file
from edge_wm.deploy.holding import writing
from edge_wm.deploy.starting import opened_store
from edge_wm.deploy.store import Stored
from edge_wm.deploy.switching import install
from edge_wm.errors import RefusedError, SystemTroubleError, UsageError

if TYPE_CHECKING:
    from tuf.ngclient.fetcher import FetcherInterface

PULL, ROOT = "pull", "pull/root.json"
MAX_ROOT = 512_000  # bytes; as python-tuf's own limit
PIECE = 1 << 20


def pull(
    folder: Path, source: Path, robot_name: str, root: Path | None, trust: Sequence[Path]
) -> Stored:
    """Install the bundle that the repository at `source` lists for a robot; nothing is activated.

    root: the repository's first root metadata, from a hand that is trusted; needed once, and
    pinned in the store.

    Raises: RefusedError (rollback, expiry, keys, digest: each in its own words), UsageError (no
    repository, nothing for this robot, no root), and as `install`.
    """
    try:
        from tuf.ngclient.updater import Updater
    except ImportError:
        advice = 'run: pip install "edge-wm[deploy]"'
        raise UsageError(f"`deploy pull` needs python-tuf, which is not installed; {advice}") from (
            None
        )
    if not (source / "metadata").is_dir():
        raise UsageError(f"{source} is no repository: it has no folder `metadata`; check the path")
    target = f"deploy/{robot_name}.wmb"
    with tempfile.TemporaryDirectory() as made:
        with writing(folder, "edge-wm deploy pull"):
            pinned = _pinned(folder)
            seen = folder / PULL / "metadata"
            first = _first_root(folder, pinned, root)
            if not pinned:  # what an earlier try with another root may have left
                shutil.rmtree(seen, ignore_errors=True)
            with _in_words(source):
                updater = Updater(
                    str(seen),
                    "metadata/",
                    made,
                    "targets/",
                    fetcher=_folder_fetcher(source),
                    bootstrap=first,
                )
                updater.refresh()
                if not pinned:
                    opened_store(folder).pin(ROOT, first)
                found = updater.get_targetinfo(target)
                _sync_all(seen)  # what this robot has seen, it has seen after a power cut too
                if found is None:
                    raise UsageError(
                        f"repository {source} has nothing for this robot: {target} is not listed "
                        "by a role that may; name another robot with --robot"
                    )
                file = Path(made) / f"{robot_name}.wmb"
                updater.download_target(found, str(file))
        return install(folder, file, trust)


def _pinned(folder: Path) -> bytes:
    """The first root that this robot trusts; empty if there is none yet."""
    try:
        return (folder / ROOT).read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise SystemTroubleError(f"cannot read {folder / ROOT}: {error.strerror}") from None


def _first_root(folder: Path, pinned: bytes, root: Path | None) -> bytes:
    """The root to begin with: the pinned one, or the one given where none is pinned yet."""
    given = None if root is None else read_file(root, MAX_ROOT)
    if not pinned and given is None:
        raise UsageError(
            f"store {folder} trusts no repository yet; give its first root metadata, from a hand "
            "that you trust, with --root FILE"
        )
    if pinned and given not in (None, pinned):
        raise RefusedError(
            f"store {folder} trusts another repository's root already; a new root comes through "
            f"the repository, signed by the old one (or remove {folder / PULL} if you mean it)"
        )
    return pinned or given or b""


@contextmanager
def _in_words(source: Path) -> Iterator[None]:
    """python-tuf's refusals as sentences of ours."""
    from tuf.api import exceptions as tuf

    where = f"repository {source}"
    try:
        yield
    except tuf.ExpiredMetadataError as error:
        raise RefusedError(
            f"{where} is out of date ({error}): somebody may have frozen it; get a fresh copy, and "
            "check this computer's clock"
        ) from None
    except tuf.BadVersionNumberError as error:
        raise RefusedError(
            f"{where} is older than what this robot has seen already ({error}): a rollback; get "
            "the newest copy"
        ) from None
    except tuf.UnsignedMetadataError as error:
        raise RefusedError(
            f"{where} is not signed by enough of the keys that this robot trusts ({error}); get it "
            "from its maker"
        ) from None
    except tuf.LengthOrHashMismatchError as error:
        raise RefusedError(
            f"{where} holds a file that is not the one it lists ({error}); get it again"
        ) from None
    except tuf.DownloadError as error:
        raise UsageError(f"{where} is not whole: {error}; get it again") from None
    except tuf.RepositoryError as error:
        raise RefusedError(f"{where} is refused: {error}; get it from its maker") from None
    except OSError as error:
        raise SystemTroubleError(f"{where}: {error.strerror or error}; try again") from None


def _folder_fetcher(source: Path) -> FetcherInterface:
    """python-tuf's way to a file below `source`."""
    from tuf.api.exceptions import DownloadError, DownloadHTTPError
    from tuf.ngclient.fetcher import FetcherInterface

    class FolderFetcher(FetcherInterface):
        def _fetch(self, url: str) -> Iterator[bytes]:
            if ".." in url.split("/") or "%" in url:
                raise DownloadError(f"{url!r} is no name of a file here")
            try:
                file = open(source / url, "rb")  # noqa: SIM115  (closed by the generator)
            except FileNotFoundError:
                raise DownloadHTTPError(f"there is no file {url}", 404) from None
            return self._pieces(file)

        @staticmethod
        def _pieces(file: IO[bytes]) -> Iterator[bytes]:
            with file:
                while piece := file.read(PIECE):
                    yield piece

    return FolderFetcher()


def _sync_all(folder: Path) -> None:
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
