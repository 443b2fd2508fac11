"""An earlier layer that a new one has much in common with: what is in both comes from the earlier one's blob, in long runs,
instead of each file from its own place. Whether it does changes nothing in the new layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec

from kiln.errors import CorruptError, KilnError
from kiln.oci.image import Descriptor
from kiln.store import tarwrite
from kiln.store.ahead import Ahead
from kiln.store.blobs import Blobs
from kiln.store.compress import Inflater
from kiln.store.entry import FILE, Entry, copy_of
from kiln.store.press import AROUND, PART_END
from kiln.store.toc import Toc

Part = Callable[[int], "bytes | None"]

# What finding, opening and closing a small file costs, in bytes that could be inflated meanwhile.
_FILE = 1 << 13
_CHUNK = 1 << 18
# More than what is read ahead, and a chunk, are together.
_KEEP_RAW = 1 << 23


class DamagedBeforeError(CorruptError):
    """The earlier layer cannot be read: what was made with it is to be made again without it."""


class Run(msgspec.Struct):
    """Rows of the earlier layer's table of contents that follow each other; they stand in its tar from `begin` to `end`."""

    rows: Toc
    begin: int
    end: int


class Before:
    """An earlier layer, by its blob, the pieces of its table of contents and the sizes of the blob's `parts` (none: not known);
    to be closed. It is read once, front to back."""

    def __init__(self, blobs: Blobs, descriptor: Descriptor, pieces: Iterable[Toc], parts: Sequence[int]) -> None:
        self._digest = descriptor.digest
        self._stream = blobs.stream(descriptor.digest)
        self._ahead: Ahead | None = None
        self._failure: KilnError | None = None
        self._held, self._position, self._declined = b"", 0, 0
        self._rows = _placed(pieces)
        self._row: tuple[str, Entry, int, int] | None = ("", Entry(""), 0, 0)
        head, tail = AROUND
        known = sum(parts) + head + tail == descriptor.size
        self._ends = [*accumulate(parts, initial=head)] if known else []
        self._raw, self._raw_begin, self._given = bytearray(), 0, b""

    def extend(self, run: Run | None, path: str, entry: Entry) -> Run | None:
        """The run with an entry of the new layer (they come sorted by path), another run if the entry does not follow it in the
        earlier layer, None if that has no such entry."""
        row = self._row
        while row is not None and row[0] < path:
            row = self._row = self._next_row()
        if row is None or row[0] != path:
            return None
        _, old, begin, end = row
        if old.size != entry.size or old != copy_of(entry, offset=old.offset):
            return None
        if run is None or run.end != begin:
            return Run([(path, old)], begin, end)
        run.rows.append((path, old))
        run.end = end
        return run

    def _next_row(self) -> tuple[str, Entry, int, int] | None:
        try:
            return next(self._rows, None)
        except CorruptError as bad:
            raise DamagedBeforeError(bad.message, where=bad.where) from bad

    def is_worth(self, run: Run) -> bool:
        """Whether reading up to a run costs less than what it saves."""
        saved = self._declined + run.end - run.begin + len(run.rows) * _FILE
        if run.begin - self._position > saved:
            self._declined = saved
            return False
        self._declined = 0
        return True

    def read(self, run: Run) -> Iterator[bytes]:
        """The bytes of a run; runs are asked for in their order. Raises `DamagedBeforeError`."""
        while self._position < run.begin:
            self._take(run.begin - self._position)
        while self._position < run.end:
            yield self._take(run.end - self._position)

    def _take(self, most: int) -> bytes:
        if self._ahead is None:
            self._ahead = Ahead(Inflater(self._compressed, self._digest).read)
        try:
            data = self._held or self._ahead.read(_CHUNK)
        except KilnError as bad:
            raise DamagedBeforeError(bad.message, where=bad.where) from bad
        if not data:
            raise DamagedBeforeError(f"the layer {self._digest} is shorter than its table of contents says")
        if len(self._raw) > _KEEP_RAW:
            self._forget(len(self._raw) - _KEEP_RAW)
        self._held = data[most:]
        data = data[:most]
        self._position += len(data)
        return data

    def _compressed(self, size: int) -> bytes:
        """Some bytes of the blob: an inflater copies what it is given and does not need yet."""
        if not self._given:
            try:
                self._given = next(self._stream, b"")
            except KilnError as bad:
                self._failure = bad
                raise
            if self._ends:
                self._raw += self._given
        data, self._given = self._given[:size], self._given[size:]
        return data

    def part(self, number: int) -> bytes | None:
        """What a chunk that has just been read became in the blob, if that is known; numbers ascend."""
        if number + 1 >= len(self._ends):
            return None
        begin, end = self._ends[number] - self._raw_begin, self._ends[number + 1] - self._raw_begin
        if begin < 0 or end > len(self._raw):
            return None
        found = bytes(self._raw[begin:end])
        self._forget(end)
        return found if found.endswith(PART_END) else None

    def _forget(self, size: int) -> None:
        del self._raw[:size]
        self._raw_begin += size

    def finish(self) -> None:
        """Reads what is left of the blob, because only then it is known to be right. Raises `DamagedBeforeError`."""
        self._rows, self._row = iter(()), None
        if self._ahead is None:
            return
        self._ahead.close()
        try:
            for _ in self._stream:
                pass
        except KilnError as bad:
            self._failure = bad
        if self._failure is not None:
            raise DamagedBeforeError(self._failure.message, where=self._failure.where)

    def close(self) -> None:
        """Ends the thread."""
        if self._ahead is not None:
            self._ahead.close()


def _placed(pieces: Iterable[Toc]) -> Iterator[tuple[str, Entry, int, int]]:
    """The rows of a table of contents with where they begin and end in the tar, up to a marker, which no COPY makes."""
    end = 0
    for piece in pieces:
        for path, entry in piece:
            if entry.offset < 0:
                return
            begin, end = end, entry.offset
            if entry.kind == FILE:
                end += entry.size + -entry.size % tarwrite.BLOCK_SIZE
            yield path, entry, begin, end
