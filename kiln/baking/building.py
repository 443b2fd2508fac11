"""Building one target of a plan: its images, their manifest in the store under the target's names, its further outputs."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from kiln import events
from kiln.baking.making import Making, Manner
from kiln.baking.publish import Publisher, Wanted
from kiln.baking.session import Session
from kiln.engine.cancel import Cancel
from kiln.errors import KilnError
from kiln.oci.image import Descriptor, Image
from kiln.oci.platform import Platform
from kiln.plan.outputs import Output
from kiln.plan.target import Bootstrap, Target
from kiln.sources import bootstrap
from kiln.store.layer import Compression


class Built(Struct, frozen=True):
    """A target that was built: its manifest's (or index's) descriptor, and what is still to be given out."""

    descriptor: Descriptor
    images: tuple[Image, ...]
    making: Making
    publisher: Publisher

    def give_out(self) -> None:
        """Writes the target's further outputs (archives, folders) and shared caches."""
        for output in self.making.target.outputs:
            self.publisher.give(list(self.images), output)
        self.making.share(self.images, self.making.target.cache_to)


def build(session: Session, target: Target, platform: Platform, image_of: Callable[[str, Platform], Image]) -> Built:
    """Builds a target into the store; raises the `KilnError` that stopped it."""
    early = target.pushes[0] if target.pushes else None
    manner = Manner(prefix=f"{target.name} ", early=early)
    making = Making(session, target, manner, Cancel(session.cancel), image_of)
    images = making.images() if target.bootstrap is None else (_packages(session, target, target.bootstrap, platform),)
    session.cancel.check()
    own = frozenset(record.diff_id for record in making.records().values())
    names = tuple(dict.fromkeys([*target.tags, *target.pushes]))
    wanted = Wanted(names, False, Compression(), dict(target.annotations), making.epoch, own)
    publisher = Publisher(session, wanted)
    published = publisher.image(list(images), Output("image"))
    return Built(published.descriptor, images, making, publisher)


def _packages(session: Session, target: Target, wish: Bootstrap, platform: Platform) -> Image:
    """A base of distribution packages, with events as a step has them."""
    step, title, begin = f"{target.name} bootstrap", f"[{target.name}] bootstrap {wish.suite}", events.now()
    session.report(events.StepStarted(time=begin, step=step, name=title, where=target.place))

    def log(line: str) -> None:
        session.report(events.StepOutput(time=events.now(), step=step, text=line))

    error = ""
    try:
        with session.slots:
            return bootstrap.make(wish, session.store, platform, session.settings, session.cancel, log)
    except KilnError as bad:
        error = str(bad)
        raise bad.at(target.place) from None
    finally:
        seconds = round(events.now() - begin, 3)
        session.report(events.StepFinished(time=events.now(), step=step, name=title, seconds=seconds, error=error))
