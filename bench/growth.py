"""How Kiln's time and memory grow with the size of the work.

    python -m bench.growth [--only files,layers] [--part 1.0] [-n 3] [--work FOLDER] [-o FOLDER]

Kiln alone, in an empty store each time, no registry: `files` of one COPY, `layers` of one image, `images` of a plan
(`kiln plan`), bytes of one `blob`, `parallel` builds of a 34 MB package each in one store. `--part 0.1` leaves out the sizes
beyond that part of the largest. The folder of -o gets growth.json, growth.md and growth.svg.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import content
from bench.measure import Cost, adopt_orphans, measured
from bench.picture import Line, lines, short
from bench.results import machine
from bench.table import grid, megabytes, number
from bench.tree import make_tree

_BLOCK = 16_000_000


@dataclass(frozen=True, slots=True)
class Growth:
    """One thing that grows: `prepare` fills a folder for a size, `command` is what Kiln is asked then."""

    key: str
    title: str
    sizes: Sequence[int]
    prepare: Callable[[Path, int], None]
    command: Callable[[Path, int], list[str]]


@dataclass(frozen=True, slots=True)
class Point:
    """Medians for one size: wall seconds, CPU seconds, bytes of memory."""

    key: str
    size: int
    seconds: float
    cpu: float
    memory: int


def _dockerfile(folder: Path, *lines_: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text("\n".join(["FROM scratch", *lines_]) + "\n")


def _files(folder: Path, size: int) -> None:
    _dockerfile(folder, "COPY src /src")
    content.write_tree(folder / "src", content.small_sizes(size), 1, plain=True)


def _layers(folder: Path, size: int) -> None:
    _dockerfile(folder, *(f"COPY f{index} /f{index}" for index in range(size)))
    for index in range(size):
        (folder / f"f{index}").write_bytes(content.mixed(1_000_000, random.Random(index)))


def _images(folder: Path, size: int) -> None:
    make_tree(folder, size, 10, 6, "scratch")


def _blob(folder: Path, size: int) -> None:
    _dockerfile(folder, "COPY blob /blob")
    chance = random.Random(1)
    with (folder / "blob").open("wb") as file:
        for begin in range(0, size, _BLOCK):
            file.write(content.mixed(min(_BLOCK, size - begin), chance))


def _parallel(folder: Path, size: int) -> None:
    for index in range(size):
        _dockerfile(folder / str(index), "ADD package.tar.gz /opt/")
        content.write_package(folder / str(index) / "package.tar.gz", index)


def _build(folder: Path, size: int) -> list[str]:
    return ["build", "-q", "-t", "grown", str(folder)]


def _plan(folder: Path, size: int) -> list[str]:
    return ["plan", "--source", "bake", str(folder)]


def _builds(folder: Path, size: int) -> list[str]:
    return [str(folder / str(index)) for index in range(size)]


GROWTHS = (
    Growth("files", "small files in one COPY", (1000, 5000, 20_000, 50_000, 100_000, 200_000), _files, _build),
    Growth("layers", "layers of 1 MB", (1, 5, 20, 50, 100), _layers, _build),
    Growth("images", "images in a plan", (10, 50, 200, 500, 1000, 2000), _images, _plan),
    Growth("blob", "bytes of one file", (10**6, 10**7, 10**8, 10**9, 4 * 10**9), _blob, _build),
    Growth("parallel", "parallel builds of a 34 MB package", (1, 2, 4, 8), _parallel, _builds),
)


def commands(kiln: Sequence[str], home: Path, growth: Growth, words: Sequence[str]) -> list[str]:
    """What is measured: one command, or for parallel builds a shell that waits for all of them."""
    program = [*kiln, "--home", str(home)]
    if growth.key != "parallel":
        return [*program, *words]
    builds = [shlex.join([*program, *_build(Path(word), 1)]) for word in words]
    waits = [f'wait "$p{index}" || exit 1' for index in range(len(builds))]
    return ["sh", "-c", "\n".join([f"{build} & p{index}=$!" for index, build in enumerate(builds)] + waits)]


def grow(growth: Growth, kiln: Sequence[str], work: Path, part: float, runs: int) -> list[Point]:
    """The points of one thing, up to that part of its largest size."""
    points = []
    for size in [size for size in growth.sizes if size <= max(part * growth.sizes[-1], growth.sizes[0])]:
        folder = work / "grown"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        growth.prepare(folder, size)
        points.append(_median(growth.key, size, [_cost(growth, kiln, work, folder, size) for _ in range(runs)]))
        print(f"{growth.key} {short(size)}: {points[-1].seconds:.3f} s, {points[-1].memory / 1e6:.0f} MB", flush=True)
    shutil.rmtree(work / "grown", ignore_errors=True)
    return points


def _cost(growth: Growth, kiln: Sequence[str], work: Path, folder: Path, size: int) -> Cost:
    home = work / "home"
    shutil.rmtree(home, ignore_errors=True)
    os.sync()
    cost = measured([commands(kiln, home, growth, growth.command(folder, size))])
    shutil.rmtree(home, ignore_errors=True)
    return cost


def _median(key: str, size: int, costs: Sequence[Cost]) -> Point:
    seconds, cpu = (statistics.median(getattr(cost, name) for cost in costs) for name in ("seconds", "cpu"))
    return Point(key, size, seconds, cpu, int(statistics.median(cost.memory for cost in costs)))


def markdown(points: Sequence[Point]) -> str:
    """One row for each point."""
    titles = {growth.key: growth.title for growth in GROWTHS}
    rows = [
        [titles[point.key], short(point.size), number(point.seconds), number(point.cpu), megabytes(point.memory)]
        for point in points
    ]
    return grid(["", "how many", "seconds", "CPU s", "MB"], rows)


def picture(points: Sequence[Point]) -> str:
    """Two panels for each thing: seconds and memory over its size."""
    rows = []
    for growth in GROWTHS:
        if own := [point for point in points if point.key == growth.key]:
            seconds = Line(growth.title, "seconds", [(point.size, point.seconds) for point in own])
            rows.append([seconds, Line(growth.title, "MB", [(point.size, point.memory / 1e6) for point in own])])
    return lines(rows)


def write_all(points: Sequence[Point], folder: Path) -> None:
    """Writes growth.json, growth.md and growth.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine(), "points": [asdict(point) for point in points]}
    (folder / "growth.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "growth.md").write_text(markdown(points) + "\n")
    (folder / "growth.svg").write_text(picture(points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="")
    parser.add_argument("--part", type=float, default=1.0)
    parser.add_argument("-n", type=int, default=3)
    parser.add_argument("--kiln", default=f"{sys.executable} -m kiln")
    parser.add_argument("--work", type=Path, default=Path("bench-work"))
    parser.add_argument("-o", type=Path, default=Path("bench-results"), metavar="FOLDER")
    given = parser.parse_args()
    wanted = given.only.split(",") if given.only else [growth.key for growth in GROWTHS]
    work = given.work.resolve() / "growth"
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    adopt_orphans()
    points: list[Point] = []
    for growth in GROWTHS:
        if growth.key in wanted:
            points += grow(growth, shlex.split(given.kiln), work, given.part, given.n)
            write_all(points, given.o)
    print(markdown(points))


if __name__ == "__main__":
    main()
