"""What COPY takes and where it puts it, from a folder on disk onto a tree without one."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from kiln.dockerfile.instructions import Copy
from kiln.dockerfile.parser import parse
from kiln.dockerfile.patterns import Matcher
from kiln.dockerfile.reading import read
from kiln.engine.copying import Look, is_archive, put_bytes, put_selection, unpack
from kiln.engine.edit import Edit
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import FolderFiles, Without
from kiln.engine.modes import parse_mode
from kiln.engine.select import Selection, digest_of, select
from kiln.engine.users import Owner
from kiln.errors import DockerfileError, SourceError
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry
from kiln.store.layer import Compression
from kiln.store.store import Store
from kiln.store.toc import Toc
from kiln.store.tree import Tree

TIME = 1234


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A folder with some of everything."""
    root = tmp_path / "context"
    (root / "d" / "s").mkdir(parents=True)
    (root / "e").mkdir()
    for name in ("a.txt", "b.txt", "d/one", "d/two.txt", "d/s/three.txt", "e/four.txt"):
        (root / name).write_text(name)
    (root / "l").symlink_to("d/one")
    (root / "ld").symlink_to("d")
    (root / "out").symlink_to("../../../a.txt")
    os.link(root / "d" / "one", root / "d" / "again")
    (root / "d" / "one").chmod(0o751)
    return root


def copy_of(line: str) -> Copy:
    """The instruction of a line."""
    instruction = read(parse(f"FROM scratch\n{line}\n".encode(), "Dockerfile")).stages[0].instructions[0]
    assert isinstance(instruction, Copy)
    return instruction


def chosen(root: Path, line: str, ignore: tuple[str, ...] = ()) -> list[Selection]:
    """What a COPY takes."""
    files = FolderFiles(root, FileIndex(None, root))
    copy = copy_of(line)
    return select(Without(files, Matcher(ignore)) if ignore else files, copy, copy.sources)


def names(selections: list[Selection]) -> list[str]:
    """The paths that are taken, as the source has them; folders with a slash."""
    return [
        item.path + "/" * (item.entry.kind == DIR) for selection in selections for item in selection.items if item.path
    ]


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("COPY a.txt /", ["a.txt"]),
        ("COPY ../../a.txt /", ["a.txt"]),
        ("COPY l /", ["d/one"]),
        ("COPY out /", ["a.txt"]),
        ("COPY ld/s /", ["d/s/", "d/s/three.txt"]),
        ("COPY *.txt /", ["a.txt", "b.txt"]),
        ("COPY [ab].txt a.txt /", ["a.txt", "b.txt", "a.txt"]),
        ("COPY */*.txt /", ["d/two.txt", "e/four.txt"]),
        ("COPY d/?ne /", ["d/one"]),
        ("COPY nothing* /", []),
        ("COPY --exclude=*.txt d /", ["d/", "d/again", "d/one", "d/s/", "d/s/three.txt"]),
        ("COPY --exclude=**/*.txt d /", ["d/", "d/again", "d/one", "d/s/"]),
        ("COPY --exclude=** --exclude=!s/three.txt d /", ["d/", "d/s/", "d/s/three.txt"]),
        ("COPY --exclude=s d /", ["d/", "d/again", "d/one", "d/two.txt"]),
        ("COPY --parents d/s/*.txt /", ["d/", "d/s/", "d/s/three.txt"]),
        (
            "COPY --parents **/*.txt /",
            ["a.txt", "b.txt", "d/", "d/s/", "d/s/three.txt", "d/two.txt", "e/", "e/four.txt"],
        ),
        ("COPY --parents --exclude=d/s **/t*.txt /", ["d/", "d/two.txt"]),
    ],
)
def test_what_is_taken(context: Path, line: str, taken: list[str]) -> None:
    assert names(chosen(context, line)) == taken


