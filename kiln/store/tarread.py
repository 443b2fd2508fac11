"""A streaming tar reader: ustar, pax, GNU long names, GNU and pax sparse members, base-256 numbers.

It reads archives that nobody vouches for: numbers and lengths are checked, extended headers are bounded, and paths come
out cleaned (`kiln.store.entry.clean`), so that `..` and absolute names stay inside the root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from msgspec import Struct, field

from kiln.errors import SourceError
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
    clean,
    copy_of,
)

_BLOCK = 512
_MAX_EXTENDED = 1 << 20
_MAX_COMMON = 1 << 16
_MAX_MAP = 1 << 22
_MAX_NUMBER = 1 << 62
_MAX_SPARSE = 1 << 40
_KINDS = {
    b"0": FILE,
    b"\0": FILE,
    b"7": FILE,
    b"1": HARDLINK,
    b"2": SYMLINK,
    b"3": CHAR,
    b"4": BLOCK,
    b"5": DIR,
    b"6": FIFO,
}
_ZERO = bytes(_BLOCK)

ReadSome = Callable[[int], bytes]


class Source:
    """Exact reads over a stream; knows its position (bytes)."""

    def __init__(self, read: ReadSome, name: str) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self.position = 0
        self.name = name

    def some(self, limit: int) -> bytes:
        """Up to `limit` bytes, at least one unless the stream has ended."""
        if self._at == len(self._buffer):
            self._buffer, self._at = self._read(max(limit, 1 << 16)), 0
        data = self._buffer[self._at : self._at + limit]
        self._at += len(data)
        self.position += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """`size` bytes; raises `SourceError` if the stream ends before."""
        data = self.upto(size)
        if len(data) != size:
            raise self.bad("unexpected end: the archive is cut off")
        return data

    def upto(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end of the stream."""
        pieces = []
        missing = size
        while missing and (piece := self.some(missing)):
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, size: int) -> None:
        """Passes over `size` bytes."""
        while size:
            piece = self.some(min(size, 1 << 20))
            if not piece:
                raise self.bad("unexpected end: the archive is cut off")
            size -= len(piece)

    def bad(self, why: str) -> SourceError:
        """An error that names the archive and the place in it."""
        return SourceError(
            f"{why} (at byte {self.position})", where=self.name, hint="Check the archive, for example with tar -t."
        )


class _Extended(Struct):
    records: dict[str, bytes] = field(default_factory=dict)
    long_name: bytes = b""
    long_link: bytes = b""


class Member(Struct):
    """One member: cleaned path, entry, and its content. `raw_name` and `raw_link` are as the archive wrote them."""

    path: str
    entry: Entry
    source: Source
    left: int
    raw_name: str
    raw_link: str = ""

    def chunks(self) -> Iterator[bytes]:
        """The content, sparse holes filled with zeros; to be used before the next member is asked for."""
        if self.entry.sparse is None:
            yield from self._stored(self.left)
            return
        position = 0
        for offset, length in self.entry.sparse:
            yield from _zeros(offset - position)
            yield from self._stored(length)
            position = offset + length
        yield from _zeros(self.entry.size - position)

    def _stored(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.source.some(min(size, 1 << 20))
            if not piece:
                raise self.source.bad("unexpected end: the archive is cut off")
            size -= len(piece)
            self.left -= len(piece)
            yield piece


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        piece = bytes(min(size, 1 << 20))
        size -= len(piece)
        yield piece


def members(read: ReadSome, name: str) -> Iterator[Member]:
    """The members of a tar stream in their order; `name` is what errors call it. Raises `SourceError`."""
    source = Source(read, name)
    common: dict[str, bytes] = {}
    extended = _Extended(dict(common))
    while True:
        block = source.some(_BLOCK)
        while block and len(block) < _BLOCK:
            block += source.exactly(_BLOCK - len(block))
        if not block or block == _ZERO:
            return
        size = _header_size(block, source)
        kind = block[156:157]
        if kind in (b"x", b"g", b"L", b"K"):
            _extend(kind, _content(source, size), extended, common, source)
            continue
        member, stored = _member(block, kind, size, extended, source)
        if member is not None:
            yield member
            source.skip(member.left)
        else:
            source.skip(stored)
        source.skip(-stored % _BLOCK)
        extended = _Extended(dict(common))


def _content(source: Source, size: int) -> bytes:
    if size > _MAX_EXTENDED:
        raise source.bad(f"an extended header of {size} bytes is too large")
    data = source.exactly(size)
    source.skip(-size % _BLOCK)
    return data


def _header_size(block: bytes, source: Source) -> int:
    unsigned = sum(block) - sum(block[148:156]) + 256
    stored = _number(block[148:156], source)
    if stored != unsigned:
        signed = unsigned - 256 * (sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:]))
        if stored != signed:
            raise source.bad("not a tar header (its checksum is wrong)")
    size = _number(block[124:136], source)
    if size < 0:
        raise source.bad("a member has a negative size")
    return size


