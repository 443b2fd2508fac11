"""Path patterns: Go's `filepath.Match` for COPY sources, and the matcher of `.dockerignore` with `**` and `!`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct


class PatternError(ValueError):
    """A pattern that is not well-formed."""


def has_wildcard(text: str) -> bool:
    """Whether the text has an unescaped `*`, `?` or `[`."""
    return re.search(r"(?<!\\)(?:\\\\)*[*?\[]", text) is not None


@lru_cache(maxsize=1024)
def compile_match(pattern: str) -> re.Pattern[str]:
    """`filepath.Match` as a regular expression for `fullmatch`; raises `PatternError`."""
    out: list[str] = []
    position = 0
    while position < len(pattern):
        char = pattern[position]
        position += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            klass, position = _class(pattern, position)
            out.append(klass)
        elif char == "\\":
            if position >= len(pattern):
                raise PatternError(f"syntax error in pattern {pattern!r}: it ends with a backslash")
            out.append(re.escape(pattern[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return re.compile("".join(out), re.DOTALL)


def _class(pattern: str, position: int) -> tuple[str, int]:
    """The character class that begins after `[`, and the position behind it."""
    negated = pattern.startswith("^", position)
    position += negated
    ranges: list[str] = []
    while not (pattern.startswith("]", position) and ranges):
        low, position = _class_char(pattern, position)
        high = low
        if pattern.startswith("-", position):
            high, position = _class_char(pattern, position + 1)
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    body = "".join(ranges)
    if not body:
        return ("[^/]" if negated else "(?!)"), position + 1
    return f"(?!/)[{'^' if negated else ''}{body}]", position + 1


def _class_char(pattern: str, position: int) -> tuple[str, int]:
    if position >= len(pattern) or pattern[position] in "-]":
        raise PatternError(f"syntax error in pattern {pattern!r}: a class is not closed")
    if pattern[position] == "\\":
        position += 1
    if position >= len(pattern):
        raise PatternError(f"syntax error in pattern {pattern!r}: a class is not closed")
    return pattern[position], position + 1


def match(pattern: str, name: str) -> bool:
    """Whether the whole name matches; `*` and `?` do not cross a slash."""
    return compile_match(pattern).fullmatch(name) is not None


class Pattern(Struct, frozen=True):
    """One line of an ignore file. `negated` is the `!`; `depth` counts its path components."""

    text: str
    negated: bool
    regex: re.Pattern[str]


class Matcher:
    """Ignore patterns in order; the last one that matches a path or one of its parents decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = [made for made in map(_pattern, patterns) if made is not None]
        self.has_negation = any(pattern.negated for pattern in self.patterns)

    def __bool__(self) -> bool:
        return bool(self.patterns)

    def matches(self, path: str) -> bool:
        """Whether `path` (relative, slashes) is matched, itself or through a parent."""
        path = path.strip("/")
        return self.verdict(path, self._parents(path))[0]

    def verdict(self, path: str, parent: tuple[bool, ...] | None) -> tuple[bool, tuple[bool, ...]]:
        """(whether `path` matches, per pattern whether it does), given the second value of its parent folder."""
        results = []
        matched = False
        for index, pattern in enumerate(self.patterns):
            hit = bool(parent and parent[index]) or pattern.regex.match(path) is not None
            results.append(hit)
            if hit:
                matched = not pattern.negated
        return matched, tuple(results)

    def _parents(self, path: str) -> tuple[bool, ...] | None:
        parent = posixpath.dirname(path)
        return self.verdict(parent, self._parents(parent))[1] if parent else None


def _pattern(text: str) -> Pattern | None:
    text = text.strip()
    if not text:
        return None
    negated = text.startswith("!")
    text = posixpath.normpath(text[1:].strip() if negated else text)
    if negated and text == ".":
        raise PatternError('illegal exclusion pattern: "!"')
    compile_match(text.replace("**", "*"))
    return Pattern(text, negated, re.compile("^" + _regex(text) + r"\Z", re.DOTALL))


def _regex(text: str) -> str:
    out: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "*" and text.startswith("*", position):
            position += 1
            if text.startswith("/", position):
                position += 1
            out.append(".*" if position >= len(text) else "(.*/)?")
        elif char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            klass, position = _class(text, position)
            out.append(klass)
        elif char == "\\" and position < len(text):
            out.append(re.escape(text[position]))
            position += 1
        else:
            out.append(re.escape(char))
    return "".join(out)


def read_ignore_file(text: str) -> list[str]:
    """The patterns of a `.dockerignore`: comments, blanks and leading slashes gone, paths cleaned."""
    patterns = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        line = line.strip()
        if not line:
            continue
        negated = line.startswith("!")
        body = line[1:].strip() if negated else line
        if body:
            body = posixpath.normpath(body)
            body = "/" + body.lstrip("/") if body.startswith("//") else body
            if len(body) > 1 and body.startswith("/"):
                body = body[1:]
        patterns.append(("!" if negated else "") + body)
    return patterns
