"""A package as it was handed over: fetched if need be, checked, listed, and ready to be copied from."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from kiln import events
from kiln.baking.session import Session
from kiln.dockerfile.patterns import Matcher, PatternError, read_ignore_file
from kiln.engine.archivefiles import ArchiveFiles
from kiln.engine.files import Without
from kiln.errors import KilnError, UsageError
from kiln.oci.digest import is_digest
from kiln.plan.target import Context
from kiln.sources.package.detect import top_folder
from kiln.sources.package.leftout import is_left_out, patterns_of
from kiln.sources.package.tree import HEAD, Tree
from kiln.store.entry import DIR, FILE, Entry
from kiln.store.package.package import Package, open_package

_MOST_BYTES = 4 << 30
_MOST_SECONDS = 900.0
_IGNORE = ".dockerignore"


class HandedOver(Struct, frozen=True):
    """A package: where it lies (`path`), the `name` it came with, the tree below its top folder, what is copied from it
    (`context`), and the patterns of what no image gets (`left_out`)."""

    path: Path
    name: str
    package: Package
    tree: Tree
    context: Context
    left_out: tuple[str, ...]

    def files(self) -> set[str]:
        """The paths below the top folder."""
        start = self.tree.full("")
        return {path[len(start) :] for path in self.tree.names if path.startswith(start) and path != start}


def fetched(session: Session, place: str, checksum: str, *, private: bool) -> tuple[Path, str]:
    """(path of the package, the name it came with); raises `UsageError`, `SourceError`."""
    if not place.startswith(("http://", "https://")):
        return _local(place, checksum)
    from kiln.sources.fetch import download
    from kiln.sources.git import shown
    from kiln.sources.policy import Policy

    step, title, begin = "download", f"[package] download {shown(place)}", events.now()
    session.report(events.StepStarted(time=begin, step=step, name=title))
    error = "stopped"
    try:
        path, _ = download(
            place, session.store.scratch, session.settings, session.cancel, limit=_MOST_BYTES, checksum=checksum,
            policy=Policy(private=private, netrc=True), timeout=_MOST_SECONDS, sent=True,
        )  # fmt: skip
        error = ""
    finally:
        seconds = round(events.now() - begin, 3)
        session.report(events.StepFinished(time=events.now(), step=step, name=title, seconds=seconds, error=error))
    return path, path.name


def _local(place: str, checksum: str) -> tuple[Path, str]:
    path = Path(place).absolute()
    if not path.exists():
        scheme = place.partition("://")[0] if "://" in place else ""
        why = f"{scheme} URLs are not fetched, only http and https" if scheme else "there is no such package"
        raise UsageError(why, where=place, hint="Give a file, a folder, or an http(s) URL.")
    if checksum:
        if path.is_dir():
            raise UsageError("--checksum is for files and URLs", where=place)
        _check_digest(path, checksum)
    return path, path.name


def checksum_of(text: str) -> str:
    """A `--checksum` as a digest; 64 hex digits alone are sha256. Raises `UsageError`."""
    digest = text.lower() if ":" in text or not text else f"sha256:{text.lower()}"
    if digest and not (is_digest(digest) and digest.startswith("sha256:")):
        raise UsageError(f"--checksum {text}: is no digest", hint="Write sha256: and 64 hex digits.")
    return digest


def _check_digest(path: Path, checksum: str) -> None:
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    if digest != checksum:
        raise KilnError(f"the file has the digest {digest}, not {checksum}", where=str(path))


def look(session: Session, path: Path, name: str) -> HandedOver:
    """The package at a path; its context is open already. Raises `SourceError` for what is refused."""
    if path.is_dir():
        return _folder(session, path, name)
    package = open_package(path, session.store.scratch, name=name)
    root = top_folder(package.entries)
    context = Context("archive", path, reference=root, name=str(path))
    session.contexts.provide(context, ArchiveFiles(package, root))
    return HandedOver(
        path, name, package, _tree(package, package.entries, root), context, _left_out(package.entries, root)
    )


def _folder(session: Session, path: Path, name: str) -> HandedOver:
    """A folder, without what its `.dockerignore` names, as `kiln build` takes it."""
    root = top_folder(_shallow(path))
    start = f"{root}/" if root else ""
    ignore = _ignored(path / root / _IGNORE)
    matcher = Matcher(ignore)
    seen: list[str] = []

    def skip(inner: str) -> bool:
        seen.extend([inner] if is_left_out(inner) else [])
        plain = bool(matcher) and not matcher.has_negation and inner.startswith(start)
        return is_left_out(inner) or (plain and matcher.matches(inner[len(start) :]))

    package = open_package(path, session.store.scratch, name=name, skip=skip)
    names = package.entries
    if matcher.has_negation:
        names = {f"{start}{inner}": entry for inner, entry in _walked(Without(ArchiveFiles(package, root), matcher))}
    context = Context("folder", path / root, ignore=ignore, name=str(path / root))
    return HandedOver(path, name, package, _tree(package, names, root), context, _left_out(seen, root))


def _tree(package: Package, names: Mapping[str, Entry], root: str) -> Tree:
    kept = {path: entry for path, entry in names.items() if not is_left_out(path)}
    return Tree(kept, lambda path: package.head(path, HEAD), root)


def _left_out(paths: Mapping[str, Entry] | list[str], root: str) -> tuple[str, ...]:
    start = f"{root}/" if root else ""
    return patterns_of(path for path in paths if path.startswith(start))


def _shallow(path: Path) -> dict[str, Entry]:
    """As much of a folder as is needed to see whether everything lies in one folder of it."""
    found: dict[str, Entry] = {}
    with contextlib.suppress(OSError):
        for item in os.scandir(path):
            found[item.name] = Entry(DIR if item.is_dir(follow_symlinks=False) else FILE)
            if Path(item.path, "__init__.py").is_file():
                found[f"{item.name}/__init__.py"] = Entry(FILE)
    return found


def _ignored(path: Path) -> tuple[str, ...]:
    try:
        patterns = tuple(read_ignore_file(path.read_text("utf-8", "surrogateescape")))
        Matcher(patterns)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return ()
    except (PatternError, OSError) as bad:
        raise KilnError(str(bad), where=str(path)) from None
    return patterns


def _walked(files: Without) -> list[tuple[str, Entry]]:
    waiting, found = [""], []
    while waiting:
        folder = waiting.pop()
        for name in files.children(folder):
            path = f"{folder}/{name}" if folder else name
            entry = files.get(path)
            if entry is not None:
                found.append((path, entry))
                waiting += [path] if entry.kind == DIR else []
    return found
