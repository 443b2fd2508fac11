"""File hashes by stat: trusted where nothing can have changed, never else."""

from __future__ import annotations

import os
import time
from pathlib import Path

from kiln.engine.fileindex import FileIndex

DIGEST = "ab" * 32


def old_file(folder: Path) -> Path:
    """A file that is older than the clock's grain."""
    path = folder / "f"
    path.write_text("one")
    time.sleep(0.15)
    return path


def test_same_stat_is_trusted(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    index = FileIndex(tmp_path / "store", tmp_path)
    assert index.known("f", path.stat())[0] == ""
    index.learn("f", path.stat(), DIGEST)
    assert index.known("f", path.stat())[0] == DIGEST and index.known("g", path.stat())[0] == ""
    index.save()
    assert FileIndex(tmp_path / "store", tmp_path).known("f", path.stat())[0] == DIGEST
    assert FileIndex(tmp_path / "store", tmp_path / "other").known("f", path.stat())[0] == ""


def test_a_young_file_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text("one")
    index = FileIndex(None, tmp_path)
    index.learn("f", path.stat(), DIGEST)
    assert index.known("f", path.stat())[0] == ""
    os.utime(path, (1, 1))
    index.learn("f", path.stat(), DIGEST)
    assert index.known("f", path.stat())[0] == ""


def test_changed_content_of_the_same_size_is_seen(tmp_path: Path) -> None:
    """Also where the modification time is put back."""
    path = old_file(tmp_path)
    before = path.stat()
    index = FileIndex(None, tmp_path)
    index.learn("f", before, DIGEST)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size and path.stat().st_mtime_ns == before.st_mtime_ns
    assert index.known("f", path.stat())[0] == "" and not index.same(path.stat(), before)


def test_a_file_put_in_its_place_is_seen(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    index = FileIndex(None, tmp_path)
    index.learn("f", path.stat(), DIGEST)
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").rename(path)
    assert index.known("f", path.stat())[0] == ""


def test_a_damaged_index_counts_as_none(tmp_path: Path) -> None:
    path = old_file(tmp_path)
    index = FileIndex(tmp_path / "store", tmp_path)
    index.learn("f\udcff", path.stat(), DIGEST)
    index.save()
    (file,) = (tmp_path / "store" / "index").iterdir()
    assert FileIndex(tmp_path / "store", tmp_path).known("f\udcff", path.stat())[0] == DIGEST
    for data in (b"", b"\xc1", b"\x81\xa1f\x01"):
        file.write_bytes(data)
        assert FileIndex(tmp_path / "store", tmp_path).known("f\udcff", path.stat())[0] == ""
