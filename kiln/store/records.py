"""The cache: key -> result of a step."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kiln.oci.image import Descriptor
from kiln.store.files import read_whole, write_whole


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a step gave: a layer (diffID and blob), or none where it changed nothing. `created` is seconds since the
    epoch at which a command ran, 0 for steps whose result does not depend on time."""

    diff_id: str
    descriptor: Descriptor
    created: int = 0
    seconds: float = 0.0
    name: str = ""


class Records:
    """Cache records as small files by key (64 hex digits)."""

    def __init__(self, root: Path) -> None:
        self.root = root / "cache"

    def path(self, key: str) -> Path:
        """Where a key's record is or would be."""
        return self.root / key[:2] / key

    def get(self, key: str) -> Record | None:
        """The record of a key, or None; one that cannot be read counts as none."""
        data = read_whole(self.path(key))
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Record)
        except msgspec.MsgspecError:
            return None

    def put(self, key: str, record: Record) -> None:
        """Keeps a record."""
        write_whole(self.path(key), msgspec.json.encode(record))
