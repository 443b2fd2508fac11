"""Step results shared through a registry or a folder: records beside their layers, as one OCI artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from kiln import events
from kiln.errors import KilnError, NotFoundError, RegistryError
from kiln.oci import media
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, Manifest, encode, parse_manifest
from kiln.oci.reference import parse as parse_reference
from kiln.plan.outputs import CachePlace
from kiln.settings import Settings
from kiln.store.blobs import Blobs
from kiln.store.layout import Layout
from kiln.store.records import Record
from kiln.store.store import Store

_CONFIG_TYPE = "application/vnd.kiln.cache.v1+json"
_Fetch = Callable[[Descriptor], None]


class SharedCache:
    """The records of all `--cache-from` places, read when the first step misses."""

    def __init__(self, store: Store, settings: Settings, places: tuple[CachePlace, ...], report: events.Report) -> None:
        self._store, self._settings, self._places, self._report = store, settings, places, report
        self._records: dict[str, tuple[Record, _Fetch]] | None = None

    def get(self, key: str) -> Record | None:
        """The record of a key, its layer brought into the store, or None."""
        if not self._places:
            return None
        if self._records is None:
            self._records = {}
            for place in self._places:
                self._load(place)
        found = self._records.get(key)
        if found is None:
            return None
        record, fetch = found
        if not self._store.blobs.has(record.descriptor.digest):
            try:
                fetch(record.descriptor)
            except KilnError as bad:
                self._report(events.Warned(time=events.now(), message=f"a shared result cannot be used: {bad}"))
                return None
        return record

    def _load(self, place: CachePlace) -> None:
        assert self._records is not None
        try:
            records, fetch = self._read_folder(place.folder) if place.folder else self._read_registry(place.reference)
        except NotFoundError:
            return
        except KilnError as bad:
            where = place.folder or place.reference
            self._report(events.Warned(time=events.now(), message=f"the cache {where} cannot be read: {bad}"))
            return
        for key, record in records.items():
            self._records.setdefault(key, (record, fetch))

    def _read_folder(self, folder: Path) -> tuple[dict[str, Record], _Fetch]:
        blobs = Blobs(folder)
        found = Layout(folder, blobs).find("kiln-cache") if (folder / "index.json").exists() else None
        if found is None:
            return {}, lambda descriptor: None
        manifest = parse_manifest(blobs.get(found.digest), str(folder))
        assert isinstance(manifest, Manifest)

        def fetch(descriptor: Descriptor) -> None:
            copy_blob(blobs, self._store.blobs, descriptor.digest)

        return _decode(blobs.get(manifest.config.digest), str(folder)), fetch

    def _read_registry(self, text: str) -> tuple[dict[str, Record], _Fetch]:
        from kiln.registry import pull
        from kiln.registry.client import Client

        reference = parse_reference(text).with_default_tag()
        with Client(self._settings) as client:
            data, _ = client.get_manifest(reference)
            manifest = parse_manifest(data, text)
            if not isinstance(manifest, Manifest) or manifest.config.media_type != _CONFIG_TYPE:
                raise RegistryError("is no cache of Kiln's", where=text)
            pull.fetch(client, self._store.blobs, reference, [manifest.config])

        def fetch(descriptor: Descriptor) -> None:
            with Client(self._settings) as client:
                pull.fetch(client, self._store.blobs, reference, [descriptor])

        return _decode(self._store.blobs.get(manifest.config.digest), text), fetch


def _decode(data: bytes, where: str) -> dict[str, Record]:
    try:
        return msgspec.json.decode(data, type=dict[str, Record])
    except msgspec.MsgspecError as bad:
        raise RegistryError(f"is no cache of Kiln's: {bad}", where=where) from bad


def copy_blob(source: Blobs, target: Blobs, digest: str) -> None:
    """Copies one blob between layouts, checked; nothing happens where it is already."""
    if not target.has(digest):
        with target.writer() as writer:
            for chunk in source.stream(digest):
                writer.write(chunk)
            writer.commit(expected=digest)


def export(store: Store, settings: Settings, place: CachePlace, records: dict[str, Record]) -> None:
    """Writes records and their layers to a `--cache-to` place; raises `KilnError`."""
    usable = {key: record for key, record in sorted(records.items()) if store.blobs.has(record.descriptor.digest)}
    config = msgspec.json.encode(usable)
    layers = {record.descriptor.digest: record.descriptor.plain() for record in usable.values()}
    manifest = encode(
        Manifest(
            artifact_type=_CONFIG_TYPE, config=Descriptor(_CONFIG_TYPE, sha256(config), len(config)),
            layers=list(layers.values()),
        )
    )  # fmt: skip
    store.blobs.put(config)
    root = Descriptor(media.OCI_MANIFEST, store.blobs.put(manifest), len(manifest))
    if place.folder is not None:
        _to_folder(store, place.folder, root, [root.digest, sha256(config), *layers])
        return
    from kiln.registry.client import Client
    from kiln.registry.push import push

    with Client(settings) as client:
        push(client, store.blobs, parse_reference(place.reference).with_default_tag(), root)


def _to_folder(store: Store, folder: Path, root: Descriptor, digests: list[str]) -> None:
    target = Store(folder)
    try:
        for digest in digests:
            copy_blob(store.blobs, target.blobs, digest)
        target.layout.tag(["kiln-cache"], root)
    finally:
        target.close()
