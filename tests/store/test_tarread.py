"""The tar reader: archives of other tools, and archives that nobody should have made."""

from __future__ import annotations

import io
import posixpath
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kiln.errors import SourceError
from kiln.store import tarread, tarwrite
from kiln.store.entry import CHAR, DIR, FIFO, FILE, HARDLINK, SYMLINK, WHITEOUT, Entry, clean


def read(data: bytes) -> list[tuple[str, Entry, bytes]]:
    """What the reader makes of an archive."""
    return [
        (member.path, member.entry, b"".join(member.chunks()))
        for member in tarread.members(io.BytesIO(data).read, "test.tar")
    ]


def info(name: str, **facts: object) -> tarfile.TarInfo:
    """A member for tarfile."""
    made = tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(made, key, value)
    return made


def archive(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by tarfile."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, errors="surrogateescape") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def sealed(block: bytearray) -> bytes:
    """A header block with its checksum put right."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def raw(name: bytes, kind: bytes, size: int = 0, content: bytes = b"", **fields: tuple[int, bytes]) -> bytes:
    """A member made by hand; `fields` are (place in the header, bytes)."""
    block = bytearray(512)
    block[: len(name)] = name
    block[100:108] = b"0000644\0"
    block[108:116] = block[116:124] = b"0000000\0"
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % 0
    block[156:157] = kind
    block[257:265] = b"ustar\x0000"
    for place, value in fields.values():
        block[place : place + len(value)] = value
    return sealed(block) + content + bytes(-len(content) % 512)


def pax(records: dict[str, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    body = b"".join(tarwrite._record(key.encode(), value) for key, value in records.items())
    return raw(b"PaxHeaders", kind, len(body), body)


SAMPLES = [
    (info("dir", type=tarfile.DIRTYPE, mode=0o750), b""),
    (info("dir/file", mode=0o4755, uid=1000, gid=1001, mtime=1234567), b"x" * 1000),
    (info("dir/empty", mode=0o600), b""),
    (info("dir/link", type=tarfile.SYMTYPE, linkname="../up"), b""),
    (info("hard", type=tarfile.LNKTYPE, linkname="dir/file"), b""),
    (info("char", type=tarfile.CHRTYPE, devmajor=1, devminor=3), b""),
    (info("fifo", type=tarfile.FIFOTYPE), b""),
]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats(form: int) -> None:
    found = {path: (entry, content) for path, entry, content in read(archive(SAMPLES, form))}
    assert list(found) == ["dir", "dir/file", "dir/empty", "dir/link", "hard", "char", "fifo"]
    entry, content = found["dir/file"]
    assert (entry.kind, entry.mode, entry.uid, entry.gid, entry.mtime) == (FILE, 0o4755, 1000, 1001, 1234567)
    assert content == b"x" * 1000 and entry.size == 1000
    assert found["dir"][0].kind == DIR and found["dir"][0].mode == 0o750
    assert (found["dir/link"][0].kind, found["dir/link"][0].link) == (SYMLINK, "../up")
    assert (found["hard"][0].kind, found["hard"][0].link) == (HARDLINK, "dir/file")
    assert (found["char"][0].kind, found["char"][0].major, found["char"][0].minor) == (CHAR, 1, 3)
    assert found["fifo"][0].kind == FIFO


def test_ustar_prefix() -> None:
    name = "a" * 80 + "/" + "b" * 80
    data = archive([(info(name), b"c")], tarfile.USTAR_FORMAT)
    assert data[345:349] == b"aaaa"
    assert read(data)[0][0] == name


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_links(form: int) -> None:
    name, link = "n" * 300, "l" * 300
    members = [(info(name), b"one"), (info("s", type=tarfile.SYMTYPE, linkname=link), b""), (info("after"), b"two")]
    found = read(archive(members, form))
    assert [(path, content) for path, _, content in found] == [(name, b"one"), ("s", b""), ("after", b"two")]
    assert found[1][1].link == link


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_are_no_text(form: int) -> None:
    assert read(archive([(info("a\udcff\udc80"), b""), (info("b\udcfe" * 120), b"")], form))[1][0] == "b\udcfe" * 120


def test_base_256_numbers() -> None:
    entry = read(archive([(info("f", uid=2**28, gid=2**29, mtime=-5), b"x")], tarfile.GNU_FORMAT))[0][1]
    assert (entry.uid, entry.gid, entry.mtime) == (2**28, 2**29, -5)
    size = raw(b"big", b"0", 0, length=(124, b"\x80" + (9 << 30).to_bytes(11, "big")))
    assert next(tarread.members(io.BytesIO(size).read, "t")).entry.size == 9 << 30


@pytest.mark.parametrize("form", ["gnu", "posix", "posix-0.0", "posix-0.1"])
def test_sparse_members_of_gnu_tar(tmp_path: Path, form: str) -> None:
    """GNU tar's four ways to leave holes out; 60 pieces need the old format's extension blocks."""
    with (tmp_path / "holes").open("wb") as file:
        for index in range(60):
            file.seek(index * 65536)
            file.write(bytes([index + 1]) * 4096)
        file.truncate(5_000_000)
    (tmp_path / "after").write_bytes(b"after")
    format_, _, version = form.partition("-")
    argv = ["tar", "--sparse", f"--format={format_}", *([f"--sparse-version={version}"] if version else [])]
    data = subprocess.run([*argv, "-cf", "-", "-C", tmp_path, "holes", "after"], capture_output=True, check=True).stdout
    assert len(data) < 400_000, "the file system of the test has no holes"
    (path, entry, content), after = read(data)
    assert path == "holes" and entry.sparse is not None and entry.size == 5_000_000
    assert content == (tmp_path / "holes").read_bytes()
    assert (after[0], after[2]) == ("after", b"after")


def test_sparse_content_by_offset(tmp_path: Path) -> None:
    """The entry alone is enough to find the pieces in the tar."""
    from kiln.store.layers import tar_content

    with (tmp_path / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    for form in ("gnu", "posix"):
        subprocess.run(
            ["tar", "--sparse", f"--format={form}", "-cf", tmp_path / "t", "-C", tmp_path, "holes"], check=True
        )
        entry = read((tmp_path / "t").read_bytes())[0][1]
        assert b"".join(tar_content(tmp_path / "t", entry)) == (tmp_path / "holes").read_bytes()


@pytest.mark.parametrize(
    ("name", "cleaned"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("//etc//passwd", "etc/passwd"),
        ("a/../../b", "b"),
        ("./a/./b", "a/b"),
        ("./", ""),
        ("..", ""),
    ],
)
def test_names_are_cleaned(name: str, cleaned: str) -> None:
    member = next(tarread.members(io.BytesIO(raw(name.encode(), b"5")).read, "t"))
    assert (member.path, member.raw_name) == (cleaned, name)
    link = read(raw(b"l", b"1", link=(157, name.encode())))[0][1]
    assert link.link == cleaned


@given(st.text("ab./", max_size=12))
def test_the_short_way_to_clean_a_name_is_the_long_one(name: str) -> None:
    assert clean(name) == posixpath.normpath("/" + name).lstrip("/")


def test_a_symlink_keeps_its_text() -> None:
    assert read(raw(b"l", b"2", link=(157, b"../../x/")))[0][1].link == "../../x/"


def test_file_with_slash_at_its_end_is_a_folder() -> None:
    assert read(raw(b"old/", b"\0"))[0][1].kind == DIR


def test_pax_records_win_and_last_for_one_member() -> None:
    data = pax({"path": b"given", "uid": b"3000000000", "mtime": b"12.75"}) + raw(b"short", b"0") + raw(b"next", b"0")
    first, second = read(data)
    assert (first[0], first[1].uid, first[1].mtime) == ("given", 3000000000, 12)
    assert (second[0], second[1].uid) == ("next", 0)


def test_global_pax_records_last() -> None:
    data = pax({"uid": b"7"}, b"g") + raw(b"a", b"0") + pax({"uid": b"8"}) + raw(b"b", b"0") + raw(b"c", b"0")
    assert [entry.uid for _, entry, _ in read(data)] == [7, 8, 7]


def test_xattrs() -> None:
    data = pax({"SCHILY.xattr.user.k": b"a=b\nc\0\xff"}) + raw(b"a", b"0")
    assert read(data)[0][1].xattrs == {"user.k": b"a=b\nc\0\xff"}


def test_unknown_kinds_are_passed_over() -> None:
    data = raw(b"odd", b"V", 700, b"v" * 700) + raw(b"a", b"0", 1, b"x")
    assert [(path, content) for path, _, content in read(data)] == [("a", b"x")]


def test_content_that_is_not_read_is_skipped() -> None:
    data = archive([(info("a"), b"a" * 5000), (info("b"), b"b" * 10)])
    assert [member.path for member in tarread.members(io.BytesIO(data).read, "t")] == ["a", "b"]


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 10**6])
def test_any_size_of_read(step: int) -> None:
    data = archive(SAMPLES)
    stream = io.BytesIO(data)
    found = [(member.path, b"".join(member.chunks())) for member in tarread.members(lambda _: stream.read(step), "t")]
    assert found == [(path, content) for path, _, content in read(data)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_truncated_anywhere(form: int) -> None:
    """Cut between two members an archive is complete; cut inside one it is damaged."""
    long = [] if form == tarfile.USTAR_FORMAT else [(info("n" * 200), b"y" * 600)]
    data = archive([*SAMPLES, *long], form)
    whole = [path for path, _, _ in read(data)]
    for cut in [*range(0, len(data), 512), *range(100, len(data), 777)]:
        try:
            found = [path for path, _, _ in read(data[:cut])]
        except SourceError as bad:
            assert "test.tar" in str(bad) and "byte" in str(bad)
        else:
            assert found == whole[: len(found)]
    with pytest.raises(SourceError, match="cut off"):
        read(data[: 512 + 512 + 700])


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=3000))
@example(b"\xff" * 512)
@example(b"\0" * 511)
def test_random_bytes(data: bytes) -> None:
    try:
        read(data)
    except SourceError:
        pass


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An archive with some bytes changed and the checksums made right again, so that the damage gets past them."""
    records = {
        "path": b"p",
        "size": b"3",
        "uid": b"1",
        "mtime": b"1.5",
        "GNU.sparse.map": b"0,1,5,2",
        "GNU.sparse.size": b"9",
    }
    chosen = draw(
        st.dictionaries(st.sampled_from(sorted(records)), st.one_of(st.binary(max_size=6), st.just(b"")), max_size=3)
    )
    kind = draw(st.sampled_from([b"0", b"1", b"2", b"5", b"S", b"L", b"x", b"g", b"V"]))
    block = bytearray(raw(b"name", kind, draw(st.integers(0, 2000)))[:512])
    for place, value in draw(st.dictionaries(st.integers(0, 511), st.integers(0, 255), max_size=12)).items():
        block[place] = value
    return (
        pax({**records, **chosen} if draw(st.booleans()) else {"path": b"q"})
        + sealed(block)
        + draw(st.binary(max_size=2048))
    )


@settings(deadline=None, max_examples=150)
@given(damaged())
def test_damage_behind_a_good_checksum(data: bytes) -> None:
    """Members or SourceError, never another exception, and never an endless hole."""
    try:
        for member in tarread.members(io.BytesIO(data).read, "t"):
            if member.entry.sparse is None or member.entry.size < 1 << 24:
                b"".join(member.chunks())
    except SourceError:
        pass


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K"])
def test_huge_extended_header_is_refused(kind: bytes) -> None:
    """It is refused by what its header says, before anything of it is read."""
    with pytest.raises(SourceError, match="too large"):
        read(raw(b"x", kind, (1 << 20) + 1))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"not a tar" * 100, "octal|checksum"),
        (raw(b"n", b"0", length=(124, b"-0000000001\0")), "negative size"),
        (raw(b"n", b"0", length=(124, b"\xff" * 12)), "negative size"),
        (raw(b"n", b"0", mode=(100, b"00009zz\0")), "not octal"),
        (pax({"size": b"-1"}) + raw(b"n", b"0"), "negative size"),
        (pax({"uid": b"many"}) + raw(b"n", b"0"), "number in a pax record"),
        (pax({"mtime": b"inf"}) + raw(b"n", b"0"), "number in a pax record"),
        (raw(b"x", b"x", 5, b"hello") + raw(b"n", b"0"), "has no length"),
        (raw(b"x", b"x", 9, b"99 a=b\n\0\0") + raw(b"n", b"0"), "malformed"),
        (pax({"GNU.sparse.map": b"0,9", "GNU.sparse.size": b"5"}) + raw(b"n", b"0", 9, b"x" * 9), "sparse"),
        (pax({"GNU.sparse.map": b"5,1,0,1", "GNU.sparse.size": b"9"}) + raw(b"n", b"0", 2, b"xx"), "sparse"),
        (pax({"GNU.sparse.map": b"0,1", "GNU.sparse.size": b"9"}) + raw(b"n", b"0", 2, b"xx"), "does not fit"),
        (pax({"GNU.sparse.major": b"1"}) + raw(b"n", b"0", 2, b"xx"), "sparse"),
    ],
)
def test_what_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(data)


