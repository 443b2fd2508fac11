"""`--chmod`: octal or symbolic modes (POSIX chmod)."""

from __future__ import annotations

import re
from collections.abc import Callable

from kiln.errors import DockerfileError

Change = Callable[[int, bool], int]

_CLAUSE = re.compile(r"^([ugoa]*)((?:[-+=](?:[rwxXst]*|[ugo]))+)$")
_ACTION = re.compile(r"([-+=])([rwxXst]+|[ugo]|)")
_SHIFT = {"u": 6, "g": 3, "o": 0}


def parse_mode(text: str) -> Change:
    """A function (mode, is a directory) -> new mode; raises `DockerfileError`."""
    if re.fullmatch(r"[0-7]+", text):
        value = int(text, 8)
        if value > 0o7777:
            raise _bad(text)
        return lambda mode, is_dir: value
    if text[:1].isdigit():
        raise _bad(text)
    clauses = [_CLAUSE.match(clause) for clause in text.split(",")]
    steps: list[tuple[str, str, str]] = []
    for clause in clauses:
        if clause is None:
            raise _bad(text)
        who = clause.group(1).replace("a", "ugo") or "ugo"
        steps += [(who, operator, what) for operator, what in _ACTION.findall(clause.group(2))]
    return lambda mode, is_dir: _apply(steps, mode, is_dir)


def _bad(text: str) -> DockerfileError:
    return DockerfileError(
        f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777",
        hint="Write an octal mode such as 0755, or a symbolic one such as u=rwX,go=rX.",
    )


def _apply(steps: list[tuple[str, str, str]], mode: int, is_dir: bool) -> int:
    for who, operator, what in steps:
        bits, mask = _bits(who, what, mode, is_dir)
        if operator == "+":
            mode |= bits
        elif operator == "-":
            mode &= ~bits
        else:
            mode = mode & ~mask | bits
    return mode


def _bits(who: str, what: str, mode: int, is_dir: bool) -> tuple[int, int]:
    """(bits that the action names, bits that `=` clears first)."""
    if what in _SHIFT and len(what) == 1:
        value = mode >> _SHIFT[what] & 7
    else:
        value = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in what)
        if "X" in what and (is_dir or mode & 0o111):
            value |= 1
    bits = mask = 0
    for letter in who:
        bits |= value << _SHIFT[letter]
        mask |= 7 << _SHIFT[letter]
    if "s" in what:
        bits |= (0o4000 if "u" in who else 0) | (0o2000 if "g" in who else 0)
    if "t" in what:
        bits |= 0o1000
    return bits, mask
