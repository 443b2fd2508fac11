"""A package (war, jar, tar, zip, program) as files that COPY takes from, without unpacking it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kiln.store.entry import DIR, FILE, Entry, parent
from kiln.store.package.package import Package

_ROOT = Entry(DIR, mode=0o755)


class ArchiveFiles:
    """The tree below `root` in a package (empty: all of it). Owners read as root; times are not looked at."""

    def __init__(self, package: Package, root: str = "") -> None:
        self._package = package
        self._prefix = f"{root}/" if root else ""
        self._digests: dict[str, str] = {}
        self._children: dict[str, list[str]] = {}
        for path in sorted(package.entries):
            self._children.setdefault(parent(path), []).append(path.rpartition("/")[2])

    def _inner(self, path: str) -> str:
        return f"{self._prefix}{path}" if path else self._prefix.rstrip("/")

    def get(self, path: str) -> Entry | None:
        inner = self._inner(path)
        return self._package.entries.get(inner) if inner else _ROOT

    def children(self, path: str) -> list[str]:
        return sorted(self._children.get(self._inner(path), ()))

    def listed(self, path: str) -> None:
        return None

    def chunks(self, path: str, entry: Entry) -> Iterator[bytes]:
        return self._package.read(self._inner(path))

    def known_digest(self, path: str, entry: Entry) -> str:
        return entry.digest or self._digests.get(path, "")

    def digest(self, path: str, entry: Entry) -> str:
        if entry.digest:
            return entry.digest
        if path not in self._digests:
            hasher = hashlib.sha256()
            for chunk in self.chunks(path, entry):
                hasher.update(chunk)
            self.learned(path, hasher.hexdigest())
        return self._digests[path]

    def learned(self, path: str, digest: str) -> None:
        self._digests[path] = digest

    def inode(self, path: str, entry: Entry) -> object:
        shared = entry.kind == FILE and entry.offset in self._package.content.linked
        return entry.offset if shared else None
