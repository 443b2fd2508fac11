"""Tars as a tree. A compressed one is decompressed once, into a file of the scratch folder, and read from there."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from kiln.errors import SourceError
from kiln.store import tarread
from kiln.store.ahead import Ahead
from kiln.store.blobs import disk_error
from kiln.store.compress import Inflater
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry
from kiln.store.package.limits import Gauge, shown
from kiln.store.package.listing import Listing
from kiln.store.package.opened import CHUNK, Opened

_BLOCK = 512
_READ_AHEAD = 1 << 19
_OTHERS = {"char": "a device", "block": "a device", "fifo": "a named pipe"}


class _Bytes(Protocol):
    """The bytes of an uncompressed tar."""

    def chunks(self, offset: int, size: int) -> Iterator[bytes]: ...

    def close(self) -> None: ...


class Spool:
    """A file without a name: it is gone when it is closed, however the process ends."""

    def __init__(self, scratch: Path) -> None:
        try:
            fd, path = tempfile.mkstemp(prefix="package-", dir=scratch)
        except OSError as bad:
            raise disk_error(bad, scratch / "package") from bad
        Path(path).unlink()
        self._path = scratch / "package"
        self._file = os.fdopen(fd, "w+b", buffering=0)

    def write(self, data: bytes) -> None:
        """Appends; raises `StoreError`."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as bad:
            raise disk_error(bad, self._path) from bad

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """`size` bytes from `offset`, in pieces."""
        end = offset + size
        while offset < end and (data := os.pread(self._file.fileno(), min(CHUNK, end - offset), offset)):
            offset += len(data)
            yield data

    def close(self) -> None:
        """Closes the file, which frees its space."""
        self._file.close()


class TarContent:
    """The content of a tar's files. `linked` are the offsets of content that several names share."""

    def __init__(self, data: _Bytes, linked: frozenset[int], also: Opened | None = None) -> None:
        self._data = data
        self._also = also
        self.linked = linked

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        """A file's content, holes as zeros."""
        if entry.sparse is None:
            yield from self._data.chunks(entry.offset, entry.size)
            return
        position, stored = 0, entry.offset
        for start, length in entry.sparse:
            yield from _zeros(start - position)
            yield from self._data.chunks(stored, length)
            position, stored = start + length, stored + length
        yield from _zeros(entry.size - position)

    def close(self) -> None:
        """Closes what is open."""
        self._data.close()
        if self._also is not None:
            self._also.close()


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        yield bytes(min(size, CHUNK))
        size -= CHUNK


class _Feed:
    """Gives `tarread` the decompressed bytes, keeps them in the spool, and counts: everything, and what one entry
    spends on headers."""

    def __init__(self, file: Opened, gauge: Gauge, spool: Spool | None) -> None:
        self._file, self._gauge, self._spool = file, gauge, spool
        self.packed = self.unpacked = 0
        self._allowed = gauge.limits.header
        self.first = b""
        self.inflater = Inflater(self._raw, file.name)
        self._ahead = Ahead(self.inflater.read) if spool is not None else None

    def _raw(self, size: int) -> bytes:
        data = self._file.some(self.packed, size)
        self.packed += len(data)
        return data

    def read(self, size: int) -> bytes:
        if self.unpacked > self._allowed:
            raise self._gauge.bad(f"an entry has more than {self._gauge.limits.header} bytes of headers")
        data = self._ahead.read(size) if self._ahead is not None else self.inflater.read(min(size, CHUNK))
        self.unpacked += len(data)
        self.first += data[: _BLOCK - len(self.first)]
        if self._spool is not None:
            self._gauge.add(len(data), self.packed)
            self._spool.write(data)
        return data

    def close(self) -> None:
        """Stops reading ahead."""
        if self._ahead is not None:
            self._ahead.close()

    def passes(self, end: int) -> None:
        """The entry's content ends at `end`: headers of the next may be read after it."""
        self._allowed = max(self._allowed, end + self._gauge.limits.header + _READ_AHEAD)

    def check_end(self, source: tarread.Source, end: int) -> None:
        """After the last entry: an end mark, then only zeros, in the tar and after the compressed stream."""
        if source.position - end < _BLOCK:
            raise self._gauge.bad("the archive is cut off: it has no end mark", hint="Copy or download it again.")
        self._spool = None
        while data := source.some(CHUNK):
            self.passes(self.unpacked)
            self._gauge.add(len(data) if self.inflater.kind != "none" else 0, self.packed)
            _only_zeros(data, self._gauge)
        _only_zeros(self.inflater.trailing, self._gauge)
        while data := self._raw(CHUNK):
            _only_zeros(data, self._gauge)


