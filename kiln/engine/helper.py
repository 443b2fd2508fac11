"""The engine's side of the worker process: starts it when the first RUN needs it, maps ids, passes requests on."""

from __future__ import annotations

import getpass
import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from kiln.engine import wire
from kiln.engine.cancel import Cancel
from kiln.errors import SandboxError

_PATIENCE_SECONDS = 5.0

Output = Callable[[bytes, int], None]
T = TypeVar("T")


class Helper:
    """One worker process for one build; made on first use, ended by `close`."""

    def __init__(self, cancel: Cancel, environment: Mapping[str, str]) -> None:
        self._cancel = cancel
        self._environment = environment
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._entered = False

    def prepare(self) -> None:
        """Starts the worker without waiting for it: a request will come soon."""
        with self._lock:
            if self._control is None:
                self._control = self._start()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kiln.engine.worker", str(theirs.fileno())],
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True, cwd="/",
                env={**self._environment, "PYTHONPATH": self._module_path()},
            )  # fmt: skip
        return ours

    def _ready(self) -> socket.socket:
        """The control socket of a worker that has entered its namespace."""
        if self._control is None:
            self._control = self._start()
        if not self._entered:
            assert self._process is not None
            try:
                self._enter(self._control, self._process.pid)
            except BaseException:
                self._control.close()
                self._control = None
                self._process.kill()
                raise
            self._entered = True
        return self._control

    def _enter(self, ours: socket.socket, pid: int) -> None:
        state = ours.recv(4096)
        if state[:1] == b"u":
            map_ids(pid)
            ours.sendall(b"m")
        elif state[:1] != b"r":
            raise SandboxError(
                f"a user namespace cannot be made: {state[1:].decode(errors='replace') or 'the worker ended'}",
                hint="Run as root, or allow user namespaces (see `kiln doctor`).",
            )

    def _module_path(self) -> str:
        """Where the worker finds Kiln and, as this process does, what it is made of."""
        return os.pathsep.join(filter(None, [str(Path(__file__).parents[2]), self._environment.get("PYTHONPATH", "")]))

    def _connect(self, output: list[int]) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self._lock, theirs:
            socket.send_fds(self._ready(), [b"r"], [theirs.fileno(), *output])
        return ours

    def run(self, request: wire.Request, output: Output, cancel: Cancel | None = None) -> wire.Reply:
        """Hands a request over and waits; `output` gets what the command writes, with 1 or 2 for its stream.

        Raises `CancelledBuild` when `cancel` (or the whole session) stops meanwhile, `SandboxError` when the step could
        not be set up.
        """
        cancel = cancel or self._cancel
        pipes = [os.pipe(), os.pipe()]
        try:
            connection = self._connect([write for _, write in pipes])
        finally:
            for _, write in pipes:
                os.close(write)
        readers = [
            threading.Thread(target=_pump, args=(read, number, output), daemon=True)
            for number, (read, _) in enumerate(pipes, 1)
        ]
        for reader in readers:
            reader.start()
        with connection:
            reply = self._exchange(connection, request, cancel)
        for reader in readers:
            reader.join()
        cancel.check()
        return _checked(reply)

    def _exchange(self, connection: socket.socket, request: wire.Request, cancel: Cancel) -> wire.Reply | None:
        def end() -> None:
            connection.shutdown(socket.SHUT_WR)

        try:
            wire.send(connection, request)
            with cancel.ending(end):
                data = wire.receive(connection)
        except OSError:
            return None
        return wire.decode(data, wire.Reply) if data else None

    def shell(self, request: wire.ShellRequest) -> int:
        """Opens a shell on this process's own terminal; returns its exit code."""
        with self._connect([0, 1, 2]) as connection:
            return _checked(self._exchange(connection, request, self._cancel)).code

    def remove(self, paths: list[Path]) -> None:
        """Removes folders with the worker's rights."""
        if paths:
            self.run(wire.RemoveRequest(tuple(map(str, paths))), lambda data, stream: None)

    def close(self) -> None:
        """Ends the worker and everything it runs."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            if not _ends(self._process.pid, _PATIENCE_SECONDS):
                self._process.kill()
            self._process.wait()


def _ends(pid: int, seconds: float) -> bool:
    """Whether a child ends in that time. (Popen.wait with a timeout looks only every 50 ms.)"""
    watch, poll = os.pidfd_open(pid), select.poll()
    poll.register(watch, select.POLLIN)
    try:
        return bool(poll.poll(1000 * seconds))
    finally:
        os.close(watch)


def _checked(reply: wire.Reply | None) -> wire.Reply:
    if reply is None:
        raise SandboxError(
            "the worker process ended unexpectedly", hint="See `kiln doctor`; was it killed for lack of memory?"
        )
    if reply.code < 0:
        raise SandboxError(reply.error, hint=reply.hint or "See `kiln doctor` for what this machine can do.")
    return reply


def _pump(read: int, stream: int, output: Output) -> None:
    with open(read, "rb", buffering=0) as pipe:
        while data := pipe.read(1 << 16):
            output(data, stream)


def subordinate_ids(path: Path, user: str, uid: int) -> list[tuple[int, int]]:
    """(first, count) ranges of a user in /etc/subuid or /etc/subgid."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return []
    rows = [line.split(":") for line in lines if line.count(":") == 2]
    return [
        (int(first), int(count))
        for name, first, count in rows
        if name in (user, str(uid)) and first.isdigit() and count.isdigit()
    ]


def map_ids(pid: int) -> None:
    """Maps root of a new user namespace to this user and the ids from 1 on to the user's subordinate ranges."""
    user, uid, gid = getpass.getuser(), os.getuid(), os.getgid()
    for tool, path, own in (("newuidmap", Path("/etc/subuid"), uid), ("newgidmap", Path("/etc/subgid"), gid)):
        ranges = subordinate_ids(path, user, uid)
        if not shutil.which(tool) or not ranges:
            raise SandboxError(
                f"without root, RUN needs {tool} and a range of ids for {user} in {path}",
                hint=f"Install the package uidmap and add a line such as `{user}:100000:65536` to {path}.",
            )
        argv = [tool, str(pid), "0", str(own), "1"]
        inside = 1
        for first, count in ranges:
            argv += [str(inside), str(first), str(count)]
            inside += count
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SandboxError(f"{tool} failed: {done.stderr.strip()}", hint=f"Check the range for {user} in {path}.")
