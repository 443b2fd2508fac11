"""Layers in other forms."""

from __future__ import annotations

import io
import os
import tarfile

import pytest

from kiln.oci import media
from kiln.store.compress import Inflater
from kiln.store.convert import convert
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, WHITEOUT, Entry
from kiln.store.layer import Compression, Layer
from kiln.store.store import Store


def sample(store: Store, size: int = 3000) -> Layer:
    """A layer with some of everything; times 100 to 104."""
    data = os.urandom(size)
    with store.layers.writer(Compression()) as writer:
        writer.add("d", Entry(DIR, mode=0o755, mtime=100))
        writer.add("d", Entry(DIR, mode=-1, opaque=True))
        writer.add("d/f", Entry(FILE, mode=0o4755, uid=7, gid=8, size=size, mtime=101, xattrs={"user.k": b"v"}), [data])
        writer.add("d/h", Entry(HARDLINK, link="d/f", mtime=102))
        writer.add("d/l", Entry(SYMLINK, link="f" * 120, mtime=103))
        writer.add("gone", Entry(WHITEOUT, mtime=104))
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    return layer


def unpacked(store: Store, layer: Layer) -> bytes:
    """The layer's tar."""
    stream = store.blobs.stream(layer.descriptor.digest)
    inflater = Inflater(lambda _: next(stream, b""), "layer")
    return b"".join(iter(lambda: inflater.read(1 << 20), b""))


@pytest.mark.parametrize("kind", ["zstd", "none", "gzip"])
def test_compression_keeps_the_diff_id(store: Store, kind: str) -> None:
    layer = sample(store)
    made = convert(store.layers, layer.diff_id, layer.descriptor, Compression(kind))
    assert made.diff_id == layer.diff_id
    assert made.descriptor.media_type == media.layer_type(kind)
    assert unpacked(store, made) == unpacked(store, layer)
    assert made.descriptor.size == store.blobs.size(made.descriptor.digest)
    assert kind != "gzip" or made.descriptor == layer.descriptor


def test_it_is_found_again(store: Store) -> None:
    layer = sample(store)
    for compression, epoch in ((Compression("zstd"), None), (Compression("gzip", 3), None), (Compression("gzip"), 50)):
        made = convert(store.layers, layer.diff_id, layer.descriptor, compression, epoch)
        inode = store.blobs.path(made.descriptor.digest).stat().st_ino
        assert convert(store.layers, layer.diff_id, layer.descriptor, compression, epoch) == made
        assert store.blobs.path(made.descriptor.digest).stat().st_ino == inode
        store.blobs.delete(made.descriptor.digest)
        assert (
            convert(store.layers, layer.diff_id, layer.descriptor, compression, epoch).descriptor.digest
            == made.descriptor.digest
        )


def facts(data: bytes) -> dict[str, tuple[object, ...]]:
    """Name -> everything but the time."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {
            info.name: (info.type, info.mode, info.uid, info.gid, info.size, info.linkname, info.pax_headers.get("SCHILY.xattr.user.k"))
            for info in tar
        }  # fmt: skip


def times(data: bytes) -> list[float]:
    """All modification times."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return [info.mtime for info in tar]


def test_epoch_clamps_times(store: Store) -> None:
    layer = sample(store)
    before = unpacked(store, layer)
    assert max(times(before)) == 104
    clamped = convert(store.layers, layer.diff_id, layer.descriptor, Compression(), 102)
    after = unpacked(store, clamped)
    assert times(after) == [min(time, 102) for time in times(before)]
    assert facts(after) == facts(before)
    assert clamped.diff_id != layer.diff_id
    later = convert(store.layers, layer.diff_id, layer.descriptor, Compression(), 10**6)
    assert later.diff_id == layer.diff_id and unpacked(store, later) == before
    assert [path for path, _ in store.layers.toc(clamped.diff_id)] == [
        path for path, _ in store.layers.toc(layer.diff_id)
    ]


def test_a_large_layer(store: Store) -> None:
    layer = sample(store, 3_000_000)
    made = convert(store.layers, layer.diff_id, layer.descriptor, Compression("zstd"), 102)
    assert facts(unpacked(store, made)) == facts(unpacked(store, layer))
