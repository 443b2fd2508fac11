"""The story: read what to build, decide, build in parallel, give it out, report.

Command line, jobs and service call `run` for one target and `baking.many.bake` for a plan of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from kiln import events
from kiln.baking.making import Making, Manner
from kiln.baking.publish import Published, Publisher, Wanted
from kiln.baking.session import open_session
from kiln.engine.cancel import Cancel
from kiln.oci.image import Image
from kiln.oci.reference import Reference
from kiln.plan.outputs import CachePlace, Output
from kiln.settings import Settings
from kiln.sources import dockerfile as dockerfile_source
from kiln.sources.context import open_context
from kiln.sources.wish import Wish
from kiln.store.layer import Compression


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
    with open_session(settings, report, cancel or Cancel(), slots=request.jobs, timeout=request.timeout) as session:
        context = open_context(request.wish.context, session.store.scratch, settings, session.cancel)
        target = replace(dockerfile_source.load(request.wish, context), cache_from=request.cache_from)
        making = Making(session, target, Manner(request.compression, request.debug))
        images = making.images()
        session.cancel.check()
        published = _give_out(request, making, images)
        making.share(images, request.cache_to)
        session.clean_up()
        return Outcome(session.build_id, images, published)


def _give_out(request: Request, making: Making, images: tuple[Image, ...]) -> Published | None:
    own = frozenset(record.diff_id for record in making.records().values())
    wanted = Wanted(request.names, request.push, request.compression, request.annotations, making.epoch, own)
    publisher = Publisher(making.session.store, making.session.settings, making.session.report, wanted)
    published: Published | None = None
    for output in request.outputs or (Output("image"),):
        published = publisher.give(list(images), output) or published
    if request.push and all(output.type != "image" for output in request.outputs) and request.outputs:
        published = publisher.image(list(images), Output("image"))
    return published
