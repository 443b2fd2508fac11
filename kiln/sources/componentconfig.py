"""The cluster configuration of a component tree: where images are pushed and as whom. Two schemas are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from kiln.errors import UsageError
from kiln.sources.wish import Destination

# File, path to the section, and the keys for prefix, domain, tag, username, password. The first file that exists counts.
_SCHEMAS = (
    (
        "cluster-configuration.yaml",
        ("docker-registry-info", "cluster.docker-registry-info"),
        ("docker-namespace", "docker-registry-domain", "docker-tag", "docker-username", "docker-password"),
    ),
    (
        "services-configuration.yaml",
        ("cluster.docker-registry",),
        ("namespace", "domain", "tag", "username", "password"),
    ),
)


def read_destination(folder: Path | None) -> Destination:
    """Where a configuration folder says that images go; raises `UsageError`."""
    if folder is None:
        return Destination()
    for name, sections, keys in _SCHEMAS:
        path = folder / name
        if path.is_file():
            found = _section(path, sections)
            if found is not None:
                return _destination(found, keys, path)
    names = " or ".join(name for name, _, _ in _SCHEMAS)
    raise UsageError(f"has no {names} that says where images go", where=str(folder), hint="Name its folder with -c.")


def _section(path: Path, sections: tuple[str, ...]) -> Mapping[str, object] | None:
    import yaml

    try:
        document = yaml.load(path.read_bytes(), Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    except (yaml.YAMLError, OSError, UnicodeDecodeError, ValueError) as bad:
        raise UsageError(f"cannot be read: {bad}", where=str(path)) from None
    for section in sections:
        found = document
        for key in section.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict):
            return found
    return None


def _destination(section: Mapping[str, object], keys: tuple[str, ...], path: Path) -> Destination:
    namespace, domain, tag, username, password = (_text(section, key, path) for key in keys)
    host = "" if domain == "public" else domain
    prefix = "/".join(part.strip("/") for part in (host, namespace) if part)
    return Destination(prefix, tag, username, password)


def _text(section: Mapping[str, object], key: str, path: Path) -> str:
    value = section.get(key)
    if value is None:
        return ""
    if isinstance(value, dict | list | bool):
        raise UsageError(f"{key} must be a text", where=str(path))
    return str(value)