def test_ignored(context: Path) -> None:
    assert names(chosen(context, "COPY . /", ("d", "!d/s", "*.txt", "l*", "out"))) == [
        "d/",
        "d/s/",
        "d/s/three.txt",
        "e/",
        "e/four.txt",
    ]
    with pytest.raises(SourceError, match=r'"/a\.txt": not found') as error:
        chosen(context, "COPY a.txt /", ("*.txt",))
    assert "dockerignore" in error.value.hint


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("COPY a.tx /", "Did you mean a.txt"),
        ("COPY d/twwo.txt /", "d/two.txt"),
        ("COPY ../zzz /", "cannot leave"),
        ("COPY nodir/* /", ""),
    ],
)
def test_not_found(context: Path, line: str, hint: str) -> None:
    with pytest.raises(SourceError, match="not found") as error:
        chosen(context, line)
    assert hint in error.value.hint


def test_bad_pattern(context: Path) -> None:
    with pytest.raises(DockerfileError, match="pattern"):
        chosen(context, "COPY a[ /")


BASE: Toc = [
    ("app", Entry(DIR, mode=0o700, uid=5, gid=6)), ("app/old", Entry(FILE, mode=0o644)), ("cur", Entry(SYMLINK, link="/app")),
    ("esc", Entry(SYMLINK, link="../../app")), ("sg", Entry(DIR, mode=0o2775, gid=50)), ("file", Entry(FILE, mode=0o644)),
    ("dangling", Entry(SYMLINK, link="made")),
]  # fmt: skip


def copied(store: Store, root: Path, *lines: str, look: Look = Look()) -> dict[str, Entry]:
    """The layer that COPY instructions give on the base."""
    tree = Tree()
    tree.apply(BASE, "base")
    edit = Edit(tree, TIME)
    for line in lines:
        for selection in chosen(root, line):
            put_selection(edit, selection, copy_of(line).destination.lstrip("/"), look)
    with store.layers.writer(Compression()) as writer:
        edit.write(writer)
        writer.finish()
    return dict(writer.toc)


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ("COPY a.txt /x", ["x"]),
        ("COPY a.txt /x/", ["x", "x/a.txt"]),
        ("COPY a.txt /app", ["app", "app/a.txt"]),
        ("COPY a.txt /cur", ["app", "app/a.txt"]),
        ("COPY a.txt /cur/y", ["app", "app/y"]),
        ("COPY a.txt /esc/y", ["app", "app/y"]),
        ("COPY a.txt /dangling", ["made"]),
        ("COPY a.txt b.txt /n/m/", ["n", "n/m", "n/m/a.txt", "n/m/b.txt"]),
        ("COPY d /app", ["app", "app/again", "app/one", "app/s", "app/s/three.txt", "app/two.txt"]),
        ("COPY ld /app", ["app", "app/again", "app/one", "app/s", "app/s/three.txt", "app/two.txt"]),
        ("COPY d/s /cur/", ["app", "app/three.txt"]),
        ("COPY --parents d/s/three.txt /q/", ["q", "q/d", "q/d/s", "q/d/s/three.txt"]),
        ("COPY --parents d/./s/three.txt /q/", ["q", "q/s", "q/s/three.txt"]),
        ("COPY nothing* /q/", []),
    ],
)
def test_where_it_goes(store: Store, context: Path, line: str, paths: list[str]) -> None:
    made = copied(store, context, line)
    assert [path for path in made if path] == paths
    assert all(entry.mtime in (TIME, 0) for entry in made.values())


def test_what_it_looks_like(store: Store, context: Path) -> None:
    made = copied(store, context, "COPY d /app/n/")
    assert (made["app"].mode, made["app"].uid, made["app"].gid) == (0o700, 5, 6)
    assert (made["app/n"].mode, made["app/n"].uid) == (0o755, 0)
    assert (made["app/n/one"].mode, made["app/n/one"].uid, made["app/n/one"].mtime) == (0o751, 0, TIME)
    owned = copied(store, context, "COPY d /new/n/", look=Look(Owner(7, 8), parse_mode("640")))
    assert {(entry.uid, entry.gid) for path, entry in owned.items() if path} == {(7, 8)}
    assert (owned["new/n/one"].mode, owned["new/n/s"].mode) == (0o640, 0o640)
    assert owned["new"].mode == owned["new/n"].mode == 0o640


