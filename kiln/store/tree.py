"""The merged file system of a stack of layers, from their tables of contents alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from kiln.errors import CorruptError, SourceError
from kiln.store.entry import DIR, HARDLINK, SYMLINK, WHITEOUT, Entry, parent
from kiln.store.toc import Toc

_MAX_LINKS = 255


class Node(msgspec.Struct, frozen=True, gc=False):
    """A path of a tree: what it is, and in which layer (diffID) its content lies. Hard links share one node."""

    entry: Entry
    diff_id: str


Get = Callable[[str], Entry | None]
_ROOT = Node(Entry(DIR, mode=0o755), "")


def resolve(get: Get, path: str, *, follow_last: bool = True, strict: bool = False) -> str:
    """The path with symlinks replaced, each inside the root, whether or not it exists; raises `SourceError` on a loop
    and, if `strict`, where `..` would leave the root."""
    waiting = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if done:
                done.pop()
            elif strict:
                raise SourceError(f"/{path} leaves the destination through a link")
            continue
        done.append(part)
        entry = get("/".join(done))
        if entry is None or entry.kind != SYMLINK or not (waiting or follow_last):
            continue
        links += 1
        if links > _MAX_LINKS:
            raise SourceError(f"too many levels of symbolic links in /{path}")
        done = [] if entry.link.startswith("/") else done[:-1]
        waiting.extend(entry.link.split("/")[::-1])
    return "/".join(done)


class Tree:
    """Paths -> nodes. `apply` puts a layer on top."""

    def __init__(self) -> None:
        self._nodes: dict[str, Node] = {"": _ROOT}
        self._children: dict[str, dict[str, None]] = {"": {}}

    def copy(self) -> Tree:
        """An independent tree with the same content."""
        other = Tree()
        other._nodes = dict(self._nodes)
        other._children = {path: dict(names) for path, names in self._children.items()}
        return other

    def node(self, path: str) -> Node | None:
        """The node at exactly this path (symlinks not followed), or None."""
        return self._nodes.get(path)

    def get(self, path: str) -> Entry | None:
        """The entry at exactly this path (symlinks not followed), or None."""
        node = self._nodes.get(path)
        return None if node is None else node.entry

    def children(self, path: str) -> list[str]:
        """The names in a folder, sorted; none for what is no folder."""
        return sorted(self._children.get(path, ()))

    def walk(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """All nodes below `path` in sorted order, folders before their content; `path` itself is left out."""
        for name in self.children(path):
            child = f"{path}/{name}" if path else name
            yield child, self._nodes[child]
            if child in self._children:
                yield from self.walk(child)

    def apply(self, toc: Toc, diff_id: str) -> None:
        """Puts a layer on top: its whiteouts hide what is below, then its entries replace or add."""
        for path, entry in toc:
            if entry.kind == WHITEOUT:
                self._remove(self.place(path))
            elif entry.opaque:
                self._empty(self.place(path))
        for path, entry in toc:
            if entry.kind != WHITEOUT and entry.mode >= 0:
                self._add(self.place(path), entry, diff_id)

    def place(self, path: str) -> str:
        """Where a layer's entry lands: symlinks in its folder are followed, inside the root."""
        folder = parent(path)
        if not folder or folder in self._children:
            return path
        name = path[len(folder) + 1 :]
        folder = resolve(self.get, folder)
        return f"{folder}/{name}" if folder else name

    def _add(self, path: str, entry: Entry, diff_id: str) -> None:
        if path == "":
            if entry.kind == DIR:
                self._nodes[""] = Node(entry, diff_id)
            return
        node = self._linked(path, entry) if entry.kind == HARDLINK else Node(entry, diff_id)
        is_dir = entry.kind == DIR
        if path in self._nodes and (not is_dir or path not in self._children):
            self._remove(path)
        self._make_parents(path, diff_id)
        self._nodes[path] = node
        if is_dir:
            self._children.setdefault(path, {})
        folder, _, name = path.rpartition("/")
        self._children[folder][name] = None

    def _linked(self, path: str, entry: Entry) -> Node:
        node = self._nodes.get(self.place(entry.link))
        if node is None:
            raise CorruptError(f"the layer has a hard link /{path} to /{entry.link}, which does not exist")
        return node

    def _make_parents(self, path: str, diff_id: str) -> None:
        folder = parent(path)
        if not folder or folder in self._children:
            return
        if folder in self._nodes:
            self._remove(folder)
        self._add(folder, Entry(DIR, mode=0o755), diff_id)

    def _empty(self, path: str) -> None:
        for name in list(self._children.get(path, ())):
            self._remove(f"{path}/{name}" if path else name)

    def _remove(self, path: str) -> None:
        if path not in self._nodes or not path:
            return
        if path in self._children:
            self._empty(path)
            del self._children[path]
        del self._nodes[path]
        folder, _, name = path.rpartition("/")
        self._children[folder].pop(name, None)
