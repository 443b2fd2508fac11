"""Images by name: in the store, in a registry, in an OCI layout folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from kiln import events
from kiln.baking.elsewhere import Elsewhere
from kiln.errors import DockerfileError, KilnError, NotFoundError, StoreError, UsageError
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, Image, Index, documents
from kiln.oci.platform import Platform, local
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.settings import Settings
from kiln.store.blobs import Blobs
from kiln.store.layout import Layout, pick_platform
from kiln.store.origins import Origins
from kiln.store.store import Store


class Images(Struct, frozen=True):
    """Finds images for a build. `refresh`: ask the registry even for names that the store has (`--pull`). With `elsewhere`
    layers stay in their registry until something reads them."""

    store: Store
    settings: Settings
    report: events.Report
    refresh: bool = False
    elsewhere: Elsewhere | None = None
    locks: dict[str, threading.Lock] = field(default_factory=dict)
    found: dict[tuple[str, Platform], Image] = field(default_factory=dict)

    def find(self, name: str, platform: Platform, where: str) -> Image:
        """The image that a FROM names; raises a `KilnError` with the place of the FROM."""
        try:
            if name.startswith("oci-layout://"):
                return self._from_layout(name, platform)
            with self.locks.setdefault(name, threading.Lock()):
                if (name, platform) not in self.found:
                    self.found[name, platform] = self._find(parse_reference(name).with_default_tag(), platform)
                return self.found[name, platform]
        except UsageError as bad:
            raise DockerfileError(bad.message, where=where, hint=bad.hint) from None
        except NotFoundError as bad:
            bad.hint = bad.hint or "Check the name and the tag; make a Debian base with `kiln bootstrap debian`."
            raise _wanted_at(bad, where) from None
        except KilnError as bad:
            raise _wanted_at(bad, where) from None

    def resolve(self, name: str, platform: Platform) -> tuple[str, Image]:
        """(manifest digest, image) that a name means, without its layers where the store does not have them; raises a
        `KilnError` where there is no such image."""
        if name.startswith("oci-layout://"):
            image = self._from_layout(name, platform)
            return sha256(documents(image)[1]), image
        reference = parse_reference(name).with_default_tag()
        if not self.refresh:
            with self.store.in_use():
                named = self._named(reference)
                known = self.store.layout.image(named, platform) if named is not None else None
            if known is not None:
                return known[0].digest, known[1]
        return self._outline(reference, platform)

    def _outline(self, reference: Reference, platform: Platform) -> tuple[str, Image]:
        from kiln.registry.client import Client
        from kiln.registry.pull import pull

        with Client(self.settings) as client:
            descriptor = pull(client, self.store.blobs, reference, platform, report=self.report, lazy=True)
        found = self.store.layout.image(descriptor, None)
        if found is None:
            raise NotFoundError("the image has nothing for this platform", where=str(reference))
        return found[0].digest, found[1]

    def _find(self, reference: Reference, platform: Platform) -> Image:
        if not self.refresh:
            found = self.stored(reference, platform)
            if found is not None:
                return found
        if self.elsewhere is not None:
            return self._known(reference, platform, self.elsewhere)
        descriptor = self.pull(reference, platform)
        image = self.store.layout.image(descriptor, None)
        if image is None:
            raise NotFoundError("the image has nothing for this platform", where=str(reference))
        return image[1]

    def _known(self, reference: Reference, platform: Platform, elsewhere: Elsewhere) -> Image:
        """The image without its layers; where to get those is remembered."""
        _, image = self.resolve(reference.familiar, platform)
        elsewhere.know(reference, image.layers)
        origins = Origins(self.store.root)
        for diff_id, layer in zip(image.diff_ids, image.layers, strict=True):
            origins.add(layer.digest, reference.host, reference.repository)
            self.store.layers.add_blob(diff_id, layer)
        return image

    def stored(self, reference: Reference, platform: Platform) -> Image | None:
        """The image as the store has it, whole and counted as used, or None."""
        with self.store.in_use():
            descriptor = self._named(reference)
            if descriptor is None:
                return None
            try:
                found = self.store.layout.image(descriptor, platform)
            except StoreError as bad:
                if "damaged" in bad.message:
                    raise
                return None
            if found is None or not all(self.store.blobs.has(layer.digest) for layer in found[1].layers):
                return None
            image = found[1]
            for diff_id, layer in zip(image.diff_ids, image.layers, strict=True):
                self.store.layers.add_blob(diff_id, layer)
            return image

    def _named(self, reference: Reference) -> Descriptor | None:
        if reference.digest:
            known = [entry for entry in self.store.layout.names().values() if entry.digest == reference.digest]
            return known[0] if known else None
        return self.store.layout.find(str(reference))

    def pull(self, reference: Reference, platform: Platform | None) -> Descriptor:
        """Brings an image from its registry and keeps it under its name; returns its descriptor."""
        from kiln.registry.client import Client
        from kiln.registry.pull import pull

        name = f"[internal] pull {reference.familiar}"
        self.report(events.StepStarted(time=events.now(), step=f"pull {reference}", name=name))
        begin = events.now()
        try:
            with Client(self.settings) as client:
                descriptor = pull(
                    client,
                    self.store.blobs,
                    reference,
                    platform,
                    report=self.report,
                    progress=self._progress(reference),
                )
        except KilnError as bad:
            self._pulled(reference, name, begin, error=str(bad))
            raise
        self._pulled(reference, name, begin)
        origins = Origins(self.store.root)
        for digest in _layer_digests(self.store.layout, descriptor):
            origins.add(digest, reference.host, reference.repository)
        if not reference.digest:
            self.store.layout.tag([str(reference)], descriptor)
        return descriptor

    def _progress(self, reference: Reference):  # type: ignore[no-untyped-def]  # noqa: ANN202
        def progress(digest: str, done: int, total: int) -> None:
            self.report(
                events.StepProgress(
                    time=events.now(), step=f"pull {reference}", name=digest[7:19], done=done, total=total
                )
            )

        return progress

    def _pulled(self, reference: Reference, name: str, begin: float, error: str = "") -> None:
        self.report(
            events.StepFinished(
                time=events.now(), step=f"pull {reference}", name=name, seconds=round(events.now() - begin, 3), error=error,
                reason="" if error else "the store did not have it",
            )
        )  # fmt: skip

    def _from_layout(self, text: str, platform: Platform) -> Image:
        """An image of an OCI layout folder: `oci-layout://FOLDER[:tag|@digest]`; its blobs are copied into the store."""
        folder, tag, digest = _split_layout(text.removeprefix("oci-layout://"))
        blobs = Blobs(folder)
        blobs.scratch = self.store.scratch
        layout = Layout(folder, blobs)
        root = _layout_root(layout, folder, tag, digest)
        document = layout.load(root).document
        if isinstance(document, Index):
            chosen = pick_platform(document.manifests, platform)
            if chosen is None:
                raise NotFoundError(f"the layout has nothing for {platform}", where=text)
            self._copy(blobs, root.digest)
            root = chosen
            document = layout.load(root).document
        if isinstance(document, Index):
            raise KilnError("an index of indexes is not supported", where=text)
        for wanted in (root.digest, document.config.digest, *(layer.digest for layer in document.layers)):
            self._copy(blobs, wanted)
        found = self.store.layout.image(root, None)
        assert found is not None
        return found[1]

    def _copy(self, source: Blobs, digest: str) -> None:
        if not self.store.blobs.has(digest):
            with self.store.blobs.writer() as writer:
                for chunk in source.stream(digest):
                    writer.write(chunk)
                writer.commit(expected=digest)


def _wanted_at(bad: KilnError, where: str) -> KilnError:
    """An error of a registry or the store with the place of the instruction that wants the image in front."""
    if bad.where:
        bad.message = f"{bad.where}: {bad.message}"
    bad.where = where
    return bad


def _layer_digests(layout: Layout, descriptor: Descriptor) -> list[str]:
    document = layout.load(descriptor).document
    if isinstance(document, Index):
        return [digest for entry in document.manifests for digest in _layer_digests(layout, entry)]
    return [layer.digest for layer in document.layers]


def _split_layout(text: str) -> tuple[Path, str, str]:
    text, _, digest = text.partition("@")
    folder, colon, tag = text.rpartition(":")
    if colon and "/" not in tag:
        return Path(folder), tag, digest
    return Path(text), "", digest


def _layout_root(layout: Layout, folder: Path, tag: str, digest: str) -> Descriptor:
    if not (folder / "index.json").exists():
        raise UsageError("is no OCI layout (it has no index.json)", where=str(folder))
    entries = layout.entries()
    for entry in entries:
        name = (entry.annotations or {}).get("org.opencontainers.image.ref.name", "")
        if (digest and entry.digest == digest) or (not digest and tag and name == tag):
            return entry
    if not tag and not digest and entries:
        return entries[0]
    raise NotFoundError(f"the layout has no image {tag or digest or 'at all'}", where=str(folder))


def stored_env(store: Path, name: str, platform: Platform) -> Mapping[str, str] | None:
    """The variables of an image of the store, None where the store has no such image. Nothing is pulled."""
    layout = Layout(store, Blobs(store))
    try:
        descriptor = layout.find(str(parse_reference(name).with_default_tag()))
        found = descriptor and layout.image(descriptor, platform)
    except KilnError:
        # No store, or a damaged image: that is a matter for the build. A check only knows less without it.
        return None
    if not found:
        return None
    pairs = (text.partition("=") for text in found[1].config.config.env or ())
    return {key: value for key, _, value in pairs}


def default_platform() -> Platform:
    """The platform that a build without `--platform` is for."""
    return local()
