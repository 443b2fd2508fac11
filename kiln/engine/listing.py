"""A folder as it was when it was first looked at: names, what stat said, hashes. Packed, because there may be many files."""

from __future__ import annotations

import errno
import operator
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from itertools import chain

import msgspec

from kiln.store.entry import FILE, Entry

Facts = tuple[int, int, int, int, int, int, int, int]
MODE, SIZE, MTIME, CTIME, INODE, DEVICE, LINKS, RDEV = range(8)
facts_of: operator.attrgetter[Facts] = operator.attrgetter(
    "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns", "st_ino", "st_dev", "st_nlink", "st_rdev"
)
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_ROW = "qqqqQQqQ"
_row = struct.Struct(f"<{_ROW}")
DIGEST = 32
_UNKNOWN = bytes(DIGEST)
_UNKNOWN_HEX = _UNKNOWN.hex()


class Listing(msgspec.Struct, array_like=True, gc=False):
    """`names` are sorted and joined by slashes; `stats`, `digests` (of files' content, zeros: not known) and `plain` (1: has no
    attributes of its own, 0: not known) have a row for each. `folders` and `linked` are the places of the folders and of the
    files with several names. `whole` is the digest of what COPY sees of all of it, empty if not known."""

    names: bytes
    stats: bytes
    digests: bytearray
    plain: bytearray
    folders: list[int]
    linked: list[int]
    whole: bytes = b""

    def __len__(self) -> int:
        return len(self.plain)

    def split(self) -> list[str]:
        """The names."""
        return self.names.decode("utf-8", "surrogateescape").split("/") if self.names else []

    def facts(self, place: int) -> Facts:
        """What stat said of one name."""
        return _row.unpack_from(self.stats, place * _row.size)

    def entries(self) -> Iterator[tuple[str, Entry | None]]:
        """All names; with them the entries of plain files that have one name and no attributes, which nearly all are."""
        digests = self.digests.hex()
        rows = zip(self.split(), self.plain, _row.iter_unpack(self.stats), strict=True)
        for place, (name, plain, (mode, size, _, _, _, _, links, _)) in enumerate(rows):
            if not plain or links > 1 or not stat.S_ISREG(mode):
                yield name, None
                continue
            digest = digests[place * 64 : place * 64 + 64]
            yield name, Entry(FILE, mode & 0o7777, 0, 0, size, 0, "", digest if digest != _UNKNOWN_HEX else "")

    def digest(self, place: int) -> str:
        """The digest of one file's content (64 hex digits), empty if it is not known."""
        found = self.digests[place * DIGEST : place * DIGEST + DIGEST]
        return found.hex() if found != _UNKNOWN else ""

    def learn(self, place: int, digest: bytes) -> None:
        """Sets the digest of one file's content."""
        self.digests[place * DIGEST : place * DIGEST + DIGEST] = digest

    def take_over(self, other: Listing) -> bool:
        """Takes what another look found out about names that stat says the same of; returns whether there was anything."""
        places = {name: place for place, name in enumerate(other.names.split(b"/"))} if other.names else {}
        learned = False
        for place, name in enumerate(self.names.split(b"/")) if self.names else ():
            there = places.get(name)
            if there is None or _bytes(self, place) != _bytes(other, there):
                continue
            self.plain[place] |= other.plain[there]
            if (digest := other.digest(there)) and not self.digest(place):
                self.learn(place, bytes.fromhex(digest))
                learned = True
        return learned

    def without_young(self, newest: int) -> Listing:
        """The listing without what was found out about names that changed after `newest` (nanoseconds since the epoch): a
        further change might not show in their times."""
        young = [
            place
            for place, facts in enumerate(_row.iter_unpack(self.stats))
            if facts[MTIME] > newest or facts[CTIME] > newest
        ]
        if not young:
            return self
        older = msgspec.structs.replace(self, digests=self.digests[:], plain=self.plain[:], whole=b"")
        for place in young:
            older.learn(place, _UNKNOWN)
            older.plain[place] = 0
        return older


def _bytes(listing: Listing, place: int) -> bytes:
    return listing.stats[place * _row.size : (place + 1) * _row.size]


def look(start: str, names: list[str], kept: Listing | None = None) -> Listing:
    """Looks at names below `start` (a path that ends with a slash); those that are gone are left out. Gives `kept` if nothing
    changed since that look. Raises OSError."""
    try:
        stats = [*map(facts_of, map(os.lstat, [start + name for name in names]))]
    except OSError:
        found = [(name, info) for name in names if (info := _stat(start + name)) is not None]
        names, stats = [name for name, _ in found], [info for _, info in found]
    joined = "/".join(names).encode("utf-8", "surrogateescape")
    packed = struct.pack(f"<{_ROW * len(stats)}", *chain.from_iterable(stats))
    if kept is not None and kept.stats == packed and kept.names == joined:
        return kept
    return Listing(
        joined, packed, bytearray(DIGEST * len(stats)), bytearray(len(stats)),
        _places(stat.S_ISDIR(facts[MODE]) for facts in stats),
        _places(facts[LINKS] > 1 and not stat.S_ISDIR(facts[MODE]) for facts in stats),
    )  # fmt: skip


def _stat(path: str) -> Facts | None:
    try:
        return facts_of(os.lstat(path))
    except OSError as bad:
        if bad.errno in _GONE:
            return None
        raise


def _places(flags: Iterable[bool]) -> list[int]:
    return [place for place, flag in enumerate(flags) if flag]