def _only_zeros(data: bytes, gauge: Gauge) -> None:
    if data.count(0) != len(data):
        raise gauge.bad("there is more data after the end of the archive")


def read_tar(file: Opened, scratch: Path, gauge: Gauge, kind: str) -> tuple[dict[str, Entry], TarContent]:
    """(entries by path, their content) of a tar; `kind` is its compression. Those of a compressed one carry digests: its
    content had to pass anyway. Raises `SourceError`, `StoreError`."""
    spool = Spool(scratch) if kind != "none" else None
    reading = _Reading(file, gauge, spool)
    try:
        entries = reading.entries()
    except BaseException:
        if spool is not None:
            spool.close()
        raise
    finally:
        reading.close()
    if spool is None:
        return entries, TarContent(file, reading.linked)
    return entries, TarContent(spool, reading.linked, file)


class _Reading:
    """One pass over a tar."""

    def __init__(self, file: Opened, gauge: Gauge, spool: Spool | None) -> None:
        self._file, self._gauge, self._spooled = file, gauge, spool is not None
        self._feed = _Feed(file, gauge, spool)
        self._listing = Listing(gauge)
        self._logical = Gauge(gauge.limits, gauge.name)
        self._linked: set[int] = set()

    @property
    def linked(self) -> frozenset[int]:
        """Where the content lies that several names share."""
        return frozenset(self._linked)

    def entries(self) -> dict[str, Entry]:
        """All entries; raises `SourceError`."""
        member, end = None, 0
        for member in self._members():
            end = member.entry.offset + member.left + -member.left % _BLOCK
            self._feed.passes(end)
            self._listing.add(member.raw_name, self._entry(member))
        if member is None:
            raise self._gauge.bad("the archive is empty")
        self._feed.check_end(member.source, end)
        self._file.check()
        return self._listing.finish()

    def _members(self) -> Iterator[tarread.Member]:
        """The members; that the data is no tar at all is said in so many words."""
        seen = False
        try:
            for member in tarread.members(self._feed.read, self._file.name):
                seen = True
                yield member
        except SourceError as bad:
            if seen or not self._feed.first or self._feed.first[257:262] == b"ustar":
                raise
            what = f"the {self._feed.inflater.kind} data in it is" if self._spooled else "it is"
            raise self._gauge.bad(f"{what} no tar", hint="Give a tar, a zip, a war, a jar or a program.") from bad

    def _entry(self, member: tarread.Member) -> Entry:
        entry = member.entry
        if entry.kind == FILE:
            self._logical.add(entry.size, self._file.size)
            digest = self._digest(member) if self._spooled else ""
            return Entry(
                FILE, entry.mode & 0o777, size=entry.size, offset=entry.offset, sparse=entry.sparse, digest=digest
            )
        if entry.kind == DIR:
            return Entry(DIR, entry.mode & 0o777)
        if entry.kind == SYMLINK:
            return Entry(SYMLINK, 0o777, link=entry.link)
        if entry.kind == HARDLINK:
            return self._linked_to(member)
        raise self._listing.bad(member.raw_name, f"is {_OTHERS.get(entry.kind, 'of an unknown kind')}", "Leave it out.")

    def _digest(self, member: tarread.Member) -> str:
        hasher = hashlib.sha256()
        for chunk in member.chunks():
            hasher.update(chunk)
        return hasher.hexdigest()

    def close(self) -> None:
        """Stops reading ahead."""
        self._feed.close()

    def _linked_to(self, member: tarread.Member) -> Entry:
        """What a hard link names: a file that came before it."""
        raw = member.raw_link
        if raw.startswith("/") or ".." in raw.split("/"):
            raise self._listing.bad(member.raw_name, f'is a hard link that leaves the package: "{shown(raw)}"')
        target = self._listing.entries.get(member.entry.link)
        if target is None or target.kind != FILE:
            raise self._listing.bad(member.raw_name, f'is a hard link to "{shown(raw)}", which is no file before it')
        self._linked.add(target.offset)
        return target
