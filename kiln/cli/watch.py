"""Running work in a thread of its own, so that Ctrl-C can stop it in order."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from msgspec import Struct

from kiln import events
from kiln.cli.progress import Display
from kiln.engine.cancel import Cancel
from kiln.errors import CancelledBuild, KilnError

_PATIENCE_SECONDS = 3.0
T = TypeVar("T")


def _as_it_is(bad: KilnError) -> None:
    pass


class Watched(Struct, Generic[T], frozen=True):
    """Work with its display; `explain` adds to an error what a person wants to see with it."""

    work: Callable[[events.Report], T]
    screen: Display
    cancel: Cancel
    explain: Callable[[KilnError], None] = _as_it_is


def run_watched(watched: Watched[T]) -> T:
    """What the work gives; raises what it raises. The first Ctrl-C stops it in order, the second at once."""
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(watched.work(_while_read(watched.screen, watched.cancel)))
        except BaseException as bad:  # noqa: BLE001 (raised again below)
            failures.append(bad)

    def stop(number: int, frame: object) -> None:
        watched.cancel.cancel("stopped by the user")
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    thread = threading.Thread(target=work, name="build", daemon=True)
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, stop)
    thread.start()
    patience = _PATIENCE_SECONDS
    while thread.is_alive() and patience > 0:
        thread.join(0.2)
        patience -= 0.2 if watched.cancel.reason else 0
    if failures:
        raise failures[0]
    if not results:
        _leave(watched)
    return results[0]


def _leave(watched: Watched[T]) -> NoReturn:
    """Ends the process though the work does not: one of its threads waits for a server that says nothing."""
    from kiln.cli.main import show_error

    watched.cancel.abandon()
    watched.screen.close()
    bad = watched.cancel.failure or CancelledBuild(watched.cancel.reason)
    watched.explain(bad)
    show_error(bad)
    os._exit(bad.exit_code)


def _while_read(screen: Display, cancel: Cancel) -> events.Report:
    """The display, until nobody reads it any more (`kiln build 2>&1 | head`): then the work stops."""

    def report(event: events.Event) -> None:
        try:
            screen(event)
        except BrokenPipeError:
            cancel.cancel("nobody reads the output any more")

    return report
