"""Files by URL and git repositories. Every hop of a download goes through one dialer that looks at the resolved address."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
import posixpath
import secrets
import shutil
import socket
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.git import Git, GitSource, parse_git, shown, without_password
from kiln.store.blobs import disk_error

__all__ = ["check_address", "clone", "download", "file_name", "parse_git"]
_CHUNK = 1 << 20
_MAX_HOPS = 10
_METADATA = (ipaddress.ip_network("169.254.0.0/16"), ipaddress.ip_network("fe80::/10"))


def check_address(url: str) -> None:
    """Refuses schemes other than http(s) and hosts that resolve to link-local addresses (where clouds keep their
    metadata); raises `SourceError`."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SourceError("only http and https URLs can be fetched", where=shown(url))
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except OSError as bad:
        raise SourceError(f"the host {parts.hostname} cannot be found: {bad}", where=shown(url)) from bad
    for *_, address in found:
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if any(ip in network for network in _METADATA if ip.version == network.version):
            raise SourceError(f"the host {parts.hostname} has the link-local address {ip}", where=shown(url))


def file_name(url: str) -> str:
    """The name that a downloaded file has."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    return name if name not in ("", ".", "..") else "__unnamed__"


def download(url: str, folder: Path, settings: Settings, cancel: Cancel, *, limit: int = 0) -> tuple[Path, str]:
    """(path of the file in a new folder below `folder`, its sha256 digest); at most `limit` bytes if that is not 0."""
    place = folder / f"download-{secrets.token_hex(8)}"
    place.mkdir(parents=True)
    target = place / file_name(url)
    with _answered("GET", url, settings) as (final, response):
        return target, _save(response, target, cancel, limit, final)


def headers(url: str, settings: Settings) -> Mapping[str, str]:
    """What the server says of a file without sending it; raises `SourceError`."""
    with _answered("HEAD", url, settings) as (_, response):
        found: Mapping[str, str] = response.headers
        return found


@contextlib.contextmanager
def _answered(method: str, url: str, settings: Settings) -> Iterator[tuple[str, Any]]:
    """(URL after redirects, the answer to a request there), each hop checked; raises `SourceError`."""
    import urllib3

    manager = _manager(url, settings)
    try:
        for _ in range(_MAX_HOPS):
            check_address(url)
            response = manager.request(
                method, url, preload_content=False, redirect=False, retries=urllib3.Retry(3, redirect=0, raise_on_status=False),
                timeout=urllib3.Timeout(connect=10, read=60), headers={"User-Agent": "kiln", "Accept-Encoding": "identity"},
            )  # fmt: skip
            location = response.headers.get("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                response.drain_conn()
                url = urllib.parse.urljoin(url, location)
                continue
            with contextlib.closing(response):
                if response.status >= 300:
                    raise SourceError(f"the server answered {response.status} {response.reason}", where=shown(url))
                yield url, response
                return
        raise SourceError("too many redirects", where=shown(url))
    except urllib3.exceptions.HTTPError as bad:
        raise SourceError(
            f"cannot be fetched: {bad}", where=shown(url), hint="Check the address and the network."
        ) from bad
    finally:
        manager.clear()


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
                raise SourceError(f"the file is larger than {limit} bytes", where=shown(url))
            hasher.update(chunk)
            try:
                file.write(chunk)
                file.flush()
            except OSError as bad:
                raise disk_error(bad, target) from bad
    return "sha256:" + hasher.hexdigest()


def clone(
    source: GitSource, folder: Path, settings: Settings, cancel: Cancel, *, keep_git: bool, checksum: str = ""
) -> Path:
    """A shallow checkout in a new folder below `folder`; returns the wanted folder of it. Raises `SourceError`."""
    place = folder / f"git-{secrets.token_hex(8)}"
    place.mkdir(parents=True)
    remote, config = without_password(source.remote)
    run = Git(place, remote, settings, cancel, config=config)
    run("init", "--quiet")
    run("remote", "add", "origin", "--", remote)
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
        raise SourceError(f"the commit is {commit}, not {checksum}", where=shown(remote))
    wanted = (place / source.folder).resolve()
    if not wanted.is_relative_to(place.resolve()) or not wanted.is_dir():
        raise SourceError(f"the repository has no folder {source.folder}", where=shown(remote))
    if not keep_git:
        for inner in [place / ".git", *place.rglob(".git")]:
            shutil.rmtree(inner, ignore_errors=True) if inner.is_dir() else inner.unlink(missing_ok=True)
    return wanted
