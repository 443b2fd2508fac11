"""Real peers that tests start: Debian's docker-registry in its variants, a certificate authority, a token service.

Everything listens on loopback only, on a free port, and ends with the test session.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import http.client
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs, parse_qsl, urlsplit

from tests.conformance.flatten import Entry as FlatEntry
from tests.conformance.flatten import read_image

SOURCE = Path(__file__).parents[1]
REF_NAME = "org.opencontainers.image.ref.name"
T = TypeVar("T")
USER, PASSWORD = "builder", "s3cret:with,colon"
REGISTRY = shutil.which("docker-registry", path="/usr/bin:/usr/local/bin:/usr/sbin")


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class DockerRegistry:
    """One docker-registry process. `host` is what references start with."""

    folder: Path
    auth: dict = field(default_factory=dict)
    tls: dict = field(default_factory=dict)
    port: int = 0

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> DockerRegistry:
        """Starts it and waits until it listens."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_port()
        config = self.folder / "config.yml"
        config.write_text(json.dumps(self._config()))  # YAML is a superset of JSON
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen([str(REGISTRY), "serve", str(config)], stdout=self._log, stderr=self._log)
        self._wait()
        return self

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def log(self) -> str:
        """What it wrote so far."""
        return (self.folder / "log").read_text(errors="replace")

    def _config(self) -> dict:
        return {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.folder / "data")},
                "delete": {"enabled": True},
                "cache": {"blobdescriptor": "inmemory"},
            },
            "http": {"addr": self.host, "secret": "tests", **({"tls": self.tls} if self.tls else {})},
            **({"auth": self.auth} if self.auth else {}),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"docker-registry did not start:\n{self.log()[-2000:]}")


