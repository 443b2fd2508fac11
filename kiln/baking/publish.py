"""From finished images to what was asked for: tags in the store, pushes, archives, folders."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec
from msgspec import Struct

from kiln import events
from kiln.engine import export
from kiln.errors import KilnError, UsageError
from kiln.oci.digest import sha256
from kiln.oci.image import Descriptor, Image, RootFS, documents
from kiln.oci.reference import Reference
from kiln.plan.outputs import Output
from kiln.settings import Settings
from kiln.store.blobs import disk_error
from kiln.store.convert import convert
from kiln.store.layer import Compression
from kiln.store.origins import Origins
from kiln.store.store import Store

if TYPE_CHECKING:
    from kiln.baking.session import Session
    from kiln.registry.client import Client


_ORIGINS = 3  # as many as are tried before a layer is uploaded


class Wanted(Struct, frozen=True):
    """What all outputs of a build have in common. `own` are diffIDs that this build made (only those change form)."""

    names: tuple[Reference, ...]
    push: bool
    compression: Compression
    annotations: dict[str, str]
    epoch: int | None
    own: frozenset[str]


class Published(Struct, frozen=True):
    """An image as it was given out: the manifest's (or index's) descriptor, the config's digest, the names."""

    descriptor: Descriptor
    config_digest: str
    names: tuple[str, ...]


class Publisher:
    """Gives finished images out, one output after the other."""

    def __init__(self, session: Session, wanted: Wanted) -> None:
        self.session, self.store, self.report, self.wanted = session, session.store, session.report, wanted

    def image(self, images: list[Image], output: Output) -> Published:
        """Into the store, under its names, and to the registry if that is asked for."""
        names = self._names(output)
        descriptor, config = self._assemble(images, output)
        if names:
            self.store.layout.tag([str(name) for name in names], descriptor)
        if self.wanted.push or output.flag("push"):
            if not names:
                raise UsageError("--push needs a name", hint="Give one with -t.")
            for name in names:
                self._push(name, descriptor)
        pushed = bool(names) and (self.wanted.push or output.flag("push"))
        for title in [name.familiar for name in names] or [""]:
            self.report(events.ImageReady(time=events.now(), digest=descriptor.digest, name=title, pushed=pushed))
        return Published(descriptor, config, tuple(str(name) for name in names))

    def _names(self, output: Output) -> tuple[Reference, ...]:
        from kiln.oci.reference import parse

        return tuple(parse(name).with_default_tag() for name in output.names) or self.wanted.names

    def _assemble(self, images: list[Image], output: Output) -> tuple[Descriptor, str]:
        """(root descriptor, config digest of the first image) in the output's compression and media types."""
        docker = output.options.get("oci-mediatypes", "true").lower() in ("false", "0")
        converted = [self._in_form(image, output) for image in images]
        roots = [
            self.store.layout.put_image(image, docker=docker, annotations=self.wanted.annotations)
            for image in converted
        ]
        config = sha256(documents(converted[0], docker=docker)[0])
        if len(roots) == 1:
            return roots[0].plain(), config
        return self.store.layout.put_index(roots, docker=docker, annotations=self.wanted.annotations), config

    def _in_form(self, image: Image, output: Output) -> Image:
        kind = output.compression or self.wanted.compression.kind
        level = (
            int(output.options["compression-level"])
            if output.options.get("compression-level", "").isdigit()
            else self.wanted.compression.level
        )
        compression = Compression(kind, level)
        epoch = self.wanted.epoch if output.flag("rewrite-timestamp") else None
        force = output.flag("force-compression")
        layers = []
        for diff_id, descriptor in zip(image.diff_ids, image.layers, strict=True):
            own = diff_id in self.wanted.own
            if own or force:
                layer = convert(self.store.layers, diff_id, descriptor, compression, epoch if own else None)
                layers.append((layer.diff_id, layer.descriptor))
            else:
                layers.append((diff_id, descriptor))
        config = msgspec.structs.replace(image.config, rootfs=RootFS(diff_ids=[diff_id for diff_id, _ in layers]))
        return Image(config, tuple(descriptor for _, descriptor in layers))

    def _push(self, name: Reference, descriptor: Descriptor) -> None:
        session = self.session
        push_named(
            session.store, session.settings, session.report, name, descriptor, session.client,
            elsewhere=session.elsewhere.stream,
        )  # fmt: skip

    def give(self, images: list[Image], output: Output) -> Published | None:
        """One output, of whatever type; None where it has no manifest (files)."""
        if output.type == "image":
            return self.image(images, output)
        if output.type in ("oci", "docker"):
            return self.archive(images, output)
        self.files(images, output)
        return None

    def archive(self, images: list[Image], output: Output) -> Published:
        """An OCI or docker archive; `docker` without a destination goes into the Docker daemon."""
        names = [str(name) for name in self._names(output)]
        descriptor, config = self._assemble(images, output)
        if output.type == "docker" and not output.dest:
            load_into_docker(self.store, descriptor, [name.familiar for name in self._names(output)])
        else:
            with _target(output.dest) as file:
                export.write_archive(self.store, descriptor, names, file.write, docker=output.type == "docker")
        return Published(descriptor, config, tuple(names))

    def files(self, images: list[Image], output: Output) -> None:
        """The file system, as a folder or a tar."""
        if output.type == "local":
            for image in images:
                folder = Path(output.dest)
                if len(images) > 1:
                    folder = folder / str(image.config.platform).replace("/", "_")
                export.write_folder(self.store, image, folder, epoch=self.wanted.epoch)
            return
        if len(images) > 1:
            raise UsageError("type=tar holds one platform", hint="Give one --platform, or use type=local.")
        with _target(output.dest) as file:
            export.write_files_tar(self.store, images[0], file.write, epoch=self.wanted.epoch)


