"""Where layers are known to be: registries and repositories that they were pulled from or pushed to."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kiln.oci.digest import parse
from kiln.store.files import read_whole, write_whole

_MOST = 8


class Origins:
    """Layer digest -> repositories, newest first."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "cache" / "origins"

    def add(self, digest: str, host: str, repository: str) -> None:
        """Remembers that a repository has a layer."""
        known = self._read(digest)
        entry = (host, repository)
        if entry not in known:
            write_whole(self._folder / parse(digest)[1], msgspec.json.encode([entry, *known][:_MOST]))

    def repositories(self, digest: str, host: str) -> list[str]:
        """The repositories of a host that are known to have a layer."""
        return [repository for known, repository in self._read(digest) if known == host]

    def _read(self, digest: str) -> list[tuple[str, str]]:
        data = read_whole(self._folder / parse(digest)[1])
        try:
            return msgspec.json.decode(data, type=list[tuple[str, str]]) if data else []
        except msgspec.MsgspecError:
            return []
