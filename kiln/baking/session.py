"""What all targets of one run share: the store, one worker process, slots for steps, contexts, images, agents."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kiln import events
from kiln.baking.contexts import Contexts
from kiln.baking.elsewhere import Elsewhere
from kiln.baking.images import Images
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError, TimedOut
from kiln.settings import Settings
from kiln.sources.wish import Destination
from kiln.store.store import Store

if TYPE_CHECKING:
    from kiln.engine.helper import Helper
    from kiln.registry.client import Client


class Session:
    """One run of Kiln on one store; `close` ends the worker and saves what was learned. `error` says what went wrong in a run
    that went on nevertheless."""

    def __init__(
        self, store: Store, settings: Settings, report: events.Report, cancel: Cancel, *, slots: int = 0
    ) -> None:
        self.store, self.settings, self.report, self.cancel = store, settings, report, cancel
        self.build_id = f"{int(events.now())}-{os.urandom(4).hex()}"
        self.contexts = Contexts(store)
        self.error = ""
        self._helper: Helper | None = None
        self.slots = threading.BoundedSemaphore(slots or max(2, os.cpu_count() or 2))
        self.elsewhere = Elsewhere(store, lambda: self.client, report)
        store.blobs.fetch = self.elsewhere.fetch
        self._images: dict[tuple[bool, bool], Images] = {}
        self._agents = contextlib.ExitStack()
        self._client: Client | None = None
        self._login: Destination | None = None
        self._lock = threading.Lock()
        for scratch in store.stale_scratch():
            _remove_cgroups(scratch)
        self._stale = store.clean()

    def images(self, *, refresh: bool = False, lazy: bool = False) -> Images:
        """Images by name; `refresh` asks the registry even for names that the store has, `lazy` leaves layers there until
        something reads them."""
        with self._lock:
            place = self.elsewhere if lazy else None
            new = Images(self.store, self.settings, self.report, refresh=refresh, elsewhere=place)
            return self._images.setdefault((refresh, lazy), new)

    @property
    def client(self) -> Client:
        """The registry client of the session: all targets share its connections and what it knows."""
        with self._lock:
            if self._client is None:
                self._client = self._new_client()
            return self._client

    def use_login(self, place: Destination) -> None:
        """Uses the user and password that a configuration has for its registry, for that host alone."""
        if place.username and place.prefix:
            self._login = place

    def _new_client(self) -> Client:
        from kiln.oci.reference import parse
        from kiln.registry.client import Client
        from kiln.registry.credentials import Credential, Credentials
        from kiln.registry.transport import Transport

        place = self._login
        if place is None:
            return Client(self.settings)
        kept = Credentials(self.settings).find
        host, own = parse(f"{place.prefix}/name").host, Credential(place.username, place.password)
        transport = Transport(self.settings, find=lambda asked: own if asked == host else kept(asked))
        return Client(self.settings, transport)

    @property
    def helper(self) -> Helper:
        """The worker process that runs commands; it starts with the first of them."""
        with self._lock:
            if self._helper is None:
                from kiln.engine.helper import Helper

                self._helper = Helper(self.cancel, self.settings.environment)
            return self._helper

    def agent(self, text: str) -> str:
        """The socket of an ssh agent, which lives as long as the session."""
        from kiln.sources.agent import agent_socket

        return self._agents.enter_context(agent_socket(text, self.settings))

    def clean_up(self) -> None:
        """What a killed build of a user without root left belongs to mapped ids: the worker removes it."""
        if self._stale and os.geteuid() != 0:
            with contextlib.suppress(KilnError):
                self.helper.remove(self._stale)
                self.store.clean()

    def close(self) -> None:
        """Ends everything, whether or not the run went well."""
        self.contexts.close()
        if self._helper is not None:
            self._helper.close()
        _remove_cgroups(self.store.scratch)
        self._agents.close()
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _remove_cgroups(scratch: Path) -> None:
    """The cgroups of steps that were killed together with who was to clean up after them."""
    for folder in scratch.glob("run-*"):
        from kiln.engine import sandbox

        sandbox.remove_cgroup(folder.name.removeprefix("run-"))


@contextlib.contextmanager
def open_session(
    settings: Settings, report: events.Report, cancel: Cancel, *, slots: int = 0, timeout: float = 0
) -> Iterator[Session]:
    """A session with a time limit (seconds, 0 for none); the last event says how it ended."""
    begin = events.now()
    counts = _Counts(report)
    build_id, error = "", ""
    try:
        with _time_limit(timeout, cancel), Store(settings.store_path) as store:
            cancel.holds(store.close)
            with Session(store, settings, counts, cancel, slots=slots) as session:
                build_id = session.build_id
                yield session
                error = session.error
    except KilnError as bad:
        report(counts.finished(build_id, begin, str(bad)))
        raise
    report(counts.finished(build_id, begin, error))


class _Counts:
    """Passes events on and counts the steps among them; one event at a time."""

    def __init__(self, report: events.Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self.cached = self.ran = 0

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            counted = isinstance(event, events.StepFinished) and not event.step.startswith(("pull ", "push "))
            if isinstance(event, events.StepFinished) and counted and not event.error:
                self.cached += event.cached
                self.ran += not event.cached
            self._report(event)

    def finished(self, build: str, begin: float, error: str = "") -> events.BuildFinished:
        """The last event of a build."""
        seconds = round(events.now() - begin, 3)
        return events.BuildFinished(
            time=events.now(), build=build, seconds=seconds, cached=self.cached, ran=self.ran, error=error
        )


@contextlib.contextmanager
def _time_limit(seconds: float, cancel: Cancel) -> Iterator[None]:
    if not seconds:
        yield
        return
    late = TimedOut(f"the build took longer than its limit of {seconds:g} s", hint="Give more with --timeout.")
    timer = threading.Timer(seconds, lambda: cancel.cancel(late.message, late))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
