"""The upper folder of an overlay mount -> a layer: what a command changed, with whiteouts in OCI's form."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, SYMLINK, WHITEOUT, Entry, parents
from kiln.store.layer import LayerWriter
from kiln.store.tree import Tree, resolve

_CHUNK = 1 << 20
_KINDS = {stat.S_IFREG: FILE, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK, stat.S_IFIFO: FIFO}
_KEPT = ("user.", "security.capability", "trusted.")


def write_upper(upper: Path, writer: LayerWriter, lower: Callable[[], Tree], stubs: set[str], overlay: str) -> None:
    """Writes the changes in sorted order. `lower` gives the file system below (asked for only if it is needed); `stubs`
    are paths where something was mounted: what the runtime made there to mount on is left out, and removed."""
    _Walk(upper, writer, lower, overlay).run(stubs)


class _Walk:
    def __init__(self, upper: Path, writer: LayerWriter, lower: Callable[[], Tree], overlay: str) -> None:
        self.root = str(upper)
        self.writer = writer
        self.opaque_names = {f"{prefix}.overlay.opaque" for prefix in ("trusted", "user")}
        self.private = (f"{overlay}.overlay.", "trusted.overlay.", "user.overlay.")
        self._lower_of = lower
        self._lower: Tree | None = None
        self.first: dict[tuple[int, int], str] = {}
        self.pending: dict[str, Entry] = {}

    def lower(self) -> Tree:
        if self._lower is None:
            self._lower = self._lower_of()
        return self._lower

    def run(self, stubs: set[str]) -> None:
        for path in sorted(
            {place for stub in stubs for place in (stub, resolve(self.lower().get, stub))}, reverse=True
        ):
            self._drop_stub(path)
        self._folder("")

    def _drop_stub(self, path: str) -> None:
        """Removes an empty file or folder that was not there before, and the folders made for it."""
        for candidate in [path, *reversed(parents(path))]:
            full = f"{self.root}/{candidate}"
            try:
                info = os.lstat(full)
                if self.lower().get(candidate) is not None:
                    return
                if stat.S_ISDIR(info.st_mode):
                    os.rmdir(full)
                elif stat.S_ISREG(info.st_mode) and info.st_size == 0:
                    os.unlink(full)
                else:
                    return
            except FileNotFoundError:
                continue
            except OSError:
                return

    def _folder(self, path: str) -> None:
        full = f"{self.root}/{path}" if path else self.root
        with os.scandir(full) as entries:
            names = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
        for name, is_dir in names:
            child = f"{path}/{name}" if path else name
            if is_dir:
                self._enter(child)
            else:
                self._leaf(child)

    def _enter(self, path: str) -> None:
        """A folder is written when something in it is, or when it is new or changed."""
        full = f"{self.root}/{path}"
        info = os.lstat(full)
        xattrs = self._xattrs(full)
        opaque = any(xattrs.get(name) in (b"y", b"x") for name in self.opaque_names) and b"y" in [
            xattrs.get(name) for name in self.opaque_names
        ]
        entry = Entry(
            DIR, mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid, mtime=int(info.st_mtime),
            xattrs=self._public(xattrs),
        )  # fmt: skip
        self.pending[path] = entry
        if opaque or self._changed(path, entry):
            self._flush(path)
        if opaque and self.lower().get(path) is not None:
            self.writer.add(path, Entry(DIR, mode=-1, opaque=True, mtime=entry.mtime))
        self._folder(path)
        self.pending.pop(path, None)

    def _changed(self, path: str, entry: Entry) -> bool:
        below = self.lower().get(path)
        return below is None or (below.kind, below.mode, below.uid, below.gid, below.xattrs) != (
            DIR, entry.mode, entry.uid, entry.gid, entry.xattrs,
        )  # fmt: skip

    def _flush(self, path: str) -> None:
        """Writes the folders above a path, and the path itself if it is a waiting folder, once."""
        for folder in [*parents(path), path]:
            entry = self.pending.pop(folder, None)
            if entry is not None:
                self.writer.add(folder, entry)

    def _leaf(self, path: str) -> None:
        full = f"{self.root}/{path}"
        info = os.lstat(full)
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return
        if kind == FILE and self._untouched(path, full, info):
            return
        self._flush(path)
        if kind == CHAR and info.st_rdev == 0:
            self.writer.add(path, Entry(WHITEOUT))
            return
        entry = Entry(
            kind, mode=stat.S_IMODE(info.st_mode), uid=info.st_uid, gid=info.st_gid, mtime=int(info.st_mtime),
            size=info.st_size if kind == FILE else 0, link=os.readlink(full) if kind == SYMLINK else "",
            major=os.major(info.st_rdev) if kind in (CHAR, BLOCK) else 0,
            minor=os.minor(info.st_rdev) if kind in (CHAR, BLOCK) else 0,
            xattrs=self._public(self._xattrs(full)) if kind == FILE else None,
        )  # fmt: skip
        if kind == FILE and info.st_nlink > 1:
            known = self.first.setdefault((info.st_dev, info.st_ino), path)
            if known != path:
                self.writer.add(
                    path, Entry(HARDLINK, mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime=entry.mtime, link=known)
                )
                return
        self.writer.add(path, entry, _read(full, info.st_size) if kind == FILE else ())

    def _untouched(self, path: str, full: str, info: os.stat_result) -> bool:
        """Whether overlayfs only copied a file up: all that shows of it, and its content, is as below."""
        below = self.lower().get(path)
        if below is None or (below.kind, below.mode, below.uid, below.gid, below.size, below.mtime) != (
            FILE, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, info.st_size, int(info.st_mtime),
        ):  # fmt: skip
            return False
        if below.xattrs != self._public(self._xattrs(full)):
            return False
        content = hashlib.sha256()
        for chunk in _read(full, info.st_size):
            content.update(chunk)
        return content.hexdigest() == below.digest

    def _xattrs(self, full: str) -> dict[str, bytes]:
        try:
            names = os.listxattr(full, follow_symlinks=False)
            return {name: os.getxattr(full, name, follow_symlinks=False) for name in names if name.startswith(_KEPT)}
        except OSError:
            return {}

    def _public(self, xattrs: dict[str, bytes]) -> dict[str, bytes] | None:
        kept = {
            name: value
            for name, value in xattrs.items()
            if not name.startswith(self.private) and not name.startswith("trusted.")
        }
        return kept or None


def _read(full: str, size: int) -> Iterator[bytes]:
    """A file's content; buffers are not larger than they need be, since making them costs more than reading."""
    fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        while data := os.read(fd, min(_CHUNK, size + 1)):
            yield data
    finally:
        os.close(fd)
