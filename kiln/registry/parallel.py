"""Several transfers at once; the first failure stops the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from kiln.errors import CancelledBuild
from kiln.registry.progress import Progress, unwatched

if TYPE_CHECKING:
    from concurrent.futures import Future

THREADS = 4
Transfer = Callable[[Progress], object]


class _Stopped(CancelledBuild):
    """Ends a transfer because another one failed; never the error that is shown."""


def run_all(transfers: Iterable[Transfer], progress: Progress | None, threads: int = THREADS) -> None:
    """Runs every transfer, each with a progress to tell; raises the error that stopped them, once all have ended.

    `progress` is called from several threads; an error that it raises (a build that was cancelled) ends all transfers.
    """
    from concurrent.futures import ThreadPoolExecutor, wait

    group = _Group(progress or unwatched)
    with ThreadPoolExecutor(threads, thread_name_prefix="kiln-transfer") as pool:
        futures = [pool.submit(group.run, transfer) for transfer in transfers]
        try:
            wait(futures)
        except BaseException:
            group.stop.set()
            raise
    _raise_first(futures)


class _Group:
    """Transfers that end together."""

    def __init__(self, progress: Progress) -> None:
        self.stop = threading.Event()
        self._progress = progress

    def run(self, transfer: Transfer) -> None:
        """Runs one transfer; its failure stops all others at their next word of progress."""
        self._check()
        try:
            transfer(self._told)
        except BaseException:
            self.stop.set()
            raise

    def _told(self, digest: str, done: int, total: int) -> None:
        self._check()
        self._progress(digest, done, total)

    def _check(self) -> None:
        if self.stop.is_set():
            raise _Stopped("another transfer failed")


def _raise_first(futures: Iterable[Future[None]]) -> None:
    for future in futures:
        failure = future.exception()
        if failure is not None and not isinstance(failure, _Stopped):
            raise failure