def _number(data: bytes, source: Source) -> int:
    """Octal digits, or base 256 where the first bit is set (GNU)."""
    if data[0] & 0x80:
        value = int.from_bytes(data, "big") & ((1 << (8 * len(data) - 1)) - 1)
        if data[0] & 0x40:
            value -= 1 << (8 * len(data) - 1)
        return value
    try:
        return int(data.strip(b" \0").split(b"\0")[0] or b"0", 8)
    except ValueError:
        raise source.bad("a number in a tar header is not octal") from None


def _text(data: bytes) -> bytes:
    return data.split(b"\0", 1)[0]


def _extend(kind: bytes, data: bytes, extended: _Extended, common: dict[str, bytes], source: Source) -> None:
    if kind == b"L":
        extended.long_name = _text(data)
    elif kind == b"K":
        extended.long_link = _text(data)
    else:
        records = dict(_pax_records(data, source))
        if kind == b"g":
            common.update(records)
            if sum(len(key) + len(value) for key, value in common.items()) > _MAX_COMMON:
                raise source.bad("the headers for all members are too large")
        extended.records.update(records)


def _pax_records(data: bytes, source: Source) -> Iterator[tuple[str, bytes]]:
    position = 0
    offsets: list[bytes] = []
    while position < len(data):
        space = data.find(b" ", position)
        digits = data[position:space]
        if space < 0 or not digits.isdigit() or len(digits) > 8:
            raise source.bad("a pax record has no length")
        end = position + int(digits)
        record = data[space + 1 : end]
        if end > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise source.bad("a pax record is malformed")
        key, _, value = record[:-1].partition(b"=")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            offsets.append(value)
        yield os.fsdecode(key), value
        position = end
    if offsets:
        yield "GNU.sparse.map", b",".join(offsets)


def _member(block: bytes, kind: bytes, size: int, extended: _Extended, source: Source) -> tuple[Member | None, int]:
    """(member or None for a type that is passed over, bytes stored for it)."""
    records = extended.records
    try:
        size = int(records["size"]) if "size" in records else size
        uid = int(records["uid"]) if "uid" in records else _number(block[108:116], source)
        gid = int(records["gid"]) if "gid" in records else _number(block[116:124], source)
        mtime = int(float(records["mtime"])) if records.get("mtime") else _number(block[136:148], source)
    except (ValueError, OverflowError):
        raise source.bad("a number in a pax record is malformed") from None
    if size < 0:
        raise source.bad("a member has a negative size")
    if not (0 <= uid < _MAX_NUMBER and 0 <= gid < _MAX_NUMBER and abs(mtime) < _MAX_NUMBER):
        raise source.bad("a member has an owner or a time that no file system can hold")
    raw = os.fsdecode(records.get("path") or extended.long_name or _name(block))
    link = os.fsdecode(records.get("linkpath") or extended.long_link or _text(block[157:257]))
    if "\0" in raw or "\0" in link:
        raise source.bad("a name in a pax record holds a zero byte")
    what = FILE if kind == b"S" else _KINDS.get(kind)
    if what is None:
        return None, size
    if what == FILE and raw.endswith("/") and kind != b"S":
        what = DIR
    sparse, logical, stored = _sparse(block, kind, size, records, source)
    raw = os.fsdecode(records["GNU.sparse.name"]) if sparse is not None and "GNU.sparse.name" in records else raw
    has_content = what == FILE
    entry = Entry(
        kind=what, mode=_number(block[100:108], source) & 0o7777, uid=uid, gid=gid,
        size=logical if has_content else 0, mtime=mtime, link=_link(what, link), offset=source.position,
        major=_number(block[329:337], source) if what in (CHAR, BLOCK) else 0,
        minor=_number(block[337:345], source) if what in (CHAR, BLOCK) else 0,
        xattrs=_xattrs(records), sparse=sparse,
    )  # fmt: skip
    return Member(clean(raw), entry, source, stored if has_content else 0, raw, link), size if has_content else 0


