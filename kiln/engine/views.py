"""Files put together without copying: folders that hooks wrote over, other contexts that appear below one."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from kiln.engine.files import Files, FolderFiles
from kiln.store.entry import CHAR, DIR, Entry, parents

OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class Overlaid:
    """A folder in overlayfs's form (devices 0/0 take a path away, marked folders hide what is below) over other files.

    Rules: "Whiteouts and opaque directories" of the kernel's overlayfs documentation.
    """

    def __init__(self, upper: FolderFiles, lower: Files) -> None:
        self._upper, self._lower = upper, lower
        self._hiding: dict[str, bool] = {"": any(_has_mark(upper.root, name) for name in OPAQUE)}
        self._from: dict[str, Files] = {}

    def get(self, path: str) -> Entry | None:
        entry = self._upper.get(path)
        if entry is not None:
            self._from[path] = self._upper
            return None if _is_whiteout(entry) else entry
        if self._hides(path):
            return None
        self._from[path] = self._lower
        return self._lower.get(path)

    def _hides(self, path: str) -> bool:
        """Whether the upper folder says that nothing of the lower one is seen below the folder that a path is in."""
        folder = path.rpartition("/")[0]
        if not path:
            return False
        known = self._hiding.get(folder)
        if known is None:
            entry = self._upper.get(folder)
            known = self._hides(folder) or (entry is not None and (entry.kind != DIR or self._is_opaque(folder)))
            self._hiding[folder] = known
        return known

    def _is_opaque(self, folder: str) -> bool:
        return any(_has_mark(f"{self._upper.root}/{folder}", name) for name in OPAQUE)

    def children(self, path: str) -> list[str]:
        names: set[str] = set()
        entry = self._upper.get(path)
        if entry is not None and entry.kind == DIR:
            names.update(self._upper.children(path))
        hidden = self._hides(f"{path}/x" if path else "x")
        below = None if hidden else self._lower.get(path)
        if below is not None and below.kind == DIR:
            names.update(self._lower.children(path))
        return sorted(name for name in names if self.get(f"{path}/{name}" if path else name) is not None)

    def _of(self, path: str) -> Files:
        if path not in self._from:
            self.get(path)
        return self._from[path]

    def listed(self, path: str) -> None:
        return None

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        return self._of(path).chunks(path, entry)

    def known_digest(self, path: str, entry: Entry) -> str:
        return self._of(path).known_digest(path, entry)

    def digest(self, path: str, entry: Entry) -> str:
        return self._of(path).digest(path, entry)

    def learned(self, path: str, digest: str) -> None:
        self._of(path).learned(path, digest)

    def inode(self, path: str, entry: Entry) -> object:
        return self._of(path).inode(path, entry)


def _is_whiteout(entry: Entry) -> bool:
    return entry.kind == CHAR and entry.major == 0 and entry.minor == 0


def _has_mark(path: str, name: str) -> bool:
    try:
        return os.getxattr(path, name, follow_symlinks=False) in (b"y", b"x")
    except OSError:
        return False


class Mounted:
    """Files with other files appearing at paths below them; folders on the way there are made up where they are missing."""

    def __init__(self, base: Files, mounts: Mapping[str, Files]) -> None:
        self._base = base
        self._mounts = dict(mounts)
        self._ways = {above for path in mounts for above in parents(path)}

    def _find(self, path: str) -> tuple[Files, str]:
        """(the files that a path belongs to, the path in them)."""
        folder = path
        while folder:
            mounted = self._mounts.get(folder)
            if mounted is not None:
                return mounted, path[len(folder) + 1 :]
            folder = folder.rpartition("/")[0]
        return self._base, path

    def get(self, path: str) -> Entry | None:
        files, inner = self._find(path)
        if files is self._base and path in self._ways:
            entry = files.get(inner)
            return entry if entry is not None and entry.kind == DIR else Entry(DIR, mode=0o755)
        return files.get(inner)

    def children(self, path: str) -> list[str]:
        files, inner = self._find(path)
        if files is not self._base or (path and path not in self._ways):
            return files.children(inner)
        entry = files.get(inner)
        names = set(files.children(inner)) if entry is not None and entry.kind == DIR else set()
        start = f"{path}/" if path else ""
        names.update(place[len(start) :].split("/")[0] for place in self._mounts if place.startswith(start))
        return sorted(names)

    def listed(self, path: str) -> None:
        return None

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        files, inner = self._find(path)
        return files.chunks(inner, entry)

    def known_digest(self, path: str, entry: Entry) -> str:
        files, inner = self._find(path)
        return files.known_digest(inner, entry)

    def digest(self, path: str, entry: Entry) -> str:
        files, inner = self._find(path)
        return files.digest(inner, entry)

    def learned(self, path: str, digest: str) -> None:
        files, inner = self._find(path)
        files.learned(inner, digest)

    def inode(self, path: str, entry: Entry) -> object:
        files, inner = self._find(path)
        return files.inode(inner, entry)


class OneFile:
    """A single file of a folder as a tree of its own: its path is the empty string."""

    def __init__(self, files: FolderFiles, name: str) -> None:
        self._files, self._name = files, name

    def get(self, path: str) -> Entry | None:
        return None if path else self._files.get(self._name)

    def children(self, path: str) -> list[str]:
        return []

    def listed(self, path: str) -> None:
        return None

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        return self._files.chunks(self._name, entry)

    def known_digest(self, path: str, entry: Entry) -> str:
        return self._files.known_digest(self._name, entry)

    def digest(self, path: str, entry: Entry) -> str:
        return self._files.digest(self._name, entry)

    def learned(self, path: str, digest: str) -> None:
        self._files.learned(self._name, digest)

    def inode(self, path: str, entry: Entry) -> object:
        return None


def is_file(path: Path) -> bool:
    """Whether a context's folder is in fact a single file."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False
