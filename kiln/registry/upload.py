"""Writing one blob to a registry (OCI distribution-spec 1.1, "Pushing Blobs"): mount, or POST and one streamed PUT.

Where the connection breaks, the registry is asked how far it got and the rest is sent with Content-Range; where it
cannot say (docker-registry 2.8 cannot), the upload starts again. A blob that is still being made is sent as POST, one PATCH
of unknown length, and PUT with the digest, which is known last.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urljoin

from msgspec import Struct
from msgspec.structs import replace

from kiln.errors import CorruptError, KilnError, RegistryError
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry import auth
from kiln.registry.faults import TransientError
from kiln.registry.progress import Meter
from kiln.registry.transport import Request, Transport, growing, streamed

if TYPE_CHECKING:
    from kiln.registry.wire import Response

How = Literal["exists", "mounted", "uploaded"]
OpenStream = Callable[[int], Iterator[bytes]]
_MOST_MOUNTS = 3
_LOST = frozenset({"BLOB_UPLOAD_UNKNOWN", "BLOB_UPLOAD_INVALID", "RANGE_INVALID"})
_MANGLED = frozenset({"DIGEST_INVALID", "SIZE_INVALID"})
_RANGE = re.compile(r"^(?:bytes=)?0-([0-9]+)$")


class _Session(Struct, frozen=True):
    """An upload that the registry opened: where it is, and how many bytes of it the registry has."""

    location: str
    offset: int = 0


class _Uploads:
    """The uploads of one repository: opening one, asking about it, giving it up. `what` is for errors."""

    def __init__(self, transport: Transport, ref: Reference, what: str) -> None:
        self._transport = transport
        self._ref = ref
        self._what = what

    def _begin(self) -> _Session:
        with self._ask("POST", self._uploads, (202,)) as response:
            return self._opened(response)

    def _opened(self, response: Response, offset: int = 0) -> _Session:
        location = response.header("Location")
        if not location:
            raise RegistryError("the registry opened an upload without saying where", where=str(self._ref))
        return _Session(urljoin(response.url, location), offset)

    def _closing(self, session: _Session, digest: str) -> Request:
        """The PUT that ends an upload."""
        location = session.location + ("&" if "?" in session.location else "?")
        return self._request("PUT", f"{location}digest={quote(digest, safe='')}")

    def _check_stored(self, response: Response, digest: str) -> None:
        got = response.header("Docker-Content-Digest")
        if got and got != digest and got.partition(":")[0] == digest.partition(":")[0]:
            raise CorruptError(f"the registry stored {digest} as {got}", where=str(self._ref))

    def _cancel(self, session: _Session | None) -> None:
        """Tells the registry that an upload is not needed; one that stays open is the registry's to clean up."""
        if session is None:
            return
        try:
            self._ask("DELETE", session.location, (200, 202, 204)).close()
        except RegistryError:
            return

    @property
    def _uploads(self) -> str:
        return f"/v2/{self._ref.repository}/blobs/uploads/"

    def _request(self, method: str, target: str, *scopes: str) -> Request:
        return Request(
            host=self._ref.host,
            method=method,
            target=target,
            what=self._what,
            where=str(self._ref),
            scopes=frozenset({auth.push(self._ref.repository), *scopes}),
        )

    def _ask(self, method: str, target: str, accept: tuple[int, ...], *scopes: str) -> Response:
        return self._transport.send(self._request(method, target, *scopes), accept)


class GrowingUpload(_Uploads):
    """A blob that is sent while it is being made."""

    def __init__(self, transport: Transport, ref: Reference) -> None:
        super().__init__(transport, ref, "the upload of a layer")

    def run(self, chunks: Callable[[], Iterable[bytes]], ended: Callable[[], Descriptor]) -> Descriptor:
        """Sends the chunks, then asks `ended` what they came to; returns that. Raises `RegistryError`, and what `chunks` raises,
        after the upload has been given up. Nothing is tried twice."""
        session = self._begin()
        try:
            with self._transport.send(growing(self._request("PATCH", session.location), chunks), (202,)) as response:
                session = self._opened(response)
            blob = ended()
            request = streamed(self._closing(session, blob.digest), lambda: (), 0)
            request = replace(request, seconds=request.seconds + blob.size / 20e6)
            with self._transport.send(request, (201, 204)) as response:
                self._check_stored(response, blob.digest)
        except KilnError:
            self._cancel(session)
            raise
        return blob


