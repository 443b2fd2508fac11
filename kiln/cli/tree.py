"""The live tree on a terminal: stages and their steps, elapsed time, cached marks, bytes moved, the last output."""

from __future__ import annotations

import threading
import time

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from kiln import events
from kiln.cli.progress import bytes_text, summary

_MARKS = {"run": ("▸", "cyan"), "cached": ("=", "green"), "done": ("✓", "green"), "failed": ("✗", "red")}
_OUTPUT_LINES = 6
# A build of one image stays on the screen as a whole; of many, what a report after it does not tell.
_MOST_ROWS, _NOTES = 60, 8


class _Row:
    """One step on the screen."""

    def __init__(self, event: events.StepStarted) -> None:
        self.name = event.name.split("\n")[0]
        self.begin = time.monotonic()
        self.state = "run"
        self.seconds = 0.0
        self.note = ""
        self.moved: dict[str, tuple[int, int]] = {}
        self.output: list[str] = []

    def lines(self, width: int) -> list[Text]:
        mark, style = _MARKS[self.state]
        seconds = time.monotonic() - self.begin if self.state == "run" else self.seconds
        moved = ""
        if self.moved and self.state == "run":
            done, total = (sum(pair[index] for pair in self.moved.values()) for index in (0, 1))
            moved = f" {bytes_text(done)} of {bytes_text(total)}"
        left = Text.assemble((f" {mark} ", style), self.name + moved, (f"  {self.note}" if self.note else "", "dim"))
        right = f" {seconds:.1f} s"
        left.truncate(max(10, width - len(right)), overflow="ellipsis", pad=True)
        left.append(right, style="dim")
        tail = self.output[-_OUTPUT_LINES:] if self.state == "run" else []
        return [left, *(Text(f"   │ {line}"[:width], style="dim") for line in tail)]


class Tree:
    """Draws the steps of a build as they go; finished ones stay."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._rows: dict[str, _Row] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._notes: list[Text] = []
        self._title = "Building"
        self._known = self._targets = 0
        self._live = Live(console=self._console, refresh_per_second=8, get_renderable=self._draw)
        self._live.start()

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.ShellOpened):
            self.close()
            return
        with self._lock:
            self._take(event)

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.StepStarted):
            self._rows[event.step] = _Row(event)
        elif isinstance(event, events.StepOutput) and event.step in self._rows:
            self._rows[event.step].output += [line.rstrip("\r") for line in event.text.rstrip("\n").split("\n")]
            del self._rows[event.step].output[:-_OUTPUT_LINES]
        elif isinstance(event, events.StepProgress) and event.step in self._rows:
            self._rows[event.step].moved[event.name] = (event.done, event.total)
        elif isinstance(event, events.StepFinished) and event.step in self._rows:
            row = self._rows[event.step]
            row.state = "failed" if event.error else "cached" if event.cached else "done"
            row.seconds = event.seconds
            row.note = "cached" if event.cached else ""
        elif isinstance(event, events.Warned):
            where = f"{event.where}: " if event.where else ""
            self._notes.append(Text(f" ! {where}{event.message}", style="yellow"))
        elif isinstance(event, events.ImageReady):
            pushed = " (pushed)" if event.pushed else ""
            self._notes.append(Text(f" ● {event.name or 'image'} {event.digest}{pushed}", style="bold"))
        elif isinstance(event, events.PlanReady):
            self._known = event.targets
        elif isinstance(event, events.TargetFinished):
            self._targets += 1
            if event.error:
                self._notes.append(Text(f" ✗ {event.target}: {event.error}", style="red"))
        elif isinstance(event, events.BuildFinished):
            self._title = summary(event)

    def _draw(self) -> Group:
        with self._lock:
            width = self._console.width
            rows = list(self._rows.values())
            if self._ended and len(rows) > _MOST_ROWS:
                rows = [row for row in rows if row.state == "failed"]
            notes = self._notes if self._ended and len(self._notes) <= _MOST_ROWS else self._notes[-_NOTES:]
            lines = [line for row in rows for line in row.lines(width)]
            room = max(5, self._console.height - 4 - len(notes))
            if not self._ended and len(lines) > room:
                lines = [Text(f"   … {len(lines) - room} lines above", style="dim"), *lines[-room:]]
            return Group(Text(self._title + self._progress(), style="bold"), *lines, *notes)

    def _progress(self) -> str:
        return f" ({self._targets} of {self._known} targets)" if self._known and not self._ended else ""

    def close(self) -> None:
        """Draws everything once more and lets the terminal go."""
        self._ended = True
        self._live.stop()
