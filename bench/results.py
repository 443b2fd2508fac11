"""What was measured, and the numbers that are made of it."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one side: wall seconds, CPU seconds, bytes of memory, compressed bytes of the layers that it pushed
    (None where nothing was pushed)."""

    seconds: float
    cpu: float
    memory: int
    pushed: int | None = None


@dataclass(frozen=True, slots=True)
class Ratio:
    """Kiln's time as a part of a peer's: the median of the pairs of the same round, the least and the largest of them."""

    median: float
    least: float
    most: float


@dataclass(slots=True)
class Outcome:
    """The runs of a workload by side, round by round; `faults` has the sides that failed and why."""

    key: str
    title: str
    aim: float | None = None
    aim_seconds: float | None = None
    runs: dict[str, list[Run]] = field(default_factory=dict)
    limit: list[float] = field(default_factory=list)
    faults: dict[str, str] = field(default_factory=dict)

    def median(self, side: str, of: str = "seconds") -> float | None:
        """The median of an attribute over a side's runs; None if there is none."""
        values = [getattr(run, of) for run in self.runs.get(side, ())]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def limit_median(self) -> float | None:
        """Seconds that the bytes alone take; None if that was not measured."""
        return statistics.median(self.limit) if self.limit else None

    def best_peer(self) -> str:
        """The peer with the least median time; "" if no peer did it."""
        peers = {side: self.median(side) for side in self.runs if side != "kiln"}
        known = {side: value for side, value in peers.items() if value is not None}
        return min(known, key=lambda side: known[side]) if known else ""

    def ratio(self) -> Ratio | None:
        """Kiln to the best peer; None where one of them has no run."""
        mine, theirs = self.runs.get("kiln", ()), self.runs.get(self.best_peer(), ())
        pairs = [one.seconds / other.seconds for one, other in zip(mine, theirs, strict=False)]
        return Ratio(statistics.median(pairs), min(pairs), max(pairs)) if pairs else None

    def size_ratio(self) -> float | None:
        """Kiln's pushed bytes as a part of those of the peer that pushed least."""
        sizes = {side: self.median(side, "pushed") for side in self.runs}
        mine = sizes.pop("kiln", None)
        theirs = [size for size in sizes.values() if size]
        return mine / min(theirs) if mine and theirs else None

    def reached(self) -> bool | None:
        """Whether the aim was reached; None if that cannot be said."""
        mine, ratio = self.median("kiln"), self.ratio()
        if self.aim_seconds is not None:
            return mine is not None and mine <= self.aim_seconds
        return ratio.median <= self.aim if ratio and self.aim is not None else None


@dataclass(slots=True)
class Results:
    """Everything of one start of the bench."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    outcomes: list[Outcome] = field(default_factory=list)

    def sides(self) -> list[str]:
        """The sides in the order in which they were named."""
        return [side for side in self.versions if any(side in outcome.runs for outcome in self.outcomes)]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def read(path: Path) -> Results:
    """The results of a file that `Results.write` made."""
    document = json.loads(path.read_text())
    return Results(document["machine"], document["versions"], [_outcome(entry) for entry in document["outcomes"]])


def _outcome(entry: dict[str, Any]) -> Outcome:
    runs = {side: [Run(**run) for run in found] for side, found in entry.pop("runs").items()}
    return Outcome(**entry, runs=runs)


def machine() -> dict[str, str]:
    """What was measured on: processor, cores, memory, kernel."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _line("/proc/cpuinfo", "model name") or platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release().partition("-")[0],
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "python": platform.python_version(),
    }


def _line(path: str, key: str) -> str:
    lines: Sequence[str] = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
