"""Real peers that tests start: Debian's docker-registry in its variants, a certificate authority, a token service.

Everything listens on loopback only, on a free port, and ends with the test session.
"""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlsplit

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
