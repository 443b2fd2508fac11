"""Unpacking entries into a folder of our own: every path component is opened without following links.

Used for snapshots (the lower layers of an overlay mount), for mounts of RUN steps, and for `--output type=local`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kiln.errors import StoreError
from kiln.store.blobs import disk_error
from kiln.store.entry import BLOCK, CHAR, DIR, FIFO, FILE, HARDLINK, SYMLINK, WHITEOUT, Entry, parent

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODES = {CHAR: stat.S_IFCHR, BLOCK: stat.S_IFBLK, FIFO: stat.S_IFIFO}


class Unpacker:
    """Writes entries below one folder. `owners`: whether to set owners (needs root, in a user namespace or real);
    `overlay`: the prefix of overlayfs's attributes (`trusted` or `user`) where whiteouts are to be kept, else none."""

    def __init__(self, root: Path, *, owners: bool = True, overlay: str = "") -> None:
        self.root = root
        self._owners = owners
        self._overlay = overlay
        self._root_fd = os.open(root, _DIR_FLAGS)
        self._folder = ""
        self._folder_fd = os.dup(self._root_fd)
        self._times: dict[str, int] = {}

    def __enter__(self) -> Unpacker:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder_fd)
        os.close(self._root_fd)

    def add(self, path: str, entry: Entry, content: Iterator[bytes]) -> None:
        """Writes one entry; the folder above it must be there. Raises `StoreError`."""
        try:
            self._write(path, entry, content)
        except OSError as bad:
            if bad.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_error(bad, self.root) from bad
            raise StoreError(
                f"/{path} cannot be unpacked: {bad.strerror}",
                hint="Without root, owners beyond the mapped ids and device files cannot be made."
                if bad.errno in (1, 22)
                else "",
            ) from bad

    def finish(self) -> None:
        """Sets the times of folders, which writing into them had changed."""
        for path, time in reversed(self._times.items()):
            fd = self._open(path)
            os.utime(fd, (time, time))
            os.close(fd)
        self._times = {}

    def _open(self, path: str) -> int:
        fd = os.dup(self._root_fd)
        for part in path.split("/") if path else ():
            try:
                following = os.open(part, _DIR_FLAGS, dir_fd=fd)
            finally:
                os.close(fd)
            fd = following
        return fd

    def _parent_fd(self, path: str) -> int:
        folder = parent(path)
        if folder != self._folder:
            fd = self._open(folder)
            os.close(self._folder_fd)
            self._folder, self._folder_fd = folder, fd
        return self._folder_fd

    def _write(self, path: str, entry: Entry, content: Iterator[bytes]) -> None:
        if not path:
            self._finish_folder(os.dup(self._root_fd), path, entry)
            return
        at = self._parent_fd(path)
        name = path.rpartition("/")[2]
        if entry.kind == DIR:
            self._make_folder(at, name, path, entry)
            return
        if entry.kind == FILE:
            self._make_file(at, name, path, entry, content)
            return
        self._clear(at, name)
        self._times.pop(path, None)
        if entry.kind == HARDLINK:
            self._make_link(at, name, entry)
        elif entry.kind == SYMLINK:
            os.symlink(entry.link, name, dir_fd=at)
            self._own_link(at, name, entry)
        elif entry.kind == WHITEOUT:
            if self._overlay:
                os.mknod(name, stat.S_IFCHR, 0, dir_fd=at)
        else:
            self._make_node(at, name, entry)

    def _clear(self, at: int, name: str) -> None:
        try:
            os.unlink(name, dir_fd=at)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            _remove_tree(at, name)

    def _make_folder(self, at: int, name: str, path: str, entry: Entry) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=at)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=at)
                os.mkdir(name, 0o700, dir_fd=at)
        self._finish_folder(os.open(name, _DIR_FLAGS, dir_fd=at), path, entry)

    def _finish_folder(self, fd: int, path: str, entry: Entry) -> None:
        try:
            if entry.opaque and self._overlay:
                os.setxattr(fd, f"{self._overlay}.overlay.opaque", b"y")
            if entry.mode >= 0:
                self._set(fd, entry)
                self._times[path] = entry.mtime
        finally:
            os.close(fd)

    def _make_file(self, at: int, name: str, path: str, entry: Entry, content: Iterator[bytes]) -> None:
        try:
            fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=at)
        except FileExistsError:
            self._clear(at, name)
            self._times.pop(path, None)
            fd = os.open(name, _FILE_FLAGS, 0o600, dir_fd=at)
        try:
            for chunk in content:
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
            self._set(fd, entry)
            os.utime(fd, (entry.mtime, entry.mtime))
        finally:
            os.close(fd)

    def _make_link(self, at: int, name: str, entry: Entry) -> None:
        fd = self._open(parent(entry.link))
        try:
            os.link(entry.link.rpartition("/")[2], name, src_dir_fd=fd, dst_dir_fd=at, follow_symlinks=False)
        finally:
            os.close(fd)

    def _make_node(self, at: int, name: str, entry: Entry) -> None:
        try:
            os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=at)
        except PermissionError:
            return
        self._own_link(at, name, entry)
        os.chmod(name, entry.mode, dir_fd=at)

    def _own_link(self, at: int, name: str, entry: Entry) -> None:
        if self._owners:
            os.chown(name, entry.uid, entry.gid, dir_fd=at, follow_symlinks=False)
        os.utime(name, (entry.mtime, entry.mtime), dir_fd=at, follow_symlinks=False)

    def _set(self, fd: int, entry: Entry) -> None:
        if self._owners:
            os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        for key, value in (entry.xattrs or {}).items():
            try:
                os.setxattr(fd, key, value)
            except OSError as bad:
                if bad.errno not in (errno.ENOTSUP, errno.EPERM):
                    raise


def _remove_tree(at: int, name: str) -> None:
    fd = os.open(name, _DIR_FLAGS, dir_fd=at)
    try:
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    _remove_tree(fd, entry.name)
                else:
                    os.unlink(entry.name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=at)
