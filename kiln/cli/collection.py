"""Options that say which targets: shared by `bake`, `plan` and `push`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from kiln.bake import ManyRequest
from kiln.sources import detect

Command = Callable[..., Any]


def collection_options(command: Command) -> Command:
    """PATH, TARGET and the options that choose and name targets."""
    options = [
        click.argument("words", nargs=-1, metavar="[PATH] [TARGET]..."),
        click.option("-f", "--file", "files", multiple=True, metavar="FILE", help="A file that lists targets (many)."),
        click.option("--source", "kind", type=click.Choice(detect.KINDS), default=None,
                     help="What PATH is (default: found out)."),
        click.option("--push", is_flag=True, help="Push every image, not only those that say so."),
        click.option("--registry", default="", metavar="PREFIX", help="Push below this: HOST[:PORT][/NAMESPACE]."),
        click.option("--tag", default="", metavar="TAG", help="The tag of all images."),
        click.option("-c", "--config", "config", default=None, metavar="FOLDER", help="A component tree's configuration."),
        click.option("--variant", default="", metavar="NAME", help="The variant of a component tree (default: all)."),
        click.option("--set", "sets", multiple=True, metavar="TARGET.KEY=VALUE", help="Change a bake file's target (many)."),
        click.option("--pull", is_flag=True, help="Ask registries even for bases that the store has."),
        click.option("--no-cache", is_flag=True, help="Make every target anew."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def read_request(given: dict[str, Any]) -> ManyRequest:
    """The request of a command line; raises `UsageError`."""
    place, words = read_place(given)
    return ManyRequest(
        place, targets=tuple(word for text in words for word in text.split(",") if word), push=given["push"],
        registry=given["registry"], tag=given["tag"], no_cache=given["no_cache"], pull=given["pull"],
    )  # fmt: skip


def read_place(given: dict[str, Any]) -> tuple[detect.Place, tuple[str, ...]]:
    """(where targets are written, the words that name some of them). The first word is a path if there is something at it
    that lists targets; else all of them name targets of the current folder."""
    words: tuple[str, ...] = given["words"]
    path = Path(".")
    if words and not given["files"] and _is_place(words[0], given["kind"] or ""):
        path, words = Path(words[0]), words[1:]
    place = detect.Place(
        path=path, files=tuple(map(Path, given["files"])), kind=given["kind"] or "", variant=given["variant"],
        config=Path(given["config"]) if given["config"] else None, sets=tuple(given["sets"]),
    )  # fmt: skip
    return place, words


def _is_place(word: str, kind: str) -> bool:
    path = Path(word)
    if path.is_file() or "/" in word or word in (".", ".."):
        return True
    if path.is_dir():
        return bool(kind or detect.detect(path)) or not detect.detect(Path())
    return not detect.detect(Path())
