"""One request, one answer, over urllib3: no retries, no redirects, no credentials of its own.

The only module that imports urllib3, and itself imported when the first request is made: a build that asks no registry
does not pay for it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from ssl import SSLContext
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
    SSLError,
)

from kiln import __version__
from kiln.errors import RegistryError, UsageError
from kiln.registry.certificates import CERTS_D, context
from kiln.registry.faults import TransientError, printable
from kiln.registry.places import registry_host
from kiln.registry.proxies import proxy_for
from kiln.settings import Settings

CHUNK = 1 << 20
CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
_DRAIN = 64 << 10
_KEPT = 32  # connections: as many as threads of one bake may have under way
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "HTTP_REQUEST",
    "UNKNOWN_PROTOCOL",
    "PACKET_LENGTH_TOO_LONG",
)
Body = bytes | Callable[[], Iterable[bytes]] | None


class Response:
    """An answer whose body is still to be read, in a `with` block. `foreign`: another host than the asked gave it."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str) -> None:
        self._raw = raw
        self.url = url
        self.status = raw.status
        self.foreign = False

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def header(self, name: str) -> str:
        """The header's value (several joined by a comma), or the empty string."""
        return self._raw.headers.get(name, "")

    def read(self, limit: int, *, cut: bool = False) -> bytes:
        """The whole body; raises `RegistryError` where it is longer than `limit` bytes, or cuts it off there."""
        data = b""
        for chunk in self.chunks():
            data += chunk
            if len(data) > limit and not cut:
                raise RegistryError(f"the answer is larger than {limit >> 20} MiB", where=_site(self.url))
            if len(data) > limit:
                return data[:limit]
        return data

    def chunks(self) -> Iterator[bytes]:
        """The body as sent, at most 1 MiB at a time; raises `TransientError` where the connection breaks."""
        try:
            yield from self._raw.stream(CHUNK, decode_content=False)
        except (HTTPError, OSError) as bad:
            raise _failure(bad, self.url, reading=True) from bad

    def close(self) -> None:
        """Gives the connection back if next to nothing is left to read, else closes it."""
        left = getattr(self._raw, "length_remaining", None)
        try:
            if left is not None and left <= _DRAIN:
                self._raw.drain_conn()
        finally:
            self._raw.close()
            self._raw.release_conn()


