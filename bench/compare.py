"""Kiln against a peer, scenario by scenario, in turn (A B A B ...), as a ratio of whole-process wall times.

    python bench/compare.py --work FOLDER --peer 'docker build -q -t {tag} {context}' [--peer-fresh '--no-cache'] [-n 5]

`{context}` is a folder below FOLDER, `{tag}` a name. With `--strip PREFIX` the peer sees the contexts without that prefix
(for a peer in a chroot). A base image called `base` (any image with /bin/sh) must exist in both. Ratios under 1: Kiln is faster.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Scenario:
    """`prepare` fills the context once; `change` is called before each run; `fresh`: no cache is to be used."""

    name: str
    prepare: Callable[[Path], None]
    change: Callable[[Path, int], None] = lambda context, number: None
    fresh: bool = False


def _small(context: Path) -> None:
    (context / "Dockerfile").write_text('FROM base\nENV A=1\nCOPY a /a\nRUN echo built > /b\nCMD ["cat", "/b"]\n')
    (context / "a").write_text("a")


def _package(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nCOPY package.bin /opt/package.bin\n")


def _new_package(context: Path, number: int) -> None:
    (context / "package.bin").write_bytes(os.urandom(34_000_000))


def _many(context: Path) -> None:
    (context / "Dockerfile").write_text("FROM base\nCOPY tree /tree\n")
    for number in range(10_000):
        path = context / "tree" / f"d{number % 100}" / f"f{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"file {number}\n" * 20)


def _one_of_many(context: Path, number: int) -> None:
    (context / "tree" / "d0" / "f0.txt").write_text(f"changed {number} {time.time_ns()}\n")


def _runs(context: Path) -> None:
    lines = [f"RUN echo {number} > /{number}" for number in range(10)]
    (context / "Dockerfile").write_text("FROM base\n" + "\n".join(lines) + "\n")


SCENARIOS = [
    Scenario("nothing changed, small context", _small),
    Scenario("a changed 34 MB package", _package, _new_package),
    Scenario("10,000 small files, no cache", _many, fresh=True),
    Scenario("one of 10,000 small files changed", _many, _one_of_many),
    Scenario("ten RUN steps, no cache", _runs, fresh=True),
]


def timed(argv: list[str]) -> float:
    """Seconds that a command takes; its output is shown if it fails."""
    begin = time.perf_counter()
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"{shlex.join(argv)} failed:\n{done.stderr.decode(errors='replace')}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--peer-fresh", default="--no-cache")
    parser.add_argument("--home", default="")
    parser.add_argument("--strip", default="")
    parser.add_argument("-n", type=int, default=5)
    given = parser.parse_args()
    print(
        f"{'scenario':<36}{'kiln s':>10}{'peer s':>10}{'ratio':>8}   (medians of {given.n}; ratio: median of the pairs)"
    )
    for index, scenario in enumerate(SCENARIOS):
        context = given.work / f"context{index}"
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir(parents=True)
        scenario.prepare(context)
        tag = f"bench{index}"
        seen = str(context).removeprefix(given.strip)
        peer = shlex.split(given.peer.format(context=seen, tag=tag))
        kiln = [
            sys.executable,
            "-m",
            "kiln",
            *(["--home", given.home] if given.home else []),
            "build",
            "-q",
            "-t",
            tag,
            str(context),
        ]
        if scenario.fresh:
            kiln.insert(-1, "--no-cache")
            peer = [*peer[:-1], *shlex.split(given.peer_fresh), peer[-1]]
        rows = []
        for number in range(given.n + 1):
            pair = []
            for command in (kiln, peer):
                scenario.change(context, number * 2 + len(pair))
                pair.append(timed(command))
            rows.append(pair)
        rows = rows[1:]
        mine, theirs = (statistics.median(row[side] for row in rows) for side in (0, 1))
        ratio = statistics.median(row[0] / row[1] for row in rows)
        print(f"{scenario.name:<36}{mine:>10.2f}{theirs:>10.2f}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
