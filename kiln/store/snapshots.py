"""Snapshots: layers unpacked as folders for overlayfs, by the chainID up to them.

They are copies that can be made again, so they are not synced to disk; instead each names the boot it was made in, and
one from before a restart of the machine counts as absent.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from kiln.oci.digest import chain_id
from kiln.oci.image import Descriptor
from kiln.store.entry import DIR, FILE, HARDLINK, WHITEOUT, Entry, copy_of, parents
from kiln.store.files import locked
from kiln.store.layers import Layers
from kiln.store.tree import Tree
from kiln.store.unpack import Unpacker

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Snapshots:
    """The snapshots of one store, made by one kind of user: `overlay` is `trusted` (root) or `user` (user namespace)."""

    def __init__(self, root: Path, layers: Layers, scratch: Path, overlay: str) -> None:
        self._folder = root / "snapshots"
        self._locks = root / "locks"
        self._layers = layers
        self._scratch = scratch
        self._overlay = overlay

    def path(self, chain: str) -> Path:
        """Where the snapshot of a chainID is or would be."""
        return self._folder / f"{chain.partition(':')[2][:24]}{self._overlay[0]}"

    def lowers(self, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> list[Path]:
        """The folders of a stack of layers, base first; missing ones are unpacked."""
        return [self._one(diff_ids[: count + 1], descriptors[: count + 1]) / "fs" for count in range(len(diff_ids))]

    def has(self, chain: str) -> bool:
        """Whether the snapshot is here and whole; asking counts as use."""
        path = self.path(chain)
        try:
            if (path / "boot").read_text() != _BOOT.read_text():
                return False
            os.utime(path)
        except OSError:
            return False
        return True

    def _one(self, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> Path:
        chain = chain_id(diff_ids)
        path = self.path(chain)
        with locked(self._locks / "gc", shared=True):
            if self.has(chain):
                return path
        with locked(self._locks / f"snapshot-{path.name}"):
            if not self.has(chain):
                work = self._scratch / f"snapshot-{os.urandom(6).hex()}"
                (work / "fs").mkdir(parents=True)
                self._unpack(work / "fs", diff_ids, descriptors)
                self._keep(work, path)
        return path

    def adopt(self, upper: Path, chain: str) -> None:
        """Makes the upper folder of a finished overlay mount the snapshot of the layer that was made from it."""
        path = self.path(chain)
        with locked(self._locks / f"snapshot-{path.name}"):
            if not self.has(chain):
                work = self._scratch / f"snapshot-{os.urandom(6).hex()}"
                work.mkdir()
                upper.rename(work / "fs")
                self._keep(work, path)

    def _keep(self, work: Path, path: Path) -> None:
        (work / "boot").write_text(_BOOT.read_text())
        self._folder.mkdir(exist_ok=True)
        if path.exists():
            shutil.rmtree(path)
        work.rename(path)

    def _unpack(self, target: Path, diff_ids: tuple[str, ...], descriptors: tuple[Descriptor, ...]) -> None:
        below = self._layers.tree(diff_ids[:-1], descriptors[:-1])
        reading = self._layers.reading(diff_ids[-1], descriptors[-1])
        with reading as layer, Unpacker(target, overlay=self._overlay) as unpacker:
            made = {""}
            replacing = _Replacing()
            for path, written, content in layer.members():
                entry = replacing.of(path, written)
                if entry is None:
                    continue
                place = below.place(path)
                for folder in parents(place):
                    if folder not in made:
                        made.add(folder)
                        unpacker.add(folder, _folder_below(below, folder), iter(()))
                if entry.kind == HARDLINK:
                    self._hardlink(unpacker, below, place, entry, target)
                    continue
                if entry.kind == DIR and entry.mode < 0 and place not in made:
                    unpacker.add(place, _folder_below(below, place), iter(()))
                if entry.kind == DIR:
                    made.add(place)
                unpacker.add(place, entry, content)
            unpacker.finish()

    def _hardlink(self, unpacker: Unpacker, below: Tree, place: str, entry: Entry, target: Path) -> None:
        """A link to a file of this layer, or, where a foreign tool made one into a lower layer, a copy of that file."""
        link = below.place(entry.link)
        if os.path.lexists(target / link):
            unpacker.add(place, copy_of(entry, link=link), iter(()))
            return
        node = below.node(link)
        if node is not None and node.entry.kind == FILE:
            unpacker.add(place, node.entry, self._layers.chunks(node.diff_id, node.entry))


class _Replacing:
    """Paths that a layer both hides and writes, in either order: the new entry takes the place of what the whiteout hides;
    of a folder, nothing below shows through."""

    def __init__(self) -> None:
        self._hidden: set[str] = set()
        self._folders: dict[str, bool] = {}

    def of(self, path: str, entry: Entry) -> Entry | None:
        """What to write for an entry, None for nothing."""
        if entry.kind == WHITEOUT:
            self._hidden.add(path)
            is_dir = self._folders.get(path)
            if is_dir is None:
                return entry
            return Entry(DIR, mode=-1, opaque=True) if is_dir else None
        self._folders[path] = entry.kind == DIR
        if path in self._hidden and entry.kind == DIR:
            return copy_of(entry, opaque=True)
        return entry


def _folder_below(below: Tree, path: str) -> Entry:
    """A folder that a layer leaves out: as it is in the layers below, else plain."""
    entry = below.get(path)
    return copy_of(entry, opaque=False) if entry is not None and entry.kind == DIR else Entry(DIR, mode=0o755)
