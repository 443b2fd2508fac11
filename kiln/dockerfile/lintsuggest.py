"""The variable that was probably meant, as BuildKit's checks suggest it."""

from __future__ import annotations

from collections.abc import Iterable

_TOO_FAR = 3


def suggestion(name: str, known: Iterable[str], mark: str = "") -> str:
    """` (did you mean ...?)` with the first of the nearest known names, or nothing where none is near."""
    near, distance = "", _TOO_FAR
    for other in known:
        found = _distance(name, other)
        if found < distance:
            near, distance = other, found
    return f" (did you mean {mark}{near}?)" if near else ""


def _distance(one: str, other: str) -> int:
    """Letters to insert, remove or change to make one word the other; `_TOO_FAR` or more is not exact."""
    if abs(len(one) - len(other)) >= _TOO_FAR:
        return _TOO_FAR
    above = list(range(len(other) + 1))
    for row, letter in enumerate(one, 1):
        line = [row]
        for column, wanted in enumerate(other, 1):
            line.append(min(above[column] + 1, line[-1] + 1, above[column - 1] + (letter != wanted)))
        above = line
    return above[-1]
