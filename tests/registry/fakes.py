"""A registry in memory that misbehaves on demand."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from kiln.oci.digest import sha256


@dataclass
class Seen:
    """One request that came."""

    method: str
    path: str
    headers: Message
    body: bytes = b""


@dataclass
class Fault:
    """What to do instead, for the next `times` requests of a method to paths that match."""

    method: str
    pattern: str
    act: Callable[[Handler], None]
    times: int


@dataclass
class Upload:
    data: bytearray = field(default_factory=bytearray)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeRegistry

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (ConnectionError, ValueError, ssl.SSLError):
            self.close_connection = True

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """Sends an answer; header names are written with _ for -."""
        self.send_response(status)
        names = {name.replace("_", "-").lower() for name in headers}
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "content-length" not in names and status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str, message: str = "", **headers: str) -> None:
        self.answer(
            status, json.dumps({"errors": [{"code": code, "message": message or code.lower()}]}).encode(), **headers
        )

    def body(self) -> bytes:
        """The request's body; recorded."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.seen.body = b"".join(iter(self._chunk, b""))
        else:
            self.seen.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return self.seen.body

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        data = self.rfile.read(size + 2)
        if len(data) != size + 2:
            raise ConnectionError
        return data[:-2]

    def cut(self) -> None:
        """Breaks the connection at once."""
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        self.seen = Seen(self.command, self.path, self.headers)
        fault = self.server.begin(self.seen)
        if fault:
            fault.act(self)
        else:
            self._honest()

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _honest(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        for pattern, method in (
            (r"/v2/$", self._root),
            (r"/v2/(.+)/manifests/(.+)$", self._manifests),
            (r"/v2/(.+)/blobs/uploads/(.*)$", self._uploads),
            (r"/v2/(.+)/blobs/(.+)$", self._blobs),
            (r"/v2/(.+)/tags/list$", self._tags),
        ):
            if match := re.match(pattern, path):
                return method(*match.groups(), query=query)
        return self.error(404, "NOT_FOUND")

    def _root(self, query) -> None:
        self.answer(200, b"{}")

    def _manifests(self, name: str, ref: str, query) -> None:
        if self.command == "PUT":
            data, kind = self.body(), self.headers["Content-Type"]
            for key in (ref, sha256(data)):
                self.server.manifests[name, key] = (kind, data)
            return self.answer(201, Docker_Content_Digest=sha256(data))
        if (name, ref) not in self.server.manifests:
            return self.error(404, "MANIFEST_UNKNOWN", "manifest unknown")
        kind, data = self.server.manifests[name, ref]
        return self.answer(200, data, Content_Type=kind, Docker_Content_Digest=sha256(data))

    def _blobs(self, name: str, digest: str, query) -> None:
        data = self.server.blobs.get((name, digest))
        if data is None:
            return self.error(404, "BLOB_UNKNOWN", "blob unknown")
        match = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if match and self.server.ranges:
            start = int(match.group(1))
            return self.answer(206, data[start:], Content_Range=f"bytes {start}-{len(data) - 1}/{len(data)}")
        return self.answer(200, data, Content_Type="application/octet-stream")

    def _uploads(self, name: str, session: str, query) -> None:
        if self.command == "POST":
            return self._begin(name, query)
        upload = self.server.uploads.get(session)
        if upload is None:
            return self.error(404, "BLOB_UPLOAD_UNKNOWN")
        if self.command == "GET":
            return self.answer(204, Range=f"0-{max(0, len(upload.data) - 1)}", Location=self.path)
        if self.command == "DELETE":
            del self.server.uploads[session]
            return self.answer(204)
        if self.command == "PATCH":
            upload.data += self.body()
            return self.answer(202, Range=f"0-{len(upload.data) - 1}", Location=self.path)
        return self._finish(name, session, upload, query["digest"][0])

    def _begin(self, name: str, query) -> None:
        digest, source = query.get("mount", [""])[0], query.get("from", [""])[0]
        if digest and (unquote(source), digest) in self.server.blobs:
            self.server.blobs[name, digest] = self.server.blobs[unquote(source), digest]
            return self.answer(201, Location=f"/v2/{name}/blobs/{digest}")
        session = str(len(self.server.requests))
        self.server.uploads[session] = Upload()
        return self.answer(202, Location=f"/v2/{name}/blobs/uploads/{session}?state=a%2Fb")

    def _finish(self, name: str, session: str, upload: Upload, digest: str) -> None:
        wanted = re.match(r"(\d+)-(\d+)$", self.headers.get("Content-Range", ""))
        data = self.body()
        if data and int(wanted.group(1) if wanted else 0) != len(upload.data):
            return self.error(416, "RANGE_INVALID")
        upload.data += data
        if sha256(bytes(upload.data)) != digest:
            return self.error(400, "DIGEST_INVALID")
        self.server.blobs[name, digest] = bytes(self.server.uploads.pop(session).data)
        return self.answer(201, Docker_Content_Digest=digest, Location=f"/v2/{name}/blobs/{digest}")

    def _tags(self, name: str, query) -> None:
        tags = sorted(ref for repo, ref in self.server.manifests if repo == name and not ref.startswith("sha256:"))
        after, page = query.get("last", [""])[0], self.server.page
        rest = [tag for tag in tags if tag > after]
        more = (
            {"Link": f'</v2/{name}/tags/list?last={rest[page - 1]}&n={page}>; rel="next"'} if len(rest) > page else {}
        )
        self.answer(200, json.dumps({"name": name, "tags": rest[:page]}).encode(), **more)


class FakeRegistry(ThreadingHTTPServer):
    """Serves `manifests` {(repository, tag or digest): (type, bytes)} and `blobs` {(repository, digest): bytes}."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.uploads: dict[str, Upload] = {}
        self.requests: list[Seen] = []
        self.faults: list[Fault] = []
        self.ranges = True
        self.page = 1000
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def on(self, method: str, pattern: str, act: Callable[[Handler], None], times: int = 1) -> None:
        """`act(handler)` answers the next `times` requests of a method to a path in which the pattern is found."""
        self.faults.append(Fault(method, pattern, act, times))

    def begin(self, seen: Seen) -> Fault | None:
        with self._lock:
            self.requests.append(seen)
            for fault in self.faults:
                if fault.times and fault.method == seen.method and re.search(fault.pattern, seen.path):
                    fault.times -= 1
                    return fault
        return None

    def count(self, method: str, pattern: str = "") -> int:
        """How many requests of a method came to paths that match."""
        return len([seen for seen in self.requests if seen.method == method and re.search(pattern, seen.path)])

    def handle_error(self, *_: object) -> None:
        """Broken connections are what these tests are about."""

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()
