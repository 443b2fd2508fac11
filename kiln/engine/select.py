"""Which files a COPY takes: sources, globs, `--parents`, `--exclude` -> selections, each with its own key."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterator
from itertools import chain

from msgspec import Struct

from kiln.dockerfile.instructions import Copy
from kiln.dockerfile.patterns import Matcher, PatternError, has_wildcard, match
from kiln.dockerfile.suggest import closest
from kiln.engine.files import Files
from kiln.engine.listing import Listing
from kiln.errors import DockerfileError, SourceError
from kiln.store.entry import DIR, FILE, Entry, clean, parent
from kiln.store.tree import resolve


class Item(Struct, frozen=True, gc=False):
    """One path of a selection: where it goes below the selection's root, where it comes from, what it is. `alone`: it shares
    its file with no other path."""

    relative: str
    path: str
    entry: Entry
    alone: bool = False


class Part(Struct, frozen=True):
    """What is taken of one folder: where that goes below the selection's root, where it is, the names; None: all of those
    that its listing has."""

    relative: str
    path: str
    names: tuple[str, ...] | None


class Selection(Struct, frozen=True):
    """What one source names: `name` is the last part of its path as written, `first` the source itself, `parts` the folders
    in it, each after the one above it.

    `lazy` selections (made with patterns of `--parents`) make folders only where something in them is taken;
    `remote` ones came from a URL or a git repository.
    """

    files: Files
    name: str
    first: Item
    parts: tuple[Part, ...] = ()
    lazy: bool = False
    remote: bool = False

    @property
    def root(self) -> Entry:
        """The entry of the source itself."""
        return self.first.entry

    @property
    def items(self) -> Iterator[Item]:
        """Everything that is taken, the source itself first. Made as it is asked for: there may be very many."""
        yield self.first
        if self.parts:
            yield from self._items({part.relative: part for part in self.parts}, self.parts[0])

    def _items(self, parts: dict[str, Part], part: Part) -> Iterator[Item]:
        """What is taken of a folder, each folder in it followed by what is taken of that."""
        for item in taken(self.files, part):
            yield item
            if item.entry.kind == DIR and (inside := parts.get(item.relative)) is not None:
                yield from self._items(parts, inside)

    def facts(self) -> Iterator[bytes]:
        """What there is to say about the selection: content and metadata, never times. The first one is about its name."""
        links: dict[object, int] = {}
        yield self._head()
        for item in self.items:
            entry = item.entry
            inode = self.files.inode(item.path, entry) if entry.kind == FILE and not item.alone else None
            link = links.setdefault(inode, len(links)) if inode is not None else -1
            yield _described(self.files, item.relative, item.path, entry, link)

    def _head(self) -> bytes:
        return f"{self.name if self.root.kind != DIR else ''}\0{self.lazy}".encode("utf-8", "surrogateescape")

    def digest(self) -> bytes:
        """The digest of everything that was selected: of each folder the digest of what is in it, which may be known, and
        which names share a file."""
        digests = hashlib.sha256(self._head())
        digests.update(_described(self.files, "", self.first.path, self.root, -1))
        links: dict[object, int] = {}
        for part in self.parts:
            digests.update(f"\0{part.relative}\0".encode("utf-8", "surrogateescape") + _content(self.files, part))
            for name, inode in _shared(self.files, part):
                digests.update(f"\0{name}\0{links.setdefault(inode, len(links))}".encode("utf-8", "surrogateescape"))
        return digests.digest()

    def unknown(self) -> bool:
        """Whether some file would have to be read to know the key."""
        yet = (item for part in self.parts if not _known(self.files, part) for item in taken(self.files, part))
        return any(
            item.entry.kind == FILE and not self.files.known_digest(item.path, item.entry)
            for item in chain((self.first,), yet)
        )


def whole(files: Files, path: str, entry: Entry) -> Selection:
    """Everything at a path."""
    parts = _below(files, path, "", Matcher(()), None) if entry.kind == DIR else []
    return Selection(files, posixpath.basename(path), Item("", path, entry), tuple(parts))


def taken(files: Files, part: Part) -> Iterator[Item]:
    """What is taken of one folder, without what is in the folders there."""
    below, start = f"{part.relative}/" if part.relative else "", f"{part.path}/" if part.path else ""
    listing = files.listed(part.path) if part.names is None else None
    rows = listing.entries() if listing is not None else ((name, None) for name in part.names or ())
    for name, plain in rows:
        entry = plain or files.get(start + name)
        if entry is not None:
            yield Item(below + name, start + name, entry, plain is not None)


def _described(files: Files, name: str, path: str, entry: Entry, link: int) -> bytes:
    digest = entry.digest or files.digest(path, entry) if entry.kind == FILE else ""
    xattrs = sorted(entry.xattrs.items()) if entry.xattrs else ""
    facts = (
        f"{name}\0{entry.kind} {entry.mode} {entry.uid} {entry.gid} {digest} {entry.major} {entry.minor} "
        f"{link} {entry.link}\0{xattrs}"
    )
    return facts.encode("utf-8", "surrogateescape")


def _content(files: Files, part: Part) -> bytes:
    """The digest of what is taken of one folder; kept with the folder's listing where that is all of it."""
    if known := _known(files, part):
        return known
    hasher = hashlib.sha256()
    for item in taken(files, part):
        name = item.relative.rpartition("/")[2]
        hasher.update(_described(files, name, item.path, item.entry, -1) + b"\n")
    if part.names is None and (listing := files.listed(part.path)) is not None:
        listing.whole = hasher.digest()
    return hasher.digest()


def _known(files: Files, part: Part) -> bytes:
    listing = files.listed(part.path) if part.names is None else None
    return listing.whole if listing is not None else b""


