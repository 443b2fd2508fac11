"""All of an image or index: its manifests and the blobs that they name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from msgspec import Struct

from kiln.errors import RegistryError
from kiln.oci import media
from kiln.oci.image import Descriptor, Index, Manifest, parse_manifest

_DEEPEST = 4
_MOST_MANIFESTS = 1000


class Tree(Struct, frozen=True):
    """The manifests with their bytes, each after those that it names (the root is last), and the blobs, each once."""

    manifests: tuple[tuple[Descriptor, bytes], ...]
    blobs: tuple[Descriptor, ...]


def walk(root: Descriptor, read: Callable[[Descriptor], bytes], where: str) -> Tree:
    """The tree under `root`; `read` gives a manifest's bytes. Raises `RegistryError` for an unreasonably large one."""
    manifests: dict[str, tuple[Descriptor, bytes]] = {}
    blobs: dict[str, Descriptor] = {}

    def visit(descriptor: Descriptor, depth: int) -> None:
        if descriptor.digest in manifests:
            return
        if depth > _DEEPEST or len(manifests) + 1 > _MOST_MANIFESTS:
            raise RegistryError(
                f"the index is nested deeper than {_DEEPEST} or names over {_MOST_MANIFESTS} manifests", where=where
            )
        data = read(descriptor)
        parsed = parse_manifest(data, f"{where} ({descriptor.digest})")
        if isinstance(parsed, Index):
            for entry in parsed.manifests:
                visit(entry, depth + 1)
        else:
            blobs.update((blob.digest, blob) for blob in _content(parsed))
        manifests[descriptor.digest] = (descriptor, data)

    visit(root, 1)
    return Tree(tuple(manifests.values()), tuple(blobs.values()))


def _content(manifest: Manifest) -> Iterable[Descriptor]:
    """The blobs of one manifest; Windows' base layers are not kept in registries (image-spec, "Non-Distributable")."""
    yield from (layer for layer in manifest.layers if layer.media_type != media.FOREIGN)
    yield manifest.config
