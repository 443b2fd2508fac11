"""The bases that packages are put on: a table of the shipped `bases.toml` and of users' files after it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from msgspec import Struct

from kiln.errors import UsageError
from kiln.oci import reference
from kiln.sources.package import templates
from kiln.sources.package.templates import PLACEHOLDERS, Template

FILE = "bases.toml"
CONTROL = "/opt/bin/control"
_KEYS = {"image": str, "template": str, "port": int, "description": str, "control": str, "sample": str}
_OPTIONAL = frozenset(("description", "control", "sample"))
_TRIVIAL = {"index.txt": b"ok\n"}
_WORDS = {str: "a text", int: "a number"}


class Base(Struct, frozen=True):
    """One base. `template` is the name of its template, `port` what its programs listen on, `control` the program of the
    image that starts packages without a `control` of their own, `place` where it is written, `sample` the folder of a
    package for checking it."""

    name: str
    image: str
    template: str
    port: int
    description: str
    place: str
    control: str = CONTROL
    sample: str = ""

    @property
    def is_shipped(self) -> bool:
        """Whether it is one of Kiln's own."""
        return self.place.startswith(f"{_shipped()}: ")

    @property
    def names_registry(self) -> bool:
        """Whether its image is written with the host of a registry; one without is looked for in the store alone:
        whoever owns such a name on a public registry has nothing to do with it."""
        first, slash, _ = self.image.partition("/")
        return bool(slash) and ("." in first or ":" in first or first == "localhost")

    def values(self, **more: str) -> dict[str, str]:
        """What `templates.render` wants to know of it; `more` are further placeholders (app, version, owner,
        main, file)."""
        return {"base": self.image, "port": str(self.port), "command": self.control, **more}


def load(paths: Sequence[Path] = (), template_folders: Sequence[Path] = ()) -> dict[str, Base]:
    """The bases by name, in the order of the files: the shipped ones, then those of each path, which replace others of
    their name (`replace = true` at the top of a file: all before it).

    Raises `UsageError` naming the file and the entry.
    """
    known = templates.names(template_folders)
    found: dict[str, Base] = {}
    for file in (_shipped(), *paths):
        table = _table(file)
        if _replaces(table, str(file)):
            found = {}
        found |= {name: _base(name, entry, str(file), known) for name, entry in _entries(table, str(file)).items()}
    return found


def _shipped() -> Traversable:
    return resources.files(__package__) / FILE


def sample(base: Base) -> dict[str, bytes]:
    """The package that a base is checked with, by path: its own, else that of its template, else a text alone."""
    if base.sample:
        folder = Path(base.place.partition(": base.")[0]).parent / base.sample
        if not folder.is_dir():
            raise UsageError(f"sample: there is no folder {folder}", where=base.place)
        return dict(_files(folder, ""))
    is_there = (resources.files(__package__) / "samples" / base.template).is_dir()
    return check_package(base.template) if is_there else _TRIVIAL


def check_package(template: Template | str) -> dict[str, bytes]:
    """The smallest package that works with a shipped template, by path: it answers `GET /` with a text that has `ok`."""
    name = template if isinstance(template, str) else template.name
    place = resources.files(__package__) / "samples" / name
    if not place.is_dir():
        raise UsageError(f"there is no sample for template {name!r}")
    return dict(_files(place, ""))


def _files(folder: Traversable | Path, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        if item.is_dir():
            found += _files(item, f"{prefix}{item.name}/") if item.name != "__pycache__" else []
        else:
            found.append((prefix + item.name, item.read_bytes()))
    return found


def _table(file: Traversable | Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as bad:
        raise UsageError(f"cannot be read: {bad}", where=str(file)) from bad


def _replaces(table: Mapping[str, Any], file: str) -> bool:
    unknown = sorted(set(table) - {"base", "replace"})
    if unknown:
        raise UsageError(f"unknown key {unknown[0]!r}", where=file, hint="A file has tables [base.NAME], and replace.")
    if not isinstance(table.get("replace", False), bool):
        raise UsageError("replace is true or false", where=file)
    return bool(table.get("replace", False))


def _entries(table: Mapping[str, Any], file: str) -> Mapping[str, Any]:
    entries = table.get("base", {})
    if not isinstance(entries, dict):
        raise UsageError("base is not a table; write [base.NAME]", where=file)
    return entries


def _base(name: str, entry: object, file: str, known: Sequence[str]) -> Base:
    place = f"{file}: base.{name}"
    if not PLACEHOLDERS["app"].fullmatch(name):
        raise UsageError(f"{name!r} is not a name (letters, digits, '_', '.', '-')", where=place)
    if not isinstance(entry, dict):
        raise UsageError("must be a table", where=place)
    try:
        return _checked(name, entry, place, known)
    except UsageError as bad:
        bad.hint = bad.hint or f"Mend it, or take it out with `kiln bases remove {name}`."
        raise


def _checked(name: str, entry: Mapping[str, Any], place: str, known: Sequence[str]) -> Base:
    _check_keys(entry, place)
    base = Base(
        name, entry["image"], entry["template"], entry["port"], entry.get("description", ""), place,
        entry.get("control", CONTROL), entry.get("sample", ""),
    )  # fmt: skip
    _check_values(base, known)
    return base


def _check_keys(entry: Mapping[str, Any], place: str) -> None:
    for key, value in entry.items():
        kind = _KEYS.get(key)
        if kind is None:
            raise UsageError(f"unknown key {key!r}", where=place, hint=f"Keys are {', '.join(_KEYS)}.")
        if not isinstance(value, kind) or isinstance(value, bool):
            raise UsageError(f"{key} must be {_WORDS[kind]}", where=place)
    missing = [key for key in _KEYS if key not in entry and key not in _OPTIONAL]
    if missing:
        raise UsageError(f"{missing[0]} is missing", where=place)


def _check_values(base: Base, known: Sequence[str]) -> None:
    try:
        reference.parse(base.image)
    except UsageError as bad:
        raise UsageError(f"image: {bad.message}", where=base.place, hint=bad.hint) from bad
    if base.template not in known:
        raise UsageError(
            f"there is no template {base.template!r}", where=base.place, hint=f"Templates are {', '.join(known)}."
        )
    if not 1 <= base.port <= 65535:
        raise UsageError(f"port {base.port} is not between 1 and 65535", where=base.place)
    if not PLACEHOLDERS["command"].fullmatch(base.control):
        raise UsageError(f"control {base.control!r} is not the path of a program", where=base.place)
    if not base.description.isprintable():
        raise UsageError("description has letters that cannot be shown", where=base.place)
