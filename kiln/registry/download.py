"""Reading one blob from a registry as a stream that survives broken connections (RFC 9110, 14: Range)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from kiln.errors import CorruptError
from kiln.oci.image import Descriptor
from kiln.oci.reference import Reference
from kiln.registry import auth
from kiln.registry.faults import TransientError
from kiln.registry.progress import Meter
from kiln.registry.transport import Request, Transport

if TYPE_CHECKING:
    from kiln.registry.wire import Response

_CONTENT_RANGE = re.compile(r"^\s*bytes\s+([0-9]+)-")
_GAIN = 1 << 20


class Download:
    """One blob on its way from a repository."""

    def __init__(self, transport: Transport, ref: Reference, descriptor: Descriptor, meter: Meter) -> None:
        self._transport = transport
        self._ref = ref
        self._blob = descriptor
        self._meter = meter

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes from `offset`, at most 1 MiB at a time, never more than its size.

        A broken connection is taken up again where it broke, five times without a MiB gained. Whether the bytes are the
        blob's is the caller's to check; `CorruptError` is raised here only for an answer that is too long.
        """
        done, attempt, mark = offset, 0, offset
        while True:
            try:
                for chunk in self._from(done):
                    done += len(chunk)
                    self._check(done)
                    yield chunk
                    self._meter.at(done)
                return
            except TransientError as bad:
                attempt = 1 if done - mark >= _GAIN else attempt + 1
                mark = done
                if attempt >= min(self._transport.backoff.attempts, bad.patience):
                    raise
                self._transport.backoff.pause(attempt, bad.wait)

    def _from(self, offset: int) -> Iterator[bytes]:
        """One answer's bytes from `offset`, whether the server knows ranges or not."""
        request = Request(
            host=self._ref.host,
            method="GET",
            target=f"/v2/{self._ref.repository}/blobs/{self._blob.digest}",
            what=f"the blob {self._blob.digest}",
            where=str(self._ref),
            scopes=frozenset({auth.pull(self._ref.repository)}),
            headers={"Range": f"bytes={offset}-"} if offset else {},
        )
        with self._transport.send(request, accept=(200, 206) if offset else (200,)) as response:
            start = self._start(response, offset)
            for chunk in response.chunks():
                kept = chunk[max(0, offset - start) :]
                start += len(chunk)
                if kept:
                    yield kept

    def _start(self, response: Response, offset: int) -> int:
        """Where in the blob the answer begins."""
        if response.status == 206:
            match = _CONTENT_RANGE.match(response.header("Content-Range"))
            start = int(match.group(1)) if match else offset
            if start > offset:
                raise self._corrupt(f"{response.header('Content-Range')!r} is not the range that was asked for")
            return start
        length = response.header("Content-Length")
        if length.isdigit() and int(length) != self._blob.size:
            raise self._corrupt(f"should be {self._blob.size} bytes, the registry has {length}")
        return 0

    def _check(self, done: int) -> None:
        if done > self._blob.size:
            raise self._corrupt(f"should be {self._blob.size} bytes, the registry sends more")

    def _corrupt(self, message: str) -> CorruptError:
        return CorruptError(f"the blob {self._blob.digest}: {message}", where=str(self._ref))
