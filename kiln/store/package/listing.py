"""The tree that a package's entries make: names that are legal, every path once, links that stay inside."""

from __future__ import annotations

import re
import unicodedata

from kiln.errors import SourceError
from kiln.store.entry import DIR, FILE, SYMLINK, WHITEOUT_PREFIX, Entry, parents
from kiln.store.package.limits import Gauge, shown

_SURROGATE = re.compile("[\udc80-\udcff]")
_DRIVE = re.compile(r"[A-Za-z]:")
_MAX_HOPS = 40
_MAX_STEPS = 5_000_000


class Listing:
    """Collects entries in the archive's order. `dos` also refuses names that mean something else on Windows."""

    def __init__(self, gauge: Gauge, *, dos: bool = False) -> None:
        self.entries: dict[str, Entry] = {}
        self.gauge = gauge
        self._dos = dos
        self._implied: set[str] = set()
        self._names = 0

    def add(self, raw: str, entry: Entry) -> str:
        """Takes an entry under the name that the archive gives it; returns its path. Raises `SourceError`."""
        path = self.path(raw)
        self.gauge.unreadable += not raw.isascii() and _SURROGATE.search(raw) is not None
        if entry.kind == SYMLINK:
            self._check_link(raw, entry.link)
        if not path:
            if entry.kind != DIR:
                raise self.bad(raw, "has the name of the package's root")
            return path
        self._place(raw, path, entry)
        self._count(path, entry)
        return path

    def path(self, raw: str) -> str:
        """The clean path for a name of the archive; raises `SourceError` for one that no honest packer writes."""
        if not raw or _controls(raw):
            raise self.bad(raw, "has control characters in its name" if raw else "has no name")
        if raw.startswith("/") or (_DRIVE.match(raw) and self._dos):
            raise self.bad(raw, "has an absolute name", "Pack the files with relative names.")
        if self._dos and "\\" in raw:
            raise self.bad(raw, "has a backslash in its name", "Pack it with a tool that writes / between folders.")
        parts = [part for part in raw.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise self.bad(
                raw, "climbs out of the package with ..", "Pack from inside the folder, with names below it."
            )
        self._check_lengths(raw, parts)
        path = "/".join(parts)
        return raw if path == raw else path  # one text in memory for both, of which there may be many

    def _check_lengths(self, raw: str, parts: list[str]) -> None:
        limits = self.gauge.limits
        if len(parts) > limits.depth:
            raise self.bad(raw, f"lies more than {limits.depth} folders deep")
        if _size(raw) > limits.path or any(_size(part) > limits.component for part in parts):
            raise self.bad(raw, f"has a name longer than {limits.path} bytes, or {limits.component} between slashes")
        if any(part.startswith(WHITEOUT_PREFIX) for part in parts):
            raise self.bad(
                raw, f"has a name that begins with {WHITEOUT_PREFIX}, which deletes files in an image", "Rename it."
            )

    def _check_link(self, raw: str, link: str) -> None:
        if not link or _controls(link) or _size(link) > self.gauge.limits.path:
            raise self.bad(raw, "is a symbolic link to nothing that a path can be")
        if link.startswith("/") or (self._dos and ("\\" in link or _DRIVE.match(link))):
            raise self.bad(
                raw, f'is a symbolic link that leaves the package: "{shown(link)}"',
                "Make links relative, or put in the file instead of the link.",
            )  # fmt: skip

    def _place(self, raw: str, path: str, entry: Entry) -> None:
        there = self.entries.get(path)
        if there is None:
            self._make_parents(raw, path)
        elif entry.kind != DIR or there.kind != DIR:
            below = there.kind == DIR and path in self._implied
            raise self.bad(raw, "is a file with entries below it" if below else "comes twice")
        self._implied.discard(path)
        self.entries[path] = entry

    def _make_parents(self, raw: str, path: str) -> None:
        folder = path.rpartition("/")[0]
        known = self.entries.get(folder)
        if not folder or (known is not None and known.kind == DIR):
            return
        for above in parents(path):
            there = self.entries.get(above)
            if there is None:
                self.entries[above] = Entry(DIR, mode=0o755)
                self._implied.add(above)
                self._count(above, self.entries[above])
            elif there.kind != DIR:
                what = "symbolic link" if there.kind == SYMLINK else "file"
                raise self.bad(raw, f'lies below "{shown(above)}", which is a {what}')

    def _count(self, path: str, entry: Entry) -> None:
        limits = self.gauge.limits
        self._names += len(path) + len(entry.link)
        if len(self.entries) > limits.entries:
            raise self.gauge.bad(f"it has more than {limits.entries} entries")
        if self._names > limits.names:
            raise self.gauge.bad(f"the names in it are longer than {limits.names} bytes together")

    def finish(self) -> dict[str, Entry]:
        """All entries by path, once the archive has been read; raises `SourceError`."""
        if not any(entry.kind == FILE for entry in self.entries.values()):
            raise self.gauge.bad("it holds no file", hint="Put in what the image is to hold.")
        if not self.gauge.limits.case_collisions:
            self._check_case()
        links = _Links(self.entries)
        for path, entry in self.entries.items():
            if entry.kind == SYMLINK and (why := links.fault(path, entry.link)):
                raise self.bad(
                    path,
                    f'is a symbolic link that {why}: "{shown(entry.link)}"',
                    "Remove the link, or point it inside.",
                )
        return self.entries

    def _check_case(self) -> None:
        seen: dict[str, str] = {}
        for path, entry in self.entries.items():
            other = seen.setdefault(path.casefold(), path) if entry.kind != DIR else path
            if other != path:
                raise self.bad(path, f'differs from "{shown(other)}" only by case', "Rename one of them.")

    def bad(self, raw: str, why: str, hint: str = "") -> SourceError:
        """An error that names an entry."""
        return self.gauge.bad(why, raw, hint)


class _Links:
    """Follows symbolic links as a kernel would, with the package as the whole world."""

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._steps = 0

    def fault(self, path: str, link: str) -> str:
        """What is wrong with a link, empty if it stays inside (also where it points to nothing)."""
        at, rest, hops = path.split("/")[:-1], link.split("/")[::-1], 1
        while rest:
            self._steps += 1
            part = rest.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    return "leaves the package"
                at.pop()
                continue
            there = self._entries.get("/".join((*at, part)))
            if there is None or there.kind != SYMLINK:
                at.append(part)
                continue
            hops += 1
            if hops > _MAX_HOPS or self._steps > _MAX_STEPS:
                return "leads in a circle, or through too many others"
            rest += there.link.split("/")[::-1]
        return ""


def _controls(text: str) -> bool:
    return not text.isprintable() and any(unicodedata.category(char) == "Cc" for char in text)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogateescape"))
