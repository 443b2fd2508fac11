"""`kiln bake --push` against `docker buildx bake --push` on a tree of many images: cold, nothing changed, one leaf, fresh machine.

    python bench/bake.py --work FOLDER --registry 127.0.0.1:5000 --base REFERENCE [--images 100] [--files 50] [--depth 6] [-n 3]
        [--peer 'docker buildx bake --push --progress quiet -f {file}'] [--peer-clean 'docker system prune -af'] [--strip PREFIX]

FOLDER gets one tree for each side, made by bench/tree.py from the same seed. Runs take turns (A B A B ...); the table has medians
in seconds and the median of the ratios of the pairs. `cold`: nothing but the registry's base image is there. `fresh machine` is an
empty store beside a registry that has everything (no figure for the peer, which shares no decisions through a registry).
With `--strip PREFIX` the peer sees paths without that prefix (a peer in a chroot).
"""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tree import make_tree

_KILN = [sys.executable, "-m", "kiln"]


@dataclass
class Side:
    """One tool: `run` is its command line, `clean` makes everything but the registry forget."""

    name: str
    tree: Path
    run: Callable[[], list[str]]
    clean: Callable[[], None]
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def measure(self, scenario: str) -> None:
        """Runs once; the seconds of the whole process are kept."""
        begin = time.perf_counter()
        done = subprocess.run(self.run(), cwd=self.tree, capture_output=True, check=False)
        seconds = time.perf_counter() - begin
        if done.returncode:
            sys.exit(f"{self.name} failed: {shlex.join(self.run())}\n{done.stderr.decode(errors='replace')[-3000:]}")
        self.seconds.setdefault(scenario, []).append(seconds)


def _change_leaf(tree: Path, images: int, stamp: str) -> None:
    """Changes one file of the last image, which nothing stands on."""
    (tree / "src" / f"i{images - 1}" / "app" / "f1.txt").write_text(f"changed {stamp} {time.time_ns()}\n")


def _kiln(given: argparse.Namespace, round_: list[int]) -> Side:
    home, tree = given.work / "kiln-home", given.work / "kiln-tree"

    def run() -> list[str]:
        return [*_KILN, "--home", str(home), "bake", "-q", "--source", "bake", ".", "--push"]

    def clean() -> None:
        shutil.rmtree(home, ignore_errors=True)
        _make(given, tree, f"kiln{round_[0]}")

    return Side("kiln", tree, run, clean)


def _peer(given: argparse.Namespace, round_: list[int]) -> Side:
    tree = given.work / "peer-tree"

    def run() -> list[str]:
        seen = str(tree).removeprefix(given.strip)
        return shlex.split(given.peer.format(file=f"{seen}/docker-bake.json", folder=seen))

    def clean() -> None:
        if given.peer_clean:
            subprocess.run(shlex.split(given.peer_clean), check=True, capture_output=True)
        _make(given, tree, f"peer{round_[0]}")

    return Side("peer", tree, run, clean)


def _make(given: argparse.Namespace, tree: Path, namespace: str) -> None:
    shutil.rmtree(tree, ignore_errors=True)
    prefix = f"{given.registry}/{namespace}-{os.getpid()}/"
    make_tree(tree, given.images, given.files, given.depth, given.base, prefix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--peer", default="")
    parser.add_argument("--peer-clean", default="")
    parser.add_argument("--strip", default="")
    parser.add_argument("-n", type=int, default=3)
    given = parser.parse_args()
    given.work = given.work.absolute()
    given.work.mkdir(parents=True, exist_ok=True)
    round_ = [0]
    sides = [_kiln(given, round_), *([_peer(given, round_)] if given.peer else [])]
    for number in range(given.n):
        round_[0] = number
        _round(given, sides, number)
    _show(sides)


def _round(given: argparse.Namespace, sides: list[Side], number: int) -> None:
    for side in sides:
        side.clean()
        side.measure("cold")
    for side in sides:
        side.measure("nothing changed")
    for side in sides:
        _change_leaf(side.tree, given.images, str(number))
        side.measure("one leaf changed")
    shutil.rmtree(given.work / "kiln-home")
    sides[0].measure("fresh machine")


def _show(sides: list[Side]) -> None:
    print(f"{'scenario':<20}" + "".join(f"{side.name + ' s':>10}" for side in sides) + f"{'ratio':>9}")
    for scenario, mine in sides[0].seconds.items():
        row = f"{scenario:<20}{statistics.median(mine):>10.2f}"
        theirs = sides[1].seconds.get(scenario) if len(sides) > 1 else None
        if theirs:
            ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
            row += f"{statistics.median(theirs):>10.2f}{ratio:>9.3f}"
        print(row)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(f"largest process: {peak / 1000:.0f} MB")


if __name__ == "__main__":
    main()
