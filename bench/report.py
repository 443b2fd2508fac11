"""Writes results as files, and puts them into a document.

    python -m bench.report results.json [more.json ...] docs/performance.md
    python -m bench.report growth.json docs/performance.md

replaces what stands between `<!-- bench -->` and `<!-- /bench -->` (or `growth`) with the picture, which is written beside the
document, and the tables. Of several results the last with a workload counts.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from bench.picture import bars
from bench.results import Results, read
from bench.table import markdown
from bench.workloads import WORKLOADS


def write_all(results: Results, place: Path) -> str:
    """Writes JSON, Markdown and picture to a folder (or beside a path that ends in .json); returns the Markdown."""
    path = place if place.suffix == ".json" else place / "results.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results.write(path)
    text = markdown(results)
    path.with_suffix(".md").write_text(text + "\n")
    path.with_suffix(".svg").write_text(bars(results))
    return text


def insert(document: Path, mark: str, text: str) -> None:
    """Puts a text between a document's markers. Raises ValueError if it has them not."""
    before, begin, rest = document.read_text().partition(f"<!-- {mark} -->\n")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    if not (begin and end):
        raise ValueError(f"{document} has no markers <!-- {mark} --> and <!-- /{mark} -->, each on a line of its own")
    document.write_text(f"{before}{begin}{text.strip()}\n{end}{after}")


def merged(several: list[Results]) -> Results:
    """One out of several, in the order of the workloads; of each workload the last counts."""
    versions = {side: text for one in several for side, text in one.versions.items()}
    last = {outcome.key: outcome for one in several for outcome in one.outcomes}
    return Results(several[-1].machine, versions, [last[load.key] for load in WORKLOADS if load.key in last])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("document", type=Path)
    given = parser.parse_args()
    first = given.results[0]
    if first.stem == "growth":
        shutil.copy(first.with_suffix(".svg"), given.document.parent)
        text = first.with_suffix(".md").read_text()
        insert(given.document, "growth", f"![Seconds and memory by size](growth.svg)\n\n{text}")
        return
    results = merged([read(path) for path in given.results])
    (given.document.parent / "bench.svg").write_text(bars(results))
    picture = "![Seconds of each side, by workload](bench.svg)"
    insert(given.document, "bench", f"{picture}\n\n{markdown(results)}")


if __name__ == "__main__":
    main()
