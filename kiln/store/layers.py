"""What is known of layers by diffID: tables of contents, blobs that hold them, and their files' bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from kiln.errors import CorruptError, StoreError
from kiln.oci import media
from kiln.oci.digest import chain_id, parse
from kiln.oci.image import Descriptor
from kiln.store import tarread, toc
from kiln.store.before import Before
from kiln.store.blobs import Blobs, Follow, disk_error
from kiln.store.compress import Inflater
from kiln.store.entry import Entry
from kiln.store.files import locked, read_whole, write_whole
from kiln.store.layer import Compression, Layer, LayerWriter
from kiln.store.press import maker
from kiln.store.reading import LayerReading
from kiln.store.toc import Table, Toc
from kiln.store.tree import Tree

_CHUNK = 1 << 20
_KEEP_TREES = 6
_PARTS, _LEAST_BEFORE = 4, 1 << 18
_KEEP_FILES, _KEEP_SIZE = 32, 1 << 16


class Layers:
    """The layers of one store. Safe to use from several threads and processes."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self.root = root
        self.blobs = blobs
        self._trees: OrderedDict[str, Tree] = OrderedDict()
        self._tree_lock = threading.Lock()
        self._scanning: dict[str, threading.Lock] = {}
        self._small: dict[tuple[str, int], bytes] = {}

    def writer(self, compression: Compression, follow: Follow | None = None, plain_above: int = 0) -> LayerWriter:
        """A new layer; give the finished one and the writer's `toc` to `remember`. `follow` is called with its file."""
        return LayerWriter(self.blobs, compression, follow, plain_above)

    def remember(self, layer: Layer, entries: Table) -> None:
        """Keeps a layer's table of contents and that its blob holds it."""
        write_whole(self._toc_path(layer.diff_id), entries.encode())
        self.add_blob(layer.diff_id, layer.descriptor)

    def add_blob(self, diff_id: str, descriptor: Descriptor) -> None:
        """Records that a blob, when decompressed, is the layer."""
        known = self.blobs_of(diff_id)
        if all(entry.digest != descriptor.digest for entry in known):
            known.append(Descriptor(media.to_oci(descriptor.media_type), descriptor.digest, descriptor.size))
            write_whole(self._blobs_path(diff_id), msgspec.json.encode(known))

    def blobs_of(self, diff_id: str) -> list[Descriptor]:
        """The descriptors of blobs known to hold a layer (they need not be here any more)."""
        data = read_whole(self._blobs_path(diff_id))
        try:
            return msgspec.json.decode(data, type=list[Descriptor]) if data else []
        except msgspec.MsgspecError:
            return []

    def has_toc(self, diff_id: str) -> bool:
        """Whether a table of contents is kept."""
        return self._toc_path(diff_id).exists()

    def toc(self, diff_id: str, descriptor: Descriptor | None = None) -> Toc:
        """The table of contents; read from the layer's blob where it is not kept yet (and then kept)."""
        kept = self._kept_toc(diff_id)
        if kept is not None:
            return kept
        with self._tree_lock:
            scanning = self._scanning.setdefault(diff_id, threading.Lock())
        with scanning:
            kept = self._kept_toc(diff_id)
            return kept if kept is not None else self._scan(diff_id, descriptor or self._present(diff_id))

    def before(self, diff_id: str, compression: Compression) -> Before | None:
        """A layer to make another one from, if it and its table of contents are here."""
        here = next((blob for blob in self.blobs_of(diff_id) if self.blobs.has(blob.digest)), None)
        path = self._toc_path(diff_id)
        data = read_whole(path) if here is not None else None
        if here is None or data is None or here.size < _LEAST_BEFORE:
            return None
        return Before(self.blobs, here, toc.pieces(data, str(path)), self._parts(here.digest, compression))

    def keep_parts(self, layer: Layer, compression: Compression, parts: list[int]) -> None:
        """Keeps how large each part of a layer's blob is, so that another layer can take parts of it."""
        if len(parts) >= _PARTS and compression.kind == "gzip":
            facts = msgspec.msgpack.encode((maker(), compression, parts))
            data = msgspec.msgpack.encode((zlib.crc32(facts), facts))
            write_whole(self._parts_path(layer.descriptor.digest), data)

    def _parts(self, digest: str, compression: Compression) -> list[int]:
        data = read_whole(self._parts_path(digest))
        try:
            checksum, facts = msgspec.msgpack.decode(data or b"", type=tuple[int, bytes])
            *made, parts = msgspec.msgpack.decode(facts, type=tuple[str, Compression, list[int]])
        except msgspec.MsgspecError:
            return []
        return parts if zlib.crc32(facts) == checksum and made == [maker(), compression] else []

    def _parts_path(self, digest: str) -> Path:
        return self.root / "cache" / "parts" / parse(digest)[1]

    def _kept_toc(self, diff_id: str) -> Toc | None:
        path = self._toc_path(diff_id)
        data = read_whole(path)
        return toc.decode(data, str(path)) if data is not None else None

    def _present(self, diff_id: str) -> Descriptor:
        for descriptor in self.blobs_of(diff_id):
            if self.blobs.has(descriptor.digest):
                return descriptor
        for descriptor in self.blobs_of(diff_id):
            if self.blobs.fetch(descriptor.digest):
                return descriptor
        raise StoreError(f"the layer {diff_id} is not in the store", hint="Pull or build the image again.")

    def _scan(self, diff_id: str, descriptor: Descriptor) -> Toc:
        """Reads a whole layer once: its table of contents, checked against both digests."""
        with self.reading(diff_id, descriptor) as reading:
            for _ in reading.members():
                pass
            return reading.toc

    @contextlib.contextmanager
    def reading(self, diff_id: str, descriptor: Descriptor) -> Iterator[LayerReading]:
        """One pass over a layer; its table of contents is kept if it was read to its end."""
        reading = LayerReading(self.blobs, diff_id, descriptor)
        with contextlib.closing(reading):
            yield reading
        if not self.has_toc(diff_id):
            self.remember(Layer(diff_id, descriptor), Table(reading.toc))

    def tree(self, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> Tree:
        """The merged file system of a stack of layers, base first. Shared: not to be changed by who gets it."""
        if not diff_ids:
            return Tree()
        chains = [chain_id(diff_ids[:count]) for count in range(len(diff_ids) + 1)]
        with self._tree_lock:
            start = next(
                count for count in range(len(chains) - 1, -1, -1) if count == 0 or chains[count] in self._trees
            )
            merged = self._trees[chains[start]] if start else Tree()
            if start == len(diff_ids):
                self._trees.move_to_end(chains[start])
                return merged
        merged = merged.copy()
        for diff_id, descriptor in zip(diff_ids[start:], descriptors[start:], strict=True):
            merged.apply(self.toc(diff_id, descriptor), diff_id)
        with self._tree_lock:
            self._trees[chains[-1]] = merged
            while len(self._trees) > _KEEP_TREES:
                self._trees.popitem(last=False)
        return merged

    def chunks(self, diff_id: str, entry: Entry) -> Iterator[bytes]:
        """The content of a file of a layer, by its place in the uncompressed tar."""
        return tar_content(self.tar(diff_id), entry)

    def small_file(self, diff_id: str, entry: Entry) -> bytes:
        """The content of a small file of a layer, without making an uncompressed copy of the layer. Files such as
        /etc/passwd are asked for at every step: the last ones are kept in memory."""
        key = (diff_id, entry.offset)
        data = self._small.get(key)
        if data is None:
            data = self._small_file(diff_id, entry)
            if len(data) <= _KEEP_SIZE:
                if len(self._small) >= _KEEP_FILES:
                    self._small.clear()
                self._small[key] = data
        return data

    def _small_file(self, diff_id: str, entry: Entry) -> bytes:
        """From a copy of its own if it was asked for before: in a compressed layer, all that stands before it must be read."""
        if (self.root / "tars" / parse(diff_id)[1]).exists():
            return b"".join(self.chunks(diff_id, entry))
        copy = self.root / "cache" / "small" / entry.digest
        kept = read_whole(copy) if entry.digest else None
        if kept is not None and hashlib.sha256(kept).hexdigest() == entry.digest:
            return kept
        data = self._from_stream(diff_id, entry)
        if entry.digest and len(data) <= _KEEP_SIZE:
            write_whole(copy, data)
        return data

    def _from_stream(self, diff_id: str, entry: Entry) -> bytes:
        stream = self.blobs.stream(self._present(diff_id).digest)
        source = tarread.Source(Inflater(lambda _: next(stream, b""), diff_id).read, diff_id)
        source.skip(entry.offset)
        return source.exactly(entry.size)

    def tar(self, diff_id: str) -> Path:
        """The uncompressed tar of a layer as a file; made once, kept until it is pruned."""
        descriptor = self._present(diff_id)
        if media.compression_of(descriptor.media_type) == "none":
            return self.blobs.path(descriptor.digest)
        path = self.root / "tars" / parse(diff_id)[1]
        with locked(self.root / "locks" / f"tar-{parse(diff_id)[1][:16]}"):
            if not path.exists():
                self._expand(diff_id, descriptor, path)
        os.utime(path)
        return path

    def _expand(self, diff_id: str, descriptor: Descriptor, path: Path) -> None:
        stream = self.blobs.stream(descriptor.digest)
        inflater = Inflater(lambda _: next(stream, b""), descriptor.digest)
        diff = hashlib.sha256()
        scratch = self.blobs.scratch / f"tar-{os.getpid()}-{os.urandom(8).hex()}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with scratch.open("xb") as target:
                while data := inflater.read(_CHUNK):
                    diff.update(data)
                    target.write(data)
            if "sha256:" + diff.hexdigest() != diff_id:
                raise CorruptError(f"the layer {descriptor.digest} does not unpack to {diff_id}")
            scratch.rename(path)
        except OSError as bad:
            raise disk_error(bad, path) from bad
        finally:
            scratch.unlink(missing_ok=True)

    def _toc_path(self, diff_id: str) -> Path:
        return self.root / "toc" / parse(diff_id)[1]

    def _blobs_path(self, diff_id: str) -> Path:
        return self.root / "layers" / parse(diff_id)[1]


def tar_content(path: Path, entry: Entry) -> Iterator[bytes]:
    """The content of one member of an uncompressed tar, by the entry that reading it gave."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        position = offset = 0
        for start, length in entry.sparse or ((0, entry.size),):
            yield from _zeros(start - position)
            yield from _pread(fd, entry.offset + offset, length)
            position, offset = start + length, offset + length
        yield from _zeros(entry.size - position)
    finally:
        os.close(fd)


def _pread(fd: int, offset: int, size: int) -> Iterator[bytes]:
    while size:
        data = os.pread(fd, min(size, _CHUNK), offset)
        if not data:
            raise StoreError(
                "an uncompressed layer in the store is too short", hint="Run `kiln prune` and build again."
            )
        offset, size = offset + len(data), size - len(data)
        yield data


def _zeros(size: int) -> Iterator[bytes]:
    while size > 0:
        piece = min(size, _CHUNK)
        size -= piece
        yield bytes(piece)
