"""The work that is measured, as data: what a folder has, what changes before a round, and how far Kiln wants to be.

Every side builds the same folder in every round. A workload that begins cold changes all its content, so that the registry
has none of it either.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench import content
from bench.tree import make_tree

SMALL_FILES = 40_000
IMAGES, IMAGE_FILES, IMAGE_DEPTH = 100, 50, 6
Prepare = Callable[[Path, "Bases"], None]
Change = Callable[[Path, int], None]


@dataclass(frozen=True, slots=True)
class Bases:
    """References of what images stand on."""

    debian: str
    big: str


def _unchanged(folder: Path, number: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Workload:
    """`aim` is the wanted ratio to the best peer, `aim_seconds` a wanted time. `cold`: before each run the side forgets
    all that it has here. `warm_up`: one round before the first does not count. `runs`: at most that many. `limit`: what
    bytes the limit is measured with (`package`, `files`, `step`, `tree`, `pull`, or "" for none)."""

    key: str
    title: str
    prepare: Prepare
    change: Change = _unchanged
    aim: float | None = None
    aim_seconds: float | None = None
    cold: bool = False
    warm_up: bool = True
    runs: int = 1000
    tree: bool = False
    push: bool = True
    host_network: bool = False
    shared: bool = False
    limit: str = ""

    @property
    def one_name(self) -> bool:
        """Whether a result has the same name in all rounds."""
        return self.warm_up


def _dockerfile(folder: Path, *lines: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text("\n".join(lines) + "\n")


def _package(folder: Path, bases: Bases) -> None:
    _dockerfile(folder, f"FROM {bases.debian}", "ADD package.tar.gz /opt/", 'CMD ["ls", "/opt"]')
    new_package(folder, 0)


def new_package(folder: Path, number: int) -> None:
    """Another package of the same size."""
    content.write_package(folder / "package.tar.gz", number)


def _mixed(folder: Path, bases: Bases) -> None:
    _dockerfile(folder, f"FROM {bases.debian}", "COPY data /data")
    content.write_tree(folder / "data", content.mixed_sizes(2_000_000_000), 1)


def _another_file(folder: Path, number: int) -> None:
    (folder / "data" / "d0" / "f10").write_bytes(content.mixed(4_000_000, random.Random(number)))


def _steps(folder: Path, bases: Bases) -> None:
    (folder / "base").parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base").write_text(bases.debian)
    new_steps(folder, 0)


def new_steps(folder: Path, number: int) -> None:
    """Ten RUN steps that were never run; the fifth writes 60 MB, half random, half text."""
    steps = [f"RUN echo {number} > /step{step}" for step in range(10)]
    steps[4] = f"RUN head -c 30000000 /dev/urandom > /big{number} && seq 1 4000000 | head -c 30000000 >> /big{number}"
    _dockerfile(folder, f"FROM {(folder / 'base').read_text()}", *steps)


def _small_files(folder: Path, bases: Bases) -> None:
    _dockerfile(folder, f"FROM {bases.debian}", "COPY src /src")
    new_small_files(folder, 0)


def new_small_files(folder: Path, number: int) -> None:
    """All the small files with other content."""
    content.write_tree(folder / "src", content.small_sizes(SMALL_FILES), number, plain=True)


def one_small_file(folder: Path, number: int) -> None:
    """Other content for one small file."""
    (folder / "src" / "d7" / "f700").write_text(f"changed {number}\n")


def _compile(folder: Path, bases: Bases) -> None:
    source = folder / "src"
    source.mkdir(parents=True, exist_ok=True)
    (folder / "base").write_text(bases.debian)
    for number in range(20):
        (source / f"part{number}.c").write_text(f"int part{number}(int x) {{ return x * {number + 1}; }}\n")
    declared = "".join(f"int part{number}(int);\n" for number in range(20))
    called = " + ".join(f"part{number}(1)" for number in range(20))
    (source / "main.c").write_text(f'#include <stdio.h>\n{declared}int main(void) {{ printf("%d\\n", {called}); }}\n')
    (source / "Makefile").write_text("app: $(patsubst %.c,%.o,$(wildcard *.c))\n\t$(CC) -O2 -o $@ $^\n")
    _new_compile(folder, 0)


def _new_compile(folder: Path, number: int) -> None:
    base = (folder / "base").read_text()
    install = "apt-get install -y -qq --no-install-recommends gcc libc6-dev make"
    _dockerfile(
        folder, f"FROM {base} AS build", f"RUN apt-get update -qq && {install} && : {number}", "COPY src /src",
        "RUN make -s -C /src app", f"FROM {base}", "COPY --from=build /src/app /usr/local/bin/app",
        'CMD ["/usr/local/bin/app"]',
    )  # fmt: skip


def _tree(folder: Path, bases: Bases) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base").write_text(bases.debian)
    _new_tree(folder, 0)


def _new_tree(folder: Path, number: int) -> None:
    shutil.rmtree(folder / "src", ignore_errors=True)
    make_tree(folder, IMAGES, IMAGE_FILES, IMAGE_DEPTH, (folder / "base").read_text(), seed=number)


def one_leaf(folder: Path, number: int) -> None:
    """Changes one file of the last image, which nothing stands on."""
    (folder / "src" / f"i{IMAGES - 1}" / "app" / "f1.txt").write_text(f"changed {number}\n")


def _pulled(folder: Path, bases: Bases) -> None:
    _dockerfile(folder, f"FROM {bases.big}", "RUN ls /data0 /data1 /data2 /data3 > /seen")


def _everything_new(change: Change) -> Change:
    """Changes after which no round has content of an earlier one."""
    return lambda folder, number: change(folder, 1000 + number)


WORKLOADS = (
    Workload("W1", "a changed 34 MB tar.gz package, ADD", _package, new_package, aim=0.2, limit="package"),
    Workload(
        "W1b", "the same, nothing local", _package, _everything_new(new_package),
        aim=0.2, cold=True, warm_up=False, limit="package",
    ),
    Workload("W1c", "the same, nothing changed", _package, aim_seconds=0.2),
    Workload(
        "W2", "2 GB of mixed files, one COPY, nothing local", _mixed, _another_file,
        aim=0.3, cold=True, warm_up=False, limit="files",
    ),
    Workload("W3", "ten RUN steps, one writes 60 MB", _steps, new_steps, aim=0.4, host_network=True, limit="step"),
    Workload(
        "W4", "40,000 small files, COPY, nothing local", _small_files, _everything_new(new_small_files),
        aim=0.1, cold=True, warm_up=False, limit="files",
    ),
    Workload("W4b", "one of 40,000 files changed", _small_files, one_small_file, aim=0.08, limit="files"),
    Workload("W4c", "none of 40,000 files changed", _small_files, aim=0.25),
    Workload(
        "W5", "100 images, nothing local", _tree, _everything_new(_new_tree),
        aim=0.4, cold=True, warm_up=False, tree=True, limit="tree",
    ),
    Workload("W5b", "100 images, nothing changed", _tree, aim=0.04, tree=True),
    Workload("W5c", "100 images, one leaf changed", _tree, one_leaf, aim=0.08, tree=True),
    Workload(
        "W6", "apt-get install gcc, compile, two stages", _compile, _new_compile,
        aim=0.85, runs=2, host_network=True,
    ),
    Workload("W7", "100 images, a fresh machine, nothing changed", _tree, aim=0.1, cold=True, tree=True, shared=True),
    Workload(
        "W8", "pull and unpack 1 GB for a RUN", _pulled, aim=0.6, cold=True, warm_up=False, push=False, host_network=True, limit="pull",
    ),
)  # fmt: skip


def chosen(only: str) -> list[Workload]:
    """Workloads by key, a number alone for all of that number (`W4`: W4, W4b, W4c; `W4=`: the first alone)."""
    words = [word.strip() for word in only.split(",") if word.strip()]
    found = [load for load in WORKLOADS if not words or any(_matches(load.key, word) for word in words)]
    unknown = [word for word in words if not any(_matches(load.key, word) for load in WORKLOADS)]
    if unknown:
        raise ValueError(f"no workload {unknown[0]}; there are {', '.join(load.key for load in WORKLOADS)}")
    return found


def _matches(key: str, word: str) -> bool:
    return word.rstrip("=") == key or (word == key.rstrip("abc"))
