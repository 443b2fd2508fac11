"""What a mistyped word probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(word: str, known: Iterable[str]) -> str:
    """The known word nearest to `word`, or nothing if none is near."""
    near = difflib.get_close_matches(word.lower(), [item for item in known if item != word], n=1, cutoff=0.7)
    return near[0] if near else ""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A sentence that offers the nearest known word, or nothing."""
    near = closest(word, known)
    return f"Did you mean {near}?" if near else ""
