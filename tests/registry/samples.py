"""Small images for tests, and a store to keep them in."""

from __future__ import annotations

import random
from pathlib import Path

from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, ImageConfig, Index, Manifest, RootFS, encode
from kiln.oci.platform import Platform
from kiln.registry.backoff import Backoff
from kiln.registry.client import Client
from kiln.registry.transport import Transport
from kiln.settings import RegistryRules, Settings
from kiln.store.blobs import Blobs

AMD, ARM = Platform("amd64", "linux"), Platform("arm64", "linux")
QUICK = Backoff(first=0.001)


def noise(size: int, seed: int = 1) -> bytes:
    """Bytes that are the same each time."""
    return random.Random(seed).randbytes(size)


def new_blobs(folder: Path) -> Blobs:
    (folder / "tmp").mkdir(parents=True)
    return Blobs(folder)


def settings(tmp_path: Path, registries: dict[str, RegistryRules] | None = None, **more) -> Settings:
    return Settings(home=tmp_path, docker_config=tmp_path / "docker", registries=registries or {}, **more)


def new_client(
    tmp_path: Path, registries: dict[str, RegistryRules] | None = None, backoff: Backoff = QUICK, **more
) -> Client:
    made = settings(tmp_path, registries, **more)
    return Client(made, Transport(made, backoff=backoff))


def image(blobs: Blobs, *layers: bytes, platform: Platform = AMD, **manifest) -> Descriptor:
    """Stores an image of (opaque) layers; its manifest's descriptor."""
    config = encode(
        ImageConfig(platform.architecture, platform.os, rootfs=RootFS(diff_ids=[sha256(layer) for layer in layers]))
    )
    for content in (config, *layers):
        blobs.put(content)
    data = encode(
        Manifest(
            config=Descriptor(media.OCI_CONFIG, sha256(config), len(config)),
            layers=[Descriptor(media.OCI_LAYER, sha256(layer), len(layer)) for layer in layers],
            **manifest,
        )
    )
    return Descriptor(media.OCI_MANIFEST, blobs.put(data), len(data), platform=platform)


def index(blobs: Blobs, *images: Descriptor) -> Descriptor:
    data = encode(Index(manifests=list(images)))
    return Descriptor(media.OCI_INDEX, blobs.put(data), len(data))


def leftovers(blobs: Blobs) -> list[Path]:
    """Temporary files that were not cleaned up."""
    return list(blobs.scratch.iterdir())