def htpasswd(folder: Path) -> dict:
    """The `auth` section of a registry that knows USER with PASSWORD (bcrypt)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "htpasswd"
    subprocess.run(
        ["htpasswd", "-c", "-i", "-B", "-C", "4", str(path), USER],
        input=PASSWORD.encode(),
        check=True,
        capture_output=True,
    )
    return {"htpasswd": {"realm": "tests, and more", "path": str(path)}}


@dataclass(frozen=True)
class Authority:
    """A certificate authority (`ca`) and a certificate of it for 127.0.0.1 and localhost."""

    ca: Path
    certificate: Path
    key: Path


def authority(folder: Path) -> Authority:
    """A new authority, made by openssl."""
    folder.mkdir(parents=True, exist_ok=True)
    made = Authority(folder / "ca.crt", folder / "server.crt", folder / "server.key")
    extensions = folder / "extensions"
    extensions.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost,DNS:registry.test\nbasicConstraints=CA:FALSE\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    _openssl(
        "req", "-x509", *key, "-keyout", folder / "ca.key", "-out", made.ca, "-days", "2", "-subj", "/CN=Kiln test authority",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign,digitalSignature",
    )  # fmt: skip
    _openssl("req", *key, "-keyout", made.key, "-out", folder / "server.csr", "-subj", "/CN=127.0.0.1")
    _openssl(
        "x509", "-req", "-in", folder / "server.csr", "-CA", made.ca, "-CAkey", folder / "ca.key", "-CAcreateserial",
        "-out", made.certificate, "-days", "2", "-extfile", extensions,
    )  # fmt: skip
    return made


def _openssl(*words: object, data: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *map(str, words)], input=data, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return done.stdout


class TokenService:
    """A token service (distribution's "Token Authentication Specification"), signing RS256 with a key of its own.

    `allowed` maps a user ("" is everybody) to `{repository prefix: actions}`; `asked` records what came: (method, user,
    scopes). `refresh` is the identity token that POST accepts.
    """

    issuer, service = "tests-issuer", "tests-registry"

    def __init__(self, folder: Path, seconds: int = 300) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.key, self.certificate = folder / "token.key", folder / "token.crt"
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", self.certificate, "-days", "2",
            "-subj", "/CN=token", "-addext", "keyUsage=critical,keyCertSign,digitalSignature",
        )  # fmt: skip
        self.seconds = seconds
        self.refresh = "identity-token-of-builder"
        self.allowed = {"": {"public/": "pull"}, USER: {"": "pull,push,delete"}}
        self.asked: list[tuple[str, str, tuple[str, ...]]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    @property
    def realm(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def auth(self) -> dict:
        """The `auth` section of a registry that trusts this service."""
        return {
            "token": {
                "realm": self.realm,
                "service": self.service,
                "issuer": self.issuer,
                "rootcertbundle": str(self.certificate),
            }
        }

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, user: str, scopes: tuple[str, ...]) -> str:
        """A signed token for those of the scopes' actions that the user may do."""
        access = [self._granted(user, *scope.split(":")) for scope in scopes if scope.count(":") == 2]
        now = int(time.time())
        claims = {
            "iss": self.issuer, "sub": user, "aud": self.service, "exp": now + self.seconds, "nbf": now - 5, "iat": now,
            "jti": str(time.monotonic_ns()), "access": [entry for entry in access if entry["actions"]],
        }  # fmt: skip
        der = ssl.PEM_cert_to_DER_cert(self.certificate.read_text())
        header = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        signed = f"{_segment(header)}.{_segment(claims)}"
        signature = _openssl("dgst", "-sha256", "-sign", self.key, data=signed.encode())
        return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def _granted(self, user: str, kind: str, name: str, actions: str) -> dict:
        may = {
            act
            for prefix, acts in self.allowed.get(user, {}).items()
            if name.startswith(prefix)
            for act in acts.split(",")
        }
        return {"type": kind, "name": name, "actions": sorted(set(actions.split(",")) & may)}

    def _handler(service) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = parse_qsl(urlsplit(self.path).query)
                scopes = tuple(value for name, value in query if name == "scope")
                given = self.headers.get("Authorization", "")
                right = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                service.asked.append(("GET", USER if given else "", scopes))
                self.answer("" if not given else USER if given == right else None, scopes, "token")

            def do_POST(self) -> None:
                form = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                scopes = tuple(form.get("scope", [""])[0].split())
                service.asked.append(("POST", USER, scopes))
                good = form.get("refresh_token") == [service.refresh] and form.get("grant_type") == ["refresh_token"]
                self.answer(USER if good else None, scopes, "access_token")

            def answer(self, user: str | None, scopes: tuple[str, ...], name: str) -> None:
                if user is None:
                    body, status = b'{"errors":[{"code":"UNAUTHORIZED","message":"no such user"}]}', 401
                else:
                    body, status = (
                        json.dumps({name: service.token(user, scopes), "expires_in": service.seconds}).encode(),
                        200,
                    )
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _segment(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def ask(host: str, method: str, path: str, headers: dict | None = None) -> tuple[int, bytes]:
    """(status, body) of a bare request to a registry: what it has, seen without the code under test."""
    connection = http.client.HTTPConnection(host, timeout=5)
    try:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_for(what: Callable[[], T], seconds: float = 10.0) -> T:
    """The first true answer of `what`; raises AssertionError when none came in time."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain"
        time.sleep(0.02)
    return found


@dataclass(frozen=True)
class Ended:
    """A command that ended: its exit code (negative for a signal), what it wrote, the most memory it had (bytes)."""

    code: int
    out: str
    err: str
    memory: int = 0

    @property
    def text(self) -> str:
        return self.out + self.err


@dataclass(frozen=True)
class Kiln:
    """The command as a user calls it, on a home of its own. `env` is on top of a small environment."""

    home: Path
    env: Mapping[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    python: str = sys.executable

    @property
    def store(self) -> Path:
        return self.home / "store"

    def argv(self, *words: object) -> list[str]:
        return [*self.prefix, self.python, "-m", "kiln", "--home", str(self.home), *map(str, words)]

    def environment(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR", "LANG") if name in os.environ}
        return {**kept, "PYTHONPATH": str(SOURCE), "HOME": str(self.home), **self.env}

    def start(self, *words: object, **more: Any) -> subprocess.Popen[bytes]:
        """Starts it in a process group of its own; its output is in pipes unless `more` says otherwise."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        return subprocess.Popen(
            self.argv(*words), env=self.environment(), start_new_session=True, cwd="/", **{**pipes, **more}
        )

    def run(self, *words: object, code: int | None = 0, data: bytes = b"", seconds: float = 60) -> Ended:
        """Runs it to its end; another exit code than `code`, and any traceback, fails the test."""
        ended = self._run(words, data, seconds)
        assert "Traceback" not in ended.err and "a fault in Kiln" not in ended.err, ended.err
        assert code is None or ended.code == code, f"exit code {ended.code}, not {code}:\n{ended.text}"
        return ended

    def _run(self, words: tuple[object, ...], data: bytes, seconds: float) -> Ended:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as given:
            given.write(data)
            given.seek(0)
            process = self.start(*words, stdin=given, stdout=out, stderr=err)
            timer = threading.Timer(seconds, process.kill)
            timer.start()
            memory = _most_memory(process)
            timer.cancel()
            out.seek(0)
            err.seek(0)
            return Ended(process.returncode, out.read().decode(), err.read().decode(errors="replace"), memory)

    def build(self, context: object, *flags: object, code: int | None = 0, **more: Any) -> Ended:
        """`kiln build` with plain progress."""
        return self.run("build", "--progress", "plain", *flags, context, code=code, **more)

    def digest(self, name: str) -> str:
        """The digest of what a name of the store points at."""
        found = [entry for entry in self.index() if entry["annotations"][REF_NAME].endswith(name)]
        assert len(found) == 1, (name, found)
        return found[0]["digest"]

    def index(self) -> list[dict]:
        return json.loads((self.store / "index.json").read_bytes())["manifests"]

    def blob(self, digest: str) -> bytes:
        return (self.store / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes()

    def manifest(self, name: str) -> dict:
        """The manifest of an image of the store."""
        return json.loads(self.blob(self.digest(name)))

    def config(self, name: str) -> dict:
        """The config of an image of the store."""
        return json.loads(self.blob(self.manifest(name)["config"]["digest"]))

    def layers(self, name: str) -> list[dict[str, Member]]:
        """The members of each layer by name."""
        return [members(self.blob(layer["digest"])) for layer in self.manifest(name)["layers"]]

    def files(self, name: str) -> Mapping[str, FlatEntry]:
        """The files of an image by path, as a container would see them."""
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "image.tar"
            Path(folder).chmod(0o777)
            with tempfile.TemporaryDirectory() as empty:
                (Path(empty) / "Dockerfile").write_text(f"FROM {name}\n")
                Path(empty).chmod(0o755)
                self.build(empty, "--output", f"type=oci,dest={place}")
            return read_image(place).files

    def blob_of_base(self) -> bytes:
        """The layer of the busybox image as a plain tar."""
        return gzip.decompress(self.blob(self.manifest("base:latest")["layers"][0]["digest"]))

    def blobs(self) -> set[str]:
        return {path.name for path in (self.store / "blobs" / "sha256").iterdir()}

    def damaged(self) -> list[str]:
        """What is wrong with the store: blobs that have not their digest, names that lead nowhere."""
        wrong = [
            path.name
            for path in (self.store / "blobs" / "sha256").iterdir()
            if hashlib.sha256(path.read_bytes()).hexdigest() != path.name
        ]
        return wrong + [entry["digest"] for entry in self.index() for entry in self._lost(entry["digest"])]

    def _lost(self, digest: str) -> list[dict]:
        if digest.partition(":")[2] not in self.blobs():
            return [{"digest": digest}]
        document = json.loads(self.blob(digest))
        if "manifests" in document:
            return [lost for entry in document["manifests"] for lost in self._lost(entry["digest"])]
        wanted = [document["config"], *document["layers"]]
        return [entry for entry in wanted if entry["digest"].partition(":")[2] not in self.blobs()]

    def scratch(self) -> list[str]:
        """What lies in the folder for scratch space."""
        return sorted(path.name for path in (self.store / "tmp").iterdir())

    def mounts(self) -> list[str]:
        """Mounts of this mount namespace that have to do with the home."""
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{self.home}/" in line]


def _most_memory(process: subprocess.Popen[bytes]) -> int:
    """Waits for a process; the most memory it had (bytes). Not from wait4: that counts what this process had when it
    forked."""
    most = 0
    while process.poll() is None:
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            most = max(most, 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1]))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return most


