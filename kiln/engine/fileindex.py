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
_UNKNOWN = ("", False)
Facts = tuple[int, int, int, int, int]
Row = tuple[Facts, str, bool]


class FileIndex:
    """The hashes of files below one folder; `save` keeps them for the next build."""

    def __init__(self, store_root: Path | None, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(str(folder.absolute()))).hexdigest()
        self._path = None if store_root is None else store_root / "index" / name
        self._rows: dict[str, Row] = {}
        self._changed = False
        self._begun = time.time_ns()
        data = read_whole(self._path) if self._path else None
        if data:
            try:
                rows = msgspec.msgpack.decode(data, type=dict[bytes, Row])
                self._rows = {name.decode("utf-8", "surrogateescape"): row for name, row in rows.items()}
            except msgspec.MsgspecError:
                self._rows = {}

    def known(self, path: str, info: os.stat_result) -> tuple[str, bool]:
        """(digest, whether it has no attributes of its own) of a file that did not change since it was hashed, which setting
        an attribute would have done as well; else ("", False)."""
        row = self._rows.get(path)
        return (row[1], row[2]) if row is not None and row[0] == _facts(info) else _UNKNOWN

    def learn(self, path: str, info: os.stat_result, digest: str, *, plain: bool = False) -> None:
        """Keeps a digest, unless the file is so young that a further change might not show in its times."""
        if self._begun - max(info.st_mtime_ns, info.st_ctime_ns) > _GRAIN_NS:
            self._rows[path] = (_facts(info), digest, plain)
            self._changed = True

    def same(self, now: os.stat_result, before: os.stat_result) -> bool:
        """Whether two looks at a file saw the same file with the same content."""
        return (
            now.st_mtime_ns == before.st_mtime_ns
            and now.st_ctime_ns == before.st_ctime_ns
            and now.st_size == before.st_size
            and now.st_ino == before.st_ino
            and now.st_dev == before.st_dev
        )

    def save(self) -> None:
        """Writes what was learned."""
        if self._path is not None and self._changed:
            rows = {name.encode("utf-8", "surrogateescape"): row for name, row in self._rows.items()}
            write_whole(self._path, msgspec.msgpack.encode(rows))
            self._changed = False


def _facts(info: os.stat_result) -> Facts:
    return (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_dev)
