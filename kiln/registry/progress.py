"""Progress of one transfer, told at most ten times a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

Progress = Callable[[str, int, int], None]
INTERVAL = 0.1


def unwatched(digest: str, done: int, total: int) -> None:
    """A progress that nobody looks at."""


class Meter:
    """Tells `progress(digest, bytes done, bytes in all)`; the end is always told, and told once."""

    def __init__(self, progress: Progress | None, digest: str, total: int) -> None:
        self._progress = progress or unwatched
        self._digest = digest
        self._total = total
        self._next = 0.0
        self._ended = False

    def at(self, done: int) -> None:
        """`done` bytes are through."""
        now = time.monotonic()
        if done >= self._total:
            if not self._ended:
                self._ended = True
                self._progress(self._digest, done, self._total)
        elif now >= self._next:
            self._next = now + INTERVAL
            self._progress(self._digest, done, self._total)

    def watch(self, chunks: Iterable[bytes], start: int = 0) -> Iterator[bytes]:
        """The same chunks, counted from `start` bytes as they pass."""
        done = start
        for chunk in chunks:
            yield chunk
            done += len(chunk)
            self.at(done)
