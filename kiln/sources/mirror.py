"""Git repositories, fetched once: a bare mirror for each remote, and a folder for each commit that somebody needs.

```
mirrors/KEY            bare and shallow; refs/kiln/COMMIT is written after all that the commit needs is there
trees/COMMIT-KEY       the checkout, with submodules, without .git; never modified
locks/                 one for each mirror and tree; the kernel frees them
```
KEY is the hash of the remote's URL. What begins with a dot is unfinished: the next who holds the lock makes it anew.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from kiln.dockerfile.suggest import did_you_mean
from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.git import Git, is_local, shown, without_password
from kiln.store.files import locked, write_whole

_FULL = re.compile(r"[0-9a-f]{40}")
_SHORT = re.compile(r"[0-9a-f]{7,39}")
_REFUSED = re.compile(r"unadvertised|not our ref|dumb http|shallow|find remote ref|not support", re.IGNORECASE)
_MAX_DEPTH = 20
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# Attributes of a mirror win over those in the tree: every file has the bytes that were committed.
_ATTRIBUTES = b"* -text !eol -ident -filter !working-tree-encoding\n"
_CONFIG = {
    "core.autocrlf": "false", "core.eol": "lf", "core.attributesFile": "/dev/null", "core.symlinks": "true",
    "core.fileMode": "true", "core.fsmonitor": "false", "core.sparseCheckout": "false", "gc.auto": "0",
    "maintenance.auto": "false", "submodule.recurse": "false", "advice.detachedHead": "false",
}  # fmt: skip
_FETCH = (
    "fetch", "--quiet", "--no-tags", "--no-prune", "--no-write-fetch-head", "--no-recurse-submodules",
    "--no-auto-maintenance", "--update-shallow",
)  # fmt: skip


class _Submodule(Struct, frozen=True):
    path: str
    commit: str
    remote: str


class Mirrors:
    """The mirrors below `root`, a folder of the store. One for a run: it asks a server for a branch once. Threads may
    share it, processes may share `root`."""

    def __init__(self, root: Path, settings: Settings, cancel: Cancel) -> None:
        self.root, self.settings, self.cancel = root, settings, cancel
        self._lock = threading.Lock()
        self._asking: dict[tuple[str, str], threading.Lock] = {}
        self._commits: dict[tuple[str, str], str] = {}
        self._names: dict[tuple[str, str], str] = {}

    def commit(self, remote: str, ref: str) -> str:
        """The full id of the commit that a branch, a tag, a commit or `HEAD` (also: nothing) is; raises `SourceError`."""
        asked = (remote, ref)
        with self._lock:
            alone = self._asking.setdefault(asked, threading.Lock())
        with alone:
            if asked not in self._commits:
                self._commits[asked] = self._ask(remote, ref or "HEAD")
            return self._commits[asked]

    def tree(self, remote: str, commit: str) -> Path:
        """The folder with the files of a commit (a full id) and of its submodules. It is shared: nobody may change it.
        Raises `SourceError`."""
        name = f"{commit}-{_key(remote)}"
        place = self.root / "trees" / name
        if self._is_whole(place):
            os.utime(place)
            return place
        with locked(self.root / "locks" / name):
            if not self._is_whole(place):
                index = place.with_name(f".{name}.index")
                self._make(place, lambda part: self._fill(remote, commit, part, index, 0))
                write_whole(_marker(place), _BOOT.read_bytes())
        return place

    def _is_whole(self, place: Path) -> bool:
        """Trees are not synced to disk, so one from before a restart of the machine counts as absent."""
        try:
            return _marker(place).read_bytes() == _BOOT.read_bytes() and place.is_dir()
        except OSError:
            return False

    def _make(self, place: Path, fill: Callable[[Path], None]) -> None:
        """A new folder at `place`, whole or not at all; for who holds its lock."""
        part = place.with_name(f".{place.name}.part")
        for old in (place, part):
            shutil.rmtree(old, ignore_errors=True)
        part.mkdir(parents=True)
        try:
            fill(part)
            part.rename(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _git(self, folder: Path, remote: str) -> tuple[Git, str]:
        """(git in a folder, the remote as git may be given it)."""
        bare, access = without_password(remote)
        config = {**_CONFIG, **access}
        return Git(folder, remote, self.settings, self.cancel, local=is_local(remote), config=config), bare

    def _ask(self, remote: str, ref: str) -> str:
        if _FULL.fullmatch(ref.lower()):
            self._fetched(remote, ref.lower())
            return ref.lower()
        names = [ref] if ref == "HEAD" or ref.startswith("refs/") else [f"refs/heads/{ref}", f"refs/tags/{ref}"]
        self.root.mkdir(parents=True, exist_ok=True)
        git, url = self._git(self.root, remote)
        answer = git.answer("ls-remote", "--quiet", "--", url, *names, *(name + "^{}" for name in names))
        found = {name: commit for commit, _, name in (line.partition("\t") for line in answer.splitlines())}
        for name in names:
            if commit := found.get(name + "^{}") or found.get(name):
                self._names[remote, commit] = name
                return commit
        return self._short(remote, ref.lower()) or self._unknown(git, url, ref)

    def _short(self, remote: str, ref: str) -> str:
        """The commit that an abbreviated id stands for; only the whole history tells."""
        if not _SHORT.fullmatch(ref):
            return ""
        with locked(self.root / "locks" / _key(remote)):
            mirror = self._mirror(remote)
            self._fetch_all(mirror, remote)
            git, _ = self._git(mirror, remote)
            return git.output("rev-parse", "--verify", "--quiet", "--end-of-options", ref + "^{commit}").strip()

    def _unknown(self, git: Git, url: str, ref: str) -> str:
        lines = git.answer("ls-remote", "--quiet", "--heads", "--tags", "--refs", "--", url).splitlines()
        known = [line.partition("\t")[2].split("/", 2)[-1] for line in lines]
        raise SourceError(
            f"the repository has no branch, tag or commit {ref!r}", where=shown(url), hint=did_you_mean(ref, known)
        )

    def _mirror(self, remote: str) -> Path:
        """The bare repository of a remote; for who holds its lock. What a killed process left in it is removed."""
        place = self.root / "mirrors" / _key(remote)
        if not place.is_dir():
            self._make(place, lambda part: self._init(part, remote))
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*"):
            for left in place.glob(pattern):
                left.unlink(missing_ok=True)
        return place

    def _init(self, folder: Path, remote: str) -> None:
        git, _ = self._git(folder, remote)
        git("init", "--quiet", "--bare", "--template=")
        write_whole(folder / "info" / "attributes", _ATTRIBUTES)

    def _fetched(self, remote: str, commit: str) -> Path:
        """The mirror of a remote, in which the commit is."""
        place = self.root / "mirrors" / _key(remote)
        if (place / "refs" / "kiln" / commit).exists():
            return place
        with locked(self.root / "locks" / _key(remote)):
            mirror = self._mirror(remote)
            if not (mirror / "refs" / "kiln" / commit).exists():
                self._fetch(mirror, remote, commit)
        return place

    def _fetch(self, mirror: Path, remote: str, commit: str) -> None:
        """Brings a commit: alone, by the branch that pointed to it, or with the whole history, as the server lets us."""
        git, url = self._git(mirror, remote)
        for wanted in filter(None, (commit, self._names.get((remote, commit)))):
            try:
                git(*_FETCH, "--depth=1", "--", url, f"+{wanted}:refs/kiln/new")
            except SourceError as bad:
                if not _REFUSED.search(bad.message):
                    raise
                continue
            if self._keep(git, "refs/kiln/new", commit):
                return
        self._fetch_all(mirror, remote)
        if not self._keep(git, commit, commit):
            raise SourceError(f"the repository has no commit {commit}", where=shown(remote))

    def _keep(self, git: Git, name: str, commit: str) -> bool:
        """Whether `name` is the commit, which then gets a reference of its own."""
        if git.output("rev-parse", "--verify", "--quiet", name + "^{commit}").strip() != commit:
            return False
        git("update-ref", f"refs/kiln/{commit}", commit)
        return True

    def _fetch_all(self, mirror: Path, remote: str) -> None:
        git, url = self._git(mirror, remote)
        depth = ("--unshallow",) if (mirror / "shallow").exists() else ()
        git(*_FETCH, *depth, "--", url, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

    def _fill(self, remote: str, commit: str, folder: Path, index: Path, depth: int) -> None:
        """Writes the files of a commit and of its submodules below `folder`; `index` is a file for git's own use."""
        if depth > _MAX_DEPTH:
            raise SourceError(f"submodules are nested more than {_MAX_DEPTH} levels deep", where=shown(remote))
        mirror = self._fetched(remote, commit)
        try:
            self._check_out(mirror, remote, commit, folder, index)
        except SourceError:
            if not self._was_damaged(mirror, remote):
                raise
            self._check_out(self._fetched(remote, commit), remote, commit, folder, index)
        for submodule in self._submodules(mirror, remote, commit):
            place = folder / submodule.path
            if not Path(os.path.realpath(place.parent)).is_relative_to(os.path.realpath(folder)):
                raise SourceError(f"the submodule {submodule.path} lies outside of the tree", where=shown(remote))
            place.mkdir(parents=True, exist_ok=True)
            try:
                self._fill(submodule.remote, submodule.commit, place, index, depth + 1)
            except SourceError as bad:
                raise SourceError(f"the submodule {submodule.path}: {bad}", where=shown(remote), hint=bad.hint) from bad

    def _was_damaged(self, mirror: Path, remote: str) -> bool:
        """Whether objects of a mirror are missing or broken; it is removed then: it is a copy."""
        with locked(self.root / "locks" / _key(remote)):
            git, _ = self._git(mirror, remote)
            if git("fsck", "--full", "--no-dangling", "--no-progress", check=False) == 0:
                return False
            shutil.rmtree(mirror)
        return True

    def _check_out(self, mirror: Path, remote: str, commit: str, folder: Path, index: Path) -> None:
        git, _ = self._git(mirror, remote)
        words = (f"--git-dir={mirror}", f"--work-tree={folder}")
        for left in (index, index.with_name(index.name + ".lock")):
            left.unlink(missing_ok=True)
        try:
            git(*words, "read-tree", commit, index=index)
            git(*words, "checkout-index", "--quiet", "--all", "--force", index=index)
        finally:
            index.unlink(missing_ok=True)

    def _submodules(self, mirror: Path, remote: str, commit: str) -> list[_Submodule]:
        """The submodules of a commit, except those that .gitmodules says are not to be checked out."""
        git, _ = self._git(mirror, remote)
        if git("cat-file", "-e", f"{commit}:.gitmodules", check=False):
            return []
        known = _gitmodules(git.answer("config", "--no-includes", "--blob", f"{commit}:.gitmodules", "--list", "-z"))
        found = []
        for line in git.answer("ls-tree", "-r", "-z", commit).split("\0"):
            if line.startswith("160000 "):
                words, _, path = line.partition("\t")
                fields = known.get(path, {})
                if fields.get("update") != "none":
                    url = _submodule_url(fields.get("url", ""), path, remote)
                    found.append(_Submodule(path, words.split()[2], url))
        return found


