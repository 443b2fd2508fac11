"""Pushing: the blobs that the registry does not have, then the manifests, and the tag last of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from msgspec import Struct
from msgspec.structs import replace

from kiln.errors import RegistryError, UsageError
from kiln.oci import media
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry.client import Client
from kiln.registry.parallel import run_all
from kiln.registry.progress import Progress
from kiln.registry.tree import Tree, walk
from kiln.registry.verify import skip
from kiln.store.blobs import Blobs

OpenBlob = Callable[[Descriptor, int], Iterator[bytes]]


def push(
    client: Client,
    blobs: Blobs,
    ref: Reference,
    root: Descriptor,
    *,
    progress: Progress | None = None,
    sources: Mapping[str, Sequence[str]] | None = None,
    elsewhere: OpenBlob | None = None,
    asked: bool = False,
) -> str:
    """Pushes an image or index from the store; returns its digest. A reference without a tag is pushed by digest alone.

    `sources` names, for a blob's digest, repositories of the same host to mount it from. `elsewhere(descriptor,
    offset)` streams a blob that is not in the store (a layer that a lazy pull left in another registry). `asked`: the
    reference is known to name something else.
    Nothing is tagged unless everything is there. Raises `RegistryError`, `StoreError` for content that is missing here.
    """
    if ref.digest and ref.digest != root.digest:
        raise UsageError(f"{ref} cannot be what is pushed: that is {root.digest}", hint="Push to a tag instead.")
    tree = walk(root, lambda descriptor: blobs.get(descriptor.digest), str(ref))
    if not asked and _is_pushed(client, ref, root):
        return root.digest
    content = _Content(blobs, elsewhere)
    send(client, ref, tree, content.open, lambda digest: (sources or {}).get(digest, ()), progress)
    return root.digest


def send(
    client: Client,
    ref: Reference,
    tree: Tree,
    open_blob: OpenBlob,
    mount_from: Callable[[str], Sequence[str]],
    progress: Progress | None,
) -> None:
    """Brings a tree to a repository: blobs in parallel, then manifests in order, the root under the reference's tag.

    Where the registry misses a blob that this process knew to be there (garbage was collected), all is done once more:
    by then nothing is taken to be known.
    """

    def transfer(blob: Descriptor, told: Progress) -> None:
        made = blob.media_type in media.CONFIGS  # an image that is not there has a config of its own
        client.upload_blob(ref, blob, partial(open_blob, blob), mount_from(blob.digest), told, made=made)

    transfers = [partial(transfer, blob) for blob in tree.blobs]
    run_all(transfers, progress)
    try:
        _put(client, ref, tree)
    except RegistryError as bad:
        if bad.code not in ("MANIFEST_BLOB_UNKNOWN", "BLOB_UNKNOWN"):
            raise
        run_all(transfers, progress)
        _put(client, ref, tree)


def _put(client: Client, ref: Reference, tree: Tree) -> None:
    for descriptor, data in tree.manifests[:-1]:
        client.put_manifest(ref.with_digest(descriptor.digest), data, descriptor.media_type)
    root, data = tree.manifests[-1]
    client.put_manifest(replace(ref, digest=root.digest), data, root.media_type)


def _is_pushed(client: Client, ref: Reference, root: Descriptor) -> bool:
    """Whether the reference names the image already; a registry that has a manifest has what it names."""
    named = ref if ref.tag else ref.with_digest(root.digest)
    found = client.head_manifest(replace(named, digest="") if ref.tag else named)
    return found is not None and found.digest == root.digest


class _Content(Struct, frozen=True):
    """Blobs from the store, else from elsewhere."""

    blobs: Blobs
    elsewhere: OpenBlob | None

    def open(self, descriptor: Descriptor, offset: int) -> Iterator[bytes]:
        if self.elsewhere and not self.blobs.has(descriptor.digest):
            return self.elsewhere(descriptor, offset)
        return skip(self.blobs.stream(descriptor.digest), offset)
