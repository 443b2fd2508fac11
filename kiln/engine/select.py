"""Which files a COPY takes: sources, globs, `--parents`, `--exclude` -> selections, each with its own key."""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Callable, Iterator

from msgspec import Struct

from kiln.dockerfile.instructions import Copy
from kiln.dockerfile.patterns import Matcher, PatternError, has_wildcard, match
from kiln.dockerfile.suggest import closest
from kiln.engine.files import Files
from kiln.errors import DockerfileError, SourceError
from kiln.store.entry import DIR, FILE, Entry, clean, parent
from kiln.store.tree import resolve


class Item(Struct, frozen=True):
    """One path of a selection: where it goes below the selection's root, where it comes from, what it is."""

    relative: str
    path: str
    entry: Entry


class Selection(Struct, frozen=True):
    """What one source names: `name` is the last part of its path as written, `items` begin with the root itself.

    `lazy` selections (made with patterns of `--parents`) make folders only where something in them is taken;
    `remote` ones came from a URL or a git repository.
    """

    files: Files
    name: str
    items: tuple[Item, ...]
    lazy: bool = False
    remote: bool = False

    @property
    def root(self) -> Entry:
        """The entry of the source itself."""
        return self.items[0].entry

    def facts(self) -> Iterator[bytes]:
        """What the key of the step has to say about the selection: content and metadata, never times."""
        links: dict[object, int] = {}
        yield f"{self.name if self.root.kind != DIR else ''}\0{self.lazy}".encode("utf-8", "surrogateescape")
        for item in self.items:
            entry = item.entry
            digest = self.files.digest(item.path, entry) if entry.kind == FILE else ""
            inode = self.files.inode(item.path, entry) if entry.kind == FILE else None
            link = links.setdefault(inode, len(links)) if inode is not None else -1
            xattrs = sorted(entry.xattrs.items()) if entry.xattrs else ""
            facts = (
                f"{item.relative}\0{entry.kind} {entry.mode} {entry.uid} {entry.gid} {digest} {entry.major} {entry.minor} "
                f"{link} {entry.link}\0{xattrs}"
            )
            yield facts.encode("utf-8", "surrogateescape")

    def unknown(self) -> bool:
        """Whether some file would have to be read to know the key."""
        return any(
            item.entry.kind == FILE and not self.files.known_digest(item.path, item.entry) for item in self.items
        )


def digest_of(selections: list[Selection]) -> str:
    """The digest of everything that was selected, 64 hex digits."""
    hasher = hashlib.sha256()
    for selection in selections:
        for fact in selection.facts():
            hasher.update(fact + b"\n")
        hasher.update(b"\n")
    return hasher.hexdigest()


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
    items = [Item("", real, entry)]
    if entry.kind == DIR:
        items += _below(files, real, "", excluded, None)
    return Selection(files, posixpath.basename(path), tuple(items))


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


def _below(files: Files, folder: str, relative: str, excluded: Matcher, wanted: Matcher | None) -> list[Item]:
    """Everything below a folder that is not excluded and, where patterns are given, matched by them."""
    found: list[Item] = []
    for name in files.children(folder):
        path = f"{folder}/{name}" if folder else name
        below = f"{relative}/{name}" if relative else name
        entry = files.get(path)
        if entry is None:
            continue
        dropped = bool(excluded) and excluded.matches(below)
        taken = wanted is None or wanted.matches(below)
        if entry.kind != DIR:
            if taken and not dropped:
                found.append(Item(below, path, entry))
            continue
        if dropped and not excluded.has_negation:
            continue
        inside = _below(files, path, below, excluded, wanted)
        if inside or (taken and not dropped):
            found.append(Item(below, path, entry))
            found += inside
    return found


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
        items = [Item("", real, entry), *_below(files, real, "", excluded, wanted)]
        found.append(Selection(files, "", tuple(items), lazy=True))
    return found
