"""A folder as a package: listed under the same rules as an archive."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from kiln.errors import SourceError
from kiln.store.entry import DIR, FILE, SYMLINK, Entry
from kiln.store.package.limits import Gauge
from kiln.store.package.listing import Listing
from kiln.store.package.opened import Opened

_KINDS = {stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: SYMLINK}


def _nothing(path: str) -> bool:
    return False


class FolderContent:
    """The content of a folder's files, read where they are."""

    linked: frozenset[int] = frozenset()

    def __init__(self, root: Path, gauge: Gauge) -> None:
        self._root, self._gauge = root, gauge

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        """A file's content; raises `SourceError` if it has not the size that it had when it was listed."""
        full = self._root / path
        if full.is_symlink():
            raise self._gauge.bad("became a symbolic link while it was read", path)
        file = Opened(full, str(full))
        try:
            if file.size != entry.size:
                raise self._gauge.bad("changed while it was read", path, "Try again.")
            yield from file.chunks(0, file.size)
        finally:
            file.close()

    def close(self) -> None:
        """Nothing is open."""


def read_folder(
    root: Path, gauge: Gauge, skip: Callable[[str], bool] = _nothing
) -> tuple[dict[str, Entry], FolderContent]:
    """(entries by path, their content) of a folder; what `skip` says of a path is not looked at, nor what lies below it.
    Raises `SourceError`."""
    listing = Listing(gauge)
    waiting = [""]
    try:
        while waiting:
            folder = waiting.pop()
            for item in sorted(os.scandir(root / folder), key=lambda item: item.name):
                path = f"{folder}/{item.name}" if folder else item.name
                if skip(path):
                    continue
                entry = _entry(item, path, listing)
                listing.add(path, entry)
                if entry.kind == DIR:
                    waiting.append(path)
    except OSError as bad:
        raise SourceError(f"cannot be read: {bad}", where=gauge.name, hint="Check its permissions.") from bad
    return listing.finish(), FolderContent(root, gauge)


def _entry(item: os.DirEntry[str], path: str, listing: Listing) -> Entry:
    info = item.stat(follow_symlinks=False)
    kind = _KINDS.get(stat.S_IFMT(info.st_mode))
    if kind is None:
        raise listing.bad(path, "is a device, a socket or a named pipe", "Leave it out.")
    if kind == SYMLINK:
        return Entry(SYMLINK, 0o777, link=os.readlink(item.path))
    mode = stat.S_IMODE(info.st_mode) & 0o777
    if kind == DIR:
        return Entry(DIR, mode)
    listing.gauge.total += info.st_size
    return Entry(FILE, mode, size=info.st_size)
