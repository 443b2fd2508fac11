"""Writing into a file system without having it on disk: what a COPY puts on top of the layers below.

The rules for existing paths are those of BuildKit's copy: folders merge, a file replaces a file or a link, a file does
not replace a folder nor a folder a file.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from kiln.engine.files import Files
from kiln.engine.users import Owner
from kiln.errors import SourceError
from kiln.store.before import Before, Run
from kiln.store.entry import DIR, FILE, HARDLINK, SYMLINK, Entry, copy_of, parent, parents
from kiln.store.layer import LayerWriter
from kiln.store.tree import Tree, resolve

Content = Callable[[], Iterator[bytes]]
Final = tuple[str, Entry, "Written | None"]
# Long enough to be worth its while, short enough for decompression to go on beside it.
_LONG_RUN = 1024


class Origin(Struct, frozen=True):
    """Where many files come from: the path of one in `files` is `start` and what follows the first `cut` letters of its target."""

    files: Files
    start: str
    cut: int

    def path(self, target: str) -> str:
        """The path in `files` of what goes to `target`."""
        return self.start + target[self.cut :]


class Written(Struct, frozen=True, gc=False):
    """A path that was written: its entry, where its content is (in an `Origin`, or what gives it), and what it shares an inode
    with. There may be very many."""

    entry: Entry
    content: Origin | Content | None = None
    inode: object = None


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

    def write(self, layer: LayerWriter, before: Before | None = None) -> None:
        """The changes as a layer: sorted, each with the folders above it so that every tool unpacks them alike. What an
        earlier layer has alike is taken from there. Raises `DamagedBeforeError` if that cannot be read. Each change is forgotten
        when it is written: nothing can be done with the edit afterwards."""
        missing = {above for path in self._written for above in _above(path, self._written)}
        paths = sorted([*self._written, *missing], reverse=True)
        if before is None:
            _write_all(layer, self._finals(paths))
        else:
            _write_most_again(layer, self._finals(paths), before)

    def _finals(self, paths: list[str]) -> Iterator[Final]:
        """What is to be written, from the last path on: path, entry, and what was written there if its content is needed."""
        first: dict[object, str] = {}
        while paths:
            path = paths.pop()
            written = self._written.pop(path, None)
            if written is None:
                yield path, self._folder(path), None
                continue
            entry, inode = written.entry, written.inode
            if inode is not None and entry.kind in (FILE, SYMLINK) and first.setdefault(inode, path) != path:
                yield path, copy_of(entry, kind=HARDLINK, link=first[inode], size=0, digest="", xattrs=None), None
            elif entry.kind == FILE and not entry.digest and isinstance(written.content, Origin):
                digest = written.content.files.known_digest(written.content.path(path), entry)
                yield path, copy_of(entry, digest=digest) if digest else entry, written
            else:
                yield path, entry, written

    def _folder(self, path: str) -> Entry:
        entry = self._tree.get(path)
        if entry is None or entry.kind != DIR:
            raise SourceError(f"/{parent(path)} is no folder")
        return copy_of(entry, opaque=False)


def _above(path: str, known: Container[str]) -> Iterator[str]:
    """The folders above a path that are not known."""
    while (path := parent(path)) and path not in known:
        yield path


def _write_all(layer: LayerWriter, finals: Iterable[Final]) -> None:
    for path, entry, written in finals:
        _write_one(layer, path, entry, written)


def _write_most_again(layer: LayerWriter, finals: Iterable[Final], before: Before) -> None:
    """Writes everything, in runs from an earlier layer where it has them."""
    run: Run | None = None
    waiting: list[Final] = []
    for final in finals:
        longer = before.extend(run, final[0], final[1])
        if longer is not run:
            _write_run(layer, run, waiting, before)
            run, waiting = longer, []
        if run is None:
            _write_one(layer, *final)
            continue
        waiting.append(final)
        if len(waiting) >= _LONG_RUN:
            _write_run(layer, run, waiting, before)
            run, waiting = None, []
    _write_run(layer, run, waiting, before)
    before.finish()


def _write_run(layer: LayerWriter, run: Run | None, finals: list[Final], before: Before) -> None:
    if run is not None and before.is_worth(run):
        layer.repeat(run, before)
    else:
        _write_all(layer, finals)


def _write_one(layer: LayerWriter, path: str, entry: Entry, written: Written | None) -> None:
    content = written.content if written is not None else None
    if entry.kind != FILE or content is None:
        layer.add(path, entry)
    elif not isinstance(content, Origin):
        layer.add(path, entry, content())
    else:
        source = content.path(path)
        done = layer.add(path, entry, content.files.chunks(source, entry))
        if not entry.digest:
            content.files.learned(source, done.digest)
