"""The index of the layout: which names point at which manifests (OCI image-spec image-layout.md, "index.json file")."""

from __future__ import annotations

from pathlib import Path

import msgspec
from msgspec import Struct

from kiln.errors import StoreError
from kiln.oci import media
from kiln.oci.image import REF_NAME, Descriptor, Image, Index, Manifest, documents, parse_config, parse_manifest
from kiln.oci.platform import Platform, matches
from kiln.store.blobs import Blobs
from kiln.store.files import locked, write_whole


class Stored(Struct, frozen=True):
    """An image or index of the store: its descriptor and the bytes of its document."""

    descriptor: Descriptor
    document: Manifest | Index


class Layout:
    """Names -> manifests in one layout folder. Every change is one atomic rename under a lock."""

    def __init__(self, root: Path, blobs: Blobs) -> None:
        self._path = root / "index.json"
        self._lock = root / "index.lock"
        self._blobs = blobs

    def names(self) -> dict[str, Descriptor]:
        """All names with what they point at, sorted by name."""
        named = {}
        for descriptor in self._read().manifests:
            name = (descriptor.annotations or {}).get(REF_NAME)
            if name:
                named[name] = descriptor.plain()
        return dict(sorted(named.items()))

    def entries(self) -> list[Descriptor]:
        """Everything that the index lists, with annotations."""
        return list(self._read().manifests)

    def find(self, name: str) -> Descriptor | None:
        """What a name points at, or None."""
        return self.names().get(name)

    def tag(self, names: list[str], descriptor: Descriptor) -> None:
        """Makes names point at a manifest, all of them or none."""
        with locked(self._lock):
            kept = [entry for entry in self._read().manifests if (entry.annotations or {}).get(REF_NAME) not in names]
            added = [
                Descriptor(descriptor.media_type, descriptor.digest, descriptor.size, annotations={REF_NAME: name})
                for name in names
            ]
            self._write([*kept, *added])

    def untag(self, name: str) -> Descriptor | None:
        """Takes a name away; returns what it pointed at, or None if there was no such name."""
        with locked(self._lock):
            found = self.find(name)
            if found is not None:
                self._write(
                    [entry for entry in self._read().manifests if (entry.annotations or {}).get(REF_NAME) != name]
                )
        return found

    def _read(self) -> Index:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Index()
        try:
            return msgspec.json.decode(data, type=Index)
        except msgspec.MsgspecError as bad:
            raise StoreError(f"the index of the store is damaged: {bad}", where=str(self._path)) from bad

    def _write(self, manifests: list[Descriptor]) -> None:
        ordered = sorted(manifests, key=lambda entry: ((entry.annotations or {}).get(REF_NAME, ""), entry.digest))
        document = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": msgspec.to_builtins(ordered)}
        write_whole(self._path, msgspec.json.encode(document), sync=True)

    def load(self, descriptor: Descriptor) -> Stored:
        """The document of a descriptor, checked; raises `StoreError`."""
        data = self._blobs.get(descriptor.digest)
        return Stored(descriptor, parse_manifest(data, descriptor.digest))

    def put_image(self, image: Image, *, docker: bool = False, annotations: dict[str, str] | None = None) -> Descriptor:
        """Stores the config and the manifest of an image whose layers are here; returns the manifest's descriptor."""
        config, manifest = documents(image, docker=docker, annotations=annotations)
        self._blobs.put(config)
        digest = self._blobs.put(manifest)
        kind = media.DOCKER_MANIFEST if docker else media.OCI_MANIFEST
        return Descriptor(kind, digest, len(manifest), platform=image.config.platform)

    def put_index(
        self, manifests: list[Descriptor], *, docker: bool = False, annotations: dict[str, str] | None = None
    ) -> Descriptor:
        """Stores an index over manifests; returns its descriptor."""
        kind = media.DOCKER_INDEX if docker else media.OCI_INDEX
        document: dict[str, object] = {
            "schemaVersion": 2, "mediaType": kind, "manifests": msgspec.to_builtins(manifests),
        }  # fmt: skip
        if annotations:
            document["annotations"] = annotations
        data = msgspec.json.encode(document)
        return Descriptor(kind, self._blobs.put(data), len(data))

    def image(self, descriptor: Descriptor, platform: Platform | None = None) -> tuple[Descriptor, Image] | None:
        """(manifest's descriptor, image) for a platform; None where an index has nothing for it."""
        stored = self.load(descriptor)
        if isinstance(stored.document, Index):
            chosen = pick_platform(stored.document.manifests, platform)
            return None if chosen is None else self.image(chosen, None)
        manifest = stored.document
        config = parse_config(self._blobs.get(manifest.config.digest), manifest.config.digest)
        if platform is not None and not matches(platform, config.platform):
            return None
        return descriptor.plain(), Image(config, tuple(manifest.layers))


def pick_platform(manifests: list[Descriptor], platform: Platform | None) -> Descriptor | None:
    """The manifest for a platform: an exact match first; attestations (platform unknown) are no images."""
    images = [entry for entry in manifests if entry.platform is None or entry.platform.os != "unknown"]
    if platform is None:
        return images[0] if images else None
    exact = [entry for entry in images if entry.platform == platform]
    fitting = [entry for entry in images if entry.platform is None or matches(platform, entry.platform)]
    return next(iter(exact + fitting), None)
