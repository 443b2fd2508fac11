"""Dockerfile templates: texts with `{{placeholder}}` and sections, rendered to Dockerfiles.

`{{#NAME}}...{{/NAME}}` is kept where the placeholder NAME has a value or, for any other NAME, where the package has a file
or folder of that path; `{{^NAME}}...{{/NAME}}` is kept where not. A tag alone on its line takes the line with it. Values
are put into instructions as they are, so each placeholder allows only letters that mean nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from msgspec import Struct

from kiln.errors import UsageError
from kiln.oci import reference

SUFFIX = ".dockerfile"
# What a value may be, whole: nothing here quotes, expands, matches or ends anything in a Dockerfile.
PLACEHOLDERS = {
    "base": re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@\[\]-]*"),
    "port": re.compile(r"[1-9][0-9]{0,4}"),
    "command": re.compile(r"(?:/[A-Za-z0-9_+-][A-Za-z0-9._+-]*)+"),
    "app": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "version": re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*"),
    "owner": re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_./-]*)?"),
    "main": re.compile(r"(?:[A-Za-z0-9_+][A-Za-z0-9_.:/+-]*)?"),
    "file": re.compile(r"(?:[A-Za-z0-9_+][A-Za-z0-9_.+-]*)?"),
    "folder": re.compile(r"(?:[A-Za-z0-9_+][A-Za-z0-9_.+-]*)?"),
}
_TAG = re.compile(r"\{\{(?P<kind>[#^/]?)(?P<name>[^{}]*)\}\}")
_OWN_LINE = re.compile(r"^(\{\{[#^/][^{}]*\}\})\n", re.MULTILINE)
_PATH = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*(?:/[A-Za-z0-9_+-][A-Za-z0-9_.+-]*)*")


class Template(Struct, frozen=True):
    """One template; `place` is where it was read from, for messages."""

    name: str
    text: str
    place: str


def names(folders: Sequence[Path] = ()) -> list[str]:
    """The names of all templates, sorted: those of the folders and the shipped ones."""
    places: list[Traversable | Path] = [_shipped(), *(folder for folder in folders if folder.is_dir())]
    return sorted({item.name.removesuffix(SUFFIX) for place in places for item in place.iterdir() if _named(item)})


def find(name: str, folders: Sequence[Path] = ()) -> Template:
    """The template NAME of the first folder that has `NAME.dockerfile`, else the shipped one.

    Raises `UsageError`: there is none, or it is not one that can be rendered.
    """
    known = names(folders)
    if name not in known:
        raise UsageError(f"there is no template {name!r}", hint=f"Templates are {', '.join(known)}.")
    for place in (*folders, _shipped()):
        file = place / f"{name}{SUFFIX}"
        if file.is_file():
            return _read(name, file)
    raise AssertionError(name)


def render(template: Template, values: Mapping[str, str], files: Collection[str] = ()) -> str:
    """The Dockerfile. `values` are the placeholders', `files` the paths that the package has.

    Raises `UsageError`: a placeholder that nobody knows or that has no value, a value to be written that has other letters
    than it may have.
    """
    if unknown := sorted(values.keys() - PLACEHOLDERS.keys()):
        raise UsageError(f"unknown placeholder {unknown[0]!r}", hint=f"Placeholders are {', '.join(PLACEHOLDERS)}.")
    kept = [True]
    written: list[str] = []
    for text, kind, name in _parts(template):
        if kept[-1]:
            written.append(text)
        if kind in ("#", "^"):
            is_there = bool(values.get(name)) if name in PLACEHOLDERS else _has(files, name)
            kept.append(kept[-1] and is_there == (kind == "#"))
        elif kind == "/":
            kept.pop()
        elif name and kept[-1]:
            written.append(_value(template, values, name))
    return "".join(written)


def sections(template: Template) -> frozenset[str]:
    """The paths of a package that the template asks for."""
    return frozenset(name for _, kind, name in _parts(template) if kind == "#") - PLACEHOLDERS.keys()


def _shipped() -> Traversable:
    return resources.files(__package__) / "templates"


def _named(item: Traversable | Path) -> bool:
    return item.name.endswith(SUFFIX) and item.is_file()


def _read(name: str, file: Traversable | Path) -> Template:
    try:
        template = Template(name, file.read_text("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as bad:
        raise UsageError(f"cannot be read: {bad}", where=str(file)) from bad
    _validate(template)
    return template


def _parts(template: Template) -> list[tuple[str, str, str]]:
    """(text, kind and name of the tag after it); the last has no tag."""
    text, at, parts = _OWN_LINE.sub(r"\1", template.text), 0, []
    for tag in _TAG.finditer(text):
        parts.append((text[at : tag.start()], tag["kind"], tag["name"].strip()))
        at = tag.end()
    return [*parts, (text[at:], "", "")]


def _validate(template: Template) -> None:
    """Refuses unknown placeholders and sections that are not closed, with their line."""
    opened: list[str] = []
    for tag in _TAG.finditer(template.text):
        kind, name = tag["kind"], tag["name"].strip()
        where = f"{template.place}:{template.text.count(chr(10), 0, tag.start()) + 1}"
        if not kind and name not in PLACEHOLDERS:
            raise UsageError(
                f"unknown placeholder {name!r}", where=where, hint=f"Placeholders are {', '.join(PLACEHOLDERS)}."
            )
        if kind in ("#", "^"):
            if name not in PLACEHOLDERS and not _PATH.fullmatch(name):
                raise UsageError(f"{name!r} is neither a placeholder nor a path of a package", where=where)
            opened.append(name)
        elif kind and (not opened or opened.pop() != name):
            raise UsageError(f"{{{{/{name}}}}} ends a section that is not the last one opened", where=where)
    if opened:
        raise UsageError(f"section {opened[-1]!r} is not ended", where=template.place)


def _has(files: Collection[str], path: str) -> bool:
    """Whether a package has this path; archives need not name the folders of their files."""
    return path in files or any(file.startswith(f"{path}/") for file in files)


def _value(template: Template, values: Mapping[str, str], name: str) -> str:
    if name not in values:
        raise UsageError(f"nothing is given for {{{{{name}}}}}", where=template.place)
    _check(name, values[name])
    return values[name]


def _check(name: str, value: str) -> None:
    allowed = PLACEHOLDERS[name]
    if not allowed.fullmatch(value) or (name == "port" and int(value) > 65535):
        raise UsageError(f"{name} {value!r} cannot be put into a Dockerfile", hint=f"It has to match {allowed.pattern}")
    if name == "base":
        reference.parse(value)
