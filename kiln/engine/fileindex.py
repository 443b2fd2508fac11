"""File hashes cached by stat, as git's index does: a file whose size, times, inode and device are those of last time is
taken to have the content of last time. A file that changed within the clock's grain of being hashed is not trusted."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec

from kiln.store.files import read_whole, write_whole

_GRAIN_NS = 100_000_000
Facts = tuple[int, int, int, int, int]


class FileIndex:
    """The hashes of files below one folder; `save` keeps them for the next build."""

    def __init__(self, store_root: Path | None, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(str(folder.absolute()))).hexdigest()
        self._path = None if store_root is None else store_root / "index" / name
        self._rows: dict[bytes, tuple[Facts, str, bool]] = {}
        self._changed = False
        data = read_whole(self._path) if self._path else None
        if data:
            try:
                self._rows = msgspec.msgpack.decode(data, type=dict[bytes, tuple[Facts, str, bool]])
            except msgspec.MsgspecError:
                self._rows = {}

    def known(self, path: str, info: os.stat_result) -> str:
        """The digest of a file that did not change since it was hashed, else empty."""
        row = self._rows.get(os.fsencode(path))
        return row[1] if row is not None and row[0] == _facts(info) else ""

    def is_plain(self, path: str, info: os.stat_result) -> bool:
        """Whether a file is known to have no attributes of its own: setting one would have changed its times."""
        row = self._rows.get(os.fsencode(path))
        return row is not None and row[0] == _facts(info) and row[2]

    def learn(self, path: str, info: os.stat_result, digest: str, *, plain: bool = False) -> None:
        """Keeps a digest, unless the file is so young that a further change might not show in its times."""
        if time.time_ns() - max(info.st_mtime_ns, info.st_ctime_ns) > _GRAIN_NS:
            self._rows[os.fsencode(path)] = (_facts(info), digest, plain)
            self._changed = True

    def same(self, now: os.stat_result, before: os.stat_result) -> bool:
        """Whether two looks at a file saw the same file with the same content."""
        return _facts(now) == _facts(before)

    def save(self) -> None:
        """Writes what was learned."""
        if self._path is not None and self._changed:
            write_whole(self._path, msgspec.msgpack.encode(self._rows))
            self._changed = False


def _facts(info: os.stat_result) -> Facts:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)
