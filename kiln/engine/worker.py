"""The worker: a process without threads that forks one handler for each RUN step.

It is a process of its own because making namespaces needs one without threads, and because a user without root works
inside a user namespace, where unpacked layers can have owners. A request comes with its own connection and the
descriptors for the command's output; when the connection closes, the handler ends the command.

Started as `python -m kiln.engine.worker FD` with the control socket as FD.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path

from kiln.engine import sandbox, seccomp, wire
from kiln.engine.files import LayerFiles
from kiln.engine.upper import write_upper
from kiln.errors import KilnError
from kiln.oci.digest import chain_id
from kiln.store.blobs import Blobs
from kiln.store.entry import FILE, Entry
from kiln.store.files import try_lock
from kiln.store.layer import Layer
from kiln.store.layers import Layers
from kiln.store.snapshots import Snapshots
from kiln.store.unpack import Unpacker

_GRACE_SECONDS = 3.0
# A layer as large as that (bytes) is compressed by the engine, beside the steps that follow.
_PLAIN_ABOVE = 4 << 20


def main() -> None:
    """Serves requests until the control socket closes."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Handlers live too short to gain from collections, which would also unshare pages of what they were forked from.
    gc.disable()
    handlers: set[int] = set()
    with contextlib.suppress(ConnectionError):  # closed before it was spoken to
        overlay = _enter(control)
        seccomp.program()
        _serve(control, overlay, handlers)
    _end(handlers)
    os._exit(0)


def _serve(control: socket.socket, overlay: str, handlers: set[int]) -> None:
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 4)
        if not message:
            return
        pid = os.fork()
        if pid == 0:
            control.close()
            sandbox.die_with_parent()
            _handle(descriptors, overlay)
        handlers.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        handlers -= _reap()


def _end(handlers: set[int]) -> None:
    """Handlers see that their connection closed and clean up; those that do not in time are killed."""
    deadline = time.monotonic() + _GRACE_SECONDS
    while (handlers := handlers - _reap()) and time.monotonic() < deadline:
        time.sleep(0.01)
    for pid in handlers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _reap() -> set[int]:
    ended = set()
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended.add(pid)
    return ended


def _enter(control: socket.socket) -> str:
    """Becomes root of a user namespace if it is not root; returns overlayfs's attribute prefix. The engine writes the
    id maps (it says so with one byte)."""
    if os.geteuid() == 0:
        control.sendall(b"r")
        return "trusted" if _in_first_namespace() else "user"
    try:
        sandbox.unshare(sandbox.CLONE_NEWUSER)
    except sandbox.SetupError as bad:
        control.sendall(b"x" + str(bad).encode())
        sys.exit(1)
    control.sendall(b"u")
    if control.recv(1) != b"m":
        sys.exit(1)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    with contextlib.suppress(PermissionError):
        os.setgroups([])
    return "user"


def _in_first_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _handle(descriptors: list[int], overlay: str) -> None:
    """The whole life of a handler process."""
    connection = socket.socket(fileno=descriptors[0])
    ending = contextlib.ExitStack()
    try:
        request: wire.Request = wire.decode(wire.receive(connection), wire.Request)  # type: ignore[arg-type]
        reply = _answer(request, connection, descriptors[1:], overlay, ending)
    except KilnError as bad:
        reply = wire.Reply(code=-1, error=str(bad), hint=bad.hint)
    except sandbox.SetupError as bad:
        reply = wire.Reply(code=-1, error=str(bad))
    except BaseException as bad:  # noqa: BLE001 (a forked process has nobody above it)
        reply = wire.Reply(code=-1, error=f"{type(bad).__name__}: {bad}")
    with contextlib.suppress(OSError):
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        wire.send(connection, reply)
    # Nobody waits for the cleaning.
    with contextlib.suppress(Exception):
        ending.close()
    os._exit(0)


