"""How much a package may hold, and how its entries are called in errors."""

from __future__ import annotations

from msgspec import Struct

from kiln.errors import SourceError

_SHOWN = 200


class Limits(Struct, frozen=True):
    """What a package may have at most. Sizes are bytes; `ratio` (uncompressed to compressed) counts once more than
    `ratio_from` bytes come out; `header` is what one entry of a tar may spend on headers; `names` is for all names and
    links together; `case_collisions` lets names stand that differ only by case."""

    entries: int = 200_000
    total: int = 20 << 30
    ratio: int = 200
    ratio_from: int = 100 << 20
    path: int = 4096
    component: int = 255
    depth: int = 100
    header: int = 2 << 20
    names: int = 32 << 20
    case_collisions: bool = False


class Gauge:
    """Counts what comes out of one package against its limits; `guessed` are names that were read in an old code page,
    `unreadable` those that are not UTF-8."""

    def __init__(self, limits: Limits, name: str) -> None:
        self.limits = limits
        self.name = name
        self.total = 0
        self.guessed = self.unreadable = 0

    def add(self, size: int, packed: int) -> None:
        """`size` more bytes came out, or will; `packed` bytes were read for everything so far. Raises `SourceError`."""
        self.total += size
        if self.total > self.limits.total:
            raise self.bad(f"more than {self.limits.total} bytes come out of it", hint="Is this the right file?")
        if self.total > self.limits.ratio_from and self.total > self.limits.ratio * max(packed, 1):
            raise self.bad(
                f"it is a bomb: more than {self.limits.ratio} bytes come out for each byte in it",
                hint="Unpack it by hand and look at what it holds.",
            )

    def bad(self, why: str, entry: str | None = None, hint: str = "") -> SourceError:
        """An error that names the package, and the entry if there is one."""
        return refused(self.name, why, entry, hint)


def refused(name: str, why: str, entry: str | None = None, hint: str = "") -> SourceError:
    """An error about a package, or about one of its entries."""
    message = why if entry is None else f'the entry "{shown(entry)}" {why}'
    return SourceError(message, where=name, hint=hint or "Pack it again, and try that.")


def shown(text: str) -> str:
    """A name from a package as it can be printed: what is no printable character is escaped, long ones are cut."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    safe = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:_SHOWN])
    return safe + "..." if len(text) > _SHOWN else safe