class Member(tarfile.TarInfo):
    """A member with its content."""

    data = b""


def members(blob: bytes) -> dict[str, Member]:
    """The members of a layer (gzip, zstd or plain) by name; a file's content is its attribute `data`."""
    if blob.startswith(b"\x28\xb5\x2f\xfd"):
        from backports import zstd

        blob = zstd.decompress(blob)
    with tarfile.open(fileobj=io.BytesIO(blob), tarinfo=Member) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            member.data = content.read() if content else b""
            found[member.name] = member
        return found


def processes_with(word: str) -> list[int]:
    """Processes that have this word in their command line, this one left out."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (folder / "cmdline").read_bytes() and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def is_below(pid: int, top: int) -> bool:
    """Whether a process is another one, or was started by it or by what it started. One that has ended is not."""
    while pid > 1 and pid != top:
        try:
            pid = int((Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
    return pid == top


def cgroups_of(pid: int) -> list[Path]:
    """The folders of Kiln's cgroups that a process is in."""
    found = []
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        path = line.split(":", 2)[2]
        if "/kiln/" in path:
            found += [folder for root in CGROUPS for folder in [Path(f"{root}{path}")] if folder.is_dir()]
    return found


CGROUPS = ["/sys/fs/cgroup", *map(str, Path("/sys/fs/cgroup").glob("[a-z]*/"))]


