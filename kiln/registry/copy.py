"""Copying from registry to registry, byte for byte, without a copy on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from kiln.errors import UsageError
from kiln.oci.image import Descriptor
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.registry.client import Client
from kiln.registry.progress import Progress
from kiln.registry.pull import resolve
from kiln.registry.push import send
from kiln.registry.tree import walk
from kiln.registry.verify import checked


def copy(
    client: Client,
    src: Reference,
    dst: Reference,
    platform: Platform | None = None,
    *,
    progress: Progress | None = None,
) -> str:
    """Copies an image, or an index with all its images (platform None); returns its digest, which stays the same.

    On one host blobs are mounted; between hosts they are streamed from one connection into the other. A destination
    without a tag gets the image by digest alone. Raises `RegistryError`, `CorruptError`.
    """
    root = resolve(client, src, platform)
    if dst.digest and dst.digest != root.digest:
        raise UsageError(f"{dst} cannot be a copy of {src}: that is {root.digest}", hint="Copy to a tag instead.")
    tree = walk(root, lambda descriptor: client.get_manifest(src.with_digest(descriptor.digest))[0], str(src))

    def open_blob(descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        chunks = client.read_blob(src, descriptor, offset=offset)
        return chunks if offset else checked(chunks, descriptor.digest)

    same_host: Sequence[str] = [src.repository] if src.host == dst.host else []
    send(client, dst, tree, open_blob, lambda _: same_host, progress)
    return root.digest
