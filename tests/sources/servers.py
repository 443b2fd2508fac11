"""HTTP servers on loopback that tests tell what to answer, and a resolver that tells the dialer where hosts are."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Answer = Callable[["Asked", socket.socket], None]


@dataclass
class Asked:
    """One request: its first line's words, and its headers by lower-case name."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass
class Server:
    """Answers each connection with what `answer` writes; `asked` are the requests, in order."""

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def serving(answer: Answer, wrap: Callable[[socket.socket], socket.socket] = lambda sock: sock) -> Iterator[Server]:
    """A server for the time of the block; every connection is for one request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        stopped = threading.Event()

        def handle(connection: socket.socket) -> None:
            with contextlib.suppress(OSError), wrap(connection) as wrapped:
                wrapped.settimeout(10)
                request = _read(wrapped)
                if request is not None:
                    server.asked.append(request)
                    answer(request, wrapped)

        def accept() -> None:
            while not stopped.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = listener.accept()
                    threading.Thread(target=handle, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            stopped.set()
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), 1):
                pass
            thread.join(5)


def _read(connection: socket.socket) -> Asked | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return None
        data += piece
    first, *lines = data.decode("latin-1").split("\r\n\r\n")[0].split("\r\n")
    method, target, _ = first.split(" ")
    return Asked(method, target, {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)})


def reply(connection: socket.socket, body: bytes = b"", status: str = "200 OK", **headers: str) -> None:
    """A whole answer; `_` in the names of headers stands for `-`. Content_Length="" leaves the length out."""
    fields = {"Content-Length": str(len(body)), "Connection": "close"}
    fields |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value)
    connection.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)


def sends(body: bytes = b"content", status: str = "200 OK", **headers: str) -> Answer:
    """An answer that is always the same."""
    return lambda asked, connection: reply(connection, body, status, **headers)


def redirects(to: str, status: str = "302 Found") -> Answer:
    """An answer that leads elsewhere."""
    return sends(b"", status, Location=to)


@dataclass
class Resolver:
    """Host names and the addresses that they have, one list for each look-up, the last one for all further ones."""

    names: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> list[object]:
        self.asked.append(host)
        if host not in self.names:
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        answers = self.names[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port))
            for address in found
        ]
