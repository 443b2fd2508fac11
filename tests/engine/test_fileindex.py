"""File hashes by stat: trusted where nothing can have changed, never else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kiln.engine.fileindex import FileIndex
from kiln.engine.files import FolderFiles
from kiln.errors import SourceError

DIGEST = "ab" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files that are older than the clock's grain."""
    folder = tmp_path / "folder"
    (folder / "d").mkdir(parents=True)
    for name in ("f", "g", "d/h", "raw\udcff"):
        (folder / name).write_text("one")
    time.sleep(0.15)
    return folder


class Look:
    """A look at the folder as a new build has it."""

    def __init__(self, folder: Path, *, listed: bool) -> None:
        self.index = FileIndex(folder.parent / "store", folder)
        self.files = FolderFiles(folder, self.index)
        if listed:
            self.files.children("")
            self.files.children("d")

    def known(self, path: str) -> str:
        """The digest, if it is known."""
        entry = self.files.get(path)
        assert entry is not None
        return self.files.known_digest(path, entry)

    def learn(self, *paths: str) -> None:
        """Learns digests and ends the build."""
        for path in paths:
            self.files.learned(path, DIGEST)
        self.index.save()


BOTH = pytest.mark.parametrize("listed", [True, False])


@BOTH
def test_same_stat_is_trusted(folder: Path, listed: bool) -> None:
    first = Look(folder, listed=listed)
    assert first.known("f") == "" and first.known("d/h") == ""
    first.learn("f", "d/h", "raw\udcff")
    assert first.known("f") == DIGEST and first.known("g") == ""
    again = Look(folder, listed=listed)
    assert again.known("f") == again.known("d/h") == again.known("raw\udcff") == DIGEST and again.known("g") == ""


def test_what_a_listing_knows_is_known_of_a_single_file_and_the_other_way_round(folder: Path) -> None:
    Look(folder, listed=True).learn("d/h")
    assert Look(folder, listed=False).known("d/h") == DIGEST
    single = Look(folder, listed=False)
    single.learn("f")
    single.files.children("")
    assert single.known("f") == DIGEST and single.known("g") == ""


def test_another_folder_knows_nothing(folder: Path) -> None:
    Look(folder, listed=True).learn("f")
    assert FileIndex(folder.parent / "store", folder / "d").get("/") is None


@BOTH
def test_a_young_file_is_not_trusted(folder: Path, listed: bool) -> None:
    (folder / "g").write_text("new")
    os.utime(folder / "f", (1, 1))
    look = Look(folder, listed=listed)
    look.learn("f", "g", "d/h")
    assert look.known("f") == look.known("g") == DIGEST
    again = Look(folder, listed=listed)
    assert again.known("f") == again.known("g") == "" and again.known("d/h") == DIGEST


@BOTH
def test_changed_content_of_the_same_size_is_seen(folder: Path, listed: bool) -> None:
    """Also where the modification time is put back."""
    before = Look(folder, listed=listed)
    before.learn("f", "g")
    stat = (folder / "f").stat()
    entry = before.files.get("f")
    (folder / "f").write_text("two")
    os.utime(folder / "f", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (folder / "f").stat().st_mtime_ns == stat.st_mtime_ns
    again = Look(folder, listed=listed)
    assert again.known("f") == "" and again.known("g") == DIGEST
    assert entry is not None
    with pytest.raises(SourceError, match="changed during the build"):
        before.files.chunks("f", entry)


@BOTH
def test_a_file_put_in_its_place_is_seen(folder: Path, listed: bool) -> None:
    Look(folder, listed=listed).learn("f", "g")
    (folder / "new").write_text("one")
    (folder / "new").rename(folder / "f")
    again = Look(folder, listed=listed)
    assert again.known("f") == "" and again.known("g") == DIGEST


@BOTH
def test_an_attribute_set_later_is_seen(folder: Path, listed: bool) -> None:
    look = Look(folder, listed=listed)
    assert look.files.get("f") == look.files.get("g")
    look.learn("f", "g")
    try:
        os.setxattr(folder / "f", "user.note", b"new")
    except OSError:
        pytest.skip("no attributes here")
    entry = Look(folder, listed=listed).files.get("f")
    assert entry is not None and entry.xattrs == {"user.note": b"new"}


def test_what_is_gone_is_not_there(folder: Path) -> None:
    Look(folder, listed=True).learn("f", "g")
    (folder / "f").unlink()
    again = Look(folder, listed=True)
    assert again.files.get("f") is None and again.files.get("d/f") is None and again.known("g") == DIGEST


def test_nothing_is_below_a_link_to_itself(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    assert Look(folder, listed=False).files.get("loop/inside") is None


def test_a_damaged_index_counts_as_none(folder: Path) -> None:
    Look(folder, listed=True).learn("f")
    (file,) = (folder.parent / "store" / "index").iterdir()
    good = file.read_bytes()
    assert Look(folder, listed=True).known("f") == DIGEST
    for data in (
        b"",
        b"\xc1",
        b"\x81\xa1f\x01",
        good[:-5],
        good.replace(b"\xc4\x01/", b"\xc4\x01/\x01"),
        b"\x92\x01\x80",
    ):
        file.write_bytes(data)
        assert Look(folder, listed=True).known("f") == ""
