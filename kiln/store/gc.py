"""What the store's bytes are for, and giving back those that nobody needs, least recently used first."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from kiln.errors import KilnError
from kiln.oci.image import Index
from kiln.store.store import Store

_FOLDERS = {
    "blobs/sha256": "blob", "toc": "table of contents", "layers": "layer record", "cache": "cache record",
    "tars": "uncompressed layer", "snapshots": "snapshot", "mounts": "cache mount", "index": "file index", "logs": "log",
    "git/mirrors": "git mirror", "git/trees": "git checkout",
}  # fmt: skip


class Item(Struct, frozen=True):
    """One thing that takes space: `size` in bytes on disk, `used` in seconds since the epoch, `tags` that need it."""

    kind: str
    path: Path
    size: int
    used: float
    tags: tuple[str, ...] = ()


def items(store: Store) -> list[Item]:
    """Everything in the store, least recently used first."""
    needed = _needed(store)
    found = [
        Item(kind, path, size, used, needed.get(path.name, ()) if kind == "blob" else ())
        for folder, kind in _FOLDERS.items()
        for path, size, used in _entries(store.root / folder, kind)
    ]
    return sorted(found, key=lambda item: item.used)


def _entries(folder: Path, kind: str) -> Iterator[tuple[Path, int, float]]:
    """(path, bytes on disk, last use) of what is in a folder; what vanishes meanwhile is left out."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        path = Path(entry.path)
        is_dir = entry.is_dir(follow_symlinks=False)
        if kind == "cache record" and is_dir:
            yield from _entries(path, "")
            continue
        try:
            info = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield path, tree_size(path) if is_dir else info.st_blocks * 512, info.st_mtime


def tree_size(path: Path) -> int:
    """Bytes on disk of everything below a folder."""
    total = 0
    for folder, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
            except OSError:
                continue
    return total


def _needed(store: Store) -> dict[str, tuple[str, ...]]:
    """Hex digest -> names of tags that need the blob."""
    needed: dict[str, tuple[str, ...]] = {}
    for name, descriptor in store.layout.names().items():
        for digest in _reachable(store, descriptor.digest):
            value = digest.partition(":")[2]
            needed[value] = (*needed.get(value, ()), name)
    return needed


def _reachable(store: Store, digest: str) -> list[str]:
    from kiln.oci.image import parse_manifest

    found = [digest]
    try:
        document = parse_manifest(store.blobs.path(digest).read_bytes(), digest)
    except (OSError, KilnError):
        return found
    if isinstance(document, Index):
        for entry in document.manifests:
            found += _reachable(store, entry.digest)
        return found
    return found + [document.config.digest] + [layer.digest for layer in document.layers]


class Pruned(Struct, frozen=True):
    """What a collection did: things removed and bytes freed; bytes that are left."""

    removed: int
    freed: int
    left: int


def prune(store: Store, *, keep: int = 0) -> Pruned:
    """Removes what neither a tag nor a running build needs until at most `keep` bytes are left (0: all of it)."""
    store.clean()
    everything = items(store)
    total = sum(item.size for item in everything)
    removed = freed = 0
    for item in everything:
        if keep and total - freed <= keep:
            break
        if not item.tags and _remove(store, item):
            removed, freed = removed + 1, freed + item.size
    return Pruned(removed, freed, total - freed)


def _remove(store: Store, item: Item) -> bool:
    """Removes one item unless it was used since, or since a build began that still runs."""
    with store.collecting():
        try:
            used = item.path.lstat().st_mtime
        except FileNotFoundError:
            return False
        if used > item.used or used >= store.live_since() - 2:
            return False
        if item.kind == "blob" and item.path.name in _needed(store):
            return False
        doomed = store.scratch / f"pruned-{item.path.name}"
        item.path.rename(doomed)
    if doomed.is_dir() and not doomed.is_symlink():
        shutil.rmtree(doomed, ignore_errors=True)
    else:
        doomed.unlink(missing_ok=True)
    return True