class Wire:
    """Connections to every host, kept open; safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pools: dict[str, urllib3.HTTPConnectionPool | urllib3.ProxyManager] = {}
        self._open = contextlib.ExitStack()
        self._lock = threading.Lock()
        self._answered: set[str] = set()

    def request(
        self, method: str, url: str, headers: Mapping[str, str], body: Body = None, seconds: float = READ_SECONDS
    ) -> Response:
        """The answer, whatever its status; raises `TransientError`, or `RegistryError` for what will not pass (TLS)."""
        parts = urlsplit(url)
        try:
            pool = self._pool(parts.scheme, parts.netloc)
            raw = pool.urlopen(
                method,
                url if isinstance(pool, urllib3.ProxyManager) else _target(url, parts.scheme, parts.netloc),
                headers={"User-Agent": f"kiln/{__version__}", **headers},
                body=body() if callable(body) else body,
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=seconds),
                retries=False,
                redirect=False,
                preload_content=False,
            )
        except (HTTPError, OSError) as bad:
            raise self._patient(_failure(bad, url), url) from bad
        self._answered.add(parts.netloc)
        return Response(raw, url)

    def close(self) -> None:
        """Closes every connection."""
        with self._lock:
            self._open.close()
            self._pools.clear()

    def _patient(self, failure: RegistryError, url: str) -> RegistryError:
        """A host that has answered before is likely to come back (a restart), a mistyped one is not."""
        if isinstance(failure, TransientError) and urlsplit(url).netloc in self._answered:
            failure.patience = 5
        return failure

    def _pool(self, scheme: str, netloc: str) -> urllib3.HTTPConnectionPool | urllib3.ProxyManager:
        site = f"{scheme}://{netloc}"
        with self._lock:
            if site not in self._pools:
                pool = self._make_pool(scheme, netloc)
                self._open.enter_context(pool)
                self._pools[site] = pool
            return self._pools[site]

    def _make_pool(self, scheme: str, netloc: str) -> urllib3.HTTPConnectionPool | urllib3.ProxyManager:
        host = registry_host(netloc)
        proxy = proxy_for(self._settings.proxies, scheme, netloc)
        tls = context(self._settings, host) if scheme == "https" else None
        if tls is not None and not self._settings.rules(host).verify:
            urllib3.disable_warnings(InsecureRequestWarning)
        if proxy:
            return _through(proxy, tls)
        options = {"ssl_context": tls} if tls is not None else {}
        return urllib3.connection_from_url(f"{scheme}://{netloc}", maxsize=_KEPT, **options)


def _target(url: str, scheme: str, netloc: str) -> str:
    """The path and query of a URL."""
    target = url[len(scheme) + 3 + len(netloc) :]
    return target if target.startswith("/") else f"/{target}"


def _through(proxy: str, tls: SSLContext | None) -> urllib3.ProxyManager:
    parts = urlsplit(proxy)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("the proxy is not an http or https URL", hint="Give HTTPS_PROXY as http://host:port.")
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else None
    headers = urllib3.make_headers(proxy_basic_auth=user) if user else None
    plain = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return urllib3.ProxyManager(plain, proxy_headers=headers, num_pools=1, maxsize=_KEPT, ssl_context=tls)


def _site(url: str) -> str:
    """Where a URL points without its query: storage hosts sign their URLs there."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _failure(bad: Exception, url: str, *, reading: bool = False) -> RegistryError:
    """A connection's failure in words, worth as many attempts as it deserves."""
    site, host = _site(url), urlsplit(url).netloc
    reason = printable(str(bad.args[-1] if bad.args else bad))
    if reading:
        return TransientError(f"the connection to {host} broke in the middle of the answer", where=site, detail=reason)
    if isinstance(bad, SSLError):
        return _tls_failure(reason, site, registry_host(host))
    if isinstance(bad, ProxyError):
        return _unreachable(f"{host} cannot be reached through the proxy", site, reason, 3)
    if isinstance(bad, NameResolutionError):
        return _unreachable(f"the host name of {host} is not known", site, reason, 2)
    if isinstance(bad, NewConnectionError):
        return _unreachable(f"{host} cannot be reached: {_plain_reason(bad)}", site, reason, 3)
    if isinstance(bad, ConnectTimeoutError):
        return _unreachable(f"{host} did not answer within {CONNECT_SECONDS:.0f} s", site, reason, 2)
    if isinstance(bad, ReadTimeoutError):
        return TransientError(f"{host} did not answer in time", where=site, detail=reason)
    return TransientError(f"the connection to {host} broke", where=site, detail=reason)


def _plain_reason(bad: Exception) -> str:
    cause = bad.__cause__ or bad.__context__
    return str(getattr(cause, "strerror", None) or "no connection").lower()


def _unreachable(message: str, site: str, detail: str, patience: int) -> TransientError:
    hint = "Check the registry's name and port, that it runs, and the network (proxy: HTTPS_PROXY, NO_PROXY)."
    return TransientError(message, hint=hint, where=site, detail=detail, patience=patience)


def _tls_failure(reason: str, site: str, host: str) -> RegistryError:
    rule = f'[registry."{host}"]'
    if any(mark in reason for mark in _NOT_TLS):
        return RegistryError(
            f"{host} does not speak https, and plain http is refused for a host that is not this machine",
            hint=f"If the network is trusted, allow it in config.toml: {rule} http = true",
            where=site,
            detail=reason,
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        why = reason.partition("certificate verify failed: ")[2] or reason
        return RegistryError(
            f"the certificate of {host} cannot be verified: {why}",
            hint=f'Give its CA in config.toml: {rule} ca = "/path/ca.crt", or put it into {CERTS_D / host}/ca.crt.',
            where=site,
            detail=reason,
        )
    return TransientError(f"TLS with {host} failed: {reason}", where=site, detail=reason, patience=3)
