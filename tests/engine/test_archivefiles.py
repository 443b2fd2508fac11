"""Packages as trees of files: read as they are, or refused with the entry and the reason; nothing is ever written outside."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import random
import stat
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kiln.engine.archivefiles import ArchiveFiles
from kiln.errors import KilnError, SourceError
from kiln.store.entry import DIR, FILE, SYMLINK
from kiln.store.package.limits import Limits
from kiln.store.package.opened import Opened
from kiln.store.package.package import Package, open_package
from tests.sources.hostile import CORPUS, GOOD, LATE, A, Bad, link, member, tarred, zipped

FORMS = {
    "g.zip": lambda: zipped(GOOD),
    "stored.jar": lambda: zipped(GOOD, method=zipfile.ZIP_STORED),
    "g.tar": lambda: tarred(*(member(name, data) for name, data in GOOD.items())),
    "g.tar.gz": lambda: gzip.compress(FORMS["g.tar"]()),
    "g.tar.bz2": lambda: bz2.compress(FORMS["g.tar"]()),
    "g.tar.xz": lambda: lzma.compress(FORMS["g.tar"]()),
    "g.tar.zst": lambda: _zstd(FORMS["g.tar"]()),
    "pax.tgz": lambda: gzip.compress(tarred(*(member(n, d) for n, d in GOOD.items()), form=tarfile.PAX_FORMAT)),
}


def _zstd(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(data)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path


def put(place: Path, name: str, data: bytes) -> Path:
    path = place / name
    path.write_bytes(data)
    return path


def opened(place: Path, name: str, data: bytes, limits: Limits | None = None) -> Package:
    return open_package(put(place, name, data), place / "scratch", limits)


def contents(package: Package) -> dict[str, bytes]:
    return {path: b"".join(package.read(path)) for path, entry in package.entries.items() if entry.kind == FILE}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_tree(place, name):
    with opened(place, name, FORMS[name]()) as package:
        assert contents(package) == GOOD
        files = ArchiveFiles(package)
        assert files.children("") == ["app"] and files.get("").kind == DIR
        assert files.children("app") == ["control", "data.txt", "empty"]
        assert files.get("app").kind == DIR and files.get("nothing") is None
        entry = files.get("app/data.txt")
        assert (entry.kind, entry.mode, entry.uid, entry.size) == (FILE, 0o644, 0, 24000)
        want = hashlib.sha256(GOOD["app/data.txt"]).hexdigest()
        assert files.known_digest("app/data.txt", entry) == (want if package.form.startswith("tar.") else "")
        assert files.digest("app/data.txt", entry) == want == files.known_digest("app/data.txt", entry)
        assert files.inode("app/data.txt", entry) is None
    assert list((place / "scratch").iterdir()) == []


def test_below_a_root(place):
    with opened(place, "g.zip", zipped(GOOD)) as package:
        files = ArchiveFiles(package, "app")
        assert files.children("") == ["control", "data.txt", "empty"] and files.get("").kind == DIR
        assert b"".join(files.chunks("control", files.get("control"))) == GOOD["app/control"]


def test_modes_and_links_of_tars(place):
    data = tarred(
        member("run", b"x", mode=0o4755), member("d", type=tarfile.DIRTYPE, mode=0o750), link("d/l", "../run"),
        link("same", "run", tarfile.LNKTYPE), member("d/f", b"y", mode=0o600, uid=1000, uname="me"),
    )  # fmt: skip
    with opened(place, "t.tar", data) as package:
        found = package.entries
        assert [found[path].mode for path in ("run", "d", "d/f")] == [0o755, 0o750, 0o600]
        assert found["d/f"].uid == 0 and (found["d/l"].kind, found["d/l"].link) == (SYMLINK, "../run")
        files = ArchiveFiles(package)
        inodes = {path: files.inode(path, found[path]) for path in ("run", "same", "d/f")}
        assert inodes["run"] == inodes["same"] is not None and inodes["d/f"] is None
        assert b"".join(package.read("same")) == b"x"


def test_modes_and_links_of_zips(place):
    modes = {"run": stat.S_IFREG | 0o755, "l": stat.S_IFLNK | 0o777, "d/": stat.S_IFDIR | 0o700}
    with opened(place, "z.zip", zipped({"run": b"x", "l": b"run", "d/": b"", "plain": b""}, modes=modes)) as package:
        found = package.entries
        assert [found[path].mode for path in ("run", "d", "plain")] == [0o755, 0o700, 0o644]
        assert (found["l"].kind, found["l"].link) == (SYMLINK, "run")


def test_zips_without_unix_modes(place):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name in ("d/", "d/f"):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 0, 0o777 << 16
            made.writestr(info, b"")
    with opened(place, "z.zip", out.getvalue()) as package:
        assert [package.entries[path].mode for path in ("d", "d/f")] == [0o755, 0o644]


def test_links_that_stay_inside(place):
    data = tarred(A, link("d/self", "."), link("d/up", "../a"), link("d/nowhere", "missing"), link("x", "d/self/up"))
    with opened(place, "t.tar", data) as package:
        assert len(package.entries) == 6


def test_sparse_members(place):
    data = b"head" + bytes(1 << 20) + b"tail"
    path = place / "sparse"
    path.write_bytes(b"head")
    with path.open("r+b") as file:
        file.seek(4 + (1 << 20))
        file.write(b"tail")
    for form in ("gnu", "posix"):
        made = place / f"{form}.tar"
        subprocess.run(["tar", "-S", f"--format={form}", "-C", place, "-cf", made, "sparse"], check=True)
        with open_package(made, place / "scratch") as package:
            assert contents(package) == {"sparse": data}


def test_zip64(place):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for index in range(66000):
            made.writestr(f"{index}", b"")
        with made.open("big", "w", force_zip64=True) as file:
            file.write(b"x" * 1000)
    with opened(place, "z.zip", out.getvalue()) as package:
        assert len(package.entries) == 66001 and b"".join(package.read("big")) == b"x" * 1000


def test_zip_with_sizes_after_the_content(place):
    class Pipe(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a", b"x" * 5000)
        made.writestr("b", b"y" * 5000)
    with opened(place, "z.zip", bytes(out.data)) as package:
        assert contents(package) == {"a": b"x" * 5000, "b": b"y" * 5000}


def test_names_in_other_alphabets(place):
    with opened(place, "z.zip", zipped({"über/мир": b"1", "日本": b"2"})) as package:
        assert set(contents(package)) == {"über/мир", "日本"}


def test_names_that_are_not_utf8_are_counted(place):
    data = tarred(member("a"), member("caf\udce9"), member("caf\xe9"))
    with opened(place, "t.tar", data) as package:
        assert [text[:28] for text in package.warnings] == ["1 names are not UTF-8; their"]
    plain = zipped({"aXb": b"x", "\xfcber": b"y"}).replace(b"aXb", b"a\x81b")
    with opened(place, "z.zip", plain) as package:
        assert "a\xfcb" in package.entries and "1 names are not marked as UTF-8" in package.warnings[0]
    with opened(place, "u.zip", zipped({"\xfcber": b"y"})) as package:
        assert package.warnings == ()


def test_what_is_skipped_of_a_folder_is_not_looked_at(place):
    (place / "folder" / "pipes").mkdir(parents=True)
    (place / "folder" / "f").write_bytes(b"x")
    os.mkfifo(place / "folder" / "pipes" / "pipe")
    with open_package(place / "folder", place / "scratch", skip=lambda path: path == "pipes") as package:
        assert list(package.entries) == ["f"]


@pytest.mark.parametrize(
    ("name", "data", "says", "hint"),
    [
        ("a.exe", b"MZ\x90", "a program for Windows, which is no zip", "a program for Linux"),
        ("a.rar", b"Rar!\x1a", "it is a rar", "Give an archive"),
        ("run.sh", b"#!/bin/sh\n", "it is a script", "called control"),
        ("page", b"<html>", r"a page \(HTML\)", "Give an archive"),
        ("t.tar", tarred(member("../x", b"x")), "climbs out", "Pack from inside the folder"),
        ("z.zip", zipped({}), "holds no file", "Put in"),
    ],
)
def test_reasons_come_with_what_to_do(place, name, data, says, hint):
    with pytest.raises(SourceError, match=says) as refused:
        opened(place, name, data)
    assert hint in refused.value.hint


def test_a_flipped_byte_is_damage(place):
    data = bytearray(zipped({"f": random.Random(1).randbytes(20) * 500}))
    for at in (35, 45, 60):
        changed = bytes(data[:at]) + bytes([data[at] ^ 0xFF]) + bytes(data[at + 1 :])
        with opened(place, "z.zip", changed) as package, pytest.raises(SourceError) as refused:
            contents(package)
        assert "cut off" not in refused.value.message and "again" in refused.value.hint


def test_a_folder(place):
    root = place / "folder"
    (root / "d").mkdir(parents=True)
    (root / "d" / "f").write_bytes(b"content")
    (root / "l").symlink_to("d/f")
    with open_package(root, place / "scratch") as package:
        assert package.kind == "folder" and contents(package) == {"d/f": b"content"}
        (root / "d" / "f").write_bytes(b"other content")
        with pytest.raises(SourceError, match="changed"):
            b"".join(package.read("d/f"))
    os.mkfifo(root / "pipe")
    with pytest.raises(SourceError, match="named pipe"):
        open_package(root, place / "scratch")


def test_a_program(place):
    with open_package(Path("/proc/self/exe").resolve(), place / "scratch", name="server") as package:
        assert package.kind == "elf" and package.entries["server"].mode == 0o755
        assert package.head("server", 4) == b"\x7fELF"


@pytest.mark.parametrize("bad", CORPUS, ids=lambda bad: bad.id)
def test_hostile_packages_are_refused(place, bad: Bad):
    with pytest.raises(SourceError, match=bad.says) as caught:
        opened(place, bad.name, bad.make()).close()
    assert caught.value.where == bad.name and caught.value.hint and str(caught.value).isprintable()
    assert list((place / "scratch").iterdir()) == []


@pytest.mark.parametrize("bad", LATE, ids=lambda bad: bad.id)
def test_what_only_shows_when_it_is_read(place, bad: Bad):
    with opened(place, bad.name, bad.make()) as package, pytest.raises(SourceError, match=bad.says):
        contents(package)


LIMITED = [
    (Limits(entries=2), "more than 2 entries"),
    (Limits(total=100), "more than 100 bytes come out"),
    (Limits(ratio=2, ratio_from=100), "bomb"),
    (Limits(path=8), "longer than 8 bytes"),
    (Limits(component=5), "or 5 between"),
    (Limits(depth=1), "more than 1 folders deep"),
    (Limits(names=10), "longer than 10 bytes together|names and entries may have"),
]


@pytest.mark.parametrize("name", ["g.zip", "g.tar.gz"])
@pytest.mark.parametrize(("limits", "says"), LIMITED)
def test_limits_can_be_set(place, name, limits, says):
    with pytest.raises(SourceError, match=says):
        opened(place, name, FORMS[name](), limits)


def test_folders_made_up_count_too(place):
    with pytest.raises(SourceError, match="more than 50 entries"):
        opened(
            place,
            "z.zip",
            zipped({"/".join("abcdefgh"[: i % 8 + 1]) + f"/{i}/f": b"" for i in range(30)}),
            Limits(entries=50),
        )


def test_case_can_be_let_through(place):
    with opened(place, "z.jar", zipped({"a.class": b"1", "A.class": b"2"}), Limits(case_collisions=True)) as package:
        assert len(contents(package)) == 2


def test_folders_may_differ_by_case(place):
    with opened(place, "z.jar", zipped({"META-INF/LICENSE": b"1", "META-INF/license/x": b"2"})) as package:
        assert len(contents(package)) == 2


def test_listing_a_zip_reads_its_directory_alone(place, monkeypatch):
    rng = random.Random(1)
    data = zipped({f"f{index}": rng.randbytes(100000) for index in range(50)})
    read = 0

    def counted(real):
        def inner(self, *args, **kwargs):
            nonlocal read
            got = real(self, *args, **kwargs)
            read += len(got)
            return got

        return inner

    monkeypatch.setattr(Opened, "at", counted(Opened.at))
    monkeypatch.setattr(Opened, "some", counted(Opened.some))
    with opened(place, "z.zip", data):
        assert read < 80000  # the end record is looked for in the last 64 KiB


def test_a_file_that_changes_is_noticed(place):
    with opened(place, "z.zip", zipped(GOOD)) as package:
        path = place / "z.zip"
        os.utime(path, (1, 1))
        with pytest.raises(SourceError, match="changed"):
            contents(package)


@given(st.sampled_from(sorted(FORMS)), st.data())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_mutations_are_read_or_refused(tmp_path_factory, name, data):
    """Whatever happens to an archive, reading it ends in files or in an error of ours, and leaves nothing behind."""
    place = tmp_path_factory.getbasetemp() / "mutations"
    (place / "scratch").mkdir(parents=True, exist_ok=True)
    raw = bytearray(FORMS[name]())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(raw) - 1))
        what = data.draw(st.sampled_from(["flip", "cut", "insert", "copy"]))
        if what == "flip":
            raw[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del raw[at : at + data.draw(st.integers(1, 64))]
            raw = raw or bytearray(b"P")
        elif what == "insert":
            raw[at:at] = data.draw(st.binary(min_size=1, max_size=16))
        else:
            start = data.draw(st.integers(0, len(raw) - 1))
            raw[at : at + 32] = raw[start : start + 32]
    try:
        with opened(place, name, bytes(raw)) as package:
            got = contents(package)
        assert all(len(data) == package.entries[path].size for path, data in got.items())
        if name.startswith(("g.zip", "stored")):
            assert all(data in GOOD.values() for data in got.values())
    except KilnError as bad:
        assert str(bad).isprintable()
    assert sorted(path.name for path in place.iterdir()) == sorted({"scratch", *(p.name for p in place.glob("*.*"))})
    assert list((place / "scratch").iterdir()) == []


_NAMES = st.lists(
    st.sampled_from(["a", "b", "l", "A", ".", "..", "", "\\", "C:", ".wh.x", "\n"]), min_size=1, max_size=4
).map("/".join)
_SOBER = st.lists(st.sampled_from(["a", "b", "l", "."]), min_size=1, max_size=3).map("/".join)
_TARGETS = st.lists(st.sampled_from(["a", "b", "l", "..", "..", "."]), min_size=1, max_size=5).map("/".join)
_TYPES = [tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]
_MEMBERS = st.lists(st.tuples(st.one_of(_SOBER, _SOBER, _SOBER, _NAMES), st.sampled_from(_TYPES), _TARGETS), max_size=5)


@given(_MEMBERS, st.booleans())
@settings(max_examples=500, deadline=None)
def test_trees_that_are_taken_stay_inside(tmp_path_factory, members, as_zip):
    """Made of names and links that lead everywhere: what is taken has clean paths, and on a real file system no link of
    it leads out."""
    place = tmp_path_factory.mktemp("tree")
    (place / "scratch").mkdir()
    members = [("file", tarfile.REGTYPE, ""), *members]
    try:
        package = opened(place, "t.zip", _as_zip(members)) if as_zip else opened(place, "t.tar", _as_tar(members))
    except KilnError:
        return
    with package:
        root = place / "root"
        for path, entry in sorted(package.entries.items()):
            assert not path.startswith("/") and ".." not in path.split("/") and path.isprintable()
            parent = path.rpartition("/")[0]
            assert not parent or package.entries[parent].kind == DIR
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            if entry.kind == SYMLINK:
                (root / path).symlink_to(entry.link)
            elif entry.kind == DIR:
                (root / path).mkdir(exist_ok=True)
            else:
                (root / path).write_bytes(b"".join(package.read(path)))
        for path, entry in package.entries.items():
            if entry.kind == SYMLINK:
                assert Path(os.path.realpath(root / path)).is_relative_to(root)


def _as_tar(members: list[tuple[str, bytes, str]]) -> bytes:
    return tarred(
        *(member(name, b"x" if kind == tarfile.REGTYPE else b"", type=kind, linkname=to) for name, kind, to in members)
    )


def _as_zip(members: list[tuple[str, bytes, str]]) -> bytes:
    kinds = {tarfile.DIRTYPE: stat.S_IFDIR, tarfile.SYMTYPE: stat.S_IFLNK}
    contents = {tarfile.DIRTYPE: b"", tarfile.SYMTYPE: None}
    files = {name: contents.get(kind, b"x") for name, kind, _ in members}
    files = {name: to.encode() if files[name] is None else files[name] for name, _, to in members}
    return zipped(files, modes={name: kinds.get(kind, stat.S_IFREG) | 0o755 for name, kind, _ in members})


_LARGE = r"""
import re, sys
from pathlib import Path
from kiln.engine.archivefiles import ArchiveFiles
from kiln.store.package.package import open_package
with open_package(Path(sys.argv[1]), Path(sys.argv[2])) as package:
    files = ArchiveFiles(package)
    files.digest("big", files.get("big"))
    # Not ru_maxrss: that begins with what the process was before it became this program.
    print(re.search(r"VmHWM:\s*([0-9]+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["big.zip", "big.tar", "big.tar.gz"])
def test_memory_stays_small(place, name):
    block = random.Random(2).randbytes(1 << 20)
    with (place / "big").open("wb") as file:
        for _ in range(1024):
            file.write(block)
    commands = {
        "big.zip": ["zip", "-q", "-1", name, "big"], "big.tar": ["tar", "-cf", name, "big"],
        "big.tar.gz": ["tar", "--use-compress-program=gzip -1", "-cf", name, "big"],
    }  # fmt: skip
    subprocess.run(commands[name], cwd=place, check=True) if name != "big.zip" else _zip(place)
    (place / "big").unlink()
    ended = subprocess.run(
        [sys.executable, "-c", _LARGE, place / name, place / "scratch"], check=True, capture_output=True, text=True
    )
    assert int(ended.stdout) < 150 << 10


def _zip(place: Path) -> None:
    with zipfile.ZipFile(place / "big.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as made:
        made.write(place / "big", "big")


def test_no_descriptor_is_left_open(place):
    before = len(os.listdir("/proc/self/fd"))
    for bad in CORPUS[:40]:
        with pytest.raises(SourceError):
            opened(place, bad.name, bad.make())
    assert len(os.listdir("/proc/self/fd")) <= before
