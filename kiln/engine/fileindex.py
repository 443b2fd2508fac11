"""File hashes cached by stat, as git's index does: a file whose size, times, inode and device are those of last time is
taken to have the content of last time. A file that changed within the clock's grain of being hashed is not trusted."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import msgspec

from kiln.engine.listing import Listing
from kiln.store.files import read_whole, write_whole

_GRAIN_NS = 100_000_000
_VERSION = 2


class _File(msgspec.Struct, array_like=True):
    version: int
    rows: dict[bytes, msgspec.Raw]


_listing = msgspec.msgpack.Decoder(Listing)


class FileIndex:
    """What is known of files below one folder: listings by name (`path/` for a folder, `path` for one file). `save` keeps them
    for the next build."""

    def __init__(self, store_root: Path | None, folder: Path) -> None:
        name = hashlib.sha256(os.fsencode(str(folder.absolute()))).hexdigest()
        self._path = None if store_root is None else store_root / "index" / name
        self._changed: dict[str, Listing] = {}
        self._begun = time.time_ns()
        self._rows = self._read()

    def _read(self) -> dict[bytes, msgspec.Raw]:
        data = read_whole(self._path) if self._path else None
        try:
            file = msgspec.msgpack.decode(data, type=_File) if data else None
        except msgspec.MsgspecError:
            return {}
        return file.rows if file is not None and file.version == _VERSION else {}

    def get(self, name: str) -> Listing | None:
        """The listing of last time; nothing says yet that it still holds."""
        row = self._rows.get(name.encode("utf-8", "surrogateescape"))
        try:
            return _listing.decode(row) if row is not None else None
        except msgspec.MsgspecError:
            return None

    def keep(self, name: str, listing: Listing) -> None:
        """Says that a listing is new or has changed."""
        self._changed[name] = listing

    def save(self) -> None:
        """Writes what was learned."""
        if self._path is None or not self._changed:
            return
        newest = self._begun - _GRAIN_NS
        for name, listing in self._changed.items():
            row = msgspec.msgpack.encode(listing.without_young(newest))
            self._rows[name.encode("utf-8", "surrogateescape")] = msgspec.Raw(row)
        self._changed = {}
        write_whole(self._path, msgspec.msgpack.encode(_File(_VERSION, self._rows)))
