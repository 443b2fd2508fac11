"""The story: read what to build, decide, build in parallel, give it out, report.

Command line, jobs and service call `run` for one image, `run_many` for a collection of targets, `plan_many` to see what that
would do.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from msgspec import Struct, field
from msgspec.structs import replace

from kiln import events
from kiln.baking.session import Session, open_session
from kiln.engine.cancel import Cancel
from kiln.oci.image import Image
from kiln.oci.reference import Reference
from kiln.plan.outputs import CachePlace, Output
from kiln.settings import Settings
from kiln.sources.wish import Wish
from kiln.store.layer import Compression

if TYPE_CHECKING:
    from kiln.baking.loading import Plan
    from kiln.baking.making import Making
    from kiln.baking.many import Report
    from kiln.baking.packaging import Prepared
    from kiln.baking.packaging import Request as PackageRequest
    from kiln.baking.planning import Planned
    from kiln.baking.publish import Published
    from kiln.sources.detect import Place
    from kiln.sources.package.bases import Base


class Request(Struct, frozen=True):
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


class Outcome(Struct, frozen=True):
    """What a build gave: the images, one a platform, and how they were published (None where only files were)."""

    build: str
    images: tuple[Image, ...]
    published: Published | None


def run(request: Request, settings: Settings, report: events.Report, cancel: Cancel | None = None) -> Outcome:
    """Builds a request; raises the `KilnError` that stopped it, after everything of it has ended."""
    from kiln.baking.making import Making, Manner
    from kiln.sources import dockerfile
    from kiln.sources.context import open_context

    with open_session(settings, report, cancel or Cancel(), slots=request.jobs, timeout=request.timeout) as session:
        context = open_context(request.wish.context, session.store.scratch, settings, session.cancel)
        target = replace(dockerfile.load(request.wish, context), cache_from=request.cache_from)
        manner = Manner(request.compression, request.debug, lazy=_is_only_pushed(request), early=_pushed_to(request))
        making = Making(session, target, manner)
        images = making.images()
        session.cancel.check()
        published = _give_out(request, making, images)
        making.share(images, request.cache_to)
        session.clean_up()
        return Outcome(session.build_id, images, published)


def _is_only_pushed(request: Request) -> bool:
    """Whether nothing but a registry gets the image: then base layers need not come here."""
    pushed = request.push or any(output.flag("push") for output in request.outputs)
    return pushed and all(output.type == "image" for output in request.outputs) and not request.cache_to


def _pushed_to(request: Request) -> Reference | None:
    """Where the layers go as they are made, None where nothing is pushed or they are pushed in another form."""
    formed = any(output.options or output.names for output in request.outputs)
    return request.names[0] if request.push and request.names and not formed else None


def _give_out(request: Request, making: Making, images: tuple[Image, ...]) -> Published | None:
    from kiln.baking.publish import Publisher, Wanted

    own = frozenset(record.diff_id for record in making.records().values())
    wanted = Wanted(request.names, request.push, request.compression, request.annotations, making.epoch, own)
    session = making.session
    publisher = Publisher(session, wanted)
    published: Published | None = None
    for output in request.outputs or (Output("image"),):
        published = publisher.give(list(images), output) or published
    if request.push and all(output.type != "image" for output in request.outputs) and request.outputs:
        published = publisher.image(list(images), Output("image"))
    return published


class ManyRequest(Struct, frozen=True):
    """A bake as it was asked for: where the targets are written, words that name some of them (none: the default). `registry`
    and `tag` stand for what the collection itself says. `jobs` is how many targets may be made at once, `timeout` is
    seconds, 0 for none."""

    place: Place
    targets: tuple[str, ...] = ()
    push: bool = False
    registry: str = ""
    tag: str = ""
    outputs: tuple[Output, ...] = ()
    no_cache: bool = False
    pull: bool = False
    keep_going: bool = False
    jobs: int = 0
    timeout: float = 0


class ManyOutcome(Struct, frozen=True):
    """What a bake gave: its plan and the report. What failed is in the report."""

    plan: Plan
    report: Report


def run_many(
    request: ManyRequest, settings: Settings, report: events.Report, cancel: Cancel | None = None
) -> ManyOutcome:
    """Makes the targets of a collection; raises the `KilnError` that stopped it before anything was built."""
    from kiln.baking.many import bake

    slots = max(request.jobs, os.cpu_count() or 2)
    with open_session(settings, report, cancel or Cancel(), slots=slots, timeout=request.timeout) as session:
        plan = _plan(request, session)
        session.report(events.PlanReady(time=events.now(), targets=len(plan.order.names)))
        return ManyOutcome(plan, bake(plan, session))


def plan_many(
    request: ManyRequest, settings: Settings, report: events.Report, cancel: Cancel | None = None
) -> list[Planned]:
    """What `run_many` would do, and why; raises what it would raise before it builds."""
    with open_session(settings, report, cancel or Cancel(), timeout=request.timeout) as session:
        from kiln.baking.planning import decide_all

        return decide_all(_plan(request, session), session)


def _plan(request: ManyRequest, session: Session) -> Plan:
    from kiln.baking import loading
    from kiln.sources import detect

    collection = detect.load(request.place, session.settings, session.cancel)
    for where, message in collection.warnings:
        session.report(events.Warned(time=events.now(), message=message, where=where))
    place = loading.destination_of(collection, request.registry, request.tag)
    session.use_login(place)
    wanted = loading.Request(
        collection, request.targets, push=request.push, destination=place, outputs=request.outputs,
        no_cache=request.no_cache, pull=request.pull, keep_going=request.keep_going, jobs=request.jobs,
    )  # fmt: skip
    return loading.load(wanted, session)


class PackageOutcome(Struct, frozen=True):
    """A package as it was understood, and what was published (None for a dry run)."""

    prepared: Prepared
    published: Published | None


def package(
    request: PackageRequest, settings: Settings, report: events.Report, cancel: Cancel | None = None, *,
    dry_run: bool = False, timeout: float = 0,
) -> PackageOutcome:  # fmt: skip
    """Makes an image of a package; raises the `KilnError` that stopped it."""
    from kiln.baking.packaging import Packaging

    with open_session(settings, report, cancel or Cancel(), timeout=timeout) as session:
        packaging = Packaging(session, request)
        prepared = packaging.prepare()
        published = None if dry_run else packaging.make(prepared)
        session.clean_up()
        return PackageOutcome(prepared, published)


def check_base(base: Base, settings: Settings, report: events.Report, cancel: Cancel | None = None) -> Image:
    """Builds the smallest package that works on a base, without keeping it under a name."""
    from kiln.baking.packaging import check

    with open_session(settings, report, cancel or Cancel()) as session:
        return check(session, base)
