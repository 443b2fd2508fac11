"""Option values that several verbs read alike."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kiln.errors import UsageError
from kiln.oci.platform import Platform
from kiln.oci.platform import parse as parse_platform
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.plan.target import Secret


def key_values(
    flag: str, words: Iterable[str], *, environment: Mapping[str, str] | None = None, required: bool = False
) -> dict[str, str]:
    """NAME=VALUE words; a name alone takes its value from `environment`, if that is given, and is left out if it is not
    set there."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or (required and not equals):
            raise UsageError(f"{flag} {word}: must be NAME=VALUE")
        if equals:
            found[name] = value
        elif environment is None:
            found[name] = ""
        elif name in environment:
            found[name] = environment[name]
    return found


def platform_list(words: Sequence[str]) -> tuple[Platform, ...]:
    """Platforms, each once, in the order given."""
    return tuple(dict.fromkeys(parse_platform(part) for word in words for part in word.split(",") if part))


def image_names(words: Sequence[str]) -> tuple[Reference, ...]:
    """Names for an image: with a tag (`latest` by default), without a digest."""
    names = tuple(parse_reference(word).with_default_tag() for word in words)
    for name in names:
        if name.digest:
            raise UsageError(f"{name}: an image is given a tag, not a digest")
    return names


def secret_of(text: str, environment: Mapping[str, str]) -> Secret:
    """A `--secret`: id=ID with src=FILE, env=NAME, or neither (a variable or file called ID)."""
    fields: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        name, equals, value = word.partition("=")
        if not equals or name not in ("id", "src", "source", "env", "type"):
            raise UsageError(
                f"--secret {text}: {word!r} is not understood", hint="Write id=ID,src=FILE or id=ID,env=NAME."
            )
        fields[{"source": "src"}.get(name, name)] = value
    identity = fields.get("id", "")
    kind = fields.get("type", "")
    if not identity or kind not in ("", "file", "env"):
        raise UsageError(f"--secret {text}: the id is missing", hint="Write id=ID,src=FILE or id=ID,env=NAME.")
    path, env = fields.get("src", ""), fields.get("env", "")
    if kind == "env" and path:
        path, env = "", path
    if not path and not env:
        env = identity if identity in environment else ""
        path = "" if env else identity
    if path and not Path(path).is_file():
        raise UsageError(f"--secret id={identity}: there is no file {path}")
    return Secret(identity, Path(path) if path else None, env)


def ssh_of(text: str) -> tuple[str, str]:
    """(id, sockets or key files) of a `--ssh`."""
    identity, _, value = text.partition("=")
    return identity or "default", value


def seconds_of(flag: str, text: str) -> float:
    """A time as `300`, `90s` or `15m` in seconds; 0 for an empty text."""
    from kiln.dockerfile.reading import parse_duration

    if not text:
        return 0
    try:
        return float(text) if text.replace(".", "", 1).isdigit() else parse_duration(text) / 1e9
    except ValueError as bad:
        raise UsageError(f"{flag} {text}: {bad}") from None
