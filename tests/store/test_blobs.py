"""Blobs: whole and right under their digest, or not there."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kiln.errors import CorruptError, KilnError, StoreError
from kiln.oci.digest import sha256
from kiln.store.blobs import CHUNK, Blobs
from kiln.store.files import try_lock
from kiln.store.store import Store


def files(blobs: Blobs) -> list[Path]:
    """Everything under blobs/ and in the scratch folder."""
    return [path for folder in (blobs.root / "blobs", blobs.scratch) for path in folder.rglob("*") if path.is_file()]


def test_put_is_idempotent(store: Store) -> None:
    digest = store.blobs.put(b"content")
    assert digest == "sha256:" + hashlib.sha256(b"content").hexdigest()
    first = store.blobs.path(digest).stat()
    assert store.blobs.put(b"content") == digest
    assert store.blobs.path(digest).stat().st_ino == first.st_ino
    assert store.blobs.get(digest) == b"content"
    assert store.blobs.size(digest) == 7
    assert files(store.blobs) == [store.blobs.path(digest)]


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_stream(store: Store, size: int) -> None:
    data = os.urandom(size)
    assert b"".join(store.blobs.stream(store.blobs.put(data))) == data


def test_commit_checks_the_digest(store: Store) -> None:
    with pytest.raises(CorruptError, match=sha256(b"other")), store.blobs.writer() as writer:
        writer.write(b"content")
        writer.commit(expected=sha256(b"other"))
    assert files(store.blobs) == []


@pytest.mark.parametrize("size", [6, 8])
def test_commit_checks_the_size(store: Store, size: int) -> None:
    with pytest.raises(CorruptError, match=f"should be {size} bytes, got 7"), store.blobs.writer() as writer:
        writer.write(b"content")
        writer.commit(size=size)
    assert files(store.blobs) == []


def test_leaving_without_commit_drops_the_bytes(store: Store) -> None:
    with store.blobs.writer() as writer:
        writer.write(b"content")
        assert len(files(store.blobs)) == 1
    assert files(store.blobs) == []


@pytest.mark.parametrize("size", [10, CHUNK, 3 * CHUNK + 5])
def test_a_damaged_blob_never_comes_out_whole(store: Store, size: int) -> None:
    data = os.urandom(size)
    digest = store.blobs.put(data)
    path = store.blobs.path(digest)
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(bytes([data[size // 2] ^ 1]))
    given = b""
    with pytest.raises(CorruptError, match=digest) as error:
        for chunk in store.blobs.stream(digest):
            given += chunk
    assert len(given) <= size - (size - 1) % CHUNK - 1
    assert error.value.where == str(path) and error.value.hint


def test_a_blob_cut_short_is_damaged(store: Store) -> None:
    digest = store.blobs.put(b"content")
    os.truncate(store.blobs.path(digest), 3)
    with pytest.raises(CorruptError):
        store.blobs.get(digest)


def test_missing(store: Store) -> None:
    digest = sha256(b"nowhere")
    assert not store.blobs.has(digest)
    for ask in (store.blobs.get, store.blobs.size, store.blobs.open):
        with pytest.raises(StoreError, match="not in the store") as error:
            ask(digest)
        assert error.value.hint
    assert store.blobs.delete(digest) == 0


@pytest.mark.parametrize(
    "digest", ["sha256:../../../etc/passwd", "sha256:" + "A" * 64, "md5:" + "0" * 32, "", "sha256:" + "0" * 64 + "\n"]
)
def test_what_is_no_digest_is_no_path(store: Store, digest: str) -> None:
    with pytest.raises(KilnError, match="not a digest"):
        store.blobs.path(digest)


def test_use_is_remembered(store: Store) -> None:
    digest = store.blobs.put(b"content")
    for use in (store.blobs.has, store.blobs.get, store.blobs.put):
        os.utime(store.blobs.path(digest), (1, 1))
        use(b"content" if use == store.blobs.put else digest)  # type: ignore[arg-type,operator]
        assert time.time() - store.blobs.path(digest).stat().st_mtime < 60


def test_delete(store: Store) -> None:
    digest = store.blobs.put(b"content")
    assert store.blobs.delete(digest) == 7
    assert not store.blobs.has(digest)


def test_many_threads_put_the_same(store: Store) -> None:
    data = os.urandom(200_000)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert store.blobs.get(store.blobs.put(data)) == data
        except (KilnError, AssertionError, OSError) as bad:
            failures.append(bad)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and files(store.blobs) == [store.blobs.path(sha256(data))]


_KILLED = """
import os, signal, sys
from pathlib import Path
from kiln.store.store import Store
store = Store(Path(sys.argv[1]))
writer = store.blobs.writer()
writer.write(b"half of it" * 100000)
os.fsync(writer._file.fileno())
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_killed_between_write_and_rename(tmp_path: Path) -> None:
    """No blob is left, and the next process removes what was written."""
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "store"], check=False)
    assert done.returncode == -signal.SIGKILL
    with Store(tmp_path / "store") as store:
        assert list((store.root / "blobs").rglob("*/*")) == []
        assert len(store.stale_scratch()) == 1
        assert store.clean() == []
        assert store.stale_scratch() == []
        assert list((store.root / "tmp").iterdir()) != []  # our own
        assert not list((store.root / "tmp").rglob("blob-*"))


def test_looking_for_a_process_that_just_ends_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = Store(tmp_path / "store"), Store(tmp_path / "store")

    def end_first(path: Path, *, create: bool = True) -> int | None:
        other.close()
        return try_lock(path, create=create)

    monkeypatch.setattr("kiln.store.store.try_lock", end_first)
    assert store.live_since() == float("inf")
    store.close()
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


def test_cleaning_leaves_a_process_that_had_only_just_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It looked dead, its lock new and not yet held, when the list was made."""
    with Store(tmp_path / "store") as store, Store(tmp_path / "store") as other:
        monkeypatch.setattr(store, "stale_scratch", lambda: [other.scratch])
        assert store.clean() == []
        assert other.scratch.is_dir()


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    folder = tmp_path / "tiny"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", folder], check=False, capture_output=True
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.root
def test_full_disk(tiny: Path) -> None:
    with Store(tiny / "store") as store:
        with pytest.raises(StoreError, match="No space left") as error:
            store.blobs.put(os.urandom(1 << 20))
        assert "kiln prune" in error.value.hint
        assert files(store.blobs) == []
        assert store.blobs.get(store.blobs.put(b"small")) == b"small"


def test_a_folder_that_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "letters").write_text("mine")
    with pytest.raises(StoreError, match="not empty and no store") as error:
        Store(tmp_path)
    assert "KILN_HOME" in error.value.hint


def test_a_store_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        Store(tmp_path / "file" / "store")
