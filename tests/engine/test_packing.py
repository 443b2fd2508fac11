"""Compressing layers beside the steps that follow."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kiln.engine.packing import Packing
from kiln.errors import CancelledBuild
from kiln.oci.image import Image, ImageConfig, RootFS, RunConfig
from kiln.store.entry import FILE, Entry
from kiln.store.layer import Compression, Layer
from kiln.store.store import Store


def plain_layer(store: Store, size: int = 3_000_000) -> Layer:
    with store.layers.writer(Compression("none")) as writer:
        writer.add("f", Entry(FILE, mode=0o644, size=size), [os.urandom(size)])
        layer = writer.finish()
    store.layers.remember(layer, writer.toc)
    return layer


def image(*layers: Layer) -> Image:
    config = ImageConfig("amd64", "linux", RunConfig(), rootfs=RootFS(diff_ids=[layer.diff_id for layer in layers]))
    return Image(config, tuple(layer.descriptor for layer in layers))


@pytest.fixture
def packing(store: Store):
    made = Packing(store.layers, Compression(), None, lambda: None)
    yield made
    made.close()


def test_layers_come_out_compressed(store: Store, packing: Packing) -> None:
    first, second, foreign = plain_layer(store), plain_layer(store), plain_layer(store)
    done: list[Layer] = []
    for layer in (first, second, first):
        packing.take(layer, done.append)
    found = packing.packed(image(first, foreign, second))
    assert [layer.diff_id for layer in sorted(done, key=str)] == sorted([first.diff_id, second.diff_id])
    by_id = {layer.diff_id: layer.descriptor for layer in done}
    assert found.layers == (by_id[first.diff_id], foreign.descriptor, by_id[second.diff_id])
    assert all(store.blobs.has(layer.digest) for layer in found.layers)
    assert all("gzip" in by_id[layer].media_type for layer in by_id)


def test_what_was_compressed_is_not_taken(store: Store, packing: Packing) -> None:
    with store.layers.writer(Compression()) as writer:
        layer = writer.finish()
    packing.take(layer, lambda _: pytest.fail("nothing was to be done"))
    assert packing.packed(image(layer)).layers == (layer.descriptor,)


def test_the_plain_form_is_the_first_to_be_collected(store: Store, packing: Packing) -> None:
    layer = plain_layer(store)
    packing.take(layer, lambda _: None)
    packing.packed(image(layer))
    assert store.blobs.path(layer.descriptor.digest).stat().st_mtime == 0
    assert store.blobs.has(layer.descriptor.digest)
    assert time.time() - store.blobs.path(layer.descriptor.digest).stat().st_mtime < 60


def test_the_file_is_followed(store: Store) -> None:
    followed: list[Path] = []

    class Follower:
        size = 0
        digest = ""

        def grew(self, size: int) -> None:
            self.size = size

        def ended(self, digest: str, size: int) -> None:
            self.digest = digest
            assert size == self.size

        def dropped(self) -> None:
            raise AssertionError("it was completed")

    follower = Follower()

    def follow(path: Path) -> Follower:
        followed.append(path)
        return follower

    packing = Packing(store.layers, Compression(), follow, lambda: None)
    layer = plain_layer(store)
    packing.take(layer, lambda _: None)
    (descriptor,) = packing.packed(image(layer)).layers
    packing.close()
    assert len(followed) == 1 and follower.digest == descriptor.digest


def test_cancelling_ends_it_and_leaves_nothing(store: Store) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise CancelledBuild("stopped")

    packing = Packing(store.layers, Compression(), None, check)
    layer = plain_layer(store)
    packing.take(layer, lambda _: pytest.fail("it is not done"))
    with pytest.raises(CancelledBuild):
        packing.packed(image(layer))
    packing.close()
    assert list(store.scratch.iterdir()) == []
    assert store.layers.blobs_of(layer.diff_id) == [layer.descriptor]
