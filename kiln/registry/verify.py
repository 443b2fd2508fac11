"""Checking bytes against their digest where they cross a boundary."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from kiln.errors import CorruptError
from kiln.oci.digest import parse, sha256
from kiln.oci.image import Descriptor
from kiln.store.blobs import Blobs


def digest_like(expected: str, data: bytes) -> str:
    """The digest of `data` by the algorithm of `expected` (sha256 where that is empty)."""
    if not expected:
        return sha256(data)
    algorithm, _ = parse(expected)
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def store(blobs: Blobs, chunks: Iterable[bytes], descriptor: Descriptor) -> None:
    """Streams a blob into the store; raises `CorruptError`, and keeps nothing, where it is not what was described."""
    algorithm, _ = parse(descriptor.digest)
    hasher = hashlib.new(algorithm)
    with blobs.writer() as writer:
        for chunk in chunks:
            hasher.update(chunk)
            writer.write_hashed(chunk)
        got = f"{algorithm}:{hasher.hexdigest()}"
        writer.commit(digest=got, expected=descriptor.digest, size=descriptor.size)


def checked(chunks: Iterable[bytes], digest: str) -> Iterator[bytes]:
    """The same chunks; raises `CorruptError` before the last one is handed out if they do not have the digest."""
    algorithm, value = parse(digest)
    hasher = hashlib.new(algorithm)
    previous = b""
    for chunk in chunks:
        hasher.update(chunk)
        if previous:
            yield previous
        previous = chunk
    if hasher.hexdigest() != value:
        raise CorruptError(f"the bytes of {digest} have the digest {algorithm}:{hasher.hexdigest()}")
    if previous:
        yield previous


def skip(chunks: Iterable[bytes], offset: int) -> Iterator[bytes]:
    """The chunks without their first `offset` bytes (which are still read, so that a digest over all is checked)."""
    for chunk in chunks:
        if offset < len(chunk):
            yield chunk[offset:] if offset else chunk
        offset = max(0, offset - len(chunk))
