"""Measures Kiln beside its peers.

    python -m bench [--only W1,W4] [-n 5] [--peers docker,buildah,newest] [--newest FOLDER] [--work FOLDER] [-o FOLDER]

Needs root, docker-registry and mmdebstrap; peers that are not there are left out. The registry, the daemons and their
state live below the work folder and end with the bench. -o is a folder that gets results.json, results.md and results.svg
(or a path of the JSON file: the others stand beside it).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import bases
from bench.daemon import found
from bench.measure import adopt_orphans
from bench.registry import Registry
from bench.report import write_all
from bench.results import Results, machine
from bench.room import Room
from bench.rounds import Place, measure
from bench.sides import Side, sides
from bench.workloads import Workload, chosen


def main() -> None:
    given = _arguments()
    signal.signal(signal.SIGTERM, _stop)
    # A cache of compiled modules is what every installation has.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    adopt_orphans()
    loads = chosen(given.only)
    with contextlib.ExitStack() as ending:
        taking_part, versions = _started(given, ending)
        results = Results(machine(), versions)
        place = _place(given, ending)
        for load in loads:
            _add(results, load, taking_part, place, given)
    for outcome in results.outcomes:
        for side, fault in outcome.faults.items():
            print(f"{outcome.key}: {side} failed: {fault.splitlines()[0]}", file=sys.stderr)
    sys.exit(any("kiln" in outcome.faults for outcome in results.outcomes))


def _add(
    results: Results, load: Workload, taking_part: Sequence[Side], place: Place, given: argparse.Namespace
) -> None:
    """One more workload in the results, which are written after each."""
    place.say(f"{load.key}: {load.title}")
    results.outcomes.append(measure(load, taking_part, place, given.n))
    print(write_all(results, given.o), flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="keys of workloads, with commas")
    parser.add_argument("-n", type=int, default=5, help="runs of each side")
    parser.add_argument("--peers", default="docker,buildah,newest", help="also: newest-buildah; none: Kiln alone")
    parser.add_argument("--newest", type=Path, help="the root folder of the newest peer (python -m bench.room)")
    parser.add_argument("--kiln", default=f"{sys.executable} -m kiln", help="how Kiln is started")
    parser.add_argument(
        "--work", type=Path, default=Path("bench-work"), help="for state and contents (default: %(default)s)"
    )
    parser.add_argument("--suite", default=platform.freedesktop_os_release().get("VERSION_CODENAME", "bookworm"))
    parser.add_argument("-o", type=Path, default=Path("bench-results"), metavar="FOLDER", help="default: %(default)s")
    given = parser.parse_args()
    given.work = given.work.resolve()
    given.work.mkdir(parents=True, exist_ok=True)
    if missing := [name for name in ("docker-registry", "mmdebstrap", "setpriv", "nsenter") if not found(name)]:
        parser.error(f"{', '.join(missing)} not found")
    return given


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _started(given: argparse.Namespace, ending: contextlib.ExitStack) -> tuple[list[Side], dict[str, str]]:
    """The sides that take part, and their versions by name."""
    inside: list[str] = []
    if given.newest:
        room = Room(given.newest, given.work)
        ending.callback(room.stop)
        room.start()
        inside = room.inside
    started: list[Side] = []
    versions = {}
    for side in sides(given.peers.split(","), shlex.split(given.kiln), given.work, inside):
        ending.callback(side.stop)
        versions[side.name] = side.start()
        started.append(side)
        print(f"{side.name}: {versions[side.name]}", flush=True)
    return started, versions


def _place(given: argparse.Namespace, ending: contextlib.ExitStack) -> Place:
    registry = Registry(given.work / "registry")
    ending.callback(registry.stop)
    kept = given.work / "bases"
    return Place(
        given.work / "content", registry, bases.debian(kept, given.suite), lambda: bases.gigabyte(kept),
        lambda text: print(text, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    main()
