"""A COPY whose layer is much like the one of the last time takes from that what is alike; nobody can tell from the result."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from kiln.engine.copying import Look, put_selection
from kiln.engine.edit import Edit
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import FolderFiles
from kiln.engine.select import digest_of, select
from kiln.errors import CorruptError
from kiln.store.before import Before, DamagedBeforeError
from kiln.store.entry import Entry
from kiln.store.layer import Compression, Layer
from kiln.store.store import Store
from kiln.store.tree import Tree
from tests.engine.test_copying import copy_of

TIME = 315532800
LONG = "n" * 150
Rows = list[tuple[str, Entry]]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder with 4 MB in files of several kinds."""
    root, chance = tmp_path / "source", random.Random(5)
    for number in range(300):
        path = root / f"d{number // 50}" / f"f{number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(2000, 30000)))
    (root / "d1" / "empty").touch()
    (root / "d2" / LONG).write_bytes(b"long")
    (root / "d2" / "raw\udcff").write_bytes(b"no text")
    (root / "d3" / "link").symlink_to("../d1")
    os.link(root / "d4" / "f200", root / "d4" / "twin")
    (root / "no files").mkdir()
    return root


class Reading(FolderFiles):
    """A folder that counts the files that are opened."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, FileIndex(None, root))
        self.opened: list[str] = []

    def chunks(self, path: str, entry: Entry):  # type: ignore[no-untyped-def]
        self.opened.append(path)
        return super().chunks(path, entry)


def build(
    store: Store, root: Path, before: Before | None = None, compression: Compression = Compression()
) -> tuple[Layer, Rows, list[str]]:
    """(layer, its entries, the files that writing it opened)."""
    files = Reading(root)
    selections = select(files, copy_of("COPY . /app/"), (".",))
    digest_of(selections)
    files.opened.clear()
    edit = Edit(Tree(), TIME)
    for selection in selections:
        put_selection(edit, selection, "app/", Look())
    with store.layers.writer(compression) as writer:
        edit.write(writer, before)
        layer = writer.finish()
        store.layers.remember(layer, writer.toc)
        store.layers.keep_parts(layer, compression, writer.parts)
    return layer, list(writer.toc), files.opened


def again(store: Store, layer: Layer, compression: Compression = Compression()) -> Before:
    """The layer, to make another one from."""
    before = store.layers.before(layer.diff_id, compression)
    assert before is not None
    return before


CHANGES: dict[str, tuple[Callable[[Path], object], set[str]]] = {
    "nothing": (lambda root: None, set()),
    "as long": (
        lambda root: (root / "d3/f170").write_bytes(b"x" * (root / "d3/f170").stat().st_size),
        {"d3/f170"},
    ),
    "longer": (lambda root: (root / "d0/f0").write_bytes(b"x" * 40000), {"d0/f0"}),
    "shorter, at the end": (lambda root: (root / "d5/f299").write_bytes(b"x"), {"d5/f299"}),
    "one more": (lambda root: (root / "d0/a").write_bytes(b"first"), {"d0/a"}),
    "one gone": (lambda root: (root / "d2/f100").unlink(), set()),
    "a mode": (lambda root: (root / "d2/f120").chmod(0o600), {"d2/f120"}),
    "a folder's mode": (lambda root: (root / "d2").chmod(0o700), set()),
    "a file becomes a folder": (
        lambda root: ((root / "d1/f60").unlink(), (root / "d1/f60").mkdir(), (root / "d1/f60/x").write_text("x")),
        {"d1/f60/x"},
    ),
    "another link": (lambda root: ((root / "d3/link").unlink(), (root / "d3/link").symlink_to("../d2")), set()),
    "twins parted": (
        lambda root: ((root / "d4/twin").unlink(), (root / "d4/twin").write_bytes(b"own")),
        {"d4/twin"},
    ),
    "all of a folder": (
        lambda root: [path.write_bytes(b"new") for path in (root / "d1").iterdir()],
        {*(f"d1/f{number}" for number in range(50, 100)), "d1/empty"},
    ),
}


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("what", CHANGES)
def test_same_as_without(store: Store, tmp_path: Path, source: Path, what: str, kind: str) -> None:
    compression = Compression(kind)
    first, _, _ = build(store, source, compression=compression)
    work, expected = CHANGES[what]
    work(source)
    with contextlib.closing(again(store, first, compression)) as before:
        layer, rows, opened = build(store, source, before, compression)
    assert set(opened) == expected
    with Store(tmp_path / "other") as other:
        plain, plain_rows, _ = build(other, source, compression=compression)
        assert (layer, rows) == (plain, plain_rows)
        assert store.blobs.get(layer.descriptor.digest) == other.blobs.get(plain.descriptor.digest)


def test_parts_at_the_same_place_are_not_compressed_again(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, _ = build(store, source)
    (source / "d3/f170").write_bytes(b"x" * (source / "d3/f170").stat().st_size)
    given: list[bool] = []
    part = Before.part

    def counted(self: Before, number: int) -> bytes | None:
        found = part(self, number)
        given.append(found is not None)
        return found

    monkeypatch.setattr(Before, "part", counted)
    with contextlib.closing(again(store, first)) as before:
        layer, _, _ = build(store, source, before)
    assert len(given) >= 2 and all(given) and layer != first


def test_a_layer_with_little_in_common_is_not_read(store: Store, source: Path) -> None:
    first, _, _ = build(store, source)
    for path in source.rglob("f*"):
        if path.is_file() and path.name != "f299":
            path.write_bytes(b"new")
    with contextlib.closing(again(store, first)) as before:
        _, _, opened = build(store, source, before)
    assert "d5/f299" in opened


@pytest.mark.parametrize("place", [0.0, 0.3, 0.99])
def test_a_damaged_layer_gives_no_layer(store: Store, source: Path, place: float) -> None:
    first, _, _ = build(store, source)
    path = store.blobs.path(first.descriptor.digest)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 0xFF
    path.write_bytes(data)
    (source / "d0/f0").write_bytes(b"new")
    blobs = {blob.name for blob in path.parent.iterdir()}
    with contextlib.closing(again(store, first)) as before, pytest.raises(DamagedBeforeError):
        build(store, source, before)
    assert {blob.name for blob in path.parent.iterdir()} == blobs


@pytest.mark.parametrize("wait", [0.0, 0.3], ids=["at once", "when all was read ahead"])
def test_damage_where_nothing_is_taken_from(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, wait: float
) -> None:
    """The end of the blob is not needed; whether it was read ahead makes no difference."""
    first, _, _ = build(store, source)
    path = store.blobs.path(first.descriptor.digest)
    data = bytearray(path.read_bytes())
    data[-100] ^= 0xFF
    path.write_bytes(data)
    for folder in ("d4", "d5"):
        shutil.rmtree(source / folder)
    finish = Before.finish
    monkeypatch.setattr(Before, "finish", lambda self: (time.sleep(wait), finish(self)))
    with contextlib.closing(again(store, first)) as before, pytest.raises(DamagedBeforeError):
        build(store, source, before)


def test_a_damaged_table_of_contents_gives_no_layer(store: Store, source: Path) -> None:
    first, rows, _ = build(store, source)
    path = store.root / "toc" / first.diff_id[7:]
    data = path.read_bytes()
    assert rows
    path.write_bytes(data.replace(b"f100", b"f101", 1))
    with contextlib.closing(again(store, first)) as before, pytest.raises(DamagedBeforeError, match="contents"):
        build(store, source, before)
    with pytest.raises(CorruptError, match="contents"):
        store.layers.toc(first.diff_id)


def test_what_is_not_here_is_not_used(store: Store, source: Path) -> None:
    first, _, _ = build(store, source)
    store.blobs.delete(first.descriptor.digest)
    assert store.layers.before(first.diff_id, Compression()) is None
    assert store.layers.before("sha256:" + "0" * 64, Compression()) is None


@pytest.mark.parametrize("data", [b"", b"\xff", None])
def test_wrong_sizes_of_parts(store: Store, source: Path, data: bytes | None) -> None:
    """Also such that add up."""
    first, _, _ = build(store, source)
    path = store.root / "cache" / "parts" / first.descriptor.digest[7:]
    checksum, facts = msgspec.msgpack.decode(path.read_bytes())
    made, compression, parts = msgspec.msgpack.decode(facts)
    parts[0], parts[1] = parts[0] + 3, parts[1] - 3
    wrong = msgspec.msgpack.encode((checksum, msgspec.msgpack.encode((made, compression, parts))))
    path.write_bytes(wrong if data is None else data)
    (source / "d5/f299").write_bytes(b"new")
    with contextlib.closing(again(store, first)) as before:
        layer, _, _ = build(store, source, before)
    assert layer == build(store, source)[0]
