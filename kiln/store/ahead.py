"""Reading ahead of who needs the bytes, in a thread: decompression goes on beside what is done with its output."""

from __future__ import annotations

import queue
import threading

from kiln.store.tarread import ReadSome

_CHUNK = 1 << 18
_CHUNKS = 8


class Ahead:
    """The bytes of `read` in the same order, at most 2 MiB ahead; to be closed. What `read` raises comes out in its place."""

    def __init__(self, read: ReadSome) -> None:
        self._read = read
        self._queue: queue.Queue[bytes | BaseException] = queue.Queue(_CHUNKS)
        self._stopped = self._ended = False
        self._thread = threading.Thread(target=self._run, name="kiln-ahead", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stopped:
                data = self._read(_CHUNK)
                self._queue.put(data)
                if not data:
                    return
        except BaseException as bad:  # noqa: BLE001 (raised by read)
            self._queue.put(bad)

    def read(self, size: int) -> bytes:
        """The next bytes, however many were read at once; none at the end."""
        if self._ended:
            return b""
        found = self._queue.get()
        if isinstance(found, BaseException):
            self._ended = True
            raise found
        self._ended = not found
        return found

    def close(self) -> None:
        """Ends the thread; a second time does nothing."""
        self._stopped = self._ended = True
        while self._thread.is_alive():
            while not self._queue.empty():
                self._queue.get()
            self._thread.join(0.01)
