"""Read an image that a builder wrote (an OCI layout as a tar or a folder, or `docker save`) and flatten its layers.

`read_image` returns the config and the files that a container would see: layers applied in order, whiteouts honoured, every hard link with
the facts of its file. Layers are streamed; no content is kept.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Protocol

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
MAX_LINKS = 40
TEXT_LIMIT = 400  # bytes

_KINDS = {
    tarfile.REGTYPE: "f",
    tarfile.AREGTYPE: "f",
    tarfile.DIRTYPE: "d",
    tarfile.SYMTYPE: "l",
    tarfile.CHRTYPE: "c",
    tarfile.BLKTYPE: "b",
    tarfile.FIFOTYPE: "p",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one path.

    `kind` is one of f, d, l, c, b, p; `content` is `=` and the text of a short file or the sha256 of a longer one; `links` is the first path of
    the hard link group, empty without one.
    """

    kind: str
    mode: int
    uid: int
    gid: int
    size: int = 0
    content: str = ""
    target: str = ""
    xattrs: tuple[tuple[str, str], ...] = ()
    device: str = ""
    links: str = ""


@dataclass(frozen=True, slots=True)
class Flat:
    """An image: its config as JSON, how many layers it has, and its files by path (no leading slash, the root is "")."""

    config: Mapping[str, Any]
    layers: int
    files: Mapping[str, Entry]


class Blobs(Protocol):
    """Where the members of a layout are read from."""

    def open(self, name: str) -> IO[bytes]: ...
    def has(self, name: str) -> bool: ...


class FolderBlobs:
    """A layout that is a folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> IO[bytes]:
        """The member, open for reading. Raises FileNotFoundError."""
        return (self._root / name).open("rb")

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return (self._root / name).is_file()


class TarBlobs:
    """A layout inside of an uncompressed tar."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._names = {_clean(m.name): m for m in archive.getmembers()}

    def open(self, name: str) -> IO[bytes]:
        """The member, open for reading. Raises KeyError when absent."""
        found = self._archive.extractfile(self._names[name])
        if found is None:
            raise KeyError(name)
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self._names


def read_image(path: Path) -> Flat:
    """The only image at `path`, a layout folder, a layout tar or the tar of `docker save`. Raises ValueError when it holds none or several."""
    with _blobs(path) as blobs:
        config, layers = _config_and_layers(blobs)
        tree = Tree()
        for name in layers:
            with blobs.open(name) as raw, _decompressed(raw) as stream:
                tree.apply(stream)
        return Flat(config, len(layers), tree.entries())


@dataclass(slots=True)
class _Node:
    """A file and, through sharing, its hard links."""

    entry: Entry