@contextlib.contextmanager
def _target(dest: str) -> Iterator[IO[bytes]]:
    """The file of a destination, under its name only when it is complete; `-` is standard output."""
    if dest in ("", "-"):
        with export.open_destination("-") as file:
            yield file
        return
    path = Path(dest)
    if path.is_dir():
        raise UsageError("is a folder: an archive needs a file name", where=dest)
    part = path.with_name(f".{path.name}.part")
    try:
        with export.open_destination(str(part)) as file:
            yield file
        part.replace(path)
    except OSError as bad:
        raise disk_error(bad, path) from bad
    finally:
        part.unlink(missing_ok=True)


def push_named(
    store: Store,
    settings: Settings,
    report: events.Report,
    name: Reference,
    descriptor: Descriptor,
    client: Client | None = None,
    asked: bool = False,
    elsewhere: Callable[[Descriptor, int], Iterator[bytes]] | None = None,
) -> str:
    """Pushes an image of the store under a name, with events; returns its digest. Without a client it opens its own;
    `asked`: the name is known to stand for something else in the registry; `elsewhere(layer, offset)` streams layers that
    the store does not have."""
    from kiln.registry.client import Client
    from kiln.registry.push import push

    step, title = f"push {name}", f"[push] {name.familiar}"
    report(events.StepStarted(time=events.now(), step=step, name=title))
    begin = events.now()

    def progress(digest: str, done: int, total: int) -> None:
        report(events.StepProgress(time=events.now(), step=step, name=digest[7:19], done=done, total=total))

    origins = Origins(store.root)
    try:
        with contextlib.nullcontext(client) if client else Client(settings) as open_client:
            layers = [layer for layer in _layers(store, descriptor) if not open_client.can_mount(name, layer)]
            sources = {digest: origins.repositories(digest, name.host) for digest in layers}
            digest = push(open_client, store.blobs, name, descriptor, progress=progress, sources=sources, asked=asked,
                          elsewhere=elsewhere)  # fmt: skip
    except KilnError as bad:
        _pushed(report, step, title, begin, error=str(bad))
        raise
    for layer, known in sources.items():
        if len(known) < _ORIGINS or layer in open_client.uploaded:
            origins.add(layer, name.host, name.repository)
    _pushed(report, step, title, begin)
    return digest


def _pushed(report: events.Report, step: str, title: str, begin: float, error: str = "") -> None:
    report(
        events.StepFinished(
            time=events.now(), step=step, name=title, seconds=round(events.now() - begin, 3), error=error,
            reason="" if error else "the registry has it now",
        )
    )  # fmt: skip


def _layers(store: Store, descriptor: Descriptor) -> list[str]:
    from kiln.oci.image import Index

    document = store.layout.load(descriptor).document
    if isinstance(document, Index):
        return [digest for entry in document.manifests for digest in _layers(store, entry)]
    return [layer.digest for layer in document.layers]


def load_into_docker(store: Store, descriptor: Descriptor, names: list[str]) -> None:
    """Hands an image to the Docker daemon through `docker load`; raises `KilnError` where there is none."""
    docker = shutil.which("docker")
    if docker is None:
        raise KilnError(
            "--load needs the docker command",
            hint="Install docker, or write an archive with --output type=docker,dest=FILE.",
        )
    process = subprocess.Popen(
        [docker, "load"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stdin is not None and process.stderr is not None
    with contextlib.suppress(BrokenPipeError):
        export.write_archive(store, descriptor, names, process.stdin.write, docker=True)
        process.stdin.close()
    message = process.stderr.read().decode(errors="replace").strip()
    process.stderr.close()
    if process.wait():
        raise KilnError(f"docker load failed: {message}", hint="Is the Docker daemon running?")
