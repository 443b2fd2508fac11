"""Requests to registries: credentials, redirects, and another try where a failure may pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from msgspec import Struct, field
from msgspec.structs import replace

from kiln.errors import RegistryError
from kiln.registry.auth import Authenticator, Find, TokenQuestion
from kiln.registry.backoff import Backoff
from kiln.registry.credentials import Credentials
from kiln.registry.faults import refusal
from kiln.registry.places import Places
from kiln.settings import Settings

if TYPE_CHECKING:
    from kiln.registry.wire import Response, Wire

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_TOKEN_LIMIT = 1 << 20
_TLS_SPOKEN = (b"HTTP request to an HTTPS server", b"HTTP request was sent to HTTPS port")


class Request(Struct, frozen=True):
    """One request to the registry `host`. `target` is a path of its API or a URL that it gave.

    `what` and `where` are for errors. A body that is a function is streamed: called for each attempt, not retried here.
    """

    host: str
    method: str
    target: str
    what: str
    where: str
    scopes: frozenset[str] = frozenset()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Callable[[], Iterable[bytes]] | None = None
    seconds: float = 60

    def __repr__(self) -> str:
        return f"Request({self.host!r}, {self.method!r}, {self.target!r}, ...)"


class Transport:
    """What a process uses to talk to every registry; keeps connections and tokens. Safe to use from several threads."""

    def __init__(self, settings: Settings, find: Find | None = None, backoff: Backoff | None = None) -> None:
        self.settings = settings
        self.backoff = backoff or Backoff()
        self._places = Places(settings)
        self._auth = Authenticator(find or Credentials(settings).find, self._ask)
        self._lock = threading.Lock()
        self._opened: Wire | None = None

    def send(self, request: Request, accept: tuple[int, ...] = (200,)) -> Response:
        """The answer, if its status is one of `accept`; raises `RegistryError` (`AuthError`, `NotFoundError`) else."""
        if callable(request.body):
            return self._attempt(request, accept)
        return self.backoff.run(lambda: self._attempt(request, accept))

    def url(self, host: str, target: str) -> str:
        """The URL of a path of the registry's API; a URL of its own host gets the scheme that we speak with it."""
        base = self._places.base(host)
        if target.startswith("/") and not target.startswith("//"):
            return base + target
        joined = urljoin(base, target)
        if urlsplit(joined).netloc != urlsplit(base).netloc:
            self._places.check(joined, host)
            return joined
        return base + joined.partition("://")[2].removeprefix(urlsplit(base).netloc)

    def open(self) -> None:
        """Reads in the HTTP library, if that has not been done."""
        _ = self._wire

    def close(self) -> None:
        """Closes every connection."""
        with self._lock:
            if self._opened:
                self._opened.close()

    @property
    def _wire(self) -> Wire:
        from kiln.registry.wire import Wire

        with self._lock:
            if self._opened is None:
                self._opened = Wire(self.settings)
            return self._opened

    def _attempt(self, request: Request, accept: tuple[int, ...]) -> Response:
        response = self._authorized(request)
        if response.status in accept:
            return response
        with response:
            raise refusal(response, request.host, request.what, request.where)

    def _authorized(self, request: Request) -> Response:
        """The answer after a 401 was answered, once."""
        header = self._auth.header(request.host, request.scopes)
        response = self._exchange(request, header)
        if response.status != 401 or response.foreign:
            return response
        from kiln.registry import challenge

        with response:
            offered = challenge.parse(response.header("WWW-Authenticate"))
        answer = self._auth.answer(request.host, offered, request.scopes, header)
        response = self._exchange(request, answer)
        if response.status == 401 and answer.startswith("Basic ") and not response.foreign:
            response.close()
            raise self._auth.refused(request.host)
        return response

    def _exchange(self, request: Request, authorization: str) -> Response:
        """The answer after redirects (of GET and HEAD only).

        Another host never sees the credentials, nor does any host that another host sent us to.
        """
        base = self._places.base(request.host)
        url = self.url(request.host, request.target)
        foreign = False
        for _ in range(_MOST_REDIRECTS + 1):
            foreign = foreign or not (url.startswith(f"{base}/") or _origin(url) == _origin(base))
            headers = (
                request.headers if foreign or not authorization else {**request.headers, "Authorization": authorization}
            )
            response = self._wire.request(request.method, url, headers, request.body, request.seconds)
            response.foreign = foreign
            if response.status == 400 and url.startswith("http:") and not foreign and self._wants_tls(base):
                response.close()
                self._places.use_https(request.host)
                return self._exchange(request, authorization)
            if response.status not in _REDIRECTS or request.method not in ("GET", "HEAD"):
                return response
            with response:
                url = self._next(request, url, response.header("Location"))
        raise RegistryError(f"more than {_MOST_REDIRECTS} redirects for {request.what}", where=request.where)

    def _next(self, request: Request, url: str, location: str) -> str:
        if not location:
            raise RegistryError(f"the registry redirected {request.what} to nowhere", where=request.where)
        target = urljoin(url, location)
        if _origin(target) != _origin(url) or urlsplit(target).scheme != urlsplit(url).scheme:
            self._places.check(target, request.host)
        return target

    def _wants_tls(self, base: str) -> bool:
        """Whether a 400 was a TLS server's answer to plain http (asked by GET: an answer to HEAD has no body)."""
        with self._wire.request("GET", f"{base}/v2/", {}) as response:
            return response.status == 400 and any(mark in response.read(4096, cut=True) for mark in _TLS_SPOKEN)

    def _ask(self, question: TokenQuestion) -> bytes:
        """What a token service answers. Redirects are not followed with a password or token to another host."""
        self._places.check(question.url, question.host)
        target = Request(
            host=question.host,
            method="POST" if question.form is not None else "GET",
            target=question.url,
            what="a token",
            where=_site(question.url),
            headers={"Content-Type": "application/x-www-form-urlencoded"} if question.form is not None else {},
            body=question.form,
        )
        return self.backoff.run(lambda: self._token(target, question.authorization))

    def _token(self, request: Request, authorization: str) -> bytes:
        headers = {**request.headers, "Authorization": authorization} if authorization else request.headers
        response = self._wire.request(request.method, request.target, headers, request.body)
        with response:
            if response.status != 200:
                raise refusal(response, request.host, request.what, request.where)
            return response.read(_TOKEN_LIMIT)


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


def _site(url: str) -> str:
    return url.partition("?")[0]


def growing(request: Request, body: Callable[[], Iterable[bytes]]) -> Request:
    """The request with a streamed body whose length nobody knows yet (Transfer-Encoding: chunked)."""
    return replace(request, headers={**request.headers, "Content-Type": "application/octet-stream"}, body=body)


def streamed(request: Request, body: Callable[[], Iterable[bytes]], length: int) -> Request:
    """The request with a streamed body of `length` bytes; the time allowed for the answer grows with it, as registries
    check what they got before they answer (one more second for 20 MB)."""
    headers = {**request.headers, "Content-Length": str(length), "Content-Type": "application/octet-stream"}
    return replace(request, headers=headers, body=body, seconds=request.seconds + length / 20e6)
