"""Where no overlay can be mounted: a hook works in a copy of the tree, and what it changed is put into overlayfs's form.

So the rest of Kiln does not know the difference: a folder that hooks wrote over looks the same either way.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TypeAlias

from kiln.engine.views import OPAQUE

# Of a folder its mode, of all else also inode, size and times.
Mark: TypeAlias = tuple[int, ...]


def make_copy(root: Path, layers: Collection[Path], copy: Path, *, without: Path) -> dict[str, Mark]:
    """Writes a tree with layers over it (the topmost first) into `copy`, a folder that does not exist; what lies at `without`
    stays out. Returns a mark of everything that is there. Sockets and devices are left out; a file that this user cannot read
    is there, but empty."""
    copying = _Copy(copy)
    for source in (root, *reversed([*layers])):
        copying.add(source, without)
    copying.finish()
    return marks(copy)


class _Copy:
    """Folders stay open for writing until everything is in them."""

    def __init__(self, target: Path) -> None:
        self._target = str(target)
        self._folders: dict[str, os.stat_result] = {}

    def add(self, source: Path, without: Path) -> None:
        """Lays a folder over what is there already."""
        start = f"{source}/"
        self._folder(str(source), "")
        for entry in _walk(source, str(without)):
            self._add(entry, entry.path[len(start) :])

    def _add(self, entry: os.DirEntry[str], path: str) -> None:
        info = entry.stat(follow_symlinks=False)
        target = f"{self._target}/{path}"
        if stat.S_ISDIR(info.st_mode):
            self._folder(entry.path, path)
            return
        if os.path.lexists(target):
            self._remove(path)
        if entry.is_symlink():
            os.symlink(os.readlink(entry.path), target)
            _dress(target, info)
        elif entry.is_file(follow_symlinks=False):
            _copy_file(entry.path, target)
            _dress(target, info)

    def _folder(self, source: str, path: str) -> None:
        target = f"{self._target}/{path}" if path else self._target
        if path and os.path.lexists(target) and (_is_opaque(source) or not _is_folder(target)):
            self._remove(path)
        with contextlib.suppress(FileExistsError):
            os.mkdir(target, 0o700)
        self._folders[path] = os.stat(source)

    def _remove(self, path: str) -> None:
        target = f"{self._target}/{path}"
        if not _is_folder(target):
            os.unlink(target)
            return
        shutil.rmtree(target)
        for inner in [inner for inner in self._folders if f"{inner}/".startswith(f"{path}/")]:
            del self._folders[inner]

    def finish(self) -> None:
        """Gives folders their modes and times."""
        for path, info in sorted(self._folders.items(), reverse=True):
            _dress(f"{self._target}/{path}" if path else self._target, info)


def _walk(source: Path, without: str = "") -> Iterator[os.DirEntry[str]]:
    """Everything below a folder, each folder before what is in it; a folder that cannot be read counts as empty."""
    waiting = [str(source)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                found = sorted((entry for entry in entries if entry.path != without), key=lambda entry: entry.name)
        except PermissionError:
            continue
        yield from found
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]


def _copy_file(source: str, target: str) -> None:
    try:
        shutil.copyfile(source, target, follow_symlinks=False)
    except PermissionError:
        with open(target, "xb"):
            pass


def _dress(target: str, info: os.stat_result) -> None:
    """Owner (as root), mode and times."""
    if os.geteuid() == 0:
        os.chown(target, info.st_uid, info.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(info.st_mode):
        os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns), follow_symlinks=False)


def marks(folder: Path) -> dict[str, Mark]:
    """Path -> mark of everything below a folder; a mark differs when the thing was written, replaced or changed its mode."""
    start = f"{folder}/"
    return {entry.path[len(start) :]: _mark(entry.stat(follow_symlinks=False)) for entry in _walk(folder)}


def _mark(info: os.stat_result) -> Mark:
    if stat.S_ISDIR(info.st_mode):
        return (info.st_mode,)
    return (info.st_mode, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def keep_changes(copy: Path, before: dict[str, Mark], upper: Path) -> None:
    """Moves what changed in a copy into `upper`, an empty folder, in overlayfs's form."""
    after = marks(copy)
    folders = {path: stat.S_IMODE(mark[0]) for path, mark in after.items() if stat.S_ISDIR(mark[0])}
    for path, mode in folders.items():
        os.chmod(copy / path, mode | 0o700)
    fresh = [path for path, mark in after.items() if before.get(path) != mark]
    there = {"", *folders}
    gone = [path for path in before if path not in after and path.rpartition("/")[0] in there]
    made = sorted(
        {above for path in [*fresh, *gone] for above in _above(path)} | {path for path in fresh if path in folders}
    )
    for path in made:
        (upper / path).mkdir()
    for path in fresh:
        if path not in folders:
            (copy / path).rename(upper / path)
    for path in gone:
        os.mknod(upper / path, stat.S_IFCHR, 0)
    for path in reversed(made):
        (upper / path).chmod(folders[path])


def _above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _is_folder(path: str) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _is_opaque(path: str) -> bool:
    for name in OPAQUE:
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) in (b"y", b"x"):
                return True
    return False