def _key(remote: str) -> str:
    return hashlib.sha256(without_password(remote)[0].encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _marker(place: Path) -> Path:
    return place.with_name(f".{place.name}.boot")


def _gitmodules(listing: str) -> dict[str, dict[str, str]]:
    """path -> its fields, of what `git config --list -z` prints of a .gitmodules."""
    modules: dict[str, dict[str, str]] = {}
    for item in listing.split("\0"):
        key, _, value = item.partition("\n")
        section, _, rest = key.partition(".")
        name, _, field = rest.rpartition(".")
        if section == "submodule" and name:
            modules.setdefault(name, {})[field] = value
    return {fields["path"]: fields for fields in modules.values() if "path" in fields}


def _submodule_url(url: str, path: str, parent: str) -> str:
    """Where a submodule comes from; `./` and `../` count from the parent's remote. A repository of this machine is only
    read for a parent that is one itself; raises `SourceError`."""
    if not url:
        raise SourceError(f".gitmodules has no url for the submodule {path}", where=shown(parent))
    if url.startswith(("./", "../")):
        url = _relative(url, parent)
    if url.startswith("-") or (is_local(url) and not (is_local(parent) and url.startswith(("/", "file://")))):
        raise SourceError(
            f"the submodule {path} is a repository of this machine: {url}", where=shown(parent),
            hint="Submodules come from http, https, ssh or git URLs.",
        )  # fmt: skip
    return url


def _relative(url: str, parent: str) -> str:
    base = parent.rstrip("/")
    while url.startswith(("./", "../")):
        up = url.startswith("../")
        url = url.partition("/")[2]
        if up:
            cut = max(base.rfind("/"), base.rfind(":"))
            base = base[: cut + 1].rstrip("/") if base[cut : cut + 1] == "/" else base[: cut + 1]
    return base + ("" if base.endswith(":") else "/") + url
