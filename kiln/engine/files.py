"""Where COPY and mounts take files from: a folder on disk or a stack of layers, behind one role."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kiln.dockerfile.patterns import Matcher
from kiln.engine.fileindex import FileIndex
from kiln.errors import SourceError
from kiln.oci.image import Descriptor
from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, SYMLINK, Entry
from kiln.store.layers import Layers

_CHUNK = 1 << 20
_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: SYMLINK, stat.S_IFCHR: CHAR, stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO, stat.S_IFSOCK: FILE,
}  # fmt: skip


class Files(Protocol):
    """A tree of files. Paths are relative without leading slash, the root is the empty string; links are not followed."""

    def get(self, path: str) -> Entry | None:
        """What is at a path, or None."""

    def children(self, path: str) -> list[str]:
        """The names in a folder, sorted."""

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        """The content of a file."""

    def known_digest(self, path: str, entry: Entry) -> str:
        """The sha256 of a file's content (64 hex digits) if it is known without reading the file, else empty."""

    def digest(self, path: str, entry: Entry) -> str:
        """The sha256 of a file's content (64 hex digits)."""

    def learned(self, path: str, digest: str) -> None:
        """Tells that a file's content, as it was read, has this digest."""

    def inode(self, path: str, entry: Entry) -> object:
        """Something that is equal for paths that share one file by hard links, None for a file with one name."""


class FolderFiles:
    """A folder of the user, as it is when each path is first looked at. Owners read as root; times are not looked at."""

    def __init__(self, root: Path, index: FileIndex) -> None:
        self.root = str(root)
        self._index = index
        self._entries: dict[str, Entry | None] = {}
        self._stats: dict[str, os.stat_result] = {}
        self._digests: dict[str, str] = {}

    def get(self, path: str) -> Entry | None:
        if path not in self._entries:
            self._entries[path] = self._read(path)
        return self._entries[path]

    def _read(self, path: str) -> Entry | None:
        full = f"{self.root}/{path}" if path else self.root
        try:
            info = os.lstat(full) if path else os.stat(full)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as bad:
            raise SourceError(f"cannot be read: {bad}", where=full) from bad
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            return None
        self._stats[path] = info
        if kind == FILE:
            return self._file(path, full, info)
        device = kind in (CHAR, BLOCK)
        return Entry(
            kind, mode=0o777 if kind == SYMLINK else stat.S_IMODE(info.st_mode),
            link=os.readlink(full) if kind == SYMLINK else "",
            major=os.major(info.st_rdev) if device else 0, minor=os.minor(info.st_rdev) if device else 0,
            xattrs=_xattrs(full) if kind == DIR else None,
        )  # fmt: skip

    def _file(self, path: str, full: str, info: os.stat_result) -> Entry:
        """A regular file, or a socket, which counts as an empty one."""
        digest, plain = self._index.known(path, info)
        if digest:
            self._digests[path] = digest
        mode = info.st_mode & 0o7777 if stat.S_ISREG(info.st_mode) else 0o644
        return Entry(FILE, mode, size=info.st_size, xattrs=None if plain else _xattrs(full))

    def children(self, path: str) -> list[str]:
        full = f"{self.root}/{path}" if path else self.root
        try:
            return sorted(os.listdir(full))
        except OSError as bad:
            raise SourceError(
                f"the folder cannot be read: {bad.strerror}", where=full, hint="Check its permissions."
            ) from bad

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        info = self._stats[path]
        if stat.S_ISSOCK(info.st_mode) or not info.st_size:
            return iter(())
        fd = self._open(path, info)
        if info.st_size >= _CHUNK:
            return _all(fd)
        try:
            # One byte more than there should be shows whether the file grew. Asking for much more costs more than reading.
            return iter((os.read(fd, info.st_size + 1),))
        finally:
            os.close(fd)

    def _open(self, path: str, info: os.stat_result) -> int:
        full = f"{self.root}/{path}"
        try:
            fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as bad:
            raise SourceError(
                f"cannot be read: {bad.strerror}", where=full, hint="Check the file's permissions."
            ) from bad
        if not self._index.same(os.fstat(fd), info):
            os.close(fd)
            raise SourceError("the file changed during the build", where=full, hint="Build again.")
        return fd

    def known_digest(self, path: str, entry: Entry) -> str:
        return self._digests.get(path, "")

    def digest(self, path: str, entry: Entry) -> str:
        known = self.known_digest(path, entry)
        if known:
            return known
        hasher = hashlib.sha256()
        for chunk in self.chunks(path, entry):
            hasher.update(chunk)
        self.learned(path, hasher.hexdigest())
        return hasher.hexdigest()

    def learned(self, path: str, digest: str) -> None:
        self._digests[path] = digest
        entry = self._entries.get(path)
        self._index.learn(path, self._stats[path], digest, plain=entry is not None and not entry.xattrs)

    def inode(self, path: str, entry: Entry) -> object:
        info = self._stats[path]
        return (info.st_dev, info.st_ino) if info.st_nlink > 1 else None


def _all(fd: int) -> Iterator[bytes]:
    try:
        while data := os.read(fd, _CHUNK):
            yield data
    finally:
        os.close(fd)


def _xattrs(full: str) -> dict[str, bytes] | None:
    try:
        names = os.listxattr(full, follow_symlinks=False)
    except OSError:
        return None
    found = {}
    for name in names:
        if name.startswith("user.") and not name.startswith("user.overlay."):
            try:
                found[name] = os.getxattr(full, name, follow_symlinks=False)
            except OSError:
                continue
    return found or None


class LayerFiles:
    """The merged file system of a stack of layers, base first."""

    def __init__(self, layers: Layers, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> None:
        self._layers = layers
        self._tree = layers.tree(diff_ids, descriptors)

    def get(self, path: str) -> Entry | None:
        return self._tree.get(path)

    def children(self, path: str) -> list[str]:
        return self._tree.children(path)

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        node = self._tree.node(path)
        if node is not None:
            yield from self._layers.chunks(node.diff_id, node.entry)

    def known_digest(self, path: str, entry: Entry) -> str:
        return entry.digest

    def digest(self, path: str, entry: Entry) -> str:
        return entry.digest

    def learned(self, path: str, digest: str) -> None:
        pass

    def inode(self, path: str, entry: Entry) -> object:
        node = self._tree.node(path)
        return (node.diff_id, node.entry.offset) if node is not None else None


class Without:
    """A tree with what an ignore file names left out; a folder stays where something below it is taken back in."""

    def __init__(self, files: Files, matcher: Matcher) -> None:
        self._files = files
        self._matcher = matcher
        self._verdicts: dict[str, tuple[bool, tuple[bool, ...]]] = {}
        self.chunks = files.chunks
        self.known_digest = files.known_digest
        self.digest = files.digest
        self.learned = files.learned
        self.inode = files.inode

    def get(self, path: str) -> Entry | None:
        entry = self._files.get(path)
        if entry is None or not path or not self._verdict(path)[0]:
            return entry
        return entry if entry.kind == DIR and self._holds_something(path) else None

    def children(self, path: str) -> list[str]:
        names = self._files.children(path)
        return [name for name in names if self.get(f"{path}/{name}" if path else name) is not None]

    def _holds_something(self, path: str) -> bool:
        return self._matcher.has_negation and bool(self.children(path))

    def _verdict(self, path: str) -> tuple[bool, tuple[bool, ...]]:
        found = self._verdicts.get(path)
        if found is None:
            folder = path.rpartition("/")[0]
            found = self._matcher.verdict(path, self._verdict(folder)[1] if folder else None)
            self._verdicts[path] = found
        return found