@pytest.mark.parametrize("kind", [b"1", b"2", b"5"])
def test_links_and_folders_have_no_content(kind: bytes) -> None:
    """Some tools write a size into them; POSIX and every reader take it as zero."""
    data = raw(b"odd", kind, 3, link=(157, b"t")) + raw(b"file", b"0", 1, b"x") + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(data)) as peer:
        assert peer.getnames() == ["odd", "file"]
    assert [path for path, _, _ in read(data)] == ["odd", "file"]


@pytest.mark.parametrize("records", [{"path": b"a\0b"}, {"linkpath": b"a\0b"}])
def test_a_name_with_a_zero_byte(records: dict[str, bytes]) -> None:
    """Such a name cannot be put on any disk."""
    with pytest.raises(SourceError):
        read(pax(records) + raw(b"n", b"2"))


@pytest.mark.parametrize("records", [{"uid": b"9" * 30}, {"mtime": b"1e40"}])
def test_numbers_that_no_file_system_has(records: dict[str, bytes]) -> None:
    """They are refused, or come out so that a table of contents can hold them."""
    from kiln.store import toc

    try:
        found = [(path, entry) for path, entry, _ in read(pax(records) + raw(b"n", b"0"))]
    except SourceError:
        return
    toc.encode(found)
    assert all(len(tarwrite.header(path, entry)) % 512 == 0 for path, entry in found)


def test_negative_base_256_owner_can_be_written_again() -> None:
    try:
        path, entry, _ = read(raw(b"n", b"0", uid=(108, b"\xc0" + bytes(7))))[0]
    except SourceError:
        return
    assert len(tarwrite.header(path, entry)) % 512 == 0


def layer_entry(name: str) -> tuple[str, Entry]:
    """What a layer's member of this name means."""
    return tarread.layer_entry(next(tarread.members(io.BytesIO(raw(name.encode(), b"0")).read, "t")))


def test_whiteouts() -> None:
    assert layer_entry("a/.wh.b") == ("a/b", Entry(WHITEOUT))
    assert layer_entry(".wh.b") == ("b", Entry(WHITEOUT))
    path, entry = layer_entry("a/.wh..wh..opq")
    assert (path, entry.kind, entry.opaque, entry.mode) == ("a", DIR, True, -1)
    assert layer_entry(".wh..wh..opq")[0] == ""
    assert layer_entry("a/.whale")[0] == "a/.whale"
    assert layer_entry("a/x.wh.y")[0] == "a/x.wh.y"
