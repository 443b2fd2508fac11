"""What every image of one catalog is read with: its folder, the mirrors, the facts of its own repository."""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from msgspec import Struct, field

from kiln.errors import KilnError, SourceError
from kiln.oci.reference import Reference
from kiln.oci.reference import parse as parse_reference
from kiln.sources.catalog.item import Item
from kiln.sources.git import Git, is_git, is_local, parse_git, shown
from kiln.sources.mirror import Mirrors
from kiln.sources.wish import Wish


class Draft(Struct, frozen=True):
    """A wish, and the ids that it names: (id, place, whether it must be one image)."""

    wish: Wish
    wanted: tuple[tuple[str, str, bool], ...] = ()


class Checkout(Struct, frozen=True):
    """A commit of a repository as a folder; `folder` may be a folder in it."""

    remote: str
    commit: str
    tree: Path
    folder: Path

    @property
    def name(self) -> str:
        """As it is called in messages."""
        return f"{shown(self.remote)}#{self.commit[:8]}"


class Ground(Struct, frozen=True, dict=True):
    """`root` is the catalog's folder, `file` its name for places; `tag` that of names without one, empty for none.
    `rpms` are the descriptions of packages that were read, by URL."""

    root: Path
    file: str
    environment: Mapping[str, str]
    mirrors: Mirrors
    now: datetime.datetime
    tag: str = ""
    pfsd_rpm: str = "bash"
    rpms: dict[str, str] = field(default_factory=dict)

    @property
    def stamp(self) -> str:
        """The time of this run as automatic tags have it."""
        return self.now.strftime("%Y%m%d%H%M%S")

    @cached_property
    def facts(self) -> Mapping[str, str]:
        """CodeSource, CodeBranch, CodeVersion, BuildBy of the repository that the catalog lies in; empty texts where
        there is none."""
        try:
            git = Git(self.root, str(self.root), self.mirrors.settings, self.mirrors.cancel)
        except SourceError:
            return dict.fromkeys(("CodeSource", "CodeBranch", "CodeVersion", "BuildBy"), "")
        version = git.output("rev-parse", "--verify", "--quiet", "HEAD").strip()
        branch = git.output("symbolic-ref", "--quiet", "--short", "HEAD").strip()
        return {
            "CodeSource": shown(git.output("remote", "get-url", "origin").strip()),
            "CodeBranch": branch or ("HEAD" if version else ""),
            "CodeVersion": version,
            "BuildBy": git.output("config", "user.email").strip(),
        }

    def place(self, text: str) -> str:
        """A path that the catalog writes, absolute."""
        return os.path.normpath(text if text.startswith("/") else f"{self.root}/{text}")

    def path(self, text: str) -> Path:
        """The same as a `Path`."""
        return Path(self.place(text))

    def remote(self, text: str) -> str:
        """A repository that the catalog writes; a path counts from the catalog's folder."""
        if text.startswith("github.com/"):
            return "https://" + text
        return self.place(text) if is_local(text) and not text.startswith("file://") else text

    def checkout(self, item: Item, key: str, remote: str, ref: str, folder: str = "") -> Checkout:
        """A repository that stands at a key, through the mirrors; raises `SourceError` at its place."""
        remote = self.remote(remote)
        try:
            commit = self.mirrors.commit(remote, ref)
            tree = self.mirrors.tree(remote, commit)
        except SourceError as bad:
            raise SourceError(str(bad), where=item.place(key), hint=bad.hint, detail=bad.detail) from bad
        found = Checkout(remote, commit, tree, tree)
        return Checkout(remote, commit, tree, self.inside(item, key, found, folder)) if folder else found

    def inside(self, item: Item, key: str, found: Checkout, path: str) -> Path:
        """A file or folder of a checkout, links followed; raises `SourceError` if it is not there, or not in there."""
        place = Path(os.path.realpath(found.tree / path))
        if not place.is_relative_to(os.path.realpath(found.tree)) or not place.exists():
            raise SourceError(f"the repository {found.name} has no {path}", where=item.place(key))
        return place

    def url(self, item: Item, key: str, url: str) -> Checkout:
        """`REMOTE[#ref[:folder]]` at a key."""
        try:
            source = parse_git(url)
        except KilnError as bad:
            raise SourceError(bad.message, where=item.place(key)) from bad
        return self.checkout(item, key, source.remote, source.ref, source.folder)

    def named(self, item: Item, key: str, value: str, enabled: bool) -> str:
        """A named context: a git URL becomes a folder (not for disabled images), a path absolute."""
        if is_git(value):
            return str(self.url(item, key, value).folder) if enabled else value
        if "://" in value or value.startswith("target:"):
            return value
        is_path = value.startswith((".", "/")) or (self.root / value).is_dir()
        return self.place(value) if is_path else value

    def reference(self, item: Item, key: str, text: str, *, tag: str = "latest") -> Reference:
        """The name of a result; one without a tag gets the catalog's, or else `tag`. Raises `UsageError` at its place."""
        try:
            found = parse_reference(text)
        except KilnError as bad:
            raise bad.at(item.place(key)) from None
        if found.digest:
            raise item.wrong(key, f"{text}: an image is given a tag, not a digest")
        return found if found.tag else Reference(found.host, found.repository, self.tag or tag)
