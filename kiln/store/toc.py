"""Tables of contents: the entries of a layer, kept by diffID, so that nobody has to unpack it to know what is in it."""

from __future__ import annotations

import msgspec

from kiln.errors import CorruptError
from kiln.store.entry import Entry

Toc = list[tuple[str, Entry]]
_TEXT, _BYTES = 2, 1


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


_encoder = msgspec.msgpack.Encoder()
_text_decoder = msgspec.msgpack.Decoder(_Text)
_decoder = msgspec.msgpack.Decoder(_File)


def encode(entries: Toc) -> bytes:
    """The bytes of a table of contents."""
    try:
        return _encoder.encode(_Text(_TEXT, entries))
    except UnicodeEncodeError:
        return _encoder.encode(_File(_BYTES, [_row(path, entry) for path, entry in entries]))


def decode(data: bytes, where: str) -> Toc:
    """The entries in the layer's order; raises `CorruptError` naming `where`."""
    try:
        if data[1:2] == bytes([_TEXT]):
            return _text_decoder.decode(data).rows
        rows = _decoder.decode(data).rows
    except msgspec.MsgspecError as bad:
        raise CorruptError(f"the table of contents is damaged: {bad}", where=where, hint="Remove that file.") from bad
    return [(row.path.decode("utf-8", "surrogateescape"), _entry(row)) for row in rows]


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
