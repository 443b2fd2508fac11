"""Zips (war, jar) as a tree: listed from their directory alone, each file decompressed when it is asked for."""

from __future__ import annotations

import itertools
import stat
import struct
from collections.abc import Iterator
from typing import Any, cast

from isal import isal_zlib

from kiln.errors import SourceError
from kiln.store.entry import DIR, FILE, SYMLINK, Entry
from kiln.store.package.limits import Gauge, refused
from kiln.store.package.listing import Listing
from kiln.store.package.opened import CHUNK, Opened
from kiln.store.package.zipdirectory import DEFLATED, Header, headers

_LOCAL = b"PK\x03\x04"
_LOCAL_SIZE = 30
_LATER = 1 << 3
_FULL32 = 0xFFFFFFFF
_AGAIN = "Copy or download it again."
_DAMAGE = cast("type[Exception]", isal_zlib.error)
_KINDS = {0: FILE, stat.S_IFREG: FILE, stat.S_IFDIR: DIR, stat.S_IFLNK: SYMLINK}
_OTHERS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}


class ZipContent:
    """The content of a zip's files. Local headers must say what the directory says."""

    linked: frozenset[int] = frozenset()

    def __init__(self, file: Opened, gauge: Gauge, places: dict[str, Header], starts: list[int]) -> None:
        self._file, self._gauge, self._places = file, gauge, places
        self._ends = dict(itertools.pairwise(starts))

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        """A file's content; the size and the CRC are checked, the latter at the end. Raises `SourceError`."""
        header = self._places[path]
        packed = self._file.chunks(self._begin(header), header.packed)
        size = crc = 0
        for data in _inflated(packed, header, self._file.name) if header.method == DEFLATED else packed:
            size += len(data)
            crc = isal_zlib.crc32(data, crc)
            if size > header.size:
                break
            yield data
        if size != header.size:
            raise self._bad(header, f"has not the {header.size} bytes that the directory says")
        if crc != header.crc:
            raise self._gauge.bad("is damaged: its content has another CRC", header.name, _AGAIN)

    def _begin(self, header: Header) -> int:
        """Where the content begins, by the local header."""
        local = self._file.at(header.offset, _LOCAL_SIZE)
        flags, method, _, _, crc, packed, size, name, extra = struct.unpack("<4H3I2H", local[6:])
        start: int = header.offset + _LOCAL_SIZE + name + extra
        if local[:4] != _LOCAL or self._file.at(header.offset + _LOCAL_SIZE, name) != header.raw:
            raise self._bad(header, "has another name in front of its content than in the directory")
        pairs = ((crc, header.crc), (packed, header.packed), (size, header.size))
        agree = all(here in (there, _FULL32) or (here == 0 and flags & _LATER) for here, there in pairs)
        if method != header.method or (flags ^ header.flags) & 1 or not agree:
            raise self._bad(header, "has other sizes in front of its content than in the directory")
        if start + header.packed > self._ends[header.offset]:
            raise self._bad(header, "overlaps with another one")
        return start

    def _bad(self, header: Header, why: str) -> SourceError:
        return self._gauge.bad(why, header.name)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def _inflated(packed: Iterator[bytes], header: Header, name: str) -> Iterator[bytes]:
    """Deflated data decompressed, in pieces of bounded size."""
    stream: Any = isal_zlib.decompressobj(wbits=-15)
    try:
        for piece in packed:
            rest = piece
            while rest and not stream.eof:
                yield stream.decompress(rest, CHUNK)
                rest = stream.unconsumed_tail
            if stream.eof and (rest or stream.unused_data):
                raise refused(name, "has data after its end", header.name)
        while not stream.eof and (data := stream.decompress(b"", CHUNK)):
            yield data
    except _DAMAGE as bad:
        raise refused(name, "is damaged: it cannot be decompressed", header.name, _AGAIN) from bad
    if not stream.eof:
        raise refused(name, "is damaged: its data does not end where it should", header.name, _AGAIN)


def read_zip(file: Opened, gauge: Gauge) -> tuple[dict[str, Entry], ZipContent]:
    """(entries by path, their content) of a zip; raises `SourceError`. Besides the directory only the text of symbolic
    links is read."""
    begin, found = headers(file, gauge)
    listing = Listing(gauge, dos=True)
    places: dict[str, Header] = {}
    links: list[tuple[str, Header]] = []
    spans: list[tuple[int, int, str]] = []
    for header in found:
        entry = _entry(header, listing)
        gauge.add(header.size, file.size)
        spans.append((header.offset, header.offset + _LOCAL_SIZE + len(header.raw) + header.packed, header.name))
        if entry.kind == SYMLINK:
            links.append((listing.path(header.name), header))
            continue
        path = listing.add(header.name, entry)
        if entry.kind == FILE:
            places[path] = header
    content = ZipContent(file, gauge, places, _starts(spans, begin, gauge))
    for path, header in links:
        listing.add(header.name, Entry(SYMLINK, 0o777, link=_text(content, places, path, header, listing)))
    file.check()
    return listing.finish(), content


def _entry(header: Header, listing: Listing) -> Entry:
    kind = _KINDS.get(stat.S_IFMT(header.mode))
    if kind is None:
        what = _OTHERS.get(stat.S_IFMT(header.mode), "a device")
        raise listing.bad(header.name, f"is {what}", "Leave it out.")
    if header.name.endswith("/") and kind == FILE:
        kind = DIR
    if kind == DIR and header.size:
        raise listing.bad(header.name, "is a folder with content")
    if kind == SYMLINK and header.name.endswith("/"):
        raise listing.bad(header.name, "is a folder and a symbolic link at once")
    if kind == SYMLINK and header.size > listing.gauge.limits.path:
        raise listing.bad(header.name, "is a symbolic link to nothing that a path can be")
    mode = header.mode & 0o777 or (0o755 if kind == DIR else 0o644)
    return Entry(kind, mode, size=header.size if kind == FILE else 0, offset=header.offset)


def _starts(spans: list[tuple[int, int, str]], begin: int, gauge: Gauge) -> list[int]:
    """Where entries begin, in order, and where the directory does; raises `SourceError` if two share bytes."""
    spans.sort()
    starts = [start for start, _, _ in spans] + [begin]
    for index, (_, end, name) in enumerate(spans):
        if end > starts[index + 1]:
            raise gauge.bad("overlaps with another one, or with the directory", name)
    if starts[0] != 0:
        raise gauge.bad("there is data before the first entry of the zip", hint="Give the zip without it.")
    return starts


def _text(content: ZipContent, places: dict[str, Header], path: str, header: Header, listing: Listing) -> str:
    """The text of a symbolic link, which a zip keeps as content."""
    if path in places:
        raise listing.bad(header.name, "comes twice")
    places[path] = header
    data = b"".join(content.chunks(path, Entry(SYMLINK)))
    del places[path]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise listing.bad(header.name, "is a symbolic link to a name that is not UTF-8") from None
