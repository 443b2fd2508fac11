"""Writing into a file system without having it on disk: what a COPY puts on top of the layers below.

The rules for existing paths are those of BuildKit's copy: folders merge, a file replaces a file or a link, a file does
not replace a folder nor a folder a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from kiln.engine.users import Owner
from kiln.errors import SourceError
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry, copy_of, parent, parents
from kiln.store.layer import LayerWriter
from kiln.store.tree import Tree, resolve

Content = Callable[[], Iterator[bytes]]


def _nothing() -> Iterator[bytes]:
    return iter(())


class Written(Struct, frozen=True):
    """A path that was written: its entry, how to get its content, what it shares an inode with, whom to tell its digest."""

    entry: Entry
    content: Content = _nothing
    inode: object = None
    learned: Callable[[str], None] | None = None


class Edit:
    """A tree with changes on top. `time` is the modification time of what is made (seconds since the epoch)."""

    def __init__(self, tree: Tree, time: int) -> None:
        self._tree = tree
        self.time = time
        self._written: dict[str, Written] = {}
        self._hidden: set[str] = set()

    def get(self, path: str) -> Entry | None:
        """The entry at exactly this path as it stands after the changes so far."""
        written = self._written.get(path)
        if written is not None:
            return written.entry
        if self._hidden and any(path.startswith(hidden) for hidden in self._hidden):
            return None
        return self._tree.get(path)

    def resolve(self, path: str) -> str:
        """The path with all symlinks replaced, inside the root."""
        return resolve(self.get, path)

    def is_dir(self, path: str) -> bool:
        """Whether a folder is at exactly this path."""
        entry = self.get(path)
        return entry is not None and entry.kind == DIR

    def mkdirs(self, path: str, owner: Owner | None, mode: int = 0o755) -> None:
        """Makes a folder and those above it; existing ones keep what they are. A folder made in one with the setgid
        bit takes over the bit and the group, as mkdir(2) has it. Raises `SourceError`."""
        for folder in [*parents(path), path]:
            entry = self.get(folder)
            if entry is None:
                above = self.get(parent(folder))
                setgid = 0o2000 if above is not None and above.mode & 0o2000 else 0
                uid, gid = owner or (0, above.gid if above is not None and setgid else 0)
                self._written[folder] = Written(Entry(DIR, mode=mode | setgid, uid=uid, gid=gid, mtime=self.time))
            elif entry.kind != DIR:
                raise SourceError(f"cannot make the folder /{path}: /{folder} is a {entry.kind}")

    def put(self, path: str, written: Written) -> None:
        """Writes one path; raises `SourceError` where a file meets a folder."""
        there = self.get(path)
        if there is not None and written.entry.kind != DIR and there.kind == DIR:
            raise SourceError(
                f"cannot replace to directory /{path} with file", hint="Copy into it: end the path with /."
            )
        if there is not None and written.entry.kind == DIR and there.kind != DIR:
            raise SourceError(f"cannot copy to non-directory: /{path}", hint="Remove it in an earlier step.")
        self._written[path] = written

    def replace(self, path: str, written: Written) -> None:
        """Writes one path as unpacking an archive does: whatever is there and not a folder of its own kind goes."""
        there = self.get(path)
        if there is not None and there.kind == DIR and written.entry.kind != DIR:
            self._drop_below(path)
        self._written[path] = written

    def _drop_below(self, path: str) -> None:
        self._hidden.add(path + "/")
        for known in [name for name in self._written if name.startswith(path + "/")]:
            del self._written[known]

    def relink(self, written: Written, entry: Entry) -> Written:
        """A hard link in an archive has metadata of its own, which becomes that of the file under all its names."""
        changed = replace(written, entry=entry)
        for path, other in self._written.items():
            if other.inode is not None and other.inode == written.inode:
                self._written[path] = changed
        return changed

    def written(self, path: str) -> Written | None:
        """What was written at a path, or None."""
        return self._written.get(path)

    @property
    def changed(self) -> bool:
        """Whether anything was written."""
        return bool(self._written)

    def write(self, layer: LayerWriter) -> None:
        """The changes as a layer: sorted, each with the folders above it so that every tool unpacks them alike."""
        paths = set(self._written)
        for path in self._written:
            while (path := parent(path)) and path not in paths:
                paths.add(path)
        first: dict[object, str] = {}
        for path in sorted(paths):
            written = self._written.get(path)
            if written is None:
                layer.add(path, self._folder(path))
                continue
            _write_one(layer, path, written, first)

    def _folder(self, path: str) -> Entry:
        entry = self._tree.get(path)
        if entry is None or entry.kind != DIR:
            raise SourceError(f"/{parent(path)} is no folder")
        return copy_of(entry, opaque=False)


def _write_one(layer: LayerWriter, path: str, written: Written, first: dict[object, str]) -> None:
    entry = written.entry
    if entry.kind in (FILE, SYMLINK) and written.inode is not None:
        if written.inode in first:
            layer.add(path, copy_of(entry, kind=HARDLINK, link=first[written.inode], size=0, digest="", xattrs=None))
            return
        first[written.inode] = path
    done = layer.add(path, entry, written.content() if entry.kind == FILE else ())
    if written.learned is not None and not entry.digest:
        written.learned(done.digest)