def _shared(files: Files, part: Part) -> Iterator[tuple[str, object]]:
    """Names of one folder's files that have other names as well, with what these have in common."""
    listing = files.listed(part.path) if part.names is None else None
    if listing is not None and not listing.linked:
        return
    for item in taken(files, part):
        inode = files.inode(item.path, item.entry) if item.entry.kind == FILE else None
        if inode is not None:
            yield item.relative, inode


def digest_of(selections: list[Selection]) -> str:
    """The digest of everything that was selected, 64 hex digits."""
    return hashlib.sha256(b"".join(selection.digest() for selection in selections)).hexdigest()


def select(files: Files, copy: Copy, sources: tuple[str, ...]) -> list[Selection]:
    """The selections of an expanded COPY or ADD, in order; raises `SourceError` or `DockerfileError`."""
    try:
        excluded = Matcher(copy.exclude)
        found: list[Selection] = []
        for source in sources:
            chosen = _with_parents if copy.parents else _plain
            found += chosen(files, source, excluded)
        return found
    except PatternError as bad:
        raise DockerfileError(str(bad), where=str(copy.place)) from None


def _plain(files: Files, source: str, excluded: Matcher) -> list[Selection]:
    paths = _glob(files, clean(source)) if has_wildcard(clean(source)) else [clean(source)]
    return [_one(files, path, source, excluded) for path in paths]


def _one(files: Files, path: str, source: str, excluded: Matcher) -> Selection:
    real, entry = _find(files, path, source)
    parts = _below(files, real, "", excluded, None) if entry.kind == DIR else []
    return Selection(files, posixpath.basename(path), Item("", real, entry), tuple(parts))


def _find(files: Files, path: str, source: str) -> tuple[str, Entry]:
    real = resolve(files.get, path)
    entry = files.get(real)
    if entry is None:
        raise _missing(files, path, source)
    return real, entry


def _missing(files: Files, path: str, source: str) -> SourceError:
    folder = parent(path)
    names = files.children(folder) if (found := files.get(folder)) is not None and found.kind == DIR else []
    near = closest(posixpath.basename(path), names)
    hint = f"Did you mean {posixpath.join(folder, near)}?" if near else "Check the path and .dockerignore."
    if source.startswith("..") or "/../" in source:
        hint = "A path cannot leave the context: '..' stops at its root. Use --build-context for another folder."
    return SourceError(f'"/{path}": not found', hint=hint)


def _glob(files: Files, pattern: str) -> list[str]:
    """Paths that match, in sorted order. Links in the part before the first wildcard are followed, later ones are not."""
    parts = pattern.split("/")
    first = next(index for index, part in enumerate(parts) if has_wildcard(part))
    base = resolve(files.get, "/".join(parts[:first]))
    if files.get(base) is None:
        raise _missing(files, base, pattern)
    paths = [base]
    for index, part in enumerate(parts[first:], first):
        paths = [
            child
            for path in paths
            if (entry := files.get(path)) is not None and entry.kind == DIR
            for name in files.children(path)
            if match(part, name)
            for child in [f"{path}/{name}" if path else name]
        ]
        if index < len(parts) - 1:
            paths = [path for path in paths if (entry := files.get(path)) is not None and entry.kind == DIR]
    return paths


Wanted = Callable[[str, bool], str]


def _below(files: Files, folder: str, relative: str, excluded: Matcher, wanted: Matcher | None) -> list[Part]:
    """Everything below a folder that is not excluded and, where patterns are given, matched by them."""
    names, listing = files.children(folder), files.listed(folder)
    folders = _folders(files, folder, names, listing)
    kept, inside = [], []
    start, below = f"{folder}/" if folder else "", f"{relative}/" if relative else ""
    picky = bool(excluded) or wanted is not None
    for name in names if picky else folders:
        dropped = bool(excluded) and excluded.matches(below + name)
        keep = not dropped and (wanted is None or wanted.matches(below + name))
        if name in folders and (not dropped or excluded.has_negation):
            found = _below(files, start + name, below + name, excluded, wanted)
            inside += found
            keep = keep or bool(found)
        if keep:
            kept.append(name)
    if not picky:
        kept = names
    everything = listing is not None and len(kept) == len(listing)
    return [Part(relative, folder, None if everything else tuple(kept)), *inside] if kept else []


def _folders(files: Files, folder: str, names: list[str], listing: Listing | None) -> dict[str, None]:
    """Which of a folder's names are folders, in their order."""
    if listing is not None:
        there = listing.split() if listing.folders else []
        found = dict.fromkeys(there[place] for place in listing.folders)
        return found if len(names) == len(listing) else {name: None for name in names if name in found}
    start = f"{folder}/" if folder else ""
    return {name: None for name in names if (entry := files.get(start + name)) is not None and entry.kind == DIR}


def _with_parents(files: Files, source: str, excluded: Matcher) -> list[Selection]:
    """`--parents`: the path below the pivot `/./` (or the root) is kept in the destination."""
    head, pivot, tail = source.partition("/./")
    if not pivot:
        head, tail = "", source
    pattern = clean(tail)
    roots = _glob(files, clean(head)) if has_wildcard(clean(head)) else [clean(head)]
    found = []
    for root in roots:
        real, entry = _find(files, root, source)
        if not has_wildcard(pattern) and not has_wildcard(head):
            _find(files, posixpath.join(real, pattern) if pattern else real, source)
        if entry.kind != DIR:
            found.append(_one(files, root, source, excluded))
            continue
        wanted = Matcher([pattern]) if pattern else None
        parts = _below(files, real, "", excluded, wanted)
        found.append(Selection(files, "", Item("", real, entry), tuple(parts), lazy=True))
    return found
