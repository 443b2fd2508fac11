"""The registry client: one method for each thing a registry can be asked (OCI distribution-spec 1.1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import msgspec

from kiln.errors import CorruptError, NotFoundError, RegistryError
from kiln.oci import media
from kiln.oci.digest import is_digest
from kiln.oci.image import Descriptor, parse_manifest
from kiln.oci.reference import Reference
from kiln.registry import auth, referrers
from kiln.registry.presence import Presence
from kiln.registry.progress import Meter, Progress
from kiln.registry.transport import Request, Transport
from kiln.registry.verify import digest_like
from kiln.settings import Settings

if TYPE_CHECKING:
    from kiln.registry.upload import How, OpenStream, Upload
    from kiln.registry.wire import Response

MANIFEST_LIMIT = 4 << 20
_NEXT = re.compile(r'<([^>]*)>\s*;[^,]*\brel="?next"?')
_MOST_PAGES = 10_000


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Client:
    """Talks to registries; one for a process, used by all its threads. Mirrors are the business of `pull`."""

    def __init__(self, settings: Settings, transport: Transport | None = None) -> None:
        self.settings = settings
        self.presence = Presence()
        self.uploaded: set[str] = set()  # blobs that could not be mounted from anywhere
        self._transport = transport or Transport(settings)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes every connection."""
        self._transport.close()

    def open(self) -> None:
        """Reads in the HTTP library now (0.04 s) rather than with the first request."""
        self._transport.open()

    def ping(self, host: str) -> None:
        """Asks for nothing, with the host's credentials; raises `AuthError` if they are refused."""
        self._transport.send(Request(host, "GET", "/v2/", what="a login", where=host)).close()

    def head_manifest(self, ref: Reference) -> Descriptor | None:
        """What a tag or digest (or `latest`) is now; None where the registry does not have it."""
        with self._manifest(ref, "HEAD", accept=(200, 404)) as response:
            if response.status == 404:
                return None
            kind, length = _media_type(response), response.header("Content-Length")
            digest = response.header("Docker-Content-Digest")
        if not is_digest(digest) or not length.isdigit() or kind not in media.INDEXES | media.MANIFESTS:
            return self._described(ref)
        if ref.digest and digest != ref.digest:
            raise CorruptError(f"asked for {ref.digest}, the registry has {digest}", where=str(ref))
        return Descriptor(kind, digest, int(length))

    def get_manifest(self, ref: Reference) -> tuple[bytes, Descriptor]:
        """A manifest or index, byte for byte, and what it is.

        Raises `NotFoundError`, `CorruptError` where its digest is not the one asked for or announced, and
        `RegistryError` where it is over 4 MiB.
        """
        with self._manifest(ref, "GET") as response:
            data = response.read(MANIFEST_LIMIT)
            kind, announced = _media_type(response), response.header("Docker-Content-Digest")
        expected = ref.digest or (announced if is_digest(announced) else "")
        digest = digest_like(expected, data)
        if expected and digest != expected:
            raise CorruptError(f"the manifest {expected} came with the digest {digest}", where=str(ref))
        if kind not in media.INDEXES | media.MANIFESTS:
            kind = parse_manifest(data, str(ref)).media_type
        return data, Descriptor(kind, digest, len(data))

    def put_manifest(self, ref: Reference, data: bytes, media_type: str) -> str:
        """Stores a manifest under the reference's tag, or without one under its digest; returns the digest.

        Raises `CorruptError` where the reference names another digest. A manifest with a subject is made findable by
        `referrers` also where the registry does not do that itself.
        """
        digest = digest_like(ref.digest, data)
        if ref.digest and ref.digest != digest:
            raise CorruptError(f"the manifest to push has the digest {digest}", where=str(ref))
        target = f"/v2/{ref.repository}/manifests/{ref.tag or digest}"
        request = Request(
            host=ref.host,
            method="PUT",
            target=target,
            what="the manifest",
            where=str(ref),
            scopes=frozenset({auth.push(ref.repository)}),
            headers={"Content-Type": media_type},
            body=data,
        )
        with self._sent(request) as response:
            indexed = bool(response.header("OCI-Subject"))
        if not indexed:
            referrers.record(self, ref, data, Descriptor(media_type, digest, len(data)))
        return digest

    def delete_manifest(self, ref: Reference) -> None:
        """Deletes what a tag or digest names, by its digest (all its tags go with it). Raises `NotFoundError`."""
        digest = ref.digest
        if not digest:
            found = self.head_manifest(ref)
            if found is None:
                raise NotFoundError("there is no such manifest to delete", where=str(ref))
            digest = found.digest
        scopes = frozenset({auth.delete(ref.repository), auth.pull(ref.repository)})
        target = f"/v2/{ref.repository}/manifests/{digest}"
        request = Request(ref.host, "DELETE", target, what="to delete the manifest", where=str(ref), scopes=scopes)
        self._transport.send(request, accept=(200, 202, 204)).close()

    def has_blob(self, ref: Reference, digest: str) -> bool:
        """Whether the reference's repository has the blob now."""
        return self._has(ref, digest, auth.pull(ref.repository))

    def expect_blob(self, ref: Reference, digest: str) -> None:
        """Finds out for a push to come whether the repository has the blob, unless there is one to mount it from."""
        if not self.presence.repositories(ref.host, digest):
            self._has(ref, digest, auth.push(ref.repository))

    def can_mount(self, ref: Reference, digest: str) -> bool:
        """Whether another repository of the host is known to have the blob now."""
        return any(name != ref.repository for name in self.presence.repositories(ref.host, digest))

    def read_blob(
        self, ref: Reference, descriptor: Descriptor, *, offset: int = 0, progress: Progress | None = None
    ) -> Iterator[bytes]:
        """A blob's bytes from `offset`, at most 1 MiB at a time; a broken connection is resumed. The caller checks the
        digest. Raises `NotFoundError`, `RegistryError`, and `CorruptError` for more bytes than the descriptor says."""
        from kiln.registry.download import Download

        meter = Meter(progress, descriptor.digest, descriptor.size)
        return Download(self._transport, ref, descriptor, meter).chunks(offset)

    def upload_blob(
        self,
        ref: Reference,
        descriptor: Descriptor,
        open_stream: OpenStream,
        mount_from: Sequence[str] = (),
        progress: Progress | None = None,
        *,
        made: bool = False,
    ) -> How:
        """Brings a blob into the reference's repository; returns how it came there.

        `open_stream(offset)` gives its bytes from an offset; `mount_from` are repositories of the same host that may
        have it. `made`: it was made just now, so that asking whether it is there is hardly worth a question. Threads that
        bring one blob to one host do so one after the other: the later ones can mount it.
        """
        from kiln.registry.upload import Upload

        meter = Meter(progress, descriptor.digest, descriptor.size)
        how: How = "exists"
        if not self._is_known_there(ref, descriptor.digest, mount_from, made=made):
            with self.presence.upload(ref.host, descriptor.digest):
                how = self._bring(
                    ref, Upload(self._transport, ref, descriptor, open_stream, meter), descriptor, mount_from
                )
            if how == "uploaded":
                self.uploaded.add(descriptor.digest)
        meter.at(descriptor.size)
        return how

    def stream_blob(
        self, ref: Reference, chunks: Callable[[], Iterable[bytes]], ended: Callable[[], Descriptor]
    ) -> Descriptor:
        """Brings a blob into the reference's repository while it is being made: `chunks` gives its bytes, `ended`, asked after
        them, what it came to be. Returns that. Raises `RegistryError`; nothing is tried twice."""
        from kiln.registry.upload import GrowingUpload

        blob = GrowingUpload(self._transport, ref).run(chunks, ended)
        self.presence.remember(ref.host, ref.repository, blob.digest)
        return blob

    def tags(self, ref: Reference) -> list[str]:
        """Every tag of the reference's repository, in the registry's order. Raises `NotFoundError`."""
        found: list[str] = []
        for body in self.pages(ref, f"/v2/{ref.repository}/tags/list?n=1000", "the tags"):
            try:
                found += msgspec.json.decode(body, type=_Tags).tags or []
            except msgspec.MsgspecError as bad:
                raise RegistryError(f"the list of tags cannot be read: {bad}", where=str(ref)) from bad
        return found

    def referrers(self, ref: Reference, digest: str, artifact_type: str = "") -> tuple[Descriptor, ...]:
        """The manifests whose subject is `digest` (signatures, SBOMs), of one artifact type if given."""
        return referrers.find(self, ref, digest, artifact_type)

    def pages(self, ref: Reference, target: str, what: str) -> Iterator[bytes]:
        """The bodies of a list and of the pages that its Link headers name, all on the reference's host."""
        seen: set[str] = set()
        scopes = frozenset({auth.pull(ref.repository)})
        while target and target not in seen and len(seen) < _MOST_PAGES:
            seen.add(target)
            request = Request(ref.host, "GET", target, what=what, where=str(ref), scopes=scopes)
            with self._transport.send(request) as response:
                yield response.read(MANIFEST_LIMIT)
                target = _next_page(response, target)

    def _is_known_there(self, ref: Reference, digest: str, mount_from: Sequence[str], *, made: bool) -> bool:
        """Whether the repository has the blob. Where only others are known to have it, nothing is asked: mounting it from
        there comes to the same, and is the next question anyway. Asked with the rights to push: one token serves all."""
        if self.presence.has(ref.host, ref.repository, digest):
            return True
        others = {*self.presence.repositories(ref.host, digest), *mount_from}
        if made or (others and ref.repository not in others):
            return False
        return self._has(ref, digest, auth.push(ref.repository))

    def _bring(self, ref: Reference, upload: Upload, descriptor: Descriptor, mount_from: Sequence[str]) -> How:
        """Mounts or uploads, unless another thread did it in the meantime."""
        known = self.presence.repositories(ref.host, descriptor.digest)
        if ref.repository in known:
            return "exists"
        sources = [name for name in dict.fromkeys([*known, *mount_from]) if name != ref.repository]
        scope = auth.push(ref.repository)
        how = upload.run(sources, lambda: bool(sources) and self._has(ref, descriptor.digest, scope))
        self.presence.remember(ref.host, ref.repository, descriptor.digest)
        return how

    def _has(self, ref: Reference, digest: str, scope: str) -> bool:
        target = f"/v2/{ref.repository}/blobs/{digest}"
        request = Request(
            ref.host, "HEAD", target, what=f"the blob {digest}", where=str(ref), scopes=frozenset({scope})
        )
        with self._transport.send(request, accept=(200, 404)) as response:
            found = response.status == 200
        if found:
            self.presence.remember(ref.host, ref.repository, digest)
        return found

    def _manifest(self, ref: Reference, method: str, accept: tuple[int, ...] = (200,)) -> Response:
        named = ref.with_default_tag()
        request = Request(
            host=ref.host,
            method=method,
            target=f"/v2/{ref.repository}/manifests/{named.digest or named.tag}",
            what="the manifest",
            where=str(named),
            scopes=frozenset({auth.pull(ref.repository)}),
            headers={"Accept": media.ACCEPT},
        )
        return self._transport.send(request, accept)

    def _described(self, ref: Reference) -> Descriptor | None:
        """For registries whose answer to HEAD does not say enough."""
        try:
            return self.get_manifest(ref)[1]
        except NotFoundError:
            return None

    def _sent(self, request: Request) -> Response:
        """The answer to a PUT of a manifest; if it misses a blob, what was known of that repository is forgotten."""
        try:
            return self._transport.send(request, accept=(200, 201, 202, 204))
        except RegistryError as bad:
            if bad.code.endswith("_UNKNOWN"):
                self.presence.forget(request.host, request.target.removeprefix("/v2/").partition("/manifests/")[0])
            raise


def _media_type(response: Response) -> str:
    return response.header("Content-Type").partition(";")[0].strip()


def _next_page(response: Response, target: str) -> str:
    """The path of the next page; a link to another host is not one."""
    match = _NEXT.search(response.header("Link"))
    if not match:
        return ""
    joined = urlsplit(urljoin(response.url, match.group(1)))
    if joined.netloc != urlsplit(response.url).netloc:
        return ""
    return f"{joined.path}?{joined.query}" if joined.query else joined.path
