"""Where COPY and mounts take files from: a folder on disk or a stack of layers, behind one role."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kiln.dockerfile.patterns import Matcher
from kiln.engine.fileindex import FileIndex
from kiln.engine.listing import DEVICE, INODE, LINKS, MODE, RDEV, SIZE, Facts, Listing, facts_of, look
from kiln.errors import SourceError
from kiln.oci.image import Descriptor
from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, SYMLINK, Entry, copy_of
from kiln.store.layers import Layers

_CHUNK = 1 << 20
# Threads wait for each other at each read and each hash: for a file that is only hashed there are few of them.
_HASHED = 8 << 20
_KEEP_OPEN = 16
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

    def listed(self, path: str) -> Listing | None:
        """A folder as it was listed, where that is kept: names that `children` leaves out may be in it."""

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
        self._folders: dict[str, Listing] = {}
        self._singles: dict[str, dict[str, Listing]] = {}
        self._open: dict[str, dict[str, int]] = {}
        # What a listing does not say: links, devices, and whatever has attributes of its own.
        self._special: dict[str, Entry] = {}

    def get(self, path: str) -> Entry | None:
        if not path:
            return self._special.get("") or self._root()
        listing, place = self._place(path)
        if place < 0:
            return None
        mode, size, *_ = facts = listing.facts(place)
        if stat.S_ISREG(mode) and listing.plain[place]:
            return Entry(FILE, mode & 0o7777, 0, 0, size)
        found = self._special.get(path)
        return found if found is not None else self._read(path, listing, place, facts)

    def _root(self) -> Entry | None:
        try:
            mode = os.stat(self.root).st_mode
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as bad:
            raise SourceError(f"cannot be read: {bad}", where=self.root) from bad
        return self._special.setdefault("", Entry(DIR, stat.S_IMODE(mode), xattrs=_xattrs(self.root)))

    def _place(self, path: str) -> tuple[Listing, int]:
        """The listing that a path is in and its place there, -1 if it is not."""
        folder, _, name = path.rpartition("/")
        listing = self._folders.get(folder)
        if listing is None:
            singles = self._singles.setdefault(folder, {})
            listing = singles.get(name)
            if listing is None:
                listing = singles.setdefault(name, self._single(path))
            return listing, len(listing) - 1
        places = self._open.get(folder)
        if places is None:
            places = {name: place for place, name in enumerate(listing.split())}
            if len(self._open) >= _KEEP_OPEN:
                self._open.clear()
            self._open[folder] = places
        return listing, places.get(name, -1)

    def _single(self, path: str) -> Listing:
        """A path whose folder was not listed, as a listing of at most one name."""
        folder, slash, name = path.rpartition("/")
        try:
            listing = look(f"{self.root}/{folder}{slash}", [name])
        except (OSError, ValueError) as bad:
            raise SourceError(f"cannot be read: {bad}", where=f"{self.root}/{path}") from bad
        kept = self._index.get(path) or self._index.get(f"{folder}/")
        if kept is not None:
            listing.take_over(kept)
        return listing

    def _read(self, path: str, listing: Listing, place: int, facts: Facts) -> Entry | None:
        kind, full = _KINDS.get(stat.S_IFMT(facts[MODE])), f"{self.root}/{path}"
        if kind is None:
            return None
        mode = stat.S_IMODE(facts[MODE]) if not stat.S_ISSOCK(facts[MODE]) else 0o644
        if kind in (FILE, DIR):
            entry = Entry(kind, mode, size=facts[SIZE] if kind == FILE else 0)
            if not listing.plain[place] and (xattrs := _xattrs(full)) is not None:
                return self._special.setdefault(path, copy_of(entry, xattrs=xattrs))
            if not listing.plain[place]:
                listing.plain[place] = 1
                self._keep(path, listing)
            return entry
        device, link = kind in (CHAR, BLOCK), kind == SYMLINK
        return self._special.setdefault(path, Entry(
            kind, mode=0o777 if link else mode, link=os.readlink(full) if link else "",
            major=os.major(facts[RDEV]) if device else 0, minor=os.minor(facts[RDEV]) if device else 0,
        ))  # fmt: skip

    def _keep(self, path: str, listing: Listing) -> None:
        folder = path.rpartition("/")[0]
        self._index.keep(f"{folder}/" if self._folders.get(folder) is listing else path, listing)

    def children(self, path: str) -> list[str]:
        return self.listed(path).split()

    def listed(self, path: str) -> Listing:
        listing = self._folders.get(path)
        return listing if listing is not None else self._folders.setdefault(path, self._list(path))

    def _list(self, path: str) -> Listing:
        full = f"{self.root}/{path}" if path else self.root
        kept = self._index.get(f"{path}/")
        try:
            listing = look(f"{full}/", sorted(os.listdir(full)), kept)
        except OSError as bad:
            raise SourceError(
                f"the folder cannot be read: {bad.strerror}", where=full, hint="Check its permissions."
            ) from bad
        if listing is not kept:
            self._index.keep(f"{path}/", listing)
        for other in (kept, *self._singles.get(path, {}).values()):
            if other is not None and other is not listing and listing.take_over(other):
                self._index.keep(f"{path}/", listing)
        return listing

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        return self._chunks(path, _CHUNK)

    def _chunks(self, path: str, size: int) -> Iterator[bytes]:
        facts = self._facts(path)
        if stat.S_ISSOCK(facts[MODE]) or not facts[SIZE]:
            return iter(())
        fd = self._opened(path, facts)
        if facts[SIZE] >= _CHUNK:
            return _all(fd, size)
        try:
            # One byte more than there should be shows whether the file grew. Asking for much more costs more than reading.
            return iter((os.read(fd, facts[SIZE] + 1),))
        finally:
            os.close(fd)

    def _facts(self, path: str) -> Facts:
        listing, place = self._place(path)
        return listing.facts(place)

    def _opened(self, path: str, facts: Facts) -> int:
        full = f"{self.root}/{path}"
        try:
            fd = os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as bad:
            raise SourceError(
                f"cannot be read: {bad.strerror}", where=full, hint="Check the file's permissions."
            ) from bad
        if facts_of(os.fstat(fd))[SIZE:LINKS] != facts[SIZE:LINKS]:
            os.close(fd)
            raise SourceError("the file changed during the build", where=full, hint="Build again.")
        return fd

    def known_digest(self, path: str, entry: Entry) -> str:
        listing, place = self._place(path)
        return listing.digest(place)

    def digest(self, path: str, entry: Entry) -> str:
        known = self.known_digest(path, entry)
        if known:
            return known
        hasher = hashlib.sha256()
        for chunk in self._chunks(path, _HASHED):
            hasher.update(chunk)
        self.learned(path, hasher.hexdigest())
        return hasher.hexdigest()

    def learned(self, path: str, digest: str) -> None:
        listing, place = self._place(path)
        listing.learn(place, bytes.fromhex(digest))
        self._keep(path, listing)

    def inode(self, path: str, entry: Entry) -> object:
        facts = self._facts(path)
        return (facts[DEVICE], facts[INODE]) if facts[LINKS] > 1 else None


def _all(fd: int, size: int) -> Iterator[bytes]:
    try:
        while data := os.read(fd, size):
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

    def listed(self, path: str) -> None:
        return None

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
        self._hits: dict[str, tuple[bool, ...]] = {}
        # One expression for all patterns: in most folders none of them matches anything.
        self._any = re.compile("|".join(f"(?:{each.regex.pattern})" for each in matcher.patterns), re.DOTALL)
        self.listed = files.listed
        self.chunks = files.chunks
        self.known_digest = files.known_digest
        self.digest = files.digest
        self.learned = files.learned
        self.inode = files.inode

    def get(self, path: str) -> Entry | None:
        entry = self._files.get(path)
        if entry is None or not path or not self._is_dropped(path):
            return entry
        return entry if entry.kind == DIR and self._holds_something(path) else None

    def children(self, path: str) -> list[str]:
        start = f"{path}/" if path else ""
        names = self._files.children(path)
        if not (path and any(self._hits_of(path))) and not any(map(self._any.match, [start + name for name in names])):
            return names
        return [name for name in names if not self._is_dropped(start + name) or self.get(start + name) is not None]

    def _holds_something(self, path: str) -> bool:
        return self._matcher.has_negation and bool(self.children(path))

    def _is_dropped(self, path: str) -> bool:
        folder = path.rpartition("/")[0]
        return self._matcher.verdict(path, self._hits_of(folder) if folder else None)[0]

    def _hits_of(self, folder: str) -> tuple[bool, ...]:
        """Which patterns match a folder. Verdicts on files are not kept: there are too many."""
        found = self._hits.get(folder)
        if found is None:
            above = folder.rpartition("/")[0]
            found = self._matcher.verdict(folder, self._hits_of(above) if above else None)[1]
            self._hits[folder] = found
        return found
