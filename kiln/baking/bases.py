"""What the images that Dockerfiles name outside the plan are now: digests, asked for once a session."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from kiln.baking.inputs import Shape
from kiln.baking.session import Session
from kiln.errors import KilnError, NotFoundError, PlanError, UsageError
from kiln.oci.platform import Platform

_THREADS = 8


class Base(Struct, frozen=True):
    """A base image: its manifest's digest and whether it has triggers (ONBUILD) that may take files."""

    digest: str
    triggers: bool


class Bases:
    """Base images by name and platform."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._known: dict[tuple[str, Platform, bool], Base] = {}

    def find(self, name: str, platform: Platform, *, refresh: bool) -> Base:
        """The base of a name; raises a `KilnError` where there is none."""
        key = (name, platform, refresh)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            digest, image = self._session.images(refresh=refresh).resolve(name, platform)
            known = Base(digest, bool(image.config.config.on_build))
            with self._lock:
                self._known[key] = known
        return known

    def check(self, shapes: list[tuple[Shape, str, str]]) -> None:
        """Finds all bases, each given as (shape, name in the Dockerfile, name of the image); raises `PlanError` for the first
        that does not exist."""
        unknown = {(image, shape.platforms[0], shape.target.pull): (shape, name) for shape, name, image in shapes}
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="kiln-base") as pool:
            found = {pool.submit(self.find, image, platform, refresh=refresh): (image, *where)
                     for (image, platform, refresh), where in unknown.items()}  # fmt: skip
        for future, (image, shape, name) in found.items():
            failure = future.exception()
            if isinstance(failure, KilnError):
                raise _missing(failure, image, shape, name)
            if failure is not None:
                raise failure


def _missing(bad: KilnError, image: str, shape: Shape, name: str) -> PlanError:
    place = shape.target.place
    line = _line(shape, name)
    where = f"{shape.target.program.source.name}{f':{line}' if line else ''}"
    if isinstance(bad, NotFoundError):
        message = f"the target {shape.target.name!r} stands on `{image}`, which neither the store nor its registry has"
        hint = "Check the name and the tag; make a Debian base with `kiln bootstrap debian`."
    elif isinstance(bad, UsageError):
        message, hint = bad.message, bad.hint
    else:
        message = f"the target {shape.target.name!r} stands on `{image}`, which cannot be had: {bad}"
        hint = bad.hint
    return PlanError(
        message, where=where, hint=hint, detail=f"  {shape.target.name} is defined at {place}" if place else ""
    )


def _line(shape: Shape, name: str) -> int:
    for stage in shape.target.program.stages:
        if stage.base == name:
            return stage.place.start
    return 0
