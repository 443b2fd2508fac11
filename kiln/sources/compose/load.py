"""The `build` sections of compose files -> a collection of wishes, as `docker buildx bake` and `docker compose build` read
them.

Paths are relative to the folder of the first file. Scalars are taken as they are written (an argument `1.10` stays
`1.10`, also without quotes). Profiles do not matter for building.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct, field

from kiln.errors import UsageError
from kiln.sources import yamlplaces
from kiln.sources.buildx import sets as bakesets
from kiln.sources.buildx.groups import Drafts, gather
from kiln.sources.buildx.keys import Draft
from kiln.sources.compose.build import draft_of, target_name
from kiln.sources.compose.merge import Service, Services, as_map, merged
from kiln.sources.compose.words import filled, read_env
from kiln.sources.wish import Collection
from kiln.sources.yamlplaces import Map

_MAX_FILES = 50


def load(paths: Sequence[Path], *, environment: Mapping[str, str], sets: Sequence[str] = ()) -> Collection:
    """The services of compose files that have `build`, the later laid over the earlier. Raises `UsageError`."""
    root = Path(paths[0]).absolute().parent
    known = read_env(root / ".env", environment)
    files = _Files(known)
    documents = [files.document(path) for path in paths]
    project = _project(documents, known, root)
    secrets = Map(0)
    for path, document in zip(paths, documents, strict=True):
        both = merged(secrets, as_map(document.get("secrets"), str(path), document.lines.get("secrets", 1), "secrets"))
        secrets = both if isinstance(both, Map) else secrets
    drafts = _drafts(_services(files, paths), secrets, known, project)
    finish = bakesets.read_sets(sets, drafts, environment)
    names = tuple(drafts)
    given = Drafts(names, lambda name: bakesets.apply(drafts[name], finish.get(name, {})), {"default": names})
    return gather("compose", root, given, known)


def _drafts(
    services: Mapping[str, Service], secrets: Map, environment: Mapping[str, str], project: str
) -> dict[str, Draft]:
    found: dict[str, Draft] = {}
    for service in services.values():
        draft = draft_of(service, secrets, environment, project)
        if draft and not re.fullmatch(r"[A-Za-z0-9_-]+", draft.name):
            raise UsageError(f"{service.name!r} is not a name for a service", where=service.place)
        if draft and draft.name in found:
            raise UsageError(f"two services give the target {target_name(service.name)}", where=service.place)
        if draft:
            found[draft.name] = draft
    return found


def _project(documents: Sequence[Map], environment: Mapping[str, str], root: Path) -> str:
    """The project's name: of the environment, of a file, or of the folder; lower case, as compose makes it."""
    written = [document["name"] for document in documents if isinstance(document.get("name"), str)]
    name = environment.get("COMPOSE_PROJECT_NAME") or (str(written[-1]) if written else "") or root.name
    return re.sub(r"[^a-z0-9_-]", "", name.lower()).lstrip("_-") or "default"


def _services(files: _Files, paths: Sequence[Path]) -> dict[str, Service]:
    """The services of all files, the later file's laid over the earlier's."""
    found: dict[str, Service] = {}
    for path in paths:
        services = files.services(path)
        for name in services.raw:
            service = services.get(name)
            if name in found:
                both = merged(found[name].fields, service.fields)
                fields = both if isinstance(both, Map) else service.fields
                service = Service(name, fields, found[name].file, found[name].line)
            found[name] = service
    return found


class _Files(Struct):
    """Compose files by their path, each read once."""

    environment: Mapping[str, str]
    known: dict[str, Map] = field(default_factory=dict)
    opened: dict[str, Services] = field(default_factory=dict)

    def document(self, path: Path) -> Map:
        """A file with its variables replaced; raises `UsageError`."""
        key = str(path)
        if key not in self.known:
            if len(self.known) >= _MAX_FILES:
                raise UsageError("too many compose files extend each other", where=key)
            self.known[key] = _read(path, self.environment)
        return self.known[key]

    def services(self, path: Path) -> Services:
        """The services of a file."""
        key = str(path)
        if key not in self.opened:
            document = self.document(path)
            raw = as_map(document.get("services"), key, document.lines.get("services", 1), "services")
            self.opened[key] = Services(key, raw, lambda other, where: self._other(path, other, where))
        return self.opened[key]

    def _other(self, path: Path, other: str, where: str) -> Services:
        """The services of a file of which one is extended by a service of `path`."""
        named = path.parent / other
        if not named.is_file():
            raise UsageError(f"there is no file {other}", where=where)
        return self.services(named)


def _read(path: Path, environment: Mapping[str, str]) -> Map:
    try:
        data = path.read_bytes()
    except OSError as bad:
        raise UsageError(f"the compose file cannot be read: {bad.strerror}", where=str(path)) from bad
    document = yamlplaces.parse(data, str(path))
    kept = Map(1)
    given = as_map(document, str(path), 1, "a compose file")
    for key in ("name", "services", "secrets"):
        if key in given:
            kept.put(key, filled(given[key], environment, str(path), given.lines[key]), given.lines[key])
    if "include" in given:
        where = f"{path}:{given.lines['include']}"
        raise UsageError("include is not supported", where=where, hint="Name the files one after the other.")
    return kept
