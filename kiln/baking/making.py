"""Making the images of one target in a session: a graph of stages for each platform, checked, executed, finished."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct, field

from kiln import events
from kiln.baking.images import default_platform, stored_env
from kiln.baking.session import Session
from kiln.baking.sharedcache import SharedCache, export
from kiln.dockerfile import lint
from kiln.dockerfile.instructions import Run
from kiln.dockerfile.patterns import Matcher
from kiln.engine.build import Build, Doors, key_of, safe
from kiln.engine.cancel import Cancel
from kiln.engine.executor import execute
from kiln.engine.packing import Packing
from kiln.errors import KilnError, UsageError
from kiln.oci.image import Image
from kiln.oci.platform import Platform, local
from kiln.oci.reference import Reference
from kiln.plan.graph import Graph, make_graph, predefined_args
from kiln.plan.outputs import CachePlace
from kiln.plan.target import Secret, Target
from kiln.settings import PROXY_NAMES
from kiln.store.convert import convert
from kiln.store.files import read_whole, write_whole
from kiln.store.layer import Compression, Layer
from kiln.store.records import Record

if TYPE_CHECKING:
    from kiln.registry.early import EarlyPush

_PROXIES = frozenset(name.lower() for name in PROXY_NAMES)
_MAX_SECRET = 500 * 1024


class Manner(Struct, frozen=True):
    """How a target is made, beside what it says itself: `prefix` stands before its steps' names. `lazy` leaves layers of base
    images that nothing reads in their registry: for images that are only pushed. `early` is where the image will be pushed as
    it is made: its layers go there meanwhile."""

    compression: Compression = Compression()
    debug: bool = False
    prefix: str = ""
    lazy: bool = False
    early: Reference | None = None


def no_targets(name: str, platform: Platform) -> Image:
    """For builds of a single target, which has no others to take from."""
    raise UsageError(
        f"target:{name} names a target of a bake file, and there is none here", hint="Use `kiln bake` with its file."
    )


class Making(Struct):
    """One target being made; `image_of` gives the image of another target."""

    session: Session
    target: Target
    manner: Manner = field(default_factory=Manner)
    cancel: Cancel | None = None
    image_of: Callable[[str, Platform], Image] = no_targets
    keys: list[str] = field(default_factory=list)

    def images(self) -> tuple[Image, ...]:
        """One image a platform; raises the `KilnError` that stopped it."""
        platforms = self.target.platforms or (default_platform(),)
        with self._early() as early:
            return tuple(self._image(platform, early) for platform in platforms)

    @contextlib.contextmanager
    def _early(self) -> Iterator[EarlyPush | None]:
        """The head start of the push; it ends with the making, well or badly."""
        if self.manner.early is None:
            yield None
            return
        from kiln.registry.early import EarlyPush

        session = self.session
        early = EarlyPush(lambda: session.client, self.manner.early, session.store.blobs)
        try:
            yield early
        except BaseException:
            early.stop()
            raise
        early.wait()

    @property
    def epoch(self) -> int | None:
        """SOURCE_DATE_EPOCH of the target, else of the environment."""
        text = self.target.args.get("SOURCE_DATE_EPOCH")
        if text is None:
            return self.session.settings.epoch
        if not text.isdigit():
            raise UsageError(f"--build-arg SOURCE_DATE_EPOCH={text}: must be whole seconds since 1970")
        return int(text)

    def _image(self, platform: Platform, early: EarlyPush | None) -> Image:
        target, session = self.target, self.session
        graph = make_graph(target.program, target=target.stage, platform=platform, args=target.args)
        session.report(
            events.BuildStarted(
                time=events.now(), build=session.build_id, target=target.name or target.stage, platform=str(platform)
            )
        )
        self._check(platform, graph)
        build = self._build(platform, graph.global_args, early)
        mark = self._mark(graph)
        if mark is not None and read_whole(mark) is None:
            session.helper.prepare()
        image = execute(build, target.program, graph)
        if mark is not None:
            write_whole(mark, b"")
        self.keys += build.keys
        self._warn_unused(build)
        return _finished(image, target, platform)

    def _mark(self, graph: Graph) -> Path | None:
        """The file that says that these instructions were built before, None where no command is among them. Those of a new or
        changed Dockerfile will run: the worker for them starts beside all that comes before."""
        stages = [vertex.stage for vertex in graph.vertices.values()]
        if not any(isinstance(item, Run) for stage in stages for item in stage.instructions):
            return None
        codes = [code for stage in stages for code in (stage.base, *(item.code for item in stage.instructions))]
        args = [f"{name}={value}" for name, value in sorted(self.target.args.items())]
        key = key_of(*map(safe, args), "", *map(safe, codes))
        return self.session.store.root / "cache" / "built" / key

    def _check(self, platform: Platform, graph: Graph) -> None:
        """The checks of the Dockerfile, once a build; raises `DockerfileError` where the file itself asks for it."""
        target = self.target
        if target.platforms and platform != target.platforms[0]:
            return
        stage = target.stage or target.program.stages[-1].name
        lint.review(
            target.program,
            lambda found: self._warn(found.message, str(found.place), found.rule, found.url),
            args=target.args,
            automatic=predefined_args(local(), platform, stage),
            ignore=Matcher(target.context.ignore),
            stages=graph.vertices,
            env_of=lambda name: (
                None if name.lower() in target.contexts else stored_env(self.session.store.root, name, platform)
            ),
        )

    def _warn(self, message: str, where: str, rule: str = "", url: str = "") -> None:
        if self.target.name:
            where = f"{self.target.name}: {where}"
        self.session.report(events.Warned(time=events.now(), message=message, where=where, rule=rule, url=url))

    def _build(self, platform: Platform, global_args: dict[str, str], early: EarlyPush | None) -> Build:
        target, session = self.target, self.session
        mark = f"{platform} " if len(target.platforms) > 1 else ""
        cancel = self.cancel or session.cancel
        return Build(
            store=session.store, doors=self._doors(), report=session.report, cancel=cancel,
            helper=session.helper, slots=session.slots,
            escape=target.program.source.escape, source_name=target.program.source.name, platform=platform,
            args=target.args, global_args=global_args, contexts=target.contexts, context=target.context,
            secrets=target.secrets, ssh=target.ssh, network=target.network, hosts=target.hosts,
            no_cache=target.no_cache, no_cache_stages=target.no_cache_stages, epoch=self.epoch,
            compression=self.manner.compression, debug=self.manner.debug, prefix=f"{self.manner.prefix}{mark}", early=early,
            packing=self._packing(early, cancel),
        )  # fmt: skip

    def _packing(self, early: EarlyPush | None, cancel: Cancel) -> Packing | None:
        """Who compresses large layers, where they are to be compressed."""
        if self.manner.compression.kind == "none":
            return None
        follow = early.follow if early is not None else None
        return Packing(self.session.store.layers, self.manner.compression, follow, cancel.check)

    def _doors(self) -> Doors:
        target, session = self.target, self.session
        scratch, settings, cancel = session.store.scratch, session.settings, self.cancel or session.cancel
        shared = SharedCache(session.store, settings, target.cache_from, session.report)

        def url(address: str, checksum: str) -> tuple[Path, str]:
            from kiln.sources.fetch import download

            path, digest = download(address, scratch, settings, cancel)
            if checksum and digest != checksum:
                raise KilnError(f"the file has the digest {digest}, not {checksum}", where=address)
            return path, path.name

        def git(address: str, keep: bool | None, checksum: str) -> Path:
            from kiln.sources.fetch import clone, parse_git

            return clone(parse_git(address), scratch, settings, cancel, keep_git=bool(keep), checksum=checksum)

        def runtime() -> str:
            from kiln.engine.sandbox import find_runtime

            return find_runtime(settings.runtime, settings.path)

        return Doors(
            session.images(refresh=target.pull, lazy=self.manner.lazy).find, session.contexts.files, url, git, shared.get,
            self._secret, lambda identity: session.agent(target.ssh[identity]), self.image_of, session.elsewhere.bring, runtime,
        )  # fmt: skip

    def _secret(self, secret: Secret) -> bytes:
        if secret.path is None:
            value = self.session.settings.environment.get(secret.env)
            if value is None:
                raise UsageError(f"--secret id={secret.id}: the variable {secret.env} is not set")
            return value.encode("utf-8", "surrogateescape")
        try:
            data = secret.path.read_bytes()
        except OSError as bad:
            raise UsageError(f"--secret id={secret.id}: {secret.path} cannot be read: {bad.strerror}") from bad
        if len(data) > _MAX_SECRET:
            raise UsageError(f"--secret id={secret.id}: larger than {_MAX_SECRET} bytes")
        return data

    def _warn_unused(self, build: Build) -> None:
        target = self.target
        declared = {name for instruction in target.program.global_args for name, _ in instruction.pairs}
        unused = sorted(
            name
            for name in target.args
            if name not in build.used_args | declared
            and name.lower() not in _PROXIES
            and name not in build.global_args
            and name != "SOURCE_DATE_EPOCH"
            and not name.startswith("BUILDKIT_")
        )
        if unused:
            self._warn(f"one or more build-args {unused} were not consumed", target.program.source.name)

    def records(self) -> dict[str, Record]:
        """The cache records of the steps that the images are made of, by key."""
        found = {key: self.session.store.records.get(key) for key in self.keys}
        return {key: record for key, record in found.items() if record is not None}

    def share(self, images: tuple[Image, ...], places: tuple[CachePlace, ...]) -> None:
        """Writes step results to shared caches: those of the final images, or all of them (mode=max)."""
        final = {diff_id for image in images for diff_id in image.diff_ids}
        for place in places:
            records = self.records()
            if place.mode == "min":
                records = {key: record for key, record in records.items() if record.diff_id in final}
            records = {key: self._packed(record) for key, record in records.items()}
            export(self.session.store, self.session.settings, place, records)

    def _packed(self, record: Record) -> Record:
        """A record whose layer has the form in which it leaves this machine."""
        compression = self.manner.compression
        plain = Layer(record.diff_id, record.descriptor).plain
        if not plain or compression.kind == "none":
            return record
        layer = convert(self.session.store.layers, record.diff_id, record.descriptor, compression)
        return msgspec.structs.replace(record, descriptor=layer.descriptor)


def _finished(image: Image, target: Target, platform: Platform) -> Image:
    """The image with the labels of the command line and, where it was asked for, its platform."""
    config = image.config
    if target.labels:
        labels = {**(config.config.labels or {}), **target.labels}
        config = msgspec.structs.replace(config, config=msgspec.structs.replace(config.config, labels=labels))
    if target.platforms:
        config = msgspec.structs.replace(
            config, os=platform.os, architecture=platform.architecture, variant=platform.variant or config.variant
        )
    return Image(config, image.layers)