class Http:
    """A small HTTP server: `answers` maps a path to (status, headers, body); a body that is callable writes itself."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = dict(answers)
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(server) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(f"{self.command} {self.path}")
                status, headers, body = server.answers.get(self.path.partition("?")[0], (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if not callable(body) and "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    if callable(body):
                        body(self.wfile)
                    elif self.command != "HEAD":
                        self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def foreign_image(*layers: bytes, diff_ids: list[str] | None = None, name: str = "hostile") -> dict[str, Any]:
    """The answers of a registry (for `Http`) that has one image of these plain tars, whatever is in them."""
    digests = [sha256_of(layer) for layer in layers]
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": diff_ids or digests},
        }
    ).encode()
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps(
        {
            "schemaVersion": 2, "mediaType": kind,
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha256_of(config), "size": len(config)},
            "layers": [
                {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(layer)}
                for digest, layer in zip(digests, layers, strict=True)
            ],
        }
    ).encode()  # fmt: skip
    headers = {"Content-Type": kind, "Docker-Content-Digest": sha256_of(manifest)}
    return {
        "/v2/": (200, {}, b"{}"),
        f"/v2/{name}/manifests/1": (200, headers, manifest),
        f"/v2/{name}/manifests/{sha256_of(manifest)}": (200, headers, manifest),
        f"/v2/{name}/blobs/{sha256_of(config)}": (200, {}, config),
        **{f"/v2/{name}/blobs/{digest}": (200, {}, layer) for digest, layer in zip(digests, layers, strict=True)},
    }


def sha256_of(data: bytes) -> str:
    """The digest of bytes, as a registry names it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class DockerDaemon:
    """A Docker daemon by hand, with folders and a socket of its own and no network for containers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = f"unix://{folder}/docker.sock"

    def start(self) -> DockerDaemon:
        """Starts it and waits until it answers; raises RuntimeError with its log if it does not."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "daemon.json").write_text("{}")
        self._log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [
                "dockerd", f"--config-file={self.folder}/daemon.json", f"--data-root={self.folder}/data",
                f"--exec-root={self.folder}/exec", f"--pidfile={self.folder}/pid", f"--host={self.socket}",
                "--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=overlay2",
            ],
            stdout=self._log, stderr=self._log, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(self._answers, 20)
        except AssertionError:
            self.stop()
            raise RuntimeError((self.folder / "log").read_text()[-2000:]) from None
        return self

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise AssertionError("it ended")
        return subprocess.run(["docker", "-H", self.socket, "info"], capture_output=True, check=False).returncode == 0

    def __call__(self, *words: str) -> str:
        """The output of a docker command."""
        done = subprocess.run(["docker", "-H", self.socket, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    def stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
