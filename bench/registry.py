"""A docker-registry on loopback, and the little of its protocol that the bench itself needs."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.daemon import Daemon

_TYPE = "application/vnd.docker.distribution.manifest.v2+json"
_ACCEPTED = (
    _TYPE, "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Blob:
    """A compressed layer in a file: its digest, the digest of what is in it, its size in bytes."""

    path: Path
    digest: str
    diff_id: str
    size: int


def compressed(tar: bytes, path: Path) -> Blob:
    """Writes a layer with gzip's usual level."""
    data = gzip.compress(tar, 6, mtime=0)
    path.write_bytes(data)
    return Blob(path, digest_of(data), digest_of(tar), len(data))


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Registry:
    """One docker-registry. `host` is what references start with; it stays the same over `restart`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.host = f"127.0.0.1:{probe.getsockname()[1]}"
        self._daemon: Daemon | None = None

    def restart(self) -> None:
        """Starts it, empty."""
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        config = self._folder / "config.yml"
        config.write_text(json.dumps(self._config()))  # YAML is a superset of JSON
        self._daemon = Daemon(
            ["env", "OTEL_TRACES_EXPORTER=none", "docker-registry", "serve", str(config)], self._folder / "log"
        )
        self._daemon.wait_for(self._listens)

    def stop(self) -> None:
        if self._daemon:
            self._daemon.stop()
        self._daemon = None

    def _config(self) -> dict[str, Any]:
        storage = {"filesystem": {"rootdirectory": str(self._folder / "data")}, "cache": {"blobdescriptor": "inmemory"}}
        log = {"level": "error", "accesslog": {"disabled": True}}
        return {"version": "0.1", "log": log, "storage": storage, "http": {"addr": self.host, "secret": "bench"}}

    def _listens(self) -> bool:
        try:
            return self._ask("GET", "/v2/")[0] == 200
        except OSError:
            return False

    def upload(self, repository: str, blocks: Iterable[bytes]) -> str:
        """Sends a blob while it comes; returns its digest."""
        place = self._ask("POST", f"/v2/{repository}/blobs/uploads/", want=202)[1]["Location"]
        hasher = hashlib.sha256()

        def hashed() -> Iterator[bytes]:
            for block in blocks:
                hasher.update(block)
                yield block

        headers = {"Transfer-Encoding": "chunked", "Content-Type": "application/octet-stream"}
        place = self._ask("PATCH", place, hashed(), headers, want=202)[1]["Location"]
        digest = f"sha256:{hasher.hexdigest()}"
        self._ask("PUT", f"{place}{'&' if '?' in place else '?'}digest={digest}", want=201)
        return digest

    def download(self, repository: str, digest: str) -> Iterator[bytes]:
        """The bytes of a blob."""
        connection = http.client.HTTPConnection(self.host)
        connection.request("GET", f"/v2/{repository}/blobs/{digest}")
        answer = connection.getresponse()
        while block := answer.read(_CHUNK):
            yield block
        connection.close()

    def put_image(self, repository: str, tag: str, layers: Sequence[Blob]) -> None:
        """Pushes an image of these layers that no builder made."""
        for layer in layers:
            with layer.path.open("rb") as file:
                self.upload(repository, iter(lambda file=file: file.read(_CHUNK), b""))  # type: ignore[misc]
        rootfs = {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]}
        history = [{"created_by": "bench"} for _ in layers]
        about = {"architecture": "amd64", "os": "linux", "config": _CONFIG, "history": history}
        config = json.dumps({**about, "rootfs": rootfs}).encode()
        described = {"mediaType": "application/vnd.docker.container.image.v1+json", "size": len(config)}
        manifest = {
            "schemaVersion": 2, "mediaType": _TYPE, "config": {**described, "digest": self.upload(repository, [config])},
            "layers": [{"mediaType": _LAYER, "size": layer.size, "digest": layer.digest} for layer in layers],
        }  # fmt: skip
        body = json.dumps(manifest).encode()
        self._ask("PUT", f"/v2/{repository}/manifests/{tag}", body, {"Content-Type": _TYPE}, want=201)

    def layers(self, repository: str, tag: str) -> list[tuple[str, int]]:
        """Digest and compressed bytes of each layer of an image, the lowest first."""
        status, _, body = self._ask(
            "GET", f"/v2/{repository}/manifests/{tag}", headers={"Accept": ", ".join(_ACCEPTED)}
        )
        document = json.loads(body) if status == 200 else {}
        if "manifests" in document:
            return self.layers(repository, document["manifests"][0]["digest"])
        return [(layer["digest"], layer["size"]) for layer in document.get("layers", ())]

    def _ask(
        self, method: str, place: str, body: bytes | Iterator[bytes] | None = None,
        headers: dict[str, str] | None = None, want: int = 0,
    ) -> tuple[int, http.client.HTTPMessage, bytes]:  # fmt: skip
        """Status, headers and body of an answer; raises RuntimeError if another status was wanted."""
        connection = http.client.HTTPConnection(self.host)
        streamed = not (body is None or isinstance(body, bytes))
        connection.request(
            method, place.removeprefix(f"http://{self.host}"), body, headers or {}, encode_chunked=streamed
        )
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        if want and answer.status != want:
            raise RuntimeError(f"{method} {place} gave {answer.status}: {data[:500]!r}")
        return answer.status, answer.headers, data


_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_CONFIG = {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["/bin/sh"]}
