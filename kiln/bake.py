"""The story: read what to build, decide, build in parallel, give it out, report.

Command line, jobs and service all call `run`.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from kiln import events
from kiln.baking.images import Images, default_platform, stored_env
from kiln.baking.publish import Published, Publisher, Wanted
from kiln.baking.sharedcache import SharedCache, export
from kiln.dockerfile import lint
from kiln.dockerfile.patterns import Matcher
from kiln.engine import sandbox
from kiln.engine.build import Build, Doors
from kiln.engine.cancel import Cancel
from kiln.engine.executor import execute
from kiln.engine.fileindex import FileIndex
from kiln.engine.files import Files, FolderFiles, Without
from kiln.engine.helper import Helper
from kiln.errors import KilnError, TimedOut, UsageError
from kiln.oci.image import Image
from kiln.oci.platform import Platform, local
from kiln.oci.reference import Reference
from kiln.plan.graph import Graph, make_graph, predefined_args
from kiln.plan.outputs import CachePlace, Output
from kiln.plan.target import Context, Secret, Target
from kiln.settings import PROXY_NAMES, Settings
from kiln.sources import dockerfile as dockerfile_source
from kiln.sources.agent import agent_socket
from kiln.sources.context import open_context
from kiln.sources.fetch import clone, download, parse_git
from kiln.sources.wish import Wish
from kiln.store.layer import Compression
from kiln.store.records import Record
from kiln.store.store import Store

_PROXIES = frozenset(name.lower() for name in PROXY_NAMES)
_MAX_SECRET = 500 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One build as it was asked for. `timeout` is seconds, 0 for none; `jobs` is how many steps may run at once."""

    wish: Wish
    names: tuple[Reference, ...] = ()
    outputs: tuple[Output, ...] = ()
    push: bool = False
    compression: Compression = Compression()
    annotations: dict[str, str] = field(default_factory=dict)
    cache_from: tuple[CachePlace, ...] = ()
    cache_to: tuple[CachePlace, ...] = ()
    jobs: int = 0
    timeout: float = 0
    debug: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a build gave: the images, one a platform, and how they were published (None where only files were)."""

    build: str
    images: tuple[Image, ...]
    published: Published | None


def run(request: Request, settings: Settings, report: events.Report, cancel: Cancel | None = None) -> Outcome:
    """Builds a request; raises the `KilnError` that stopped it, after everything of it has ended."""
    cancel = cancel or Cancel()
    begin = events.now()
    counts = _Counts(report)
    build_id = f"{int(begin)}-{secrets.token_hex(4)}"
    try:
        with _time_limit(request.timeout, cancel), Store(settings.store_path) as store:
            cancel.holds(store.close)
            outcome = _Story(request, settings, store, counts, cancel, build_id).run()
    except KilnError as bad:
        report(counts.finished(build_id, begin, str(bad)))
        raise
    report(counts.finished(build_id, begin))
    return outcome


class _Counts:
    """Passes events on and counts the steps among them; one event at a time."""

    def __init__(self, report: events.Report) -> None:
        self._report = report
        self._lock = threading.Lock()
        self.cached = self.ran = 0

    def __call__(self, event: events.Event) -> None:
        with self._lock:
            counted = isinstance(event, events.StepFinished) and not event.step.startswith(("pull ", "push "))
            if isinstance(event, events.StepFinished) and counted and not event.error:
                self.cached += event.cached
                self.ran += not event.cached
            self._report(event)

    def finished(self, build: str, begin: float, error: str = "") -> events.BuildFinished:
        """The last event of a build."""
        seconds = round(events.now() - begin, 3)
        return events.BuildFinished(
            time=events.now(), build=build, seconds=seconds, cached=self.cached, ran=self.ran, error=error
        )


@contextlib.contextmanager
def _time_limit(seconds: float, cancel: Cancel) -> Iterator[None]:
    if not seconds:
        yield
        return
    late = TimedOut(f"the build took longer than its limit of {seconds:g} s", hint="Give more with --timeout.")
    timer = threading.Timer(seconds, lambda: cancel.cancel(late.message, late))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Story:
    """One build, told in `run`."""

    def __init__(
        self, request: Request, settings: Settings, store: Store, report: events.Report, cancel: Cancel, build_id: str
    ) -> None:
        self.request, self.settings, self.store = request, settings, store
        self.report, self.cancel, self.build_id = report, cancel, build_id
        self.epoch = self._epoch()
        self.shared = SharedCache(store, settings, request.cache_from, report)
        self.indexes: list[FileIndex] = []
        self.files: dict[Context, Files] = {}
        self.helper = Helper(cancel, settings.environment)
        self.agents = contextlib.ExitStack()
        self.keys: list[str] = []

    def _epoch(self) -> int | None:
        text = self.request.wish.args.get("SOURCE_DATE_EPOCH")
        if text is None:
            return self.settings.epoch
        if not text.isdigit():
            raise UsageError(f"--build-arg SOURCE_DATE_EPOCH={text}: must be whole seconds since 1970")
        return int(text)

    def run(self) -> Outcome:
        """Context, target, images, outputs, cache: in this order."""
        try:
            for scratch in self.store.stale_scratch():
                _remove_cgroups(scratch)
            stale = self.store.clean()
            context = open_context(self.request.wish.context, self.store.scratch, self.settings, self.cancel)
            target = dockerfile_source.load(self.request.wish, context)
            images = tuple(self._image(target, platform) for platform in target.platforms or (default_platform(),))
            self.cancel.check()
            published = self._give_out(images)
            self._share(images)
            self._clean_up(stale)
            return Outcome(self.build_id, images, published)
        finally:
            for index in self.indexes:
                with contextlib.suppress(KilnError):
                    index.save()
            self.helper.close()
            _remove_cgroups(self.store.scratch)
            self.agents.close()

    def _clean_up(self, stale: list[Path]) -> None:
        """What a killed build of a user without root left belongs to mapped ids: the worker removes it."""
        if stale and os.geteuid() != 0:
            with contextlib.suppress(KilnError):
                self.helper.remove(stale)
                self.store.clean()

    def _image(self, target: Target, platform: Platform) -> Image:
        graph = make_graph(target.program, target=target.stage, platform=platform, args=target.args)
        self.report(
            events.BuildStarted(time=events.now(), build=self.build_id, target=target.stage, platform=str(platform))
        )
        self._check(target, platform, graph)
        build = self._build(target, platform, graph.global_args)
        image = execute(build, target.program, graph)
        self.keys += build.keys
        self._warn_unused(target, build)
        return _finished(image, target, platform)

    def _check(self, target: Target, platform: Platform, graph: Graph) -> None:
        """The checks of the Dockerfile, once a build; raises `DockerfileError` where the file itself asks for it."""
        if target.platforms and platform != target.platforms[0]:
            return
        stage = target.stage or target.program.stages[-1].name
        lint.review(
            target.program,
            lambda found: self.report(
                events.Warned(
                    time=events.now(), message=found.message, where=str(found.place), rule=found.rule, url=found.url
                )
            ),
            args=target.args,
            automatic=predefined_args(local(), platform, stage),
            ignore=Matcher(target.context.ignore),
            stages=graph.vertices,
            env_of=lambda name: (
                None if name.lower() in target.contexts else stored_env(self.store.root, name, platform)
            ),
        )

    def _build(self, target: Target, platform: Platform, global_args: dict[str, str]) -> Build:
        several = len(target.platforms) > 1
        return Build(
            store=self.store, doors=self._doors(target), report=self.report, cancel=self.cancel, helper=self.helper,
            slots=threading.BoundedSemaphore(self.request.jobs or max(2, os.cpu_count() or 2)),
            runtime=sandbox.find_runtime(self.settings.runtime, self.settings.path), escape=target.program.source.escape,
            source_name=target.program.source.name, platform=platform, args=target.args, global_args=global_args,
            contexts=target.contexts, context=target.context, secrets=target.secrets, ssh=target.ssh,
            network=target.network, hosts=target.hosts, no_cache=target.no_cache, no_cache_stages=target.no_cache_stages,
            epoch=self.epoch, compression=self.request.compression, debug=self.request.debug,
            prefix=f"{platform} " if several else "",
        )  # fmt: skip

    def _doors(self, target: Target) -> Doors:
        images = Images(self.store, self.settings, self.report, refresh=target.pull)
        scratch = self.store.scratch

        def url(address: str, checksum: str) -> tuple[Path, str]:
            path, digest = download(address, scratch, self.settings, self.cancel)
            if checksum and digest != checksum:
                raise KilnError(f"the file has the digest {digest}, not {checksum}", where=address)
            return path, path.name

        def git(address: str, keep: bool | None, checksum: str) -> Path:
            return clone(
                parse_git(address), scratch, self.settings, self.cancel, keep_git=bool(keep), checksum=checksum
            )

        def agent(identity: str) -> str:
            return self.agents.enter_context(agent_socket(target.ssh[identity], self.settings))

        return Doors(images.find, self._context_files, url, git, self.shared.get, self._secret, agent)

    def _context_files(self, context: Context) -> Files:
        if context not in self.files:
            if context.folder is None:
                raise KilnError("this build has no context to copy from", hint="Give a folder, not only a Dockerfile.")
            if context.kind == "dockerfile":
                empty = self.store.scratch / "empty-context"
                empty.mkdir(exist_ok=True)
                context = replace(context, folder=empty)
            folder = context.folder
            assert folder is not None
            keep = None if folder.is_relative_to(self.store.scratch) else self.store.root
            index = FileIndex(keep, folder)
            self.indexes.append(index)
            files: Files = FolderFiles(folder, index)
            self.files[context] = Without(files, Matcher(context.ignore)) if context.ignore else files
        return self.files[context]

    def _secret(self, secret: Secret) -> bytes:
        if secret.path is None:
            value = self.settings.environment.get(secret.env)
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

    def _warn_unused(self, target: Target, build: Build) -> None:
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
            message = f"one or more build-args {unused} were not consumed"
            self.report(events.Warned(time=events.now(), message=message, where=target.program.source.name))

    def _give_out(self, images: tuple[Image, ...]) -> Published | None:
        own = frozenset(record.diff_id for record in self._records().values())
        request = self.request
        wanted = Wanted(request.names, request.push, request.compression, request.annotations, self.epoch, own)
        publisher = Publisher(self.store, self.settings, self.report, wanted)
        published: Published | None = None
        for output in request.outputs or (Output("image"),):
            if output.type == "image":
                published = publisher.image(list(images), output)
            elif output.type in ("oci", "docker"):
                published = publisher.archive(list(images), output)
            else:
                publisher.files(list(images), output)
        if request.push and all(output.type != "image" for output in request.outputs) and request.outputs:
            published = publisher.image(list(images), Output("image"))
        return published

    def _records(self) -> dict[str, Record]:
        found = {key: self.store.records.get(key) for key in self.keys}
        return {key: record for key, record in found.items() if record is not None}

    def _share(self, images: tuple[Image, ...]) -> None:
        final = {diff_id for image in images for diff_id in image.diff_ids}
        for place in self.request.cache_to:
            records = self._records()
            if place.mode == "min":
                records = {key: record for key, record in records.items() if record.diff_id in final}
            export(self.store, self.settings, place, records)


def _remove_cgroups(scratch: Path) -> None:
    """The cgroups of steps that were killed together with who was to clean up after them."""
    for folder in scratch.glob("run-*"):
        sandbox.remove_cgroup(folder.name.removeprefix("run-"))


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
