"""Working through a graph side by side: each target as soon as what it needs is done, the longest way first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable

from msgspec import Struct, field

from kiln.engine.cancel import Cancel
from kiln.errors import KilnError
from kiln.plan.order import Order

Work = Callable[[str], None]
_MOMENT = 0.001


class Run(Struct):
    """How it went: names that are done, failures by name, and names that were not reached, with the need that failed or
    empty where everything was stopped."""

    done: list[str] = field(default_factory=list)
    failed: dict[str, BaseException] = field(default_factory=dict)
    unreached: dict[str, str] = field(default_factory=dict)


class Schedule:
    """One pass over an order. `work` makes one target and raises what went wrong with it."""

    def __init__(self, order: Order, work: Work, cancel: Cancel, *, jobs: int, keep_going: bool) -> None:
        self._order, self._work, self._cancel = order, work, cancel
        self._jobs, self._keep_going = max(1, jobs), keep_going
        self._condition = threading.Condition()
        self._missing = {name: len(order.needs[name]) for name in order.names}
        self._ready = [self._entry(name) for name in order.names if not self._missing[name]]
        heapq.heapify(self._ready)
        self._running = 0
        self._run = Run()
        self._over = threading.Event()

    def _entry(self, name: str) -> tuple[int, int, str]:
        return (-self._order.height[name], self._order.depth[name], name)

    def run(self) -> Run:
        """Works until nothing more can be done; never raises what targets raise."""
        threads: list[threading.Thread] = []
        while len(threads) < min(self._jobs, len(self._order.names)) and (not threads or self._has_time()):
            threads.append(threading.Thread(target=self._worker, name=f"target-{len(threads)}", daemon=True))
            threads[-1].start()
        for thread in threads:
            thread.join()
        for name in self._order.names:
            if name not in self._run.unreached and self._missing[name] >= 0:
                self._run.unreached[name] = ""
        return self._run

    def _has_time(self) -> bool:
        """Waits until another thread would be of use; False where all is over before. Where targets end within moments, as those
        do that there is nothing to do for, two threads only wait for Python's lock by turns: twice the time."""
        while not self._over.is_set():
            with self._condition:
                self._condition.wait_for(lambda: self._ready or not self._running)
                before = len(self._run.done)
            if not self._over.wait(_MOMENT) and self._ready and len(self._run.done) == before:
                return True
        return False

    def _worker(self) -> None:
        while (name := self._next()) is not None:
            failure: BaseException | None = None
            try:
                self._work(name)
            except BaseException as bad:  # noqa: BLE001 (kept as the target's failure)
                failure = bad
            self._finished(name, failure)
        self._over.set()

    def _next(self) -> str | None:
        """The next target to work on, waiting for one; None when there will be no more."""
        with self._condition:
            while True:
                if self._stopped():
                    return None
                if self._ready:
                    self._running += 1
                    return heapq.heappop(self._ready)[2]
                if not self._running:
                    self._condition.notify_all()
                    return None
                self._condition.wait(0.5)

    def _stopped(self) -> bool:
        return bool(self._cancel.reason) or (bool(self._run.failed) and not self._keep_going)

    def _finished(self, name: str, failure: BaseException | None) -> None:
        with self._condition:
            self._running -= 1
            self._missing[name] = -1
            if failure is None:
                self._run.done.append(name)
                for above in self._order.needed_by[name]:
                    self._missing[above] -= 1
                    if not self._missing[above]:
                        heapq.heappush(self._ready, self._entry(above))
            else:
                self._run.failed[name] = failure
                self._give_up(name)
            self._condition.notify_all()

    def _give_up(self, name: str) -> None:
        """Everything that stands on a failed target is not reached."""
        waiting = [name]
        while waiting:
            for above in self._order.needed_by[waiting.pop()]:
                if above not in self._run.unreached:
                    self._run.unreached[above] = name
                    waiting.append(above)


def failure_text(bad: BaseException) -> str:
    """What went wrong, for a report."""
    return str(bad) if isinstance(bad, KilnError) else f"a fault in Kiln: {type(bad).__name__}: {bad}"
