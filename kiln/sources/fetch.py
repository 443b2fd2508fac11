"""Files by URL and git repositories. Every hop of a download goes through one dialer that checks the resolved address."""

from __future__ import annotations

import os
import posixpath
import shutil
import urllib.parse
from collections.abc import Mapping
from pathlib import Path

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.git import Git, GitSource, parse_git, shown, without_password
from kiln.sources.policy import Policy

__all__ = ["clone", "download", "file_name", "headers", "parse_git"]
# What ADD and contexts may reach: the network of whoever builds, but not what clouds tell their machines.
WITHIN = Policy(private=True)


def file_name(url: str) -> str:
    """The name that a downloaded file has."""
    name = posixpath.basename(urllib.parse.unquote(urllib.parse.urlsplit(url).path))
    if name in ("", ".", ".."):
        return "__unnamed__"
    if name.isprintable() and len(name.encode("utf-8", "replace")) <= 255:
        return name
    from kiln.sources.transfer import safe_name

    return safe_name(name) or "__unnamed__"


def download(
    url: str, folder: Path, settings: Settings, cancel: Cancel, *, limit: int = 0, checksum: str = "",
    policy: Policy = WITHIN, timeout: float = 0, stall: float = 60, sent: bool = False,
) -> tuple[Path, str]:  # fmt: skip
    """(path of the file in a new folder below `folder`, its sha256 digest).

    At most `limit` bytes, in at most `timeout` seconds, of which at most `stall` without a byte (0: no bound); the
    digest has to be `checksum` (`sha256:...`) if there is one. `sent`: the file has the name that the server sends, if it
    does. Broken connections are taken up again. Raises `SourceError`, `StoreError`, `CancelledBuild`; then nothing is left.
    """
    from kiln.sources.dial import Dialer
    from kiln.sources.hops import check_url
    from kiln.sources.transfer import Bounds, Transfer, sent_name

    check_url(url)
    place = folder / f"download-{os.urandom(8).hex()}"
    place.mkdir(parents=True)
    try:
        whole = Transfer(
            url, place / ".part", settings, cancel, Dialer(policy, settings.proxies), Bounds(limit, timeout, stall)
        )
        digest = whole.run()
        if checksum and digest != checksum.lower():
            raise SourceError(
                f"the file has the digest {digest}, not {checksum}", where=shown(url),
                hint="Somebody changed the file, or the checksum is of another one.",
            )  # fmt: skip
        target = place / (sent_name(whole.headers, url) if sent else file_name(url))
        return (place / ".part").rename(target), digest
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def headers(url: str, settings: Settings, policy: Policy = WITHIN) -> Mapping[str, str]:
    """What the server says of a file without sending it; raises `SourceError`."""
    import urllib3

    from kiln.sources.dial import Dialer
    from kiln.sources.hops import answered

    dialer = Dialer(policy, settings.proxies)
    try:
        with answered("HEAD", url, settings, dialer) as (final, response):
            if response.status >= 300:
                raise SourceError(f"the server answered {response.status} {response.reason}", where=shown(final))
            return response.headers
    except urllib3.exceptions.HTTPError as bad:
        raise SourceError(
            f"cannot be asked: {bad}", where=shown(url), hint="Check the address and the network."
        ) from bad
    finally:
        dialer.close()


def clone(
    source: GitSource, folder: Path, settings: Settings, cancel: Cancel, *, keep_git: bool, checksum: str = ""
) -> Path:
    """A shallow checkout in a new folder below `folder`; returns the wanted folder of it. Raises `SourceError`."""
    place = folder / f"git-{os.urandom(8).hex()}"
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
