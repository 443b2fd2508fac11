"""Writing a layer: tar, two hashes and compression in one pass, each in a thread of its own once there is enough to do."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable

import msgspec

from kiln.errors import KilnError, SourceError
from kiln.oci import media
from kiln.oci.image import Descriptor
from kiln.store import tarwrite
from kiln.store.blobs import Blobs, Follow
from kiln.store.compress import compressor
from kiln.store.entry import FILE, Entry, copy_of
from kiln.store.toc import Toc

_CHUNK = 1 << 20
_QUEUE = 4


class Compression(msgspec.Struct, frozen=True):
    """How layers are compressed: `kind` is gzip, zstd or none."""

    kind: str = "gzip"
    level: int | None = None


class Layer(msgspec.Struct, frozen=True):
    """A layer in the store: its diffID and the descriptor of its (compressed) blob. `empty`: it has no entries."""

    diff_id: str
    descriptor: Descriptor
    empty: bool = False


class _Stage(threading.Thread):
    """A thread that takes chunks from a bounded queue; its error comes out at `finish`."""

    def __init__(self, work: object) -> None:
        super().__init__(daemon=True)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
        self._work = work
        self.failure: BaseException | None = None

    def run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if self.failure is None:
                try:
                    self._work(chunk)  # type: ignore[operator]
                except BaseException as bad:  # noqa: BLE001 (handed to the writer's thread)
                    self.failure = bad

    def put(self, chunk: bytes | None) -> None:
        self._queue.put(chunk)


class LayerWriter:
    """Takes entries in order, gives a `Layer`. To be used in a `with` block: leaving it early drops what was written.
    `check` is called now and then; what it raises ends the writing."""

    def __init__(self, blobs: Blobs, compression: Compression, follow: Follow | None = None) -> None:
        self._compression = compression
        self._compressor = compressor(compression.kind, compression.level)
        self._writer = blobs.writer(follow)
        self._diff = hashlib.sha256()
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._stages: list[_Stage] = []
        self._position = 0
        self.toc: Toc = []
        self.check: Callable[[], None] = lambda: None

    def __enter__(self) -> LayerWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._writer.__exit__()

    def add(self, path: str, entry: Entry, content: Iterable[bytes] = ()) -> Entry:
        """Appends one entry with its content (`entry.size` bytes); returns it with digest and offset filled in."""
        if entry.opaque and entry.mode < 0:
            self._put(tarwrite.opaque_header(path, entry.mtime))
            self.toc.append((path, entry))
            return entry
        self._put(tarwrite.header(path, entry))
        done = copy_of(entry, offset=self._position, sparse=None)
        if entry.kind == FILE:
            done = self._content(path, done, content)
        self.toc.append((path, done))
        return done

    def _content(self, path: str, entry: Entry, content: Iterable[bytes]) -> Entry:
        size = 0
        hasher = None if entry.digest else hashlib.sha256()
        for chunk in content:
            size += len(chunk)
            if hasher is not None:
                hasher.update(chunk)
            self._put(chunk)
        if size != entry.size:
            raise SourceError(
                f"/{path} changed while it was read: {entry.size} bytes were expected, {size} came",
                hint="Build again when nothing writes to the file.",
            )
        self._put(tarwrite.padding(size))
        return entry if hasher is None else copy_of(entry, digest=hasher.hexdigest())

    def _put(self, data: bytes) -> None:
        self._position += len(data)
        self._pieces.append(data)
        self._buffered += len(data)
        while self._buffered >= _CHUNK:
            self._flush(_CHUNK)

    def _flush(self, size: int) -> None:
        """Hands on `size` bytes: what a compressor makes of a stream depends on where it is cut, so the cuts must not
        depend on the pieces that the content came in."""
        self.check()
        joined = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        chunk, rest = (joined, b"") if len(joined) == size else (joined[:size], joined[size:])
        self._pieces, self._buffered = ([rest] if rest else []), len(rest)
        if not self._stages:
            self._stages = [_Stage(self._diff.update), _Stage(self._compress)]
            for stage in self._stages:
                stage.start()
        for stage in self._stages:
            if stage.failure is not None:
                self._raise(stage.failure)
            stage.put(chunk)

    def _compress(self, chunk: bytes) -> None:
        self._writer.write(self._compressor.compress(chunk))

    def _stop(self) -> None:
        for stage in self._stages:
            stage.put(None)
        for stage in self._stages:
            stage.join()

    def _raise(self, failure: BaseException) -> None:
        if isinstance(failure, KilnError):
            raise failure
        raise RuntimeError("a layer could not be written") from failure

    def finish(self) -> Layer:
        """Ends the tar and the compressed stream and commits the blob."""
        self._put(tarwrite.END)
        if self._stages and self._buffered:
            self._flush(self._buffered)
        self._stop()
        for stage in self._stages:
            if stage.failure is not None:
                self._raise(stage.failure)
        if not self._stages:
            for piece in self._pieces:
                self._diff.update(piece)
            self._compress(b"".join(self._pieces))
        self._stages = []
        self._writer.write(self._compressor.flush())
        size = self._writer.size
        digest = self._writer.commit()
        descriptor = Descriptor(media.layer_type(self._compression.kind), digest, size)
        return Layer("sha256:" + self._diff.hexdigest(), descriptor, empty=not self.toc)