def _answer(
    request: wire.Request, connection: socket.socket, output: list[int], overlay: str, ending: contextlib.ExitStack
) -> wire.Reply:
    if isinstance(request, wire.RemoveRequest):
        for path in request.paths:
            shutil.rmtree(path, ignore_errors=True)
        return wire.Reply()
    if isinstance(request, wire.UnpackRequest):
        layers = _layers(request.store, request.scratch)
        snapshots = Snapshots(Path(request.store), layers, Path(request.scratch), overlay)
        snapshots.lowers(request.stack.diff_ids, request.stack.descriptors)
        return wire.Reply()
    if isinstance(request, wire.ShellRequest):
        return _Step(request.run, overlay, connection, ending).shell(output)
    return _Step(request, overlay, connection, ending).run(output)


def _layers(store: str, scratch: str) -> Layers:
    blobs = Blobs(Path(store))
    blobs.scratch = Path(scratch)
    return Layers(Path(store), blobs)


class _Step:
    """One RUN step inside a handler."""

    def __init__(
        self, request: wire.RunRequest, overlay: str, connection: socket.socket, ending: contextlib.ExitStack
    ) -> None:
        self.connection = connection
        self.ending = ending
        self.request = request
        self.overlay = overlay
        self.folder = Path(request.scratch) / f"run-{request.id}"
        self.layers = _layers(request.store, request.scratch)
        self.locks: list[int] = []
        self.snapshots = Snapshots(Path(request.store), self.layers, Path(request.scratch), overlay)

    def run(self, output: list[int]) -> wire.Reply:
        """Runs the command, then makes the layer."""
        begin = time.monotonic()
        for name in ("upper", "work", "bundle"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "upper").chmod(0o755)
        self.ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.ending.callback(sandbox.remove_cgroup, self.request.id)
        code = self._execute(self._command(self.request.args), output)
        if code == 0:
            return wire.Reply(layer=self._commit(), seconds=time.monotonic() - begin)
        if self.request.debug:
            self.ending.pop_all()
            self.ending.callback(sandbox.remove_cgroup, self.request.id)
        return wire.Reply(code=code, seconds=time.monotonic() - begin)

    def shell(self, output: list[int]) -> wire.Reply:
        """A shell where a failed step stopped; then its folder goes."""
        # A mount with `volatile` leaves a mark that keeps its folders from being mounted again.
        shutil.rmtree(self.folder / "work" / "work" / "incompat", ignore_errors=True)
        self.ending.callback(shutil.rmtree, self.folder, ignore_errors=True)
        self.ending.callback(sandbox.remove_cgroup, self.request.id)
        return wire.Reply(code=self._execute(self._command(("/bin/sh", "-i")), output))

    def _command(self, args: tuple[str, ...]) -> sandbox.Command:
        request = self.request
        return sandbox.Command(
            id=request.id, args=args, env=request.env, cwd=request.cwd, uid=request.uid, gid=request.gid,
            groups=request.groups, lowers=self._lowers(request.stack), upper=str(self.folder / "upper"),
            work=str(self.folder / "work"), bundle=str(self.folder / "bundle"), runtime=request.runtime,
            overlay=self.overlay, network=request.network, mounts=tuple(self._mount(wish) for wish in request.mounts),
            resolv_conf=request.resolv_conf, hosts=request.hosts, seccomp=seccomp.profile(),
            seccomp_program=seccomp.program(),
        )  # fmt: skip

    def _lowers(self, stack: wire.Stack) -> tuple[str, ...]:
        return tuple(str(path) for path in self.snapshots.lowers(stack.diff_ids, stack.descriptors))

    def _mount(self, wish: wire.MountWish) -> sandbox.Mount:
        """A mount as the sandbox takes it: every folder is at hand."""
        kind, source = wish.kind, wish.source
        lowers: tuple[str, ...] = ()
        if wish.kind == "cache":
            kind, source = "bind", self._cache_folder(wish)
        elif wish.kind == "bind" and wish.stack is not None:
            kind, lowers = "overlay", self._lowers(wish.stack)
        elif wish.kind == "bind":
            source = wish.folder
        return sandbox.Mount(
            kind=kind, target=wish.target, source=source, writable=wish.writable, lowers=lowers, size=wish.size,
            data=wish.data, mode=wish.mode, uid=wish.uid, gid=wish.gid,
        )  # fmt: skip

    def _cache_folder(self, wish: wire.MountWish) -> str:
        """The folder of a cache mount: waited for if it is `locked`; one of its own if it is `private` and in use."""
        place = Path(wish.folder)
        os.utime(place.parent)
        number = 0
        while True:
            folder = place if number == 0 else place.with_name(f"data-{number}")
            if wish.sharing == "shared":
                break
            fd = try_lock(place.parent / f"lock-{number}")
            if fd is not None:
                self.locks.append(fd)
                break
            if wish.sharing == "private":
                number += 1
            elif select.select([self.connection], [], [], 0.05)[0]:
                raise KilnError("cancelled while it waited for a cache mount")
        if not folder.exists():
            self._make_cache(wish, folder)
        return str(folder)

    def _make_cache(self, wish: wire.MountWish, folder: Path) -> None:
        """A cache folder that is new gets its owner, mode, and what its `from` holds."""
        work = self.folder / f"new-{folder.parent.name}"
        work.mkdir(parents=True, exist_ok=True)
        entry = None
        if wish.stack is not None and wish.stack.diff_ids:
            entry = self._fill_cache(work, wish.stack, wish.source)
        mode, uid, gid = (0o755, 0, 0) if entry is None else (entry.mode, entry.uid, entry.gid)
        os.chown(work, uid if wish.uid < 0 else wish.uid, gid if wish.gid < 0 else wish.gid)
        work.chmod(mode if wish.mode < 0 else wish.mode & 0o777 & ~0o022)
        with contextlib.suppress(OSError):
            work.rename(folder)

    def _fill_cache(self, work: Path, stack: wire.Stack, source: str) -> Entry | None:
        """Copies what a stage has at a path; returns the entry of the folder itself."""
        files = LayerFiles(self.layers, stack.diff_ids, stack.descriptors)
        tree = self.layers.tree(stack.diff_ids, stack.descriptors)
        with Unpacker(work) as unpacker:
            for path, node in tree.walk(source):
                below = path[len(source) :].lstrip("/")
                content = files.chunks(path, node.entry) if node.entry.kind == FILE else iter(())
                unpacker.add(below, node.entry, content)
            unpacker.finish()
        return tree.get(source) if source else None

    def _execute(self, command: sandbox.Command, output: list[int]) -> int:
        """The command's exit code. The connection closing ends it."""
        failure_read, failure_write = os.pipe()
        null = os.open(os.devnull, os.O_RDONLY)
        stdin, stdout, stderr = output if len(output) == 3 else (null, output[0], output[-1])
        pid = sandbox.start(command, stdin, stdout, stderr, failure_write)
        os.close(failure_write)
        self._look_below()
        code = _wait(pid, self.connection)
        failure = os.read(failure_read, 65536).decode(errors="replace")
        if failure:
            raise sandbox.SetupError(failure)
        return code

    def _look_below(self) -> None:
        """What the layer will be compared with is read while the command runs, not after it."""
        stack = self.request.stack
        with contextlib.suppress(KilnError):
            self.layers.tree(stack.diff_ids, stack.descriptors)

    def _commit(self) -> Layer:
        upper = self.folder / "upper"
        stack = self.request.stack
        with self.layers.writer(self.request.compression, plain_above=_PLAIN_ABOVE) as writer:
            stubs = {"etc/resolv.conf", "etc/hosts"} | {
                os.path.normpath(wish.target).lstrip("/") for wish in self.request.mounts if wish.kind != "env"
            }
            write_upper(upper, writer, lambda: self.layers.tree(stack.diff_ids, stack.descriptors), stubs, self.overlay)
            layer = writer.finish()
            self.layers.remember(layer, writer.toc)
        self.snapshots.adopt(upper, chain_id((*stack.diff_ids, layer.diff_id)))
        return layer


def _wait(pid: int, connection: socket.socket) -> int:
    poll = select.poll()
    watch = os.pidfd_open(pid)
    poll.register(watch, select.POLLIN)
    poll.register(connection, select.POLLIN | select.POLLHUP)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if watch in ready:
            _, status = os.waitpid(pid, 0)
            os.close(watch)
            return os.waitstatus_to_exitcode(status) % 256
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise KilnError("cancelled")


if __name__ == "__main__":
    main()
