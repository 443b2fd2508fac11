"""Files by URL and git repositories. Every hop of a download goes through one dialer that looks at the resolved address."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import os
import posixpath
import secrets
import shutil
import signal
import socket
import subprocess
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.store.blobs import disk_error

_CHUNK = 1 << 20
_MAX_HOPS = 10
_METADATA = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))


def check_address(url: str) -> None:
    """Refuses schemes other than http(s) and hosts that resolve to link-local addresses (where clouds keep their
    metadata); raises `SourceError`."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError("only http and https URLs can be fetched", where=_shown(url))
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as bad:
        raise SourceError(f"the host {parts.hostname} cannot be found: {bad}", where=_shown(url)) from bad
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if any(ip in network for network in _METADATA if ip.version == network.version):
            raise SourceError(f"the host {parts.hostname} has the link-local address {ip}", where=_shown(url))


def _shown(url: str) -> str:
    """A URL without user, password and query."""
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    return urllib.parse.urlunsplit((parts.scheme, host + (f":{parts.port}" if parts.port else ""), parts.path, "", ""))


def file_name(url: str) -> str:
    """The name that a downloaded file has."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    return name if name not in ("", ".", "..") else "__unnamed__"


def download(url: str, folder: Path, settings: Settings, cancel: Cancel, *, limit: int = 0) -> tuple[Path, str]:
    """(path of the file in a new folder below `folder`, its sha256 digest); at most `limit` bytes if that is not 0."""
    import urllib3

    place = folder / f"download-{secrets.token_hex(8)}"
    place.mkdir(parents=True)
    target = place / file_name(url)
    manager = _manager(url, settings)
    try:
        for _ in range(_MAX_HOPS):
            check_address(url)
            response = manager.request(
                "GET", url, preload_content=False, redirect=False, retries=urllib3.Retry(3, redirect=0, raise_on_status=False),
                timeout=urllib3.Timeout(connect=10, read=60), headers={"User-Agent": "kiln", "Accept-Encoding": "identity"},
            )  # fmt: skip
            try:
                location = response.headers.get("Location")
                if response.status in (301, 302, 303, 307, 308) and location:
                    url = urllib.parse.urljoin(url, location)
                    continue
                if response.status >= 300:
                    raise SourceError(f"the server answered {response.status} {response.reason}", where=_shown(url))
                return target, _save(response, target, cancel, limit, url)
            finally:
                response.drain_conn() if location else response.close()
    except urllib3.exceptions.HTTPError as bad:
        raise SourceError(
            f"cannot be fetched: {bad}", where=_shown(url), hint="Check the address and the network."
        ) from bad
    finally:
        manager.clear()
    raise SourceError("too many redirects", where=_shown(url))


def _manager(url: str, settings: Settings):  # type: ignore[no-untyped-def]  # noqa: ANN202
    import urllib3

    scheme = urllib.parse.urlsplit(url).scheme
    proxy = settings.proxies.get(f"{scheme}_proxy", "")
    host = urllib.parse.urlsplit(url).hostname or ""
    if proxy and host not in ("localhost", "127.0.0.1", "::1"):
        return urllib3.ProxyManager(proxy)
    return urllib3.PoolManager()


def _save(response, target: Path, cancel: Cancel, limit: int, url: str) -> str:  # type: ignore[no-untyped-def]  # noqa: ANN001
    hasher = hashlib.sha256()
    size = 0
    with target.open("xb") as file:
        for chunk in response.stream(_CHUNK):
            cancel.check()
            size += len(chunk)
            if limit and size > limit:
                raise SourceError(f"the file is larger than {limit} bytes", where=_shown(url))
            hasher.update(chunk)
            try:
                file.write(chunk)
                file.flush()
            except OSError as bad:
                raise disk_error(bad, target) from bad
    return "sha256:" + hasher.hexdigest()


@dataclass(frozen=True, slots=True)
class GitSource:
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
        raise SourceError("not a git repository", where=url)
    return GitSource(remote, ref, folder.strip("/"))


def clone(
    source: GitSource, folder: Path, settings: Settings, cancel: Cancel, *, keep_git: bool, checksum: str = ""
) -> Path:
    """A shallow checkout in a new folder below `folder`; returns the wanted folder of it. Raises `SourceError`."""
    git = shutil.which("git")
    if git is None:
        raise SourceError("git is not installed", where=source.remote, hint="Install the package git.")
    place = folder / f"git-{secrets.token_hex(8)}"
    place.mkdir(parents=True)
    run = _Git(git, place, source.remote, settings, cancel)
    run("init", "--quiet")
    run("remote", "add", "origin", "--", source.remote)
    ref = source.ref or "HEAD"
    if run("fetch", "--quiet", "--depth=1", "origin", "--", ref, check=False):
        run("fetch", "--quiet", "--tags", "--force", "origin", "+refs/heads/*:refs/remotes/origin/*")
        run("remote", "set-head", "origin", "--auto", check=False)
        run(
            "checkout",
            "--quiet",
            "--detach",
            ref if run("rev-parse", "--verify", "--quiet", ref, check=False) == 0 else f"refs/remotes/origin/{ref}",
        )
    else:
        run("checkout", "--quiet", "--detach", "FETCH_HEAD")
    if (place / ".gitmodules").exists():
        run("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    commit = run.output("rev-parse", "HEAD").strip()
    if checksum and not commit.startswith(checksum):
        raise SourceError(f"the commit is {commit}, not {checksum}", where=source.remote)
    wanted = (place / source.folder).resolve()
    if not wanted.is_relative_to(place.resolve()) or not wanted.is_dir():
        raise SourceError(f"the repository has no folder {source.folder}", where=source.remote)
    if not keep_git:
        for inner in [place / ".git", *place.rglob(".git")]:
            shutil.rmtree(inner, ignore_errors=True) if inner.is_dir() else inner.unlink(missing_ok=True)
    return wanted


class _Git:
    """git in one folder, without prompts and without the user's configuration of hooks."""

    def __init__(self, git: str, folder: Path, remote: str, settings: Settings, cancel: Cancel) -> None:
        self._git, self._folder, self._remote, self._cancel = git, folder, remote, cancel
        self._env: Mapping[str, str] = {
            "PATH": settings.path or "/usr/bin:/bin", "HOME": settings.environment.get("HOME", "/"),
            "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "true", "LC_ALL": "C", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
            "GIT_ALLOW_PROTOCOL": "http:https:git:ssh",
        } | ({"SSH_AUTH_SOCK": settings.ssh_auth_sock} if settings.ssh_auth_sock else {})  # fmt: skip

    def __call__(self, *args: str, check: bool = True) -> int:
        done = self._run(args)
        if check and done.returncode:
            raise SourceError(
                f"git {args[0]} failed: {done.stderr.strip()[-500:]}", where=_shown(self._remote) or self._remote,
                hint="Check the address, the branch and your access.",
            )  # fmt: skip
        return done.returncode

    def output(self, *args: str) -> str:
        return self._run(args).stdout

    def _run(self, args: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            [self._git, *args], cwd=self._folder, env=self._env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        with self._cancel.ending(lambda: _kill_group(process.pid)):
            out, err = process.communicate()
        self._cancel.check()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _kill_group(leader: int) -> None:
    """Ends a process with the helpers that it started (git has one that talks to the server)."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
