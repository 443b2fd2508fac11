"""Results of targets: key -> image, here and beside the images in their registry.

In a registry a result is an index under a tag made of the key. It holds the image's manifest, so the image can be pulled by
that tag and stays as long as the tag does, and as an annotation the facts that the image was made from.
"""

from __future__ import annotations

import base64
import hashlib
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from kiln.errors import KilnError, NotFoundError, RegistryError, StoreError
from kiln.oci import media
from kiln.oci.image import Descriptor, Index, parse_manifest
from kiln.oci.reference import Reference
from kiln.plan.decide import Facts
from kiln.store.files import read_whole, write_whole
from kiln.store.store import Store

if TYPE_CHECKING:
    from kiln.registry.client import Client

_ANNOTATION = "vnd.kiln.record.v1"
_MOST_BYTES = 8 << 20
_PAUSES = (0.1, 0.5, 2.0)


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """The image of a key, the names that it was given, what it was made from."""

    key: str
    descriptor: Descriptor
    names: list[str] = []
    facts: Facts = Facts()


def key_tag(key: str) -> str:
    """The tag under which a registry has the result of a key."""
    return f"kiln-{key[:40]}"


def last_tag(tag: str, *, auto: bool = False) -> str:
    """The tag under which a registry says what the image of another tag was made from, for `auto` that of any; empty where
    that is too long."""
    if auto:
        return "kiln-last"
    return f"kiln-of-{tag}" if len(tag) <= 110 else ""


class Results:
    """The results that a store knows."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.root / "cache" / "results"
        self._here: set[str] = set()  # blobs that were seen: what a run has counted as used stays as long as it runs

    def get(self, key: str) -> Result | None:
        """The result of a key if its image is here, whole and counted as used."""
        found = _decode(read_whole(self._path(key)))
        return found if found is not None and found.key == key and self._is_here(found.descriptor) else None

    def last(self, place: str) -> Result | None:
        """What a target (named by a text of its own) was the last time."""
        return _decode(read_whole(self._place(place)))

    def put(self, place: str, result: Result) -> None:
        """Keeps a result under its key and as the last one of its target."""
        data = msgspec.json.encode(result)
        write_whole(self._path(result.key), data)
        write_whole(self._place(place), data)

    def remember(self, place: str, result: Result) -> None:
        """Makes a known result the last one of its target."""
        data = msgspec.json.encode(result)
        if read_whole(self._place(place)) != data:
            write_whole(self._place(place), data)

    def _path(self, key: str) -> Path:
        return self._folder / key

    def _place(self, place: str) -> Path:
        return self._folder / f"last-{hashlib.sha256(place.encode('utf-8', 'surrogateescape')).hexdigest()}"

    def _is_here(self, descriptor: Descriptor) -> bool:
        try:
            with self._store.in_use():
                return all(self._has(digest) for digest in self._needed(descriptor))
        except KilnError:
            return False

    def _has(self, digest: str) -> bool:
        if digest not in self._here and self._store.blobs.has(digest):
            self._here.add(digest)
        return digest in self._here

    def _needed(self, descriptor: Descriptor) -> list[str]:
        if not self._has(descriptor.digest):
            raise StoreError(f"the blob {descriptor.digest} is not in the store")
        document = self._store.layout.load(descriptor).document
        if isinstance(document, Index):
            return [digest for entry in document.manifests for digest in self._needed(entry)]
        return [document.config.digest, *(layer.digest for layer in document.layers)]


def _decode(data: bytes | None) -> Result | None:
    try:
        return msgspec.json.decode(data, type=Result) if data else None
    except msgspec.MsgspecError:
        return None


def find(client: Client, name: Reference, tag: str) -> Result | None:
    """The result that a registry keeps under a tag in the repository of a name, None where there is none or what is there
    is none; raises `RegistryError`."""
    if not tag:
        return None
    place = replace(name, tag=tag, digest="")
    try:
        data, _ = client.get_manifest(place)
    except NotFoundError:
        return None
    try:
        document = parse_manifest(data, str(place))
    except KilnError:
        return None
    if not isinstance(document, Index) or len(document.manifests) != 1:
        return None
    return _unpacked((document.annotations or {}).get(_ANNOTATION, ""), document.manifests[0])


def _unpacked(text: str, descriptor: Descriptor) -> Result | None:
    """The record of an annotation; whatever is wrong with it makes it no record."""
    try:
        reader = zlib.decompressobj()
        data = reader.decompress(base64.b64decode(text, validate=True), _MOST_BYTES)
        found = msgspec.json.decode(data, type=Result)
    except (ValueError, zlib.error, msgspec.MsgspecError):
        return None
    return found if found.descriptor.digest == descriptor.digest else None


def document_of(result: Result) -> bytes:
    """The index that stands for a result in a registry."""
    text = base64.b64encode(zlib.compress(msgspec.json.encode(result), 6)).decode()
    document: Mapping[str, object] = {
        "schemaVersion": 2, "mediaType": media.OCI_INDEX,
        "manifests": [msgspec.to_builtins(result.descriptor.plain())], "annotations": {_ANNOTATION: text},
    }  # fmt: skip
    return msgspec.json.encode(document)


def publish(client: Client, name: Reference, result: Result, *, auto: bool = False) -> None:
    """Puts a result beside its image: under its key, and as that which the name's tag was made from. Only names that change
    with time (`auto`) are told: other machines keep them."""
    data = document_of(result if auto else msgspec.structs.replace(result, names=[]))
    for tag in (key_tag(result.key), last_tag(name.tag, auto=auto)):
        if tag:
            _put(client, replace(name, tag=tag, digest=""), data)


def _put(client: Client, place: Reference, data: bytes) -> None:
    """A registry that is just being given the same image by somebody else may for a moment not have it (400)."""
    for pause in _PAUSES:
        try:
            client.put_manifest(place, data, media.OCI_INDEX)
            return
        except RegistryError as bad:
            if bad.status != 400:
                raise
        time.sleep(pause)
    client.put_manifest(place, data, media.OCI_INDEX)