class Upload(_Uploads):
    """One blob on its way to a repository. `open_stream(offset)` gives its bytes from there, as often as needed."""

    def __init__(
        self, transport: Transport, ref: Reference, descriptor: Descriptor, open_stream: OpenStream, meter: Meter
    ) -> None:
        super().__init__(transport, ref, f"the upload of {descriptor.digest}")
        self._blob = descriptor
        self._open = open_stream
        self._meter = meter

    def run(self, mount_from: Sequence[str], is_there: Callable[[], bool]) -> How:
        """Brings the blob there; returns how. `is_there` is asked before it is sent. Raises `RegistryError`."""
        session: _Session | None = None
        for source in mount_from[:_MOST_MOUNTS]:
            self._cancel(session)
            mounted, session = self._mount(source)
            if mounted:
                return "mounted"
        if is_there():
            self._cancel(session)
            return "exists"
        self._send(session or self._begin())
        return "uploaded"

    def _mount(self, source: str) -> tuple[bool, _Session | None]:
        """(whether it was mounted, else the upload that the registry opened instead). A source that may not be read is
        none: registries answer such a request in many ways, and uploading always works."""
        target = f"{self._uploads}?mount={quote(self._blob.digest, safe='')}&from={quote(source, safe='')}"
        try:
            response = self._ask("POST", target, (201, 202), auth.pull(source))
        except RegistryError:
            return False, None
        with response:
            return response.status == 201, None if response.status == 201 else self._opened(response)

    def _send(self, session: _Session) -> None:
        """Sends all bytes, taking up what broke."""
        attempt = 0
        while True:
            try:
                return self._finish(session)
            except RegistryError as bad:
                attempt += 1
                if not _worth_another(bad, session, attempt, self._transport.backoff.attempts):
                    raise
                self._transport.backoff.pause(attempt, bad.wait if isinstance(bad, TransientError) else 0)
            if self._arrived():
                return None
            session = self._resumed(session) or self._begin()

    def _finish(self, session: _Session) -> None:
        """PUTs the rest of the blob with its digest."""
        offset, size = session.offset, self._blob.size
        request = self._closing(session, self._blob.digest)
        if 0 < offset < size:
            request = _with_range(request, offset, size)
        request = streamed(request, lambda: self._meter.watch(self._open(offset), offset), size - offset)
        with self._transport.send(request, accept=(201, 204)) as response:
            self._check_stored(response, self._blob.digest)

    def _arrived(self) -> bool:
        """Whether the registry has the blob after all: it may be the answer that was lost."""
        target = f"/v2/{self._ref.repository}/blobs/{self._blob.digest}"
        with self._ask("HEAD", target, (200, 404)) as response:
            return response.status == 200

    def _resumed(self, session: _Session) -> _Session | None:
        """The upload with what the registry has of it, or None to start again ("0-0" may mean none or one byte)."""
        try:
            with self._ask("GET", session.location, (204, 202, 200)) as response:
                match = _RANGE.match(response.header("Range"))
                have = int(match.group(1)) + 1 if match else 0
                location = response.header("Location") or session.location
        except RegistryError:
            return None
        if not 1 < have <= self._blob.size:
            self._cancel(session)
            return None
        return _Session(urljoin(session.location, location), have)


def _with_range(request: Request, offset: int, size: int) -> Request:
    return replace(request, headers={**request.headers, "Content-Range": f"{offset}-{size - 1}"})


def _worth_another(bad: RegistryError, session: _Session, attempt: int, most: int) -> bool:
    """Whether to go on after a failure: one that may pass, an upload that the registry lost, a resume gone wrong."""
    if attempt >= most:
        return False
    if isinstance(bad, TransientError):
        return attempt < bad.patience
    return bad.code in _LOST or bad.status in (404, 416) or (bool(session.offset) and bad.code in _MANGLED)
