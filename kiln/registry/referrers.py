"""Referrers: manifests that have another as their subject (OCI distribution-spec 1.1, "Listing Referrers").

Registries without the referrers API are served by the specification's "Referrers Tag Schema": an index under the tag
`sha256-<hex of the subject>`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from kiln.errors import NotFoundError
from kiln.oci import media
from kiln.oci.image import Descriptor, Index, Manifest, encode, parse_manifest
from kiln.oci.reference import Reference

if TYPE_CHECKING:
    from kiln.registry.client import Client


def find(client: Client, ref: Reference, digest: str, artifact_type: str) -> tuple[Descriptor, ...]:
    """The referrers of `digest`; filtered here too, as registries need not filter."""
    target = f"/v2/{ref.repository}/referrers/{digest}"
    if artifact_type:
        target += f"?artifactType={quote(artifact_type, safe='')}"
    try:
        found = [entry for page in client.pages(ref, target, "the referrers") for entry in _entries(page, str(ref))]
    except NotFoundError:
        found = _by_tag(client, _tagged(ref, digest))
    return tuple(entry for entry in found if not artifact_type or entry.artifact_type == artifact_type)


def record(client: Client, ref: Reference, data: bytes, descriptor: Descriptor) -> None:
    """Adds a pushed manifest to its subject's tag, if it has a subject and is not there yet."""
    subject = _subject(data)
    if subject is None:
        return
    tag = _tagged(ref, subject.digest)
    known = _by_tag(client, tag)
    if any(entry.digest == descriptor.digest for entry in known):
        return
    index = Index(manifests=[*known, _entry(data, descriptor)])
    client.put_manifest(tag, encode(index), media.OCI_INDEX)


def _tagged(ref: Reference, digest: str) -> Reference:
    return replace(ref, tag=digest.replace(":", "-")[:128], digest="")


def _by_tag(client: Client, tag: Reference) -> list[Descriptor]:
    try:
        return _entries(client.get_manifest(tag)[0], str(tag))
    except NotFoundError:
        return []


def _entries(data: bytes, where: str) -> list[Descriptor]:
    parsed = parse_manifest(data, where)
    return list(parsed.manifests) if isinstance(parsed, Index) else []


def _subject(data: bytes) -> Descriptor | None:
    """The subject of a manifest; cheap for the many that have none."""
    if b'"subject"' not in data:
        return None
    return parse_manifest(data, "the manifest").subject


def _entry(data: bytes, descriptor: Descriptor) -> Descriptor:
    """As the specification says: the artifact type is the manifest's, else its config's media type."""
    parsed = parse_manifest(data, "the manifest")
    kind = (parsed.artifact_type or parsed.config.media_type) if isinstance(parsed, Manifest) else ""
    return msgspec.structs.replace(descriptor, artifact_type=kind, annotations=parsed.annotations)
