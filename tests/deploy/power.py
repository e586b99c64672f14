"""A disk in memory that forgets what was not synced, and can be stopped before any step.

Content and names are kept apart, as POSIX does: `sync` makes a file's content safe and says nothing
of its name; `sync_folder` makes the names in one folder safe and says nothing of contents. What a
power cut leaves of the rest is chosen by `survivor`: more than any one file system would do.
"""

from __future__ import annotations

import errno
import random
from dataclasses import dataclass, field

# How a cut treats what was not synced: names and contents.
CUTS = ("dropped", "kept", "names kept", "contents kept", *(f"torn {n}" for n in range(6)))


class PowerCut(Exception):
    """The disk is gone; nothing runs any more."""


@dataclass
class File:
    content: bytes = b""
    synced: bytes = b""


@dataclass
class ModelDisk:
    """`Disk`; every step that changes it is counted in `steps`."""

    files: dict[str, File] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    safe_files: dict[str, File] = field(default_factory=dict)
    safe_folders: set[str] = field(default_factory=set)
    pending: list[tuple[str, ...]] = field(default_factory=list)  # changes of names, in order
    held: dict[str, File] = field(default_factory=dict)  # files of pending names
    steps: int = 0
    cut_at: int | None = None  # the power goes before this step
    fail_at: int | None = None  # this and every later step that writes fails ...
    fail_with: int = errno.ENOSPC
    log: list[str] = field(default_factory=list)

    # ---- Disk -------------------------------------------------------------------------------
    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return self.files[path].content

    def names(self, folder: str) -> list[str]:
        return [p.rpartition("/")[2] for p in self.files if p.rpartition("/")[0] == folder]

    def make_folder(self, folder: str) -> None:
        self._step(f"make {folder}")
        if folder not in self.folders:
            self._fail(True)
            self.folders.add(folder)
            self.pending.append(("make", folder))

    def append(self, path: str, piece: bytes | memoryview) -> None:
        self._step(f"append {path}")
        if path not in self.files:
            self._fail(self.fail_with != errno.ENOSPC)
            assert path.rpartition("/")[0] in self.folders | {""}
            self.files[path] = File()
            self._note("link", path, self.files[path])
        try:
            self._fail(True)
        except OSError:
            self.files[path].content += bytes(piece)[: len(piece) // 2]  # what still fitted
            raise
        self.files[path].content += bytes(piece)

    def sync(self, path: str) -> None:
        self._step(f"sync {path}")
        self._fail(self.fail_with != errno.ENOSPC)
        self.files[path].synced = self.files[path].content

    def rename(self, old: str, new: str) -> None:
        self._step(f"rename {new}")
        self._fail(self.fail_with != errno.ENOSPC)
        file = self.files.pop(old)
        self.files[new] = file
        self._note("rename", new, file, old)

    def remove(self, path: str) -> None:
        if path in self.files:
            self._step(f"remove {path}")
            self._fail(self.fail_with != errno.ENOSPC)
            self._note("unlink", path, self.files.pop(path))

    def sync_folder(self, folder: str) -> None:
        self._step(f"sync folder {folder}")
        self._fail(self.fail_with != errno.ENOSPC)
        mine = [op for op in self.pending if _folder_of(op) == folder]
        for op in mine:
            self._apply(op, self.safe_files, self.safe_folders)
        self.pending = [op for op in self.pending if op not in mine]

    # ---- stopping it ------------------------------------------------------------------------
    def _step(self, what: str) -> None:
        self.steps += 1
        self.log.append(what)
        if self.cut_at is not None and self.steps >= self.cut_at:
            raise PowerCut

    def _fail(self, applies: bool) -> None:
        if applies and self.fail_at is not None and self.steps >= self.fail_at:
            raise OSError(self.fail_with, errno.errorcode[self.fail_with])

    def _note(self, what: str, path: str, file: File, old: str = "") -> None:
        key = str(id(file))
        self.held[key] = file
        self.pending.append((what, path, key, old))

    def _apply(self, op: tuple[str, ...], files: dict[str, File], folders: set[str]) -> None:
        if op[0] == "make":
            folders.add(op[1])
            return
        what, path, key, old = op
        if what == "unlink":
            files.pop(path, None)
        else:
            files[path] = self.held[key]
            if what == "rename" and files.get(old) is self.held[key]:
                del files[old]

    def survivor(self, how: str) -> ModelDisk:
        """What is found on the disk when the power is back."""
        dice = random.Random(f"{how} {self.steps}")
        files, folders = dict(self.safe_files), set(self.safe_folders)
        for op in self.pending:
            keep = {"dropped": False, "contents kept": False}.get(how, True)
            if how.startswith("torn"):
                keep = dice.random() < 0.5
            if keep:
                self._apply(op, files, folders)
        left = ModelDisk(folders=folders, safe_folders=set(folders))
        for path, file in files.items():
            folder = path.rpartition("/")[0]
            if folder and folder not in folders:
                continue
            content = file.synced
            if how in ("kept", "contents kept"):
                content = file.content
            elif how.startswith("torn") and file.content != file.synced:
                content = _torn(file, dice)
            left.files[path] = left.safe_files[path] = File(content, content)
        return left


def _folder_of(op: tuple[str, ...]) -> str:
    return "" if op[0] == "make" else op[1].rpartition("/")[0]


def _torn(file: File, dice: random.Random) -> bytes:
    """A part of what was not synced, cut anywhere, some of it other bytes."""
    fresh = file.content[len(file.synced) :]
    fresh = fresh[: dice.randrange(len(fresh) + 1)]
    if dice.random() < 0.5:
        start = dice.randrange(len(fresh) + 1)
        fresh = fresh[:start] + dice.randbytes(len(fresh) - start)
    return file.synced + fresh
