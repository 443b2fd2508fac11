"""Tables of contents: the entries of a layer, kept by diffID, so that nobody has to unpack it to know what is in it."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

import msgspec

from kiln.errors import CorruptError
from kiln.store.entry import Entry

Toc = list[tuple[str, Entry]]
_PIECES, _TEXT, _BYTES = 3, 2, 1
_PIECE = 1024


class _Text(msgspec.Struct, array_like=True):
    version: int
    rows: Toc


class _Row(msgspec.Struct, array_like=True, gc=False, omit_defaults=True):
    """One entry of a table that has names which are no text: all its names are bytes."""

    path: bytes
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    link: bytes = b""
    digest: str = ""
    offset: int = -1
    major: int = 0
    minor: int = 0
    opaque: bool = False
    xattrs: dict[bytes, bytes] | None = None
    sparse: tuple[tuple[int, int], ...] | None = None


class _File(msgspec.Struct, array_like=True):
    version: int
    rows: list[_Row]


class _Pieces(msgspec.Struct, array_like=True):
    """A table of which a part can be read without the rest: each piece is a table of its own, with its CRC-32."""

    version: int
    pieces: list[tuple[int, memoryview]]


_encoder = msgspec.msgpack.Encoder()
_pieces_decoder = msgspec.msgpack.Decoder(_Pieces)
_text_decoder = msgspec.msgpack.Decoder(_Text)
_decoder = msgspec.msgpack.Decoder(_File)


class Table:
    """A table of contents that is being made; what was added lies packed."""

    def __init__(self, entries: Iterable[tuple[str, Entry]] = ()) -> None:
        self._pieces: list[bytes] = []
        self._last: Toc = []
        self.extend([*entries])

    def add(self, path: str, entry: Entry) -> None:
        """Appends an entry."""
        self._last.append((path, entry))
        if len(self._last) >= _PIECE:
            self.extend([])

    def extend(self, rows: Toc) -> None:
        """Appends entries."""
        self._last += rows
        while len(self._last) >= _PIECE:
            self._pieces.append(_encode(self._last[:_PIECE]))
            self._last = self._last[_PIECE:]

    def __bool__(self) -> bool:
        return bool(self._pieces or self._last)

    def __iter__(self) -> Iterator[tuple[str, Entry]]:
        for piece in (*self._pieces, _encode(self._last)):
            yield from _decode(piece)

    def encode(self) -> bytes:
        """The bytes on disk."""
        pieces = [memoryview(piece) for piece in (*self._pieces, _encode(self._last))]
        return _encoder.encode(_Pieces(_PIECES, [(zlib.crc32(piece), piece) for piece in pieces]))


def _encode(entries: Toc) -> bytes:
    try:
        return _encoder.encode(_Text(_TEXT, entries))
    except UnicodeEncodeError:
        return _encoder.encode(_File(_BYTES, [_row(path, entry) for path, entry in entries]))


def decode(data: bytes, where: str) -> Toc:
    """The entries in the layer's order; raises `CorruptError` naming `where`."""
    return [row for piece in pieces(data, where) for row in piece]


def pieces(data: bytes, where: str) -> Iterator[Toc]:
    """The entries piece by piece; raises `CorruptError` naming `where`."""
    try:
        if data[1:2] != bytes([_PIECES]):
            yield _decode(data)
            return
        for checksum, piece in _pieces_decoder.decode(data).pieces:
            if zlib.crc32(piece) != checksum:
                raise _damaged(where, "a part of it has changed")
            yield _decode(piece)
    except msgspec.MsgspecError as bad:
        raise _damaged(where, str(bad)) from bad


def _damaged(where: str, why: str) -> CorruptError:
    return CorruptError(f"the table of contents is damaged: {why}", where=where, hint="Remove that file.")


def _decode(piece: bytes | memoryview) -> Toc:
    if piece[1:2] == bytes([_TEXT]):
        return _text_decoder.decode(piece).rows
    return [(row.path.decode("utf-8", "surrogateescape"), _entry(row)) for row in _decoder.decode(piece).rows]


def _row(path: str, entry: Entry) -> _Row:
    return _Row(
        path.encode("utf-8", "surrogateescape"), entry.kind, entry.mode, entry.uid, entry.gid, entry.size, entry.mtime,
        entry.link.encode("utf-8", "surrogateescape"), entry.digest, entry.offset, entry.major, entry.minor, entry.opaque,
        {key.encode("utf-8", "surrogateescape"): value for key, value in entry.xattrs.items()} if entry.xattrs else None,
        entry.sparse,
    )  # fmt: skip


def _entry(row: _Row) -> Entry:
    return Entry(
        row.kind, row.mode, row.uid, row.gid, row.size, row.mtime,
        row.link.decode("utf-8", "surrogateescape") if row.link else "", row.digest, row.offset, row.major, row.minor,
        row.opaque,
        {key.decode("utf-8", "surrogateescape"): value for key, value in row.xattrs.items()} if row.xattrs else None,
        row.sparse,
    )  # fmt: skip
