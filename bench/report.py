"""Writes results as files, and puts them into a document.

    python -m bench.report results.json docs/performance.md
    python -m bench.report growth.json docs/performance.md

replaces what stands between `<!-- bench -->` and `<!-- /bench -->` (or `growth`) with the picture, which is written beside the
document, and the tables.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from bench.picture import bars
from bench.results import Results, read
from bench.table import markdown


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("document", type=Path)
    given = parser.parse_args()
    if given.results.stem == "growth":
        shutil.copy(given.results.with_suffix(".svg"), given.document.parent)
        text = given.results.with_suffix(".md").read_text()
        insert(given.document, "growth", f"![Seconds and memory by size](growth.svg)\n\n{text}")
        return
    results = read(given.results)
    (given.document.parent / "bench.svg").write_text(bars(results))
    picture = "![Seconds of each side, by workload](bench.svg)"
    insert(given.document, "bench", f"{picture}\n\n{markdown(results)}")


if __name__ == "__main__":
    main()
