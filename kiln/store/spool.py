"""The uncompressed bytes of an archive in a file, from where its members' content is taken in another order.

A layer's entries are sorted, an archive's are not, so nothing can be written before all of it was read. Meanwhile threads deflate
the content of larger files, each by itself: the layer then only puts the pieces together.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kiln.store.blobs import disk_error
from kiln.store.entry import Entry
from kiln.store.layers import tar_content
from kiln.store.press import Part, alone, workers

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from kiln.store.layer import Compression

_WORTH = 32 << 10
_CHUNK = 1 << 20


class _Place(NamedTuple):
    """Where the content of a part is: in the spool, and deflated in the file beside it."""

    offset: int
    size: int
    packed: int
    packed_size: int


class Spool:
    """An archive's bytes; to be closed, which removes them. `compression` is that of the layer to come."""

    def __init__(self, folder: Path, compression: Compression) -> None:
        self.path = folder / f"spool-{os.urandom(8).hex()}"
        self._packed_path = self.path.with_suffix(".packed")
        self._press = alone(compression.kind, compression.level)
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._packed = os.open(self._packed_path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as bad:
            raise disk_error(bad, self.path) from bad
        self._parts: dict[int, list[Future[_Place]]] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._end = 0

    def keep(self, data: bytes) -> None:
        """Appends bytes of the archive; raises `StoreError`."""
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError as bad:
            raise disk_error(bad, self.path) from bad

    def prepare(self, entry: Entry) -> None:
        """Begins to compress a file's content, which was kept."""
        if self._press is None or entry.sparse is not None or entry.size < _WORTH or entry.offset in self._parts:
            return
        if self._pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(workers(), thread_name_prefix="kiln-spool")
        end = entry.offset + entry.size
        self._parts[entry.offset] = [
            self._pool.submit(self._pack, offset, min(_CHUNK, end - offset))
            for offset in range(entry.offset, end, _CHUNK)
        ]

    def _pack(self, offset: int, size: int) -> _Place:
        assert self._press is not None
        packed = self._press(self._read(self._fd, offset, size))
        with self._lock:
            place = self._end
            self._end += len(packed)
        try:
            if os.pwrite(self._packed, packed, place) != len(packed):
                raise OSError(28, "No space left on device")
        except OSError as bad:
            raise disk_error(bad, self.path) from bad
        return _Place(offset, size, place, len(packed))

    def content(self, entry: Entry) -> Iterator[bytes | Part]:
        """A file's content."""
        parts = self._parts.get(entry.offset)
        if parts is None:
            return tar_content(self.path, entry)
        return self._prepared(parts)

    def _prepared(self, parts: list[Future[_Place]]) -> Iterator[Part]:
        for future in parts:
            place = future.result()
            raw = self._read(self._fd, place.offset, place.size)
            yield Part(raw, self._read(self._packed, place.packed, place.packed_size))

    def _read(self, fd: int, offset: int, size: int) -> bytes:
        data = os.pread(fd, size, offset)
        if len(data) != size:
            raise disk_error(OSError(5, "the file became shorter"), self.path)
        return data

    def close(self) -> None:
        """Ends the threads and removes the files; a second time does nothing."""
        if self._fd < 0:
            return
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        os.close(self._fd)
        os.close(self._packed)
        self._fd = self._packed = -1
        self.path.unlink(missing_ok=True)
        self._packed_path.unlink(missing_ok=True)
