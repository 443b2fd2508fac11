"""Pulling: what a reference means for a platform, and its content into the store."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec

from kiln.errors import NotFoundError
from kiln.events import Report, silent
from kiln.oci import media
from kiln.oci.image import Descriptor, Index, Manifest, parse_manifest
from kiln.oci.platform import Platform
from kiln.oci.reference import Reference
from kiln.registry import verify
from kiln.registry.client import Client
from kiln.registry.mirrors import Sites
from kiln.registry.parallel import Transfer, run_all
from kiln.registry.progress import Meter, Progress
from kiln.registry.selection import pick
from kiln.registry.tree import Tree, walk
from kiln.store.blobs import Blobs


def resolve(
    client: Client, ref: Reference, platform: Platform | None, *, blobs: Blobs | None = None, report: Report = silent
) -> Descriptor:
    """The manifest that a reference means for a platform (None: whatever it names, also an index).

    Given `blobs`, an index is read from and kept in the store, so that a second time asks the registry one question.
    Raises `NotFoundError` where there is no such image, or none for the platform.
    """
    return _Source(client, blobs, ref, report).resolve(platform)


def pull(
    client: Client,
    blobs: Blobs,
    ref: Reference,
    platform: Platform | None,
    *,
    progress: Progress | None = None,
    report: Report = silent,
    lazy: bool = False,
) -> Descriptor:
    """Brings an image, or (platform None) an index and all its images, into the store; returns its descriptor.

    Blobs that are in the store are not fetched. `lazy` leaves the layers where they are: `fetch` brings them later.
    Mirrors are asked first. Raises `RegistryError`, `CorruptError` (nothing of a damaged blob is kept), `StoreError`.
    """
    source = _Source(client, blobs, ref, report)
    root = source.resolve(platform)
    tree = walk(root, source.manifest, str(ref))
    wanted = _configs(tree) if lazy else tree.blobs
    run_all(source.transfers(wanted), progress)
    for descriptor, data in tree.manifests:
        _keep(blobs, descriptor, data)
    return root


def fetch(
    client: Client,
    blobs: Blobs,
    ref: Reference,
    descriptors: Iterable[Descriptor],
    *,
    progress: Progress | None = None,
    report: Report = silent,
) -> None:
    """Brings single blobs (the layers that a lazy pull left) from the reference's repository into the store."""
    run_all(_Source(client, blobs, ref, report).transfers(descriptors), progress)


class _Source:
    """One reference being read, from its mirrors and its registry, into one store."""

    def __init__(self, client: Client, blobs: Blobs | None, ref: Reference, report: Report) -> None:
        self._client = client
        self._blobs = blobs
        self._ref = ref
        self._sites = Sites(client.settings, ref, report)

    def resolve(self, platform: Platform | None) -> Descriptor:
        found = self._root()
        if platform is None or found.media_type not in media.INDEXES:
            return found
        parsed = parse_manifest(self._index(found), str(self._ref))
        if not isinstance(parsed, Index):
            return found
        chosen = pick(parsed, platform, str(self._ref))
        return msgspec.structs.replace(chosen.plain(), platform=chosen.platform)

    def manifest(self, descriptor: Descriptor) -> bytes:
        """A manifest by its digest, from the store if it is there."""
        if self._blobs and self._blobs.has(descriptor.digest):
            return self._blobs.get(descriptor.digest)
        return self._sites.first(lambda site: self._client.get_manifest(site.with_digest(descriptor.digest))[0])

    def transfers(self, descriptors: Iterable[Descriptor]) -> list[Transfer]:
        """One for each blob."""
        unique = {descriptor.digest: descriptor for descriptor in descriptors}
        return [partial(self._transfer, descriptor) for descriptor in unique.values()]

    def _root(self) -> Descriptor:
        """What the reference is now. A digest that is in the store needs no registry."""
        if self._ref.digest and self._blobs and self._blobs.has(self._ref.digest):
            data = self._blobs.get(self._ref.digest)
            return Descriptor(parse_manifest(data, str(self._ref)).media_type, self._ref.digest, len(data))
        return self._sites.first(self._head)

    def _head(self, site: Reference) -> Descriptor:
        found = self._client.head_manifest(site)
        if found is None:
            raise NotFoundError(
                "the registry does not have this image",
                hint=f"Check the name and the tag; if it is private: `kiln login {site.host}`.",
                where=str(site),
            )
        return found

    def _index(self, descriptor: Descriptor) -> bytes:
        data = self.manifest(descriptor)
        if self._blobs:
            _keep(self._blobs, descriptor, data)
        return data

    def _transfer(self, descriptor: Descriptor, progress: Progress) -> None:
        if self._blobs is None or self._blobs.has(descriptor.digest):
            Meter(progress, descriptor.digest, descriptor.size).at(descriptor.size)
            return
        self._sites.first(partial(self._fetch, self._blobs, descriptor, progress))

    def _fetch(self, blobs: Blobs, descriptor: Descriptor, progress: Progress, site: Reference) -> None:
        verify.store(blobs, self._client.read_blob(site, descriptor, progress=progress), descriptor)
        self._client.presence.remember(site.host, site.repository, descriptor.digest)


def _configs(tree: Tree) -> list[Descriptor]:
    parsed = (parse_manifest(data, descriptor.digest) for descriptor, data in tree.manifests)
    return [manifest.config for manifest in parsed if isinstance(manifest, Manifest)]


def _keep(blobs: Blobs, descriptor: Descriptor, data: bytes) -> None:
    if not blobs.has(descriptor.digest):
        verify.store(blobs, (data,), Descriptor(descriptor.media_type, descriptor.digest, len(data)))
