"""The same layer in another form: other compression, or times clamped to SOURCE_DATE_EPOCH."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from kiln.errors import StoreError
from kiln.oci import media
from kiln.oci.image import Descriptor
from kiln.store import tarread
from kiln.store.blobs import Follow
from kiln.store.compress import Inflater
from kiln.store.entry import FILE, copy_of
from kiln.store.files import read_whole, write_whole
from kiln.store.layer import CHUNK, Compression, Layer
from kiln.store.layers import Layers


def convert(
    layers: Layers,
    diff_id: str,
    descriptor: Descriptor,
    compression: Compression,
    epoch: int | None = None,
    *,
    follow: Follow | None = None,
    check: Callable[[], None] = lambda: None,
) -> Layer:
    """The layer compressed as wanted; with `epoch`, times later than it become it (and so the diffID changes).

    What was converted once is found again. Of what is compressed anew, `follow` is called with the file, and `check` now and
    then; what that raises ends it.
    """
    if epoch is None:
        for known in layers.blobs_of(diff_id):
            fits = media.compression_of(known.media_type) == compression.kind
            if fits and compression.level is None and layers.blobs.has(known.digest):
                return Layer(diff_id, known)
    record = _record_path(layers, diff_id, compression, epoch)
    data = read_whole(record)
    if data is not None:
        with contextlib.suppress(msgspec.MsgspecError):
            found = msgspec.json.decode(data, type=Layer)
            if layers.blobs.has(found.descriptor.digest):
                return found
    made = (
        _recompress(layers, descriptor, compression, follow, check)
        if epoch is None
        else _clamp(layers, descriptor, compression, epoch)
    )
    write_whole(record, msgspec.json.encode(made))
    return made


def _record_path(layers: Layers, diff_id: str, compression: Compression, epoch: int | None) -> Path:
    name = f"{diff_id.partition(':')[2]}-{compression.kind}-{compression.level}-{epoch}"
    return layers.root / "cache" / "converted" / name


def _inflater(layers: Layers, descriptor: Descriptor) -> Inflater:
    stream = layers.blobs.stream(descriptor.digest)
    return Inflater(lambda _: next(stream, b""), descriptor.digest)


def _clamp(layers: Layers, descriptor: Descriptor, compression: Compression, epoch: int) -> Layer:
    """The layer with its times clamped."""
    with layers.writer(compression) as writer:
        for member in tarread.members(_inflater(layers, descriptor).read, descriptor.digest):
            path, entry = tarread.layer_entry(member)
            entry = copy_of(entry, mtime=min(entry.mtime, epoch), offset=-1, sparse=None)
            writer.add(path, entry, member.chunks() if entry.kind == FILE else ())
        layer = writer.finish()
        layers.remember(layer, writer.toc)
    return layer


def _recompress(
    layers: Layers, descriptor: Descriptor, compression: Compression, follow: Follow | None, check: Callable[[], None]
) -> Layer:
    """The very same tar bytes, compressed anew."""
    import hashlib

    from kiln.store.press import Press

    diff = hashlib.sha256()
    with layers.blobs.writer(follow) as writer:
        press = Press(compression.kind, compression.level, writer.write)
        try:
            source = tarread.Source(_inflater(layers, descriptor).read, "the layer")
            while len(data := source.upto(CHUNK)) == CHUNK:
                check()
                diff.update(data)
                press.add(data)
            diff.update(data)
            press.finish(data)
        finally:
            press.stop()
        size = writer.size
        digest = writer.commit()
    layer = Layer("sha256:" + diff.hexdigest(), Descriptor(media.layer_type(compression.kind), digest, size))
    if not size:
        raise StoreError("an empty layer cannot be compressed")
    layers.add_blob(layer.diff_id, layer.descriptor)
    return layer
