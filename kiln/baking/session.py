"""What all targets of one run share: the store, one worker process, slots for steps, contexts, images, agents."""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from kiln import events
from kiln.baking.contexts import Contexts
from kiln.baking.images import Images
from kiln.engine import sandbox
from kiln.engine.cancel import Cancel
from kiln.engine.helper import Helper
from kiln.errors import KilnError
from kiln.settings import Settings
from kiln.sources.agent import agent_socket
from kiln.sources.wish import Destination
from kiln.store.store import Store

if TYPE_CHECKING:
    from kiln.registry.client import Client


class Session:
    """One run of Kiln on one store; `close` ends the worker and saves what was learned."""

    def __init__(
        self, store: Store, settings: Settings, report: events.Report, cancel: Cancel, *, slots: int = 0
    ) -> None:
        self.store, self.settings, self.report, self.cancel = store, settings, report, cancel
        self.build_id = f"{int(events.now())}-{secrets.token_hex(4)}"
        self.contexts = Contexts(store)
        self.helper = Helper(cancel, settings.environment)
        self.slots = threading.BoundedSemaphore(slots or max(2, os.cpu_count() or 2))
        self._images = {refresh: Images(store, settings, report, refresh=refresh) for refresh in (False, True)}
        self._agents = contextlib.ExitStack()
        self._client: Client | None = None
        self._login: Destination | None = None
        self._lock = threading.Lock()
        for scratch in store.stale_scratch():
            _remove_cgroups(scratch)
        self._stale = store.clean()

    def images(self, *, refresh: bool = False) -> Images:
        """Images by name; `refresh` asks the registry even for names that the store has."""
        return self._images[refresh]

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

    def agent(self, text: str) -> str:
        """The socket of an ssh agent, which lives as long as the session."""
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
        self.helper.close()
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
        sandbox.remove_cgroup(folder.name.removeprefix("run-"))
