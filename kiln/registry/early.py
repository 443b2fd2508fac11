"""Pushing before an image is finished: a layer goes to its repository while it is still being compressed.

The upload is POST, one PATCH of unknown length, PUT with the digest (OCI distribution-spec 1.1, "Pushing a blob in chunks"): the
digest is known only at the end. All of it is a head start: what fails here is left to the push that follows, which asks
again, tries again, and says what is wrong.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from kiln.errors import CancelledBuild, KilnError
from kiln.oci import media
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry.client import Client
from kiln.registry.verify import skip
from kiln.store.blobs import Blobs

_CHUNK = 1 << 20
_WORTH = 1 << 20
_AT_ONCE = 3
_LEAVE_SECONDS = 2.0


class _Dropped(CancelledBuild):
    """The layer will not be finished; never shown."""


class EarlyPush:
    """What is on its way from a store to one repository; `client` is asked for when the first upload begins. Safe to use
    from several threads."""

    def __init__(self, client: Callable[[], Client], ref: Reference, blobs: Blobs) -> None:
        self._client, self._ref, self._blobs = client, ref, blobs
        self._streams: list[_Stream] = []
        self._threads: list[threading.Thread] = []
        self._turn = threading.BoundedSemaphore(_AT_ONCE)
        self._stopped = threading.Event()

    def follow(self, path: Path) -> _Stream:
        """Follows a layer that is being written to a file."""
        stream = _Stream(self, path)
        self._streams.append(stream)
        return stream

    def take(self, layer: Descriptor) -> None:
        """Brings a finished layer."""

        def bring() -> None:
            self._client().upload_blob(self._ref, layer, lambda offset: self._read(layer, offset), made=True)

        self.start(bring)

    def ask(self, layers: Iterable[Descriptor]) -> None:
        """Asks which layers of a base are there already; the push that follows then need not."""

        def ask_all() -> None:
            for layer in layers:
                if not self._stopped.is_set():
                    self._client().expect_blob(self._ref, layer.digest)

        self.start(ask_all)

    def start(self, work: Callable[[], object], ended: Callable[[], None] = lambda: None) -> None:
        """Runs an upload in a thread, and `ended` in any case; after one that failed nothing more is tried. A daemon: nobody
        waits for a registry that is silent when all else has ended."""

        def run() -> None:
            with self._turn:
                try:
                    if not self._stopped.is_set():
                        work()
                except KilnError:
                    self._stopped.set()
                finally:
                    ended()

        thread = threading.Thread(target=run, name="kiln-early", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _read(self, layer: Descriptor, offset: int) -> Iterator[bytes]:
        for chunk in skip(self._blobs.stream(layer.digest), offset):
            if self._stopped.is_set():
                raise _Dropped("the layer is not wanted")
            yield chunk

    def stream(self, chunks: Callable[[], Iterator[bytes]], ended: Callable[[], Descriptor]) -> None:
        """Brings a layer that is still being written."""
        self._client().stream_blob(self._ref, chunks, ended)

    def wait(self) -> None:
        """Returns when everything is there, or has failed."""
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """Gives up what is on its way; a registry that does not answer is waited for two seconds."""
        self._stopped.set()
        for stream in self._streams:
            stream.dropped()
        end = time.monotonic() + _LEAVE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


class _Stream:
    """One layer, sent as its file grows. Small ones are sent when they are finished."""

    def __init__(self, push: EarlyPush, path: Path) -> None:
        self._push, self._path = push, path
        self._grown = threading.Condition()
        self._size = self._sent = 0
        self._layer: Descriptor | None = None
        self._dropped = False
        self._fd = -1

    def grew(self, size: int) -> None:
        """The file has `size` bytes now."""
        if self._fd < 0 and size >= _WORTH and not self._dropped:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._push.start(lambda: self._push.stream(self._chunks, self._finished), lambda: os.close(self._fd))
        with self._grown:
            self._size = size
            self._grown.notify()

    def ended(self, digest: str, size: int) -> None:
        """The file is complete (and may have another name)."""
        layer = Descriptor(media.OCI_LAYER_GZIP, digest, size)
        if self._fd < 0 and not self._dropped:
            self._push.take(layer)
        with self._grown:
            self._layer = layer
            self._grown.notify()

    def dropped(self) -> None:
        """The file will not be completed, or is not wanted any more."""
        with self._grown:
            self._dropped = True
            self._grown.notify()

    def _chunks(self) -> Iterator[bytes]:
        self._sent = 0
        while self._waited():
            data = os.pread(self._fd, min(_CHUNK, self._size - self._sent), self._sent)
            self._sent += len(data)
            yield data

    def _waited(self) -> bool:
        """Whether there is more, once that is known."""
        with self._grown:
            self._grown.wait_for(lambda: self._dropped or self._layer is not None or self._size > self._sent)
        if self._dropped:
            raise _Dropped("the layer is not wanted")
        return self._size > self._sent

    def _finished(self) -> Descriptor:
        assert self._layer is not None
        return self._layer
