"""What no image gets of a package: the history of its source, and what file managers leave behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from kiln.dockerfile import parser

# As `--exclude` of COPY has them. `._NAME` and __MACOSX are where macOS keeps attributes of a file in foreign archives.
PATTERNS = ("**/.git", "**/__MACOSX", "**/.DS_Store", "**/._*", "**/Thumbs.db", "**/desktop.ini")
_NAMES = {pattern: re.compile(pattern[3:].replace(".", r"\.").replace("*", ".*")) for pattern in PATTERNS}
_ANY = re.compile(
    r"(?:^|/)(?:" + "|".join(name.pattern.replace(".*", "[^/]*") for name in _NAMES.values()) + r")(?:/|$)"
)
_LINE = re.compile(r"^(\s*(?:COPY|ADD)\s)", re.IGNORECASE)
Thing = TypeVar("Thing")


def is_left_out(path: str) -> bool:
    """Whether a path of a package is, or lies in, what is left out."""
    return _ANY.search(path) is not None


def kept(names: Mapping[str, Thing]) -> dict[str, Thing]:
    """The paths that are not left out."""
    return {path: thing for path, thing in names.items() if not is_left_out(path)}


def patterns_of(paths: Iterable[str]) -> tuple[str, ...]:
    """The patterns that leave something out of these paths."""
    parts = {part for path in paths if is_left_out(path) for part in path.split("/")}
    return tuple(pattern for pattern, name in _NAMES.items() if any(name.fullmatch(part) for part in parts))


def without(dockerfile: str, patterns: tuple[str, ...]) -> str:
    """A Dockerfile whose COPY and ADD leave the patterns out of what they take from the context."""
    if not patterns:
        return dockerfile
    lines = dockerfile.splitlines(keepends=True)
    flags = "".join(f"--exclude={pattern} " for pattern in patterns)
    for statement in parser.parse(dockerfile.encode(), "Dockerfile").statements:
        taken = statement.keyword.upper() in ("COPY", "ADD")
        if taken and not any(flag.startswith("--from") for flag in statement.flags):
            index = statement.place.start - 1
            lines[index] = _LINE.sub(lambda found: found[1] + flags, lines[index], count=1)
    return "".join(lines)
