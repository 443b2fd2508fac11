"""Garbage collection: what tags and running builds need stays, the rest goes in the order of use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kiln.oci.image import Descriptor, Image, ImageConfig, RootFS
from kiln.store.entry import FILE, Entry
from kiln.store.gc import items, prune
from kiln.store.layer import Compression
from kiln.store.store import Store

OLD = 1_600_000_000


def image(store: Store, content: bytes) -> Descriptor:
    """A stored image of one layer."""
    with store.layers.writer(Compression()) as writer:
        writer.add("file", Entry(FILE, mode=0o644, size=len(content)), [content])
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    config = ImageConfig("amd64", "linux", rootfs=RootFS(diff_ids=[layer.diff_id]))
    return store.layout.put_image(Image(config, (layer.descriptor,)))


def age(store: Store, when: float = OLD) -> None:
    """Makes everything as old as this."""
    for folder in ("blobs", "toc", "layers", "cache", "tars", "snapshots", "mounts", "index", "logs"):
        for path in (store.root / folder).rglob("*"):
            os.utime(path, (when, when))


def blobs(store: Store) -> set[str]:
    """The digests that are here."""
    return {"sha256:" + path.name for path in (store.root / "blobs" / "sha256").iterdir()}


def test_what_tags_need_stays(store: Store) -> None:
    kept, lost = image(store, os.urandom(5000)), image(store, os.urandom(5000))
    store.layout.tag(["kept"], store.layout.put_index([kept]))
    age(store)
    done = prune(store)
    assert store.layout.image(kept) is not None
    assert store.blobs.get(store.layout.load(kept).document.layers[0].digest)  # type: ignore[union-attr]
    assert lost.digest not in blobs(store) and len(blobs(store)) == 4
    assert done.removed == 3 + 4 and done.freed > 0
    assert done.left == sum(item.size for item in items(store))


def test_a_name_taken_away_frees_its_blobs(store: Store) -> None:
    store.layout.tag(["a"], image(store, b"x"))
    store.layout.untag("a")
    age(store)
    assert prune(store).left == 0
    assert blobs(store) == set() and items(store) == []


def test_keep_goes_by_use(store: Store) -> None:
    digests = [store.blobs.put(os.urandom(40_000)) for _ in range(5)]
    for number, digest in enumerate(digests):
        os.utime(store.blobs.path(digest), (OLD + number, OLD + number))
    os.utime(store.blobs.path(digests[0]), (OLD + 100, OLD + 100))
    size = items(store)[0].size
    done = prune(store, keep=2 * size)
    assert blobs(store) == {digests[4], digests[0]}
    assert (done.removed, done.freed, done.left) == (3, 3 * size, 2 * size)
    assert prune(store, keep=10**9).removed == 0


def test_du_totals(store: Store) -> None:
    store.layout.tag(["a", "b"], image(store, os.urandom(9000)))
    (store.root / "snapshots" / "s" / "fs").mkdir(parents=True)
    (store.root / "snapshots" / "s" / "fs" / "f").write_bytes(os.urandom(10_000))
    (store.root / "cache" / "ab").mkdir(parents=True)
    (store.root / "cache" / "ab" / "abcd").write_bytes(b"{}")
    found = items(store)
    count = {kind: sum(item.kind == kind for item in found) for kind in {item.kind for item in found}}
    assert count == {"blob": 3, "table of contents": 1, "layer record": 1, "snapshot": 1, "cache record": 1}
    assert len(found) == 7
    assert {item.tags for item in found if item.kind == "blob"} == {("a", "b")}
    assert all(item.tags == () for item in found if item.kind != "blob")
    snapshot = next(item for item in found if item.kind == "snapshot")
    assert 10_000 <= snapshot.size <= 20_000
    assert [item.used for item in found] == sorted(item.used for item in found)


def test_cache_records_have_a_kind(store: Store) -> None:
    (store.root / "cache" / "ab").mkdir(parents=True)
    (store.root / "cache" / "ab" / "abcd").write_bytes(b"{}")
    assert [item.kind for item in items(store)] == ["cache record"]


_LIVE = """
import sys, time
from pathlib import Path
from kiln.store.store import Store
with Store(Path(sys.argv[1])) as store:
    print("open", flush=True)
    sys.stdin.read()
"""


def test_what_a_running_process_may_use_is_kept(store: Store) -> None:
    """All that was used since it began; older things go even while it runs."""
    old, young = store.blobs.put(b"old"), store.blobs.put(b"young")
    os.utime(store.blobs.path(old), (OLD, OLD))
    with subprocess.Popen(
        [sys.executable, "-c", _LIVE, store.root], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == b"open\n"
        assert store.live_since() <= time.time()
        os.utime(store.blobs.path(young))
        assert prune(store).removed == 1
        assert blobs(store) == {young}
        other.communicate()
    assert store.live_since() == float("inf")
    assert prune(store).removed == 1 and blobs(store) == set()


def test_our_own_process_does_not_count_as_running(store: Store) -> None:
    store.blobs.put(b"young")
    assert prune(store).removed == 1


def test_used_while_prune_runs(store: Store) -> None:
    """What is looked up after the list was made is not removed."""
    from kiln.store.gc import _remove

    digest = store.blobs.put(b"x")
    os.utime(store.blobs.path(digest), (OLD, OLD))
    (item,) = items(store)
    store.blobs.has(digest)
    assert not _remove(store, item) and store.blobs.has(digest)
    os.utime(store.blobs.path(digest), (OLD, OLD))
    (item,) = items(store)
    store.layout.tag(["a"], Descriptor("application/vnd.oci.image.manifest.v1+json", digest, 1))
    assert not _remove(store, item) and store.blobs.has(digest)


def test_pruning_waits_for_who_looks_something_up(store: Store) -> None:
    digest = store.blobs.put(b"x")
    os.utime(store.blobs.path(digest), (OLD, OLD))
    thread = threading.Thread(target=lambda: prune(store))
    with store.in_use():
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and store.blobs.path(digest).exists()
    thread.join(5)
    assert not thread.is_alive()


_PRUNE = """
import sys
from pathlib import Path
from kiln.store.gc import prune
from kiln.store.store import Store
with Store(Path(sys.argv[1])) as store:
    print(prune(store).removed)
"""


def test_two_prunes_at_once(store: Store) -> None:
    store.layout.tag(["a"], image(store, b"kept"))
    for number in range(400):
        store.blobs.put(b"%d" % number)
    age(store)
    store.close()
    argv = [sys.executable, "-c", _PRUNE, store.root]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    results = [(process.communicate(), process.returncode) for process in running]
    assert [code for _, code in results] == [0, 0, 0], [error for (_, error), _ in results]
    assert sum(int(out) for (out, _), _ in results) == 400 + 2
    assert len(blobs(store)) == 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_listing_while_others_remove(store: Store) -> None:
    """Things that vanish between being found and being looked at are no error."""
    folder: Path = store.root / "toc"
    folder.mkdir()
    stop = threading.Event()

    def churn() -> None:
        number = 0
        while not stop.is_set():
            for name in range(200):
                (folder / f"{name}").write_bytes(b"")
            for name in range(200):
                (folder / f"{name}").unlink()
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            items(store)
    finally:
        stop.set()
        thread.join()


def test_dead_processes_are_cleaned_up_by_prune(store: Store) -> None:
    dead = store.root / "tmp" / "1600000000-999999-abcd"
    dead.mkdir()
    (dead / "half").write_bytes(b"x")
    dead.with_suffix(".lock").write_bytes(b"")
    prune(store)
    assert not dead.exists() and not dead.with_suffix(".lock").exists() and store.scratch.exists()
