"""Cases: what is built. Read from cases/<group>.yml, each a list of mappings whose keys are the fields of `Case`."""

from __future__ import annotations

import base64
import errno
import functools
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from .tree import Spec, content, write_tree

HERE = Path(__file__).parent
HTTP_PORT = 18765  # fixed, since the address is written into the image's history
_RUNS = re.compile(r"^\s*(ONBUILD\s+)?RUN\b", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Case:
    """One build. `contexts` maps a name to a tree or to {"image": reference}; `secrets` an id to {"value": text, "env": variable or absent}."""

    name: str
    group: str = ""
    dockerfile: str = ""
    dockerfile_base64: str = ""
    dockerfile_name: str = "Dockerfile"
    dockerfile_outside: bool = False
    files: Mapping[str, Spec] = field(default_factory=dict)
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    contexts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    secrets: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    http: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    fails: bool = False
    error_contains: str = ""
    note: str = ""
    equivalent: Mapping[str, Any] = field(default_factory=dict)

    def asked(self) -> Case:
        """The case that BuildKit is given: this one, or with the `dockerfile` and `files` of `equivalent`.

        For what BuildKit builds only with a frontend from a registry; `equivalent.history` maps the lines that come out to those expected.
        """
        return replace(self, **{key: self.equivalent[key] for key in ("dockerfile", "files") if key in self.equivalent})

    @property
    def id(self) -> str:
        """The name to select the case by."""
        return f"{self.group}/{self.name}"

    @property
    def source(self) -> bytes:
        """The Dockerfile as bytes."""
        return base64.b64decode(self.dockerfile_base64) if self.dockerfile_base64 else self.dockerfile.encode()

    @property
    def needs_root(self) -> bool:
        """Whether the build runs a command, which takes a container runtime."""
        return bool(_RUNS.search(self.source.decode("utf-8", "replace"))) or "FROM base3" in self.dockerfile


@dataclass(frozen=True, slots=True)
class Laid:
    """A case on disk, and the flags that both builders understand."""

    context: Path
    dockerfile: Path
    flags: tuple[str, ...]
    environment: Mapping[str, str]


@functools.cache
def load_cases() -> tuple[Case, ...]:
    """Every case, by group and in the order written. Raises ValueError for a name given twice."""
    cases = [case for path in sorted((HERE / "cases").glob("*.yml")) for case in _load(path)]
    seen: set[str] = set()
    for case in cases:
        if case.id in seen:
            raise ValueError(f"two cases are named {case.id}")
        seen.add(case.id)
    return tuple(cases)


def lay_out(case: Case, folder: Path, seen_from: Path = Path("/")) -> Laid:
    """Write the case's files below `folder`. The flags name paths as a builder sees them whose root is `seen_from`."""
    context = folder / "context"
    write_tree(context, case.files)
    dockerfile = (folder if case.dockerfile_outside else context) / case.dockerfile_name
    dockerfile.parent.mkdir(parents=True, exist_ok=True)
    dockerfile.write_bytes(case.source)
    seen = functools.partial(_seen, root=seen_from)
    flags = [
        *_plain_flags(case),
        *(flag for item in case.contexts.items() for flag in _context_flags(folder, *item, seen=seen)),
        *(flag for item in case.secrets.items() for flag in _secret_flags(folder, *item, seen=seen)),
    ]
    environment = {s["env"]: s["value"] for s in case.secrets.values() if "env" in s}
    return Laid(Path(seen(context)), Path(seen(dockerfile)), tuple(flags), environment)


@contextmanager
def served(case: Case) -> Iterator[None]:
    """While inside, the case's `http` files are served on this machine's loopback address."""
    if not case.http:
        yield
        return
    server = _server(_handler(case.http))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _server(handler: type[BaseHTTPRequestHandler]) -> ThreadingHTTPServer:
    """A server at the fixed port, as soon as another test process has left it. Raises OSError when none does."""
    for _ in range(600):
        try:
            return ThreadingHTTPServer(("127.0.0.1", HTTP_PORT), handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(0.1)
    return ThreadingHTTPServer(("127.0.0.1", HTTP_PORT), handler)


def _load(path: Path) -> Iterator[Case]:
    for raw in yaml.load(path.read_text(), Loader=yaml.CSafeLoader):
        yield Case(group=path.stem, **raw)


def _seen(path: Path, root: Path) -> str:
    return "/" + str(path.resolve().relative_to(root.resolve()))


def _plain_flags(case: Case) -> list[str]:
    flags = ["--target", case.target] if case.target else []
    flags += [part for key, value in case.args.items() for part in ("--build-arg", f"{key}={value}")]
    return flags + [part for key, value in case.labels.items() for part in ("--label", f"{key}={value}")]


def _context_flags(folder: Path, name: str, spec: Mapping[str, Any], seen: Any) -> list[str]:
    if "image" in spec:
        return ["--build-context", f"{name}=docker-image://{spec['image']}"]
    place = folder / f"context-{name}"
    write_tree(place, spec.get("files", {}))
    return ["--build-context", f"{name}={seen(place)}"]


def _secret_flags(folder: Path, name: str, spec: Mapping[str, str], seen: Any) -> list[str]:
    if "env" in spec:
        return ["--secret", f"id={name},env={spec['env']}"]
    place = folder / f"secret-{name}"
    place.write_text(spec["value"])
    return ["--secret", f"id={name},src={seen(place)}"]


def _handler(files: Mapping[str, Mapping[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def log_message(self, *args: object) -> None:
            """Nothing is logged."""

        def _answer(self, with_body: bool) -> None:
            spec = files.get(self.path.partition("?")[0], {"status": 404, "text": "no such file\n"})
            data = content(spec)
            self.send_response(int(spec.get("status", 200)))
            self.send_header("Content-Length", str(len(data)))
            for key, value in spec.get("headers", {}).items():
                self.send_header(key, value)
            self.end_headers()
            if with_body:
                self.wfile.write(data)

    return Handler
