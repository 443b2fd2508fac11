"""The cluster configuration of a component tree: where images are pushed and as whom. Two schemas are read."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from kiln.errors import UsageError
from kiln.oci.reference import parse as parse_reference
from kiln.sources import yamlplaces
from kiln.sources.wish import Destination


class _Schema(Struct, frozen=True):
    """A file, the section in it (a path of keys) and the names of prefix, domain, tag, user and password there."""

    file: str
    section: tuple[str, ...]
    keys: tuple[str, str, str, str, str]


# The first that is there counts.
_LEGACY = ("docker-namespace", "docker-registry-domain", "docker-tag", "docker-username", "docker-password")
_SCHEMAS = (
    _Schema("cluster-configuration.yaml", ("docker-registry-info",), _LEGACY),
    _Schema("cluster-configuration.yaml", ("cluster", "docker-registry-info"), _LEGACY),
    _Schema(
        "services-configuration.yaml",
        ("cluster", "docker-registry"),
        ("namespace", "domain", "tag", "username", "password"),
    ),
)


def read_destination(folder: Path) -> Destination:
    """Where a configuration folder says that images go; raises `UsageError` with file and line."""
    for schema in _SCHEMAS:
        path = folder / schema.file
        section = _section(path, schema.section) if path.is_file() else None
        if section is not None:
            return _destination(section, schema.keys, path)
    places = " or ".join(f"{schema.file} with {'.'.join(schema.section)}" for schema in (_SCHEMAS[0], _SCHEMAS[2]))
    raise UsageError(f"has no {places}, so nobody knows where images go", where=str(folder))


def _section(path: Path, keys: tuple[str, ...]) -> yamlplaces.Map | None:
    found = yamlplaces.read(path)
    for key in keys:
        found = found.get(key) if isinstance(found, yamlplaces.Map) else None
    return found if isinstance(found, yamlplaces.Map) else None


def _destination(section: yamlplaces.Map, keys: tuple[str, str, str, str, str], path: Path) -> Destination:
    namespace, domain, tag, username, password = (_text(section, key, path) for key in keys)
    host = "" if domain == "public" else domain.removeprefix("https://").removeprefix("http://")
    prefix = "/".join(part for part in (host.strip("/"), namespace.strip("/")) if part)
    wrong = _fault(f"{prefix or 'x.invalid'}/name:{tag or 'latest'}")
    if wrong:
        raise UsageError(f"images cannot be named like that: {wrong}", where=f"{path}:{section.line}")
    return Destination(prefix, tag, username, password)


def _fault(name: str) -> str:
    try:
        parse_reference(name)
    except UsageError as bad:
        return bad.message
    return ""


def _text(section: yamlplaces.Map, key: str, path: Path) -> str:
    value = section.get(key)
    if isinstance(value, yamlplaces.Map | yamlplaces.Seq):
        raise UsageError(f"{key} must be a text", where=f"{path}:{section.lines[key]}")
    return value or ""
