"""Descriptors, manifests, indexes and image configs (OCI image-spec 1.1, plus Docker's config fields)."""

from __future__ import annotations

from typing import Any

import msgspec

from kiln.errors import KilnError
from kiln.oci import media
from kiln.oci.digest import is_digest, sha256
from kiln.oci.platform import Platform

REF_NAME = "org.opencontainers.image.ref.name"


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What a blob is (media type), which (digest) and how long (size, bytes)."""

    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] | None = None
    platform: Platform | None = None
    artifact_type: str = ""
    urls: list[str] | None = None

    def plain(self) -> Descriptor:
        """Without annotations and platform."""
        return Descriptor(self.media_type, self.digest, self.size)


class Manifest(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image manifest: one config and the layers, base first."""

    schema_version: int = 2
    media_type: str = media.OCI_MANIFEST
    artifact_type: str = ""
    config: Descriptor = Descriptor(media.OCI_CONFIG, "", 0)
    layers: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An image index: one manifest a platform."""

    schema_version: int = 2
    media_type: str = media.OCI_INDEX
    manifests: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of an image's history; `created` is RFC 3339."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Healthcheck(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """Docker's health check; durations are nanoseconds."""

    test: list[str] = []
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """The `config` object of an image: defaults for a container started from it."""

    user: str = ""
    exposed_ports: dict[str, dict[str, Any]] | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    volumes: dict[str, dict[str, Any]] | None = None
    working_dir: str = ""
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RootFS(msgspec.Struct, frozen=True):
    """The layers' diffIDs, base first."""

    type: str = "layers"
    diff_ids: list[str] = []


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True, rename={"os_version": "os.version"}):
    """An image config. `created` is RFC 3339."""

    architecture: str
    os: str
    config: RunConfig = RunConfig()
    rootfs: RootFS = RootFS()
    history: list[History] = []
    created: str = ""
    author: str = ""
    variant: str = ""
    os_version: str = ""

    @property
    def platform(self) -> Platform:
        """The platform that the config names."""
        return Platform(self.architecture, self.os, self.variant, self.os_version)


def _without_nulls(value: Any) -> Any:
    """Other tools write `null` for what they leave empty; it means the same as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def encode(value: Manifest | Index | ImageConfig) -> bytes:
    """The JSON bytes of a document, keys in the specification's order: the same document, the same bytes."""
    return msgspec.json.encode(_complete(value))


def _complete(value: Manifest | Index | ImageConfig) -> Any:
    """Builtins with the members that the specification requires even where they have their default."""
    document = msgspec.to_builtins(value)
    if isinstance(value, ImageConfig):
        head = {"architecture": value.architecture, "os": value.os}
        document["rootfs"] = {"type": "layers", "diff_ids": list(value.rootfs.diff_ids)}
        return head | document | {"config": document.get("config", {})}
    document = {"schemaVersion": 2, "mediaType": value.media_type} | document
    if isinstance(value, Manifest):
        return document | {"config": msgspec.to_builtins(value.config), "layers": document.get("layers", [])}
    return document | {"manifests": document.get("manifests", [])}


def parse_manifest(data: bytes, where: str) -> Manifest | Index:
    """The manifest or index in `data`; raises `KilnError` naming `where` if it is neither."""
    try:
        kind = _without_nulls(msgspec.json.decode(data))
        if not isinstance(kind, dict):
            raise msgspec.ValidationError("not an object")
        if kind.get("mediaType", "") in media.INDEXES or "manifests" in kind:
            index = msgspec.convert(kind, Index)
            _check_descriptors(index.manifests)
            return index
        if kind.get("schemaVersion") == 1:
            raise msgspec.ValidationError("schema 1 manifests are not supported")
        manifest = msgspec.convert(kind, Manifest)
        _check_descriptors([manifest.config, *manifest.layers])
        return manifest
    except msgspec.MsgspecError as bad:
        raise KilnError(f"not an image manifest: {bad}", where=where) from bad


def _check_descriptors(descriptors: list[Descriptor]) -> None:
    for descriptor in descriptors:
        if not is_digest(descriptor.digest) or descriptor.size < 0:
            raise msgspec.ValidationError(f"bad descriptor {descriptor.digest!r}")


def parse_config(data: bytes, where: str) -> ImageConfig:
    """The image config in `data`; raises `KilnError` naming `where`."""
    try:
        return msgspec.convert(_without_nulls(msgspec.json.decode(data)), ImageConfig)
    except msgspec.MsgspecError as bad:
        raise KilnError(f"not an image config: {bad}", where=where) from bad


class Image(msgspec.Struct, frozen=True):
    """A complete image: config and layers (diffIDs are in the config), immutable."""

    config: ImageConfig
    layers: tuple[Descriptor, ...]

    def __post_init__(self) -> None:
        if len(self.layers) != len(self.config.rootfs.diff_ids):
            raise KilnError(
                f"the image has {len(self.layers)} layers but its config names {len(self.config.rootfs.diff_ids)}",
                hint="The image is damaged; pull or build it again.",
            )

    @property
    def diff_ids(self) -> tuple[str, ...]:
        """The layers' diffIDs, base first."""
        return tuple(self.config.rootfs.diff_ids)


def documents(image: Image, *, docker: bool = False, annotations: dict[str, str] | None = None) -> tuple[bytes, bytes]:
    """(config bytes, manifest bytes) of an image, in OCI's or Docker's media types."""
    rename = media.to_docker if docker else media.to_oci
    config = encode(image.config)
    manifest = Manifest(
        media_type=rename(media.OCI_MANIFEST),
        config=Descriptor(rename(media.OCI_CONFIG), sha256(config), len(config)),
        layers=[Descriptor(rename(layer.media_type), layer.digest, layer.size) for layer in image.layers],
        annotations=annotations or None,
    )
    return config, encode(manifest)
