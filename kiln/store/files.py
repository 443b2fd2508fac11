"""Small files of the store: written whole, renamed into place; locks between processes."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from kiln.store.blobs import disk_error


def write_whole(path: Path, data: bytes, *, mode: int = 0o644, sync: bool = False) -> None:
    """Puts `data` at `path` so that a reader sees the old bytes or the new ones; raises `StoreError`."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        fd = _created(scratch, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if sync:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(scratch, path)
    except OSError as bad:
        scratch.unlink(missing_ok=True)
        raise disk_error(bad, path) from bad


def _created(path: Path, mode: int) -> int:
    """A new file, opened; the folder is made if it is not there."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        return os.open(path, flags, mode)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, flags, mode)


def read_whole(path: Path) -> bytes | None:
    """The bytes at `path`, or None if there is no such file; reading counts as use."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        pieces = []
        while piece := os.read(fd, max(4096, os.fstat(fd).st_size + 1)):
            pieces.append(piece)
        with contextlib.suppress(OSError):
            os.utime(fd)
    finally:
        os.close(fd)
    return b"".join(pieces)


@contextlib.contextmanager
def locked(path: Path, *, shared: bool = False) -> Iterator[None]:
    """Holds an advisory lock on `path` (made if missing) against other threads and processes; the kernel frees it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as bad:
        raise disk_error(bad, path) from bad
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def try_lock(path: Path, *, create: bool = True) -> int | None:
    """A descriptor that holds the lock on `path`, or None if someone else does; close it to let go.

    Without `create`, a path that is not there raises FileNotFoundError.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
