"""Variables in compose files: `.env` files, and `${NAME}` with what compose allows inside (compose-spec, interpolation)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from kiln.errors import UsageError
from kiln.sources.yamlplaces import Map, Seq, Value

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_MARK = re.compile(rf"\$(?:(\$)|({_NAME})|\{{({_NAME})(?:(:?[-?+])|\}}))")
_LINE = re.compile(rf"\s*(?:export\s+)?({_NAME}[\w.-]*)\s*[=:]\s*(.*)", re.DOTALL)
_MAX_DEPTH = 30
_MAX_SIZE = 1 << 20
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


def fill(text: str, environment: Mapping[str, str], where: str) -> str:
    """A text with its variables replaced; one that is not set is empty. Raises `UsageError` at `where`."""
    filled, end = _fill(text, 0, environment, where, 0)
    if end != len(text):
        raise UsageError(f"{text!r} has a }} too many", where=where)
    return filled


def _fill(text: str, at: int, environment: Mapping[str, str], where: str, depth: int) -> tuple[str, int]:
    """(the text from an offset on, the offset where it ended): at the end, or inside of `${` at its `}`."""
    if depth > _MAX_DEPTH:
        raise UsageError("variables are nested too deeply", where=where)
    out: list[str] = []
    while at < len(text):
        if depth and text[at] == "}":
            return "".join(out), at
        if text[at] != "$":
            out.append(text[at])
            at += 1
            continue
        mark = _MARK.match(text, at)
        if not mark:
            raise UsageError(f"{text[at : at + 20]!r} is not a variable", where=where, hint="Write $$ for a $.")
        value, at = _value(text, mark, environment, where, depth)
        out.append(value)
    if depth:
        raise UsageError(f"{text!r} has a ${{ that is not ended", where=where, hint="Write $$ for a $.")
    return "".join(out), at


def _value(text: str, mark: re.Match[str], environment: Mapping[str, str], where: str, depth: int) -> tuple[str, int]:
    if mark[1]:
        return "$", mark.end()
    name, sign = mark[2] or mark[3], mark[4]
    value = environment.get(name)
    if not sign:
        return value or "", mark.end()
    given = value is not None and (value != "" or ":" not in sign)
    word, end = _fill(text, mark.end(), environment, where, depth + 1)
    if sign[-1] == "+":
        return (word if given else ""), end + 1
    if not given and sign[-1] == "?":
        raise UsageError(f"{name} is not set: {word}" if word else f"{name} is not set", where=where)
    return (value or "" if given else word), end + 1


def filled(value: Value, environment: Mapping[str, str], file: str, line: int = 0) -> Value:
    """A document with the variables in its texts replaced, not those in its keys."""
    if isinstance(value, str):
        return fill(value, environment, f"{file}:{line}") if "$" in value else value
    if isinstance(value, Map):
        changed = Map(value.line)
        for key, inner in value.items():
            at = value.lines.get(key, value.line)
            changed.put(key, filled(inner, environment, file, at), at)
        return changed
    if isinstance(value, Seq):
        items = Seq(value.line)
        for inner, at in zip(value, value.lines, strict=True):
            items.append(filled(inner, environment, file, at))
            items.lines.append(at)
        return items
    return value


def read_env(path: Path, environment: Mapping[str, str]) -> dict[str, str]:
    """The variables of a `.env` file under those of the environment; none if there is no such file."""
    try:
        content = path.read_text("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return dict(environment)
    except (OSError, UnicodeDecodeError) as bad:
        raise UsageError(f"cannot be read: {bad}", where=str(path)) from None
    found: dict[str, str] = {}
    for name, value, line in _assignments(content[:_MAX_SIZE], str(path)):
        quote = value[:1]
        if quote == "'":
            found[name] = value[1 : value.index("'", 1)]
            continue
        plain = _unescaped(value) if quote == '"' else re.split(r"\s#", value, maxsplit=1)[0].strip()
        found[name] = fill(plain, {**found, **environment}, f"{path}:{line}") if "$" in plain else plain
    return {**found, **environment}


def _assignments(content: str, file: str) -> list[tuple[str, str, int]]:
    """(name, value with its quotes, line); a quoted value may go over several lines."""
    found: list[tuple[str, str, int]] = []
    lines = content.split("\n")
    at = 0
    while at < len(lines):
        line, at = lines[at], at + 1
        match = _LINE.match(line)
        if not match:
            if line.strip() and not line.lstrip().startswith("#") and not re.fullmatch(rf"\s*{_NAME}\s*", line):
                raise UsageError("this is not NAME=VALUE", where=f"{file}:{at}")
            continue
        begin, value = at, match[2]
        while value[:1] in ("'", '"') and not _ended(value) and at < len(lines):
            value, at = value + "\n" + lines[at], at + 1
        if value[:1] in ("'", '"') and not _ended(value):
            raise UsageError(f"the value of {match[1]} is not ended", where=f"{file}:{begin}")
        found.append((match[1], value, begin))
    return found


def _ended(value: str) -> bool:
    return bool(re.match(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"", value, re.DOTALL))


def _unescaped(value: str) -> str:
    match = re.match(r'"((?:[^"\\]|\\.)*)"', value, re.DOTALL)
    inner = match[1] if match else value
    return re.sub(r"\\(.)", lambda one: "$$" if one[1] == "$" else _ESCAPES.get(one[1], one[0]), inner)
