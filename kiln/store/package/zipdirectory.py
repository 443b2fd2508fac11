"""A zip's central directory. Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.12 to 4.3.16, 4.4 and 4.5.3.

The directory must end where its end record begins, and that record must end where the file ends: no second reading of
the same file is possible. Nothing but the directory is read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec
from msgspec import Struct

from kiln.store.package.limits import Gauge
from kiln.store.package.opened import Opened

_END, _END64, _LOCATOR, _HEADER = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07", b"PK\x01\x02"
_END_SIZE, _END64_SIZE, _LOCATOR_SIZE, HEADER_SIZE = 22, 56, 20, 46
_MAX_COMMENT = 65535
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_UNIX = (3, 19)
_UTF8, _ENCRYPTED = 1 << 11, 1 | 1 << 6 | 1 << 13
STORED, DEFLATED = 0, 8
_METHODS = {
    1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES",
}  # fmt: skip


class Header(msgspec.Struct, frozen=True, gc=False):
    """One entry of the directory: `name` as text, `raw` as bytes; sizes and `offset` (of the local header) in bytes;
    `mode` is the Unix mode with its type, 0 where there is none."""

    name: str
    raw: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


class _End(Struct, frozen=True):
    count: int
    size: int
    offset: int
    place: int


def headers(file: Opened, gauge: Gauge) -> tuple[int, Iterator[Header]]:
    """(where the directory begins, its entries); raises `SourceError`."""
    end = _find(file, gauge)
    limits = gauge.limits
    if end.count > limits.entries:
        raise gauge.bad(f"it has more than {limits.entries} entries")
    if end.size > limits.names + limits.entries * HEADER_SIZE * 2:
        raise gauge.bad(f"its directory has {end.size} bytes, more than names and entries may have")
    return end.offset, _read(file, gauge, end)


def _find(file: Opened, gauge: Gauge) -> _End:
    """The end record, and the zip64 one before it if there is one."""
    size = min(file.size, _END_SIZE + _MAX_COMMENT)
    tail = file.at(file.size - size, size)
    index = tail.rfind(_END)
    if index < 0 or index + _END_SIZE > len(tail):
        raise gauge.bad("the zip is cut off: it has no directory", hint="Copy or download it again.")
    disk, start, here, count, length, offset, comment = struct.unpack_from("<4H2IH", tail, index + 4)
    if index + _END_SIZE + comment != len(tail):
        raise gauge.bad("there is more data after the end of the zip, or it is cut off", hint="Download it again.")
    place = file.size - size + index
    end, split = _End(count, length, offset, place), bool(disk or start or here != count)
    if place >= _LOCATOR_SIZE and file.at(place - _LOCATOR_SIZE, 4) == _LOCATOR:
        end, split = _zip64(file, gauge, end), False
    if split:
        raise gauge.bad("the zip is one part of several", hint="Put the parts together first.")
    if end.offset + end.size != end.place:
        raise gauge.bad(
            "the zip's directory is not where its end says",
            hint="Something was put before or into the zip (a start script?): give the zip without it.",
        )
    return end


def _zip64(file: Opened, gauge: Gauge, old: _End) -> _End:
    """The end record of a large zip; fields of the old record that are not full must agree with it."""
    _, place, disks = struct.unpack("<IQI", file.at(old.place - _LOCATOR_SIZE + 4, 16))
    if place + _END64_SIZE > old.place or disks > 1:
        raise gauge.bad("the zip64 end record is not where it should be")
    record = file.at(place, _END64_SIZE)
    length, _, _, disk, start, here, count, size, offset = struct.unpack("<QHHIIQQQQ", record[4:])
    pairs = ((old.count, count, _FULL16), (old.size, size, _FULL32), (old.offset, offset, _FULL32))
    if (
        record[:4] != _END64 or place + 12 + length != old.place - _LOCATOR_SIZE or disk or start or here != count
        or any(small not in (large, full) for small, large, full in pairs)
    ):  # fmt: skip
        raise gauge.bad("the zip64 end record does not fit the zip")
    return _End(count, size, offset, place)


def _read(file: Opened, gauge: Gauge, end: _End) -> Iterator[Header]:
    position, count = end.offset, 0
    window, start = b"", end.offset
    while position < end.place:
        reaches = start + len(window)
        if position + 3 * _FULL16 + HEADER_SIZE > reaches and reaches < end.place:
            start, window = position, file.some(position, min(1 << 20, end.place - position))
        header, size = _header(window, position - start, gauge)
        position += size
        count += 1
        yield header
    if count != end.count or position != end.place:
        raise gauge.bad("the zip's directory has another number of entries than its end says")


def _header(data: bytes, at: int, gauge: Gauge) -> tuple[Header, int]:
    """(the entry at an offset of the directory, the bytes that it takes there)."""
    if data[at : at + 4] != _HEADER or at + HEADER_SIZE > len(data):
        raise gauge.bad("the zip's directory is damaged")
    (by, _, flags, method, _, _, crc, packed, size, name_size, extra_size, note_size, disk, _, outside, offset) = (
        struct.unpack_from("<6H3I5H2I", data, at + 4)
    )
    total = HEADER_SIZE + name_size + extra_size + note_size
    if at + total > len(data):
        raise gauge.bad("the zip's directory is cut off")
    raw = data[at + HEADER_SIZE : at + HEADER_SIZE + name_size]
    name, is_guessed = _decoded(raw, flags)
    gauge.guessed += is_guessed
    extra = data[at + HEADER_SIZE + name_size : at + total - note_size]
    size, packed, offset, disk = _large(extra, size, packed, offset, disk, gauge, name)
    if disk:
        raise gauge.bad("lies in another part of the zip", name)
    mode = outside >> 16 if by >> 8 in _UNIX else 0
    header = Header(name, raw, flags, method, crc, packed, size, offset, mode)
    _check_method(header, gauge)
    return header, total


def _check_method(header: Header, gauge: Gauge) -> None:
    if header.flags & _ENCRYPTED:
        raise gauge.bad("is encrypted", header.name, "Pack it again without a password.")
    if header.method not in (STORED, DEFLATED):
        what = _METHODS.get(header.method, str(header.method))
        raise gauge.bad(
            f"is compressed with method {what}; only stored and deflate are read", header.name, "Pack it with `zip`."
        )
    if header.method == STORED and header.size != header.packed:
        raise gauge.bad("is stored with two different sizes", header.name)


def _decoded(raw: bytes, flags: int) -> tuple[str, bool]:
    """(the name as text, whether it was guessed): UTF-8 where it is marked so or can be read so, else code page 437."""
    try:
        return raw.decode("utf-8"), False
    except UnicodeDecodeError:
        is_marked = bool(flags & _UTF8)
        return (raw.decode("utf-8", "surrogateescape") if is_marked else raw.decode("cp437")), not is_marked


def _large(
    extra: bytes, size: int, packed: int, offset: int, disk: int, gauge: Gauge, name: str
) -> tuple[int, int, int, int]:
    """The fields with those that are full taken from the zip64 extra field, in its order."""
    wanted = [value == full for value, full in ((size, _FULL32), (packed, _FULL32), (offset, _FULL32), (disk, _FULL16))]
    if not any(wanted):
        return size, packed, offset, disk
    field = _zip64_field(extra)
    values, at = [size, packed, offset, disk], 0
    for index, (is_full, form) in enumerate(zip(wanted, ("<Q", "<Q", "<Q", "<I"), strict=True)):
        if is_full:
            if at + struct.calcsize(form) > len(field):
                raise gauge.bad("has no sizes in its zip64 field", name)
            values[index] = struct.unpack_from(form, field, at)[0]
            at += struct.calcsize(form)
    return values[0], values[1], values[2], values[3]


def _zip64_field(extra: bytes) -> bytes:
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            return extra[at + 4 : at + 4 + size]
        at += 4 + size
    return b""
