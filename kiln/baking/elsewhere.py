"""Layers that a registry has and the store does not: brought when something reads them, passed on when an image is pushed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from kiln import events
from kiln.errors import KilnError
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.store.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from kiln.registry.client import Client


class Elsewhere:
    """What is known to be in registries, for one session. `client` gives the session's registry client."""

    def __init__(self, store: Store, client: Callable[[], Client], report: events.Report) -> None:
        self._store, self._client, self._report = store, client, report
        self._lock = threading.Lock()
        self._known: dict[str, tuple[Reference, Descriptor]] = {}
        self._busy: dict[Reference, threading.Lock] = {}

    def know(self, reference: Reference, layers: Iterable[Descriptor]) -> None:
        """Remembers that the reference's repository has layers."""
        with self._lock:
            for layer in layers:
                self._known.setdefault(layer.digest, (reference, layer))

    def fetch(self, digest: str) -> bool:
        """Brings one layer into the store; returns whether it is known where to get it."""
        found = self._known.get(digest)
        if found is not None:
            self.bring([found[1]])
        return found is not None

    def bring(self, layers: Iterable[Descriptor]) -> None:
        """Brings layers that are not in the store, several at once; those of unknown place are left out."""
        places: dict[Reference, list[Descriptor]] = {}
        for layer in layers:
            found = self._known.get(layer.digest)
            if found is not None and not self._store.blobs.has(layer.digest):
                places.setdefault(found[0], []).append(found[1])
        for reference, missing in places.items():
            with self._lock:
                lock = self._busy.setdefault(reference, threading.Lock())
            with lock:
                wanted = [layer for layer in missing if not self._store.blobs.has(layer.digest)]
                if wanted:
                    self._pull(reference, wanted)

    def stream(self, layer: Descriptor, offset: int) -> Iterator[bytes]:
        """A layer's bytes from its registry, past the store."""
        reference, known = self._known.get(layer.digest, (None, layer))
        if reference is None:
            return self._store.blobs.stream(layer.digest)
        return self._client().read_blob(reference, known, offset=offset)

    def _pull(self, reference: Reference, layers: list[Descriptor]) -> None:
        """Fetches layers, with events as a step has them."""
        from kiln.registry.pull import fetch

        step, name, begin = f"pull {reference}", f"[internal] pull {reference.familiar}", events.now()
        self._report(events.StepStarted(time=begin, step=step, name=name))

        def progress(digest: str, done: int, total: int) -> None:
            self._report(events.StepProgress(time=events.now(), step=step, name=digest[7:19], done=done, total=total))

        error = "stopped"
        try:
            fetch(self._client(), self._store.blobs, reference, layers, progress=progress, report=self._report)
            error = ""
        except KilnError as bad:
            error = str(bad)
            raise
        finally:
            reason = "" if error else "the store did not have it"
            seconds = round(events.now() - begin, 3)
            self._report(
                events.StepFinished(
                    time=events.now(), step=step, name=name, seconds=seconds, error=error, reason=reason
                )
            )
