"""Writing a layer: tar, two hashes and compression in one pass, in threads of their own once there is enough to do."""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable

import msgspec

from kiln.errors import SourceError
from kiln.oci import media
from kiln.oci.image import Descriptor
from kiln.store import tarwrite
from kiln.store.before import Before, Part, Run
from kiln.store.blobs import Blobs, Follow
from kiln.store.entry import FILE, Entry, copy_of
from kiln.store.press import Press
from kiln.store.toc import Table

CHUNK = 1 << 20
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

    @property
    def plain(self) -> bool:
        """Whether the blob is not compressed."""
        return media.compression_of(self.descriptor.media_type) == "none"


class _Hasher(threading.Thread):
    """A thread that hashes chunks from a bounded queue."""

    def __init__(self) -> None:
        super().__init__(name="kiln-hash", daemon=True)
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUE)
        self.hash = hashlib.sha256()

    def run(self) -> None:
        while (chunk := self._queue.get()) is not None:
            self.hash.update(chunk)

    def put(self, chunk: bytes | None) -> None:
        self._queue.put(chunk)


class LayerWriter:
    """Takes entries in order, gives a `Layer`. To be used in a `with` block: leaving it early drops what was written.
    `check` is called now and then; what it raises ends the writing. A layer of `plain_above` bytes or more (0: none) is not
    compressed."""

    def __init__(
        self, blobs: Blobs, compression: Compression, follow: Follow | None = None, plain_above: int = 0
    ) -> None:
        self._kind = compression.kind
        self._writer = blobs.writer(follow)
        self._press = Press(compression.kind, compression.level, self._writer.write)
        self._diff = _Hasher()
        self._plain = False
        self._wait_for = max(plain_above, CHUNK)
        self._threaded = False
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._position = self._differs = 0
        self.toc = Table()
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
            self.toc.add(path, entry)
            return entry
        self._put(tarwrite.header(path, entry))
        offset, digest = self._position, entry.digest
        if entry.kind == FILE:
            digest = self._content(path, entry, content)
        done = copy_of(entry, offset=offset, sparse=None, digest=digest)
        self.toc.add(path, done)
        return done

    def repeat(self, run: Run, before: Before) -> None:
        """Appends entries as they stand in an earlier layer. Chunks at the same place in both are not compressed again."""
        shift = self._position - run.begin
        rows = [(path, copy_of(entry, offset=entry.offset + shift)) for path, entry in run.rows] if shift else run.rows
        self.toc.extend(rows)
        for piece in before.read(run):
            self._put(piece, None if shift else before.part)

    def _content(self, path: str, entry: Entry, content: Iterable[bytes]) -> str:
        """Appends a file's content; returns its digest."""
        size, hasher = 0, None
        for chunk in content:
            size += len(chunk)
            if not entry.digest:
                if hasher is None:
                    hasher = hashlib.sha256(chunk)
                else:
                    hasher.update(chunk)
            self._put(chunk)
        if size != entry.size:
            raise SourceError(
                f"/{path} changed while it was read: {entry.size} bytes were expected, {size} came",
                hint="Build again when nothing writes to the file.",
            )
        if size % tarwrite.BLOCK_SIZE:
            self._put(tarwrite.padding(size))
        return entry.digest or (hasher or hashlib.sha256()).hexdigest()

    def _put(self, data: bytes, part: Part | None = None) -> None:
        self._position += len(data)
        if part is None:
            self._differs = self._position
        self._pieces.append(data)
        self._buffered += len(data)
        if self._buffered >= self._wait_for:
            if self._wait_for > CHUNK:
                self._leave_plain()
            self._flush_all(part)

    def _leave_plain(self) -> None:
        self._wait_for, self._plain, self._kind = CHUNK, True, "none"
        self._press = Press("none", None, self._writer.write_hashed)

    def _flush_all(self, part: Part | None = None) -> None:
        while self._buffered >= CHUNK:
            self._flush(CHUNK, part)

    def _flush(self, size: int, part: Part | None) -> None:
        """Hands on `size` bytes: what a compressor makes of a stream depends on where it is cut, so the cuts must not
        depend on the pieces that the content came in."""
        self.check()
        joined = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        chunk, rest = (joined, b"") if len(joined) == size else (joined[:size], joined[size:])
        self._pieces, self._buffered = ([rest] if rest else []), len(rest)
        if not self._threaded:
            self._threaded = True
            self._diff.start()
        self._diff.put(chunk)
        place = self._position - self._buffered - size
        self._press.add(chunk, part(place // size) if part is not None and place >= self._differs else None)

    @property
    def parts(self) -> list[int]:
        """The sizes of what each chunk became in the blob."""
        return self._press.parts

    def _stop(self) -> None:
        if self._threaded:
            self._threaded = False
            self._diff.put(None)
            self._diff.join()
        self._press.stop()

    def finish(self) -> Layer:
        """Ends the tar and the compressed stream and commits the blob."""
        self._put(tarwrite.END)
        self._flush_all()
        rest = b"".join(self._pieces)
        if self._threaded:
            self._diff.put(rest)
        self._press.finish(rest)
        self._stop()
        if self._position == len(rest):
            self._diff.hash.update(rest)
        size = self._writer.size
        diff_id = "sha256:" + self._diff.hash.hexdigest()
        digest = self._writer.commit(digest=diff_id if self._plain else "")
        descriptor = Descriptor(media.layer_type(self._kind), digest, size)
        return Layer(diff_id, descriptor, empty=not self.toc)
