"""The files behind contexts, each folder looked at once however many targets take from it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

from msgspec.structs import replace

from kiln.dockerfile.patterns import Matcher
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import Files, FolderFiles, Without
from kiln.engine.views import Mounted, OneFile, Overlaid, is_file
from kiln.errors import KilnError
from kiln.plan.target import Context
from kiln.store.store import Store


class Contexts:
    """Opens contexts for one session; `close` keeps what was learned about files for the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.RLock()
        self._files: dict[Context, Files] = {}
        self._folders: dict[Path, FolderFiles] = {}
        self._indexes: list[FileIndex] = []
        self._packages = contextlib.ExitStack()

    def files(self, context: Context) -> Files:
        """The files of a folder context, without what its ignore file names; raises `KilnError` where there are none."""
        with self._lock:
            found = self._files.get(context)
            if found is None:
                found = self._files[context] = self._open(context)
            return found

    def _open(self, context: Context) -> Files:
        if context.folder is None:
            raise KilnError("this build has no context to copy from", hint="Give a folder, not only a Dockerfile.")
        if context.kind == "archive":
            from kiln.engine.archivefiles import ArchiveFiles
            from kiln.store.package.package import open_package

            package = self._packages.enter_context(open_package(context.folder, self._store.scratch))
            return self._without(context, ArchiveFiles(package, context.reference))
        if context.kind == "dockerfile":
            empty = self._store.scratch / "empty-context"
            empty.mkdir(exist_ok=True)
            context = replace(context, folder=empty)
        return self._without(context, self._plain(context))

    def provide(self, context: Context, files: Files) -> None:
        """Says what the files of a context are, for one that is open already."""
        with self._lock:
            self._files[context] = self._without(context, files)

    def _without(self, context: Context, files: Files) -> Files:
        return Without(files, Matcher(context.ignore)) if context.ignore else files

    def _plain(self, context: Context) -> Files:
        folder = context.folder
        assert folder is not None
        if not context.layers and is_file(folder):
            return OneFile(self._folder(folder.parent), folder.name)
        files: Files = self._folder(folder)
        for layer in reversed(context.layers):
            files = Overlaid(self._folder(layer), files)
        if context.mounts:
            files = Mounted(files, {path: self.files(inner) for path, inner in context.mounts})
        return files

    def _folder(self, folder: Path) -> FolderFiles:
        if folder not in self._folders:
            keep = None if folder.is_relative_to(self._store.scratch) else self._store.root
            index = FileIndex(keep, folder)
            self._indexes.append(index)
            self._folders[folder] = FolderFiles(folder, index)
        return self._folders[folder]

    def forget(self, context: Context) -> None:
        """Looks at a context anew the next time (a hook has written into it)."""
        with self._lock:
            self._files.pop(context, None)
            for layer in context.layers:
                self._folders.pop(layer, None)

    def close(self) -> None:
        """Saves the hashes of files; closes archives."""
        self._packages.close()
        for index in self._indexes:
            with contextlib.suppress(KilnError):
                index.save()
