"""Compressing a layer: what comes out depends on the chunks alone, not on how many threads took part.

gzip is one member (RFC 1952) whose chunks are deflated independently, each ended by an empty stored block (RFC 1951, 3.2.4;
zlib's Z_SYNC_FLUSH), so that several can be deflated at once. A chunk of 1 MiB costs 0.1 % in size that way.
"""

from __future__ import annotations

import os
import queue
import threading
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from kiln.store.compress import compressor

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

_MOST_WORKERS = 4
# ISA-L's level 2 with a small window of symbols takes as long as level 1 with the default and gives 2 to 10 % less.
_LEVEL, _MEMORY = 2, 2
# A chunk goes into the compressor in slices: its output buffer grows by copying, which costs a quarter of the time for 1 MiB.
_SLICE = 128 << 10
# A stream of at most so many bytes is deflated by zlib: a quarter less for 0.3 ms in a layer of 35 KB.
_SMALL, _SMALL_LEVEL = 256 << 10, 5
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"  # no name, no time, fastest, of no known system
_DEFLATE_END = b"\x03\x00"
PART_END = b"\x00\x00\xff\xff"
AROUND = len(_GZIP_HEAD), len(_DEFLATE_END) + 8  # bytes of a gzip layer before its first part and after its last one


def maker() -> str:
    """What says whether parts of two blobs are made alike."""
    import isal

    return f"isal {isal.__version__} {_LEVEL} {_MEMORY} {_SLICE}"


Write = Callable[[bytes], None]


class _Form(Protocol):
    """A compressed form. `alone`: `part` may be called for several chunks at once and in any order; `passed` is told of all
    chunks in their order. `whole` is for a stream of a single chunk."""

    alone: bool

    def begin(self) -> bytes: ...

    def part(self, chunk: bytes) -> bytes: ...

    def whole(self, content: bytes) -> bytes: ...

    def passed(self, chunk: bytes) -> None: ...

    def end(self) -> bytes: ...


class _Gzip:
    alone = True

    def __init__(self, level: int | None) -> None:
        from isal import isal_zlib

        self._zlib = isal_zlib
        self._level = _LEVEL if level is None else min(level, 3)
        self._small = _SMALL if level is None else -1
        self._crc = self._size = 0

    def begin(self) -> bytes:
        return _GZIP_HEAD

    def part(self, chunk: bytes) -> bytes:
        stream = self._zlib.compressobj(self._level, self._zlib.DEFLATED, -15, _MEMORY)
        whole = memoryview(chunk)
        packed = [stream.compress(whole[place : place + _SLICE]) for place in range(0, len(whole), _SLICE)]
        packed.append(stream.flush(self._zlib.Z_SYNC_FLUSH))
        return b"".join(packed)

    def whole(self, content: bytes) -> bytes:
        if len(content) > self._small:
            return self.part(content)
        stream = zlib.compressobj(_SMALL_LEVEL, zlib.DEFLATED, -15)
        return stream.compress(content) + stream.flush(zlib.Z_SYNC_FLUSH)

    def passed(self, chunk: bytes) -> None:
        self._crc = self._zlib.crc32(chunk, self._crc)
        self._size += len(chunk)

    def end(self) -> bytes:
        return _DEFLATE_END + self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")


class _Stream:
    """zstd, or no compression at all."""

    alone = False

    def __init__(self, kind: str, level: int | None) -> None:
        self._compressor = compressor(kind, level)

    def begin(self) -> bytes:
        return b""

    def part(self, chunk: bytes) -> bytes:
        return self._compressor.compress(chunk)

    def whole(self, content: bytes) -> bytes:
        return self._compressor.compress(content)

    def passed(self, chunk: bytes) -> None:
        pass

    def end(self) -> bytes:
        return self._compressor.flush()


class Press:
    """Takes chunks, calls `write` with the compressed bytes in order. Threads begin with the first `add`; to be ended by
    `finish` or `stop`. `parts` are the sizes of what each chunk became."""

    def __init__(self, kind: str, level: int | None, write: Write) -> None:
        self._form: _Form = _Gzip(level) if kind == "gzip" else _Stream(kind, level)
        self._write = write
        self._begun = False
        self._failure: BaseException | None = None
        self._workers = min(_MOST_WORKERS, len(os.sched_getaffinity(0)))
        self.parts: list[int] = []
        self._queue: queue.Queue[tuple[bytes, Future[bytes] | bytes | None] | None] = queue.Queue(self._workers + 2)
        self._pool: ThreadPoolExecutor | None = None
        self._writer: threading.Thread | None = None

    def add(self, chunk: bytes, packed: bytes | None = None) -> None:
        """Hands on one chunk, and what it becomes where that is known; raises what failed since."""
        if self._writer is None:
            self._start()
        self._check()
        if packed is not None or self._pool is None:
            self._queue.put((chunk, packed))
        else:
            self._queue.put((chunk, self._pool.submit(self._form.part, chunk)))

    def finish(self, rest: bytes) -> None:
        """The last bytes, and the end of the compressed stream; raises what failed."""
        if self._writer is None:
            data = self._form.whole(rest)
            self._form.passed(rest)
            self._write(self._form.begin() + data)
        elif rest:
            self.add(rest)
        self.stop()
        self._check()
        self._write(self._form.end())

    def stop(self) -> None:
        """Ends the threads; a second time does nothing."""
        if self._writer is not None:
            self._queue.put(None)
            self._writer.join()
            self._writer = None
        if self._pool is not None:
            self._pool.shutdown()

    def _start(self) -> None:
        if self._form.alone and self._workers > 1:
            from concurrent.futures import ThreadPoolExecutor

            self._pool = ThreadPoolExecutor(self._workers, thread_name_prefix="kiln-press")
        self._writer = threading.Thread(target=self._run, name="kiln-press", daemon=True)
        self._writer.start()

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if self._failure is None:
                try:
                    self._pass(*item)
                except BaseException as bad:  # noqa: BLE001 (raised by add or finish)
                    self._failure = bad

    def _pass(self, chunk: bytes, packed: Future[bytes] | bytes | None) -> None:
        if not self._begun:
            self._begun = True
            self._write(self._form.begin())
        if packed is None:
            packed = self._form.part(chunk)
        data = packed if isinstance(packed, bytes) else packed.result()
        self._form.passed(chunk)
        self.parts.append(len(data))
        self._write(data)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