def _link(kind: str, link: str) -> str:
    if kind == HARDLINK:
        return clean(link)
    return link if kind == SYMLINK else ""


def _name(block: bytes) -> bytes:
    name = _text(block[:100])
    if block[257:263] == b"ustar\0":
        prefix = _text(block[345:500])
        return prefix + b"/" + name if prefix else name
    return name


def _xattrs(records: dict[str, bytes]) -> dict[str, bytes] | None:
    found = {
        key.removeprefix("SCHILY.xattr."): value for key, value in records.items() if key.startswith("SCHILY.xattr.")
    }
    return found or None


Pieces = tuple[tuple[int, int], ...]


def _sparse(
    block: bytes, kind: bytes, size: int, records: dict[str, bytes], source: Source
) -> tuple[Pieces | None, int, int]:
    """(pieces or None, logical size, bytes of content still stored in the stream)."""
    try:
        if kind == b"S":
            pieces = _gnu_sparse_map(block, source)
            logical = _number(block[483:495], source)
            return _checked(pieces, logical, size, source), logical, size
        if records.get("GNU.sparse.major") == b"1":
            logical = int(records["GNU.sparse.realsize"])
            before = source.position
            pieces = _pax_sparse_map(source, size)
            stored = size - (source.position - before)
            return _checked(pieces, logical, stored, source), logical, stored
        if "GNU.sparse.map" in records:
            numbers = [int(text) for text in records["GNU.sparse.map"].split(b",") if text]
            pieces = list(zip(numbers[::2], numbers[1::2], strict=False))
            logical = int(records.get("GNU.sparse.size") or records.get("GNU.sparse.realsize") or b"0")
            return _checked(pieces, logical, size, source), logical, size
    except (ValueError, KeyError):
        raise source.bad("the map of a sparse member is malformed") from None
    return None, size, size


def _checked(pieces: list[tuple[int, int]], logical: int, stored: int, source: Source) -> Pieces:
    if logical > _MAX_SPARSE:
        raise source.bad(f"a sparse member claims to have {logical} bytes")
    position = 0
    for offset, length in pieces:
        if offset < position or length < 0 or offset + length > logical:
            raise source.bad("the map of a sparse member is malformed")
        position = offset + length
    if sum(length for _, length in pieces) != stored:
        raise source.bad("the map of a sparse member does not fit its size")
    return tuple(pieces)


def _gnu_sparse_map(block: bytes, source: Source) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    area, count, more = block[386:482], 4, block[482]
    while True:
        for index in range(count):
            piece = area[24 * index : 24 * index + 24]
            if piece[:1] == b"\0":
                break
            pieces.append((_number(piece[:12], source), _number(piece[12:], source)))
        if not more:
            return pieces
        if len(pieces) > _MAX_MAP // 24:
            raise source.bad("the map of a sparse member is too large")
        following = source.exactly(_BLOCK)
        area, count, more = following[:504], 21, following[504]


def _pax_sparse_map(source: Source, size: int) -> list[tuple[int, int]]:
    """Format 1.0: decimal numbers, one a line, in whole blocks before the content."""
    numbers: list[int] = []
    rest, read, wanted = b"", 0, 1
    while len(numbers) < wanted:
        if read > _MAX_MAP or read >= size:
            raise ValueError
        *lines, rest = (rest + source.exactly(_BLOCK)).split(b"\n")
        read += _BLOCK
        numbers += [int(line) for line in lines if line.isdigit()]
        if numbers:
            wanted = 1 + 2 * numbers[0]
    return list(zip(numbers[1:wanted:2], numbers[2:wanted:2], strict=False))


def layer_entry(member: Member) -> tuple[str, Entry]:
    """A member read as part of a layer: whiteout names become whiteouts, the opaque marker an opaque directory.

    Source: OCI image-spec layer.md, "Whiteouts". An opaque marker comes out as a DIR entry with `opaque` whose
    other fields say nothing (kind DIR, mode -1).
    """
    folder, slash, name = member.path.rpartition("/")
    if name == OPAQUE_NAME:
        return folder, Entry(DIR, mode=-1, opaque=True)
    if name.startswith(WHITEOUT_PREFIX):
        return folder + slash + name.removeprefix(WHITEOUT_PREFIX), Entry(WHITEOUT, mtime=member.entry.mtime)
    return member.path, member.entry if not member.entry.opaque else copy_of(member.entry, opaque=False)
