"""Tar headers: what is written is read back the same, by Kiln, by Python's tarfile and by GNU tar."""

from __future__ import annotations

import io
import os
import posixpath
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kiln.store import tarread, tarwrite
from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, OPAQUE_NAME, SYMLINK, WHITEOUT, Entry, copy_of

NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=30),
    st.binary(min_size=1, max_size=30).map(lambda data: os.fsdecode(data.replace(b"\0", b"x").replace(b"/", b"y"))),
    st.sampled_from(["é" * 60, "n" * 100, "n" * 101, "n" * 255, "ü" * 127]),
).filter(lambda name: name not in (".", "..") and not name.startswith(".wh."))
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
IDS = st.one_of(st.integers(0, 70000), st.integers(0o7777776, 2**32 - 2))
TIMES = st.one_of(st.integers(0, 2**31), st.integers(-(2**31), -1), st.integers(2**33 - 2, 2**40))
KEYS = st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="="), min_size=1, max_size=20)
XATTRS = st.one_of(
    st.none(), st.dictionaries(KEYS.map("user.".__add__), st.binary(max_size=300), min_size=1, max_size=3)
)
DEVICES = st.integers(0, 0o7777777)


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, Entry, bytes]:
    """(path, entry, content)."""
    kind = draw(st.sampled_from([FILE, DIR, SYMLINK, HARDLINK, CHAR, BLOCK, FIFO]))
    content = draw(st.binary(max_size=1500)) if kind == FILE else b""
    device = kind in (CHAR, BLOCK)
    entry = Entry(
        kind, mode=draw(st.integers(0, 0o7777)), uid=draw(IDS), gid=draw(IDS), size=len(content), mtime=draw(TIMES),
        link=draw(PATHS) if kind in (SYMLINK, HARDLINK) else "", major=draw(DEVICES) if device else 0,
        minor=draw(DEVICES) if device else 0, xattrs=draw(XATTRS),
    )  # fmt: skip
    return draw(PATHS), entry, content


def tar_of(members: list[tuple[str, Entry, bytes]]) -> bytes:
    """An archive, in one piece."""
    pieces = [
        tarwrite.header(path, entry) + content + tarwrite.padding(len(content)) for path, entry, content in members
    ]
    return b"".join(pieces) + tarwrite.END


def read(data: bytes) -> list[tuple[str, Entry, bytes]]:
    """What the reader makes of an archive."""
    return [
        (member.path, member.entry, b"".join(member.chunks()))
        for member in tarread.members(io.BytesIO(data).read, "test.tar")
    ]


@settings(deadline=None, max_examples=150)
@given(st.lists(entries(), max_size=5))
def test_round_trip(members: list[tuple[str, Entry, bytes]]) -> None:
    found = read(tar_of(members))
    plain = [(path, copy_of(entry, offset=-1), content) for path, entry, content in found]
    assert plain == members


@settings(deadline=None, max_examples=100)
@given(st.lists(entries(), max_size=5))
def test_tarfile_reads_it(members: list[tuple[str, Entry, bytes]]) -> None:
    types = {
        FILE: tarfile.REGTYPE, DIR: tarfile.DIRTYPE, SYMLINK: tarfile.SYMTYPE, HARDLINK: tarfile.LNKTYPE,
        CHAR: tarfile.CHRTYPE, BLOCK: tarfile.BLKTYPE, FIFO: tarfile.FIFOTYPE,
    }  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(tar_of(members)), errors="surrogateescape") as archive:
        found = archive.getmembers()
        assert len(found) == len(members)
        for info, (path, entry, content) in zip(found, members, strict=True):
            assert info.name == path and info.type == types[entry.kind]
            assert (info.mode, info.uid, info.gid, int(info.mtime)) == (entry.mode, entry.uid, entry.gid, entry.mtime)
            assert info.linkname == (entry.link if entry.kind != SYMLINK else info.linkname)
            assert (info.devmajor, info.devminor) == (entry.major, entry.minor)
            if entry.kind == FILE:
                file = archive.extractfile(info)
                assert file is not None and file.read() == content


@settings(deadline=None, max_examples=50)
@given(entries())
def test_same_entry_same_bytes_in_whole_blocks(member: tuple[str, Entry, bytes]) -> None:
    path, entry, _ = member
    header = tarwrite.header(path, entry)
    assert len(header) % 512 == 0
    assert header == tarwrite.header(path, copy_of(entry, digest="ab" * 32, offset=77))


def test_gnu_tar_unpacks_it(tmp_path: Path) -> None:
    long = "d/" + "x" * 200 + "/" + "ü" * 90
    members = [
        ("d", Entry(DIR, mode=0o755), b""),
        (posixpath.dirname(long), Entry(DIR, mode=0o755), b""),
        (long, Entry(FILE, mode=0o640, size=3, mtime=1700000000), b"abc"),
        ("d/raw\udcff", Entry(FILE, mode=0o600, size=1), b"r"),
        ("d/link", Entry(SYMLINK, link="t" * 150), b""),
        ("d/hard", Entry(HARDLINK, link=long), b""),
    ]
    done = subprocess.run(["tar", "-xf", "-", "-C", tmp_path], input=tar_of(members), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / long).read_bytes() == b"abc"
    assert (tmp_path / long).stat().st_mtime == 1700000000
    assert (tmp_path / "d/raw\udcff").read_bytes() == b"r"
    assert os.readlink(tmp_path / "d/link") == "t" * 150
    assert (tmp_path / "d/hard").samefile(tmp_path / long)


def test_size_beyond_octal() -> None:
    size = 9 << 30
    header = tarwrite.header("big", Entry(FILE, size=size))
    info = tarfile.TarFile(fileobj=io.BytesIO(header + bytes(1024))).next()
    assert info is not None and info.size == size
    member = next(tarread.members(io.BytesIO(header).read, "test.tar"))
    assert member.entry.size == size


@pytest.mark.parametrize(("path", "name"), [("a/gone", "a/.wh.gone"), ("gone", ".wh.gone")])
def test_whiteout_names(path: str, name: str) -> None:
    info = tarfile.TarInfo.frombuf(tarwrite.header(path, Entry(WHITEOUT, mtime=5)), "utf-8", "strict")
    assert (info.name, info.type, info.size, info.mtime) == (name, tarfile.REGTYPE, 0, 5)


@pytest.mark.parametrize(("path", "name"), [("a", "a/" + OPAQUE_NAME), ("", OPAQUE_NAME)])
def test_opaque_marker(path: str, name: str) -> None:
    info = tarfile.TarInfo.frombuf(tarwrite.opaque_header(path, 7), "utf-8", "strict")
    assert (info.name, info.type, info.mtime) == (name, tarfile.REGTYPE, 7)


@settings(deadline=None, max_examples=60)
@given(st.binary(min_size=0, max_size=12000))
def test_pax_record_counts_its_own_length(value: bytes) -> None:
    header = tarwrite.header("f", Entry(FILE, xattrs={"user.a": value}))
    record = header[512:].split(b" ", 1)
    length = int(record[0])
    assert header[512 : 512 + length] == b"%d SCHILY.xattr.user.a=%s\n" % (length, value)
