"""Blobs in an OCI image layout: written to a temporary file, synced, renamed, never modified.

The layout is the one of OCI image-spec image-layout.md, so other tools read it. A blob's modification time is not part
of its content: it records when the blob was last used, which is what garbage collection goes by.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol

from kiln.errors import CorruptError, StoreError
from kiln.oci.digest import parse, sha256

CHUNK = 1 << 20


class Follower(Protocol):
    """Reads a blob's file while it is being written, and goes on when it has been renamed."""

    def grew(self, size: int) -> None: ...

    def ended(self, digest: str, size: int) -> None: ...

    def dropped(self) -> None: ...


Follow = Callable[[Path], Follower]


class BlobWriter:
    """One blob being written; `commit` puts it under its digest, leaving the `with` block without it drops the bytes."""

    def __init__(self, blobs: Blobs, follow: Follow | None = None) -> None:
        self._blobs = blobs
        self._path = blobs.scratch / f"blob-{os.getpid()}-{os.urandom(8).hex()}"
        try:
            self._file: IO[bytes] = self._path.open("xb", buffering=0)
        except OSError as bad:
            raise disk_error(bad, self._path) from bad
        self._hash = hashlib.sha256()
        self.size = 0
        self._follower = follow(self._path) if follow else None

    def __enter__(self) -> BlobWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
        if self._follower is not None:
            self._follower.dropped()

    def write(self, data: bytes | memoryview) -> None:
        """Appends bytes and hashes them."""
        self._hash.update(data)
        self.write_hashed(data)

    def write_hashed(self, data: bytes | memoryview) -> None:
        """Appends bytes that the caller hashes itself (it passes the digest to `commit`)."""
        view = memoryview(data)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError as bad:
            raise disk_error(bad, self._path) from bad
        self.size += len(data)
        if self._follower is not None:
            self._follower.grew(self.size)

    def commit(self, *, digest: str = "", expected: str = "", size: int = -1) -> str:
        """Syncs, renames, returns the digest; raises `CorruptError` if the bytes are not those that were `expected`."""
        digest = digest or "sha256:" + self._hash.hexdigest()
        if size >= 0 and size != self.size:
            raise CorruptError(f"{expected or digest} should be {size} bytes, got {self.size}")
        if expected and expected != digest:
            raise CorruptError(f"the bytes of {expected} have the digest {digest}")
        try:
            os.fsync(self._file.fileno())
            target = self._blobs.path(digest)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._path.rename(target)
        except OSError as bad:
            raise disk_error(bad, self._path) from bad
        if self._follower is not None:
            self._follower.ended(digest, self.size)
            self._follower = None
        return digest


class Blobs:
    """The blobs of one layout folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.scratch = root / "tmp"
        # Brings a blob that is known to be somewhere else; says whether it could.
        self.fetch: Callable[[str], bool] = lambda digest: False

    def path(self, digest: str) -> Path:
        """Where the blob is or would be."""
        algorithm, value = parse(digest)
        return Path(f"{self.root}/blobs/{algorithm}/{value}")

    def has(self, digest: str) -> bool:
        """Whether the blob is here; a blob that is here counts as used now."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        except PermissionError:
            return self.path(digest).exists()
        return True

    def retire(self, digest: str) -> None:
        """Counts a blob as not used for long: it is the first that is collected, unless somebody uses it again."""
        with contextlib.suppress(OSError):
            os.utime(self.path(digest), (0, 0))

    def size(self, digest: str) -> int:
        """Its length in bytes; raises `StoreError` if it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError as missing:
            if self.fetch(digest):
                return self.size(digest)
            raise _missing(digest) from missing

    def writer(self, follow: Follow | None = None) -> BlobWriter:
        """A new blob, to be used in a `with` block; `follow` is called with its file."""
        return BlobWriter(self, follow)

    def put(self, data: bytes) -> str:
        """Stores small content; returns its digest. Idempotent."""
        digest = sha256(data)
        if not self.has(digest):
            with self.writer() as writer:
                writer.write(data)
                writer.commit(expected=digest)
        return digest

    def get(self, digest: str) -> bytes:
        """Small content, checked; raises `CorruptError` or `StoreError`."""
        return b"".join(self.stream(digest))

    def open(self, digest: str) -> IO[bytes]:
        """The blob as a file, unchecked; raises `StoreError` if it is not here. Opening counts as use."""
        try:
            file = self.path(digest).open("rb", buffering=0)
            with contextlib.suppress(PermissionError):
                os.utime(file.fileno())
            return file
        except FileNotFoundError as missing:
            if self.fetch(digest):
                return self.open(digest)
            raise _missing(digest) from missing

    def stream(self, digest: str) -> Iterator[bytes]:
        """The blob's bytes in chunks; the digest is checked at the end, before the last chunk is handed out."""
        algorithm, value = parse(digest)
        hasher = hashlib.new(algorithm)
        with self.open(digest) as source:
            previous = b""
            while chunk := source.read(CHUNK):
                hasher.update(chunk)
                if previous:
                    yield previous
                previous = chunk
        if hasher.hexdigest() != value:
            raise CorruptError(
                f"the blob {digest} in the store is damaged",
                where=str(self.path(digest)),
                hint="Remove that file and build or pull again.",
            )
        if previous:
            yield previous

    def delete(self, digest: str) -> int:
        """Removes a blob; returns the bytes that were freed."""
        path = self.path(digest)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return 0
        return size


def _missing(digest: str) -> StoreError:
    return StoreError(f"the blob {digest} is not in the store", hint="Pull or build the image again.")


def disk_error(bad: OSError, path: Path) -> StoreError:
    """A write that failed, as an error that says what to do."""
    hints = {
        28: "The disk is full: free some space, or run `kiln prune --keep 10GB`.",
        122: "The disk quota is used up: free some space, or run `kiln prune`.",
        13: "Check who owns the folder, or name another with --home or KILN_HOME.",
        30: "The file system is read-only: name another folder with --home or KILN_HOME.",
    }
    hint = hints.get(bad.errno or 0, "Check the disk and the folder's permissions.")
    return StoreError(f"cannot write: {bad.strerror or bad}", where=str(path.parent), hint=hint)
