"""Tar headers: POSIX ustar, with pax records where ustar is too small (POSIX.1-2017, pax, "pax Interchange Format").

The same entry gives the same bytes: no names of users, no access times, nothing of the host.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import lru_cache

from kiln.store.entry import (
    BLOCK,
    CHAR,
    DIR,
    FIFO,
    FILE,
    HARDLINK,
    OPAQUE_NAME,
    SYMLINK,
    WHITEOUT,
    WHITEOUT_PREFIX,
    Entry,
)

BLOCK_SIZE = 512
END = bytes(2 * BLOCK_SIZE)
_TYPES = {FILE: b"0", HARDLINK: b"1", SYMLINK: b"2", CHAR: b"3", BLOCK: b"4", DIR: b"5", FIFO: b"6"}
_MAX_ID = 0o7777777
_MAX_SIZE = 0o77777777777


def padding(size: int) -> bytes:
    """The zero bytes that fill a member's content up to whole blocks."""
    return bytes(-size % BLOCK_SIZE)


def header(path: str, entry: Entry) -> bytes:
    """The header blocks of one entry (pax records first, if it needs them); the content follows them."""
    if entry.kind == WHITEOUT:
        folder, slash, last = path.rpartition("/")
        path, entry = f"{folder}{slash}{WHITEOUT_PREFIX}{last}", Entry(FILE, mtime=entry.mtime)
    if entry.kind == FILE and entry.xattrs is None and entry.size <= _MAX_SIZE:
        name = path.encode("utf-8", "surrogateescape")
        if len(name) <= 100:
            template = _template(entry.mode, entry.uid, entry.gid, entry.mtime)
            if template is not None:
                return template.fill(name, entry.size)
    name = os.fsencode(path + "/" if entry.kind == DIR else path)
    link = os.fsencode(entry.link) if entry.kind in (SYMLINK, HARDLINK) else b""
    size = entry.size if entry.kind == FILE else 0
    records = _records(name, link, size, entry)
    block = _block(
        name[:100], entry.mode, min(entry.uid, _MAX_ID), min(entry.gid, _MAX_ID), size if size <= _MAX_SIZE else 0,
        entry.mtime if 0 <= entry.mtime <= _MAX_SIZE else 0, _TYPES[entry.kind], link[:100], entry.major, entry.minor,
    )  # fmt: skip
    return _pax(name, records) + block if records else block


class _Template:
    """The header of files that differ by name and size alone: layers of many small files are made of these."""

    def __init__(self, block: bytes) -> None:
        self._owner, self._time, self._tail = block[100:124], block[136:148], block[156:]
        self._sum = sum(self._owner) + sum(self._time) + sum(self._tail) + 8 * 32

    def fill(self, name: bytes, size: int) -> bytes:
        """The header of one file; its name is at most 100 bytes."""
        length = b"%011o\0" % size
        checksum = self._sum + sum(name) + sum(length)
        return b"%b%b%b%b%06o\0 %b" % (name.ljust(100, b"\0"), self._owner, length, self._time, checksum, self._tail)


@lru_cache(maxsize=64)
def _template(mode: int, uid: int, gid: int, mtime: int) -> _Template | None:
    """None for what does not fit into a plain header."""
    if uid > _MAX_ID or gid > _MAX_ID or not 0 <= mtime <= _MAX_SIZE:
        return None
    return _Template(_block(b"", mode, uid, gid, 0, mtime, _TYPES[FILE], b"", 0, 0))


def opaque_header(path: str, mtime: int) -> bytes:
    """The marker that makes a directory hide what lower layers have in it."""
    return header(f"{path}/{OPAQUE_NAME}" if path else OPAQUE_NAME, Entry(FILE, mtime=mtime))


def _records(name: bytes, link: bytes, size: int, entry: Entry) -> dict[bytes, bytes]:
    records: dict[bytes, bytes] = {}
    if len(name) > 100:
        records[b"path"] = name
    if len(link) > 100:
        records[b"linkpath"] = link
    if size > _MAX_SIZE:
        records[b"size"] = b"%d" % size
    if entry.uid > _MAX_ID:
        records[b"uid"] = b"%d" % entry.uid
    if entry.gid > _MAX_ID:
        records[b"gid"] = b"%d" % entry.gid
    if not 0 <= entry.mtime <= _MAX_SIZE:
        records[b"mtime"] = b"%d" % entry.mtime
    for key, value in sorted((entry.xattrs or {}).items()):
        records[b"SCHILY.xattr." + os.fsencode(key)] = value
    return records


def _pax(name: bytes, records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, value) for key, value in records.items())
    label = (b"PaxHeaders.0/" + name.rstrip(b"/").rpartition(b"/")[2])[:100]
    return _block(label, 0o644, 0, 0, len(body), 0, b"x", b"", 0, 0) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """`length key=value newline`, where length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(
    name: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, kind: bytes, link: bytes, major: int, minor: int
) -> bytes:
    head = b"%s%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode, uid, gid, size, mtime)
    tail = b"%s%sustar\x0000%s%07o\0%07o\0" % (kind, link.ljust(100, b"\0"), bytes(64), major, minor)
    checksum = sum(head) + sum(tail) + 8 * 32
    return b"%s%06o\0 %s%s" % (head, checksum, tail, bytes(167))
