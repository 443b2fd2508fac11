"""One store folder: an OCI layout with, beside it, what Kiln knows about its content.

oci-layout index.json blobs/   the layout, readable by any tool
toc/ layers/ cache/            small facts: tables of contents, which blob holds which layer, step results
tars/ snapshots/ mounts/       larger copies that can be made again: uncompressed layers, unpacked layers, cache mounts
index/ locks/ logs/ tmp/       file hashes by stat, locks, logs of RUN steps, scratch space of running processes
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from kiln.errors import StoreError
from kiln.store.blobs import Blobs, disk_error
from kiln.store.files import locked, try_lock, write_whole
from kiln.store.layers import Layers
from kiln.store.layout import Layout
from kiln.store.records import Records

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Store:
    """Opened by each process for itself; `close` (or the end of the process) frees its scratch space."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock_fd: int | None = None
        self._make()
        self.blobs = Blobs(root)
        self.layout = Layout(root, self.blobs)
        self.layers = Layers(root, self.blobs)
        self.records = Records(root)
        self.scratch = self._own_scratch()
        self.blobs.scratch = self.scratch

    def _make(self) -> None:
        marker = self.root / "oci-layout"
        try:
            if marker.exists():
                return
            (self.root / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        except OSError as bad:
            raise disk_error(bad, self.root / "blobs") from bad
        with locked(self.root / "locks" / "make"):
            if not marker.exists():
                self._begin(marker)

    def _begin(self, marker: Path) -> None:
        """Makes a folder a store, or goes on where a process that did was killed: the marker comes last."""
        if any(
            entry.name not in ("blobs", "tmp", "locks", "index.json") and not entry.name.startswith(".")
            for entry in self.root.iterdir()
        ):
            raise StoreError(
                "the folder is not empty and no store",
                where=str(self.root),
                hint="Name another with --home or KILN_HOME.",
            )
        write_whole(self.root / "index.json", b'{"schemaVersion":2,"manifests":[]}')
        write_whole(marker, _LAYOUT)

    def _own_scratch(self) -> Path:
        """A folder under tmp/ that belongs to this process for as long as it holds the lock beside it."""
        folder = self.root / "tmp"
        try:
            folder.mkdir(exist_ok=True)
            while True:
                path = folder / f"{int(time.time())}-{os.getpid()}-{os.urandom(4).hex()}"
                fd = try_lock(path.with_suffix(".lock"))
                if fd is not None and path.with_suffix(".lock").exists():
                    break
                # Another process took the new lock for one that a dead process left.
                path.with_suffix(".lock").unlink(missing_ok=True)
                if fd is not None:
                    os.close(fd)
            path.mkdir()
        except OSError as bad:
            raise disk_error(bad, folder) from bad
        self._lock_fd = fd
        return path

    def live_since(self) -> float:
        """When the oldest process began that still uses the store, this one left out: seconds since the epoch, infinite for none."""
        names = [folder.name for folder, alive in self._others() if alive]
        return min((float(name.split("-")[0]) for name in names), default=float("inf"))

    def stale_scratch(self) -> list[Path]:
        """Scratch folders of processes that ended without cleaning up."""
        return [folder for folder, alive in self._others() if not alive]

    def _others(self) -> Iterator[tuple[Path, bool]]:
        """The scratch folders of other processes, and whether each process lives. Looking leaves no lock behind."""
        for lock in (self.root / "tmp").glob("*.lock"):
            if lock.stem == self.scratch.name:
                continue
            try:
                fd = try_lock(lock, create=False)
            except FileNotFoundError:
                continue
            if fd is not None:
                os.close(fd)
            yield lock.with_suffix(""), fd is None

    def clean(self) -> list[Path]:
        """Removes scratch folders of dead processes; returns those that this user alone could not remove."""
        return [folder for folder in self.stale_scratch() if not self._removed(folder)]

    def _removed(self, folder: Path) -> bool:
        """Whether a dead process's scratch folder could be removed. Held meanwhile, its lock is nobody else's."""
        lock = folder.with_suffix(".lock")
        try:
            fd = try_lock(lock, create=False)
        except FileNotFoundError:
            return True
        if fd is None:
            return True
        try:
            if folder.exists():
                shutil.rmtree(folder)
            lock.unlink(missing_ok=True)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """While held, nothing is collected: for looking something up and counting it as used in one step."""
        with locked(self.root / "locks" / "gc", shared=True):
            yield

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """While held, nobody looks things up."""
        with locked(self.root / "locks" / "gc"):
            yield

    def close(self) -> None:
        """Removes this process's scratch space."""
        if self._lock_fd is not None:
            shutil.rmtree(self.scratch, ignore_errors=True)
            if not self.scratch.exists():
                self.scratch.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
