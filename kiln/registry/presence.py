"""What this process knows to be in a registry: saves questions, and finds repositories to mount blobs from."""

from __future__ import annotations

import threading
import time
from collections import defaultdict

SECONDS = 600.0


class Presence:
    """Which repository of a host has which blob, remembered for ten minutes (a registry may collect its garbage)."""

    def __init__(self) -> None:
        self._seen: defaultdict[tuple[str, str], dict[str, float]] = defaultdict(dict)
        self._uploads: defaultdict[tuple[str, str], threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()

    def remember(self, host: str, repository: str, digest: str) -> None:
        """The repository has the blob now."""
        with self._lock:
            self._seen[host, digest][repository] = time.monotonic()

    def forget(self, host: str, repository: str) -> None:
        """The repository turned out not to have something that it should: nothing about it is certain."""
        with self._lock:
            for (known, _), repositories in self._seen.items():
                if known == host:
                    repositories.pop(repository, None)

    def repositories(self, host: str, digest: str) -> list[str]:
        """The host's repositories that have the blob, the latest seen first."""
        oldest = time.monotonic() - SECONDS
        with self._lock:
            fresh = [(seen, name) for name, seen in self._seen.get((host, digest), {}).items() if seen > oldest]
        return [name for _, name in sorted(fresh, reverse=True)]

    def has(self, host: str, repository: str, digest: str) -> bool:
        """Whether the repository is known to have the blob."""
        return repository in self.repositories(host, digest)

    def upload(self, host: str, digest: str) -> threading.Lock:
        """Held by the one thread that uploads a blob to a host; the next one can mount what it brought."""
        with self._lock:
            return self._uploads[host, digest]
