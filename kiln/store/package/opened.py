"""The file of a package, opened once and read at any place; it must not change while it is in use."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from kiln.errors import SourceError

CHUNK = 1 << 20


class Opened:
    """A regular file. `name` is what errors call it, `size` is bytes."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as bad:
            raise SourceError(f"cannot be read: {bad}", where=name, hint="Check the path and its permissions.") from bad
        self._info = os.fstat(self._fd)
        self.size = self._info.st_size
        if not stat.S_ISREG(self._info.st_mode):
            self.close()
            raise SourceError("is no regular file", where=name, hint="Give an archive, a program, a folder or a URL.")

    def at(self, offset: int, size: int) -> bytes:
        """Exactly `size` bytes from `offset`; raises `SourceError` if they are not there."""
        data = os.pread(self._fd, size, offset) if offset >= 0 else b""
        if len(data) != size:
            raise SourceError("the file is cut off", where=self.name, hint="Copy or download it again.")
        return data

    def some(self, offset: int, size: int = CHUNK) -> bytes:
        """Up to `size` bytes from `offset`, none at the end."""
        return os.pread(self._fd, size, offset)

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """`size` bytes from `offset`, in pieces; raises `SourceError` if the file changed since it was opened."""
        end = offset + size
        while offset < end:
            data = self.at(offset, min(CHUNK, end - offset))
            offset += len(data)
            yield data
        self.check()

    def check(self) -> None:
        """Raises `SourceError` if the file changed since it was opened."""
        now = os.fstat(self._fd)
        if (now.st_size, now.st_mtime_ns) != (self.size, self._info.st_mtime_ns):
            raise SourceError("the file changed while it was read", where=self.name, hint="Try again.")

    def close(self) -> None:
        """Closes the file; a second time does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
