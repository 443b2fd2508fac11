"""Where a reference may be read: its registry's mirrors first, the registry itself last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from msgspec.structs import replace

from kiln.errors import CorruptError, KilnError, NotFoundError, RegistryError, UsageError
from kiln.events import Report, Warned
from kiln.oci.reference import Reference
from kiln.settings import Settings

Result = TypeVar("Result")


class Sites:
    """The sites of one pull. A mirror that fails is left out for the rest of it; one that lacks something is not."""

    def __init__(self, settings: Settings, ref: Reference, report: Report) -> None:
        self._ref = ref
        self._report = report
        self._mirrors = [_mirrored(ref, mirror) for mirror in settings.rules(ref.host).mirrors]

    def first(self, read: Callable[[Reference], Result]) -> Result:
        """What `read(reference at a site)` returns where it first succeeds; raises the registry's own error."""
        for mirror in list(self._mirrors):
            try:
                return read(mirror)
            except NotFoundError:
                continue
            except (RegistryError, CorruptError) as bad:
                self._leave_out(mirror, bad)
        return read(self._ref)

    def _leave_out(self, mirror: Reference, bad: KilnError) -> None:
        if mirror in self._mirrors:
            self._mirrors.remove(mirror)
            message = f"the mirror {mirror.host} of {self._ref.host} is not used: {bad.message}"
            self._report(Warned(time=time.time(), message=message, where=str(self._ref)))


def _mirrored(ref: Reference, mirror: str) -> Reference:
    """The same repository at a mirror, written `host[:port][/prefix]`."""
    place = mirror.removeprefix("https://").strip("/")
    if "://" in place or not place:
        raise UsageError(
            f"{mirror!r} is not a mirror",
            where=f'[registry."{ref.host}"]',
            hint='Write host[:port][/prefix]; for plain http give that host a table of its own with "http = true".',
        )
    host, _, prefix = place.partition("/")
    return replace(ref, host=host, repository=f"{prefix}/{ref.repository}" if prefix else ref.repository)
