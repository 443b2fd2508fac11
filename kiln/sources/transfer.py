"""One download: bytes into a file, counted and hashed; a broken connection is taken up where it broke."""

from __future__ import annotations

import hashlib
import re
import ssl
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import IO

import urllib3
from msgspec import Struct
from urllib3.exceptions import HTTPError, SSLError

from kiln.engine.cancel import Cancel
from kiln.errors import SourceError
from kiln.settings import Settings
from kiln.sources.dial import Dialer
from kiln.sources.git import shown
from kiln.sources.hops import STALL, answered
from kiln.store.blobs import disk_error

_CHUNK = 1 << 18
_TRIES = 4
_PROGRESS = 1 << 20
_BUSY = (429, 502, 503, 504)
_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


class Broken(Exception):
    """A try that failed in a way that another may not: `why` is for people."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Bounds(Struct, frozen=True):
    """What a download may take: `limit` bytes, `timeout` seconds in all, `stall` seconds without a byte. 0: no bound."""

    limit: int = 0
    timeout: float = 0
    stall: float = STALL


class Transfer:
    """Fetches a URL into `path`. `url` is where it came from after redirects, `headers` what the server said of it."""

    def __init__(
        self, url: str, path: Path, settings: Settings, cancel: Cancel, dialer: Dialer, bounds: Bounds
    ) -> None:
        self._first = self.url = url
        self._path = path
        self._settings, self._cancel, self._dialer, self._bounds = settings, cancel, dialer, bounds
        self._hasher = hashlib.sha256()
        self._size = 0
        self._expired = threading.Event()
        self.headers: Mapping[str, str] = {}

    def run(self) -> str:
        """The digest of what was fetched; raises `SourceError`, `StoreError`, `CancelledBuild`."""
        with self._path.open("xb") as file, self._watched():
            failures, reached = 0, 0
            while True:
                try:
                    self._try(file)
                    return "sha256:" + self._hasher.hexdigest()
                except Broken as bad:
                    failures = 1 if self._size > reached + _PROGRESS else failures + 1
                    reached = max(reached, self._size)
                    self._wait(failures, bad)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """While inside, the connections end when the build is cancelled or the time is over."""
        timer = threading.Timer(self._bounds.timeout or 1, self._expire)
        timer.daemon = True
        if self._bounds.timeout:
            timer.start()
        try:
            with self._cancel.ending(self._dialer.abort):
                yield
        finally:
            timer.cancel()
            self._dialer.close()

    def _expire(self) -> None:
        self._expired.set()
        self._dialer.abort()

    def _check(self) -> None:
        self._cancel.check()
        if self._expired.is_set():
            raise self._bad(f"the download took longer than {self._bounds.timeout:g} seconds")

    def _wait(self, failures: int, bad: Broken) -> None:
        if failures >= _TRIES:
            raise self._bad(f"cannot be fetched: {bad.why}", "Check the address and the network.") from bad
        self._expired.wait(0.1 * 2**failures)
        self._check()

    def _try(self, file: IO[bytes]) -> None:
        """One request, for what is still missing; raises `Broken` where another may help."""
        try:
            with answered("GET", self._first, self._settings, self._dialer, self._resuming(), self._bounds.stall) as (
                self.url,
                response,
            ):
                self._begin(response, file)
                self._receive(response, file)
        except HTTPError as bad:
            self._check()
            if isinstance(bad, SSLError):
                raise self._bad(f"no safe connection: {_of_tls(bad)}", "Check the server's certificate.") from bad
            raise Broken(_told(bad)) from bad

    def _resuming(self) -> dict[str, str]:
        """Headers that ask for the rest, if the server gave a mark by which to know that it is the rest of the same file
        (RFC 9110, section 13.1.5: a strong entity tag, or a date)."""
        tag = self.headers.get("ETag", "")
        mark = tag if tag.startswith('"') else self.headers.get("Last-Modified", "")
        return {"Range": f"bytes={self._size}-", "If-Range": mark} if self._size and mark else {}

    def _begin(self, response: urllib3.BaseHTTPResponse, file: IO[bytes]) -> None:
        """Looks at the status; begins anew unless the server sends just what is missing."""
        if response.status == 206 and self._size and self._continues(response):
            return
        self._restart(file)
        if response.status in _BUSY or response.status in (206, 416):
            raise Broken(f"the server answered {response.status} {response.reason}")
        if response.status != 200:
            raise self._bad(f"the server answered {response.status} {response.reason}", "Check the address.")
        self.headers = response.headers
        length = self.headers.get("Content-Length", "")
        if self._bounds.limit and length.isdigit() and int(length) > self._bounds.limit:
            raise self._too_large()

    def _continues(self, response: urllib3.BaseHTTPResponse) -> bool:
        place = _RANGE.fullmatch(response.headers.get("Content-Range", "").strip())
        whole = self.headers.get("Content-Length", "")
        return place is not None and int(place[1]) == self._size and (place[2] in ("*", whole) or not whole)

    def _restart(self, file: IO[bytes]) -> None:
        file.seek(0)
        file.truncate()
        self._size, self._hasher, self.headers = 0, hashlib.sha256(), {}

    def _receive(self, response: urllib3.BaseHTTPResponse, file: IO[bytes]) -> None:
        while data := response.read1(_CHUNK):
            self._check()
            self._size += len(data)
            if self._bounds.limit and self._size > self._bounds.limit:
                raise self._too_large()
            self._hasher.update(data)
            self._write(file, data)
        self._check()
        length = self.headers.get("Content-Length", "")
        if length.isdigit() and self._size != int(length):
            raise Broken(f"the connection ended after {self._size} of {length} bytes")

    def _write(self, file: IO[bytes], data: bytes) -> None:
        try:
            file.write(data)
            file.flush()
        except OSError as bad:
            raise disk_error(bad, self._path) from bad

    def _too_large(self) -> SourceError:
        return self._bad(f"the file is larger than {self._bounds.limit} bytes")

    def _bad(self, why: str, hint: str = "") -> SourceError:
        return SourceError(why, where=shown(self.url), hint=hint)


def _told(bad: HTTPError) -> str:
    """What went wrong, in words."""
    if isinstance(bad, urllib3.exceptions.NewConnectionError) and isinstance(bad.__cause__, OSError):
        return _refused(bad.__cause__)
    if isinstance(bad, urllib3.exceptions.TimeoutError):
        return "the server was silent for too long"
    if isinstance(bad, urllib3.exceptions.ProxyError):
        return "the proxy cannot be reached"
    if isinstance(bad, urllib3.exceptions.ProtocolError):
        return "the connection ended before the answer was complete"
    return "the server could not be understood"


def _of_tls(bad: SSLError) -> str:
    """What is wrong with a certificate, or with the protocol."""
    inner = bad.args[0] if bad.args else bad
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    return str(getattr(inner, "reason", None) or "the server does not speak TLS").lower().replace("_", " ")


def _refused(bad: OSError) -> str:
    """Why there is no connection."""
    if isinstance(bad, TimeoutError):
        return "the server did not answer"
    return f"no connection: {bad.strerror or bad}"


def sent_name(headers: Mapping[str, str], url: str) -> str:
    """The name for a file by Content-Disposition (RFC 6266), else by its URL; always one that a folder can hold."""
    message = Message()
    message["Content-Disposition"] = headers.get("Content-Disposition", "").replace("\r", " ").replace("\n", " ")
    try:
        named = message.get_filename("") or ""
    except (LookupError, ValueError, TypeError):
        named = ""
    return safe_name(named) or safe_name(urllib.parse.unquote(urllib.parse.urlsplit(url).path)) or "__unnamed__"


def safe_name(text: str) -> str:
    """The last part of a path as a file name: no control characters, at most 255 bytes; empty if nothing is left."""
    last = text.replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in last if char.isprintable()).strip()
    name = name.encode("utf-8", "replace")[-255:].decode("utf-8", "ignore")
    return "" if name in (".", "..") else name
