"""What is known of layers: of Kiln's own and of foreign ones, by diffID."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from kiln.errors import CorruptError, StoreError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor
from kiln.store.entry import DIR, FILE, WHITEOUT, Entry
from kiln.store.layer import Compression, Layer
from kiln.store.layers import Layers
from kiln.store.store import Store


def foreign(store: Store, members: dict[str, bytes], pack: str = "gzip") -> tuple[str, Descriptor]:
    """(diffID, descriptor) of a layer as another tool makes it: GNU format, further blocks of zeros at the end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    data = out.getvalue()
    blob = gzip.compress(data, mtime=0) if pack == "gzip" else data
    return sha256(data), Descriptor(media.layer_type(pack), store.blobs.put(blob), len(blob))


def made(store: Store, members: dict[str, bytes], compression: str = "gzip") -> Layer:
    """A layer of Kiln's own, remembered."""
    with store.layers.writer(Compression(compression)) as writer:
        for path, content in members.items():
            writer.add(path, Entry(FILE, mode=0o644, size=len(content)), [content] if content else [])
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    return layer


FILES = {"a": b"first", "dir/" + "n" * 150: os.urandom(3000), "c": b"", "d/.wh.gone": b"", "e": b"last"}


@pytest.mark.parametrize("pack", ["gzip", "none"])
def test_a_foreign_layer_is_read_once(store: Store, pack: str) -> None:
    diff_id, descriptor = foreign(store, FILES, pack)
    toc = store.layers.toc(diff_id, descriptor)
    assert [path for path, _ in toc] == ["a", "dir/" + "n" * 150, "c", "d/gone", "e"]
    kinds = dict(toc)
    assert kinds["d/gone"].kind == WHITEOUT
    assert kinds["a"].digest == hashlib.sha256(b"first").hexdigest()
    for path, content in FILES.items():
        if "gone" not in path:
            assert b"".join(store.layers.chunks(diff_id, kinds[path])) == content
            assert store.layers.small_file(diff_id, kinds[path]) == content
    store.blobs.delete(descriptor.digest)
    assert store.layers.toc(diff_id) == toc
    assert store.layers.blobs_of(diff_id) == [descriptor]


def test_our_own_table_is_what_reading_gives(store: Store) -> None:
    layer = made(store, {"a": b"x" * 5000, "b": b"y"})
    kept = store.layers.toc(layer.diff_id)
    (store.root / "toc" / layer.diff_id[7:]).unlink()
    assert store.layers.toc(layer.diff_id) == kept


def test_wrong_diff_id(store: Store) -> None:
    _, descriptor = foreign(store, FILES)
    wrong = sha256(b"another")
    with pytest.raises(CorruptError, match=wrong):
        store.layers.toc(wrong, descriptor)
    assert not (store.root / "toc" / wrong[7:]).exists()
    store.layers.add_blob(wrong, descriptor)
    with pytest.raises(CorruptError, match="does not unpack"):
        store.layers.tar(wrong)
    assert not (store.root / "tars" / wrong[7:]).exists()


def test_damaged_blob_gives_no_table(store: Store) -> None:
    diff_id, descriptor = foreign(store, FILES, "none")
    with store.blobs.path(descriptor.digest).open("r+b") as file:
        file.seek(700)
        file.write(b"!")
    with pytest.raises(CorruptError):
        store.layers.toc(diff_id, descriptor)
    assert not (store.root / "toc" / diff_id[7:]).exists()


def test_missing(store: Store) -> None:
    with pytest.raises(StoreError, match="not in the store"):
        store.layers.toc(sha256(b"nothing"))
    layer = made(store, {"a": b"x"})
    store.blobs.delete(layer.descriptor.digest)
    with pytest.raises(StoreError, match=layer.diff_id):
        store.layers.tar(layer.diff_id)


