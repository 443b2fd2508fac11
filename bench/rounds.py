"""The rounds of a workload: every side once in each, in turn, on the same content."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.limit import limit
from bench.measure import Failed, measured
from bench.registry import Blob, Registry
from bench.results import Outcome, Run
from bench.sides import Job, Side
from bench.workloads import IMAGES, Bases, Workload

BASE, BIG = "base", "big"


@dataclass(frozen=True, slots=True)
class Place:
    """Where it happens: the folder for contents, the registry, the layers of the two bases, who hears what happens."""

    folder: Path
    registry: Registry
    debian: Blob
    big: Callable[[], list[Blob]]
    say: Callable[[str], None]

    def bases(self) -> Bases:
        return Bases(f"{self.registry.host}/{BASE}:1", f"{self.registry.host}/{BIG}:1")

    def open(self, load: Workload) -> None:
        """An empty registry with what the workload stands on, and its content."""
        self.registry.restart()
        self.registry.put_image(BASE, "1", [self.debian])
        if load.limit == "pull":
            self.registry.put_image(BIG, "1", [self.debian, *self.big()])
        shutil.rmtree(self.folder, ignore_errors=True)
        load.prepare(self.folder, self.bases())


def measure(load: Workload, sides: Sequence[Side], place: Place, runs: int) -> Outcome:
    """All runs of a workload. A side that fails is left out from then on, with the reason in the outcome."""
    outcome = Outcome(load.key, load.title, load.aim, load.aim_seconds)
    place.open(load)
    for side in sides:
        side.forget()
    first = 0 if load.warm_up else 1
    for number in range(first, min(runs, load.runs) + 1):
        load.change(place.folder, number)
        for side in _turned(sides, number):
            _once(load, side, place, number, outcome)
        _limit(load, place, number, outcome)
    for side in sides:
        side.forget()
    return outcome


def _turned(sides: Sequence[Side], number: int) -> list[Side]:
    """The sides, in every round another one first."""
    begin = number % len(sides)
    return [*sides[begin:], *sides[:begin]]


def _once(load: Workload, side: Side, place: Place, number: int, outcome: Outcome) -> None:
    job = _job(load, side.name, place, number)
    commands = side.commands(job)
    if not commands or side.name in outcome.faults:
        return
    if load.cold and number:
        side.forget()
    os.sync()  # what others wrote is not to be written while this one is measured
    try:
        cost = measured(commands, {"PREFIX": job.name} if load.tree else {}, side.daemons())
    except Failed as fault:
        outcome.faults[side.name] = str(fault)
        outcome.runs.pop(side.name, None)
        place.say(f"{load.key} {side.name} failed: {fault}")
        return
    pushed = _pushed(load, job, place) if load.push else None
    place.say(_told(load, side.name, number, Run(cost.seconds, cost.cpu, cost.memory, pushed)))
    if number:
        outcome.runs.setdefault(side.name, []).append(Run(cost.seconds, cost.cpu, cost.memory, pushed))


def _told(load: Workload, side: str, number: int, run: Run) -> str:
    size = f", {run.pushed / 1e6:.1f} MB pushed" if run.pushed is not None else ""
    cost = f"{run.seconds:.3f} s, CPU {run.cpu:.2f} s, {run.memory / 1e6:.0f} MB{size}"
    return f"{load.key} {side} {'run ' + str(number) if number else 'warm-up'}: {cost}"


def _job(load: Workload, side: str, place: Place, number: int) -> Job:
    repository = f"{side}/{load.key.lower()}"
    if load.tree:
        name = f"{place.registry.host}/{repository}-{0 if load.one_name else number}/"
    else:
        name = f"{place.registry.host}/{repository}:1"
    return Job(place.folder, name, load.tree, load.push, load.host_network, load.shared)


def _pushed(load: Workload, job: Job, place: Place) -> int:
    """Compressed bytes of the layers that a side put on the base: of different ones only, for a tree."""
    name = job.name.removeprefix(f"{place.registry.host}/")
    if load.tree:
        images = [(f"{name}i{number}", "latest") for number in range(IMAGES)]
    else:
        repository, _, tag = name.rpartition(":")
        images = [(repository, tag)]
    return sum(dict(layer for image in images for layer in place.registry.layers(*image)[1:]).values())


def _limit(load: Workload, place: Place, number: int, outcome: Outcome) -> None:
    repository = BIG if load.limit == "pull" else f"limit/{load.key.lower()}"
    seconds = limit(load.limit, place.folder, place.registry, repository, number)
    if seconds is not None and number:
        outcome.limit.append(seconds)
        place.say(f"{load.key} limit run {number}: {seconds:.3f} s")
