"""git, run without a shell and without prompts; the words that name a repository, and how a URL is shown."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import shutil
import signal
import subprocess
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings

PROTOCOLS = "http:https:git:ssh"
# What helpers of the user (credentials, keys) need to find their own files; nothing that is called GIT_.
_PASSED = ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")
_REMOTE = re.compile(r"^(?:git://|ssh://|file://|git@|github\.com/|https?://[^#?]+\.git(?:[#?].*)?$)")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/?#]*@)?([^/?#@]*)([^?#]*)")
_SCP = re.compile(r"^[^/:]+:(?!//)")


class GitSource(Struct, frozen=True):
    """A repository, what to check out of it (branch, tag, commit; empty: its default), and a folder in it."""

    remote: str
    ref: str = ""
    folder: str = ""


def parse_git(url: str) -> GitSource:
    """`REMOTE[#ref[:folder]]`, or with `?ref=`, `?branch=`, `?tag=`, `?commit=`, `?subdir=`; raises `SourceError`."""
    remote, _, fragment = url.partition("#")
    ref, _, folder = fragment.partition(":")
    remote, _, query = remote.partition("?")
    for name, value in urllib.parse.parse_qsl(query):
        if name in ("ref", "branch", "tag", "commit", "checksum"):
            ref = ref or value
        elif name == "subdir":
            folder = value
    if remote.startswith("-") or ref.startswith("-"):
        raise SourceError("not a git repository", where=shown(url))
    return GitSource(remote, ref, folder.strip("/"))


def is_git(text: str) -> bool:
    """Whether a context is a git repository by its form: `https://host/x.git`, `git@host:x`, `ssh://`, `file://`."""
    return _REMOTE.match(text) is not None


def is_local(remote: str) -> bool:
    """Whether a remote is a folder of this machine, and not a URL or `host:path`."""
    return remote.startswith("file://") or ("://" not in remote and not _SCP.match(remote))


def shown(url: str) -> str:
    """A URL without user, password and query; other texts as they are."""
    parts = _URL.match(url)
    return parts[1] + parts[3] + parts[4] if parts else url


def without_password(url: str) -> tuple[str, Mapping[str, str]]:
    """(an http URL without the user and password written in it, git's configuration that sends them instead). They are
    handed over in the environment, because arguments can be read by every process of the machine."""
    parts = _URL.match(url)
    if parts is None or not parts[2] or parts[1] not in ("http://", "https://"):
        return url, {}
    user = urllib.parse.unquote(parts[2][:-1])
    site = parts[1] + parts[3]
    bare = site + url[len(parts[1] + parts[2] + parts[3]) :]
    if ":" not in parts[2]:
        return bare, {f"credential.{site}.username": user}
    words = base64.b64encode(user.encode()).decode()
    return bare, {f"http.{site}/.extraHeader": f"Authorization: Basic {words}"}


class Git:
    """git in one folder, without prompts and without the user's configuration of hooks. `where` stands in errors,
    `local` also lets it read repositories of this machine, `config` is further configuration."""

    def __init__(
        self, folder: Path, where: str, settings: Settings, cancel: Cancel, *, local: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        git = shutil.which("git", path=settings.path or None)
        if git is None:
            raise SourceError("git is not installed", where=shown(where), hint="Install the package git.")
        self._git, self._folder, self._where, self._cancel = git, folder, shown(where), cancel
        self._env = _environment(settings, {"core.hooksPath": "/dev/null", **(config or {})}) | {
            "GIT_ALLOW_PROTOCOL": PROTOCOLS + (":file" if local else "")
        }

    def __call__(self, *args: str, check: bool = True, index: Path | None = None) -> int:
        """The exit code of `git ARGS`; raises `SourceError` for one that is not 0, unless `check` is off. `index` is the
        file that takes the place of the repository's index."""
        done = self._run(args, index)
        if check and done.returncode:
            raise self._failed(args, done)
        return done.returncode

    def output(self, *args: str) -> str:
        """What `git ARGS` prints, whatever its exit code."""
        return self._run(args, None).stdout

    def answer(self, *args: str) -> str:
        """What `git ARGS` prints; raises `SourceError` where it fails."""
        done = self._run(args, None)
        if done.returncode:
            raise self._failed(args, done)
        return done.stdout

    def _failed(self, args: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> SourceError:
        verb = next((word for word in args if not word.startswith("-")), "")
        return SourceError(
            f"git {verb} failed: {done.stderr.strip()[-500:]}", where=self._where,
            hint="Check the address, the branch and your access.",
        )  # fmt: skip

    def _run(self, args: tuple[str, ...], index: Path | None) -> subprocess.CompletedProcess[str]:
        self._cancel.check()
        process = subprocess.Popen(
            [self._git, *args], cwd=self._folder, env=self._env | ({"GIT_INDEX_FILE": str(index)} if index else {}),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            errors="surrogateescape", start_new_session=True, umask=0o022,
        )  # fmt: skip
        try:
            with self._cancel.ending(lambda: _kill_group(process.pid)):
                out, err = process.communicate()
        except BaseException:
            _kill_group(process.pid)
            process.communicate()
            raise
        self._cancel.check()
        readable = err.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return subprocess.CompletedProcess(process.args, process.returncode, out, readable)


def _environment(settings: Settings, config: Mapping[str, str]) -> dict[str, str]:
    """A whole environment: nothing that the caller set for git reaches it."""
    given = settings.environment
    env = {
        "PATH": settings.path or "/usr/bin:/bin", "HOME": given.get("HOME", "/"), "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "GIT_LFS_SKIP_SMUDGE": "1", "GIT_CONFIG_COUNT": str(len(config)), **settings.proxies,
    }  # fmt: skip
    env |= {name: given[name] for name in _PASSED if given.get(name)}
    if settings.ssh_auth_sock:
        env["SSH_AUTH_SOCK"] = settings.ssh_auth_sock
    for number, (name, value) in enumerate(config.items()):
        env |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    return env


def _kill_group(leader: int) -> None:
    """Ends a process with the helpers that it started (git has one that talks to the server)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