def test_chmod_on_created_parents(store: Store, context: Path) -> None:
    """An octal mode reaches them through a umask, a symbolic one does not."""
    assert copied(store, context, "COPY a.txt /n/x", look=Look(mode=parse_mode("777")))["n"].mode == 0o755
    assert copied(store, context, "COPY a.txt /n/x", look=Look(mode=parse_mode("4777")))["n/x"].mode == 0o4777
    symbolic = copied(store, context, "COPY d/one /n/x", look=Look(mode=parse_mode("go-rx"), symbolic=True))
    assert (symbolic["n"].mode, symbolic["n/x"].mode) == (0o755, 0o700)


def test_setgid_folders_hand_it_down(store: Store, context: Path) -> None:
    made = copied(store, context, "COPY a.txt /sg/n/m/x")
    assert (made["sg/n"].mode, made["sg/n"].gid, made["sg/n/m"].mode, made["sg/n/m"].gid) == (0o2755, 50, 0o2755, 50)
    assert copied(store, context, "COPY a.txt /sg/n/x", look=Look(Owner(1, 2)))["sg/n"].gid == 2


def test_hard_links_within_one_source_only(store: Store, context: Path) -> None:
    made = copied(store, context, "COPY d /x/")
    assert (made["x/one"].kind, made["x/one"].link, made["x/again"].kind) == (HARDLINK, "x/again", FILE)
    apart = copied(store, context, "COPY d/one d/again /x/")
    assert apart["x/one"].kind == apart["x/again"].kind == FILE


