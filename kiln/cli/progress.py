"""Events -> text: one line an event (`plain`), the event stream (`json`), nothing but errors (`quiet`)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Protocol, TextIO

import msgspec

from kiln import events


class Display(Protocol):
    """Takes events; `close` leaves the terminal as it should stay."""

    def __call__(self, event: events.Event) -> None: ...

    def close(self) -> None: ...


class Plain:
    """One line an event, each with the number of its step."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._numbers: dict[str, int] = {}

    def __call__(self, event: events.Event) -> None:
        for line in self._lines(event):
            self._out.write(line + "\n")
        self._out.flush()

    def _number(self, step: str) -> int:
        return self._numbers.setdefault(step, len(self._numbers) + 1)

    def _lines(self, event: events.Event) -> list[str]:
        if isinstance(event, events.StepStarted):
            first = event.name.split("\n")[0]
            return [f"#{self._number(event.step)} {first}"]
        if isinstance(event, events.StepOutput):
            number = self._number(event.step)
            return [f"#{number} | {line}" for line in event.text.rstrip("\n").split("\n")]
        if isinstance(event, events.StepFinished):
            return [f"#{self._number(event.step)} {_ending(event)}"]
        if isinstance(event, events.Warned):
            place = f"{event.where}: " if event.where else ""
            rule = f"{event.rule}: " if event.rule else ""
            return [f"warning: {place}{rule}{event.message}"]
        if isinstance(event, events.ShellOpened):
            return ["a shell in the failed step's file system; leave it with exit"]
        if isinstance(event, events.ImageReady):
            name = f" {event.name}" if event.name else ""
            return [f"image{name} {event.digest}{' (pushed)' if event.pushed else ''}"]
        if isinstance(event, events.TargetDecided) and event.decision != "skip":
            return [f"{event.target}: {event.decision} ({event.reason})"]
        if isinstance(event, events.TargetFinished) and event.error:
            return [f"{event.target}: {event.result}: {event.error}"]
        if isinstance(event, events.BuildFinished):
            return [summary(event)]
        return []

    def close(self) -> None:
        self._out.flush()


def _ending(event: events.StepFinished) -> str:
    if event.error:
        return f"FAILED after {event.seconds:.1f} s"
    if event.cached:
        return f"cached ({event.reason})"
    reason = f" ({event.reason})" if event.reason else ""
    size = f", {bytes_text(event.size)}" if event.size else ""
    return f"done in {event.seconds:.1f} s{size}{reason}"


def summary(event: events.BuildFinished) -> str:
    """The last line of a build."""
    what = f"{event.ran} step{'s' * (event.ran != 1)} ran, {event.cached} cached"
    return f"{'failed' if event.error else 'done'} in {event.seconds:.1f} s: {what}"


def bytes_text(size: int) -> str:
    """A size for people: 1.2 MB."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class Json:
    """The event stream, one JSON object a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: events.Event) -> None:
        self._out.write(_json(event) + "\n")
        self._out.flush()

    def close(self) -> None:
        self._out.flush()


def _json(event: events.Event) -> str:
    """An event as one line; bytes of names that are no text become escapes."""
    value = msgspec.to_builtins(event)
    try:
        return msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        import json

        return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


class Quiet:
    """Nothing; errors are shown by the entry point."""

    def __call__(self, event: events.Event) -> None:
        pass

    def close(self) -> None:
        pass


def display(kind: str, *, color: bool = True) -> Display:
    """The display that `--progress` names; `auto` is a live tree on a terminal and plain lines elsewhere."""
    if kind == "auto":
        kind = "tree" if sys.stderr.isatty() and color else "plain"
    if kind == "tree":
        from kiln.cli.tree import Tree

        return Tree()
    makers: dict[str, Callable[[], Display]] = {
        "plain": lambda: Plain(sys.stderr), "json": lambda: Json(sys.stderr), "quiet": Quiet,
    }  # fmt: skip
    return makers[kind]()
