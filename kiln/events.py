"""The one stream of typed events that the terminal, logs, pages and tests read. Nobody prints elsewhere.

Times are seconds since the epoch, durations are seconds, sizes are bytes. `step` is the step's id within the build
(`stage/number`); it is the empty string for what belongs to the build as a whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event", tag=str.lower, omit_defaults=True):
    """Base of all events; `time` is filled in when the event is made."""

    time: float


class BuildStarted(Event, frozen=True, kw_only=True):
    build: str
    target: str
    platform: str


class StepStarted(Event, frozen=True, kw_only=True):
    """A step begins. `name` is what a person reads: `[build 2/5] RUN make`; `where` is `Dockerfile:7`."""

    step: str
    name: str
    where: str = ""


class StepOutput(Event, frozen=True, kw_only=True):
    """Text that the command of a RUN step wrote; `stream` is 1 (stdout) or 2 (stderr)."""

    step: str
    text: str
    stream: int = 1


class StepProgress(Event, frozen=True, kw_only=True):
    """Bytes moved so far by a transfer; `total` is 0 where it is not known."""

    step: str
    name: str
    done: int
    total: int = 0


class StepFinished(Event, frozen=True, kw_only=True):
    """A step ended. `reason` says in words why it was cached or why it ran; `error` is empty on success."""

    step: str
    name: str
    seconds: float
    cached: bool = False
    reason: str = ""
    error: str = ""
    size: int = 0


class Warned(Event, frozen=True, kw_only=True):
    """Something that a person should look at; `rule` is the name of a Dockerfile check or empty."""

    message: str
    where: str = ""
    rule: str = ""
    url: str = ""


class ShellOpened(Event, frozen=True, kw_only=True):
    """The terminal belongs to a shell in the file system of a failed step from here on."""

    step: str


class ImageReady(Event, frozen=True, kw_only=True):
    """An image is complete in the store (or in the registry when `pushed`)."""

    digest: str
    name: str = ""
    pushed: bool = False
    size: int = 0


class PlanReady(Event, frozen=True, kw_only=True):
    """A plan is loaded and checked; `targets` is how many it has."""

    targets: int


class TargetDecided(Event, frozen=True, kw_only=True):
    """What is done for a target of a plan, and why; `decision` is build, skip or pull."""

    target: str
    decision: str
    reason: str


class TargetFinished(Event, frozen=True, kw_only=True):
    """A target of a plan has ended; `result` is built, pushed, pulled, skipped, failed or not reached."""

    target: str
    result: str
    reason: str = ""
    seconds: float = 0.0
    digest: str = ""
    names: tuple[str, ...] = ()
    pushed: bool = False
    error: str = ""


class BuildFinished(Event, frozen=True, kw_only=True):
    build: str
    seconds: float
    cached: int = 0
    ran: int = 0
    error: str = ""


Report = Callable[[Event], None]


def now() -> float:
    """The time that events carry."""
    return time.time()


def silent(event: Event) -> None:
    """A report that keeps nothing, for callers that want only the result."""
