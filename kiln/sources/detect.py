"""What a path holds (a catalog, a component tree, a bake file, compose services) and the collection that it gives."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from msgspec import Struct

from kiln.engine.cancel import Cancel
from kiln.errors import UsageError
from kiln.settings import Settings
from kiln.sources import components
from kiln.sources.wish import Collection

KINDS = ("catalog", "components", "bake", "compose")
_FILES = {
    "catalog": ("kiln.yml", "kiln.yaml", "image.yml", "image.yaml"),
    "bake": ("docker-bake.json", "docker-bake.override.json", "docker-bake.hcl", "docker-bake.override.hcl"),
    "compose": ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"),
}
_COMPOSE_OVERRIDES = ("compose.override.yaml", "compose.override.yml", "docker-compose.override.yml",
                      "docker-compose.override.yaml")  # fmt: skip
_COMPOSE = re.compile(r"^(docker-)?compose\b.*\.ya?ml$")


class Place(Struct, frozen=True):
    """Where targets are written: `path` a file or folder, or `files` that belong together; `kind` empty for what is found
    there. `config` is the folder of a tree's configuration, `sets` are changes to targets of bake files
    (`target.key=value`)."""

    path: Path
    files: tuple[Path, ...] = ()
    kind: str = ""
    variant: str = ""
    config: Path | None = None
    sets: tuple[str, ...] = ()


def load(place: Place, settings: Settings, cancel: Cancel) -> Collection:
    """The collection of a place; raises `UsageError` where there is none."""
    for given in place.files or (place.path,):
        if not given.exists():
            raise UsageError("there is no such file or folder", where=str(given))
    path = (place.files[0] if place.files else place.path).absolute()
    kind = place.kind or detect(path)
    if not kind:
        raise UsageError(
            "nothing that lists images was found here",
            where=str(place.path),
            hint="Looked for kiln.yml, image.yml, src/*/build/*.dockerfile, docker-bake.hcl/.json and compose.yaml.",
        )
    if place.sets and kind not in ("bake", "compose"):
        raise UsageError("--set changes targets of bake and compose files only")
    if (place.variant or place.config) and kind != "components":
        raise UsageError("--variant and -c are for component trees", where=str(place.path))
    files = [file.absolute() for file in place.files] or _files(path, kind)
    loaders: Mapping[str, Callable[[], Collection]] = {
        "catalog": lambda: _catalog(files[0], settings, cancel),
        "components": lambda: components.load(path, variant=place.variant, config=place.config),
        "bake": lambda: _bake(files, settings, place.sets),
        "compose": lambda: _compose(files, settings, place.sets),
    }
    return loaders[kind]()


def detect(path: Path) -> str:
    """The kind of source at a path, empty for none."""
    if path.is_dir():
        for kind in ("catalog", "components", "bake", "compose"):
            if kind == "components" and components.is_tree(path):
                return kind
            if any((path / name).is_file() for name in _FILES.get(kind, ())):
                return kind
        return ""
    if path.suffix in (".hcl", ".json"):
        return "bake"
    if _COMPOSE.match(path.name):
        return "compose"
    return "catalog" if path.suffix in (".yml", ".yaml") else ""


def _files(path: Path, kind: str) -> list[Path]:
    """The files of a kind: the one that was named, or those of a folder."""
    if path.is_file() or kind == "components":
        return [path]
    found = [path / name for name in _FILES[kind] if (path / name).is_file()]
    if not found:
        raise UsageError(f"has none of {', '.join(_FILES[kind])}", where=str(path))
    if kind == "compose":
        overrides = [path / name for name in _COMPOSE_OVERRIDES if (path / name).is_file()]
        return [found[0], *overrides[:1]]
    return found


def _catalog(path: Path, settings: Settings, cancel: Cancel) -> Collection:
    from kiln.sources.catalog import load as catalog
    from kiln.sources.mirror import Mirrors

    mirrors = Mirrors(settings.store_path / "git", settings, cancel)
    now = datetime.datetime.now(datetime.UTC).astimezone()
    return catalog.load(path, environment=settings.environment, mirrors=mirrors, now=now)


def _bake(paths: list[Path], settings: Settings, sets: tuple[str, ...]) -> Collection:
    from kiln.sources.buildx import bakefile

    return bakefile.load(paths, environment=settings.environment, sets=sets)


def _compose(paths: list[Path], settings: Settings, sets: tuple[str, ...]) -> Collection:
    from kiln.sources.compose import load as compose

    return compose.load(paths, environment=settings.environment, sets=sets)
