"""The one way to a server of a URL that somebody else wrote: a host is looked up once, every address that it has is
checked, and the connection goes to a checked address. There is no second look-up that could answer otherwise.

Where a proxy is configured for the URL, the proxy is what is dialled (without a check: the settings name it); it looks
the host up itself, so only a host written as an address is checked then.
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NewConnectionError

from kiln.errors import SourceError
from kiln.sources.policy import Address, Policy

Resolver = Callable[[str, int], list[Any]]


def _resolved(host: str, port: int) -> list[Any]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


class Dialer:
    """Connects to hosts that a policy allows. `resolve` looks a name up as `socket.getaddrinfo` does."""

    def __init__(self, policy: Policy, proxies: Mapping[str, str] | None = None, resolve: Resolver = _resolved) -> None:
        self.policy = policy
        self._proxies = proxies or {}
        self._resolve = resolve
        self._open: list[socket.socket] = []
        self._aborted = threading.Event()

    def proxy(self, url: str) -> str:
        """The proxy that a URL is fetched through, or empty; never one for this machine itself."""
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname or ""
        found = self._proxies.get(f"{parts.scheme}_proxy") or self._proxies.get("all_proxy") or ""
        bypassed = urllib.request.proxy_bypass_environment(host, {"no": self._proxies.get("no_proxy", "")})  # type: ignore[attr-defined]
        if not found or bypassed or host in ("localhost", "127.0.0.1", "::1"):
            return ""
        return found if "://" in found else f"http://{found}"

    @contextlib.contextmanager
    def pools(self, url: str) -> Iterator[urllib3.PoolManager]:
        """urllib3's pools for a URL, whose connections come from here."""
        proxy = self.proxy(url)
        if proxy:
            self._check_literal(urllib.parse.urlsplit(url).hostname or "")
        manager = _ProxyPools(self, proxy) if proxy else _Pools(self)
        try:
            yield manager
        finally:
            manager.clear()

    def _check_literal(self, host: str) -> None:
        """A host that is an address in some form (also `127.1` or `0x7f000001`) needs no look-up to be refused."""
        with contextlib.suppress(OSError):
            found = socket.inet_aton(host)
            self._check(host, ipaddress.IPv4Address(found))
        with contextlib.suppress(ValueError):
            self._check(host, ipaddress.ip_address(host.partition("%")[0]))

    def addresses(self, host: str, port: int) -> list[Any]:
        """What a host resolves to, all of it allowed; raises `SourceError`."""
        try:
            found = self._resolve(host, port)
        except (OSError, UnicodeError) as bad:
            raise SourceError(f"the host {host} cannot be found: {bad}", hint="Check the address.") from bad
        for *_, place in found:
            self._check(host, ipaddress.ip_address(str(place[0]).partition("%")[0]))
        return found

    def _check(self, host: str, address: Address) -> None:
        why = self.policy.fault(address)
        if why:
            raise SourceError(
                f"the host {host} has the address {address}, {why}: it is not asked",
                hint="Give a URL that is served elsewhere, or hand over the file itself.",
            )

    def connect(self, host: str, port: int, *, timeout: float | None, checked: bool = True) -> socket.socket:
        """A connection to the first address of a host that answers; raises `SourceError`, `OSError`."""
        found = self.addresses(host, port) if checked else self._resolve(host, port)
        failure: OSError = OSError(f"the host {host} has no address")
        for family, kind, protocol, _, place in found:
            made = socket.socket(family, kind, protocol)
            try:
                made.settimeout(timeout)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._keep(made)
                made.connect(place)
                return made
            except OSError as bad:
                made.close()
                failure = bad
        raise failure

    def _keep(self, made: socket.socket) -> None:
        """A second handle on the connection, for `abort`: the first one changes hands when TLS begins."""
        self._open.append(made.dup())
        if self._aborted.is_set():
            raise OSError("the transfer was stopped")

    def abort(self) -> None:
        """Ends all connections, from whatever thread; there will be no new ones."""
        self._aborted.set()
        for handle in list(self._open):
            with contextlib.suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of all connections."""
        while self._open:
            self._open.pop().close()


def _connections(dialer: Dialer, *, checked: bool) -> tuple[type[HTTPConnection], type[HTTPSConnection]]:
    """urllib3's connections with the dialer below them. Names of hosts stay what Host, SNI and certificates go by."""

    def dial(connection: HTTPConnection) -> socket.socket:
        host, timeout = connection._dns_host, connection.timeout
        try:
            seconds = timeout if isinstance(timeout, int | float) else None
            return dialer.connect(host.strip("[]"), connection.port or 0, timeout=seconds, checked=checked)
        except OSError as bad:
            raise NewConnectionError(connection, f"no connection to {host}: {bad}") from bad

    class Plain(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

    class Secure(HTTPSConnection):
        def _new_conn(self) -> socket.socket:
            return dial(self)

    return Plain, Secure


class _Pools(urllib3.PoolManager):
    def __init__(self, dialer: Dialer) -> None:
        super().__init__()
        self.connections = _connections(dialer, checked=True)

    def _new_pool(self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None) -> Any:
        pool: Any = super()._new_pool(scheme, host, port, request_context)
        pool.ConnectionCls = self.connections[scheme == "https"]
        return pool


class _ProxyPools(urllib3.ProxyManager):
    def __init__(self, dialer: Dialer, proxy: str) -> None:
        user = urllib.parse.unquote(urllib3.util.parse_url(proxy).auth or "")
        super().__init__(proxy, proxy_headers=urllib3.make_headers(proxy_basic_auth=user) if user else None)
        self.connections = _connections(dialer, checked=False)

    def _new_pool(self, scheme: str, host: str, port: int, request_context: dict[str, Any] | None = None) -> Any:
        pool: Any = super()._new_pool(scheme, host, port, request_context)
        pool.ConnectionCls = self.connections[scheme == "https"]
        return pool
