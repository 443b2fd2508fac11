"""A request and the redirects that it is answered with: each hop is checked, passwords stay with the first host."""

from __future__ import annotations

import base64
import contextlib
import netrc
import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import urllib3

from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.git import shown

if TYPE_CHECKING:
    from kiln.sources.dial import Dialer

MAX_HOPS = 10
CONNECT = 10.0
STALL = 60.0
_REDIRECTS = (301, 302, 303, 307, 308)
_UNSAFE = re.compile(r"[\x00-\x20\x7f\\]")
_PORTS = {"http": 80, "https": 443}


def check_url(url: str) -> None:
    """Refuses what is no plain http(s) URL, and one with a user or password in it; raises `SourceError`."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as bad:
        raise SourceError(f"not a URL: {bad}", where=shown(url)) from bad
    if _UNSAFE.search(url):
        raise SourceError(
            "a URL has no spaces, backslashes or control characters",
            where=repr(shown(url)),
            hint="Write %20 for a space.",
        )
    if parts.scheme not in _PORTS or not host or port == 0:
        raise SourceError("only http and https URLs can be fetched", where=shown(url))
    if "@" in parts.netloc:
        raise SourceError(
            "the URL has a user or password in it, which would end up in logs and histories", where=shown(url),
            hint="Leave it out; for a package, ~/.netrc can hold it (machine HOST login USER password WORD).",
        )  # fmt: skip


@contextlib.contextmanager
def answered(
    method: str, url: str, settings: Settings, dialer: Dialer, headers: Mapping[str, str] | None = None,
    stall: float = STALL,
) -> Iterator[tuple[str, urllib3.BaseHTTPResponse]]:  # fmt: skip
    """(URL after redirects, the answer to a request there, whatever its status). `stall` is how many seconds may pass
    without a byte. Raises `SourceError`, and urllib3's `HTTPError` where the connection fails."""
    first = url
    with contextlib.ExitStack() as stack:
        for _ in range(MAX_HOPS + 1):
            check_url(url)
            response = _asked(method, url, first, settings, dialer, {**(headers or {})}, stall, stack)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or not location:
                yield url, response
                return
            url = _next(url, location)
        raise SourceError(f"more than {MAX_HOPS} redirects", where=shown(first))


def _asked(
    method: str, url: str, first: str, settings: Settings, dialer: Dialer, headers: dict[str, str], stall: float,
    stack: contextlib.ExitStack,
) -> urllib3.BaseHTTPResponse:  # fmt: skip
    """The answer of one hop; what it holds is let go of at the end of `stack`."""
    headers |= {"User-Agent": "kiln", "Accept-Encoding": "identity", **_authorization(url, first, settings, dialer)}
    try:
        manager = stack.enter_context(dialer.pools(url))
        response = manager.request(
            method, url, headers=headers, preload_content=False, redirect=False, retries=False, decode_content=False,
            timeout=urllib3.Timeout(connect=CONNECT, read=stall),
        )  # fmt: skip
    except SourceError as bad:
        bad.at(shown(url))
        raise
    except urllib3.exceptions.LocationValueError as bad:
        raise SourceError("not a URL that can be fetched", where=shown(url)) from bad
    stack.callback(response.close)
    return response


def _next(url: str, location: str) -> str:
    """Where a redirect leads; never from https to http."""
    try:
        following = urllib.parse.urljoin(url, location)
    except ValueError as bad:
        raise SourceError(f"it redirects to what is no URL: {bad}", where=shown(url)) from bad
    if url.startswith("https:") and urllib.parse.urlsplit(following).scheme == "http":
        raise SourceError(
            "it redirects from https to http, which anyone on the way can change", where=shown(url),
            hint="Give the URL that it leads to, if you trust the way to it.",
        )  # fmt: skip
    return following


def _authorization(url: str, first: str, settings: Settings, dialer: Dialer) -> dict[str, str]:
    """The password that the user's netrc has for the host of the first URL, as a header for that host alone."""
    if not dialer.policy.netrc or not _same_host(url, first):
        return {}
    found = _hosts(settings).get(urllib.parse.urlsplit(url).hostname or "")
    if found is None:
        return {}
    words = base64.b64encode(f"{found[0]}:{found[2] or ''}".encode()).decode()
    return {"Authorization": f"Basic {words}"}


def _same_host(url: str, first: str) -> bool:
    """Whether two URLs have one host and port; http and https at their usual ports count as one."""
    here, there = urllib.parse.urlsplit(url), urllib.parse.urlsplit(first)
    ports = [parts.port or _PORTS[parts.scheme] for parts in (here, there)]
    return here.hostname == there.hostname and (ports[0] == ports[1] or set(ports) <= set(_PORTS.values()))


def _hosts(settings: Settings) -> Mapping[str, tuple[str, str, str]]:
    named = settings.environment.get("NETRC", "")
    home = settings.environment.get("HOME", "")
    path = Path(named) if named else Path(home) / ".netrc"
    if not named and not (home and path.is_file()):
        return {}
    try:
        hosts = netrc.netrc(str(path)).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError) as bad:
        why = bad.msg if isinstance(bad, netrc.NetrcParseError) else str(bad)
        raise SourceError(f"cannot be read: {why}", where=str(path), hint="Check the file that NETRC names.") from bad
    return {host: entry for host, entry in hosts.items() if host != "default"}
