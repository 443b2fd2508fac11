"""Reading a layer's blob once, front to back: its entries with their content, checked against both digests on the way."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from kiln.errors import CorruptError
from kiln.oci.image import Descriptor
from kiln.store import tarread
from kiln.store.ahead import Ahead
from kiln.store.blobs import Blobs
from kiln.store.compress import Inflater
from kiln.store.entry import FILE, Entry, copy_of
from kiln.store.toc import Toc

_CHUNK = 1 << 20


class LayerReading:
    """One pass over a layer, decompressed and hashed in a thread of its own; to be closed. `toc` is complete when `members`
    has come to its end."""

    def __init__(self, blobs: Blobs, diff_id: str, descriptor: Descriptor) -> None:
        self._diff_id, self._descriptor = diff_id, descriptor
        self._diff = hashlib.sha256()
        stream = blobs.stream(descriptor.digest)
        self._inflater = Inflater(lambda _: next(stream, b""), descriptor.digest)
        self._ahead = Ahead(self._inflate)
        self.toc: Toc = []

    def _inflate(self, size: int) -> bytes:
        data = self._inflater.read(size)
        self._diff.update(data)
        return data

    def members(self) -> Iterator[tuple[str, Entry, Iterator[bytes]]]:
        """Path, entry and content of each member; what of the content is left alone is passed over. Raises `CorruptError`,
        perhaps only at the end."""
        for member in tarread.members(self._ahead.read, f"layer {self._descriptor.digest}"):
            path, entry = tarread.layer_entry(member)
            if entry.kind != FILE:
                self.toc.append((path, entry))
                yield path, entry, iter(())
                continue
            hasher = hashlib.sha256()
            content = _hashed(member.chunks(), hasher)
            yield path, entry, content
            for _ in content:
                pass
            self.toc.append((path, copy_of(entry, digest=hasher.hexdigest())))
        while self._ahead.read(_CHUNK):
            pass
        found = "sha256:" + self._diff.hexdigest()
        if found != self._diff_id:
            raise CorruptError(
                f"the layer {self._descriptor.digest} unpacks to {found}, not to {self._diff_id} as its image says",
                hint="The image is damaged: pull it again, or ask who made it.",
            )

    def close(self) -> None:
        """Ends the thread."""
        self._ahead.close()


def _hashed(chunks: Iterator[bytes], hasher: hashlib._Hash) -> Iterator[bytes]:
    for chunk in chunks:
        hasher.update(chunk)
        yield chunk