def test_links_are_copied_as_links_inside_a_folder(store: Store, context: Path) -> None:
    made = copied(store, context, "COPY . /x/")
    assert (made["x/l"].kind, made["x/l"].link, made["x/l"].mode) == (SYMLINK, "d/one", 0o777)
    assert made["x/out"].link == "../../../a.txt"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("COPY d /file", "cannot copy to non-directory"),
        ("COPY a.txt /file/x", "file"),
        ("COPY d /app/old", "non-directory"),
    ],
)
def test_files_and_folders_do_not_mix(store: Store, context: Path, line: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        copied(store, context, line)


def test_a_file_replaces_a_file_and_not_a_folder(store: Store, context: Path) -> None:
    (context / "t" / "app").mkdir(parents=True)
    (context / "u").mkdir()
    (context / "u" / "app").write_text("file")
    assert "app" in copied(store, context, "COPY t /")
    assert copied(store, context, "COPY a.txt /file")["file"].size == 5
    with pytest.raises(SourceError, match="cannot replace to directory /app"):
        copied(store, context, "COPY u /")


def test_inline_files() -> None:
    edit = Edit(Tree(), TIME)
    put_bytes(edit, "doc", b"text", "n/", Look(mode=parse_mode("600")))
    entry = edit.get("n/doc")
    assert entry is not None and (entry.size, entry.mode, entry.mtime) == (4, 0o600, TIME)


def test_a_file_that_changes_meanwhile(context: Path) -> None:
    (selection,) = chosen(context, "COPY a.txt /")
    (context / "a.txt").write_text("other content")
    with pytest.raises(SourceError, match="changed during the build"):
        digest_of([selection])


def key(root: Path, line: str = "COPY d /x/") -> str:
    """The part of a COPY's key that its files give."""
    return digest_of(chosen(root, line))


CHANGES: dict[str, tuple[Callable[[Path], object], bool]] = {
    "content": (lambda root: (root / "d/two.txt").write_text("other"), True),
    "content of the same size": (lambda root: (root / "d/two.txt").write_text("D/TWO.TXT"), True),
    "mode": (lambda root: (root / "d/two.txt").chmod(0o600), True),
    "mode of a folder": (lambda root: (root / "d/s").chmod(0o700), True),
    "name": (lambda root: (root / "d/two.txt").rename(root / "d/2.txt"), True),
    "new empty folder": (lambda root: (root / "d/new").mkdir(), True),
    "hard link broken": (
        lambda root: [(root / "d/one").unlink(), (root / "d/one").write_text("d/one"), (root / "d/one").chmod(0o751)],
        True,
    ),
    "extended attribute": (lambda root: os.setxattr(root / "d/two.txt", "user.k", b"v"), True),
    "time": (lambda root: os.utime(root / "d/two.txt", (1, 1)), False),
    "time of a folder": (lambda root: os.utime(root / "d", (1, 1)), False),
    "file elsewhere": (lambda root: (root / "a.txt").write_text("other"), False),
    "written again": (lambda root: (root / "d/two.txt").write_text("d/two.txt"), False),
    "name of the folder": (lambda root: (root / "d").rename(root / "dd"), False),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_changes_a_key(context: Path, what: str) -> None:
    before = key(context)
    change, matters = CHANGES[what]
    try:
        change(context)
    except OSError:
        pytest.skip("the file system of the test has no user attributes")
    assert (key(context, "COPY d* /x/") != before) == matters


@pytest.mark.skipif(os.geteuid() != 0, reason="changing owners needs root")
@pytest.mark.root
def test_owner_does_not_change_a_key(context: Path) -> None:
    before = key(context)
    os.chown(context / "d/two.txt", 77, 88)
    assert key(context) == before


def archive(root: Path, members: list[tarfile.TarInfo]) -> None:
    """A tar in the context; files hold their own name."""
    with tarfile.open(root / "t.tar", "w") as tar:
        for member in members:
            data = member.name.encode() if member.isreg() else b""
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o640) -> tarfile.TarInfo:
    """A member of it."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.uid, info.gid, info.mtime = kind, link, mode, 3, 4, 999
    return info


def unpacked(store: Store, root: Path, destination: str = "app", look: Look = Look()) -> dict[str, Entry]:
    """The layer that ADD of the archive gives."""
    (selection,) = chosen(root, "ADD t.tar /")
    assert is_archive(selection)
    tree = Tree()
    tree.apply(BASE, "base")
    edit = Edit(tree, TIME)
    unpack(edit, selection, destination, look, store.scratch / "spool", lambda path: None)
    with store.layers.writer(Compression()) as writer:
        edit.write(writer)
        writer.finish()
    return dict(writer.toc)


def test_archives(store: Store, context: Path) -> None:
    archive(
        context,
        [
            member("d", tarfile.DIRTYPE, mode=0o711),
            member("/abs"),
            member("d/f"),
            member("h", tarfile.LNKTYPE, "d/f"),
            member("x/y"),
        ],
    )
    made = unpacked(store, context)
    assert [path for path in made if path] == ["app", "app/abs", "app/d", "app/d/f", "app/h", "app/x", "app/x/y"]
    entry = made["app/d/f"]
    assert (entry.mode, entry.uid, entry.gid, entry.mtime, entry.size) == (0o640, 3, 4, 999, 3)
    assert (made["app/h"].kind, made["app/h"].link) == (HARDLINK, "app/d/f")
    assert (made["app/d"].mode, made["app"].mode) == (0o711, 0o700)
    assert unpacked(store, context, look=Look(Owner(9, 9)))["app/d/f"].uid == 9


@pytest.mark.parametrize(
    "members",
    [
        [member("../x")],
        [member("a/../../x")],
        [member("l", tarfile.SYMTYPE, "../.."), member("l/x")],
        [member("h", tarfile.LNKTYPE, "missing")],
    ],
)
def test_archives_that_leave_the_destination(store: Store, context: Path, members: list[tarfile.TarInfo]) -> None:
    archive(context, members)
    with pytest.raises(SourceError):
        unpacked(store, context)


def test_what_is_no_archive(context: Path) -> None:
    (context / "zeros").write_bytes(bytes(2048))
    for name in ("a.txt", "zeros", "d"):
        assert not is_archive(chosen(context, f"COPY {name} /")[0])
