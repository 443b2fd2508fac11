"""Repositories made in a temporary folder, and a server that hands them out as GitHub does: git's own http-backend."""

from __future__ import annotations

import base64
import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from kiln.engine.cancel import Cancel
from kiln.settings import Settings, read
from kiln.sources.mirror import Mirrors

_WHO = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b.c", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b.c"}
PATH = os.environ["PATH"]


def git(folder: Path, *words: object) -> str:
    """What a git command prints, with nothing of the user's configuration."""
    env = {"PATH": PATH, "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1", "GIT_ALLOW_PROTOCOL": "file:http", **_WHO}
    done = subprocess.run(["git", *map(str, words)], cwd=folder, env=env, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def repository(place: Path, files: dict[str, str | bytes]) -> Path:
    """A repository with one commit on the branch main."""
    place.mkdir(parents=True)
    git(place, "init", "-q", "-b", "main")
    git(place, "config", "protocol.file.allow", "always")
    commit(place, files)
    return place


def commit(place: Path, files: dict[str, str | bytes]) -> str:
    """Adds files and commits; returns the id."""
    for name, content in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    git(place, "add", "-A", "-f")
    git(place, "commit", "-q", "-m", "x")
    return git(place, "rev-parse", "HEAD")


def settings(home: Path, **environment: str) -> Settings:
    """Settings with a home of their own."""
    home.mkdir(exist_ok=True)
    return read({"PATH": PATH, "HOME": str(home), **environment})


def mirrors(root: Path, **environment: str) -> Mirrors:
    """Mirrors below a folder."""
    return Mirrors(root / "git", settings(root / "home", **environment), Cancel())


def digest_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class GitServer:
    """Serves the repositories below `root`. `asked` are the requests: "refs" and "fetch"; `password` guards all of it;
    `old` speaks the first protocol only, in which a server hands out nothing but what a branch points to; `dumb` is a server of files alone."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()
        self.password, self.old, self.dumb = "", False, False
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self, b"")

            def do_POST(self) -> None:
                server.answer(self, self._body())

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = b""
                while size := int(self.rfile.readline().strip(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return body

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, body: bytes) -> None:
        wanted = "Basic " + base64.b64encode(self.password.encode()).decode()
        if self.password and request.headers.get("Authorization") != wanted:
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="git"')
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        path, _, query = request.path.partition("?")
        if self.dumb:
            file = self.root / path.lstrip("/")
            content = file.read_bytes() if file.is_file() else b""
            request.send_response(200 if file.is_file() else 404)
            request.send_header("Content-Length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
            return
        env = {
            "PATH": PATH, "GIT_PROJECT_ROOT": str(self.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "QUERY_STRING": query, "REQUEST_METHOD": request.command, "HOME": str(self.root),
            "CONTENT_TYPE": request.headers.get("Content-Type", ""), "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*",
        }  # fmt: skip
        if not self.old:
            env["HTTP_GIT_PROTOCOL"] = env["GIT_PROTOCOL"] = request.headers.get("Git-Protocol", "")
        if b"command=ls-refs" in body:
            self.asked.append("refs")
        elif request.command == "POST":
            self.asked.append("fetch")
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
        status = next((value for name, value in fields if name == "Status"), "200 OK")
        request.send_response(int(status.split()[0]))
        for name, value in fields:
            if name != "Status":
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[GitServer]:
    """A server that runs while inside."""
    server = GitServer(root)
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()
