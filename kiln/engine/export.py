"""A finished image as something else than an entry of the store: an archive, a folder of files, a tar of files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec

from kiln.errors import KilnError
from kiln.oci import media
from kiln.oci.image import REF_NAME, Descriptor, Image, Index
from kiln.store import tarwrite
from kiln.store.blobs import disk_error
from kiln.store.entry import DIR, FILE, HARDLINK, Entry, copy_of
from kiln.store.store import Store
from kiln.store.unpack import Unpacker

Write = Callable[[bytes], object]


def write_archive(store: Store, root: Descriptor, names: list[str], write: Write, *, docker: bool) -> None:
    """An OCI layout as a tar stream; with `docker`, also the `manifest.json` that `docker load` reads.

    Sources: OCI image-spec image-layout.md; Docker's image tarball format (moby, image/spec).
    """
    blobs = _closure(store, root)
    folders = {"blobs": None, "blobs/sha256": None}
    write(
        tarwrite.header("oci-layout", Entry(FILE, mode=0o644, size=len(_LAYOUT)))
        + _LAYOUT
        + tarwrite.padding(len(_LAYOUT))
    )
    for folder in folders:
        write(tarwrite.header(folder, Entry(DIR, mode=0o755)))
    for digest in sorted(blobs):
        path = f"blobs/sha256/{digest.partition(':')[2]}"
        _member(write, path, store.blobs.size(digest), store.blobs.stream(digest))
    _document(write, "index.json", _index(root, names))
    if docker:
        _document(write, "manifest.json", _docker_manifest(store, root, names))
    write(tarwrite.END)


_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def _closure(store: Store, root: Descriptor) -> dict[str, None]:
    """The digests of everything that a manifest or index needs."""
    found = {root.digest: None}
    document = store.layout.load(root).document
    if isinstance(document, Index):
        for entry in document.manifests:
            found |= _closure(store, entry)
        return found
    return found | dict.fromkeys([document.config.digest, *(layer.digest for layer in document.layers)])


def _member(write: Write, path: str, size: int, content: Iterable[bytes]) -> None:
    write(tarwrite.header(path, Entry(FILE, mode=0o644, size=size)))
    for chunk in content:
        write(chunk)
    write(tarwrite.padding(size))


def _document(write: Write, path: str, value: object) -> None:
    data = msgspec.json.encode(value)
    _member(write, path, len(data), (data,))


def _index(root: Descriptor, names: list[str]) -> dict[str, object]:
    entries = []
    for name in names or [""]:
        tag = name.rpartition(":")[2] if ":" in name.rpartition("/")[2] else "latest"
        annotations = {"io.containerd.image.name": name, REF_NAME: tag} if name else {}
        entries.append(msgspec.to_builtins(root.plain()) | ({"annotations": annotations} if annotations else {}))
    return {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": entries}


def _docker_manifest(store: Store, root: Descriptor, names: list[str]) -> list[dict[str, object]]:
    document = store.layout.load(root).document
    if isinstance(document, Index):
        raise KilnError("type=docker holds one platform", hint="Give one --platform, or use type=oci.")
    layers = [f"blobs/sha256/{layer.digest.partition(':')[2]}" for layer in document.layers]
    config = f"blobs/sha256/{document.config.digest.partition(':')[2]}"
    return [{"Config": config, "RepoTags": names or None, "Layers": layers}]


def write_files_tar(store: Store, image: Image, write: Write, *, epoch: int | None, prefix: str = "") -> None:
    """The image's file system as one tar."""
    for path, entry, content in _flat(store, image):
        if epoch is not None:
            entry = copy_of(entry, mtime=min(entry.mtime, epoch))
        if prefix and entry.kind == HARDLINK:
            entry = copy_of(entry, link=prefix + entry.link)
        write(tarwrite.header(prefix + path, entry))
        for chunk in content:
            write(chunk)
        write(tarwrite.padding(entry.size if entry.kind == FILE else 0))
    write(tarwrite.END)


def write_folder(store: Store, image: Image, folder: Path, *, epoch: int | None) -> None:
    """The image's file system below a folder, owned by whoever runs this; devices are left out without root."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unpacker = Unpacker(folder, owners=False)
    except OSError as bad:
        raise disk_error(bad, folder / "x") from bad
    with unpacker:
        for path, entry, content in _flat(store, image):
            if epoch is not None:
                entry = copy_of(entry, mtime=min(entry.mtime, epoch))
            unpacker.add(path, copy_of(entry, opaque=False), content)
        unpacker.finish()


def _flat(store: Store, image: Image) -> Iterator[tuple[str, Entry, Iterator[bytes]]]:
    """Every path of the merged file system with its content; further names of one file come as hard links."""
    tree = store.layers.tree(image.diff_ids, image.layers)
    first: dict[tuple[str, int], str] = {}
    for path, node in tree.walk():
        entry = copy_of(node.entry, opaque=False)
        if entry.kind != FILE:
            yield path, entry, iter(())
            continue
        known = first.setdefault((node.diff_id, entry.offset), path)
        if known != path:
            yield path, copy_of(entry, kind=HARDLINK, link=known, size=0, xattrs=None), iter(())
        else:
            yield path, entry, store.layers.chunks(node.diff_id, entry)


def open_destination(text: str) -> IO[bytes]:
    """The file (or `-`: standard output) that an archive goes to; raises `StoreError`."""
    if text in ("", "-"):
        return io.FileIO(os.dup(1), "wb")
    path = Path(text)
    try:
        return path.open("wb")
    except OSError as bad:
        raise disk_error(bad, path) from bad
