"""Stopping a build from outside: Ctrl-C, a time limit, another step that failed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from kiln.errors import CancelledBuild, KilnError, TimedOut


class Cancel:
    """Asked by every step whether to go on; what has to be ended at once registers itself with `ending`."""

    def __init__(self, above: Cancel | None = None) -> None:
        """`above` stops this one too; stopping this one leaves what else hangs on `above` alone."""
        self._above = above
        self._lock = threading.Lock()
        self._reason = ""
        self._failure: KilnError | None = None
        self._enders: list[Callable[[], None]] = []
        self._held: list[Callable[[], None]] = []

    @property
    def reason(self) -> str:
        """Why the build stops, empty while it goes on."""
        return self._reason or (self._above.reason if self._above else "")

    @property
    def failure(self) -> KilnError | None:
        """The failure that it stops because of, if there is one."""
        return self._failure if self._reason or not self._above else self._above.failure

    def cancel(self, reason: str, failure: KilnError | None = None) -> None:
        """Stops the build; the first reason stays, with the failure that it is because of, if there is one."""
        with self._lock:
            if self._reason:
                return
            self._reason, self._failure = reason, failure
            enders = list(self._enders)
        for end in enders:
            with contextlib.suppress(OSError):
                end()

    def holds(self, free: Callable[[], None]) -> None:
        """Names something that the build holds, to be freed by `abandon`."""
        self._held.append(free)

    def abandon(self) -> None:
        """Frees what the build holds though a thread of it does not end (a server that is silent); only for a process
        that ends right after."""
        for free in reversed(self._held):
            free()

    def check(self) -> None:
        """Raises `CancelledBuild` (or the `TimedOut` that stopped it) if the build is to stop."""
        if self.reason:
            raise self.failure if isinstance(self.failure, TimedOut) else CancelledBuild(self.reason)

    @contextlib.contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """While inside, `end` is called when the build is cancelled."""
        with contextlib.ExitStack() as stack:
            if self._above:
                stack.enter_context(self._above.ending(end))
            with self._lock:
                self._enders.append(end)
            try:
                self.check()
                yield
            finally:
                with self._lock:
                    self._enders.remove(end)
