"""Packages that nobody should be able to hand over, made in code: each with a word of what its refusal says."""

from __future__ import annotations

import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass

Files = dict[str, bytes]
GOOD: Files = {"app/control": b"#!/bin/sh\nexec true\n", "app/data.txt": b"words " * 4000, "app/empty": b""}


def zipped(files: Files, *, method: int = zipfile.ZIP_DEFLATED, modes: dict[str, int] | None = None) -> bytes:
    """A zip; `modes` are whole Unix modes (with their type)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in files.items():
            info = zipfile.ZipInfo("x")
            info.filename, info.compress_type = name, method
            info.external_attr = (modes or {}).get(name, stat.S_IFREG | 0o644) << 16
            info.create_system = 3
            made.writestr(info, data)
    return out.getvalue()


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar, with other fields of its header."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), 0o644
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tarred(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar of members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for info, data in members:
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    """A symbolic or hard link in a tar."""
    return member(name, type=kind, linkname=to)


A = member("a", b"one")


@dataclass(frozen=True)
class Bad:
    """One hostile package: its file name, how it is made, and what its refusal must say."""

    name: str
    make: Callable[[], bytes]
    says: str
    id: str


def _zip_with(name: str) -> Callable[[], bytes]:
    return lambda: zipped({"good": b"x", name: b"evil"})


def _zip_link(to: bytes) -> Callable[[], bytes]:
    return lambda: zipped({"good": b"x", "l": to}, modes={"l": stat.S_IFLNK | 0o777})


def _zip_mode(kind: int) -> Callable[[], bytes]:
    return lambda: zipped({"good": b"x", "dev": b""}, modes={"dev": kind | 0o644})


def patched(data: bytes, old: bytes, new: bytes, *, last: bool = False) -> bytes:
    """Bytes with one occurrence replaced, the first or the last."""
    at = data.rfind(old) if last else data.find(old)
    assert at >= 0 and len(old) == len(new)
    return data[:at] + new + data[at + len(old) :]


def _directory(data: bytes, offset: int, form: str, value: int) -> bytes:
    """A zip with one field of its first directory entry changed."""
    at = data.find(b"PK\x01\x02") + offset
    return data[:at] + struct.pack(form, value) + data[at + struct.calcsize(form) :]


def _encrypted() -> bytes:
    return _directory(zipped({"secret": b"x"}), 8, "<H", 1)


def _lying_size() -> bytes:
    return _directory(_directory(zipped({"lie": b"x" * 5000}), 24, "<I", 10), 24, "<I", 10)


def _overlapping() -> bytes:
    """Two entries of the directory name one local header."""
    data = zipped({"aa": b"x" * 500, "ab": b"y" * 500})
    at = data.rfind(b"PK\x01\x02") + 42
    return data[:at] + struct.pack("<I", 0) + data[at + 4 :]


def _zip64_lie() -> bytes:
    """A directory entry whose sizes are said to be in a zip64 field that is not there."""
    return _directory(zipped({"big": b"x"}), 24, "<I", 0xFFFFFFFF)


def _bomb_zip() -> bytes:
    return zipped({f"zeros{index}": bytes(50 << 20) for index in range(3)})


def _huge_claim() -> bytes:
    """4 GiB less one is claimed for a file of some bytes."""
    return _directory(zipped({"claim": b"x" * 100}), 24, "<I", 0xFFFFFFFE)


def _huge_header() -> bytes:
    info, data = member("a", b"x")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    return tarred((info, data), form=tarfile.PAX_FORMAT)


def _many_headers() -> bytes:
    """Long names for nothing, one after the other."""
    info, _ = member("x" * 200000)
    header = info.tobuf(tarfile.GNU_FORMAT)[:-512]
    return header * 20 + tarred(A)


def _sparse_bomb() -> bytes:
    info, data = member("holes", b"")
    info.pax_headers = {"GNU.sparse.map": "", "GNU.sparse.size": str(1 << 35), "GNU.sparse.name": "holes"}
    return tarred((info, data), form=tarfile.PAX_FORMAT)


def _bomb_tar() -> bytes:
    return gzip.compress(tarred(member("zeros", bytes(130 << 20))), 9)


def _after_end() -> bytes:
    """A second tar after the end mark of the first."""
    return tarred(A) + tarred(member("b", b"two"))


def _deep(separator: str = "/") -> str:
    return separator.join(["d"] * 150) + separator + "f"


CORPUS = [
    Bad("z.zip", _zip_with("/etc/passwd"), "absolute name", "zip-absolute"),
    Bad("z.zip", _zip_with("../../etc/passwd"), "climbs out", "zip-dotdot"),
    Bad("z.zip", _zip_with("a/../../b"), "climbs out", "zip-dotdot-inside"),
    Bad("z.zip", _zip_with("C:/windows/evil"), "absolute name", "zip-drive"),
    Bad("z.zip", _zip_with("a\\b"), "backslash", "zip-backslash"),
    Bad("z.zip", _zip_with("a\nRUN evil"), r"a\\nRUN evil.*control characters", "zip-newline"),
    Bad("z.zip", lambda: patched(patched(zipped({"aXb": b"x"}), b"aXb", b"a\0b"), b"aXb", b"a\0b"), "control", "zip-nul"),
    Bad("z.zip", _zip_with("a\x1b[31mred"), r"a\\x1b\[31mred.*control", "zip-escape"),
    Bad("z.zip", _zip_with("x" * 300), "longer than", "zip-long-component"),
    Bad("z.zip", _zip_with(_deep()), "folders deep", "zip-deep"),
    Bad("z.zip", _zip_with("lib/.wh.libc.so"), "deletes files", "zip-whiteout"),
    Bad("z.zip", _zip_link(b"/usr/bin/python3"), "link that leaves", "zip-link-absolute"),
    Bad("z.zip", _zip_link(b"../x"), "link that leaves", "zip-link-up"),
    Bad("z.zip", _zip_link(b"a\nb"), "symbolic link to nothing", "zip-link-newline"),
    Bad("z.zip", _zip_link(b""), "symbolic link to nothing", "zip-link-empty"),
    Bad("z.zip", lambda: zipped({"l": b"d", "l/f": b"x"}, modes={"l": stat.S_IFLNK | 0o777}), "below it", "zip-below-link"),
    Bad("z.zip", lambda: zipped({"f": b"d", "f/g": b"x"}), "is a file", "zip-below-file"),
    Bad("z.zip", _zip_mode(stat.S_IFCHR), "a device", "zip-device"),
    Bad("z.zip", _zip_mode(stat.S_IFIFO), "named pipe", "zip-fifo"),
    Bad("z.zip", lambda: patched(patched(zipped({"aa": b"1", "ab": b"2"}), b"ab", b"aa"), b"ab", b"aa"), "twice", "zip-twice"),
    Bad("z.zip", lambda: zipped({"a//b": b"1", "a/./b": b"2"}), "twice", "zip-twice-in-other-words"),
    Bad("z.zip", lambda: zipped({"Readme": b"1", "README": b"2"}), "only by case", "zip-case"),
    Bad("z.zip", lambda: zipped({"d/": b"content"}), "folder with content", "zip-folder-content"),
    Bad("z.zip", _encrypted, "encrypted", "zip-encrypted"),
    Bad("z.zip", lambda: zipped({"m": b"x" * 99}, method=zipfile.ZIP_BZIP2), "method bzip2", "zip-bzip2"),
    Bad("z.zip", lambda: zipped({"m": b"x" * 99}, method=zipfile.ZIP_LZMA), "method lzma", "zip-lzma"),
    Bad("z.zip", _overlapping, "overlaps", "zip-overlap"),
    Bad("z.zip", _zip64_lie, "zip64 field", "zip-zip64-lie"),
    Bad("z.zip", _bomb_zip, "bomb", "zip-bomb"),
    Bad("z.zip", _huge_claim, "bomb", "zip-claim"),
    Bad("z.zip", lambda: zipped(GOOD)[:-30], "cut off", "zip-truncated"),
    Bad("z.zip", lambda: zipped(GOOD) + b"more", "more data after", "zip-trailing"),
    Bad("z.zip", lambda: zipped(GOOD) + zipped({"b": b"2"}), "not where its end says", "zip-two"),
    Bad("z.zip", lambda: b"#!/bin/sh\n" + zipped(GOOD), "no zip, war", "zip-script-in-front"),
    Bad("z.zip", lambda: zipped({}), "holds no file", "zip-empty"),
    Bad("z.zip", lambda: zipped({"d/": b""}), "holds no file", "zip-folders-only"),
    Bad("z.zip", lambda: b"", "empty", "empty"),
    Bad("app.war", lambda: tarred(A), r"called \.war but is a tar", "war-is-tar"),
    Bad("app.war", lambda: gzip.compress(tarred(A)), r"called \.war but is gzip", "war-is-gzip"),
    Bad("app.tar.gz", lambda: zipped(GOOD), r"called \.tar\.gz but is a zip", "targz-is-zip"),
    Bad("app.tar.gz", lambda: tarred(A), r"called \.tar\.gz but is a tar", "targz-is-tar"),
    Bad("app.tgz", lambda: lzma.compress(tarred(A)), "is xz data", "tgz-is-xz"),
    Bad("app.jar", lambda: b"\x7fELF\x02\x01" + bytes(100), "is a program", "jar-is-elf"),
    Bad("app", lambda: b"just some words", "no zip, war", "words"),
    Bad("app.gz", lambda: gzip.compress(b"just some words" * 100), "no tar", "gzip-of-words"),
    Bad("app", lambda: b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x01\x00\x3e\x00" + bytes(50), "no program", "object-file"),
    Bad("t.tar", lambda: tarred(member("/etc/passwd", b"x")), "absolute name", "tar-absolute"),
    Bad("t.tar", lambda: tarred(member("../x", b"x")), "climbs out", "tar-dotdot"),
    Bad("t.tar", lambda: tarred(member("a\nb", b"x")), r"a\\nb.*control", "tar-newline"),
    Bad("t.tar", lambda: tarred(A, member("x" * 300, b"x")), "longer than", "tar-long-component"),
    Bad("t.tar", lambda: tarred(member("x/" * 90 + "y" * 200 + "/" + "z" * 250, b"x"), A, member("q" * 256, b"")), "longer", "tar-long"),
    Bad("t.tar", lambda: tarred(member(_deep(), b"x")), "folders deep", "tar-deep"),
    Bad("t.tar", lambda: tarred(A, member(".wh..wh..opq", b"")), "deletes files", "tar-opaque"),
    Bad("t.tar", lambda: tarred(A, link("l", "/usr/bin/python3")), r"leaves the package: ./usr/bin/python3", "tar-link-absolute"),
    Bad("t.tar", lambda: tarred(A, link("d/l", "../../x")), "leaves the package", "tar-link-up"),
    Bad("t.tar", lambda: tarred(A, link("d/top", ".."), link("x", "d/top/../y")), "leaves the package", "tar-link-over-link"),
    Bad("t.tar", lambda: tarred(A, link("x", "y"), link("y", "x")), "circle", "tar-link-circle"),
    Bad("t.tar", lambda: tarred(A, link("h", "../../etc/passwd", tarfile.LNKTYPE)), "hard link that leaves", "tar-hard-up"),
    Bad("t.tar", lambda: tarred(A, link("h", "/a", tarfile.LNKTYPE)), "hard link that leaves", "tar-hard-absolute"),
    Bad("t.tar", lambda: tarred(A, link("h", "later", tarfile.LNKTYPE), member("later", b"")), "no file before it", "tar-hard-later"),
    Bad("t.tar", lambda: tarred(A, link("l", "a"), link("h", "l", tarfile.LNKTYPE)), "no file before it", "tar-hard-to-link"),
    Bad("t.tar", lambda: tarred(A, link("l", "."), member("l/x", b"1")), 'below "l", which is a symbolic link', "tar-below-link"),
    Bad("t.tar", lambda: tarred(member("l/x", b"1"), link("l", ".")), "below it", "tar-link-over-folder"),
    Bad("t.tar", lambda: tarred(A, member("a/b", b"1")), "which is a file", "tar-below-file"),
    Bad("t.tar", lambda: tarred(A, member("n", type=tarfile.CHRTYPE)), "a device", "tar-device"),
    Bad("t.tar", lambda: tarred(A, member("n", type=tarfile.FIFOTYPE)), "named pipe", "tar-fifo"),
    Bad("t.tar", lambda: tarred(A, A), '"a" comes twice', "tar-twice"),
    Bad("t.tar", lambda: tarred(A, member("./A", b"")), "only by case", "tar-case"),
    Bad("t.tar", _huge_header, "too large|bytes of headers", "tar-huge-header"),
    Bad("t.tar", _many_headers, "bytes of headers", "tar-many-headers"),
    Bad("t.tar", _sparse_bomb, "bomb|come out|map of a sparse", "tar-sparse-bomb"),
    Bad("t.tgz", _bomb_tar, "bomb", "gzip-bomb"),
    Bad("t.tar", lambda: tarred(member("a", b"x" * 2000))[:1500], "cut off", "tar-truncated"),
    Bad("t.tar", lambda: tarred(A)[:1024], "no end mark", "tar-no-end"),
    Bad("t.tar", _after_end, "more data after the end", "tar-trailing"),
    Bad("t.tgz", lambda: gzip.compress(_after_end()), "more data after the end", "gzip-trailing-inside"),
    Bad("t.tgz", lambda: gzip.compress(tarred(A)) + b"evil", "more data after the end", "gzip-trailing"),
    Bad("t.tgz", lambda: gzip.compress(tarred(A))[:-9], "damaged|cut off", "gzip-truncated"),
    Bad("t.tgz", lambda: gzip.compress(tarred(A))[:-8] + bytes(8), "damaged", "gzip-crc"),
    Bad("t.tar.xz", lambda: lzma.compress(tarred(A))[:-20], "damaged|cut off", "xz-truncated"),
    Bad("t.tar", lambda: bytes(10240), "empty|no tar", "tar-of-nothing"),
    Bad("t.tar", lambda: tarred(member("d", type=tarfile.DIRTYPE)), "holds no file", "tar-folders-only"),
]  # fmt: skip


def _crc() -> bytes:
    return patched(zipped({"f": b"hello hello"}, method=zipfile.ZIP_STORED), b"hello", b"jello")


def _other_local_name() -> bytes:
    return patched(zipped({"name": b"x" * 50}), b"name", b"evil")


def _local_size() -> bytes:
    data = zipped({"f": b"x" * 50})
    return data[:22] + struct.pack("<I", 51) + data[26:]


def _tail_in_stream() -> bytes:
    """Bytes after the end of the deflated data that the directory counts as part of it."""
    out = io.BytesIO()
    packed = zlib.compress(b"x" * 50, wbits=-15) + b"tail"
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("f", packed)
    data = _directory(out.getvalue(), 10, "<H", 8)
    for at, value in ((14, zlib.crc32(b"x" * 50)), (22, 50)):
        data = data[:at] + struct.pack("<I", value) + data[at + 4 :]
        data = _directory(data, at + 2, "<I", value)
    return data[:8] + b"\x08\x00" + data[10:]


# Listed without a fault, refused when the file is read.
LATE = [
    Bad("z.zip", _crc, "another CRC", "zip-crc"),
    Bad("z.zip", _lying_size, "other sizes|has not the 10 bytes", "zip-size-lie"),
    Bad("z.zip", _other_local_name, "another name", "zip-local-name"),
    Bad("z.zip", _local_size, "other sizes", "zip-local-size"),
    Bad("z.zip", _tail_in_stream, "after its end", "zip-tail-in-stream"),
]