@dataclass(slots=True)
class Tree:
    """A root file system that layers are applied to."""

    nodes: dict[str, _Node] = field(default_factory=dict)

    def apply(self, stream: IO[bytes]) -> None:
        """Apply one layer, an uncompressed tar."""
        fresh: set[str] = set()
        buffered = io.BufferedReader(stream)  # type: ignore[type-var]
        if not buffered.peek(1):
            return  # a layer of no bytes at all, which tarfile refuses
        with tarfile.open(fileobj=buffered, mode="r|", errorlevel=1) as layer:
            for info in layer:
                self._apply_member(layer, info, fresh)

    def entries(self) -> dict[str, Entry]:
        """The files by path, sorted, hard link groups named by their first path."""
        groups: dict[int, list[str]] = {}
        for path in sorted(self.nodes):
            groups.setdefault(id(self.nodes[path]), []).append(path)
        return {path: _with_group(self.nodes[path], groups) for path in sorted(self.nodes)}

    def _apply_member(self, layer: tarfile.TarFile, info: tarfile.TarInfo, fresh: set[str]) -> None:
        parent, _, name = _clean(info.name).rpartition("/")
        parent = self._resolved(parent)
        if name == OPAQUE:
            self._remove_below(parent, fresh)
        elif name.startswith(WHITEOUT):
            self._remove(_join(parent, name.removeprefix(WHITEOUT)), fresh)
        else:
            self._put(layer, info, _join(parent, name), fresh)

    def _put(self, layer: tarfile.TarFile, info: tarfile.TarInfo, path: str, fresh: set[str]) -> None:
        if info.islnk():
            node = self.nodes[self._resolved_parent(_clean(info.linkname))]
        else:
            node = _Node(_entry(layer, info))
        if node.entry.kind != "d" or not self._is_folder(path):
            self._remove(path, set())
        self._make_parents(path)
        self.nodes[path] = node
        fresh.add(path)

    def _is_folder(self, path: str) -> bool:
        return path in self.nodes and self.nodes[path].entry.kind == "d"

    def _make_parents(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        if path and parent not in self.nodes:
            self._make_parents(parent)
            if parent:
                self.nodes[parent] = _Node(Entry("d", 0o755, 0, 0))

    def _remove(self, path: str, fresh: set[str]) -> None:
        if path not in fresh:
            self.nodes.pop(path, None)
        self._remove_below(path, fresh)

    def _remove_below(self, path: str, fresh: set[str]) -> None:
        prefix = f"{path}/" if path else ""
        for name in [n for n in self.nodes if n.startswith(prefix) and n and n not in fresh]:
            del self.nodes[name]

    def _resolved_parent(self, path: str) -> str:
        parent, _, name = path.rpartition("/")
        return _join(self._resolved(parent), name)

    def _resolved(self, path: str, links: int = 0) -> str:
        """The path with the symlinks of its components followed inside of the root."""
        done = ""
        for index, part in enumerate(parts := [p for p in path.split("/") if p]):
            here = _join(done, part)
            node = self.nodes.get(here)
            if node and node.entry.kind == "l" and links < MAX_LINKS:
                rest = "/".join(parts[index + 1 :])
                return self._resolved(_follow(done, node.entry.target, rest), links + 1)
            done = here
        return done


def _follow(folder: str, target: str, rest: str) -> str:
    start = "" if target.startswith("/") else folder
    stack = [p for p in start.split("/") if p]
    for part in [*target.split("/"), *rest.split("/")]:
        if part == "..":
            stack = stack[:-1]
        elif part not in ("", "."):
            stack.append(part)
    return "/".join(stack)


def _with_group(node: _Node, groups: Mapping[int, list[str]]) -> Entry:
    members = groups[id(node)]
    return replace(node.entry, links=members[0]) if len(members) > 1 else node.entry


def _entry(layer: tarfile.TarFile, info: tarfile.TarInfo) -> Entry:
    kind = _KINDS.get(info.type, "f")
    prefix = "SCHILY.xattr."
    xattrs = sorted((k.removeprefix(prefix), _escaped(v)) for k, v in info.pax_headers.items() if k.startswith(prefix))
    return Entry(
        kind,
        info.mode & 0o7777,
        info.uid,
        info.gid,
        info.size if kind == "f" else 0,
        _content(layer, info) if kind == "f" else "",
        info.linkname if kind == "l" else "",
        tuple(xattrs),
        f"{info.devmajor}:{info.devminor}" if kind in "cb" else "",
    )


def _escaped(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def _content(layer: tarfile.TarFile, info: tarfile.TarInfo) -> str:
    """`=` and the text of a short file, so that differences can be read; else the sha256."""
    stream = layer.extractfile(info)
    if stream is None:
        return ""
    if info.size > TEXT_LIMIT:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
    data = stream.read()
    try:
        return "=" + data.decode()
    except UnicodeDecodeError:
        return hashlib.sha256(data).hexdigest()


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name


@contextmanager
def _blobs(path: Path) -> Iterator[Blobs]:
    if path.is_dir():
        yield FolderBlobs(path)
        return
    with tarfile.open(path, "r:") as archive:
        yield TarBlobs(archive)


def _config_and_layers(blobs: Blobs) -> tuple[Mapping[str, Any], list[str]]:
    if not blobs.has("index.json"):
        return _of_docker_save(blobs)
    manifest = _manifest(blobs, _json(blobs, "index.json"))
    return _json(blobs, _blob(manifest["config"])), [_blob(layer) for layer in manifest["layers"] or []]


def _of_docker_save(blobs: Blobs) -> tuple[Mapping[str, Any], list[str]]:
    images = _json(blobs, "manifest.json")
    if len(images) != 1:
        raise ValueError(f"expected one image, found {len(images)}")
    return _json(blobs, images[0]["Config"]), list(images[0]["Layers"])


def _manifest(blobs: Blobs, index: Mapping[str, Any]) -> Mapping[str, Any]:
    """The image manifest that the index leads to; attestations are passed over."""
    images = [d for d in index["manifests"] if d.get("platform", {}).get("os") != "unknown"]
    if len(images) != 1:
        raise ValueError(f"expected one image, found {len(images)}")
    found = _json(blobs, _blob(images[0]))
    return _manifest(blobs, found) if "manifests" in found else found


def _blob(descriptor: Mapping[str, Any]) -> str:
    return "blobs/" + str(descriptor["digest"]).replace(":", "/")


def _json(blobs: Blobs, name: str) -> Any:
    with blobs.open(name) as member:
        return json.load(member)


@contextmanager
def _decompressed(raw: IO[bytes]) -> Iterator[IO[bytes]]:
    """The stream without its gzip or zstd, found by the first bytes."""
    buffered = io.BufferedReader(raw)  # type: ignore[type-var]
    start = buffered.peek(4)[:4]
    if start[:2] == b"\x1f\x8b":
        with gzip.GzipFile(fileobj=buffered) as stream:
            yield stream  # type: ignore[misc]
    elif start == b"\x28\xb5\x2f\xfd":
        from backports import zstd

        with zstd.ZstdFile(buffered) as stream:
            yield stream  # type: ignore[misc]
    else:
        yield buffered
