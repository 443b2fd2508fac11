"""A package as it is looked at: its files below one folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from msgspec import Struct

from kiln.store.entry import DIR, FILE, Entry

HEAD = 1 << 16
Read = Callable[[str], bytes]


class Tree(Struct, frozen=True):
    """A package seen from its root; `head` gives the first 64 KiB of a file."""

    names: Mapping[str, Entry]
    head: Read
    root: str

    def full(self, path: str) -> str:
        """The path in the package of a path below the root."""
        return f"{self.root}/{path}" if self.root else path

    def is_file(self, path: str) -> bool:
        """Whether a file is there."""
        entry = self.names.get(self.full(path))
        return entry is not None and entry.kind == FILE

    def is_folder(self, path: str) -> bool:
        """Whether a folder is there."""
        entry = self.names.get(self.full(path))
        return entry is not None and entry.kind == DIR

    def bytes(self, path: str) -> bytes:
        """The first 64 KiB of a file."""
        return self.head(self.full(path))

    def text(self, path: str) -> str:
        """A small file as text, empty for a large one and for none."""
        entry = self.names.get(self.full(path))
        if entry is None or entry.kind != FILE or entry.size > HEAD:
            return ""
        return self.bytes(path).decode("utf-8", "replace")

    def level(self, folder: str) -> Iterator[tuple[str, Entry]]:
        """(path below the root, entry) of everything that lies right in a folder, sorted."""
        start = self.full(f"{folder}/" if folder else "")
        found = [path for path in self.names if path.startswith(start) and "/" not in path[len(start) :]]
        for path in sorted(found):
            yield path[len(self.full("")) :], self.names[path]

    def folders(self) -> list[str]:
        """The folders at the root."""
        return [path for path, entry in self.level("") if entry.kind == DIR]

    def files(self, ending: str = "") -> list[str]:
        """The files at the root whose names end so."""
        return [path for path, entry in self.level("") if entry.kind == FILE and path.lower().endswith(ending)]