def test_the_uncompressed_tar_is_kept(store: Store) -> None:
    layer = made(store, {"a": b"x" * 100})
    path = store.layers.tar(layer.diff_id)
    assert sha256(path.read_bytes()) == layer.diff_id
    inode = path.stat().st_ino
    os.utime(path, (1, 1))
    assert store.layers.tar(layer.diff_id).stat().st_ino == inode
    assert path.stat().st_mtime > 1000
    plain = made(store, {"a": b"x" * 200}, "none")
    assert store.layers.tar(plain.diff_id) == store.blobs.path(plain.descriptor.digest)
    assert not list(store.scratch.iterdir())


def test_another_blob_of_the_layer_serves(store: Store) -> None:
    layer = made(store, {"a": b"x" * 100})
    data = store.layers.tar(layer.diff_id).read_bytes()
    other = Descriptor(media.DOCKER_LAYER, store.blobs.put(data), len(data))
    store.layers.add_blob(layer.diff_id, other)
    store.layers.add_blob(layer.diff_id, other)
    assert [entry.media_type for entry in store.layers.blobs_of(layer.diff_id)] == [
        media.OCI_LAYER_GZIP,
        media.OCI_LAYER,
    ]
    store.blobs.delete(layer.descriptor.digest)
    assert store.layers.small_file(layer.diff_id, dict(store.layers.toc(layer.diff_id))["a"]) == b"x" * 100


def test_trees(store: Store) -> None:
    """Each stack has its own tree; a longer one begins with a copy of a shorter one's."""
    one, two, three = (made(store, {name: name.encode()}) for name in "abc")
    base = store.layers.tree((one.diff_id,), (one.descriptor,))
    both = store.layers.tree((one.diff_id, two.diff_id), (one.descriptor, two.descriptor))
    other = store.layers.tree((one.diff_id, three.diff_id), (one.descriptor, three.descriptor))
    assert [base.children(""), both.children(""), other.children("")] == [["a"], ["a", "b"], ["a", "c"]]
    assert store.layers.tree((one.diff_id,), (one.descriptor,)) is base
    node = both.node("b")
    assert node is not None and node.diff_id == two.diff_id
    assert store.layers.tree((), ()).children("") == []


def test_only_few_trees_are_kept(store: Store) -> None:
    layers = [made(store, {f"f{number}": b""}) for number in range(12)]
    for layer in layers:
        assert len(store.layers.tree((layer.diff_id,), (layer.descriptor,)).children("")) == 1
    assert len(store.layers._trees) <= 6
    assert store.layers.tree((layers[0].diff_id,), (layers[0].descriptor,)).children("") == ["f0"]


def test_a_tar_cut_short(store: Store) -> None:
    from kiln.store.layers import tar_content

    layer = made(store, {"a": b"x" * 5000})
    path = Path(store.layers.tar(layer.diff_id))
    os.truncate(path, 1000)
    with pytest.raises(StoreError, match="too short"):
        b"".join(tar_content(path, dict(store.layers.toc(layer.diff_id))["a"]))


def test_folder_entries_have_no_digest(store: Store) -> None:
    with store.layers.writer(Compression()) as writer:
        writer.add("d", Entry(DIR, mode=0o755))
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    assert dict(store.layers.toc(layer.diff_id))["d"].digest == ""


def test_a_small_file_is_taken_out_of_a_layer_once(store: Store) -> None:
    layer = made(store, {"a": b"x" * 100, "large": b"y" * 70_000})
    entries = dict(store.layers.toc(layer.diff_id))

    def fresh() -> Layers:
        return Layers(store.root, store.blobs)

    for name in ("a", "large"):
        fresh().small_file(layer.diff_id, entries[name])
    (copy,) = (store.root / "cache" / "small").iterdir()
    blob = store.blobs.path(layer.descriptor.digest)
    blob.rename(store.scratch / "aside")
    assert fresh().small_file(layer.diff_id, entries["a"]) == b"x" * 100
    with pytest.raises(StoreError):
        fresh().small_file(layer.diff_id, entries["large"])
    (store.scratch / "aside").rename(blob)
    copy.write_bytes(b"z" * 100)
    assert fresh().small_file(layer.diff_id, entries["a"]) == b"x" * 100
